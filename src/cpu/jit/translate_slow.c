/* translate: guest code into a block. Decode up to a jump, a page's end or BLOCK_INSNS; choose
 * what the flags must be at the entry; emit each instruction; then the slow paths and the exits
 * in cold code.
 *
 * A block goes on past conditional jumps (their taken side is an edge); it has up to EDGE_MAX
 * edges. Entries, in this order in memory, where the body wants the flags in the slot:
 *	entry_h:  save the flags
 *	guard:    is my page still mapped where it was? (entered from other pages)
 *	entry_s:  poll for attention; body
 * and where it wants them in the host:
 *	guard; entry_s: poll, restore the flags; entry_h: body */
#include "cpu/jit/translate.h"

#include <assert.h>

#include "cpu/jit/walk.h"

static const uint8_t *thunk(const struct xlate *x, const void *rx)
{
	return (const uint8_t *)rx - (x->k->rx - x->k->rw);
}

/* r13 keeps RAX; AX packs the flags: AH as LAHF, AL = OF. */
void x_save_flags(struct emit *e)
{
	e_mov(e, R_13, R_AX);
	e8(e, 0x9f); /* lahf */
	e8(e, 0x0f); /* seto al */
	e8(e, 0x90);
	e8(e, 0xc0);
	e8(e, 0x66); /* mov gs:[flags], ax */
	e_op_gs(e, false, 0x89, R_AX, OFF(flags));
	e_mov(e, R_AX, R_13);
}

void x_need_slot(struct xlate *x)
{
	if (x->flags & FLAGS_SLOT)
		return;
	x_save_flags(&x->hot);
	x->flags |= FLAGS_SLOT;
}

void x_need_host(struct xlate *x)
{
	struct emit *e = &x->hot;

	if (x->flags & FLAGS_HOST)
		return;
	e_mov(e, R_13, R_AX);
	e8(e, 0x65); /* movzx eax, word gs:[flags] */
	e8(e, 0x0f);
	e8(e, 0xb7);
	e_gs(e, R_AX, OFF(flags));
	e8(e, 0x04); /* add al, 0x7f: OF = AL */
	e8(e, 0x7f);
	e8(e, 0x9e); /* sahf */
	e_mov(e, R_AX, R_13);
	x->flags |= FLAGS_HOST;
}

/* ---- decoding ---- */

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
	const uint8_t *page = mem_span(x->c->env->mem, x->b->page->gpa, 4096);
	struct jit_mapping map;
	uint32_t error;
	uint64_t next = (gva | 0xfff) + 1;

	jit_copy(to, page + off, n);
	if (n == 15 || !want_next)
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
	jit_copy(to + n, page, 15 - n);
	return 15;
}

static void classify(struct insn *i)
{
	const ZydisAccessedFlags *f = i->z.cpu_flags;

	i->mem = NULL;
	for (unsigned n = 0; n < i->z.operand_count_visible && !i->mem; n++)
		if (i->op[n].type == ZYDIS_OPERAND_TYPE_MEMORY &&
		    i->op[n].mem.type == ZYDIS_MEMOP_TYPE_MEM)
			i->mem = &i->op[n];
	i->reads_flags = i->writes_flags = i->kills_flags = false;
	if (!f)
		return;
	i->reads_flags = f->tested & RFLAGS_ARITH;
	i->writes_flags = (f->modified | f->set_0 | f->set_1 | f->undefined) & RFLAGS_ARITH;
	switch (i->z.mnemonic) {
	case ZYDIS_MNEMONIC_ADD:
	case ZYDIS_MNEMONIC_SUB:
	case ZYDIS_MNEMONIC_CMP:
	case ZYDIS_MNEMONIC_NEG:
	case ZYDIS_MNEMONIC_AND:
	case ZYDIS_MNEMONIC_OR:
	case ZYDIS_MNEMONIC_XOR:
	case ZYDIS_MNEMONIC_TEST:
	case ZYDIS_MNEMONIC_XADD:
	case ZYDIS_MNEMONIC_CMPXCHG: i->kills_flags = true; break;
	default: /* others leave some as they were, or may, where the manual says undefined */
		break;
	}
}

static const struct rule gp = {.kind = RULE_HELPER, .helper = h_gp};

