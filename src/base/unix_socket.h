/* unix_socket: Unix stream sockets that other programs reach by a path. A listener's file can be
 * reached by its owner only, takes the place of one that a dead process left, and is removed at
 * the end unless another stands there by then. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/bits.h"
#include "base/err.h"

#define UNIX_PATH_MAX 107 /* bytes of a path that a socket can have */

struct unix_listener {
	int fd;    /* non-blocking; -1: closed */
	int spare; /* a descriptor to refuse clients with when there are no more */
	char path[UNIX_PATH_MAX + 1];
	dev_t dev; /* of the file, to know it again */
	ino_t ino;
};

WARN_UNUSED int unix_listen(struct unix_listener *l, const char *path, struct err *e);
/* Accepts one made by unix_listen, or with fd -1. */
void unix_listener_done(struct unix_listener *l);
/* The next client, non-blocking; -EAGAIN: none. One that there is no descriptor for is turned
 * away: -EMFILE. */
WARN_UNUSED int unix_accept(struct unix_listener *l);
/* A connection, non-blocking, to a listener who has room for it now; else a negative errno. */
WARN_UNUSED int unix_connect(const char *path);
