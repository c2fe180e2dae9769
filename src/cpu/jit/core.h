/* core: the run loop's own state, and the inner interfaces of the translator. */
#pragma once

#include "base/spin.h"
#include "cpu/jit/cache.h"
#include "cpu/jit/steal.h"

/* Why translated code, or a helper, came back to the run loop. */
enum jit_leave { LEAVE_LOOKUP, LEAVE_EDGE, LEAVE_RETURN, LEAVE_RAISE, LEAVE_STEP, LEAVE_SHUTDOWN };

/* What set_debug asked for (debug.c). */
struct jit_debug {
	struct engine_debug want;
	bool watches;              /* want has points that are not for execution */
	bool on;                   /* anything to do for the run loop */
	bool hit;                  /* vcpu.hit is to be reported */
	struct engine_debug built; /* whose points the blocks were made for */
};
struct windows;
struct pcids;

#define TLB_LIST   1024
#define ITLB_LIST  256
#define WRITE_HASH (1u << 15)
#define KEYED_LIST 64
struct jit_priv {
	void *env[5]; /* __builtin_setjmp buffer of the run loop */
	enum jit_leave leave;
	bool single;    /* engine->step: stop after one instruction */
	bool step_once; /* the next instruction goes through the bounce buffer */
	struct jit_page *itlb_page[3][JIT_ITLB_SIZE];
	bool itlb_global[3][JIT_ITLB_SIZE];
	uint16_t itlb_list[3][ITLB_LIST]; /* as tlb_list */
	uint32_t itlb_filled[3];
	struct jit_cs tables_cs[3];     /* as jit_cpu.tables_mode */
	uint16_t tlb_list[3][TLB_LIST]; /* slots filled with non-global pages since a flush */
	uint32_t tlb_filled[3];         /* > TLB_LIST: the list overflowed */
	uint64_t tlb_large;             /* gigabytes with entries of large pages, hashed (tlb.c) */
	/* Bit n: a page whose number is n modulo WRITE_HASH may have a write tag. */
	uint64_t tlb_written[WRITE_HASH / 64];
	/* Slots filled with TLB_KEYED since PKRU was written (tlb_keyed_slot); > KEYED_LIST: more. */
	uint16_t keyed_list[KEYED_LIST];
	uint32_t keyed_filled;
	/* the bounce buffer's use by the instruction under way (step.c) */
	uint64_t bounce_gva;
	uint32_t bounce_site;
	uint8_t *bounce_at;
	uint64_t bounce_active;  /* of a masked vector operand: bit n for byte n */
	uint64_t xsave_mask;     /* components kept for the guest */
	_Atomic uint32_t wake;   /* futex: counts kicks and interrupts */
	_Atomic uint32_t asleep; /* in FUTEX_WAIT, or about to be */
	struct spin spin;        /* before that */
	_Atomic bool unhalted;   /* by KVM's hypercall */
	struct world_member member;
	bool locked; /* it holds the code cache's lock */
	/* The page, plus 1, that this vCPU may be writing to beside the code that is on it; 0: none. */
	_Atomic uint64_t writing;
	/* What others, with the world stopped, want done before this vCPU moves on. */
	gpa_t unwrite;     /* jit_tlb_unwrite this page ... */
	uint32_t unwrites; /* ... if it is one; more: take write access from all */
	bool flushed;      /* the code cache was thrown away */
	struct windows *win;
	struct pcids *pcids;
	struct steal steal;
	uint64_t stepped, misses;
	uint32_t opmask_off, ymm_off; /* of these components in st.xsave */
	uint32_t pkru_off; /* likewise, in the state of load and store; 0: there is none */
	bool stepping;     /* in step mode's code: operands are in the bounce buffer */
	struct jit_debug debug;
};

/* start_slow.c: INIT and SIPI that have arrived. Call jit_fpu_leave first. */
void jit_take_start(struct jit_cpu *c);

/* engine_slow.c */
/* Waits until the wake count is no longer seen. */
void jit_sleep(struct jit_cpu *c, uint32_t seen);
void jit_fpu_enter(struct jit_cpu *c);
/* World stopped. The pages written since the last call; more than WRITTEN_MAX: too many to list. */
uint32_t jit_written_take(struct jit_vm *vm, gpa_t page[WRITTEN_MAX]);
/* core.c: runs until something for the caller happens; single: one instruction. */
enum vcpu_stop jit_run_loop(struct jit_cpu *c, bool single);

/* The site word that translated code hands to the slow path of an access. */
#define SITE_SIZE(s)   ((s)&0xfff)
#define SITE_WRITE     0x1000u
#define SITE_READ      0x2000u
#define SITE_STACK     0x4000u /* faults of addressing are #SS, not #GP */
#define SITE_ALIGNED   0x8000u /* #GP where gva is no multiple of the size, before any #PF */
#define SITE_MMU_SHIFT 16
#define SITE_MMU(s)    ((enum jit_mmu)((s) >> SITE_MMU_SHIFT & 3))
#define SITE_MASKED    0x40000u  /* fault only for active elements (AVX-512, VMASKMOV) */
#define SITE_X87       0x80000u  /* x87 or MMX: a pending exception comes before any #PF */
#define SITE_FLAT      0x100000u /* 32-bit, base 0: an operand past 4 GiB is past the limit */

