#include "chipset/chipset.h"

#include "base/test.h"
#include "chipset/test_board.h"

static struct test_board b;
static struct device *fw;

static int setup(void **state)
{
	board_init(&b);
	fw = board_add(&b, &fw_cfg_type);
	return 0;
}

static int teardown(void **state)
{
	fw_cfg_type.free(fw);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(signature_names_the_interface, setup, teardown),
		cmocka_unit_test_setup_teardown(cpus_and_memory_are_the_machines, setup, teardown),
		cmocka_unit_test_setup_teardown(past_an_items_end_come_zeros, setup, teardown),
		cmocka_unit_test_setup_teardown(an_unknown_item_is_zero, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
