/* user: user-mode NAT by libslirp: the guest gets an address by DHCP, a router that is the
 * host (10.0.2.2), and a name server (10.0.2.3) that is the host's resolver; its connections
 * leave from this process's sockets. Nothing needs privileges.
 *
 * libslirp is loaded at once, since a confined process loads no more code. It starts when the guest's driver is
 * ready, or at once when there are forwards to listen for (a port that is taken is then an error of the start).
 *
 * Offloads, none of which libslirp knows: a frame from the guest may be a 64 KiB segment; its
 * checksum is made here, and libslirp takes it as one large IP packet. Towards the guest,
 * see user_mss.c; what the guest cannot take large is cut here.
 *
 * libslirp has no flow control towards the guest: what finds no room waits in a queue, and
 * while it does, no socket is read. */
#include "net/backend.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/frame_queue.h"
#include "net/user_priv.h"

#define QUEUE_MAX   MIB(4)
#define LIB_MTU     65521 /* the largest that libslirp takes */
#define NS_PER_MS   1000000
#define HEADERS_MAX 160

struct user {
	struct net_port port;
	struct loop *loop;
	struct net_warn warn;
	char *tftp, *bootfile; /* or NULL */
	bool restricted, failed;
	unsigned mtu, forwards;
	char *hostname;
	struct net_forward *forward;

	struct slirp_lib lib;
	Slirp *slirp; /* NULL: not started */
	struct user_poll poll;
	struct frame_queue queue; /* to the guest */
	struct mss_table mss;
	uint8_t from_guest[NET_FRAME_MAX], to_guest[NET_FRAME_MAX];
};

static struct user *to_user(struct net_port *p)
{
	return container_of(p, struct user, port);
}

/* --- to the guest --- */

static bool deliver(void *ctx, const struct net_hdr *h, const struct iovec *iov, unsigned n)
{
	struct user *u = ctx;

	if (frame_queue_empty(&u->queue) && net_send(&u->port, h, iov, n))
		return true;
	user_poll_stop(&u->poll, true);
	return frame_queue_add(&u->queue, h, iov, n);
}

/* A TCP segment larger than the guest's: to be cut there, or here when it cannot. Its checksum
 * field takes the pseudo-header's sum, as such a frame wants it. */
static void deliver_large(struct user *u, const uint8_t *frame, size_t len,
			  const struct net_layout *l)
{
	struct net_hdr h = {
		.flags = NET_HDR_NEEDS_CSUM,
		.gso_type = (uint8_t)(l->v6 ? NET_GSO_TCPV6 : NET_GSO_TCPV4),
		.hdr_len = l->data,
		.gso_size = (uint16_t)min_u64(mss_of(&u->mss, frame, l),
					      u->mtu - (unsigned)(l->data - l->l3)),
		.csum_start = l->l4,
		.csum_offset = 16,
	};
	uint8_t head[HEADERS_MAX];
	struct iovec iov[] = {{head, l->data}, {(void *)(frame + l->data), len - l->data}};
	uint16_t sum = net_pseudo_sum(frame + l->l3, l->v6, l->proto, l->end - l->l4);

	memcpy(head, frame, l->data);
	head[l->l4 + 16] = (uint8_t)(sum >> 8);
	head[l->l4 + 17] = (uint8_t)sum;
	if (!(net_hdr_needs(&h) & ~net_peer_caps(&u->port))) {
		deliver(u, &h, iov, 2);
		return;
	}
	memcpy(u->to_guest, frame, len);
	(void)net_segment(&h, u->to_guest, len, deliver, u);
}

static ssize_t send_packet(const void *buf, size_t len, void *ctx)
{
	struct user *u = ctx;
	const struct net_hdr done = {.flags = NET_HDR_DATA_VALID};
	const struct net_hdr plain = {0};
	struct iovec iov = {(void *)buf, len};
	struct net_layout l;
	bool ip = net_layout(buf, len, &l);

	if (!ip || l.end - l.l3 <= u->mtu) {
		deliver(u, ip && l.data > l.l4 ? &done : &plain, &iov, 1);
	} else if (l.proto == IPPROTO_TCP && l.data < l.l3 + u->mtu) {
		deliver_large(u, buf, len, &l);
	} else if (!l.v6 && len <= sizeof u->to_guest) {
		memcpy(u->to_guest, buf, len);
		(void)net_fragment4(u->to_guest, len, u->mtu, deliver, u);
	}
	return (ssize_t)len;
}

