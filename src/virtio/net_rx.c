/* net_rx: frames to the driver. A frame goes into one chain of buffers, or, with mergeable
 * buffers (virtio 1.2, 5.1.6.4), into as many as it takes; only when it is all in are they
 * given back. They are shown to the driver at the end of a batch (net_rx_flush), or when it
 * has no more of them.
 *
 * While there are buffers, the driver need not kick when it adds some. */
#include "virtio/net_priv.h"

#include <string.h>

#define HDR_LEN  sizeof(struct net_hdr)
#define HEAD_LEN 64u /* of a frame, looked at for the filter and the flow */

/* A frame as it is read, piece by piece. */
struct source {
	const struct iovec *iov;
	unsigned n;
	size_t offset; /* in iov[0] */
};

static void source_skip(struct source *s, size_t len)
{
	s->offset += len;
	if (s->offset == s->iov->iov_len) {
		s->iov++;
		s->n--;
		s->offset = 0;
	}
}

/* Fills to from s; how much there was. */
static size_t source_read(struct source *s, uint8_t *to, size_t len)
{
	size_t done = 0;

	while (done < len && s->n) {
		size_t part = min_u64(len - done, s->iov->iov_len - s->offset);

		memcpy(to + done, (const uint8_t *)s->iov->iov_base + s->offset, part);
		done += part;
		source_skip(s, part);
	}
	return done;
}

static size_t frame_len(const struct iovec *iov, unsigned n)
{
	size_t len = 0;

	while (n--)
		len += iov++->iov_len;
	return len;
}

/* Fills a chain's buffers, after skip bytes, from s; the bytes put there. */
static size_t fill(const struct virtq_chain *chain, size_t skip, struct source *s)
{
	size_t done = 0;

	for (unsigned i = chain->out; i < chain->out + chain->in && s->n; i++) {
		size_t len = chain->iov[i].iov_len, at = min_u64(skip, len);

		skip -= at;
		done += source_read(s, (uint8_t *)chain->iov[i].iov_base + at, len - at);
	}
	return done;
}

static void put_header(const struct virtq_chain *chain, const struct net_hdr *h)
{
	struct iovec iov = {(void *)h, HDR_LEN};
	struct source s = {&iov, 1, 0};

	(void)fill(chain, 0, &s);
}

/* --- which queue --- */

/* The same for both directions of a flow: of what stands behind the addresses only the sum. */
static unsigned flow_of(const uint8_t *head, size_t len)
{
	struct net_layout l;
	uint32_t h = 0;

	/* head may be cut: then the lengths in it say more than there is, and it has no ports. */
	if (len < 38 || head[12] != 0x08 || head[13] || head[14] != 0x45)
		return 0;
	l.l4 = 34;
	for (unsigned i = 26; i < 34; i += 4)
		h += (uint32_t)load_le(head + i, 4);
	h += (uint32_t)load_le(head + l.l4, 2) + (uint32_t)load_le(head + l.l4 + 2, 2);
	h *= 0x9e3779b1u;
	return h >> 24;
}

void net_rx_steer(struct virtio_net *c, unsigned pair, const uint8_t *head, size_t len)
{
	c->steer[flow_of(head, len)] = (uint8_t)pair;
}

static unsigned pair_for(struct virtio_net *c, const uint8_t *head, size_t len)
{
	return c->active > 1 ? c->steer[flow_of(head, len)] % c->active : 0;
}

/* --- one frame --- */

enum outcome { TAKEN, NO_ROOM, DROPPED };

/* Pops chains until they hold need bytes. */
static enum outcome gather_chains(struct virtio_net *c, struct virtq *q, struct net_rx *rx,
				  size_t need)
{
	bool merge = virtio_has(&c->vd, F_MRG_RXBUF);

	while (rx->room < need) {
		struct virtq_chain *chain = &rx->chain[rx->count];
		int r;

		/* A chain has up to VIRTQ_IOV_MAX pieces. */
		if ((rx->count && !merge) || rx->count == RX_CHAINS_MAX ||
		    rx->pieces > VIRTQ_IOV_MAX)
			return DROPPED;
		*chain = (struct virtq_chain){.iov = rx->iov + rx->pieces,
					      .iov_max = ARRAY_SIZE(rx->iov) - rx->pieces};
		r = virtq_pop(q, chain);
		if (r == 0)
			return NO_ROOM;
		if (r < 0) {
			virtio_broken(&c->vd, "a receive buffer is not as it must be");
			return DROPPED;
		}
		rx->count++;
		rx->pieces += chain->out + chain->in;
		rx->room += chain->in_len;
	}
	return TAKEN;
}

