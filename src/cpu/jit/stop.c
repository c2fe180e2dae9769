/* stop: how a vCPU takes part in stopping the world (world.h), and what it then has to do to
 * what it derived from the code cache. Others leave that for it to do, since it alone uses it
 * and may be asleep for long. */
#include "cpu/jit/pcid.h"

/* Moves, or has stopped the others: then what others left to do is done. */
static void catch_up(struct jit_cpu *c)
{
	struct jit_priv *p = c->p;

	if (p->unwrites)
		jit_fpu_leave(c); /* windows are not quick */
	if (p->unwrites == 1)
		jit_tlb_unwrite(c, p->unwrite);
	else if (p->unwrites)
		jit_tlb_unwrite_all(c);
	p->unwrites = 0;
	if (!p->flushed)
		return;
	p->flushed = false;
	jit_pcid_drop_code(c);
	for (enum jit_mmu m = 0; m < 3; m++) {
		jit_jump_clear(c, m);
		jit_itlb_clear(c, m, true);
	}
}

void jit_not_writing(struct jit_cpu *c)
{
	if (atomic_load_explicit(&c->p->writing, memory_order_relaxed))
		atomic_store_explicit(&c->p->writing, 0, memory_order_release);
}

/* In a stopped world there is nothing more to be still for. */
void jit_still(struct jit_cpu *c, enum world_state how)
{
	if (c->p->member.stopping)
		return;
	jit_not_writing(c);
	world_still(&c->vm->world, &c->p->member, how);
}

void jit_move(struct jit_cpu *c)
{
	if (c->p->member.stopping)
		return;
	world_move(&c->vm->world, &c->p->member);
	catch_up(c);
}

void jit_rest(struct jit_cpu *c)
{
	jit_not_writing(c);
	world_rest(&c->vm->world, &c->p->member);
	catch_up(c);
}

void jit_stop(struct jit_cpu *c, enum world_state how)
{
	jit_not_writing(c);
	world_stop(&c->vm->world, &c->p->member, how);
	catch_up(c);
}

void jit_go(struct jit_cpu *c)
{
	world_go(&c->vm->world, &c->p->member);
}

#define PAUSES 128 /* some microseconds */

void h_pause(struct jit_cpu *c, uint64_t arg)
{
	c->pauses = PAUSES;
	if (c->vm->world.members == 1)
		return; /* it waits for time to pass, as firmware does: nobody here makes it shorter */
	jit_fpu_leave(c);
	jit_still(c, WORLD_MID);
	steal_away(c);
	futex_yield();
	jit_move(c);
	steal_back(c);
}

void jit_cache_lock(struct jit_cpu *c)
{
	futex_take(&c->vm->cache.lock);
	c->p->locked = true;
}

void jit_cache_unlock(struct jit_cpu *c)
{
	c->p->locked = false;
	futex_give(&c->vm->cache.lock);
}

void jit_release(struct jit_cpu *c)
{
	if (c->p->locked)
		jit_cache_unlock(c);
	if (c->p->member.stopping)
		jit_go(c);
}

void jit_watch_page(struct jit_cpu *c, gpa_t gpa)
{
	struct jit_vm *vm = c->vm;

	gpa &= ~0xfffull;
	if (jit_code_on_page(&vm->cache, gpa))
		return;
	mem_mark(c->env->mem, gpa);
	jit_code_watch(&vm->cache, gpa);
	for (unsigned i = 0; i < vm->cpus; i++)
		if (vm->cpu[i] != c) {
			vm->cpu[i]->p->unwrite = gpa;
			vm->cpu[i]->p->unwrites++;
		}
	jit_tlb_unwrite(c, gpa);
}

void jit_writing(struct jit_cpu *c, gpa_t gpa)
{
	atomic_store(&c->p->writing, (gpa >> 12) + 1); /* before the look at the claims */
}

bool jit_writer_on(const struct jit_cpu *c, gpa_t gpa)
{
	const struct jit_vm *vm = c->vm;

	for (unsigned i = 0; i < vm->cpus; i++)
		if (vm->cpu[i] != c && atomic_load(&vm->cpu[i]->p->writing) == (gpa >> 12) + 1)
			return true;
	return false;
}

void jit_flush_all(struct jit_cpu *c, uint64_t flushes)
{
	struct jit_cache *k = &c->vm->cache;

	for (;;) {
		jit_stop(c, WORLD_OUT);
		if (k->flushes != flushes || world_all_out(&c->vm->world))
			break;
		jit_go(c); /* let him finish who will go back into a block */
		futex_pause();
	}
	if (k->flushes == flushes) {
		jit_cache_flush(k);
		for (unsigned i = 0; i < c->vm->cpus; i++)
			c->vm->cpu[i]->p->flushed = true;
		catch_up(c);
	}
	jit_go(c);
}
