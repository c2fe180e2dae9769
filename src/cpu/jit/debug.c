/* debug: points at which a debugger stops the vCPU, and its single steps. The guest's own debug
 * registers are not touched, and nothing of this can be seen from inside.
 *
 * Execution: no block begins at a point (the run loop stops there) or goes on over one. Data: jit_miss
 * and the C ways to memory notice an access that touches a point; the instruction is then done anew in
 * step mode, where the touch is noted, and the vCPU stops behind it. An access on the way into
 * an event's handler, or in a task switch, cannot begin anew: it is noted at once. */
#include "cpu/jit/core.h"

static bool overlap(uint64_t a, uint64_t a_len, uint64_t b, uint64_t b_len)
{
	return a - b < b_len || b - a < a_len;
}

static bool watches(const struct debug_point *p, bool write)
{
	return p->kind == DEBUG_ACCESS || p->kind == (write ? DEBUG_WRITE : DEBUG_READ);
}

static const struct debug_point *find(const struct jit_cpu *c, uint64_t gva, uint64_t len,
				      bool write)
{
	const struct engine_debug *d = &c->p->debug.want;

	for (unsigned n = 0; n < d->points; n++)
		if (watches(&d->point[n], write) &&
		    overlap(gva, len, d->point[n].gva, d->point[n].len))
			return &d->point[n];
	return NULL;
}

static void hit(struct jit_cpu *c, struct debug_hit what)
{
	c->vcpu.hit = what;
	c->p->debug.hit = true;
	atomic_store_explicit(&c->attention, 1, memory_order_relaxed);
}

bool jit_debug_ends_any(const struct jit_vm *vm, uint64_t gva)
{
	for (unsigned i = 0; vm->debug && i < vm->cpus; i++)
		if (jit_debug_ends_block(vm->cpu[i], gva))
			return true;
	return false;
}

bool jit_debug_here(struct jit_cpu *c)
{
	uint64_t gva = jit_linear_rip(c);

	if (!jit_debug_ends_block(c, gva))
		return false;
	hit(c, (struct debug_hit){.kind = DEBUG_EXEC, .gva = gva});
	return true;
}

void jit_debug_stepped(struct jit_cpu *c)
{
	hit(c, (struct debug_hit){.step = true});
}

bool jit_debug_watched(const struct jit_cpu *c, uint64_t gva, uint64_t len, bool write)
{
	return find(c, gva, len, write);
}

void jit_debug_touch(struct jit_cpu *c, uint64_t gva, uint64_t len, bool write)
{
	const struct debug_point *p = find(c, gva, len, write);

	if (!p)
		return;
	if (!c->p->stepping && !c->delivering && !c->committed)
		jit_leave(c, LEAVE_STEP);
	hit(c, (struct debug_hit){.kind = p->kind, .gva = p->gva});
}
