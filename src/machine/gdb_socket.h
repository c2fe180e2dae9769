/* gdb_socket: where debuggers connect: a Unix socket's path, or "tcp:[ADDRESS:]PORT", by default of
 * the loopback address. One client at a time; the next waits in the queue. */
#pragma once

#include "base/loop.h"
#include "base/unix_socket.h"

struct gdb_socket {
	struct unix_listener listener; /* fd -1: it is tcp_fd instead */
	int tcp_fd;
};

WARN_UNUSED int gdb_socket_open(struct gdb_socket *s, const char *where, struct err *e);
void gdb_socket_close(struct gdb_socket *s); /* accepts one that failed to open */
int gdb_socket_fd(const struct gdb_socket *s);
WARN_UNUSED int gdb_socket_accept(struct gdb_socket *s); /* non-blocking; or a negative errno */
