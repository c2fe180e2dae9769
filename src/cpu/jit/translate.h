/* translate: the state of one block's translation, shared by translate_slow.c (the block),
 * decode_slow.c, branches_slow.c (control flow), memory_slow.c (operands in memory) and
 * moves_slow.c (instructions that are rewritten by hand). */
#pragma once

#include "cpu/jit/core.h"
#include "cpu/jit/insn.h"

#define OFF(field) ((uint32_t)offsetof(struct jit_cpu, field))
#define OFF_GPR(n) (OFF(st.gpr) + 8 * (uint32_t)(n))

/* Room that one instruction may take, hot or cold; its blocks end before they reach it. */
#define INSN_ROOM 512

struct slow_path { /* an access whose TLB check failed */
	uint8_t *jump, *back;
	const struct insn *i;
	uint32_t site, tag; /* tag: displacement of the entry's tag off r13 */
	bool direct;        /* instead: its lane is another than the guess, */
	uint8_t reg;        /* and in this register; */
	int16_t rsp_by;     /* RSP is so much more than r15 */
};

/* In a direct block: what r13, r14 or a slot (jit_cpu.held) holds. An address base + scale * index
 * was found to be in a lane. This is the lane's delta, plus the parts of the address that `added`
 * says. The registers may have moved since, by constants. */
struct x_held {
	bool valid;
	uint8_t base, index, scale; /* guest registers, X_*, or R_NONE */
	uint8_t added;
	int32_t off; /* what was added has moved by this */
	int64_t at;  /* X_CONST: which */
	int64_t far; /* how far from the lane the address may be */
	unsigned used;
};
enum { ADDED_BASE = 1, ADDED_INDEX = 2 };
#define X_SEG(s) (16u + (s)) /* bases that are no registers */
#define X_CONST  32u
#define X_HELD   (2 + HELD_SLOTS)

/* A block that jumps back to its start (loop_slow.c). It is translated first without, which finds
 * out what it checks, then with this held where its body begins. */
struct x_loop {
	bool on, slots, given_up;
	struct x_want {
		struct x_held held;
		int64_t disp;
	} want[HELD_SLOTS], head[HELD_SLOTS]; /* head: r13, r14, and with slots each in its own */
	unsigned length;        /* in instructions; of a block that is none, all of it */
	unsigned wants, found;  /* found: before the last jump back */
	unsigned taken, broken; /* jumps back that could be; bits: heads that were lost */
	const uint8_t *top;
};

/* In a direct block: is stack_delta that of the lane that RSP is in, or at most slack bytes beside? */
struct x_stack {
	bool known;
	int64_t slack;
	int16_t by; /* what the guest's RSP is more than r15, which PUSH and POP leave alone */
};

struct xlate {
	struct jit_cpu *c;
	struct jit_vm *vm;
	struct jit_cache *k;
	uint32_t mode;
	enum jit_mmu mmu;
	struct jit_cs cs;
	bool step;
	bool direct;        /* memory through the window (direct_slow.c) */
	struct host_mem at; /* where x_check found the operand */
	const struct insn *at_insn;
	struct x_held held[X_HELD]; /* r13, r14, slots */
	unsigned at_held; /* which of them x->at goes by, and is proven by; X_HELD: none */
	uint16_t narrow;  /* guest registers that hold -2^31 to 2^32 - 1 */
	struct x_stack stack;
	unsigned uses;
	struct x_loop loop;
	/* Not in a direct block: guest registers R13 to R15 of which r13 and r14 are copies, or 0. */
	uint8_t kept[2];
	struct emit hot, cold;
	uint8_t flags; /* where the guest's flags are now: FLAGS_* */
	bool done;     /* control does not fall out of the last instruction */
	bool pinned;   /* the code is for this address alone (template.h) */
	bool need_stop;

