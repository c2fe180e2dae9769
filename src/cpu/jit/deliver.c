/* deliver: exceptions and interrupts through the IDT (SDM 6.10-6.15, volume 2 INT n).
 *
 * All gates of all modes: real-mode vectors, 16- and 32-bit gates with their TSS stacks,
 * virtual-8086 frames, 64-bit gates with IST, and task gates. Nothing is changed before the
 * last push has been checked (a task switch: before its first step is certain); a fault on
 * the way raises like any other, and c->delivering tells jit_deliver_exception what it came
 * on top of. Quick code. */
#include "cpu/jit/sys_priv.h"

enum { GATE_TASK = 5, GATE_INT16 = 6, GATE_TRAP16 = 7, GATE_INT32 = 14, GATE_TRAP32 = 15 };

struct event {
	uint8_t vector;
	bool has_error;
	uint32_t error;
	bool check_dpl; /* INT n, INT3, INTO */
	unsigned ext;   /* EXT bit of the error codes of faults on the way (6.13) */
	uint64_t next;  /* the RIP to be pushed */
	uint32_t flags; /* the RFLAGS to be pushed */
};

struct gate {
	uint64_t offset;
	uint16_t sel;
	uint8_t type, dpl, ist;
};

/* --- stacks --- */
static uint32_t tss_read(struct jit_cpu *c, uint32_t offset, unsigned size, unsigned ext)
{
	if ((c->st.tr.attr & SEG_UNUSABLE) || offset + size - 1 > c->st.tr.limit)
		jit_raise_err(c, X86_TS, (c->st.tr.sel & ~3u) | ext);
	return (uint32_t)jit_read(c, MMU_SYSTEM, sys_addr(c, c->st.tr.base, offset), size);
}

uint64_t tss64_rsp(struct jit_cpu *c, unsigned n, unsigned ext)
{
	uint32_t offset = n < 3 ? 4 + 8 * n : 0x24 + 8 * (n - 4);
	uint64_t rsp;

	if ((c->st.tr.attr & SEG_UNUSABLE) || offset + 7 > c->st.tr.limit)
		jit_raise_err(c, X86_TS, (c->st.tr.sel & ~3u) | ext);
	rsp = jit_read(c, MMU_SYSTEM, c->st.tr.base + offset, 8);
	if (!canonical(c, rsp))
		jit_raise_err(c, X86_SS_FAULT, ext);
	return rsp;
}

void inner_stack_legacy(struct jit_cpu *c, struct inner_stack *s, unsigned cpl, unsigned ext)
{
	bool tss32 = c->st.tr.attr & 8;
	uint16_t sel;
	uint64_t d;

	if (tss32) {
		s->sp = tss_read(c, 4 + 8 * cpl, 4, ext);
		sel = (uint16_t)tss_read(c, 8 + 8 * cpl, 2, ext);
	} else {
		s->sp = tss_read(c, 2 + 4 * cpl, 2, ext);
		sel = (uint16_t)tss_read(c, 4 + 4 * cpl, 2, ext);
	}
	if (!(sel & ~3u))
		jit_raise_err(c, X86_TS, ext);
	d = desc_read(c, sel, X86_TS, ext);
	seg_unpack(&s->ss, sel, d);
	if ((sel & 3) != cpl || attr_dpl(s->ss.attr) != cpl || !attr_is_writable_data(s->ss.attr))
		jit_raise_err(c, X86_TS, (sel & ~3u) | ext);
	if (!(s->ss.attr & SEG_P))
		jit_raise_err(c, X86_SS_FAULT, (sel & ~3u) | ext);
	desc_set_accessed(c, sel, d);
	s->ss.attr |= 1;
	s->mask = s->ss.attr & SEG_DB ? 0xffffffff : 0xffff;
	s->mmu = mmu_for_cpl(c, cpl);
	s->ext = (sel & ~3u) | ext;
}

/* The stack in use, for pushes without a change of privilege. */
static void current_stack(struct jit_cpu *c, struct inner_stack *s, unsigned ext)
{
	s->ss = c->st.seg[X86_SS];
	s->sp = c->st.gpr[X86_RSP];
	s->mask = stack_mask(c);
	s->mmu = mmu_for_cpl(c, jit_cpl(c));
	s->ext = ext;
}

static bool in_limit(const struct x86_seg *s, uint32_t at, unsigned size)
{
	uint32_t last = at + size - 1, top = s->attr & SEG_DB ? 0xffffffff : 0xffff;

	if (s->attr & SEG_UNUSABLE || last < at)
		return false;
	if ((s->attr & 0xc) == 4) /* expand-down data */
		return at > s->limit && last <= top;
	return last <= s->limit;
}

