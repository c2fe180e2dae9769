/* disk_test: a SATA disk at its controller's registers, with a file behind it whose requests the test
 * can hold back or let fail. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ata/ahci_fixture.h"
#include "base/test.h"

#define TABLE   0x4000u /* of slot n: n KiB from here on */
#define DATA    0x20000u
#define SECTORS 64u

static struct ahci_fixture fix;
static struct block_req *held[AHCI_SLOTS];
static unsigned holds, fails, submitted, discards, fuas;
static bool hold, told_full;
static int told_error, failure;

void __real_block_submit(struct block *block, struct block_req *r);
void __wrap_block_submit(struct block *block, struct block_req *r);

void __wrap_block_submit(struct block *block, struct block_req *r)
{
	submitted++;
	fuas += r->flags & BLOCK_FUA;
	discards += r->op == BLOCK_DISCARD;
	if (fails) {
		fails--;
		r->done(r, failure);
	} else if (hold)
		held[holds++] = r;
	else
		__real_block_submit(block, r);
}

static void space(void *arg, bool full)
{
	told_full = full;
}

static void failed(void *arg, enum block_op op, int error)
{
	told_error = error;
}

static void put(uint32_t reg, uint32_t v)
{
	fixture_put(&fix, reg, v);
}

static uint32_t get(uint32_t reg)
{
	return fixture_get(&fix, reg);
}

static int set_up(bool discard, bool write_through)
{
	char path[] = "/tmp/ata-disk-test-XXXXXX";
	const struct block_opts image = {
		.file = path, .format = "raw", .cache = BLOCK_CACHE_WRITEBACK, .discard = true};

	holds = fails = submitted = discards = fuas = 0;
	hold = told_full = false;
	told_error = 0;
	fixture_image(path, SECTORS, DISK_SECTOR, 0);
	fixture_init(&fix, &image,
		     &(struct ahci_drive){.kind = ATA_DISK,
					  .serial = "S-1",
					  .discard = discard,
					  .write_through = write_through,
					  .retry_ns = 1000000,
					  .space = space,
					  .failed = failed});
	return 0;
}

static int setup(void **state)
{
	return set_up(true, false);
}

static int setup_plain(void **state)
{
	return set_up(false, true);
}

static int teardown(void **state)
{
	fixture_done(&fix);
	return 0;
}

static uint8_t *ram(gpa_t at)
{
	return fixture_ram(&fix, at);
}

/* The slot's buffer. */
static uint8_t *data(unsigned slot)
{
	return ram(DATA + slot * 0x1000);
}

/* A command in a slot, with one buffer of len bytes. */
static uint8_t *prepare(unsigned slot, uint8_t command, uint64_t lba, uint16_t count, uint32_t len)
{
	uint8_t *head = ram(LIST) + 32 * slot, *f = ram(TABLE) + 1024 * slot;

	memset(f, 0, 256);
	memset(head, 0, 32);
	store_le(head, 5 | (len ? 1u << 16 : 0), 4);
	store_le(head + 8, TABLE + 1024 * slot, 8);
	f[0] = 0x27;
	f[1] = 0x80;
	f[2] = command;
	store_le(f + 4, lba, 3);
	store_le(f + 8, lba >> 24, 3);
	f[7] = 0x40;
	store_le(f + 12, count, 2);
	store_le(f + 0x80, DATA + slot * 0x1000, 8);
	store_le(f + 0x8c, len - 1, 4);
	return f;
}

static void prepare_queued(unsigned slot, bool write, uint64_t lba, uint16_t count)
{
	uint8_t *f = prepare(slot, write ? 0x61 : 0x60, lba, 0, count * DISK_SECTOR);

	f[3] = (uint8_t)count;
	f[11] = (uint8_t)(count >> 8);
	f[12] = (uint8_t)(slot << 3);
}

static void turn(void)
{
	assert_true(loop_once(io_thread_loop(fix.io)) >= 0);
}

/* Starts slot 0 and waits until it has ended, or failed; returns the task file. */
static uint32_t go(void)
{
	put(P_IS, ~0u);
	put(P_CI, 1);
	while (!get(P_IS))
		turn();
	return get(P_TFD);
}

static uint32_t command(uint8_t what, uint64_t lba, uint16_t count, uint32_t len)
{
	prepare(0, what, lba, count, len);
	return go();
}

static void queue(uint32_t slots)
{
	put(P_SACT, slots);
	put(P_CI, slots);
}

