/* blk_test: requests: what they do, and those that are wrong. */
#include "virtio/blk.h"

#include <errno.h>
#include <string.h>

#include "base/test.h"
#include "virtio/blk_fixture.h"

/* --- data --- */

static void a_read_fills_the_drivers_pieces(void **state)
{
	struct fake_used used;

	set_up(&defaults, EVERYTHING);
	put_header(0, VIRTIO_BLK_T_IN, 4);
	fake_add(&bench.guest.q[0], FAKE_OUT(HEADERS, 16), FAKE_IN(DATA, 512),
		 FAKE_IN(DATA + 4096, 1024), FAKE_IN(STATUS, 1));
	virtio_kick(bench.dev, 0);
	assert_true(take(&used));
	assert_int_equal(used.len, 1537);
	assert_int_equal(status(0), VIRTIO_BLK_S_OK);
	assert_memory_equal(at(DATA, 512), disk.bytes + 4 * 512, 512);
	assert_memory_equal(at(DATA + 4096, 1024), disk.bytes + 5 * 512, 1024);
	assert_int_equal(bench.guest.irqs[0], 1);
}

static void a_write_takes_them(void **state)
{
	struct fake_used used;

	set_up(&defaults, EVERYTHING);
	memset(at(DATA, 1024), 0x5a, 1024);
	put_header(0, VIRTIO_BLK_T_OUT, 7);
	fake_add(&bench.guest.q[0], FAKE_OUT(HEADERS, 16), FAKE_OUT(DATA, 100),
		 FAKE_OUT(DATA + 100, 924), FAKE_IN(STATUS, 1));
	virtio_kick(bench.dev, 0);
	assert_true(take(&used));
	assert_int_equal(used.len, 1);
	assert_int_equal(status(0), VIRTIO_BLK_S_OK);
	assert_memory_equal(disk.bytes + 7 * 512, at(DATA, 1024), 1024);
	assert_int_equal(disk.bytes[9 * 512], 9);
}

static void the_driver_may_cut_a_request_anywhere(void **state)
{
	struct fake_used used;

	set_up(&defaults, EVERYTHING);
	memset(at(DATA, 512), 0x77, 512);
	put_header(0, VIRTIO_BLK_T_OUT, 1);
	memcpy(at(DATA - 8, 8), at(HEADERS + 8, 8), 8);
	/* Half of the header, the other half with the data behind it. */
	fake_add(&bench.guest.q[0], FAKE_OUT(HEADERS, 8), FAKE_OUT(DATA - 8, 520),
		 FAKE_IN(STATUS, 1));
	put_header(1, VIRTIO_BLK_T_IN, 1);
	/* The status behind the data, in one piece. */
	fake_add(&bench.guest.q[0], FAKE_OUT(HEADERS + 16, 16), FAKE_IN(DATA + 4096, 513));
	virtio_kick(bench.dev, 0);
	assert_true(take(&used) && take(&used));
	assert_int_equal(used.len, 513);
	assert_int_equal(*at(DATA + 4096 + 512, 1), VIRTIO_BLK_S_OK);
	assert_int_equal(status(0), VIRTIO_BLK_S_OK);
	assert_int_equal(disk.bytes[512], 0x77);
	assert_int_equal(disk.bytes[1023], 0x77);
	assert_memory_equal(at(DATA + 4096, 512), disk.bytes + 512, 512);
}

static void an_indirect_request_of_many_pieces_is_one_request(void **state)
{
	struct fake_buf buf[SEG_MAX + 2] = {FAKE_OUT(HEADERS, 16)};
	struct fake_used used;

	set_up(&defaults, EVERYTHING);
	put_header(0, VIRTIO_BLK_T_IN, 0);
	for (unsigned i = 0; i < SEG_MAX; i++)
		buf[i + 1] = FAKE_IN(DATA + i * 512, 512);
	buf[SEG_MAX + 1] = FAKE_IN(STATUS, 1);
	assert_true(fake_add_table(&bench.guest.q[0], TABLES, buf, ARRAY_SIZE(buf)) >= 0);
	virtio_kick(bench.dev, 0);
	assert_true(take(&used));
	assert_int_equal(status(0), VIRTIO_BLK_S_OK);
	assert_int_equal(disk.ops, 1);
	assert_memory_equal(at(DATA, SEG_MAX * 512), disk.bytes, SEG_MAX * 512);
}

