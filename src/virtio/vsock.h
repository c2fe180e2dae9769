/* vsock: the socket device (virtio 1.2, 5.10), stream sockets. Its host side is a Unix socket, as
 * Firecracker has it, so that programs made for that work:
 *
 *   host to guest: connect to PATH, write "CONNECT <port>\n", read "OK <assigned port>\n"; from
 *                  then on it is the connection. Closed instead: nobody listens there.
 *   guest to host: a connection to CID 2, port P, goes to who listens at PATH_P.
 *
 * Three parts: vsock_conn.c has the connections and what guest and host may still send each other
 * (credit), vsock_host.c the listener and its handshake, vsock.c the queues.
 *
 * Everything runs on the I/O thread. Connections do not outlive a driver's reset, or a snapshot
 * that is loaded: the driver is told by a transport reset event (5.10.6.7.1). */
#pragma once

#include "virtio/virtio.h"

#define VSOCK_CID_DEFAULT 3
#define VSOCK_CID_MIN     3
#define VSOCK_CID_MAX     0xfffffffeu

/* The socket at path is made here. cid: the guest's address. */
WARN_UNUSED int virtio_vsock_new(struct virtio_device **out, const struct virtio_env *env,
				 const char *path, uint64_t cid, struct err *e);

extern const struct virtio_type virtio_vsock_type;
