/* vsib: accesses to several addresses by one instruction: gathers, scatters, and the
 * byte-masked stores (SDM volume 2: VPGATHERDD, VPSCATTERDD, MASKMOVDQU and relatives).
 *
 * The instruction is decoded again at st.rip and done element by element on st.xsave. A
 * gather or scatter that faults has done the elements before: their mask bits are clear,
 * as the manual promises. Not quick: every entry gives up the vector state first. */
#include "cpu/jit/sys_priv.h"
#include "cpu/jit/fpu_slow.h"

#include <Zydis/Zydis.h>
#include <string.h>

#define XCR0_UPTO_AVX512 (XCR0_SSE | XCR0_AVX | XCR0_AVX512)
#define OFF_FSW          2
#define OFF_FTW          4
#define OFF_ST           32
#define FSW_ES           0x80
#define OFF_XMM          160

struct decoded {
	ZydisDecodedInstruction i;
	ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
};

static void decode(struct jit_cpu *c, uint64_t arg, struct decoded *d)
{
	ZydisMachineMode mode = ZYDIS_MACHINE_MODE_LEGACY_16;
	ZydisStackWidth width = ZYDIS_STACK_WIDTH_16;
	uint8_t bytes[15];
	unsigned len = ARG_LEN(arg);
	uint64_t gva = jit_linear_rip(c);
	ZydisDecoder z;

	if (jit_code64(c)) {
		mode = ZYDIS_MACHINE_MODE_LONG_64;
		width = ZYDIS_STACK_WIDTH_64;
	} else if (c->st.seg[X86_CS].attr & SEG_DB) {
		mode = ZYDIS_MACHINE_MODE_LEGACY_32;
		width = ZYDIS_STACK_WIDTH_32;
	}
	if (len > sizeof bytes)
		len = sizeof bytes;
	jit_read_buf(c, c->mmu, gva, bytes, len);
	if (ZYAN_FAILED(ZydisDecoderInit(&z, mode, width)) ||
	    ZYAN_FAILED(ZydisDecoderDecodeFull(&z, bytes, len, &d->i, d->op)))
		jit_raise(c, X86_UD);
}

/* --- registers --- */
static unsigned reg_id(ZydisRegister r)
{
	return (unsigned)ZydisRegisterGetId(r) & 31;
}

/* Byte b of vector register r; runs of 16 bytes from a multiple of 16 are contiguous. */
static uint8_t *vec(struct jit_cpu *c, unsigned r, unsigned b)
{
	if (r >= 16)
		return fpu_component(c, 7) + 64 * (r - 16) + b;
	if (b < 16)
		return c->st.xsave + OFF_XMM + 16 * r + b;
	if (b < 32)
		return fpu_component(c, 2) + 16 * r + b - 16;
	return fpu_component(c, 6) + 32 * r + b - 32;
}

static uint64_t usable_components(const struct jit_cpu *c)
{
	return XCR0_UPTO_AVX512 & c->st.xcr0;
}

/* Zeroes bytes from..end of the widest form of r. */
static void vec_zero_from(struct jit_cpu *c, unsigned r, unsigned from)
{
	unsigned end = c->st.xcr0 & XCR0_AVX512 ? 64 : c->st.xcr0 & XCR0_AVX ? 32 : 16;

	for (unsigned b = from; b < end; b += 4)
		memset(vec(c, r, b), 0, 4);
}

static enum x86_sreg sreg_of(ZydisRegister r)
{
	switch (r) {
	case ZYDIS_REGISTER_ES: return X86_ES;
	case ZYDIS_REGISTER_CS: return X86_CS;
	case ZYDIS_REGISTER_SS: return X86_SS;
	case ZYDIS_REGISTER_FS: return X86_FS;
	case ZYDIS_REGISTER_GS: return X86_GS;
	default: return X86_DS;
	}
}

/* --- gather, scatter --- */
struct vsib {
	bool scatter, evex;
	unsigned count, data, index; /* elements; bytes of each, and of each index */
	unsigned reg, index_reg, mask_reg;
	const ZydisDecodedOperand *mem;
	bool has_base;
	uint64_t disp;
	unsigned asize;
};

