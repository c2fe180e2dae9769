/* blk_life_test: turns, stops, waiting for space, saving and loading. */
#include "virtio/blk.h"

#include <errno.h>
#include <string.h>

#include "base/test.h"
#include "virtio/blk_fixture.h"

/* --- turns, stops --- */

static void a_queue_that_has_much_lets_others_have_their_turn(void **state)
{
	struct fake_used used;
	unsigned done = 0;

	set_up(&(struct virtio_blk_opts){.queues = 2}, VIRTIO_BLK_F_FLUSH | VIRTIO_BLK_F_MQ);
	put_header(0, VIRTIO_BLK_T_FLUSH, 0);
	for (unsigned i = 0; i < 100; i++)
		assert_true(fake_add(&bench.guest.q[0], FAKE_OUT(HEADERS, 16),
				     FAKE_IN(STATUS, 1)) >= 0);
	virtio_kick(bench.dev, 0);
	assert_int_equal(disk.ops, 64);
	fake_add(&bench.guest.q[1], FAKE_OUT(HEADERS, 16), FAKE_IN(STATUS + 1, 1));
	virtio_kick(bench.dev, 1);
	assert_int_equal(status(1), VIRTIO_BLK_S_OK);
	assert_int_equal(disk.ops, 65);
	assert_int_equal(loop_once(bench.loop), 0);
	assert_int_equal(disk.ops, 101);
	while (take(&used))
		done++;
	assert_int_equal(done, 100);
	assert_int_equal(bench.guest.irqs[0], 2);
}

static void a_stop_waits_for_what_is_in_flight(void **state)
{
	struct fake_used used;

	set_up(&defaults, EVERYTHING);
	disk.hold = true;
	add(0, VIRTIO_BLK_T_OUT, 0, 512);
	add(1, VIRTIO_BLK_T_OUT, 1, 512);
	virtio_kick(bench.dev, 0);
	assert_false(fake_guest_stop(&bench.guest));
	add(2, VIRTIO_BLK_T_OUT, 2, 512);
	virtio_kick(bench.dev, 0);
	assert_int_equal(disk.ops, 2);
	finish(0);
	assert_int_equal(bench.guest.stops, 0);
	finish(-EIO);
	assert_int_equal(bench.guest.stops, 1);
	assert_true(take(&used) && take(&used));
	virtio_start(bench.dev); /* the third is found then */
	assert_int_equal(disk.ops, 3);
	finish(0);
	assert_int_equal(status(2), VIRTIO_BLK_S_OK);
}

static void a_stop_waits_for_a_posted_turn(void **state)
{
	set_up(&defaults, EVERYTHING);
	put_header(0, VIRTIO_BLK_T_FLUSH, 0);
	for (unsigned i = 0; i < 70; i++)
		fake_add(&bench.guest.q[0], FAKE_OUT(HEADERS, 16), FAKE_IN(STATUS, 1));
	virtio_kick(bench.dev, 0);
	assert_false(fake_guest_stop(&bench.guest));
	assert_int_equal(loop_once(bench.loop), 0);
	assert_int_equal(bench.guest.stops, 1);
	assert_int_equal(disk.ops, 64);
}

/* --- no space --- */

static void requests_without_space_wait_and_are_tried_again(void **state)
{
	struct fake_used used;

	set_up(&defaults, EVERYTHING);
	memset(at(DATA, 512), 0x31, 512);
	disk.result = -ENOSPC;
	for (unsigned i = 0; i < 3; i++)
		add(i, VIRTIO_BLK_T_OUT, i, 512);
	virtio_kick(bench.dev, 0);
	assert_int_equal(disk.ops, 3);
	assert_int_equal(bench.times_full, 1);
	assert_false(take(&used));
	assert_int_equal(loop_once(bench.loop), 0); /* one attempt, of the oldest */
	assert_int_equal(disk.ops, 4);
	assert_int_equal(disk.op[3].offset, 0);
	assert_int_equal(bench.times_full, 1);
	assert_int_equal(bench.times_space, 0);
	disk.result = 0;
	while (!bench.times_space)
		assert_int_equal(loop_once(bench.loop), 0);
	assert_int_equal(disk.ops, 7);
	assert_int_equal(bench.times_space, 1);
	for (unsigned i = 0; i < 3; i++) {
		assert_true(take(&used));
		assert_int_equal(status(i), VIRTIO_BLK_S_OK);
		assert_int_equal(disk.bytes[i * 512], 0x31);
	}
}

static void once_an_attempt_failed_again_only_one_is_made_at_a_time(void **state)
{
	set_up(&defaults, EVERYTHING);
	disk.hold = true;
	for (unsigned i = 0; i < 4; i++)
		add(i, VIRTIO_BLK_T_OUT, i, 512);
	virtio_kick(bench.dev, 0);
	for (unsigned i = 0; i < 4; i++)
		finish(-ENOSPC);
	assert_int_equal(loop_once(bench.loop), 0);
	finish(0); /* there was space for one: all others are tried */
	assert_int_equal(loop_once(bench.loop), 0);
	assert_int_equal(disk.ops, 8);
	for (unsigned i = 0; i < 3; i++)
		finish(-ENOSPC);
	assert_int_equal(loop_once(bench.loop), 0);
	assert_int_equal(disk.ops, 9);
	assert_int_equal(bench.times_full, 1);
	assert_int_equal(bench.times_space, 0);
	finish(-ENOSPC);
}

