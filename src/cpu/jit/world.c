#include "cpu/jit/world.h"

#define LOOKS                                                                                      \
	200 /* at a member that runs, before sleeping: most are a few blocks away from still */

void world_add(struct world *w, struct world_member *m)
{
	w->member[w->members++] = m;
}

void world_remove(struct world *w, struct world_member *m)
{
	for (unsigned i = 0; i < w->members; i++)
		if (w->member[i] == m) {
			w->member[i] = w->member[--w->members];
			return;
		}
}

/* Pairs with world_stop: it says that the world is stopped and then looks at our state, we do it
 * the other way round; so one of us sees the other. */
void world_still(struct world *w, struct world_member *m, enum world_state how)
{
	atomic_store(&m->state, how);
	if (!atomic_load(&w->stopped))
		return;
	atomic_fetch_add(&w->came_still, 1);
	futex_wake(&w->came_still, 1);
}

void world_move(struct world *w, struct world_member *m)
{
	uint32_t still = atomic_load_explicit(&m->state, memory_order_relaxed);

	for (;;) {
		atomic_store(&m->state, WORLD_MOVES);
		if (!atomic_load(&w->stopped))
			return;
		world_still(w, m, (enum world_state)still);
		futex_wait(&w->stopped, 1);
	}
}

static bool moves(const struct world_member *m)
{
	return atomic_load(&m->state) == WORLD_MOVES;
}

static void wait_for(struct world *w, const struct world_member *m)
{
	for (unsigned i = 0; i < LOOKS; i++) {
		if (!moves(m))
			return;
		__builtin_ia32_pause();
	}
	for (;;) {
		uint32_t seen = atomic_load(&w->came_still);

		if (!moves(m))
			return;
		futex_wait(&w->came_still, seen);
	}
}

void world_stop(struct world *w, struct world_member *m, enum world_state how)
{
	world_still(w, m, how);
	futex_take(&w->turn);
	m->stopping = true;
	atomic_store(&w->stopped, 1);
	for (unsigned i = 0; i < w->members; i++)
		if (moves(w->member[i]))
			atomic_store(w->member[i]->attention, 1);
	for (unsigned i = 0; i < w->members; i++)
		wait_for(w, w->member[i]);
}

void world_go(struct world *w, struct world_member *m)
{
	m->stopping = false;
	atomic_store(&m->state, WORLD_MOVES);
	atomic_store(&w->stopped, 0);
	if (w->members > 1) /* else nobody waits */
		futex_wake(&w->stopped, WORLD_MAX);
	futex_give(&w->turn);
}

bool world_all_out(const struct world *w)
{
	for (unsigned i = 0; i < w->members; i++)
		if (atomic_load(&w->member[i]->state) == WORLD_MID)
			return false;
	return true;
}
