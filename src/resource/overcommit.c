#include "resource/overcommit.h"

#define IDLE_LOOKS    6u /* half a minute */
#define BUSY_LOOKS    2u
#define SETTLE_LOOKS  4u /* the guest has to do it, and to say how it stands then */
#define IDLE_PERMILLE 50u
#define MARGIN_MIN    MIB(48)
#define STEP_MIN      MIB(4) /* less is not worth asking for */

bool overcommit_is_idle(const struct overcommit *o)
{
	return o->idle_looks >= IDLE_LOOKS;
}

/* Filling the balloon is work, which counts for nothing. */
static void note_use(struct overcommit *o, uint64_t now_ns, uint64_t used_ns)
{
	uint64_t passed = now_ns - o->looked_ns, used = used_ns - o->used_ns;
	bool first = !o->looked_ns, busy = used > passed / 1000 * IDLE_PERMILLE;

	o->looked_ns = now_ns;
	o->used_ns = used_ns;
	if (o->settling || first)
		return;
	o->busy_looks = busy ? o->busy_looks + 1 : 0;
	if (o->busy_looks >= BUSY_LOOKS)
		o->idle_looks = 0;
	else if (o->idle_looks < IDLE_LOOKS)
		o->idle_looks++;
}

static uint64_t less(uint64_t a, uint64_t b)
{
	return a - min_u64(a, b);
}

/* Air, beyond what it works with. */
static uint64_t margin(uint64_t used)
{
	return max_u64(MARGIN_MIN, used / 4);
}

static uint64_t wants(const struct overcommit_guest *g, uint64_t *used)
{
	uint64_t kernels = less(g->ram_bytes, g->balloon_bytes + g->total_bytes);

	*used = less(g->total_bytes, g->available_bytes) + kernels;
	return min_u64(*used + margin(*used), g->ram_bytes);
}

/* The balloon that leaves it want; down: at most so much smaller than now. */
static uint64_t leave(const struct overcommit_guest *g, uint64_t want, uint64_t step)
{
	uint64_t target = less(g->ram_bytes, want);

	return min_u64(target, g->target_bytes + step);
}

static uint64_t target(const struct overcommit *o, enum host_level host,
		       const struct overcommit_guest *g, const char **why)
{
	uint64_t now = g->target_bytes, has = less(g->ram_bytes, now), used, want = wants(g, &used);
	bool idle = overcommit_is_idle(o);

	/* Whoever is about to run out gets some back, idle or not. */
	if (now && g->available_bytes < margin(used) / 2 && host != HOST_CRITICAL) {
		*why = "needs";
		return less(now, max_u64(has / 4, MIB(32)));
	}
	if (idle && (host != HOST_CALM || o->mode == OVERCOMMIT_IDLE)) {
		*why = host != HOST_CALM ? "host" : "idle";
		return max_u64(now, leave(g, want, g->ram_bytes));
	}
	if (host == HOST_CRITICAL) {
		/* Bit by bit: it is at work, and those who are not give at once. */
		*why = "host";
		return max_u64(now, leave(g, want, max_u64(has / 8, STEP_MIN)));
	}
	if (host == HOST_CALM && !idle) {
		*why = "calm";
		return 0;
	}
	return now;
}

uint64_t overcommit_look(struct overcommit *o, uint64_t now_ns, enum host_level host,
			 const struct overcommit_guest *g, const char **why)
{
	uint64_t now = g->target_bytes, to;

	note_use(o, now_ns, g->used_ns);
	if (o->settling) {
		o->settling--;
		return now;
	}
	if (o->mode == OVERCOMMIT_OFF || !g->says)
		return now;
	to = target(o, host, g, why);
	if ((to > now ? to - now : now - to) < STEP_MIN && to)
		return now;
	if (to != now)
		o->settling = SETTLE_LOOKS;
	return to;
}
