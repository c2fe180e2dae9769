/* calls: near calls and returns of 64-bit code. The guest's call is a host call, its return a host
 * return, so that the host predicts where they lead. The host's stack is a hint and no more: behind
 * each host call stands a check that this is where the guest really returns to (x_return_site), and
 * else the table of jumps is asked. So whatever the guest does with its stack, or the engine with
 * the host's (it forgets it whenever translated code is left), only time is lost.
 *
 * The kernel's returns also look whether the mode and their page's mapping are still what they were. User
 * code can change neither. So its calls are set aside while the kernel runs (switch_calls in thunks.c), and
 * forgotten when that changes a mapping (tlb.c) or goes on with other user code. */
#include "cpu/jit/translate.h"

bool x_is_paired(const struct xlate *x, const struct insn *i)
{
	return x_code64(x) && !x->step && i->z.operand_width == 64;
}

/* The host's stack has room for so many calls; then it starts anew. */
static void watch_depth(struct xlate *x)
{
	struct emit *e = &x->hot, *cold = &x->cold;

	e_op_gs(e, true, 0x3b, R_SP, OFF(host_low)); /* cmp rsp, gs:[host_low] */
	e_jcc_to(e, CC_B, cold->p);
	e_load(cold, R_SP, OFF(calls_top));
	e_jmp_to(cold, e->p);
}

static void push_next(struct xlate *x, const struct insn *i)
{
	uint64_t next = x_next(x, i);

	x_stack(x, i, -8, 8, SITE_WRITE);
	x_clobber(x);
	if (fits_s32(next)) {
		x_store_imm(x, (int64_t)next, 8);
		e_mark(&x->hot, x->hot.p - 4, MARK_ABS32S);
	} else {
		x_forget(x, R_13);
		e_mov_gva(&x->hot, R_13, next, 0);
		x_store(x, R_13, 8);
	}
	x_stack_move(x, -8);
	x_stack_commit(x);
	watch_depth(x);
}

/* Some return came here, with the guest's target in r14 and the flags in the slot. */
static void return_site(struct xlate *x, const struct insn *i)
{
	struct emit *e = &x->hot;
	const uint8_t *other = x_thunk(x, x->k->return_other);
	uint64_t next = x_next(x, i);

	x_stack_entered(x);
	if (fits_s32(next)) {
		e_alu_imm(e, true, 7, R_14, (int32_t)next);
		x->pinned |= fits_s8((int64_t)next);
		e_mark(e, e->p - 4, MARK_ABS32S);
	} else {
		e_mov_gva(e, R_13, next, 0);
		e_rr(e, true, 0x39, R_14, R_13);
	}
	e_jcc_to(e, CC_NE, other);
	if (!(x->mode & MODE_USER)) {
		e_cmp_gs32(e, OFF(mode), x->mode);
		e_jcc_to(e, CC_NE, other);
		/* On another page the target's own guard follows. */
		if (((next ^ x->b.gva) & ~0xfffull) == 0)
			e_patch(x_guard(x, x->page), other);
	}
	x->flags = FLAGS_SLOT;
	x_exit_to(x, next);
	x->done = true;
}

/* r13 = host address for the guest's target in r14, which is also in tmp[1] where it is unknown. */
static void find_code(struct xlate *x, const struct insn *i)
{
	struct emit *e = &x->hot, *cold = &x->cold;
	int32_t jump = (int32_t)(OFF(jump) + (uint32_t)x->mmu * sizeof x->c->jump[0]);
	uint8_t *miss, *bad;

	x_forget(x, R_13);
	e_jump_slot(e);
	e_op_base(e, true, true, 0x3b, R_14, R_13, jump + (int32_t)offsetof(struct jit_jump, gva));
	miss = e_jcc(e, CC_NE);
	e_op_base(e, true, true, 0x8b, R_13, R_13, jump + (int32_t)offsetof(struct jit_jump, code));
	e_patch(miss, cold->p);
	bad = x_check_target(x, cold);
	e_store(cold, OFF(tmp[1]), R_14);
	e_mov_imm(cold, R_13, (uint64_t)x->k->call_unknown);
	e_jmp_to(cold, e->p);
	e_patch(bad, cold->p);
	x_leave_to(x, cold, i, h_gp, i->z.length);
}

void x_call_paired(struct xlate *x, const struct insn *i)
{
	struct emit *e = &x->hot;

	x_need_slot(x);
	if (i->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
		push_next(x, i);
		jit_align_jump(e, 1);
		x_put_edge(x, e_call(e), x_branch_target(x, i));
		x->edge[x->edges - 1].call = true;
	} else {
		x_indirect_target(x, i);
		x_clobber(x);
		find_code(x, i);
		e_store(e, OFF(tmp[0]), R_13);
		push_next(x, i);
		e_op_gs(e, false, 0xff, 2, OFF(tmp[0])); /* call gs:[tmp[0]] */
	}
	return_site(x, i);
}

/* A target that is not canonical is found out when it is looked up: then the return has not
 * happened, and st.rip says where it stands. */
void x_ret_paired(struct xlate *x, const struct insn *i, unsigned drop)
{
	struct emit *e = &x->hot;

	x_need_slot(x);
	x_stack(x, i, 0, 8, SITE_READ);
	x_clobber(x);
	x_load(x, R_14, 8);
	if (drop) {
		e_patch(x_check_target(x, e), x->cold.p);
		x_leave_to(x, &x->cold, i, h_gp, i->z.length);
	} else {
		x_store_rip(x, e, i);
	}
	x_stack_move(x, (int)(8 + drop));
	x_stack_commit(x);
	e8(e, 0xc3); /* ret */
	x->done = true;
}
