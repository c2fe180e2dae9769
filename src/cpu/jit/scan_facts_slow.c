#include "cpu/jit/scan_facts.h"

#include "cpu/jit/insn.h"
#include "cpu/jit/window.h"

#define MOVED_MAX (INT64_C(1) << 30)
#define OFF_DELTA ((int64_t)offsetof(struct jit_cpu, delta))
#define OFF_STACK ((int64_t)offsetof(struct jit_cpu, stack_delta))

static struct fact *fact_of(const struct facts *f, unsigned r)
{
	static const uint8_t regs[FACTS] = {R_13, R_14, R_SI, R_DI};

	for (unsigned n = 0; n < FACTS; n++)
		if (regs[n] == r)
			return (struct fact *)&f->of[n];
	return NULL;
}

static unsigned reg_of(const ZydisDecodedOperand *op)
{
	bool gpr = op->type == ZYDIS_OPERAND_TYPE_REGISTER && insn_is_gpr(op->reg.value) &&
		   !insn_is_high_byte(op->reg.value);

	return gpr ? insn_gpr(op->reg.value) : R_NONE;
}

static int64_t disp_of(const ZydisDecodedOperand *op)
{
	return op->mem.disp.has_displacement ? op->mem.disp.value : 0;
}

static bool is_delta(const struct fact *d)
{
	return d->kind == FACT_DELTA || d->kind == FACT_STACK;
}

/* gs:[off] */
static bool is_field(const ZydisDecodedOperand *op, int64_t off)
{
	return op->type == ZYDIS_OPERAND_TYPE_MEMORY && op->mem.segment == ZYDIS_REGISTER_GS &&
	       op->mem.base == ZYDIS_REGISTER_NONE && op->mem.index == ZYDIS_REGISTER_NONE &&
	       disp_of(op) == off;
}

/* [base + delta], in either order: the delta's fact. */
static const struct fact *delta_in(const struct facts *f, const ZydisDecodedOperand *op)
{
	if (op->mem.segment == ZYDIS_REGISTER_GS || op->mem.segment == ZYDIS_REGISTER_FS ||
	    !insn_is_gpr(op->mem.base) || !insn_is_gpr(op->mem.index) || op->mem.scale != 1)
		return NULL;
	for (unsigned swap = 0; swap < 2; swap++) {
		unsigned base = insn_gpr(swap ? op->mem.index : op->mem.base);
		const struct fact *d = fact_of(f, insn_gpr(swap ? op->mem.base : op->mem.index));

		if (d && is_delta(d) && d->base == base)
			return d;
	}
	return NULL;
}

bool facts_allow(const struct facts *f, const ZydisDecodedOperand *op)
{
	const struct fact *host;

	if (delta_in(f, op))
		return true;
	if (!insn_is_gpr(op->mem.base) || op->mem.index != ZYDIS_REGISTER_NONE || disp_of(op))
		return false;
	host = fact_of(f, insn_gpr(op->mem.base));
	return host && host->kind == FACT_HOST;
}

bool facts_make_host(const struct facts *f, const ZydisDecodedInstruction *z,
		     const ZydisDecodedOperand *op)
{
	return z->mnemonic == ZYDIS_MNEMONIC_LEA && op[0].size == 64 && delta_in(f, &op[1]);
}

bool facts_allow_stack(const struct facts *f, const ZydisDecodedInstruction *z,
		       const ZydisDecodedOperand *op)
{
	const struct fact *d = reg_of(&op[1]) != R_NONE ? fact_of(f, reg_of(&op[1])) : NULL;

	return z->mnemonic == ZYDIS_MNEMONIC_MOV && is_field(&op[0], OFF_STACK) &&
	       op[1].size == 64 && d && is_delta(d) && d->base == R_15;
}

bool facts_allow_leaving(const struct facts *f)
{
	return f->stack.known && f->stack.slack <= STACK_SLACK;
}

/* mov gs:[stack_delta], r */
static void set_stack(struct facts *f, const ZydisDecodedOperand *op)
{
	struct fact *d = fact_of(f, reg_of(&op[1]));

	for (unsigned n = 0; n < FACTS; n++)
		if (f->of[n].kind == FACT_STACK && &f->of[n] != d)
			f->of[n] = (struct fact){0};
	d->kind = FACT_STACK;
	f->stack.known = true;
	f->stack.slack = d->v;
}

