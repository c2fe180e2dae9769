/* emit: writes host instructions. Only the few forms that the translator makes itself;
 * guest instructions are copied by rewrite.c. Registers are hardware numbers. Nothing here
 * checks room: the translator reserves the most a block can take before it starts. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/bits.h"

enum {
	R_AX,
	R_CX,
	R_DX,
	R_BX,
	R_SP,
	R_BP,
	R_SI,
	R_DI,
	R_8,
	R_9,
	R_10,
	R_11,
	R_12,
	R_13,
	R_14,
	R_15
};
#define R_NONE 0xff

enum cond { CC_O, CC_NO, CC_B, CC_AE, CC_E, CC_NE, CC_BE, CC_A, CC_S, CC_NS, CC_P, CC_NP };

/* Places whose bytes depend on where the code lies, or on which guest address it is made for; for who
 * wants to copy it elsewhere (template.h). */
enum {
	MARK_JUMP,       /* a displacement of 32 bits */
	MARK_GUARD,      /* of a code page: offset of its slot, and behind it its id */
	MARK_ABS64,      /* a guest address, which follows from the block's; */
	MARK_ABS32,      /* zero-extended; */
	MARK_ABS32S,     /* sign-extended */
	MARK_LANE = 0x80 /* with MARK_ABS*: the code knows in which lane that is (window.h) */
};
#define EMIT_MARKS 1024
struct emit_marks {
	unsigned n; /* EMIT_MARKS: there are more */
	struct {
		uint8_t *at, kind;
	} mark[EMIT_MARKS];
};

struct emit {
	uint8_t *p;               /* where the next byte goes, in the writable mapping */
	struct emit_marks *marks; /* NULL: nobody wants to know */
};

static inline void e_mark(struct emit *e, uint8_t *at, unsigned kind)
{
	struct emit_marks *m = e->marks;

	if (!m || m->n == EMIT_MARKS)
		return;
	m->mark[m->n].at = at;
	m->mark[m->n++].kind = (uint8_t)kind;
}

static inline void e8(struct emit *e, uint8_t v)
{
	*e->p++ = v;
}

static inline void e16(struct emit *e, uint16_t v)
{
	__builtin_memcpy(e->p, &v, 2);
	e->p += 2;
}

static inline void e32(struct emit *e, uint32_t v)
{
	__builtin_memcpy(e->p, &v, 4);
	e->p += 4;
}

static inline void e64(struct emit *e, uint64_t v)
{
	__builtin_memcpy(e->p, &v, 8);
	e->p += 8;
}

static inline bool fits_s32(uint64_t v)
{
	return (int64_t)v == (int32_t)v;
}

static inline bool fits_s8(int64_t v)
{
	return v == (int8_t)v;
}

static inline void e_rex(struct emit *e, bool w, unsigned reg, unsigned index, unsigned base)
{
	uint8_t rex = 0x40 | w << 3 | (reg >> 3 & 1) << 2 | (index >> 3 & 1) << 1 | (base >> 3 & 1);

	if (rex != 0x40)
		e8(e, rex);
}

/* op reg, reg: op is the "r/m, r" opcode; rm is the destination */
static inline void e_rr(struct emit *e, bool w, uint8_t op, unsigned rm, unsigned reg)
{
	e_rex(e, w, reg, 0, rm);
	e8(e, op);
	e8(e, 0xc0 | (reg & 7) << 3 | (rm & 7));
}

static inline void e_mov(struct emit *e, unsigned dst, unsigned src)
{
	if (dst != src)
		e_rr(e, true, 0x89, dst, src);
}

static inline void e_mov32(struct emit *e, unsigned dst, unsigned src)
{
	e_rr(e, false, 0x89, dst, src);
}

/* movzx dst, dst16 */
static inline void e_zero_extend16(struct emit *e, unsigned dst)
{
	e_rex(e, false, dst, 0, dst);
	e8(e, 0x0f);
	e8(e, 0xb7);
	e8(e, 0xc0 | (dst & 7) << 3 | (dst & 7));
}

