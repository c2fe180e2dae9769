/* fpu: FXSAVE, XSAVE and x87 environment images (SDM volume 1, 8.1.10, 10.5, 13.7-13.13).
 *
 * All work is done on st.xsave, the guest's state in standard format: a component whose
 * XSTATE_BV bit is clear is in its initial state, whatever its bytes say. PKRU is not there,
 * but in jit_cpu.pkru: the host may have none. Instruction and
 * data pointers are never shown: they would be the translator's addresses. Images are
 * read completely, then taken. Not quick: every entry gives up the vector state first. */
#include "cpu/jit/sys_priv.h"
#include "cpu/jit/fpu_slow.h"

#include <string.h>

#define LEGACY_BYTES   512u
#define HEADER_BYTES   64u
#define COMPACTED      BIT(63)
#define MXCSR_RESET    0x1f80u
#define MXCSR_MASK     0xffffu /* where the image has none: every 64-bit processor has DAZ */
#define FCW_RESET      0x37fu
#define FSW_ES         0x80u
#define FSW_B          0x8000u
#define XCR0_OPMASK    0x20u
#define XCR0_ZMM_HI256 0x40u
#define XCR0_HI16_ZMM  0x80u
#define PKRU           9

enum { OFF_FCW = 0, OFF_FSW = 2, OFF_FTW = 4, OFF_FOP = 6, OFF_FIP = 8, OFF_MXCSR = 24 };
enum { OFF_MXCSR_MASK = 28, OFF_ST = 32, OFF_XMM = 160, OFF_XMM_END = 416 };

struct xheader {
	uint64_t xstate_bv, xcomp_bv, reserved[6];
};

static uint64_t *in_use(struct jit_cpu *c)
{
	return (uint64_t *)(c->st.xsave + LEGACY_BYTES);
}

static uint32_t get32(const uint8_t *p)
{
	return (uint32_t)load_le(p, 4);
}

static uint16_t get16(const uint8_t *p)
{
	return (uint16_t)load_le(p, 2);
}

/* --- components --- */
static struct jit_component look_up(const struct jit_cpu *c, unsigned i)
{
	const struct cpuid_table *t = c->env->cpuid;
	struct jit_component x = {.known = true};

	for (unsigned k = 0; k < t->count; k++) {
		const struct cpuid_leaf *l = &t->leaf[k];

		if (l->leaf != 0xd || l->subleaf != i)
			continue;
		x.offset = l->ebx;
		x.size = l->eax;
		x.aligned = l->ecx & 2;
	}
	if (x.offset + x.size > X86_XSAVE_BYTES)
		x.size = 0;
	return x;
}

static struct jit_component component(struct jit_cpu *c, unsigned i)
{
	if (i >= ARRAY_SIZE(c->component)) /* none that is carried */
		return look_up(c, i);
	if (!c->component[i].known)
		c->component[i] = look_up(c, i);
	return c->component[i];
}

/* The bytes of a component that this mode can reach: 8 registers outside 64-bit mode. */
static uint32_t reachable(const struct jit_cpu *c, unsigned i, uint32_t size)
{
	if (jit_code64(c))
		return size;
	switch (i) {
	case 2:
	case 6: return size / 2;
	case 7: return 0;
	default: return size;
	}
}

static unsigned xmm_bytes(const struct jit_cpu *c)
{
	return jit_code64(c) ? 256 : 128;
}

void fpu_materialize(struct jit_cpu *c, uint64_t components)
{
	uint64_t init = components & ~*in_use(c);
	uint8_t *x = c->st.xsave;
	const uint16_t fcw = FCW_RESET;

	if (init & XCR0_X87) {
		memset(x, 0, OFF_MXCSR);
		memset(x + OFF_ST, 0, OFF_XMM - OFF_ST);
		memcpy(x, &fcw, sizeof fcw);
	}
	if (init & XCR0_SSE)
		memset(x + OFF_XMM, 0, OFF_XMM_END - OFF_XMM);
	for (unsigned i = 2; i < 63 && init >> i; i++) {
		struct jit_component comp = component(c, i);

		if (init >> i & 1)
			memset(x + comp.offset, 0, comp.size);
	}
	*in_use(c) |= init;
}

