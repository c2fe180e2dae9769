/* seg: segment registers and descriptor tables (SDM 3.4, 3.5, 5.2-5.6). Every check comes
 * before the first change. Quick code. */
#include "cpu/jit/sys_priv.h"

bool desc_locate(const struct jit_cpu *c, uint16_t sel, unsigned bytes, uint64_t *gva)
{
	uint32_t offset = sel & ~7u;

	if (sel & 4) {
		if ((c->st.ldtr.attr & SEG_UNUSABLE) || offset + bytes - 1 > c->st.ldtr.limit)
			return false;
		*gva = sys_addr(c, c->st.ldtr.base, offset);
	} else {
		if (offset + bytes - 1 > c->st.gdtr.limit)
			return false;
		*gva = sys_addr(c, c->st.gdtr.base, offset);
	}
	return true;
}

uint64_t desc_read(struct jit_cpu *c, uint16_t sel, enum x86_vector v, unsigned ext)
{
	uint64_t gva;

	if (!desc_locate(c, sel, 8, &gva))
		jit_raise_err(c, v, (sel & ~3u) | ext);
	return jit_read(c, MMU_SYSTEM, gva, 8);
}

uint64_t desc_read_high(struct jit_cpu *c, uint16_t sel, enum x86_vector v)
{
	uint64_t gva;

	if (!desc_locate(c, sel, 16, &gva))
		jit_raise_err(c, v, sel & ~3u);
	return jit_read(c, MMU_SYSTEM, gva + 8, 8);
}

void desc_set_accessed(struct jit_cpu *c, uint16_t sel, uint64_t d)
{
	uint64_t gva;

	if (d & BIT(40) || !desc_locate(c, sel, 8, &gva))
		return;
	jit_write(c, MMU_SYSTEM, gva + 5, (d >> 40 & 0xff) | 1, 1);
}

void seg_unpack(struct x86_seg *s, uint16_t sel, uint64_t d)
{
	uint32_t limit = (uint32_t)((d & 0xffff) | (d >> 32 & 0xf0000));

	s->sel = sel;
	s->attr = desc_attr(d);
	s->limit = s->attr & SEG_G ? limit << 12 | 0xfff : limit;
	s->base = (d >> 16 & 0xffffff) | (d >> 32 & 0xff000000);
}

void seg_set_null(struct x86_seg *s, uint16_t sel)
{
	s->sel = sel;
	s->attr = (uint16_t)(SEG_UNUSABLE | (sel & 3u) << SEG_DPL_SHIFT);
	s->limit = 0;
	s->base = 0;
}

void seg_set_flat(struct x86_seg *s, uint16_t sel, uint16_t attr)
{
	s->sel = sel;
	s->attr = attr;
	s->limit = 0xffffffff;
	s->base = 0;
}

void seg_set_v86(struct x86_seg *s, uint16_t sel)
{
	s->sel = sel;
	s->attr = SEG_P | SEG_S | 3 | 3 << SEG_DPL_SHIFT;
	s->limit = 0xffff;
	s->base = (uint32_t)sel << 4;
}

static void load_ss(struct jit_cpu *c, uint16_t sel)
{
	unsigned cpl = jit_cpl(c);
	struct x86_seg s;
	uint64_t d;

	if (!(sel & ~3u)) { /* null: only in 64-bit mode, below CPL 3 (5.4.1.1) */
		if (!jit_code64(c) || cpl == 3 || (sel & 3) != cpl)
			jit_raise_err(c, X86_GP, 0);
		seg_set_null(&c->st.seg[X86_SS], sel);
		return;
	}
	d = desc_read(c, sel, X86_GP, 0);
	seg_unpack(&s, sel, d);
	if ((sel & 3) != cpl || !attr_is_writable_data(s.attr) || attr_dpl(s.attr) != cpl)
		jit_raise_err(c, X86_GP, sel & ~3u);
	if (!(s.attr & SEG_P))
		jit_raise_err(c, X86_SS_FAULT, sel & ~3u);
	desc_set_accessed(c, sel, d);
	s.attr |= 1;
	c->st.seg[X86_SS] = s;
}

