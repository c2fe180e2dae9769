/* translate: guest code into a block. Decode up to a jump, a page's end or BLOCK_INSNS; choose
 * what the flags must be at the entry; emit each instruction; then the slow paths and the exits
 * in cold code.
 *
 * A block goes on past conditional jumps (their taken side is an edge), and behind jumps on its
 * page; it has up to EDGE_MAX
 * edges. Entries, in this order in memory, where the body wants the flags in the slot:
 *	entry_h:  save the flags (not where they are dead)
 *	guard:    is my page still mapped where it was? (entered from other pages)
 *	entry_s:  poll for attention
 *	entry_b:  body
 * and where it wants them in the host:
 *	guard; entry_s: poll; entry_b: restore the flags; entry_h: body
 * jit_edge_link chooses among them. */
#include "cpu/jit/translate.h"

#include <assert.h>
#include <string.h>

#include "cpu/jit/perfmap_slow.h"
#include "cpu/jit/walk.h"

#define TAKE_TRIES 3 /* of reading bytes that somebody keeps changing */

void x_need_slot(struct xlate *x)
{
	if (!(x->flags & FLAGS_SLOT) && x->live) {
		e_save_flags(&x->hot);
		x_forget(x, R_13);
		x->kept[0] = 0;
		x_forget_rax(x);
	}
	x->flags |= FLAGS_SLOT;
}

/* i, which is copied, reads flags, or leaves some that are live as they were. */
bool x_wants_host(const struct insn *i)
{
	return i->reads || (i->touches && (i->live_out & ~i->sets));
}

void x_need_host(struct xlate *x)
{
	struct emit *e = &x->hot;

	if (x->flags & FLAGS_HOST)
		return;
	x_forget(x, R_13);
	x->kept[0] = 0;
	x_forget_rax(x);
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
	if (x_string_once(i) && !x->step) {
		x_string(x, i, size, seg, arg);
		return;
	}
	x_need_slot(x);
	if (!x->direct || !x_direct_string(x, i, i->rule->helper, arg))
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
	x_leave_to(x, &x->cold, i, h_sti, x_helper_arg(x, i, 0));
	or_rflags(x, RFLAGS_IF);
}

/* A vCPU that spins gives its CPU away now and then: the one that it waits for may have none. */
static void do_pause(struct xlate *x, const struct insn *i)
{
	enum jit_helper_kind kind;
	const uint8_t *helper = x_thunk(x, jit_thunk_for(x->k, h_pause, &kind));
	struct emit *cold = &x->cold;

	x_need_slot(x);
	x_clobber(x);
	e_op_gs(&x->hot, false, 0x83, 5, OFF(pauses)); /* sub dword gs:[pauses], 1 */
	e8(&x->hot, 1);
	e_jcc_to(&x->hot, CC_E, cold->p);
	e8(&x->hot, 0xf3);
	e8(&x->hot, 0x90);
	x_store_rip(x, cold, i);
	e_mov_imm(cold, R_14, x_helper_arg(x, i, 0));
	e_call_to(cold, helper);
	e_jmp_to(cold, x->hot.p);
	x_stack_unknown(x);
}

/* May r13 and r14 still be copies of guest registers behind i? What changes them without an operand
 * in memory says so by itself; x_ea does for the others. */
static bool may_keep(const struct insn *i)
{
	switch (i->rule->kind) {
	case RULE_COPY:
	case RULE_LEA:
	case RULE_NOP:
	case RULE_JCC: return true;
	case RULE_JMP: return i->followed;
	case RULE_MOV: /* not of segment, control and debug registers */
		return i->mem || (insn_is_gpr(i->op[0].reg.value) &&
				  (i->op[1].type != ZYDIS_OPERAND_TYPE_REGISTER ||
				   insn_is_gpr(i->op[1].reg.value)));
	default: return false;
	}
}

