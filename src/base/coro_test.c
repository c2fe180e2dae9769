#include "base/coro.h"

#include <immintrin.h>
#include <pthread.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/test.h"

struct step {
	struct coros *s;
	struct coro *self;
	struct coro_mutex *lock;
	struct coro_queue *queue;
	struct step *other;
	char *log, name;
	unsigned waits;
};

static struct coros *new_coros(void)
{
	struct coros *s = NULL;
	struct err e;

	assert_int_equal(coros_new(&s, &e), 0);
	return s;
}

static void note(struct step *t, char what)
{
	char text[3] = {t->name, what, 0};

	strcat(t->log, text);
}

static void wait_some(void *arg)
{
	struct step *t = arg;

	t->self = coro_self(t->s);
	note(t, '<');
	for (unsigned i = 0; i < t->waits; i++) {
		coro_wait(t->s);
		note(t, '.');
	}
	note(t, '>');
}

static void a_wake_runs_it_until_it_waits_again(void **unused)
{
	char log[64] = "";
	struct step a = {.s = new_coros(), .log = log, .name = 'a', .waits = 2};

	assert_null(coro_self(a.s));
	assert_int_equal(coro_start(a.s, wait_some, &a), 0);
	assert_string_equal(log, "a<");
	coro_wake(a.self);
	assert_string_equal(log, "a<a.");
	coro_wake(a.self);
	assert_string_equal(log, "a<a.a.a>");
	assert_null(coro_self(a.s));
	coros_free(a.s);
}

static void wake_self_then_wait(void *arg)
{
	struct step *t = arg;

	coro_wake(coro_self(t->s));
	coro_wait(t->s);
	note(t, '!');
}

static void a_wake_that_comes_early_is_kept(void **unused)
{
	char log[64] = "";
	struct step a = {.s = new_coros(), .log = log, .name = 'a'};

	assert_int_equal(coro_start(a.s, wake_self_then_wait, &a), 0);
	assert_string_equal(log, "a!");
	coros_free(a.s);
}

static void start_and_wake_other(void *arg)
{
	struct step *t = arg;

	assert_int_equal(coro_start(t->s, wait_some, t->other), 0);
	note(t, '1');
	coro_wake(t->other->self);
	note(t, '2');
}

static void woken_by_a_coroutine_it_runs_when_that_one_is_through(void **unused)
{
	char log[64] = "";
	struct coros *s = new_coros();
	struct step b = {.s = s, .log = log, .name = 'b', .waits = 1};
	struct step a = {.s = s, .log = log, .name = 'a', .other = &b};

	assert_int_equal(coro_start(s, start_and_wake_other, &a), 0);
	assert_string_equal(log, "b<a1a2b.b>");
	coros_free(s);
}

static void lock_across_a_wait(void *arg)
{
	struct step *t = arg;

	t->self = coro_self(t->s);
	coro_lock(t->s, t->lock);
	note(t, '[');
	coro_wait(t->s);
	note(t, ']');
	coro_unlock(t->s, t->lock);
}

static void a_mutex_is_handed_on_in_order(void **unused)
{
	char log[64] = "";
	struct coros *s = new_coros();
	struct coro_mutex m = {0};
	struct step t[3];

	for (int i = 0; i < 3; i++) {
		t[i] = (struct step){.s = s, .log = log, .name = 'a' + i, .lock = &m};
		assert_int_equal(coro_start(s, lock_across_a_wait, &t[i]), 0);
	}
	assert_string_equal(log, "a[");
	for (int i = 0; i < 3; i++)
		coro_wake(t[i].self);
	assert_string_equal(log, "a[a]b[b]c[c]");
	assert_null(m.holder);
	coros_free(s);
}

static void queue_until_waits_are_used_up(void *arg)
{
	struct step *t = arg;

	for (; t->waits; t->waits--)
		coro_queue_wait(t->s, t->queue);
	note(t, '>');
}

static void waking_all_wakes_those_that_waited_before(void **unused)
{
	char log[64] = "";
	struct coros *s = new_coros();
	struct coro_queue q = {0};
	struct step a = {.s = s, .log = log, .name = 'a', .waits = 2, .queue = &q}, b = a;

	b.name = 'b';
	b.waits = 1;
	assert_int_equal(coro_start(s, queue_until_waits_are_used_up, &a), 0);
	assert_int_equal(coro_start(s, queue_until_waits_are_used_up, &b), 0);
	coro_queue_wake_all(&q);
	assert_string_equal(log, "b>");
	assert_true(coro_queue_wake_one(&q));
	assert_false(coro_queue_wake_one(&q));
	assert_string_equal(log, "b>a>");
	coros_free(s);
}

