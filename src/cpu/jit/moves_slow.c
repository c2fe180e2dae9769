/* moves: instructions that are rewritten by hand, since they have a stack operand, no ModRM,
 * or an address of their own; and the plain copy of all others. */
#include "cpu/jit/translate.h"

void x_put(struct xlate *x, unsigned guest, unsigned host, unsigned size)
{
	struct emit *e = &x->hot;
	unsigned to = jit_host_reg[guest];

	if (to == R_NONE) {
		if (size == 2)
			e8(e, 0x66);
		if (size == 4) { /* zero-extend first */
			e_mov32(e, host, host);
			size = 8;
		}
		e_op_gs(e, size == 8, 0x89, host, OFF_GPR(guest));
		return;
	}
	if (size == 2)
		e8(e, 0x66);
	e_rr(e, size == 8, 0x89, to, host);
}

/* An instruction on [at], which may trap in a direct block. */
static void op_at(struct xlate *x, bool w, unsigned opcode, unsigned reg)
{
	struct emit *e = &x->hot;
	const struct host_mem *m = &x->at;

	e_rex(e, w, reg, m->index == R_NONE ? 0 : m->index, m->base);
	if (opcode > 0xff)
		e8(e, (uint8_t)(opcode >> 8));
	e8(e, (uint8_t)opcode);
	e_modrm_mem(e, reg, m->base, m->index, m->scale, m->disp);
	x_stack_used(x);
}

static void trap_at(struct xlate *x)
{
	if (x->direct)
		x_site(x, x->at_insn, x->hot.p, R_NONE);
}

void x_load(struct xlate *x, unsigned host, unsigned size)
{
	x_forget(x, host);
	trap_at(x);
	if (size >= 4)
		op_at(x, size == 8, 0x8b, host);
	else /* movzx */
		op_at(x, false, size == 1 ? 0x0fb6 : 0x0fb7, host);
}

void x_store(struct xlate *x, unsigned host, unsigned size)
{
	trap_at(x);
	if (size == 2)
		e8(&x->hot, 0x66);
	op_at(x, size == 8, size == 1 ? 0x88 : 0x89, host); /* a byte is in r13 */
}

void x_store_imm(struct xlate *x, int64_t v, unsigned size)
{
	struct emit *e = &x->hot;

	if (size == 8 && !fits_s32((uint64_t)v)) {
		x_forget(x, R_13);
		e_mov_imm(e, R_13, (uint64_t)v);
		x_store(x, R_13, 8);
		return;
	}
	trap_at(x);
	if (size == 2)
		e8(e, 0x66);
	op_at(x, size == 8, 0xc7, 0);
	if (size == 2)
		e16(e, (uint16_t)v);
	else
		e32(e, (uint32_t)v);
}

uint64_t x_helper_arg(struct xlate *x, const struct insn *i, uint32_t imm)
{
	uint64_t r1 = 0, r2 = 0, size = i->z.operand_width / 8u;
	bool rm_seen = false;

	for (unsigned n = 0; n < i->z.operand_count; n++) {
		const ZydisDecodedOperand *op = &i->op[n];

		if (op->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN)
			continue;
		if (op->type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
			if (i->rule->helper == h_enter && n == 1)
				imm |= (uint32_t)op->imm.value.u << 16;
			else
				imm |= (uint32_t)op->imm.value.u;
		} else if (op->type == ZYDIS_OPERAND_TYPE_MEMORY && !rm_seen) {
			x_ea(x, i, op, 0);
			e_store(&x->hot, OFF(ea), R_14);
			e_store8_imm(&x->hot, OFF(ea_seg), (uint8_t)x_seg(op));
			r2 = ARG_MEM;
			rm_seen = true;
		} else if (op->type == ZYDIS_OPERAND_TYPE_REGISTER) {
			ZydisRegister r = op->reg.value;
			ZydisRegisterClass k = ZydisRegisterGetClass(r);

			if (k == ZYDIS_REGCLASS_SEGMENT || k == ZYDIS_REGCLASS_CONTROL ||
			    k == ZYDIS_REGCLASS_DEBUG)
				r1 = (uint8_t)ZydisRegisterGetId(r);
			else if (insn_is_gpr(r) && op->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM)
				r2 = insn_gpr(r);
			else if (insn_is_gpr(r))
				r1 = insn_gpr(r);
		}
	}
	return i->z.length | size << 8 | r1 << 16 | r2 << 24 | (uint64_t)imm << 32;
}