static void restart(void)
{
	put(P_CMD, 0x16);
	while (get(P_CMD) & 0x8000)
		turn();
	put(P_IS, ~0u);
	put(P_CMD, 0x17);
}

/* --- */

static void it_identifies_itself(void **state)
{
	uint8_t sum = 0;

	assert_int_equal(get(PORT + 0x24), 0x101);
	assert_int_equal(command(0xec, 0, 0, 512), 0x50);
	assert_memory_equal(data(0) + 20, "-S 1", 4);
	assert_memory_equal(data(0) + 54, "oHol nidks", 10);
	assert_int_equal(load_le(data(0) + 120, 4), SECTORS);
	assert_int_equal(load_le(data(0) + 200, 8), SECTORS);
	assert_int_equal(load_le(data(0) + 338, 2), 1);
	assert_int_equal(load_le(data(0) + 170, 2) & 0x20, 0x20);
	for (unsigned i = 0; i < 512; i++)
		sum += data(0)[i];
	assert_int_equal(sum, 0);
	assert_int_equal(ram(FISES)[0x20], 0x5f);
	assert_int_equal(command(0xa1, 0, 0, 512), 0x451); /* it is no CD */
}

static void all_kinds_of_reads_read(void **state)
{
	static const uint8_t reads[] = {0x20, 0x24, 0x25, 0x29, 0xc4, 0xc8};

	for (unsigned i = 0; i < sizeof reads; i++) {
		memset(data(0), 0xff, 4096);
		assert_int_equal(command(reads[i], 9 + i, 2, 1024), 0x50);
		assert_int_equal(data(0)[511], 9 + i);
		assert_int_equal(data(0)[512], 10 + i);
		assert_int_equal(data(0)[1024], 0xff);
		assert_int_equal(load_le(ram(LIST) + 4, 4), 1024);
		assert_int_equal(get(P_CI), 0);
		assert_true(fix.b.wire[pci_intx_gsi(6, 1)].level);
	}
	assert_int_equal(command(0x40, 0, SECTORS, 0), 0x50);
}

static void all_kinds_of_writes_write(void **state)
{
	static const uint8_t writes[] = {0x30, 0x34, 0x35, 0x39, 0x3d, 0xc5, 0xca, 0xce};

	for (unsigned i = 0; i < sizeof writes; i++) {
		memset(data(0), 0xa0 + (int)i, 1024);
		assert_int_equal(command(writes[i], 20 + 2 * i, 2, 1024), 0x50);
	}
	assert_int_equal(fuas, 2);
	assert_int_equal(command(0xe7, 0, 0, 0), 0x50);
	assert_int_equal(command(0xea, 0, 0, 0), 0x50);
	for (unsigned i = 0; i < sizeof writes; i++) {
		assert_int_equal(command(0x25, 20 + 2 * i, 2, 1024), 0x50);
		assert_int_equal(data(0)[0], 0xa0 + i);
		assert_int_equal(data(0)[1023], 0xa0 + i);
	}
	assert_int_equal(command(0x25, 19, 1, 512), 0x50);
	assert_int_equal(data(0)[0], 19);
}

static void without_the_write_cache_each_write_is_flushed(void **state)
{
	assert_int_equal(command(0xca, 0, 1, 512), 0x50);
	assert_int_equal(fuas, 1);
	prepare(0, 0xef, 0, 0, 0)[3] = 0x02;
	assert_int_equal(go(), 0x50);
	assert_int_equal(command(0xca, 0, 1, 512), 0x50);
	assert_int_equal(fuas, 1);
	assert_int_equal(command(0xec, 0, 0, 512), 0x50);
	assert_int_equal(load_le(data(0) + 170, 2) & 0x20, 0x20);
	assert_int_equal(load_le(data(0) + 338, 2), 0);
	fix.ahci->type->reset(fix.ahci); /* it comes up without it, as it did at first */
	assert_true(container_of(fix.ahci, struct ahci, dev)->port[0].no_cache);
}

