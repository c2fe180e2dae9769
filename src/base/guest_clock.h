/* guest_clock: the machine's clock: the host's monotonic clock with a shift, that can
 * stand still. It keeps the armed timers in a heap and one timerfd set for the first of
 * them; its owner (base/loop.c) waits on the timerfd and calls guest_clock_fire.
 *
 * Threads: all but init, done and fire may be called from any thread. Reading the time
 * takes no lock: a sequence count guards the shift. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "base/bits.h"
#include "base/clock.h"
#include "base/err.h"

/* Guests cannot make timers: each device and vCPU has a fixed few. */
#define GUEST_CLOCK_MAX_TIMERS 4096

struct guest_clock {
	struct clock clock;
	int timerfd;

	_Atomic uint32_t seq; /* odd while the two below change */
	_Atomic bool paused;
	_Atomic uint64_t
		shift; /* guest time = host time + shift; while paused, guest time itself */

	pthread_mutex_t lock; /* guards the rest, and writes to the above */
	struct timer **heap;  /* by deadline, earliest first */
	uint32_t count;
	uint64_t programmed_ns; /* guest time the timerfd is set to; UINT64_MAX: not set */
};

/* The memory is the caller's; the clock starts at 0, running. */
WARN_UNUSED int guest_clock_init(struct guest_clock *g, struct err *e);
void guest_clock_done(struct guest_clock *g); /* accepts one that failed to init */

void guest_clock_pause(struct guest_clock *g, bool paused);
void guest_clock_set(struct guest_clock *g, uint64_t now_ns);

/* The timerfd is readable: fires what is due, then sets the timerfd anew. Not more timers
 * than were armed on entry, so one that rearms itself in the past cannot hold the thread. */
void guest_clock_fire(struct guest_clock *g);
