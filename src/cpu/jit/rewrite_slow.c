/* rewrite: copies a guest instruction with its registers renamed and its memory operand
 * replaced by [mem_base]. Works on the encoding's own fields, so whatever Zydis decodes can
 * be copied without knowing what it does. SDM volume 2A, 2. */
#include "cpu/jit/insn.h"

const uint8_t jit_host_reg[16] = {R_AX, R_CX, R_DX, R_BX, R_15, R_BP,   R_SI,   R_DI,
				  R_8,  R_9,  R_10, R_11, R_12, R_NONE, R_NONE, R_NONE};

#define OFF_GPR(n) ((uint32_t)(offsetof(struct jit_cpu, st.gpr) + 8 * (n)))
#define OFF_TMP(n) ((uint32_t)(offsetof(struct jit_cpu, tmp) + 8 * (n)))
#define KEEP       0xff /* an encoding field that keeps its value */

/* A guest register that stands in another host register while the instruction runs. */
struct stand_in {
	uint8_t guest, host;
	bool load, store;
	bool there; /* host has it already */
};

struct rewrite {
	struct emit *e;
	const struct insn *i;
	struct host_mem mem;           /* base R_NONE: no memory operand */
	uint8_t reg, rm, vvvv, opcode; /* register numbers for these fields, or KEEP */
	bool high_byte;                /* AH..BH: no REX prefix possible */
	struct stand_in in[4];
	unsigned ins;
	uint8_t *kept; /* guest registers that r13 and r14 are copies of, or 0 */
	uint16_t used; /* host registers that the instruction names */
	uint8_t borrow[2];
	unsigned borrows;
};

static uint8_t borrow_reg(struct rewrite *w)
{
	static const uint8_t from[] = {R_SI, R_DI, R_BP, R_BX, R_CX, R_DX, R_AX};

	for (unsigned i = 0; i < sizeof from; i++) {
		if (w->used & BIT(from[i]))
			continue;
		w->used |= (uint16_t)BIT(from[i]);
		w->borrow[w->borrows++] = from[i];
		return from[i];
	}
	return R_AX; /* no instruction names that many */
}

/* r13 or r14 for guest register g: the one that it is in, so that it need not be loaded; else R14
 * gets r14, so that it and R13 can both stay. */
static uint8_t scratch_reg(struct rewrite *w, unsigned g)
{
	unsigned first = w->kept[0] == g ? 0 : w->kept[1] == g || g == X86_R14 ? 1 : 0;

	if (w->high_byte)
		return borrow_reg(w);
	for (unsigned n = 0; n < 2; n++) {
		uint8_t host = (uint8_t)(R_13 + (first ^ n));

		if (w->used & BIT(host))
			continue;
		w->used |= (uint16_t)BIT(host);
		return host;
	}
	return borrow_reg(w);
}

static bool is_there(const struct rewrite *w, const struct stand_in *s)
{
	return (s->host == R_13 || s->host == R_14) && w->kept[s->host - R_13] == s->guest;
}

/* R13 to R15 are in memory as well, so that nothing is lost with a copy. */
static void note_kept(struct rewrite *w)
{
	for (const struct stand_in *s = w->in; s < w->in + w->ins; s++)
		if (s->host == R_13 || s->host == R_14)
			w->kept[s->host - R_13] = jit_host_reg[s->guest] == R_NONE ? s->guest : 0;
}

/* The host register that stands for guest register g in this instruction. */
static uint8_t host_for(struct rewrite *w, unsigned g, const ZydisDecodedOperand *op)
{
	bool write = op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
	/* BSF and BSR leave the destination as it was when the source is 0. */
	bool load = op->actions != ZYDIS_OPERAND_ACTION_WRITE || op->size < 32 ||
		    w->i->z.mnemonic == ZYDIS_MNEMONIC_BSF ||
		    w->i->z.mnemonic == ZYDIS_MNEMONIC_BSR;
	struct stand_in *s;

	if (jit_host_reg[g] != R_NONE && !(w->high_byte && g == X86_RSP))
		return jit_host_reg[g];
	for (s = w->in; s < w->in + w->ins; s++)
		if (s->guest == g)
			break;
	if (s == w->in + w->ins) {
		*s = (struct stand_in){.guest = (uint8_t)g, .host = scratch_reg(w, g)};
		s->there = is_there(w, s);
		w->ins++;
	}
	s->load |= load;
	s->store |= write;
	return s->host;
}