void inner_stack_push(struct jit_cpu *c, struct inner_stack *s, const uint64_t *v, unsigned n,
		      unsigned size)
{
	uint64_t at = s->sp;

	for (unsigned i = 0; i < n; i++) {
		at = (at - size) & s->mask;
		if (!in_limit(&s->ss, (uint32_t)at, size))
			jit_raise_err(c, X86_SS_FAULT, s->ext);
		jit_probe(c, s->mmu, sys_addr(c, s->ss.base, at), size, ACC_WRITE);
	}
	at = s->sp;
	for (unsigned i = 0; i < n; i++) {
		at = (at - size) & s->mask;
		jit_write(c, s->mmu, sys_addr(c, s->ss.base, at), v[i], size);
	}
	s->sp = s->mask == 0xffff ? (s->sp & ~UINT64_C(0xffff)) | at : at;
}

/* --- real mode (SDM volume 3, 20.1.4) --- */
static void deliver_real(struct jit_cpu *c, const struct event *e)
{
	uint64_t frame[3] = {e->flags & 0xffff, c->st.seg[X86_CS].sel, e->next & 0xffff};
	struct inner_stack s;
	uint32_t entry;

	if (e->vector * 4 + 3 > c->st.idtr.limit)
		jit_raise_err(c, X86_GP, (unsigned)e->vector << 3 | 2 | e->ext);
	entry = (uint32_t)jit_read(c, MMU_SYSTEM, (uint32_t)(c->st.idtr.base + e->vector * 4), 4);
	current_stack(c, &s, 0);
	s.ss.attr &= (uint16_t)~SEG_UNUSABLE;
	inner_stack_push(c, &s, frame, 3, 2);
	c->st.gpr[X86_RSP] = s.sp;
	c->st.rflags &= ~(uint64_t)(RFLAGS_IF | RFLAGS_TF | RFLAGS_AC | RFLAGS_RF);
	c->st.seg[X86_CS].sel = (uint16_t)(entry >> 16);
	c->st.seg[X86_CS].base = entry >> 16 << 4;
	c->st.rip = entry & 0xffff;
}

/* --- protected mode and IA-32e mode --- */
static void read_gate(struct jit_cpu *c, const struct event *e, struct gate *g)
{
	unsigned size = jit_long_mode(c) ? 16 : 8;
	uint32_t offset = e->vector * size, error = (unsigned)e->vector << 3 | 2 | e->ext;
	uint64_t lo, hi = 0, at = sys_addr(c, c->st.idtr.base, offset);

	if (offset + size - 1 > c->st.idtr.limit)
		jit_raise_err(c, X86_GP, error);
	lo = jit_read(c, MMU_SYSTEM, at, 8);
	if (size == 16)
		hi = jit_read(c, MMU_SYSTEM, at + 8, 8);
	g->type = lo >> 40 & 0x1f;
	g->dpl = lo >> 45 & 3;
	g->sel = lo >> 16 & 0xffff;
	g->ist = lo >> 32 & 7;
	g->offset = (lo & 0xffff) | (lo >> 32 & 0xffff0000) | hi << 32;
	if (g->type != GATE_INT32 && g->type != GATE_TRAP32 &&
	    (size == 16 ||
	     (g->type != GATE_INT16 && g->type != GATE_TRAP16 && g->type != GATE_TASK)))
		jit_raise_err(c, X86_GP, error);
	if (e->check_dpl && g->dpl < jit_cpl(c))
		jit_raise_err(c, X86_GP, error & ~1u);
	if (!(lo >> 47 & 1))
		jit_raise_err(c, X86_NP, error);
	if (g->type == GATE_INT16 || g->type == GATE_TRAP16)
		g->offset &= 0xffff;
}

/* The handler's code segment; returns its privilege level. */
static unsigned gate_code(struct jit_cpu *c, const struct event *e, const struct gate *g,
			  struct x86_seg *cs)
{
	uint32_t error = (g->sel & ~3u) | e->ext;
	unsigned cpl = jit_cpl(c);
	uint64_t d;

	if (!(g->sel & ~3u))
		jit_raise_err(c, X86_GP, e->ext);
	d = desc_read(c, g->sel, X86_GP, e->ext);
	seg_unpack(cs, g->sel, d);
	if (!attr_is_code(cs->attr) || attr_dpl(cs->attr) > cpl)
		jit_raise_err(c, X86_GP, error);
	if (jit_long_mode(c) && (cs->attr & (SEG_L | SEG_DB)) != SEG_L)
		jit_raise_err(c, X86_GP, error);
	if (!(cs->attr & SEG_P))
		jit_raise_err(c, X86_NP, error);
	if (!attr_is_conforming(cs->attr))
		cpl = attr_dpl(cs->attr);
	if (cpu_v86(c) && (attr_is_conforming(cs->attr) || cpl != 0))
		jit_raise_err(c, X86_GP, error);
	desc_set_accessed(c, g->sel, d);
	cs->attr |= 1;
	cs->sel = (uint16_t)((g->sel & ~3u) | cpl);
	return cpl;
}

