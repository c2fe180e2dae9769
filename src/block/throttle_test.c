#include "block/throttle.h"

#include <string.h>

#include "base/fake_clock.h"
#include "base/test.h"

#define SECOND UINT64_C(1000000000)

/* Requests that pass one after the other, each noting when it did. */
struct bed {
	struct fake_clock clock;
	struct coros *coros;
	struct throttle t;
};

struct request {
	struct bed *bed;
	struct block_req req;
	uint64_t passed_at;
	bool passed;
	unsigned turn, *turns;
};

static void init(struct bed *b, struct block_limits l)
{
	struct err e;

	fake_clock_init(&b->clock);
	assert_int_equal(coros_new(&b->coros, &e), 0);
	throttle_init(&b->t, &b->clock.clock, b->coros);
	throttle_set(&b->t, &l);
}

static void done(struct bed *b)
{
	throttle_done(&b->t);
	coros_free(b->coros);
}

static void pass(void *arg)
{
	struct request *r = arg;

	throttle_pass(&r->bed->t, &r->req);
	r->passed = true;
	r->passed_at = r->bed->clock.now_ns;
	if (r->turns)
		r->turn = ++*r->turns;
}

static void submit(struct bed *b, struct request *r, uint64_t len)
{
	r->bed = b;
	r->req.len = len;
	assert_int_equal(coro_start(b->coros, pass, r), 0);
}

static void without_limits_nothing_waits(void **unused)
{
	struct request r[100] = {0};
	struct bed b;

	init(&b, (struct block_limits){0});
	for (unsigned i = 0; i < 100; i++) {
		submit(&b, &r[i], MIB(1));
		assert_true(r[i].passed);
	}
	done(&b);
}

static void requests_per_second_are_kept(void **unused)
{
	struct request r[50] = {0};
	struct bed b;

	init(&b, (struct block_limits){.iops = 10, .iops_burst = 5});
	for (unsigned i = 0; i < 50; i++)
		submit(&b, &r[i], 1);
	assert_true(r[4].passed);
	for (unsigned i = 0; i < 5; i++)
		fake_clock_advance(&b.clock, SECOND);
	for (unsigned i = 6; i < 50; i++) {
		assert_true(r[i].passed);
		assert_int_equal(r[i].passed_at - r[i - 1].passed_at, SECOND / 10);
	}
	done(&b);
}

static void what_is_given_once_comes_before_the_burst(void **unused)
{
	struct request r[20] = {0};
	struct bed b;

	init(&b, (struct block_limits){.iops = 10, .iops_burst = 5, .iops_once = 7});
	for (unsigned i = 0; i < 20; i++)
		submit(&b, &r[i], 1);
	/* The burst lets one more through, which is paid for afterwards. */
	assert_true(r[12].passed);
	assert_false(r[13].passed);
	fake_clock_advance(&b.clock, SECOND);
	fake_clock_advance(&b.clock, SECOND);
	done(&b);
}

static void bytes_per_second_are_kept_whatever_the_sizes(void **unused)
{
	struct request r[40] = {0};
	uint64_t sum = 0;
	struct bed b;

	init(&b, (struct block_limits){.bps = MIB(1)});
	for (unsigned i = 0; i < 40; i++)
		submit(&b, &r[i], i % 4 ? 4096 : KIB(512));
	fake_clock_advance(&b.clock, 4 * SECOND);
	for (unsigned i = 0; i < 40; i++)
		sum += r[i].passed ? r[i].req.len : 0;
	/* Four seconds' worth, the burst of a tenth, and the one that goes over. */
	assert_in_range(sum, MIB(4), MIB(4) + MIB(1) / 10 + KIB(512));
	fake_clock_advance(&b.clock, 20 * SECOND);
	done(&b);
}

static void after_a_rest_a_burst_passes_at_once_but_no_more(void **unused)
{
	struct request r[30] = {0};
	unsigned passed = 0;
	struct bed b;

	init(&b, (struct block_limits){.iops = 10, .iops_burst = 20});
	fake_clock_advance(&b.clock, 3600 * SECOND);
	for (unsigned i = 0; i < 30; i++) {
		submit(&b, &r[i], 1);
		passed += r[i].passed;
	}
	assert_in_range(passed, 20, 21);
	fake_clock_advance(&b.clock, 10 * SECOND);
	done(&b);
}

static void all_pass_in_the_order_in_which_they_came(void **unused)
{
	struct request r[20] = {0};
	unsigned turns = 0;
	struct bed b;

	init(&b, (struct block_limits){.bps = KIB(64), .iops = 100});
	for (unsigned i = 0; i < 20; i++) {
		r[i].turns = &turns;
		submit(&b, &r[i], i % 3 ? 512 : KIB(32));
	}
	fake_clock_advance(&b.clock, 60 * SECOND);
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(r[i].turn, i + 1);
	done(&b);
}

static void a_flush_is_never_held(void **unused)
{
	struct request r[5] = {0}, flush = {.req.op = BLOCK_FLUSH};
	struct bed b;

	init(&b, (struct block_limits){.iops = 1, .iops_burst = 1});
	for (unsigned i = 0; i < 5; i++)
		submit(&b, &r[i], 1);
	submit(&b, &flush, 0);
	assert_true(flush.passed);
	fake_clock_advance(&b.clock, 10 * SECOND);
	done(&b);
}

static void new_limits_count_at_once_for_those_that_wait(void **unused)
{
	struct request r[5] = {0};
	struct bed b;

	init(&b, (struct block_limits){.iops = 1, .iops_burst = 1});
	for (unsigned i = 0; i < 5; i++)
		submit(&b, &r[i], 1);
	assert_false(r[4].passed);
	throttle_set(&b.t, &(struct block_limits){.iops = 1000, .iops_burst = 1});
	fake_clock_advance(&b.clock, SECOND / 100);
	assert_true(r[4].passed);
	throttle_set(&b.t, &(struct block_limits){.bps = 1});
	for (unsigned i = 0; i < 5; i++) {
		r[i].passed = false;
		submit(&b, &r[i], MIB(1));
	}
	assert_false(r[4].passed);
	throttle_set(&b.t, &(struct block_limits){0});
	assert_true(r[4].passed);
	done(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(without_limits_nothing_waits),
		cmocka_unit_test(requests_per_second_are_kept),
		cmocka_unit_test(what_is_given_once_comes_before_the_burst),
		cmocka_unit_test(bytes_per_second_are_kept_whatever_the_sizes),
		cmocka_unit_test(after_a_rest_a_burst_passes_at_once_but_no_more),
		cmocka_unit_test(all_pass_in_the_order_in_which_they_came),
		cmocka_unit_test(a_flush_is_never_held),
		cmocka_unit_test(new_limits_count_at_once_for_those_that_wait),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