static void load_data(struct jit_cpu *c, enum x86_sreg r, uint16_t sel)
{
	unsigned cpl = jit_cpl(c), rpl = sel & 3;
	struct x86_seg s;
	uint64_t d;

	if (!(sel & ~3u)) {
		seg_set_null(&c->st.seg[r], sel);
		return;
	}
	d = desc_read(c, sel, X86_GP, 0);
	seg_unpack(&s, sel, d);
	if (!attr_is_readable(s.attr))
		jit_raise_err(c, X86_GP, sel & ~3u);
	if (!attr_is_conforming(s.attr) && (attr_dpl(s.attr) < cpl || attr_dpl(s.attr) < rpl))
		jit_raise_err(c, X86_GP, sel & ~3u);
	if (!(s.attr & SEG_P))
		jit_raise_err(c, X86_NP, sel & ~3u);
	desc_set_accessed(c, sel, d);
	s.attr |= 1;
	c->st.seg[r] = s;
}

void seg_load(struct jit_cpu *c, enum x86_sreg r, uint16_t sel)
{
	if (cpu_v86(c)) {
		seg_set_v86(&c->st.seg[r], sel);
	} else if (!cpu_protected(c)) { /* limit and attributes stay (9.9.2) */
		c->st.seg[r].sel = sel;
		c->st.seg[r].base = (uint32_t)sel << 4;
		if (c->st.seg[r].attr & SEG_UNUSABLE) {
			c->st.seg[r].attr = SEG_P | SEG_S | 3;
			c->st.seg[r].limit = 0xffff;
		}
	} else if (r == X86_SS) {
		load_ss(c, sel);
	} else {
		load_data(c, r, sel);
	}
	jit_mode_update(c);
}

void seg_drop_privileged(struct jit_cpu *c, unsigned cpl)
{
	static const uint8_t regs[] = {X86_ES, X86_DS, X86_FS, X86_GS};

	for (unsigned i = 0; i < ARRAY_SIZE(regs); i++) {
		struct x86_seg *s = &c->st.seg[regs[i]];

		/* A null selector's descriptor counts as one of DPL 0: 1 to 3 become 0. */
		if (!(s->attr & SEG_UNUSABLE) &&
		    (attr_is_conforming(s->attr) || attr_dpl(s->attr) >= cpl))
			continue;
		s->sel = 0; /* the base stays, as in hardware */
		s->attr |= SEG_UNUSABLE;
	}
}

/* --- moves --- */
void h_mov_to_sreg(struct jit_cpu *c, uint64_t arg)
{
	enum x86_sreg r = ARG_R1(arg);

	if (r == X86_CS || r >= X86_SREGS)
		jit_raise(c, X86_UD);
	seg_load(c, r, (uint16_t)rm_read(c, arg, 2));
	if (r == X86_SS)
		c->st.events.shadow = 2;
}

void h_pop_sreg(struct jit_cpu *c, uint64_t arg)
{
	enum x86_sreg r = ARG_R1(arg);
	unsigned size = ARG_SIZE(arg);
	uint64_t sel, sp = stack_top(c) + size;

	if (r == X86_CS || r >= X86_SREGS)
		jit_raise(c, X86_UD);
	sel = stack_peek(c, 0, size);
	if (r == X86_SS) { /* the old stack's width counts for the increment */
		uint64_t mask = stack_mask(c);

		seg_load(c, r, (uint16_t)sel);
		c->st.gpr[X86_RSP] = (c->st.gpr[X86_RSP] & ~mask) | (sp & mask);
		c->st.events.shadow = 2;
		return;
	}
	seg_load(c, r, (uint16_t)sel);
	stack_set(c, sp);
}