/* Takes the handler's CS:RIP and the flags that its gate asks for. */
static void enter(struct jit_cpu *c, const struct gate *g, const struct x86_seg *cs)
{
	c->st.seg[X86_CS] = *cs;
	c->st.rip = g->offset;
	c->st.rflags &= ~(uint64_t)(RFLAGS_TF | RFLAGS_NT | RFLAGS_RF | RFLAGS_VM);
	if (g->type == GATE_INT32 || g->type == GATE_INT16)
		c->st.rflags &= ~(uint64_t)RFLAGS_IF;
}

static void deliver_long(struct jit_cpu *c, const struct event *e)
{
	struct x86_seg cs, *ss = &c->st.seg[X86_SS];
	unsigned cpl, old = jit_cpl(c), n = 5;
	uint64_t frame[6], rsp = c->st.gpr[X86_RSP];
	struct gate g;

	read_gate(c, e, &g);
	cpl = gate_code(c, e, &g, &cs);
	if (!canonical(c, g.offset))
		jit_raise_err(c, X86_GP, e->ext);
	if (g.ist)
		rsp = tss64_rsp(c, g.ist + 3, e->ext);
	else if (cpl != old)
		rsp = tss64_rsp(c, cpl, e->ext);
	rsp &= ~UINT64_C(15);
	if (e->has_error)
		n = 6;
	frame[0] = e->error;
	frame[1] = e->next;
	frame[2] = c->st.seg[X86_CS].sel;
	frame[3] = e->flags;
	frame[4] = c->st.gpr[X86_RSP];
	frame[5] = ss->sel;
	rsp -= n * 8;
	if (!canonical(c, rsp))
		jit_raise_err(c, X86_SS_FAULT, e->ext);
	jit_write_buf(c, mmu_for_cpl(c, cpl), rsp, frame + 6 - n, n * 8);
	c->st.gpr[X86_RSP] = rsp;
	if (cpl != old)
		seg_set_null(ss, (uint16_t)cpl);
	enter(c, &g, &cs);
}

static void deliver_from_v86(struct jit_cpu *c, const struct event *e, const struct gate *g,
			     const struct x86_seg *cs)
{
	unsigned size = g->type >= GATE_INT32 ? 4 : 2;
	uint64_t frame[10] = {c->st.seg[X86_GS].sel,
			      c->st.seg[X86_FS].sel,
			      c->st.seg[X86_DS].sel,
			      c->st.seg[X86_ES].sel,
			      c->st.seg[X86_SS].sel,
			      c->st.gpr[X86_RSP],
			      e->flags,
			      c->st.seg[X86_CS].sel,
			      e->next,
			      e->error};
	struct inner_stack s;

	inner_stack_legacy(c, &s, 0, e->ext);
	inner_stack_push(c, &s, frame, e->has_error ? 10 : 9, size);
	c->st.seg[X86_SS] = s.ss;
	c->st.gpr[X86_RSP] = s.sp;
	seg_set_null(&c->st.seg[X86_GS], 0);
	seg_set_null(&c->st.seg[X86_FS], 0);
	seg_set_null(&c->st.seg[X86_DS], 0);
	seg_set_null(&c->st.seg[X86_ES], 0);
	enter(c, g, cs);
}

static void deliver_task(struct jit_cpu *c, const struct event *e, const struct gate *g)
{
	struct task_event t = {.next = e->next,
			       .flags = e->flags,
			       .has_error = e->has_error,
			       .error = e->error,
			       .ext = e->ext};

	task_switch(c, g->sel, TASK_EVENT, &t);
}

