/* clock: guest time, and timers on it. A device gets a clock from its maker and
 * never reads the host's. The machine's clock stands still while the VM is paused
 * (base/loop.h); tests use fake_clock (base/fake_clock.h).
 *
 * Threads: all functions may be called from any thread, fire() runs on the
 * machine's loop thread with no lock of the clock held. A cancel that returns
 * while fire() is running elsewhere does not wait for it, so fire() must check the
 * device's own state under the device's own lock. A timer must be cancelled on the
 * loop thread, or with the loop stopped, before its memory is freed. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct clock;

struct timer {
	void (*fire)(struct timer *t);
	uint64_t deadline_ns; /* owned by the clock while armed */
	uint32_t slot;        /* owned by the clock: heap position + 1, 0 when not armed */
};

struct clock_ops {
	uint64_t (*now_ns)(struct clock *c);
	void (*arm)(struct clock *c, struct timer *t, uint64_t deadline_ns);
	void (*cancel)(struct clock *c, struct timer *t);
};

struct clock {
	const struct clock_ops *ops;
};

/* Nanoseconds of guest time since the machine was made; monotonic. */
static inline uint64_t clock_now(struct clock *c)
{
	return c->ops->now_ns(c);
}

/* (Re)arms t to fire once, when now >= deadline_ns. */
static inline void timer_arm(struct clock *c, struct timer *t, uint64_t deadline_ns)
{
	c->ops->arm(c, t, deadline_ns);
}

static inline void timer_cancel(struct clock *c, struct timer *t)
{
	c->ops->cancel(c, t);
}

/* a * b / c with a 128-bit product: ticks to nanoseconds and back, no overflow. */
static inline uint64_t mul_div(uint64_t a, uint64_t b, uint64_t c)
{
	return (uint64_t)((unsigned __int128)a * b / c);
}
