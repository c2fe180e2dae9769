/* legacy: instructions that 64-bit mode lost (BCD, BOUND, PUSHA, POPA, SALC) and ENTER
 * (SDM volume 2 of each). Flags that the manual leaves undefined come out as AMD's
 * processors compute them. Quick code. */
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

/* SF, ZF and PF of a result of so many bits. */
static uint32_t result_flags(uint32_t v, unsigned bits)
{
	uint32_t f = 0;

	v &= (1u << bits) - 1;
	if (v >> (bits - 1))
		f |= RFLAGS_SF;
	if (v == 0)
		f |= RFLAGS_ZF;
	if (!__builtin_parity(v & 0xff))
		f |= RFLAGS_PF;
	return f;
}

/* OF of a + b = v, or of a - b = v. */
static uint32_t overflow(uint32_t a, uint32_t b, uint32_t v, unsigned bits, bool subtract)
{
	uint32_t sign = subtract ? (a ^ b) & (a ^ v) : ~(a ^ b) & (a ^ v);

	return sign >> (bits - 1) & 1 ? RFLAGS_OF : 0;
}

/* DAA and DAS: an addition or subtraction of 0, 6, 0x60 or 0x66. */
static void decimal_adjust(struct jit_cpu *c, bool subtract)
{
	uint32_t f = jit_flags_get(c), a = al(c), by = 0, v;
	bool af = (a & 0xf) > 9 || (f & RFLAGS_AF);
	bool high = a > 0x99 || (f & RFLAGS_CF);
	bool borrow = subtract && af && a < 6;

	if (af)
		by += 6;
	if (high)
		by += 0x60;
	v = subtract ? a - by : a + by;
	set_al(c, v);
	jit_flags_set_arith(c, result_flags(v, 8) | overflow(a, by, v, 8, subtract) |
				       (high || borrow ? RFLAGS_CF : 0) | (af ? RFLAGS_AF : 0));
}

void h_daa(struct jit_cpu *c, uint64_t arg)
{
	decimal_adjust(c, false);
}

void h_das(struct jit_cpu *c, uint64_t arg)
{
	decimal_adjust(c, true);
}

/* AAA and AAS: an addition or subtraction of 0 or 0x106, before the upper nibble goes. */
static void ascii_adjust(struct jit_cpu *c, bool subtract)
{
	bool adjust = (al(c) & 0xf) > 9 || (jit_flags_get(c) & RFLAGS_AF);
	uint32_t a = (uint32_t)c->st.gpr[X86_RAX] & 0xffff, by = adjust ? 0x106 : 0;
	uint32_t v = subtract ? a - by : a + by;

	set_ax(c, v & 0xff0f);
	jit_flags_set_arith(c, result_flags(v, 16) | overflow(a, by, v, 16, subtract) |
				       (adjust ? RFLAGS_CF | RFLAGS_AF : 0));
}

void h_aaa(struct jit_cpu *c, uint64_t arg)
{
	ascii_adjust(c, false);
}

void h_aas(struct jit_cpu *c, uint64_t arg)
{
	ascii_adjust(c, true);
}

void h_aam(struct jit_cpu *c, uint64_t arg)
{
	uint8_t base = (uint8_t)ARG_IMM(arg), v = al(c);

	if (base == 0)
		jit_raise(c, X86_DE);
	set_ax(c, (unsigned)(v / base) << 8 | v % base);
	jit_flags_set_arith(c, result_flags(al(c), 8));
}

/* An 8-bit addition of AL and AH times the base, flags included. */
void h_aad(struct jit_cpu *c, uint64_t arg)
{
	uint32_t a = al(c), b = ah(c) * ARG_IMM(arg) & 0xff, v = a + b;

	set_ax(c, v & 0xff);
	jit_flags_set_arith(c, result_flags(v, 8) | overflow(a, b, v, 8, false) |
				       (v > 0xff ? RFLAGS_CF : 0) |
				       ((a ^ b ^ v) & 0x10 ? RFLAGS_AF : 0));
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

/* Slot by slot: a fault on the way leaves those before it written, as processors do. */
void h_pusha(struct jit_cpu *c, uint64_t arg)
{
	unsigned size = ARG_SIZE(arg);
	uint64_t mask = stack_mask(c), sp = stack_top(c);

	for (unsigned i = 0; i < 8; i++) {
		uint64_t at = (sp - (i + 1) * size) & mask;

		jit_write(c, c->mmu, jit_seg_addr(c, X86_SS, at, size, ACC_WRITE),
			  gpr_read(c, i, size), size);
	}
	stack_set(c, sp - 8 * size);
}

/* Registers are loaded one by one: a fault on the way leaves those before it loaded. */
void h_popa(struct jit_cpu *c, uint64_t arg)
{
	unsigned size = ARG_SIZE(arg);
	uint64_t sp = stack_top(c);

	for (unsigned i = 8; i-- > 0;) {
		uint64_t v = stack_peek(c, (7 - i) * size, size);

		if (i != X86_RSP)
			gpr_write(c, i, v, size);
	}
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