/* The shortest mov that puts v into dst. */
static inline void e_mov_imm(struct emit *e, unsigned dst, uint64_t v)
{
	if (v <= UINT32_MAX) {
		e_rex(e, false, 0, 0, dst);
		e8(e, 0xb8 | (dst & 7));
		e32(e, (uint32_t)v);
	} else if (fits_s32(v)) {
		e_rex(e, true, 0, 0, dst);
		e8(e, 0xc7);
		e8(e, 0xc0 | (dst & 7));
		e32(e, (uint32_t)v);
	} else {
		e_rex(e, true, 0, 0, dst);
		e8(e, 0xb8 | (dst & 7));
		e64(e, v);
	}
}

/* ModRM for [base + disp] */
static inline void e_modrm_base(struct emit *e, unsigned reg, unsigned base, int32_t disp)
{
	unsigned mod = disp == 0 && (base & 7) != R_BP ? 0 : fits_s8(disp) ? 1 : 2;

	e8(e, mod << 6 | (reg & 7) << 3 | (base & 7));
	if ((base & 7) == R_SP)
		e8(e, 0x24);
	if (mod == 1)
		e8(e, (uint8_t)disp);
	else if (mod == 2)
		e32(e, (uint32_t)disp);
}

/* ModRM and SIB for [base + index * 2^log2 + disp]; index may be R_NONE */
static inline void e_modrm_mem(struct emit *e, unsigned reg, unsigned base, unsigned index,
			       unsigned scale, int32_t disp)
{
	unsigned log2 = scale == 8 ? 3 : scale == 4 ? 2 : scale == 2 ? 1 : 0;
	unsigned mod = disp == 0 && (base & 7) != R_BP ? 0 : fits_s8(disp) ? 1 : 2;

	if (index == R_NONE) {
		e_modrm_base(e, reg, base, disp);
		return;
	}
	e8(e, mod << 6 | (reg & 7) << 3 | 4);
	e8(e, log2 << 6 | (index & 7) << 3 | (base & 7));
	if (mod == 1)
		e8(e, (uint8_t)disp);
	else if (mod == 2)
		e32(e, (uint32_t)disp);
}

/* op reg, [base + disp] or op [base + disp], reg, as op says; with gs: when gs */
static inline void e_op_base(struct emit *e, bool gs, bool w, uint8_t op, unsigned reg,
			     unsigned base, int32_t disp)
{
	if (gs)
		e8(e, 0x65);
	e_rex(e, w, reg, 0, base);
	e8(e, op);
	e_modrm_base(e, reg, base, disp);
}

/* lea dst, [base + index * scale + disp]; base or index may be R_NONE */
static inline void e_lea(struct emit *e, bool w, unsigned dst, unsigned base, unsigned index,
			 unsigned scale, int32_t disp)
{
	unsigned log2 = scale == 8 ? 3 : scale == 4 ? 2 : scale == 2 ? 1 : 0;

	if (index == R_NONE && base != R_NONE) {
		e_op_base(e, false, w, 0x8d, dst, base, disp);
		return;
	}
	e_rex(e, w, dst, index == R_NONE ? 0 : index, base == R_NONE ? 0 : base);
	e8(e, 0x8d);
	if (base == R_NONE) {
		e8(e, (dst & 7) << 3 | 4);
		e8(e, log2 << 6 | (index == R_NONE ? 4u : index & 7) << 3 | 5);
		e32(e, (uint32_t)disp);
		return;
	}
	e_modrm_mem(e, dst, base, index, scale, disp);
}

/* gs:[disp32], the vCPU block */
static inline void e_gs(struct emit *e, unsigned reg, uint32_t off)
{
	e8(e, (reg & 7) << 3 | 4);
	e8(e, 0x25);
	e32(e, off);
}

static inline void e_op_gs(struct emit *e, bool w, uint8_t op, unsigned reg, uint32_t off)
{
	e8(e, 0x65);
	e_rex(e, w, reg, 0, 0);
	e8(e, op);
	e_gs(e, reg, off);
}

static inline void e_load(struct emit *e, unsigned reg, uint32_t off)
{
	e_op_gs(e, true, 0x8b, reg, off);
}

static inline void e_store(struct emit *e, uint32_t off, unsigned reg)
{
	e_op_gs(e, true, 0x89, reg, off);
}

static inline void e_load32(struct emit *e, unsigned reg, uint32_t off)
{
	e_op_gs(e, false, 0x8b, reg, off);
}

