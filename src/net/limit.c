/* limit: rate limits as token buckets: of bytes and of frames, for each direction. A bucket of bytes
 * holds at most what net_rate says, or what its rate gives in BURST_MS, but no less than one large
 * frame; a frame passes while no bucket is empty, and may overdraw them, so that large frames
 * get through at any rate. The rest waits where it is: the sender gets "no room" and a call when
 * there are tokens again. */
#include "net/backend.h"

#include <errno.h>
#include <stdlib.h>

#define NS_PER_S   UINT64_C(1000000000)
#define NS_PER_MS  UINT64_C(1000000)
#define BURST_MS   20
#define WAKE_MS    1 /* no finer: timers cost */
#define BYTES_MIN  2048
#define FRAMES_MIN 1

struct bucket {
	uint64_t rate, once; /* tokens: a second; before any of the bucket's */
	int64_t tokens, most;
	uint64_t filled_ns;
};

struct direction {
	struct timer timer; /* armed: somebody waits */
	struct limit *limit;
	int from; /* the side where its frames come in */
	struct bucket bytes, frames;
};

struct limit {
	struct net_filter filter;
	struct clock *clock;
	struct direction dir[2]; /* by the side where frames come in */
};

static void fill(struct bucket *b, uint64_t now)
{
	uint64_t passed = now - b->filled_ns;

	/* After a long time it is full; the product must not overflow. */
	if (passed / NS_PER_S > (uint64_t)b->most / b->rate) {
		b->tokens = b->most;
	} else {
		b->tokens += (int64_t)mul_div(b->rate, passed, NS_PER_S);
		/* What was rounded away stays for next time. */
		now -= passed - mul_div(mul_div(b->rate, passed, NS_PER_S), NS_PER_S, b->rate);
	}
	if (b->tokens > b->most)
		b->tokens = b->most;
	b->filled_ns = now;
}

/* 0: it lets one pass; else how long it will not. */
static uint64_t closed_ns(struct bucket *b, uint64_t now)
{
	if (!b->rate)
		return 0;
	fill(b, now);
	if (b->tokens > 0 || b->once)
		return 0;
	return max_u64(mul_div((uint64_t)-b->tokens + 1, NS_PER_S, b->rate), WAKE_MS * NS_PER_MS);
}

static void take_from(struct bucket *b, uint64_t n)
{
	uint64_t once = min_u64(b->once, n);

	b->once -= once;
	if (b->rate)
		b->tokens -= (int64_t)(n - once);
}

static void woken(struct timer *t)
{
	struct direction *d = container_of(t, struct direction, timer);

	net_room(&d->limit->filter.side[d->from]);
}

static bool allow(struct net_filter *f, int from, size_t len)
{
	struct limit *l = container_of(f, struct limit, filter);
	struct direction *d = &l->dir[from];
	uint64_t now, ns;

	if (!d->bytes.rate && !d->frames.rate)
		return true;
	now = clock_now(l->clock);
	ns = max_u64(closed_ns(&d->bytes, now), closed_ns(&d->frames, now));
	if (ns)
		timer_arm(l->clock, &d->timer, now + ns);
	return !ns;
}

static void passed(struct net_filter *f, int from, const struct net_hdr *h, const struct iovec *iov,
		   unsigned n, size_t len)
{
	struct direction *d = &container_of(f, struct limit, filter)->dir[from];

	take_from(&d->bytes, len);
	take_from(&d->frames, 1);
}

static void limit_free(struct net_filter *f)
{
	struct limit *l = container_of(f, struct limit, filter);

	for (int i = 0; i < 2; i++)
		timer_cancel(l->clock, &l->dir[i].timer);
	free(l);
}

static const struct net_filter_ops ops = {.allow = allow, .passed = passed, .free = limit_free};

static void bucket_set(struct bucket *b, const struct net_rate *r, uint64_t least, uint64_t now)
{
	uint64_t burst = r->burst ? r->burst : mul_div(r->rate, BURST_MS, 1000);

	burst = min_u64(max_u64(burst, least), INT64_MAX / 2);
	*b = (struct bucket){
		.rate = r->rate,
		.once = r->rate ? r->once : 0,
		.most = (int64_t)burst,
		.tokens = (int64_t)burst,
		.filled_ns = now,
	};
}

static void direction_set(struct limit *l, int from, const struct net_limits *to)
{
	struct direction *d = &l->dir[from];
	uint64_t now = clock_now(l->clock);

	bucket_set(&d->bytes, &to->bytes, BYTES_MIN, now);
	bucket_set(&d->frames, &to->frames, FRAMES_MIN, now);
}

bool limit_set(struct net_port *p, const struct net_limits *rx, const struct net_limits *tx)
{
	struct net_filter *f = container_of(p, struct net_filter, side[NET_CARD_SIDE]);
	struct limit *l = container_of(f, struct limit, filter);

	if (!net_filter_next(p) || f->ops != &ops)
		return false;
	direction_set(l, NET_CARD_SIDE, tx);
	direction_set(l, NET_WIRE_SIDE, rx);
	for (int i = 0; i < 2; i++) {
		timer_cancel(l->clock, &l->dir[i].timer);
		net_room(&l->filter.side[i]); /* who waited for the old ones */
	}
	return true;
}

int limit_new(struct net_filter **out, const struct net_limits *rx, const struct net_limits *tx,
	      struct loop *loop, struct err *e)
{
	struct limit *l = calloc(1, sizeof *l);

	if (!l)
		return err_sys(e, ENOMEM, "rate limit");
	net_filter_init(&l->filter, &ops);
	l->clock = loop_clock(loop);
	for (int i = 0; i < 2; i++) {
		l->dir[i].timer.fire = woken;
		l->dir[i].limit = l;
		l->dir[i].from = i;
	}
	direction_set(l, NET_CARD_SIDE, tx);
	direction_set(l, NET_WIRE_SIDE, rx);
	*out = &l->filter;
	return 0;
}
