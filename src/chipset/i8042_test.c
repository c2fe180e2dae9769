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

/* Without a keyboard, or with one: as the machine says. */
static void again(bool keyboard)
{
	i8042_type.free(i8042);
	b.env.keyboard = keyboard;
	i8042 = board_add(&b, &i8042_type);
}

/* Interrupts on, keyboard on; codes of set 2 as they are, or translated. */
static void open_keyboard(bool translated)
{
	board_out(&b, STATUS, 0x60);
	board_out(&b, DATA, translated ? 0x41 : 0x01);
}

static void expect(const char *bytes)
{
	for (; *bytes; bytes++) {
		assert_int_equal(board_in(&b, STATUS) & 0x21, 1);
		assert_int_equal(board_in(&b, DATA), (uint8_t)*bytes);
	}
	assert_int_equal(board_in(&b, STATUS) & 1, 0);
}

static void tell_keyboard(uint8_t v)
{
	board_out(&b, DATA, v);
}

static bool type(const char *codes)
{
	return i8042_type_keys(i8042, (const uint8_t *)codes, strlen(codes));
}

static void keys_arrive_with_an_interrupt_each(void **state)
{
	open_keyboard(true);
	assert_true(type("\x1c\xf0\x1c")); /* A */
	assert_true(b.wire[1].level);
	assert_int_equal(b.wire[1].rises, 1);
	expect("\x1e\x9e");
	assert_int_equal(b.wire[1].rises, 2);
	assert_false(b.wire[1].level);
}

static void extended_keys_and_f7_are_translated(void **state)
{
	open_keyboard(true);
	assert_true(type("\xe0\x75\xe0\xf0\x75\x83\xf0\x83"));
	expect("\xe0\x48\xe0\xc8\x41\xc1");
}

static void untranslated_codes_are_set_2(void **state)
{
	open_keyboard(false);
	assert_true(type("\x1c\xf0\x1c"));
	expect("\x1c\xf0\x1c");
}

static void a_disabled_keyboard_keeps_its_keys(void **state)
{
	open_keyboard(true);
	board_out(&b, STATUS, 0xad);
	assert_true(type("\x1c"));
	assert_int_equal(board_in(&b, STATUS) & 1, 0);
	board_out(&b, STATUS, 0xae);
	expect("\x1e");
}

static void an_answer_of_the_controller_loses_no_key(void **state)
{
	open_keyboard(true);
	assert_true(type("\x1c\xf0\x1c"));
	board_out(&b, STATUS, 0x20);
	expect("\x41\x1e\x9e");
}

static void a_reset_and_other_commands_are_answered(void **state)
{
	open_keyboard(false);
	tell_keyboard(0xff);
	expect("\xfa\xaa");
	tell_keyboard(0xf2);
	expect("\xfa\xab\x83");
	tell_keyboard(0xed);
	expect("\xfa");
	tell_keyboard(0x07);
	expect("\xfa");
	tell_keyboard(0xee);
	expect("\xee");
	tell_keyboard(0xfe);
	expect("\xee");
	tell_keyboard(0xf0);
	expect("\xfa");
	tell_keyboard(0x00);
	expect("\xfa\x02");
	tell_keyboard(0xf0);
	expect("\xfa");
	tell_keyboard(0x03); /* the only other set: refused */
	expect("\xfe");
	tell_keyboard(0x42);
	expect("\xfe");
}

static void who_is_told_not_to_scan_sends_no_keys(void **state)
{
	open_keyboard(false);
	tell_keyboard(0xf5);
	assert_true(type("\x1c"));
	expect("\xfa");
	tell_keyboard(0xf4);
	assert_true(type("\x1b"));
	expect("\xfa\x1b");
}

static void count_room(void *ctx)
{
	++*(unsigned *)ctx;
}

static void a_full_buffer_takes_whole_keys_or_none(void **state)
{
	unsigned rooms = 0, keys = 0;

	i8042_on_room(i8042, count_room, &rooms);
	open_keyboard(false);
	while (type("\x1c\xf0\x1c"))
		keys++;
	assert_int_equal(keys, 21); /* of three bytes, in 64 */
	for (; keys; keys--) {
		assert_int_equal(board_in(&b, DATA), 0x1c);
		assert_int_equal(board_in(&b, DATA), 0xf0);
		assert_int_equal(board_in(&b, DATA), 0x1c);
	}
	assert_int_equal(board_in(&b, STATUS) & 1, 0);
	assert_int_equal(rooms, 1);
}

static void a_missing_keyboard_times_out(void **state)
{
	again(false);
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
		T(self_test_answers_55),
		T(command_byte_reads_back),
		T(pulse_of_the_reset_line_resets),
		T(a20_by_output_port_and_port_92),
		T(a_missing_keyboard_times_out),
		T(debug_exit_reports_the_byte),
		T(keys_arrive_with_an_interrupt_each),
		T(extended_keys_and_f7_are_translated),
		T(untranslated_codes_are_set_2),
		T(a_disabled_keyboard_keeps_its_keys),
		T(an_answer_of_the_controller_loses_no_key),
		T(a_reset_and_other_commands_are_answered),
		T(who_is_told_not_to_scan_sends_no_keys),
		T(a_full_buffer_takes_whole_keys_or_none),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