static void emit_one(struct xlate *x, const struct insn *i)
{
	uint64_t arg;

	if (!may_keep(i))
		x_forget_kept(x);
	if ((i->rule->kind == RULE_JMP || i->rule->kind == RULE_CALL) && x_is_past_limit(x, i)) {
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
		if (x_system(x, i))
			break;
		__attribute__((fallthrough));
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
	case RULE_JMP: x_jmp(x, i); break;
	case RULE_JCC: x_jcc(x, i); break;
	case RULE_CALL: x_call(x, i); break;
	case RULE_RET: x_ret(x, i); break;
	case RULE_LOOP: x_loop(x, i); break;
	case RULE_STI: do_sti(x, i); break;
	case RULE_CLI: do_cli(x, i); break;
	case RULE_PAUSE: do_pause(x, i); break;
	case RULE_CLD: and_rflags(x, ~RFLAGS_DF); break;
	case RULE_STD: or_rflags(x, RFLAGS_DF); break;
	default: assert(!"a rule without an emitter");
	}
}

/* ---- the block ---- */

/* Where the body wants the flags when it starts: FLAGS_SLOT, FLAGS_HOST, or 0: all are dead. */
static uint8_t wanted_at_entry(const struct xlate *x)
{
	for (unsigned n = 0; n < x->n; n++) {
		const struct insn *i = &x->in[n];

		if (!i->live_in)
			return n ? FLAGS_SLOT : 0;
		switch (i->rule->kind) {
		case RULE_NOP:
		case RULE_LEA: continue;
		case RULE_JCC: return FLAGS_HOST;
		case RULE_JMP:
			if (i->followed)
				continue;
			return FLAGS_SLOT;
		case RULE_COPY:
		case RULE_BT:
		case RULE_MOV:
			if (i->mem || (i->rule->kind == RULE_MOV && x_ends_block(i)))
				return FLAGS_SLOT;
			if (x_wants_host(i))
				return FLAGS_HOST;
			continue;
		default: return FLAGS_SLOT;
		}
	}
	return FLAGS_SLOT;
}

static void poll(struct xlate *x, uint8_t **to_stub)
{
	e_cmp_gs32(&x->hot, OFF(attention), 0);
	*to_stub = e_jcc(&x->hot, CC_NE);
}

uint8_t *x_guard(struct xlate *x, const struct jit_page *p)
{
	uint32_t slot = x->mmu * JIT_ITLB_SIZE + (uint32_t)(p->gva >> 12) % JIT_ITLB_SIZE;

	e_op_gs(&x->hot, false, 0x81, 7, OFF(itlb_id) + slot * 4); /* cmp, always with 32 bits */
	e32(&x->hot, p->id);
	e_mark(&x->hot, x->hot.p - 8, MARK_GUARD);
	return e_jcc(&x->hot, CC_NE);
}

/* In the hot code, of an entry; they are all within the first hundred bytes. */
static uint8_t offset(const struct xlate *x)
{
	return (uint8_t)(x->hot.p - x->b.start);
}

static unsigned put_entries(struct xlate *x, uint8_t **to_stub)
{
	struct jit_block *b = &x->b;
	uint8_t want = wanted_at_entry(x);
	unsigned n = 0;

	b->start = x->hot.p;
	if (x->step) {
		b->entry_h = b->guard = b->entry_s = b->entry_b = 0;
		x->flags = FLAGS_SLOT;
		return 0;
	}
	b->needs_host_flags = want == FLAGS_HOST;
	b->flags_dead = want == 0;
	if (want == FLAGS_SLOT)
		e_save_flags(&x->hot);
	b->guard = offset(x);
	to_stub[n++] = x_guard(x, x->page);
	b->entry_s = offset(x);
	if (x->page2)
		to_stub[n++] = x_guard(x, x->page2);
	if (!x->loop.on)
		poll(x, &to_stub[n++]);
	b->entry_b = offset(x);
	if (x->loop.on) {
		x_loop_enter(x);
		b->loop = (uint16_t)(x->hot.p - b->start);
		poll(x, &to_stub[n++]);
	}
	x->flags = FLAGS_SLOT;
	if (want == FLAGS_HOST) {
		x->live = RFLAGS_ARITH;
		x_need_host(x);
		x->flags = FLAGS_HOST; /* entry_h comes without the slot */
		b->entry_h = offset(x);
	}
	return n;
}

static bool room(const struct xlate *x)
{
	return x->k->hot_end - x->k->hot > (BLOCK_INSNS + 2) * INSN_ROOM &&
	       x->k->cold_end - x->k->cold > (BLOCK_INSNS + 2) * INSN_ROOM &&
	       x->k->blocks < x->k->blocks_max && x->k->straddlers < STRADDLERS;
}

