/* vsock_conn: the connections between guest and host, and their credit.
 *
 * Guest to host: payload goes straight into the host's socket; what that does not take is kept,
 * up to VSOCK_BUFFER, which is what we granted the guest. Host to guest: nothing is kept; bytes
 * are read from the socket when there is a buffer of the guest for them and it granted room. A
 * socket is in the loop only with what it is waited for, so that one that nobody can serve
 * (no credit, no buffers) does not keep the loop awake.
 *
 * What is due to the guest are bits of a connection, which stands in a line (first, last) while
 * it has any, so a slow guest makes us keep nothing more. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "virtio/vsock_priv.h"

enum {
	DUE_RST = 1,
	DUE_REQUEST = 2,
	DUE_RESPONSE = 4,
	DUE_DATA = 8, /* the socket may have some */
	DUE_SHUTDOWN = 16,
	DUE_CREDIT = 32,
	DUE_CREDIT_REQUEST = 64
};

enum vsock_state {
	CONN_ASKED, /* we asked the guest */
	CONN_OPEN,
	CONN_DRAINING /* over for the guest; the host's client still gets what we hold */
};

struct vsock_conn {
	struct vsock_conns *of;
	struct loop_fd io;
	uint32_t events; /* waited for; 0: not in the loop */
	uint32_t guest_port, host_port;
	enum vsock_state state;
	unsigned due;
	bool in_line;
	uint32_t guest_shut, host_shut; /* what each said it will not do any more */
	bool asked_credit;

	uint8_t *buf; /* guest to host, a ring of VSOCK_BUFFER; NULL: empty */
	uint32_t at, len;
	uint32_t received, forwarded, forwarded_told; /* bytes, wrapping (5.10.6.3) */

	uint32_t sent, peer_alloc, peer_forwarded;

	struct vsock_conn *next_hash, *next_line;
};

/* --- finding, making, ending --- */

static struct vsock_conn **bucket(struct vsock_conns *c, uint32_t guest_port, uint32_t host_port)
{
	return &c->hash[(guest_port * 31 + host_port) % VSOCK_HASH];
}

static struct vsock_conn *find(struct vsock_conns *c, uint32_t guest_port, uint32_t host_port)
{
	struct vsock_conn *k = *bucket(c, guest_port, host_port);

	while (k && (k->guest_port != guest_port || k->host_port != host_port ||
		     k->state == CONN_DRAINING))
		k = k->next_hash;
	return k;
}

static void leave_line(struct vsock_conn *k)
{
	struct vsock_conns *c = k->of;
	struct vsock_conn **p = &c->first, *before = NULL;

	if (!k->in_line)
		return;
	for (; *p != k; p = &(*p)->next_line)
		before = *p;
	*p = k->next_line;
	if (c->last == k)
		c->last = before;
	k->in_line = false;
	k->next_line = NULL;
}

static void join_line(struct vsock_conn *k)
{
	struct vsock_conns *c = k->of;

	if (k->in_line)
		return;
	k->in_line = true;
	if (c->last)
		c->last->next_line = k;
	else
		c->first = k;
	c->last = k;
}

static void owe(struct vsock_conn *k, unsigned due)
{
	k->due |= due;
	join_line(k);
	k->of->ready(k->of);
}

static void watch(struct vsock_conn *k, uint32_t events)
{
	if (k->events == events)
		return;
	if (k->events && events)
		loop_mod(k->of->loop, &k->io, events);
	else if (k->events)
		loop_del(k->of->loop, &k->io);
	else if (loop_add(k->of->loop, &k->io, events, NULL) < 0)
		events = 0; /* no memory for it: the connection stands still */
	k->events = events;
}

static void close_fd(struct vsock_conn *k)
{
	if (k->io.fd < 0)
		return;
	watch(k, 0);
	close(k->io.fd);
	k->io.fd = -1;
}

static void conn_free(struct vsock_conn *k)
{
	struct vsock_conn **p = bucket(k->of, k->guest_port, k->host_port);

	while (*p != k)
		p = &(*p)->next_hash;
	*p = k->next_hash;
	leave_line(k);
	close_fd(k);
	k->of->count--;
	free(k->buf);
	free(k);
}