static void map_operands(struct rewrite *w)
{
	const struct insn *i = w->i;

	for (unsigned n = 0; n < i->z.operand_count; n++) {
		const ZydisDecodedOperand *op = &i->op[n];

		if (op->type != ZYDIS_OPERAND_TYPE_REGISTER || !insn_is_gpr(op->reg.value))
			continue;
		w->high_byte |= insn_is_high_byte(op->reg.value);
		if (jit_host_reg[insn_gpr(op->reg.value)] != R_NONE)
			w->used |= (uint16_t)BIT(jit_host_reg[insn_gpr(op->reg.value)]);
	}
	for (unsigned n = 0; n < i->z.operand_count_visible; n++) {
		const ZydisDecodedOperand *op = &i->op[n];
		unsigned g;

		if (op->type != ZYDIS_OPERAND_TYPE_REGISTER || !insn_is_gpr(op->reg.value) ||
		    insn_is_high_byte(op->reg.value))
			continue;
		g = insn_gpr(op->reg.value);
		switch (op->encoding) {
		case ZYDIS_OPERAND_ENCODING_MODRM_REG: w->reg = host_for(w, g, op); break;
		case ZYDIS_OPERAND_ENCODING_MODRM_RM: w->rm = host_for(w, g, op); break;
		case ZYDIS_OPERAND_ENCODING_NDSNDD: w->vvvv = host_for(w, g, op); break;
		case ZYDIS_OPERAND_ENCODING_OPCODE: w->opcode = host_for(w, g, op); break;
		default: break; /* a fixed register: RAX, RCX, RDX, which keep their places */
		}
	}
}

/* A register in an immediate has three bits in 32-bit code; there is no register above 7. */
static uint8_t imm_mask(const struct insn *i)
{
	if (i->z.machine_mode == ZYDIS_MACHINE_MODE_LONG_64)
		return 0xff;
	for (unsigned n = 0; n < i->z.operand_count_visible; n++)
		if (i->op[n].encoding == ZYDIS_OPERAND_ENCODING_IS4)
			return 0x7f;
	return 0xff;
}

/* VZEROUPPER and VZEROALL of 32-bit code leave registers 8 to 15 alone: VMOVAPS xmmN, xmmN
 * or VPXOR xmmN, xmmN, xmmN for the others. */
static void put_vzero32(struct emit *e, bool all)
{
	for (unsigned n = 0; n < 8; n++) {
		e8(e, 0xc5);
		e8(e, all ? (uint8_t)(0x81 | (~n & 15) << 3) : 0xf8);
		e8(e, all ? 0xef : 0x28);
		e8(e, (uint8_t)(0xc0 | n << 3 | n));
	}
}

static unsigned index_field(const struct rewrite *w)
{
	return w->mem.index == R_NONE ? 0 : w->mem.index;
}

/* ModRM, SIB and displacement. EVEX has displacements of 8 bits in units of its own. */
static void put_mem(struct rewrite *w, unsigned reg)
{
	const struct host_mem *m = &w->mem;
	bool evex = w->i->z.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX;
	bool sib = m->index != R_NONE || (m->base & 7) == R_SP;
	unsigned log2 = m->scale == 8 ? 3 : m->scale == 4 ? 2 : m->scale == 2 ? 1 : 0;
	unsigned mod = m->disp == 0 && (m->base & 7) != R_BP ? 0
		       : fits_s8(m->disp) && !evex           ? 1
							     : 2;

	e8(w->e, (uint8_t)(mod << 6 | reg << 3 | (sib ? 4u : m->base & 7u)));
	if (sib)
		e8(w->e, (uint8_t)(log2 << 6 | (m->index == R_NONE ? 4u : m->index & 7u) << 3 |
				   (m->base & 7)));
	if (mod == 1)
		e8(w->e, (uint8_t)m->disp);
	else if (mod == 2)
		e32(w->e, (uint32_t)m->disp);
}

