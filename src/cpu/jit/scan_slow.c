#include "cpu/jit/scan_slow.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "cpu/jit/scan_facts.h"
#include "cpu/jit/translate.h"
#include "cpu/jit/window.h"

/* What is known where an instruction starts. Paths that meet keep what all of them know. */
enum seen {
	UNSEEN,
	RAW,     /* r14 is a number of the guest's */
	CHECKED, /* r14 is a host address that an access may use */
};

struct place {
	uint8_t *at;
	enum seen state;
	unsigned copy; /* a register that holds r14's value, or R_NONE */
	struct facts facts;
	bool first; /* it was not seen before */
};

#define PLACES 1024
#define COLDS  16384

struct walk {
	const struct jit_cache *k;
	const struct jit_block *b;
	bool fresh;
	bool direct;
	ZydisDecoder decoder;
	uint8_t *hot; /* enum seen, by offset from the block's start */
	struct facts *hot_facts;
	uint8_t *inside; /* of hot code: bytes of instructions beyond their first */
	struct cold {    /* a hash table by address */
		uint8_t *at;
		enum seen state;
		struct facts facts;
	} cold[COLDS];
	struct place place[PLACES];
	unsigned places;
	struct scan *out;
	struct err *err;
	ZydisDecodedInstruction z;
	ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
	uint8_t *pc;
};

static int bad(struct walk *w, const char *what)
{
	char hex[3 * 15 + 1] = "", *h = hex;
	ptrdiff_t in = w->pc - w->b->start;
	bool hot = in >= 0 && in < w->b->hot_len;

	for (unsigned i = 0; i < 15 && w->pc + i < w->k->rw + w->k->bytes; i++)
		h += snprintf(h, 4, "%02x ", w->pc[i]);
	return err_set(w->err, EBADMSG, "block of gva %lx, %s code + %ld: %s: %s",
		       (unsigned long)w->b->gva, hot ? "hot" : "cold",
		       (long)(hot ? in : w->pc - w->k->cold_start), hex, what);
}

static bool in_hot(const struct walk *w, const uint8_t *p)
{
	return p >= w->b->start && p < w->b->start + w->b->hot_len;
}

static bool in_cold(const struct walk *w, const uint8_t *p)
{
	return p >= w->k->cold_start && p < w->k->cold_end;
}

static struct cold *cold_at(struct walk *w, uint8_t *p)
{
	size_t n = (size_t)p % COLDS;

	while (w->cold[n].at && w->cold[n].at != p)
		n = (n + 1) % COLDS;
	return &w->cold[n];
}

static enum seen seen_at(struct walk *w, uint8_t *p)
{
	return in_hot(w, p) ? w->hot[p - w->b->start] : cold_at(w, p)->state;
}

static void set_seen(struct walk *w, uint8_t *p, enum seen state)
{
	if (in_hot(w, p))
		w->hot[p - w->b->start] = (uint8_t)state;
	else
		cold_at(w, p)->at = p, cold_at(w, p)->state = state;
}

static struct facts *facts_at(struct walk *w, uint8_t *p)
{
	return in_hot(w, p) ? &w->hot_facts[p - w->b->start] : &cold_at(w, p)->facts;
}

/* A number of the place p alone. */
static uint64_t id_of(const struct walk *w, const uint8_t *p)
{
	return (uint64_t)(p - w->k->rw) + 1;
}

static int visit_with(struct walk *w, uint8_t *to, enum seen state, unsigned copy,
		      const struct facts *facts)
{
	struct facts *known;
	enum seen seen;
	bool lost = false;

	if (!in_hot(w, to) && !in_cold(w, to))
		return bad(w, "leaves the block");
	if (in_hot(w, to) && w->inside[to - w->b->start])
		return bad(w, "into the middle of an instruction");
	seen = seen_at(w, to);
	known = facts_at(w, to);
	if (seen)
		lost = facts_join(known, facts, id_of(w, to));
	else
		*known = *facts;
	if (seen && seen <= state && !lost)
		return 0;
	if (seen && seen < state)
		state = seen;
	if (w->places == PLACES || w->out->insns > COLDS / 4)
		return bad(w, "too many paths");
	set_seen(w, to, state);
	w->place[w->places++] = (struct place){to, state, copy, *facts_at(w, to), !seen};
	return 0;
}

