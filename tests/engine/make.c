/* make: draws the encoding first, decodes it to see that it is still the form wanted, then
 * walks its memory operands and gives their base registers values that lead into the
 * window. A register once used so is pinned: later instructions of the same case reach
 * their targets by displacement, if at all. */
#include "make.h"

#include <stdio.h>
#include <string.h>

struct maker {
	struct user_case *c;
	const struct forms *fs;
	struct rng *r;
	uint16_t pinned; /* general registers with a value that matters */
	bool tame;       /* make_tame */
	ZydisDecodedInstruction in;
	ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
};

uint64_t make_entry(unsigned slot, unsigned cross)
{
	uint64_t at = CODE_BASE + (uint64_t)slot * SLOT_BYTES;

	return cross ? align_down(at, PAGE) + PAGE - cross : at + SLOT_ENTRY;
}

/* --- values --- */
static uint64_t random_gpr(struct rng *r)
{
	uint64_t v = rng_next(r);

	switch (rng_below(r, 9)) {
	case 0: return v & 0xff;
	case 1: return (BIT(v & 63)) + (uint64_t)(int64_t)(rng_below(r, 3)) - 1;
	case 2: return (uint64_t)(int64_t)(int32_t)v;
	case 3: return -(v & 0xff);
	case 4: return v & 0xffffffff;
	case 5: return v & rng_next(r) & rng_next(r);
	case 6: return DATA_BASE + PAGE + v % (2 * PAGE);
	default: return v;
	}
}

static uint64_t random_double(struct rng *r)
{
	static const uint64_t special[] = {0,
					   0x8000000000000000u,
					   0x7ff0000000000000u,
					   0xfff0000000000000u,
					   0x7ff8000000000000u,
					   0x7ff0000000000001u,
					   0x0000000000000001u,
					   0x800fffffffffffffu,
					   0x3ff0000000000000u,
					   0x43e0000000000000u,
					   0x7fefffffffffffffu};
	uint64_t v = rng_next(r);

	if (rng_odds(r, 6))
		return special[rng_below(r, ARRAY_SIZE(special))];
	return (v & 0x800fffffffffffffu) | (uint64_t)(1023 - 40 + rng_below(r, 80)) << 52;
}

static uint32_t random_float(struct rng *r)
{
	static const uint32_t special[] = {0,           0x80000000u, 0x7f800000u, 0xff800000u,
					   0x7fc00000u, 0x7f800001u, 1,           0x807fffffu,
					   0x3f800000u, 0x4f000000u, 0x7f7fffffu};
	uint32_t v = (uint32_t)rng_next(r);

	if (rng_odds(r, 6))
		return special[rng_below(r, ARRAY_SIZE(special))];
	return (v & 0x807fffffu) | (127 - 20 + rng_below(r, 40)) << 23;
}

static uint64_t random_lane(struct rng *r, unsigned kind)
{
	switch (kind) {
	case 0: return random_double(r);
	case 1: return random_float(r) | (uint64_t)random_float(r) << 32;
	case 2: return rng_next(r) & 0x003f003f003f003fu;
	case 3: return rng_odds(r, 2) ? 0 : rng_next(r);
	default: return rng_next(r);
	}
}

static void random_lanes(struct rng *r, uint8_t *to, unsigned bytes)
{
	unsigned kind = rng_below(r, 5);

	for (unsigned i = 0; i < bytes; i += 8)
		store_le(to + i, random_lane(r, kind), 8);
}

static uint32_t random_mxcsr(struct rng *r)
{
	if (rng_odds(r, 3))
		return 0x1f80 | rng_below(r, 4) << 13 | rng_below(r, 2) << 15 |
		       rng_below(r, 2) << 6 | rng_below(r, 64);
	if (rng_odds(r, 8)) /* some exceptions unmasked */
		return (uint32_t)(rng_next(r) & 0xffc0);
	return 0x1f80;
}