static void refuse(struct vsock_conns *c, uint32_t guest_port, uint32_t host_port, uint16_t type)
{
	if (c->refusals == VSOCK_REFUSALS)
		return; /* the guest's driver finds out by time */
	c->refusal[c->refusals++] = (struct vsock_refusal){guest_port, host_port, type};
	c->ready(c);
}

void vsock_conns_drop(struct vsock_conns *c)
{
	for (unsigned i = 0; i < VSOCK_HASH; i++)
		while (c->hash[i])
			conn_free(c->hash[i]);
	c->refusals = 0;
}

/* Where one side is gone for good, a connection is kept only for the other's convenience. */
static bool make_room(struct vsock_conns *c)
{
	for (unsigned i = 0; i < VSOCK_HASH; i++)
		for (struct vsock_conn *k = c->hash[i]; k; k = k->next_hash) {
			if (k->state != CONN_DRAINING && k->io.fd >= 0)
				continue;
			if (k->state != CONN_DRAINING)
				refuse(c, k->guest_port, k->host_port, VSOCK_STREAM);
			conn_free(k);
			return true;
		}
	return false;
}

static void host_event(struct loop_fd *f, uint32_t events);

static struct vsock_conn *conn_new(struct vsock_conns *c, int fd, uint32_t guest_port,
				   uint32_t host_port, enum vsock_state state)
{
	struct vsock_conn *k;

	if (c->count >= VSOCK_CONNS && !make_room(c))
		return NULL;
	k = calloc(1, sizeof *k);
	if (!k)
		return NULL;
	*k = (struct vsock_conn){
		.of = c,
		.io = {.fd = fd, .ready = host_event},
		.guest_port = guest_port,
		.host_port = host_port,
		.state = state,
		.next_hash = *bucket(c, guest_port, host_port),
	};
	*bucket(c, guest_port, host_port) = k;
	c->count++;
	return k;
}

/* --- what the socket is waited for --- */

static uint32_t credit(const struct vsock_conn *k)
{
	uint32_t out = k->sent - k->peer_forwarded;

	return out < k->peer_alloc ? k->peer_alloc - out : 0;
}

static void update_watch(struct vsock_conn *k)
{
	uint32_t events = k->len ? EPOLLOUT : 0;

	if (k->io.fd < 0)
		return;
	if (k->state == CONN_ASKED) {
		events = EPOLLHUP;
	} else if (k->state == CONN_OPEN) {
		if (k->host_shut & VSOCK_NO_SEND)
			events |= EPOLLHUP; /* until it closes altogether */
		else if (!(k->due & DUE_DATA) && !(k->guest_shut & VSOCK_NO_RECEIVE) && credit(k))
			events |= EPOLLIN;
	}
	watch(k, events);
}

/* The host's client will not do this any more. */
static void host_shuts(struct vsock_conn *k, uint32_t what)
{
	if ((k->host_shut & what) == what)
		return;
	k->host_shut |= what;
	if (what & VSOCK_NO_SEND)
		k->due &= ~(unsigned)DUE_DATA;
	owe(k, DUE_SHUTDOWN);
	if (k->host_shut == VSOCK_SHUT_BOTH)
		close_fd(k);
}

/* --- guest to host --- */

static void forwarded(struct vsock_conn *k, uint32_t n)
{
	k->forwarded += n;
	if (k->state == CONN_OPEN && k->forwarded - k->forwarded_told >= VSOCK_BUFFER / 4)
		owe(k, DUE_CREDIT);
}

/* Nobody reads it any more. */
static void forget_buffer(struct vsock_conn *k)
{
	forwarded(k, k->len);
	free(k->buf);
	k->buf = NULL;
	k->at = k->len = 0;
}

/* Bytes sent; 0: the reader is slow, or gone, which is seen to. */
static uint32_t send_some(struct vsock_conn *k, struct iovec *iov, int n)
{
	struct msghdr m = {.msg_iov = iov, .msg_iovlen = (size_t)n};
	ssize_t done = sendmsg(k->io.fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);

	if (done >= 0)
		return (uint32_t)done;
	if (errno != EAGAIN && errno != EINTR) {
		forget_buffer(k);
		host_shuts(k, VSOCK_NO_RECEIVE);
	}
	return 0;
}

