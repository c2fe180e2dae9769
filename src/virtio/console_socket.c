/* console_socket: a port's end that is a Unix socket: one client at a time, the others wait in
 * the listener's queue. A client that leaves is gone when what it said has been read. */
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/unix_socket.h"
#include "virtio/console.h"

struct socket_end {
	struct console_end end;
	struct loop *loop;
	struct unix_listener listener;
	struct loop_fd door; /* the listener: waited for while there is no client */
	bool door_open;
	struct loop_fd client; /* fd -1: there is none */
	uint32_t events;       /* waited for at the client; 0: it is not in the loop */
	bool said_all;         /* it will send no more */
	bool hung_up;          /* and is not there any more */
	bool want_in, want_out;
};

static struct socket_end *to_socket(struct console_end *e)
{
	return container_of(e, struct socket_end, end);
}

static void watch(struct socket_end *s)
{
	uint32_t events = 0;

	if (!s->hung_up)
		events = EPOLLHUP | (s->want_in && !s->said_all ? EPOLLIN : 0) |
			 (s->want_out ? EPOLLOUT : 0);
	if (events == s->events)
		return;
	if (events && s->events)
		loop_mod(s->loop, &s->client, events);
	else if (s->events)
		loop_del(s->loop, &s->client);
	else if (loop_add(s->loop, &s->client, events, NULL) < 0)
		events = 0;
	s->events = events;
}

static void open_door(struct socket_end *s, bool open)
{
	if (open == s->door_open)
		return;
	if (open && loop_add(s->loop, &s->door, EPOLLIN, NULL) < 0)
		return;
	if (!open)
		loop_del(s->loop, &s->door);
	s->door_open = open;
}

static void drop_client(struct socket_end *s)
{
	if (s->client.fd < 0)
		return;
	s->hung_up = true;
	watch(s);
	close(s->client.fd);
	s->client.fd = -1;
	open_door(s, true);
	console_end_connect(&s->end, false);
}

static void client_event(struct loop_fd *f, uint32_t events)
{
	struct socket_end *s = container_of(f, struct socket_end, client);
	char c;

	if (events & (EPOLLHUP | EPOLLERR)) {
		if (recv(f->fd, &c, 1, MSG_PEEK | MSG_DONTWAIT) <= 0) {
			drop_client(s);
			return;
		}
		s->hung_up = true; /* but it left something */
	}
	if (events & EPOLLIN)
		s->want_in = false;
	if (events & EPOLLOUT)
		s->want_out = false;
	watch(s);
	console_end_ready(&s->end);
}

static void client_came(struct loop_fd *f, uint32_t events)
{
	struct socket_end *s = container_of(f, struct socket_end, door);
	int fd = unix_accept(&s->listener);

	if (fd < 0)
		return;
	open_door(s, false);
	s->client.fd = fd;
	s->said_all = s->hung_up = s->want_in = s->want_out = false;
	watch(s);
	console_end_connect(&s->end, true);
}

static uint64_t put(struct console_end *e, const struct iovec *iov, int n)
{
	struct socket_end *s = to_socket(e);
	struct msghdr m = {.msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)n};
	uint64_t len = 0;
	ssize_t done;

	if (s->client.fd < 0)
		return 0;
	for (int i = 0; i < n; i++)
		len += iov[i].iov_len;
	done = sendmsg(s->client.fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (done < 0 && errno != EAGAIN && errno != EINTR)
		return 0; /* it does not read any more; the next one will */
	done = done < 0 ? 0 : done;
	if ((uint64_t)done < len) {
		s->want_out = true;
		watch(s);
	}
	return (uint64_t)done;
}

static uint64_t get(struct console_end *e, const struct iovec *iov, int n)
{
	struct socket_end *s = to_socket(e);
	ssize_t got;

	if (s->client.fd < 0 || s->said_all)
		return 0;
	got = readv(s->client.fd, iov, n);
	if (got > 0)
		return (uint64_t)got;
	if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
		s->want_in = true;
		watch(s);
	} else if (s->hung_up || got < 0) {
		drop_client(s);
	} else {
		s->said_all = true; /* it may still listen */
		watch(s);
	}
	return 0;
}

static void socket_free(struct console_end *e)
{
	struct socket_end *s = to_socket(e);

	e->console = NULL;
	drop_client(s);
	open_door(s, false);
	unix_listener_done(&s->listener);
	free(s);
}

static const struct console_end_ops ops = {.put = put, .get = get, .free = socket_free};

int console_socket_new(struct console_end **out, struct loop *loop, const char *path, struct err *e)
{
	struct socket_end *s = calloc(1, sizeof *s);
	int r;

	if (!s)
		return err_set(e, ENOMEM, "socket '%s'", path);
	s->end.ops = &ops;
	s->loop = loop;
	s->client = (struct loop_fd){.fd = -1, .ready = client_event};
	r = unix_listen(&s->listener, path, e);
	if (r == 0) {
		s->door = (struct loop_fd){.fd = s->listener.fd, .ready = client_came};
		r = loop_add(loop, &s->door, EPOLLIN, e);
		s->door_open = r == 0;
	}
	if (r < 0)
		socket_free(&s->end);
	else
		*out = &s->end;
	return r;
}
