#include "base/spin.h"

#include "base/test.h"

static void short_waits_make_it_look_longer(void **state)
{
	struct spin s = {.max_ns = 30000};

	spin_waited(&s, 20000);
	assert_int_equal(s.budget_ns, SPIN_FIRST_NS);
	spin_waited(&s, 20000);
	spin_waited(&s, 20000);
	spin_waited(&s, 20000);
	assert_int_equal(s.budget_ns, 30000); /* at most */
	spin_waited(&s, 20000);
	assert_int_equal(s.budget_ns, 30000);
}

static void one_long_wait_makes_it_stop(void **state)
{
	struct spin s = {.max_ns = 30000, .budget_ns = 30000};

	spin_waited(&s, 30001);
	assert_int_equal(s.budget_ns, 0);
	spin_waited(&s, 1000000);
	assert_int_equal(s.budget_ns, 0);
}

static void a_limit_of_nothing_is_never(void **state)
{
	struct spin s = {0};

	spin_waited(&s, 0);
	spin_waited(&s, 1);
	assert_int_equal(s.budget_ns, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(short_waits_make_it_look_longer),
		cmocka_unit_test(one_long_wait_makes_it_stop),
		cmocka_unit_test(a_limit_of_nothing_is_never),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
