#include "chipset/chipset.h"

#include <string.h>

#include "base/test.h"
#include "chipset/test_board.h"

#define LEVEL  0x8000u
#define MASKED 0x10000u
#define REMOTE 0x4000u

static struct test_board b;
static struct device *ioapic;

static int setup(void **state)
{
	board_init(&b);
	ioapic = board_add(&b, &ioapic_type);
	return 0;
}

static int teardown(void **state)
{
	ioapic_type.free(ioapic);
	board_done(&b);
	return 0;
}

static void write_reg(uint8_t reg, uint32_t v)
{
	board_store(&b, IOAPIC_BASE, reg);
	board_store(&b, IOAPIC_BASE + 0x10, v);
}

static uint32_t read_reg(uint8_t reg)
{
	board_store(&b, IOAPIC_BASE, reg);
	return board_load(&b, IOAPIC_BASE + 0x10);
}

static void entry(unsigned pin, uint8_t dest, uint32_t low)
{
	write_reg(0x11 + pin * 2, (uint32_t)dest << 24);
	write_reg(0x10 + pin * 2, low);
}

static void pin(unsigned n, bool level)
{
	irq_set(ioapic_input(ioapic, n), level);
}

static void version_says_24_pins_and_eoi_register(void **state)
{
	assert_int_equal(read_reg(1), 0x00170020);
	assert_int_equal(read_reg(0x10), MASKED);
}

static void an_edge_is_one_message(void **state)
{
	entry(4, 3, 0x44);
	pin(4, true);
	pin(4, true);
	assert_int_equal(b.msis, 1);
	assert_int_equal(b.msi_addr, 0xfee03000);
	assert_int_equal(b.msi_data, 0x44);
	pin(4, false);
	pin(4, true);
	assert_int_equal(b.msis, 2);
}

static void lowest_priority_logical_level_is_encoded(void **state)
{
	entry(9, 0xff, 0x31 | 0x100 | 0x800 | LEVEL);
	pin(9, true);
	assert_int_equal(b.msi_addr, 0xfeeff00c);
	assert_int_equal(b.msi_data, 0xc131);
}

static void a_masked_edge_is_lost(void **state)
{
	entry(4, 0, 0x44 | MASKED);
	pin(4, true);
	entry(4, 0, 0x44);
	assert_int_equal(b.msis, 0);
}

static void a_level_is_redelivered_after_eoi_while_asserted(void **state)
{
	entry(9, 0, 0x31 | LEVEL);
	pin(9, true);
	assert_int_equal(b.msis, 1);
	assert_int_equal(read_reg(0x10 + 18), 0x31 | LEVEL | REMOTE);
	pin(9, false);
	pin(9, true);
	assert_int_equal(b.msis, 1); /* not before the EOI */
	ioapic_eoi(ioapic, 0x31);
	assert_int_equal(b.msis, 2);
	pin(9, false);
	ioapic_eoi(ioapic, 0x31);
	assert_int_equal(b.msis, 2);
	assert_int_equal(read_reg(0x10 + 18), 0x31 | LEVEL);
}

static void eoi_register_ends_a_level_interrupt(void **state)
{
	entry(9, 0, 0x31 | LEVEL);
	pin(9, true);
	board_store(&b, IOAPIC_BASE + 0x40, 0x30);
	assert_int_equal(b.msis, 1);
	board_store(&b, IOAPIC_BASE + 0x40, 0x31);
	assert_int_equal(b.msis, 2);
}

static void unmasking_an_asserted_level_delivers(void **state)
{
	entry(9, 0, 0x31 | LEVEL | MASKED);
	pin(9, true);
	assert_int_equal(b.msis, 0);
	entry(9, 0, 0x31 | LEVEL);
	assert_int_equal(b.msis, 1);
}

static void turning_an_entry_to_edge_clears_remote_irr(void **state)
{
	entry(9, 0, 0x31 | LEVEL);
	pin(9, true);
	entry(9, 0, 0x31 | MASKED);
	entry(9, 0, 0x31 | LEVEL | MASKED);
	assert_int_equal(read_reg(0x10 + 18), 0x31 | LEVEL | MASKED);
}

static void read_only_bits_stay(void **state)
{
	entry(5, 0, 0xffffffff);
	assert_int_equal(read_reg(0x10 + 10), 0x1afff);
	write_reg(1, 0);
	assert_int_equal(read_reg(1), 0x00170020);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(version_says_24_pins_and_eoi_register),
		T(an_edge_is_one_message),
		T(lowest_priority_logical_level_is_encoded),
		T(a_masked_edge_is_lost),
		T(a_level_is_redelivered_after_eoi_while_asserted),
		T(eoi_register_ends_a_level_interrupt),
		T(unmasking_an_asserted_level_delivers),
		T(turning_an_entry_to_edge_clears_remote_irr),
		T(read_only_bits_stay),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