static void polled(struct user_poll *p)
{
	net_flush(&container_of(p, struct user, poll)->port);
}

static void user_room(struct net_port *p)
{
	struct user *u = to_user(p);

	if (frame_queue_empty(&u->queue))
		return;
	if (frame_queue_send(&u->queue, net_emit_to_peer, p))
		user_poll_stop(&u->poll, false);
	net_flush(p);
}

/* --- libslirp's wishes --- */

struct user_timer {
	struct timer timer;
	struct user *user;
	SlirpTimerCb fire;
	void *ctx;
};

static void guest_error(const char *msg, void *ctx)
{
}

static int64_t clock_get_ns(void *ctx)
{
	struct user *u = ctx;

	return (int64_t)clock_now(loop_clock(u->loop));
}

static void timer_fired(struct timer *t)
{
	struct user_timer *ut = container_of(t, struct user_timer, timer);
	struct user *u = ut->user;

	ut->fire(ut->ctx);
	user_poll_refresh(&u->poll);
	net_flush(&u->port);
}

/* libslirp takes no failure; its own allocations end the process likewise. */
static void *timer_new(SlirpTimerCb fire, void *fire_ctx, void *ctx)
{
	struct user_timer *t = calloc(1, sizeof *t);

	if (!t)
		abort();
	*t = (struct user_timer){{timer_fired}, ctx, fire, fire_ctx};
	return t;
}

static void timer_free(void *timer, void *ctx)
{
	struct user *u = ctx;
	struct user_timer *t = timer;

	timer_cancel(loop_clock(u->loop), &t->timer);
	free(t);
}

static void timer_mod(void *timer, int64_t expire_ms, void *ctx)
{
	struct user *u = ctx;
	struct user_timer *t = timer;

	timer_arm(loop_clock(u->loop), &t->timer, (uint64_t)expire_ms * NS_PER_MS);
}

static void fd_changed(int fd, void *ctx)
{
	struct user *u = ctx;

	user_poll_forget(&u->poll, fd);
}

static void notify(void *ctx)
{
}

static const SlirpCb callbacks = {
	.send_packet = send_packet,
	.guest_error = guest_error,
	.clock_get_ns = clock_get_ns,
	.timer_new = timer_new,
	.timer_free = timer_free,
	.timer_mod = timer_mod,
	.register_poll_fd = fd_changed,
	.unregister_poll_fd = fd_changed,
	.notify = notify,
};

/* --- start --- */

static int listen_forwards(struct user *u, struct err *e)
{
	for (unsigned i = 0; i < u->forwards; i++) {
		const struct net_forward *f = &u->forward[i];
		struct in_addr host = {htonl(f->host_addr)}, guest = {0};

		if (u->lib.add_hostfwd(u->slirp, f->udp, host, f->host_port, guest, f->guest_port) <
		    0)
			return err_sys(e, errno, "listen at %s:%u/%s", inet_ntoa(host),
				       f->host_port, f->udp ? "udp" : "tcp");
	}
	return 0;
}

static int start_lib(struct user *u, struct err *e)
{
	SlirpConfig c = {
		.version = 1,
		.restricted = u->restricted,
		.in_enabled = true,
		.in6_enabled = true,
		.vprefix_len = 64,
		.vhostname = u->hostname,
		.tftp_path = u->tftp,
		.bootfile = u->bootfile,
		.if_mtu = LIB_MTU,
		.if_mru = LIB_MTU,
	};
	int r;

	c.vnetwork.s_addr = inet_addr("10.0.2.0");
	c.vnetmask.s_addr = inet_addr("255.255.255.0");
	c.vhost.s_addr = inet_addr("10.0.2.2");
	c.vnameserver.s_addr = inet_addr("10.0.2.3");
	c.vdhcp_start.s_addr = inet_addr("10.0.2.15");
	inet_pton(AF_INET6, "fec0::", &c.vprefix_addr6);
	inet_pton(AF_INET6, "fec0::2", &c.vhost6);
	inet_pton(AF_INET6, "fec0::3", &c.vnameserver6);
	if (!u->lib.handle && (r = slirp_lib_open(&u->lib, e)) < 0)
		return r;
	u->slirp = u->lib.new(&c, &callbacks, u);
	if (!u->slirp)
		return err_set(e, EINVAL, "user-mode network: libslirp does not start");
	r = listen_forwards(u, e);
	return r < 0 ? r : user_poll_start(&u->poll, &u->lib, u->slirp, e);
}

