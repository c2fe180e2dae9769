/* backend: the kinds of backends and filters, each made by one function. A backend is one port;
 * its maker is given all it needs, and connects nothing. */
#pragma once

#include "net/net.h"

/* How a backend tells people what went wrong while it runs. */
struct net_warn {
	void (*warn)(void *ctx, const char *text);
	void *ctx;
};

__attribute__((format(printf, 2, 3))) void net_warn(const struct net_warn *w, const char *fmt, ...);

WARN_UNUSED int user_new(struct net_port **out, const struct net_opts *o, struct loop *l,
			 struct err *e);
WARN_UNUSED int tap_new(struct net_port **out, const struct net_opts *o, struct loop *l,
			struct err *e);
WARN_UNUSED int switch_new(struct net_port **out, const struct net_opts *o, struct loop *l,
			   struct err *e);

/* A filter: frames from either side go out at the other, when the filter lets them. */
enum { NET_CARD_SIDE, NET_WIRE_SIDE };

struct net_filter {
	struct net_port side[2];
	const struct net_filter_ops *ops;
};

struct net_filter_ops {
	/* Asked before a frame that came in at side from goes on; false: not now (the filter
	 * calls net_room of that side later). May be NULL. */
	bool (*allow)(struct net_filter *f, int from, size_t len);
	/* Takes a frame that came in at side from off the wire: true. May be NULL. */
	bool (*takes)(struct net_filter *f, int from, const struct net_hdr *h,
		      const struct iovec *iov, unsigned n);
	/* Who is at that side has room again, for frames of the filter's own, too. May be NULL. */
	void (*room)(struct net_filter *f, int side);
	/* It went on. May be NULL. */
	void (*passed)(struct net_filter *f, int from, const struct net_hdr *h,
		       const struct iovec *iov, unsigned n, size_t len);
	void (*free)(struct net_filter *f);
};

void net_filter_init(struct net_filter *f, const struct net_filter_ops *ops);
/* p: the card side of a filter: what its wire side is connected to. NULL: p is no filter's. */
struct net_port *net_filter_next(struct net_port *p);

WARN_UNUSED int limit_new(struct net_filter **out, const struct net_limits *rx,
			  const struct net_limits *tx, struct loop *l, struct err *e);
/* False: p, the end of a wire, is not the card side of such a filter. */
bool limit_set(struct net_port *p, const struct net_limits *rx, const struct net_limits *tx);
WARN_UNUSED int capture_new(struct net_filter **out, const char *file, const char *vm,
			    const struct net_warn *w, struct loop *l, struct err *e);