static void random_x87(struct rng *r, uint8_t *x)
{
	uint16_t fcw = 0x037f, fsw = (uint16_t)(rng_next(r) & 0x7f00);

	if (rng_odds(r, 3))
		fcw = (uint16_t)(0x7f | rng_below(r, 16) << 8);
	if (rng_odds(r, 12)) {
		fcw = (uint16_t)(0x40 | (rng_next(r) & 0x0f3f));
		if (rng_odds(r, 2))
			fsw |= rng_next(r) & 0x3f;
	}
	if (fsw & ~fcw & 0x3f)
		fsw |= 0x8080;
	store_le(x, fcw, 2);
	store_le(x + 2, fsw, 2);
	x[4] = rng_odds(r, 2) ? 0xff : rng_odds(r, 2) ? 0 : (uint8_t)rng_next(r);
	for (int i = 0; i < 8; i++) {
		uint64_t mantissa = rng_next(r);
		uint16_t exp = (uint16_t)(16383 - 70 + rng_below(r, 140));

		if (rng_odds(r, 8))
			exp = rng_odds(r, 2) ? 0x7fff : 0;
		else if (!rng_odds(r, 16))
			mantissa |= BIT(63);
		if (rng_odds(r, 8))
			mantissa &= BIT(63);
		store_le(x + 32 + 16 * i, mantissa, 8);
		store_le(x + 40 + 16 * i, exp | (rng_next(r) & 0x8000), 2);
	}
}

static void random_xsave(struct rng *r, uint8_t *x)
{
	static const uint32_t lanes_of[8] = {0, 0, 256, 0, 0, 64, 512, 1024};
	uint64_t features = user_xfeatures();

	memset(x, 0, X86_XSAVE_BYTES);
	random_x87(r, x);
	store_le(x + 24, random_mxcsr(r), 4);
	for (unsigned i = 0; i < 16; i++)
		random_lanes(r, x + 160 + 16 * i, 16);
	for (unsigned n = 2; n < 8; n++) {
		uint32_t size, at = user_xoffset(n, &size);

		if (!(features & BIT(n)))
			continue;
		for (unsigned i = 0; i < lanes_of[n]; i += 16)
			random_lanes(r, x + at + i, 16);
	}
	store_le(x + 512, features, 8);
}

void make_image(struct user_image *image, struct rng *r)
{
	for (unsigned p = 0; p <= DATA_RW_PAGES; p++)
		for (unsigned i = 0; i < PAGE; i += 64)
			random_lanes(r, image->page[p] + i, 64);
}

/* --- where memory operands go --- */
static uint64_t random_target(struct rng *r, unsigned size, bool aligned)
{
	uint64_t p1 = DATA_BASE + PAGE, p3 = DATA_BASE + 3 * PAGE, p6 = DATA_BASE + 6 * PAGE;
	unsigned into = size > 1 ? 1 + rng_below(r, size - 1) : 0;

	if (size > 64) /* state images; they need room */
		return align_down(p1 + rng_below(r, 4096), rng_odds(r, 8) ? 16 : 64);
	switch (rng_below(r, 24)) {
	case 0:
	case 1: return p1 + PAGE - into;             /* across two good pages */
	case 2: return p3 + rng_below(r, PAGE - 64); /* read-only */
	case 3: return p3 - into;                    /* the second page read-only */
	case 4: return p6 - into;                    /* the second page missing */
	case 5: return rng_odds(r, 2) ? p1 - into : DATA_BASE + rng_below(r, PAGE - 64);
	case 6:
	case 7: return p1 + 64 + rng_below(r, 2 * PAGE - 256);
	default:
		return (rng_odds(r, 5) ? p6 - PAGE : p1) +
		       align_down(256 + rng_below(r, PAGE - 512),
				  aligned || rng_odds(r, 2) ? 64 : 8);
	}
}

static bool patch(struct user_case *c, uint64_t gva, uint64_t value)
{
	if (c->patches == CASE_PATCHES)
		return false;
	c->patch[c->patches++] = (struct user_patch){gva, value};
	return true;
}