static int visit(struct walk *w, uint8_t *to, enum seen state)
{
	static const struct facts none;

	return visit_with(w, to, state, R_NONE, &none);
}

/* What who comes from another block, or back from a call, may rely on. */
static int visit_entry(struct walk *w, uint8_t *to)
{
	const struct facts facts = {
		.stack = {.known = w->direct, .slack = STACK_SLACK},
	};

	return visit_with(w, to, RAW, R_NONE, &facts);
}

/* --- instructions and registers --- */

static bool category_forbidden(ZydisInstructionCategory c)
{
	switch (c) {
	case ZYDIS_CATEGORY_CET:
	case ZYDIS_CATEGORY_INTERRUPT:
	case ZYDIS_CATEGORY_IO:
	case ZYDIS_CATEGORY_IOSTRINGOP:
	case ZYDIS_CATEGORY_PKU:
	case ZYDIS_CATEGORY_POP:
	case ZYDIS_CATEGORY_PUSH:
	case ZYDIS_CATEGORY_RDWRFSGS:
	case ZYDIS_CATEGORY_SEGOP:
	case ZYDIS_CATEGORY_SGX:
	case ZYDIS_CATEGORY_SMAP:
	case ZYDIS_CATEGORY_SYSCALL:
	case ZYDIS_CATEGORY_SYSRET:
	case ZYDIS_CATEGORY_SYSTEM:
	case ZYDIS_CATEGORY_VTX:
	case ZYDIS_CATEGORY_XSAVE:
	case ZYDIS_CATEGORY_XSAVEOPT:
	case ZYDIS_CATEGORY_GATHER:
	case ZYDIS_CATEGORY_SCATTER:
	case ZYDIS_CATEGORY_UINTR:
	case ZYDIS_CATEGORY_ENQCMD:
	case ZYDIS_CATEGORY_WAITPKG:
	case ZYDIS_CATEGORY_MOVDIR:
	case ZYDIS_CATEGORY_AMX_TILE:
	case ZYDIS_CATEGORY_AVX2GATHER:
	case ZYDIS_CATEGORY_HRESET:
	case ZYDIS_CATEGORY_KEYLOCKER:
	case ZYDIS_CATEGORY_KEYLOCKER_WIDE:
	case ZYDIS_CATEGORY_PADLOCK:
	case ZYDIS_CATEGORY_PCONFIG:
	case ZYDIS_CATEGORY_PT:
	case ZYDIS_CATEGORY_RDPID:
	case ZYDIS_CATEGORY_RDPRU:
	case ZYDIS_CATEGORY_SERIALIZE:
	case ZYDIS_CATEGORY_TSX_LDTRK: return true;
	default: return false;
	}
}

/* Of the others each would need a look at its flags. */
static bool string_forbidden(ZydisMnemonic m)
{
	switch (m) {
	case ZYDIS_MNEMONIC_MOVSB:
	case ZYDIS_MNEMONIC_MOVSW:
	case ZYDIS_MNEMONIC_MOVSD:
	case ZYDIS_MNEMONIC_MOVSQ:
	case ZYDIS_MNEMONIC_STOSB:
	case ZYDIS_MNEMONIC_STOSW:
	case ZYDIS_MNEMONIC_STOSD:
	case ZYDIS_MNEMONIC_STOSQ: return false;
	default: return true;
	}
}