static void nothing_is_answered_before_the_image_is_done(void **state)
{
	struct fake_used used;

	set_up(&defaults, EVERYTHING);
	disk.hold = true;
	add(0, VIRTIO_BLK_T_IN, 0, 512);
	add(1, VIRTIO_BLK_T_IN, 1, 512);
	virtio_kick(bench.dev, 0);
	assert_false(take(&used));
	assert_int_equal(status(0), ANSWER);
	finish(0);
	assert_int_equal(status(0), VIRTIO_BLK_S_OK);
	assert_int_equal(status(1), ANSWER);
	assert_true(take(&used));
	assert_false(take(&used));
	finish(0);
}

static void an_error_of_the_image_is_the_guests(void **state)
{
	struct fake_used used;

	set_up(&defaults, EVERYTHING);
	disk.result = -EIO;
	add(0, VIRTIO_BLK_T_IN, 0, 512);
	virtio_kick(bench.dev, 0);
	assert_true(take(&used));
	assert_int_equal(used.len, 0);
	assert_int_equal(status(0), VIRTIO_BLK_S_IOERR);
	assert_int_equal(answer_to(VIRTIO_BLK_T_OUT, 0, 512), VIRTIO_BLK_S_IOERR);
	assert_int_equal(answer_to(VIRTIO_BLK_T_FLUSH, 0, 0), VIRTIO_BLK_S_IOERR);
	assert_int_equal(bench.times_failed, 3);
	disk.result = -ENOTSUP;
	assert_int_equal(answer_to(VIRTIO_BLK_T_FLUSH, 0, 0), VIRTIO_BLK_S_UNSUPP);
	assert_int_equal(bench.times_failed, 3);
	assert_false(broken());
}

static void requests_are_used_again(void **state)
{
	set_up(&defaults, EVERYTHING);
	for (unsigned i = 0; i < 3 * BLK_QUEUE_SIZE; i++)
		assert_int_equal(answer_to(VIRTIO_BLK_T_FLUSH, 0, 0), VIRTIO_BLK_S_OK);
	assert_int_equal(to_blk(bench.dev)->queue[0].fresh, 1);
}

static unsigned pages_told;

static void count_page(struct mem_watch *w, gpa_t gpa)
{
	pages_told++;
}

/* The bench.guest may have code there. */
static void all_that_is_written_to_memory_is_told_to_its_watch(void **state)
{
	struct mem_watch watch = {count_page};

	set_up(&defaults, EVERYTHING);
	pages_told = 0;
	mem_watch(bench.mem, &watch);
	mem_mark(bench.mem, DATA);
	mem_mark(bench.mem, STATUS);
	assert_int_equal(answer_to(VIRTIO_BLK_T_IN, 0, 512), VIRTIO_BLK_S_OK);
	assert_int_equal(pages_told, 2);
	mem_mark(bench.mem, DATA);
	mem_mark(bench.mem, STATUS);
	disk.result = -EIO;
	assert_int_equal(answer_to(VIRTIO_BLK_T_IN, 0, 512), VIRTIO_BLK_S_IOERR);
	assert_int_equal(pages_told, 4);
	mem_watch(bench.mem, NULL);
}

/* --- what is written when --- */

static void a_flush_reaches_the_image(void **state)
{
	set_up(&defaults, EVERYTHING);
	assert_int_equal(answer_to(VIRTIO_BLK_T_FLUSH, 0, 0), VIRTIO_BLK_S_OK);
	assert_int_equal(disk.op[0].op, BLOCK_FLUSH);
}

static void a_driver_that_flushes_gets_writes_without_it(void **state)
{
	set_up(&defaults, EVERYTHING);
	assert_int_equal(answer_to(VIRTIO_BLK_T_OUT, 0, 512), VIRTIO_BLK_S_OK);
	assert_int_equal(disk.op[0].flags, 0);
}