/* What cannot be decoded: too long is #GP, all else #UD. */
static void undecodable(struct insn *i, ZyanStatus s)
{
	static const struct rule ud = {.kind = RULE_UD};

	memset(&i->z, 0, sizeof i->z);
	i->z.length = 1;
	i->mem = NULL;
	i->reads_flags = i->writes_flags = i->kills_flags = false;
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

static bool ends_block(const struct insn *i)
{
	enum jit_helper_kind kind;

	switch (i->rule->kind) {
	case RULE_JMP:
	case RULE_CALL:
	case RULE_RET:
	case RULE_UD:
	case RULE_FAR:
	case RULE_INT:
	case RULE_STRING:
	case RULE_LOOP: return true;
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
	i->straddles = false;
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
		x->n++;
		return true;
	}
	drop_phantom_base(i);
	i->rule = rule_for(x, i);
	if (gate(x, i))
		classify(i);
	else
		i->mem = NULL, i->reads_flags = i->writes_flags = i->kills_flags = false;
	i->straddles = i->z.length > left;
	if (!i->straddles)
		x->page2 = NULL;
	x->n++;
	return true;
}

static bool decode(struct xlate *x, uint64_t gva)
{
	unsigned jumps = 0, limit = x->step ? 1 : BLOCK_INSNS;

	for (;;) {
		const struct insn *i = &x->in[x->n];

		if (!decode_one(x, gva))
			return x->n > 0;
		gva += i->z.length;
		jumps += i->rule->kind == RULE_JCC;
		if (ends_block(i) || x->n == limit || jumps == 4 || (gva & 0xfff) == 0 ||
		    i->straddles)
			return true;
	}
}

/* ---- exits ---- */

/* jmp or jcc to target, linked later. Not in step mode. */
static void put_edge(struct xlate *x, uint8_t *jump, uint64_t target)
{
	x->edge[x->edges++] = (struct jit_edge){
		.jump = jump, .target = x_code64(x) ? target : (uint32_t)target, .flags = x->flags};
}

/* Leaves for target by way of the run loop, which steps. */
static void step_exit(struct xlate *x, struct emit *e, uint64_t target, uint8_t flags)
{
	if (!(flags & FLAGS_SLOT))
		x_save_flags(e);
	e_store_imm(e, OFF(st.rip), x_code64(x) ? target : (uint32_t)target, R_13);
	e_jmp_to(e, thunk(x, x->k->exit_lookup));
}

static void exit_to(struct xlate *x, uint64_t target)
{
	if (x->step)
		step_exit(x, &x->hot, target, x->flags);
	else
		put_edge(x, e_jmp(&x->hot), target);
}

static void exit_cc(struct xlate *x, unsigned cc, uint64_t target)
{
	if (x->step) {
		e_jcc_to(&x->hot, cc, x->cold.p);
		step_exit(x, &x->cold, target, x->flags);
	} else {
		put_edge(x, e_jcc(&x->hot, cc), target);
	}
}

static bool has_limit(const struct xlate *x)
{
	return !x_code64(x) && x->cs.limit != 0xffffffff;
}

/* ja to the returned place when the address in r14 is not canonical, or past the code segment's
 * limit: a near branch faults before it changes anything. Uses r13. */
static uint8_t *check_target(struct xlate *x, struct emit *e)
{
	if (!x_code64(x)) {
		e_alu_imm(e, false, 7, R_14, (int32_t)x->cs.limit);
		return e_jcc(e, CC_A);
	}
	e_mov(e, R_13, R_14);
	e8(e, 0x49); /* sar r13, 47: 0 or -1 */
	e8(e, 0xc1);
	e8(e, 0xfd);
	e8(e, 47);
	e_alu_imm(e, true, 0, R_13, 1);
	e_alu_imm(e, true, 7, R_13, 1);
	return e_jcc(e, CC_A);
}

/* Leaves for a helper that does not come back here. */
static void put_helper(struct xlate *x, struct emit *e, const struct insn *i, jit_helper *h,
		       uint64_t arg)
{
	enum jit_helper_kind kind;

	x_store_rip(x, e, i);
	e_mov_imm(e, R_14, arg);
	e_jmp_to(e, thunk(x, jit_thunk_for(x->k, h, &kind)));
}

/* Out to the run loop, for the address in r14; rSP += stack_by if that is a good one. */
static void exit_unknown(struct xlate *x, struct emit *e, const struct insn *i, int stack_by)
{
	uint8_t *bad = x_code64(x) ? check_target(x, e) : NULL;

	if (stack_by)
		e_lea(e, true, R_15, R_15, R_NONE, 1, stack_by);
	e_jmp_to(e, thunk(x, x->k->exit_indirect));
	if (bad) {
		e_patch(bad, e->p);
		put_helper(x, e, i, h_gp, i->z.length);
	}
}

/* To the address in r14, flags in the slot; rSP += stack_by. */
static void exit_indirect(struct xlate *x, const struct insn *i, int stack_by)
{
	struct emit *e = &x->hot;
	uint32_t jump = OFF(jump) + (uint32_t)x->mmu * sizeof x->c->jump[0];

	x->done = true;
	if (has_limit(x)) {
		e_patch(check_target(x, e), x->cold.p);
		put_helper(x, &x->cold, i, h_gp, i->z.length);
	}
	if (!x_code64(x) && stack_by) {
		x_stack_move(x, stack_by);
		stack_by = 0;
	}
	if (x->step) {
		exit_unknown(x, e, i, stack_by);
		return;
	}
	e_mov32(e, R_13, R_14);
	e_alu_imm(e, false, 4, R_13, JIT_JUMP_SIZE - 1);
	e_rex(e, false, 0, 0, R_13); /* shl r13d, 4 */
	e8(e, 0xc1);
	e8(e, 0xe0 | (R_13 & 7));
	e8(e, 4);
	e_op_base(e, true, true, 0x3b, R_14, R_13,
		  (int32_t)(jump + offsetof(struct jit_jump, gva)));
	e_jcc_to(e, CC_NE, x->cold.p);
	exit_unknown(x, &x->cold, i, stack_by);
	if (stack_by)
		e_lea(e, true, R_15, R_15, R_NONE, 1, stack_by);
	e_op_base(e, true, false, 0xff, 4, R_13, (int32_t)(jump + offsetof(struct jit_jump, code)));
}

static uint64_t branch_target(const struct xlate *x, const struct insn *i)
{
	uint64_t t = x_rip(x, i) + i->z.length + i->op[0].imm.value.u;

	return i->z.operand_width == 16 ? (uint16_t)t : x_code64(x) ? t : (uint32_t)t;
}

/* A direct branch past the limit faults, too. */
static bool is_past_limit(const struct xlate *x, const struct insn *i)
{
	return has_limit(x) && i->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE &&
	       branch_target(x, i) > x->cs.limit;
}

/* The value of a near JMP's or CALL's operand, in r14. */
static void indirect_target(struct xlate *x, const struct insn *i)
{
	unsigned size = i->z.operand_width / 8u;

	if (i->op[0].type == ZYDIS_OPERAND_TYPE_MEMORY) {
		x_mem(x, i, &i->op[0], SITE_READ, 0);
		x_clobber(x);
		x_load(x, R_14, size);
	} else {
		x_get(x, R_14, insn_gpr(i->op[0].reg.value));
		if (size == 4)
			e_mov32(&x->hot, R_14, R_14);
		if (size == 2) { /* movzx r14d, r14w */
			e8(&x->hot, 0x45);
			e8(&x->hot, 0x0f);
			e8(&x->hot, 0xb7);
			e8(&x->hot, 0xf6);
		}
	}
}

static void do_jcc(struct xlate *x, const struct insn *i)
{
	x_need_host(x);
	if (!is_past_limit(x, i)) {
		exit_cc(x, i->rule->cc, branch_target(x, i));
		return;
	}
	e_jcc_to(&x->hot, i->rule->cc, x->cold.p);
	if (!(x->flags & FLAGS_SLOT))
		x_save_flags(&x->cold);
	put_helper(x, &x->cold, i, h_gp, i->z.length);
}

static void do_jmp(struct xlate *x, const struct insn *i)
{
	if (i->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
		exit_to(x, branch_target(x, i));
		x->done = true;
		return;
	}
	x_need_slot(x);
	indirect_target(x, i);
	x_clobber(x);
	exit_indirect(x, i, 0);
}

static void do_call(struct xlate *x, const struct insn *i)
{
	bool direct = i->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
	unsigned size = i->z.operand_width / 8u;

	x_need_slot(x);
	if (!direct) {
		indirect_target(x, i);
		e_store(&x->hot, OFF(tmp[0]), R_14);
		if (x_code64(x) || has_limit(x)) {
			e_patch(check_target(x, &x->hot), x->cold.p);
			put_helper(x, &x->cold, i, h_gp, i->z.length);
		}
	}
	x_stack(x, i, -(int)size, size, SITE_WRITE);
	x_clobber(x);
	e_mov_imm(&x->hot, R_13, x_next(x, i));
	x_store(x, R_13, size);
	x_stack_move(x, -(int)size);
	x_written(x);
	if (direct) {
		exit_to(x, branch_target(x, i));
		x->done = true;
	} else {
		e_load(&x->hot, R_14, OFF(tmp[0]));
		exit_indirect(x, i, 0);
	}
}

static void do_ret(struct xlate *x, const struct insn *i)
{
	unsigned size = i->z.operand_width / 8u, drop = 0;

	if (i->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE &&
	    i->op[0].visibility != ZYDIS_OPERAND_VISIBILITY_HIDDEN)
		drop = (uint16_t)i->op[0].imm.value.u;
	x_need_slot(x);
	x_stack(x, i, 0, size, SITE_READ);
	x_clobber(x);
	x_load(x, R_14, size);
	exit_indirect(x, i, (int)(size + drop));
}

/* LOOPcc and JrCXZ: no flags change, so the count is tested by JRCXZ (JECXZ). 16-bit counts
 * go through r13. */
static void do_loop(struct xlate *x, const struct insn *i)
{
	struct emit *e = &x->hot;
	unsigned width = i->z.address_width;
	ZydisMnemonic m = i->z.mnemonic;
	bool counts =
		m == ZYDIS_MNEMONIC_LOOP || m == ZYDIS_MNEMONIC_LOOPE || m == ZYDIS_MNEMONIC_LOOPNE;
	uint8_t *zero, *over;

	if (m == ZYDIS_MNEMONIC_LOOPE || m == ZYDIS_MNEMONIC_LOOPNE)
		x_need_host(x);
	if (counts && width == 16) {
		e_lea(e, false, R_13, R_CX, R_NONE, 1, -1);
		e8(e, 0x66);
		e_rr(e, false, 0x89, R_CX, R_13);
	} else if (counts) {
		e_lea(e, width == 64, R_CX, R_CX, R_NONE, 1, -1);
	}
	if (width == 16) { /* test CX alone, with RCX put aside */
		e_mov(e, R_14, R_CX);
		e8(e, 0x0f); /* movzx ecx, cx */
		e8(e, 0xb7);
		e8(e, 0xc9);
		e8(e, 0xe3); /* jrcxz */
		zero = e->p++;
		e_mov(e, R_CX, R_14);
	} else {
		if (width == 32)
			e8(e, 0x67);
		e8(e, 0xe3);
		zero = e->p++;
	}
	/* count not zero */
	if (!counts) {
		e8(e, 0xeb);
		over = e->p++;
	} else {
		if (m == ZYDIS_MNEMONIC_LOOP)
			exit_to(x, branch_target(x, i));
		else
			exit_cc(x, m == ZYDIS_MNEMONIC_LOOPE ? CC_E : CC_NE, branch_target(x, i));
		e8(e, 0xeb);
		over = e->p++;
	}
	*zero = (uint8_t)(e->p - zero - 1);
	if (width == 16)
		e_mov(e, R_CX, R_14);
	if (!counts)
		exit_to(x, branch_target(x, i));
	*over = (uint8_t)(e->p - over - 1);
}

/* ---- one instruction ---- */

static void do_string(struct xlate *x, const struct insn *i)
{
	uint32_t rep = 0;
	unsigned size = 1, seg = X86_DS;
	uint64_t arg;

	if (i->z.attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE))
		rep = 1;
	else if (i->z.attributes & ZYDIS_ATTRIB_HAS_REPNE)
		rep = 2;
	for (unsigned n = 0; n < i->z.operand_count; n++) {
		const ZydisDecodedOperand *op = &i->op[n];

		if (op->type != ZYDIS_OPERAND_TYPE_MEMORY)
			continue;
		size = op->size / 8u;
		if (insn_gpr(op->mem.base) == X86_RSI)
			seg = x_seg(op);
	}
	arg = i->z.length | (uint64_t)size << 8 | (uint64_t)(i->z.address_width / 8u) << 16 |
	      (uint64_t)seg << 24 | (uint64_t)rep << 32;
	x_need_slot(x);
	x_helper(x, i, i->rule->helper, arg);
}

