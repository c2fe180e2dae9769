/* branches: the ways out of a block. Direct jumps become edges, linked by the run loop the
 * first time; indirect ones go through the jump table; both go by the run loop in step mode.
 * Calls and returns of 64-bit code: calls_slow.c. */
#include "cpu/jit/translate.h"

/* jmp or jcc to target, linked later. Not in step mode. */
void x_put_edge(struct xlate *x, uint8_t *jump, uint64_t target)
{
	x->edge[x->edges] = (struct jit_edge){
		.target = x_code64(x) ? target : (uint32_t)target,
		.jump = (uint16_t)(jump - x->b.start),
		.index = (uint8_t)x->edges,
		.flags = x->flags,
	};
	x->edges++;
}

/* Leaves for target by way of the run loop, which steps. */
static void step_exit(struct xlate *x, struct emit *e, uint64_t target, uint8_t flags)
{
	if (!(flags & FLAGS_SLOT))
		e_save_flags(e);
	e_store_imm(e, OFF(st.rip), x_code64(x) ? target : (uint32_t)target, R_13);
	e_jmp_to(e, x_thunk(x, x->k->exit_lookup));
}

void x_exit_to(struct xlate *x, uint64_t target)
{
	if (x->step) {
		step_exit(x, &x->hot, target, x->flags);
	} else {
		jit_align_jump(&x->hot, 1);
		x_put_edge(x, e_jmp(&x->hot), target);
	}
}

static void exit_cc(struct xlate *x, unsigned cc, uint64_t target)
{
	if (x->step) {
		e_jcc_to(&x->hot, cc, x->cold.p);
		step_exit(x, &x->cold, target, x->flags);
	} else {
		jit_align_jump(&x->hot, 2);
		x_put_edge(x, e_jcc(&x->hot, cc), target);
	}
}

static bool has_limit(const struct xlate *x)
{
	return !x_code64(x) && x->cs.limit != 0xffffffff;
}

/* ja to the returned place when the address in r14 is not canonical, or past the code segment's
 * limit: a near branch faults before it changes anything. Uses r13. */
uint8_t *x_check_target(struct xlate *x, struct emit *e)
{
	if (!x_code64(x)) {
		e_alu_imm(e, false, 7, R_14, (int32_t)x->cs.limit);
		return e_jcc(e, CC_A);
	}
	e_mov(e, R_13, R_14);
	e8(e, 0x49); /* sar r13, 47 or 56: 0 or -1 */
	e8(e, 0xc1);
	e8(e, 0xfd);
	e8(e, x->mode & MODE_LA57 ? 56 : 47);
	e_alu_imm(e, true, 0, R_13, 1);
	e_alu_imm(e, true, 7, R_13, 1);
	return e_jcc(e, CC_A);
}

/* Leaves for a helper that does not come back here. */
void x_leave_to(struct xlate *x, struct emit *e, const struct insn *i, jit_helper *h, uint64_t arg)
{
	enum jit_helper_kind kind;

	x_store_rip(x, e, i);
	e_mov_imm(e, R_14, arg);
	e_jmp_to(e, x_thunk(x, jit_thunk_for(x->k, h, &kind)));
}

/* Out to the run loop, for the address in r14; rSP += stack_by if that is a good one. */
static void exit_unknown(struct xlate *x, struct emit *e, const struct insn *i, int stack_by)
{
	uint8_t *bad = x_code64(x) ? x_check_target(x, e) : NULL;

	if (stack_by)
		e_lea(e, true, R_15, R_15, R_NONE, 1, stack_by);
	e_jmp_to(e, x_thunk(x, x->k->exit_indirect));
	if (bad) {
		e_patch(bad, e->p);
		x_leave_to(x, e, i, h_gp, i->z.length);
	}
}

