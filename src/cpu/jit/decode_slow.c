/* decode: guest bytes into struct insn, for one block: up to a jump that always jumps, the
 * page's end, an instruction that straddles (alone in its block), or BLOCK_INSNS. */
#include "cpu/jit/translate.h"
#include "cpu/jit/walk.h"

#define FOLLOWS_MAX 2 /* jumps that one block goes on behind */

static void decoder_init(struct xlate *x)
{
	ZydisMachineMode m = x_code64(x)             ? ZYDIS_MACHINE_MODE_LONG_64
			     : x->mode & MODE_CODE32 ? ZYDIS_MACHINE_MODE_LEGACY_32
			     : x->mode & MODE_REAL   ? ZYDIS_MACHINE_MODE_REAL_16
						     : ZYDIS_MACHINE_MODE_LEGACY_16;

	(void)ZydisDecoderInit(&x->decoder, m,
			       x_code64(x)              ? ZYDIS_STACK_WIDTH_64
			       : x->mode & MODE_STACK32 ? ZYDIS_STACK_WIDTH_32
							: ZYDIS_STACK_WIDTH_16);
	(void)ZydisDecoderEnableMode(&x->decoder, ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
	(void)ZydisDecoderEnableMode(&x->decoder, ZYDIS_DECODER_MODE_CET, ZYAN_FALSE);
	(void)ZydisDecoderEnableMode(&x->decoder, ZYDIS_DECODER_MODE_CLDEMOTE, ZYAN_FALSE);
	(void)ZydisDecoderEnableMode(&x->decoder, ZYDIS_DECODER_MODE_WBNOINVD, ZYAN_FALSE);
	(void)ZydisDecoderEnableMode(&x->decoder, ZYDIS_DECODER_MODE_LZCNT,
				     x->vm->isa_ok[ZYDIS_ISA_SET_LZCNT]);
	(void)ZydisDecoderEnableMode(&x->decoder, ZYDIS_DECODER_MODE_TZCNT,
				     x->vm->isa_ok[ZYDIS_ISA_SET_BMI1]);
	(void)ZydisDecoderEnableMode(&x->decoder, ZYDIS_DECODER_MODE_AMD_BRANCHES, x->vm->amd);
}

/* The bytes at gva, up to 15, from its page and the next. *from_next: how many of them stand on
 * the next page. Raises when first and the next page is missing. */
static unsigned fetch(struct xlate *x, uint64_t gva, uint8_t *to, bool first, bool want_next)
{
	unsigned off = gva & 0xfff, n = off > 4096 - 15 ? 4096 - off : 15;
	const uint8_t *page = mem_span(x->c->env->mem, x->page->gpa, 4096);
	struct jit_mapping map;
	uint32_t error;
	uint64_t next = (gva | 0xfff) + 1;

	if (n == 15) {
		memcpy(to, page + off, 15);
		return n;
	}
	memcpy(to, page + off, n);
	if (!want_next)
		return n;
	if (!x_code64(x))
		next = (uint32_t)next;
	if (!jit_canonical(x->c, next))
		jit_raise_err(x->c, X86_GP, 0);
	if (!jit_walk(x->c, next, x->c->mmu, ACC_FETCH, &map, &error)) {
		if (first)
			jit_raise_pf(x->c, next, error);
		return n;
	}
	page = mem_span(x->c->env->mem, map.gpa, 4096);
	if (!page)
		return n;
	x->page2 = jit_page_get(x->k, next, map.gpa, x->mode, x->cs);
	mem_mark(x->c->env->mem, map.gpa);
	jit_copy(to + n, page, 15 - n);
	return 15;
}

static void find_memory(struct insn *i)
{
	i->mem = NULL;
	for (unsigned n = 0; n < i->z.operand_count_visible && !i->mem; n++)
		if (i->op[n].type == ZYDIS_OPERAND_TYPE_MEMORY &&
		    i->op[n].mem.type == ZYDIS_MEMOP_TYPE_MEM)
			i->mem = &i->op[n];
}

static const struct rule gp = {.kind = RULE_HELPER, .helper = h_gp};

/* What cannot be decoded: too long is #GP, all else #UD. */
static void undecodable(struct insn *i, ZyanStatus s)
{
	static const struct rule ud = {.kind = RULE_UD};

	memset(&i->z, 0, sizeof i->z);
	i->z.length = 1;
	i->mem = NULL;
	i->rule = s == ZYDIS_STATUS_INSTRUCTION_TOO_LONG ? &gp : &ud;
}

/* Without MOD, a SIB base of 101 is a displacement (SDM volume 2A, table 2-3), whatever the B
 * bit; Zydis 4.0 takes it for r13 where the address size is 32. */
static void drop_phantom_base(struct insn *i)
{
	if (!(i->z.attributes & ZYDIS_ATTRIB_HAS_SIB) || i->z.raw.modrm.mod != 0 ||
	    i->z.raw.sib.base != 5)
		return;
	for (unsigned n = 0; n < i->z.operand_count; n++) {
		ZydisDecodedOperand *op = &i->op[n];

		if (op->type != ZYDIS_OPERAND_TYPE_MEMORY ||
		    op->encoding != ZYDIS_OPERAND_ENCODING_MODRM_RM)
			continue;
		op->mem.base = ZYDIS_REGISTER_NONE;
		op->mem.disp.has_displacement = ZYAN_TRUE;
		op->mem.disp.value = i->z.raw.disp.value;
	}
}

static bool gate(struct xlate *x, struct insn *i)
{
	static const struct rule ud = {.kind = RULE_UD}, nm = {.kind = RULE_HELPER, .helper = h_nm};

	if (!x_code64(x) && x_rip(x, i) + i->z.length - 1 > x->cs.limit) {
		i->rule = &gp;
		return false;
	}
	switch (jit_gate(&i->z, x->vm->isa_ok, x->mode)) {
	case GATE_UD: i->rule = &ud; return false;
	case GATE_NM: i->rule = &nm; return false;
	default: return true;
	}
}

/* STI whose effect depends on IOPL, VME or PVI is a helper's, which ends the block. */
static const struct rule *rule_for(const struct xlate *x, const struct insn *i)
{
	static const struct rule sti = {.kind = RULE_HELPER, .helper = h_sti};
	const struct rule *r = jit_rule(&i->z);

	return r->kind == RULE_STI && (x->mode & (MODE_USER | MODE_REAL)) ? &sti : r;
}

static void classify(struct xlate *x, struct insn *i)
{
	drop_phantom_base(i);
	i->rule = rule_for(x, i);
	if (gate(x, i))
		find_memory(i);
	else
		i->mem = NULL;
	x_flags_of(i);
}

bool x_ends_block(const struct insn *i)
{
	enum jit_helper_kind kind;

	switch (i->rule->kind) {
	case RULE_JMP:
	case RULE_CALL:
	case RULE_RET:
	case RULE_UD:
	case RULE_FAR:
	case RULE_INT:
	case RULE_LOOP: return true;
	case RULE_STRING: return !x_string_once(i);
	case RULE_IO: return i->rule->helper == h_out;
	case RULE_HELPER: kind = jit_helper_kind(i->rule->helper); return kind != HELPER_PLAIN;
	case RULE_MOV:
	case RULE_POP:
		return i->op[0].type == ZYDIS_OPERAND_TYPE_REGISTER &&
		       !insn_is_gpr(i->op[0].reg.value);
	default: return false;
	}
}

/* Decodes one instruction. false: it cannot be part of this block. */
static bool decode_one(struct xlate *x, uint64_t gva)
{
	struct insn *i = &x->in[x->n];
	bool first = x->n == 0;
	unsigned left = 4096 - (gva & 0xfff), n;
	ZyanStatus s;

	i->gva = gva;
	i->straddles = i->followed = false;
	n = fetch(x, gva, i->bytes, first, false);
	s = ZydisDecoderDecodeFull(&x->decoder, i->bytes, n, &i->z, i->op);
	if (s == ZYDIS_STATUS_NO_MORE_DATA && n < 15) {
		if (!first)
			return false; /* a block of its own */
		n = fetch(x, gva, i->bytes, true, true);
		if (n == 15 && !x->page2)
			return false; /* cache full */
		s = ZydisDecoderDecodeFull(&x->decoder, i->bytes, n, &i->z, i->op);
	}
	if (!ZYAN_SUCCESS(s)) {
		undecodable(i, s);
		x_flags_of(i);
		x->n++;
		return true;
	}
	classify(x, i);
	i->straddles = i->z.length > left;
	if (!i->straddles)
		x->page2 = NULL;
	x->n++;
	return true;
}

void x_peek_page(struct xlate *x)
{
	if (!x->b.peek_to)
		memcpy(x->peeked, mem_span(x->c->env->mem, x->page->gpa, 4096), 4096);
}

bool x_decode_on_page(struct xlate *x, uint64_t gva, struct insn *i)
{
	unsigned off = gva & 0xfff, n = off > 4096 - 15 ? 4096 - off : 15;

	x_peek_page(x);
	memcpy(i->bytes, x->peeked + off, n);
	i->gva = gva;
	if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&x->decoder, i->bytes, n, &i->z, i->op)))
		return false;
	classify(x, i);
	return true;
}

