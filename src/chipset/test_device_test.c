#include "base/test.h"
#include "chipset/test_board.h"

static struct test_board b;
static struct device *device;

static int setup(void **state)
{
	board_init(&b);
	device = board_add(&b, &test_device_type);
	return 0;
}

static int teardown(void **state)
{
	test_device_type.free(device);
	board_done(&b);
	return 0;
}

static void ports_remember_what_was_written_in_any_width(void **state)
{
	board_out32(&b, PORT_TEST_LATCH, 0x12345678);
	assert_int_equal(board_in32(&b, PORT_TEST_LATCH), 0x12345678);
	board_out(&b, PORT_TEST_LATCH, 0x9a);
	assert_int_equal(board_in(&b, PORT_TEST_LATCH), 0x9a);
	assert_int_equal(board_in32(&b, PORT_TEST_LATCH), 0x1234569a);
}

static void a_port_drives_its_line_until_it_is_reset(void **state)
{
	board_out(&b, PORT_TEST_LINES + 14, 1);
	assert_true(b.wire[14].level);
	assert_int_equal(board_in(&b, PORT_TEST_LINES + 14), 1);
	board_out(&b, PORT_TEST_LINES + 14, 0);
	assert_false(b.wire[14].level);
	board_out(&b, PORT_TEST_LINES + 23, 1);
	test_device_type.reset(device);
	assert_false(b.wire[23].level);
}

static void memory_keeps_bytes(void **state)
{
	board_store(&b, TEST_MEMORY_BASE + 0xfffc, 0xcafebabe);
	assert_int_equal(board_load(&b, TEST_MEMORY_BASE + 0xfffc), 0xcafebabe);
	assert_int_equal(board_load(&b, TEST_MEMORY_BASE), 0);
	assert_int_equal(board_load(&b, TEST_MEMORY_BASE + 0x10000), 0xffffffff);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(ports_remember_what_was_written_in_any_width),
		T(a_port_drives_its_line_until_it_is_reset),
		T(memory_keeps_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
