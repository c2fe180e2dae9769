#include "chipset/chipset.h"

#include <string.h>

#include "base/test.h"
#include "chipset/test_board.h"

#define TIMER_HZ   1000000000ull /* a tick is a nanosecond */
#define TSC_HZ     2000000000ull
#define APIC_BASE  0x1b
#define DEADLINE   0x6e0
#define BASE_ON    0x800u
#define BASE_X2    0x400u
#define LVT_MASKED 0x10000u

enum {
	TPR = 0x80,
	PPR = 0xa0,
	EOI = 0xb0,
	LDR = 0xd0,
	DFR = 0xe0,
	SVR = 0xf0,
	ISR = 0x100,
	TMR = 0x180,
	IRR = 0x200,
	ESR = 0x280,
	ICR = 0x300,
	ICR2 = 0x310,
	LVT_TIMER = 0x320,
	LVT_LINT0 = 0x350,
	LVT_LINT1 = 0x360,
	LVT_ERROR = 0x370,
	INITIAL = 0x380,
	CURRENT = 0x390,
	DIVIDE = 0x3e0,
	X2_ICR = 0x830,
	X2_SELF_IPI = 0x83f,
};

static struct test_board b;
static struct lapic_bus *bus;
static struct lapic *apic[3];
static unsigned wakes[3];
static uint8_t eois[8];
static unsigned eoi_count;
static bool pic_raised;

static uint64_t tsc_now(void *ctx)
{
	return mul_div(b.clock.now_ns, TSC_HZ, 1000000000);
}

static void wake(void *ctx)
{
	++*(unsigned *)ctx;
}

static void eoi(void *ctx, uint8_t vector)
{
	if (eoi_count < sizeof eois)
		eois[eoi_count++] = vector;
}

static bool pic_pending(struct extint *x)
{
	return pic_raised;
}

static int pic_ack(struct extint *x)
{
	pic_raised = false;
	return 0x77;
}

static struct extint pic = {pic_pending, pic_ack};

static uint32_t rd(unsigned n, uint32_t reg)
{
	struct lapic_port *p = lapic_port(apic[n]);

	return p->ops->mmio_read(p, reg);
}

static void wr(unsigned n, uint32_t reg, uint32_t v)
{
	struct lapic_port *p = lapic_port(apic[n]);

	p->ops->mmio_write(p, reg, v);
}

static bool wrmsr(unsigned n, uint32_t msr, uint64_t v)
{
	struct lapic_port *p = lapic_port(apic[n]);

	return p->ops->wrmsr(p, msr, v);
}

static uint64_t rdmsr(unsigned n, uint32_t msr)
{
	struct lapic_port *p = lapic_port(apic[n]);
	uint64_t v = 0;

	assert_true(p->ops->rdmsr(p, msr, &v));
	return v;
}

static bool pending(unsigned n)
{
	struct lapic_port *p = lapic_port(apic[n]);

	return p->ops->pending(p);
}

static int ack(unsigned n)
{
	struct lapic_port *p = lapic_port(apic[n]);

	return p->ops->ack(p);
}

/* APICs 0, 1 and 2, enabled by software; 0 has the PIC at LINT0. */
static int setup(void **state)
{
	board_init(&b);
	memset(wakes, 0, sizeof wakes);
	eoi_count = 0;
	pic_raised = false;
	if (lapic_bus_new(&bus, NULL) < 0)
		return -1;
	for (unsigned i = 0; i < 3; i++) {
		struct lapic_env env = {
			.clock = &b.clock.clock,
			.timer_hz = TIMER_HZ,
			.tsc_now = tsc_now,
			.tsc_hz = TSC_HZ,
			.wake = wake,
			.ctx = &wakes[i],
			.extint = i ? NULL : &pic,
			.eoi = eoi,
		};

		if (lapic_new(&apic[i], bus, i, &env, NULL) < 0)
			return -1;
		wr(i, SVR, 0x1ff);
		wakes[i] = 0;
	}
	return 0;
}

static int teardown(void **state)
{
	for (unsigned i = 0; i < 3; i++)
		lapic_free(apic[i]);
	lapic_bus_free(bus);
	board_done(&b);
	return 0;
}

static void msi(uint64_t addr, uint32_t data)
{
	msi_send(lapic_bus_msi(bus), addr, data);
}

