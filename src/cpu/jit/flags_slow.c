/* flags: which arithmetic flags an instruction reads and certainly overwrites, and from that,
 * backwards over a block, which are live where. A flag that is overwritten before anything reads it
 * is dead: it needs no saving, whatever its value would be (docs/jit.md, "Flags"). At a block's way
 * out all are live, unless the first instructions behind it, on the same page, tell more; then the
 * block depends on their bytes as on its own. */
#include "cpu/jit/translate.h"

#define CF RFLAGS_CF
#define PF RFLAGS_PF
#define AF RFLAGS_AF
#define ZF RFLAGS_ZF
#define SF RFLAGS_SF
#define OF RFLAGS_OF

#define PEEK_INSNS 8

/* A shift by an immediate that is not 0 after masking. */
static bool shifts(const struct insn *i, unsigned operand)
{
	const ZydisDecodedOperand *op = &i->op[operand];
	unsigned mask = i->op[0].size == 64 ? 63 : 31;

	return op->type == ZYDIS_OPERAND_TYPE_IMMEDIATE && (op->imm.value.u & mask);
}

/* Flags that are overwritten whatever they were and whatever the operands are. What the manual
 * calls undefined does not count but where all processors agree. */
static uint16_t sets(const struct insn *i)
{
	switch (i->z.mnemonic) {
	case ZYDIS_MNEMONIC_ADC:
	case ZYDIS_MNEMONIC_ADD:
	case ZYDIS_MNEMONIC_AND: /* AF becomes 0 */
	case ZYDIS_MNEMONIC_CMP:
	case ZYDIS_MNEMONIC_CMPXCHG:
	case ZYDIS_MNEMONIC_COMISD:
	case ZYDIS_MNEMONIC_COMISS:
	case ZYDIS_MNEMONIC_NEG:
	case ZYDIS_MNEMONIC_OR:
	case ZYDIS_MNEMONIC_POPCNT:
	case ZYDIS_MNEMONIC_PTEST:
	case ZYDIS_MNEMONIC_SBB:
	case ZYDIS_MNEMONIC_SUB:
	case ZYDIS_MNEMONIC_TEST:
	case ZYDIS_MNEMONIC_UCOMISD:
	case ZYDIS_MNEMONIC_UCOMISS:
	case ZYDIS_MNEMONIC_VCOMISD:
	case ZYDIS_MNEMONIC_VCOMISS:
	case ZYDIS_MNEMONIC_VPTEST:
	case ZYDIS_MNEMONIC_VUCOMISD:
	case ZYDIS_MNEMONIC_VUCOMISS:
	case ZYDIS_MNEMONIC_XADD:
	case ZYDIS_MNEMONIC_XOR: return RFLAGS_ARITH;
	case ZYDIS_MNEMONIC_DEC:
	case ZYDIS_MNEMONIC_INC: return RFLAGS_ARITH & ~CF;
	case ZYDIS_MNEMONIC_IMUL:
	case ZYDIS_MNEMONIC_MUL: return CF | OF;
	case ZYDIS_MNEMONIC_SAR:
	case ZYDIS_MNEMONIC_SHL:
	case ZYDIS_MNEMONIC_SHR: return shifts(i, 1) ? CF | PF | ZF | SF : 0;
	case ZYDIS_MNEMONIC_ROL:
	case ZYDIS_MNEMONIC_ROR: return shifts(i, 1) ? CF : 0;
	case ZYDIS_MNEMONIC_SHLD:
	case ZYDIS_MNEMONIC_SHRD:
		return i->op[0].size >= 32 && shifts(i, 2) ? CF | PF | ZF | SF : 0;
	case ZYDIS_MNEMONIC_BT:
	case ZYDIS_MNEMONIC_BTC:
	case ZYDIS_MNEMONIC_BTR:
	case ZYDIS_MNEMONIC_BTS:
	case ZYDIS_MNEMONIC_CLC:
	case ZYDIS_MNEMONIC_CMC:
	case ZYDIS_MNEMONIC_STC: return CF;
	case ZYDIS_MNEMONIC_BSF:
	case ZYDIS_MNEMONIC_BSR: return ZF;
	case ZYDIS_MNEMONIC_LZCNT:
	case ZYDIS_MNEMONIC_TZCNT: return CF | ZF;
	case ZYDIS_MNEMONIC_ANDN:
	case ZYDIS_MNEMONIC_BLSI:
	case ZYDIS_MNEMONIC_BLSMSK:
	case ZYDIS_MNEMONIC_BLSR:
	case ZYDIS_MNEMONIC_BZHI: return CF | ZF | SF | OF;
	case ZYDIS_MNEMONIC_SAHF: return RFLAGS_ARITH & ~OF;
	default: return 0;
	}
}

/* Helpers may look at all flags, or show them. */
static bool is_helper(const struct insn *i)
{
	switch (i->rule->kind) {
	case RULE_COPY:
	case RULE_NOP:
	case RULE_LEA:
	case RULE_XLAT:
	case RULE_LEAVE:
	case RULE_BT:
	case RULE_JMP:
	case RULE_JCC:
	case RULE_CALL:
	case RULE_RET:
	case RULE_LOOP:
	case RULE_CLD:
	case RULE_STD: return false;
	case RULE_MOV:
	case RULE_PUSH:
	case RULE_POP:
		for (unsigned n = 0; n < i->z.operand_count_visible; n++)
			if (i->op[n].type == ZYDIS_OPERAND_TYPE_REGISTER &&
			    !insn_is_gpr(i->op[n].reg.value))
				return true;
		return false;
	case RULE_STRING: return !x_string_once(i);
	default: return true;
	}
}