static void do_io(struct xlate *x, const struct insn *i)
{
	bool in = i->rule->helper == h_in;
	const ZydisDecodedOperand *data = &i->op[in ? 0 : 1], *port = &i->op[in ? 1 : 0];
	bool imm = port->type == ZYDIS_OPERAND_TYPE_IMMEDIATE;

	x_need_slot(x);
	x_helper(x, i, i->rule->helper,
		 i->z.length | (uint64_t)(data->size / 8u) << 8 | (uint64_t)!imm << 16 |
			 (imm ? (port->imm.value.u & 0xff) << 32 : 0));
}

static void do_far(struct xlate *x, const struct insn *i)
{
	x_need_slot(x);
	if (i->op[0].type == ZYDIS_OPERAND_TYPE_POINTER) {
		uint16_t sel = i->op[0].ptr.segment;

		x_helper(x, i, i->rule->helper,
			 i->z.length | (uint64_t)(i->z.operand_width / 8u) << 8 |
				 (uint64_t)sel << 16 | (uint64_t)i->op[0].ptr.offset << 32);
	} else {
		uint64_t arg = x_helper_arg(x, i, 0);

		x_helper(x, i, i->rule->helper2, arg);
	}
}

/* The flags that the host never has are in st.rflags. */
static void and_rflags(struct xlate *x, uint32_t mask)
{
	x_need_slot(x);
	x_clobber(x);
	e_op_gs(&x->hot, false, 0x81, 4, OFF(st.rflags));
	e32(&x->hot, mask);
}