/* ModRM, and everything after the address bytes of the original: immediates. */
static void put_modrm_tail(struct rewrite *w)
{
	const ZydisDecodedInstruction *z = &w->i->z;
	unsigned reg = w->reg == KEEP ? z->raw.modrm.reg : w->reg & 7;
	unsigned tail = z->raw.modrm.offset + 1u;

	if (w->mem.base != R_NONE)
		put_mem(w, reg);
	else
		e8(w->e,
		   (uint8_t)(0xc0 | reg << 3 | (w->rm == KEEP ? z->raw.modrm.rm : w->rm & 7)));
	if (z->attributes & ZYDIS_ATTRIB_HAS_SIB)
		tail++;
	tail += z->raw.disp.size / 8u;
	for (; tail < z->length; tail++)
		e8(w->e, w->i->bytes[tail] & imm_mask(w->i));
}

static bool is_prefix_dropped(uint8_t v)
{
	return v == 0x26 || v == 0x2e || v == 0x36 || v == 0x3e || v == 0x64 || v == 0x65 ||
	       v == 0x67;
}

/* In 16-bit code the operand-size prefix means the opposite of what it does in the copy. */
static bool is_code16(const ZydisDecodedInstruction *z)
{
	return z->machine_mode == ZYDIS_MACHINE_MODE_LEGACY_16 ||
	       z->machine_mode == ZYDIS_MACHINE_MODE_LONG_COMPAT_16 ||
	       z->machine_mode == ZYDIS_MACHINE_MODE_REAL_16;
}

/* Whether a copy of 16-bit code needs the prefix: where an operand has that size, and not where
 * it would choose another instruction (vectors; EMMS). */
static bool needs_prefix_16(const struct insn *i)
{
	bool wants = false;

	if (!is_code16(&i->z) || i->z.operand_width != 16 ||
	    i->z.mnemonic == ZYDIS_MNEMONIC_CMPXCHG8B)
		return false;
	for (unsigned n = 0; n < i->z.operand_count; n++) {
		const ZydisDecodedOperand *op = &i->op[n];
		ZydisRegisterClass c = ZydisRegisterGetClass(op->reg.value);

		if (op->type == ZYDIS_OPERAND_TYPE_MEMORY)
			wants |= op->size == 16;
		if (op->type != ZYDIS_OPERAND_TYPE_REGISTER)
			continue;
		if (c == ZYDIS_REGCLASS_MMX || c == ZYDIS_REGCLASS_XMM)
			return false;
		wants |= c == ZYDIS_REGCLASS_GPR16;
	}
	return wants;
}

/* Each prefix once: the copy may have a REX prefix that the original had not, and still must not be
 * longer than an instruction can be. Of REP and REPNE the last counts. */
static bool is_prefix_repeated(const ZydisDecodedInstruction *z, unsigned n)
{
	uint8_t v = z->raw.prefixes[n].value;
	bool rep = v == 0xf2 || v == 0xf3;

	for (unsigned k = rep ? n + 1 : 0; k < (rep ? z->raw.prefix_count : n); k++) {
		uint8_t o = z->raw.prefixes[k].value;

		if (rep ? o == 0xf2 || o == 0xf3 : o == v)
			return true;
	}
	return false;
}

