#include "cpu/host.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

static void every_fact_is_told_and_what_is_missing_has_a_reason(void **unused)
{
	struct host_fact f[HOST_FACTS_MAX];
	int n = host_facts(f, HOST_FACTS_MAX);

	assert_in_range(n, 15, HOST_FACTS_MAX - 1);
	for (int i = 0; i < n; i++) {
		print_message("%-16s %-3s %s%s%s\n", f[i].name, f[i].found ? "yes" : "no",
			      f[i].detail, f[i].advice[0] ? " -> " : "", f[i].advice);
		assert_true(f[i].name[0] && f[i].detail[0]);
		assert_true(!f[i].found || !f[i].advice[0]);
	}
}

static void memfd_is_there_or_nothing_of_ours_would_run(void **unused)
{
	struct host_fact f[HOST_FACTS_MAX];
	int n = host_facts(f, HOST_FACTS_MAX);

	for (int i = 0; i < n; i++)
		if (!strcmp(f[i].name, "memfd")) {
			assert_true(f[i].found);
			return;
		}
	fail();
}

static void no_more_are_filled_than_fit(void **unused)
{
	struct host_fact f[4] = {[3].name = "untouched"};

	assert_int_equal(host_facts(f, 3), 3);
	assert_string_equal(f[3].name, "untouched");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_fact_is_told_and_what_is_missing_has_a_reason),
		cmocka_unit_test(memfd_is_there_or_nothing_of_ours_would_run),
		cmocka_unit_test(no_more_are_filled_than_fit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
