/* legacy: instructions that 64-bit mode lost (BCD, BOUND, PUSHA, POPA, SALC) and ENTER
 * (SDM volume 2 of each). Undefined flags are left as the manual's pseudo-code leaves
 * them, or computed as processors do. Quick code. */
#include "cpu/jit/sys_priv.h"

static uint8_t al(const struct jit_cpu *c)
{
	return (uint8_t)c->st.gpr[X86_RAX];
}

static uint8_t ah(const struct jit_cpu *c)
{
	return (uint8_t)(c->st.gpr[X86_RAX] >> 8);
}

static void set_ax(struct jit_cpu *c, unsigned v)
{
	gpr_write(c, X86_RAX, v, 2);
}

static void set_al(struct jit_cpu *c, unsigned v)
{
	gpr_write(c, X86_RAX, v, 1);
}

/* SF, ZF and PF of an 8-bit result, with CF and AF as given. */
static void set_flags(struct jit_cpu *c, uint8_t v, bool cf, bool af)
{
	uint32_t f = 0;

	if (cf)
		f |= RFLAGS_CF;
	if (af)
		f |= RFLAGS_AF;
	if (v & 0x80)
		f |= RFLAGS_SF;
	if (v == 0)
		f |= RFLAGS_ZF;
	if (!__builtin_parity(v))
		f |= RFLAGS_PF;
	jit_flags_set_arith(c, f);
}

/* DAA (sign 1) and DAS (sign -1). */
static void decimal_adjust(struct jit_cpu *c, int sign)
{
	uint32_t f = jit_flags_get(c);
	uint8_t old = al(c);
	bool af = (old & 0xf) > 9 || (f & RFLAGS_AF);
	bool high = old > 0x99 || (f & RFLAGS_CF), cf = high;
	int v = old;

	if (af) {
		v += 6 * sign;
		if (sign < 0 && old < 6)
			cf = true; /* the borrow of the subtraction */
	}
	if (high)
		v += 0x60 * sign;
	set_al(c, (uint8_t)v);
	set_flags(c, (uint8_t)v, cf, af);
}

void h_daa(struct jit_cpu *c, uint64_t arg)
{
	decimal_adjust(c, 1);
}

void h_das(struct jit_cpu *c, uint64_t arg)
{
	decimal_adjust(c, -1);
}

/* AAA (sign 1) and AAS (sign -1). */
static void ascii_adjust(struct jit_cpu *c, int sign)
{
	bool adjust = (al(c) & 0xf) > 9 || (jit_flags_get(c) & RFLAGS_AF);
	unsigned ax = (unsigned)c->st.gpr[X86_RAX] & 0xffff;

	if (adjust)
		ax += (unsigned)(0x106 * sign);
	set_ax(c, ax & 0xff0f);
	set_flags(c, al(c), adjust, adjust);
}

void h_aaa(struct jit_cpu *c, uint64_t arg)
{
	ascii_adjust(c, 1);
}

void h_aas(struct jit_cpu *c, uint64_t arg)
{
	ascii_adjust(c, -1);
}

void h_aam(struct jit_cpu *c, uint64_t arg)
{
	uint8_t base = (uint8_t)ARG_IMM(arg), v = al(c);

	if (base == 0)
		jit_raise(c, X86_DE);
	set_ax(c, (unsigned)(v / base) << 8 | v % base);
	set_flags(c, al(c), false, false);
}

void h_aad(struct jit_cpu *c, uint64_t arg)
{
	uint8_t v = (uint8_t)(al(c) + ah(c) * ARG_IMM(arg));

	set_ax(c, v);
	set_flags(c, v, false, false);
}

void h_salc(struct jit_cpu *c, uint64_t arg)
{
	set_al(c, jit_flags_get(c) & RFLAGS_CF ? 0xff : 0);
}

void h_bound(struct jit_cpu *c, uint64_t arg)
{
	unsigned size = ARG_SIZE(arg), shift = 64 - size * 8;
	int64_t index = (int64_t)(gpr_read(c, ARG_R1(arg), size) << shift) >> shift;
	int64_t low, high;

	if (ARG_R2(arg) != ARG_MEM)
		jit_raise(c, X86_UD);
	low = (int64_t)(ea_read(c, 0, size) << shift) >> shift;
	high = (int64_t)(ea_read(c, size, size) << shift) >> shift;
	if (index < low || index > high)
		jit_raise(c, X86_BR);
}

/* All eight slots are checked before the first is written. */
void h_pusha(struct jit_cpu *c, uint64_t arg)
{
	unsigned size = ARG_SIZE(arg);
	uint64_t mask = stack_mask(c), sp = stack_top(c), gva[8];

	for (unsigned i = 0; i < 8; i++) {
		gva[i] = jit_seg_addr(c, X86_SS, (sp - (i + 1) * size) & mask, size, ACC_WRITE);
		jit_probe(c, c->mmu, gva[i], size, ACC_WRITE);
	}
	for (unsigned i = 0; i < 8; i++)
		jit_write(c, c->mmu, gva[i], gpr_read(c, i, size), size);
	stack_set(c, sp - 8 * size);
}

void h_popa(struct jit_cpu *c, uint64_t arg)
{
	unsigned size = ARG_SIZE(arg);
	uint64_t sp = stack_top(c), v[8];

	for (unsigned i = 0; i < 8; i++)
		v[i] = stack_peek(c, (7 - i) * size, size);
	for (unsigned i = 0; i < 8; i++)
		if (i != X86_RSP)
			gpr_write(c, i, v[i], size);
	stack_set(c, sp + 8 * size);
}

static void poke(struct jit_cpu *c, uint64_t sp, uint64_t v, unsigned size)
{
	jit_write(c, c->mmu, jit_seg_addr(c, X86_SS, sp & stack_mask(c), size, ACC_WRITE), v, size);
}

/* Stores go below the stack pointer, which moves only at the end: a fault on the way leaves
 * the registers as they were. */
void h_enter(struct jit_cpu *c, uint64_t arg)
{
	unsigned size = ARG_SIZE(arg), level = ARG_IMM(arg) >> 16 & 31;
	uint64_t alloc = ARG_IMM(arg) & 0xffff, mask = stack_mask(c);
	uint64_t sp = stack_top(c), bp = c->st.gpr[X86_RBP] & mask, frame;

	sp = (sp - size) & mask;
	poke(c, sp, c->st.gpr[X86_RBP], size);
	frame = sp;
	for (unsigned i = 1; i < level; i++) {
		uint64_t at = (bp - i * size) & mask, gva;

		gva = jit_seg_addr(c, X86_SS, at, size, ACC_READ);
		sp = (sp - size) & mask;
		poke(c, sp, jit_read(c, c->mmu, gva, size), size);
	}
	if (level) {
		sp = (sp - size) & mask;
		poke(c, sp, frame, size);
	}
	sp = (sp - alloc) & mask;
	/* The new top must be writable too (volume 2A, ENTER). */
	jit_probe(c, c->mmu, jit_seg_addr(c, X86_SS, sp, size, ACC_WRITE), size, ACC_WRITE);
	gpr_write(c, X86_RBP, frame, size == 2 ? 2 : mask == 0xffff ? 2 : size);
	stack_set(c, sp);
}