void h_mov_from_sreg(struct jit_cpu *c, uint64_t arg)
{
	unsigned size = ARG_R2(arg) == ARG_MEM ? 2 : ARG_SIZE(arg);

	rm_write(c, arg, c->st.seg[ARG_R1(arg) % X86_SREGS].sel, size);
}

void h_push_sreg(struct jit_cpu *c, uint64_t arg)
{
	stack_push(c, c->st.seg[ARG_R1(arg) % X86_SREGS].sel, ARG_SIZE(arg));
}

void h_load_far_ptr(struct jit_cpu *c, uint64_t arg)
{
	unsigned size = ARG_SIZE(arg);
	enum x86_sreg r = ARG_IMM(arg);
	uint64_t offset;
	uint16_t sel;

	if (ARG_R2(arg) != ARG_MEM || r >= X86_SREGS || r == X86_CS)
		jit_raise(c, X86_UD);
	offset = ea_read(c, 0, size);
	sel = (uint16_t)ea_read(c, size, 2);
	seg_load(c, r, sel);
	gpr_write(c, ARG_R1(arg), offset, size);
	if (r == X86_SS)
		c->st.events.shadow = 2;
}

/* --- LAR, LSL, VERR, VERW, ARPL (5.10) --- */
static void set_zf(struct jit_cpu *c, bool zf)
{
	c->flags = (uint16_t)((c->flags & ~0x4000u) | (zf ? 0x4000u : 0));
}

/* The types of system descriptor that LAR and LSL know (SDM volume 2, tables of each). */
static bool system_type_visible(const struct jit_cpu *c, unsigned type, bool lsl)
{
	const uint32_t legacy_lar =
		BIT(1) | BIT(2) | BIT(3) | BIT(4) | BIT(5) | BIT(9) | BIT(11) | BIT(12);
	const uint32_t long_lar = BIT(2) | BIT(9) | BIT(11) | BIT(12);
	const uint32_t legacy_lsl = BIT(1) | BIT(2) | BIT(3) | BIT(9) | BIT(11);
	const uint32_t long_lsl = BIT(2) | BIT(9) | BIT(11);

	if (jit_long_mode(c))
		return (lsl ? long_lsl : long_lar) >> type & 1;
	return (lsl ? legacy_lsl : legacy_lar) >> type & 1;
}

/* True, with the descriptor, if LAR or LSL may show it at this privilege. */
static bool visible(struct jit_cpu *c, uint16_t sel, bool lsl, uint64_t *d)
{
	uint64_t gva;
	uint16_t attr;

	if (!(sel & ~3u) || !desc_locate(c, sel, 8, &gva))
		return false;
	*d = jit_read(c, MMU_SYSTEM, gva, 8);
	attr = desc_attr(*d);
	if (!(attr & SEG_S)) {
		if (!system_type_visible(c, attr & SEG_TYPE, lsl))
			return false;
	} else if (attr_is_conforming(attr)) {
		return true;
	}
	return attr_dpl(attr) >= jit_cpl(c) && attr_dpl(attr) >= (sel & 3u);
}

void h_lar(struct jit_cpu *c, uint64_t arg)
{
	uint64_t d;

	need_protected(c);
	if (visible(c, (uint16_t)rm_read(c, arg, 2), false, &d)) {
		gpr_write(c, ARG_R1(arg), d >> 32 & 0x00ffff00, ARG_SIZE(arg));
		set_zf(c, true);
	} else {
		set_zf(c, false);
	}
}

void h_lsl(struct jit_cpu *c, uint64_t arg)
{
	struct x86_seg s;
	uint64_t d;

	need_protected(c);
	if (visible(c, (uint16_t)rm_read(c, arg, 2), true, &d)) {
		seg_unpack(&s, 0, d);
		gpr_write(c, ARG_R1(arg), s.limit, ARG_SIZE(arg));
		set_zf(c, true);
	} else {
		set_zf(c, false);
	}
}

