#include "cli/console_out.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/auto.h"

#define LINGER_NS 1000000

/* Takes n bytes off the buffer's front. */
static void consumed(struct console_out *o, size_t n)
{
	o->len -= (uint32_t)n;
	memmove(o->buf, o->buf + n, o->len);
}

static bool writable_now(const struct console_out *o)
{
	struct pollfd p = {.fd = o->fd, .events = POLLOUT};

	return poll(&p, 1, 0) > 0;
}

static ssize_t write_piece(struct console_out *o)
{
	if (o->is_socket)
		return send(o->fd, o->buf, o->len, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (!o->may_block)
		return write(o->fd, o->buf, o->len);
	if (!writable_now(o)) {
		errno = EAGAIN;
		return -1;
	}
	return write(o->fd, o->buf, min_u64(o->len, PIPE_BUF));
}

/* Writes until the buffer is empty or the reader is slow; true when it is empty.
 * Called with o->lock held. */
static bool write_out(struct console_out *o)
{
	while (o->len) {
		ssize_t n = atomic_load(&o->gone) ? (ssize_t)o->len : write_piece(o);

		if (n >= 0)
			consumed(o, (size_t)n);
		else if (errno == EAGAIN)
			return false;
		else if (errno != EINTR)
			atomic_store(&o->gone, true);
	}
	return true;
}

/* Waits until the reader takes more, is gone, or nobody wants to wait any longer. */
static void wait_for_reader(struct console_out *o)
{
	struct pollfd p[] = {{.fd = o->fd, .events = POLLOUT},
			     {.fd = o->abandon_fd, .events = POLLIN}};

	if (poll(p, ARRAY_SIZE(p), -1) < 0 && errno != EINTR)
		atomic_store(&o->gone, true);
}

static void arm_timer(struct console_out *o)
{
	const struct itimerspec soon = {.it_value.tv_nsec = LINGER_NS};

	if (o->loop && !atomic_exchange(&o->timer_armed, true))
		timerfd_settime(o->timer.fd, 0, &soon, NULL);
}

static void append(struct console_out *o, const uint8_t *bytes, uint32_t len)
{
	AUTO_LOCK(&o->lock);

	while (len && !atomic_load(&o->gone)) {
		uint32_t n = (uint32_t)min_u64(len, sizeof o->buf - o->len);

		memcpy(o->buf + o->len, bytes, n);
		o->len += n;
		bytes += n;
		len -= n;
		if (len && !write_out(o))
			wait_for_reader(o);
	}
}

static void put(struct byte_sink *s, const uint8_t *bytes, uint32_t len)
{
	struct console_out *o = container_of(s, struct console_out, sink);

	append(o, bytes, len);
	/* Looked at after the lock is released: a flush that found it taken has cleared
	 * timer_armed before, and relies on this one. */
	arm_timer(o);
}

bool console_out_offer(struct console_out *o, const void *bytes, uint32_t len)
{
	bool taken;

	if (pthread_mutex_trylock(&o->lock))
		return false;
	taken = len <= sizeof o->buf - o->len;
	if (taken) {
		memcpy(o->buf + o->len, bytes, len);
		o->len += len;
	}
	pthread_mutex_unlock(&o->lock);
	arm_timer(o);
	return taken;
}

void console_out_discard(struct console_out *o)
{
	if (pthread_mutex_trylock(&o->lock))
		return;
	o->len = 0;
	pthread_mutex_unlock(&o->lock);
}

/* In the loop only while the reader is slow: epoll would go on telling of one that is gone.
 * What it refuses, files and some devices, is never slow. Loop thread. */
static void watch_reader(struct console_out *o, bool slow)
{
	if (o->watched == slow)
		return;
	if (!slow)
		loop_del(o->loop, &o->watch);
	else if (loop_add(o->loop, &o->watch, EPOLLOUT, NULL) < 0)
		return;
	o->watched = slow;
}

static void flush(struct console_out *o)
{
	bool empty;

	/* A vCPU that waits for the reader holds the lock; it will arm the timer. */
	if (pthread_mutex_trylock(&o->lock))
		return;
	empty = write_out(o);
	pthread_mutex_unlock(&o->lock);
	watch_reader(o, !empty);
}

static void time_to_flush(struct loop_fd *f, uint32_t events)
{
	struct console_out *o = container_of(f, struct console_out, timer);
	uint64_t count;

	/* Before timer_armed is cleared: what comes after that must find the timer's own count. */
	if (read(f->fd, &count, sizeof count) < 0)
		return;
	atomic_store(&o->timer_armed, false);
	flush(o);
}

static void reader_ready(struct loop_fd *f, uint32_t events)
{
	struct console_out *o = container_of(f, struct console_out, watch);

	watch_reader(o, false);
	flush(o);
}

/* An open file of our own for the same pipe or terminal, non-blocking; else a duplicate. */
static int open_own(struct console_out *o, int fd)
{
	char path[32];
	struct stat st;
	int own = -1;

	if (fstat(fd, &st) < 0)
		return -1;
	if (S_ISFIFO(st.st_mode) || S_ISCHR(st.st_mode)) {
		snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
		own = open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	}
	o->is_socket = S_ISSOCK(st.st_mode);
	o->may_block = own < 0 && !S_ISREG(st.st_mode);
	return own >= 0 ? own : fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
}

int console_out_init(struct console_out *o, int fd, struct err *e)
{
	*o = (struct console_out){
		.sink.put = put,
		.timer.ready = time_to_flush,
		.watch.ready = reader_ready,
	};
	o->abandon_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (o->abandon_fd < 0)
		return err_sys(e, errno, "eventfd");
	o->timer.fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (o->timer.fd < 0) {
		close(o->abandon_fd);
		return err_sys(e, errno, "timerfd");
	}
	pthread_mutex_init(&o->lock, NULL);
	o->fd = o->watch.fd = open_own(o, fd);
	o->gone = o->fd < 0;
	return 0;
}

int console_out_attach(struct console_out *o, struct loop *l, struct err *e)
{
	int r = loop_add(l, &o->timer, EPOLLIN, e);

	if (r == 0)
		o->loop = l;
	return r;
}

void console_out_detach(struct console_out *o)
{
	if (!o->loop)
		return;
	watch_reader(o, false);
	loop_del(o->loop, &o->timer);
	o->loop = NULL;
}

void console_out_done(struct console_out *o)
{
	while (!write_out(o))
		wait_for_reader(o);
	if (o->fd >= 0)
		close(o->fd);
	close(o->timer.fd);
	close(o->abandon_fd);
	pthread_mutex_destroy(&o->lock);
}

void console_out_abandon(struct console_out *o)
{
	uint64_t one = 1;

	atomic_store(&o->gone, true);
	/* It fails only when it is readable already. */
	if (write(o->abandon_fd, &one, sizeof one) < 0)
		return;
}