/* The block with its edges and sites, in the arena; NULL when that is full. */
static struct jit_block *keep(struct xlate *x)
{
	uint64_t edges = x->edges * sizeof x->edge[0], sites = x->sites * sizeof x->site[0];
	struct jit_block *b = jit_cache_alloc(x->k, sizeof *b + edges + sites);

	if (!b)
		return NULL;
	x->b.edges = (uint8_t)x->edges;
	x->b.sites = (uint8_t)x->sites;
	x->b.hot_len = (uint16_t)(x->hot.p - x->b.start);
	x->b.valid = true;
	*b = x->b;
	memcpy(jit_edges(b), x->edge, edges);
	memcpy(jit_sites(b), x->site, sites);
	return b;
}

/* Has somebody changed the bytes since they were decoded? */
static bool bytes_changed(const struct xlate *x)
{
	for (const struct insn *i = x->in; i < x->in + x->n; i++) {
		unsigned off = i->gva & 0xfff, n = (unsigned)min_u64(4096 - off, i->z.length);
		const struct guest_mem *m = x->c->env->mem;

		if (memcmp(mem_span(m, x->page->gpa + off, n), i->bytes, n) != 0 ||
		    (n < i->z.length && memcmp(mem_span(m, x->page2->gpa, i->z.length - n),
					       i->bytes + n, i->z.length - n) != 0))
			return true;
	}
	return x->b.peek_to &&
	       memcmp(mem_span(x->c->env->mem, x->page->gpa, 4096) + x->b.peek_from,
		      x->peeked + x->b.peek_from, x->b.peek_to - x->b.peek_from) != 0;
}

/* What the block is made from: bytes from its start on, up to a jump that it follows, and others. */
static void take_extent(struct xlate *x)
{
	const struct insn *last = x->in;

	x->b.peek_from = x->b.peek_to = 0;
	while (!last->followed && last < &x->in[x->n - 1])
		last++;
	x->b.guest_len = (uint16_t)(last->gva + last->z.length - x->b.gva);
	while (++last < &x->in[x->n])
		x_depend(x, last->gva, last->gva + last->z.length);
}

/* Decodes, and sees to it that whoever writes to these bytes from now on kills the block. Other
 * vCPUs have no write access to a watched page, but their slow path writes to what is no code on
 * it: either it sees that the bytes are claimed, or we see that it is under way, or what it
 * wrote. false: the cache is full, or (x->need_stop) the world must be stopped for this. */
static bool take_bytes(struct xlate *x, uint64_t gva)
{
	struct jit_cpu *c = x->c;
	bool stopped = c->p->member.stopping;

	if (stopped)
		jit_watch_page(c, x->page->gpa);
	for (unsigned tries = 0; tries < TAKE_TRIES; tries++) {
		x->n = 0;
		x->page2 = NULL;
		if (!x_decode(x, gva))
			return false;
		if (x->page2 && stopped)
			jit_watch_page(c, x->page2->gpa);
		if (x->page2 && !jit_code_on_page(x->k, x->page2->gpa))
			break;
		x->b.page = jit_ref_to(x->k, x->page);
		x->b.page2 = jit_ref_to(x->k, x->page2);
		take_extent(x);
		x_liveness(x);
		jit_block_claim(x->k, &x->b);
		if (stopped)
			return true;
		if (jit_writer_on(c, x->page->gpa) || (x->page2 && jit_writer_on(c, x->page2->gpa)))
			break;
		if (!bytes_changed(x))
			return true;
	}
	x->need_stop = true;
	return false;
}