uint8_t *fpu_component(struct jit_cpu *c, unsigned i)
{
	return c->st.xsave + component(c, i).offset;
}

static void need_fpu(struct jit_cpu *c)
{
	if (c->st.cr0 & (CR0_EM | CR0_TS))
		jit_raise(c, X86_NM);
}

/* The operand's address, which must be aligned whatever EFLAGS.AC says. #AC comes before #GP. */
static uint64_t image_gva(struct jit_cpu *c, uint64_t arg, unsigned size, unsigned align,
			  enum jit_access a)
{
	uint64_t gva;

	if (ARG_R2(arg) != ARG_MEM)
		jit_raise(c, X86_UD);
	gva = jit_seg_addr(c, c->ea_seg, c->ea, size, a);
	if (align == 16) /* FXSAVE and FXRSTOR, and of AMD's processors these alone */
		jit_check_aligned(c, c->mmu, gva, 4);
	if (gva & (align - 1))
		jit_raise_err(c, X86_GP, 0);
	return gva;
}

static uint32_t mxcsr_mask(const struct jit_cpu *c)
{
	uint32_t mask = get32(c->st.xsave + OFF_MXCSR_MASK);

	return mask ? mask : MXCSR_MASK;
}

static void check_mxcsr(struct jit_cpu *c, uint32_t mxcsr)
{
	if (mxcsr & ~mxcsr_mask(c))
		jit_raise_err(c, X86_GP, 0);
}

void fpu_set_top(struct jit_cpu *c, unsigned top)
{
	uint8_t *x = c->st.xsave, st[8 * 16];
	unsigned by = top - (x[OFF_FSW + 1] >> 3 & 7);

	memcpy(st, x + OFF_ST, sizeof st);
	for (unsigned i = 0; i < 8; i++)
		memcpy(x + OFF_ST + 16 * i, st + 16 * ((i + by) & 7), 16);
	x[OFF_FSW + 1] = (uint8_t)((x[OFF_FSW + 1] & ~0x38u) | top << 3);
}

/* ES and B say whether an unmasked exception is pending (8.1.3.3). */
static void settle_fsw(uint8_t *x)
{
	uint16_t fcw = get16(x + OFF_FCW), fsw = get16(x + OFF_FSW);

	fsw &= (uint16_t) ~(FSW_ES | FSW_B);
	if (fsw & ~fcw & 0x3f)
		fsw |= FSW_ES | FSW_B;
	store_le(x + OFF_FSW, fsw, 2);
}

/* --- FXSAVE, FXRSTOR --- */
static __attribute__((noinline)) void fxsave_body(struct jit_cpu *c, uint64_t arg)
{
	uint64_t gva;
	uint8_t x[OFF_XMM_END];

	need_fpu(c);
	gva = image_gva(c, arg, LEGACY_BYTES, 16, ACC_WRITE);
	jit_probe(c, c->mmu, gva, LEGACY_BYTES, ACC_WRITE);
	fpu_materialize(c, XCR0_X87 | XCR0_SSE);
	memcpy(x, c->st.xsave, sizeof x);
	memset(x + OFF_FIP, 0, OFF_MXCSR - OFF_FIP);
	store_le(x + OFF_MXCSR_MASK, mxcsr_mask(c), 4);
	jit_write_buf(c, c->mmu, gva, x, OFF_XMM + xmm_bytes(c));
}

void h_fxsave(struct jit_cpu *c, uint64_t arg)
{
	jit_fpu_leave(c);
	fxsave_body(c, arg);
}

static void take_x87(struct jit_cpu *c, const uint8_t *image)
{
	memcpy(c->st.xsave, image, OFF_FIP);
	memset(c->st.xsave + OFF_FIP, 0, OFF_MXCSR - OFF_FIP);
	memcpy(c->st.xsave + OFF_ST, image + OFF_ST, OFF_XMM - OFF_ST);
	c->st.xsave[OFF_FTW + 1] = 0;
	settle_fsw(c->st.xsave);
}