	ZydisDecoder decoder;
	struct insn in[BLOCK_INSNS], peek,
		end;          /* end: an empty one behind the block, for its address */
	uint8_t peeked[4096]; /* the block's page, from when something beside the block was read */
	unsigned n;
	uint16_t live; /* flags that what is being emitted must keep, or put into the slot */
	struct jit_page *page2;

	struct jit_page *page;
	struct jit_block b; /* as it will be in the arena */
	struct jit_edge edge[EDGE_MAX];
	unsigned edges;
	struct jit_site site[BLOCK_INSNS * 3];
	unsigned sites;
	struct slow_path slow[BLOCK_INSNS * 3 + HELD_SLOTS];
	unsigned slows;
	struct emit_marks marks[2]; /* of hot and cold, if it shall become a template */
};

static inline bool x_code64(const struct xlate *x)
{
	return x->mode & MODE_CODE64;
}

/* i's address, and the one after it, as RIP has them. */
static inline uint64_t x_rip(const struct xlate *x, const struct insn *i)
{
	return x_code64(x) ? i->gva : (uint32_t)(i->gva - x->cs.base);
}

static inline uint64_t x_next(const struct xlate *x, const struct insn *i)
{
	uint64_t next = x_rip(x, i) + i->z.length;

	return x_code64(x) ? next : (uint32_t)next;
}

/* A thunk's place in the writable mapping, for jumps from there. */
static inline const uint8_t *x_thunk(const struct xlate *x, const void *rx)
{
	return (const uint8_t *)rx - (x->k->rx - x->k->rw);
}

/* --- decode_slow.c --- */
/* Fills in[], n and page2 from gva. false: the cache is full. Raises what fetching the first
 * instruction raises. */
bool x_decode(struct xlate *x, uint64_t gva);
bool x_ends_block(const struct insn *i);
/* What was read beside the block has to be as it is now when the block is done. */
void x_peek_page(struct xlate *x);
/* One instruction of the block's page, beside the block. false: it cannot be told. */
bool x_decode_on_page(struct xlate *x, uint64_t gva, struct insn *i);

/* --- flags_slow.c --- */
/* Fills i's reads, sets and touches, the rule being known. */
void x_flags_of(struct insn *i);
/* The block was made from these bytes of its page, too. */
void x_depend(struct xlate *x, uint64_t from, uint64_t to);
/* Fills live_in and live_out of all of in[]. */
void x_liveness(struct xlate *x);

/* --- branches_slow.c --- */
void x_exit_to(struct xlate *x, uint64_t target);
/* jump: displacement of a jump or call to target, which is linked later. Not in step mode. */
void x_put_edge(struct xlate *x, uint8_t *jump, uint64_t target);
/* ja to the returned place when a near branch to r14 faults. Uses r13. */
uint8_t *x_check_target(struct xlate *x, struct emit *e);
void x_indirect_target(struct xlate *x, const struct insn *i); /* r14 = i's operand */
/* Leaves for a helper that does not come back here. */
void x_leave_to(struct xlate *x, struct emit *e, const struct insn *i, jit_helper *h, uint64_t arg);
uint64_t x_branch_target(const struct xlate *x, const struct insn *i);
bool x_is_past_limit(const struct xlate *x, const struct insn *i);
void x_jcc(struct xlate *x, const struct insn *i);
void x_jmp(struct xlate *x, const struct insn *i);
void x_call(struct xlate *x, const struct insn *i);
void x_ret(struct xlate *x, const struct insn *i);
void x_loop(struct xlate *x, const struct insn *i);

/* --- system_slow.c --- */
bool x_system(struct xlate *x, const struct insn *i);        /* false: it takes its helper */
void x_mov_from_sreg(struct xlate *x, const struct insn *i); /* to a general register */
bool x_mov_from_cr(struct xlate *x, const struct insn *i);   /* as x_system */

/* --- calls_slow.c --- */
bool x_is_paired(const struct xlate *x, const struct insn *i);
void x_call_paired(struct xlate *x, const struct insn *i);
void x_ret_paired(struct xlate *x, const struct insn *i, unsigned drop);