static void a_driver_that_knows_no_flush_gets_each_write_flushed(void **state)
{
	set_up(&defaults, EVERYTHING & ~(VIRTIO_BLK_F_FLUSH | VIRTIO_BLK_F_CONFIG_WCE));
	assert_int_equal(answer_to(VIRTIO_BLK_T_OUT, 0, 512), VIRTIO_BLK_S_OK);
	assert_int_equal(disk.op[0].flags, BLOCK_FUA);
	put_range(0, 0, 8, 1);
	assert_int_equal(answer_to(VIRTIO_BLK_T_WRITE_ZEROES, 0, 16), VIRTIO_BLK_S_OK);
	assert_int_equal(disk.op[1].flags, BLOCK_FUA | BLOCK_UNMAP);
}

static void the_driver_may_choose_write_through(void **state)
{
	set_up(&defaults, EVERYTHING);
	assert_int_equal(bench.dev->config[CFG_WRITEBACK], 1);
	write_config(CFG_WRITEBACK, 0);
	assert_int_equal(answer_to(VIRTIO_BLK_T_OUT, 0, 512), VIRTIO_BLK_S_OK);
	assert_int_equal(disk.op[0].flags, BLOCK_FUA);
	write_config(CFG_WRITEBACK, 1);
	assert_int_equal(answer_to(VIRTIO_BLK_T_OUT, 0, 512), VIRTIO_BLK_S_OK);
	assert_int_equal(disk.op[1].flags, 0);
}

static void that_choice_ends_with_a_reset(void **state)
{
	set_up(&defaults, EVERYTHING);
	write_config(CFG_WRITEBACK, 0);
	assert_true(fake_guest_stop(&bench.guest));
	virtio_reset(bench.dev);
	assert_int_equal(bench.dev->config[CFG_WRITEBACK], 1);
}

/* --- ranges --- */

static void discards_name_ranges(void **state)
{
	set_up(&defaults, EVERYTHING);
	put_range(0, 8, 16, 0);
	put_range(1, 5, 0, 0);
	put_range(2, SECTORS - 1, 1, 0);
	assert_int_equal(answer_to(VIRTIO_BLK_T_DISCARD, 0, 48), VIRTIO_BLK_S_OK);
	assert_int_equal(disk.ops, 2);
	assert_int_equal(disk.op[0].op, BLOCK_DISCARD);
	assert_int_equal(disk.op[0].offset, 8 * 512);
	assert_int_equal(disk.op[0].len, 16 * 512);
	assert_int_equal(disk.op[1].offset, DISK - 512);
	assert_int_equal(disk.op[1].len, 512);
	assert_int_equal(answer_to(VIRTIO_BLK_T_DISCARD, 0, 24), VIRTIO_BLK_S_IOERR);
	assert_int_equal(disk.ops, 2);
}

static void zeroes_may_be_unmapped(void **state)
{
	set_up(&defaults, EVERYTHING);
	put_range(0, 0, 8, 1);
	put_range(1, 16, 8, 0);
	assert_int_equal(answer_to(VIRTIO_BLK_T_WRITE_ZEROES, 0, 32), VIRTIO_BLK_S_OK);
	assert_int_equal(disk.op[0].op, BLOCK_ZERO);
	assert_int_equal(disk.op[0].flags, BLOCK_UNMAP);
	assert_int_equal(disk.op[1].flags, 0);
	assert_int_equal(disk.op[1].offset, 16 * 512);
}

static void an_error_ends_the_ranges(void **state)
{
	set_up(&defaults, EVERYTHING);
	put_range(0, 0, 8, 0);
	put_range(1, 16, 8, 0);
	disk.result = -EIO;
	assert_int_equal(answer_to(VIRTIO_BLK_T_DISCARD, 0, 32), VIRTIO_BLK_S_IOERR);
	assert_int_equal(disk.ops, 1);
}

static void flags_that_are_not_known_are_not_supported(void **state)
{
	set_up(&defaults, EVERYTHING);
	put_range(0, 0, 8, 2);
	assert_int_equal(answer_to(VIRTIO_BLK_T_WRITE_ZEROES, 0, 16), VIRTIO_BLK_S_UNSUPP);
	assert_int_equal(answer_to(VIRTIO_BLK_T_DISCARD, 0, 16), VIRTIO_BLK_S_UNSUPP);
	put_range(0, 0, 8, 1);
	assert_int_equal(answer_to(VIRTIO_BLK_T_DISCARD, 0, 16), VIRTIO_BLK_S_UNSUPP);
	assert_int_equal(disk.ops, 0);
}

