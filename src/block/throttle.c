#include "block/throttle.h"

#include <assert.h>

#define SECOND_NS UINT64_C(1000000000)
/* Without a burst of its own a limit allows what it gives in this part of a second. */
#define DEFAULT_BURST_PART 10

struct throttle_waiter {
	uint64_t bytes;
	struct coro *coro;
	struct throttle_waiter *next;
};

static uint64_t cost_ns(const struct throttle_bucket *b, uint64_t units)
{
	return mul_div(units, SECOND_NS, b->rate);
}

/* When the next may pass, whatever it costs; 0: now. */
static uint64_t opens_at(const struct throttle_bucket *b, uint64_t now)
{
	uint64_t ahead = b->rate ? cost_ns(b, b->burst) : 0;

	return b->rate && !b->once && b->paid_ns > now + ahead ? b->paid_ns - ahead : 0;
}

static void pay(struct throttle_bucket *b, uint64_t now, uint64_t units)
{
	uint64_t free_units = min_u64(b->once, units);

	b->once -= free_units;
	units -= free_units;
	if (b->rate && units)
		b->paid_ns = (b->paid_ns > now ? b->paid_ns : now) + cost_ns(b, units);
}

/* 0: passed and paid for; otherwise when to try again. */
static uint64_t try_pass(struct throttle *t, uint64_t bytes)
{
	uint64_t now = clock_now(t->clock);
	uint64_t at = max_u64(opens_at(&t->bytes, now), opens_at(&t->requests, now));

	if (at == 0) {
		pay(&t->bytes, now, bytes);
		pay(&t->requests, now, 1);
	}
	return at;
}

static void let_pass(struct throttle *t)
{
	struct throttle_waiter *w = t->first, *end, *next;
	uint64_t at = 0;

	while (t->first && !(at = try_pass(t, t->first->bytes)))
		t->first = t->first->next;
	if (at)
		timer_arm(t->clock, &t->timer, at);
	end = t->first;
	if (!end)
		t->last = &t->first;
	for (; w != end; w = next) {
		next = w->next;
		coro_wake(w->coro); /* w is gone now; after the last one, t may be */
	}
}

static void on_turn(struct timer *timer)
{
	let_pass(container_of(timer, struct throttle, timer));
}

void throttle_init(struct throttle *t, struct clock *clock, struct coros *coros)
{
	*t = (struct throttle){.clock = clock, .coros = coros, .timer.fire = on_turn};
	t->last = &t->first;
}

static void set_bucket(struct throttle_bucket *b, uint64_t rate, uint64_t burst, uint64_t once,
		       uint64_t now)
{
	b->rate = rate;
	b->once = rate ? once : 0;
	b->burst = burst ? burst : rate / DEFAULT_BURST_PART;
	/* What the old limit left to be paid does not weigh more under the new one. */
	if (rate)
		b->paid_ns = min_u64(b->paid_ns, now + cost_ns(b, b->burst));
}

void throttle_set(struct throttle *t, const struct block_limits *l)
{
	uint64_t now = clock_now(t->clock);

	set_bucket(&t->bytes, l->bps, l->bps_burst, l->bps_once, now);
	set_bucket(&t->requests, l->iops, l->iops_burst, l->iops_once, now);
	t->on = l->bps || l->iops;
	let_pass(t);
}

void throttle_done(struct throttle *t)
{
	if (!t->clock)
		return;
	assert(!t->first);
	timer_cancel(t->clock, &t->timer);
}

static uint64_t bytes_of(const struct block_req *r)
{
	return r->op == BLOCK_DISCARD || (r->flags & BLOCK_UNMAP) ? 0 : r->len;
}

void throttle_pass(struct throttle *t, const struct block_req *r)
{
	struct throttle_waiter w = {bytes_of(r), coro_self(t->coros), NULL};
	uint64_t at;

	if (r->op == BLOCK_FLUSH || (!t->on && !t->first))
		return;
	if (!t->first) {
		at = try_pass(t, w.bytes);
		if (!at)
			return;
		timer_arm(t->clock, &t->timer, at);
	}
	*t->last = &w;
	t->last = &w.next;
	coro_wait(t->coros);
}