struct fpu_control {
	uint32_t mxcsr;
	uint16_t x87;
};

static struct fpu_control fpu_control(void)
{
	struct fpu_control c = {.mxcsr = _mm_getcsr()};

	asm volatile("fnstcw %0" : "=m"(c.x87));
	return c;
}

static void set_fpu_control(struct fpu_control c)
{
	_mm_setcsr(c.mxcsr);
	asm volatile("fldcw %0" : : "m"(c.x87));
}

static void expect_fpu_control(struct fpu_control want)
{
	struct fpu_control is = fpu_control();

	assert_int_equal(is.mxcsr, want.mxcsr);
	assert_int_equal(is.x87, want.x87);
}

static void round_up_and_wait(void *arg)
{
	struct step *t = arg;
	struct fpu_control was = fpu_control();
	struct fpu_control up = {(was.mxcsr & ~0x6000u) | 0x4000, (was.x87 & ~0xc00u) | 0x800};

	t->self = coro_self(t->s);
	set_fpu_control(up);
	coro_wait(t->s);
	expect_fpu_control(up);
	set_fpu_control(was);
}

static void each_has_its_own_rounding_mode(void **unused)
{
	struct step a = {.s = new_coros()};
	struct fpu_control was = fpu_control();

	assert_int_equal(coro_start(a.s, round_up_and_wait, &a), 0);
	expect_fpu_control(was);
	coro_wake(a.self);
	expect_fpu_control(was);
	coros_free(a.s);
}

static void many_wait_side_by_side_and_again_from_the_pool(void **unused)
{
	enum { N = 600 };
	static struct step t[N];
	static char log[N * 8];
	struct coros *s = new_coros();

	for (int round = 0; round < 3; round++) {
		log[0] = 0;
		for (int i = 0; i < N; i++) {
			t[i] = (struct step){.s = s, .log = log, .name = 'x', .waits = 1};
			assert_int_equal(coro_start(s, wait_some, &t[i]), 0);
		}
		for (int i = N; i-- > 0;)
			coro_wake(t[i].self);
		assert_int_equal(strlen(log), N * 6);
	}
	coros_free(s);
}

static void *wake_it(void *arg)
{
	coro_wake(((struct step *)arg)->self);
	return NULL;
}

static void it_may_go_on_on_another_thread(void **unused)
{
	char log[64] = "";
	struct step a = {.s = new_coros(), .log = log, .name = 'a', .waits = 2};
	pthread_t thread;

	assert_int_equal(coro_start(a.s, wait_some, &a), 0);
	assert_int_equal(pthread_create(&thread, NULL, wake_it, &a), 0);
	pthread_join(thread, NULL);
	assert_string_equal(log, "a<a.");
	coro_wake(a.self);
	assert_string_equal(log, "a<a.a.a>");
	coros_free(a.s);
}

static unsigned deeper(volatile char *above, unsigned levels)
{
	volatile char here[1024];

	here[0] = above[0];
	return levels ? deeper(here, levels - 1) + here[0] : 0;
}

static void overrun(void *arg)
{
	deeper(arg, 2 * CORO_STACK_BYTES / 1024);
}

static void a_stack_overrun_hits_the_guard_page(void **unused)
{
	struct coros *s = new_coros();
	char c = 0;
	int status;
	pid_t child = fork();

	if (child == 0) {
		close(2);
		if (coro_start(s, overrun, &c) < 0)
			_exit(0);
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_false(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	coros_free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_wake_runs_it_until_it_waits_again),
		cmocka_unit_test(a_wake_that_comes_early_is_kept),
		cmocka_unit_test(woken_by_a_coroutine_it_runs_when_that_one_is_through),
		cmocka_unit_test(a_mutex_is_handed_on_in_order),
		cmocka_unit_test(waking_all_wakes_those_that_waited_before),
		cmocka_unit_test(each_has_its_own_rounding_mode),
		cmocka_unit_test(many_wait_side_by_side_and_again_from_the_pool),
		cmocka_unit_test(it_may_go_on_on_another_thread),
		cmocka_unit_test(a_stack_overrun_hits_the_guard_page),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