/* --- translate_slow.c --- */
/* Is p still mapped where it was? The displacement of the jump that is taken if not. */
uint8_t *x_guard(struct xlate *x, const struct jit_page *p);

/* --- flags (translate_slow.c) --- */
/* Afterwards the slot holds the flags, or all are dead; the host's may be clobbered. */
void x_need_slot(struct xlate *x);
bool x_wants_host(const struct insn *i);
void x_need_host(struct xlate *x); /* uses r13 */
static inline void x_clobber(struct xlate *x)
{
	x->flags &= (uint8_t)~FLAGS_HOST;
}

/* r13 and r14 are used for something else. */
static inline void x_forget_kept(struct xlate *x)
{
	x->kept[0] = x->kept[1] = 0;
}

/* --- memory_slow.c. All of these need FLAGS_SLOT and clobber the host's flags. --- */
/* r14 = effective address of op, before segmentation; extra is added to the displacement. */
void x_ea(struct xlate *x, const struct insn *i, const ZydisDecodedOperand *op, int extra);
/* r14 = linear address of the effective address in r14. */
void x_linear(struct xlate *x, const struct insn *i, enum x86_sreg seg, unsigned size,
	      uint32_t access);
/* at, r14 = host address of the linear address in r14, checked for access (SITE_READ|SITE_WRITE|
 * SITE_STACK|SITE_MASKED). In step mode: of the bounce buffer. */
void x_check(struct xlate *x, const struct insn *i, unsigned size, uint32_t access);
/* All three for a memory operand. */
void x_mem(struct xlate *x, const struct insn *i, const ZydisDecodedOperand *op, uint32_t access,
	   int extra);
/* at = the stack at rSP + offset; r13 is not part of it */
void x_stack(struct xlate *x, const struct insn *i, int offset, unsigned size, uint32_t access);
/* rSP += by; flags untouched */
void x_stack_move(struct xlate *x, int by);
/* After the instruction wrote to where x_check pointed (step mode writes it back). */
void x_written(struct xlate *x);
/* Bytes that i checks at op. */
unsigned x_access_size(const struct insn *i, const ZydisDecodedOperand *op);
enum x86_sreg x_seg(const ZydisDecodedOperand *op);
void x_slow_paths(struct xlate *x);
void x_store_rip(struct xlate *x, struct emit *e, const struct insn *i);

/* --- direct_slow.c: these see to the flags by themselves --- */
void x_direct_mem(struct xlate *x, const struct insn *i, const ZydisDecodedOperand *op,
		  unsigned size);
void x_direct_stack(struct xlate *x, const struct insn *i, int offset);
void x_direct_check(struct xlate *x, const struct insn *i, uint32_t access);
/* at becomes r14 alone. */
void x_direct_collapse(struct xlate *x);
/* MOVS and STOS, which the helper h does otherwise; false: h does it always. */
bool x_direct_string(struct xlate *x, const struct insn *i, jit_helper *h, uint64_t arg);
/* For one MOVS, LODS or STOS: the delta of RSI in r13, of RDI in r14. Clobbers the host's flags. */
void x_direct_element(struct xlate *x, const struct insn *i, bool loads, bool stores);
void x_direct_slow_path(struct xlate *x, const struct slow_path *s);
/* host (r13 or r14) = what w says; no flags are to be kept. */
void x_direct_hold(struct xlate *x, const struct insn *i, unsigned host, const struct x_want *w);

