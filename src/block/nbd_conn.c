/* nbd_conn: one connection to an NBD server through libnbd's asynchronous calls.
 *
 * Connecting (names, several addresses, TLS, options) is done by a worker thread, for at most
 * CONNECT_SECONDS. Afterwards the loop watches the socket. The library calls back while it holds
 * its lock, so finished commands gather in a list and their coroutines are woken after the call
 * into the library.
 *
 * When the server goes away, the library fails all commands. Each then waits until the
 * connection is back and starts again; reads and writes can be repeated. After RETRY_SECONDS
 * without a server they fail, and the next command tries again. */
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <time.h>

#include "block/nbd_priv.h"

#define CONNECT_SECONDS 10
#define RETRY_SECONDS   15
#define RETRY_PAUSE_NS  UINT64_C(500000000)
#define RESTARTS_MAX    5 /* of one command: it may be what kills the server */
#define POLL_MS         100

static uint64_t now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec;
}

/* --- on a worker thread --- */

struct connecting {
	struct nbd_conn *conn;
	struct nbd_handle *handle;
	struct err err;
};

static int lib_error(struct connecting *a)
{
	const struct nbd_lib *l = &a->conn->lib;
	int code = l->get_errno();

	return err_set(&a->err, code ? code : EIO, "%s", l->get_error());
}

static int wait_until_ready(struct connecting *a)
{
	const struct nbd_lib *l = &a->conn->lib;
	uint64_t until = now_s() + CONNECT_SECONDS;

	while (!l->aio_is_ready(a->handle)) {
		if (l->aio_is_dead(a->handle) || l->aio_is_closed(a->handle))
			return lib_error(a);
		if (a->conn->closing || now_s() >= until)
			return err_set(&a->err, ETIMEDOUT, "no answer");
		if (l->poll(a->handle, POLL_MS) < 0)
			return lib_error(a);
	}
	return 0;
}

static int connect_it(void *arg)
{
	struct connecting *a = arg;
	const struct nbd_lib *l = &a->conn->lib;
	int r;

	a->handle = l->create();
	if (!a->handle)
		return lib_error(a);
	if (l->add_meta_context(a->handle, "base:allocation") < 0 ||
	    l->set_uri_allow_local_file(a->handle, true) < 0 ||
	    l->aio_connect_uri(a->handle, a->conn->uri) < 0)
		r = lib_error(a);
	else
		r = wait_until_ready(a);
	if (r < 0)
		l->close(a->handle);
	return r;
}

/* --- on the loop --- */

/* The last of them may be the one after which c is closed. */
static void wake_done(struct nbd_conn *c)
{
	struct nbd_command *cmd = c->done, *next;

	for (c->done = NULL; cmd; cmd = next) {
		next = cmd->next;
		coro_wake(cmd->waiter);
	}
}

static uint32_t wanted_events(struct nbd_conn *c)
{
	unsigned direction = c->lib.aio_get_direction(c->handle);

	return (direction & LIBNBD_AIO_DIRECTION_READ ? EPOLLIN : 0) |
	       (direction & LIBNBD_AIO_DIRECTION_WRITE ? EPOLLOUT : 0);
}

static bool before_sleep(struct loop_prepare *p)
{
	struct nbd_conn *c = container_of(p, struct nbd_conn, prepare);
	uint32_t events = wanted_events(c);

	if (events != c->events)
		loop_mod(block_ctx_loop(c->ctx), &c->fd, events);
	c->events = events;
	return false;
}

static void hang_up(struct nbd_conn *c)
{
	struct loop *l = block_ctx_loop(c->ctx);

	if (!c->handle)
		return;
	loop_del(l, &c->fd);
	loop_del_prepare(l, &c->prepare);
	c->lib.close(c->handle); /* fails what is in flight */
	c->handle = NULL;
}

static bool is_lost(struct nbd_conn *c)
{
	return !c->handle || c->lib.aio_is_dead(c->handle) || c->lib.aio_is_closed(c->handle);
}

