#include "base/loop.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/test.h"

#define MS UINT64_C(1000000)

/* A timer that notes its firings, and stops the loop at the one asked for. */
struct probe {
	struct timer timer;
	struct loop *loop;
	uint64_t fired_at;
	unsigned fired, stop_after;
	unsigned *order, turn; /* when set: *order counts firings, turn is ours */
	uint64_t again_at;
};

static struct loop *new_loop(void)
{
	struct loop *l = NULL;
	struct err e;

	assert_int_equal(loop_new(&l, &e), 0);
	return l;
}

static void on_fire(struct timer *t)
{
	struct probe *p = container_of(t, struct probe, timer);

	p->fired++;
	p->fired_at = clock_now(loop_clock(p->loop));
	if (p->order)
		p->turn = ++*p->order;
	if (p->again_at)
		timer_arm(loop_clock(p->loop), t, p->again_at);
	if (p->fired == p->stop_after)
		loop_stop(p->loop);
}

static void run(struct loop *l)
{
	assert_int_equal(loop_run(l), 0);
}

static void timers_fire_in_order_and_not_early(void **unused)
{
	enum { N = 50 };
	struct loop *l = new_loop();
	struct probe p[N];
	unsigned order = 0;

	for (unsigned i = 0; i < N; i++) {
		p[i] = (struct probe){.timer.fire = on_fire, .loop = l, .order = &order};
		timer_arm(loop_clock(l), &p[i].timer, (1 + i * 17 % N) * MS / 10);
	}
	struct probe last = {.timer.fire = on_fire, .loop = l, .stop_after = 1};
	timer_arm(loop_clock(l), &last.timer, 6 * MS);
	run(l);
	for (unsigned i = 0; i < N; i++) {
		assert_int_equal(p[i].turn, 1 + i * 17 % N);
		assert_true(p[i].fired_at >= p[i].timer.deadline_ns);
	}
	loop_free(l);
}

static void a_cancelled_timer_does_not_fire(void **unused)
{
	struct loop *l = new_loop();
	struct probe gone = {.timer.fire = on_fire, .loop = l};
	struct probe moved = gone, last = gone;

	last.stop_after = 1;
	timer_arm(loop_clock(l), &gone.timer, 1 * MS);
	timer_arm(loop_clock(l), &moved.timer, 1 * MS);
	timer_arm(loop_clock(l), &last.timer, 5 * MS);
	timer_cancel(loop_clock(l), &gone.timer);
	timer_arm(loop_clock(l), &moved.timer, UINT64_MAX - 5);
	run(l);
	assert_int_equal(gone.fired, 0);
	assert_int_equal(moved.fired, 0);
	loop_free(l);
}

static void a_timer_rearmed_in_the_past_does_not_starve_others(void **unused)
{
	struct loop *l = new_loop();
	struct probe greedy = {.timer.fire = on_fire, .loop = l, .again_at = 1};
	struct probe last = {.timer.fire = on_fire, .loop = l, .stop_after = 1};

	timer_arm(loop_clock(l), &greedy.timer, 1);
	timer_arm(loop_clock(l), &last.timer, 2 * MS);
	run(l);
	assert_true(greedy.fired > 1);
	loop_free(l);
}

static void a_paused_clock_stands_still_and_fires_nothing(void **unused)
{
	struct loop *l = new_loop();
	struct probe p = {.timer.fire = on_fire, .loop = l, .stop_after = 1};
	struct loop *host = new_loop(); /* its clock runs on */
	struct probe wait = {.timer.fire = on_fire, .loop = host, .stop_after = 1};
	uint64_t at;

	timer_arm(loop_clock(l), &p.timer, 20 * MS);
	loop_clock_pause(l, true);
	at = clock_now(loop_clock(l));
	timer_arm(loop_clock(host), &wait.timer, clock_now(loop_clock(host)) + 40 * MS);
	run(host);
	assert_int_equal(clock_now(loop_clock(l)), at);
	assert_int_equal(p.fired, 0);

	loop_clock_pause(l, false);
	run(l);
	assert_int_equal(p.fired, 1);
	assert_in_range(p.fired_at, 20 * MS, 10000 * MS);
	loop_free(host);
	loop_free(l);
}

static void setting_the_clock_forward_makes_timers_due(void **unused)
{
	struct loop *l = new_loop();
	struct probe p = {.timer.fire = on_fire, .loop = l, .stop_after = 1};

	loop_clock_pause(l, true);
	timer_arm(loop_clock(l), &p.timer, 5000000 * MS);
	loop_clock_set(l, 6000000 * MS);
	assert_int_equal(clock_now(loop_clock(l)), 6000000 * MS);
	loop_clock_pause(l, false);
	run(l);
	assert_true(p.fired_at >= 6000000 * MS);
	loop_free(l);
}

