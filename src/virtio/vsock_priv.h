/* vsock_priv: what the three parts of the socket device share. */
#pragma once

#include <sys/uio.h>

#include "base/unix_socket.h"
#include "virtio/vsock.h"

/* Packets (virtio 1.2, 5.10.6), in our byte order. */
struct vsock_packet {
	uint64_t src_cid, dst_cid;
	uint32_t src_port, dst_port;
	uint32_t len; /* of the payload */
	uint16_t type, op;
	uint32_t flags;
	uint32_t buf_alloc, fwd_cnt; /* the sender's room for us, and how much it took out of it */
};

#define VSOCK_HEADER_LEN 44
#define VSOCK_CID_HOST   2
#define VSOCK_STREAM     1 /* type */

enum vsock_op {
	VSOCK_REQUEST = 1,
	VSOCK_RESPONSE,
	VSOCK_RST,
	VSOCK_SHUTDOWN,
	VSOCK_RW,
	VSOCK_CREDIT_UPDATE,
	VSOCK_CREDIT_REQUEST
};

/* flags of VSOCK_SHUTDOWN: the sender will not */
#define VSOCK_NO_RECEIVE 1u
#define VSOCK_NO_SEND    2u
#define VSOCK_SHUT_BOTH  3u

#define VSOCK_BUFFER   KIB(128) /* what we hold of one connection for a slow reader */
#define VSOCK_CONNS    1024     /* connections at a time */
#define VSOCK_CLIENTS  64       /* host clients that have not said where to */
#define VSOCK_REFUSALS 256
#define VSOCK_HASH     256

struct vsock_conns;
struct vsock_conn;

struct vsock_refusal {
	uint32_t guest_port, host_port;
	uint16_t type;
};

struct vsock_conns {
	struct loop *loop;
	uint64_t guest_cid;
	char path[UNIX_PATH_MAX + 1]; /* PATH of PATH_P */
	struct vsock_conn *hash[VSOCK_HASH];
	unsigned count;
	struct vsock_conn *first, *last;              /* who has something for the guest, in turn */
	struct vsock_refusal refusal[VSOCK_REFUSALS]; /* RSTs that belong to no connection */
	unsigned refusals;
	uint32_t next_port; /* to assign to the next host client */
	/* There is something for the guest. Only notes it. */
	void (*ready)(struct vsock_conns *c);
};

/* A packet of the guest, with its payload. Needs vsock_conns_can_take. */
void vsock_conns_packet(struct vsock_conns *c, const struct vsock_packet *p, struct iovec *payload,
			int n);
/* Whether an answer to whatever comes could be kept. */
static inline bool vsock_conns_can_take(const struct vsock_conns *c)
{
	return c->refusals < VSOCK_REFUSALS;
}
bool vsock_conns_have(const struct vsock_conns *c);
/* The next packet for the guest, with its payload in room; false: there is none. */
bool vsock_conns_next(struct vsock_conns *c, struct vsock_packet *p, const struct iovec *room,
		      int n);
/* The host's client at fd wants the guest's port. fd is ours then; false: there are too many. */
bool vsock_conns_ask(struct vsock_conns *c, int fd, uint32_t port);
/* Ends all, without a word to the guest. */
void vsock_conns_drop(struct vsock_conns *c);

/* The first bytes of iov, len of them, and the rest. */
int vsock_iov_skip(struct iovec *to, const struct iovec *from, unsigned n, uint64_t len);

/* --- vsock_host.c --- */

struct vsock_client { /* said not yet, or not all of, "CONNECT <port>\n" */
	struct vsock_host *host;
	struct loop_fd io; /* fd -1: unused */
	uint64_t order;    /* of arrival */
	unsigned len;
	char line[32];
};

struct vsock_host {
	struct vsock_conns *conns;
	struct loop *loop;
	struct unix_listener listener;
	struct loop_fd io;
	bool listening; /* in the loop */
	struct vsock_client client[VSOCK_CLIENTS];
	uint64_t arrivals;
};

WARN_UNUSED int vsock_host_init(struct vsock_host *h, struct vsock_conns *c, const char *path,
				struct err *e);
void vsock_host_done(struct vsock_host *h);