static void or_rflags(struct xlate *x, uint32_t bits)
{
	x_need_slot(x);
	x_clobber(x);
	e_op_gs(&x->hot, false, 0x81, 1, OFF(st.rflags));
	e32(&x->hot, bits);
}

static void do_cli(struct xlate *x, const struct insn *i)
{
	x_need_slot(x);
	if (x->mode & (MODE_USER | MODE_REAL)) {
		x_helper(x, i, h_cli, x_helper_arg(x, i, 0));
		return;
	}
	and_rflags(x, ~RFLAGS_IF);
}

/* STI holds interrupts back for one more instruction. Where none waits, and the block goes on,
 * that needs no care: blocks let interrupts in at their start only. */
static void do_sti(struct xlate *x, const struct insn *i)
{
	bool last = i == &x->in[x->n - 1];

	x_need_slot(x);
	if (last) {
		x_helper(x, i, h_sti, x_helper_arg(x, i, 0));
		return;
	}
	e_cmp_gs8(&x->hot, OFF(irq_hint), 0);
	e_jcc_to(&x->hot, CC_NE, x->cold.p);
	put_helper(x, &x->cold, i, h_sti, x_helper_arg(x, i, 0));
	or_rflags(x, RFLAGS_IF);
}

static void emit_one(struct xlate *x, const struct insn *i)
{
	uint64_t arg;

	if ((i->rule->kind == RULE_JMP || i->rule->kind == RULE_CALL) && is_past_limit(x, i)) {
		x_need_slot(x);
		x_helper(x, i, h_gp, i->z.length);
		return;
	}
	switch (i->rule->kind) {
	case RULE_COPY: x_copy(x, i); break;
	case RULE_NOP: break;
	case RULE_UD:
		x_need_slot(x);
		x_helper(x, i, h_ud, i->z.length);
		break;
	case RULE_HELPER:
	case RULE_INT:
		x_need_slot(x);
		arg = x_helper_arg(x, i, i->rule->imm);
		x_helper(x, i, i->rule->helper, arg);
		break;
	case RULE_STRING: do_string(x, i); break;
	case RULE_IO: do_io(x, i); break;
	case RULE_FAR: do_far(x, i); break;
	case RULE_MOV: x_mov(x, i); break;
	case RULE_PUSH: x_push(x, i); break;
	case RULE_POP: x_pop(x, i); break;
	case RULE_LEA: x_lea(x, i); break;
	case RULE_XLAT: x_xlat(x, i); break;
	case RULE_LEAVE: x_leave(x, i); break;
	case RULE_BT: x_bt(x, i); break;
	case RULE_JMP: do_jmp(x, i); break;
	case RULE_JCC: do_jcc(x, i); break;
	case RULE_CALL: do_call(x, i); break;
	case RULE_RET: do_ret(x, i); break;
	case RULE_LOOP: do_loop(x, i); break;
	case RULE_STI: do_sti(x, i); break;
	case RULE_CLI: do_cli(x, i); break;
	case RULE_CLD: and_rflags(x, ~RFLAGS_DF); break;
	case RULE_STD: or_rflags(x, RFLAGS_DF); break;
	default: assert(!"a rule without an emitter");
	}
}

