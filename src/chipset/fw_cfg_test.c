#include "chipset/chipset.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/test.h"
#include "chipset/fw_cfg.h"
#include "chipset/test_board.h"

#define DMA        (PORT_FW_CFG + 4)
#define DESCRIPTOR 0x1000u
#define BUFFER     0x2000u

static struct test_board b;
static struct device *fw;

static int setup(void **state)
{
	board_init(&b);
	assert_int_equal(mem_new(&b.env.mem, MIB(1), NULL), 0);
	fw = board_add(&b, &fw_cfg_type);
	return 0;
}

static int teardown(void **state)
{
	fw_cfg_type.free(fw);
	mem_free(b.env.mem);
	board_done(&b);
	return 0;
}

static uint64_t item(uint16_t selector, unsigned bytes)
{
	uint64_t v = 0;

	bus_write(b.bus, BUS_PIO, PORT_FW_CFG, selector, 2);
	for (unsigned i = 0; i < bytes; i++)
		v |= bus_read(b.bus, BUS_PIO, PORT_FW_CFG + 1, 1) << 8 * i;
	return v;
}

static void signature_names_the_interface(void **state)
{
	assert_memory_equal(&(uint32_t){item(0, 4)}, "QEMU", 4);
}

static void cpus_and_memory_are_the_machines(void **state)
{
	assert_int_equal(item(5, 2), b.env.cpus);
	assert_int_equal(item(3, 8), b.env.ram_bytes);
}

static void past_an_items_end_come_zeros(void **state)
{
	item(3, 8);
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(bus_read(b.bus, BUS_PIO, PORT_FW_CFG + 1, 1), 0);
}

static void an_unknown_item_is_zero(void **state)
{
	assert_int_equal(item(0x8000, 8), 0);
}

static uint32_t be32(const uint8_t *p)
{
	return __builtin_bswap32((uint32_t)load_le(p, 4));
}

/* One transfer; returns the control word that the device leaves, 0 when all was well. */
static uint32_t dma(uint32_t control, uint32_t len, gpa_t at)
{
	uint8_t d[16];

	store_le(d, __builtin_bswap32(control), 4);
	store_le(d + 4, __builtin_bswap32(len), 4);
	store_le(d + 8, __builtin_bswap64(at), 8);
	assert_int_equal(mem_write(b.env.mem, DESCRIPTOR, d, sizeof d), 0);
	board_out32(&b, DMA, 0);
	board_out32(&b, DMA + 4, __builtin_bswap32(DESCRIPTOR));
	assert_int_equal(mem_read(b.env.mem, DESCRIPTOR, d, 4), 0);
	return be32(d);
}

#define SELECT(item) ((uint32_t)(item) << 16 | 8)
#define READ         2u
#define SKIP         4u
#define WRITE        16u

static const uint8_t *buffer(void)
{
	return mem_span(b.env.mem, BUFFER, 4096);
}

static void a_file_is_in_the_directory_under_its_name(void **state)
{
	const uint8_t *entry = buffer() + 4 + 64;

	assert_int_equal(fw_cfg_set_file(fw, "etc/one", "1", 1, NULL), 0);
	assert_int_equal(fw_cfg_set_file(fw, "etc/two", "twenty", 6, NULL), 0);
	assert_int_equal(fw_cfg_set_file(fw, "etc/two", "22222", 5, NULL), 0); /* in its place */
	assert_int_equal(dma(SELECT(0x19) | READ, 4 + 3 * 64, BUFFER), 0);
	assert_int_equal(be32(buffer()), 2);
	assert_int_equal(be32(entry), 5);
	assert_string_equal((const char *)entry + 8, "etc/two");
	assert_int_equal(dma(SELECT(entry[4] << 8 | entry[5]) | READ, 5, BUFFER + 512), 0);
	assert_memory_equal(buffer() + 512, "22222", 5);
}

static void transfers_go_on_where_the_last_one_ended(void **state)
{
	assert_int_equal(fw_cfg_set_file(fw, "f", "abcdef", 6, NULL), 0);
	assert_int_equal(dma(SELECT(0x20) | SKIP, 2, 0), 0);
	assert_int_equal(dma(READ, 2, BUFFER), 0);
	assert_memory_equal(buffer(), "cd", 2);
	memset((uint8_t *)buffer(), 0xff, 8);
	assert_int_equal(dma(READ, 8, BUFFER), 0);
	assert_memory_equal(buffer(), "ef\0\0\0\0\0\0", 8);
}

static void what_cannot_be_done_is_an_error(void **state)
{
	assert_int_equal(dma(SELECT(0) | READ, 4, MIB(1) - 2), 1);
	assert_int_equal(dma(SELECT(0) | READ, 0xffffffff, 0), 1);
	assert_int_equal(dma(SELECT(0) | READ, 4, UINT64_MAX - 1), 1);
	assert_int_equal(dma(SELECT(0) | WRITE, 4, BUFFER), 1);
	assert_int_equal(dma(SELECT(0xffff) | READ, 8, BUFFER), 0);
	assert_int_equal(dma(SELECT(0xffff) | SKIP, 0xffffffff, BUFFER), 0);
	/* A descriptor outside of RAM: nothing happens. */
	board_out32(&b, DMA, 0xffffffff);
	board_out32(&b, DMA + 4, 0);
}

static void names_and_numbers_of_files_have_limits(void **state)
{
	char name[100];
	struct err e;
	int n = 0;

	memset(name, 'x', sizeof name);
	name[56] = 0;
	assert_int_equal(fw_cfg_set_file(fw, name, "", 0, &e), -EINVAL);
	do
		snprintf(name, sizeof name, "f%d", n++);
	while (fw_cfg_set_file(fw, name, "", 0, &e) == 0);
	assert_int_equal(n, 49);
	assert_int_equal(e.code, ENOSPC);
}

static void reading_the_register_says_that_there_is_dma(void **state)
{
	assert_int_equal(item(1, 4), 3);
	assert_int_equal(board_in32(&b, DMA), 0x554d4551);
	assert_int_equal(board_in32(&b, DMA + 4), 0x47464320);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(signature_names_the_interface, setup, teardown),
		cmocka_unit_test_setup_teardown(cpus_and_memory_are_the_machines, setup, teardown),
		cmocka_unit_test_setup_teardown(past_an_items_end_come_zeros, setup, teardown),
		cmocka_unit_test_setup_teardown(an_unknown_item_is_zero, setup, teardown),
		cmocka_unit_test_setup_teardown(a_file_is_in_the_directory_under_its_name, setup,
						teardown),
		cmocka_unit_test_setup_teardown(transfers_go_on_where_the_last_one_ended, setup,
						teardown),
		cmocka_unit_test_setup_teardown(what_cannot_be_done_is_an_error, setup, teardown),
		cmocka_unit_test_setup_teardown(names_and_numbers_of_files_have_limits, setup,
						teardown),
		cmocka_unit_test_setup_teardown(reading_the_register_says_that_there_is_dma, setup,
						teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
