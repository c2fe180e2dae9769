/* backend: from options to a wire: backend - limits - capture - card. */
#include "net/backend.h"
#include "net/service.h"

#include <stdarg.h>
#include <stdio.h>

void net_warn(const struct net_warn *w, const char *fmt, ...)
{
	char text[256];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof text, fmt, args);
	va_end(args);
	if (w->warn)
		w->warn(w->ctx, text);
}

/* Puts a filter between the card and what has been made so far. */
static void put_before(struct net_port **wire, struct net_filter *f)
{
	net_connect(&f->side[NET_WIRE_SIDE], *wire);
	*wire = &f->side[NET_CARD_SIDE];
}

static int add_filters(struct net_port **wire, const struct net_opts *o, struct loop *l,
		       struct err *e)
{
	const struct net_warn warn = {o->warn, o->warn_ctx};
	struct net_filter *f;
	int r;

	/* There even without limits: they can be set while the VM runs. */
	r = limit_new(&f, &o->rx, &o->tx, l, e);
	if (r < 0)
		return r;
	put_before(wire, f);
	if (o->service) {
		r = service_new(&f, o->service, l, e);
		if (r < 0)
			return r;
		put_before(wire, f);
	}
	if (o->capture) {
		r = capture_new(&f, o->capture, o->vm, &warn, l, e);
		if (r < 0)
			return r;
		put_before(wire, f);
	}
	return 0;
}

int net_backend_new(struct net_port **out, struct net_port *card, const struct net_opts *o,
		    struct loop *l, struct err *e)
{
	static int (*const make[])(struct net_port **, const struct net_opts *, struct loop *,
				   struct err *) = {
		[NET_USER] = user_new,
		[NET_TAP] = tap_new,
		[NET_BRIDGE] = tap_new,
		[NET_SWITCH] = switch_new,
	};
	struct net_port *wire;
	int r = make[o->kind](&wire, o, l, e);

	if (r < 0)
		return r;
	r = add_filters(&wire, o, l, e);
	if (r < 0) {
		net_backend_free(wire);
		return r;
	}
	net_connect(wire, card);
	*out = wire;
	return 0;
}

/* p is the end of a wire of filters and a backend; each filter knows the next by its other
 * side's peer. */
void net_backend_free(struct net_port *p)
{
	while (p) {
		struct net_port *next = net_filter_next(p);

		net_connect(p->peer, NULL);
		if (next)
			next->peer = NULL; /* the filter's other side, which goes with it */
		p->ops->free(p);
		p = next;
	}
}

void net_backend_set_limits(struct net_port *p, const struct net_limits *rx,
			    const struct net_limits *tx)
{
	while (p && !limit_set(p, rx, tx))
		p = net_filter_next(p);
}