/* ---- the block ---- */

/* Where the body wants the flags when it starts: FLAGS_SLOT, FLAGS_HOST, or 0: dead. */
static uint8_t wanted_at_entry(const struct xlate *x)
{
	for (unsigned n = 0; n < x->n; n++) {
		const struct insn *i = &x->in[n];

		switch (i->rule->kind) {
		case RULE_NOP:
		case RULE_LEA: continue;
		case RULE_JCC: return FLAGS_HOST;
		case RULE_COPY:
		case RULE_BT:
		case RULE_MOV:
			if (i->mem || (i->rule->kind == RULE_MOV &&
				       !(i->z.attributes & ZYDIS_ATTRIB_HAS_MODRM) && i->mem))
				return FLAGS_SLOT;
			if (i->rule->kind == RULE_MOV && ends_block(i))
				return FLAGS_SLOT;
			if (i->reads_flags || (i->writes_flags && !i->kills_flags))
				return FLAGS_HOST;
			if (i->writes_flags)
				return 0;
			continue;
		default: return FLAGS_SLOT;
		}
	}
	return FLAGS_SLOT;
}

static bool jumps_back(const struct xlate *x)
{
	for (unsigned n = 0; n < x->n; n++) {
		const struct insn *i = &x->in[n];

		if ((i->rule->kind == RULE_JCC || i->rule->kind == RULE_JMP ||
		     i->rule->kind == RULE_LOOP) &&
		    i->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE &&
		    branch_target(x, i) <= x_rip(x, i))
			return true;
	}
	return false;
}