static int gpr_of(ZydisRegister reg)
{
	ZydisRegisterClass cl = ZydisRegisterGetClass(reg);

	if (cl != ZYDIS_REGCLASS_GPR64 && cl != ZYDIS_REGCLASS_GPR32 &&
	    cl != ZYDIS_REGCLASS_GPR16 && cl != ZYDIS_REGCLASS_GPR8)
		return -1;
	return ZydisRegisterGetId(
		ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, reg));
}

static void pin(struct maker *m, int gpr, uint64_t value)
{
	m->c->start.gpr[gpr] = value;
	m->pinned |= (uint16_t)(1u << gpr);
}

/* Elements of a gather's index register: offsets of a few hundred bytes. */
static void aim_vsib(struct maker *m, const ZydisDecodedOperandMem *mem)
{
	unsigned id = (unsigned)ZydisRegisterGetId(mem->index), bytes = rng_odds(m->r, 2) ? 4 : 8;
	uint8_t *x = m->c->start.xsave;

	for (unsigned i = 0; i < 64; i += bytes) {
		uint64_t v = rng_below(m->r, 256 / mem->scale);
		uint32_t size, at;

		if (rng_odds(m->r, 200))
			v = rng_next(m->r);
		if (id >= 16)
			at = user_xoffset(7, &size) + 64 * (id - 16) + i;
		else if (i < 16)
			at = 160 + 16 * id + i;
		else if (i < 32)
			at = user_xoffset(2, &size) + 16 * id + i - 16;
		else
			at = user_xoffset(6, &size) + 32 * id + i - 32;
		if (at + bytes <= X86_XSAVE_BYTES)
			store_le(x + at, v, bytes);
	}
}

static uint64_t seg_base(const struct maker *m, ZydisRegister seg)
{
	return seg == ZYDIS_REGISTER_FS   ? m->c->start.fs_base
	       : seg == ZYDIS_REGISTER_GS ? m->c->start.gs_base
					  : 0;
}

/* Gives the operand's registers values (or its displacement) so that it points at target. */
static void aim(struct maker *m, uint8_t *bytes, const ZydisDecodedOperandMem *mem, uint64_t target)
{
	const ZydisDecodedInstructionRaw *raw = &m->in.raw;
	int base = gpr_of(mem->base), index = gpr_of(mem->index);
	uint64_t rest = target - seg_base(m, mem->segment) -
			(mem->disp.has_displacement ? (uint64_t)mem->disp.value : 0),
		 iv = 0;
	bool patchable = raw->disp.size >= 32 && mem->disp.has_displacement;

	if (mem->type == ZYDIS_MEMOP_TYPE_VSIB) {
		aim_vsib(m, mem);
		index = -1;
	}
	if (index >= 0) {
		if (!(m->pinned & 1u << index) && index != base)
			pin(m, index, rng_odds(m->r, 2) ? rng_below(m->r, 64) : random_gpr(m->r));
		iv = m->c->start.gpr[index];
		if (ZydisRegisterGetClass(mem->index) == ZYDIS_REGCLASS_GPR8)
			iv &= 0xff;
		if (index == base) {
			if (!(m->pinned & 1u << base))
				pin(m, base, rest / (1u + mem->scale));
			iv = m->c->start.gpr[index];
			rest -= iv * (1 + mem->scale);
			goto by_displacement;
		}
		rest -= iv * mem->scale;
	}
	if (mem->base == ZYDIS_REGISTER_RIP || mem->base == ZYDIS_REGISTER_EIP) {
		rest -= m->c->start.rip + (uint64_t)(bytes - m->c->bytes) + m->in.length;
	} else if (base >= 0) {
		if (!(m->pinned & 1u << base)) {
			if (m->in.address_width == 32)
				rest = (rest & 0xffffffff) | rng_next(m->r) << 32;
			pin(m, base, rest);
			return;
		}
		rest -= m->c->start.gpr[base];
	}
by_displacement:
	if (patchable)
		store_le(bytes + raw->disp.offset, rest + (uint64_t)mem->disp.value,
			 raw->disp.size / 8);
}

static bool is_bit_test(ZydisMnemonic m)
{
	return m == ZYDIS_MNEMONIC_BT || m == ZYDIS_MNEMONIC_BTS || m == ZYDIS_MNEMONIC_BTR ||
	       m == ZYDIS_MNEMONIC_BTC;
}

