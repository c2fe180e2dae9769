/* limit: rate limits as token buckets, one per direction. A bucket holds at most a burst of
 * BURST_MS at its rate, but no less than one large frame; a frame passes while the bucket
 * is not empty, and may overdraw it, so that large frames get through at any rate. The rest
 * waits where it is: the sender gets "no room" and a call when there are tokens again. */
#include "net/backend.h"

#include <errno.h>
#include <stdlib.h>

#define NS_PER_S  UINT64_C(1000000000)
#define NS_PER_MS UINT64_C(1000000)
#define BURST_MS  20
#define WAKE_MS   1 /* no finer: timers cost */

struct bucket {
	struct timer timer; /* armed: somebody waits */
	struct limit *limit;
	int from; /* the side where its frames come in */
	uint64_t bps;
	int64_t tokens, most; /* bytes */
	uint64_t filled_ns;
};

struct limit {
	struct net_filter filter;
	struct clock *clock;
	struct bucket bucket[2]; /* by the side where frames come in */
};

static void fill(struct bucket *b)
{
	uint64_t now = clock_now(b->limit->clock), passed = now - b->filled_ns;

	/* After a long time it is full; the product must not overflow. */
	if (passed > NS_PER_S) {
		b->tokens = b->most;
	} else {
		b->tokens += (int64_t)mul_div(b->bps, passed, NS_PER_S);
		/* What was rounded away stays for next time. */
		now -= passed - mul_div(mul_div(b->bps, passed, NS_PER_S), NS_PER_S, b->bps);
	}
	if (b->tokens > b->most)
		b->tokens = b->most;
	b->filled_ns = now;
}

static void wait_for_tokens(struct bucket *b)
{
	uint64_t ns = mul_div((uint64_t)-b->tokens + 1, NS_PER_S, b->bps);

	timer_arm(b->limit->clock, &b->timer,
		  clock_now(b->limit->clock) + max_u64(ns, WAKE_MS * NS_PER_MS));
}

static void woken(struct timer *t)
{
	struct bucket *b = container_of(t, struct bucket, timer);
	struct net_port *p = &b->limit->filter.side[b->from];

	net_room(p);
}

static bool allow(struct net_filter *f, int from, size_t len)
{
	struct bucket *b = &container_of(f, struct limit, filter)->bucket[from];

	if (!b->bps)
		return true;
	fill(b);
	if (b->tokens > 0)
		return true;
	wait_for_tokens(b);
	return false;
}

static void passed(struct net_filter *f, int from, const struct net_hdr *h, const struct iovec *iov,
		   unsigned n, size_t len)
{
	struct bucket *b = &container_of(f, struct limit, filter)->bucket[from];

	if (b->bps)
		b->tokens -= (int64_t)len;
}

static void limit_free(struct net_filter *f)
{
	struct limit *l = container_of(f, struct limit, filter);

	for (int i = 0; i < 2; i++)
		timer_cancel(l->clock, &l->bucket[i].timer);
	free(l);
}

static const struct net_filter_ops ops = {allow, passed, limit_free};

static void bucket_init(struct limit *l, int from, uint64_t bps)
{
	uint64_t burst = mul_div(bps, BURST_MS, 1000);

	l->bucket[from] = (struct bucket){
		.timer.fire = woken,
		.limit = l,
		.from = from,
		.bps = bps,
		.most = (int64_t)max_u64(burst, 2048),
		.tokens = (int64_t)max_u64(burst, 2048),
		.filled_ns = clock_now(l->clock),
	};
}

int limit_new(struct net_filter **out, uint64_t rx_bps, uint64_t tx_bps, struct loop *loop,
	      struct err *e)
{
	struct limit *l = calloc(1, sizeof *l);

	if (!l)
		return err_sys(e, ENOMEM, "rate limit");
	net_filter_init(&l->filter, &ops);
	l->clock = loop_clock(loop);
	bucket_init(l, NET_CARD_SIDE, tx_bps);
	bucket_init(l, NET_WIRE_SIDE, rx_bps);
	*out = &l->filter;
	return 0;
}
