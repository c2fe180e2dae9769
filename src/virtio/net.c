/* net: see the header. Transmit: a kick takes up to TX_FRAMES_A_KICK frames off a queue, with
 * kicks off meanwhile, and then tells the wire that this was all for now. A frame stays in
 * guest memory all the way to the backend, unless its checksum or segmentation must be done here.
 *
 * When the wire has no room, transmitting stops, and goes on at tx_room.
 *
 * What the driver sends wrongly (a frame that is too short or too long, a header that makes no
 * sense) is dropped, as a card would do; what is no buffer at all breaks the device. */
#include "virtio/net_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define QUEUE_SIZE       256u
#define CTRL_SIZE        64u
#define TX_FRAMES_A_KICK 256u
#define HDR_LEN          sizeof(struct net_hdr)
#define OFFERED                                                                                    \
	(F_CSUM | F_GUEST_CSUM | F_CTRL_GUEST_OFFLOADS | F_MAC | F_GUEST_TSO4 | F_GUEST_TSO6 |     \
	 F_GUEST_ECN | F_HOST_TSO4 | F_HOST_TSO6 | F_HOST_ECN | F_MRG_RXBUF | F_STATUS |           \
	 F_CTRL_VQ | F_CTRL_RX | F_CTRL_VLAN | F_CTRL_RX_EXTRA | F_GUEST_ANNOUNCE |                \
	 F_CTRL_MAC_ADDR | F_HOST_USO)

static struct virtio_net *to_net(struct virtio_device *d)
{
	return container_of(d, struct virtio_net, vd);
}

void net_count(struct net_count *c, size_t len)
{
	/* There is but one writer. */
	atomic_store_explicit(&c->frames,
			      atomic_load_explicit(&c->frames, memory_order_relaxed) + 1,
			      memory_order_relaxed);
	atomic_store_explicit(&c->bytes,
			      atomic_load_explicit(&c->bytes, memory_order_relaxed) + len,
			      memory_order_relaxed);
}

void virtio_net_get_counts(struct virtio_device *d, struct virtio_net_counts *to)
{
	struct virtio_net *c = to_net(d);

	to->rx_frames = atomic_load_explicit(&c->rx_count.frames, memory_order_relaxed);
	to->rx_bytes = atomic_load_explicit(&c->rx_count.bytes, memory_order_relaxed);
	to->tx_frames = atomic_load_explicit(&c->tx_count.frames, memory_order_relaxed);
	to->tx_bytes = atomic_load_explicit(&c->tx_count.bytes, memory_order_relaxed);
}

/* --- transmit --- */

static unsigned host_caps(const struct virtio_net *c)
{
	unsigned caps = 0;

	caps |= virtio_has(&c->vd, F_CSUM) ? NET_CAP_CSUM : 0;
	caps |= virtio_has(&c->vd, F_HOST_TSO4) ? NET_CAP_TSO4 : 0;
	caps |= virtio_has(&c->vd, F_HOST_TSO6) ? NET_CAP_TSO6 : 0;
	caps |= virtio_has(&c->vd, F_HOST_ECN) ? NET_CAP_ECN : 0;
	return virtio_has(&c->vd, F_HOST_USO) ? caps | NET_CAP_USO : caps;
}

/* iov: the frame after its header. */
static bool send_frame(struct virtio_net *c, const struct net_hdr *h, const struct iovec *iov,
		       unsigned n, size_t len)
{
	unsigned needs = net_hdr_needs(h);

	if (len < ETH_HEADER || len > NET_FRAME_MAX || needs & ~host_caps(c))
		return true;
	if (!(needs & ~net_peer_caps(&c->port)))
		return net_send(&c->port, h, iov, n);
	len = net_gather(c->scratch, sizeof c->scratch, iov, n);
	return net_finish_offload(net_peer_caps(&c->port), h, c->scratch, len, net_emit_to_peer,
				  &c->port);
}

