/* thunks: the fixed pieces of host code, made once per cache: ways into translated code,
 * out of it, and from it into C. Guest registers live in the host's of the same number,
 * but RSP in R15, and R13-R15 in jit_cpu (host R13, R14 are scratch); the host's RSP is the
 * host's stack, on which translated code's calls stand (calls_slow.c). GS points at the jit_cpu. */
#include "cpu/jit/core.h"
#include "cpu/jit/insn.h"
#include "cpu/jit/window.h"

#define OFF(field) ((uint32_t)offsetof(struct jit_cpu, field))
#define OFF_GPR(n) (OFF(st.gpr) + 8 * (uint32_t)(n))

static const uint8_t callee_saved[] = {R_BX, R_BP, R_12, R_13, R_14, R_15};

static void push(struct emit *e, unsigned r)
{
	e_rex(e, false, 0, 0, r);
	e8(e, 0x50 | (r & 7));
}

static void pop(struct emit *e, unsigned r)
{
	e_rex(e, false, 0, 0, r);
	e8(e, 0x58 | (r & 7));
}

static void store_guest(struct emit *e)
{
	for (unsigned g = 0; g < 16; g++)
		if (jit_host_reg[g] != R_NONE)
			e_store(e, OFF_GPR(g), jit_host_reg[g]);
}

static void load_guest(struct emit *e, bool all)
{
	for (unsigned g = 0; g < 16; g++) {
		unsigned h = jit_host_reg[g];

		if (h == R_NONE || (!all && (h == R_BX || h == R_BP || h >= R_12)))
			continue;
		e_load(e, h, OFF_GPR(g));
	}
}

static void call_c(struct emit *e, const void *fn)
{
	e_mov_imm(e, R_AX, (uint64_t)fn);
	e8(e, 0xff);
	e8(e, 0xd0);
}

/* A helper may have put the guest's vectors away; they must be back before more translated
 * code runs. rsp is a multiple of 16. */
static void bring_fpu_back(struct emit *e)
{
	uint8_t *live;

	e_cmp_gs8(e, OFF(fpu_live), 0);
	live = e_jcc(e, CC_NE);
	e_load(e, R_DI, OFF(self));
	call_c(e, (const void *)jit_fpu_enter);
	e_patch(live, e->p);
}

static void align_stack(struct emit *e)
{
	e_store(e, OFF(kept_rsp), R_SP);
	e_alu_imm(e, true, 4, R_SP, -16);
}

static const void *here(const struct jit_cache *k, const struct emit *e)
{
	return jit_rx(k, e->p);
}

static uint8_t *rw(const struct jit_cache *k, const void *rx)
{
	return (uint8_t *)rx - (k->rx - k->rw);
}

/* Returns from jit_enter with eax = why; guest registers are already stored. */
static void leave(struct jit_cache *k, struct emit *e, enum jit_leave why)
{
	e_mov_imm(e, R_AX, why);
	e_jmp_to(e, rw(k, k->out));
}

#define CALLS_BYTES KIB(32) /* of the host's stack that translated code's calls may take */
#define KERNEL_BYTES                                                                               \
	KIB(16) /* of that, what user code leaves to the kernel, else its calls are dropped */

static void make_out(struct jit_cache *k, struct emit *e)
{
	k->out = here(k, e);
	e_load(e, R_SP, OFF(host_rsp));
	e_alu_imm(e, true, 0, R_SP, 8);
	for (unsigned i = sizeof callee_saved; i-- > 0;)
		pop(e, callee_saved[i]);
	e8(e, 0xc3);
}

/* stack_delta, from what RSP is now. Uses t, and the host's flags. */
static void find_stack(struct emit *e, unsigned t)
{
	uint8_t *none, *done;

	e_mov(e, t, R_15);
	e_rex(e, true, 0, 0, t); /* shr t, LANE_BITS */
	e8(e, 0xc1);
	e8(e, (uint8_t)(0xe8 | (t & 7)));
	e8(e, LANE_BITS);
	e_alu_imm(e, false, 7, t, LANES - 1);
	none = e_jcc(e, CC_A);
	e8(e, 0x65); /* mov t, gs:[delta + 8 * t] */
	e_rex(e, true, t, t, 0);
	e8(e, 0x8b);
	e8(e, (uint8_t)((t & 7) << 3 | 4));
	e8(e, (uint8_t)(3 << 6 | (t & 7) << 3 | 5));
	e32(e, OFF(delta));
	done = e_jmp(e);
	e_patch(none, e->p);
	e_mov_imm(e, t, LANE_ABSENT);
	e_rr(e, true, 0x29, t, R_15);
	e_patch(done, e->p);
	e_store(e, OFF(stack_delta), t);
}