static bool keep(struct vsock_conn *k, const struct iovec *iov, int n)
{
	if (!k->buf)
		k->buf = malloc(VSOCK_BUFFER);
	if (!k->buf)
		return false;
	for (; n > 0; n--, iov++) {
		const uint8_t *from = iov->iov_base;

		for (uint64_t left = iov->iov_len, part; left; left -= part, from += part) {
			uint32_t end = (k->at + k->len) % VSOCK_BUFFER;

			part = min_u64(left, VSOCK_BUFFER - end);
			memcpy(k->buf + end, from, part);
			k->len += (uint32_t)part;
		}
	}
	return true;
}

/* The guest said that it sends no more, and the host's client has all of it. */
static void all_forwarded(struct vsock_conn *k)
{
	free(k->buf);
	k->buf = NULL;
	k->at = 0;
	if (k->state == CONN_DRAINING) {
		conn_free(k);
		return;
	}
	if ((k->guest_shut & VSOCK_NO_SEND) && k->io.fd >= 0)
		shutdown(k->io.fd, SHUT_WR);
	update_watch(k);
}

static void drain(struct vsock_conn *k)
{
	while (k->len) {
		uint32_t first = (uint32_t)min_u64(k->len, VSOCK_BUFFER - k->at);
		struct iovec iov[] = {{k->buf + k->at, first}, {k->buf, k->len - first}};
		uint32_t n = send_some(k, iov, 2);

		if (!n)
			break;
		k->at = (k->at + n) % VSOCK_BUFFER;
		k->len -= n;
		forwarded(k, n);
	}
	if (!k->len)
		all_forwarded(k); /* may free k */
	else
		update_watch(k);
}

static void fail(struct vsock_conn *k)
{
	close_fd(k);
	k->due = 0;
	owe(k, DUE_RST);
}

static void guest_data(struct vsock_conn *k, const struct vsock_packet *p, struct iovec *iov, int n)
{
	uint32_t done = 0;

	if (k->state != CONN_OPEN || (k->guest_shut & VSOCK_NO_SEND) ||
	    p->len > VSOCK_BUFFER - (k->received - k->forwarded)) {
		fail(k); /* more than it may send */
		return;
	}
	k->received += p->len;
	if (k->io.fd < 0 || (k->host_shut & VSOCK_NO_RECEIVE)) {
		forwarded(k, p->len);
		return;
	}
	if (!k->len && p->len) {
		done = send_some(k, iov, n);
		forwarded(k, done);
		if (k->host_shut & VSOCK_NO_RECEIVE) {
			forwarded(k, p->len - done);
			return;
		}
		n = vsock_iov_skip(iov, iov, (unsigned)n, done);
	}
	if (done < p->len && !keep(k, iov, n))
		fail(k);
	else
		update_watch(k);
}

/* --- packets of the guest --- */

static void guest_asks(struct vsock_conns *c, const struct vsock_packet *p)
{
	char path[sizeof c->path + 12];
	struct vsock_conn *k;
	int fd;

	snprintf(path, sizeof path, "%s_%u", c->path, p->dst_port);
	fd = unix_connect(path);
	if (fd < 0) {
		refuse(c, p->src_port, p->dst_port, p->type);
		return;
	}
	k = conn_new(c, fd, p->src_port, p->dst_port, CONN_OPEN);
	if (!k) {
		close(fd);
		refuse(c, p->src_port, p->dst_port, p->type);
		return;
	}
	k->peer_alloc = p->buf_alloc;
	k->peer_forwarded = p->fwd_cnt;
	owe(k, DUE_RESPONSE);
	update_watch(k);
}

static void guest_accepts(struct vsock_conn *k)
{
	char line[32];
	int len = snprintf(line, sizeof line, "OK %u\n", k->host_port);

	if (k->state != CONN_ASKED) {
		fail(k);
		return;
	}
	k->state = CONN_OPEN;
	/* Nothing was sent on it before: there is room. */
	if (send(k->io.fd, line, (size_t)len, MSG_NOSIGNAL | MSG_DONTWAIT) != len)
		fail(k);
	else
		update_watch(k);
}

/* It has nothing more to do with the guest. The host's client still gets what we hold. */
static void over_for_guest(struct vsock_conn *k)
{
	leave_line(k);
	k->due = 0;
	k->state = CONN_DRAINING;
	if (k->len && k->io.fd >= 0)
		update_watch(k);
	else
		conn_free(k);
}