static void a_message_goes_through_irr_and_isr(void **state)
{
	msi(0xfee00000, 0x41);
	assert_true(pending(0));
	assert_false(pending(1));
	assert_int_equal(wakes[0], 1);
	assert_int_equal(rd(0, IRR + 0x20), 0x2);
	assert_int_equal(ack(0), 0x41);
	assert_int_equal(rd(0, IRR + 0x20), 0);
	assert_int_equal(rd(0, ISR + 0x20), 0x2);
	assert_int_equal(rd(0, PPR), 0x40);
	wr(0, EOI, 0);
	assert_int_equal(rd(0, ISR + 0x20), 0);
	assert_int_equal(eoi_count, 0); /* it was an edge */
}

static void only_higher_classes_interrupt_a_service(void **state)
{
	msi(0xfee00000, 0x41);
	ack(0);
	msi(0xfee00000, 0x4f);
	assert_false(pending(0));
	msi(0xfee00000, 0x51);
	assert_int_equal(ack(0), 0x51);
	assert_int_equal(ack(0), -1);
	wr(0, EOI, 0);
	wr(0, EOI, 0);
	assert_int_equal(ack(0), 0x4f);
}

static void tpr_and_cr8_hold_interrupts_back(void **state)
{
	struct lapic_port *p = lapic_port(apic[0]);

	p->ops->set_cr8(p, 4);
	assert_int_equal(rd(0, TPR), 0x40);
	msi(0xfee00000, 0x41);
	assert_false(pending(0));
	assert_int_equal(wakes[0], 0);
	wr(0, TPR, 0x3f);
	assert_true(pending(0));
	assert_int_equal(wakes[0], 1);
	assert_int_equal(p->ops->get_cr8(p), 3);
}

static void level_eoi_is_passed_on_unless_suppressed(void **state)
{
	msi(0xfee00000, 0xc041);
	assert_int_equal(rd(0, TMR + 0x20), 0x2);
	ack(0);
	wr(0, EOI, 0);
	assert_int_equal(eoi_count, 1);
	assert_int_equal(eois[0], 0x41);
	wr(0, SVR, 0x11ff);
	msi(0xfee00000, 0xc041);
	ack(0);
	wr(0, EOI, 0);
	assert_int_equal(eoi_count, 1);
}

static void software_disabled_takes_nothing_and_masks_lvts(void **state)
{
	wr(0, LVT_TIMER, 0x40);
	wr(0, SVR, 0xff);
	assert_int_equal(rd(0, LVT_TIMER), LVT_MASKED | 0x40);
	wr(0, LVT_TIMER, 0x40);
	assert_int_equal(rd(0, LVT_TIMER), LVT_MASKED | 0x40);
	msi(0xfee00000, 0x41);
	assert_false(pending(0));
}

static void pic_interrupts_come_through_lint0_as_extint(void **state)
{
	wr(0, LVT_LINT0, 0x700);
	pic_raised = true;
	lapic_extint_changed(apic[0]);
	assert_int_equal(wakes[0], 1);
	assert_int_equal(ack(0), 0x77);
	wr(0, LVT_LINT0, 0x700 | LVT_MASKED);
	pic_raised = true;
	assert_false(pending(0));
	assert_true(wrmsr(0, APIC_BASE, LAPIC_BASE)); /* off: INTR goes straight in */
	assert_true(pending(0));
}

static void one_shot_timer_fires_once_on_the_tick(void **state)
{
	wr(0, DIVIDE, 0x3); /* 16 */
	wr(0, LVT_TIMER, 0x40);
	wr(0, INITIAL, 1000);
	board_advance(&b, 8000);
	assert_int_equal(rd(0, CURRENT), 500);
	board_advance(&b, 7999);
	assert_false(pending(0));
	board_advance(&b, 1);
	assert_int_equal(ack(0), 0x40);
	assert_int_equal(rd(0, CURRENT), 0);
	wr(0, EOI, 0);
	board_advance(&b, 1000000);
	assert_false(pending(0));
}

static void an_ended_one_shot_stays_at_zero_when_made_periodic(void **state)
{
	wr(0, DIVIDE, 0xb); /* 1 */
	wr(0, LVT_TIMER, 0x40);
	wr(0, INITIAL, 1000);
	board_advance(&b, 1000);
	assert_int_equal(ack(0), 0x40);
	wr(0, EOI, 0);
	wr(0, LVT_TIMER, 0x20040);
	board_advance(&b, 1000100);
	assert_int_equal(rd(0, CURRENT), 0);
	wr(0, DIVIDE, 0x3);
	assert_int_equal(rd(0, CURRENT), 0);
	assert_false(pending(0));
	assert_int_equal(rd(0, INITIAL), 1000);
	wr(0, INITIAL, 1000);
	assert_int_equal(rd(0, CURRENT), 1000);
	board_advance(&b, 16000);
	assert_int_equal(ack(0), 0x40);
}