/* The host's stack starts with the address of return_top. */
static void make_enter(struct jit_cache *k, struct emit *e)
{
	k->enter = here(k, e);
	for (unsigned i = 0; i < sizeof callee_saved; i++)
		push(e, callee_saved[i]);
	e_mov_imm(e, R_13, (uint64_t)k->return_top);
	push(e, R_13);
	e_store(e, OFF(host_rsp), R_SP);
	e_store(e, OFF(calls_top), R_SP);
	e_store_imm(e, OFF(user_rsp), 0, R_NONE);
	e_load32(e, R_13, OFF(mode));
	e_store32(e, OFF(calls_mode), R_13);
	e_lea(e, true, R_13, R_SP, R_NONE, 1, -(int32_t)CALLS_BYTES);
	e_store(e, OFF(host_low), R_13);
	e_mov(e, R_13, R_DI);
	load_guest(e, true);
	find_stack(e, R_14);
	e8(e, 0x41); /* jmp r13 */
	e8(e, 0xff);
	e8(e, 0xe5);
}

static void test_user(struct emit *e, unsigned reg) /* test reg8, MODE_USER; AX to BX */
{
	e8(e, 0xf6);
	e8(e, (uint8_t)(0xc0 | reg));
	e8(e, MODE_USER);
}

/* A helper may have changed the mode. Calls of user code are looked at no more when they return
 * (calls_slow.c), so the kernel must not see them: its own stand on top, with return_top between. They are
 * there again when the same user code goes on. Uses rax, rcx. */
static void switch_calls(struct jit_cache *k, struct emit *e)
{
	uint8_t *same[4], *kernel, *forget[4];

	e_load32(e, R_AX, OFF(mode));
	e_load32(e, R_CX, OFF(calls_mode));
	e_rr(e, false, 0x39, R_AX, R_CX);
	same[0] = e_jcc(e, CC_E);
	e_store32(e, OFF(calls_mode), R_AX);
	test_user(e, R_CX);
	kernel = e_jcc(e, CC_E);
	test_user(e, R_AX);
	forget[0] = e_jcc(e, CC_NE); /* from user code to user code of another mode */
	e_store(e, OFF(user_rsp), R_SP);
	e_store32(e, OFF(user_mode), R_CX);
	e_lea(e, true, R_CX, R_SP, R_NONE, 1, -(int32_t)KERNEL_BYTES);
	e_op_gs(e, true, 0x3b, R_CX, OFF(host_low));
	forget[1] = e_jcc(e, CC_B);
	e_mov_imm(e, R_CX, (uint64_t)k->return_top);
	push(e, R_CX);
	e_store(e, OFF(calls_top), R_SP);
	same[1] = e_jmp(e);

	e_patch(kernel, e->p);
	test_user(e, R_AX);
	same[2] = e_jcc(e, CC_E); /* the kernel's returns look at the mode */
	e_op_gs(e, false, 0x3b, R_AX, OFF(user_mode));
	forget[2] = e_jcc(e, CC_NE);
	e_load(e, R_CX, OFF(user_rsp));
	e_rr(e, true, 0x85, R_CX, R_CX);
	forget[3] = e_jcc(e, CC_E);
	e_mov(e, R_SP, R_CX);
	e_load(e, R_CX, OFF(host_rsp));
	e_store(e, OFF(calls_top), R_CX);
	same[3] = e_jmp(e);

	for (unsigned n = 0; n < ARRAY_SIZE(forget); n++)
		e_patch(forget[n], e->p);
	e_load(e, R_SP, OFF(host_rsp));
	e_store(e, OFF(calls_top), R_SP);
	e_store_imm(e, OFF(user_rsp), 0, R_NONE);
	for (unsigned n = 0; n < ARRAY_SIZE(same); n++)
		e_patch(same[n], e->p);
}

