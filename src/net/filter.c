/* filter: the two ports of a filter. All but frames passes through unchanged: caps, link,
 * room, start. */
#include "net/backend.h"

static struct net_filter *filter_of(struct net_port *p, int *side);

static struct net_port *other(struct net_port *p)
{
	int side;
	struct net_filter *f = filter_of(p, &side);

	return &f->side[!side];
}

static bool take(struct net_port *p, const struct net_hdr *h, const struct iovec *iov, unsigned n)
{
	int side;
	struct net_filter *f = filter_of(p, &side);
	size_t len = 0;

	if (f->ops->takes && f->ops->takes(f, side, h, iov, n))
		return true;
	for (unsigned i = 0; i < n; i++)
		len += iov[i].iov_len;
	if (f->ops->allow && !f->ops->allow(f, side, len))
		return false;
	if (!net_send(other(p), h, iov, n))
		return false;
	if (f->ops->passed)
		f->ops->passed(f, side, h, iov, n, len);
	return true;
}

static void flush(struct net_port *p)
{
	net_flush(other(p));
}

static void room(struct net_port *p)
{
	int side;
	struct net_filter *f = filter_of(p, &side);

	if (f->ops->room)
		f->ops->room(f, side);
	net_room(other(p));
}

/* What one side takes is what is behind the other. */
static void caps_changed(struct net_port *p)
{
	net_set_caps(other(p), net_peer_caps(p));
}

static void link_changed(struct net_port *p, bool up)
{
	net_link(other(p), up);
}

static void announce(struct net_port *p)
{
	net_announce(other(p));
}

static void start(struct net_port *p)
{
	net_start(other(p));
}

static void free_port(struct net_port *p)
{
	int side;
	struct net_filter *f = filter_of(p, &side);

	f->ops->free(f);
}

static const struct net_port_ops sides[2] = {
	{take, flush, room, caps_changed, link_changed, announce, start, free_port},
	{take, flush, room, caps_changed, link_changed, announce, start, free_port},
};

/* Which table a port has tells which side it is. */
static struct net_filter *filter_of(struct net_port *p, int *side)
{
	*side = p->ops == &sides[NET_WIRE_SIDE] ? NET_WIRE_SIDE : NET_CARD_SIDE;
	return *side == NET_WIRE_SIDE ? container_of(p, struct net_filter, side[NET_WIRE_SIDE])
				      : container_of(p, struct net_filter, side[NET_CARD_SIDE]);
}

void net_filter_init(struct net_filter *f, const struct net_filter_ops *ops)
{
	f->ops = ops;
	f->side[NET_CARD_SIDE].ops = &sides[NET_CARD_SIDE];
	f->side[NET_WIRE_SIDE].ops = &sides[NET_WIRE_SIDE];
	for (int i = 0; i < 2; i++) /* nothing is behind the other yet */
		f->side[i].caps = net_peer_caps(&f->side[!i]);
}

struct net_port *net_filter_next(struct net_port *p)
{
	return p->ops == &sides[NET_CARD_SIDE] ? other(p)->peer : NULL;
}
