#include "api/server.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "api/http.h"
#include "base/auto.h"
#include "base/io_thread.h"
#include "base/unix_socket.h"

#define IN_FIRST       2048u
#define STREAM_MAX     16384u /* bytes of a stream's piece */
#define CHUNK_HEAD     6u     /* "4000\r\n" */
#define PIECES_A_TURN  8u
#define ACCEPTS_A_TURN 16u
#define LINGER_NS      UINT64_C(1000000000)

struct conn {
	struct loop_fd watch;
	struct api_server *server;
	struct conn *next;
	uint64_t used; /* when it was last busy, in turns of the server */
	enum api_right right;
	uint32_t events; /* that the loop watches for */

	char *in; /* [in_max] */
	size_t in_len, in_max;
	bool continued;     /* "100 Continue" was sent for the request in it */
	struct api_fds fds; /* that came with the bytes in it: for the next request */

	char *out; /* what the client has still to read */
	size_t out_at, out_len;
	struct api_stream *stream;
	bool chunked; /* the stream's pieces; else it ends with the connection */
	bool last;    /* close after this answer */
	bool again;   /* the stream may have more, but others have their turn first */
};

struct api_server {
	struct io_thread *thread;
	const struct api_table *table;
	struct unix_listener listener;
	struct loop_fd accept;
	/* On the thread: */
	struct conn *conns;
	unsigned count;
	uint64_t turn;
	bool ending;
	struct timer linger;
	struct loop_call wake;
	atomic_bool woken;
};

static struct loop *loop_of(struct api_server *s)
{
	return io_thread_loop(s->thread);
}

/* --- a connection's end --- */

static void drop_stream(struct conn *c)
{
	if (c->stream)
		c->stream->free(c->stream);
	c->stream = NULL;
}

static void conn_free(struct conn *c)
{
	struct api_server *s = c->server;
	struct conn **at = &s->conns;

	while (*at != c)
		at = &(*at)->next;
	*at = c->next;
	s->count--;
	loop_del(loop_of(s), &c->watch);
	close(c->watch.fd);
	drop_stream(c);
	api_fds_close(&c->fds);
	free(c->in);
	free(c->out);
	free(c);
	if (s->ending && !s->count)
		loop_stop(loop_of(s));
}

static bool is_busy(const struct conn *c)
{
	return c->stream || c->out_at < c->out_len;
}

/* --- answers --- */

static bool put(struct conn *c, const void *bytes, size_t len)
{
	char *more;

	if (c->out_at == c->out_len)
		c->out_at = c->out_len = 0;
	more = realloc(c->out, c->out_len + len);
	if (!more)
		return false;
	c->out = more;
	memcpy(c->out + c->out_len, bytes, len);
	c->out_len += len;
	return true;
}

static bool put_head(struct conn *c, unsigned status, const char *type, const char *framing)
{
	char head[512];
	int n = snprintf(head, sizeof head, "HTTP/1.1 %u %s\r\n%s%s%s%s%s\r\n", status,
			 http_reason(status), type ? "Content-Type: " : "", type ? type : "",
			 type ? "\r\n" : "", framing, c->last ? "Connection: close\r\n" : "");

	return put(c, head, (size_t)n);
}

static bool put_text(struct conn *c, unsigned status, const char *type, const char *text)
{
	char framing[64];
	size_t len = strlen(text);

	snprintf(framing, sizeof framing, "Content-Length: %zu\r\n", len);
	return put_head(c, status, type, framing) && put(c, text, len);
}

static bool put_json(struct conn *c, unsigned status, const json_t *json)
{
	AUTO_FREE char *text = json_dumps(json, JSON_COMPACT);
	AUTO_FREE char *line = NULL;

	if (!text || asprintf(&line, "%s\n", text) < 0)
		return false;
	return put_text(c, status, API_TYPE_JSON, line);
}

static bool put_reply(struct conn *c, unsigned status, struct api_reply *reply)
{
	if (reply->json)
		return put_json(c, status, reply->json);
	if (reply->text)
		return put_text(c, status, reply->type, reply->text);
	if (!reply->stream)
		return put_head(c, status, NULL, "");
	c->stream = reply->stream;
	c->last |= !c->chunked;
	return put_head(c, status, reply->type, c->chunked ? "Transfer-Encoding: chunked\r\n" : "");
}

static bool answer(struct conn *c, struct http_request *q)
{
	struct api_reply reply;
	unsigned status;
	bool good;

	c->chunked = !q->old;
	c->last = !q->keep_alive || c->server->ending;
	status = api_dispatch(c->server->table, c->right, q->verb, q->path, q->query, q->body,
			      q->body_len, &c->fds, &reply);
	api_fds_close(&c->fds);
	good = put_reply(c, status, &reply);
	json_decref(reply.json);
	free(reply.text);
	return good;
}

