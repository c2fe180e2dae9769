#include "cpu/jit/scan_facts.h"

#include "cpu/jit/insn.h"
#include "cpu/jit/window.h"

#define MOVE_FAR   (INT64_C(1) << 30)
#define LOOP_FAR   (INT64_C(3) << 30) /* what is taken for granted where a loop begins */
#define LOOP_MORE  (UINT64_C(1) << 26)
#define OFF_DELTA  ((int64_t)offsetof(struct jit_cpu, delta))
#define OFF_STACK  ((int64_t)offsetof(struct jit_cpu, stack_delta))
#define OFF_HELD   ((int64_t)offsetof(struct jit_cpu, held))
#define OFF_GPR(n) ((int64_t)offsetof(struct jit_cpu, st.gpr) + 8 * (n))
#define OFF_SEG(s) ((int64_t)offsetof(struct jit_cpu, st.seg[s].base))
/* An address is at a displacement of 2 GiB, and 32 GiB of index, from what is FACT_FAR away. */
_Static_assert(LANE_GUARD >= FACT_FAR + (INT64_C(34) << 30) + 8192, "what an access can reach");

/* Terms of an address: host registers by number, and what stands in memory. */
static const int64_t in_memory[] = {OFF_GPR(13), OFF_GPR(14), OFF_GPR(15), OFF_SEG(X86_FS),
				    OFF_SEG(X86_GS)};
#define TERM_MEMORY 16 /* and up */

static unsigned n_of(unsigned r)
{
	static const uint8_t regs[FACT_REGS] = {R_13, R_14, R_SI, R_DI};

	for (unsigned n = 0; n < FACT_REGS; n++)
		if (regs[n] == r)
			return n;
	return FACTS;
}

static const struct fact *fact_of(const struct facts *f, unsigned r)
{
	static const struct fact none;
	unsigned n = n_of(r);

	return n < FACTS ? &f->of[n] : &none;
}

static unsigned gpr_or_none(ZydisRegister r)
{
	return insn_is_gpr(r) && !insn_is_high_byte(r) ? insn_gpr(r) : R_NONE;
}

static unsigned reg_of(const ZydisDecodedOperand *op)
{
	return op->type == ZYDIS_OPERAND_TYPE_REGISTER ? gpr_or_none(op->reg.value) : R_NONE;
}

static int64_t disp_of(const ZydisDecodedOperand *op)
{
	return op->mem.disp.has_displacement ? op->mem.disp.value : 0;
}

static int64_t magnitude(int64_t v)
{
	return v < 0 ? -v : v;
}

/* op is the field at `from`, gs:[from] */
static bool is_gs(const ZydisDecodedOperand *op, int64_t *from)
{
	if (op->type != ZYDIS_OPERAND_TYPE_MEMORY || op->mem.segment != ZYDIS_REGISTER_GS ||
	    op->mem.base != ZYDIS_REGISTER_NONE || op->mem.index != ZYDIS_REGISTER_NONE)
		return false;
	*from = disp_of(op);
	return true;
}

static unsigned memory_term(const ZydisDecodedOperand *op)
{
	int64_t at;

	if (op->size != 64 || !is_gs(op, &at))
		return R_NONE;
	for (unsigned n = 0; n < ARRAY_SIZE(in_memory); n++)
		if (in_memory[n] == at)
			return TERM_MEMORY + n;
	return R_NONE;
}

/* The slot that op is all of. */
static unsigned slot_of(const ZydisDecodedOperand *op)
{
	int64_t at;

	if (op->size != 64 || !is_gs(op, &at) || at < OFF_HELD || (at - OFF_HELD) % 8 ||
	    at >= OFF_HELD + 8 * HELD_SLOTS)
		return FACTS;
	return FACT_REGS + (unsigned)((at - OFF_HELD) / 8);
}

static bool is_delta(const struct fact *d)
{
	return d->kind == FACT_DELTA || d->kind == FACT_STACK;
}

/* ---- addresses ---- */