static bool mnemonic_forbidden(ZydisMnemonic m)
{
	switch (m) {
	case ZYDIS_MNEMONIC_CPUID:
	case ZYDIS_MNEMONIC_RDTSC:
	case ZYDIS_MNEMONIC_RDTSCP:
	case ZYDIS_MNEMONIC_RDPMC:
	case ZYDIS_MNEMONIC_RDPID:
	case ZYDIS_MNEMONIC_XGETBV:
	case ZYDIS_MNEMONIC_XBEGIN:
	case ZYDIS_MNEMONIC_XEND:
	case ZYDIS_MNEMONIC_XABORT:
	case ZYDIS_MNEMONIC_XTEST:
	case ZYDIS_MNEMONIC_UD0:
	case ZYDIS_MNEMONIC_UD1:
	case ZYDIS_MNEMONIC_UD2:
	case ZYDIS_MNEMONIC_HLT:
	case ZYDIS_MNEMONIC_MONITOR:
	case ZYDIS_MNEMONIC_MWAIT:
	case ZYDIS_MNEMONIC_MONITORX:
	case ZYDIS_MNEMONIC_MWAITX:
	case ZYDIS_MNEMONIC_CLZERO:
	case ZYDIS_MNEMONIC_SERIALIZE:
	case ZYDIS_MNEMONIC_PTWRITE:
	case ZYDIS_MNEMONIC_LLWPCB:
	case ZYDIS_MNEMONIC_SLWPCB:
	case ZYDIS_MNEMONIC_LWPINS:
	case ZYDIS_MNEMONIC_LWPVAL:
	case ZYDIS_MNEMONIC_ENTER:
	case ZYDIS_MNEMONIC_LEAVE:
	case ZYDIS_MNEMONIC_XLAT:
	case ZYDIS_MNEMONIC_FXSAVE:
	case ZYDIS_MNEMONIC_FXSAVE64:
	case ZYDIS_MNEMONIC_FXRSTOR:
	case ZYDIS_MNEMONIC_FXRSTOR64:
	case ZYDIS_MNEMONIC_FLDENV:
	case ZYDIS_MNEMONIC_FNSTENV:
	case ZYDIS_MNEMONIC_FRSTOR:
	case ZYDIS_MNEMONIC_FNSAVE:
	case ZYDIS_MNEMONIC_MASKMOVQ:
	case ZYDIS_MNEMONIC_MASKMOVDQU:
	case ZYDIS_MNEMONIC_VMASKMOVDQU:
	case ZYDIS_MNEMONIC_CLI:
	case ZYDIS_MNEMONIC_STI:
	case ZYDIS_MNEMONIC_CLD:
	case ZYDIS_MNEMONIC_STD: return true;
	default: return false;
	}
}

/* shl rdx, 32; or rax, rdx; add rax, gs:[tsc_offset]: nobody sees the host's TSC. */
static bool becomes_guest_tsc(const struct walk *w)
{
	static const uint8_t next[] = {0x48, 0xc1, 0xe2, 0x20, 0x48, 0x09,
				       0xd0, 0x65, 0x48, 0x03, 0x04, 0x25};
	const uint8_t *at = w->pc + w->z.length;

	return w->z.mnemonic == ZYDIS_MNEMONIC_RDTSC &&
	       at + sizeof next + 4 <= w->k->rw + w->k->bytes &&
	       memcmp(at, next, sizeof next) == 0 &&
	       load_le(at + sizeof next, 4) == offsetof(struct jit_cpu, tsc_offset);
}

static bool is_reg(const ZydisDecodedOperand *op, ZydisRegister r)
{
	return op->type == ZYDIS_OPERAND_TYPE_REGISTER && op->reg.value == r;
}

static bool is_field(const ZydisDecodedOperand *op, int64_t off)
{
	return op->type == ZYDIS_OPERAND_TYPE_MEMORY && op->mem.segment == ZYDIS_REGISTER_GS &&
	       op->mem.base == ZYDIS_REGISTER_NONE && op->mem.index == ZYDIS_REGISTER_NONE &&
	       op->mem.disp.value == off;
}

/* Calls, returns, and what keeps them within bounds: cmp rsp, gs:[host_low]; mov rsp, gs:[calls_top] */
static bool may_name_rsp(const struct walk *w)
{
	switch (w->z.mnemonic) {
	case ZYDIS_MNEMONIC_CALL:
	case ZYDIS_MNEMONIC_RET: return true;
	case ZYDIS_MNEMONIC_CMP:
		return is_reg(&w->op[0], ZYDIS_REGISTER_RSP) &&
		       is_field(&w->op[1], offsetof(struct jit_cpu, host_low));
	case ZYDIS_MNEMONIC_MOV:
		return is_reg(&w->op[0], ZYDIS_REGISTER_RSP) &&
		       is_field(&w->op[1], offsetof(struct jit_cpu, calls_top));
	default: return false;
	}
}