struct call_log {
	struct loop_call call;
	struct loop *loop;
	unsigned *order, turn, runs, stop_after;
};

static void on_call(struct loop_call *c)
{
	struct call_log *g = container_of(c, struct call_log, call);

	g->turn = ++*g->order;
	if (++g->runs == g->stop_after)
		loop_stop(g->loop);
	else
		loop_post(g->loop, c);
}

static void posted_calls_run_in_order_and_may_post_again(void **unused)
{
	struct loop *l = new_loop();
	unsigned order = 0;
	struct call_log a = {.call.run = on_call, .loop = l, .order = &order, .stop_after = 3};
	struct call_log b = a;

	loop_post(l, &a.call);
	loop_post(l, &b.call);
	run(l);
	assert_int_equal(a.runs, 3);
	assert_int_equal(b.runs, 3);
	assert_int_equal(a.turn, 5);
	assert_int_equal(b.turn, 6);
	loop_free(l);
}

struct poster {
	struct loop *loop;
	struct loop_call call[200];
	struct timer timer;
	_Atomic unsigned *done;
	unsigned total;
};

static void count_call(struct loop_call *c)
{
}

static void ignore_timer(struct timer *t)
{
}

static void *post_all(void *arg)
{
	struct poster *p = arg;
	uint64_t last = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(p->call); i++) {
		uint64_t now = clock_now(loop_clock(p->loop));

		assert(now >= last);
		last = now;
		p->call[i].run = count_call;
		timer_arm(loop_clock(p->loop), &p->timer, now + i);
		loop_post(p->loop, &p->call[i]);
	}
	timer_cancel(loop_clock(p->loop), &p->timer);
	if (++*p->done == p->total)
		loop_stop(p->loop);
	return NULL;
}