void x_flags_of(struct insn *i)
{
	const ZydisAccessedFlags *f = i->z.cpu_flags;

	i->reads = i->sets = i->touches = 0;
	if (is_helper(i)) {
		i->reads = RFLAGS_ARITH;
		return;
	}
	if (!f)
		return;
	i->sets = sets(i);
	i->reads = f->tested & RFLAGS_ARITH;
	i->touches = (f->modified | f->set_0 | f->set_1 | f->undefined) & RFLAGS_ARITH;
}

/* Does its own work, beside helpers, overwrite the host's flags where they are not yet its own? */
static bool clobbers(const struct insn *i)
{
	switch (i->rule->kind) {
	case RULE_NOP:
	case RULE_LEA:
	case RULE_JCC:
	case RULE_LOOP: return false;
	case RULE_JMP: return i->op[0].type != ZYDIS_OPERAND_TYPE_IMMEDIATE;
	case RULE_COPY:
	case RULE_BT:
	case RULE_MOV: return i->mem;
	default: return true;
	}
}

/* ---- beyond the block ---- */

static bool is_direct(const struct insn *i)
{
	return i->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
}

/* The block was made from these bytes of its page, too. */
void x_depend(struct xlate *x, uint64_t from, uint64_t to)
{
	uint16_t lo = from & 0xfff, hi = (uint16_t)((to - 1) & 0xfff) + 1;

	x_peek_page(x);
	if (!x->b.peek_to || lo < x->b.peek_from)
		x->b.peek_from = lo;
	if (hi > x->b.peek_to)
		x->b.peek_to = hi;
}

/* Which of the flags in mask somebody may read who comes to gva. */
static uint16_t live_at(struct xlate *x, uint64_t gva, uint16_t mask)
{
	uint64_t page = x->b.gva & ~0xfffull;
	struct insn *i = &x->peek;
	uint16_t live = 0;

	for (unsigned n = 0; n < PEEK_INSNS && mask; n++) {
		if ((gva & ~0xfffull) != page || jit_debug_ends_any(x->vm, gva) ||
		    !x_decode_on_page(x, gva, i))
			return live | mask;
		x_depend(x, gva, gva + i->z.length);
		live |= i->reads & mask;
		mask &= (uint16_t) ~(i->sets | i->reads);
		gva += i->z.length;
		switch (i->rule->kind) {
		case RULE_JCC:
		case RULE_LOOP:
		case RULE_RET: return live | mask;
		case RULE_JMP:
		case RULE_CALL:
			if (!is_direct(i))
				return live | mask;
			gva = x_branch_target(x, i);
			break;
		default: break;
		}
	}
	return live | mask;
}

/* ---- the block ---- */

/* Ways out that the pass has come by: of each, the flags that are live there for all that is
 * known, and not yet overwritten on the way to it. */
struct ways {
	struct way {
		uint64_t target;
		uint16_t mask;
	} w[BLOCK_INSNS + 1];
	unsigned n;
};

static void add_way(struct xlate *x, struct ways *ways, uint64_t target)
{
	ways->w[ways->n++] = (struct way){target, RFLAGS_ARITH};
}

static uint16_t through(const struct ways *ways)
{
	uint16_t mask = 0;

	for (unsigned n = 0; n < ways->n; n++)
		mask |= ways->w[n].mask;
	return mask;
}

static void overwrite(struct ways *ways, uint16_t flags)
{
	unsigned kept = 0;

	for (unsigned n = 0; n < ways->n; n++) {
		ways->w[kept] = ways->w[n];
		kept += (ways->w[kept].mask &= (uint16_t)~flags) != 0;
	}
	ways->n = kept;
}

/* It matters: look what stands behind them. */
static uint16_t resolve(struct xlate *x, struct ways *ways)
{
	uint16_t live = 0;

	for (unsigned n = 0; n < ways->n; n++) {
		struct way *w = &ways->w[n];

		live |= x->step || !x_code64(x) ? w->mask : live_at(x, w->target, w->mask);
	}
	ways->n = 0;
	return live;
}

void x_liveness(struct xlate *x)
{
	struct ways *ways = &(struct ways){.n = 0};
	struct insn *last = &x->in[x->n - 1];
	uint16_t live = 0;

	if (!x_ends_block(last) || last->rule->kind == RULE_LOOP)
		add_way(x, ways, x_next(x, last));
	for (unsigned n = x->n; n-- > 0;) {
		struct insn *i = &x->in[n];

		switch (i->rule->kind) {
		case RULE_RET: live = RFLAGS_ARITH; break;
		case RULE_JMP:
		case RULE_CALL:
		case RULE_JCC:
		case RULE_LOOP:
			if (i->followed)
				break;
			if (is_direct(i))
				add_way(x, ways, x_branch_target(x, i));
			else
				live = RFLAGS_ARITH;
			break;
		default: break;
		}
		if (i->touches && (through(ways) & ~(i->sets | live)))
			live |= resolve(x, ways);
		i->live_out = live | through(ways);
		live = (uint16_t)((live & ~i->sets) | i->reads);
		overwrite(ways, i->sets);
		if (!live && ways->n && clobbers(i))
			live = resolve(x, ways);
		i->live_in = live | through(ways);
	}
}
