/* direct: how user code in a window (window.h) reaches its memory. An operand becomes
 *
 *	mov r13, rbx; shr r13, 42		; the lane of the base register's value
 *	cmp r13d, LANE; jne cold
 *	mov r13, gs:[delta + 8 * LANE]		; host minus guest
 *	add rax, [rbx + r13 + disp]		; the guest's own instruction
 *
 * and the next one off the same base needs the last line alone. LANE is a guess; the cold code takes
 * the lane that it really is. What is no user address at all is executed in step mode.
 *
 * r13 and r14 each hold the delta of one base register, as far as x->held says. The base may have
 * moved since by what is known here and small: the guard zones on both sides of a lane are wider
 * than that and a displacement together.
 *
 * RSP's delta is in jit_cpu.stack_delta wherever a block is entered or left for another, so that PUSH
 * and CALL need no check (x->stack). Its bound there is small: an access off RSP that did not fault
 * shows that RSP is still in its lane, or close to it; a block that moves RSP far without one, or
 * to somewhere else, compares the lane anew. RSP's moves by constants are put off until somebody needs
 * r15 itself (x->stack.by). */
#include "cpu/jit/translate.h"
#include "cpu/jit/window.h"

#define MOVE_MAX (1 << 30) /* with a displacement, 3 GiB: LANE_GUARD is more */
_Static_assert(LANE_GUARD >= (3ull << 30) + 8192, "what a checked base can reach");

_Static_assert(STACK_SLACK >= 65535 + 16, "RET n of a block that was just entered");

static struct x_held *held(struct xlate *x, unsigned host)
{
	return &x->held[host == R_14];
}

void x_forget(struct xlate *x, unsigned host)
{
	if (host != R_13 && host != R_14)
		return;
	held(x, host)->valid = false;
	x->sum.valid = false;
}

void x_forget_all(struct xlate *x)
{
	x->held[0].valid = x->held[1].valid = x->sum.valid = false;
}

/* Which lane the value in guest register g is likely to be in when this code runs: the one that it
 * is in now. Else that of the code, where small programs have their data. */
static unsigned guess(const struct xlate *x, unsigned g)
{
	uint64_t lane = g < 16 ? x->c->st.gpr[g] >> LANE_BITS : LANES;

	if (lane < LANES && x->c->delta[lane] != LANE_ABSENT)
		return (unsigned)lane;
	lane = x->in[0].gva >> LANE_BITS;
	return lane < LANES ? (unsigned)lane : 0;
}

/* Likewise for a base and an index, of which either may be the pointer. */
static unsigned guess_sum(const struct xlate *x, unsigned g, const struct x_sum *s)
{
	const uint64_t *gpr = x->c->st.gpr;
	uint64_t lane = ((g < 16 ? gpr[g] : 0) + (s->index < 16 ? gpr[s->index] * s->scale : 0) +
			 (uint64_t)s->disp) >>
			LANE_BITS;

	if (lane < LANES && x->c->delta[lane] != LANE_ABSENT)
		return (unsigned)lane;
	return guess(x, g);
}

static void load_delta(struct xlate *x, unsigned to, unsigned lane)
{
	e_load(&x->hot, to, OFF(delta) + 8 * lane);
}