/* To the address in r14, flags in the slot; rSP += stack_by. */
static void exit_indirect(struct xlate *x, const struct insn *i, int stack_by)
{
	struct emit *e = &x->hot;
	uint32_t jump = OFF(jump) + (uint32_t)x->mmu * sizeof x->c->jump[0];

	x->done = true;
	if (has_limit(x)) {
		e_patch(x_check_target(x, e), x->cold.p);
		x_leave_to(x, &x->cold, i, h_gp, i->z.length);
	}
	if (!x_code64(x) && stack_by) {
		x_stack_move(x, stack_by);
		stack_by = 0;
	}
	if (x->step) {
		exit_unknown(x, e, i, stack_by);
		return;
	}
	e_jump_slot(e);
	e_op_base(e, true, true, 0x3b, R_14, R_13,
		  (int32_t)(jump + offsetof(struct jit_jump, gva)));
	e_jcc_to(e, CC_NE, x->cold.p);
	exit_unknown(x, &x->cold, i, stack_by);
	if (stack_by)
		e_lea(e, true, R_15, R_15, R_NONE, 1, stack_by);
	e_op_base(e, true, false, 0xff, 4, R_13, (int32_t)(jump + offsetof(struct jit_jump, code)));
}

uint64_t x_branch_target(const struct xlate *x, const struct insn *i)
{
	uint64_t t = x_rip(x, i) + i->z.length + i->op[0].imm.value.u;

	return i->z.operand_width == 16 ? (uint16_t)t : x_code64(x) ? t : (uint32_t)t;
}

/* A direct branch past the limit faults, too. */
bool x_is_past_limit(const struct xlate *x, const struct insn *i)
{
	return has_limit(x) && i->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE &&
	       x_branch_target(x, i) > x->cs.limit;
}

/* The value of a near JMP's or CALL's operand, in r14. */
void x_indirect_target(struct xlate *x, const struct insn *i)
{
	unsigned size = i->z.operand_width / 8u;

	if (i->op[0].type == ZYDIS_OPERAND_TYPE_MEMORY) {
		x_mem(x, i, &i->op[0], SITE_READ, 0);
		x_clobber(x);
		x_load(x, R_14, size);
	} else {
		x_get(x, R_14, insn_gpr(i->op[0].reg.value));
		if (size == 4)
			e_mov32(&x->hot, R_14, R_14);
		if (size == 2)
			e_zero_extend16(&x->hot, R_14);
	}
}

void x_jcc(struct xlate *x, const struct insn *i)
{
	const uint8_t *top;

	x_stack_settle(x, i);
	x_need_host(x);
	if (!x_is_past_limit(x, i)) {
		if ((top = x_loop_back(x, x_branch_target(x, i)))) {
			e_jcc_to(&x->hot, i->rule->cc, top);
			return;
		}
		exit_cc(x, i->rule->cc, x_branch_target(x, i));
		return;
	}
	e_jcc_to(&x->hot, i->rule->cc, x->cold.p);
	if (!(x->flags & FLAGS_SLOT))
		e_save_flags(&x->cold);
	x_leave_to(x, &x->cold, i, h_gp, i->z.length);
}

void x_jmp(struct xlate *x, const struct insn *i)
{
	if (i->followed)
		return;
	x_stack_settle(x, i);
	if (i->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
		const uint8_t *top = x_loop_back(x, x_branch_target(x, i));

		if (top)
			e_jmp_to(&x->hot, top);
		else
			x_exit_to(x, x_branch_target(x, i));
		x->done = true;
		return;
	}
	x_need_slot(x);
	x_indirect_target(x, i);
	x_clobber(x);
	exit_indirect(x, i, 0);
}

void x_call(struct xlate *x, const struct insn *i)
{
	bool direct = i->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
	unsigned size = i->z.operand_width / 8u;

	if (x_is_paired(x, i)) {
		x_call_paired(x, i);
		return;
	}
	x_need_slot(x);
	if (!direct) {
		x_indirect_target(x, i);
		e_store(&x->hot, OFF(tmp[0]), R_14);
		if (x_code64(x) || has_limit(x)) {
			e_patch(x_check_target(x, &x->hot), x->cold.p);
			x_leave_to(x, &x->cold, i, h_gp, i->z.length);
		}
	}
	x_stack(x, i, -(int)size, size, SITE_WRITE);
	x_clobber(x);
	e_mov_gva(&x->hot, R_13, x_next(x, i), 0);
	x_store(x, R_13, size);
	x_stack_move(x, -(int)size);
	x_stack_commit(x);
	x_written(x);
	if (direct) {
		x_exit_to(x, x_branch_target(x, i));
		x->done = true;
	} else {
		e_load(&x->hot, R_14, OFF(tmp[0]));
		exit_indirect(x, i, 0);
	}
}