static void a_disk_may_be_full_again_and_again(void **state)
{
	set_up(&defaults, EVERYTHING);
	for (unsigned i = 1; i <= 3; i++) {
		disk.result = i & 1 ? -ENOSPC : -EDQUOT;
		add(0, VIRTIO_BLK_T_OUT, 0, 512);
		virtio_kick(bench.dev, 0);
		assert_int_equal(bench.times_full, i);
		disk.result = 0;
		assert_int_equal(loop_once(bench.loop), 0);
		assert_int_equal(bench.times_space, i);
	}
}

static void a_discard_goes_on_with_the_range_that_had_no_space(void **state)
{
	struct fake_used used;

	set_up(&defaults, EVERYTHING);
	disk.hold = true;
	put_range(0, 0, 8, 0);
	put_range(1, 16, 8, 0);
	add(0, VIRTIO_BLK_T_DISCARD, 0, 32);
	virtio_kick(bench.dev, 0);
	finish(0);
	finish(-ENOSPC);
	assert_int_equal(bench.times_full, 1);
	assert_int_equal(loop_once(bench.loop), 0);
	assert_int_equal(disk.op[2].offset, 16 * 512);
	finish(0);
	assert_int_equal(bench.times_space, 1);
	assert_true(take(&used));
	assert_int_equal(status(0), VIRTIO_BLK_S_OK);
}

static void reads_go_on_while_writes_wait(void **state)
{
	struct fake_used used;

	set_up(&defaults, EVERYTHING);
	disk.result = -ENOSPC;
	add(0, VIRTIO_BLK_T_OUT, 0, 512);
	virtio_kick(bench.dev, 0);
	disk.result = 0;
	add(1, VIRTIO_BLK_T_IN, 0, 512);
	virtio_kick(bench.dev, 0);
	assert_true(take(&used));
	assert_int_equal(status(1), VIRTIO_BLK_S_OK);
	assert_int_equal(bench.times_space, 0);
}

static void a_stop_gives_up_what_waits_for_space(void **state)
{
	set_up(&defaults, EVERYTHING);
	disk.result = -ENOSPC;
	add(0, VIRTIO_BLK_T_OUT, 0, 512);
	add(1, VIRTIO_BLK_T_OUT, 1, 512);
	virtio_kick(bench.dev, 0);
	assert_true(fake_guest_stop(&bench.guest));
	assert_int_equal(status(0), VIRTIO_BLK_S_IOERR);
	assert_int_equal(status(1), VIRTIO_BLK_S_IOERR);
	assert_int_equal(bench.times_space, 1);
}

static void a_stop_during_a_new_attempt_gives_it_up_too(void **state)
{
	set_up(&defaults, EVERYTHING);
	disk.hold = true;
	add(0, VIRTIO_BLK_T_OUT, 0, 512);
	virtio_kick(bench.dev, 0);
	finish(-ENOSPC);
	assert_int_equal(loop_once(bench.loop), 0);
	assert_false(fake_guest_stop(&bench.guest));
	finish(-ENOSPC);
	assert_int_equal(bench.guest.stops, 1);
	assert_int_equal(status(0), VIRTIO_BLK_S_IOERR);
	assert_int_equal(bench.times_space, 1);
}

/* --- state --- */

static void load_what_was_saved(struct state *from)
{
	size_t len;
	const void *bytes = state_written(from, &len);
	struct state *s = state_reader(bytes, len);

	state_begin(s, "virtio-blk", 0);
	virtio_state(bench.dev, s);
	state_end(s);
	if (state_result(s, &bench.err) < 0)
		fail_msg("%s", bench.err.text);
	state_free(s);
}

static void a_loaded_configuration_is_only_the_drivers(void **state)
{
	struct state *saved = state_writer();

	set_up(&defaults, EVERYTHING);
	write_config(CFG_WRITEBACK, 0);
	assert_true(fake_guest_stop(&bench.guest));
	state_begin(saved, "virtio-blk", 0);
	virtio_state(bench.dev, saved);
	state_end(saved);
	write_config(CFG_WRITEBACK, 1);
	disk.size = DISK / 2;
	load_what_was_saved(saved);
	state_free(saved);
	assert_int_equal(load_le(bench.dev->config + CFG_CAPACITY, 8), SECTORS / 2);
	assert_int_equal(bench.dev->config[CFG_WRITEBACK], 0);
	virtio_start(bench.dev);
	assert_int_equal(answer_to(VIRTIO_BLK_T_OUT, 0, 512), VIRTIO_BLK_S_OK);
	assert_int_equal(disk.op[0].flags, BLOCK_FUA);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_queue_that_has_much_lets_others_have_their_turn),
		TEST(a_stop_waits_for_what_is_in_flight),
		TEST(a_stop_waits_for_a_posted_turn),
		TEST(requests_without_space_wait_and_are_tried_again),
		TEST(once_an_attempt_failed_again_only_one_is_made_at_a_time),
		TEST(a_disk_may_be_full_again_and_again),
		TEST(a_discard_goes_on_with_the_range_that_had_no_space),
		TEST(reads_go_on_while_writes_wait),
		TEST(a_stop_gives_up_what_waits_for_space),
		TEST(a_stop_during_a_new_attempt_gives_it_up_too),
		TEST(a_loaded_configuration_is_only_the_drivers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
