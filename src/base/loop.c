/* loop: one epoll set with three kinds of source: the user's descriptors, the clock's
 * timerfd (base/guest_clock.h), and an eventfd by which other threads wake the loop.
 *
 * Posted calls wait on a lock-free stack, so that posting and stopping work from a signal
 * handler. A batch of events is walked with its remainder kept in the loop: loop_del drops
 * events of its descriptor that are still in the batch, so a freed loop_fd is not called. */
#include "base/loop.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/guest_clock.h"
#include "base/spin.h"

#define BATCH          32
#define PREPARE_ROUNDS 16

struct loop {
	int epfd, wakefd;
	struct guest_clock clock;
	struct loop_fd wake, tick;
	_Atomic(struct loop_call *) posted; /* newest first */
	_Atomic bool stop;
	struct epoll_event batch[BATCH]; /* loop thread only, like the rest */
	int batch_len;
	struct loop_prepare *prepare;
	unsigned prepared; /* rounds in a row that ended with it */
	struct spin spin;
};

static void wake_up(struct loop *l)
{
	uint64_t one = 1;
	int saved_errno = errno; /* we may be in a signal handler */

	if (write(l->wakefd, &one, sizeof one) < 0) {
		/* EAGAIN: the count is full, so the loop is woken already. */
	}
	errno = saved_errno;
}

static void run_posted(struct loop *l)
{
	/* Acquire pairs with the release in loop_post. */
	struct loop_call *c = atomic_exchange_explicit(&l->posted, NULL, memory_order_acquire);
	struct loop_call *in_order = NULL, *next;

	for (; c; c = next) {
		next = c->next;
		c->next = in_order;
		in_order = c;
	}
	for (c = in_order; c; c = next) {
		next = c->next; /* run may free c, or post it again */
		c->run(c);
	}
}

static void on_wake(struct loop_fd *f, uint32_t events)
{
	struct loop *l = container_of(f, struct loop, wake);
	uint64_t n;

	if (read(l->wakefd, &n, sizeof n) < 0)
		n = 0; /* somebody else's wake-up; look all the same */
	run_posted(l);
}

static void on_tick(struct loop_fd *f, uint32_t events)
{
	guest_clock_fire(&container_of(f, struct loop, tick)->clock);
}

static int open_all(struct loop *l, struct err *e)
{
	int r;

	l->epfd = epoll_create1(EPOLL_CLOEXEC);
	if (l->epfd < 0)
		return err_sys(e, errno, "epoll");
	l->wakefd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (l->wakefd < 0)
		return err_sys(e, errno, "eventfd");
	r = guest_clock_init(&l->clock, e);
	if (r < 0)
		return r;
	l->wake = (struct loop_fd){l->wakefd, on_wake};
	l->tick = (struct loop_fd){l->clock.timerfd, on_tick};
	r = loop_add(l, &l->wake, EPOLLIN, e);
	return r < 0 ? r : loop_add(l, &l->tick, EPOLLIN, e);
}

int loop_new(struct loop **out, struct err *e)
{
	struct loop *l = calloc(1, sizeof *l);
	int r;

	if (!l)
		return err_sys(e, ENOMEM, "event loop");
	l->epfd = l->wakefd = l->clock.timerfd = -1;
	r = open_all(l, e);
	if (r < 0) {
		err_wrap(e, "event loop");
		loop_free(l);
	} else {
		*out = l;
	}
	return r;
}

void loop_free(struct loop *l)
{
	if (!l)
		return;
	guest_clock_done(&l->clock);
	if (l->wakefd >= 0)
		close(l->wakefd);
	if (l->epfd >= 0)
		close(l->epfd);
	free(l);
}

static bool run_prepare(struct loop *l)
{
	struct loop_prepare *next;
	bool more = false;

	for (struct loop_prepare *p = l->prepare; p; p = next) {
		next = p->next; /* run may remove p */
		more |= p->run(p);
	}
	return more;
}

