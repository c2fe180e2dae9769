/* memory: how translated code reaches guest memory. The check, for an access of n bytes at r14:
 *
 *	mov r13, r14; shr r13, 5; and r13d, mask	; row of the page (rows are 128 bytes)
 *	sub r14, gs:[r13 + tag]				; offset in the page, if it is the page
 *	cmp r14, 4096 - n; ja slow			; another page, or past its end
 *	add r14, gs:[r13 + hva]
 *
 * slow (cold code): r14 += tag again, call jit_miss, which fills the TLB and returns the host
 * address, or raises, or has the run loop execute this one instruction in step mode. */
#include "cpu/jit/translate.h"

#define ROW(m, field)                                                                              \
	((int32_t)((m) * sizeof(struct jit_tlb_entry) + offsetof(struct jit_tlb_entry, field)))

enum x86_sreg x_seg(const ZydisDecodedOperand *op)
{
	switch (op->mem.segment) {
	case ZYDIS_REGISTER_ES: return X86_ES;
	case ZYDIS_REGISTER_CS: return X86_CS;
	case ZYDIS_REGISTER_SS: return X86_SS;
	case ZYDIS_REGISTER_FS: return X86_FS;
	case ZYDIS_REGISTER_GS: return X86_GS;
	default: return X86_DS;
	}
}

void x_store_rip(struct xlate *x, struct emit *e, const struct insn *i)
{
	e_store_gva(e, OFF(st.rip), x_rip(x, i), R_13);
}

void x_get(struct xlate *x, unsigned host, unsigned guest)
{
	x_forget(x, host);
	if (jit_host_reg[guest] == R_NONE)
		e_load(&x->hot, host, OFF_GPR(guest));
	else
		e_mov(&x->hot, host, jit_host_reg[guest]);
}

/* A register to read guest from: its own, one that is a copy of it, or scratch after a load. */
static unsigned readable(struct xlate *x, unsigned guest, unsigned scratch)
{
	if (jit_host_reg[guest] != R_NONE)
		return jit_host_reg[guest];
	for (unsigned n = 0; n < 2; n++)
		if (x->kept[n] == guest)
			return R_13 + n;
	e_load(&x->hot, scratch, OFF_GPR(guest));
	x->kept[scratch - R_13] = 0;
	return scratch;
}

void x_ea(struct xlate *x, const struct insn *i, const ZydisDecodedOperand *op, int extra)
{
	int64_t disp = (op->mem.disp.has_displacement ? op->mem.disp.value : 0) + extra;
	unsigned width = i->z.address_width, base = R_NONE, index = R_NONE;

	x_forget_both(x);
	if (op->mem.base == ZYDIS_REGISTER_RIP || op->mem.base == ZYDIS_REGISTER_EIP) {
		uint64_t ea = x_next(x, i) + (uint64_t)disp;

		x_forget_kept(x);
		x->pinned |= width != 64;
		e_mov_gva(&x->hot, R_14, width == 64 ? ea : (uint32_t)ea, 0);
		return;
	}
	if (op->mem.base != ZYDIS_REGISTER_NONE)
		base = readable(x, insn_gpr(op->mem.base), R_14);
	if (op->mem.index != ZYDIS_REGISTER_NONE)
		index = readable(x, insn_gpr(op->mem.index), base == R_13 ? R_14 : R_13);
	x_forget_kept(x);
	if (base == R_NONE && index == R_NONE) {
		e_mov_imm(&x->hot, R_14,
			  width == 64   ? (uint64_t)disp
			  : width == 32 ? (uint32_t)disp
					: (uint16_t)disp);
		return;
	}
	if (index == R_NONE && disp == 0 && width == 64)
		e_mov(&x->hot, R_14, base);
	else
		e_lea(&x->hot, width == 64, R_14, base, index, index == R_NONE ? 1 : op->mem.scale,
		      (int32_t)disp);
	if (width == 16)
		e_zero_extend16(&x->hot, R_14);
}

void x_linear(struct xlate *x, const struct insn *i, enum x86_sreg seg, unsigned size,
	      uint32_t access)
{
	struct emit *e = &x->hot;

	if (x_code64(x)) {
		if (seg >= X86_FS)
			e_op_gs(e, true, 0x03, R_14,
				OFF(st.seg) + seg * sizeof(struct x86_seg) +
					(uint32_t)offsetof(struct x86_seg, base));
		return;
	}
	if (!(x->mode & MODE_SEGS) && seg < X86_FS)
		return;
	x_store_rip(x, e, i);
	e_mov_imm(e, R_13, (uint32_t)seg << 24 | size | access);
	e_call_to(e, x_thunk(x, x->k->seg_addr));
}

