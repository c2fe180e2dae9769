#include "virtio/net_priv.h"

#include <string.h>

void net_filter_reset(struct net_filter_table *f)
{
	*f = (struct net_filter_table){.promisc = true};
}

static bool listed(const struct net_filter_table *f, const uint8_t *mac, unsigned from, unsigned to)
{
	for (unsigned i = from; i < to; i++)
		if (!memcmp(f->mac[i], mac, 6))
			return true;
	return false;
}

static bool wants_vlan(const struct virtio_net *c, const uint8_t *head, size_t len)
{
	unsigned id;

	if (!virtio_has(&c->vd, F_CTRL_VLAN) || len < ETH_VLAN || head[12] != 0x81 || head[13])
		return true;
	id = (head[14] & 15u) << 8 | head[15];
	return c->filter.vlan[id / 8] & 1u << id % 8;
}

static bool wants_multi(const struct net_filter_table *f, const uint8_t *mac)
{
	static const uint8_t broadcast[6] = {255, 255, 255, 255, 255, 255};

	if (!memcmp(mac, broadcast, 6))
		return !f->nobcast;
	if (f->nomulti)
		return false;
	return f->allmulti || f->too_many_multi || listed(f, mac, f->first_multi, f->count);
}

bool net_filter_wants(const struct virtio_net *c, const uint8_t *head, size_t len)
{
	const struct net_filter_table *f = &c->filter;

	if (f->promisc || !virtio_has(&c->vd, F_CTRL_RX))
		return wants_vlan(c, head, len);
	if (!wants_vlan(c, head, len))
		return false;
	if (head[0] & 1)
		return wants_multi(f, head);
	if (f->nouni)
		return false;
	return f->alluni || f->too_many_uni || !memcmp(head, c->mac, 6) ||
	       listed(f, head, 0, f->first_multi);
}