static bool verify(struct jit_cpu *c, uint16_t sel, bool write)
{
	uint64_t gva;
	uint16_t attr;

	if (!(sel & ~3u) || !desc_locate(c, sel, 8, &gva))
		return false;
	attr = desc_attr(jit_read(c, MMU_SYSTEM, gva, 8));
	if (write ? !attr_is_writable_data(attr) : !attr_is_readable(attr))
		return false;
	if (attr_is_conforming(attr))
		return true;
	return attr_dpl(attr) >= jit_cpl(c) && attr_dpl(attr) >= (sel & 3u);
}

void h_verr(struct jit_cpu *c, uint64_t arg)
{
	need_protected(c);
	set_zf(c, verify(c, (uint16_t)rm_read(c, arg, 2), false));
}

void h_verw(struct jit_cpu *c, uint64_t arg)
{
	need_protected(c);
	set_zf(c, verify(c, (uint16_t)rm_read(c, arg, 2), true));
}

void h_arpl(struct jit_cpu *c, uint64_t arg)
{
	uint16_t dest, rpl = c->st.gpr[ARG_R1(arg) & 15] & 3;

	need_protected(c);
	dest = (uint16_t)rm_read(c, arg, 2);
	if ((dest & 3) < rpl) {
		rm_write(c, arg, (dest & ~3u) | rpl, 2);
		set_zf(c, true);
	} else {
		set_zf(c, false);
	}
}

/* --- LDTR, TR --- */
/* The system descriptor for LLDT and LTR, 16 bytes in IA-32e mode. */
static uint64_t read_system(struct jit_cpu *c, uint16_t sel, uint32_t types, struct x86_seg *s)
{
	uint64_t d, high = 0;

	if (sel & 4)
		jit_raise_err(c, X86_GP, sel & ~3u);
	d = desc_read(c, sel, X86_GP, 0);
	seg_unpack(s, sel, d);
	if ((s->attr & SEG_S) || !(types >> (s->attr & SEG_TYPE) & 1))
		jit_raise_err(c, X86_GP, sel & ~3u);
	if (!(s->attr & SEG_P))
		jit_raise_err(c, X86_NP, sel & ~3u);
	if (jit_long_mode(c)) {
		high = desc_read_high(c, sel, X86_GP);
		s->base |= high << 32;
		if (!canonical_base(c, s->base) || (high >> 32 & 0x1f00))
			jit_raise_err(c, X86_GP, sel & ~3u);
	}
	return d;
}

void h_lldt(struct jit_cpu *c, uint64_t arg)
{
	struct x86_seg s;
	uint16_t sel;

	need_protected(c);
	need_cpl0(c);
	sel = (uint16_t)rm_read(c, arg, 2);
	if (!(sel & ~3u)) {
		seg_set_null(&c->st.ldtr, sel);
		return;
	}
	read_system(c, sel, BIT(2), &s);
	c->st.ldtr = s;
}

void h_ltr(struct jit_cpu *c, uint64_t arg)
{
	struct x86_seg s;
	uint64_t d, gva;
	uint16_t sel;

	need_protected(c);
	need_cpl0(c);
	sel = (uint16_t)rm_read(c, arg, 2);
	if (!(sel & ~3u))
		jit_raise_err(c, X86_GP, 0);
	d = read_system(c, sel, jit_long_mode(c) ? BIT(9) : BIT(1) | BIT(9), &s);
	if (desc_locate(c, sel, 8, &gva)) /* busy */
		jit_write(c, MMU_SYSTEM, gva + 5, (d >> 40 & 0xff) | 2, 1);
	s.attr |= 2;
	c->st.tr = s;
}

static void store_sel(struct jit_cpu *c, uint64_t arg, uint16_t sel)
{
	need_protected(c);
	check_umip(c);
	rm_write(c, arg, sel, ARG_R2(arg) == ARG_MEM ? 2 : ARG_SIZE(arg));
}

