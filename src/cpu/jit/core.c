/* core: the run loop. It finds the block for the guest's RIP, enters it, and looks after
 * what comes back: edges to link, faults to deliver, instructions to step, interrupts, halts.
 *
 * jit_leave jumps to the setjmp at the top of the loop from any depth of helpers; nothing in
 * that frame but the vCPU lives across it. */
#include "cpu/jit/core.h"
#include "cpu/jit/walk.h"
#include "cpu/jit/window.h"

noreturn void jit_leave(struct jit_cpu *c, enum jit_leave why)
{
	c->p->leave = why;
	__builtin_longjmp(c->p->env, 1);
}

noreturn void jit_raise(struct jit_cpu *c, enum x86_vector v)
{
	c->exc = (struct jit_exception){.vector = (uint8_t)v};
	jit_leave(c, LEAVE_RAISE);
}

noreturn void jit_raise_err(struct jit_cpu *c, enum x86_vector v, uint32_t error)
{
	c->exc = (struct jit_exception){.vector = (uint8_t)v, .has_error = true, .error = error};
	jit_leave(c, LEAVE_RAISE);
}

noreturn void jit_raise_pf(struct jit_cpu *c, uint64_t gva, uint32_t error)
{
	c->st.cr2 = gva;
	jit_raise_err(c, X86_PF, error);
}

noreturn void jit_shutdown(struct jit_cpu *c)
{
	jit_leave(c, LEAVE_SHUTDOWN);
}

static bool seg_flat(const struct x86_seg *s)
{
	return s->base == 0 && s->limit == 0xffffffff && !(s->attr & SEG_UNUSABLE);
}

/* All four may be addressed without a check: flat, data writable and not expand-down. */
static bool segs_flat(const struct x86_state *s)
{
	static const uint8_t data[] = {X86_SS, X86_DS, X86_ES};

	if (!seg_flat(&s->seg[X86_CS]) || (s->seg[X86_CS].attr & 0xa) != 0xa)
		return false;
	for (unsigned i = 0; i < sizeof data; i++)
		if (!seg_flat(&s->seg[data[i]]) || (s->seg[data[i]].attr & 0xe) != 0x2)
			return false;
	return true;
}

static uint32_t fpu_mode(const struct x86_state *s)
{
	uint32_t mode = 0;

	if (s->cr0 & (CR0_EM | CR0_TS))
		mode |= MODE_NOFPU;
	if (s->cr0 & CR0_EM)
		mode |= MODE_EM;
	if ((s->cr0 & CR0_EM) || !(s->cr4 & CR4_OSFXSR))
		mode |= MODE_NOSSE;
	if ((s->cr0 & CR0_TS) && (s->cr0 & CR0_MP))
		mode |= MODE_NOWAIT;
	if ((s->cr4 & CR4_OSXSAVE) && (s->xcr0 & 6) == 6)
		mode |= MODE_AVX | ((s->xcr0 & XCR0_AVX512) == XCR0_AVX512 ? MODE_AVX512 : 0);
	return mode;
}

static bool same_cs(struct jit_cs a, struct jit_cs b)
{
	return a.base == b.base && a.limit == b.limit;
}

void jit_mode_update(struct jit_cpu *c)
{
	const struct x86_state *s = &c->st;
	uint32_t mode = fpu_mode(s);
	struct jit_cs cs = {0, 0xffffffff};

	if (!(s->cr0 & CR0_PE) || (s->rflags & RFLAGS_VM))
		mode |= MODE_REAL | MODE_SEGS;
	else if (jit_long_mode(c) && (s->seg[X86_CS].attr & SEG_L))
		mode |= MODE_CODE64;
	else
		mode |= (s->seg[X86_CS].attr & SEG_DB ? MODE_CODE32 : 0) |
			(segs_flat(s) ? 0 : MODE_SEGS);
	if (mode & MODE_SEGS)
		cs = (struct jit_cs){(uint32_t)s->seg[X86_CS].base, s->seg[X86_CS].limit};
	/* 64-bit code takes no notice of SS.B, which SYSCALL sets and an interrupt clears. */
	if ((s->seg[X86_SS].attr & SEG_DB) && !(mode & MODE_CODE64))
		mode |= MODE_STACK32;
	if (s->cr0 & CR0_PG)
		mode |= MODE_PAGING;
	if (s->cr4 & CR4_LA57)
		mode |= MODE_LA57;
	c->mmu = MMU_KERNEL;
	if (jit_cpl(c) == 3) {
		mode |= MODE_USER;
		c->mmu = MMU_USER;
		if ((s->rflags & RFLAGS_AC) && (s->cr0 & CR0_AM))
			mode |= MODE_ALIGN;
		else if ((mode & MODE_CODE64) && jit_window_enter(c))
			mode |= MODE_DIRECT;
	} else if ((s->rflags & RFLAGS_AC) && (s->cr4 & CR4_SMAP)) {
		mode |= MODE_AC;
		c->mmu = MMU_KERNEL_AC;
	}
	c->mode = mode;
	c->cs = cs;
	if (c->tables_mode[c->mmu] != mode || !same_cs(c->p->tables_cs[c->mmu], cs)) {
		/* What the jump table has of another mode fails at its guard. */
		jit_itlb_clear(c, c->mmu, true);
		c->tables_mode[c->mmu] = mode;
		c->p->tables_cs[c->mmu] = cs;
	}
}

