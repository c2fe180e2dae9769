/* direct: how user code in a window (window.h) reaches its memory. An operand off a register becomes
 *
 *	mov r13, rbx; shr r13, 42		; the lane of the register's value
 *	cmp r13d, LANE; jne cold
 *	mov r13, gs:[delta + 8 * LANE]		; host minus guest
 *	add rax, [rbx + r13 + disp]		; the guest's own instruction
 *
 * and the next one off the same register needs the last line alone. With an index it is
 *
 *	lea r13, [rbx + 8 * rcx]; shr r13, 42; cmp r13d, LANE; jne cold
 *	mov r13, gs:[delta + 8 * LANE]
 *	add r13, rbx				; or r13, [r13 + 8 * rcx]
 *	add rax, [r13 + 8 * rcx + disp]
 *
 * where an index that is known to be narrow (-2^31 to 2^32 - 1) need not be part of what is compared,
 * as a lane has 64 GiB of nothing on either side. LANE is a guess; the cold code takes the lane
 * that it really is. What is no user address at all is executed in step mode.
 *
 * r13 and r14 each hold one such value, as far as x->held says (held_slow.c), and more of them are
 * kept in memory where a block is a loop (loop_slow.c).
 *
 * RSP's delta is in jit_cpu.stack_delta wherever a block is entered or left for another, so that PUSH
 * and CALL need no check (x->stack). Its bound there is small: an access off RSP that did not fault
 * shows that RSP is still in its lane, or close to it; a block that moves RSP far without one, or
 * to somewhere else, compares the lane anew. RSP's moves by constants are put off until somebody needs
 * r15 itself (x->stack.by). */
#include "cpu/jit/translate.h"
#include "cpu/jit/window.h"

#define NEAR     (1 << 20) /* a displacement that may change the lane is not */
#define MOVE_MAX (1 << 30)

_Static_assert(STACK_SLACK >= 65535 + 16, "RET n of a block that was just entered");

static unsigned host_of(unsigned n)
{
	return n ? R_14 : R_13;
}

static bool is_host(unsigned term)
{
	return term < 16 && jit_host_reg[term] != R_NONE;
}

/* Where a term that is in no host register is. */
static uint32_t memory_of(unsigned term)
{
	if (term < 16)
		return OFF_GPR(term);
	return OFF(st.seg) + (term - X_SEG(0)) * (uint32_t)sizeof(struct x86_seg) +
	       (uint32_t)offsetof(struct x86_seg, base);
}

static uint64_t value_of(const struct xlate *x, unsigned term)
{
	return term < 16         ? x->c->st.gpr[term]
	       : term == X_CONST ? 0
	       : term < X_CONST  ? x->c->st.seg[term - X_SEG(0)].base
				 : 0;
}

/* Which lane an address is likely to be in when this code runs: the one that it is in now; or its
 * base is. Else that of the code, where small programs have their data. */
static unsigned guess(const struct xlate *x, const struct x_held *h, int64_t disp)
{
	uint64_t base = value_of(x, h->base), index = value_of(x, h->index) * h->scale;
	uint64_t lane[] = {(base + index + (uint64_t)disp) >> LANE_BITS, base >> LANE_BITS};

	for (unsigned n = 0; n < 2; n++)
		if (lane[n] < LANES && x->c->delta[lane[n]] != LANE_ABSENT)
			return (unsigned)lane[n];
	lane[0] = x->in[0].gva >> LANE_BITS;
	return lane[0] < LANES ? (unsigned)lane[0] : 0;
}

static void load_delta(struct xlate *x, unsigned to, unsigned lane)
{
	e_load(&x->hot, to, OFF(delta) + 8 * lane);
}

/* to = delta of the lane of the address in to. Clobbers the host's flags. */
static void check(struct xlate *x, const struct insn *i, unsigned to, unsigned lane)
{
	struct emit *e = &x->hot;

	e_rex(e, true, 0, 0, to); /* shr to, LANE_BITS */
	e8(e, 0xc1);
	e8(e, (uint8_t)(0xe8 | (to & 7)));
	e8(e, LANE_BITS);
	e_alu_imm(e, false, 7, to, (int32_t)lane);
	x->slow[x->slows++] = (struct slow_path){.jump = e_jcc(e, CC_NE),
						 .i = i,
						 .direct = true,
						 .reg = (uint8_t)to,
						 .rsp_by = x->stack.by};
	load_delta(x, to, lane);
	x->slow[x->slows - 1].back = e->p;
	x_clobber(x);
}