void x_check(struct xlate *x, const struct insn *i, unsigned size, uint32_t access)
{
	struct emit *e = &x->hot;
	bool write = access & SITE_WRITE;
	uint32_t site = size | access | (uint32_t)x->mmu << SITE_MMU_SHIFT;
	int32_t tag = write ? ROW(x->mmu, tag_write) : ROW(x->mmu, tag_read);

	x->at_insn = i;
	if (x->direct) {
		x_direct_check(x, i, access);
		return;
	}
	x->at = (struct host_mem){R_14, R_NONE, 1, 0};
	if (x->step) {
		x_store_rip(x, e, i);
		e_mov_imm(e, R_13, site);
		e_call_to(e, x_thunk(x, x->k->bounce_in));
		return;
	}
	e_mov(e, R_13, R_14);
	e8(e, 0x49); /* shr r13, 5 */
	e8(e, 0xc1);
	e8(e, 0xed);
	e8(e, 5);
	e_alu_imm(e, false, 4, R_13, (JIT_TLB_SIZE - 1) << 7);
	e_op_base(e, true, true, 0x2b, R_14, R_13, tag);
	e_alu_imm(e, true, 7, R_14, 4096 - (int32_t)size);
	x->slow[x->slows++] = (struct slow_path){
		.jump = e_jcc(e, CC_A), .i = i, .site = site, .tag = (uint32_t)tag};
	e_op_base(e, true, true, 0x03, R_14, R_13, ROW(x->mmu, hva));
	x->slow[x->slows - 1].back = e->p;
}

void x_slow_paths(struct xlate *x)
{
	struct emit *e = &x->cold;

	for (struct slow_path *s = x->slow; s < x->slow + x->slows; s++) {
		if (s->direct) {
			x_direct_slow_path(x, s);
			continue;
		}
		e_patch(s->jump, e->p);
		e_op_base(e, true, true, 0x03, R_14, R_13, (int32_t)s->tag);
		x_store_rip(x, e, s->i);
		e_mov_imm(e, R_13, s->site);
		e_call_to(e, x_thunk(x, x->k->miss));
		e_jmp_to(e, s->back);
	}
}

/* EVEX masking, and the AVX masked moves, fault only for the elements they touch. */
static bool is_masked(const struct insn *i)
{
	switch (i->z.mnemonic) {
	case ZYDIS_MNEMONIC_VMASKMOVPD:
	case ZYDIS_MNEMONIC_VMASKMOVPS:
	case ZYDIS_MNEMONIC_VPMASKMOVD:
	case ZYDIS_MNEMONIC_VPMASKMOVQ: return true;
	default:
		return i->z.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX &&
		       i->z.avx.mask.reg != ZYDIS_REGISTER_NONE &&
		       i->z.avx.mask.reg != ZYDIS_REGISTER_K0;
	}
}

/* Vector operands that must be aligned to their size. Where the page is there the copied
 * instruction faults by itself (SDM volume 2A, 2.4: types 1, 2, 4 without VEX, and E1). */
static bool is_aligned(const struct insn *i, unsigned size)
{
	switch (i->z.mnemonic) {
	case ZYDIS_MNEMONIC_CMPXCHG16B:
	case ZYDIS_MNEMONIC_CVTPD2PI:
	case ZYDIS_MNEMONIC_CVTTPD2PI: return true;
	case ZYDIS_MNEMONIC_MOVUPS:
	case ZYDIS_MNEMONIC_MOVUPD:
	case ZYDIS_MNEMONIC_MOVDQU:
	case ZYDIS_MNEMONIC_LDDQU:
	case ZYDIS_MNEMONIC_PCMPESTRI:
	case ZYDIS_MNEMONIC_PCMPESTRM:
	case ZYDIS_MNEMONIC_PCMPISTRI:
	case ZYDIS_MNEMONIC_PCMPISTRM:
	case ZYDIS_MNEMONIC_SHA1MSG1: /* whose class says aligned; not every processor does */
	case ZYDIS_MNEMONIC_SHA1MSG2:
	case ZYDIS_MNEMONIC_SHA1NEXTE:
	case ZYDIS_MNEMONIC_SHA1RNDS4:
	case ZYDIS_MNEMONIC_SHA256MSG1:
	case ZYDIS_MNEMONIC_SHA256MSG2:
	case ZYDIS_MNEMONIC_SHA256RNDS2: return false;
	default: break;
	}
	switch (i->z.meta.exception_class) {
	case ZYDIS_EXCEPTION_CLASS_SSE1:
	case ZYDIS_EXCEPTION_CLASS_SSE2:
	case ZYDIS_EXCEPTION_CLASS_SSE4:
	case ZYDIS_EXCEPTION_CLASS_AVX1:
	case ZYDIS_EXCEPTION_CLASS_E1:
	case ZYDIS_EXCEPTION_CLASS_E1NF: return size == 16 || size == 32 || size == 64;
	default: return false;
	}
}

