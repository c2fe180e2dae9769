/* threads_test: the chipset under several threads at once, as a running machine uses it:
 * two vCPUs, the loop thread with its timers, and a device thread. Run under TSan it shows
 * races, anywhere a deadlock or a lost interrupt. */
#include "chipset/chipset.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <time.h>

#include "base/loop.h"
#include "base/test.h"
#include "chipset/test_board.h"

#define ROUNDS     2000
#define PATIENCE_S 60
#define PING       0x51
#define LEVEL_GSI  10
#define LEVEL_VEC  0x61
#define RTE_LEVEL  0x8000u

static struct test_board b;
static struct loop *loop;
static struct device *pic, *ioapic, *uart, *rtc, *pit;
static struct lapic_bus *bus;
static struct lapic *apic[2];
static struct fan {
	struct irq_line line;
	unsigned n;
} fan[24];
static struct irq_line extint;
static struct irq_line *lines[24];
static struct byte_sink sink;
static atomic_uint pings[2], levels;
static atomic_bool over;

static void fan_set(struct irq_line *l, bool level)
{
	struct fan *f = container_of(l, struct fan, line);

	if (f->n < 16 && pic)
		irq_set(pic_input(pic, f->n), level);
	if (ioapic)
		irq_set(ioapic_input(ioapic, f->n), level);
}

static void extint_set(struct irq_line *l, bool level)
{
	if (apic[0])
		lapic_extint_changed(apic[0]);
}

static void swallow(struct byte_sink *s, const uint8_t *bytes, uint32_t len)
{
}

static uint64_t tsc_now(void *ctx)
{
	return clock_now(loop_clock(loop));
}

static void wake(void *ctx)
{
}

static void eoi(void *ctx, uint8_t vector)
{
	ioapic_eoi(ioapic, vector);
}

static void wr(unsigned n, uint32_t reg, uint32_t v)
{
	struct lapic_port *p = lapic_port(apic[n]);

	p->ops->mmio_write(p, reg, v);
}

/* Takes whatever waits at a vCPU; returns the vector or -1. */
static int serve(unsigned n)
{
	struct lapic_port *p = lapic_port(apic[n]);
	int v = p->ops->pending(p) ? p->ops->ack(p) : -1;

	if (v == PING)
		atomic_fetch_add(&pings[n], 1);
	if (v == LEVEL_VEC) {
		irq_set(&fan[LEVEL_GSI].line, false);
		atomic_fetch_add(&levels, 1);
	}
	if (v >= 0)
		wr(n, 0xb0, 0);
	return v;
}

static void out(uint16_t port, uint8_t v)
{
	bus_write(b.bus, BUS_PIO, port, v, 1);
}

/* A vCPU: touches devices, pings the other, and waits for both pings. */
static void *vcpu(void *arg)
{
	unsigned n = arg ? 1 : 0;

	for (unsigned i = 1; i <= ROUNDS; i++) {
		out(PORT_COM1, 'x');
		(void)bus_read(b.bus, BUS_PIO, PORT_COM1 + 2, 1);
		out(PORT_RTC, 0x0c);
		(void)bus_read(b.bus, BUS_PIO, PORT_RTC + 1, 1);
		(void)bus_read(b.bus, BUS_PIO, PORT_PIT, 1);
		wr(n, 0x380, 50000); /* LAPIC timer: 50 us */
		wr(n, 0x310, (1 - n) << 24);
		wr(n, 0x300, PING);
		/* Until both have been served: a second one would merge with the first. */
		while ((atomic_load(&pings[0]) < i || atomic_load(&pings[1]) < i) &&
		       !atomic_load(&over))
			if (serve(n) < 0)
				sched_yield();
	}
	while (!atomic_load(&over))
		if (serve(n) < 0)
			sched_yield();
	return NULL;
}

/* A device with a level-triggered wire: each assertion must be served. */
static void *device(void *arg)
{
	for (unsigned i = 1; i <= ROUNDS; i++) {
		irq_set(&fan[LEVEL_GSI].line, true);
		while (atomic_load(&levels) < i && !atomic_load(&over))
			sched_yield();
	}
	return NULL;
}

static void *run_loop(void *arg)
{
	assert_int_equal(loop_run(loop), 0);
	return NULL;
}

