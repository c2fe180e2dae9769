#include "forms.h"

#include <stdlib.h>
#include <string.h>

#define REG_CLASSES 32

static uint64_t mix(uint64_t h, uint64_t v)
{
	h = (h * 31 + v + 1) * 0x9e3779b97f4a7c15u;
	h = (h ^ (h >> 29)) * 0xbf58476d1ce4e5b9u;
	return h ^ (h >> 32);
}

static uint64_t operand_kind(const ZydisDecodedOperand *o)
{
	uint64_t k = o->type;

	k = mix(k, o->size);
	if (o->type == ZYDIS_OPERAND_TYPE_REGISTER)
		k = mix(k, ZydisRegisterGetClass(o->reg.value) + REG_CLASSES);
	if (o->type == ZYDIS_OPERAND_TYPE_MEMORY)
		k = mix(k, o->mem.type == ZYDIS_MEMOP_TYPE_VSIB);
	return k;
}

uint64_t form_key(const ZydisDecodedInstruction *i, const ZydisDecodedOperand *op, bool compat)
{
	uint64_t k = mix(i->mnemonic, (uint64_t)i->encoding << 32 | i->opcode_map << 8 | i->opcode);

	k = mix(k, (uint64_t)compat << 32 | i->operand_width << 16 | i->operand_count_visible);
	k = mix(k, i->avx.vector_length);
	k = mix(k, i->avx.broadcast.mode * 16 + (i->avx.rounding.mode != 0) * 2 + i->avx.has_sae);
	for (unsigned n = 0; n < i->operand_count; n++)
		k = mix(k, operand_kind(&op[n]));
	return k;
}

static bool known(const struct forms *fs, uint64_t key)
{
	for (unsigned i = fs->n; i-- > 0;)
		if (fs->f[i].key == key)
			return true;
	return false;
}

/* A form's bytes without any randomness; a memory operand is [rcx + disp8] or, for
 * rm 4, [rcx + index + disp8]. */
static unsigned encode_plain(const struct form *f, bool compat, uint8_t *to)
{
	static const uint8_t pp_of[256] = {[0x66] = 1, [0xf3] = 2, [0xf2] = 3};
	uint8_t *p = to, pp = pp_of[f->prefix];

	if (f->addr32)
		*p++ = 0x67;
	if (f->enc == ENC_LEGACY && f->prefix)
		*p++ = f->prefix;
	switch (f->enc) {
	case ENC_LEGACY:
		if (f->w && !compat)
			*p++ = 0x48;
		if (f->map)
			*p++ = 0x0f;
		if (f->map == 2)
			*p++ = 0x38;
		if (f->map == 3)
			*p++ = 0x3a;
		if (f->map == 4)
			*p++ = 0x0f;
		break;
	case ENC_VEX:
	case ENC_XOP:
		*p++ = f->enc == ENC_VEX ? 0xc4 : 0x8f;
		*p++ = 0xe0 | f->map;
		*p++ = (uint8_t)(f->w << 7 | 0x78 | (f->l & 1) << 2 | pp);
		break;
	case ENC_EVEX:
		*p++ = 0x62;
		*p++ = 0xf0 | f->map;
		*p++ = (uint8_t)(f->w << 7 | 0x7c | pp);
		*p++ = (uint8_t)(f->l << 5 | f->b << 4 | 0x08 | f->aaa);
		break;
	}
	if (!(f->enc == ENC_LEGACY && f->map == 4))
		*p++ = f->opcode;
	*p++ = (uint8_t)((f->mem ? 0x40 : 0xc0) | f->reg << 3 | f->rm);
	if (f->mem && f->rm == 4)
		*p++ = 0x11; /* rcx + rdx */
	if (f->mem)
		*p++ = 0x10;
	if (f->enc == ENC_LEGACY && f->map == 4)
		*p++ = f->opcode; /* 3DNow! has it behind the operand */
	memset(p, 0x11, 8);
	return (unsigned)(p + 8 - to);
}