static void wrong_ranges_are_errors(void **state)
{
	static const struct {
		uint64_t sector;
		uint32_t sectors;
	} wrong[] = {{SECTORS, 1},
		     {SECTORS - 1, 2},
		     {UINT64_MAX, 1},
		     {UINT64_MAX >> 9, 8},
		     {0, UINT32_MAX}};

	set_up(&defaults, EVERYTHING);
	for (unsigned i = 0; i < ARRAY_SIZE(wrong); i++) {
		put_range(0, 0, 8, 0); /* a good one before it is not done either */
		put_range(1, wrong[i].sector, wrong[i].sectors, 0);
		assert_int_equal(answer_to(VIRTIO_BLK_T_DISCARD, 0, 32), VIRTIO_BLK_S_IOERR);
		assert_int_equal(answer_to(VIRTIO_BLK_T_WRITE_ZEROES, 0, 32), VIRTIO_BLK_S_IOERR);
	}
	assert_int_equal(answer_to(VIRTIO_BLK_T_DISCARD, 0, 33 * 16), VIRTIO_BLK_S_IOERR);
	assert_int_equal(disk.ops, 0);
	assert_false(broken());
}

static void more_than_the_limit_is_an_error_even_of_a_large_disk(void **state)
{
	disk.size = UINT64_C(1) << 62;
	set_up(&defaults, EVERYTHING);
	put_range(0, 0, ZEROES_SECTORS_MAX, 0);
	assert_int_equal(answer_to(VIRTIO_BLK_T_WRITE_ZEROES, 0, 16), VIRTIO_BLK_S_OK);
	put_range(0, 0, ZEROES_SECTORS_MAX + 1, 0);
	assert_int_equal(answer_to(VIRTIO_BLK_T_WRITE_ZEROES, 0, 16), VIRTIO_BLK_S_IOERR);
}

static void what_was_not_agreed_on_is_not_supported(void **state)
{
	set_up(&defaults, VIRTIO_BLK_F_FLUSH);
	put_range(0, 0, 8, 0);
	assert_int_equal(answer_to(VIRTIO_BLK_T_DISCARD, 0, 16), VIRTIO_BLK_S_UNSUPP);
	assert_int_equal(answer_to(VIRTIO_BLK_T_WRITE_ZEROES, 0, 16), VIRTIO_BLK_S_UNSUPP);
	assert_int_equal(answer_to(14, 0, 16), VIRTIO_BLK_S_UNSUPP); /* secure erase */
	assert_int_equal(answer_to(UINT32_MAX, 0, 0), VIRTIO_BLK_S_UNSUPP);
}

static void without_discard_it_is_not_offered(void **state)
{
	set_up(&(struct virtio_blk_opts){0}, EVERYTHING & ~VIRTIO_BLK_F_DISCARD);
	assert_false(bench.dev->offered & VIRTIO_BLK_F_DISCARD);
	assert_int_equal(bench.dev->config[CFG_WRITE_ZEROES_MAY_UNMAP], 0);
}

/* --- identity --- */

static void the_serial_can_be_read(void **state)
{
	set_up(&(struct virtio_blk_opts){.serial = "holon-1"}, EVERYTHING);
	memset(at(DATA, 24), 'x', 24);
	assert_int_equal(answer_to(VIRTIO_BLK_T_GET_ID, 0, 24), VIRTIO_BLK_S_OK);
	assert_memory_equal(at(DATA, 24), "holon-1\0\0\0\0\0\0\0\0\0\0\0\0\0xxxx", 24);
}

static void a_serial_of_twenty_bytes_has_no_end(void **state)
{
	set_up(&(struct virtio_blk_opts){.serial = "12345678901234567890"}, EVERYTHING);
	assert_int_equal(answer_to(VIRTIO_BLK_T_GET_ID, 0, 20), VIRTIO_BLK_S_OK);
	assert_memory_equal(at(DATA, 20), "12345678901234567890", 20);
	assert_int_equal(answer_to(VIRTIO_BLK_T_GET_ID, 0, 5), VIRTIO_BLK_S_OK);
}