/* to = delta of the lane of the address in from. Clobbers the host's flags. */
static void check(struct xlate *x, const struct insn *i, unsigned from, unsigned to, unsigned lane)
{
	struct emit *e = &x->hot;

	e_mov(e, to, from);
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

/* Which of r13 and r14 is to hold g's delta. The stack's is in r14, since PUSH and CALL need r13;
 * RAX's in r13, since RAX is somewhere else while flags are saved or restored, by way of r13. */
static unsigned holder(const struct xlate *x, unsigned g)
{
	if (g == X86_RSP)
		return R_14;
	if (g == X86_RAX)
		return R_13;
	for (unsigned n = 0; n < 2; n++)
		if (!x->held[n].valid)
			return n ? R_14 : R_13;
	return x->held[0].used < x->held[1].used ? R_13 : R_14;
}

/* RSP's, or g's which was just compared, is in host register `to`. */
static void hold(struct xlate *x, unsigned to, unsigned g)
{
	*held(x, to) = (struct x_held){.valid = true, .reg = (uint8_t)g, .used = ++x->uses};
}

/* r13 or r14, with the delta of guest register g, which lives in a host register. */
static unsigned delta_of(struct xlate *x, const struct insn *i, unsigned g)
{
	unsigned to;

	for (unsigned n = 0; n < 2; n++)
		if (x->held[n].valid && x->held[n].reg == g) {
			x->held[n].used = ++x->uses;
			return n ? R_14 : R_13;
		}
	to = holder(x, g);
	x_forget(x, to);
	if (g == X86_RSP && x->stack.known) {
		e_load(&x->hot, to, OFF(stack_delta));
		hold(x, to, g);
		return to;
	}
	x_need_slot(x);
	check(x, i, jit_host_reg[g], to, guess(x, g));
	x_clobber(x);
	hold(x, to, g);
	if (g == X86_RSP) {
		e_store(&x->hot, OFF(stack_delta), to);
		x->stack.known = true;
		x->stack.slack = 0;
	}
	return to;
}

/* The same, in r13 or r14 as the caller wants it. */
static void delta_in(struct xlate *x, const struct insn *i, unsigned g, unsigned to)
{
	if (held(x, to)->valid && held(x, to)->reg == g)
		return;
	x_forget(x, to);
	check(x, i, jit_host_reg[g], to, guess(x, g));
	hold(x, to, g);
}

void x_direct_element(struct xlate *x, const struct insn *i, bool loads, bool stores)
{
	x->at_insn = i;
	if (stores)
		delta_in(x, i, X86_RDI, R_14);
	if (loads)
		delta_in(x, i, X86_RSI, R_13);
}

void x_stack_unknown(struct xlate *x)
{
	x->stack.known = false;
	for (unsigned n = 0; n < 2; n++)
		if (x->held[n].reg == X86_RSP)
			x->held[n].valid = false;
}

void x_stack_entered(struct xlate *x)
{
	x->stack = (struct x_stack){.known = x->direct, .slack = STACK_SLACK};
}

void x_stack_settle(struct xlate *x, const struct insn *i)
{
	if (!x->direct || (x->stack.known && x->stack.slack <= STACK_SLACK))
		return;
	x_stack_unknown(x);
	(void)delta_of(x, i, X86_RSP);
}

static void stack_moved(struct xlate *x, int64_t by)
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
	stack_moved(x, by);
}

void x_stack_later(struct xlate *x, int by)
{
	if (by <= -BY_MAX || by >= BY_MAX) {
		x_stack_commit(x);
		e_lea(&x->hot, true, R_15, R_15, R_NONE, 1, by);
		stack_moved(x, by);
		return;
	}
	x->stack.by = (int16_t)(x->stack.by + by);
	if (x->stack.by <= -BY_MAX || x->stack.by >= BY_MAX)
		x_stack_commit(x);
}

void x_stack_used(struct xlate *x)
{
	int64_t off = x->at.disp < 0 ? -(int64_t)x->at.disp : x->at.disp;

	if (x->direct && x->stack.known && x->at.base == R_15 && off < x->stack.slack)
		x->stack.slack = off;
}

/* The linear address in r14; r13 gets its delta. */
static void check_sum(struct xlate *x, const struct insn *i, unsigned lane)
{
	x_forget_all(x);
	check(x, i, R_14, R_13, lane);
	x_clobber(x);
	x->at = (struct host_mem){R_14, R_13, 0};
}

void x_direct_check(struct xlate *x, const struct insn *i, uint32_t access)
{
	check_sum(x, i, guess(x, access & SITE_STACK ? X86_RSP : LANES));
	x_direct_collapse(x);
}

/* The operand's host address in r14 alone. */
void x_direct_collapse(struct xlate *x)
{
	if (x->at.index == R_NONE && x->at.disp == 0 && x->at.base == R_14)
		return;
	x_forget(x, R_14);
	e_lea(&x->hot, true, R_14, x->at.base, x->at.index, 1, x->at.disp);
	x->at = (struct host_mem){R_14, R_NONE, 0};
}

static uint8_t reg_or_none(ZydisRegister r)
{
	return insn_is_gpr(r) ? (uint8_t)insn_gpr(r) : R_NONE;
}