/* State images need a header that loads, most of the time. */
static void aim_content(struct maker *m, uint64_t target)
{
	struct rng *r = m->r;

	switch (m->in.mnemonic) {
	case ZYDIS_MNEMONIC_LDMXCSR:
	case ZYDIS_MNEMONIC_VLDMXCSR: patch(m->c, target, random_mxcsr(r)); break;
	case ZYDIS_MNEMONIC_FXRSTOR:
	case ZYDIS_MNEMONIC_FXRSTOR64: patch(m->c, target + 24, random_mxcsr(r)); break;
	case ZYDIS_MNEMONIC_XRSTOR:
	case ZYDIS_MNEMONIC_XRSTOR64:
		patch(m->c, target + 24, random_mxcsr(r));
		patch(m->c, target + 512,
		      rng_next(r) & (rng_odds(r, 16) ? ~0ull : user_xfeatures()));
		for (unsigned i = 520; i < 576; i += 8)
			patch(m->c, target + i, 0);
		break;
	default: break;
	}
	if (m->in.meta.branch_type != ZYDIS_BRANCH_TYPE_NONE &&
	    !rng_odds(r, 4)) /* a code address */
		patch(m->c, target,
		      make_entry((unsigned)(m->c->start.rip - CODE_BASE) / SLOT_BYTES, 0) - 64 +
			      rng_below(r, 60));
}

static void aim_operands(struct maker *m, uint8_t *bytes)
{
	unsigned slot = (unsigned)(m->c->start.rip - CODE_BASE) / SLOT_BYTES;

	for (unsigned i = 0; i < m->in.operand_count; i++) {
		const ZydisDecodedOperand *o = &m->op[i];
		uint64_t target;

		if (o->type != ZYDIS_OPERAND_TYPE_MEMORY || o->mem.type == ZYDIS_MEMOP_TYPE_INVALID)
			continue;
		target = random_target(m->r, o->size / 8, !rng_odds(m->r, 4));
		aim(m, bytes, &o->mem, target);
		aim_content(m, target);
	}
	for (unsigned i = 0; i < m->in.operand_count_visible; i++) {
		const ZydisDecodedOperand *o = &m->op[i];
		int gpr = o->type == ZYDIS_OPERAND_TYPE_REGISTER ? gpr_of(o->reg.value) : -1;

		if (gpr < 0 || (m->pinned & 1u << gpr))
			continue;
		if (m->in.meta.branch_type != ZYDIS_BRANCH_TYPE_NONE && !rng_odds(m->r, 4))
			pin(m, gpr, make_entry(slot, 0) - 64 + rng_below(m->r, 60));
		if (is_bit_test(m->in.mnemonic) && !rng_odds(m->r, 4))
			pin(m, gpr, (uint64_t)(int64_t)(int32_t)(rng_below(m->r, 8192) - 4096));
	}
	if ((m->in.attributes &
	     (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE)) &&
	    !(m->pinned & 1u << X86_RCX) && !rng_odds(m->r, 6))
		pin(m, X86_RCX, rng_below(m->r, 100));
}

/* A relative branch goes to the slot's int3 bytes, or far away. */
static void aim_branch(struct maker *m, uint8_t *bytes)
{
	for (unsigned i = 0; i < 2; i++) {
		unsigned size = m->in.raw.imm[i].size / 8, at = m->in.raw.imm[i].offset;
		int32_t rel = 16 + (int32_t)rng_below(m->r, 100);

		if (!size || !m->in.raw.imm[i].is_relative)
			continue;
		if (rng_odds(m->r, 2))
			rel = -rel - 10;
		if (size > 1 && rng_odds(m->r, 8))
			rel = (int32_t)(rng_next(m->r) | 0x100);
		store_le(bytes + at, (uint32_t)rel, size);
	}
}