static size_t body_max(const struct api_server *s)
{
	return s->table->body_max ? s->table->body_max : HTTP_BODY_MAX;
}

static bool refuse(struct conn *c, unsigned status)
{
	char text[100];

	c->last = true;
	snprintf(text, sizeof text, "{\"%s\": \"%s\"}\n", api_error_member(c->server->table),
		 http_reason(status));
	return put_text(c, status, API_TYPE_JSON, text);
}

/* --- requests --- */

/* Does at most one request of what has come. false: the connection cannot go on. */
static bool serve(struct conn *c)
{
	struct http_request q;
	long used = http_parse_max(&q, c->in, c->in_len, body_max(c->server));

	if (used < 0)
		return refuse(c, (unsigned)-used);
	if (used == 0) {
		if (!q.expects_continue || c->continued)
			return true;
		c->continued = true;
		return put(c, "HTTP/1.1 100 Continue\r\n\r\n", 25);
	}
	c->continued = false;
	if (!answer(c, &q))
		return false;
	c->in_len -= (size_t)used;
	memmove(c->in, c->in + used, c->in_len);
	return true;
}

static bool read_more(struct conn *c)
{
	ssize_t n;

	if (c->in_len == c->in_max) {
		size_t most = HTTP_HEAD_MAX + body_max(c->server);
		size_t max = c->in_max ? (size_t)min_u64(c->in_max * 2, most) : IN_FIRST;
		char *more = max > c->in_max ? realloc(c->in, max) : NULL;

		if (!more)
			return false;
		c->in = more;
		c->in_max = max;
	}
	n = api_fds_read(c->watch.fd, c->in + c->in_len, c->in_max - c->in_len, &c->fds);
	if (c->right < RIGHT_OPERATE)
		api_fds_close(&c->fds);
	if (n <= 0)
		return n < 0 && (errno == EAGAIN || errno == EINTR);
	c->in_len += (size_t)n;
	return true;
}

/* --- sending --- */

/* Asks the stream for a piece; false: no memory. */
static bool pull(struct conn *c)
{
	char piece[CHUNK_HEAD + STREAM_MAX + 2];
	char head[24];
	long n = c->stream->more(c->stream, piece + CHUNK_HEAD, STREAM_MAX);

	if (n < 0) {
		drop_stream(c);
		return !c->chunked || put(c, "0\r\n\r\n", 5);
	}
	if (n == 0)
		return true;
	if (!c->chunked)
		return put(c, piece + CHUNK_HEAD, (size_t)n);
	snprintf(head, sizeof head, "%04lx\r\n", (unsigned long)n);
	memcpy(piece, head, CHUNK_HEAD);
	memcpy(piece + CHUNK_HEAD + n, "\r\n", 2);
	return put(c, piece, CHUNK_HEAD + (size_t)n + 2);
}

/* Sends until the client is slow or there is nothing more; false: the connection is done. */
static bool send_out(struct conn *c)
{
	c->again = false;
	for (unsigned pieces = 0;;) {
		ssize_t n;

		if (c->out_at == c->out_len && c->stream && pieces++ == PIECES_A_TURN) {
			c->again = true;
			return true;
		}
		if (c->out_at == c->out_len && c->stream && !pull(c))
			return false;
		if (c->out_at == c->out_len)
			return c->stream || !c->last;
		n = send(c->watch.fd, c->out + c->out_at, c->out_len - c->out_at,
			 MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno == EAGAIN)
			return true;
		if (n < 0 && errno != EINTR)
			return false;
		c->out_at += n > 0 ? (size_t)n : 0;
	}
}

static void watch_for(struct conn *c)
{
	uint32_t want = c->again || c->out_at < c->out_len ? EPOLLOUT : 0;

	if (!is_busy(c))
		want = EPOLLIN;
	if (c->stream)
		want |= EPOLLRDHUP; /* a client that left while there was nothing to send */
	if (want == c->events)
		return;
	c->events = want;
	loop_mod(loop_of(c->server), &c->watch, want);
}

/* Goes on as far as it goes: requests that came together are answered one after the other, a few
 * a turn, so that others have theirs. */
static void go_on(struct conn *c)
{
	bool good = true;

	c->used = ++c->server->turn;
	while (good) {
		size_t before = c->in_len;

		good = send_out(c);
		if (!good || is_busy(c) || !c->in_len)
			break;
		good = serve(c);
		if (good && !is_busy(c) && c->in_len == before)
			break;
	}
	if (good)
		watch_for(c);
	else
		conn_free(c);
}

