#include "chipset/chipset.h"

#include <string.h>

#include "base/test.h"
#include "chipset/test_board.h"

#define PWRBTN   0x0100
#define SLP_EN   0x2000
#define TMR      0x0001
#define TIMER_HZ 3579545

static struct test_board b;
static struct device *pm;

static int setup(void **state)
{
	board_init(&b);
	pm = board_add(&b, &pm_type);
	return 0;
}

static int teardown(void **state)
{
	pm_type.free(pm);
	board_done(&b);
	return 0;
}

static void out16(uint16_t port, uint16_t v)
{
	bus_write(b.bus, BUS_PIO, port, v, 2);
}

static uint16_t in16(uint16_t port)
{
	return bus_read(b.bus, BUS_PIO, port, 2);
}

static void power_button_raises_sci_until_its_status_is_cleared(void **state)
{
	assert_false(pm_power_button_armed(pm));
	out16(PORT_PM_EVT + 2, PWRBTN);
	assert_true(pm_power_button_armed(pm));
	pm_power_button(pm);
	assert_true(b.wire[IRQ_SCI].level);
	assert_int_equal(in16(PORT_PM_EVT), PWRBTN);
	out16(PORT_PM_EVT, PWRBTN);
	assert_false(b.wire[IRQ_SCI].level);
	assert_int_equal(in16(PORT_PM_EVT), 0);
}

static void a_disabled_event_sets_its_status_only(void **state)
{
	pm_power_button(pm);
	assert_false(b.wire[IRQ_SCI].level);
	out16(PORT_PM_EVT + 2, PWRBTN);
	assert_true(b.wire[IRQ_SCI].level);
}

static void timer_counts_guest_time(void **state)
{
	uint32_t t = board_in32(&b, PORT_PM_TMR);

	board_advance(&b, 1000000000);
	assert_in_range(board_in32(&b, PORT_PM_TMR) - t, TIMER_HZ - 1, TIMER_HZ + 1);
}

static void timer_carry_raises_sci(void **state)
{
	const uint64_t half_ns = mul_div(1ull << 31, 1000000000, TIMER_HZ);

	out16(PORT_PM_EVT + 2, TMR);
	board_advance(&b, half_ns - b.clock.now_ns - 1000);
	assert_false(b.wire[IRQ_SCI].level);
	board_advance(&b, 2000);
	assert_true(b.wire[IRQ_SCI].level);
	out16(PORT_PM_EVT, TMR);
	assert_false(b.wire[IRQ_SCI].level);
	board_advance(&b, half_ns);
	assert_true(b.wire[IRQ_SCI].level);
}

static void sleep_type_0_powers_off_as_uefi_wants_it(void **state)
{
	out16(PORT_PM_CNT, SLP_EN);
	assert_int_equal(b.requests, 1);
	assert_int_equal(b.request, MACHINE_POWER_OFF);
}

static void s5_powers_off(void **state)
{
	assert_int_equal(in16(PORT_PM_CNT) & 1, 1); /* SCI_EN */
	out16(PORT_PM_CNT, SLP_EN | 1 << 10);
	out16(PORT_PM_CNT, 5 << 10);
	assert_int_equal(b.requests, 0);
	out16(PORT_PM_CNT, SLP_EN | 5 << 10);
	assert_int_equal(b.requests, 1);
	assert_int_equal(b.request, MACHINE_POWER_OFF);
	assert_int_equal(in16(PORT_PM_CNT), 5 << 10 | 1);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(power_button_raises_sci_until_its_status_is_cleared),
		T(a_disabled_event_sets_its_status_only),
		T(timer_counts_guest_time),
		T(timer_carry_raises_sci),
		T(s5_powers_off),
		T(sleep_type_0_powers_off_as_uefi_wants_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