/* --- encodings --- */
static uint8_t *put_opcode(const struct form *f, uint8_t *p)
{
	if (f->map)
		*p++ = 0x0f;
	if (f->map == 2)
		*p++ = 0x38;
	if (f->map == 3)
		*p++ = 0x3a;
	*p++ = f->map == 4 ? 0x0f : f->opcode;
	return p;
}

static uint8_t *put_legacy(const struct form *f, uint8_t *p, struct rng *r, bool plain, bool tame,
			   bool compat)
{
	uint8_t rex = (uint8_t)(0x40 | f->w << 3 | (plain ? 0 : rng_below(r, 8)));

	/* Some processors take a REP prefix on LOOP and LOOPNE for another condition. */
	bool loop = f->map == 0 && (f->opcode & 0xfc) == 0xe0;

	if (!f->prefix && !plain && !loop && !tame && rng_odds(r, 4)) {
		static const uint8_t extra[] = {0xf0, 0xf3, 0xf2};

		*p++ = extra[rng_below(r, 3)];
	}
	if (f->prefix)
		*p++ = f->prefix;
	if (!compat && (f->w || (!plain && rng_odds(r, 2))))
		*p++ = rex;
	return put_opcode(f, p);
}

static uint8_t *put_vector(const struct form *f, uint8_t *p, struct rng *r, unsigned attempt,
			   bool compat)
{
	static const uint8_t pp_of[256] = {[0x66] = 1, [0xf3] = 2, [0xf2] = 3};
	uint8_t pp = pp_of[f->prefix],
		wvvvv = (uint8_t)(f->w << 7 | (attempt % 2 ? 0x78 : rng_below(r, 16) << 3));
	uint8_t rxb = compat ? 0xe0 : (uint8_t)(rng_below(r, 8) << 5);

	if (attempt > 8)
		rxb = 0xe0;
	if (compat)
		wvvvv |= 0x40;
	if (f->enc == ENC_EVEX) {
		bool v2 = compat || attempt % 2 || rng_odds(r, 2),
		     z = attempt < 4 && rng_odds(r, 3);
		uint8_t aaa = attempt < 6 ? (uint8_t)rng_below(r, 8) : f->aaa;

		*p++ = 0x62;
		*p++ = (uint8_t)(rxb | (compat || rng_odds(r, 2) || attempt > 8 ? 0x10 : 0) |
				 f->map);
		*p++ = wvvvv | 4 | pp;
		*p++ = (uint8_t)(z << 7 | f->l << 5 | f->b << 4 | v2 << 3 | aaa);
	} else if (f->enc == ENC_VEX && f->map == 1 && !f->w && rng_odds(r, 2)) {
		*p++ = 0xc5;
		*p++ = (uint8_t)((rxb & 0x80) | (wvvvv & 0x78) | f->l << 2 | pp);
	} else {
		*p++ = f->enc == ENC_VEX ? 0xc4 : 0x8f;
		*p++ = rxb | f->map;
		*p++ = (uint8_t)(wvvvv | f->l << 2 | pp);
	}
	*p++ = f->opcode;
	return p;
}

/* A memory operand off the registers that tame instructions keep. */
static uint8_t *put_tame_modrm(const struct form *f, uint8_t *p, struct rng *r, bool plain)
{
	static const uint8_t mods[] = {2, 2, 2, 1, 0}, bases[] = {3, 5};
	uint8_t reg = plain ? f->reg : (uint8_t)rng_below(r, 8);
	uint8_t mod = mods[rng_below(r, 5)], base = bases[rng_below(r, 2)];
	bool sib = rng_odds(r, 4);

	*p++ = (uint8_t)(mod << 6 | reg << 3 | (sib ? 4 : base));
	if (sib)
		*p++ = (uint8_t)(rng_below(r, 4) << 6 | 4 << 3 | base);
	if (mod == 1) {
		*p++ = (uint8_t)(rng_below(r, 4) << 6);
	} else if (mod == 2 || base == 5) {
		store_le(p, rng_below(r, 4) << 6, 4);
		p += 4;
	}
	return p;
}

