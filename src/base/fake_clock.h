/* fake_clock: a clock that stands where the test puts it. Single-threaded. */
#pragma once

#include "base/bits.h"
#include "base/clock.h"

struct fake_clock {
	struct clock clock;
	uint64_t now_ns;
	struct timer *armed[32];
};

void fake_clock_init(struct fake_clock *f);

/* Moves time forward, firing due timers in order of their deadlines, each with
 * now() standing at its own deadline. */
void fake_clock_advance(struct fake_clock *f, uint64_t by_ns);