/* The same, of a register's value. */
static void check_reg(struct xlate *x, const struct insn *i, unsigned to, unsigned from,
		      unsigned lane)
{
	e_mov(&x->hot, to, from);
	check(x, i, to, lane);
}

/* Cold: another lane than the guess; or none. */
void x_direct_slow_path(struct xlate *x, const struct slow_path *s)
{
	struct emit *e = &x->cold;
	uint8_t *none;

	e_patch(s->jump, e->p);
	e_alu_imm(e, false, 7, s->reg, LANES - 1);
	none = e_jcc(e, CC_A);
	e8(e, 0x65); /* mov reg, gs:[delta + 8 * reg] */
	e_rex(e, true, s->reg, s->reg, 0);
	e8(e, 0x8b);
	e8(e, (uint8_t)((s->reg & 7) << 3 | 4));
	e8(e, (uint8_t)(3 << 6 | (s->reg & 7) << 3 | 5));
	e32(e, OFF(delta));
	e_jmp_to(e, s->back);
	e_patch(none, e->p);
	if (s->rsp_by)
		e_lea(e, true, R_15, R_15, R_NONE, 1, s->rsp_by);
	x_store_rip(x, e, s->i);
	e_jmp_to(e, x_thunk(x, x->k->exit_step));
}

/* ---- what is held ---- */

/* Which of r13 and r14 is to be given up. (The stack's is in r14, since PUSH and CALL need r13.) */
static unsigned holder(const struct xlate *x)
{
	for (unsigned n = 0; n < 2; n++)
		if (!x->held[n].valid)
			return n;
	return x->held[0].used > x->held[1].used;
}

/* to = the address of h, or near it. */
static void put_sum(struct xlate *x, unsigned to, const struct x_held *h, int32_t disp)
{
	struct emit *e = &x->hot;
	bool base = is_host(h->base);

	if (h->index == R_NONE) {
		if (!base)
			e_load(e, to, memory_of(h->base));
		else if (!disp)
			e_mov(e, to, jit_host_reg[h->base]);
		if (disp)
			e_lea(e, true, to, base ? jit_host_reg[h->base] : to, R_NONE, 1, disp);
		return;
	}
	if (!is_host(h->index))
		e_load(e, to, memory_of(h->index));
	e_lea(e, true, to, base ? jit_host_reg[h->base] : R_NONE,
	      is_host(h->index) ? jit_host_reg[h->index] : to, h->scale, disp);
	if (!base && h->base != R_NONE)
		e_op_gs(e, true, 0x03, to, memory_of(h->base));
}

/* to = from + scale * term; flags are kept only if the term is in a register. */
static void add_term(struct xlate *x, unsigned to, unsigned from, unsigned term, unsigned scale)
{
	struct emit *e = &x->hot;
	unsigned other = to == R_13 ? R_14 : R_13;

	if (is_host(term)) {
		bool one = scale == 1; /* a base of r13 takes a displacement */

		e_lea(e, true, to, one ? jit_host_reg[term] : from, one ? from : jit_host_reg[term],
		      scale, 0);
	} else if (scale == 1) {
		e_mov(e, to, from);
		e_op_gs(e, true, 0x03, to, memory_of(term));
	} else {
		x_forget(x, other);
		e_load(e, other, memory_of(term));
		e_lea(e, true, to, from, other, scale, 0);
	}
}

/* to = the delta of a constant's lane, plus that. Flags are kept, if need be by way of the other. */
static void put_constant(struct xlate *x, unsigned to, uint64_t at)
{
	unsigned other = to == R_13 ? R_14 : R_13, lane = (unsigned)(at >> LANE_BITS);

	if (at && ((x->flags & FLAGS_SLOT) || !x->live)) {
		x_need_slot(x);
		e_mov_gva(&x->hot, to, at, MARK_LANE);
		e_op_gs(&x->hot, true, 0x03, to, OFF(delta) + 8 * lane);
		x_clobber(x);
		return;
	}
	load_delta(x, to, lane);
	if (!at)
		return;
	x_forget(x, other);
	e_mov_gva(&x->hot, other, at, MARK_LANE);
	e_lea(&x->hot, true, to, to, other, 1, 0);
}

