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

/* If cc, the helper does it; the returned jump leads from there to what the caller patches it to.
 * Flags in the slot. */
static uint8_t *or_helper(struct xlate *x, const struct insn *i, unsigned cc)
{
	enum jit_helper_kind kind;
	const uint8_t *helper = x_thunk(x, jit_thunk_for(x->k, i->rule->helper, &kind));
	struct emit *cold = &x->cold;

	e_jcc_to(&x->hot, cc, cold->p);
	x_store_rip(x, cold, i);
	e_mov_imm(cold, R_14, x_helper_arg(x, i, 0));
	e_call_to(cold, helper);
	x_forget_all(x);
	x_stack_unknown(x);
	return e_jmp(cold);
}

static void test_cr4(struct xlate *x, uint32_t bit)
{
	x_need_slot(x);
	x_clobber(x);
	e_op_gs(&x->hot, false, 0xf7, 0, OFF(st.cr4));
	e32(&x->hot, bit);
}

static void shift_imm(struct emit *e, unsigned ext, unsigned reg, uint8_t by)
{
	e_rex(e, true, 0, 0, reg);
	e8(e, 0xc1);
	e8(e, (uint8_t)(0xc0 | ext << 3 | (reg & 7)));
	e8(e, by);
}

static void rdtsc(struct xlate *x, const struct insn *i)
{
	struct emit *e = &x->hot;
	bool and_aux = i->rule->helper == h_rdtscp;
	uint8_t *back = NULL;

	x_need_slot(x);
	x_clobber(x);
	if (x->mode & MODE_USER) {
		test_cr4(x, CR4_TSD);
		back = or_helper(x, i, CC_NE);
	}
	if (and_aux) { /* lfence: RDTSCP waits for what is before it */
		e8(e, 0x0f);
		e8(e, 0xae);
		e8(e, 0xe8);
	}
	e8(e, 0x0f);
	e8(e, 0x31);
	shift_imm(e, 4, R_DX, 32);
	e_rr(e, true, 0x09, R_AX, R_DX);
	e_op_gs(e, true, 0x03, R_AX, OFF(tsc_offset));
	e_mov(e, R_DX, R_AX);
	shift_imm(e, 5, R_DX, 32);
	e_mov32(e, R_AX, R_AX);
	if (and_aux)
		e_load32(e, R_CX, OFF(st.tsc_aux));
	if (back)
		e_patch(back, e->p);
}

static void rd_base(struct xlate *x, const struct insn *i, enum x86_sreg s)
{
	uint8_t *back;

	test_cr4(x, CR4_FSGSBASE);
	back = or_helper(x, i, CC_E);
	e_load(&x->hot, R_13, OFF_SEG(s, base));
	x_put(x, insn_gpr(i->op[0].reg.value), R_13, i->z.operand_width / 8u);
	e_patch(back, x->hot.p);
}

/* Not canonical is #GP. */
static void wr_base(struct xlate *x, const struct insn *i, enum x86_sreg s)
{
	struct emit *e = &x->hot;
	uint8_t *back, *back2 = NULL, up = x->mode & MODE_LA57 ? 64 - 57 : 64 - 48;

	test_cr4(x, CR4_FSGSBASE);
	back = or_helper(x, i, CC_E);
	x_get(x, R_13, insn_gpr(i->op[0].reg.value));
	if (i->z.operand_width == 32) {
		e_mov32(e, R_13, R_13);
	} else {
		e_mov(e, R_14, R_13);
		shift_imm(e, 4, R_14, up);
		shift_imm(e, 7, R_14, up);
		e_rr(e, true, 0x39, R_14, R_13);
		back2 = or_helper(x, i, CC_NE);
	}
	e_store(e, OFF_SEG(s, base), R_13);
	e_patch(back, e->p);
	if (back2)
		e_patch(back2, e->p);
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
	else if (h == h_rdtsc || h == h_rdtscp)
		rdtsc(x, i);
	else if (h == h_rdfsbase || h == h_rdgsbase)
		rd_base(x, i, h == h_rdfsbase ? X86_FS : X86_GS);
	else if (h == h_wrfsbase || h == h_wrgsbase)
		wr_base(x, i, h == h_wrfsbase ? X86_FS : X86_GS);
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

bool x_mov_from_cr(struct xlate *x, const struct insn *i)
{
	uint32_t off;

	if (x->step || !x_code64(x) || (x->mode & MODE_USER))
		return false;
	switch (ZydisRegisterGetId(i->op[1].reg.value)) {
	case 0: off = OFF(st.cr0); break;
	case 2: off = OFF(st.cr2); break;
	case 3: off = OFF(st.cr3); break;
	case 4: off = OFF(st.cr4); break;
	default: return false;
	}
	e_load(&x->hot, R_13, off);
	x_put(x, insn_gpr(i->op[0].reg.value), R_13, 8);
	return true;
}