/* ---- from RIP to a block ---- */

/* The code page that gva is on now; NULL: the cache is full. Raises what a fetch raises. */
static struct jit_page *code_page(struct jit_cpu *c, uint64_t gva, uint32_t mode)
{
	unsigned slot = (gva >> 12) % JIT_ITLB_SIZE;
	struct jit_page *page = c->p->itlb_page[c->mmu][slot];
	struct jit_cache *k = &c->vm->cache;
	struct jit_mapping map;
	uint32_t error;

	if (c->itlb_id[c->mmu][slot] && page->gva == (gva & ~0xfffull) && page->mode == mode &&
	    same_cs(page->cs, c->cs))
		return page;
	if (!jit_canonical(c, gva))
		jit_raise_err(c, X86_GP, 0);
	if (!jit_walk(c, gva, c->mmu, ACC_FETCH, &map, &error))
		jit_raise_pf(c, gva, error);
	if (!mem_span(c->env->mem, map.gpa, 4096))
		jit_raise(c, X86_UD); /* nothing there to execute */
	page = jit_page_look_up(k, gva, map.gpa, mode, c->cs);
	if (!page) {
		jit_cache_lock(c);
		page = jit_page_get(k, gva, map.gpa, mode, c->cs);
		jit_cache_unlock(c);
	}
	if (page && !(mode & MODE_STEP)) {
		c->p->itlb_page[c->mmu][slot] = page;
		c->itlb_id[c->mmu][slot] = page->id;
		c->p->itlb_global[c->mmu][slot] = map.global;
		if (!map.global || c->mmu == MMU_USER)
			jit_itlb_note(c, c->mmu, slot);
	}
	return page;
}

static struct jit_page *code_page_at(const struct jit_cpu *c, jit_ref r)
{
	return jit_at(&c->vm->cache, r);
}

/* Locked, or with the world stopped. */
static struct jit_block *find_or_make(struct jit_cpu *c, struct jit_page *page, uint64_t gva,
				      uint32_t mode, bool *need_stop)
{
	/* Somebody else may have been faster. */
	struct jit_block *b = jit_page_find(&c->vm->cache, page, gva);

	if (b)
		return b;
	if (c->p->member.stopping)
		jit_watch_page(c, page->gpa);
	b = jit_template_copy(c, page, gva);
	if (b)
		return b;
	jit_fpu_leave(c);
	return jit_translate(c, page, gva, mode, need_stop);
}

/* Where the page has no code yet, writable soft-TLB entries may exist. NULL: the cache is full, or
 * was flushed meanwhile. Raises what a fetch raises. */
static struct jit_block *translate(struct jit_cpu *c, struct jit_page *page, uint64_t gva,
				   uint32_t mode)
{
	struct jit_cache *k = &c->vm->cache;
	bool need_stop = !jit_code_on_page(k, page->gpa);
	uint64_t flushes = k->flushes;
	struct jit_block *b = NULL;

	if (!need_stop) {
		jit_cache_lock(c);
		b = find_or_make(c, page, gva, mode, &need_stop);
		jit_cache_unlock(c);
	}
	if (need_stop) {
		jit_fpu_leave(c);
		jit_stop(c, WORLD_OUT);
		if (k->flushes == flushes)
			b = find_or_make(c, page, gva, mode, &need_stop);
		jit_go(c);
	}
	return b;
}

static void drop_block(struct jit_cpu *c, const struct jit_block *b)
{
	struct jit_cache *k = &c->vm->cache;
	uint64_t flushes = k->flushes;

	jit_stop(c, WORLD_OUT);
	if (k->flushes == flushes)
		jit_code_invalidate(k, code_page_at(c, b->page)->gpa | (b->gva & 0xfff), 1);
	jit_go(c);
}