/* Flags that a driver may set, and no more. */
static void clean_header(struct net_hdr *h)
{
	h->flags &= NET_HDR_NEEDS_CSUM;
	h->num_buffers = 0;
	if (!h->gso_type)
		h->gso_size = 0;
}

static void steer(struct virtio_net *c, unsigned pair, const struct iovec *iov)
{
	if (c->active > 1)
		net_rx_steer(c, pair, iov->iov_base, iov->iov_len);
}

/* false: no room; the chain is as it was. */
static bool tx_chain(struct virtio_net *c, unsigned pair, const struct virtq_chain *chain)
{
	struct net_hdr h;
	struct iovec *iov = chain->iov, first;
	size_t skip = HDR_LEN;
	uint8_t *to = (uint8_t *)&h;
	bool sent;

	if (chain->out_len < HDR_LEN + ETH_HEADER)
		return true;
	for (; skip >= iov->iov_len; skip -= iov->iov_len, iov++) {
		memcpy(to, iov->iov_base, iov->iov_len);
		to += iov->iov_len;
	}
	memcpy(to, iov->iov_base, skip);
	clean_header(&h);
	first = *iov;
	iov->iov_base = (uint8_t *)iov->iov_base + skip;
	iov->iov_len -= skip;
	steer(c, pair, iov);
	sent = send_frame(c, &h, iov, (unsigned)(chain->iov + chain->out - iov),
			  chain->out_len - HDR_LEN);
	*iov = first;
	if (sent)
		net_count(&c->tx_count, chain->out_len - HDR_LEN);
	return sent;
}

/* Sends at most *left frames. */
static void tx_frames(struct virtio_net *c, unsigned pair, struct virtq *q, unsigned *left)
{
	struct virtq_chain chain = {.iov = c->tx_iov, .iov_max = ARRAY_SIZE(c->tx_iov)};

	for (; *left; --*left) {
		int r = virtq_pop(q, &chain);

		if (r < 0)
			virtio_broken(&c->vd, "a frame's buffers are not as they must be");
		if (r <= 0)
			return;
		if (!tx_chain(c, pair, &chain)) {
			virtq_unpop(q, &chain);
			c->tx_blocked = true;
			return;
		}
		virtq_push(q, &chain, 0);
	}
}

static void tx(struct virtio_net *c, unsigned pair)
{
	struct virtq *q = net_txq(c, pair);
	unsigned left = TX_FRAMES_A_KICK;

	if (c->tx_blocked || c->stopping)
		return;
	virtq_kicks_off(q);
	do {
		tx_frames(c, pair, q, &left);
	} while (left && !c->tx_blocked && virtq_kicks_on(q));
	virtq_publish(q);
	net_flush(&c->port);
	if (!left)
		net_again(c);
}

static void tx_room(struct net_port *p)
{
	struct virtio_net *c = container_of(p, struct virtio_net, port);

	if (!c->tx_blocked || !c->vd.started)
		return;
	c->tx_blocked = false;
	for (unsigned pair = 0; pair < c->active; pair++)
		tx(c, pair);
}

/* --- what the two ends tell each other --- */

void net_update_caps(struct virtio_net *c)
{
	unsigned caps = 0;

	if (c->offloads & F_GUEST_CSUM) {
		caps |= NET_CAP_CSUM;
		caps |= c->offloads & F_GUEST_TSO4 ? NET_CAP_TSO4 : 0;
		caps |= c->offloads & F_GUEST_TSO6 ? NET_CAP_TSO6 : 0;
		caps |= c->offloads & F_GUEST_ECN ? NET_CAP_ECN : 0;
	}
	net_set_caps(&c->port, caps);
}

void net_update_status(struct virtio_net *c)
{
	uint16_t status =
		(uint16_t)((c->link_up ? STATUS_LINK_UP : 0) | (c->announce ? STATUS_ANNOUNCE : 0));

	virtio_config_set(&c->vd, CONFIG_STATUS, &status, sizeof status);
}