/* The sizes are in the mnemonic: D or Q index, then D, Q, PS or PD data. */
static bool sizes_of(ZydisMnemonic m, struct vsib *v)
{
	v->scatter = false;
	switch (m) {
	case ZYDIS_MNEMONIC_VPSCATTERDD:
	case ZYDIS_MNEMONIC_VSCATTERDPS: v->scatter = true; /* fall through */
	case ZYDIS_MNEMONIC_VPGATHERDD:
	case ZYDIS_MNEMONIC_VGATHERDPS:
		v->index = 4;
		v->data = 4;
		return true;
	case ZYDIS_MNEMONIC_VPSCATTERDQ:
	case ZYDIS_MNEMONIC_VSCATTERDPD: v->scatter = true; /* fall through */
	case ZYDIS_MNEMONIC_VPGATHERDQ:
	case ZYDIS_MNEMONIC_VGATHERDPD:
		v->index = 4;
		v->data = 8;
		return true;
	case ZYDIS_MNEMONIC_VPSCATTERQD:
	case ZYDIS_MNEMONIC_VSCATTERQPS: v->scatter = true; /* fall through */
	case ZYDIS_MNEMONIC_VPGATHERQD:
	case ZYDIS_MNEMONIC_VGATHERQPS:
		v->index = 8;
		v->data = 4;
		return true;
	case ZYDIS_MNEMONIC_VPSCATTERQQ:
	case ZYDIS_MNEMONIC_VSCATTERQPD: v->scatter = true; /* fall through */
	case ZYDIS_MNEMONIC_VPGATHERQQ:
	case ZYDIS_MNEMONIC_VGATHERQPD:
		v->index = 8;
		v->data = 8;
		return true;
	default: return false;
	}
}

static bool vsib_of(const struct decoded *d, struct vsib *v)
{
	const ZydisDecodedOperand *mask, *reg;

	if (!sizes_of(d->i.mnemonic, v))
		return false;
	v->evex = d->i.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX;
	v->asize = d->i.address_width / 8;
	v->count = d->i.avx.vector_length / 8 / (v->index > v->data ? v->index : v->data);
	reg = &d->op[v->scatter ? 2 : 0];
	v->mem = &d->op[v->scatter ? 0 : v->evex ? 2 : 1];
	mask = &d->op[v->evex ? 1 : 2];
	/* Without MOD, a SIB base of 101 is a displacement (table 2-3), whatever the B bit;
	 * Zydis 4.0 takes it for r13. */
	v->has_base = v->mem->mem.base != ZYDIS_REGISTER_NONE &&
		      !(d->i.raw.modrm.mod == 0 && d->i.raw.sib.base == 5);
	v->disp = (uint64_t)(v->has_base ? v->mem->mem.disp.value : d->i.raw.disp.value);
	if (v->mem->type != ZYDIS_OPERAND_TYPE_MEMORY || mask->type != ZYDIS_OPERAND_TYPE_REGISTER)
		return false;
	v->reg = reg_id(reg->reg.value);
	v->mask_reg = reg_id(mask->reg.value);
	v->index_reg = reg_id(v->mem->mem.index);
	if (v->evex && v->mask_reg == 0)
		return false;
	if (v->scatter)
		return true;
	return v->reg != v->index_reg &&
	       (v->evex || (v->mask_reg != v->reg && v->mask_reg != v->index_reg));
}

static uint64_t element_gva(struct jit_cpu *c, const struct vsib *v, unsigned n)
{
	const ZydisDecodedOperand *m = v->mem;
	uint64_t at = load_le(vec(c, v->index_reg, n * v->index), v->index);

	if (v->index == 4)
		at = (uint64_t)(int64_t)(int32_t)at;
	at = at * m->mem.scale + v->disp;
	if (v->has_base)
		at += c->st.gpr[reg_id(m->mem.base) & 15];
	return jit_seg_addr(c, sreg_of(m->mem.segment), trunc_bytes(at, v->asize), v->data,
			    v->scatter ? ACC_WRITE : ACC_READ);
}

static bool mask_bit(struct jit_cpu *c, const struct vsib *v, unsigned n)
{
	if (v->evex)
		return load_le(fpu_component(c, 5) + 8 * v->mask_reg, 8) >> n & 1;
	return vec(c, v->mask_reg, n * v->data)[v->data - 1] & 0x80;
}

static void clear_mask_bit(struct jit_cpu *c, const struct vsib *v, unsigned n)
{
	uint8_t *k = fpu_component(c, 5) + 8 * v->mask_reg;

	if (v->evex)
		store_le(k, load_le(k, 8) & ~BIT(n), 8);
	else
		memset(vec(c, v->mask_reg, n * v->data), 0, v->data);
}