static void what_is_not_on_the_disk_is_an_error(void **state)
{
	assert_int_equal(command(0x25, SECTORS - 1, 2, 1024), 0x1051);
	assert_int_equal(load_le(ram(FISES) + 0x44, 3), SECTORS - 1);
	assert_int_equal(get(P_CI), 1);
	restart();
	assert_int_equal(command(0x35, ~0ull, 1, 512), 0x1051);
	restart();
	assert_int_equal(command(0x25, 0, 0, 512), 0x1051); /* 65536 sectors */
	restart();
	assert_int_equal(command(0x25, 0, 2, 512), 0x451); /* buffers for one */
	restart();
	prepare(0, 0x25, 0, 1, 512)[7] = 0;
	assert_int_equal(go(), 0x451);
	assert_int_equal(submitted, 0);
	restart();
	assert_int_equal(command(0x25, SECTORS - 1, 1, 512), 0x50);
}

static void queued_commands_run_at_once_and_end_in_any_order(void **state)
{
	hold = true;
	prepare_queued(0, false, 5, 1);
	prepare_queued(3, true, 6, 2);
	memset(data(3), 0xee, 1024);
	prepare_queued(31, false, 7, 1);
	queue(0x80000009);
	while (holds < 3)
		turn();
	assert_int_equal(get(P_CI), 0);
	assert_int_equal(get(P_SACT), 0x80000009);
	for (unsigned i = 0; i < 3; i++)
		if (held[i]->op == BLOCK_WRITE)
			__real_block_submit(fix.image, held[i]);
	while (!(get(P_IS) & IS_SDB))
		turn();
	assert_int_equal(get(P_SACT), 0x80000001);
	assert_int_equal(ram(FISES)[0x58], 0xa1);
	assert_int_equal(load_le(ram(FISES) + 0x5c, 4), 8);
	for (unsigned i = 0; i < 3; i++)
		if (held[i]->op == BLOCK_READ)
			__real_block_submit(fix.image, held[i]);
	while (get(P_SACT))
		turn();
	assert_int_equal(data(0)[0], 5);
	assert_int_equal(data(31)[0], 0xee); /* by now it was written */
	assert_int_equal(get(P_IS) & IS_TFE, 0);
}

static void others_wait_for_the_queue_to_be_empty(void **state)
{
	hold = true;
	prepare_queued(1, false, 5, 1);
	queue(2);
	while (!holds)
		turn();
	prepare(0, 0xe7, 0, 0, 0);
	put(P_CI, 1);
	turn();
	assert_int_equal(get(P_CI), 1);
	assert_int_equal(holds, 1);
	hold = false;
	__real_block_submit(fix.image, held[0]);
	while (get(P_CI) || get(P_SACT))
		turn();
	assert_int_equal(get(P_TFD), 0x50);
}

static void the_log_tells_which_of_the_queue_failed(void **state)
{
	fails = 1;
	failure = -EIO;
	prepare_queued(2, false, 33, 1);
	queue(4);
	while (!get(P_IS))
		turn();
	assert_int_equal(get(P_IS) & (IS_TFE | IS_SDB), IS_TFE | IS_SDB);
	assert_int_equal(get(P_TFD), 0x4051);
	assert_int_equal(get(P_SACT), 4);
	assert_int_equal(told_error, EIO);
	restart();
	assert_int_equal(get(P_SACT), 0);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(command(0x2f, 0x10, 1, 512), 0x50);
		assert_int_equal(data(0)[0], i ? 0x80 : 2);
		assert_int_equal(data(0)[3], i ? 0 : ATA_UNC);
		assert_int_equal(data(0)[4], i ? 0 : 33);
	}
	assert_int_equal(command(0x2f, 0, 1, 512), 0x50);
	assert_int_equal(load_le(data(0) + 0x20, 2), 1);
	/* a tag that is not its slot; what cannot be queued */
	prepare_queued(5, false, 1, 1);
	(ram(TABLE) + 5 * 1024)[12] = 6 << 3;
	queue(32);
	while (!(get(P_IS) & IS_TFE))
		turn();
	restart();
	prepare(5, 0xca, 1, 1, 512)[12] = 5 << 3;
	queue(32);
	while (!(get(P_IS) & IS_TFE))
		turn();
	restart();
	assert_int_equal(command(0x60, 0, 0, 512), 0x451); /* not queued */
}

static void what_the_driver_stopped_ends_unheard(void **state)
{
	hold = true;
	prepare_queued(0, false, 5, 1);
	queue(1);
	while (!holds)
		turn();
	put(P_CMD, 0x16);
	put(P_IS, ~0u);
	assert_true(get(P_CMD) & 0x8000);
	put(P_CMD, 0x17);
	prepare_queued(0, false, 6, 1);
	queue(1); /* too early; it waits */
	turn();
	assert_int_equal(holds, 1);
	__real_block_submit(fix.image, held[0]);
	while (holds < 2)
		turn();
	assert_int_equal(get(P_IS), 0);
	__real_block_submit(fix.image, held[1]);
	while (get(P_SACT))
		turn();
	assert_int_equal(data(0)[0], 6);
}

