/* net_ctrl: the control queue (virtio 1.2, 5.1.6.5): commands of a class and a number, data,
 * and a byte for our answer. A command that makes no sense is answered with an error and
 * changes nothing. */
#include "virtio/net_priv.h"

#include <string.h>

#define CLASS_RX       0
#define CLASS_MAC      1
#define CLASS_VLAN     2
#define CLASS_ANNOUNCE 3
#define CLASS_MQ       4
#define CLASS_OFFLOADS 5

#define MAC_TABLE_SET 0
#define MAC_ADDR_SET  1

#define ACK_OK  0
#define ACK_ERR 1

#define COMMANDS_A_KICK 64u

/* A command's data, read from the front. */
struct data {
	const uint8_t *p;
	size_t len;
};

static bool take_bytes(struct data *d, void *to, size_t len)
{
	if (d->len < len)
		return false;
	memcpy(to, d->p, len);
	d->p += len;
	d->len -= len;
	return true;
}

static bool set_rx(struct virtio_net *c, uint8_t command, struct data *d)
{
	struct net_filter_table *f = &c->filter;
	bool *const flags[] = {&f->promisc, &f->allmulti, &f->alluni,
			       &f->nomulti, &f->nouni,    &f->nobcast};
	uint8_t on;

	if (command >= ARRAY_SIZE(flags) || !take_bytes(d, &on, 1) || d->len)
		return false;
	if (!virtio_has(&c->vd, command < 2 ? F_CTRL_RX : F_CTRL_RX_EXTRA))
		return false;
	*flags[command] = on;
	return true;
}

/* One of the two lists of a table: its addresses are added to f, or too many are noted. */
static bool take_macs(struct net_filter_table *f, struct data *d, bool *too_many)
{
	uint32_t n;

	if (!take_bytes(d, &n, 4) || n > d->len / 6)
		return false;
	*too_many = n > MAC_TABLE_MAX - f->count;
	if (!*too_many) {
		memcpy(f->mac[f->count], d->p, n * 6);
		f->count = (uint8_t)(f->count + n);
	}
	d->p += n * 6;
	d->len -= n * 6;
	return true;
}

static bool set_mac_table(struct virtio_net *c, struct data *d)
{
	struct net_filter_table f = c->filter;

	f.count = 0;
	if (!take_macs(&f, d, &f.too_many_uni))
		return false;
	f.first_multi = f.count;
	if (!take_macs(&f, d, &f.too_many_multi) || d->len)
		return false;
	c->filter = f;
	return true;
}

static bool set_mac(struct virtio_net *c, uint8_t command, struct data *d)
{
	if (command == MAC_TABLE_SET)
		return virtio_has(&c->vd, F_CTRL_RX) && set_mac_table(c, d);
	if (command != MAC_ADDR_SET || d->len != 6 || !virtio_has(&c->vd, F_CTRL_MAC_ADDR))
		return false;
	memcpy(c->mac, d->p, 6);
	virtio_config_set(&c->vd, CONFIG_MAC, c->mac, 6);
	return true;
}

static bool set_vlan(struct virtio_net *c, uint8_t command, struct data *d)
{
	uint16_t id;

	if (command > 1 || !virtio_has(&c->vd, F_CTRL_VLAN) || !take_bytes(d, &id, 2) || d->len ||
	    id >= VLANS)
		return false;
	if (command == 0)
		c->filter.vlan[id / 8] |= (uint8_t)(1u << id % 8);
	else
		c->filter.vlan[id / 8] &= (uint8_t) ~(1u << id % 8);
	return true;
}

static bool announced(struct virtio_net *c, uint8_t command, struct data *d)
{
	if (command || d->len || !virtio_has(&c->vd, F_GUEST_ANNOUNCE))
		return false;
	c->announce = false;
	net_update_status(c);
	return true;
}

static bool set_pairs(struct virtio_net *c, uint8_t command, struct data *d)
{
	uint16_t pairs;

	if (command || !virtio_has(&c->vd, F_MQ) || !take_bytes(d, &pairs, 2) || d->len || !pairs ||
	    pairs > c->pairs)
		return false;
	c->active = pairs;
	memset(c->steer, 0, sizeof c->steer);
	return true;
}

static bool set_offloads(struct virtio_net *c, uint8_t command, struct data *d)
{
	uint64_t on;

	if (command || !virtio_has(&c->vd, F_CTRL_GUEST_OFFLOADS) || !take_bytes(d, &on, 8) ||
	    d->len || on & ~(GUEST_OFFLOADS & c->vd.features))
		return false;
	c->offloads = on;
	net_update_caps(c);
	return true;
}

static bool act(struct virtio_net *c, struct data *d)
{
	uint8_t head[2];

	if (!take_bytes(d, head, 2))
		return false;
	switch (head[0]) {
	case CLASS_RX: return set_rx(c, head[1], d);
	case CLASS_MAC: return set_mac(c, head[1], d);
	case CLASS_VLAN: return set_vlan(c, head[1], d);
	case CLASS_ANNOUNCE: return announced(c, head[1], d);
	case CLASS_MQ: return set_pairs(c, head[1], d);
	case CLASS_OFFLOADS: return set_offloads(c, head[1], d);
	default: return false;
	}
}

static void answer(const struct virtq_chain *chain, uint8_t ack)
{
	*(uint8_t *)chain->iov[chain->out].iov_base = ack;
}

static void command(struct virtio_net *c, struct virtq *q, const struct virtq_chain *chain)
{
	/* The largest command is a MAC table; one that is longer than the scratch is wrong. */
	size_t len = net_gather(c->scratch, sizeof c->scratch, chain->iov, chain->out);
	struct data d = {c->scratch, len};

	if (!chain->in_len) {
		virtio_broken(&c->vd, "a control command has no room for the answer");
		virtq_push(q, chain, 0);
		return;
	}
	answer(chain, act(c, &d) ? ACK_OK : ACK_ERR);
	virtq_push(q, chain, 1);
}

/* Acts on at most *left commands. */
static void commands(struct virtio_net *c, struct virtq *q, unsigned *left)
{
	struct virtq_chain chain = {.iov = c->tx_iov, .iov_max = ARRAY_SIZE(c->tx_iov)};

	for (; *left; --*left) {
		int r = virtq_pop(q, &chain);

		if (r < 0)
			virtio_broken(&c->vd,
				      "a control command's buffers are not as they must be");
		if (r <= 0)
			return;
		command(c, q, &chain);
	}
}

void net_ctrl_kick(struct virtio_net *c, struct virtq *q)
{
	unsigned left = COMMANDS_A_KICK;

	do {
		commands(c, q, &left);
		virtq_publish(q);
	} while (left && virtq_kicks_on(q));
	if (!left)
		net_again(c);
}