static void periodic_timer_does_not_drift(void **state)
{
	unsigned fired = 0;

	wr(0, DIVIDE, 0xb); /* 1 */
	wr(0, LVT_TIMER, 0x20040);
	wr(0, INITIAL, 1000003);
	for (unsigned i = 0; i < 1000; i++) {
		board_advance(&b, 1000003);
		if (ack(0) == 0x40)
			fired++;
		wr(0, EOI, 0);
	}
	assert_int_equal(fired, 1000);
	assert_int_equal(rd(0, CURRENT), 1000003);
}

static void masked_timer_counts_but_stays_silent(void **state)
{
	wr(0, LVT_TIMER, LVT_MASKED | 0x40);
	wr(0, INITIAL, 1000);
	board_advance(&b, 1000000);
	assert_int_equal(rd(0, CURRENT), 0);
	assert_false(pending(0));
}

static void tsc_deadline_fires_and_disarms_itself(void **state)
{
	wr(0, LVT_TIMER, 0x40040);
	wrmsr(0, DEADLINE, tsc_now(NULL) + 2000);
	board_advance(&b, 999);
	assert_false(pending(0));
	assert_int_not_equal(rdmsr(0, DEADLINE), 0);
	board_advance(&b, 2);
	assert_int_equal(ack(0), 0x40);
	assert_int_equal(rdmsr(0, DEADLINE), 0);
}

static void a_past_tsc_deadline_fires_at_once(void **state)
{
	wr(0, LVT_TIMER, 0x40040);
	wrmsr(0, DEADLINE, 1);
	assert_true(pending(0));
}

static void zero_disarms_the_tsc_deadline(void **state)
{
	wr(0, LVT_TIMER, 0x40040);
	wrmsr(0, DEADLINE, tsc_now(NULL) + 2000);
	wrmsr(0, DEADLINE, 0);
	board_advance(&b, 1000000);
	assert_false(pending(0));
}

static void tsc_deadline_is_ignored_in_other_modes(void **state)
{
	wr(0, LVT_TIMER, 0x40);
	wrmsr(0, DEADLINE, 1);
	assert_int_equal(rdmsr(0, DEADLINE), 0);
	assert_false(pending(0));
	wr(0, LVT_TIMER, 0x40040);
	wr(0, INITIAL, 1000);
	assert_int_equal(rd(0, INITIAL), 0);
}

static void ipis_by_physical_destination_and_shorthands(void **state)
{
	wr(0, ICR2, 1u << 24);
	wr(0, ICR, 0x50);
	assert_int_equal(ack(1), 0x50);
	assert_false(pending(0) || pending(2));
	wr(0, ICR, 0x40050); /* self */
	assert_int_equal(ack(0), 0x50);
	assert_false(pending(2));
	wr(2, ICR, 0x80051); /* all */
	assert_true(pending(2));
	wr(2, ICR, 0xc0061); /* all but self */
	assert_int_equal(ack(1), 0x61);
	assert_int_equal(ack(2), 0x51);
}

static void logical_destinations_flat_and_cluster(void **state)
{
	wr(1, LDR, 0x02000000);
	wr(2, LDR, 0x04000000);
	wr(0, ICR2, 0x06000000);
	wr(0, ICR, 0x850);
	assert_int_equal(ack(1), 0x50);
	assert_int_equal(ack(2), 0x50);
	wr(1, EOI, 0);
	wr(2, EOI, 0);
	for (unsigned i = 0; i < 3; i++)
		wr(i, DFR, 0x0fffffff);
	wr(1, LDR, 0x11000000);
	wr(2, LDR, 0x21000000);
	wr(0, ICR2, 0x21000000);
	wr(0, ICR, 0x850);
	assert_false(pending(1));
	assert_true(pending(2));
}

static void lowest_priority_chooses_the_idlest(void **state)
{
	wr(0, TPR, 0x30);
	wr(1, TPR, 0x10);
	wr(2, TPR, 0x20);
	msi(0xfeeff000, 0x150);
	assert_true(pending(1));
	assert_false(pending(0) || pending(2));
}