/* Instructions that wait for the x87 unit: they report its pending exception first. */
static bool waits_for_x87(const struct insn *i)
{
	switch (i->z.mnemonic) {
	case ZYDIS_MNEMONIC_FNSTCW:
	case ZYDIS_MNEMONIC_FNSTSW: return false;
	case ZYDIS_MNEMONIC_FISTTP: return true; /* counts as SSE3 */
	default: break;
	}
	if (i->z.meta.isa_ext == ZYDIS_ISA_EXT_X87 || i->z.meta.isa_ext == ZYDIS_ISA_EXT_MMX)
		return true;
	for (unsigned n = 0; n < i->z.operand_count_visible; n++)
		if (i->op[n].type == ZYDIS_OPERAND_TYPE_REGISTER &&
		    ZydisRegisterGetClass(i->op[n].reg.value) == ZYDIS_REGCLASS_MMX)
			return true;
	return false;
}

/* Cache-line instructions check the byte they name, wherever the line ends. */
unsigned x_access_size(const struct insn *i, const ZydisDecodedOperand *op)
{
	switch (i->z.mnemonic) {
	case ZYDIS_MNEMONIC_CLFLUSH:
	case ZYDIS_MNEMONIC_CLFLUSHOPT:
	case ZYDIS_MNEMONIC_CLWB: return 1;
	default: return op->size / 8u;
	}
}

static uint32_t flat(const struct xlate *x, enum x86_sreg seg)
{
	return x_code64(x) || (x->mode & MODE_SEGS) || seg >= X86_FS ? 0 : SITE_FLAT;
}

void x_mem(struct xlate *x, const struct insn *i, const ZydisDecodedOperand *op, uint32_t access,
	   int extra)
{
	enum x86_sreg seg = x_seg(op);
	unsigned size = x_access_size(i, op);

	if (seg == X86_SS)
		access |= SITE_STACK;
	if (is_masked(i))
		access |= SITE_MASKED;
	if (is_aligned(i, size))
		access |= SITE_ALIGNED;
	if (waits_for_x87(i))
		access |= SITE_X87;
	x_ea(x, i, op, extra);
	x_linear(x, i, seg, size, access);
	x_check(x, i, size, access | flat(x, seg));
}

void x_stack(struct xlate *x, const struct insn *i, int offset, unsigned size, uint32_t access)
{
	struct emit *e = &x->hot;
	bool wide = x_code64(x);

	if (x->direct) {
		x_direct_stack(x, i, offset);
		return;
	}
	if (offset || !wide)
		e_lea(e, wide, R_14, R_15, R_NONE, 1, offset);
	else
		e_mov(e, R_14, R_15);
	if (!wide && !(x->mode & MODE_STACK32))
		e_zero_extend16(e, R_14);
	access |= SITE_STACK | flat(x, X86_SS);
	x_linear(x, i, X86_SS, size, access);
	x_check(x, i, size, access);
}

void x_stack_move(struct xlate *x, int by)
{
	struct emit *e = &x->hot;

	if (x->direct) {
		x_stack_later(x, by);
		return;
	}
	if (x_code64(x) || (x->mode & MODE_STACK32)) {
		e_lea(e, x_code64(x), R_15, R_15, R_NONE, 1, by);
		return;
	}
	e_lea(e, false, R_13, R_15, R_NONE, 1, by);
	e8(e, 0x66);
	e_rr(e, false, 0x89, R_15, R_13);
}

void x_written(struct xlate *x)
{
	if (!x->step)
		return;
	x->live = RFLAGS_ARITH;
	x_need_slot(x);
	e_call_to(&x->hot, x_thunk(x, x->k->bounce_out));
	x_clobber(x);
}