/* The card's driver is ready. */
static void user_start(struct net_port *p)
{
	struct user *u = to_user(p);
	struct err err;

	if (u->slirp || u->failed || start_lib(u, &err) == 0)
		return;
	u->failed = true;
	net_warn(&u->warn, "%s", err.text);
	net_link(p, false);
}

/* --- from the guest --- */

static bool user_take(struct net_port *p, const struct net_hdr *h, const struct iovec *iov,
		      unsigned n)
{
	struct user *u = to_user(p);
	size_t len = net_gather(u->from_guest, sizeof u->from_guest, iov, n);
	struct net_layout l;

	if (!u->slirp || u->failed || !net_hdr_valid(h, u->from_guest, len))
		return true;
	if (net_layout(u->from_guest, len, &l))
		mss_raise(&u->mss, u->from_guest, &l, h->flags & NET_HDR_NEEDS_CSUM);
	net_finish_csum(h, u->from_guest, len);
	u->lib.input(u->slirp, u->from_guest, (int)len);
	return true;
}

static void user_flush(struct net_port *p)
{
	struct user *u = to_user(p);

	user_poll_refresh(&u->poll);
	net_flush(p);
}

static void user_free(struct net_port *p)
{
	struct user *u = to_user(p);

	if (u->slirp)
		u->lib.cleanup(u->slirp);
	user_poll_done(&u->poll);
	slirp_lib_close(&u->lib);
	frame_queue_done(&u->queue);
	free(u->hostname);
	free(u->tftp);
	free(u->bootfile);
	free(u->forward);
	free(u);
}

static const struct net_port_ops user_ops = {
	.take = user_take,
	.flush = user_flush,
	.room = user_room,
	.start = user_start,
	.free = user_free,
};

static int copy_opts(struct user *u, const struct net_opts *o)
{
	u->restricted = o->restricted;
	u->mtu = o->mtu ? o->mtu : NET_MTU;
	u->warn = (struct net_warn){o->warn, o->warn_ctx};
	if ((o->vm && !(u->hostname = strdup(o->vm))) ||
	    (o->tftp && !(u->tftp = strdup(o->tftp))) ||
	    (o->bootfile && !(u->bootfile = strdup(o->bootfile))))
		return -ENOMEM;
	if (!o->forwards)
		return 0;
	u->forward = calloc(o->forwards, sizeof *u->forward);
	if (!u->forward)
		return -ENOMEM;
	memcpy(u->forward, o->forward, o->forwards * sizeof *u->forward);
	u->forwards = o->forwards;
	return 0;
}

int user_new(struct net_port **out, const struct net_opts *o, struct loop *l, struct err *e)
{
	struct user *u = calloc(1, sizeof *u);
	int r;

	if (!u)
		return err_sys(e, ENOMEM, "user-mode network");
	u->port.ops = &user_ops;
	u->port.caps = NET_CAP_CSUM | NET_CAP_TSO4 | NET_CAP_TSO6 | NET_CAP_ECN;
	u->loop = l;
	u->poll.ready.fd = -1;
	u->poll.polled = polled;
	frame_queue_init(&u->queue, QUEUE_MAX);
	(void)!slirp_lib_open(&u->lib, NULL); /* one that is missing is told of when it is needed */
	r = copy_opts(u, o);
	if (r < 0)
		err_sys(e, -r, "user-mode network");
	else if ((r = user_poll_init(&u->poll, l, e)) == 0 && u->forwards)
		r = start_lib(u, e);
	if (r < 0)
		user_free(&u->port);
	else
		*out = &u->port;
	return r;
}
