#include "base/fake_clock.h"

#include "base/test.h"

struct probe {
	struct timer timer;
	struct fake_clock *f;
	uint64_t fired_at;
	unsigned fired;
	uint64_t again_ns; /* rearm this much later; 0: do not */
};

static void on_fire(struct timer *t)
{
	struct probe *p = container_of(t, struct probe, timer);

	p->fired++;
	p->fired_at = clock_now(&p->f->clock);
	if (p->again_ns)
		timer_arm(&p->f->clock, t, p->fired_at + p->again_ns);
}

static struct probe probe_on(struct fake_clock *f)
{
	return (struct probe){.timer.fire = on_fire, .f = f};
}

static void a_timer_fires_once_at_its_own_deadline(void **unused)
{
	struct fake_clock f;

	fake_clock_init(&f);
	struct probe p = probe_on(&f);
	timer_arm(&f.clock, &p.timer, 50);
	fake_clock_advance(&f, 49);
	assert_int_equal(p.fired, 0);
	fake_clock_advance(&f, 100);
	assert_int_equal(p.fired, 1);
	assert_int_equal(p.fired_at, 50);
	assert_int_equal(clock_now(&f.clock), 149);
}

static void timers_fire_in_order_of_deadline(void **unused)
{
	struct fake_clock f;

	fake_clock_init(&f);
	struct probe late = probe_on(&f), early = probe_on(&f);
	timer_arm(&f.clock, &late.timer, 30);
	timer_arm(&f.clock, &early.timer, 20);
	fake_clock_advance(&f, 30);
	assert_int_equal(early.fired_at, 20);
	assert_int_equal(late.fired_at, 30);
}

static void a_periodic_timer_catches_up_in_one_advance(void **unused)
{
	struct fake_clock f;

	fake_clock_init(&f);
	struct probe p = probe_on(&f);
	p.again_ns = 10;
	timer_arm(&f.clock, &p.timer, 10);
	fake_clock_advance(&f, 100);
	assert_int_equal(p.fired, 10);
}

static void cancel_and_rearm_leave_one_firing(void **unused)
{
	struct fake_clock f;

	fake_clock_init(&f);
	struct probe p = probe_on(&f);
	timer_cancel(&f.clock, &p.timer);
	timer_arm(&f.clock, &p.timer, 10);
	timer_arm(&f.clock, &p.timer, 20);
	fake_clock_advance(&f, 15);
	assert_int_equal(p.fired, 0);
	timer_cancel(&f.clock, &p.timer);
	fake_clock_advance(&f, 15);
	assert_int_equal(p.fired, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_timer_fires_once_at_its_own_deadline),
		cmocka_unit_test(timers_fire_in_order_of_deadline),
		cmocka_unit_test(a_periodic_timer_catches_up_in_one_advance),
		cmocka_unit_test(cancel_and_rearm_leave_one_firing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
