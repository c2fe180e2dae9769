/* world: the vCPUs of a VM, and how one of them stops all others for what must not happen
 * while translated code runs: killing blocks, throwing the code cache away, taking write access
 * to a page from every soft TLB.
 *
 * A member moves, or is still. It moves while it runs the guest, helpers included; it touches
 * blocks, code pages and its TLBs only then. It is still out of translated code (WORLD_OUT), or
 * amid a helper (WORLD_MID) that will go back into the block that called it, so that the block's
 * memory must not be used for another: in a device, or when it wants to stop the others itself.
 *
 * world_stop returns when all others are still; they stay so until world_go. A member that moves
 * and whose attention is raised calls world_rest soon. Nobody holds a lock of the code cache at
 * a safe point, so the lock is free while the world is stopped.
 *
 * Quick code; any thread, each for its own member. Members come and go only while none moves. */
#pragma once

#include <stdbool.h>

#include "cpu/jit/futex.h"

enum world_state { WORLD_OUT, WORLD_MID, WORLD_MOVES };

#define WORLD_MAX 256

struct world_member {
	_Atomic uint32_t state;      /* enum world_state */
	_Atomic uint32_t *attention; /* raised to have it come to a safe point */
	bool stopping;               /* its own: it has stopped the others */
};

struct world {
	struct futex_lock turn;      /* held by the member that stops */
	_Atomic uint32_t stopped;    /* futex: 1 while the others are to be still */
	_Atomic uint32_t came_still; /* futex: counts those that became so meanwhile */
	struct world_member *member[WORLD_MAX];
	unsigned members;
};

void world_add(struct world *w, struct world_member *m);
void world_remove(struct world *w, struct world_member *m);

/* From moving to still; not while it stops others. */
void world_still(struct world *w, struct world_member *m, enum world_state how);
/* And back; waits while the world is stopped. */
void world_move(struct world *w, struct world_member *m);
/* At a safe point out of translated code: lets others stop the world. */
static inline void world_rest(struct world *w, struct world_member *m)
{
	if (!atomic_load_explicit(&w->stopped, memory_order_seq_cst))
		return;
	world_still(w, m, WORLD_OUT);
	world_move(w, m);
}

/* how: where m is, which is still for others' stops until its own begins. */
void world_stop(struct world *w, struct world_member *m, enum world_state how);
void world_go(struct world *w, struct world_member *m); /* m moves afterwards */
/* Of a stopped world: no member is amid a helper. */
bool world_all_out(const struct world *w);