void x_direct_hold(struct xlate *x, const struct insn *i, unsigned to, const struct x_want *w)
{
	struct x_held *h = &x->held[to == R_14];
	bool far = w->disp <= -NEAR || w->disp >= NEAR;

	x_forget(x, to);
	if (w->held.base == X_CONST) {
		put_constant(x, to, (uint64_t)w->held.at);
	} else {
		put_sum(x, to, &w->held, far ? (int32_t)w->disp : 0);
		check(x, i, to, guess(x, &w->held, w->disp));
		if (w->held.added & ADDED_BASE)
			add_term(x, to, to, w->held.base, 1);
		if (w->held.added & ADDED_INDEX)
			add_term(x, to, to, w->held.index, w->held.scale);
	}
	*h = w->held;
	h->valid = true;
	h->off = 0;
	h->far = !far ? 0 : w->disp < 0 ? -w->disp : w->disp;
	h->used = ++x->uses;
}

/* How many registers an operand still needs beside h. */
static unsigned lacks(const struct x_held *h)
{
	return (h->base != R_NONE && h->base != X_CONST && !(h->added & ADDED_BASE)) +
	       (h->index != R_NONE && !(h->added & ADDED_INDEX));
}

/* h will do for an address so far from w's, when `more` of its registers have been added. */
static bool serves(const struct x_held *h, const struct x_want *w, unsigned lack)
{
	return h->valid && x_held_same(h, &w->held) && lacks(h) <= lack &&
	       fits_s32((uint64_t)(w->disp + h->off));
}

/* One more register of n's address is added, in `to`. */
static unsigned derive(struct xlate *x, unsigned n, unsigned to)
{
	struct x_held h = x->held[n];
	bool base = h.base != R_NONE && !(h.added & ADDED_BASE);

	if (!is_host(base ? h.base : h.index))
		return X_HELD;
	x_forget(x, host_of(to));
	add_term(x, host_of(to), host_of(n), base ? h.base : h.index, base ? 1 : h.scale);
	h.added |= base ? ADDED_BASE : ADDED_INDEX;
	h.used = ++x->uses;
	x->held[to] = h;
	return to;
}

static bool is_stack(const struct x_held *h)
{
	return h->base == X86_RSP && h->index == R_NONE;
}

/* r14 = RSP's delta, plus RSP if w wants that. */
static unsigned hold_stack(struct xlate *x, const struct insn *i, const struct x_want *w)
{
	struct x_held *h = &x->held[1];
	struct x_want delta = {.held = w->held};

	delta.held.added = 0;
	if (x->stack.known) {
		x_forget(x, R_14);
		e_load(&x->hot, R_14, OFF(stack_delta));
		*h = delta.held;
		h->valid = true;
		h->far = x->stack.slack;
		h->used = ++x->uses;
	} else {
		x_need_slot(x);
		x_direct_hold(x, i, R_14, &delta);
		e_store(&x->hot, OFF(stack_delta), R_14);
		x->stack.known = true;
		x->stack.slack = 0;
	}
	return w->held.added ? derive(x, 1, 1) : 1;
}

/* Which of r13 and r14 holds what w wants, so that an operand lacks no more than `lack` registers. */
static unsigned hold(struct xlate *x, const struct insn *i, const struct x_want *w, unsigned lack)
{
	bool stack = is_stack(&w->held);
	unsigned to, n;

	for (n = stack; n < 2; n++)
		if (serves(&x->held[n], w, lack)) {
			x->held[n].used = ++x->uses;
			return n;
		}
	if (stack)
		return hold_stack(x, i, w);
	for (n = 0; n < 2; n++)
		if (serves(&x->held[n], w, lack + 1) && derive(x, n, !n) < X_HELD)
			return !n;
	for (n = 2; n < X_HELD; n++) {
		if (!serves(&x->held[n], w, lack + 1))
			continue;
		to = holder(x);
		e_load(&x->hot, host_of(to), OFF(held) + 8 * (n - 2));
		x->held[to] = x->held[n];
		x->held[to].used = ++x->uses;
		if (lacks(&x->held[to]) <= lack || derive(x, to, to) < X_HELD)
			return to;
	}
	if (w->held.base != X_CONST)
		x_need_slot(x);
	to = holder(x);
	x_loop_want(x, w);
	x_direct_hold(x, i, host_of(to), w);
	return to;
}