static uint8_t *put_modrm(const struct form *f, uint8_t *p, struct rng *r, bool plain)
{
	uint8_t reg = plain ? f->reg : (uint8_t)rng_below(r, 8);
	uint8_t rm = plain ? f->rm : (uint8_t)rng_below(r, 8);
	uint8_t mod = f->mem ? (uint8_t)rng_below(r, 3) : 3, sib = (uint8_t)rng_next(r);

	if (f->mem && f->rm == 4)
		rm = 4; /* gathers and tile loads need SIB */
	*p++ = (uint8_t)(mod << 6 | reg << 3 | rm);
	if (mod == 3)
		return p;
	if (rm == 4)
		*p++ = sib;
	if (mod == 1)
		*p++ = (uint8_t)rng_next(r);
	else if (mod == 2 || rm == 5 || (rm == 4 && (sib & 7) == 5)) {
		store_le(p, (uint64_t)(int64_t)(int32_t)rng_next(r) >> rng_below(r, 24), 4);
		p += 4;
	}
	return p;
}

static bool encode(struct maker *m, const struct form *f, uint8_t *to, unsigned attempt)
{
	struct rng *r = m->r;
	bool plain = attempt > 7, compat = m->fs->compat;
	uint8_t *p = to;

	if (f->addr32 || (f->mem && !compat && attempt < 4 && rng_odds(r, 12)))
		*p++ = 0x67;
	/* FS and GS are null in 32-bit code; a mask of zeros hides that. */
	if (f->mem && attempt < 6 && !(compat && (f->enc != ENC_LEGACY || m->tame)) &&
	    rng_odds(r, 12))
		*p++ = rng_odds(r, 2) ? 0x64 : 0x65;
	p = f->enc == ENC_LEGACY ? put_legacy(f, p, r, plain, m->tame, compat)
				 : put_vector(f, p, r, attempt, compat);
	if (f->has_modrm && f->mem && m->tame)
		p = put_tame_modrm(f, p, r, attempt % 3 == 2 || plain);
	else if (f->has_modrm)
		p = put_modrm(f, p, r, attempt % 3 == 2 || plain);
	if (f->enc == ENC_LEGACY && f->map == 4)
		*p++ = f->opcode;
	for (unsigned i = 0; i < 8; i++)
		*p++ = (uint8_t)rng_next(r);
	return ZYAN_SUCCESS(ZydisDecoderDecodeFull(&m->fs->decoder, to, 15, &m->in, m->op)) &&
	       form_key(&m->in, m->op, compat) == f->key;
}

static bool append(struct maker *m, uint32_t form)
{
	const struct form *f = &m->fs->f[form];
	struct user_case *c = m->c;
	uint8_t bytes[40];

	if (c->len + 15u > CASE_BYTES)
		return false;
	for (unsigned attempt = 0; attempt < 24; attempt++)
		if (encode(m, f, bytes, attempt)) {
			uint8_t *at = c->bytes + c->len;

			memcpy(at, bytes, m->in.length);
			aim_branch(m, at);
			aim_operands(m, at);
			c->len += m->in.length;
			c->form[c->forms++] = form;
			return true;
		}
	return false;
}

bool make_case(struct user_case *c, const struct forms *fs, const uint32_t *form, unsigned n,
	       uint64_t rip, struct rng *r)
{
	struct maker m = {.c = c, .fs = fs, .r = r};
	struct user_state *s = &c->start;

	c->patches = c->forms = 0;
	c->len = 0;
	c->compat = fs->compat;
	s->rip = rip;
	s->rflags = RFLAGS_FIXED | RFLAGS_IF | (rng_next(r) & RFLAGS_ARITH) |
		    (rng_odds(r, 4) ? RFLAGS_DF : 0) | (rng_odds(r, 16) ? RFLAGS_AC : 0);
	s->fs_base = DATA_BASE + PAGE + rng_below(r, PAGE);
	s->gs_base = DATA_BASE + PAGE + rng_below(r, PAGE);
	random_xsave(r, s->xsave);
	for (unsigned i = 0; i < n; i++)
		if (!append(&m, form[i]) && i == 0)
			return false;
	for (int i = 0; i < 16; i++) {
		if (!(m.pinned & 1u << i))
			s->gpr[i] = i == X86_RSP ? random_target(r, 8, true) : random_gpr(r);
		if (fs->compat)
			s->gpr[i] = i < 8 ? s->gpr[i] & 0xffffffff : 0;
	}
	return true;
}