static void init_sipi_and_nmi_are_latched(void **state)
{
	struct lapic_port *p = lapic_port(apic[1]);

	wr(1, TPR, 0x10);
	wr(0, ICR2, 1u << 24);
	wr(0, ICR, 0xc500); /* INIT assert */
	wr(0, ICR, 0x8500); /* INIT de-assert: nothing */
	assert_true(p->ops->take_init(p));
	assert_false(p->ops->take_init(p));
	assert_int_equal(rd(1, TPR), 0);
	wr(0, ICR, 0x69a);
	assert_int_equal(p->ops->take_sipi(p), 0x9a);
	assert_int_equal(p->ops->take_sipi(p), -1);
	wr(0, ICR, 0x400);
	assert_true(p->ops->take_nmi(p));
	assert_false(p->ops->take_nmi(p));
	assert_int_equal(wakes[1], 3);
}

static void two_nmis_are_told_apart(void **state)
{
	struct lapic_port *p = lapic_port(apic[1]);

	wr(0, ICR2, 1u << 24);
	for (unsigned i = 0; i < 3; i++)
		wr(0, ICR, 0x400);
	assert_true(p->ops->take_nmi(p));
	assert_true(p->ops->take_nmi(p));
	assert_false(p->ops->take_nmi(p));
}

static void send_takes_fixed_and_nmi_to_one(void **state)
{
	struct lapic_port *from = lapic_port(apic[0]), *p = lapic_port(apic[1]);

	assert_true(from->ops->send(from, 1, 0x60));
	assert_int_equal(p->ops->ack(p), 0x60);
	assert_true(from->ops->send(from, 1, 0x400));
	assert_true(p->ops->take_nmi(p));
	assert_false(from->ops->send(from, 77, 0x60)); /* nobody */
	assert_false(from->ops->send(from, 1, 0x0f));
	assert_false(from->ops->send(from, 1, 0x500)); /* INIT */
	assert_false(p->ops->take_init(p));
}

static void lint1_rising_is_an_nmi(void **state)
{
	struct lapic_port *p = lapic_port(apic[0]);

	wr(0, LVT_LINT1, 0x400);
	irq_set(lapic_nmi_line(apic[0]), true);
	assert_true(p->ops->take_nmi(p));
	irq_set(lapic_nmi_line(apic[0]), true);
	assert_false(p->ops->take_nmi(p));
}

static void illegal_vectors_and_registers_are_errors(void **state)
{
	wr(0, LVT_ERROR, 0xfe);
	wr(0, ICR, 0x4000f);
	assert_int_equal(rd(0, ESR), 0); /* shown after a write */
	wr(0, ESR, 0);
	assert_int_equal(rd(0, ESR), 0x20);
	assert_int_equal(ack(0), 0xfe);
	wr(0, EOI, 0);
	msi(0xfee00000, 0x0f);
	rd(0, 0x40);
	wr(0, ESR, 0);
	assert_int_equal(rd(0, ESR), 0xc0);
}

static void modes_change_only_as_the_manual_allows(void **state)
{
	const uint64_t base = LAPIC_BASE | 0x100;

	assert_false(wrmsr(0, APIC_BASE, base | BASE_X2));
	assert_true(wrmsr(0, APIC_BASE, base));
	assert_int_equal(rd(0, 0x30), 0xffffffff);
	assert_false(wrmsr(0, APIC_BASE, base | BASE_ON | BASE_X2));
	assert_true(wrmsr(0, APIC_BASE, base | BASE_ON));
	assert_true(wrmsr(0, APIC_BASE, base | BASE_ON | BASE_X2));
	assert_false(wrmsr(0, APIC_BASE, base | BASE_ON));
	assert_false(wrmsr(0, APIC_BASE, base | BASE_ON | BASE_X2 | 1));
	assert_true(wrmsr(0, APIC_BASE, base));
}