static void build(void)
{
	board_init(&b);
	assert_int_equal(loop_new(&loop, NULL), 0);
	for (unsigned i = 0; i < 24; i++) {
		fan[i] = (struct fan){{fan_set}, i};
		lines[i] = &fan[i].line;
	}
	extint.set = extint_set;
	sink.put = swallow;
	b.env.clock = loop_clock(loop);
	b.env.irq = lines;
	b.env.extint = &extint;
	b.env.serial_out = &sink;
	assert_int_equal(lapic_bus_new(&bus, NULL), 0);
	b.env.msi = lapic_bus_msi(bus);
	pic = board_add(&b, &pic_type);
	ioapic = board_add(&b, &ioapic_type);
	uart = board_add(&b, &uart_type);
	rtc = board_add(&b, &rtc_type);
	pit = board_add(&b, &pit_type);
	for (unsigned i = 0; i < 2; i++) {
		const struct lapic_env env = {
			.clock = loop_clock(loop),
			.tsc_now = tsc_now,
			.wake = wake,
			.extint = i ? NULL : pic_extint(pic),
			.eoi = eoi,
		};

		assert_int_equal(lapic_new(&apic[i], bus, i, &env, NULL), 0);
		wr(i, 0xf0, 0x1ff);
		wr(i, 0x320, 0x20041); /* periodic */
	}
}

/* Timers and interrupts of all kinds, at LAPIC 0 and through the PIC. */
static void set_going(void)
{
	static const struct {
		uint8_t gsi, dest;
		uint32_t low;
	} routes[] = {
		{IRQ_COM1, 1, 0x71}, {IRQ_RTC, 0, 0x72}, {LEVEL_GSI, 1, LEVEL_VEC | RTE_LEVEL}};

	for (unsigned i = 0; i < ARRAY_SIZE(routes); i++) {
		board_store(&b, IOAPIC_BASE, 0x11 + routes[i].gsi * 2);
		board_store(&b, IOAPIC_BASE + 0x10, (uint32_t)routes[i].dest << 24);
		board_store(&b, IOAPIC_BASE, 0x10 + routes[i].gsi * 2);
		board_store(&b, IOAPIC_BASE + 0x10, routes[i].low);
	}
	out(PORT_PIC1, 0x13); /* single, auto EOI, vector 0x20 */
	out(PORT_PIC1 + 1, 0x20);
	out(PORT_PIC1 + 1, 0x03);
	out(PORT_PIC1 + 1, 0xfe);
	out(PORT_PIT + 3, 0x34);
	out(PORT_PIT, 0x00);
	out(PORT_PIT, 0x04); /* 1024 ticks */
	out(PORT_RTC, 0x0b);
	out(PORT_RTC + 1, 0x42); /* periodic */
	out(PORT_COM1 + 4, 0x08);
	out(PORT_COM1 + 1, 0x03);
}

static bool all_done(void)
{
	return atomic_load(&pings[0]) >= ROUNDS && atomic_load(&pings[1]) >= ROUNDS &&
	       atomic_load(&levels) >= ROUNDS;
}

static void no_interrupt_is_lost_between_threads(void **state)
{
	pthread_t t[4];
	time_t end = time(NULL) + PATIENCE_S;
	const struct timespec nap = {.tv_nsec = 5000000};

	build();
	set_going();
	pthread_create(&t[0], NULL, run_loop, NULL);
	pthread_create(&t[1], NULL, vcpu, NULL);
	pthread_create(&t[2], NULL, vcpu, &over);
	pthread_create(&t[3], NULL, device, NULL);
	while (!all_done() && time(NULL) < end)
		nanosleep(&nap, NULL);
	atomic_store(&over, true);
	loop_stop(loop);
	for (unsigned i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	assert_true(atomic_load(&pings[0]) >= ROUNDS);
	assert_true(atomic_load(&pings[1]) >= ROUNDS);
	assert_true(atomic_load(&levels) >= ROUNDS);

	for (unsigned i = 0; i < 2; i++)
		lapic_free(apic[i]);
	apic[0] = NULL;
	pit_type.free(pit);
	rtc_type.free(rtc);
	uart_type.free(uart);
	ioapic_type.free(ioapic);
	pic_type.free(pic);
	lapic_bus_free(bus);
	loop_free(loop);
	board_done(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_interrupt_is_lost_between_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
