#include "agent/client.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/unix_socket.h"

#define RETRY_MS    10
#define ANSWER_MS   10000 /* a VM that is paused, or has too much to do */
#define ANSWER_LONG 64

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* The device's answer to CONNECT, "OK" and a number on a line, and nothing behind it. -EPIPE: it
 * closed the connection, since nobody listens in the guest. */
static int await_ok(int fd, uint64_t deadline)
{
	char line[ANSWER_LONG];
	size_t n = 0;

	while (n < sizeof line) {
		struct pollfd p = {fd, POLLIN, 0};
		uint64_t now = now_ms();
		ssize_t got;

		if (now >= deadline || poll(&p, 1, (int)(deadline - now)) == 0)
			return -ETIMEDOUT;
		got = recv(fd, line + n, 1, 0); /* the agent's bytes are not for us */
		if (got == 0 || (got < 0 && errno == ECONNRESET))
			return -EPIPE;
		if (got < 0 && errno != EAGAIN && errno != EINTR)
			return -errno;
		if (got > 0 && line[n++] == '\n')
			return n > 3 && !memcmp(line, "OK ", 3) ? 0 : -EPROTO;
	}
	return -EPROTO;
}

/* One try. */
static int try(const char *vsock, uint64_t deadline)
{
	char hello[32];
	int fd = unix_connect(vsock), n, r;

	if (fd < 0)
		return fd;
	n = snprintf(hello, sizeof hello, "CONNECT %d\n", AGENT_PORT);
	r = send(fd, hello, (size_t)n, MSG_NOSIGNAL) == n ? await_ok(fd, deadline) : -EPIPE;
	if (r == 0)
		return fd;
	close(fd);
	return r;
}

int agent_connect(struct wire *w, const char *vsock, unsigned wait_ms, struct err *e)
{
	uint64_t start = now_ms();
	int r;

	while ((r = try(vsock, start + max_u64(wait_ms, ANSWER_MS))) < 0 &&
	       (r == -EPIPE || r == -EAGAIN) && now_ms() - start < wait_ms)
		poll(NULL, 0, RETRY_MS);
	if (r >= 0) {
		wire_init(w, r);
		return 0;
	}
	if (r == -EPIPE)
		return err_set(e, ECONNREFUSED,
			       "no agent answers in the guest: it has not started yet (--wait "
			       "waits for it), or is not there ('holon agent --help')");
	if (r == -ETIMEDOUT)
		return err_set(e, ETIMEDOUT, "the guest does not answer");
	return err_sys(e, -r, "'%s'", vsock);
}

static int hello(struct wire *w, enum wire_job job, struct err *e)
{
	return wire_send(w, WIRE_HELLO, (uint8_t[]){WIRE_VERSION, (uint8_t)job}, 2, e);
}

static int send_texts(struct wire *w, enum wire_type type, const char *const *text, unsigned n,
		      struct err *e)
{
	int r = 0;

	for (unsigned i = 0; i < n && r == 0; i++)
		r = wire_send_text(w, type, text[i], e);
	return r;
}

/* Optional ones. */
static int send_text(struct wire *w, enum wire_type type, const char *text, struct err *e)
{
	return text ? wire_send_text(w, type, text, e) : 0;
}

/* What the agent answers: that it did it, or why not. */
static int await_done(struct wire *w, struct err *e)
{
	struct frame f;
	int r = wire_next(w, &f, e);

	return r < 0 ? r : f.type == WIRE_DONE ? 0 : frame_unexpected(&f, e);
}

/* When sending fails, the agent may have said why. */
static int why(struct wire *w, int r, struct err *e)
{
	struct frame f;
	struct err told = {0};

	if (r != -EPIPE)
		return r;
	while ((r = wire_get(w, &f)) == -EAGAIN &&
	       poll(&(struct pollfd){w->fd, POLLIN, 0}, 1, 1000) > 0)
		;
	if (r == 0 && f.type == WIRE_FAIL) {
		frame_failed(&f, &told);
		*e = told;
	}
	return -e->code;
}

int agent_exec(struct wire *w, const struct agent_exec *x, struct err *e)
{
	uint8_t size[4];
	int r;

	store_le(size, x->rows, 2);
	store_le(size + 2, x->columns, 2);
	if ((r = hello(w, WIRE_EXEC, e)) < 0 ||
	    (r = send_texts(w, WIRE_ARG, x->argv, x->args, e)) < 0 ||
	    (r = send_texts(w, WIRE_ENV, x->env, x->envs, e)) < 0 ||
	    (r = send_text(w, WIRE_USER, x->user, e)) < 0 ||
	    (r = send_text(w, WIRE_DIR, x->dir, e)) < 0 ||
	    (x->tty && (r = wire_send(w, WIRE_TTY, size, sizeof size, e)) < 0) ||
	    (r = wire_send(w, WIRE_START, NULL, 0, e)) < 0)
		return why(w, r, e);
	return await_done(w, e);
}

int agent_status(const struct frame *f, int *status, struct err *e)
{
	if (f->type != WIRE_EXIT || f->len != 5)
		return frame_unexpected(f, e);
	*status = (int)(load_le(f->data + 1, 4) & 0xff);
	if (f->data[0])
		*status = 128 + (*status & 0x7f);
	return 0;
}

int agent_put(struct wire *w, const char *user, const char *from, const char *to,
	      struct tree_progress *p, struct err *e)
{
	int r;

	if ((r = hello(w, WIRE_PUT, e)) < 0 || (r = send_text(w, WIRE_USER, user, e)) < 0 ||
	    (r = wire_send_text(w, WIRE_PATH, to, e)) < 0 || (r = tree_send(w, from, p, e)) < 0)
		return why(w, r, e);
	return await_done(w, e);
}

int agent_get(struct wire *w, const char *user, const char *from, const char *to,
	      struct tree_progress *p, struct err *e)
{
	int r;

	if ((r = hello(w, WIRE_GET, e)) < 0 || (r = send_text(w, WIRE_USER, user, e)) < 0 ||
	    (r = wire_send_text(w, WIRE_PATH, from, e)) < 0)
		return why(w, r, e);
	return tree_receive(w, to, p, e);
}