static void poll(struct xlate *x, uint8_t **to_stub)
{
	e_cmp_gs32(&x->hot, OFF(attention), 0);
	*to_stub = e_jcc(&x->hot, CC_NE);
}

static void put_guard(struct xlate *x, const struct jit_page *p, uint8_t **to_stub)
{
	e_cmp_gs32(&x->hot,
		   OFF(itlb_id) +
			   (uint32_t)(x->mmu * JIT_ITLB_SIZE + (p->gva >> 12) % JIT_ITLB_SIZE) * 4,
		   p->id);
	*to_stub = e_jcc(&x->hot, CC_NE);
}

static unsigned put_entries(struct xlate *x, uint8_t **to_stub)
{
	struct jit_block *b = x->b;
	uint8_t want = wanted_at_entry(x);
	unsigned n = 0;

	b->start = x->hot.p;
	if (x->step) {
		b->entry_h = b->guard = b->entry_s = x->hot.p;
		x->flags = FLAGS_SLOT;
		return 0;
	}
	/* A loop that is only ever entered with its flags in the host must poll too. */
	b->needs_host_flags = want == FLAGS_HOST && !jumps_back(x);
	b->entry_h = x->hot.p;
	if (want && !b->needs_host_flags)
		x_save_flags(&x->hot);
	b->guard = x->hot.p;
	put_guard(x, b->page, &to_stub[n++]);
	b->entry_s = x->hot.p;
	if (x->page2)
		put_guard(x, x->page2, &to_stub[n++]);
	poll(x, &to_stub[n++]);
	x->flags = FLAGS_SLOT;
	if (want == FLAGS_HOST) {
		x_need_host(x);
		x->flags = FLAGS_HOST; /* entry_h comes without the slot */
	}
	if (b->needs_host_flags)
		b->entry_h = x->hot.p;
	return n;
}