static __attribute__((noinline)) void fxrstor_body(struct jit_cpu *c, uint64_t arg)
{
	uint8_t x[LEGACY_BYTES];
	uint64_t gva;

	need_fpu(c);
	gva = image_gva(c, arg, LEGACY_BYTES, 16, ACC_READ);
	jit_read_buf(c, c->mmu, gva, x, sizeof x);
	check_mxcsr(c, get32(x + OFF_MXCSR));
	fpu_materialize(c, XCR0_X87 | XCR0_SSE);
	take_x87(c, x);
	memcpy(c->st.xsave + OFF_MXCSR, x + OFF_MXCSR, 4);
	memcpy(c->st.xsave + OFF_XMM, x + OFF_XMM, xmm_bytes(c));
}

void h_fxrstor(struct jit_cpu *c, uint64_t arg)
{
	jit_fpu_leave(c);
	fxrstor_body(c, arg);
}

/* --- XSAVE and its kin --- */
enum { XSAVE_PLAIN, XSAVE_OPT, XSAVE_COMPACTED, XSAVE_SUPERVISOR };

static void need_xsave(struct jit_cpu *c, bool supervisor)
{
	if (!(c->st.cr4 & CR4_OSXSAVE))
		jit_raise(c, X86_UD);
	if (supervisor)
		need_cpl0(c);
	if (c->st.cr0 & CR0_TS)
		jit_raise(c, X86_NM);
}

static uint64_t requested(const struct jit_cpu *c)
{
	uint64_t mask = (uint32_t)c->st.gpr[X86_RAX] | c->st.gpr[X86_RDX] << 32;

	return mask & c->st.xcr0;
}

/* Where component i stands in an image whose XCOMP_BV is layout (0: standard format). */
static uint32_t place(struct jit_cpu *c, uint64_t layout, unsigned i)
{
	uint32_t at = LEGACY_BYTES + HEADER_BYTES;

	if (!(layout & COMPACTED))
		return component(c, i).offset;
	for (unsigned k = 2; k <= i; k++) {
		struct jit_component x;

		if (!(layout >> k & 1))
			continue;
		x = component(c, k);
		if (x.aligned)
			at = (uint32_t)align_up(at, 64);
		if (k < i)
			at += x.size;
	}
	return at;
}

static uint32_t image_size(struct jit_cpu *c, uint64_t layout, uint64_t components)
{
	uint32_t size = LEGACY_BYTES + HEADER_BYTES;

	for (unsigned i = 2; i < 63 && components >> i; i++)
		if (components >> i & 1)
			size = (uint32_t)max_u64(size, place(c, layout, i) + component(c, i).size);
	return size;
}

static void save_legacy(struct jit_cpu *c, uint64_t gva, uint64_t save, bool mxcsr)
{
	uint8_t *x = c->st.xsave, head[OFF_MXCSR];

	if (save & XCR0_X87) {
		memcpy(head, x, sizeof head);
		memset(head + OFF_FIP, 0, OFF_MXCSR - OFF_FIP);
		jit_write_buf(c, c->mmu, gva, head, sizeof head);
		jit_write_buf(c, c->mmu, gva + OFF_ST, x + OFF_ST, OFF_XMM - OFF_ST);
	}
	if (mxcsr)
		jit_write(c, c->mmu, gva + OFF_MXCSR,
			  get32(x + OFF_MXCSR) | (uint64_t)mxcsr_mask(c) << 32, 8);
	if (save & XCR0_SSE)
		jit_write_buf(c, c->mmu, gva + OFF_XMM, x + OFF_XMM, xmm_bytes(c));
}

/* The components that are not in their initial state. */
static uint64_t xinuse(struct jit_cpu *c)
{
	return *in_use(c) | (c->pkru ? XCR0_PKRU : 0);
}

static void save_extended(struct jit_cpu *c, uint64_t gva, uint64_t save, uint64_t layout)
{
	for (unsigned i = 2; i < 63 && save >> i; i++) {
		struct jit_component x;
		uint32_t len;

		if (!(save >> i & 1))
			continue;
		if (i == PKRU) {
			jit_write(c, c->mmu, gva + place(c, layout, i), c->pkru, 8);
			continue;
		}
		x = component(c, i);
		len = reachable(c, i, x.size);
		if (len)
			jit_write_buf(c, c->mmu, gva + place(c, layout, i), c->st.xsave + x.offset,
				      len);
	}
}

