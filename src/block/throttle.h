/* throttle: limits of an image in bytes and in requests per second. Each limit is a token bucket
 * in the form of a virtual clock (GCRA): `paid_ns` is when all that was let through is paid for
 * at the limit's rate; a request may pass while that is at most the burst ahead of now. So the
 * bucket needs no refilling, and a request larger than the burst passes, too, and is paid for
 * afterwards.
 *
 * Requests pass in the order in which they came, whatever their size or direction. Flushes are
 * never held. The loop's clock must not be paused. */
#pragma once

#include "base/clock.h"
#include "base/coro.h"
#include "block/block.h"

struct throttle_bucket {
	uint64_t rate, burst; /* units per second, units; rate 0: no limit */
	uint64_t once;        /* units that are still free of charge */
	uint64_t paid_ns;
};

struct throttle_waiter;

struct throttle {
	struct clock *clock;
	struct coros *coros;
	bool on;
	struct throttle_bucket bytes, requests;
	struct throttle_waiter *first, **last;
	struct timer timer; /* for the first one's turn */
};

void throttle_init(struct throttle *t, struct clock *clock, struct coros *coros);
/* At any time; who waits is looked at again. */
void throttle_set(struct throttle *t, const struct block_limits *l);
void throttle_done(struct throttle *t); /* nobody waits; accepts one that is all zeros */
/* In a coroutine: waits until r may pass. */
void throttle_pass(struct throttle *t, const struct block_req *r);
