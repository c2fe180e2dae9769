#include "net/net.h"

static void tell_caps(struct net_port *p)
{
	if (p && p->ops->caps_changed)
		p->ops->caps_changed(p);
}

void net_connect(struct net_port *a, struct net_port *b)
{
	if (a)
		a->peer = b;
	if (b)
		b->peer = a;
	tell_caps(a);
	tell_caps(b);
}

bool net_send(struct net_port *p, const struct net_hdr *h, const struct iovec *iov, unsigned n)
{
	return !p->peer || p->peer->ops->take(p->peer, h, iov, n);
}

void net_flush(struct net_port *p)
{
	if (p->peer && p->peer->ops->flush)
		p->peer->ops->flush(p->peer);
}

void net_room(struct net_port *p)
{
	if (p->peer && p->peer->ops->room)
		p->peer->ops->room(p->peer);
}

void net_link(struct net_port *p, bool up)
{
	if (p->peer && p->peer->ops->link)
		p->peer->ops->link(p->peer, up);
}

void net_announce(struct net_port *p)
{
	if (p->peer && p->peer->ops->announce)
		p->peer->ops->announce(p->peer);
}

void net_start(struct net_port *p)
{
	if (p->peer && p->peer->ops->start)
		p->peer->ops->start(p->peer);
}

void net_set_caps(struct net_port *p, unsigned caps)
{
	if (p->caps == caps)
		return;
	p->caps = caps;
	tell_caps(p->peer);
}

unsigned net_peer_caps(const struct net_port *p)
{
	return p->peer ? p->peer->caps : NET_CAP_ALL;
}
