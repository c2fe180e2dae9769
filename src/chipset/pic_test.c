#include "chipset/chipset.h"

#include <string.h>

#include "base/test.h"
#include "chipset/test_board.h"

static struct test_board b;
static struct device *pic;

static void irq(unsigned n, bool level)
{
	irq_set(pic_input(pic, n), level);
}

static int ack(void)
{
	struct extint *x = pic_extint(pic);

	return x->ack(x);
}

/* As every PC does: vectors 0x20 and 0x28, nothing masked. */
static void program(uint8_t master_icw4)
{
	board_out(&b, PORT_PIC1, 0x11);
	board_out(&b, PORT_PIC1 + 1, 0x20);
	board_out(&b, PORT_PIC1 + 1, 0x04);
	board_out(&b, PORT_PIC1 + 1, master_icw4);
	board_out(&b, PORT_PIC2, 0x11);
	board_out(&b, PORT_PIC2 + 1, 0x28);
	board_out(&b, PORT_PIC2 + 1, 0x02);
	board_out(&b, PORT_PIC2 + 1, 0x01);
}

static int setup(void **state)
{
	board_init(&b);
	pic = board_add(&b, &pic_type);
	program(0x01);
	return 0;
}

static int teardown(void **state)
{
	pic_type.free(pic);
	board_done(&b);
	return 0;
}

static void master_eoi(void)
{
	board_out(&b, PORT_PIC1, 0x20);
}

static uint8_t master_isr(void)
{
	board_out(&b, PORT_PIC1, 0x0b);
	return board_in(&b, PORT_PIC1);
}

static void an_edge_raises_int_until_acknowledged(void **state)
{
	irq(4, true);
	assert_true(b.extint.level);
	assert_int_equal(ack(), 0x24);
	assert_false(b.extint.level);
	assert_int_equal(master_isr(), 0x10);
	master_eoi();
	assert_false(b.extint.level); /* still high, but no new edge */
}

static void a_request_gone_before_the_acknowledge_is_spurious_7(void **state)
{
	irq(4, true);
	irq(4, false);
	assert_false(b.extint.level);
	assert_int_equal(ack(), 0x27);
	assert_int_equal(master_isr(), 0);
}

static void slave_requests_come_through_input_2(void **state)
{
	irq(12, true);
	assert_int_equal(ack(), 0x2c);
	assert_int_equal(master_isr(), 0x04);
	board_out(&b, PORT_PIC2, 0x0b);
	assert_int_equal(board_in(&b, PORT_PIC2), 0x10);
}

static void higher_priority_interrupts_lower_one(void **state)
{
	irq(3, true);
	assert_int_equal(ack(), 0x23);
	irq(5, true);
	assert_false(b.extint.level);
	irq(1, true);
	assert_int_equal(ack(), 0x21);
	master_eoi();
	master_eoi();
	assert_int_equal(ack(), 0x25);
}

static void masked_requests_wait_for_the_mask_to_go(void **state)
{
	board_out(&b, PORT_PIC1 + 1, 0xff);
	irq(4, true);
	assert_false(b.extint.level);
	board_out(&b, PORT_PIC1 + 1, 0x00);
	assert_true(b.extint.level);
}

static void level_input_asks_again_after_eoi(void **state)
{
	board_out(&b, PORT_ELCR, 0x20);
	irq(5, true);
	assert_int_equal(ack(), 0x25);
	assert_false(b.extint.level);
	master_eoi();
	assert_true(b.extint.level);
	irq(5, false);
	assert_false(b.extint.level);
}

static void timer_cascade_and_rtc_cannot_be_level(void **state)
{
	board_out(&b, PORT_ELCR, 0xff);
	board_out(&b, PORT_ELCR + 1, 0xff);
	assert_int_equal(board_in(&b, PORT_ELCR), 0xf8);
	assert_int_equal(board_in(&b, PORT_ELCR + 1), 0xde);
}

static void auto_eoi_leaves_nothing_in_service(void **state)
{
	program(0x03);
	irq(4, true);
	assert_int_equal(ack(), 0x24);
	assert_int_equal(master_isr(), 0);
}

static void rotation_gives_the_served_input_the_lowest_priority(void **state)
{
	irq(0, true);
	assert_int_equal(ack(), 0x20);
	board_out(&b, PORT_PIC1, 0xa0); /* rotate on non-specific EOI */
	irq(0, false);
	irq(0, true);
	irq(1, true);
	assert_int_equal(ack(), 0x21);
}

static void special_mask_lets_lower_priorities_in(void **state)
{
	irq(1, true);
	assert_int_equal(ack(), 0x21);
	irq(6, true);
	board_out(&b, PORT_PIC1 + 1, 0x02);
	assert_false(b.extint.level);
	board_out(&b, PORT_PIC1, 0x68);
	assert_int_equal(ack(), 0x26);
	board_out(&b, PORT_PIC1, 0x20); /* ends 6: 1 is masked */
	assert_int_equal(master_isr(), 0x02);
}

static void poll_acknowledges_by_a_read(void **state)
{
	irq(4, true);
	board_out(&b, PORT_PIC1, 0x0c);
	assert_int_equal(board_in(&b, PORT_PIC1), 0x84);
	assert_false(b.extint.level);
	assert_int_equal(master_isr(), 0x10);
}

static void special_nesting_lets_the_slave_interrupt_itself(void **state)
{
	program(0x11);
	irq(12, true);
	assert_int_equal(ack(), 0x2c);
	irq(9, true);
	assert_int_equal(ack(), 0x29);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(an_edge_raises_int_until_acknowledged),
		T(a_request_gone_before_the_acknowledge_is_spurious_7),
		T(slave_requests_come_through_input_2),
		T(higher_priority_interrupts_lower_one),
		T(masked_requests_wait_for_the_mask_to_go),
		T(level_input_asks_again_after_eoi),
		T(timer_cascade_and_rtc_cannot_be_level),
		T(auto_eoi_leaves_nothing_in_service),
		T(rotation_gives_the_served_input_the_lowest_priority),
		T(special_mask_lets_lower_priorities_in),
		T(poll_acknowledges_by_a_read),
		T(special_nesting_lets_the_slave_interrupt_itself),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