/* r13 += offset of the jump table of the MMU index under way; uses r14, whose value is in tmp[0] */
static void add_table(struct emit *e)
{
	e_load32(e, R_14, OFF(mmu));
	e_rex(e, false, 0, 0, R_14); /* shl r14d, log2(sizeof jump[0]) */
	e8(e, 0xc1);
	e8(e, 0xe0 | (R_14 & 7));
	e8(e, JIT_JUMP_BITS + 4);
	e_rr(e, false, 0x01, R_13, R_14);
	e_load(e, R_14, OFF(tmp[0]));
}

/* A guest's return to r14 has come to where it is not expected, flags in the slot: return_top where
 * the host's stack has nothing more. */
static void make_returns(struct jit_cache *k, struct emit *e)
{
	uint8_t *unknown;

	k->return_top = here(k, e);
	e_load(e, R_SP, OFF(calls_top));
	k->return_other = here(k, e);
	e_store(e, OFF(tmp[0]), R_14);
	e_jump_slot(e);
	add_table(e);
	e_op_base(e, true, true, 0x3b, R_14, R_13, (int32_t)OFF(jump[0][0].gva));
	unknown = e_jcc(e, CC_NE);
	e_op_base(e, true, false, 0xff, 4, R_13, (int32_t)OFF(jump[0][0].code));
	e_patch(unknown, e->p);
	store_guest(e);
	leave(k, e, LEAVE_RETURN);
}

static void make_exits(struct jit_cache *k, struct emit *e)
{
	k->call_unknown = here(k, e); /* called; tmp[1]: target */
	e_load(e, R_14, OFF(tmp[1]));
	k->exit_indirect = here(k, e); /* r14: target */
	e_store(e, OFF(st.rip), R_14);
	k->exit_lookup = here(k, e);
	store_guest(e);
	leave(k, e, LEAVE_LOOKUP);

	k->exit_step = here(k, e); /* st.rip is set */
	store_guest(e);
	leave(k, e, LEAVE_STEP);

	k->exit_edge = here(k, e); /* r14: the edge */
	e_store(e, OFF(tmp[3]), R_14);
	store_guest(e);
	leave(k, e, LEAVE_EDGE);
}

/* Goes on at st.rip after a helper that jumped: straight to the next block if nothing wants
 * attention and the jump table knows it. Guest registers are stored, and so is RSP. */
static void make_resume(struct jit_cache *k, struct emit *e)
{
	uint8_t *out[8];
	unsigned n = 0;

	k->resume = here(k, e);
	e_cmp_gs32(e, OFF(attention), 0);
	out[n++] = e_jcc(e, CC_NE);
	e_cmp_gs8(e, OFF(irq_hint), 0);
	out[n++] = e_jcc(e, CC_NE);
	e_cmp_gs8(e, OFF(st.events.shadow), 0);
	out[n++] = e_jcc(e, CC_NE);
	e_cmp_gs32(e, OFF(st.mp_state), X86_RUNNING);
	out[n++] = e_jcc(e, CC_NE);
	e_op_gs(e, false, 0xf7, 0, OFF(st.rflags)); /* test dword gs:[rflags], TF */
	e32(e, RFLAGS_TF);
	out[n++] = e_jcc(e, CC_NE);
	e_cmp_gs8(e, OFF(st.dr7), 0);
	out[n++] = e_jcc(e, CC_NE);

	e_load(e, R_14, OFF(st.rip));
	e_jump_slot(e);
	e_load32(e, R_AX, OFF(mmu));
	e_rex(e, false, 0, 0, R_AX); /* shl eax, log2(sizeof jump[0]) */
	e8(e, 0xc1);
	e8(e, 0xe0);
	e8(e, JIT_JUMP_BITS + 4);
	e_rr(e, false, 0x01, R_13, R_AX);
	e_op_base(e, true, true, 0x3b, R_14, R_13, (int32_t)OFF(jump[0][0].gva));
	out[n++] = e_jcc(e, CC_NE);
	e_op_base(e, true, true, 0x8b, R_14, R_13, (int32_t)OFF(jump[0][0].code));
	bring_fpu_back(e); /* keeps r14 */
	e_load(e, R_SP, OFF(kept_rsp));
	switch_calls(k, e);
	load_guest(e, true);
	find_stack(e, R_13);
	e8(e, 0x41); /* jmp r14 */
	e8(e, 0xff);
	e8(e, 0xe6);

	for (unsigned i = 0; i < n; i++)
		e_patch(out[i], e->p);
	leave(k, e, LEAVE_LOOKUP);
}