/* A jump on the page, to what is not part of the block yet: the block goes on there. Tails that
 * several ways share are then translated once for each, which tells their indirect jumps apart. */
static bool may_follow(const struct xlate *x, const struct insn *i, unsigned follows)
{
	uint64_t to;

	if (i->rule->kind != RULE_JMP || i->op[0].type != ZYDIS_OPERAND_TYPE_IMMEDIATE ||
	    !x_code64(x) || follows == FOLLOWS_MAX || x->n > BLOCK_INSNS / 2 || i->straddles)
		return false;
	to = x_branch_target(x, i);
	if (((to ^ x->b.gva) & ~0xfffull) || jit_debug_ends_any(x->vm, to))
		return false;
	for (unsigned n = 0; n < x->n; n++)
		if (x->in[n].gva == to)
			return false;
	return true;
}

bool x_decode(struct xlate *x, uint64_t gva)
{
	unsigned jumps = 0, follows = 0, limit = x->step ? 1 : BLOCK_INSNS;

	decoder_init(x);
	for (;;) {
		struct insn *i = &x->in[x->n];

		if (!decode_one(x, gva)) {
			if (x->n)
				x->in[x->n - 1].followed = false;
			return x->n > 0;
		}
		if (!x->step && may_follow(x, i, follows)) {
			i->followed = true;
			follows++;
			gva = x_branch_target(x, i);
			continue;
		}
		gva += i->z.length;
		jumps += i->rule->kind == RULE_JCC;
		if (x_ends_block(i) || x->n == limit || jumps == 4 || (gva & 0xfff) == 0 ||
		    i->straddles || jit_debug_ends_any(x->vm, gva))
			return true;
	}
}