static void conn_ready(struct loop_fd *f, uint32_t events)
{
	struct conn *c = container_of(f, struct conn, watch);

	if ((events & (EPOLLERR | EPOLLHUP)) || (c->stream && (events & EPOLLRDHUP)) ||
	    ((events & EPOLLIN) && !is_busy(c) && !read_more(c))) {
		conn_free(c);
		return;
	}
	go_on(c);
}

/* --- new ones --- */

static enum api_right right_of(int fd)
{
	struct ucred who;
	socklen_t len = sizeof who;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) < 0)
		return RIGHT_VIEW;
	return who.uid == 0 || who.uid == geteuid() ? RIGHT_OPERATE : RIGHT_VIEW;
}

static void drop_idlest(struct api_server *s)
{
	struct conn *idlest = s->conns;

	for (struct conn *c = s->conns; c; c = c->next)
		if (c->used < idlest->used)
			idlest = c;
	conn_free(idlest);
}

static void conn_new(struct api_server *s, int fd)
{
	struct conn *c;

	if (s->count == API_CONNECTIONS_MAX)
		drop_idlest(s);
	c = calloc(1, sizeof *c);
	if (c) {
		*c = (struct conn){.watch = {fd, conn_ready},
				   .server = s,
				   .next = s->conns,
				   .used = ++s->turn,
				   .right = right_of(fd),
				   .events = EPOLLIN};
		if (loop_add(loop_of(s), &c->watch, EPOLLIN, NULL) == 0) {
			s->conns = c;
			s->count++;
			return;
		}
	}
	free(c);
	close(fd);
}

static void accept_ready(struct loop_fd *f, uint32_t events)
{
	struct api_server *s = container_of(f, struct api_server, accept);
	int fd;

	for (unsigned n = 0; n < ACCEPTS_A_TURN && (fd = unix_accept(&s->listener)) >= 0; n++)
		conn_new(s, fd);
}

static void woken(struct loop_call *call)
{
	struct api_server *s = container_of(call, struct api_server, wake);
	struct conn *next;

	atomic_store(&s->woken, false);
	for (struct conn *c = s->conns; c; c = next) {
		next = c->next;
		if (c->stream && c->out_at == c->out_len)
			go_on(c);
	}
}

void api_server_wake(struct api_server *s)
{
	if (!atomic_exchange(&s->woken, true))
		loop_post(loop_of(s), &s->wake);
}

/* --- its life --- */

static void lingered(struct timer *t)
{
	loop_stop(loop_of(container_of(t, struct api_server, linger)));
}

int api_server_new(struct api_server **out, const char *path, const struct api_table *table,
		   struct err *e)
{
	struct api_server *s = calloc(1, sizeof *s);
	int r;

	if (!s)
		return err_set(e, ENOMEM, "out of memory");
	s->table = table;
	s->listener.fd = -1;
	s->wake.run = woken;
	s->linger.fire = lingered;
	if ((r = io_thread_new(&s->thread, THREAD_API, "api", e)) == 0 &&
	    (r = unix_listen(&s->listener, path, e)) == 0) {
		s->accept = (struct loop_fd){s->listener.fd, accept_ready};
		if ((r = loop_add(loop_of(s), &s->accept, EPOLLIN, e)) == 0)
			r = io_thread_start(s->thread, e);
	}
	if (r < 0) {
		unix_listener_done(&s->listener);
		io_thread_free(s->thread);
		free(s);
	} else {
		*out = s;
	}
	return r;
}

void api_server_moved(struct api_server *s, const char *path)
{
	snprintf(s->listener.path, sizeof s->listener.path, "%s", path);
}

/* On the thread, for good. */
static void end(void *arg)
{
	struct api_server *s = arg;
	struct loop *l = loop_of(s);
	struct conn *next;

	loop_del(l, &s->accept);
	s->ending = true;
	for (struct conn *c = s->conns; c; c = next) {
		next = c->next;
		c->last = true;
		go_on(c);
	}
	if (!s->count)
		loop_stop(l);
	else
		timer_arm(loop_clock(l), &s->linger, clock_now(loop_clock(l)) + LINGER_NS);
}

void api_server_free(struct api_server *s)
{
	if (!s)
		return;
	io_thread_call(s->thread, end, s);
	io_thread_join(s->thread);
	timer_cancel(loop_clock(loop_of(s)), &s->linger);
	while (s->conns)
		conn_free(s->conns);
	unix_listener_done(&s->listener);
	io_thread_free(s->thread);
	free(s);
}
