/* system: system instructions that a kernel uses all the time, in line: what is left of them in
 * 64-bit mode where the block's mode says that they cannot fault. All else is the helpers'. */
#include "cpu/jit/translate.h"

#define OFF_SEG(s, field)                                                                          \
	(OFF(st.seg) + (uint32_t)((s) * sizeof(struct x86_seg) + offsetof(struct x86_seg, field)))

/* r13d = the flags as PUSHF shows them, from the slot. */
static void flags_word(struct emit *e)
{
	e_store(e, OFF(tmp[0]), R_AX);
	e8(e, 0x65); /* movzx eax, word gs:[flags] */
	e8(e, 0x0f);
	e8(e, 0xb7);
	e_gs(e, R_AX, OFF(flags));
	e_mov32(e, R_13, R_AX);
	e8(e, 0x41); /* shl r13d, 11: OF */
	e8(e, 0xc1);
	e8(e, 0xe5);
	e8(e, 11);
	e_alu_imm(e, false, 4, R_13, (int32_t)RFLAGS_OF);
	e8(e, 0x0f); /* movzx eax, ah */
	e8(e, 0xb6);
	e8(e, 0xc4);
	e_alu_imm(e, false, 4, R_AX, (int32_t)(RFLAGS_ARITH & 0xff));
	e_rr(e, false, 0x09, R_13, R_AX);
	e_load32(e, R_AX, OFF(st.rflags));
	e_alu_imm(e, false, 4, R_AX, (int32_t) ~(RFLAGS_ARITH | RFLAGS_VM | RFLAGS_RF));
	e_rr(e, false, 0x09, R_13, R_AX);
	e_alu_imm(e, false, 1, R_13, (int32_t)RFLAGS_FIXED);
	e_load(e, R_AX, OFF(tmp[0]));
}

static void pushf(struct xlate *x, const struct insn *i)
{
	x_need_slot(x);
	x_stack(x, i, -8, 8, SITE_WRITE);
	x_clobber(x);
	flags_word(&x->hot);
	x_store(x, R_13, 8);
	x_stack_move(x, -8);
}

static void swapgs(struct xlate *x)
{
	struct emit *e = &x->hot;

	e_load(e, R_13, OFF_SEG(X86_GS, base));
	e_load(e, R_14, OFF(st.kernel_gs_base));
	e_store(e, OFF(st.kernel_gs_base), R_13);
	e_store(e, OFF_SEG(X86_GS, base), R_14);
}

static void set_gs32(struct emit *e, uint32_t off, uint32_t v)
{
	e_op_gs(e, false, 0xc7, 0, off);
	e32(e, v);
}

/* STAC and CLAC change the mode, and with it the MMU index. Where that index's tables stand for
 * another mode, or SMAP is off, jit_mode_update has to look. */
static void set_ac(struct xlate *x, const struct insn *i, bool on)
{
	struct emit *e = &x->hot;
	uint32_t mode = on ? x->mode | MODE_AC : x->mode & ~MODE_AC;
	enum jit_mmu mmu = on ? MMU_KERNEL_AC : MMU_KERNEL;

	x_need_slot(x);
	x_clobber(x);
	e_cmp_gs32(e, OFF(tables_mode) + 4 * (uint32_t)mmu, mode);
	e_jcc_to(e, CC_NE, x->cold.p);
	x_leave_to(x, &x->cold, i, i->rule->helper, x_helper_arg(x, i, 0));
	if (on) {
		e_op_gs(e, false, 0x81, 1, OFF(st.rflags));
		e32(e, RFLAGS_AC);
	} else {
		e_op_gs(e, false, 0x81, 4, OFF(st.rflags));
		e32(e, ~RFLAGS_AC);
	}
	set_gs32(e, OFF(mode), mode);
	set_gs32(e, OFF(mmu), mmu);
	x_exit_to(x, x_next(x, i));
	x->done = true;
}

bool x_system(struct xlate *x, const struct insn *i)
{
	jit_helper *h = i->rule->helper;

	if (x->step || !x_code64(x))
		return false;
	if (h == h_pushf && i->z.operand_width == 64)
		pushf(x, i);
	else if (x->mode & MODE_USER)
		return false;
	else if (h == h_swapgs)
		swapgs(x);
	else if (h == h_stac || h == h_clac)
		set_ac(x, i, h == h_stac);
	else
		return false;
	return true;
}

void x_mov_from_sreg(struct xlate *x, const struct insn *i)
{
	unsigned seg = (unsigned)ZydisRegisterGetId(i->op[1].reg.value);

	e8(&x->hot, 0x65); /* movzx r13d, word gs:[sel] */
	e8(&x->hot, 0x44);
	e8(&x->hot, 0x0f);
	e8(&x->hot, 0xb7);
	e_gs(&x->hot, R_13, OFF_SEG(seg, sel));
	x_put(x, insn_gpr(i->op[0].reg.value), R_13, i->op[0].size / 8u);
}