static __attribute__((noinline)) void xsave_body(struct jit_cpu *c, uint64_t arg)
{
	unsigned kind = ARG_IMM(arg);
	bool compacted = kind >= XSAVE_COMPACTED, mxcsr;
	uint64_t rfbm = requested(c), used, save, gva, layout = compacted ? rfbm | COMPACTED : 0;
	uint64_t head = 0;
	uint32_t size = image_size(c, layout, rfbm);

	need_xsave(c, kind == XSAVE_SUPERVISOR);
	gva = image_gva(c, arg, size, 64, ACC_WRITE);
	jit_probe(c, c->mmu, gva, size, ACC_WRITE);
	used = xinuse(c) & rfbm;
	if (compacted) {
		if ((rfbm & XCR0_SSE) && get32(c->st.xsave + OFF_MXCSR) != MXCSR_RESET)
			used |= XCR0_SSE;
		mxcsr = used & XCR0_SSE;
	} else {
		mxcsr = rfbm & (XCR0_SSE | XCR0_AVX);
		head = jit_read(c, c->mmu, gva + LEGACY_BYTES, 8) & ~rfbm;
	}
	save = kind == XSAVE_PLAIN ? rfbm : used;
	fpu_materialize(
		c,
		save & ~(uint64_t)
				XCR0_PKRU); /* what is initial stays so in the image's XSTATE_BV */
	save_legacy(c, gva, save, mxcsr);
	save_extended(c, gva, save, layout);
	jit_write(c, c->mmu, gva + LEGACY_BYTES, head | used, 8);
	if (compacted)
		jit_write(c, c->mmu, gva + LEGACY_BYTES + 8, layout, 8);
}

void h_xsave(struct jit_cpu *c, uint64_t arg)
{
	uint64_t used;

	jit_fpu_leave(c);
	used = *in_use(c);
	xsave_body(c, arg);
	*in_use(c) = used;
}

static void check_header(struct jit_cpu *c, const struct xheader *h, bool supervisor)
{
	bool bad;

	if (h->xcomp_bv & COMPACTED) {
		uint64_t layout = h->xcomp_bv & ~COMPACTED;

		bad = (layout & ~c->st.xcr0) || (h->xstate_bv & ~layout);
		for (unsigned i = 0; i < ARRAY_SIZE(h->reserved); i++)
			bad |= h->reserved[i] != 0;
	} else {
		bad = supervisor || (h->xstate_bv & ~c->st.xcr0) || h->xcomp_bv || h->reserved[0];
	}
	if (bad)
		jit_raise_err(c, X86_GP, 0);
}

static void take_pkru(struct jit_cpu *c, const uint8_t *image, uint64_t layout, uint64_t from)
{
	jit_pkru_write(c, from & XCR0_PKRU ? get32(image + place(c, layout, PKRU)) : 0);
}

/* From the image (from set) or to the initial state (the rest of rfbm). */
static void take_components(struct jit_cpu *c, const uint8_t *image, uint64_t layout, uint64_t rfbm,
			    uint64_t from)
{
	uint64_t kept = jit_code64(c) ? 0 : *in_use(c); /* registers 8.. stay as they are */
	uint8_t *x = c->st.xsave;

	if (rfbm & XCR0_PKRU)
		take_pkru(c, image, layout, from);
	rfbm &= ~(uint64_t)XCR0_PKRU;
	from &= ~(uint64_t)XCR0_PKRU;
	fpu_materialize(c, rfbm);
	if (from & XCR0_X87)
		take_x87(c, image);
	if (from & XCR0_SSE)
		memcpy(x + OFF_XMM, image + OFF_XMM, xmm_bytes(c));
	else if (rfbm & XCR0_SSE)
		memset(x + OFF_XMM, 0, xmm_bytes(c));
	for (unsigned i = 2; i < 63 && rfbm >> i; i++) {
		struct jit_component comp = component(c, i);
		uint32_t len = reachable(c, i, comp.size);

		if (from >> i & 1)
			memcpy(x + comp.offset, image + place(c, layout, i), len);
		else if (rfbm >> i & 1)
			memset(x + comp.offset, 0, len);
	}
	*in_use(c) = (*in_use(c) & ~rfbm) | from | (kept & rfbm & ~(uint64_t)XCR0_X87);
}

