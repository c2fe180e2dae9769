/* user_poll: libslirp's sockets and timers on the loop.
 *
 * libslirp wants to be asked before each wait which descriptors it waits for (fill), and to
 * be told afterwards what came (poll). Most answers are those of last time, so only what
 * changed is told to epoll. The number by which libslirp remembers a descriptor is the
 * descriptor itself.
 *
 * Its time-outs: 1000 ms means that it waits for none. */
#include "net/user_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define BATCH      64
#define NO_TIMEOUT 1000u /* ms */
#define NS_PER_MS  UINT64_C(1000000)

/* Which bit of libslirp's is which of epoll's. */
static const struct {
	int slirp;
	uint32_t epoll;
} bits[] = {
	{SLIRP_POLL_IN, EPOLLIN},   {SLIRP_POLL_OUT, EPOLLOUT}, {SLIRP_POLL_PRI, EPOLLPRI},
	{SLIRP_POLL_ERR, EPOLLERR}, {SLIRP_POLL_HUP, EPOLLHUP},
};

static struct user_watch *watch_of(struct user_poll *p, int fd)
{
	if (fd >= (int)p->watches) {
		unsigned n = (unsigned)max_u64((uint64_t)fd + 1, p->watches * 2);
		struct user_watch *w = realloc(p->watch, n * sizeof *w);

		if (!w)
			return NULL;
		memset(w + p->watches, 0, (n - p->watches) * sizeof *w);
		p->watch = w;
		p->watches = n;
	}
	return &p->watch[fd];
}

static bool make_active(struct user_poll *p, int fd)
{
	if (p->actives == p->active_room) {
		unsigned n = p->active_room ? p->active_room * 2 : 64;
		int *a = realloc(p->active, n * sizeof *a);

		if (!a)
			return false;
		p->active = a;
		p->active_room = n;
	}
	p->active[p->actives++] = fd;
	return true;
}

static int add_poll(int fd, int events, void *ctx)
{
	struct user_poll *p = ctx;
	struct user_watch *w = watch_of(p, fd);

	/* Without memory a socket is not watched this time; libslirp asks again. */
	if (!w || (!w->listed && !make_active(p, fd)))
		return -1;
	w->listed = true;
	w->round = p->round;
	w->want = 0;
	for (unsigned i = 0; i < ARRAY_SIZE(bits); i++)
		if (events & bits[i].slirp)
			w->want |= bits[i].epoll;
	return fd;
}

static int get_revents(int fd, void *ctx)
{
	struct user_poll *p = ctx;
	int events = 0;

	if (fd < 0 || fd >= (int)p->watches)
		return 0;
	for (unsigned i = 0; i < ARRAY_SIZE(bits); i++)
		if (p->watch[fd].got & bits[i].epoll)
			events |= bits[i].slirp;
	return events;
}

static void tell_epoll(struct user_poll *p, int fd, struct user_watch *w)
{
	struct epoll_event ev = {.events = w->want, .data.fd = fd};
	int op = !w->want ? EPOLL_CTL_DEL : w->on ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;

	/* A descriptor that was closed and made again is not what we believe it to be. */
	if (epoll_ctl(p->ready.fd, op, fd, &ev) < 0 && w->want)
		epoll_ctl(p->ready.fd, errno == ENOENT ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, fd, &ev);
	w->on = w->want;
}

static void set_timer(struct user_poll *p, uint32_t timeout_ms)
{
	struct clock *c = loop_clock(p->loop);

	if (timeout_ms >= NO_TIMEOUT)
		timer_cancel(c, &p->timer);
	else
		timer_arm(c, &p->timer, clock_now(c) + timeout_ms * NS_PER_MS);
}

void user_poll_refresh(struct user_poll *p)
{
	uint32_t timeout_ms = NO_TIMEOUT;
	unsigned kept = 0;

	if (!p->slirp)
		return;
	p->round++;
	p->lib->fill(p->slirp, &timeout_ms, add_poll, p);
	for (unsigned i = 0; i < p->actives; i++) {
		int fd = p->active[i];
		struct user_watch *w = &p->watch[fd];

		if (w->round != p->round)
			w->want = 0;
		if (w->want != w->on)
			tell_epoll(p, fd, w);
		w->listed = w->want;
		if (w->listed)
			p->active[kept++] = fd;
	}
	p->actives = kept;
	set_timer(p, timeout_ms);
}

static void on_ready(struct loop_fd *f, uint32_t events)
{
	struct user_poll *p = container_of(f, struct user_poll, ready);
	struct epoll_event ev[BATCH];
	int n = epoll_wait(f->fd, ev, BATCH, 0);

	for (int i = 0; i < n; i++)
		p->watch[ev[i].data.fd].got = ev[i].events;
	p->lib->poll(p->slirp, 0, get_revents, p);
	for (int i = 0; i < n; i++)
		p->watch[ev[i].data.fd].got = 0;
	user_poll_refresh(p);
	p->polled(p);
}

static void on_timer(struct timer *t)
{
	struct user_poll *p = container_of(t, struct user_poll, timer);

	p->lib->poll(p->slirp, 0, get_revents, p);
	user_poll_refresh(p);
	p->polled(p);
}

void user_poll_stop(struct user_poll *p, bool stop)
{
	if (stop == p->stopped || !p->in_loop)
		return;
	p->stopped = stop;
	loop_mod(p->loop, &p->ready, stop ? 0 : EPOLLIN);
}

void user_poll_forget(struct user_poll *p, int fd)
{
	struct user_watch *w = fd < 0 ? NULL : watch_of(p, fd);

	if (!w)
		return;
	if (w->on)
		epoll_ctl(p->ready.fd, EPOLL_CTL_DEL, fd, NULL);
	w->on = w->want = w->got = 0;
}

int user_poll_init(struct user_poll *p, struct loop *l, struct err *e)
{
	p->loop = l;
	p->timer.fire = on_timer;
	p->ready = (struct loop_fd){epoll_create1(EPOLL_CLOEXEC), on_ready};
	return p->ready.fd < 0 ? err_sys(e, errno, "epoll") : 0;
}

int user_poll_start(struct user_poll *p, struct slirp_lib *lib, Slirp *slirp, struct err *e)
{
	int r = loop_add(p->loop, &p->ready, EPOLLIN, e);

	if (r < 0)
		return r;
	p->in_loop = true;
	p->lib = lib;
	p->slirp = slirp;
	user_poll_refresh(p);
	return 0;
}

void user_poll_done(struct user_poll *p)
{
	if (p->loop)
		timer_cancel(loop_clock(p->loop), &p->timer);
	if (p->in_loop)
		loop_del(p->loop, &p->ready);
	if (p->ready.fd >= 0)
		close(p->ready.fd);
	free(p->watch);
	free(p->active);
}