static void link_changed(struct net_port *p, bool up)
{
	struct virtio_net *c = container_of(p, struct virtio_net, port);

	if (c->link_up == up)
		return;
	c->link_up = up;
	net_update_status(c);
}

static void announce(struct net_port *p)
{
	struct virtio_net *c = container_of(p, struct virtio_net, port);

	if (!virtio_has(&c->vd, F_GUEST_ANNOUNCE) || !c->link_up)
		return;
	c->announce = true;
	net_update_status(c);
}

static const struct net_port_ops port_ops = {
	.take = net_rx_take,
	.flush = net_rx_flush,
	.room = tx_room,
	.link = link_changed,
	.announce = announce,
};

struct net_port *virtio_net_port(struct virtio_device *d)
{
	return &to_net(d)->port;
}

/* --- life --- */

static unsigned ctrl_queue(const struct virtio_net *c)
{
	return virtio_has(&c->vd, F_MQ) ? c->pairs * 2u : 2u;
}

static void net_kick(struct virtio_device *d, unsigned n)
{
	struct virtio_net *c = to_net(d);

	if (n == ctrl_queue(c)) {
		if (virtio_has(d, F_CTRL_VQ))
			net_ctrl_kick(c, d->queue[n]);
	} else if (n / 2 < c->pairs) {
		if (n % 2)
			tx(c, n / 2);
		else
			net_rx_kick(c, n / 2);
	}
}

static void run_again(struct loop_call *call)
{
	struct virtio_net *c = container_of(call, struct virtio_net, again);

	c->again_posted = false;
	if (c->stopping) {
		c->stopping = false;
		virtio_stopped(&c->vd);
		return;
	}
	for (unsigned pair = 0; pair < c->active; pair++)
		tx(c, pair);
	if (virtio_has(&c->vd, F_CTRL_VQ))
		net_ctrl_kick(c, c->vd.queue[ctrl_queue(c)]);
}

void net_again(struct virtio_net *c)
{
	if (c->again_posted)
		return;
	c->again_posted = true;
	loop_post(c->vd.env.loop, &c->again);
}

/* A driver that has agreed on features and set nothing yet. */
static void begin(struct virtio_net *c)
{
	c->begun = true;
	c->active = 1;
	c->offloads = c->vd.features & GUEST_OFFLOADS;
	net_filter_reset(&c->filter);
}

static void net_start_card(struct virtio_device *d)
{
	struct virtio_net *c = to_net(d);

	if (!c->begun)
		begin(c);
	c->tx_blocked = false;
	net_update_caps(c);
	net_start(&c->port);
	net_room(&c->port);
}

static void net_stop(struct virtio_device *d)
{
	struct virtio_net *c = to_net(d);

	net_rx_stop(c);
	if (c->again_posted)
		c->stopping = true; /* run_again goes on */
	else
		virtio_stopped(d);
}

static void set_config(struct virtio_net *c)
{
	uint16_t status = c->link_up ? STATUS_LINK_UP : 0;

	virtio_config_set(&c->vd, CONFIG_MAC, c->mac, sizeof c->mac);
	virtio_config_set(&c->vd, CONFIG_STATUS, &status, sizeof status);
	virtio_config_set(&c->vd, CONFIG_PAIRS, &c->pairs, sizeof c->pairs);
	virtio_config_set(&c->vd, CONFIG_MTU, &c->mtu, sizeof c->mtu);
}

static void net_reset(struct virtio_device *d)
{
	struct virtio_net *c = to_net(d);

	c->begun = c->announce = false;
	memcpy(c->mac, c->own_mac, sizeof c->mac);
	set_config(c);
}

