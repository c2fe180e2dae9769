/* fds: descriptors that go with a request (SCM_RIGHTS, unix(7)): what a client may open and the VM
 * may not. A set owns what is in it. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "base/bits.h"
#include "base/err.h"

#define API_FDS_MAX 64u /* of one request: two chains of images fit */

struct api_fds {
	unsigned n;
	int fd[API_FDS_MAX]; /* -1: somebody took it */
	bool too_many;       /* more came; they are closed */
};

/* The i-th becomes the caller's; -1: there is none. */
int api_fds_take(struct api_fds *f, unsigned i);
void api_fds_close(struct api_fds *f); /* all that nobody took; it is empty then */

/* As read(2), of a Unix socket; descriptors that come with the bytes are added to f. */
ssize_t api_fds_read(int socket, void *to, size_t max, struct api_fds *f);
/* As send(2) with MSG_NOSIGNAL; they go with the first byte. f stays the caller's. */
ssize_t api_fds_send(int socket, const void *from, size_t len, const struct api_fds *f);
