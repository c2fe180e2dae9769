#include "base/thread.h"

#include <signal.h>
#include <stdatomic.h>
#include <string.h>

#include "base/test.h"

struct seen {
	enum thread_role role;
	char name[16];
	sigset_t blocked;
};

static atomic_int started; /* roles that were told of, as bits */

static void note_start(enum thread_role role)
{
	atomic_fetch_or(&started, 1 << role);
}

static void *look(void *arg)
{
	struct seen *s = arg;

	s->role = thread_role();
	pthread_getname_np(pthread_self(), s->name, sizeof s->name);
	pthread_sigmask(SIG_SETMASK, NULL, &s->blocked);
	return NULL;
}

static void a_thread_has_its_role_and_name(void **state)
{
	const struct thread_opts o = {.role = THREAD_NET, .name = "a name that is too long"};
	struct seen s = {0};
	pthread_t t;

	thread_on_start(note_start);
	assert_int_equal(thread_start(&t, &o, look, &s), 0);
	pthread_join(t, NULL);
	assert_int_equal(s.role, THREAD_NET);
	assert_string_equal(s.name, "a name that is ");
	assert_int_equal(started, 1 << THREAD_NET);
	assert_int_equal(thread_role(), THREAD_MAIN);
	assert_int_equal(sigismember(&s.blocked, SIGTERM), 0);
}

static void one_without_signals_still_hears_of_its_own_calls(void **state)
{
	const struct thread_opts o = {
		.role = THREAD_WORKER, .name = "w", .no_signals = true, .stack_bytes = KIB(256)};
	struct seen s = {0};
	sigset_t mine;
	pthread_t t;

	assert_int_equal(thread_start(&t, &o, look, &s), 0);
	pthread_join(t, NULL);
	assert_int_equal(sigismember(&s.blocked, SIGTERM), 1);
	assert_int_equal(sigismember(&s.blocked, SIGSYS), 0);
	pthread_sigmask(SIG_SETMASK, NULL, &mine);
	assert_int_equal(sigismember(&mine, SIGTERM), 0);
}

static void every_role_has_a_name(void **state)
{
	for (int i = 0; i < THREAD_ROLES; i++)
		assert_true(thread_role_name(i) && strlen(thread_role_name(i)) > 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_thread_has_its_role_and_name),
		cmocka_unit_test(one_without_signals_still_hears_of_its_own_calls),
		cmocka_unit_test(every_role_has_a_name),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