static const char *why_left_out(const struct form *f, const ZydisDecodedInstruction *in)
{
	if (f->enc == ENC_LEGACY && f->map == 1 && f->opcode == 0x0d && !f->mem)
		return "PREFETCHW with a register: a NOP or #UD, as the processor likes";
	if (in->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
		return "depends on the kernel's descriptor tables; tests/guest has it";
	return left_out(f->mnemonic);
}

static bool try_form(struct forms *fs, struct form f)
{
	ZydisDecodedInstruction in;
	ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
	uint8_t bytes[32];
	unsigned len = encode_plain(&f, fs->compat, bytes);

	if (!ZYAN_SUCCESS(
		    ZydisDecoderDecodeFull(&fs->decoder, bytes, len > 15 ? 15 : len, &in, op)))
		return true;
	if (!(in.attributes & ZYDIS_ATTRIB_HAS_MODRM) &&
	    (f.reg || f.rm != (f.mem ? 1 : 0) || f.mem))
		return true; /* the same thing as without */
	f.has_modrm = in.attributes & ZYDIS_ATTRIB_HAS_MODRM;
	f.mnemonic = in.mnemonic;
	f.key = form_key(&in, op, fs->compat);
	if (known(fs, f.key))
		return true;
	f.left_out = why_left_out(&f, &in);
	if (fs->n == fs->cap) {
		unsigned cap = fs->cap ? 2 * fs->cap : 4096;
		struct form *more = realloc(fs->f, cap * sizeof *more);

		if (!more)
			return false;
		fs->f = more;
		fs->cap = cap;
	}
	fs->f[fs->n++] = f;
	return true;
}

/* Bytes that are prefixes or escapes, not opcodes of map 0. */
static bool is_escape(uint8_t op, bool compat)
{
	switch (op) {
	case 0x0f:
	case 0x26:
	case 0x2e:
	case 0x36:
	case 0x3e:
	case 0x64:
	case 0x65:
	case 0x66:
	case 0x67:
	case 0xf0:
	case 0xf2:
	case 0xf3: return true;
	case 0x62:
	case 0xc4:
	case 0xc5: return !compat;
	default: return !compat && (op & 0xf0) == 0x40;
	}
}

static bool try_operands(struct forms *fs, struct form f, bool all_rm)
{
	for (unsigned mem = 0; mem < 2; mem++)
		for (unsigned reg = 0; reg < 8; reg++)
			for (unsigned rm = 0; rm < 8; rm++) {
				if (mem ? rm != 1 && rm != 4 : !all_rm && rm)
					continue;
				if (f.enc == ENC_LEGACY && !f.map && !mem && fs->compat &&
				    (f.opcode == 0x62 || f.opcode == 0xc4 || f.opcode == 0xc5))
					continue; /* EVEX and VEX prefixes then */
				f.mem = mem;
				f.reg = (uint8_t)reg;
				f.rm = (uint8_t)rm;
				if (!try_form(fs, f))
					return false;
			}
	return true;
}

static bool try_opcodes(struct forms *fs, struct form f)
{
	static const uint8_t prefixes[] = {0, 0x66, 0xf3, 0xf2};

	for (unsigned op = 0; op < 256; op++)
		for (unsigned p = 0; p < 4; p++)
			for (unsigned w = 0; w < 2; w++) {
				if (f.enc == ENC_LEGACY && f.map == 0 &&
				    is_escape((uint8_t)op, fs->compat))
					continue;
				if (f.enc == ENC_LEGACY && f.map == 1 &&
				    (op == 0x0f || op == 0x38 || op == 0x3a))
					continue;
				if (f.enc == ENC_LEGACY && w && fs->compat)
					continue;
				f.opcode = (uint8_t)op;
				f.prefix = prefixes[p];
				f.w = (uint8_t)w;
				if (!try_operands(fs, f, f.enc == ENC_LEGACY))
					return false;
			}
	return true;
}

static bool try_legacy(struct forms *fs)
{
	for (uint8_t map = 0; map < 5; map++)
		for (unsigned a = 0; a < (map ? 1 : 2); a++)
			if (!try_opcodes(fs,
					 (struct form){.enc = ENC_LEGACY, .map = map, .addr32 = a}))
				return false;
	return true;
}

static bool try_vector(struct forms *fs)
{
	for (uint8_t l = 0; l < 2; l++) {
		for (uint8_t map = 1; map <= 3; map++)
			if (!try_opcodes(fs, (struct form){.enc = ENC_VEX, .map = map, .l = l}))
				return false;
		for (uint8_t map = 8; map <= 10; map++)
			if (!try_opcodes(fs, (struct form){.enc = ENC_XOP, .map = map, .l = l}))
				return false;
	}
	for (uint8_t l = 0; l < 4; l++)
		for (uint8_t b = 0; b < 2; b++)
			for (uint8_t aaa = 0; aaa < 2; aaa++)
				for (uint8_t map = 1; map <= 6; map++)
					if (map != 4 &&
					    !try_opcodes(fs, (struct form){.enc = ENC_EVEX,
									   .map = map,
									   .l = l,
									   .b = b,
									   .aaa = aaa}))
						return false;
	return true;
}

static int by_name(const void *a, const void *b)
{
	const struct form *x = a, *y = b;

	return x->mnemonic != y->mnemonic ? (int)x->mnemonic - (int)y->mnemonic
	       : x->key < y->key          ? -1
					  : x->key > y->key;
}

bool forms_find(struct forms *fs, bool compat)
{
	*fs = (struct forms){.compat = compat};
	ZydisDecoderInit(&fs->decoder,
			 compat ? ZYDIS_MACHINE_MODE_LONG_COMPAT_32 : ZYDIS_MACHINE_MODE_LONG_64,
			 compat ? ZYDIS_STACK_WIDTH_32 : ZYDIS_STACK_WIDTH_64);
	if (!try_legacy(fs) || !try_vector(fs)) {
		forms_done(fs);
		return false;
	}
	qsort(fs->f, fs->n, sizeof *fs->f, by_name);
	return true;
}

void forms_done(struct forms *fs)
{
	free(fs->f);
	fs->f = NULL;
	fs->n = 0;
}