/* Of the held chains, gives back all but those that hold need bytes. */
static void give_back(struct virtq *q, struct net_rx *rx, size_t need)
{
	while (rx->count && rx->room - rx->chain[rx->count - 1].in_len >= need) {
		const struct virtq_chain *chain = &rx->chain[--rx->count];

		rx->room -= chain->in_len;
		rx->pieces -= chain->out + chain->in;
		virtq_unpop(q, chain);
	}
}

static enum outcome rx_frame(struct virtio_net *c, unsigned pair, const struct net_hdr *h,
			     const struct iovec *iov, unsigned n)
{
	struct net_rx *rx = &c->rx[pair];
	struct virtq *q = net_rxq(c, pair);
	struct source s = {iov, n, 0};
	struct net_hdr head = *h;
	size_t need = HDR_LEN + frame_len(iov, n);
	enum outcome o = gather_chains(c, q, rx, need);

	if (o != TAKEN)
		return o;
	give_back(q, rx, need);
	if (rx->chain[0].in_len < HDR_LEN) {
		virtio_broken(&c->vd, "a receive buffer has no room for the header");
		return DROPPED;
	}
	if (!(c->offloads & F_GUEST_CSUM))
		head.flags = 0;
	head.num_buffers = (uint16_t)rx->count;
	put_header(&rx->chain[0], &head);
	for (unsigned i = 0; i < rx->count; i++) {
		size_t skip = i ? 0 : HDR_LEN;

		virtq_push(q, &rx->chain[i], (uint32_t)(skip + fill(&rx->chain[i], skip, &s)));
	}
	rx->count = rx->pieces = 0;
	rx->room = 0;
	rx->dirty = true;
	return TAKEN;
}

static void publish(struct virtio_net *c, unsigned pair)
{
	if (c->rx[pair].dirty)
		virtq_publish(net_rxq(c, pair));
	c->rx[pair].dirty = false;
}

bool net_rx_take(struct net_port *p, const struct net_hdr *h, const struct iovec *iov, unsigned n)
{
	struct virtio_net *c = container_of(p, struct virtio_net, port);
	uint8_t head[HEAD_LEN];
	struct source s = {iov, n, 0};
	size_t len = source_read(&s, head, sizeof head);
	enum outcome o;
	unsigned pair;

	if (!c->vd.started || c->stopping || len < ETH_HEADER || net_hdr_needs(h) & ~p->caps ||
	    !net_filter_wants(c, head, len))
		return true;
	pair = pair_for(c, head, len);
	if (!virtq_running(net_rxq(c, pair)))
		return true;
	/* Each turn holds at least one more chain, so it ends. */
	while ((o = rx_frame(c, pair, h, iov, n)) == NO_ROOM) {
		publish(c, pair);
		if (!virtq_kicks_on(net_rxq(c, pair))) {
			c->rx[pair].waits = true;
			return false;
		}
	}
	if (o == TAKEN)
		net_count(&c->rx_count, frame_len(iov, n));
	return true;
}

void net_rx_flush(struct net_port *p)
{
	struct virtio_net *c = container_of(p, struct virtio_net, port);

	for (unsigned pair = 0; pair < c->pairs; pair++)
		publish(c, pair);
}

void net_rx_kick(struct virtio_net *c, unsigned pair)
{
	struct net_rx *rx = &c->rx[pair];

	virtq_kicks_off(net_rxq(c, pair));
	if (!rx->waits)
		return;
	rx->waits = false;
	net_room(&c->port);
}

void net_rx_stop(struct virtio_net *c)
{
	for (unsigned pair = 0; pair < c->pairs; pair++) {
		struct net_rx *rx = &c->rx[pair];

		while (rx->count)
			virtq_unpop(net_rxq(c, pair), &rx->chain[--rx->count]);
		rx->pieces = 0;
		rx->room = 0;
		rx->waits = false;
		publish(c, pair);
	}
}