static void guest_shuts(struct vsock_conn *k, uint32_t flags)
{
	if (k->state != CONN_OPEN) {
		fail(k);
		return;
	}
	k->guest_shut |= flags & VSOCK_SHUT_BOTH;
	if (k->guest_shut == VSOCK_SHUT_BOTH) {
		refuse(k->of, k->guest_port, k->host_port, VSOCK_STREAM); /* 5.10.6.5 */
		over_for_guest(k);
		return;
	}
	if ((k->guest_shut & VSOCK_NO_RECEIVE) && k->io.fd >= 0) {
		k->due &= ~(unsigned)DUE_DATA;
		shutdown(k->io.fd, SHUT_RD);
	}
	if ((k->guest_shut & VSOCK_NO_SEND) && !k->len && k->io.fd >= 0)
		shutdown(k->io.fd, SHUT_WR);
	update_watch(k);
}

/* Each packet of the guest tells what it takes. */
static void take_credit(struct vsock_conn *k, const struct vsock_packet *p)
{
	k->peer_alloc = p->buf_alloc;
	k->peer_forwarded = p->fwd_cnt;
	if (credit(k))
		k->asked_credit = false;
	update_watch(k);
}

static void packet_for(struct vsock_conn *k, const struct vsock_packet *p, struct iovec *payload,
		       int n)
{
	take_credit(k, p);
	switch (p->op) {
	case VSOCK_RESPONSE: guest_accepts(k); break;
	case VSOCK_RST:
		if (k->guest_shut & VSOCK_NO_SEND)
			over_for_guest(k);
		else
			conn_free(k);
		break;
	case VSOCK_SHUTDOWN: guest_shuts(k, p->flags); break;
	case VSOCK_RW: guest_data(k, p, payload, n); break;
	case VSOCK_CREDIT_UPDATE: break;
	case VSOCK_CREDIT_REQUEST: owe(k, DUE_CREDIT); break;
	default: fail(k);
	}
}

void vsock_conns_packet(struct vsock_conns *c, const struct vsock_packet *p, struct iovec *payload,
			int n)
{
	struct vsock_conn *k;

	if (p->src_cid != c->guest_cid)
		return;
	if (p->dst_cid != VSOCK_CID_HOST || p->type != VSOCK_STREAM) {
		if (p->op != VSOCK_RST)
			refuse(c, p->src_port, p->dst_port, p->type);
		return;
	}
	k = find(c, p->src_port, p->dst_port);
	if (k && (k->due & DUE_RST)) {
		if (p->op == VSOCK_RST)
			conn_free(k);
	} else if (k) {
		packet_for(k, p, payload, n);
	} else if (p->op == VSOCK_REQUEST) {
		guest_asks(c, p);
	} else if (p->op != VSOCK_RST) {
		refuse(c, p->src_port, p->dst_port, p->type);
	}
}

/* --- the host's side of a connection --- */