static inline void e_store32(struct emit *e, uint32_t off, unsigned reg)
{
	e_op_gs(e, false, 0x89, reg, off);
}

/* The same, v being a guest address; mark: MARK_LANE or 0. */
static inline void e_mov_gva(struct emit *e, unsigned dst, uint64_t v, unsigned mark)
{
	e_mov_imm(e, dst, v);
	if (v <= UINT32_MAX)
		e_mark(e, e->p - 4, MARK_ABS32 | mark);
	else if (fits_s32(v))
		e_mark(e, e->p - 4, MARK_ABS32S | mark);
	else
		e_mark(e, e->p - 8, MARK_ABS64 | mark);
}

/* mov qword gs:[off], v; clobbers scratch when v is no signed 32-bit value */
static inline void e_store_imm(struct emit *e, uint32_t off, uint64_t v, unsigned scratch)
{
	if (!fits_s32(v)) {
		e_mov_imm(e, scratch, v);
		e_store(e, off, scratch);
		return;
	}
	e_op_gs(e, true, 0xc7, 0, off);
	e32(e, (uint32_t)v);
}

/* The same, v being a guest address. */
static inline void e_store_gva(struct emit *e, uint32_t off, uint64_t v, unsigned scratch)
{
	if (!fits_s32(v)) {
		e_mov_gva(e, scratch, v, 0);
		e_store(e, off, scratch);
		return;
	}
	e_store_imm(e, off, v, scratch);
	e_mark(e, e->p - 4, MARK_ABS32S);
}

static inline void e_store8_imm(struct emit *e, uint32_t off, uint8_t v)
{
	e_op_gs(e, false, 0xc6, 0, off);
	e8(e, v);
}

/* cmp dword gs:[off], imm */
static inline void e_cmp_gs32(struct emit *e, uint32_t off, uint32_t imm)
{
	if (fits_s8((int32_t)imm)) {
		e_op_gs(e, false, 0x83, 7, off);
		e8(e, (uint8_t)imm);
	} else {
		e_op_gs(e, false, 0x81, 7, off);
		e32(e, imm);
	}
}

static inline void e_cmp_gs8(struct emit *e, uint32_t off, uint8_t imm)
{
	e_op_gs(e, false, 0x80, 7, off);
	e8(e, imm);
}

/* group-1 op (ext: 0 add, 1 or, 4 and, 5 sub, 7 cmp) reg, imm32 */
static inline void e_alu_imm(struct emit *e, bool w, unsigned ext, unsigned reg, int32_t imm)
{
	e_rex(e, w, 0, 0, reg);
	e8(e, fits_s8(imm) ? 0x83 : 0x81);
	e8(e, 0xc0 | ext << 3 | (reg & 7));
	if (fits_s8(imm))
		e8(e, (uint8_t)imm);
	else
		e32(e, (uint32_t)imm);
}

/* Branches with a 32-bit displacement that is filled in later; they return the place of
 * the displacement. */
static inline uint8_t *e_jcc(struct emit *e, unsigned cc)
{
	e8(e, 0x0f);
	e8(e, 0x80 | cc);
	e32(e, 0);
	e_mark(e, e->p - 4, MARK_JUMP);
	return e->p - 4;
}

static inline uint8_t *e_jmp(struct emit *e)
{
	e8(e, 0xe9);
	e32(e, 0);
	e_mark(e, e->p - 4, MARK_JUMP);
	return e->p - 4;
}

static inline uint8_t *e_call(struct emit *e)
{
	e8(e, 0xe8);
	e32(e, 0);
	e_mark(e, e->p - 4, MARK_JUMP);
	return e->p - 4;
}

/* Both addresses in the same mapping. */
static inline void e_patch(uint8_t *rel32, const uint8_t *target)
{
	int32_t d = (int32_t)(target - (rel32 + 4));

	__builtin_memcpy(rel32, &d, 4);
}

static inline void e_jmp_to(struct emit *e, const uint8_t *target)
{
	e_patch(e_jmp(e), target);
}

static inline void e_jcc_to(struct emit *e, unsigned cc, const uint8_t *target)
{
	e_patch(e_jcc(e, cc), target);
}

static inline void e_call_to(struct emit *e, const uint8_t *target)
{
	e_patch(e_call(e), target);
}