/* x + scale * y: registers, or R_NONE. */
struct terms {
	unsigned x, y, scale;
};

static unsigned gpr64_or_none(ZydisRegister r)
{
	return ZydisRegisterGetClass(r) == ZYDIS_REGCLASS_GPR64 ? insn_gpr(r) : R_NONE;
}

static struct terms terms_of(const ZydisDecodedOperand *op)
{
	return (struct terms){gpr64_or_none(op->mem.base), gpr64_or_none(op->mem.index),
			      op->mem.index == ZYDIS_REGISTER_NONE ? 1 : op->mem.scale};
}

/* t without one term that is register r, added once: what is left, in y. */
static bool without(struct terms t, unsigned r, struct terms *left)
{
	if (t.x == r)
		*left = (struct terms){R_NONE, t.y, t.y == R_NONE ? 1 : t.scale};
	else if (t.y == r && t.scale == 1)
		*left = (struct terms){R_NONE, t.x, 1};
	else
		return false;
	return true;
}

/* What a register stands for as a term: what it was loaded from, if it is one of ours. */
static unsigned term_of(const struct facts *f, unsigned r)
{
	const struct fact *s = fact_of(f, r);

	return (r == R_13 || r == R_14) && s->kind == FACT_SUM && s->index == R_NONE && !s->v &&
			       s->base != R_NONE
		       ? s->base
		       : r;
}

enum leads { LEADS_NOT, LEADS, LEADS_FAR };

/* Does op lead into the window, by way of the fact *by? LEADS_FAR: with an index that may be
 * large. */
static enum leads leads(const struct facts *f, const ZydisDecodedOperand *op,
			const struct fact **by)
{
	struct terms all = terms_of(op), t;

	if (op->mem.segment == ZYDIS_REGISTER_GS || op->mem.segment == ZYDIS_REGISTER_FS)
		return LEADS_NOT;
	for (unsigned n = 0; n < FACT_REGS; n++) {
		static const uint8_t regs[FACT_REGS] = {R_13, R_14, R_SI, R_DI};
		const struct fact *d = &f->of[n];

		if (d->kind < FACT_DELTA || !without(all, regs[n], &t))
			continue;
		*by = d;
		if (is_delta(d) && d->index == R_NONE && t.y == d->base && t.scale == 1)
			return LEADS;
		if (d->kind == FACT_DELTA && d->base == R_NONE && t.y == d->index &&
		    t.scale == d->scale)
			return LEADS;
		if (d->kind == FACT_PTR && t.y == d->base && t.scale == d->scale)
			return LEADS;
		if (d->kind == FACT_PTR && d->base == R_NONE && t.y < 16 && f->narrow >> t.y & 1)
			return LEADS_FAR;
		if (d->kind == FACT_HOST && t.y == R_NONE && !disp_of(op))
			return LEADS;
	}
	return LEADS_NOT;
}

bool facts_allow(const struct facts *f, const ZydisDecodedOperand *op)
{
	const struct fact *by;

	return leads(f, op, &by) != LEADS_NOT;
}

bool facts_r14_leads(const struct facts *f)
{
	const struct fact *d = fact_of(f, R_14);

	return d->kind == FACT_HOST || (d->kind == FACT_PTR && d->base == R_NONE);
}

bool facts_allow_table(const struct facts *f, const ZydisDecodedOperand *op)
{
	const struct fact *was = fact_of(f, gpr_or_none(op->mem.index));

	return was->kind == FACT_USER && op->mem.base == ZYDIS_REGISTER_NONE &&
	       op->mem.scale == 8 && disp_of(op) == OFF_DELTA &&
	       !(op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE);
}

/* ---- what an instruction makes of its destination ---- */

static struct fact none(void)
{
	return (struct fact){.base = R_NONE, .index = R_NONE, .scale = 1};
}

static struct fact sum(unsigned base, unsigned index, unsigned scale, int64_t disp)
{
	return (struct fact){.kind = FACT_SUM,
			     .base = (uint8_t)base,
			     .index = (uint8_t)index,
			     .scale = (uint8_t)scale,
			     .v = magnitude(disp)};
}

