#include "chipset/chipset.h"

#include <string.h>

#include "base/test.h"
#include "chipset/test_board.h"

#define HZ      1193182ull
#define CONTROL (PORT_PIT + 3)

static struct test_board b;
static struct device *pit;

static int setup(void **state)
{
	board_init(&b);
	pit = board_add(&b, &pit_type);
	return 0;
}

static int teardown(void **state)
{
	pit_type.free(pit);
	board_done(&b);
	return 0;
}

/* Time goes on by that many ticks (and up to one more nanosecond). */
static void ticks(uint64_t n)
{
	board_advance(&b, mul_div(n, 1000000000, HZ) + 1);
}

static void program(unsigned channel, unsigned mode, uint16_t count)
{
	board_out(&b, CONTROL, channel << 6 | 0x30 | mode << 1);
	board_out(&b, PORT_PIT + channel, count & 0xff);
	board_out(&b, PORT_PIT + channel, count >> 8);
}

/* Low byte first: the order of the two reads matters. */
static uint16_t two_reads(unsigned channel)
{
	uint8_t low = board_in(&b, PORT_PIT + channel);

	return low | board_in(&b, PORT_PIT + channel) << 8;
}

static uint16_t latched(unsigned channel)
{
	board_out(&b, CONTROL, channel << 6);
	return two_reads(channel);
}

static unsigned irqs(void)
{
	return b.wire[IRQ_PIT].rises;
}

static void mode_2_interrupts_every_count_ticks_for_ever(void **state)
{
	program(0, 2, 1193);
	board_advance(&b, 10000000000ull); /* ten seconds: 10001.5 periods */
	assert_int_equal(irqs(), 10 * HZ / 1193);
}

static void mode_2_interrupts_on_the_exact_tick(void **state)
{
	const uint64_t start = mul_div(b.clock.now_ns, HZ, 1000000000) + 1;
	const uint64_t edge_ns = mul_div(start + 5000 * 1193, 1000000000, HZ) + 1;

	program(0, 2, 1193);
	board_advance(&b, edge_ns - 1 - b.clock.now_ns);
	assert_int_equal(irqs(), 4999);
	board_advance(&b, 1);
	assert_int_equal(irqs(), 5000);
}

static void mode_3_interrupts_every_count_ticks(void **state)
{
	program(0, 3, 0); /* 65536 */
	board_advance(&b, 1000000000);
	assert_int_equal(irqs(), 18);
}

static void mode_0_interrupts_once(void **state)
{
	program(0, 0, 1000);
	ticks(990);
	assert_int_equal(irqs(), 0);
	ticks(20);
	assert_int_equal(irqs(), 1);
	assert_true(b.wire[IRQ_PIT].level);
	board_advance(&b, 1000000000);
	assert_int_equal(irqs(), 1);
	program(0, 0, 1000);
	assert_false(b.wire[IRQ_PIT].level);
}

static void setting_a_mode_raises_no_interrupt(void **state)
{
	board_out(&b, CONTROL, 0x30);
	board_out(&b, CONTROL, 0x34);
	assert_int_equal(irqs(), 0);
}

static void a_new_count_takes_over_at_the_end_of_the_period(void **state)
{
	program(0, 2, 10000);
	ticks(15000);
	assert_int_equal(irqs(), 1);
	board_out(&b, PORT_PIT, 1000 & 0xff);
	board_out(&b, PORT_PIT, 1000 >> 8);
	ticks(4990);
	assert_int_equal(irqs(), 1);
	ticks(1020);
	assert_int_equal(irqs(), 3);
}

static void latch_holds_until_both_bytes_are_read(void **state)
{
	program(0, 2, 50000);
	ticks(1001);
	board_out(&b, CONTROL, 0x00);
	ticks(5000);
	board_out(&b, CONTROL, 0x00); /* ignored: not read yet */
	assert_in_range(two_reads(0), 48998, 49000);
	assert_in_range(latched(0), 43990, 44000);
}

static void read_back_gives_status_then_count(void **state)
{
	program(0, 2, 50000);
	board_out(&b, CONTROL, 0xe2);                          /* status only */
	assert_int_equal(board_in(&b, PORT_PIT) & 0x7f, 0x74); /* null count, both bytes, mode 2 */
	ticks(100);
	board_out(&b, CONTROL, 0xc2); /* both */
	assert_int_equal(board_in(&b, PORT_PIT), 0xb4);
	assert_in_range(two_reads(0), 49895, 49905);
}

static void bcd_counts_in_decimal(void **state)
{
	board_out(&b, CONTROL, 0x35);
	board_out(&b, PORT_PIT, 0x00);
	board_out(&b, PORT_PIT, 0x10); /* 1000 */
	ticks(101);
	assert_in_range(latched(0), 0x0898, 0x0900);
}

static void channel_2_counts_while_its_gate_is_open(void **state)
{
	board_out(&b, PORT_SPEAKER, 0x00);
	program(2, 0, 1000);
	ticks(5000);
	assert_int_equal(board_in(&b, PORT_SPEAKER) & 0x20, 0);
	board_out(&b, PORT_SPEAKER, 0x01);
	ticks(500);
	board_out(&b, PORT_SPEAKER, 0x00);
	ticks(5000);
	assert_int_equal(board_in(&b, PORT_SPEAKER) & 0x20, 0);
	assert_in_range(latched(2), 498, 501);
	board_out(&b, PORT_SPEAKER, 0x01);
	ticks(502);
	assert_int_equal(board_in(&b, PORT_SPEAKER) & 0x21, 0x21);
}

static void a_gate_edge_triggers_the_one_shot(void **state)
{
	program(2, 1, 1000);
	assert_int_equal(board_in(&b, PORT_SPEAKER) & 0x20, 0x20);
	board_out(&b, PORT_SPEAKER, 0x01);
	ticks(500);
	assert_int_equal(board_in(&b, PORT_SPEAKER) & 0x20, 0);
	ticks(502);
	assert_int_equal(board_in(&b, PORT_SPEAKER) & 0x20, 0x20);
}

static void mode_3_output_is_half_the_period_high(void **state)
{
	board_out(&b, PORT_SPEAKER, 0x01);
	program(2, 3, 1000);
	ticks(400);
	assert_int_equal(board_in(&b, PORT_SPEAKER) & 0x20, 0x20);
	assert_in_range(latched(2), 198, 204); /* counts by two */
	ticks(200);
	assert_int_equal(board_in(&b, PORT_SPEAKER) & 0x20, 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(mode_2_interrupts_every_count_ticks_for_ever),
		T(mode_2_interrupts_on_the_exact_tick),
		T(mode_3_interrupts_every_count_ticks),
		T(mode_0_interrupts_once),
		T(setting_a_mode_raises_no_interrupt),
		T(a_new_count_takes_over_at_the_end_of_the_period),
		T(latch_holds_until_both_bytes_are_read),
		T(read_back_gives_status_then_count),
		T(bcd_counts_in_decimal),
		T(channel_2_counts_while_its_gate_is_open),
		T(a_gate_edge_triggers_the_one_shot),
		T(mode_3_output_is_half_the_period_high),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