/* Is the second page of b, which straddles, still mapped where it was? If not, b is dropped, and
 * what the instruction TLB says of that page with it: the translator walks, and both must agree
 * the next time. False also when the cache is full (*full). Raises what a fetch raises. */
static bool page2_holds(struct jit_cpu *c, struct jit_block *b, uint32_t mode, bool *full)
{
	uint64_t gva = (b->gva | 0xfff) + 1;
	struct jit_page *two;

	if (!jit_code64(c))
		gva = (uint32_t)gva;
	two = code_page(c, gva, mode);
	*full = !two;
	if (two == code_page_at(c, b->page2))
		return true;
	if (two) {
		drop_block(c, b);
		c->itlb_id[c->mmu][(gva >> 12) % JIT_ITLB_SIZE] = 0;
	}
	return false;
}

static struct jit_block *lookup(struct jit_cpu *c, uint32_t extra_mode)
{
	uint64_t gva = jit_linear_rip(c);
	uint32_t mode = c->mode | extra_mode;

	if (!jit_code64(c) && c->st.rip > c->cs.limit)
		jit_raise_err(c, X86_GP, 0);
	for (;;) {
		uint64_t flushes = c->vm->cache.flushes;
		struct jit_page *page = code_page(c, gva, mode);
		struct jit_block *b = page ? jit_page_find(&c->vm->cache, page, gva) : NULL;

		if (page && !b)
			b = translate(c, page, gva, mode);
		bool full = !b;

		if (b && (!b->page2 || page2_holds(c, b, mode, &full)))
			return b;
		if (full) {
			jit_fpu_leave(c);
			jit_flush_all(c, flushes);
		}
	}
}

static void link_edge(struct jit_cpu *c, struct jit_edge *e, struct jit_block *b)
{
	jit_cache_lock(c);
	jit_edge_link(&c->vm->cache, e, b);
	jit_cache_unlock(c);
}

static int enter(struct jit_cpu *c, const uint8_t *entry)
{
	int (*go)(const void *) = (int (*)(const void *))c->vm->cache.enter;

	if (!c->fpu_live)
		jit_fpu_enter(c);
	return go(jit_rx(&c->vm->cache, entry));
}

/* A return to tmp[0], which the jump table does not know. It stands at st.rip. */
static void finish_return(struct jit_cpu *c)
{
	if (!jit_canonical(c, c->tmp[0])) {
		c->st.gpr[X86_RSP] -= 8;
		jit_raise_err(c, X86_GP, 0);
	}
	c->st.rip = c->tmp[0];
}

static void run_block(struct jit_cpu *c)
{
	struct jit_cache *k = &c->vm->cache;
	struct jit_block *b = lookup(c, 0);

	c->st.rflags &= ~(uint64_t)RFLAGS_RF; /* it lasts for one instruction */

	for (;;) {
		struct jit_jump *j = &c->jump[c->mmu][jit_jump_slot(c->st.rip)];
		struct jit_edge *e;
		uint64_t flushes = k->flushes;
		enum jit_leave why;

		j->gva = c->st.rip;
		j->code = jit_rx(k, b->start + b->guard);
		why = (enum jit_leave)enter(c, b->start + b->guard);
		c->p->step_once = why == LEAVE_STEP;
		if (why == LEAVE_RETURN)
			finish_return(c);
		if (why != LEAVE_EDGE)
			return;
		e = jit_at(k, (jit_ref)c->tmp[3]);
		c->st.rip = e->target;
		if (c->p->debug.on && jit_debug_ends_block(c, jit_linear_rip(c)))
			return;
		b = lookup(c, 0);
		if (k->flushes == flushes && !jit_debug_ends_any(c->vm, b->gva))
			link_edge(c, e, b);
	}
}

/* ---- one instruction at a time ---- */

static bool breakpoint_at(struct jit_cpu *c, uint64_t gva, uint64_t *hits)
{
	*hits = 0;
	for (unsigned n = 0; n < 4; n++)
		if ((c->st.dr7 >> (2 * n) & 3) && (c->st.dr7 >> (16 + 4 * n) & 3) == 0 &&
		    c->st.dr[n] == gva)
			*hits |= BIT(n);
	return *hits;
}

/* The block for one instruction; the world is stopped when nobody may come between what it reads
 * and what it writes. */
static struct jit_block *lookup_step(struct jit_cpu *c)
{
	for (;;) {
		struct jit_block *b = lookup(c, MODE_STEP);
		uint64_t flushes = c->vm->cache.flushes;

		if (!b->both)
			return b;
		jit_stop(c, WORLD_OUT);
		if (c->vm->cache.flushes == flushes && b->valid)
			return b;
		jit_go(c);
	}
}