static void host_event(struct loop_fd *f, uint32_t events)
{
	struct vsock_conn *k = container_of(f, struct vsock_conn, io);

	if (k->state == CONN_ASKED) {
		fail(k); /* it hung up before the guest said anything */
		return;
	}
	if (k->state == CONN_OPEN && !(k->host_shut & VSOCK_NO_SEND) &&
	    (events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		owe(k, DUE_DATA);
	if ((events & (EPOLLHUP | EPOLLERR)) &&
	    (k->state == CONN_DRAINING || (k->host_shut & VSOCK_NO_SEND))) {
		if (k->state == CONN_DRAINING) {
			conn_free(k);
		} else {
			forget_buffer(k);
			host_shuts(k, VSOCK_SHUT_BOTH);
		}
		return;
	}
	if (k->len)
		drain(k); /* may free k */
	else
		update_watch(k);
}

static uint32_t new_port(struct vsock_conns *c, uint32_t guest_port)
{
	do
		c->next_port = (c->next_port + 1) | 0x40000000; /* as Firecracker assigns them */
	while (find(c, guest_port, c->next_port & 0x7fffffff));
	return c->next_port &= 0x7fffffff;
}

bool vsock_conns_ask(struct vsock_conns *c, int fd, uint32_t port)
{
	struct vsock_conn *k = conn_new(c, fd, port, new_port(c, port), CONN_ASKED);

	if (!k)
		return false;
	owe(k, DUE_REQUEST);
	update_watch(k);
	return true;
}

/* --- packets for the guest --- */

static void fill(struct vsock_conn *k, struct vsock_packet *p, uint16_t op)
{
	*p = (struct vsock_packet){
		.src_cid = VSOCK_CID_HOST,
		.dst_cid = k->of->guest_cid,
		.src_port = k->host_port,
		.dst_port = k->guest_port,
		.type = VSOCK_STREAM,
		.op = op,
		.buf_alloc = VSOCK_BUFFER,
		.fwd_cnt = k->forwarded,
	};
	k->forwarded_told = k->forwarded;
	k->due &= ~(unsigned)DUE_CREDIT; /* every packet tells it */
}

/* Reads as much as the guest has room for. False: there is no packet of it. */
static bool data_packet(struct vsock_conn *k, struct vsock_packet *p, const struct iovec *room,
			int n)
{
	struct iovec iov[8];
	uint64_t left = credit(k);
	ssize_t got;
	int m = 0;

	k->due &= ~(unsigned)DUE_DATA;
	if (k->state != CONN_OPEN || (k->host_shut & VSOCK_NO_SEND) ||
	    (k->guest_shut & VSOCK_NO_RECEIVE))
		return false;
	if (!left) {
		if (!k->asked_credit)
			k->due |= DUE_CREDIT_REQUEST;
		k->asked_credit = true;
		return false;
	}
	for (; m < n && m < (int)ARRAY_SIZE(iov) && left; m++) {
		iov[m] = room[m];
		iov[m].iov_len = min_u64(iov[m].iov_len, left);
		left -= iov[m].iov_len;
	}
	got = m ? readv(k->io.fd, iov, m) : -1;
	if (got > 0) {
		k->due |= DUE_DATA;
		k->sent += (uint32_t)got;
		fill(k, p, VSOCK_RW);
		p->len = (uint32_t)got;
		return true;
	}
	if (got == 0)
		host_shuts(k, VSOCK_NO_SEND);
	else if (m && errno != EAGAIN && errno != EINTR)
		host_shuts(k, VSOCK_SHUT_BOTH);
	return false;
}

/* The most important thing that is due to the guest; false: it turned out to be nothing. */
static bool packet_of(struct vsock_conn *k, struct vsock_packet *p, const struct iovec *room, int n)
{
	static const struct {
		unsigned due;
		uint16_t op;
	} plain[] = {
		{DUE_REQUEST, VSOCK_REQUEST},      {DUE_RESPONSE, VSOCK_RESPONSE},
		{DUE_SHUTDOWN, VSOCK_SHUTDOWN},    {DUE_CREDIT_REQUEST, VSOCK_CREDIT_REQUEST},
		{DUE_CREDIT, VSOCK_CREDIT_UPDATE},
	};

	if (!(k->due & (DUE_REQUEST | DUE_RESPONSE)) && (k->due & DUE_DATA) &&
	    data_packet(k, p, room, n))
		return true;
	for (unsigned i = 0; i < ARRAY_SIZE(plain); i++) {
		if (!(k->due & plain[i].due))
			continue;
		k->due &= ~plain[i].due;
		fill(k, p, plain[i].op);
		if (plain[i].op == VSOCK_SHUTDOWN)
			p->flags = k->host_shut;
		return true;
	}
	return false;
}

static bool next_refusal(struct vsock_conns *c, struct vsock_packet *p)
{
	struct vsock_refusal r;

	if (!c->refusals)
		return false;
	r = c->refusal[0];
	memmove(c->refusal, c->refusal + 1, --c->refusals * sizeof r);
	*p = (struct vsock_packet){
		.src_cid = VSOCK_CID_HOST,
		.dst_cid = c->guest_cid,
		.src_port = r.host_port,
		.dst_port = r.guest_port,
		.type = r.type,
		.op = VSOCK_RST,
	};
	return true;
}

bool vsock_conns_have(const struct vsock_conns *c)
{
	return c->refusals || c->first;
}

bool vsock_conns_next(struct vsock_conns *c, struct vsock_packet *p, const struct iovec *room,
		      int n)
{
	struct vsock_conn *k;

	if (next_refusal(c, p))
		return true;
	while ((k = c->first)) {
		bool any;

		leave_line(k);
		if (k->due & DUE_RST) {
			fill(k, p, VSOCK_RST);
			conn_free(k);
			return true;
		}
		any = packet_of(k, p, room, n);
		if (k->due)
			join_line(k);
		update_watch(k);
		if (any)
			return true;
	}
	return false;
}