/* d, of which one part, scale * term, has been added now. */
static struct fact added(const struct fact *d, unsigned term, unsigned scale)
{
	struct fact p = *d;

	p.id = 0;
	p.kind = FACT_PTR;
	p.index = R_NONE;
	p.scale = 1;
	if (is_delta(d) && d->base == term && scale == 1) {
		p.base = d->index;
		p.scale = d->index == R_NONE ? 1 : d->scale;
		return p;
	}
	if (d->kind == FACT_DELTA && d->index == term && d->scale == scale) {
		p.base = d->base;
		return p;
	}
	if (d->kind == FACT_PTR && d->base == term && d->base != R_NONE && d->scale == scale) {
		p.base = R_NONE;
		return p;
	}
	return none();
}

/* mov r, gs:[delta + 8 * lane] */
static struct fact loads_delta(const struct facts *f, const ZydisDecodedOperand *op, unsigned r)
{
	int64_t lane = (disp_of(&op[1]) - OFF_DELTA) / 8;
	struct fact was = *fact_of(f, r);

	if (disp_of(&op[1]) == OFF_STACK && op[1].mem.index == ZYDIS_REGISTER_NONE &&
	    f->stack.known) {
		was = none();
		was.kind = FACT_STACK;
		was.base = R_15;
		was.v = f->stack.slack;
		return was;
	}
	if ((disp_of(&op[1]) - OFF_DELTA) % 8 || lane < 0 || lane >= LANES)
		return none();
	if (op[1].mem.index != ZYDIS_REGISTER_NONE) {
		if (gpr_or_none(op[1].mem.index) != r || op[1].mem.scale != 8 || lane != 0 ||
		    was.kind != FACT_USER)
			return none();
		was.kind = FACT_DELTA;
		return was;
	}
	if (was.kind == FACT_IS && was.lane == lane) {
		was.kind = FACT_DELTA;
		return was;
	}
	was = none();
	was.kind = lane ? FACT_BASE : FACT_PTR; /* lane 0 begins at 0 */
	was.lane = (uint8_t)lane;
	return was;
}

/* A delta, and a constant address in its lane. */
static bool in_lane(const struct fact *base, const struct fact *value)
{
	return base->kind == FACT_BASE && value->kind == FACT_VALUE &&
	       (uint64_t)value->v >> LANE_BITS == base->lane;
}

static struct fact pointer(void)
{
	struct fact p = none();

	p.kind = FACT_PTR;
	return p;
}

static struct fact made_by_mov(const struct facts *f, const ZydisDecodedOperand *op, unsigned r)
{
	unsigned from = reg_of(&op[1]);
	int64_t at;

	if (op[1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE && op[0].size >= 32) {
		struct fact c = none();

		c.kind = FACT_VALUE;
		c.v = op[0].size == 64 ? op[1].imm.value.s : (int64_t)(uint32_t)op[1].imm.value.u;
		return c;
	}
	if (op[0].size != 64)
		return none();
	if (from != R_NONE) {
		if (fact_of(f, from)->kind >= FACT_DELTA)
			return *fact_of(f, from);
		return from != r ? sum(from, R_NONE, 1, 0) : none();
	}
	if (slot_of(&op[1]) < FACTS)
		return f->of[slot_of(&op[1])];
	if (memory_term(&op[1]) != R_NONE)
		return sum(memory_term(&op[1]), R_NONE, 1, 0);
	if (op[1].type == ZYDIS_OPERAND_TYPE_MEMORY && op[1].mem.segment == ZYDIS_REGISTER_GS &&
	    (is_gs(&op[1], &at) || op[1].mem.base == ZYDIS_REGISTER_NONE))
		return loads_delta(f, op, r);
	return none();
}

static struct fact made_by_lea(const struct facts *f, const ZydisDecodedOperand *op, unsigned r)
{
	static const uint8_t regs[FACT_REGS] = {R_13, R_14, R_SI, R_DI};
	struct terms all = terms_of(&op[1]), t;
	const struct fact *by;
	int64_t disp = disp_of(&op[1]);
	unsigned base, index;