static void put_legacy(struct rewrite *w)
{
	const ZydisDecodedInstruction *z = &w->i->z;
	bool had_rex = z->attributes & ZYDIS_ATTRIB_HAS_REX;
	bool modrm = z->attributes & ZYDIS_ATTRIB_HAS_MODRM;
	unsigned rex = had_rex ? 0x40u | z->raw.rex.W << 3 : 0, r, b;
	uint8_t opcode = z->opcode;

	if (needs_prefix_16(w->i))
		e8(w->e, 0x66);
	for (unsigned n = 0; n < z->raw.prefix_count; n++) {
		uint8_t v = z->raw.prefixes[n].value;

		if (v == 0x66 && is_code16(z) &&
		    z->raw.prefixes[n].type != ZYDIS_PREFIX_TYPE_MANDATORY)
			continue;
		if (!is_prefix_dropped(v) && (v & 0xf0) != 0x40 &&
		    ((v == 0x66 && is_code16(z)) || !is_prefix_repeated(z, n)))
			e8(w->e, v);
	}
	r = w->reg != KEEP ? w->reg >> 3u : had_rex ? z->raw.rex.R : 0u;
	if (w->opcode != KEEP)
		b = w->opcode >> 3;
	else if (w->mem.base != R_NONE)
		b = w->mem.base >> 3;
	else
		b = w->rm != KEEP ? w->rm >> 3 : had_rex ? z->raw.rex.B : 0u;
	rex |= r << 2 | b | index_field(w) >> 3 << 1;
	if (rex && !w->high_byte)
		e8(w->e, (uint8_t)(rex | 0x40));

	switch (z->opcode_map) {
	case ZYDIS_OPCODE_MAP_0F: e8(w->e, 0x0f); break;
	case ZYDIS_OPCODE_MAP_0F38:
		e8(w->e, 0x0f);
		e8(w->e, 0x38);
		break;
	case ZYDIS_OPCODE_MAP_0F3A:
		e8(w->e, 0x0f);
		e8(w->e, 0x3a);
		break;
	default:
		if (opcode >= 0x40 &&
		    opcode <= 0x4f) { /* one-byte INC, DEC: prefixes in 64-bit mode */
			e8(w->e, 0xff);
			e8(w->e, (uint8_t)(0xc0 | (opcode & 8) | (w->opcode & 7)));
			return;
		}
		if (opcode == 0x82) /* an alias that 64-bit mode lacks */
			opcode = 0x80;
		break;
	}
	e8(w->e, w->opcode == KEEP ? opcode : (uint8_t)((opcode & ~7) | (w->opcode & 7)));
	if (modrm) {
		put_modrm_tail(w);
		return;
	}
	for (unsigned n = 0; n < 2; n++)
		for (unsigned k = 0; k < z->raw.imm[n].size / 8u; k++)
			e8(w->e, w->i->bytes[z->raw.imm[n].offset + k]);
}

/* One inverted register-extension bit: of field value v if it is set, else as it was. */
static uint8_t inverted_bit(uint8_t was, unsigned at, unsigned v)
{
	return (uint8_t)((was & ~(1u << at)) | (v >> 3 & 1 ? 0 : 1u << at));
}

/* Lengths in EAX and EDX: outside 64-bit code W does not widen them. */
static bool ignores_w(const ZydisDecodedInstruction *z)
{
	return z->machine_mode != ZYDIS_MACHINE_MODE_LONG_64 &&
	       (z->mnemonic == ZYDIS_MNEMONIC_VPCMPESTRI ||
		z->mnemonic == ZYDIS_MNEMONIC_VPCMPESTRM);
}

static void put_vex(struct rewrite *w)
{
	const ZydisDecodedInstruction *z = &w->i->z;
	const uint8_t *vex = w->i->bytes + z->raw.vex.offset;
	uint8_t b1, b2;

	if (z->raw.vex.size == 2) {
		b1 = (vex[1] & 0x80) | 0x61;
		b2 = vex[1] & 0x7f;
	} else {
		b1 = vex[1];
		b2 = vex[2];
	}
	if (w->reg != KEEP)
		b1 = inverted_bit(b1, 7, w->reg);
	if (w->mem.base != R_NONE)
		b1 = inverted_bit(inverted_bit(b1, 6, index_field(w)), 5, w->mem.base);
	else if (w->rm != KEEP)
		b1 = inverted_bit(b1 | 0x40, 5, w->rm);
	if (w->vvvv != KEEP)
		b2 = (uint8_t)((b2 & ~0x78) | (~w->vvvv & 0xf) << 3);
	if (ignores_w(z))
		b2 &= 0x7f;
	e8(w->e, 0xc4);
	e8(w->e, b1);
	e8(w->e, b2);
	e8(w->e, z->opcode);
	if (z->attributes & ZYDIS_ATTRIB_HAS_MODRM)
		put_modrm_tail(w);
}

