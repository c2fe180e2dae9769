/* vsock_host: the Unix socket that host programs connect to, and what they say there before they
 * are connected: "CONNECT <port>\n". A client is read up to that line and no further: what comes
 * behind it is the guest's. Clients that take their time hold one of VSOCK_CLIENTS places; who
 * comes when there is none takes that of the one who has waited longest. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "virtio/vsock_priv.h"

static void client_leave(struct vsock_client *c)
{
	loop_del(c->host->loop, &c->io);
	c->io.fd = -1;
}

static void client_close(struct vsock_client *c)
{
	int fd = c->io.fd;

	client_leave(c);
	close(fd);
}

/* "CONNECT <port>", without its newline. */
static bool parse(const char *line, uint32_t *port)
{
	static const char word[] = "CONNECT ";
	const char *s = line + sizeof word - 1;
	uint64_t v = 0;

	if (strncmp(line, word, sizeof word - 1) || !*s || strlen(s) > 10)
		return false;
	for (; *s; s++) {
		if (*s < '0' || *s > '9')
			return false;
		v = v * 10 + (uint64_t)(*s - '0');
	}
	*port = (uint32_t)v;
	return v <= UINT32_MAX;
}

static void client_said(struct vsock_client *c)
{
	int fd = c->io.fd;
	uint32_t port;

	if (!parse(c->line, &port)) {
		client_close(c);
		return;
	}
	client_leave(c);
	if (!vsock_conns_ask(c->host->conns, fd, port))
		close(fd);
}

static void client_ready(struct loop_fd *f, uint32_t events)
{
	struct vsock_client *c = container_of(f, struct vsock_client, io);
	char *at = c->line + c->len, *end;
	ssize_t n = recv(f->fd, at, sizeof c->line - 1 - c->len, MSG_PEEK | MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		client_close(c);
		return;
	}
	end = memchr(at, '\n', (size_t)n);
	if (end)
		n = end + 1 - at;
	if (recv(f->fd, at, (size_t)n, MSG_DONTWAIT) != n) {
		client_close(c);
		return;
	}
	c->len += (unsigned)n;
	if (end) {
		*end = 0;
		client_said(c);
	} else if (c->len == sizeof c->line - 1) {
		client_close(c);
	}
}

/* A free place, or that of the one who came first. */
static struct vsock_client *place(struct vsock_host *h)
{
	struct vsock_client *oldest = &h->client[0];

	for (struct vsock_client *c = h->client; c < h->client + VSOCK_CLIENTS; c++) {
		if (c->io.fd < 0)
			return c;
		if (c->order < oldest->order)
			oldest = c;
	}
	client_close(oldest);
	return oldest;
}

static void client_new(struct vsock_host *h, int fd)
{
	struct vsock_client *c = place(h);

	*c = (struct vsock_client){
		.host = h,
		.io = {.fd = fd, .ready = client_ready},
		.order = h->arrivals++,
	};
	if (loop_add(h->loop, &c->io, EPOLLIN, NULL) < 0) {
		close(fd);
		c->io.fd = -1;
	}
}

static void arrived(struct loop_fd *f, uint32_t events)
{
	struct vsock_host *h = container_of(f, struct vsock_host, io);

	/* Not for ever: others use the loop too. */
	for (unsigned i = 0; i < 16; i++) {
		int fd = unix_accept(&h->listener);

		if (fd == -EAGAIN)
			break;
		if (fd >= 0)
			client_new(h, fd);
	}
}

int vsock_host_init(struct vsock_host *h, struct vsock_conns *c, const char *path, struct err *e)
{
	int r;

	h->conns = c;
	h->listener.fd = -1;
	h->loop = c->loop;
	for (unsigned i = 0; i < VSOCK_CLIENTS; i++)
		h->client[i].io.fd = -1;
	/* The paths of guest's connections are longer by "_4294967295". */
	if (strlen(path) + 11 > UNIX_PATH_MAX)
		return err_set(e, ENAMETOOLONG,
			       "socket '%s': a path of at most %d bytes is possible", path,
			       UNIX_PATH_MAX - 11);
	r = unix_listen(&h->listener, path, e);
	if (r < 0)
		return r;
	h->io = (struct loop_fd){.fd = h->listener.fd, .ready = arrived};
	r = loop_add(h->loop, &h->io, EPOLLIN, e);
	h->listening = r == 0;
	return r;
}

void vsock_host_done(struct vsock_host *h)
{
	if (!h->conns)
		return;
	for (struct vsock_client *c = h->client; c < h->client + VSOCK_CLIENTS; c++)
		if (c->io.fd >= 0)
			client_close(c);
	if (h->listening)
		loop_del(h->loop, &h->io);
	unix_listener_done(&h->listener);
}