	for (unsigned n = 0; n < FACT_REGS; n++) {
		const struct fact *d = &f->of[n];
		struct fact p;

		if (d->kind < FACT_DELTA || !without(all, regs[n], &t))
			continue;
		if (d->kind == FACT_PTR && t.y == R_NONE) {
			p = *d; /* moved */
			p.id = 0;
			p.v += magnitude(disp);
			if (p.v < FACT_FAR)
				return p;
			continue;
		}
		if (t.y < 16 && in_lane(d, fact_of(f, t.y)) && t.scale == 1 && !disp)
			return pointer();
		p = t.y == R_NONE ? none() : added(d, term_of(f, t.y), t.scale);
		p.v += magnitude(disp);
		if (p.kind && p.v < FACT_FAR)
			return p;
	}
	if (leads(f, &op[1], &by) != LEADS_NOT) {
		struct fact host = none();

		host.kind = FACT_HOST;
		return host;
	}
	base = all.x == R_NONE ? R_NONE : term_of(f, all.x);
	index = all.y == R_NONE ? R_NONE : term_of(f, all.y);
	return base == r || index == r ? none() : sum(base, index, all.scale, disp);
}

static struct fact made_by_add(const struct facts *f, const ZydisDecodedOperand *op, unsigned r)
{
	const struct fact *was = fact_of(f, r);
	unsigned term = reg_of(&op[1]) != R_NONE ? reg_of(&op[1]) : memory_term(&op[1]);
	int64_t at;