static __attribute__((noinline)) void xrstor_body(struct jit_cpu *c, uint64_t arg)
{
	uint8_t image[X86_XSAVE_BYTES];
	uint64_t rfbm = requested(c), gva, from;
	bool take_mxcsr, compacted;
	struct xheader h;
	uint32_t size, mxcsr = MXCSR_RESET;

	need_xsave(c, ARG_IMM(arg) == 1);
	gva = image_gva(c, arg, LEGACY_BYTES + HEADER_BYTES, 64, ACC_READ);
	jit_read_buf(c, c->mmu, gva + LEGACY_BYTES, &h, sizeof h);
	check_header(c, &h, ARG_IMM(arg) == 1);
	compacted = h.xcomp_bv & COMPACTED;
	from = h.xstate_bv & rfbm;
	size = image_size(c, h.xcomp_bv, from);
	if (size > sizeof image)
		jit_raise_err(c, X86_GP, 0);
	jit_read_buf(c, c->mmu, gva, image, size);
	if (compacted) {
		take_mxcsr = rfbm & XCR0_SSE;
		if (from & XCR0_SSE)
			mxcsr = get32(image + OFF_MXCSR);
	} else {
		take_mxcsr = rfbm & (XCR0_SSE | XCR0_AVX);
		mxcsr = get32(image + OFF_MXCSR);
	}
	if (take_mxcsr)
		check_mxcsr(c, mxcsr);
	take_components(c, image, h.xcomp_bv, rfbm, from);
	if (take_mxcsr)
		store_le(c->st.xsave + OFF_MXCSR, mxcsr, 4);
}

void h_xrstor(struct jit_cpu *c, uint64_t arg)
{
	jit_fpu_leave(c);
	xrstor_body(c, arg);
}

/* --- x87 environments (8.1.10) --- */
/* The 2-bit tags of FNSTENV, which FXSAVE abridges to one. */
static unsigned tag_of(const uint8_t *st)
{
	uint64_t mantissa = load_le(st, 8);
	unsigned exponent = get16(st + 8) & 0x7fff;

	if (exponent == 0x7fff)
		return 2;
	if (exponent == 0)
		return mantissa ? 2 : 1;
	return mantissa >> 63 ? 0 : 2;
}

static uint16_t full_tags(const uint8_t *x)
{
	unsigned top = get16(x + OFF_FSW) >> 11 & 7, tags = 0;

	for (unsigned i = 0; i < 8; i++) {
		unsigned tag = 3;

		if (x[OFF_FTW] >> i & 1)
			tag = tag_of(x + OFF_ST + 16 * ((i - top) & 7));
		tags |= tag << (2 * i);
	}
	return (uint16_t)tags;
}

static uint8_t abridged_tags(uint16_t tags)
{
	uint8_t valid = 0;

	for (unsigned i = 0; i < 8; i++)
		if ((tags >> (2 * i) & 3) != 3)
			valid |= (uint8_t)(1u << i);
	return valid;
}

/* FLDENV and FRSTOR report what is pending before they overwrite it. */
static void check_pending(struct jit_cpu *c)
{
	if ((*in_use(c) & XCR0_X87) && (c->st.xsave[OFF_FSW] & FSW_ES))
		jit_raise(c, X86_MF);
}

/* Operand size 8 (REX.W) is as 4. */
static unsigned env_size(uint64_t arg)
{
	return ARG_SIZE(arg) == 2 ? 2 : 4;
}

static unsigned env_bytes(unsigned size)
{
	return 7 * size;
}

/* Control, status and tag words; the pointers are not shown. */
static void put_env(const uint8_t *x, uint8_t *to, unsigned size)
{
	uint16_t words[3] = {get16(x + OFF_FCW), get16(x + OFF_FSW), full_tags(x)};

	memset(to, 0, env_bytes(size));
	for (unsigned i = 0; i < 3; i++)
		store_le(to + i * size, size == 4 ? words[i] | 0xffff0000u : words[i], size);
	if (size == 4)
		store_le(to + 6 * size, 0xffff0000u, 4);
}