/* --- tame instructions --- */
static bool is_kept(int gpr)
{
	return gpr >= 0 && MAKE_KEPT >> gpr & 1;
}

/* Those that read what no program prepares, or that change what it relies on. */
static bool is_wild(const struct maker *m)
{
	switch (m->in.mnemonic) {
	case ZYDIS_MNEMONIC_POPF:
	case ZYDIS_MNEMONIC_POPFD:
	case ZYDIS_MNEMONIC_POPFQ:
	case ZYDIS_MNEMONIC_ENTER:
	case ZYDIS_MNEMONIC_LEAVE:
	case ZYDIS_MNEMONIC_XLAT:
	case ZYDIS_MNEMONIC_WRFSBASE:
	case ZYDIS_MNEMONIC_WRGSBASE:
	case ZYDIS_MNEMONIC_LDMXCSR:
	case ZYDIS_MNEMONIC_VLDMXCSR:
	case ZYDIS_MNEMONIC_FLDCW:
	case ZYDIS_MNEMONIC_FLDENV:
	case ZYDIS_MNEMONIC_FNSTENV:
	case ZYDIS_MNEMONIC_FRSTOR:
	case ZYDIS_MNEMONIC_FNSAVE:
	case ZYDIS_MNEMONIC_CLZERO:
	case ZYDIS_MNEMONIC_MOVDIRI:
	case ZYDIS_MNEMONIC_MOVDIR64B: return true;
	case ZYDIS_MNEMONIC_DIV:
	case ZYDIS_MNEMONIC_IDIV: return !rng_odds(m->r, 10);
	case ZYDIS_MNEMONIC_BT:
	case ZYDIS_MNEMONIC_BTS:
	case ZYDIS_MNEMONIC_BTR:
	case ZYDIS_MNEMONIC_BTC:
		return m->op[0].type == ZYDIS_OPERAND_TYPE_MEMORY &&
		       m->op[1].type == ZYDIS_OPERAND_TYPE_REGISTER;
	default: break;
	}
	switch (m->in.meta.category) {
	case ZYDIS_CATEGORY_XSAVE:
	case ZYDIS_CATEGORY_XSAVEOPT: return true;
	default: return m->in.meta.branch_type != ZYDIS_BRANCH_TYPE_NONE;
	}
}

static bool is_tame_operand(const struct maker *m, const ZydisDecodedOperand *o, bool keep_stack,
			    bool string)
{
	bool hidden = o->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN;
	int gpr;

	if (o->type == ZYDIS_OPERAND_TYPE_REGISTER) {
		bool written = o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;

		gpr = gpr_of(o->reg.value);
		if (ZydisRegisterGetClass(o->reg.value) == ZYDIS_REGCLASS_SEGMENT)
			return !written;
		/* With EVEX.X set, which counts for vectors only, AMD's Zen 4 reads the RSP from
		 * before a CALL or PUSH that stands in front. */
		if (gpr == X86_RSP && m->in.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX)
			return false;
		return !written || !is_kept(gpr) || (gpr == X86_RSP && hidden && !keep_stack);
	}
	if (o->type != ZYDIS_OPERAND_TYPE_MEMORY || o->mem.type == ZYDIS_MEMOP_TYPE_INVALID)
		return true;
	if (o->mem.type == ZYDIS_MEMOP_TYPE_VSIB)
		return false;
	gpr = gpr_of(o->mem.base);
	return string || gpr < 0 || is_kept(gpr);
}

static uint64_t tame_target(struct rng *r, unsigned size)
{
	uint64_t page = DATA_BASE + PAGE * (rng_odds(r, 5) ? 5 : 1);

	if (rng_odds(r, 60))
		return random_target(r, size, false);
	return page + align_down(256 + rng_below(r, PAGE - 768), rng_odds(r, 16) ? 1 : 64);
}