/* A MOV off r15 by stack_delta did not fault. */
static void use_stack(struct facts *f, const ZydisDecodedOperand *op)
{
	const struct fact *d = delta_in(f, op);
	int64_t off = disp_of(op) < 0 ? -disp_of(op) : disp_of(op);

	if (!d || d->kind != FACT_STACK || d->base != R_15 || !f->stack.known)
		return;
	if (off < f->stack.slack)
		f->stack.slack = off;
	for (unsigned n = 0; n < FACTS; n++)
		if (f->of[n].kind == FACT_STACK && off < f->of[n].v)
			f->of[n].v = off;
}

/* mov r, gs:[delta + 8 * lane]: its fact afterwards, or FACT_NONE. */
static struct fact loads_delta(const struct facts *f, const ZydisDecodedInstruction *z,
			       const ZydisDecodedOperand *op)
{
	const struct fact *was, *other;
	int64_t lane = (disp_of(&op[1]) - OFF_DELTA) / 8;
	unsigned r = reg_of(&op[0]);

	was = fact_of(f, r);
	if (z->mnemonic == ZYDIS_MNEMONIC_MOV && op[0].size == 64 && was &&
	    is_field(&op[1], OFF_STACK) && f->stack.known)
		return (struct fact){FACT_STACK, R_15, f->stack.slack};
	if (z->mnemonic != ZYDIS_MNEMONIC_MOV || op[0].size != 64 || !was ||
	    op[1].type != ZYDIS_OPERAND_TYPE_MEMORY || op[1].mem.segment != ZYDIS_REGISTER_GS ||
	    op[1].mem.base != ZYDIS_REGISTER_NONE || (disp_of(&op[1]) - OFF_DELTA) % 8 ||
	    lane < 0 || lane >= LANES)
		return (struct fact){0};
	if (op[1].mem.index != ZYDIS_REGISTER_NONE)
		return insn_gpr(op[1].mem.index) == r && op[1].mem.scale == 8 && lane == 0 &&
				       was->kind == FACT_USER
			       ? (struct fact){FACT_DELTA, was->base, 0}
			       : (struct fact){0};
	if (was->kind == FACT_IS && was->v == lane)
		return (struct fact){FACT_DELTA, was->base, 0};
	other = fact_of(f, R_14);
	if (r == R_13 && other->kind == FACT_VALUE &&
	    (uint64_t)other->v >> LANE_BITS == (uint64_t)lane)
		return (struct fact){FACT_DELTA, R_14, 0};
	return (struct fact){0};
}

bool facts_allow_table(const struct facts *f, const ZydisDecodedOperand *op)
{
	const struct fact *was =
		insn_is_gpr(op->mem.index) ? fact_of(f, insn_gpr(op->mem.index)) : NULL;

	return was && was->kind == FACT_USER && op->mem.base == ZYDIS_REGISTER_NONE &&
	       op->mem.scale == 8 && disp_of(op) == OFF_DELTA &&
	       !(op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE);
}