void x_helper(struct xlate *x, const struct insn *i, jit_helper *h, uint64_t arg)
{
	struct emit *e = &x->hot;
	enum jit_helper_kind kind;
	const void *thunk = jit_thunk_for(x->k, h, &kind);
	const uint8_t *to = x_thunk(x, thunk);

	x_store_rip(x, e, i);
	e_mov_imm(e, R_14, arg);
	x_clobber(x);
	x_forget_all(x);
	x_stack_unknown(x);
	if (kind == HELPER_PLAIN) {
		e_call_to(e, to);
	} else {
		e_jmp_to(e, to);
		x->done = true;
	}
}

/* Can the copy trap by itself, its memory operand being checked? Plain integer instructions
 * cannot; LOCK can, where the host watches for operands that cross cache lines. */
static bool can_trap(const struct insn *i)
{
	if (i->z.meta.isa_ext != ZYDIS_ISA_EXT_BASE || (i->z.attributes & ZYDIS_ATTRIB_HAS_LOCK))
		return true;
	switch (i->z.mnemonic) {
	case ZYDIS_MNEMONIC_DIV:
	case ZYDIS_MNEMONIC_IDIV:
	case ZYDIS_MNEMONIC_XCHG: /* locked without the prefix */ return true;
	default: break;
	}
	switch (i->z.meta.category) {
	case ZYDIS_CATEGORY_BINARY:
	case ZYDIS_CATEGORY_BITBYTE:
	case ZYDIS_CATEGORY_CMOV:
	case ZYDIS_CATEGORY_DATAXFER:
	case ZYDIS_CATEGORY_LOGICAL:
	case ZYDIS_CATEGORY_ROTATE:
	case ZYDIS_CATEGORY_SETCC:
	case ZYDIS_CATEGORY_SHIFT: return false;
	default: return true;
	}
}

static bool takes(const struct xlate *x, unsigned host)
{
	return x->at.base == host || x->at.index == host;
}

/* It names more of R13 to R15 than its operand leaves scratch registers for. */
static bool lacks_scratch(const struct xlate *x, const struct insn *i)
{
	unsigned need = 0;

	for (unsigned n = 0; n < i->z.operand_count_visible; n++)
		if (i->op[n].type == ZYDIS_OPERAND_TYPE_REGISTER &&
		    insn_is_gpr(i->op[n].reg.value) && !insn_is_high_byte(i->op[n].reg.value) &&
		    jit_host_reg[insn_gpr(i->op[n].reg.value)] == R_NONE)
			need++;
	return need > 1 || (need && takes(x, R_13) && takes(x, R_14));
}