static void x2apic_registers_are_msrs(void **state)
{
	uint64_t v;
	struct lapic_port *p = lapic_port(apic[2]);

	assert_false(p->ops->rdmsr(p, 0x802, &v));
	assert_true(wrmsr(2, APIC_BASE, LAPIC_BASE | BASE_ON | BASE_X2));
	assert_int_equal(rdmsr(2, 0x802), 2);
	assert_int_equal(rdmsr(2, 0x80d), 4); /* logical: cluster 0, member 2 */
	assert_false(p->ops->rdmsr(p, 0x80e, &v));
	assert_false(wrmsr(2, 0x80b, 1)); /* EOI takes 0 */
	assert_true(wrmsr(2, 0x80b, 0));
	assert_false(wrmsr(2, 0x80d, 0));
	assert_false(wrmsr(2, 0x808, 0x100));
	assert_true(wrmsr(2, X2_SELF_IPI, 0x55));
	assert_int_equal(ack(2), 0x55);
	assert_true(wrmsr(2, X2_ICR, 1ull << 32 | 0x66));
	assert_int_equal(ack(1), 0x66);
	assert_int_equal(rdmsr(2, X2_ICR), 1ull << 32 | 0x66);
}

static void x2apic_logical_destination_is_cluster_and_member(void **state)
{
	for (unsigned i = 0; i < 3; i++)
		assert_true(wrmsr(i, APIC_BASE, LAPIC_BASE | BASE_ON | BASE_X2));
	assert_true(wrmsr(0, X2_ICR, 6ull << 32 | 0x866));
	assert_false(pending(0));
	assert_true(pending(1) && pending(2));
	assert_true(wrmsr(0, X2_ICR, 0xffffffffull << 32 | 0x77));
	assert_int_equal(ack(0), 0x77);
}

static void state_goes_through_the_register_page(void **state)
{
	static struct x86_state first, second;
	struct lapic_port *from = lapic_port(apic[0]), *to = lapic_port(apic[1]);

	wr(0, TPR, 0x20);
	wr(0, DIVIDE, 0x3);
	wr(0, LVT_TIMER, 0x20040);
	wr(0, INITIAL, 100000);
	msi(0xfee00000, 0xc051);
	ack(0);
	msi(0xfee00000, 0x52);
	board_advance(&b, 16 * 30000);
	from->ops->store(from, &first);
	assert_int_equal(load_le(first.lapic + CURRENT, 4), 70000);
	store_le(first.lapic + 0x20, 1u << 24, 4); /* IDs are not state */
	to->ops->load(to, &first);
	to->ops->store(to, &second);
	assert_memory_equal(first.lapic, second.lapic, sizeof first.lapic);
	assert_int_equal(first.apic_base, second.apic_base);
	wr(1, EOI, 0);
	assert_int_equal(eois[0], 0x51);
	assert_int_equal(ack(1), 0x52);
	wr(1, EOI, 0);
	board_advance(&b, 16 * 70000);
	assert_int_equal(ack(1), 0x40);
}

static void deadline_survives_load(void **state)
{
	static struct x86_state s;
	struct lapic_port *from = lapic_port(apic[0]), *to = lapic_port(apic[1]);

	wr(0, LVT_TIMER, 0x40040);
	wrmsr(0, DEADLINE, tsc_now(NULL) + 2000);
	from->ops->store(from, &s);
	to->ops->load(to, &s);
	board_advance(&b, 1001);
	assert_int_equal(ack(1), 0x40);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_message_goes_through_irr_and_isr),
		T(only_higher_classes_interrupt_a_service),
		T(tpr_and_cr8_hold_interrupts_back),
		T(level_eoi_is_passed_on_unless_suppressed),
		T(software_disabled_takes_nothing_and_masks_lvts),
		T(pic_interrupts_come_through_lint0_as_extint),
		T(one_shot_timer_fires_once_on_the_tick),
		T(an_ended_one_shot_stays_at_zero_when_made_periodic),
		T(periodic_timer_does_not_drift),
		T(masked_timer_counts_but_stays_silent),
		T(tsc_deadline_fires_and_disarms_itself),
		T(a_past_tsc_deadline_fires_at_once),
		T(zero_disarms_the_tsc_deadline),
		T(tsc_deadline_is_ignored_in_other_modes),
		T(ipis_by_physical_destination_and_shorthands),
		T(logical_destinations_flat_and_cluster),
		T(lowest_priority_chooses_the_idlest),
		T(init_sipi_and_nmi_are_latched),
		T(two_nmis_are_told_apart),
		T(send_takes_fixed_and_nmi_to_one),
		T(lint1_rising_is_an_nmi),
		T(illegal_vectors_and_registers_are_errors),
		T(modes_change_only_as_the_manual_allows),
		T(x2apic_registers_are_msrs),
		T(x2apic_logical_destination_is_cluster_and_member),
		T(state_goes_through_the_register_page),
		T(deadline_survives_load),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
