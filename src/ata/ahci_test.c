#include "ata/ahci_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/test.h"

#define TABLE   0x3000u
#define DATA    0x10000u
#define SECTORS 8u

static struct ahci_fixture fix;

static void put(uint32_t reg, uint32_t v)
{
	fixture_put(&fix, reg, v);
}

static uint32_t get(uint32_t reg)
{
	return fixture_get(&fix, reg);
}

static int setup(void **state)
{
	char path[] = "/tmp/ahci-test-XXXXXX";
	const struct block_opts image = {
		.file = path, .format = "raw", .read_only = true, .cache = BLOCK_CACHE_WRITEBACK};

	fixture_image(path, SECTORS, CD_SECTOR, 'a');
	fixture_init(&fix, &image, &(struct ahci_drive){.kind = ATA_CDROM});
	return 0;
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

/* A command in slot 0, with one buffer of len bytes at DATA. */
static void prepare(uint8_t command, const uint8_t *cdb, uint32_t len)
{
	memset(ram(TABLE), 0, 256);
	memset(ram(LIST), 0, 32);
	store_le(ram(LIST), 5 | (cdb ? 0x20 : 0) | (len ? 1u << 16 : 0), 4);
	store_le(ram(LIST) + 8, TABLE, 8);
	ram(TABLE)[0] = 0x27;
	ram(TABLE)[1] = 0x80;
	ram(TABLE)[2] = command;
	ram(TABLE)[3] = 1;
	if (cdb)
		memcpy(ram(TABLE) + 0x40, cdb, 16);
	store_le(ram(TABLE) + 0x80, DATA, 8);
	store_le(ram(TABLE) + 0x8c, len - 1, 4);
}

/* Starts it and waits until it has ended, or failed; returns the task file. */
static uint32_t go(void)
{
	put(PORT + 0x10, ~0u);
	put(PORT + 0x38, 1);
	for (unsigned i = 0; i < 1000 && !get(PORT + 0x10); i++)
		assert_true(loop_once(io_thread_loop(fix.io)) >= 0);
	return get(PORT + 0x20);
}

static uint32_t packet(const uint8_t cdb[16], uint32_t len)
{
	prepare(0xa0, cdb, len);
	return go();
}

static void restart(void)
{
	put(PORT + 0x18, 0x16);
	put(PORT + 0x18, 0x17);
}

static void a_port_with_a_cd_has_a_link_and_its_signature(void **state)
{
	assert_int_equal(get(0x0c), 0xff);
	assert_int_equal(get(PORT + 0x28), 0x113);
	assert_int_equal(get(PORT + 0x24), 0xeb140101);
	assert_int_equal(get(PORT + 0x80 + 0x28), 0);
}

static void sectors_are_read_and_told_by_interrupt(void **state)
{
	const uint8_t read2[16] = {0x28, 0, 0, 0, 0, 3, 0, 0, 2};

	assert_int_equal(packet(read2, 2 * CD_SECTOR), 0x50);
	assert_int_equal(ram(DATA)[0], 'd');
	assert_int_equal(ram(DATA)[CD_SECTOR], 'e');
	assert_int_equal(ram(DATA)[2 * CD_SECTOR], 0);
	assert_int_equal(get(PORT + 0x38), 0);
	assert_int_equal(load_le(ram(LIST) + 4, 4), 2 * CD_SECTOR);
	assert_int_equal(ram(FISES)[0x40], 0x34);
	assert_true(fix.b.wire[pci_intx_gsi(6, 1)].level);
	put(PORT + 0x10, ~0u);
	put(8, ~0u);
	assert_false(fix.b.wire[pci_intx_gsi(6, 1)].level);
}

static void what_is_not_on_the_cd_is_an_error_until_the_port_starts_again(void **state)
{
	const uint8_t beyond[16] = {0x28, 0, 0, 0, 0, 7, 0, 0, 2};
	const uint8_t ready[16] = {0}, sense[16] = {3, 0, 0, 0, 18};

	assert_int_equal(packet(beyond, 2 * CD_SECTOR) & 1, 1);
	assert_int_equal(get(PORT + 0x10) & 0x40000000, 0x40000000);
	assert_int_equal(get(PORT + 0x38), 1);
	restart();
	assert_int_equal(get(PORT + 0x38), 0);
	assert_int_equal(packet(sense, 18), 0x50);
	assert_int_equal(ram(DATA)[2], 5);
	assert_int_equal(ram(DATA)[12], 0x21);
	assert_int_equal(packet(ready, 0), 0x50);
}

static void buffers_that_are_not_there_are_an_error(void **state)
{
	const uint8_t read1[16] = {0x28, [8] = 1};

	assert_int_equal(packet(read1, 100) & 1, 1); /* too short */
	restart();
	prepare(0xa0, read1, CD_SECTOR);
	store_le(ram(TABLE) + 0x80, MIB(1) - 1, 8);
	assert_int_equal(go() & 1, 1);
	restart();
	prepare(0xa0, read1, CD_SECTOR);
	store_le(ram(LIST) + 8, ~0ull, 8);
	assert_int_equal(go() & 1, 1);
	restart();
	put(PORT + 0x04, 0xffffffff);
	put(PORT + 0x0c, 0xffffffff);
	assert_int_equal(go() & 1, 1);
}

static void it_identifies_itself(void **state)
{
	prepare(0xa1, NULL, 512);
	assert_int_equal(go(), 0x50);
	assert_int_equal(load_le(ram(DATA), 2), 0x85c0);
	assert_memory_equal(ram(DATA) + 54, "oHol nDCR-MO", 12);
	assert_int_equal(get(PORT + 0x10) & 2, 2);
	assert_int_equal(ram(FISES)[0x20], 0x5f);
	prepare(0xec, NULL, 512); /* it is no disk */
	assert_int_equal(go(), 0x451);
}

static void capacity_and_contents_tell_the_end(void **state)
{
	const uint8_t capacity[16] = {0x25}, toc[16] = {0x43, [8] = 20};

	assert_int_equal(packet(capacity, 8), 0x50);
	assert_int_equal(ram(DATA)[3], SECTORS - 1);
	assert_int_equal(packet(toc, 20), 0x50);
	assert_int_equal(ram(DATA)[1], 18);
	assert_int_equal(ram(DATA)[19], SECTORS);
}

static void random_commands_hurt_nobody(void **state)
{
	unsigned seed = 1;

	for (unsigned i = 0; i < 3000; i++) {
		uint8_t cdb[16];

		for (unsigned n = 0; n < sizeof cdb; n++)
			cdb[n] = rand_r(&seed) % 3 ? (uint8_t)(rand_r(&seed) % 4)
						   : (uint8_t)rand_r(&seed);
		prepare(rand_r(&seed) % 4 ? 0xa0 : (uint8_t)rand_r(&seed), cdb,
			(uint32_t)rand_r(&seed) % 8192);
		if (rand_r(&seed) % 8 == 0)
			store_le(ram(TABLE) + 0x80, (uint64_t)rand_r(&seed) << 8, 8);
		if (rand_r(&seed) % 8 == 0)
			store_le(ram(LIST), (uint64_t)rand_r(&seed) << 8, 4);
		if (rand_r(&seed) % 16 == 0)
			put((uint32_t)rand_r(&seed) % 0x300 & ~3u, (uint32_t)rand_r(&seed));
		restart();
		put(PORT + 0x00, LIST);
		put(PORT + 0x04, 0);
		put(PORT + 0x2c, 0);
		put(PORT + 0x38, 1);
		assert_true(loop_once(io_thread_loop(fix.io)) >= 0);
		put(PORT + 0x18, 0x16);
		while (get(PORT + 0x18) & 0x8000)
			assert_true(loop_once(io_thread_loop(fix.io)) >= 0);
	}
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_port_with_a_cd_has_a_link_and_its_signature),
		TEST(sectors_are_read_and_told_by_interrupt),
		TEST(what_is_not_on_the_cd_is_an_error_until_the_port_starts_again),
		TEST(buffers_that_are_not_there_are_an_error),
		TEST(it_identifies_itself),
		TEST(capacity_and_contents_tell_the_end),
		TEST(random_commands_hurt_nobody),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