static void options_that_cannot_be_are_refused(void **state)
{
	const struct virtio_blk_opts long_serial = {.serial = "123456789012345678901", .queues = 1};
	const struct virtio_blk_opts no_queues = {.queues = 0}, many = {.queues = 17};
	struct virtio_env env = {0};

	assert_int_equal(virtio_blk_new(&bench.dev, &env, &long_serial, &bench.err), -EINVAL);
	assert_non_null(strstr(bench.err.text, "longer than 20"));
	assert_int_equal(virtio_blk_new(&bench.dev, &env, &no_queues, &bench.err), -EINVAL);
	assert_int_equal(virtio_blk_new(&bench.dev, &env, &many, &bench.err), -EINVAL);
	assert_null(bench.dev);
}

static void the_configuration_says_what_the_disk_is(void **state)
{
	set_up(&(struct virtio_blk_opts){.discard = true, .queues = 4}, EVERYTHING);
	assert_int_equal(load_le(bench.dev->config + CFG_CAPACITY, 8), SECTORS);
	assert_int_equal(load_le(bench.dev->config + CFG_SEG_MAX, 4), 510);
	assert_int_equal(load_le(bench.dev->config + CFG_BLK_SIZE, 4), 512);
	assert_int_equal(load_le(bench.dev->config + CFG_NUM_QUEUES, 2), 4);
	assert_int_equal(load_le(bench.dev->config + CFG_MAX_DISCARD_SEG, 4), 32);
	assert_int_equal(bench.dev->config[CFG_WRITE_ZEROES_MAY_UNMAP], 1);
	assert_true(bench.dev->offered & VIRTIO_BLK_F_MQ);
	assert_false(bench.dev->offered & VIRTIO_BLK_F_RO);
}

static void a_new_size_is_announced(void **state)
{
	set_up(&defaults, EVERYTHING);
	disk.size = DISK / 2;
	virtio_blk_resized(bench.dev);
	assert_int_equal(load_le(bench.dev->config + CFG_CAPACITY, 8), SECTORS / 2);
	assert_int_equal(bench.guest.config_irqs, 1);
	assert_int_equal(answer_to(VIRTIO_BLK_T_IN, SECTORS / 2, 512), VIRTIO_BLK_S_IOERR);
}

/* --- mistakes --- */

static void outside_of_the_disk_is_an_error(void **state)
{
	set_up(&defaults, EVERYTHING);
	assert_int_equal(answer_to(VIRTIO_BLK_T_IN, SECTORS - 1, 512), VIRTIO_BLK_S_OK);
	assert_int_equal(answer_to(VIRTIO_BLK_T_IN, SECTORS, 512), VIRTIO_BLK_S_IOERR);
	assert_int_equal(answer_to(VIRTIO_BLK_T_OUT, SECTORS - 1, 1024), VIRTIO_BLK_S_IOERR);
	assert_int_equal(answer_to(VIRTIO_BLK_T_IN, UINT64_MAX, 512), VIRTIO_BLK_S_IOERR);
	assert_int_equal(answer_to(VIRTIO_BLK_T_IN, UINT64_MAX >> 9, 512), VIRTIO_BLK_S_IOERR);
	assert_int_equal(disk.ops, 1);
}

static void parts_of_sectors_are_errors(void **state)
{
	set_up(&defaults, EVERYTHING);
	assert_int_equal(answer_to(VIRTIO_BLK_T_IN, 0, 511), VIRTIO_BLK_S_IOERR);
	assert_int_equal(answer_to(VIRTIO_BLK_T_OUT, 0, 513), VIRTIO_BLK_S_IOERR);
	assert_int_equal(disk.ops, 0);
}

static void nothing_to_move_is_done_at_once(void **state)
{
	set_up(&defaults, EVERYTHING);
	assert_int_equal(answer_to(VIRTIO_BLK_T_IN, 0, 0), VIRTIO_BLK_S_OK);
	assert_int_equal(answer_to(VIRTIO_BLK_T_OUT, 0, 0), VIRTIO_BLK_S_OK);
	assert_int_equal(answer_to(VIRTIO_BLK_T_DISCARD, 0, 0), VIRTIO_BLK_S_OK);
	assert_int_equal(disk.ops, 0);
}