static void take_env(struct jit_cpu *c, const uint8_t *from, unsigned size)
{
	uint8_t *x = c->st.xsave;

	fpu_set_top(c, get16(from + size) >> 11 & 7);
	store_le(x + OFF_FCW, (get16(from) & 0x1f7f) | 0x40, 2);
	store_le(x + OFF_FSW, get16(from + size), 2);
	x[OFF_FTW] = abridged_tags(get16(from + 2 * size));
	x[OFF_FTW + 1] = 0;
	memset(x + OFF_FOP, 0, OFF_MXCSR - OFF_FOP);
	settle_fsw(x);
}

static __attribute__((noinline)) void fnstenv_body(struct jit_cpu *c, uint64_t arg)
{
	unsigned size = env_size(arg);
	uint8_t env[28], *x = c->st.xsave;
	uint64_t gva;

	need_fpu(c);
	gva = image_gva(c, arg, env_bytes(size), 1, ACC_WRITE);
	fpu_materialize(c, XCR0_X87);
	put_env(x, env, size);
	jit_write_buf(c, c->mmu, gva, env, env_bytes(size));
	store_le(x + OFF_FCW, get16(x + OFF_FCW) | 0x3f, 2);
	settle_fsw(x);
}

void h_fnstenv(struct jit_cpu *c, uint64_t arg)
{
	jit_fpu_leave(c);
	fnstenv_body(c, arg);
}

static __attribute__((noinline)) void fldenv_body(struct jit_cpu *c, uint64_t arg)
{
	unsigned size = env_size(arg);
	uint8_t env[28];
	uint64_t gva;

	need_fpu(c);
	check_pending(c);
	gva = image_gva(c, arg, env_bytes(size), 1, ACC_READ);
	jit_read_buf(c, c->mmu, gva, env, env_bytes(size));
	fpu_materialize(c, XCR0_X87);
	take_env(c, env, size);
}

void h_fldenv(struct jit_cpu *c, uint64_t arg)
{
	jit_fpu_leave(c);
	fldenv_body(c, arg);
}

static __attribute__((noinline)) void fnsave_body(struct jit_cpu *c, uint64_t arg)
{
	unsigned size = env_size(arg), env = env_bytes(size);
	uint8_t image[28 + 80], *x = c->st.xsave;
	uint64_t gva;

	need_fpu(c);
	gva = image_gva(c, arg, env + 80, 1, ACC_WRITE);
	fpu_materialize(c, XCR0_X87);
	put_env(x, image, size);
	for (unsigned i = 0; i < 8; i++)
		memcpy(image + env + 10 * i, x + OFF_ST + 16 * i, 10);
	jit_write_buf(c, c->mmu, gva, image, env + 80);
	/* As FNINIT: registers keep their bits, all are empty. */
	fpu_set_top(c, 0);
	store_le(x + OFF_FCW, FCW_RESET, 2);
	memset(x + OFF_FSW, 0, OFF_MXCSR - OFF_FSW);
}

void h_fnsave(struct jit_cpu *c, uint64_t arg)
{
	jit_fpu_leave(c);
	fnsave_body(c, arg);
}

static __attribute__((noinline)) void frstor_body(struct jit_cpu *c, uint64_t arg)
{
	unsigned size = env_size(arg), env = env_bytes(size);
	uint8_t image[28 + 80], *x = c->st.xsave;
	uint64_t gva;

	need_fpu(c);
	check_pending(c);
	gva = image_gva(c, arg, env + 80, 1, ACC_READ);
	jit_read_buf(c, c->mmu, gva, image, env + 80);
	fpu_materialize(c, XCR0_X87);
	take_env(c, image, size);
	for (unsigned i = 0; i < 8; i++)
		memcpy(x + OFF_ST + 16 * i, image + env + 10 * i, 10);
}

void h_frstor(struct jit_cpu *c, uint64_t arg)
{
	jit_fpu_leave(c);
	frstor_body(c, arg);
}
