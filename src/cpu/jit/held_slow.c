/* held: what is known of r13, r14 and the slots in a direct block (struct x_held), from one guest
 * instruction to the next; and which registers are narrow. */
#include "cpu/jit/translate.h"
#include "cpu/jit/window.h"

#define MOVE_MAX (1 << 30)
/* An access is at 2 GiB of displacement and 32 GiB of a narrow index from what is X_FAR away. */
_Static_assert(LANE_GUARD >= X_FAR + (INT64_C(34) << 30) + 8192,
	       "what a checked address can reach");

void x_forget(struct xlate *x, unsigned host)
{
	if (host == R_13 || host == R_14)
		x->held[host == R_14].valid = false;
}

void x_forget_both(struct xlate *x)
{
	x->held[0].valid = x->held[1].valid = false;
}

void x_forget_all(struct xlate *x)
{
	for (unsigned n = 0; n < X_HELD; n++)
		x->held[n].valid = false;
	x->narrow = 0;
}

bool x_held_same(const struct x_held *a, const struct x_held *b)
{
	return a->base == b->base && a->index == b->index && a->scale == b->scale && a->at == b->at;
}

/* ---- what an instruction does ---- */

/* It adds a constant to its destination, a whole register: which. */
static bool moves(const struct insn *i, unsigned *g, int64_t *by)
{
	const ZydisDecodedOperand *op = i->op;
	bool imm = op[1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;

	if (op[0].type != ZYDIS_OPERAND_TYPE_REGISTER || op[0].size != 64)
		return false;
	*g = insn_gpr(op[0].reg.value);
	switch (i->z.mnemonic) {
	case ZYDIS_MNEMONIC_ADD: *by = op[1].imm.value.s; return imm;
	case ZYDIS_MNEMONIC_SUB: *by = -op[1].imm.value.s; return imm;
	case ZYDIS_MNEMONIC_INC: *by = 1; return true;
	case ZYDIS_MNEMONIC_DEC: *by = -1; return true;
	case ZYDIS_MNEMONIC_LEA:
		*by = op[1].mem.disp.has_displacement ? op[1].mem.disp.value : 0;
		return op[1].mem.base == op[0].reg.value && i->z.address_width == 64 &&
		       op[1].mem.index == ZYDIS_REGISTER_NONE;
	default: return false;
	}
}

static int64_t magnitude(int64_t v)
{
	return v < 0 ? -v : v;
}

static void moved(struct xlate *x, unsigned g, int64_t by)
{
	for (unsigned n = 0; n < X_HELD; n++) {
		struct x_held *h = &x->held[n];
		int64_t as_base = h->base == g ? by : 0;
		int64_t as_index = h->index == g ? by * h->scale : 0;
		int64_t off = h->off;

		if (!h->valid || (h->base != g && h->index != g))
			continue;
		if (h->added & ADDED_BASE)
			off += as_base;
		else
			h->far += magnitude(as_base);
		if (h->added & ADDED_INDEX)
			off += as_index;
		else
			h->far += magnitude(as_index);
		h->valid = magnitude(by) < MOVE_MAX && h->far < X_FAR && magnitude(off) < MOVE_MAX;
		h->off = h->valid ? (int32_t)off : 0;
	}
	x->narrow &= (uint16_t)~BIT(g);
}

static void lost(struct xlate *x, unsigned g)
{
	if (g == X86_RSP)
		x_stack_unknown(x);
	for (unsigned n = 0; n < X_HELD; n++)
		if (x->held[n].base == g || x->held[n].index == g)
			x->held[n].valid = false;
	x->narrow &= (uint16_t)~BIT(g);
}

/* The scanner cannot see that it comes back; but to what has been added nothing happens. */
void x_forget_rax(struct xlate *x)
{
	for (unsigned n = 0; n < X_HELD; n++) {
		const struct x_held *h = &x->held[n];

		if ((h->base == X86_RAX && !(h->added & ADDED_BASE)) ||
		    (h->index == X86_RAX && !(h->added & ADDED_INDEX)))
			x->held[n].valid = false;
	}
	x->narrow &= (uint16_t)~BIT(X86_RAX);
}

/* A borrowed register comes back, but the scanner cannot see that. */
void x_direct_used(struct xlate *x, uint16_t hosts)
{
	for (unsigned g = 0; g < 16; g++)
		if (jit_host_reg[g] != R_NONE && (hosts >> jit_host_reg[g] & 1))
			lost(x, g);
	for (unsigned h = R_13; h <= R_14; h++)
		if (hosts >> h & 1)
			x_forget(x, h);
}

/* It was in the lane, so the address is as near to that as the displacement. */
void x_direct_proven(struct xlate *x, const struct insn *i)
{
	const struct x_held *by = &x->held[x->at_held];
	int64_t near = magnitude(x->at.disp);

	if (x->at_held == X_HELD || !by->valid || !insn_touches(&i->z, i->mem))
		return;
	for (unsigned n = 0; n < X_HELD; n++) {
		struct x_held *h = &x->held[n];

		if (h->valid && x_held_same(h, by) && h->added == by->added && h->off == by->off &&
		    h->far > near)
			h->far = near;
	}
}

static bool writes(const ZydisDecodedOperand *op)
{
	return op->type == ZYDIS_OPERAND_TYPE_REGISTER && insn_is_gpr(op->reg.value) &&
	       (op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE);
}

static void written(struct xlate *x, const struct insn *i)
{
	for (unsigned n = 0; n < i->z.operand_count; n++)
		if (writes(&i->op[n]))
			lost(x, insn_gpr(i->op[n].reg.value));
}

enum x_change x_change_of(const struct xlate *x, unsigned g)
{
	enum x_change c = X_STAYS;

	for (const struct insn *i = x->in; i < x->in + x->loop.length; i++) {
		unsigned to;
		int64_t by;
		bool adds = moves(i, &to, &by);

		for (unsigned n = 0; n < i->z.operand_count; n++) {
			if (!writes(&i->op[n]) || insn_gpr(i->op[n].reg.value) != g)
				continue;
			if (!adds || n || by <= -MOVE_MAX || by >= MOVE_MAX)
				return X_CHANGES;
			c = X_MOVES;
		}
	}
	return c;
}

/* A selector, or a control register, is read or written by other code than a copy. */
static bool is_plain(const struct insn *i)
{
	for (unsigned n = 0; n < i->z.operand_count_visible; n++)
		if (i->op[n].type == ZYDIS_OPERAND_TYPE_REGISTER &&
		    !insn_is_gpr(i->op[n].reg.value))
			return false;
	return true;
}

static bool is_rsp(ZydisRegister r)
{
	return insn_is_gpr(r) && !insn_is_high_byte(r) && insn_gpr(r) == X86_RSP;
}

/* It names RSP, but for a memory operand off it without an index. */
static bool names_rsp(const struct insn *i)
{
	for (unsigned n = 0; n < i->z.operand_count; n++) {
		const ZydisDecodedOperand *op = &i->op[n];

		if (op->type == ZYDIS_OPERAND_TYPE_REGISTER && is_rsp(op->reg.value))
			return true;
		if (op->type == ZYDIS_OPERAND_TYPE_MEMORY && is_rsp(op->mem.base) &&
		    (op != i->mem || op->mem.index != ZYDIS_REGISTER_NONE ||
		     i->z.address_width != 64 || x_seg(op) >= X86_FS))
			return true;
	}
	return false;
}

static bool needs_rsp(const struct xlate *x, const struct insn *i)
{
	const ZydisDecodedOperand *op = &i->op[0];
	bool gpr = op->type == ZYDIS_OPERAND_TYPE_REGISTER && insn_is_gpr(op->reg.value);

	switch (i->rule->kind) {
	case RULE_NOP: return false;
	case RULE_JMP: return !i->followed;
	case RULE_MOV: return !is_plain(i) || names_rsp(i);
	case RULE_COPY:
	case RULE_LEA: return names_rsp(i);
	case RULE_PUSH:
		return op->type != ZYDIS_OPERAND_TYPE_IMMEDIATE && (!gpr || is_rsp(op->reg.value));
	case RULE_POP: return !gpr || is_rsp(op->reg.value);
	case RULE_CALL: return !x_is_paired(x, i) || op->type != ZYDIS_OPERAND_TYPE_IMMEDIATE;
	case RULE_RET: return !x_is_paired(x, i) || op->type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
	default: return true;
	}
}

void x_stack_before(struct xlate *x, const struct insn *i)
{
	if (x->stack.by && needs_rsp(x, i))
		x_stack_commit(x);
}

bool x_stack_adds(struct xlate *x, const struct insn *i)
{
	unsigned g;
	int64_t by;

	if (!x->direct || (i->rule->kind != RULE_COPY && i->rule->kind != RULE_LEA) ||
	    (i->live_out & i->touches) || !moves(i, &g, &by) || g != X86_RSP ||
	    !fits_s32((uint64_t)by))
		return false;
	x_stack_later(x, (int)by);
	moved(x, g, by);
	return true;
}

/* Other than by x_stack_move, or a helper. */
static bool writes_rsp(const struct insn *i)
{
	for (unsigned n = 0; n < i->z.operand_count_visible; n++)
		if (writes(&i->op[n]) && insn_gpr(i->op[n].reg.value) == X86_RSP)
			return true;
	return i->rule->kind == RULE_LEAVE;
}

void x_direct_after(struct xlate *x, const struct insn *i)
{
	int size = i->z.operand_width / 8;
	const ZydisDecodedOperand *op = &i->op[0];
	unsigned g;
	int64_t by;

	switch (i->rule->kind) {
	case RULE_NOP:
	case RULE_JCC: return; /* but for x_need_host, which sees to it by itself */
	case RULE_JMP:
		if (i->followed)
			return;
		break;
	case RULE_MOV:
		if (!is_plain(i))
			break;
		/* fall through */
	case RULE_COPY:
	case RULE_LEA:
		if (moves(i, &g, &by)) {
			moved(x, g, by);
			if (g == X86_RSP)
				x_stack_moved(x, by);
		} else {
			written(x, i);
		}
		if (insn_narrows(&i->z, i->op))
			x->narrow |= (uint16_t)BIT(insn_gpr(i->op[0].reg.value));
		return;
	case RULE_PUSH:
		if (op->type != ZYDIS_OPERAND_TYPE_REGISTER ||
		    jit_host_reg[insn_gpr(op->reg.value)] == R_NONE)
			x_forget(x, R_13);
		if (op->type != ZYDIS_OPERAND_TYPE_MEMORY && is_plain(i)) {
			moved(x, X86_RSP, -size);
			return;
		}
		break;
	case RULE_POP:
		x_forget(x, R_13);
		if (op->type == ZYDIS_OPERAND_TYPE_REGISTER && insn_is_gpr(op->reg.value) &&
		    insn_gpr(op->reg.value) != X86_RSP) {
			lost(x, insn_gpr(op->reg.value));
			moved(x, X86_RSP, size);
			return;
		}
		break;
	case RULE_STRING:
		if (!x_string_once(i))
			break;
		if (i->rule->helper != h_lods)
			moved(x, X86_RDI, i->op[0].size / 8);
		if (i->rule->helper != h_stos)
			moved(x, X86_RSI, i->op[0].size / 8);
		if (i->rule->helper == h_lods)
			lost(x, X86_RAX);
		return;
	default: break;
	}
	x_forget_all(x);
	if (writes_rsp(i))
		x_stack_unknown(x);
}
