#include "machine/gdb_socket.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define TCP "tcp:"

static int bind_and_listen(int fd, const struct addrinfo *a)
{
	int on = 1;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	return bind(fd, a->ai_addr, a->ai_addrlen) < 0 || listen(fd, 1) < 0 ? -errno : 0;
}

/* Numbers only: a debugger's port is not looked up in services or the DNS. */
static int resolve(const char *where, struct addrinfo **out, struct err *e)
{
	const struct addrinfo hints = {.ai_flags = AI_PASSIVE | AI_NUMERICHOST | AI_NUMERICSERV,
				       .ai_socktype = SOCK_STREAM};
	const char *colon = strrchr(where, ':'), *port = colon ? colon + 1 : where;
	char host[64] = "127.0.0.1";
	size_t len = colon ? (size_t)(colon - where) : 0;

	if (len > 2 && where[0] == '[' && where[len - 1] == ']') /* IPv6 */
		where++, len -= 2;
	if (len >= sizeof host)
		return err_set(e, EINVAL, "an address in numbers is expected before the port");
	if (colon)
		snprintf(host, sizeof host, "%.*s", (int)len, where);
	if (!*port || getaddrinfo(host, port, &hints, out))
		return err_set(
			e, EINVAL,
			"tcp:[ADDRESS:]PORT is expected, both in numbers (IPv6 in brackets)");
	return 0;
}

static int open_tcp(struct gdb_socket *s, const char *where, struct err *e)
{
	struct addrinfo *a;
	int r = resolve(where, &a, e);

	if (r < 0)
		return r;
	s->tcp_fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	r = s->tcp_fd < 0 ? -errno : bind_and_listen(s->tcp_fd, a);
	freeaddrinfo(a);
	return r < 0 ? err_sys(e, -r, "listen for debuggers at tcp:%s", where) : 0;
}

int gdb_socket_open(struct gdb_socket *s, const char *where, struct err *e)
{
	int r;

	s->listener.fd = s->tcp_fd = -1;
	if (!strncmp(where, TCP, strlen(TCP)))
		r = open_tcp(s, where + strlen(TCP), e);
	else
		r = unix_listen(&s->listener, where, e);
	return r < 0 ? err_wrap(e, "--gdb") : 0;
}

void gdb_socket_close(struct gdb_socket *s)
{
	if (s->tcp_fd >= 0)
		close(s->tcp_fd);
	else
		unix_listener_done(&s->listener);
	s->tcp_fd = -1;
}

int gdb_socket_fd(const struct gdb_socket *s)
{
	return s->tcp_fd >= 0 ? s->tcp_fd : s->listener.fd;
}

int gdb_socket_accept(struct gdb_socket *s)
{
	int on = 1, fd;

	if (s->tcp_fd < 0)
		return unix_accept(&s->listener);
	fd = accept4(s->tcp_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd < 0)
		return -errno;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	return fd;
}
