/* guest_clock: see the header. The timerfd is set lazily: cancelling a timer, or moving it
 * to a later time, leaves the timerfd alone; it then wakes the loop once for nothing, which
 * is cheaper than a system call each time a guest reprograms its timer. */
#include "base/guest_clock.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define NEVER    UINT64_MAX
#define NS_PER_S UINT64_C(1000000000)
#define FAR_NS   (NS_PER_S * 1000000) /* 11 days */

static struct guest_clock *to_guest(struct clock *c)
{
	return container_of(c, struct guest_clock, clock);
}

static uint64_t host_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * NS_PER_S + ts.tv_nsec;
}

static uint64_t guest_now(struct clock *c)
{
	struct guest_clock *g = to_guest(c);
	uint32_t seq;
	uint64_t now;

	do {
		seq = atomic_load_explicit(&g->seq, memory_order_acquire);
		now = atomic_load_explicit(&g->paused, memory_order_acquire) ? 0 : host_now();
		now += atomic_load_explicit(&g->shift, memory_order_acquire);
	} while ((seq & 1) || seq != atomic_load_explicit(&g->seq, memory_order_relaxed));
	return now;
}

/* Called with g->lock held. The releases pair with the acquires in guest_now. */
static void set_time(struct guest_clock *g, bool paused, uint64_t now_ns)
{
	uint32_t seq = atomic_load_explicit(&g->seq, memory_order_relaxed);

	atomic_store_explicit(&g->seq, seq + 1, memory_order_relaxed);
	atomic_store_explicit(&g->paused, paused, memory_order_release);
	atomic_store_explicit(&g->shift, paused ? now_ns : now_ns - host_now(),
			      memory_order_release);
	atomic_store_explicit(&g->seq, seq + 2, memory_order_release);
}

/* Called with g->lock held. Sets the timerfd for the first timer, unless it will go off
 * before that anyway. */
static void program(struct guest_clock *g)
{
	struct itimerspec when = {0};
	uint64_t now, wait, host_ns;

	if (atomic_load_explicit(&g->paused, memory_order_relaxed) || !g->count ||
	    g->heap[0]->deadline_ns >= g->programmed_ns)
		return;
	g->programmed_ns = g->heap[0]->deadline_ns;
	now = guest_now(&g->clock);
	wait = g->programmed_ns > now ? g->programmed_ns - now : 0;
	/* Guests choose deadlines: one past what the host can take is looked at again then. */
	host_ns = host_now() + min_u64(wait, FAR_NS);
	when.it_value.tv_sec = host_ns / NS_PER_S;
	when.it_value.tv_nsec = host_ns % NS_PER_S;
	timerfd_settime(g->timerfd, TFD_TIMER_ABSTIME, &when, NULL);
}

static void place(struct guest_clock *g, uint32_t i, struct timer *t)
{
	g->heap[i] = t;
	t->slot = i + 1;
}

/* Puts t, whose place i is free, where the heap's order wants it. Lock held. */
static void sift(struct guest_clock *g, uint32_t i, struct timer *t)
{
	while (i && t->deadline_ns < g->heap[(i - 1) / 2]->deadline_ns) {
		place(g, i, g->heap[(i - 1) / 2]);
		i = (i - 1) / 2;
	}
	for (;;) {
		uint32_t kid = 2 * i + 1;

		if (kid + 1 < g->count && g->heap[kid + 1]->deadline_ns < g->heap[kid]->deadline_ns)
			kid++;
		if (kid >= g->count || g->heap[kid]->deadline_ns >= t->deadline_ns)
			break;
		place(g, i, g->heap[kid]);
		i = kid;
	}
	place(g, i, t);
}

/* Lock held. */
static void take_out(struct guest_clock *g, struct timer *t)
{
	uint32_t i = t->slot - 1;
	struct timer *last = g->heap[--g->count];

	t->slot = 0;
	if (last != t)
		sift(g, i, last);
}

static void guest_arm(struct clock *c, struct timer *t, uint64_t deadline_ns)
{
	struct guest_clock *g = to_guest(c);

	pthread_mutex_lock(&g->lock);
	/* One armed again and again in the past queues behind all that is due by now. */
	if (!atomic_load_explicit(&g->paused, memory_order_relaxed))
		deadline_ns = max_u64(deadline_ns, guest_now(c));
	t->deadline_ns = deadline_ns;
	if (t->slot) {
		sift(g, t->slot - 1, t);
	} else {
		assert(g->count < GUEST_CLOCK_MAX_TIMERS);
		g->count++;
		sift(g, g->count - 1, t);
	}
	program(g);
	pthread_mutex_unlock(&g->lock);
}

static void guest_cancel(struct clock *c, struct timer *t)
{
	struct guest_clock *g = to_guest(c);

	pthread_mutex_lock(&g->lock);
	if (t->slot)
		take_out(g, t);
	pthread_mutex_unlock(&g->lock);
}

static const struct clock_ops guest_ops = {guest_now, guest_arm, guest_cancel};

int guest_clock_init(struct guest_clock *g, struct err *e)
{
	*g = (struct guest_clock){.clock.ops = &guest_ops, .programmed_ns = NEVER};
	pthread_mutex_init(&g->lock, NULL);
	g->timerfd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (g->timerfd < 0)
		return err_sys(e, errno, "timerfd");
	g->heap = calloc(GUEST_CLOCK_MAX_TIMERS, sizeof *g->heap);
	if (!g->heap)
		return err_sys(e, ENOMEM, "timers");
	set_time(g, false, 0);
	return 0;
}

void guest_clock_done(struct guest_clock *g)
{
	if (g->timerfd >= 0)
		close(g->timerfd);
	free(g->heap);
	pthread_mutex_destroy(&g->lock);
}

void guest_clock_pause(struct guest_clock *g, bool paused)
{
	pthread_mutex_lock(&g->lock);
	if (paused != atomic_load_explicit(&g->paused, memory_order_relaxed)) {
		set_time(g, paused, guest_now(&g->clock));
		g->programmed_ns = NEVER; /* what the timerfd is set to no longer means it */
		program(g);
	}
	pthread_mutex_unlock(&g->lock);
}

void guest_clock_set(struct guest_clock *g, uint64_t now_ns)
{
	pthread_mutex_lock(&g->lock);
	set_time(g, atomic_load_explicit(&g->paused, memory_order_relaxed), now_ns);
	g->programmed_ns = NEVER;
	program(g);
	pthread_mutex_unlock(&g->lock);
}

/* The first timer if it is due, taken out of the heap. */
static struct timer *pop_due(struct guest_clock *g)
{
	struct timer *t = NULL;

	pthread_mutex_lock(&g->lock);
	if (g->count && !atomic_load_explicit(&g->paused, memory_order_relaxed) &&
	    g->heap[0]->deadline_ns <= guest_now(&g->clock)) {
		t = g->heap[0];
		take_out(g, t);
	}
	pthread_mutex_unlock(&g->lock);
	return t;
}

void guest_clock_fire(struct guest_clock *g)
{
	struct timer *t;
	uint64_t ticks;
	uint32_t budget;

	if (read(g->timerfd, &ticks, sizeof ticks) < 0)
		ticks = 0; /* set anew meanwhile; look all the same */
	pthread_mutex_lock(&g->lock);
	budget = g->count;
	pthread_mutex_unlock(&g->lock);

	while (budget-- && (t = pop_due(g)))
		t->fire(t);

	pthread_mutex_lock(&g->lock);
	g->programmed_ns = NEVER;
	program(g);
	pthread_mutex_unlock(&g->lock);
}