static __attribute__((noinline)) void gather_body(struct jit_cpu *c, uint64_t arg)
{
	struct decoded d;
	struct vsib v;

	if (c->st.cr0 & CR0_TS)
		jit_raise(c, X86_NM);
	decode(c, arg, &d);
	if (!vsib_of(&d, &v))
		jit_raise(c, X86_UD);
	fpu_materialize(c, usable_components(c));
	for (unsigned n = 0; n < v.count; n++) {
		uint8_t *value = vec(c, v.reg, n * v.data);
		uint64_t gva;

		if (!mask_bit(c, &v, n)) {
			clear_mask_bit(c, &v, n); /* AVX2: the element's other bits */
			continue;
		}
		gva = element_gva(c, &v, n);
		if (v.scatter) {
			jit_write_buf(c, c->mmu, gva, value, v.data); /* never #AC */
		} else {
			jit_read_buf(c, c->mmu, gva, value, v.data);
			/* Already now, as processors do: the next element may fault. */
			vec_zero_from(c, v.reg, v.count * v.data);
		}
		clear_mask_bit(c, &v, n);
	}
	if (v.evex)
		memset(fpu_component(c, 5) + 8 * v.mask_reg, 0, 8);
	else
		vec_zero_from(c, v.mask_reg, 0);
	if (!v.scatter)
		vec_zero_from(c, v.reg, v.count * v.data);
}

void h_gather(struct jit_cpu *c, uint64_t arg)
{
	jit_fpu_leave(c);
	gather_body(c, arg);
}

/* --- MASKMOVQ, MASKMOVDQU, VMASKMOVDQU: bytes to DS:rDI --- */
/* As every MMX instruction, before anything else: a pending x87 exception is raised, TOP
 * becomes 0 and all registers valid. */
static void enter_mmx(struct jit_cpu *c)
{
	if (c->st.xsave[OFF_FSW] & FSW_ES)
		jit_raise(c, X86_MF);
	fpu_set_top(c, 0);
	c->st.xsave[OFF_FTW] = 0xff;
}

static const uint8_t *maskmov_operand(struct jit_cpu *c, const ZydisDecodedOperand *op, bool mmx)
{
	unsigned r = reg_id(op->reg.value);

	return mmx ? c->st.xsave + OFF_ST + 16 * (r & 7) : vec(c, r, 0);
}

/* The whole operand must be writable, whatever the mask: as processors have it. */
static void masked_store(struct jit_cpu *c, enum x86_sreg seg, uint64_t at, const uint8_t *value,
			 const uint8_t *mask, unsigned size)
{
	uint64_t gva = jit_seg_addr(c, seg, at, size, ACC_WRITE);

	jit_check_aligned(c, c->mmu, gva, size);
	jit_probe(c, c->mmu, gva, size, ACC_WRITE);
	for (unsigned i = 0; i < size; i++)
		if (mask[i] & 0x80)
			jit_write(c, c->mmu, gva + i, value[i], 1);
}

static __attribute__((noinline)) void maskmov_body(struct jit_cpu *c, uint64_t arg)
{
	const ZydisDecodedOperand *reg[2] = {NULL, NULL};
	enum x86_sreg seg = X86_DS;
	struct decoded d;
	unsigned n = 0;
	bool mmx;

	if (c->st.cr0 & CR0_TS)
		jit_raise(c, X86_NM);
	decode(c, arg, &d);
	mmx = d.i.mnemonic == ZYDIS_MNEMONIC_MASKMOVQ;
	for (unsigned i = 0; i < d.i.operand_count; i++) {
		if (d.op[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
			seg = sreg_of(d.op[i].mem.segment);
		else if (d.op[i].type == ZYDIS_OPERAND_TYPE_REGISTER && n < 2)
			reg[n++] = &d.op[i];
	}
	if (!reg[1])
		jit_raise(c, X86_UD);
	fpu_materialize(c, mmx ? XCR0_X87 : XCR0_SSE);
	if (mmx)
		enter_mmx(c);
	masked_store(c, seg, trunc_bytes(c->st.gpr[X86_RDI], d.i.address_width / 8),
		     maskmov_operand(c, reg[0], mmx), maskmov_operand(c, reg[1], mmx),
		     mmx ? 8 : 16);
}

void h_maskmov(struct jit_cpu *c, uint64_t arg)
{
	jit_fpu_leave(c);
	maskmov_body(c, arg);
}