static int check_registers(struct walk *w)
{
	for (unsigned n = 0; n < w->z.operand_count; n++) {
		ZydisRegister r = w->op[n].reg.value;

		if (w->op[n].type != ZYDIS_OPERAND_TYPE_REGISTER)
			continue;
		switch (ZydisRegisterGetClass(r)) {
		case ZYDIS_REGCLASS_SEGMENT:
		case ZYDIS_REGCLASS_CONTROL:
		case ZYDIS_REGCLASS_DEBUG:
		case ZYDIS_REGCLASS_TEST:
		case ZYDIS_REGCLASS_TABLE: return bad(w, "names a system register");
		default: break;
		}
		if (r == ZYDIS_REGISTER_PKRU || r == ZYDIS_REGISTER_XCR0 ||
		    r == ZYDIS_REGISTER_GDTR || r == ZYDIS_REGISTER_IDTR)
			return bad(w, "names a system register");
		if (insn_is_gpr(r) && !insn_is_high_byte(r) && insn_gpr(r) == R_SP &&
		    !may_name_rsp(w))
			return bad(w, "names RSP");
	}
	return 0;
}

static int check_kind(struct walk *w)
{
	const ZydisAccessedFlags *f = w->z.cpu_flags;

	if (w->z.attributes & ZYDIS_ATTRIB_IS_PRIVILEGED)
		return bad(w, "privileged");
	if (!becomes_guest_tsc(w) &&
	    (category_forbidden(w->z.meta.category) || mnemonic_forbidden(w->z.mnemonic)))
		return bad(w, "not for translated code");
	if (w->z.meta.category == ZYDIS_CATEGORY_STRINGOP && string_forbidden(w->z.mnemonic))
		return bad(w, "not for translated code");
	if (w->z.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
		return bad(w, "a far branch");
	if (f && ((f->modified | f->set_0 | f->set_1 | f->undefined) & ~(uint32_t)RFLAGS_ARITH))
		return bad(w, "changes a flag that is not arithmetic");
	return check_registers(w);
}

/* --- memory --- */

static const struct span {
	uint32_t from, to;
} writable[] = {
#define FIELD(f)                                                                                   \
	{                                                                                          \
		offsetof(struct jit_cpu, f),                                                       \
			offsetof(struct jit_cpu, f) + sizeof(((struct jit_cpu *)NULL)->f)          \
	}
	FIELD(mode),
	FIELD(mmu),
	FIELD(st.kernel_gs_base),
	FIELD(st.seg[X86_GS].base),
	FIELD(st.seg[X86_FS].base),
	FIELD(st.gpr),
	FIELD(st.rip),
	FIELD(st.rflags),
	FIELD(flags),
	FIELD(ea),
	FIELD(ea_seg),
	FIELD(tmp),
	FIELD(held),
	FIELD(pauses),
};

static int check_gs(struct walk *w, const struct facts *f, const ZydisDecodedOperand *op)
{
	int64_t from = op->mem.disp.has_displacement ? op->mem.disp.value : 0;
	int64_t to = from + op->size / 8;

	if (op->mem.index != ZYDIS_REGISTER_NONE)
		return facts_allow_table(f, op) ? 0 : bad(w, "an index off GS");
	if (op->mem.base != ZYDIS_REGISTER_NONE) {
		if (op->mem.base != ZYDIS_REGISTER_R13 ||
		    (op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
			return bad(w, "only reads of tables have a base, which is r13");
		return 0;
	}
	if (from < 0 || to > (int64_t)sizeof(struct jit_cpu))
		return bad(w, "beyond the vCPU's block");
	if (!(op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
		return 0;
	if (is_field(op, offsetof(struct jit_cpu, stack_delta)))
		return facts_allow_stack(f, &w->z, w->op) ? 0 : bad(w, "not RSP's delta");
	for (const struct span *s = writable; s < writable + ARRAY_SIZE(writable); s++)
		if (from >= s->from && to <= s->to)
			return 0;
	return bad(w, "writes what is not translated code's");
}

/* Stack pushes of a call are its own, and hidden. */
static int check_memory(struct walk *w, const struct place *at)
{
	enum seen state = at->state;
	unsigned copy = at->copy;

	for (unsigned n = 0; n < w->z.operand_count; n++) {
		const ZydisDecodedOperand *op = &w->op[n];
		int r = 0;

		if (op->type != ZYDIS_OPERAND_TYPE_MEMORY ||
		    op->mem.type == ZYDIS_MEMOP_TYPE_AGEN ||
		    (op->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN &&
		     (w->z.mnemonic == ZYDIS_MNEMONIC_CALL || w->z.mnemonic == ZYDIS_MNEMONIC_RET)))
			continue;
		if (op->mem.type != ZYDIS_MEMOP_TYPE_MEM)
			return bad(w, "an odd memory operand");
		if (op->mem.segment == ZYDIS_REGISTER_GS)
			r = check_gs(w, &at->facts, op);
		else if (op->mem.segment == ZYDIS_REGISTER_FS)
			r = bad(w, "FS is the C library's");
		else if (facts_allow(&at->facts, op))
			r = 0;
		else if (op->mem.index != ZYDIS_REGISTER_NONE ||
			 (op->mem.disp.has_displacement && op->mem.disp.value))
			r = bad(w, "an address that no check made");
		else if (op->mem.base != ZYDIS_REGISTER_R14 &&
			 (copy == R_NONE || op->mem.base != ZYDIS_REGISTER_RAX + copy))
			r = bad(w, "an address that no check made");
		else if (state != CHECKED)
			r = bad(w, "r14 is not checked");
		if (r < 0)
			return r;
	}
	return 0;
}

/* --- what the instruction leaves behind --- */

static bool writes_r14(const struct walk *w)
{
	for (unsigned n = 0; n < w->z.operand_count; n++)
		if (w->op[n].type == ZYDIS_OPERAND_TYPE_REGISTER &&
		    (w->op[n].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) &&
		    insn_is_gpr(w->op[n].reg.value) && insn_gpr(w->op[n].reg.value) == R_14)
			return true;
	return false;
}

/* add r14, gs:[r13 + the slot's hva] ends a check; the slow path's call returns the same. */
static enum seen state_after(const struct walk *w, const struct place *at,
			     const struct facts *facts)
{
	if (!writes_r14(w))
		return at->state;
	if (facts_r14_leads(facts))
		return CHECKED;
	return w->z.mnemonic == ZYDIS_MNEMONIC_ADD && is_reg(&w->op[0], ZYDIS_REGISTER_R14) &&
			       w->op[1].type == ZYDIS_OPERAND_TYPE_MEMORY &&
			       w->op[1].mem.segment == ZYDIS_REGISTER_GS &&
			       w->op[1].mem.base == ZYDIS_REGISTER_R13
		       ? CHECKED
		       : RAW;
}

/* mov reg, r14, for instructions that cannot name r14 (AH to BH). */
static unsigned copy_after(const struct walk *w, const struct place *at)
{
	if (w->z.mnemonic == ZYDIS_MNEMONIC_MOV && is_reg(&w->op[1], ZYDIS_REGISTER_R14) &&
	    w->op[0].type == ZYDIS_OPERAND_TYPE_REGISTER && w->op[0].size == 64)
		return insn_gpr(w->op[0].reg.value);
	return R_NONE;
}

/* --- control flow --- */

static bool is_thunk(const struct walk *w, const uint8_t *p)
{
	return p >= w->k->rw && p < w->k->hot_start;
}

static bool is_entry(const struct walk *w, const uint8_t *p)
{
	for (uint32_t i = 0; i < w->k->blocks; i++) {
		const struct jit_block *b = jit_at(w->k, w->k->block[i]);

		if (b->valid && (p == b->start + b->guard || p == b->start + b->entry_s ||
				 p == b->start + b->entry_b || p == b->start + b->entry_h))
			return true;
	}
	return false;
}

static uint8_t *target_of(const struct walk *w)
{
	return w->pc + w->z.length + w->op[0].imm.value.s;
}

static enum seen state_after_call(const struct walk *w, const uint8_t *to)
{
	const void *rx = jit_rx(w->k, to);

	return rx == w->k->miss || rx == w->k->bounce_in ? CHECKED : RAW;
}

static bool is_edge(const struct walk *w, const uint8_t *p)
{
	for (const struct jit_edge *d = jit_edges(w->b); d < jit_edges(w->b) + w->b->edges; d++)
		if (p == jit_edge_stub(w->k, d, false) || p == jit_edge_stub(w->k, d, true))
			return true;
	return false;
}

static int leave(struct walk *w, const struct facts *f)
{
	return !w->direct || facts_allow_leaving(f) ? 0 : bad(w, "leaves without RSP's delta");
}

static int branch_to(struct walk *w, const struct place *at)
{
	struct facts facts = at->facts;
	uint8_t *to = target_of(w);
	int r = 0;

	/* Stubs come from hot code, which was looked at. */
	if (in_hot(w, w->pc) && (is_edge(w, to) || (!w->fresh && is_entry(w, to)) ||
				 jit_rx(w->k, to) == w->k->return_other))
		r = leave(w, &facts);
	if (r < 0 || is_thunk(w, to) || (!w->fresh && is_entry(w, to)))
		return r;
	facts_after(&facts, &w->z, w->op, true, id_of(w, w->pc));
	return visit_with(w, to, at->state, R_NONE, &facts);
}

/* The one indirect jump: through the table of jumps. */
static int indirect_jump(struct walk *w, const struct facts *f)
{
	const ZydisDecodedOperand *op = &w->op[0];
	int64_t first = offsetof(struct jit_cpu, jump) + offsetof(struct jit_jump, code);

	if (op->type != ZYDIS_OPERAND_TYPE_MEMORY || op->mem.segment != ZYDIS_REGISTER_GS ||
	    op->mem.base != ZYDIS_REGISTER_R13 || op->mem.disp.value < first ||
	    (op->mem.disp.value - first) % (int64_t)sizeof(((struct jit_cpu *)NULL)->jump[0]) ||
	    op->mem.disp.value >= first + (int64_t)sizeof(((struct jit_cpu *)NULL)->jump))
		return bad(w, "an indirect jump");
	return leave(w, f);
}

static int follow(struct walk *w, const struct place *at)
{
	struct facts facts = at->facts;
	uint8_t *next = w->pc + w->z.length;
	bool direct = w->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
	int r;

	facts_after(&facts, &w->z, w->op, false, id_of(w, w->pc));
	switch (w->z.meta.category) {
	case ZYDIS_CATEGORY_CALL:
		if (direct && is_thunk(w, target_of(w)))
			return visit(w, next, state_after_call(w, target_of(w)));
		if (!direct && !is_field(&w->op[0], offsetof(struct jit_cpu, tmp[0])))
			return bad(w, "an indirect call");
		r = leave(w, &at->facts);
		if (r == 0 && direct && !is_entry(w, target_of(w)))
			r = in_cold(w, target_of(w)) ? visit(w, target_of(w), RAW)
						     : bad(w, "calls what is no entry");
		return r < 0 ? r : visit_entry(w, next);
	case ZYDIS_CATEGORY_RET:
		return w->z.opcode == 0xc3 && w->z.length == 1 ? leave(w, &at->facts)
							       : bad(w, "an odd return");
	case ZYDIS_CATEGORY_UNCOND_BR:
		return direct ? branch_to(w, at) : indirect_jump(w, &at->facts);
	case ZYDIS_CATEGORY_COND_BR:
		r = branch_to(w, at);
		return r < 0 ? r : visit_with(w, next, at->state, R_NONE, &facts);
	default: return visit_with(w, next, state_after(w, at, &facts), copy_after(w, at), &facts);
	}
}

static int one(struct walk *w, const struct place *at)
{
	const uint8_t *end;
	bool hot = in_hot(w, at->at);
	int r;

	w->pc = at->at;
	end = hot ? w->b->start + w->b->hot_len : w->k->cold_end;
	if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&w->decoder, w->pc, (ZyanUSize)(end - w->pc),
						 &w->z, w->op)))
		return bad(w, "no instruction");
	for (unsigned n = 1; hot && n < w->z.length; n++) {
		if (w->hot[w->pc - w->b->start + n])
			return bad(w, "overlaps another instruction");
		w->inside[w->pc - w->b->start + n] = 1;
	}
	w->out->insns++;
	if (!hot && at->first)
		w->out->cold_bytes += w->z.length;
	if ((r = check_kind(w)) < 0 || (r = check_memory(w, at)) < 0)
		return r;
	return follow(w, at);
}

static int drain(struct walk *w)
{
	int r = 0;

	while (w->places && r == 0) {
		struct place at = w->place[--w->places];

		r = one(w, &at);
	}
	return r;
}

/* Bytes of hot code that no path reached are read as if they were. */
static int gaps(struct walk *w)
{
	int r = 0;

	for (uint32_t n = 0; n < w->b->hot_len && r == 0; n++) {
		if (w->hot[n] || w->inside[n])
			continue;
		w->pc = w->b->start + n;
		r = visit_entry(w, w->pc);
		if (r == 0)
			r = drain(w);
	}
	return r;
}

static int scan(struct walk *w)
{
	const struct jit_block *b = w->b;
	uint8_t *entry[] = {b->start + b->entry_h,          b->start + b->guard,
			    b->start + b->entry_s,          b->start + b->entry_b,
			    jit_block_stub(w->k, b, false), jit_block_stub(w->k, b, true)};
	int r = 0;

	w->pc = b->start;
	for (unsigned i = 0; i < ARRAY_SIZE(entry) && r == 0; i++)
		r = visit_entry(w, entry[i]);
	for (unsigned i = 0; i < b->edges && r == 0; i++) {
		const struct jit_edge *d = &jit_edges(b)[i];

		if ((r = visit(w, jit_edge_stub(w->k, d, false), RAW)) == 0)
			r = visit(w, jit_edge_stub(w->k, d, true), RAW);
	}
	if (r == 0)
		r = drain(w);
	if (r == 0 && w->fresh)
		r = gaps(w);
	return r;
}

int jit_scan_block(const struct jit_cache *k, const struct jit_block *b, bool fresh, struct scan *s,
		   struct err *e)
{
	const struct jit_page *page = jit_at(k, b->page);
	struct walk *w = calloc(1, sizeof *w);
	int r = -ENOMEM;

	if (!w)
		return err_set(e, ENOMEM, "no memory to scan");
	*s = (struct scan){0};
	w->k = k;
	w->b = b;
	w->fresh = fresh;
	w->direct = page && (page->mode & (MODE_DIRECT | MODE_STEP)) == MODE_DIRECT;
	w->out = s;
	w->err = e;
	w->hot = calloc(1, b->hot_len);
	w->inside = calloc(1, b->hot_len);
	w->hot_facts = calloc(b->hot_len, sizeof *w->hot_facts);
	(void)ZydisDecoderInit(&w->decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	if (w->hot && w->inside && w->hot_facts)
		r = scan(w);
	else
		(void)err_set(e, ENOMEM, "no memory to scan");
	free(w->hot);
	free(w->inside);
	free(w->hot_facts);
	free(w);
	return r;
}

/* A frame of its own, to which a fetch that raises comes back. */
static __attribute__((noinline)) struct jit_block *translate(struct jit_cpu *c, uint64_t gva,
							     uint32_t mode)
{
	struct jit_page *page;
	struct jit_block *b;
	bool need_stop;

	jit_stop(c, WORLD_OUT);
	if (__builtin_setjmp(c->p->env)) {
		jit_release(c);
		jit_still(c, WORLD_OUT);
		return NULL;
	}
	page = jit_page_get(&c->vm->cache, gva, gva, mode, c->cs);
	b = page ? jit_translate(c, page, gva, mode, &need_stop) : NULL;
	jit_release(c);
	jit_still(c, WORLD_OUT);
	return b;
}

int jit_scan_at(struct jit_cpu *c, uint64_t gva, bool step, struct scan *s, struct err *e)
{
	struct jit_cache *k = &c->vm->cache;
	const uint8_t *cold = k->cold;
	struct jit_block *b = translate(c, gva, c->mode | (step ? MODE_STEP : 0));
	uint32_t room, cold_bytes = (uint32_t)(k->cold - cold);
	int r;

	if (!b)
		return err_set(e, EFAULT, "no block at %lx", (unsigned long)gva);
	/* Entries, and the last exit, take less than one instruction may. */
	room = (c->vm->xlate->n + 1) * INSN_ROOM;
	if (b->hot_len > room || cold_bytes > room)
		return err_set(e, EBADMSG, "%u instructions take %u + %u bytes", c->vm->xlate->n,
			       b->hot_len, cold_bytes);
	r = jit_scan_block(k, b, true, s, e);
	if (r == 0 && s->cold_bytes != cold_bytes)
		return err_set(e, EBADMSG, "of %u bytes of cold code, %u can be reached",
			       cold_bytes, s->cold_bytes);
	return r;
}