static void deliver_legacy(struct jit_cpu *c, const struct event *e)
{
	unsigned cpl, size, first = 2, n = 3;
	struct inner_stack s;
	struct x86_seg cs;
	struct gate g;
	uint64_t frame[6];

	read_gate(c, e, &g);
	if (g.type == GATE_TASK) {
		deliver_task(c, e, &g);
		return;
	}
	cpl = gate_code(c, e, &g, &cs);
	size = g.type >= GATE_INT32 ? 4 : 2;
	if (g.offset > cs.limit)
		jit_raise_err(c, X86_GP, e->ext);
	if (cpu_v86(c)) {
		deliver_from_v86(c, e, &g, &cs);
		return;
	}
	if (cpl != jit_cpl(c)) {
		inner_stack_legacy(c, &s, cpl, e->ext);
		first = 0;
		n = 5;
	} else {
		current_stack(c, &s, e->ext);
	}
	frame[0] = c->st.seg[X86_SS].sel;
	frame[1] = c->st.gpr[X86_RSP];
	frame[2] = e->flags;
	frame[3] = c->st.seg[X86_CS].sel;
	frame[4] = e->next;
	frame[5] = e->error;
	inner_stack_push(c, &s, frame + first, n + e->has_error, size);
	c->st.seg[X86_SS] = s.ss;
	c->st.gpr[X86_RSP] = s.sp;
	enter(c, &g, &cs);
}

static void deliver(struct jit_cpu *c, const struct event *e)
{
	if (!(c->st.cr0 & CR0_PE))
		deliver_real(c, e);
	else if (jit_long_mode(c))
		deliver_long(c, e);
	else
		deliver_legacy(c, e);
	c->st.mp_state = X86_RUNNING; /* a trap after HLT wakes it too */
	jit_mode_update(c);
}

/* --- what came first decides what a second fault becomes (table 6-5) --- */
enum { CLASS_BENIGN, CLASS_CONTRIBUTORY, CLASS_PAGE, CLASS_DOUBLE };

static uint8_t class_of(uint8_t vector)
{
	switch (vector) {
	case X86_DE:
	case X86_TS:
	case X86_NP:
	case X86_SS_FAULT:
	case X86_GP: return CLASS_CONTRIBUTORY;
	case X86_PF: return CLASS_PAGE;
	case X86_DF: return CLASS_DOUBLE;
	default: return CLASS_BENIGN;
	}
}

static bool is_double_fault(uint8_t first, uint8_t second)
{
	if (first == CLASS_CONTRIBUTORY)
		return second == CLASS_CONTRIBUTORY;
	if (first == CLASS_PAGE)
		return second == CLASS_CONTRIBUTORY || second == CLASS_PAGE;
	return false;
}

/* Traps and aborts leave RF as it is; so does #DB, whose handler sets it itself (17.3.1.1). */
static bool pushes_rf(uint8_t vector)
{
	return vector != X86_DB && vector != X86_BP && vector != X86_OF && vector != X86_DF &&
	       vector != X86_MC && vector != X86_NMI;
}

void jit_deliver_exception(struct jit_cpu *c)
{
	struct event e = {.ext = 1, .next = c->st.rip, .flags = jit_flags_get(c)};
	uint8_t class = class_of(c->exc.vector);

	if (c->delivering && c->delivering_class == CLASS_DOUBLE && class != CLASS_BENIGN)
		jit_shutdown(c);
	if (c->delivering && is_double_fault(c->delivering_class, class)) {
		c->exc.vector = X86_DF;
		c->exc.has_error = true;
		c->exc.error = 0;
		class = CLASS_DOUBLE;
	}
	c->delivering = true;
	c->delivering_class = class;
	e.vector = c->exc.vector;
	e.has_error = c->exc.has_error && (c->st.cr0 & CR0_PE);
	e.error = c->exc.error;
	if (pushes_rf(e.vector))
		e.flags |= RFLAGS_RF;
	deliver(c, &e);
	if (e.vector == X86_DB)
		c->st.dr7 &= ~UINT64_C(0x2000); /* GD: the handler may use the registers */
	c->delivering = false;
	c->st.events.shadow = 0;
}

static void deliver_event(struct jit_cpu *c, const struct event *e)
{
	c->delivering = true;
	c->delivering_class = CLASS_BENIGN;
	deliver(c, e);
	c->delivering = false;
	c->st.events.shadow = 0;
}

void jit_deliver(struct jit_cpu *c, uint8_t vector, bool has_error, uint32_t error, bool soft)
{
	struct event e = {
		.vector = vector,
		.has_error = has_error && (c->st.cr0 & CR0_PE),
		.error = error,
		.check_dpl = soft,
		.ext = !soft,
		.next = c->st.rip,
		.flags = jit_flags_get(c),
	};

	deliver_event(c, &e);
}

void deliver_soft(struct jit_cpu *c, uint8_t vector, uint64_t next, bool check_dpl)
{
	struct event e = {
		.vector = vector,
		.check_dpl = check_dpl,
		.ext = !check_dpl,
		.next = next,
		.flags = jit_flags_get(c) & ~RFLAGS_RF,
	};

	deliver_event(c, &e);
	c->no_trap = true;
}