/* x->at, off held n. */
static void operand(struct xlate *x, unsigned n, int64_t disp)
{
	const struct x_held *h = &x->held[n];
	unsigned reg = host_of(n);

	if (h->base == X86_RSP && !(h->added & ADDED_BASE))
		disp += x->stack.by; /* it is off r15 */
	x->at = (struct host_mem){(uint8_t)reg, R_NONE, 1, (int32_t)(disp + h->off)};
	if (h->index != R_NONE && !(h->added & ADDED_INDEX) && h->scale > 1) {
		x->at.index = jit_host_reg[h->index];
		x->at.scale = h->scale;
	} else if (h->index != R_NONE && !(h->added & ADDED_INDEX)) {
		x->at.base = jit_host_reg[h->index];
		x->at.index = (uint8_t)reg;
	} else if (h->base < 16 && !(h->added & ADDED_BASE)) {
		x->at.base = jit_host_reg[h->base];
		x->at.index = (uint8_t)reg;
	}
	x->at_held = n;
}

/* The linear address in r14; r13 gets its delta. */
static void check_sum(struct xlate *x, const struct insn *i, unsigned lane)
{
	x_forget_both(x);
	check_reg(x, i, R_13, R_14, lane);
	x->at = (struct host_mem){R_14, R_13, 1, 0};
	x->at_held = X_HELD;
}

void x_direct_check(struct xlate *x, const struct insn *i, uint32_t access)
{
	struct x_held h = {.base = access & SITE_STACK ? X86_RSP : R_NONE, .index = R_NONE};

	check_sum(x, i, guess(x, &h, 0));
	x_direct_collapse(x);
}

/* The operand's host address in r14 alone. */
void x_direct_collapse(struct xlate *x)
{
	x->at_held = X_HELD;
	if (x->at.index == R_NONE && x->at.disp == 0 && x->at.base == R_14)
		return;
	x_forget(x, R_14);
	e_lea(&x->hot, true, R_14, x->at.base, x->at.index, x->at.scale, x->at.disp);
	x->at = (struct host_mem){R_14, R_NONE, 1, 0};
}

/* ---- operands ---- */

static uint8_t reg_or_none(ZydisRegister r)
{
	return insn_is_gpr(r) ? (uint8_t)insn_gpr(r) : R_NONE;
}

/* op at an address that is known. false: it is no user's. */
static bool constant(struct xlate *x, const struct insn *i, uint64_t at, uint8_t index,
		     unsigned scale)
{
	struct x_want w = {
		.held = {.base = X_CONST, .index = R_NONE, .scale = 1, .at = (int64_t)at}};
	unsigned n;

	if (at >> LANE_BITS >= LANES)
		return false;
	x->pinned |= at <= INT32_MAX; /* where it is the code's own, it is in a displacement */
	if (at <= INT32_MAX)          /* within reach of 0 */
		w = (struct x_want){.held = {.base = X_CONST, .index = R_NONE, .scale = 1},
				    .disp = (int64_t)at};
	for (n = 0; n < 2; n++) { /* one that is near will do */
		int64_t by = (int64_t)at - x->held[n].at;

		if (w.held.at && x->held[n].valid && x->held[n].base == X_CONST &&
		    by > -X_FAR / 4 && by < X_FAR / 4) {
			w.held.at = x->held[n].at;
			w.disp = by;
			break;
		}
	}
	n = hold(x, i, &w, 0);
	operand(x, n, w.disp);
	if (index != R_NONE) {
		x->at.index = jit_host_reg[index];
		x->at.scale = (uint8_t)scale;
		x->at_held = X_HELD;
	}
	return true;
}

static bool is_narrow(const struct xlate *x, unsigned g)
{
	return is_host(g) && (x->narrow >> g & 1);
}