/* fn(cpu, r14, r13d) -> r14, called from a slow path; guest flags are in the slot. */
static const void *make_query(struct jit_cache *k, struct emit *e, const void *fn)
{
	const void *at = here(k, e);

	store_guest(e);
	e_load(e, R_DI, OFF(self));
	e_mov(e, R_SI, R_14);
	e_mov32(e, R_DX, R_13);
	align_stack(e);
	call_c(e, fn);
	e_load(e, R_SP, OFF(kept_rsp));
	e_mov(e, R_14, R_AX);
	load_guest(e, false);
	e8(e, 0xc3);
	return at;
}

/* st.rip += the instruction's length, the low byte of the helper's argument. */
static void advance_rip(struct emit *e)
{
	e8(e, 0x65); /* movzx eax, byte gs:[tmp[2]] */
	e8(e, 0x0f);
	e8(e, 0xb6);
	e_gs(e, R_AX, OFF(tmp[2]));
	e_op_gs(e, true, 0x01, R_AX, OFF(st.rip));
}

/* Translated code comes with r14 = arg and st.rip set: by call for PLAIN, else by jmp. */
static const void *make_helper(struct jit_cache *k, struct emit *e, jit_helper *h,
			       enum jit_helper_kind kind)
{
	const void *at = here(k, e);

	store_guest(e);
	e_store(e, OFF(tmp[2]), R_14);
	e_load(e, R_DI, OFF(self));
	e_mov(e, R_SI, R_14);
	align_stack(e);
	call_c(e, (const void *)h);
	if (kind == HELPER_PLAIN) {
		bring_fpu_back(e);
		e_load(e, R_SP, OFF(kept_rsp));
		e_cmp_gs32(e, OFF(attention), 0);
		uint8_t *stop = e_jcc(e, CC_NE);

		load_guest(e, true);
		e8(e, 0xc3);
		e_patch(stop, e->p);
		advance_rip(e);
		leave(k, e, LEAVE_LOOKUP);
		return at;
	}
	if (kind == HELPER_ENDS)
		advance_rip(e);
	e_jmp_to(e, rw(k, k->resume));
	return at;
}

static const struct {
	jit_helper *fn;
	enum jit_helper_kind kind;
} helpers[] = {
#define JIT_HELPER(name, k) {h_##name, k},
#include "cpu/jit/helpers.inc"
#undef JIT_HELPER
};

_Static_assert(ARRAY_SIZE(helpers) <= HELPERS_MAX, "raise HELPERS_MAX");

static unsigned helper_index(jit_helper *h)
{
	unsigned i = 0;

	while (helpers[i].fn != h) /* the list has every helper that is declared */
		i++;
	return i;
}

enum jit_helper_kind jit_helper_kind(jit_helper *h)
{
	return helpers[helper_index(h)].kind;
}

const void *jit_thunk_for(const struct jit_cache *k, jit_helper *h, enum jit_helper_kind *kind)
{
	unsigned i = helper_index(h);

	*kind = helpers[i].kind;
	return k->helper[i];
}

void jit_thunks_make(struct jit_cache *k)
{
	struct emit e = {k->hot};

	make_out(k, &e);
	make_returns(k, &e);
	make_enter(k, &e);
	make_exits(k, &e);
	make_resume(k, &e);
	k->miss = make_query(k, &e, (const void *)jit_miss);
	k->bounce_in = make_query(k, &e, (const void *)jit_bounce_in);
	k->bounce_out = make_query(k, &e, (const void *)jit_bounce_out);
	k->seg_addr = make_query(k, &e, (const void *)jit_seg_thunk);
	for (unsigned i = 0; i < ARRAY_SIZE(helpers); i++)
		k->helper[i] = make_helper(k, &e, helpers[i].fn, helpers[i].kind);
	k->hot = (uint8_t *)align_up((uint64_t)e.p, 64);
}