static void trimmed_sectors_are_given_back(void **state)
{
	uint8_t *f = prepare(0, 0x06, 0, 1, 512);

	memset(data(0), 0, 512);
	store_le(data(0), 8 | (uint64_t)8 << 48, 8);
	store_le(data(0) + 16, 32 | (uint64_t)16 << 48, 8);
	f[3] = 1;
	assert_int_equal(go(), 0x50);
	assert_int_equal(discards, 2);
	store_le(data(0) + 504, SECTORS | (uint64_t)1 << 48, 8);
	assert_int_equal(go(), 0x1051);
	restart();
	assert_int_equal(command(0x06, 0, 1, 512), 0x451); /* not TRIM */
	restart();
	prepare(0, 0x06, 0, 2, 1024)[3] = 1;
	assert_int_equal(go(), 0x451);
}

static void without_discard_there_is_no_trim(void **state)
{
	memset(data(0), 0, 512);
	prepare(0, 0x06, 0, 1, 512)[3] = 1;
	assert_int_equal(go(), 0x451);
}

static void without_space_a_write_waits(void **state)
{
	fails = 2;
	failure = -ENOSPC;
	prepare_queued(0, true, 5, 1);
	prepare_queued(1, true, 6, 1);
	queue(3);
	while (fails)
		turn();
	assert_true(told_full);
	assert_int_equal(get(P_SACT), 3);
	while (get(P_SACT))
		turn();
	assert_false(told_full);
	assert_int_equal(told_error, 0);
}

static void a_stop_does_not_wait_for_space(void **state)
{
	fails = ~0u;
	failure = -ENOSPC;
	prepare(0, 0xca, 5, 1, 512);
	put(P_CI, 1);
	while (!told_full)
		turn();
	ahci_pause(fix.ahci);
	assert_false(told_full);
	assert_int_equal(get(P_TFD), 0x451);
}

static void random_commands_hurt_nobody(void **state)
{
	unsigned seed = 1;

	for (unsigned i = 0; i < 20000; i++) {
		unsigned slot = (unsigned)rand_r(&seed) % 4;
		bool queued = rand_r(&seed) % 2;
		uint8_t *f = prepare(slot, (uint8_t)rand_r(&seed), (uint64_t)rand_r(&seed) % 70,
				     (uint16_t)(rand_r(&seed) % 9), (uint32_t)rand_r(&seed) % 4096);

		if (queued)
			prepare_queued(slot, rand_r(&seed) % 2, (uint64_t)rand_r(&seed) % 70, 1);
		for (int n = rand_r(&seed) % 4; n; n--)
			f[rand_r(&seed) % 160] = (uint8_t)rand_r(&seed);
		if (queued)
			put(P_SACT, 1u << slot);
		put(P_CI, 1u << slot);
		turn();
		if (rand_r(&seed) % 8 == 0)
			put((uint32_t)rand_r(&seed) % 0x200 & ~3u, (uint32_t)rand_r(&seed));
		if (rand_r(&seed) % 8 == 0) {
			put(PORT + 0x00, LIST);
			put(PORT + 0x04, 0);
			put(PORT + 0x2c, 0);
			restart();
		}
	}
}

#define TEST(f)       cmocka_unit_test_setup_teardown(f, setup, teardown)
#define PLAIN_TEST(f) cmocka_unit_test_setup_teardown(f, setup_plain, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(it_identifies_itself),
		TEST(all_kinds_of_reads_read),
		TEST(all_kinds_of_writes_write),
		PLAIN_TEST(without_the_write_cache_each_write_is_flushed),
		TEST(what_is_not_on_the_disk_is_an_error),
		TEST(queued_commands_run_at_once_and_end_in_any_order),
		TEST(others_wait_for_the_queue_to_be_empty),
		TEST(the_log_tells_which_of_the_queue_failed),
		TEST(what_the_driver_stopped_ends_unheard),
		TEST(trimmed_sectors_are_given_back),
		PLAIN_TEST(without_discard_there_is_no_trim),
		TEST(without_space_a_write_waits),
		TEST(a_stop_does_not_wait_for_space),
		TEST(random_commands_hurt_nobody),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