void make_tame_start(struct user_case *c, const struct forms *fs, struct rng *r)
{
	struct user_state *s = &c->start;

	c->patches = c->forms = c->len = 0;
	c->compat = fs->compat;
	s->rflags = RFLAGS_FIXED | RFLAGS_IF | (rng_next(r) & RFLAGS_ARITH) |
		    (rng_odds(r, 30) ? RFLAGS_AC : 0);
	s->fs_base = DATA_BASE + PAGE + 64 * rng_below(r, 8);
	s->gs_base = DATA_BASE + PAGE + 64 * rng_below(r, 8);
	random_xsave(r, s->xsave);
	store_le(s->xsave, 0x37f, 2); /* x87 exceptions masked, none pending */
	store_le(s->xsave + 2, rng_next(r) & 0x3800, 2);
	if (!rng_odds(r, 8))
		store_le(s->xsave + 24, 0x1f80 | rng_below(r, 4) << 13, 4);
	for (unsigned i = 0; i < 16; i++) {
		s->gpr[i] = random_gpr(r);
		if (is_kept((int)i))
			s->gpr[i] = DATA_BASE + PAGE + 512 + 64 * rng_below(r, 40);
		if (i == X86_RSP)
			s->gpr[i] = DATA_BASE + 5 * PAGE + 2048;
		if (i == 12)
			s->gpr[i] = 64 * rng_below(r, 3);
		if (fs->compat)
			s->gpr[i] = i < 8 ? s->gpr[i] & 0xffffffff : 0;
	}
}

bool make_tame(struct user_case *c, const struct forms *fs, uint32_t form, bool keep_stack,
	       struct rng *r, struct tame_insn *out)
{
	struct maker m = {.c = c, .fs = fs, .r = r, .pinned = 0xffff, .tame = true};
	const struct form *f = &fs->f[form];
	bool ok = false;

	for (unsigned attempt = 0; attempt < 24 && !ok; attempt++) {
		if (!encode(&m, f, out->bytes, attempt))
			continue;
		if (is_wild(&m))
			return false;
		out->is_string = m.in.meta.category == ZYDIS_CATEGORY_STRINGOP;
		ok = true;
		for (unsigned i = 0; i < m.in.operand_count; i++)
			ok &= is_tame_operand(&m, &m.op[i], keep_stack, out->is_string);
	}
	if (!ok)
		return false;
	out->len = m.in.length;
	out->form = form;
	out->rip_target = 0;
	for (unsigned i = 0; i < m.in.operand_count_visible; i++) {
		const ZydisDecodedOperand *o = &m.op[i];
		uint64_t target;

		if (o->type != ZYDIS_OPERAND_TYPE_MEMORY || out->is_string ||
		    o->mem.type == ZYDIS_MEMOP_TYPE_INVALID)
			continue;
		target = tame_target(r, o->size / 8);
		if (o->mem.base == ZYDIS_REGISTER_RIP || o->mem.base == ZYDIS_REGISTER_EIP) {
			out->rip_target = target - seg_base(&m, o->mem.segment);
			out->disp_at = m.in.raw.disp.offset;
		} else {
			aim(&m, out->bytes, &o->mem, target);
		}
	}
	return true;
}

void make_print(const struct user_case *c, const struct forms *fs, char *to, unsigned len)
{
	ZydisFormatter fmt;
	unsigned at = 0, out = 0;

	ZydisFormatterInit(&fmt, ZYDIS_FORMATTER_STYLE_INTEL);
	*to = 0;
	while (at < c->len && out + 100 < len) {
		ZydisDecodedInstruction in;
		ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];

		if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&fs->decoder, c->bytes + at, c->len - at,
							 &in, op)))
			break;
		if (at)
			out += (unsigned)snprintf(to + out, len - out, "; ");
		ZydisFormatterFormatInstruction(&fmt, &in, op, in.operand_count_visible, to + out,
						len - out, c->start.rip + at, NULL);
		out += (unsigned)strlen(to + out);
		at += in.length;
	}
}