/* Entries and body. Again: forgets what was emitted before. */
static unsigned emit_all(struct xlate *x, uint8_t **to_stub)
{
	unsigned stubs;

	x->hot.p = x->k->hot;
	x->cold.p = x->k->cold;
	x->edges = x->sites = x->slows = 0;
	x->marks[0].n = x->marks[1].n = 0;
	x->done = false;
	x->b.loop = 0;
	x->loop.taken = x->loop.broken = x->loop.found = 0;
	x_forget_all(x);
	x_stack_entered(x);
	stubs = put_entries(x, to_stub);
	for (unsigned n = 0; n < x->n; n++) {
		x->live = x->in[n].live_in;
		if (x_stack_adds(x, &x->in[n]))
			continue;
		x_stack_before(x, &x->in[n]);
		emit_one(x, &x->in[n]);
		x_direct_after(x, &x->in[n]);
	}
	if (!x->done) {
		x->end.gva = x->in[x->n - 1].gva + x->in[x->n - 1].z.length;
		x->live = RFLAGS_ARITH;
		x_stack_commit(x);
		x_stack_settle(x, &x->end);
		x_exit_to(x, x_next(x, &x->in[x->n - 1]));
	}
	return stubs;
}

/* A branch with 16-bit operands leads into the first 64 KiB, wherever it stands. */
static bool has_short_branch(const struct xlate *x)
{
	for (const struct insn *i = x->in; i < x->in + x->n; i++)
		if (i->z.operand_width == 16 &&
		    (i->rule->kind == RULE_JMP || i->rule->kind == RULE_JCC ||
		     i->rule->kind == RULE_CALL || i->rule->kind == RULE_LOOP))
			return true;
	return false;
}

/* So that it need not be translated again (template.h). */
static void keep_template(struct xlate *x, uint32_t hash, const struct jit_block *b)
{
	uint8_t bytes[BLOCK_INSNS * 15];
	unsigned n = 0;

	for (const struct insn *i = x->in; n < b->guest_len; n += i->z.length, i++)
		memcpy(bytes + n, i->bytes, i->z.length);
	jit_template_keep(x->k, &(struct jit_template_source){
					.hash = hash,
					.b = b,
					.cold = x->k->cold,
					.hot_marks = &x->marks[0],
					.cold_marks = &x->marks[1],
					.bytes = bytes,
					.peeked = x->peeked,
					.pinned = x->pinned || has_short_branch(x),
				});
}

struct jit_block *jit_translate(struct jit_cpu *c, struct jit_page *page, uint64_t gva,
				uint32_t mode, bool *need_stop)
{
	struct xlate *x = c->vm->xlate;
	uint32_t hash = jit_template_hash(c, page, gva);
	bool wanted;
	uint8_t *to_stub[4];
	unsigned stubs;
	struct jit_block *b;

	*need_stop = false;
	memset(x, 0, offsetof(struct xlate, decoder));
	x->c = c;
	x->vm = c->vm;
	x->k = &c->vm->cache;
	x->mode = mode;
	x->mmu = c->mmu;
	x->cs = page->cs;
	x->step = mode & MODE_STEP;
	x->direct = (mode & MODE_DIRECT) && !x->step;
	x->n = x->edges = x->sites = x->slows = 0;
	x->page = page;
	x->b = (struct jit_block){.gva = gva};
	x->need_stop = false;
	jit_cache_prepare(x->k);
	if (!room(x) || !take_bytes(x, gva)) {
		*need_stop = x->need_stop;
		return NULL;
	}
	x->b.both = x->step && x->in[0].mem &&
		    (x->in[0].mem->actions & ZYDIS_OPERAND_ACTION_MASK_READ) &&
		    (x->in[0].mem->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE);
	wanted = jit_template_wanted(x->k, hash);
	x->hot.marks = wanted ? &x->marks[0] : NULL;
	x->cold.marks = wanted ? &x->marks[1] : NULL;
	x_loop_init(x);
	do
		stubs = emit_all(x, to_stub);
	while (x->direct && x_loop_again(x));
	x_slow_paths(x);
	x->cold.marks = NULL; /* stubs are made anew for each copy */
	jit_block_put_stub(x->k, &x->b, &x->cold);
	for (unsigned n = 0; n < stubs; n++)
		e_patch(to_stub[n], jit_block_stub(x->k, &x->b, true));
	b = keep(x);
	if (!b)
		return NULL;
	jit_edges_put_stubs(x->k, b, &x->cold);
	if (wanted)
		keep_template(x, hash, b);
	jit_perfmap_block(x->k, b, x->k->cold, x->cold.p);
	jit_block_made(x->k, b, x->cold.p);
	return b;
}