static void state_filter(struct net_filter_table *f, struct state *s)
{
	state_bool(s, "promisc", &f->promisc);
	state_bool(s, "allmulti", &f->allmulti);
	state_bool(s, "alluni", &f->alluni);
	state_bool(s, "nomulti", &f->nomulti);
	state_bool(s, "nouni", &f->nouni);
	state_bool(s, "nobcast", &f->nobcast);
	state_bool(s, "too_many_uni", &f->too_many_uni);
	state_bool(s, "too_many_multi", &f->too_many_multi);
	state_u8(s, "macs", &f->count);
	state_u8(s, "first_multi", &f->first_multi);
	state_bytes(s, "mac_table", f->mac, sizeof f->mac);
	state_bytes(s, "vlans", f->vlan, sizeof f->vlan);
}

static void net_state(struct virtio_device *d, struct state *s)
{
	struct virtio_net *c = to_net(d);

	state_bool(s, "begun", &c->begun);
	state_u16(s, "active", &c->active);
	state_bytes(s, "mac", c->mac, sizeof c->mac);
	state_bool(s, "announce", &c->announce);
	state_u64(s, "offloads", &c->offloads);
	state_filter(&c->filter, s);
	if (!state_loading(s))
		return;
	if (c->active < 1 || c->active > c->pairs)
		state_fail(s, "active %u: this card has %u pairs of queues", c->active, c->pairs);
	if (c->filter.count > MAC_TABLE_MAX || c->filter.first_multi > c->filter.count)
		state_fail(s, "macs %u, first_multi %u: at most %u", c->filter.count,
			   c->filter.first_multi, MAC_TABLE_MAX);
	if (c->offloads & ~(GUEST_OFFLOADS & d->features))
		state_fail(s, "offloads 0x%llx were not agreed on",
			   (unsigned long long)c->offloads);
}

static void net_free(struct virtio_device *d)
{
	struct virtio_net *c;

	if (!d)
		return;
	c = to_net(d);
	net_connect(&c->port, NULL);
	virtio_done(d);
	free(c->rx);
	free(c);
}

const struct virtio_type virtio_net_type = {
	.name = "virtio-net",
	.id = VIRTIO_ID_NET,
	.pci_class = 0x020000,
	.start = net_start_card,
	.stop = net_stop,
	.kick = net_kick,
	.reset = net_reset,
	.state = net_state,
	.free = net_free,
};

static int make_queues(struct virtio_net *c, const struct virtio_env *env, struct err *e)
{
	uint16_t size[VIRTIO_NET_PAIRS_MAX * 2 + 1];
	uint64_t offered = OFFERED | (c->pairs > 1 ? F_MQ : 0) | (c->mtu ? F_MTU : 0);
	unsigned queues = c->pairs * 2u + 1;

	for (unsigned i = 0; i < queues; i++)
		size[i] = i + 1 < queues ? QUEUE_SIZE : CTRL_SIZE;
	return virtio_init(&c->vd, &virtio_net_type, env, offered, queues, size, e);
}

int virtio_net_new(struct virtio_device **out, const struct virtio_env *env,
		   const struct virtio_net_opts *o, struct err *e)
{
	struct virtio_net *c = calloc(1, sizeof *c);
	int r;

	if (!c)
		return err_sys(e, ENOMEM, "network card");
	c->pairs = o->pairs ? o->pairs : 1;
	c->mtu = o->mtu;
	c->active = 1;
	c->link_up = true;
	c->port.ops = &port_ops;
	c->again.run = run_again;
	memcpy(c->own_mac, o->mac, sizeof c->own_mac);
	memcpy(c->mac, o->mac, sizeof c->mac);
	c->rx = calloc(c->pairs, sizeof *c->rx);
	if (!c->rx)
		r = err_sys(e, ENOMEM, "network card");
	else
		r = make_queues(c, env, e);
	if (r < 0) {
		virtio_done(&c->vd);
		free(c->rx);
		free(c);
		return r;
	}
	c->vd.config_len = CONFIG_LEN;
	set_config(c);
	*out = &c->vd;
	return 0;
}