static void step(struct jit_cpu *c)
{
	bool trap = c->st.rflags & RFLAGS_TF;
	struct jit_block *b;
	uint64_t hits;

	if (!(c->st.rflags & RFLAGS_RF) && breakpoint_at(c, jit_linear_rip(c), &hits)) {
		c->st.dr6 = (c->st.dr6 & ~0xfull) | hits;
		jit_raise(c, X86_DB);
	}
	b = lookup_step(c);
	c->st.events.shadow = 0;
	c->p->stepped++;
	atomic_store_explicit(&c->attention, 1, memory_order_relaxed); /* helpers come back */
	c->st.rflags &= ~(uint64_t)RFLAGS_RF; /* before: IRET may set it for the next one */
	c->no_trap = false;
	c->p->stepping = true;
	enter(c, b->start + b->entry_s);
	c->p->stepping = false;
	jit_release(c);
	jit_window_open_lanes(c);
	if (c->st.events.shadow == 2) /* MOV SS holds #DB back (6.8.3) */
		return;
	trap &= !c->no_trap;
	if (trap || c->dr6_hits) {
		c->st.dr6 = (c->st.dr6 & ~0xfull) | c->dr6_hits | (trap ? 0x4000 : 0);
		jit_raise(c, X86_DB);
	}
}

static bool must_step(const struct jit_cpu *c)
{
	return c->p->step_once || c->p->debug.want.step || c->st.events.shadow ||
	       (c->st.rflags & RFLAGS_TF) || (c->st.dr7 & 0xff) || (c->mode & MODE_ALIGN);
}

/* ---- events ---- */

static bool take_nmi(struct jit_cpu *c)
{
	return c->vcpu.lapic && c->vcpu.lapic->ops->take_nmi(c->vcpu.lapic);
}

static bool deliver_nmi(struct jit_cpu *c)
{
	struct x86_events *ev = &c->st.events;

	if (ev->nmi_masked) { /* one more waits for the end of the one in service, no matter how many */
		for (unsigned n = 0; n < 2; n++)
			ev->nmi_pending |= take_nmi(c);
		return false;
	}
	if (ev->shadow || (!ev->nmi_pending && !take_nmi(c)))
		return false;
	ev->nmi_pending = false;
	ev->nmi_masked = true;
	c->st.mp_state = X86_RUNNING;
	jit_deliver(c, X86_NMI, false, 0, false);
	return true;
}

static bool interrupt_waits(struct jit_cpu *c)
{
	if (c->vcpu.lapic)
		return c->vcpu.lapic->ops->pending(c->vcpu.lapic);
	return c->env->extint && c->env->extint->pending(c->env->extint);
}

static int interrupt_ack(struct jit_cpu *c)
{
	if (c->vcpu.lapic)
		return c->vcpu.lapic->ops->ack(c->vcpu.lapic);
	return c->env->extint->ack(c->env->extint);
}

static void deliver_interrupt(struct jit_cpu *c)
{
	int vector;

	atomic_store_explicit(&c->irq_hint, false, memory_order_relaxed);
	atomic_thread_fence(memory_order_seq_cst);
	if (c->st.mp_state == X86_WAIT_SIPI) /* all else stays pending (8.4.3) */
		return;
	if (deliver_nmi(c) || !interrupt_waits(c))
		return;
	if (!(c->st.rflags & RFLAGS_IF) || c->st.events.shadow) {
		atomic_store_explicit(&c->irq_hint, true, memory_order_relaxed);
		return;
	}
	vector = interrupt_ack(c);
	if (vector < 0)
		return;
	c->st.mp_state = X86_RUNNING;
	atomic_store_explicit(&c->irq_hint, true, memory_order_relaxed); /* there may be more */
	jit_deliver(c, (uint8_t)vector, false, 0, false);
}

/* Events that a loaded state brought along, half way. */
static void deliver_loaded(struct jit_cpu *c)
{
	struct x86_events *ev = &c->st.events;

	if (ev->exception_pending) {
		ev->exception_pending = false;
		c->exc = (struct jit_exception){ev->exception_vector, ev->exception_has_error,
						ev->exception_error};
		jit_leave(c, LEAVE_RAISE);
	}
	if (ev->interrupt_injected) {
		ev->interrupt_injected = false;
		jit_deliver(c, ev->interrupt_vector, false, 0, ev->interrupt_soft);
	}
	if (ev->nmi_injected) {
		ev->nmi_injected = false;
		ev->nmi_masked = true;
		jit_deliver(c, X86_NMI, false, 0, false);
	}
}

/* What others wrote over code (engine_slow.c takes note of it) is gone before any more of it runs,
 * on any vCPU: who finds the note taken already has waited until the world goes on. */