/* The instruction adds a constant to its first operand, a whole register. */
static bool adds(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *op, int64_t *by)
{
	bool imm = op[1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;

	if (reg_of(&op[0]) == R_NONE || op[0].size != 64)
		return false;
	switch (z->mnemonic) {
	case ZYDIS_MNEMONIC_ADD: *by = op[1].imm.value.s; return imm;
	case ZYDIS_MNEMONIC_SUB: *by = -op[1].imm.value.s; return imm;
	case ZYDIS_MNEMONIC_INC: *by = 1; return true;
	case ZYDIS_MNEMONIC_DEC: *by = -1; return true;
	case ZYDIS_MNEMONIC_LEA:
		*by = disp_of(&op[1]);
		return op[1].mem.base == op[0].reg.value &&
		       op[1].mem.index == ZYDIS_REGISTER_NONE && z->address_width == 64;
	default: return false;
	}
}

static void written(struct facts *f, unsigned r, bool moves, int64_t by)
{
	struct fact *own = fact_of(f, r);

	if (r == R_15 && by < 0)
		by = -by; /* how far, whichever way */
	if (r == R_15) {
		f->stack.slack += by;
		f->stack.known &= moves && by < MOVED_MAX && f->stack.slack < MOVED_MAX;
	}
	for (unsigned n = 0; n < FACTS; n++) {
		struct fact *d = &f->of[n];
		bool near = moves && is_delta(d) && by > -MOVED_MAX && by < MOVED_MAX &&
			    d->v + by > -MOVED_MAX && d->v + by < MOVED_MAX;

		if (d->kind < FACT_COPY || d->kind == FACT_HOST || d->base != r)
			continue;
		if (near)
			d->v += by;
		else
			*d = (struct fact){0};
	}
	if (own)
		*own = (struct fact){0};
}

/* What op[0], one of the four, is after the instruction. */
static struct fact made(const struct facts *f, const ZydisDecodedInstruction *z,
			const ZydisDecodedOperand *op)
{
	unsigned r = reg_of(&op[0]), from = reg_of(&op[1]);
	const struct fact *was = fact_of(f, r);

	if (op[0].size == 64 && z->mnemonic == ZYDIS_MNEMONIC_MOV && from != R_NONE && from != r)
		return (struct fact){FACT_COPY, (uint8_t)from, 0};
	if (z->mnemonic == ZYDIS_MNEMONIC_MOV && op[1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE &&
	    op[0].size >= 32)
		return (struct fact){FACT_VALUE, 0,
				     op[0].size == 64 ? op[1].imm.value.s
						      : (int64_t)(uint32_t)op[1].imm.value.u};
	if (op[0].size == 64 && z->mnemonic == ZYDIS_MNEMONIC_SHR && was->kind == FACT_COPY &&
	    op[1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE && op[1].imm.value.u == LANE_BITS)
		return (struct fact){FACT_LANE, was->base, 0};
	if (facts_make_host(f, z, op))
		return (struct fact){FACT_HOST, 0, 0};
	return loads_delta(f, z, op);
}

static void branch(struct facts *f, const ZydisDecodedInstruction *z, bool taken)
{
	struct fact *r = f->compared ? fact_of(f, f->compared) : NULL;

	if (!r || r->kind != FACT_LANE || taken)
		return;
	if (z->mnemonic == ZYDIS_MNEMONIC_JNZ)
		*r = (struct fact){FACT_IS, r->base, f->with};
	else if (z->mnemonic == ZYDIS_MNEMONIC_JNBE && f->with == LANES - 1)
		*r = (struct fact){FACT_USER, r->base, 0};
}

void facts_after(struct facts *f, const ZydisDecodedInstruction *z, const ZydisDecodedOperand *op,
		 bool taken)
{
	bool compares = z->mnemonic == ZYDIS_MNEMONIC_CMP && reg_of(&op[0]) != R_NONE &&
			op[0].size == 32 && op[1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
	struct fact *to = reg_of(&op[0]) != R_NONE ? fact_of(f, reg_of(&op[0])) : NULL, fact = {0};
	int64_t by = 0;
	bool moves = adds(z, op, &by);

	if (z->meta.category == ZYDIS_CATEGORY_COND_BR) {
		branch(f, z, taken);
		f->compared = 0;
		return;
	}
	if (z->meta.category == ZYDIS_CATEGORY_CALL) {
		*f = (struct facts){0};
		return;
	}
	if ((z->mnemonic == ZYDIS_MNEMONIC_MOV || z->mnemonic == ZYDIS_MNEMONIC_MOVZX) &&
	    op[0].type == ZYDIS_OPERAND_TYPE_MEMORY)
		use_stack(f, &op[0]);
	else if (z->mnemonic == ZYDIS_MNEMONIC_MOV || z->mnemonic == ZYDIS_MNEMONIC_MOVZX)
		use_stack(f, &op[1]);
	if (to && z->operand_count > 1 && (op[0].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
		fact = made(f, z, op);
	for (unsigned n = 0; n < z->operand_count; n++) {
		unsigned r =
			op[n].type == ZYDIS_OPERAND_TYPE_REGISTER && insn_is_gpr(op[n].reg.value)
				? insn_gpr(op[n].reg.value)
				: R_NONE;

		if (r != R_NONE && (op[n].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
			written(f, r, moves && n == 0, by);
	}
	if (fact.kind)
		*to = fact;
	if (facts_allow_stack(f, z, op))
		set_stack(f, op);
	f->compared = compares ? (uint8_t)reg_of(&op[0]) : 0;
	f->with = compares ? op[1].imm.value.s : 0;
}

bool facts_join(struct facts *f, const struct facts *g)
{
	bool lost = false;

	for (unsigned n = 0; n < FACTS; n++) {
		struct fact *a = &f->of[n];
		const struct fact *b = &g->of[n];

		if (!a->kind || (a->kind == b->kind && a->base == b->base && a->v == b->v))
			continue;
		*a = (struct fact){0};
		lost = true;
	}
	if (f->stack.known && (!g->stack.known || g->stack.slack > f->stack.slack)) {
		f->stack.known = g->stack.known;
		f->stack.slack = g->stack.slack;
		lost = true;
	}
	if (f->compared && (f->compared != g->compared || f->with != g->with)) {
		f->compared = 0;
		lost = true;
	}
	return lost;
}
