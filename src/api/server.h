/* server: HTTP on a Unix socket, for a table of methods (method.h). It has a thread of its own, so
 * that no client, however slow or hostile, holds up a VM: methods run there.
 *
 * Bounds: so many connections, and when one more comes the one that was idle for longest goes; a
 * request of HTTP_HEAD_MAX and HTTP_BODY_MAX; requests of one connection are answered one by one;
 * streams are asked for more only when the client has read what it was sent.
 *
 * Descriptors that come with a request's bytes (at most API_FDS_MAX) are its own; those that its
 * method did not take are closed when it is answered.
 *
 * Who may do what: the user whose process it is, and root, all; any other who gets to the socket
 * (it is made for its owner only) may look. */
#pragma once

#include "api/method.h"

struct api_server;

#define API_CONNECTIONS_MAX 64u

/* The socket is there when it returns. The table must stay; its functions are called on the
 * server's thread. */
WARN_UNUSED int api_server_new(struct api_server **out, const char *path,
			       const struct api_table *table, struct err *e);
/* Streams may have more. Any thread. */
void api_server_wake(struct api_server *s);
/* The socket's file was renamed with its directory. */
void api_server_moved(struct api_server *s, const char *path);
/* Nobody connects any more; waits, but not for long, until what is being answered and the streams
 * have ended and were read, then ends the thread. Accepts NULL. */
void api_server_free(struct api_server *s);
