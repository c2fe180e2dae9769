#include "chipset/chipset.h"

#include <string.h>

#include "base/test.h"
#include "chipset/test_board.h"

#define DATA   PORT_I8042
#define STATUS (PORT_I8042 + 4)

static struct test_board b;
static struct device *i8042, *debug_exit;

static int setup(void **state)
{
	board_init(&b);
	i8042 = board_add(&b, &i8042_type);
	debug_exit = board_add(&b, &debug_exit_type);
	return 0;
}

static int teardown(void **state)
{
	i8042_type.free(i8042);
	debug_exit_type.free(debug_exit);
	board_done(&b);
	return 0;
}

static void self_test_answers_55(void **state)
{
	board_out(&b, STATUS, 0xaa);
	assert_int_equal(board_in(&b, STATUS) & 1, 1);
	assert_int_equal(board_in(&b, DATA), 0x55);
	assert_int_equal(board_in(&b, STATUS) & 1, 0);
}

static void command_byte_reads_back(void **state)
{
	board_out(&b, STATUS, 0x60);
	board_out(&b, DATA, 0x47);
	board_out(&b, STATUS, 0x20);
	assert_int_equal(board_in(&b, DATA), 0x47);
}

static void pulse_of_the_reset_line_resets(void **state)
{
	board_out(&b, STATUS, 0xff); /* pulses nothing */
	assert_int_equal(b.requests, 0);
	board_out(&b, STATUS, 0xfe);
	assert_int_equal(b.requests, 1);
	assert_int_equal(b.request, MACHINE_RESET);
}

static void a20_by_output_port_and_port_92(void **state)
{
	assert_int_equal(board_in(&b, 0x92), 2);
	board_out(&b, STATUS, 0xd1);
	board_out(&b, DATA, 0xdd);
	assert_int_equal(board_in(&b, 0x92), 0);
	board_out(&b, 0x92, 2);
	board_out(&b, STATUS, 0xd0);
	assert_int_equal(board_in(&b, DATA) & 3, 3);
	assert_int_equal(b.requests, 0);
	board_out(&b, 0x92, 3);
	assert_int_equal(b.request, MACHINE_RESET);
}

static void a_missing_keyboard_times_out(void **state)
{
	board_out(&b, STATUS, 0x60);
	board_out(&b, DATA, 0x01);
	board_out(&b, DATA, 0xff);
	assert_true(b.wire[1].level);
	assert_int_equal(board_in(&b, STATUS) & 0x41, 0x41);
	assert_int_equal(board_in(&b, DATA), 0xfe);
	assert_false(b.wire[1].level);
}

static void debug_exit_reports_the_byte(void **state)
{
	board_out32(&b, PORT_DEBUG_EXIT, 0x42);
	assert_int_equal(b.requests, 1);
	assert_int_equal(b.request, MACHINE_DEBUG_EXIT);
	assert_int_equal(b.request_value, 0x42);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(self_test_answers_55),           T(command_byte_reads_back),
		T(pulse_of_the_reset_line_resets), T(a20_by_output_port_and_port_92),
		T(a_missing_keyboard_times_out),   T(debug_exit_reports_the_byte),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