static void on_socket(struct loop_fd *f, uint32_t events)
{
	struct nbd_conn *c = container_of(f, struct nbd_conn, fd);

	/* An error of the socket shows as one of reading it. */
	if ((events & ~EPOLLOUT) && c->lib.aio_notify_read(c->handle) < 0)
		events = 0; /* lost */
	if ((events & EPOLLOUT) && (wanted_events(c) & EPOLLOUT) &&
	    c->lib.aio_notify_write(c->handle) < 0)
		events = 0;
	if (is_lost(c))
		hang_up(c);
	wake_done(c);
}

static int watch(struct nbd_conn *c, struct nbd_handle *handle, struct err *e)
{
	struct loop *l = block_ctx_loop(c->ctx);
	int r;

	c->handle = handle;
	c->events = EPOLLIN;
	c->fd = (struct loop_fd){c->lib.aio_get_fd(handle), on_socket};
	c->prepare.run = before_sleep;
	r = loop_add(l, &c->fd, c->events, e);
	if (r < 0) {
		c->lib.close(handle);
		c->handle = NULL;
		return r;
	}
	loop_add_prepare(l, &c->prepare);
	return 0;
}

static int connect_now(struct nbd_conn *c, struct err *e)
{
	struct connecting a = {.conn = c};
	int r = block_offload(c->ctx, connect_it, &a);

	return r < 0 ? err_set(e, -r, "%s", a.err.text) : watch(c, a.handle, e);
}

static void reconnect(void *arg)
{
	struct nbd_conn *c = arg;
	uint64_t until = now_s() + RETRY_SECONDS;

	while (connect_now(c, NULL) < 0 && !c->closing && now_s() < until)
		block_sleep(c->ctx, RETRY_PAUSE_NS);
	c->reconnecting = false;
	coro_queue_wake_all(&c->waiting);
}

/* 0: connected. */
static int be_connected(struct nbd_conn *c)
{
	if (is_lost(c)) {
		hang_up(c);
		wake_done(c);
	}
	if (!c->handle && !c->reconnecting) {
		c->reconnecting = true;
		if (coro_start(block_coros(c->ctx), reconnect, c) < 0)
			c->reconnecting = false;
	}
	while (c->reconnecting)
		coro_queue_wait(block_coros(c->ctx), &c->waiting);
	return c->handle ? 0 : -EIO;
}

static int on_complete(void *user_data, int *error)
{
	struct nbd_command *cmd = user_data;

	cmd->error = *error;
	cmd->next = cmd->conn->done;
	cmd->conn->done = cmd;
	return 1; /* the library may forget it */
}

static int run_once(struct nbd_conn *c, struct nbd_command *cmd)
{
	nbd_completion_callback done = {.callback = on_complete, .user_data = cmd};
	int code;

	cmd->error = 0;
	if (cmd->start(c, cmd, done) < 0) {
		code = c->lib.get_errno();
		wake_done(c); /* those that the failure ended */
		return code ? -code : -EIO;
	}
	wake_done(c);
	coro_wait(block_coros(c->ctx));
	return -cmd->error;
}

int nbd_conn_run(struct nbd_conn *c, struct nbd_command *cmd)
{
	int r = -EIO;

	cmd->conn = c;
	cmd->waiter = coro_self(block_coros(c->ctx));
	for (unsigned i = 0; i < RESTARTS_MAX; i++) {
		r = be_connected(c);
		if (r < 0)
			return r;
		r = run_once(c, cmd);
		if (r == 0 || !is_lost(c))
			return r;
	}
	return r;
}

int nbd_conn_open(struct nbd_conn *c, struct err *e)
{
	int r = nbd_lib_open(&c->lib, e);

	return r < 0 ? r : connect_now(c, e);
}

void nbd_conn_close(struct nbd_conn *c)
{
	c->closing = true;
	while (c->reconnecting)
		coro_queue_wait(block_coros(c->ctx), &c->waiting);
	if (c->handle && !is_lost(c) && c->lib.aio_disconnect(c->handle, 0) < 0) {
		/* It is lost now; the server sees that. */
	}
	hang_up(c);
	nbd_lib_close(&c->lib);
	free(c->uri);
}
