/* A fake engine stands for the guest: it counts its runs, and leaves when kicked or told. */
#include "machine/vcpu_thread.h"

#include <errno.h>
#include <stdatomic.h>
#include <time.h>

#include "base/test.h"

struct guest {
	struct vcpu vcpu;
	struct vcpu_owner owner;
	struct vcpu_thread thread;
	atomic_bool kicked;
	atomic_int runs, ends, failures;
	atomic_int leave_with; /* enum vcpu_stop + 1, or -errno; 0: stay */
	struct vcpu_thread *hold_in_guest;
};

static void nap(void)
{
	nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
}

static int fake_run(struct vcpu *v, enum vcpu_stop *why, struct err *e)
{
	struct guest *g = container_of(v, struct guest, vcpu);

	atomic_fetch_add(&g->runs, 1);
	if (g->hold_in_guest)
		vcpu_thread_hold(g->hold_in_guest);
	for (;;) {
		int leave = atomic_load(&g->leave_with);

		if (leave < 0)
			return err_set(e, -leave, "broken");
		if (atomic_exchange(&g->kicked, false)) {
			*why = VCPU_KICKED;
			return 0;
		}
		if (leave) {
			*why = (enum vcpu_stop)(leave - 1);
			return 0;
		}
		nap();
	}
}

static void fake_kick(struct vcpu *v)
{
	atomic_store(&container_of(v, struct guest, vcpu)->kicked, true);
}

static const struct engine fake_engine = {.name = "fake", .run = fake_run, .kick = fake_kick};

static void guest_ended(struct vcpu_owner *o, struct vcpu_thread *t, enum vcpu_stop why)
{
	atomic_fetch_add(&container_of(o, struct guest, owner)->ends, 1);
}

static void guest_failed(struct vcpu_owner *o, struct vcpu_thread *t, const struct err *why)
{
	atomic_fetch_add(&container_of(o, struct guest, owner)->failures, 1);
}

static void start(struct guest *g)
{
	struct err err;

	g->vcpu.engine = &fake_engine;
	g->owner = (struct vcpu_owner){.ended = guest_ended, .failed = guest_failed};
	vcpu_thread_init(&g->thread, &g->owner);
	g->thread.vcpu = &g->vcpu;
	assert_int_equal(vcpu_thread_start(&g->thread, 0, &err), 0);
}

static void end(struct guest *g)
{
	vcpu_thread_quit(&g->thread);
	vcpu_thread_done(&g->thread);
}

static void until(atomic_int *count, int at_least)
{
	while (atomic_load(count) < at_least)
		nap();
}

static void it_starts_parked(void **state)
{
	struct guest g = {0};

	start(&g);
	vcpu_thread_wait_parked(&g.thread);
	assert_int_equal(g.runs, 0);
	end(&g);
	assert_int_equal(g.runs, 0);
}

static void it_parks_and_resumes(void **state)
{
	struct guest g = {0};

	start(&g);
	for (int i = 1; i <= 3; i++) {
		vcpu_thread_resume(&g.thread);
		until(&g.runs, i);
		vcpu_thread_park(&g.thread);
		vcpu_thread_wait_parked(&g.thread);
	}
	assert_int_equal(g.runs, 3);
	end(&g);
}

static void a_stray_kick_only_reenters(void **state)
{
	struct guest g = {0};

	start(&g);
	vcpu_thread_resume(&g.thread);
	until(&g.runs, 1);
	fake_kick(&g.vcpu);
	until(&g.runs, 2);
	end(&g);
}

static void a_triple_fault_is_told_once(void **state)
{
	struct guest g = {.leave_with = VCPU_SHUTDOWN + 1};

	start(&g);
	vcpu_thread_resume(&g.thread);
	until(&g.ends, 1);
	vcpu_thread_park(&g.thread);
	vcpu_thread_wait_parked(&g.thread);
	assert_int_equal(g.runs, 1);
	assert_int_equal(g.ends, 1);
	end(&g);
}

static void a_failure_is_told(void **state)
{
	struct guest g = {.leave_with = -EIO};

	start(&g);
	vcpu_thread_resume(&g.thread);
	until(&g.failures, 1);
	end(&g);
	assert_int_equal(g.runs, 1);
}

static void a_held_vcpu_stays_out_until_resumed(void **state)
{
	struct guest g = {0};

	g.hold_in_guest = &g.thread;
	start(&g);
	vcpu_thread_resume(&g.thread);
	until(&g.runs, 1);
	for (int i = 0; i < 20; i++)
		nap();
	assert_int_equal(g.runs, 1);
	vcpu_thread_park(&g.thread);
	vcpu_thread_wait_parked(&g.thread);
	g.hold_in_guest = NULL;
	vcpu_thread_resume(&g.thread);
	until(&g.runs, 2);
	end(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_starts_parked),
		cmocka_unit_test(it_parks_and_resumes),
		cmocka_unit_test(a_stray_kick_only_reenters),
		cmocka_unit_test(a_triple_fault_is_told_once),
		cmocka_unit_test(a_failure_is_told),
		cmocka_unit_test(a_held_vcpu_stays_out_until_resumed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