static void threads_post_arm_and_read_the_clock_at_once(void **unused)
{
	enum { THREADS = 3 };
	static struct poster p[THREADS];
	struct loop *l = new_loop();
	_Atomic unsigned done = 0;
	pthread_t t[THREADS];

	for (int i = 0; i < THREADS; i++) {
		p[i] = (struct poster){.loop = l, .done = &done, .total = THREADS};
		p[i].timer.fire = ignore_timer;
		pthread_create(&t[i], NULL, post_all, &p[i]);
	}
	for (int i = 0; i < 50; i++) {
		loop_clock_pause(l, true);
		loop_clock_pause(l, false);
	}
	run(l);
	for (int i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	loop_free(l);
}

struct watched {
	struct loop_fd f;
	struct loop *loop;
	struct watched *other;
	unsigned ready;
};

static void on_ready(struct loop_fd *f, uint32_t events)
{
	struct watched *w = container_of(f, struct watched, f);

	w->ready++;
	loop_del(w->loop, &w->other->f);
	loop_stop(w->loop);
}

static void a_descriptor_removed_in_the_same_batch_is_not_called(void **unused)
{
	struct loop *l = new_loop();
	struct watched w[2];
	struct err e;

	for (int i = 0; i < 2; i++) {
		w[i] = (struct watched){{eventfd(1, EFD_CLOEXEC), on_ready}, l, &w[!i], 0};
		assert_int_equal(loop_add(l, &w[i].f, EPOLLIN, &e), 0);
	}
	run(l);
	assert_int_equal(w[0].ready + w[1].ready, 1);
	for (int i = 0; i < 2; i++)
		close(w[i].f.fd);
	loop_free(l);
}

static void a_masked_descriptor_is_not_called(void **unused)
{
	struct loop *l = new_loop();
	struct watched w = {{eventfd(1, EFD_CLOEXEC), on_ready}, l, &w, 0};
	struct probe last = {.timer.fire = on_fire, .loop = l, .stop_after = 1};
	struct err e;

	assert_int_equal(loop_add(l, &w.f, EPOLLIN, &e), 0);
	loop_mod(l, &w.f, 0);
	timer_arm(loop_clock(l), &last.timer, 2 * MS);
	run(l);
	assert_int_equal(w.ready, 0);
	close(w.f.fd);
	loop_free(l);
}

static void adding_a_bad_descriptor_says_which(void **unused)
{
	struct loop *l = new_loop();
	struct loop_fd f = {.fd = -1};
	struct err e;

	assert_int_equal(loop_add(l, &f, EPOLLIN, &e), -EBADF);
	assert_string_equal(e.text, "watch descriptor -1: Bad file descriptor");
	loop_free(l);
}

static void a_stop_before_run_is_not_lost(void **unused)
{
	struct loop *l = new_loop();

	loop_stop(l);
	run(l);
	loop_free(l);
	loop_free(NULL);
}

struct counter {
	struct loop_prepare prepare;
	struct loop *loop;
	unsigned runs, busy_for;
	bool leaves;
};

static bool count_and_leave(struct loop_prepare *p)
{
	struct counter *c = container_of(p, struct counter, prepare);

	c->runs++;
	if (c->leaves)
		loop_del_prepare(c->loop, p);
	return c->runs < c->busy_for;
}

static void prepare_runs_before_each_wait_until_it_is_removed(void **unused)
{
	struct loop *l = new_loop();
	struct counter stays = {{count_and_leave}, l}, leaves = {{count_and_leave}, l};
	struct probe tick = {.timer.fire = on_fire, .loop = l, .stop_after = 3};

	leaves.leaves = true;
	loop_add_prepare(l, &stays.prepare);
	loop_add_prepare(l, &leaves.prepare);
	for (unsigned i = 1; i <= 2; i++) {
		timer_arm(loop_clock(l), &tick.timer, clock_now(loop_clock(l)));
		assert_int_equal(loop_once(l), 0);
		assert_int_equal(stays.runs, i);
	}
	assert_int_equal(leaves.runs, 1);
	loop_del_prepare(l, &stays.prepare);
	timer_arm(loop_clock(l), &tick.timer, clock_now(loop_clock(l)));
	run(l);
	assert_int_equal(tick.fired, 3);
	assert_int_equal(stays.runs, 2);
	loop_free(l);
}

static void prepare_runs_again_while_one_makes_work_but_not_for_ever(void **unused)
{
	struct loop *l = new_loop();
	struct counter busy = {{count_and_leave}, l}, idle = busy;
	struct probe tick = {.timer.fire = on_fire, .loop = l, .stop_after = 1};

	busy.busy_for = 5;
	loop_add_prepare(l, &busy.prepare);
	loop_add_prepare(l, &idle.prepare);
	timer_arm(loop_clock(l), &tick.timer, 0);
	for (unsigned i = 1; i < 5; i++) {
		assert_int_equal(loop_once(l), 0);
		assert_int_equal(busy.runs, i);
		assert_int_equal(idle.runs, i);
		assert_int_equal(tick.fired, 0);
	}
	assert_int_equal(loop_once(l), 0);
	assert_int_equal(tick.fired, 1);
	timer_arm(loop_clock(l), &tick.timer, 0);
	busy.busy_for = UINT32_MAX;
	run(l); /* ends, as the timer fires all the same */
	loop_free(l);
}

struct nested {
	struct loop_call outer, inner;
	struct loop *loop;
	bool inner_ran;
};

static void note_inner(struct loop_call *c)
{
	container_of(c, struct nested, inner)->inner_ran = true;
}

static void wait_for_inner(struct loop_call *c)
{
	struct nested *n = container_of(c, struct nested, outer);

	loop_stop(n->loop);
	loop_post(n->loop, &n->inner);
	while (!n->inner_ran)
		assert_int_equal(loop_once(n->loop), 0);
}

static void a_round_inside_a_callback_leaves_the_stop_to_the_run(void **unused)
{
	struct nested n = {{wait_for_inner}, {note_inner}, new_loop()};

	loop_post(n.loop, &n.outer);
	run(n.loop);
	assert_true(n.inner_ran);
	loop_free(n.loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(timers_fire_in_order_and_not_early),
		cmocka_unit_test(a_cancelled_timer_does_not_fire),
		cmocka_unit_test(a_timer_rearmed_in_the_past_does_not_starve_others),
		cmocka_unit_test(a_paused_clock_stands_still_and_fires_nothing),
		cmocka_unit_test(setting_the_clock_forward_makes_timers_due),
		cmocka_unit_test(posted_calls_run_in_order_and_may_post_again),
		cmocka_unit_test(threads_post_arm_and_read_the_clock_at_once),
		cmocka_unit_test(a_descriptor_removed_in_the_same_batch_is_not_called),
		cmocka_unit_test(a_masked_descriptor_is_not_called),
		cmocka_unit_test(adding_a_bad_descriptor_says_which),
		cmocka_unit_test(a_stop_before_run_is_not_lost),
		cmocka_unit_test(prepare_runs_before_each_wait_until_it_is_removed),
		cmocka_unit_test(prepare_runs_again_while_one_makes_work_but_not_for_ever),
		cmocka_unit_test(a_round_inside_a_callback_leaves_the_stop_to_the_run),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