static void a_read_only_disk_is_only_read(void **state)
{
	disk.read_only = true;
	set_up(&(struct virtio_blk_opts){0}, VIRTIO_BLK_F_RO | VIRTIO_BLK_F_FLUSH);
	assert_int_equal(bench.dev->offered & (VIRTIO_BLK_F_RO | VIRTIO_BLK_F_DISCARD),
			 VIRTIO_BLK_F_RO);
	assert_int_equal(answer_to(VIRTIO_BLK_T_OUT, 0, 512), VIRTIO_BLK_S_IOERR);
	assert_int_equal(disk.ops, 0);
	assert_int_equal(answer_to(VIRTIO_BLK_T_IN, 0, 512), VIRTIO_BLK_S_OK);
}

static void a_request_without_a_whole_header_breaks_the_device(void **state)
{
	struct fake_used used;

	set_up(&defaults, EVERYTHING);
	fake_add(&bench.guest.q[0], FAKE_OUT(HEADERS, 15), FAKE_IN(STATUS, 1));
	virtio_kick(bench.dev, 0);
	assert_true(broken());
	assert_false(take(&used));
	assert_int_equal(status(0), ANSWER);
}

static void a_request_without_a_status_breaks_the_device(void **state)
{
	set_up(&defaults, EVERYTHING);
	put_header(0, VIRTIO_BLK_T_OUT, 0);
	fake_add(&bench.guest.q[0], FAKE_OUT(HEADERS, 16), FAKE_OUT(DATA, 512));
	virtio_kick(bench.dev, 0);
	assert_true(broken());
	assert_int_equal(disk.ops, 0);
}

static void a_chain_that_leads_out_of_memory_breaks_the_device(void **state)
{
	set_up(&defaults, EVERYTHING);
	put_header(0, VIRTIO_BLK_T_IN, 0);
	fake_add(&bench.guest.q[0], FAKE_OUT(HEADERS, 16), FAKE_IN(RAM - 256, 512),
		 FAKE_IN(STATUS, 1));
	virtio_kick(bench.dev, 0);
	assert_true(broken());
	assert_int_equal(disk.ops, 0);
}

static void what_is_in_flight_of_a_broken_device_ends_well(void **state)
{
	set_up(&defaults, EVERYTHING);
	disk.hold = true;
	add(0, VIRTIO_BLK_T_IN, 0, 512);
	fake_add(&bench.guest.q[0], FAKE_OUT(HEADERS, 3), FAKE_IN(STATUS + 1, 1));
	virtio_kick(bench.dev, 0);
	assert_true(broken());
	finish(0);
	assert_true(fake_guest_stop(&bench.guest));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_read_fills_the_drivers_pieces),
		TEST(a_write_takes_them),
		TEST(the_driver_may_cut_a_request_anywhere),
		TEST(an_indirect_request_of_many_pieces_is_one_request),
		TEST(nothing_is_answered_before_the_image_is_done),
		TEST(an_error_of_the_image_is_the_guests),
		TEST(requests_are_used_again),
		TEST(all_that_is_written_to_memory_is_told_to_its_watch),
		TEST(a_flush_reaches_the_image),
		TEST(a_driver_that_flushes_gets_writes_without_it),
		TEST(a_driver_that_knows_no_flush_gets_each_write_flushed),
		TEST(the_driver_may_choose_write_through),
		TEST(that_choice_ends_with_a_reset),
		TEST(discards_name_ranges),
		TEST(zeroes_may_be_unmapped),
		TEST(an_error_ends_the_ranges),
		TEST(flags_that_are_not_known_are_not_supported),
		TEST(wrong_ranges_are_errors),
		TEST(more_than_the_limit_is_an_error_even_of_a_large_disk),
		TEST(what_was_not_agreed_on_is_not_supported),
		TEST(without_discard_it_is_not_offered),
		TEST(the_serial_can_be_read),
		TEST(a_serial_of_twenty_bytes_has_no_end),
		TEST(options_that_cannot_be_are_refused),
		TEST(the_configuration_says_what_the_disk_is),
		TEST(a_new_size_is_announced),
		TEST(outside_of_the_disk_is_an_error),
		TEST(parts_of_sectors_are_errors),
		TEST(nothing_to_move_is_done_at_once),
		TEST(a_read_only_disk_is_only_read),
		TEST(a_request_without_a_whole_header_breaks_the_device),
		TEST(a_request_without_a_status_breaks_the_device),
		TEST(a_chain_that_leads_out_of_memory_breaks_the_device),
		TEST(what_is_in_flight_of_a_broken_device_ends_well),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
