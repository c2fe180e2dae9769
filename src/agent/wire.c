#include "agent/wire.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

void wire_init(struct wire *w, int fd)
{
	w->fd = fd;
	w->in_at = w->in_end = w->out_at = w->out_end = 0;
	w->holds = false;
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

void wire_done(struct wire *w)
{
	close(w->fd);
	w->fd = -1;
}

/* --- out --- */

bool wire_room(const struct wire *w, size_t len)
{
	return w->out_end - w->out_at + WIRE_HEADER + len <= sizeof w->out;
}

void wire_put(struct wire *w, enum wire_type type, const void *data, size_t len)
{
	uint8_t *to;

	assert(len <= WIRE_MAX && wire_room(w, len));
	if (sizeof w->out - w->out_end < WIRE_HEADER + len) {
		memmove(w->out, w->out + w->out_at, w->out_end - w->out_at);
		w->out_end -= w->out_at;
		w->out_at = 0;
	}
	to = w->out + w->out_end;
	store_le(to, type, 4);
	store_le(to + 4, len, 4);
	if (len)
		memcpy(to + WIRE_HEADER, data, len);
	w->out_end += WIRE_HEADER + len;
}

int wire_flush(struct wire *w)
{
	while (w->out_at < w->out_end) {
		ssize_t n = send(w->fd, w->out + w->out_at, w->out_end - w->out_at, MSG_NOSIGNAL);

		if (n < 0 && errno != EINTR)
			return errno == EWOULDBLOCK ? -EAGAIN : -errno;
		if (n > 0)
			w->out_at += (size_t)n;
	}
	w->out_at = w->out_end = 0;
	return 0;
}

/* --- in --- */

/* Gives back the byte that was borrowed for the last frame's zero. */
static void release(struct wire *w)
{
	if (w->holds)
		w->in[w->in_at] = w->held;
	w->holds = false;
}

static int fill(struct wire *w)
{
	ssize_t n;

	if (w->in_at) {
		memmove(w->in, w->in + w->in_at, w->in_end - w->in_at);
		w->in_end -= w->in_at;
		w->in_at = 0;
	}
	do
		n = recv(w->fd, w->in + w->in_end, sizeof w->in - 1 - w->in_end, 0);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == ECONNRESET ? -EPIPE : -errno;
	if (n == 0)
		return -EPIPE;
	w->in_end += (size_t)n;
	return 0;
}

int wire_get(struct wire *w, struct frame *f)
{
	release(w);
	for (;;) {
		const uint8_t *h = w->in + w->in_at;
		size_t have = w->in_end - w->in_at;
		int r;

		if (have >= WIRE_HEADER) {
			uint64_t type = load_le(h, 4), len = load_le(h + 4, 4);

			if (!type || type > WIRE_END || len > WIRE_MAX)
				return -EPROTO;
			if (have >= WIRE_HEADER + len) {
				*f = (struct frame){(enum wire_type)type, (uint32_t)len,
						    w->in + w->in_at + WIRE_HEADER};
				w->in_at += WIRE_HEADER + len;
				w->held = w->in[w->in_at];
				w->in[w->in_at] = 0;
				w->holds = true;
				return 0;
			}
		}
		r = fill(w);
		if (r < 0)
			return r;
	}
}

/* --- waiting --- */

static int lost(int r, struct err *e)
{
	if (r == -EPIPE || r == -ECONNRESET)
		return err_set(e, EPIPE, "the connection to the guest's agent has ended");
	if (r == -EPROTO)
		return err_set(e, EPROTO, "what came from the guest is not an agent's");
	return err_sys(e, -r, "the connection to the guest's agent");
}

static void wait_for(const struct wire *w, short events)
{
	struct pollfd p = {w->fd, events, 0};

	poll(&p, 1, -1);
}

int wire_drain(struct wire *w, struct err *e)
{
	int r;

	while ((r = wire_flush(w)) == -EAGAIN)
		wait_for(w, POLLOUT);
	return r < 0 ? lost(r, e) : 0;
}

int wire_send(struct wire *w, enum wire_type type, const void *data, size_t len, struct err *e)
{
	while (!wire_room(w, len)) {
		int r = wire_flush(w);

		if (r < 0 && r != -EAGAIN)
			return lost(r, e);
		if (r < 0)
			wait_for(w, POLLOUT);
	}
	wire_put(w, type, data, len);
	return 0;
}

int wire_send_text(struct wire *w, enum wire_type type, const char *text, struct err *e)
{
	size_t len = strlen(text);

	if (len > WIRE_MAX)
		return err_set(e, E2BIG, "'%.40s...' is longer than %u bytes", text, WIRE_MAX);
	return wire_send(w, type, text, len, e);
}

int wire_next(struct wire *w, struct frame *f, struct err *e)
{
	int r = wire_drain(w, e);

	if (r < 0)
		return r;
	while ((r = wire_get(w, f)) == -EAGAIN)
		wait_for(w, POLLIN);
	return r < 0 ? lost(r, e) : 0;
}

/* --- frames --- */

int frame_text(const struct frame *f, const char **text, struct err *e)
{
	*text = (const char *)f->data;
	return memchr(f->data, 0, f->len) ? lost(-EPROTO, e) : 0;
}

int frame_failed(const struct frame *f, struct err *e)
{
	uint64_t code = f->len < 4 ? EPROTO : load_le(f->data, 4);

	/* What a guest says ends up on a terminal. */
	for (uint32_t i = 4; i < f->len; i++)
		if (f->data[i] < ' ' || f->data[i] == 0x7f)
			f->data[i] = '?';
	return err_set(e, code && code < 4096 ? (int)code : EPROTO, "in the guest: %.200s",
		       f->len > 4 ? (const char *)f->data + 4 : "it failed");
}

int frame_unexpected(const struct frame *f, struct err *e)
{
	return f->type == WIRE_FAIL ? frame_failed(f, e) : lost(-EPROTO, e);
}