/* stub_h, stub_s: look this block's address up anew. */
static void put_stubs(struct xlate *x, uint8_t *const *to_stub, unsigned n)
{
	struct emit *e = &x->cold;

	x->b->stub_h = e->p;
	x_save_flags(e);
	x->b->stub_s = e->p;
	e_store_imm(e, OFF(st.rip), jit_block_rip(x->b), R_13);
	e_jmp_to(e, thunk(x, x->k->exit_lookup));
	for (unsigned k = 0; k < n; k++)
		e_patch(to_stub[k], x->b->stub_s);
}

static void put_edge_stubs(struct xlate *x)
{
	struct emit *e = &x->cold;

	for (unsigned n = 0; n < x->edges; n++) {
		struct jit_edge *d = &x->b->edge[n];

		*d = x->edge[n];
		d->from = x->b;
		d->stub = e->p;
		if (!(d->flags & FLAGS_SLOT))
			x_save_flags(e);
		d->stub_saved = e->p;
		e_mov_imm(e, R_14, (uint64_t)d);
		e_jmp_to(e, thunk(x, x->k->exit_edge));
		e8(e, 0xcc); /* stub_bytes never reach into the next stub */
		e8(e, 0xcc);
		e8(e, 0xcc);
		e8(e, 0xcc);
		e8(e, 0xcc);
		e8(e, 0xcc);
		e_patch(d->jump, d->flags & FLAGS_SLOT ? d->stub_saved : d->stub);
	}
}

static bool room(const struct xlate *x)
{
	return x->k->hot_end - x->k->hot > (BLOCK_INSNS + 2) * INSN_ROOM &&
	       x->k->cold_end - x->k->cold > (BLOCK_INSNS + 2) * INSN_ROOM &&
	       x->k->blocks < x->k->blocks_max && x->k->straddlers < STRADDLERS;
}

static bool keep(struct xlate *x)
{
	struct jit_block *b = x->b;

	b->edge = jit_cache_alloc(x->k, x->edges * sizeof *b->edge);
	b->site = jit_cache_alloc(x->k, x->sites * sizeof *b->site);
	if (!b->edge || !b->site)
		return false;
	memcpy(b->site, x->site, x->sites * sizeof *b->site);
	b->edges = (uint16_t)x->edges;
	b->sites = (uint16_t)x->sites;
	b->page2 = x->page2;
	b->hot_len = (uint32_t)(x->hot.p - b->start);
	return true;
}

struct jit_block *jit_translate(struct jit_cpu *c, struct jit_page *page, uint64_t gva,
				uint32_t mode)
{
	struct xlate *x = c->vm->xlate;
	uint8_t *to_stub[4];
	unsigned stubs;
	const struct insn *last;

	memset(x, 0, offsetof(struct xlate, decoder));
	x->c = c;
	x->vm = c->vm;
	x->k = &c->vm->cache;
	x->mode = mode;
	x->mmu = c->mmu;
	x->cs = page->cs;
	x->step = mode & MODE_STEP;
	x->n = x->edges = x->sites = x->slows = 0;
	x->page2 = NULL;
	x->b = room(x) ? jit_cache_alloc(x->k, sizeof *x->b) : NULL;
	if (!x->b)
		return NULL;
	x->b->gva = gva;
	x->b->page = page;
	decoder_init(x);
	if (!decode(x, gva))
		return NULL;
	last = &x->in[x->n - 1];
	x->b->guest_len = (uint16_t)(last->gva + last->z.length - gva);
	x->hot.p = x->k->hot;
	x->cold.p = x->k->cold;
	stubs = put_entries(x, to_stub);
	for (unsigned n = 0; n < x->n; n++)
		emit_one(x, &x->in[n]);
	if (!x->done)
		exit_to(x, x_next(x, last));
	x_slow_paths(x);
	put_stubs(x, to_stub, stubs);
	if (!keep(x))
		return NULL;
	put_edge_stubs(x);
	x->k->hot = (uint8_t *)align_up((uint64_t)x->hot.p, 16);
	x->k->cold = x->cold.p;
	x->b->valid = true;
	jit_block_publish(x->k, x->b);
	return x->b;
}