static void drop_written(struct jit_cpu *c)
{
	gpa_t page[WRITTEN_MAX];
	uint32_t n;

	if (!atomic_load(&c->vm->written.any))
		return;
	jit_fpu_leave(c);
	jit_stop(c, WORLD_OUT);
	n = jit_written_take(c->vm, page);
	if (n > WRITTEN_MAX)
		jit_code_invalidate_all(&c->vm->cache);
	else
		for (uint32_t i = 0; i < n; i++)
			jit_code_invalidate(&c->vm->cache, page[i], 4096);
	jit_go(c);
}

/* true: the caller wants run to return (*why). */
static bool attend(struct jit_cpu *c, enum vcpu_stop *why)
{
	uint32_t seen = atomic_load(&c->p->wake);
	bool running = c->st.mp_state == X86_RUNNING;

	jit_fpu_leave(c);
	atomic_exchange(&c->attention, 0);
	jit_rest(c);
	drop_written(c);
	jit_window_sample(c);
	steal_count(c);
	if (atomic_exchange(&c->kicked, false)) {
		*why = VCPU_KICKED;
		return true;
	}
	jit_take_start(c);
	deliver_loaded(c);
	if (!c->p->debug.want.step || !running) {
		deliver_interrupt(c);
		if (c->p->debug.want.step && c->st.mp_state == X86_RUNNING)
			jit_debug_stepped(c); /* that ended a halt */
	}
	if (c->st.mp_state == X86_HALTED && atomic_exchange(&c->p->unhalted, false))
		c->st.mp_state = X86_RUNNING;
	if (c->st.mp_state == X86_RUNNING)
		return false;
	if (!(c->st.rflags & RFLAGS_IF) && !c->vcpu.lapic && c->st.mp_state == X86_HALTED) {
		*why = VCPU_HALTED;
		return true;
	}
	jit_still(c, WORLD_OUT);
	jit_sleep(c, seen);
	jit_move(c);
	steal_back(c);
	return false;
}

static bool must_attend(struct jit_cpu *c)
{
	return atomic_load_explicit(&c->attention, memory_order_relaxed) ||
	       atomic_load_explicit(&c->irq_hint, memory_order_relaxed) ||
	       c->st.mp_state != X86_RUNNING || c->st.events.exception_pending ||
	       c->st.events.interrupt_injected || c->st.events.nmi_injected;
}

/* For the debugger. In the middle of an instruction (step_once) there is no stop. */
static bool debug_stops(struct jit_cpu *c)
{
	if (!c->p->debug.hit &&
	    (c->st.mp_state != X86_RUNNING || c->p->step_once || !jit_debug_here(c)))
		return false;
	c->p->debug.hit = false;
	jit_fpu_leave(c);
	return true;
}

enum vcpu_stop __attribute__((noinline)) jit_run_loop(struct jit_cpu *cpu, bool single)
{
	/* clang does not know that the code below comes back to the setjmp, and may use a
	 * parameter's place for something else; not that of a volatile. */
	struct jit_cpu *volatile kept = cpu;
	struct jit_cpu *c;
	enum vcpu_stop why;
	int left;

	cpu->p->single = single;
	left = __builtin_setjmp(cpu->p->env);
	c = kept;
	if (left) {
		jit_release(c);
		if (c->p->leave == LEAVE_SHUTDOWN)
			return VCPU_SHUTDOWN;
		if (c->p->leave == LEAVE_STEP) {
			c->p->stepping = false;
			c->p->step_once = true;
		} else { /* LEAVE_RAISE */
			c->p->step_once = false;
			c->dr6_hits = 0; /* the instruction did not finish, or this tells of them */
			if (c->p->stepping)
				c->p->debug.hit = false;
			c->p->stepping = c->committed = false;
			jit_deliver_exception(c);
			if (c->p->single)
				return VCPU_KICKED;
			if (c->p->debug.want.step)
				jit_debug_stepped(c);
		}
	}
	if (c->p->single) {
		drop_written(c);
		deliver_loaded(c);
		step(c);
		c->p->step_once = false;
		return VCPU_KICKED;
	}
	for (;;) {
		if (must_attend(c) && attend(c, &why))
			return why;
		if (c->p->debug.on && debug_stops(c))
			return VCPU_BREAKPOINT;
		if (c->st.mp_state != X86_RUNNING)
			continue;
		c->committed = false;
		if (!must_step(c)) {
			run_block(c);
			continue;
		}
		step(c);
		c->p->step_once = false;
		if (c->p->debug.want.step && !c->p->debug.hit)
			jit_debug_stepped(c);
	}
}
