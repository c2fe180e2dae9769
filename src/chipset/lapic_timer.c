#include "chipset/lapic_priv.h"

/* lapic_timer: the local APIC's timer (11.5.4) in its three modes. Counts are computed
 * from guest time, so that a periodic timer never drifts; a period whose interrupt comes
 * late is merged with the next one, as its IRR bit would be. */

#define NS_PER_S      1000000000ull
#define MIN_PERIOD_NS 50000

enum timer_mode lapic_timer_mode(const struct lapic *l)
{
	return l->lvt[LVT_TIMER] >> 17 & 3;
}

/* Bits 0, 1 and 3 of the divide register: 2, 4, .. 128, 1. */
static uint32_t divider(const struct lapic *l)
{
	uint32_t code = (l->divide & 3) | (l->divide >> 1 & 4);

	return 1u << ((code + 1) & 7);
}

/* Timer ticks since start_ns. */
static uint64_t elapsed(const struct lapic *l, uint64_t now)
{
	if (now <= l->start_ns)
		return 0;
	return mul_div(now - l->start_ns, l->env.timer_hz, NS_PER_S * divider(l));
}

/* The first guest time at which elapsed() is ticks. */
static uint64_t tick_ns(const struct lapic *l, uint64_t ticks)
{
	uint64_t unit = NS_PER_S * divider(l);
	uint64_t ns = mul_div(ticks, unit, l->env.timer_hz);

	if (mul_div(ns, l->env.timer_hz, unit) < ticks)
		ns++;
	return l->start_ns + ns;
}

/* How many periods have ended after that many ticks. */
static uint64_t periods(const struct lapic *l, uint64_t ticks)
{
	if (ticks < l->first)
		return 0;
	if (lapic_timer_mode(l) != TIMER_PERIODIC)
		return 1;
	return 1 + (ticks - l->first) / l->initial;
}

static uint64_t tsc_to_ns(const struct lapic *l, uint64_t tsc)
{
	uint64_t now = clock_now(l->env.clock), tsc_now = l->env.tsc_now(l->env.ctx);
	uint64_t years = l->env.tsc_hz * NS_PER_S; /* thirty: as good as never */

	if (tsc <= tsc_now)
		return now;
	return now + mul_div(min_u64(tsc - tsc_now, years), NS_PER_S, l->env.tsc_hz) + 1;
}

/* When the count runs out next. Periods too short to be served one by one share a wake-up;
 * their interrupts would be merged anyway. */
static uint64_t next_expiry(const struct lapic *l)
{
	uint64_t at = tick_ns(l, l->first + l->fired * (uint64_t)l->initial);

	if (lapic_timer_mode(l) == TIMER_PERIODIC && l->fired)
		at = max_u64(at, clock_now(l->env.clock) + MIN_PERIOD_NS);
	return at;
}

static void arm(struct lapic *l)
{
	enum timer_mode mode = lapic_timer_mode(l);

	if (mode == TIMER_TSC_DEADLINE && l->tsc_deadline)
		timer_arm(l->env.clock, &l->timer, tsc_to_ns(l, l->tsc_deadline));
	else if (mode != TIMER_TSC_DEADLINE && l->initial && !l->over &&
		 (mode == TIMER_PERIODIC || !l->fired))
		timer_arm(l->env.clock, &l->timer, next_expiry(l));
	else
		timer_cancel(l->env.clock, &l->timer);
}

/* Signals what has expired by now. */
static void check(struct lapic *l)
{
	uint64_t done;

	if (lapic_timer_mode(l) == TIMER_TSC_DEADLINE) {
		if (!l->tsc_deadline || l->env.tsc_now(l->env.ctx) < l->tsc_deadline)
			return;
		l->tsc_deadline = 0;
		lapic_lvt_fire(l, LVT_TIMER);
		return;
	}
	if (!l->initial || l->over)
		return;
	done = periods(l, elapsed(l, clock_now(l->env.clock)));
	if (done > l->fired) {
		l->fired = done;
		lapic_lvt_fire(l, LVT_TIMER);
	}
}

void lapic_timer_fire(struct timer *t)
{
	struct lapic *l = container_of(t, struct lapic, timer);

	lapic_lock(l);
	check(l);
	arm(l);
	lapic_unlock(l);
}

uint32_t lapic_timer_count(struct lapic *l)
{
	uint64_t ticks;

	if (!l->initial || l->over || lapic_timer_mode(l) == TIMER_TSC_DEADLINE)
		return 0;
	ticks = elapsed(l, clock_now(l->env.clock));
	if (ticks < l->first)
		return l->first - ticks;
	if (lapic_timer_mode(l) != TIMER_PERIODIC)
		return 0;
	return l->initial - (ticks - l->first) % l->initial;
}

/* Counting goes on with count ticks left, from now. */
static void restart(struct lapic *l, uint32_t count)
{
	l->start_ns = clock_now(l->env.clock);
	l->first = count;
	l->fired = !count; /* a one-shot that is over */
	l->over = false;
	arm(l);
}

void lapic_timer_set_initial(struct lapic *l, uint32_t v)
{
	if (lapic_timer_mode(l) == TIMER_TSC_DEADLINE)
		return; /* ignored (11.5.4.1) */
	l->initial = v;
	restart(l, v);
}

void lapic_timer_set_divide(struct lapic *l, uint32_t v)
{
	uint32_t count = lapic_timer_count(l);

	check(l);
	l->divide = v & 0x0b;
	if (!l->over)
		restart(l, count);
}

void lapic_timer_set_deadline(struct lapic *l, uint64_t tsc)
{
	if (lapic_timer_mode(l) != TIMER_TSC_DEADLINE)
		return;
	l->tsc_deadline = tsc;
	check(l);
	arm(l);
}

void lapic_timer_stop(struct lapic *l)
{
	l->initial = l->first = 0;
	l->fired = 1;
	l->tsc_deadline = 0;
	timer_cancel(l->env.clock, &l->timer);
}

void lapic_timer_mode_changed(struct lapic *l, enum timer_mode before)
{
	enum timer_mode now = lapic_timer_mode(l);
	uint64_t ticks = elapsed(l, clock_now(l->env.clock));

	if (now == before)
		return;
	if (now == TIMER_TSC_DEADLINE || before == TIMER_TSC_DEADLINE) {
		lapic_timer_stop(l); /* either way disarms it (11.5.4.1) */
	} else if (l->initial && !l->over) {
		if (now == TIMER_PERIODIC && ticks >= l->first)
			l->over = true; /* only a new initial count makes it count again */
		else if (now != TIMER_PERIODIC && ticks >= l->first)
			restart(l, l->initial - (ticks - l->first) % l->initial);
		else
			arm(l);
	}
}

void lapic_timer_resume(struct lapic *l, uint32_t count)
{
	if (lapic_timer_mode(l) == TIMER_PERIODIC && (!count || count > l->initial))
		count = l->initial;
	if (!l->initial)
		count = 0;
	restart(l, count);
	if (lapic_timer_mode(l) != TIMER_TSC_DEADLINE)
		l->tsc_deadline = 0;
}
