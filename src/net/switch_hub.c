/* switch_hub: a learning switch. Its ways lead to our own card, to the uplink, and to a VM each.
 * A frame goes where its destination was last seen, or everywhere but back. Each way says
 * what it can take undone; the rest is done here, on a copy.
 *
 * A VM that does not read its frames loses them (a queue of QUEUE_MAX bytes); one that does
 * not keep to the protocol is disconnected. A turn takes at most FRAMES_A_TURN frames from one VM. */
#include "net/switch_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define FRAMES_A_TURN    64u
#define UPLINK_QUEUE_MAX MIB(4)

static void drop_peer(struct peer *p)
{
	struct hub *h = p->hub;

	mac_table_forget(&h->macs, p->way);
	h->peer[p->way - WAY_PEER] = NULL;
	loop_del(h->loop, &p->fd);
	close(p->fd.fd);
	frame_queue_done(&p->queue);
	free(p);
}

/* --- out --- */

static void set_events(struct peer *p)
{
	loop_mod(p->hub->loop, &p->fd, EPOLLIN | (p->waits ? (uint32_t)EPOLLOUT : 0u));
}

/* Ended connections are noticed when they are read. */
static bool peer_emit(void *ctx, const struct net_hdr *hdr, const struct iovec *iov, unsigned n)
{
	struct peer *p = ctx;

	if (!p->waits && wire_send_frame(p->fd.fd, hdr, iov, n))
		return true;
	(void)frame_queue_add(&p->queue, hdr, iov, n);
	if (!p->waits) {
		p->waits = true;
		set_events(p);
	}
	return true;
}

static bool card_emit(void *ctx, const struct net_hdr *hdr, const struct iovec *iov, unsigned n)
{
	struct hub *h = ctx;

	if (!frame_queue_empty(&h->card_queue) || !net_send(h->card, hdr, iov, n))
		(void)frame_queue_add(&h->card_queue, hdr, iov, n);
	return true;
}

static bool uplink_emit(void *ctx, const struct net_hdr *hdr, const struct iovec *iov, unsigned n)
{
	struct hub *h = ctx;

	(void)net_send(&h->uplink, hdr, iov, n);
	return true;
}

static void send_to(struct hub *h, int way, const struct net_hdr *hdr, uint8_t *frame, size_t len)
{
	struct peer *p = way >= WAY_PEER ? h->peer[way - WAY_PEER] : NULL;
	net_emit_fn *emit = way == WAY_CARD     ? card_emit
			    : way == WAY_UPLINK ? uplink_emit
						: peer_emit;
	void *ctx = p ? (void *)p : h;
	unsigned caps = way == WAY_CARD ? net_peer_caps(h->card) : net_peer_caps(&h->uplink);

	if ((way >= WAY_PEER && !(p && p->greeted)) || (way == WAY_UPLINK && !h->nat))
		return;
	if (p)
		caps = p->caps;
	if (net_hdr_needs(hdr) & ~caps) {
		memcpy(h->copy, frame, len); /* others may want the frame as it is */
		frame = h->copy;
	}
	(void)net_finish_offload(caps, hdr, frame, len, emit, ctx);
}

static void forward(struct hub *h, int from, const struct net_hdr *hdr, uint8_t *frame, size_t len)
{
	uint64_t now = clock_now(loop_clock(h->loop));
	int to = mac_table_find(&h->macs, frame, now);

	mac_table_learn(&h->macs, frame + 6, from, now);
	if (to >= 0) {
		if (to != from)
			send_to(h, to, hdr, frame, len);
		return;
	}
	for (int way = 0; way < (int)WAYS; way++)
		if (way != from)
			send_to(h, way, hdr, frame, len);
}

static bool from_uplink(void *ctx, const struct net_hdr *hdr, const struct iovec *iov, unsigned n)
{
	if (net_hdr_valid(hdr, iov->iov_base, iov->iov_len))
		forward(ctx, WAY_UPLINK, hdr, iov->iov_base, iov->iov_len);
	return true;
}

static void take_from_uplink(struct hub *h)
{
	(void)frame_queue_send(&h->uplink_queue, from_uplink, h);
	if (h->nat)
		net_room(&h->uplink);
}

static void flush_all(struct hub *h)
{
	if (h->nat)
		net_flush(&h->uplink); /* answered by uplink_flush */
	net_flush(h->card);
}

/* --- in: from VMs --- */

static bool act_on(struct peer *p, const struct wire_msg *m)
{
	if (m->type == WIRE_HELLO) {
		p->greeted = true;
		p->caps = m->hello.caps & NET_CAP_ALL;
		if (m->hello.flags & WIRE_UPLINK)
			hub_want_uplink(p->hub);
		return true;
	}
	if (!p->greeted)
		return false;
	forward(p->hub, p->way, &m->hdr, m->frame, m->len);
	return true;
}

/* false: the peer is to go. */
static bool read_peer(struct peer *p)
{
	struct wire_msg m;

	for (unsigned left = FRAMES_A_TURN; left; left--) {
		int r = wire_read(p->fd.fd, p->hub->in, &m);

		if (r <= 0)
			return r == 0;
		if (!act_on(p, &m))
			return false;
	}
	return true;
}