static void put_evex(struct rewrite *w)
{
	const ZydisDecodedInstruction *z = &w->i->z;
	const uint8_t *evex = w->i->bytes + z->raw.evex.offset;
	uint8_t p0 = evex[1];

	if (w->reg != KEEP)
		p0 = inverted_bit(p0 | 0x10, 7, w->reg);
	if (w->mem.base != R_NONE)
		p0 = inverted_bit(inverted_bit(p0, 6, index_field(w)), 5, w->mem.base);
	else if (w->rm != KEEP)
		p0 = inverted_bit(p0 | 0x40, 5, w->rm);
	e8(w->e, 0x62);
	e8(w->e, p0);
	e8(w->e, evex[2]);
	e8(w->e, evex[3]);
	e8(w->e, z->opcode);
	put_modrm_tail(w);
}

uint16_t jit_rewrite(struct emit *e, const struct insn *i, struct host_mem m, uint8_t kept[2],
		     uint8_t **at, uint8_t *borrowed)
{
	struct rewrite w = {.e = e,
			    .i = i,
			    .mem = m,
			    .kept = kept,
			    .reg = KEEP,
			    .rm = KEEP,
			    .vvvv = KEEP,
			    .opcode = KEEP};
	bool move_base;
	unsigned base = R_NONE;
	uint16_t scratch = 0;

	if (m.base != R_NONE)
		w.used |= (uint16_t)BIT(m.base);
	if (m.base != R_NONE && m.index != R_NONE)
		w.used |= (uint16_t)BIT(m.index);
	map_operands(&w);
	move_base = w.high_byte && m.base != R_NONE;
	if (move_base)
		base = borrow_reg(&w);
	for (unsigned n = 0; n < w.borrows; n++)
		e_store(e, OFF_TMP(3 - n), w.borrow[n]);
	if (move_base) {
		if (m.index == R_NONE && m.disp == 0)
			e_mov(e, base, m.base);
		else
			e_lea(e, true, base, m.base, m.index, m.scale, m.disp);
		w.mem = (struct host_mem){(uint8_t)base, R_NONE, 1, 0};
	}
	for (unsigned n = 0; n < w.ins; n++) {
		if (!w.in[n].load || w.in[n].there)
			continue;
		if (w.in[n].guest == X86_RSP)
			e_mov(e, w.in[n].host, R_15);
		else
			e_load(e, w.in[n].host, OFF_GPR(w.in[n].guest));
	}
	*at = e->p;
	*borrowed = w.borrows ? w.borrow[0] : R_NONE;
	switch (i->z.encoding) {
	case ZYDIS_INSTRUCTION_ENCODING_VEX:
		if (i->z.machine_mode != ZYDIS_MACHINE_MODE_LONG_64 &&
		    (i->z.mnemonic == ZYDIS_MNEMONIC_VZEROALL ||
		     i->z.mnemonic == ZYDIS_MNEMONIC_VZEROUPPER))
			put_vzero32(e, i->z.mnemonic == ZYDIS_MNEMONIC_VZEROALL);
		else
			put_vex(&w);
		break;
	case ZYDIS_INSTRUCTION_ENCODING_EVEX: put_evex(&w); break;
	default: put_legacy(&w); break;
	}
	for (unsigned n = 0; n < w.ins; n++) {
		if (!w.in[n].store)
			continue;
		if (w.in[n].guest == X86_RSP)
			e_mov(e, R_15, w.in[n].host);
		else
			e_store(e, OFF_GPR(w.in[n].guest), w.in[n].host);
	}
	for (unsigned n = 0; n < w.borrows; n++)
		e_load(e, w.borrow[n], OFF_TMP(3 - n));
	for (unsigned n = 0; n < w.ins; n++)
		scratch |= (uint16_t)BIT(w.in[n].host);
	for (unsigned n = 0; n < w.borrows; n++)
		scratch |= (uint16_t)BIT(w.borrow[n]);
	note_kept(&w);
	return scratch;
}