	if (was->kind == FACT_VALUE && is_gs(&op[1], &at) && op[1].size == 64 &&
	    at == OFF_DELTA + 8 * (int64_t)((uint64_t)was->v >> LANE_BITS) &&
	    (uint64_t)was->v >> LANE_BITS < LANES)
		return pointer();
	if (was->kind == FACT_SUM && was->base == R_NONE && term >= TERM_MEMORY && term != R_NONE) {
		struct fact s = *was;

		s.base = (uint8_t)term;
		return s;
	}
	return term == R_NONE ? none() : added(was, term, 1);
}

/* What op[0], one of the registers, is after the instruction. */
static struct fact made(const struct facts *f, const ZydisDecodedInstruction *z,
			const ZydisDecodedOperand *op)
{
	unsigned r = reg_of(&op[0]);
	struct fact was = *fact_of(f, r);

	switch (z->mnemonic) {
	case ZYDIS_MNEMONIC_MOV: return made_by_mov(f, op, r);
	case ZYDIS_MNEMONIC_LEA:
		return op[0].size == 64 && z->address_width == 64 ? made_by_lea(f, op, r) : none();
	case ZYDIS_MNEMONIC_ADD: return op[0].size == 64 ? made_by_add(f, op, r) : none();
	case ZYDIS_MNEMONIC_SHR:
		if (op[0].size != 64 || was.kind != FACT_SUM ||
		    op[1].type != ZYDIS_OPERAND_TYPE_IMMEDIATE || op[1].imm.value.u != LANE_BITS)
			return none();
		was.kind = FACT_LANE;
		return was;
	default: return none();
	}
}

/* ---- what it does to what else is known ---- */

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

/* Register, or other term, t changed: by a constant, or somehow. */
static void changed(struct facts *f, unsigned t, bool moves, int64_t by)
{
	if (t == R_15) {
		f->stack.slack += magnitude(by);
		f->stack.known &= moves && magnitude(by) < MOVE_FAR && f->stack.slack < MOVE_FAR;
	}
	for (unsigned n = 0; n < FACTS; n++) {
		struct fact *d = &f->of[n];
		unsigned times = d->base == t ? (d->kind == FACT_PTR ? d->scale : 1) : 0;
		bool lives =
			moves && (is_delta(d) || d->kind == FACT_PTR) && magnitude(by) < MOVE_FAR;

		if (d->kind < FACT_SUM)
			continue;
		times += d->index == t ? d->scale : 0;
		if (!times)
			continue;
		d->v += lives ? magnitude(by) * times : 0;
		if (!lives || d->v >= FACT_FAR)
			*d = none();
	}
}

/* gs:[from], size bytes, were written. */
static void stored(struct facts *f, int64_t from, int64_t size)
{
	for (unsigned n = 0; n < ARRAY_SIZE(in_memory); n++)
		if (from < in_memory[n] + 8 && from + size > in_memory[n])
			changed(f, TERM_MEMORY + n, false, 0);
	for (unsigned n = 0; n < HELD_SLOTS; n++)
		if (from < OFF_HELD + 8 * (n + 1) && from + size > OFF_HELD + 8 * n)
			f->of[FACT_REGS + n] = none();
}

static void branch(struct facts *f, const ZydisDecodedInstruction *z, bool taken)
{
	unsigned n = f->compared ? n_of(f->compared) : FACTS;
	struct fact *r = n < FACTS ? &f->of[n] : NULL;

	if (!r || r->kind != FACT_LANE || taken)
		return;
	if (z->mnemonic == ZYDIS_MNEMONIC_JNZ && f->with >= 0 && f->with < LANES) {
		r->kind = FACT_IS;
		r->lane = (uint8_t)f->with;
	} else if (z->mnemonic == ZYDIS_MNEMONIC_JNBE && f->with == LANES - 1) {
		r->kind = FACT_USER;
	}
}

/* The access went well, so it was in the lane, and its address is as near as the displacement. */
static void proven(struct facts *f, const ZydisDecodedInstruction *z, const ZydisDecodedOperand *op)
{
	const struct fact *by;

	for (unsigned n = 0; n < z->operand_count; n++) {
		int64_t near = 0;
		uint64_t id;

		if (op[n].type != ZYDIS_OPERAND_TYPE_MEMORY || !insn_touches(z, &op[n]) ||
		    leads(f, &op[n], &by) != LEADS)
			continue;
		id = by->id;
		near = magnitude(disp_of(&op[n]));
		for (unsigned k = 0; k < FACTS; k++)
			if ((&f->of[k] == by || (id && f->of[k].id == id)) && f->of[k].v > near)
				f->of[k].v = near;
		if (by->kind == FACT_STACK && f->stack.known && near < f->stack.slack)
			f->stack.slack = near;
	}
}

/* ---- RSP's delta ---- */

bool facts_allow_stack(const struct facts *f, const ZydisDecodedInstruction *z,
		       const ZydisDecodedOperand *op)
{
	const struct fact *d = fact_of(f, reg_of(&op[1]));
	int64_t at;

	return z->mnemonic == ZYDIS_MNEMONIC_MOV && op[1].size == 64 && is_gs(&op[0], &at) &&
	       at == OFF_STACK && is_delta(d) && d->base == R_15 && d->index == R_NONE;
}

bool facts_allow_leaving(const struct facts *f)
{
	return f->stack.known && f->stack.slack <= STACK_SLACK;
}

/* mov gs:[stack_delta], r */
static void set_stack(struct facts *f, const ZydisDecodedOperand *op)
{
	struct fact *d = &f->of[n_of(reg_of(&op[1]))];

	for (unsigned n = 0; n < FACTS; n++)
		if (f->of[n].kind == FACT_STACK && &f->of[n] != d)
			f->of[n] = none();
	d->kind = FACT_STACK;
	f->stack.known = true;
	f->stack.slack = d->v;
}

/* An id is of one value alone. */
static void give_id(struct facts *f, struct fact *to, uint64_t id)
{
	for (unsigned n = 0; n < FACTS; n++)
		if (f->of[n].id == id)
			f->of[n].id = 0;
	to->id = id;
}

static void written(struct facts *f, const ZydisDecodedInstruction *z,
		    const ZydisDecodedOperand *op)
{
	int64_t by = 0, at;
	bool moves = adds(z, op, &by);

	for (unsigned n = 0; n < z->operand_count; n++) {
		unsigned r =
			op[n].type == ZYDIS_OPERAND_TYPE_REGISTER && insn_is_gpr(op[n].reg.value)
				? insn_gpr(op[n].reg.value)
				: R_NONE;

		if (!(op[n].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
			continue;
		if (is_gs(&op[n], &at))
			stored(f, at, op[n].size / 8);
		if (r == R_NONE)
			continue;
		changed(f, r, moves && n == 0, by);
		f->narrow &= (uint16_t)~BIT(r);
		if (n_of(r) < FACTS)
			f->of[n_of(r)] = none();
	}
}

void facts_after(struct facts *f, const ZydisDecodedInstruction *z, const ZydisDecodedOperand *op,
		 bool taken, uint64_t id)
{
	bool compares = z->mnemonic == ZYDIS_MNEMONIC_CMP && reg_of(&op[0]) != R_NONE &&
			op[0].size == 32 && op[1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
	unsigned to = FACTS;
	struct fact fact = none();

	if (z->meta.category == ZYDIS_CATEGORY_COND_BR) {
		branch(f, z, taken);
		f->compared = 0;
		return;
	}
	if (z->meta.category == ZYDIS_CATEGORY_CALL) {
		*f = (struct facts){0};
		return;
	}
	proven(f, z, op);
	if (z->operand_count > 1 && (op[0].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)) {
		if (reg_of(&op[0]) != R_NONE)
			to = n_of(reg_of(&op[0]));
		else if (z->mnemonic == ZYDIS_MNEMONIC_MOV && reg_of(&op[1]) != R_NONE)
			to = slot_of(&op[0]);
	}
	if (to < FACT_REGS)
		fact = made(f, z, op);
	else if (to < FACTS && fact_of(f, reg_of(&op[1]))->kind >= FACT_DELTA)
		fact = *fact_of(f, reg_of(&op[1]));
	written(f, z, op);
	if (insn_narrows(z, op))
		f->narrow |= (uint16_t)BIT(reg_of(&op[0]));
	if (fact.kind) {
		if (fact.kind >= FACT_DELTA && !fact.id)
			give_id(f, &fact, id * 32);
		f->of[to] = fact;
	}
	if (facts_allow_stack(f, z, op))
		set_stack(f, op);
	f->compared = compares ? (uint8_t)reg_of(&op[0]) : 0;
	f->with = compares ? op[1].imm.value.s : 0;
}

static bool same(const struct fact *a, const struct fact *b)
{
	return a->kind == b->kind && a->base == b->base && a->index == b->index &&
	       a->scale == b->scale && a->lane == b->lane &&
	       (a->v == b->v || is_delta(a) || a->kind == FACT_PTR);
}

bool facts_join(struct facts *f, const struct facts *g, uint64_t id)
{
	bool lost = false;

	for (unsigned n = 0; n < FACTS; n++) {
		struct fact *a = &f->of[n];
		const struct fact *b = &g->of[n];

		if (!a->kind)
			continue;
		if (same(a, b) && a->v < b->v) { /* once round a loop; how often, nobody knows */
			a->v = b->v <= LOOP_FAR ? LOOP_FAR
						: (int64_t)align_up((uint64_t)b->v, LOOP_MORE);
			lost = true;
		}
		if (!same(a, b) || (a->kind != FACT_VALUE && a->v >= FACT_FAR)) {
			*a = none();
			lost = true;
			continue;
		}
		if (a->id != b->id && a->id != id * 32 + 1 + n) {
			a->id = id * 32 + 1 + n;
			lost = true;
		}
	}
	if (f->narrow & ~g->narrow) {
		f->narrow &= g->narrow;
		lost = true;
	}
	if (f->stack.known && (!g->stack.known || g->stack.slack > f->stack.slack)) {
		f->stack = g->stack;
		lost = true;
	}
	if (f->compared && (f->compared != g->compared || f->with != g->with)) {
		f->compared = 0;
		lost = true;
	}
	return lost;
}