/* What r14 would be for op, whose value is at if it is a constant. */
static struct x_sum sum_of(const ZydisDecodedOperand *op, bool constant, uint64_t at)
{
	return (struct x_sum){
		.valid = true,
		.seg = x_seg(op) < X86_FS ? X86_DS : x_seg(op),
		.base = constant ? R_NONE : reg_or_none(op->mem.base),
		.index = reg_or_none(op->mem.index),
		.scale = op->mem.index == ZYDIS_REGISTER_NONE ? 1 : op->mem.scale,
		.disp = constant                        ? (int64_t)at
			: op->mem.disp.has_displacement ? op->mem.disp.value
							: 0,
	};
}

/* r14 is that already, but for a small constant. */
static bool have_sum(struct xlate *x, const struct x_sum *s)
{
	const struct x_sum *h = &x->sum;
	int64_t by = s->disp - h->disp;

	if (!h->valid || h->seg != s->seg || h->base != s->base || h->index != s->index ||
	    h->scale != s->scale || by <= -MOVE_MAX || by >= MOVE_MAX)
		return false;
	x->at = (struct host_mem){R_14, R_13, (int32_t)by};
	return true;
}

static bool is_constant(const ZydisDecodedOperand *op)
{
	return op->mem.index == ZYDIS_REGISTER_NONE &&
	       (op->mem.base == ZYDIS_REGISTER_RIP || op->mem.base == ZYDIS_REGISTER_NONE);
}

static uint64_t constant(const struct xlate *x, const struct insn *i, const ZydisDecodedOperand *op)
{
	uint64_t disp = op->mem.disp.has_displacement ? (uint64_t)op->mem.disp.value : 0;

	return op->mem.base == ZYDIS_REGISTER_RIP ? x_next(x, i) + disp : disp;
}

/* Sets x->at. */
void x_direct_mem(struct xlate *x, const struct insn *i, const ZydisDecodedOperand *op,
		  unsigned size)
{
	int64_t disp = op->mem.disp.has_displacement ? op->mem.disp.value : 0;
	enum x86_sreg seg = x_seg(op);
	bool plain = i->z.address_width == 64 && seg < X86_FS;
	unsigned g = LANES;
	struct x_sum s = sum_of(op, false, 0);

	x->at_insn = i;
	if (plain && is_constant(op)) {
		uint64_t at = constant(x, i, op);

		s = sum_of(op, true, at);
		if (at >> LANE_BITS < LANES) {
			if (have_sum(x, &s))
				return;
			x_forget_all(x);
			e_mov_imm(&x->hot, R_14, at);
			load_delta(x, R_13, (unsigned)(at >> LANE_BITS));
			x->at = (struct host_mem){R_14, R_13, 0};
			x->sum = s;
			return;
		}
	}
	if (op->mem.base != ZYDIS_REGISTER_NONE && op->mem.base != ZYDIS_REGISTER_RIP &&
	    op->mem.base != ZYDIS_REGISTER_EIP)
		g = insn_gpr(op->mem.base);
	if (plain && g < 16 && jit_host_reg[g] != R_NONE && op->mem.index == ZYDIS_REGISTER_NONE) {
		unsigned d;

		if (g == X86_RSP && !fits_s32((uint64_t)(disp + x->stack.by)))
			x_stack_commit(x);
		if (g == X86_RSP)
			disp += x->stack.by;
		d = delta_of(x, i, g);
		x->at = (struct host_mem){jit_host_reg[g], (uint8_t)d, (int32_t)disp};
		return;
	}
	if (i->z.address_width == 64 && have_sum(x, &s))
		return;
	x_need_slot(x);
	if (plain && g < 16 && op->mem.index == ZYDIS_REGISTER_NONE) {
		e_load(&x->hot, R_14, OFF_GPR(g)); /* R13 to R15 */
		check_sum(x, i, guess(x, g));
		x->at.disp = (int32_t)disp;
		s.disp = 0;
	} else {
		x_ea(x, i, op, 0);
		x_linear(x, i, seg, size, 0);
		check_sum(x, i, seg == X86_FS ? guess(x, X86_RSP) : guess_sum(x, g, &s));
	}
	x->sum = s;
	x->sum.valid = i->z.address_width == 64 && op->mem.base != ZYDIS_REGISTER_RIP;
}

