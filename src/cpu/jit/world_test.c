#include "base/test.h"

#include <pthread.h>
#include <string.h>

#include "cpu/jit/world.h"

/* Threads that move, rest, are still and stop each other. What a stop guards is plain data: the
 * thread sanitizer sees when somebody moves meanwhile. */
#define THREADS 4
#define ROUNDS  3000

static struct world world;
static int guarded[2]; /* equal, but in the middle of a stop */
static int flushes;    /* changes only while all are out */

struct actor {
	struct world_member m;
	_Atomic uint32_t attention;
	pthread_t thread;
	unsigned number;
	int stops, found_amid;
};

static int setup(void **state)
{
	memset(&world, 0, sizeof world);
	guarded[0] = guarded[1] = flushes = 0;
	return 0;
}

static void join_world(struct actor *a)
{
	memset(a, 0, sizeof *a);
	a->m.attention = &a->attention;
	world_add(&world, &a->m);
}

static void stop_and_change(struct actor *a, enum world_state how)
{
	world_stop(&world, &a->m, how);
	guarded[0]++;
	if (how == WORLD_OUT && world_all_out(&world))
		flushes++;
	guarded[1]++;
	a->stops++;
	world_go(&world, &a->m);
}

static void *act(void *arg)
{
	struct actor *a = arg;

	world_move(&world, &a->m);
	for (unsigned i = 0; i < ROUNDS; i++) {
		int before = flushes;

		assert_int_equal(guarded[0], guarded[1]);
		switch ((i + a->number) % 16) {
		case 0: stop_and_change(a, WORLD_OUT); break;
		case 5:
			before = flushes;
			stop_and_change(a, WORLD_MID);
			a->found_amid += flushes != before;
			break;
		case 8:
			before = flushes;
			world_still(&world, &a->m, WORLD_MID);
			world_move(&world, &a->m);
			a->found_amid += flushes != before;
			break;
		case 11:
			world_still(&world, &a->m, WORLD_OUT);
			world_move(&world, &a->m);
			break;
		default:
			if (atomic_exchange(&a->attention, 0))
				world_rest(&world, &a->m);
		}
	}
	world_still(&world, &a->m, WORLD_OUT);
	return NULL;
}

static void stops_exclude_all_that_moves(void **state)
{
	struct actor a[THREADS];
	int stops = 0;

	for (unsigned i = 0; i < THREADS; i++) {
		join_world(&a[i]);
		a[i].number = i;
	}
	for (unsigned i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&a[i].thread, NULL, act, &a[i]), 0);
	for (unsigned i = 0; i < THREADS; i++) {
		pthread_join(a[i].thread, NULL);
		stops += a[i].stops;
		assert_int_equal(a[i].found_amid, 0); /* nothing is flushed under a helper */
	}
	assert_int_equal(guarded[0], stops);
	assert_int_equal(guarded[1], stops);
	assert_true(flushes > 0);
}

static void who_is_still_need_not_answer(void **state)
{
	struct actor a, asleep;

	join_world(&a);
	join_world(&asleep);
	world_move(&world, &a.m);
	stop_and_change(&a, WORLD_OUT);
	assert_int_equal(asleep.attention, 0);
	assert_int_equal(flushes, 1);
	world_move(&world, &asleep.m);
	world_still(&world, &asleep.m, WORLD_MID);
	stop_and_change(&a, WORLD_OUT);
	assert_int_equal(flushes, 1); /* it goes back into a block */
	world_remove(&world, &asleep.m);
	stop_and_change(&a, WORLD_OUT);
	assert_int_equal(flushes, 2);
	assert_int_equal(world.members, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(stops_exclude_all_that_moves, setup),
		cmocka_unit_test_setup(who_is_still_need_not_answer, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