static bool to_socket(void *ctx, const struct net_hdr *hdr, const struct iovec *iov, unsigned n)
{
	struct peer *p = ctx;

	return wire_send_frame(p->fd.fd, hdr, iov, n) != 0;
}

static void send_waiting(struct peer *p)
{
	if (frame_queue_send(&p->queue, to_socket, p)) {
		p->waits = false;
		set_events(p);
	}
}

static void on_peer(struct loop_fd *f, uint32_t events)
{
	struct peer *p = container_of(f, struct peer, fd);
	struct hub *h = p->hub;

	if (events & EPOLLOUT && p->waits)
		send_waiting(p);
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR) && !read_peer(p))
		drop_peer(p);
	flush_all(h);
}

static bool same_user(int fd)
{
	struct ucred c;
	socklen_t len = sizeof c;

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &c, &len) == 0 && c.uid == geteuid();
}

static bool add_peer(struct hub *h, int fd)
{
	struct peer *p;
	unsigned i = 0;

	while (i < SWITCH_PEERS_MAX && h->peer[i])
		i++;
	if (i == SWITCH_PEERS_MAX || !same_user(fd) || !(p = calloc(1, sizeof *p)))
		return false;
	p->hub = h;
	p->way = (int)i + WAY_PEER;
	p->fd = (struct loop_fd){fd, on_peer};
	frame_queue_init(&p->queue, QUEUE_MAX);
	if (loop_add(h->loop, &p->fd, EPOLLIN, NULL) < 0) {
		free(p);
		return false;
	}
	h->peer[i] = p;
	return true;
}

static void on_listener(struct loop_fd *f, uint32_t events)
{
	struct hub *h = container_of(f, struct hub, listener);
	int fd = accept4(f->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd >= 0 && !add_peer(h, fd))
		close(fd);
}

/* --- in: from the card and the uplink --- */

void hub_take(struct hub *h, const struct net_hdr *hdr, const struct iovec *iov, unsigned n)
{
	size_t len = net_gather(h->in, NET_FRAME_MAX, iov, n);

	if (net_hdr_valid(hdr, h->in, len))
		forward(h, WAY_CARD, hdr, h->in, len);
}

void hub_flush(struct hub *h)
{
	flush_all(h);
}

void hub_room(struct hub *h)
{
	(void)frame_queue_send(&h->card_queue, net_emit_to_peer, h->card);
	net_flush(h->card);
}

/* libslirp answers while a frame that it was given is still on its way, so its answers wait
 * until the turn ends. */
static bool uplink_take(struct net_port *p, const struct net_hdr *hdr, const struct iovec *iov,
			unsigned n)
{
	return frame_queue_add(&container_of(p, struct hub, uplink)->uplink_queue, hdr, iov, n);
}

static void uplink_flush(struct net_port *p)
{
	struct hub *h = container_of(p, struct hub, uplink);

	take_from_uplink(h);
	net_flush(h->card);
}

static const struct net_port_ops uplink_ops = {.take = uplink_take, .flush = uplink_flush};

void hub_want_uplink(struct hub *h)
{
	struct err err;

	if (h->nat)
		return;
	if (user_new(&h->nat, &h->nat_opts, h->loop, &err) < 0) {
		const struct net_warn w = {h->nat_opts.warn, h->nat_opts.warn_ctx};

		h->nat = NULL;
		net_warn(&w, "%s", err.text);
		return;
	}
	net_connect(&h->uplink, h->nat);
	net_start(&h->uplink);
}

/* --- life --- */

int hub_new(struct hub **out, int listener, struct net_port *card, const struct net_opts *o,
	    struct loop *l, struct err *e)
{
	struct hub *h = calloc(1, sizeof *h);
	int r;

	if (!h) {
		close(listener);
		return err_sys(e, ENOMEM, "switch");
	}
	h->loop = l;
	h->card = card;
	h->uplink.ops = &uplink_ops;
	h->uplink.caps = NET_CAP_ALL;
	h->nat_opts = (struct net_opts){
		.kind = NET_USER, .mtu = o->mtu, .warn = o->warn, .warn_ctx = o->warn_ctx};
	h->listener = (struct loop_fd){listener, on_listener};
	mac_table_init(&h->macs);
	frame_queue_init(&h->card_queue, QUEUE_MAX);
	frame_queue_init(&h->uplink_queue, UPLINK_QUEUE_MAX);
	r = loop_add(l, &h->listener, EPOLLIN, e);
	if (r < 0) {
		close(listener);
		free(h);
		return r;
	}
	*out = h;
	return 0;
}

void hub_free(struct hub *h)
{
	if (!h)
		return;
	for (unsigned i = 0; i < SWITCH_PEERS_MAX; i++)
		if (h->peer[i])
			drop_peer(h->peer[i]);
	net_backend_free(h->nat);
	loop_del(h->loop, &h->listener);
	close(h->listener.fd);
	frame_queue_done(&h->card_queue);
	frame_queue_done(&h->uplink_queue);
	free(h);
}
