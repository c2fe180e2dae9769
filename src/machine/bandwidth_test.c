#include "machine/bandwidth.h"

#include "base/test.h"

/* A consumer that uses width threads whenever it may; looks come late by so much. Returns what it
 * used of a thousandth of a core over the time, but for the first second. */
static uint64_t run(unsigned cap, unsigned width, uint64_t late_ns)
{
	struct bandwidth b = {0};
	uint64_t now = 0, used = 0, start_used = 0;

	bandwidth_set(&b, cap, now, used);
	while (now < UINT64_C(21000000000)) {
		uint64_t step = bandwidth_look(&b, now, used, width) + late_ns;

		if (now < 1000000000)
			start_used = used;
		now += step;
		if (!b.waits)
			used += step * width;
	}
	return (used - start_used) / 20000000;
}

static void the_share_holds(void **state)
{
	static const unsigned caps[] = {10, 250, 500, 900, 1500};

	for (unsigned i = 0; i < 5; i++) {
		for (uint64_t late = 0; late <= 10000000; late += 5000000) {
			uint64_t got = run(caps[i], 2, late);

			assert_in_range(got, caps[i] * 95 / 100, caps[i] * 105 / 100 + 1);
		}
	}
}

static void who_needs_less_never_waits(void **state)
{
	struct bandwidth b = {0};
	uint64_t now = 0, used = 0;

	bandwidth_set(&b, 500, now, used);
	for (int i = 0; i < 1000; i++) {
		uint64_t step = bandwidth_look(&b, now, used, 1);

		assert_false(b.waits);
		now += step;
		used += step * 4 / 10;
	}
	assert_int_equal(b.waited_ns, 0);
}

static void idle_time_is_not_saved_up(void **state)
{
	struct bandwidth b = {0};

	bandwidth_set(&b, 500, 0, 0);
	bandwidth_look(&b, UINT64_C(3600000000000), 0, 1);
	assert_int_equal(b.account_ns, 50000000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_share_holds),
		cmocka_unit_test(who_needs_less_never_waits),
		cmocka_unit_test(idle_time_is_not_saved_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
