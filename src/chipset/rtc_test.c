#include "chipset/chipset.h"

#include <string.h>

#include "base/test.h"
#include "chipset/test_board.h"

#define REG_A    0x0a
#define REG_B    0x0b
#define REG_C    0x0c
#define B_SET    0x80
#define B_PIE    0x40
#define B_AIE    0x20
#define B_UIE    0x10
#define B_BINARY 0x04
#define B_24H    0x02
#define ONE_S    1000000000ull

static struct test_board b;
static struct device *rtc;

static int setup(void **state)
{
	board_init(&b);
	rtc = board_add(&b, &rtc_type);
	return 0;
}

static int teardown(void **state)
{
	rtc_type.free(rtc);
	board_done(&b);
	return 0;
}

static uint8_t get(uint8_t cell)
{
	board_out(&b, PORT_RTC, cell);
	return board_in(&b, PORT_RTC + 1);
}

static void put(uint8_t cell, uint8_t v)
{
	board_out(&b, PORT_RTC, cell);
	board_out(&b, PORT_RTC + 1, v);
}

static bool irq_high(void)
{
	return b.wire[IRQ_RTC].level;
}

static void time_goes_into_a_leap_day(void **state)
{
	assert_int_equal(get(0), 0x55);
	assert_int_equal(get(2), 0x59);
	assert_int_equal(get(4), 0x23);
	assert_int_equal(get(7), 0x28);
	assert_int_equal(get(6), 4); /* Wednesday */
	board_advance(&b, 6 * ONE_S);
	assert_int_equal(get(0), 0x01);
	assert_int_equal(get(4), 0x00);
	assert_int_equal(get(7), 0x29);
	assert_int_equal(get(8), 0x02);
	assert_int_equal(get(9), 0x24);
	assert_int_equal(get(0x32), 0x20);
	assert_int_equal(get(6), 5);
}

static void binary_and_12_hour_forms(void **state)
{
	put(REG_B, B_BINARY | B_24H);
	assert_int_equal(get(0), 55);
	assert_int_equal(get(4), 23);
	put(REG_B, 0);
	assert_int_equal(get(4), 0x91); /* 11 pm */
	board_advance(&b, 10 * ONE_S);
	assert_int_equal(get(4), 0x12); /* 12 am */
}

static void set_holds_the_time_and_takes_a_new_one(void **state)
{
	put(REG_B, B_SET | B_24H);
	put(0, 0x30);
	put(2, 0x15);
	put(4, 0x08);
	put(7, 0x31);
	put(8, 0x12);
	put(9, 0x99);
	put(0x32, 0x19);
	board_advance(&b, 100 * ONE_S);
	assert_int_equal(get(0), 0x30);
	put(REG_B, B_24H);
	board_advance(&b, 16 * 3600 * ONE_S);
	assert_int_equal(get(9), 0x00);
	assert_int_equal(get(0x32), 0x20);
	assert_int_equal(get(8), 0x01);
	assert_int_equal(get(7), 0x01);
	assert_int_equal(get(4), 0x00);
	assert_int_equal(get(2), 0x15);
}

static void update_in_progress_shows_before_the_second(void **state)
{
	assert_int_equal(get(REG_A) & 0x80, 0);
	board_advance(&b, ONE_S - 200000);
	assert_int_equal(get(REG_A) & 0x80, 0x80);
	board_advance(&b, 200000);
	assert_int_equal(get(REG_A) & 0x80, 0);
}

static void update_interrupt_comes_each_second_once_c_is_read(void **state)
{
	get(REG_C);
	put(REG_B, B_24H | B_UIE);
	board_advance(&b, ONE_S);
	assert_true(irq_high());
	board_advance(&b, 3 * ONE_S);
	assert_int_equal(b.wire[IRQ_RTC].rises, 1);
	assert_int_equal(get(REG_C) & 0x90, 0x90);
	assert_false(irq_high());
	assert_int_equal(get(REG_C), 0);
	board_advance(&b, ONE_S);
	assert_true(irq_high());
}

static void alarm_interrupts_when_all_fields_match(void **state)
{
	put(1, 0x03);
	put(3, 0x00);
	put(5, 0xc0); /* any hour */
	get(REG_C);
	put(REG_B, B_24H | B_AIE);
	board_advance(&b, 7 * ONE_S);
	assert_false(irq_high());
	board_advance(&b, 1 * ONE_S); /* 00:00:03 */
	assert_true(irq_high());
	assert_int_equal(get(REG_C) & 0xa0, 0xa0);
	board_advance(&b, 3599 * ONE_S);
	assert_false(irq_high());
	board_advance(&b, 1 * ONE_S);
	assert_true(irq_high());
}

static void alarm_flag_is_there_for_pollers(void **state)
{
	put(1, 0x57);
	put(3, 0xff);
	put(5, 0xff);
	get(REG_C);
	board_advance(&b, 10 * ONE_S);
	assert_int_equal(get(REG_C) & 0xa0, 0x20);
}

static void periodic_interrupt_has_the_rate_of_register_a(void **state)
{
	put(REG_A, 0x2a); /* 64 Hz */
	put(REG_B, B_24H | B_PIE);
	for (unsigned i = 0; i < 1000; i++) {
		board_advance(&b, ONE_S / 1000);
		get(REG_C);
	}
	assert_int_equal(b.wire[IRQ_RTC].rises, 64);
}

static void reset_keeps_time_and_cells_but_no_interrupts(void **state)
{
	put(0x40, 0x5a);
	put(REG_B, B_24H | B_UIE);
	board_advance(&b, ONE_S);
	rtc_type.reset(rtc);
	assert_false(irq_high());
	assert_int_equal(get(0x40), 0x5a);
	assert_int_equal(get(0), 0x56);
	assert_int_equal(get(REG_B), B_24H);
}

static void memory_size_cells(void **state)
{
	assert_int_equal(get(0x15) | get(0x16) << 8, 640);
	assert_int_equal(get(0x17) | get(0x18) << 8, 0xffff); /* KiB above 1 MiB, at most */
	assert_int_equal(get(0x30) | get(0x31) << 8, 0xffff);
	assert_int_equal(get(0x34) | get(0x35) << 8, (512 - 16) * 16);
	assert_int_equal(get(0x5b) | get(0x5c) << 8 | get(0x5d) << 16, 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(time_goes_into_a_leap_day),
		T(binary_and_12_hour_forms),
		T(set_holds_the_time_and_takes_a_new_one),
		T(update_in_progress_shows_before_the_second),
		T(update_interrupt_comes_each_second_once_c_is_read),
		T(alarm_interrupts_when_all_fields_match),
		T(alarm_flag_is_there_for_pollers),
		T(periodic_interrupt_has_the_rate_of_register_a),
		T(reset_keeps_time_and_cells_but_no_interrupts),
		T(memory_size_cells),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