void x_copy(struct xlate *x, const struct insn *i)
{
	uint8_t *at, borrowed;
	uint32_t access = 0;
	uint16_t scratch;
	bool needs_host = x_wants_host(i);

	if (i->mem) {
		if (i->mem->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
			access |= SITE_WRITE;
		if (i->mem->actions & ZYDIS_OPERAND_ACTION_MASK_READ)
			access |= SITE_READ;
		if (x->direct) {
			x_direct_mem(x, i, i->mem, x_access_size(i, i->mem));
			if (lacks_scratch(x, i) || (needs_host && !(x->flags & FLAGS_HOST) &&
						    (takes(x, R_13) || takes(x, R_AX))))
				x_direct_collapse(x);
		} else {
			x_need_slot(x);
			x_mem(x, i, i->mem, access ? access : SITE_READ, 0);
			x_clobber(x);
		}
	}
	if (needs_host)
		x_need_host(x);
	scratch = jit_rewrite(&x->hot, i, i->mem ? x->at : (struct host_mem){R_NONE, R_NONE, 1, 0},
			      x->kept, &at, &borrowed);
	if (x->direct && i->mem)
		x_direct_proven(x, i);
	x_direct_used(x, scratch);
	if (x->direct)
		x_forget_kept(x);
	if (can_trap(i) || (x->direct && i->mem))
		x_site(x, i, at, borrowed);
	if (i->rule->kind == RULE_MOV && i->mem && i->z.mnemonic == ZYDIS_MNEMONIC_MOV)
		x_stack_used(x);
	if (i->touches)
		x->flags = FLAGS_HOST;
	if (access & SITE_WRITE)
		x_written(x);
}

/* MOV between AL/eAX and an absolute address (A0-A3): no ModRM, so a plain MOV instead. */
static void mov_moffs(struct xlate *x, const struct insn *i)
{
	bool store = i->z.opcode & 2;
	unsigned size = i->mem->size / 8u;
	struct emit *e = &x->hot;

	x_need_slot(x);
	x_ea(x, i, i->mem, 0);
	if (i->z.address_width == 64) /* the only instruction with a 64-bit displacement */
		e_mov_imm(e, R_14, (uint64_t)i->mem->mem.disp.value);
	x_linear(x, i, x_seg(i->mem), size, store ? SITE_WRITE : SITE_READ);
	x_check(x, i, size, store ? SITE_WRITE : SITE_READ);
	x_clobber(x);
	trap_at(x);
	if (size == 2)
		e8(e, 0x66);
	op_at(x, size == 8, (store ? 0x88u : 0x8au) | (size > 1), R_AX);
	if (store)
		x_written(x);
}

void x_mov(struct xlate *x, const struct insn *i)
{
	ZydisRegisterClass to = ZYDIS_REGCLASS_INVALID, from = ZYDIS_REGCLASS_INVALID;
	jit_helper *h = NULL;

	if (i->op[0].type == ZYDIS_OPERAND_TYPE_REGISTER)
		to = ZydisRegisterGetClass(i->op[0].reg.value);
	if (i->op[1].type == ZYDIS_OPERAND_TYPE_REGISTER)
		from = ZydisRegisterGetClass(i->op[1].reg.value);
	if (from == ZYDIS_REGCLASS_SEGMENT && !i->mem) {
		x_mov_from_sreg(x, i);
		return;
	}
	if (from == ZYDIS_REGCLASS_CONTROL && x_mov_from_cr(x, i))
		return;
	if (to == ZYDIS_REGCLASS_SEGMENT)
		h = h_mov_to_sreg;
	else if (from == ZYDIS_REGCLASS_SEGMENT)
		h = h_mov_from_sreg;
	else if (to == ZYDIS_REGCLASS_CONTROL)
		h = h_mov_to_cr;
	else if (from == ZYDIS_REGCLASS_CONTROL)
		h = h_mov_from_cr;
	else if (to == ZYDIS_REGCLASS_DEBUG)
		h = h_mov_to_dr;
	else if (from == ZYDIS_REGCLASS_DEBUG)
		h = h_mov_from_dr;
	if (h) {
		uint64_t arg;

		x_need_slot(x);
		arg = x_helper_arg(x, i, 0);
		x_helper(x, i, h, arg);
	} else if (i->mem && !(i->z.attributes & ZYDIS_ATTRIB_HAS_MODRM)) {
		mov_moffs(x, i);
	} else {
		x_copy(x, i);
	}
}

void x_push(struct xlate *x, const struct insn *i)
{
	const ZydisDecodedOperand *op = &i->op[0];
	unsigned size = i->z.operand_width / 8u;
	bool plain = x->direct && op->type != ZYDIS_OPERAND_TYPE_MEMORY;

	if (op->type == ZYDIS_OPERAND_TYPE_REGISTER && !insn_is_gpr(op->reg.value)) {
		x_need_slot(x);
		uint64_t arg = x_helper_arg(x, i, 0);

		x_helper(x, i, h_push_sreg, arg);
		return;
	}
	if (!plain)
		x_need_slot(x);
	if (op->type == ZYDIS_OPERAND_TYPE_MEMORY) {
		x_mem(x, i, op, SITE_READ, 0);
		x_load(x, R_13, size);
		e_store(&x->hot, OFF(tmp[0]), R_13);
	}
	x_stack(x, i, -(int)size, size, SITE_WRITE);
	if (!plain)
		x_clobber(x);
	if (op->type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
		x_store_imm(x, op->imm.value.s, size);
	} else if (op->type == ZYDIS_OPERAND_TYPE_MEMORY) {
		e_load(&x->hot, R_13, OFF(tmp[0]));
		x_store(x, R_13, size);
	} else {
		unsigned g = insn_gpr(op->reg.value), from = jit_host_reg[g];

		if (from == R_NONE) {
			e_load(&x->hot, R_13, OFF_GPR(g));
			from = R_13;
		}
		x_store(x, from, size);
	}
	x_stack_move(x, -(int)size);
	x_written(x);
}

void x_pop(struct xlate *x, const struct insn *i)
{
	const ZydisDecodedOperand *op = &i->op[0];
	unsigned size = i->z.operand_width / 8u;
	bool plain = x->direct && op->type != ZYDIS_OPERAND_TYPE_MEMORY, to_gpr;

	if (op->type == ZYDIS_OPERAND_TYPE_REGISTER && !insn_is_gpr(op->reg.value)) {
		x_need_slot(x);
		uint64_t arg = x_helper_arg(x, i, 0);

		x_helper(x, i, h_pop_sreg, arg);
		return;
	}
	if (!plain)
		x_need_slot(x);
	x_stack(x, i, 0, size, SITE_READ);
	if (!plain)
		x_clobber(x);
	to_gpr = op->type == ZYDIS_OPERAND_TYPE_REGISTER && insn_gpr(op->reg.value) != X86_RSP;
	if (to_gpr && size == 8 && jit_host_reg[insn_gpr(op->reg.value)] != R_NONE) {
		x_load(x, jit_host_reg[insn_gpr(op->reg.value)], size);
		x_stack_move(x, (int)size);
		return;
	}
	x_load(x, R_13, size);
	if (op->type == ZYDIS_OPERAND_TYPE_MEMORY) {
		bool from_sp =
			op->mem.base != ZYDIS_REGISTER_NONE && insn_gpr(op->mem.base) == X86_RSP;

		e_store(&x->hot, OFF(tmp[0]), R_13);
		x_mem(x, i, op, SITE_WRITE, from_sp ? (int)size : 0);
		e_load(&x->hot, R_13, OFF(tmp[0]));
		x_store(x, R_13, size);
		x_stack_move(x, (int)size);
		x_written(x);
		return;
	}
	/* POP SP: the popped value is not incremented. */
	if (insn_gpr(op->reg.value) == X86_RSP && size == 2) {
		e_mov(&x->hot, R_14, R_13);
		x_stack_move(x, (int)size); /* uses r13 */
		x_stack_commit(x);
		x_put(x, X86_RSP, R_14, size);
		return;
	}
	if (insn_gpr(op->reg.value) != X86_RSP) {
		x_put(x, insn_gpr(op->reg.value), R_13, size);
		x_stack_move(x, (int)size);
	} else {
		x_put(x, X86_RSP, R_13, size);
	}
}

void x_lea(struct xlate *x, const struct insn *i)
{
	unsigned g = insn_gpr(i->op[0].reg.value), size = i->op[0].size / 8u;
	unsigned to = jit_host_reg[g];

	if (to != R_NONE && i->z.address_width == 64 && size >= 4 &&
	    i->op[1].mem.base != ZYDIS_REGISTER_RIP) {
		const ZydisDecodedOperand *m = &i->op[1];
		unsigned base = R_NONE, index = R_NONE;

		if (m->mem.base != ZYDIS_REGISTER_NONE &&
		    jit_host_reg[insn_gpr(m->mem.base)] != R_NONE)
			base = jit_host_reg[insn_gpr(m->mem.base)];
		if (m->mem.index != ZYDIS_REGISTER_NONE &&
		    jit_host_reg[insn_gpr(m->mem.index)] != R_NONE)
			index = jit_host_reg[insn_gpr(m->mem.index)];
		if ((base != R_NONE || m->mem.base == ZYDIS_REGISTER_NONE) &&
		    (index != R_NONE || m->mem.index == ZYDIS_REGISTER_NONE)) {
			e_lea(&x->hot, size == 8, to, base, index,
			      index == R_NONE ? 1 : m->mem.scale, (int32_t)m->mem.disp.value);
			return;
		}
	}
	x_ea(x, i, &i->op[1], 0);
	x_put(x, g, R_14, size);
}

void x_xlat(struct xlate *x, const struct insn *i)
{
	struct emit *e = &x->hot;
	const ZydisDecodedOperand *op = i->op;

	while (op < i->op + i->z.operand_count && op->type != ZYDIS_OPERAND_TYPE_MEMORY)
		op++;
	x_need_slot(x);
	e_rex(e, false, R_13, 0, R_AX); /* movzx r13d, al */
	e8(e, 0x0f);
	e8(e, 0xb6);
	e8(e, 0xc0 | (R_13 & 7) << 3 | R_AX);
	e_lea(e, i->z.address_width == 64, R_14, R_BX, R_13, 1, 0);
	if (i->z.address_width == 16)
		e_zero_extend16(e, R_14);
	x_linear(x, i, x_seg(op), 1, SITE_READ);
	x_check(x, i, 1, SITE_READ);
	x_clobber(x);
	trap_at(x);
	op_at(x, false, 0x8a, R_AX);
}

void x_leave(struct xlate *x, const struct insn *i)
{
	struct emit *e = &x->hot;
	unsigned size = i->z.operand_width / 8u;
	bool wide = x_code64(x), narrow = !wide && !(x->mode & MODE_STACK32);

	x_need_slot(x);
	if (wide)
		e_mov(e, R_14, R_BP);
	else
		e_mov32(e, R_14, R_BP);
	if (narrow)
		e_zero_extend16(e, R_14);
	x_linear(x, i, X86_SS, size, SITE_READ | SITE_STACK);
	x_check(x, i, size, SITE_READ | SITE_STACK);
	x_clobber(x);
	if (x->direct) /* which may fault here; else r13 and r14 are needed */
		x_load(x, R_13, size);
	e_lea(e, wide, narrow ? R_13 : R_15, R_BP, R_NONE, 1, (int)size);
	if (narrow)
		x_put(x, X86_RSP, R_13, 2);
	if (!x->direct)
		x_load(x, R_13, size);
	x_put(x, X86_RBP, R_13, size);
}

/* With a register bit offset and a memory operand, the offset reaches beyond the operand. */
void x_bt(struct xlate *x, const struct insn *i)
{
	struct emit *e = &x->hot;
	bool imm = i->op[1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
	unsigned size = i->op[0].size / 8u, bit, log2 = size == 8 ? 3 : size == 4 ? 2 : 1;
	uint32_t access = SITE_READ;
	static const uint8_t opcode_ext[] = {4, 5, 6, 7};
	unsigned ext;

	if (!i->mem || imm) {
		x_copy(x, i);
		return;
	}
	if (i->z.mnemonic != ZYDIS_MNEMONIC_BT)
		access |= SITE_WRITE;
	x_need_slot(x);
	bit = insn_gpr(i->op[1].reg.value);
	x_ea(x, i, i->mem, 0);
	x_get(x, R_13, bit);
	e_store(e, OFF(tmp[1]), R_13);
	if (size == 4) { /* movsxd r13, r13d */
		e8(e, 0x4d);
		e8(e, 0x63);
		e8(e, 0xed);
	} else if (size == 2) { /* movsx r13, r13w */
		e8(e, 0x4d);
		e8(e, 0x0f);
		e8(e, 0xbf);
		e8(e, 0xed);
	}
	e8(e, 0x49); /* sar r13, log2(bits) */
	e8(e, 0xc1);
	e8(e, 0xfd);
	e8(e, (uint8_t)(log2 + 3));
	e_lea(e, i->z.address_width == 64, R_14, R_14, R_13, size, 0);
	if (i->z.address_width == 16)
		e_zero_extend16(e, R_14);
	x_linear(x, i, x_seg(i->mem), size, access);
	x_check(x, i, size, access);
	x_clobber(x);
	e_load32(e, R_13, OFF(tmp[1]));
	e_alu_imm(e, false, 4, R_13, (int32_t)(size * 8 - 1));
	e_store32(e, OFF(tmp[1]), R_13);
	if (x_wants_host(i))
		x_need_host(x);
	e_load32(e, R_13, OFF(tmp[1]));
	trap_at(x);
	if (i->z.attributes & ZYDIS_ATTRIB_HAS_LOCK)
		e8(e, 0xf0);
	ext = i->z.mnemonic == ZYDIS_MNEMONIC_BT    ? opcode_ext[0]
	      : i->z.mnemonic == ZYDIS_MNEMONIC_BTS ? opcode_ext[1]
	      : i->z.mnemonic == ZYDIS_MNEMONIC_BTR ? opcode_ext[2]
						    : opcode_ext[3];
	if (size == 2)
		e8(e, 0x66);
	e_rex(e, size == 8, R_13, 0, R_14);
	e8(e, 0x0f);
	e8(e, (uint8_t)(0x83 + (ext << 3)));
	e_modrm_base(e, R_13, R_14, 0);
	x->flags = FLAGS_HOST;
	if (access & SITE_WRITE)
		x_written(x);
}

bool x_string_once(const struct insn *i)
{
	const ZyanU64 rep = ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE;

	return (i->rule->helper == h_movs || i->rule->helper == h_stos ||
		i->rule->helper == h_lods) &&
	       !(i->z.attributes & rep) && i->z.machine_mode == ZYDIS_MACHINE_MODE_LONG_64 &&
	       i->z.address_width == 64;
}

/* r14 = host address of the element at register g. */
static void element(struct xlate *x, const struct insn *i, unsigned g, enum x86_sreg seg,
		    unsigned size, uint32_t access)
{
	if (seg == X86_SS)
		access |= SITE_STACK;
	e_mov(&x->hot, R_14, jit_host_reg[g]);
	x_linear(x, i, seg, size, access);
	x_check(x, i, size, access);
}

/* Registers change last, so that a slow path may run the whole instruction anew. */
void x_string(struct xlate *x, const struct insn *i, unsigned size, enum x86_sreg seg, uint64_t arg)
{
	struct emit *e = &x->hot;
	bool loads = i->rule->helper != h_stos, stores = i->rule->helper != h_lods;
	bool direct = x->direct && (!loads || seg < X86_FS);

	x_need_slot(x);
	x_clobber(x);
	e_op_gs(e, false, 0xf6, 0, OFF(st.rflags) + 1); /* test byte gs:[st.rflags + 1], DF */
	e8(e, RFLAGS_DF >> 8);
	e_jcc_to(e, CC_NE, x->cold.p);
	x_leave_to(x, &x->cold, i, i->rule->helper, arg);
	if (direct)
		x_direct_element(x, i, loads, stores);
	else
		x_forget_all(x);
	if (loads) {
		if (direct)
			x->at = (struct host_mem){R_SI, R_13, 1, 0};
		else
			element(x, i, X86_RSI, seg, size, SITE_READ);
		x_load(x, R_13, size);
	}
	if (loads && stores && !direct)
		e_store(e, OFF(tmp[0]), R_13);
	if (stores) {
		if (direct)
			x->at = (struct host_mem){R_DI, R_14, 1, 0};
		else
			element(x, i, X86_RDI, X86_ES, size, SITE_WRITE);
		if (loads && !direct)
			e_load(e, R_13, OFF(tmp[0]));
		x_store(x, loads ? R_13 : R_AX, size);
		e_lea(e, true, R_DI, R_DI, R_NONE, 1, (int32_t)size);
	} else if (size == 1) {
		e_rr(e, false, 0x88, R_AX, R_13); /* mov al, r13b */
	} else {
		x_put(x, X86_RAX, R_13, size);
	}
	if (loads)
		e_lea(e, true, R_SI, R_SI, R_NONE, 1, (int32_t)size);
}