static int look(struct loop *l, int timeout)
{
	return epoll_wait(l->epfd, l->batch, BATCH, timeout);
}

/* Sleeps until there are events; or looks for them for a while first. */
static int wait_for_events(struct loop *l)
{
	uint64_t begin;
	int n = 0;

	if (!l->spin.max_ns)
		return look(l, -1);
	begin = spin_now();
	if (l->spin.budget_ns)
		do
			n = look(l, 0);
		while (n == 0 && spin_now() - begin < l->spin.budget_ns);
	if (n == 0)
		n = look(l, -1);
	spin_waited(&l->spin, spin_now() - begin);
	return n;
}

void loop_set_spin(struct loop *l, uint32_t max_ns)
{
	l->spin = (struct spin){.max_ns = spin_limit(max_ns)};
}

int loop_once(struct loop *l)
{
	int n;

	/* What was done there may be what the caller waits for. */
	if (run_prepare(l) && ++l->prepared < PREPARE_ROUNDS)
		return 0;
	n = l->prepared < PREPARE_ROUNDS ? wait_for_events(l) : look(l, 0);
	l->prepared = 0;
	if (n < 0 && errno != EINTR)
		return -errno;
	l->batch_len = n < 0 ? 0 : n;
	/* A round inside a callback leaves batch_len at 0: what remains of ours is still ready. */
	for (int i = 0; i < l->batch_len; i++) {
		struct loop_fd *f = l->batch[i].data.ptr;

		if (f)
			f->ready(f, l->batch[i].events);
	}
	l->batch_len = 0;
	return 0;
}

int loop_run(struct loop *l)
{
	int r = 0;

	while (r == 0 && !atomic_exchange_explicit(&l->stop, false, memory_order_acquire))
		r = loop_once(l);
	return r;
}

void loop_stop(struct loop *l)
{
	atomic_store_explicit(&l->stop, true, memory_order_release);
	wake_up(l);
}

int loop_add(struct loop *l, struct loop_fd *f, uint32_t events, struct err *e)
{
	struct epoll_event ev = {.events = events, .data.ptr = f};

	if (epoll_ctl(l->epfd, EPOLL_CTL_ADD, f->fd, &ev) < 0)
		return err_sys(e, errno, "watch descriptor %d", f->fd);
	return 0;
}

void loop_mod(struct loop *l, struct loop_fd *f, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.ptr = f};
	int r = epoll_ctl(l->epfd, EPOLL_CTL_MOD, f->fd, &ev);

	assert(r == 0 && "loop_mod of a descriptor that was not added");
	(void)r;
}

void loop_del(struct loop *l, struct loop_fd *f)
{
	epoll_ctl(l->epfd, EPOLL_CTL_DEL, f->fd, NULL);
	for (int i = 0; i < l->batch_len; i++)
		if (l->batch[i].data.ptr == f)
			l->batch[i].data.ptr = NULL;
}

void loop_post(struct loop *l, struct loop_call *c)
{
	struct loop_call *head = atomic_load_explicit(&l->posted, memory_order_relaxed);

	do {
		c->next = head;
	} while (!atomic_compare_exchange_weak_explicit(&l->posted, &head, c, memory_order_release,
							memory_order_relaxed));
	wake_up(l);
}

void loop_add_prepare(struct loop *l, struct loop_prepare *p)
{
	p->next = l->prepare;
	l->prepare = p;
}

void loop_del_prepare(struct loop *l, struct loop_prepare *p)
{
	struct loop_prepare **at = &l->prepare;

	while (*at && *at != p)
		at = &(*at)->next;
	if (*at)
		*at = p->next;
}

struct clock *loop_clock(struct loop *l)
{
	return &l->clock.clock;
}

void loop_clock_pause(struct loop *l, bool paused)
{
	guest_clock_pause(&l->clock, paused);
}

void loop_clock_set(struct loop *l, uint64_t now_ns)
{
	guest_clock_set(&l->clock, now_ns);
}