/* stop.c: world.h for a vCPU and what it derived from the code cache */
void jit_still(struct jit_cpu *c, enum world_state how);
void jit_move(struct jit_cpu *c);
void jit_rest(struct jit_cpu *c);
void jit_stop(struct jit_cpu *c, enum world_state how);
void jit_go(struct jit_cpu *c);
void jit_cache_lock(struct jit_cpu *c);
void jit_cache_unlock(struct jit_cpu *c);
void jit_release(struct jit_cpu *c); /* what a helper that raised held of these */
/* World stopped: nobody writes to gpa's page but through the slow path, and devices tell. */
void jit_watch_page(struct jit_cpu *c, gpa_t gpa);
/* Before a look at whether bytes on a watched page are code, and a write if not. */
void jit_writing(struct jit_cpu *c, gpa_t gpa);
void jit_not_writing(struct jit_cpu *c);
bool jit_writer_on(const struct jit_cpu *c, gpa_t gpa); /* another vCPU's jit_writing */
/* Throws the code cache away, at a safe point out of translated code; not if that happened since
 * it had been flushed so many times. */
void jit_flush_all(struct jit_cpu *c, uint64_t flushes);

/* tlb.c */
void jit_tlb_init(struct jit_cpu *c);
/* After code appeared on gpa's page: writes to it must come through the slow path. */
void jit_tlb_unwrite(struct jit_cpu *c, gpa_t gpa);
void jit_tlb_unwrite_all(struct jit_cpu *c);
void jit_itlb_clear(struct jit_cpu *c, enum jit_mmu m, bool global_too);
/* The slot was filled with a page that is not global, or the user's. */
void jit_itlb_note(struct jit_cpu *c, enum jit_mmu m, unsigned slot);
void jit_jump_clear(struct jit_cpu *c, enum jit_mmu m);
noreturn void jit_leave(struct jit_cpu *c, enum jit_leave why);
/* Called by translated code (thunks.c). */
uint8_t *jit_miss(struct jit_cpu *c, uint64_t gva, uint32_t site);
bool jit_x87_pending(const struct jit_cpu *c);
/* For a SITE_FLAT operand whose byte last is the last one accessed. */
void jit_check_flat(struct jit_cpu *c, uint64_t gva, unsigned last, uint32_t site);
uint64_t jit_seg_thunk(struct jit_cpu *c, uint64_t offset, uint32_t arg);

/* step.c: operands through the bounce buffer */
uint8_t *jit_bounce_in(struct jit_cpu *c, uint64_t gva, uint32_t site);
void jit_bounce_out(struct jit_cpu *c);
void jit_masked_in(struct jit_cpu *c, enum jit_mmu m, uint64_t gva, uint8_t *to, unsigned size,
		   bool write);
/* masked_slow.c: which bytes of its memory operand the masked instruction at st.rip touches
 * (bit n: byte n), from the mask in st.xsave. */
uint64_t jit_masked_bytes(struct jit_cpu *c, unsigned size);

/* debug.c: a debugger's points. While any is for data, the soft TLB gives no direct access to its
 * page, and accesses that touch it are done in step mode. Blocks end before one for execution. */
static inline bool jit_debug_ends_block(const struct jit_cpu *c, uint64_t gva)
{
	for (unsigned n = 0; n < c->p->debug.want.points; n++)
		if (c->p->debug.want.point[n].kind == DEBUG_EXEC &&
		    c->p->debug.want.point[n].gva == gva)
			return true;
	return false;
}
/* A point for execution at st.rip; noted as hit. */
/* Blocks are everybody's: the same for a point of any vCPU. */
bool jit_debug_ends_any(const struct jit_vm *vm, uint64_t gva);
bool jit_debug_here(struct jit_cpu *c);
/* Is any byte of [gva, gva + len) watched for such an access? A write watch does not mind reads. */
bool jit_debug_watched(const struct jit_cpu *c, uint64_t gva, uint64_t len, bool write);
/* A helper accesses it: in step mode it is noted as hit, else the instruction begins anew there. */
void jit_debug_touch(struct jit_cpu *c, uint64_t gva, uint64_t len, bool write);
void jit_debug_stepped(struct jit_cpu *c); /* the step is done */

/* r13d = the jump table's slot for r14, times its size; clobbers the flags. */
static inline void e_jump_slot(struct emit *e)
{
	e8(e, 0x45); /* imul r13d, r14d, JIT_JUMP_HASH */
	e8(e, 0x69);
	e8(e, 0xee);
	e32(e, JIT_JUMP_HASH);
	e8(e, 0x41); /* shr r13d, 28 - JIT_JUMP_BITS */
	e8(e, 0xc1);
	e8(e, 0xed);
	e8(e, 28 - JIT_JUMP_BITS);
	e_alu_imm(e, false, 4, R_13, (JIT_JUMP_SIZE - 1) * 16);
}
_Static_assert(sizeof(struct jit_jump) == 16, "e_jump_slot");

/* thunks.c */
void jit_thunks_make(struct jit_cache *k);
const void *jit_thunk_for(const struct jit_cache *k, jit_helper *h, enum jit_helper_kind *kind);

enum jit_helper_kind jit_helper_kind(jit_helper *h);

/* translate_slow.c, locked or with the world stopped: the block at gva, whose code page is page;
 * NULL when the cache is full, or when the world must be stopped for this one. Raises #PF if its
 * first instruction cannot be fetched. */
struct jit_block *jit_translate(struct jit_cpu *c, struct jit_page *page, uint64_t gva,
				uint32_t mode, bool *need_stop);

/* signal_slow.c */
WARN_UNUSED int jit_signals_init(struct err *e);
extern __thread struct jit_cpu *jit_current;