/* With a base, or an index, or both. */
static void sum(struct xlate *x, const struct insn *i, struct x_want w)
{
	bool saves = !(x->flags & FLAGS_SLOT) && x->live; /* by way of RAX, if there is a check */
	bool narrow = w.held.index != R_NONE && is_narrow(x, w.held.index) &&
		      !(saves && w.held.index == X86_RAX);
	unsigned index = w.held.index, scale = w.held.scale, n;

	if (narrow) {
		w.held.index = R_NONE;
		w.held.scale = 1;
		w.held.added = ADDED_BASE;
	} else if (w.held.index == R_NONE) {
		w.held.added = is_host(w.held.base) ? 0 : ADDED_BASE;
	} else {
		if (w.held.base != R_NONE && !is_host(w.held.base))
			w.held.added |= ADDED_BASE;
		if (!is_host(w.held.index))
			w.held.added |= ADDED_INDEX;
		if (!w.held.added && w.held.base != R_NONE)
			w.held.added = x_change_of(x, w.held.base) > x_change_of(x, w.held.index)
					       ? ADDED_INDEX
					       : ADDED_BASE;
	}
	n = hold(x, i, &w, !narrow);
	operand(x, n, w.disp);
	if (narrow) {
		x->at.index = jit_host_reg[index];
		x->at.scale = (uint8_t)scale;
		x->at_held = X_HELD;
	}
}

/* Sets x->at. */
void x_direct_mem(struct xlate *x, const struct insn *i, const ZydisDecodedOperand *op,
		  unsigned size)
{
	int64_t disp = op->mem.disp.has_displacement ? op->mem.disp.value : 0;
	enum x86_sreg seg = x_seg(op);
	bool rip = op->mem.base == ZYDIS_REGISTER_RIP;
	uint8_t base = reg_or_none(op->mem.base), index = reg_or_none(op->mem.index);
	struct x_want w = {.held = {.base = base,
				    .index = index,
				    .scale = index == R_NONE ? 1 : op->mem.scale},
			   .disp = disp};

	x->at_insn = i;
	if (base == X86_RSP && !fits_s32((uint64_t)(disp + x->stack.by)))
		x_stack_commit(x);
	if (i->z.address_width == 64) {
		if (seg < X86_FS && base == R_NONE && (index == R_NONE || is_narrow(x, index))) {
			uint64_t at = rip ? x_next(x, i) + (uint64_t)disp : (uint64_t)disp;

			if (constant(x, i, at, index, w.held.scale))
				return;
		} else if (seg < X86_FS) {
			sum(x, i, w);
			return;
		} else if (base == R_NONE && index == R_NONE && !rip) {
			w.held.base = (uint8_t)X_SEG(seg);
			sum(x, i, w);
			return;
		}
	}
	x_need_slot(x);
	x_ea(x, i, op, 0);
	x_linear(x, i, seg, size, 0);
	if (seg >= X86_FS)
		w.held = (struct x_held){.base = X86_RSP, .index = R_NONE};
	check_sum(x, i, guess(x, &w.held, 0));
}

/* Sets x->at for rSP + offset. r13 is free then. */
void x_direct_stack(struct xlate *x, const struct insn *i, int offset)
{
	struct x_want w = {.held = {.base = X86_RSP, .index = R_NONE, .scale = 1}};

	x->at_insn = i;
	operand(x, hold(x, i, &w, 1), offset);
}

/* r13 or r14, as the caller wants it, = the delta of guest register g. */
static void delta_in(struct xlate *x, const struct insn *i, unsigned g, unsigned host)
{
	const struct x_want w = {.held = {.base = (uint8_t)g, .index = R_NONE, .scale = 1}};
	const struct x_held *h = &x->held[host == R_14];

	if (!h->valid || !x_held_same(h, &w.held) || h->added)
		x_direct_hold(x, i, host, &w);
}

void x_direct_element(struct xlate *x, const struct insn *i, bool loads, bool stores)
{
	x->at_insn = i;
	x->at_held = X_HELD;
	if (stores)
		delta_in(x, i, X86_RDI, R_14);
	if (loads)
		delta_in(x, i, X86_RSI, R_13);
}

void x_stack_unknown(struct xlate *x)
{
	x->stack.known = false;
	for (unsigned n = 0; n < X_HELD; n++)
		if (is_stack(&x->held[n]))
			x->held[n].valid = false;
}

void x_stack_entered(struct xlate *x)
{
	x->stack = (struct x_stack){.known = x->direct, .slack = STACK_SLACK};
}

void x_stack_settle(struct xlate *x, const struct insn *i)
{
	const struct x_want w = {.held = {.base = X86_RSP, .index = R_NONE, .scale = 1}};

	if (!x->direct || (x->stack.known && x->stack.slack <= STACK_SLACK))
		return;
	x_stack_unknown(x);
	(void)hold_stack(x, i, &w);
}