void h_sldt(struct jit_cpu *c, uint64_t arg)
{
	store_sel(c, arg, c->st.ldtr.sel);
}

void h_str(struct jit_cpu *c, uint64_t arg)
{
	store_sel(c, arg, c->st.tr.sel);
}

/* --- GDTR, IDTR --- */
static void load_dtr(struct jit_cpu *c, uint64_t arg, struct x86_dtr *t)
{
	bool code64 = jit_code64(c);
	uint16_t limit;
	uint64_t base;

	if (ARG_R2(arg) != ARG_MEM)
		jit_raise(c, X86_UD);
	need_cpl0(c);
	limit = (uint16_t)ea_read(c, 0, 2);
	base = ea_read(c, 2, code64 ? 8 : 4);
	if (!code64 && ARG_SIZE(arg) == 2)
		base &= 0xffffff;
	if (!canonical_base(c, base))
		jit_raise_err(c, X86_GP, 0);
	t->limit = limit;
	t->base = base;
}

static void store_dtr(struct jit_cpu *c, uint64_t arg, const struct x86_dtr *t)
{
	bool code64 = jit_code64(c);
	uint64_t gva;

	if (ARG_R2(arg) != ARG_MEM)
		jit_raise(c, X86_UD);
	check_umip(c);
	gva = jit_seg_addr(c, c->ea_seg, c->ea, code64 ? 10 : 6, ACC_WRITE);
	jit_probe(c, c->mmu, gva, code64 ? 10 : 6, ACC_WRITE);
	jit_write(c, c->mmu, gva, t->limit, 2);
	jit_write(c, c->mmu, gva + 2, t->base, code64 ? 8 : 4);
}

void h_lgdt(struct jit_cpu *c, uint64_t arg)
{
	load_dtr(c, arg, &c->st.gdtr);
}

void h_lidt(struct jit_cpu *c, uint64_t arg)
{
	load_dtr(c, arg, &c->st.idtr);
}

void h_sgdt(struct jit_cpu *c, uint64_t arg)
{
	store_dtr(c, arg, &c->st.gdtr);
}

void h_sidt(struct jit_cpu *c, uint64_t arg)
{
	store_dtr(c, arg, &c->st.idtr);
}

/* --- FS and GS bases --- */
void h_swapgs(struct jit_cpu *c, uint64_t arg)
{
	uint64_t base = c->st.seg[X86_GS].base;

	if (!jit_code64(c))
		jit_raise(c, X86_UD);
	need_cpl0(c);
	c->st.seg[X86_GS].base = c->st.kernel_gs_base;
	c->st.kernel_gs_base = base;
}

static void need_fsgsbase(struct jit_cpu *c)
{
	if (!jit_code64(c) || !(c->st.cr4 & CR4_FSGSBASE))
		jit_raise(c, X86_UD);
}

static void write_base(struct jit_cpu *c, uint64_t arg, enum x86_sreg r)
{
	uint64_t base;

	need_fsgsbase(c);
	base = gpr_read(c, ARG_R2(arg), ARG_SIZE(arg));
	if (!canonical_base(c, base))
		jit_raise_err(c, X86_GP, 0);
	c->st.seg[r].base = base;
}

void h_rdfsbase(struct jit_cpu *c, uint64_t arg)
{
	need_fsgsbase(c);
	gpr_write(c, ARG_R2(arg), c->st.seg[X86_FS].base, ARG_SIZE(arg));
}

void h_rdgsbase(struct jit_cpu *c, uint64_t arg)
{
	need_fsgsbase(c);
	gpr_write(c, ARG_R2(arg), c->st.seg[X86_GS].base, ARG_SIZE(arg));
}

void h_wrfsbase(struct jit_cpu *c, uint64_t arg)
{
	write_base(c, arg, X86_FS);
}

void h_wrgsbase(struct jit_cpu *c, uint64_t arg)
{
	write_base(c, arg, X86_GS);
}
