/* nbd_priv: the parts of the NBD protocol: the library (nbd_lib.c), the connection and its
 * return after a loss (nbd_conn.c), the operations of a proto (nbd.c). */
#pragma once

#include <libnbd.h>
#include <stdatomic.h>

#include "block/block_priv.h"

/* libnbd's functions, looked up when the first NBD disk is opened. */
#define NBD_FUNCTIONS(X)                                                                           \
	X(create)                                                                                  \
	X(close)                                                                                   \
	X(get_error)                                                                               \
	X(get_errno)                                                                               \
	X(add_meta_context)                                                                        \
	X(set_uri_allow_local_file)                                                                \
	X(aio_connect_uri)                                                                         \
	X(poll)                                                                                    \
	X(aio_is_ready)                                                                            \
	X(aio_is_dead)                                                                             \
	X(aio_is_closed)                                                                           \
	X(aio_get_fd)                                                                              \
	X(aio_get_direction)                                                                       \
	X(aio_notify_read)                                                                         \
	X(aio_notify_write)                                                                        \
	X(aio_disconnect)                                                                          \
	X(get_size)                                                                                \
	X(get_block_size)                                                                          \
	X(is_read_only)                                                                            \
	X(can_flush)                                                                               \
	X(can_trim)                                                                                \
	X(can_zero)                                                                                \
	X(can_meta_context)                                                                        \
	X(aio_pread)                                                                               \
	X(aio_pwrite)                                                                              \
	X(aio_flush)                                                                               \
	X(aio_trim)                                                                                \
	X(aio_zero)                                                                                \
	X(aio_block_status)

struct nbd_lib {
	void *library;
#define NBD_MEMBER(name) __typeof__(&nbd_##name) name;
	NBD_FUNCTIONS(NBD_MEMBER)
#undef NBD_MEMBER
};

WARN_UNUSED int nbd_lib_open(struct nbd_lib *l, struct err *e);
void nbd_lib_close(struct nbd_lib *l); /* accepts one that is all zeros */

struct nbd_command;

struct nbd_conn {
	struct nbd_lib lib;
	struct block_ctx *ctx;
	char *uri;
	struct nbd_handle *handle; /* NULL: not connected */
	struct loop_fd fd;
	uint32_t events;
	struct loop_prepare prepare;
	struct nbd_command *done; /* complete, their coroutines not woken yet */
	bool reconnecting;
	struct coro_queue waiting; /* for reconnecting to end */
	atomic_bool closing;
};

struct nbd_command {
	/* Starts it: -1 and the library's error, or the cookie. */
	int64_t (*start)(struct nbd_conn *c, struct nbd_command *cmd, nbd_completion_callback done);
	void *buf;
	uint64_t offset, len;
	uint32_t flags;
	struct block_extent *extent;

	int error;
	struct coro *waiter;
	struct nbd_conn *conn;
	struct nbd_command *next;
};

/* In a coroutine. conn is all zeros but for ctx and uri. */
WARN_UNUSED int nbd_conn_open(struct nbd_conn *c, struct err *e);
void nbd_conn_close(struct nbd_conn *c); /* also what did not open; no command may run */
/* Runs cmd; over a new connection if this one is lost, for a while. */
int nbd_conn_run(struct nbd_conn *c, struct nbd_command *cmd);
