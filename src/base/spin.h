/* spin: how long it pays to look again and again before going to sleep. Sleeping and being
 * woken costs some ten microseconds and more; when what is waited for tends to come sooner than
 * that, looking is better. When it does not, looking is a waste, and stops.
 *
 * The budget grows while waits end soon after it was used up, and drops to nothing at the first
 * wait that was longer than looking could ever have covered: an idle guest pays nothing. */
#pragma once

#include <stdint.h>
#include <time.h>

#define SPIN_FIRST_NS 4000u

struct spin {
	uint32_t max_ns; /* 0: never */
	uint32_t budget_ns;
};

static inline uint64_t spin_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* A wait took that long, looking included. */
static inline void spin_waited(struct spin *s, uint64_t waited_ns)
{
	if (waited_ns > s->max_ns)
		s->budget_ns = 0;
	else if (waited_ns > s->budget_ns)
		s->budget_ns = s->budget_ns ? s->budget_ns * 2 : SPIN_FIRST_NS;
	if (s->budget_ns > s->max_ns)
		s->budget_ns = s->max_ns;
}

/* max_ns, or 0 where this process has one processor: who looks there keeps away what it waits
 * for. */
uint32_t spin_limit(uint32_t max_ns);
