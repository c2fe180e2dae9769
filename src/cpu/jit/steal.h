/* steal: a vCPU's KVM steal time. Its own thread; call jit_fpu_leave first. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct jit_cpu;

struct steal {
	int fd;           /* the thread's schedstat; 0: not open */
	bool known;       /* seen is */
	uint64_t seen;    /* how long it had waited in all, when that was counted last */
	uint64_t counted; /* TSC, then */
};

/* It does not run the guest for some time; it does again, and moves (world.h). */
void steal_away(struct jit_cpu *c);
void steal_back(struct jit_cpu *c);
/* Now and then, at a safe point. */
void steal_count(struct jit_cpu *c);
void steal_done(struct jit_cpu *c);