/* --- held_slow.c --- */
/* Code that uses r13 or r14, or both, for something else; or that keeps nothing. */
void x_forget(struct xlate *x, unsigned host);
void x_forget_both(struct xlate *x);
void x_forget_all(struct xlate *x);
/* RAX was somewhere else for a while. */
void x_forget_rax(struct xlate *x);
bool x_held_same(const struct x_held *a, const struct x_held *b); /* the same address */
/* i is emitted: what it leaves of held. */
void x_direct_after(struct xlate *x, const struct insn *i);
/* i went well with x->at as it is. */
void x_direct_proven(struct xlate *x, const struct insn *i);
/* Host registers (bit n: register n) that meanwhile held something else. */
void x_direct_used(struct xlate *x, uint16_t hosts);
/* What the block (of a loop: the loop) does to guest register g: nothing, adds constants, else. */
enum x_change { X_STAYS, X_MOVES, X_CHANGES };
enum x_change x_change_of(const struct xlate *x, unsigned g);
#define X_FAR      (INT64_C(4) << 30)
#define X_LOOP_FAR (INT64_C(3) << 30)

/* --- loop_slow.c --- */
void x_loop_init(struct xlate *x); /* all is decoded */
void x_loop_want(struct xlate *x, const struct x_want *w);
/* What stands before the loop's top, flags being in the slot or dead. */
void x_loop_enter(struct xlate *x);
/* A jump to target, with the flags as x->flags says, may go here; NULL: it takes an edge. */
const uint8_t *x_loop_back(struct xlate *x, uint64_t target);
/* The block is to be translated again. */
bool x_loop_again(struct xlate *x);
/* --- direct_slow.c --- */
/* The host instruction at `at` may trap. */
void x_site(struct xlate *x, const struct insn *i, const uint8_t *at, uint8_t borrow);

/* A block, or a call's return, is entered. */
void x_stack_entered(struct xlate *x);
/* Before i, which leaves the block for another: stack_delta is what that may rely on. */
void x_stack_settle(struct xlate *x, const struct insn *i);
void x_stack_unknown(struct xlate *x);
void x_stack_moved(struct xlate *x, int64_t by);
/* rSP += by, later: rSP is so much more than r15 until x_stack_commit. */
void x_stack_later(struct xlate *x, int by);
void x_stack_commit(struct xlate *x);
/* Before i is emitted: r15 is RSP, unless i can do without. */
void x_stack_before(struct xlate *x, const struct insn *i);
/* i adds a constant to RSP, and that is all that anybody sees of it: done. */
bool x_stack_adds(struct xlate *x, const struct insn *i);
/* A MOV of [at] came through, so that RSP is not far from its lane if it is off RSP. */
void x_stack_used(struct xlate *x);

/* --- moves_slow.c --- */
void x_mov(struct xlate *x, const struct insn *i);
void x_push(struct xlate *x, const struct insn *i);
void x_pop(struct xlate *x, const struct insn *i);
void x_lea(struct xlate *x, const struct insn *i);
void x_xlat(struct xlate *x, const struct insn *i);
void x_leave(struct xlate *x, const struct insn *i);
void x_bt(struct xlate *x, const struct insn *i);
void x_copy(struct xlate *x, const struct insn *i);
/* MOVS, STOS and LODS without REP in 64-bit code are translated in line; arg is the helper's,
 * which does it where DF is set. Not in step mode. */
bool x_string_once(const struct insn *i);
void x_string(struct xlate *x, const struct insn *i, unsigned size, enum x86_sreg seg,
	      uint64_t arg);
/* host register = guest register, and back; size 2 keeps the upper bits, 4 zero-extends */
void x_get(struct xlate *x, unsigned host, unsigned guest);
void x_put(struct xlate *x, unsigned guest, unsigned host, unsigned size);
/* mov host, [at] zero-extended from size bytes; mov [at], host */
void x_load(struct xlate *x, unsigned host, unsigned size);
void x_store(struct xlate *x, unsigned host, unsigned size);
/* mov [at], v (sign-extended); may use r13 */
void x_store_imm(struct xlate *x, int64_t v, unsigned size);
/* Calls a helper with the given argument; ends the block unless it is PLAIN. */
void x_helper(struct xlate *x, const struct insn *i, jit_helper *h, uint64_t arg);
/* Packs i's operands for a helper; leaves c->ea and c->ea_seg for a memory operand. */
uint64_t x_helper_arg(struct xlate *x, const struct insn *i, uint32_t imm);
