#include "ata/ahci_priv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/test.h"
#include "chipset/test_board.h"

#define BAR     0xc0000000u
#define PORT0   0x100u
#define LIST    0x1000u
#define FISES   0x2000u
#define TABLE   0x3000u
#define DATA    0x10000u
#define SECTORS 8u

static struct test_board b;
static struct device *host, *ahci;
static struct io_thread *io;
static struct block_ctx *ctx;
static struct block *cd;

static void make_image(char path[])
{
	int fd = mkstemp(path);
	uint8_t sector[CD_SECTOR];

	assert_true(fd >= 0);
	for (unsigned i = 0; i < SECTORS; i++) {
		memset(sector, 'a' + (int)i, sizeof sector);
		assert_int_equal(write(fd, sector, sizeof sector), sizeof sector);
	}
	close(fd);
}

static void config(unsigned reg, uint32_t v)
{
	bus_write(b.bus, BUS_PIO, PORT_PCI_CONFIG, 0x80000000u | 6 << 11 | reg, 4);
	bus_write(b.bus, BUS_PIO, PORT_PCI_CONFIG + 4, v, 4);
}

static void put(uint32_t reg, uint32_t v)
{
	board_store(&b, BAR + reg, v);
}

static uint32_t get(uint32_t reg)
{
	return board_load(&b, BAR + reg);
}

static int setup(void **state)
{
	char path[] = "/tmp/ahci-test-XXXXXX";
	struct block_opts image = {
		.file = path, .format = "raw", .read_only = true, .cache = BLOCK_CACHE_WRITEBACK};
	struct ahci_opts o = {0};

	make_image(path);
	board_init(&b);
	assert_int_equal(mem_new(&b.env.mem, MIB(1), NULL), 0);
	host = board_add(&b, &pci_host_type);
	assert_int_equal(io_thread_new(&io, "cd", NULL), 0);
	assert_int_equal(block_ctx_new(&ctx, io_thread_loop(io), BLOCK_ENGINE_THREADS, NULL), 0);
	assert_int_equal(block_open(&cd, ctx, &image, NULL), 0);
	unlink(path);
	o.mem = b.env.mem;
	o.io = io;
	o.drive[0] = (struct ahci_drive){.kind = ATA_CDROM, .image = cd};
	assert_int_equal(ahci_new(&ahci, host, 6 << 3, &o, NULL), 0);
	config(0x24, BAR);
	config(PCI_COMMAND, PCI_COMMAND_MEM | PCI_COMMAND_MASTER);
	put(PORT0 + 0x00, LIST);
	put(PORT0 + 0x08, FISES);
	put(PORT0 + 0x14, 0x7dc0007f);
	put(PORT0 + 0x18, 0x17);
	put(4, 0x80000002);
	return 0;
}

static int teardown(void **state)
{
	ahci_pause(ahci);
	ahci->type->free(ahci);
	assert_int_equal(block_close(cd, NULL), 0);
	block_ctx_free(ctx);
	io_thread_free(io);
	host->type->free(host);
	mem_free(b.env.mem);
	board_done(&b);
	return 0;
}

static uint8_t *ram(gpa_t at)
{
	return mem_span(b.env.mem, at, 1);
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
	put(PORT0 + 0x10, ~0u);
	put(PORT0 + 0x38, 1);
	for (unsigned i = 0; i < 1000 && !get(PORT0 + 0x10); i++)
		assert_true(loop_once(io_thread_loop(io)) >= 0);
	return get(PORT0 + 0x20);
}

static uint32_t packet(const uint8_t cdb[16], uint32_t len)
{
	prepare(0xa0, cdb, len);
	return go();
}

static void restart(void)
{
	put(PORT0 + 0x18, 0x16);
	put(PORT0 + 0x18, 0x17);
}

static void a_port_with_a_cd_has_a_link_and_its_signature(void **state)
{
	assert_int_equal(get(0x0c), 0xff);
	assert_int_equal(get(PORT0 + 0x28), 0x113);
	assert_int_equal(get(PORT0 + 0x24), 0xeb140101);
	assert_int_equal(get(PORT0 + 0x80 + 0x28), 0);
}

static void sectors_are_read_and_told_by_interrupt(void **state)
{
	const uint8_t read2[16] = {0x28, 0, 0, 0, 0, 3, 0, 0, 2};

	assert_int_equal(packet(read2, 2 * CD_SECTOR), 0x50);
	assert_int_equal(ram(DATA)[0], 'd');
	assert_int_equal(ram(DATA)[CD_SECTOR], 'e');
	assert_int_equal(ram(DATA)[2 * CD_SECTOR], 0);
	assert_int_equal(get(PORT0 + 0x38), 0);
	assert_int_equal(load_le(ram(LIST) + 4, 4), 2 * CD_SECTOR);
	assert_int_equal(ram(FISES)[0x40], 0x34);
	assert_true(b.wire[pci_intx_gsi(6, 1)].level);
	put(PORT0 + 0x10, ~0u);
	put(8, ~0u);
	assert_false(b.wire[pci_intx_gsi(6, 1)].level);
}

static void what_is_not_on_the_cd_is_an_error_until_the_port_starts_again(void **state)
{
	const uint8_t beyond[16] = {0x28, 0, 0, 0, 0, 7, 0, 0, 2};
	const uint8_t ready[16] = {0}, sense[16] = {3, 0, 0, 0, 18};

	assert_int_equal(packet(beyond, 2 * CD_SECTOR) & 1, 1);
	assert_int_equal(get(PORT0 + 0x10) & 0x40000000, 0x40000000);
	assert_int_equal(get(PORT0 + 0x38), 1);
	restart();
	assert_int_equal(get(PORT0 + 0x38), 0);
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
	put(PORT0 + 0x04, 0xffffffff);
	put(PORT0 + 0x0c, 0xffffffff);
	assert_int_equal(go() & 1, 1);
}

static void it_identifies_itself(void **state)
{
	prepare(0xa1, NULL, 512);
	assert_int_equal(go(), 0x50);
	assert_int_equal(load_le(ram(DATA), 2), 0x85c0);
	assert_memory_equal(ram(DATA) + 54, "oHol nDCR-MO", 12);
	assert_int_equal(get(PORT0 + 0x10) & 2, 2);
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
		put(PORT0 + 0x00, LIST);
		put(PORT0 + 0x04, 0);
		put(PORT0 + 0x2c, 0);
		put(PORT0 + 0x38, 1);
		assert_true(loop_once(io_thread_loop(io)) >= 0);
		put(PORT0 + 0x18, 0x16);
		while (get(PORT0 + 0x18) & 0x8000)
			assert_true(loop_once(io_thread_loop(io)) >= 0);
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