/* Sets x->at for rSP + offset. r13 is free then. */
void x_direct_stack(struct xlate *x, const struct insn *i, int offset)
{
	x->at_insn = i;
	x->at = (struct host_mem){R_15, (uint8_t)delta_of(x, i, X86_RSP), offset + x->stack.by};
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
		check(x, i, R_SI, R_13, guess(x, X86_RSI));
	check(x, i, R_DI, R_14, guess(x, X86_RDI));
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

/* ---- what an instruction does to what r13 and r14 are known to hold ---- */

/* It adds a constant to its destination, a whole register: which. */
static bool moves(const struct insn *i, unsigned *g, int64_t *by)
{
	const ZydisDecodedOperand *op = i->op;
	bool imm = op[1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;

	if (op[0].type != ZYDIS_OPERAND_TYPE_REGISTER || op[0].size != 64)
		return false;
	*g = insn_gpr(op[0].reg.value);
	switch (i->z.mnemonic) {
	case ZYDIS_MNEMONIC_ADD: *by = op[1].imm.value.s; return imm;
	case ZYDIS_MNEMONIC_SUB: *by = -op[1].imm.value.s; return imm;
	case ZYDIS_MNEMONIC_INC: *by = 1; return true;
	case ZYDIS_MNEMONIC_DEC: *by = -1; return true;
	case ZYDIS_MNEMONIC_LEA:
		*by = op[1].mem.disp.has_displacement ? op[1].mem.disp.value : 0;
		return op[1].mem.base == op[0].reg.value && i->z.address_width == 64 &&
		       op[1].mem.index == ZYDIS_REGISTER_NONE;
	default: return false;
	}
}

static void moved(struct xlate *x, unsigned g, int64_t by)
{
	for (unsigned n = 0; n < 2; n++) {
		struct x_held *h = &x->held[n];

		if (!h->valid || h->reg != g)
			continue;
		h->valid = by > -MOVE_MAX && by < MOVE_MAX && h->moved + by > -MOVE_MAX &&
			   h->moved + by < MOVE_MAX;
		h->moved += h->valid ? (int32_t)by : 0;
	}
	if (x->sum.base == g || x->sum.index == g)
		x->sum.valid = false;
}

static void lost(struct xlate *x, unsigned g)
{
	if (g == X86_RSP)
		x_stack_unknown(x);
	for (unsigned k = 0; k < 2; k++)
		if (x->held[k].reg == g)
			x->held[k].valid = false;
	if (x->sum.base == g || x->sum.index == g)
		x->sum.valid = false;
}

/* A borrowed register comes back, but the scanner cannot see that. */
void x_direct_used(struct xlate *x, uint16_t hosts)
{
	for (unsigned g = 0; g < 16; g++)
		if (jit_host_reg[g] != R_NONE && (hosts >> jit_host_reg[g] & 1))
			lost(x, g);
	for (unsigned h = R_13; h <= R_14; h++)
		if (hosts >> h & 1)
			x_forget(x, h);
}

static void written(struct xlate *x, const struct insn *i)
{
	for (unsigned n = 0; n < i->z.operand_count; n++) {
		const ZydisDecodedOperand *op = &i->op[n];

		if (op->type != ZYDIS_OPERAND_TYPE_REGISTER || !insn_is_gpr(op->reg.value) ||
		    !(op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
			continue;
		lost(x, insn_gpr(op->reg.value));
	}
}

/* A selector, or a control register, is read or written by other code than a copy. */
static bool is_plain(const struct insn *i)
{
	for (unsigned n = 0; n < i->z.operand_count_visible; n++)
		if (i->op[n].type == ZYDIS_OPERAND_TYPE_REGISTER &&
		    !insn_is_gpr(i->op[n].reg.value))
			return false;
	return true;
}

static bool is_rsp(ZydisRegister r)
{
	return insn_is_gpr(r) && !insn_is_high_byte(r) && insn_gpr(r) == X86_RSP;
}

/* It names RSP, but for a memory operand off it without an index. */
static bool names_rsp(const struct insn *i)
{
	for (unsigned n = 0; n < i->z.operand_count; n++) {
		const ZydisDecodedOperand *op = &i->op[n];

		if (op->type == ZYDIS_OPERAND_TYPE_REGISTER && is_rsp(op->reg.value))
			return true;
		if (op->type == ZYDIS_OPERAND_TYPE_MEMORY && is_rsp(op->mem.base) &&
		    (op != i->mem || op->mem.index != ZYDIS_REGISTER_NONE ||
		     i->z.address_width != 64 || x_seg(op) >= X86_FS))
			return true;
	}
	return false;
}

static bool needs_rsp(const struct xlate *x, const struct insn *i)
{
	const ZydisDecodedOperand *op = &i->op[0];
	bool gpr = op->type == ZYDIS_OPERAND_TYPE_REGISTER && insn_is_gpr(op->reg.value);

	switch (i->rule->kind) {
	case RULE_NOP: return false;
	case RULE_JMP: return !i->followed;
	case RULE_MOV: return !is_plain(i) || names_rsp(i);
	case RULE_COPY:
	case RULE_LEA: return names_rsp(i);
	case RULE_PUSH:
		return op->type != ZYDIS_OPERAND_TYPE_IMMEDIATE && (!gpr || is_rsp(op->reg.value));
	case RULE_POP: return !gpr || is_rsp(op->reg.value);
	case RULE_CALL: return !x_is_paired(x, i) || op->type != ZYDIS_OPERAND_TYPE_IMMEDIATE;
	case RULE_RET: return !x_is_paired(x, i) || op->type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
	default: return true;
	}
}

void x_stack_before(struct xlate *x, const struct insn *i)
{
	if (x->stack.by && needs_rsp(x, i))
		x_stack_commit(x);
}

bool x_stack_adds(struct xlate *x, const struct insn *i)
{
	unsigned g;
	int64_t by;

	if (!x->direct || (i->rule->kind != RULE_COPY && i->rule->kind != RULE_LEA) ||
	    (i->live_out & i->touches) || !moves(i, &g, &by) || g != X86_RSP ||
	    !fits_s32((uint64_t)by))
		return false;
	x_stack_later(x, (int)by);
	moved(x, g, by);
	return true;
}

/* Other than by x_stack_move, or a helper. */
static bool writes_rsp(const struct insn *i)
{
	for (unsigned n = 0; n < i->z.operand_count_visible; n++) {
		const ZydisDecodedOperand *op = &i->op[n];

		if (op->type == ZYDIS_OPERAND_TYPE_REGISTER && insn_is_gpr(op->reg.value) &&
		    insn_gpr(op->reg.value) == X86_RSP &&
		    (op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
			return true;
	}
	return i->rule->kind == RULE_LEAVE;
}

void x_direct_after(struct xlate *x, const struct insn *i)
{
	int size = i->z.operand_width / 8;
	const ZydisDecodedOperand *op = &i->op[0];
	unsigned g;
	int64_t by;

	switch (i->rule->kind) {
	case RULE_NOP:
	case RULE_JCC: return; /* but for x_need_host, which sees to it by itself */
	case RULE_MOV:
		if (!is_plain(i))
			break;
		/* fall through */
	case RULE_COPY:
	case RULE_LEA:
		if (!moves(i, &g, &by)) {
			written(x, i);
			return;
		}
		moved(x, g, by);
		if (g == X86_RSP)
			stack_moved(x, by);
		return;
	case RULE_PUSH:
		x_forget(x, R_13);
		if (op->type != ZYDIS_OPERAND_TYPE_MEMORY && is_plain(i)) {
			moved(x, X86_RSP, -size);
			return;
		}
		break;
	case RULE_POP:
		x_forget(x, R_13);
		if (op->type == ZYDIS_OPERAND_TYPE_REGISTER && insn_is_gpr(op->reg.value) &&
		    insn_gpr(op->reg.value) != X86_RSP) {
			lost(x, insn_gpr(op->reg.value));
			moved(x, X86_RSP, size);
			return;
		}
		break;
	case RULE_STRING:
		if (!x_string_once(i))
			break;
		if (i->rule->helper != h_lods)
			moved(x, X86_RDI, i->op[0].size / 8);
		if (i->rule->helper != h_stos)
			moved(x, X86_RSI, i->op[0].size / 8);
		if (i->rule->helper == h_lods)
			lost(x, X86_RAX);
		return;
	default: break;
	}
	x_forget_all(x);
	if (writes_rsp(i))
		x_stack_unknown(x);
}