void x_stack_moved(struct xlate *x, int64_t by)
{
	if (by <= -MOVE_MAX || by >= MOVE_MAX) {
		x_stack_unknown(x);
		return;
	}
	x->stack.slack += by < 0 ? -by : by;
	if (x->stack.slack >= MOVE_MAX)
		x_stack_unknown(x);
}

#define BY_MAX 8192

void x_stack_commit(struct xlate *x)
{
	int by = x->stack.by;

	if (!by)
		return;
	e_lea(&x->hot, true, R_15, R_15, R_NONE, 1, by);
	x->stack.by = 0;
	x_stack_moved(x, by);
}

void x_stack_later(struct xlate *x, int by)
{
	if (by <= -BY_MAX || by >= BY_MAX) {
		x_stack_commit(x);
		e_lea(&x->hot, true, R_15, R_15, R_NONE, 1, by);
		x_stack_moved(x, by);
		return;
	}
	x->stack.by = (int16_t)(x->stack.by + by);
	if (x->stack.by <= -BY_MAX || x->stack.by >= BY_MAX)
		x_stack_commit(x);
}

void x_stack_used(struct xlate *x)
{
	int64_t off = x->at.disp < 0 ? -(int64_t)x->at.disp : x->at.disp;
	bool plain = x->at.base == R_15 && x->at_held < 2 && is_stack(&x->held[x->at_held]);

	if (x->direct && x->stack.known && plain && off < x->stack.slack)
		x->stack.slack = off;
}

/* What interrupts may wait for. */
#define STRING_MAX 65536

static void add_delta(struct xlate *x, unsigned to, unsigned delta, bool sub)
{
	if (sub)
		e_rr(&x->hot, true, 0x29, to, delta);
	else
		e_lea(&x->hot, true, to, to, delta, 1, 0);
}

bool x_direct_string(struct xlate *x, const struct insn *i, jit_helper *h, uint64_t arg)
{
	struct emit *e = &x->hot;
	unsigned size = ARG_SIZE(arg);
	bool movs = h == h_movs, rep = ARG_IMM(arg);
	const struct x_held rsi = {.base = X86_RSI, .index = R_NONE},
			    rdi = {.base = X86_RDI, .index = R_NONE};

	if ((!movs && h != h_stos) || i->z.address_width != 64 || ARG_R2(arg) >= X86_FS)
		return false;
	x_stack_settle(x, i);
	x_clobber(x);
	x_forget_all(x);
	e_op_gs(e, false, 0xf7, 0, OFF(st.rflags)); /* test dword gs:[rflags], DF */
	e32(e, RFLAGS_DF);
	e_jcc_to(e, CC_NE, x->cold.p);
	if (rep) {
		e_alu_imm(e, true, 7, R_CX, (int32_t)(STRING_MAX / size));
		e_jcc_to(e, CC_A, x->cold.p);
	}
	x_leave_to(x, &x->cold, i, h, arg);
	if (movs)
		check_reg(x, i, R_13, R_SI, guess(x, &rsi, 0));
	check_reg(x, i, R_14, R_DI, guess(x, &rdi, 0));
	if (movs)
		add_delta(x, R_SI, R_13, false);
	add_delta(x, R_DI, R_14, false);
	x_site(x, i, e->p, R_NONE);
	x->site[x->sites - 1].flags |= SITE_RDI | (movs ? SITE_RSI : 0);
	if (rep)
		e8(e, 0xf3);
	if (size == 2)
		e8(e, 0x66);
	e_rex(e, size == 8, 0, 0, 0);
	e8(e, (uint8_t)((movs ? 0xa4 : 0xaa) | (size > 1)));
	if (movs)
		add_delta(x, R_SI, R_13, true);
	add_delta(x, R_DI, R_14, true);
	x_forget_all(x);
	x_exit_to(x, x_next(x, i));
	x->done = true;
	return true;
}

void x_site(struct xlate *x, const struct insn *i, const uint8_t *at, uint8_t borrow)
{
	x->site[x->sites++] = (struct jit_site){.host_off = (uint16_t)(at - x->b.start),
						.borrow = borrow,
						.flags = x->flags,
						.rsp_by = x->stack.by,
						.guest_off = (int16_t)(i->gva - x->b.gva)};
}
