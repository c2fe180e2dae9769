#include "chipset/chipset.h"

#include <string.h>

#include "base/test.h"
#include "chipset/test_board.h"

#define COM(n)         (PORT_COM1 + (n))
#define MCR_OUT2       0x08
#define MCR_LOOP       0x10
#define IER_RX         0x01
#define IER_THRE       0x02
#define FIFO_TRIGGER_8 0x81

static struct test_board b;
static struct device *uart;

static int setup(void **state)
{
	board_init(&b);
	uart = board_add(&b, &uart_type);
	return 0;
}

static int teardown(void **state)
{
	uart_type.free(uart);
	board_done(&b);
	return 0;
}

static bool irq_high(void)
{
	return b.wire[IRQ_COM1].level;
}

static void written_bytes_come_out_in_order(void **state)
{
	board_out(&b, COM(0), 'h');
	board_out(&b, COM(0), 'i');
	assert_int_equal(b.byte_count, 2);
	assert_memory_equal(b.bytes, "hi", 2);
	assert_int_equal(board_in(&b, COM(5)), 0x60);
}

static void enabling_thre_while_empty_raises_and_iir_read_clears(void **state)
{
	board_out(&b, COM(4), MCR_OUT2);
	board_out(&b, COM(1), IER_THRE);
	assert_true(irq_high());
	assert_int_equal(board_in(&b, COM(2)), 0x02);
	assert_false(irq_high());
	assert_int_equal(board_in(&b, COM(2)), 0x01);
}

static void each_transmitted_byte_raises_thre_anew(void **state)
{
	board_out(&b, COM(4), MCR_OUT2);
	board_out(&b, COM(1), IER_THRE);
	board_in(&b, COM(2));
	board_out(&b, COM(0), 'x');
	assert_true(irq_high());
	assert_int_equal(b.wire[IRQ_COM1].rises, 2);
}

static void rewriting_thre_enable_does_not_raise_again(void **state)
{
	board_out(&b, COM(1), IER_THRE);
	board_in(&b, COM(2));
	board_out(&b, COM(1), IER_THRE);
	assert_int_equal(board_in(&b, COM(2)), 0x01);
}

static void without_out2_the_wire_stays_low(void **state)
{
	board_out(&b, COM(1), IER_THRE);
	assert_false(irq_high());
}

static void input_beyond_the_fifo_is_not_taken_until_there_is_room(void **state)
{
	static const uint8_t twenty[20] = "0123456789abcdefghi";

	board_out(&b, COM(2), 0x01);
	assert_int_equal(uart_input(uart, twenty, 20), 16);
	assert_int_equal(uart_input(uart, twenty + 16, 4), 0);
	assert_int_equal(board_in(&b, COM(0)), '0');
	assert_int_equal(uart_input(uart, twenty + 16, 4), 1);
}

static void count_room(void *ctx)
{
	++*(unsigned *)ctx;
}

static void room_is_called_once_after_a_short_count(void **state)
{
	unsigned calls = 0;

	uart_on_room(uart, count_room, &calls);
	assert_int_equal(uart_input(uart, (const uint8_t *)"ab", 2), 1);
	assert_int_equal(calls, 0);
	assert_int_equal(board_in(&b, COM(0)), 'a');
	assert_int_equal(calls, 1);
	board_in(&b, COM(0));
	assert_int_equal(calls, 1);
}

static void fifo_interrupts_at_the_trigger_level(void **state)
{
	board_out(&b, COM(4), MCR_OUT2);
	board_out(&b, COM(2), FIFO_TRIGGER_8);
	board_out(&b, COM(1), IER_RX);
	uart_input(uart, (const uint8_t *)"1234567", 7);
	assert_false(irq_high());
	uart_input(uart, (const uint8_t *)"8", 1);
	assert_true(irq_high());
	assert_int_equal(board_in(&b, COM(2)), 0xc4);
	board_in(&b, COM(0));
	assert_false(irq_high());
}

static void lying_bytes_time_out_after_four_characters(void **state)
{
	const uint64_t four_chars_at_9600_7n1_ns = 4 * 9 * 1000000000ull / 9600;

	board_out(&b, COM(4), MCR_OUT2);
	board_out(&b, COM(3), 0x02); /* 7 data bits */
	board_out(&b, COM(2), FIFO_TRIGGER_8);
	board_out(&b, COM(1), IER_RX);
	uart_input(uart, (const uint8_t *)"x", 1);
	board_advance(&b, four_chars_at_9600_7n1_ns - 1000);
	assert_false(irq_high());
	board_advance(&b, 2000);
	assert_true(irq_high());
	assert_int_equal(board_in(&b, COM(2)), 0xcc);
	assert_int_equal(board_in(&b, COM(0)), 'x');
	assert_false(irq_high());
}

static void loopback_receives_what_it_sends_and_overruns(void **state)
{
	board_out(&b, COM(4), MCR_LOOP);
	board_out(&b, COM(0), 'a');
	assert_int_equal(b.byte_count, 0);
	assert_int_equal(board_in(&b, COM(5)), 0x61);
	board_out(&b, COM(0), 'b');
	assert_int_equal(board_in(&b, COM(5)), 0x63);
	assert_int_equal(board_in(&b, COM(5)), 0x61);
	assert_int_equal(board_in(&b, COM(0)), 'b');
}

static void loopback_shows_mcr_in_msr_with_deltas(void **state)
{
	board_out(&b, COM(4), MCR_LOOP | 0x0a); /* RTS, OUT2: CTS, DCD */
	board_in(&b, COM(6));
	assert_int_equal(board_in(&b, COM(6)), 0x90);
	board_out(&b, COM(4), MCR_LOOP | 0x06); /* RTS, OUT1: RI comes, DCD goes */
	assert_int_equal(board_in(&b, COM(6)), 0x58);
	board_out(&b, COM(4), MCR_LOOP | 0x02); /* RI goes: its trailing edge counts */
	assert_int_equal(board_in(&b, COM(6)), 0x14);
}

static void scratch_and_divisor_read_back(void **state)
{
	board_out(&b, COM(7), 0x5a);
	board_out(&b, COM(3), 0x80);
	board_out(&b, COM(0), 0x34);
	board_out(&b, COM(1), 0x12);
	assert_int_equal(board_in(&b, COM(0)), 0x34);
	assert_int_equal(board_in(&b, COM(1)), 0x12);
	board_out(&b, COM(3), 0x03);
	assert_int_equal(board_in(&b, COM(1)), 0);
	assert_int_equal(board_in(&b, COM(7)), 0x5a);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(written_bytes_come_out_in_order),
		T(enabling_thre_while_empty_raises_and_iir_read_clears),
		T(each_transmitted_byte_raises_thre_anew),
		T(rewriting_thre_enable_does_not_raise_again),
		T(without_out2_the_wire_stays_low),
		T(input_beyond_the_fifo_is_not_taken_until_there_is_room),
		T(room_is_called_once_after_a_short_count),
		T(fifo_interrupts_at_the_trigger_level),
		T(lying_bytes_time_out_after_four_characters),
		T(loopback_receives_what_it_sends_and_overruns),
		T(loopback_shows_mcr_in_msr_with_deltas),
		T(scratch_and_divisor_read_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