void x_ret(struct xlate *x, const struct insn *i)
{
	unsigned size = i->z.operand_width / 8u, drop = 0;

	if (i->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE &&
	    i->op[0].visibility != ZYDIS_OPERAND_VISIBILITY_HIDDEN)
		drop = (uint16_t)i->op[0].imm.value.u;
	if (x_is_paired(x, i)) {
		x_ret_paired(x, i, drop);
		return;
	}
	x_need_slot(x);
	x_stack(x, i, 0, size, SITE_READ);
	x_clobber(x);
	x_load(x, R_14, size);
	exit_indirect(x, i, (int)(size + drop));
}

/* (E/R)CX += by, by its width alone; flags untouched. Uses r13. */
static void count_move(struct xlate *x, unsigned width, int by)
{
	struct emit *e = &x->hot;

	if (width == 16) {
		e_lea(e, false, R_13, R_CX, R_NONE, 1, by);
		e8(e, 0x66);
		e_rr(e, false, 0x89, R_CX, R_13);
	} else {
		e_lea(e, width == 64, R_CX, R_CX, R_NONE, 1, by);
	}
}

#define ALWAYS (-1)

/* The taken side of LOOPcc or JrCXZ, if cc holds too. Past the code segment's
 * limit it is #GP, which finds the count as it was. */
static void loop_taken(struct xlate *x, const struct insn *i, int cc, bool counts)
{
	uint8_t *over = NULL;

	if (!x_is_past_limit(x, i)) {
		if (cc == ALWAYS)
			x_exit_to(x, x_branch_target(x, i));
		else
			exit_cc(x, (unsigned)cc, x_branch_target(x, i));
		return;
	}
	if (cc != ALWAYS)
		over = e_jcc(&x->hot, (enum cond)(cc ^ 1));
	if (counts)
		count_move(x, i->z.address_width, 1);
	x_leave_to(x, &x->hot, i, h_gp, i->z.length);
	if (over)
		e_patch(over, x->hot.p);
}

/* LOOPcc and JrCXZ: no flags change, so the count is tested by JRCXZ (JECXZ). 16-bit counts
 * go through r13. */
void x_loop(struct xlate *x, const struct insn *i)
{
	struct emit *e = &x->hot;
	unsigned width = i->z.address_width;
	ZydisMnemonic m = i->z.mnemonic;
	bool counts =
		m == ZYDIS_MNEMONIC_LOOP || m == ZYDIS_MNEMONIC_LOOPE || m == ZYDIS_MNEMONIC_LOOPNE;
	uint8_t *zero, *over;

	x_stack_settle(x, i);
	if (m == ZYDIS_MNEMONIC_LOOPE || m == ZYDIS_MNEMONIC_LOOPNE)
		x_need_host(x);
	if (x_is_past_limit(x, i))
		x_need_slot(x);
	if (counts)
		count_move(x, width, -1);
	if (width == 16) { /* test CX alone, with RCX put aside */
		e_mov(e, R_14, R_CX);
		e8(e, 0x0f); /* movzx ecx, cx */
		e8(e, 0xb7);
		e8(e, 0xc9);
		e8(e, 0xe3); /* jrcxz */
		zero = e->p++;
		e_mov(e, R_CX, R_14);
	} else {
		if (width == 32)
			e8(e, 0x67);
		e8(e, 0xe3);
		zero = e->p++;
	}
	/* count not zero */
	if (!counts) {
		e8(e, 0xeb);
		over = e->p++;
	} else {
		loop_taken(x, i,
			   m == ZYDIS_MNEMONIC_LOOP    ? ALWAYS
			   : m == ZYDIS_MNEMONIC_LOOPE ? CC_E
						       : CC_NE,
			   true);
		e8(e, 0xeb);
		over = e->p++;
	}
	*zero = (uint8_t)(e->p - zero - 1);
	if (width == 16)
		e_mov(e, R_CX, R_14);
	if (!counts)
		loop_taken(x, i, ALWAYS, false);
	*over = (uint8_t)(e->p - over - 1);
}
