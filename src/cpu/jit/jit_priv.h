/* jit_priv: what the files of the JIT engine share. docs/jit.md is the tour.
 *
 * The rule of the house: while translated code or a "quick" helper runs, the guest's
 * vector, x87 and MXCSR state is in the host's registers. Quick files (all of
 * this folder but those named *_slow.c) are compiled with -mgeneral-regs-only and call
 * nothing of libc that may touch vector registers (memcpy included: use jit_copy).
 * Whatever else must run (devices, libc, the decoder, system calls are fine) is called
 * between jit_fpu_leave() and the next entry.
 *
 * Faults: a helper raises a guest exception with jit_raise*(), which does not return:
 * it jumps back to the run loop, dropping every frame in between. So helpers hold no
 * lock and no memory when they raise, and change no guest state before the last thing
 * that can raise (or what they changed is architecturally visible, as in a rep string).
 *
 * On entry of a helper st.gpr[], st.rip (the instruction's own address, or the next
 * one's where the helper's comment says so) and jc->flags are current. */
#pragma once

#include <stdatomic.h>
#include <stddef.h>
#include <stdnoreturn.h>

#include "cpu/engine.h"

/* MMU index: selects the TLB in use, baked into translated code. */
enum jit_mmu { MMU_USER, MMU_KERNEL, MMU_KERNEL_AC /* SMAP off by EFLAGS.AC */, MMU_COUNT = 4 };

#define JIT_TLB_BITS 11
#define JIT_TLB_SIZE (1u << JIT_TLB_BITS)

/* One page for one MMU index. An access of n bytes at gva hits when gva - tag, unsigned,
 * is at most 4096 - n; its host address is then (gva - tag) + hva. Unused tags lie so that
 * no gva of this slot can hit. */
struct jit_tlb_entry {
	uint64_t tag_read, tag_write;
	uint64_t hva; /* host address of the page */
	uint64_t gpa; /* of the page, with TLB_* */
};

#define TLB_GLOBAL   1u
#define TLB_LARGE    2u /* part of a large page */
#define TLB_WRITABLE 4u /* writes are allowed, though the tag may not say so (code) */
#define TLB_KEYED    8u /* a user page whose protection key is not 0: what PKRU says decided */

struct jit_tlb_row { /* 128 bytes, so that every field is a disp8 off the row's middle */
	struct jit_tlb_entry e[MMU_COUNT];
};

/* What block translation depends on, besides the page. Blocks of another mode are not
 * found. */
#define MODE_USER    0x0001u /* CPL 3 */
#define MODE_CODE64  0x0002u /* CS.L under LMA */
#define MODE_CODE32  0x0004u /* CS.D; neither: 16-bit */
#define MODE_STACK32 0x0008u /* SS.B (ignored in 64-bit) */
#define MODE_SEGS    0x0010u /* CS/DS/ES/SS are not all flat: bases, limits, types are checked */
#define MODE_AC      0x0020u /* supervisor with SMAP overridden */
#define MODE_NOFPU   0x0040u /* CR0.EM or TS: x87 traps #NM (see helper for SSE) */
#define MODE_NOSSE   0x0080u /* CR0.EM, or no CR4.OSFXSR: SSE is #UD */
#define MODE_AVX     0x0100u /* CR4.OSXSAVE and XCR0 allow AVX */
#define MODE_AVX512  0x0200u
#define MODE_STEP    0x0400u /* one instruction, memory through the bounce buffer */
#define MODE_REAL    0x0800u /* real or virtual-8086 mode */
#define MODE_ALIGN   0x1000u /* alignment is checked (#AC): all code runs in step mode */
#define MODE_PAGING  0x2000u
#define MODE_EM      0x4000u  /* CR0.EM: MMX is #UD */
#define MODE_NOWAIT  0x8000u  /* CR0.TS and MP: WAIT is #NM */
#define MODE_LA57    0x10000u /* canonical addresses have 57 bits */
#define MODE_DIRECT  0x20000u /* memory through the address space's window (window.h) */

/* Instruction TLB: a guest-virtual code page maps to slot (gva >> 12) % size. Each pair of
 * (gva page, gpa page, mode) that ever ran has an id; the guard at a block's entry compares
 * the slot's id with its own page's. */
#define JIT_ITLB_SIZE 4096u

/* Indirect branch targets. Functions are aligned, so low bits alone would use few slots. */
#define JIT_JUMP_BITS 12
#define JIT_JUMP_SIZE (1u << JIT_JUMP_BITS)
#define JIT_JUMP_HASH 0x9e3779b1u
struct jit_jump {
	uint64_t gva;
	const void *code; /* the block's guarded entry */
};

static inline unsigned jit_jump_slot(uint64_t gva)
{
	return (uint32_t)gva * JIT_JUMP_HASH >> (32 - JIT_JUMP_BITS);
}

/* The code segment where its base and limit count (MODE_SEGS); else 0 and 4 GiB. Blocks are
 * found by linear address, page and mode, and by this. */
struct jit_cs {
	uint32_t base, limit;
};

#define LANES      32 /* of guest user addresses, gva >> 42 (window.h) */
#define HELD_SLOTS 6

struct jit_vm;

struct jit_exception {
	uint8_t vector;
	bool has_error;
	uint32_t error;
};

struct jit_component { /* of the XSAVE area, as CPUID has it */
	uint32_t offset, size;
	bool aligned; /* to 64 bytes in compacted format */
	bool known;   /* looked up already */
};

struct jit_cpu {
	/* GS points at the TLB; the rest is reached by displacement. */
	struct jit_tlb_row tlb[JIT_TLB_SIZE];

	struct jit_cpu *self;
	struct x86_state st; /* gpr[] holds the guest's registers outside translated code */
	uint16_t flags;      /* arithmetic flags, packed as LAHF;SETO AL leaves AX (jit_flags_*) */
	_Atomic uint32_t attention; /* nonzero: translated code leaves for the run loop */
	_Atomic bool kicked, irq_hint;
	uint32_t mode;            /* MODE_*: derived from st by jit_mode_update() */
	enum jit_mmu mmu;         /* likewise */
	struct jit_cs cs;         /* likewise */
	bool fpu_live;            /* the guest's vector state is in the host registers */
	bool delivering;          /* an event is being delivered (6.15, double faults) ... */
	uint8_t delivering_class; /* ... of this class (deliver.c) */
	bool no_trap;             /* the instruction cleared TF before its single-step trap */
	uint8_t dr6_hits;         /* data breakpoints touched that are not reported yet */
	bool committed; /* the helper has changed state, and cannot begin anew (debug.c) */
	struct jit_exception exc;           /* under delivery or raised */
	uint64_t tsc_offset;                /* guest TSC = host TSC + this */
	uint64_t frozen_tsc;                /* the guest's, while it stands still */
	struct jit_component component[10]; /* fpu_slow.c's */
	uint32_t pkru;                      /* st.xsave has none while in the engine */
	uint8_t phys_bits;                  /* physical address width that CPUID offers */
	bool gib_pages;                     /* CPUID offers 1G pages */
	uint32_t cr4_offered;               /* bits that CPUID lets the guest set */
	uint64_t ea;     /* memory operand of the helper being called: offset in ... */
	uint8_t ea_seg;  /* ... this segment (enum x86_sreg) */
	uint32_t pauses; /* PAUSEs until others get the host's CPU (h_pause) */

	struct vcpu vcpu;
	struct jit_vm *vm;
	const struct engine_env *env;
	struct jit_priv *p; /* core.c's own, out of translated code's reach */

	/* Translated code's own; see docs/jit.md. */
	uint32_t tables_mode[MMU_COUNT]; /* for which this index's jump and instruction TLBs are */
	uint64_t tmp[4];                 /* scratch within one guest instruction */
	uint64_t host_rsp;               /* stack pointer of jit_enter's frame */
	uint64_t host_low;               /* how far translated code's calls may move it */
	uint64_t kept_rsp;               /* where it stood when C was called */
	/* The calls on it (calls_slow.c): where those of the mode under way start; that mode; and, while
	 * the guest's kernel runs, where its user's end, and their mode. user_rsp 0: forgotten. */
	uint64_t calls_top, user_rsp;
	uint32_t calls_mode, user_mode;
	uint32_t itlb_id[3][JIT_ITLB_SIZE]; /* id of the code page mapped there; 0: none */
	struct jit_jump jump[3][JIT_JUMP_SIZE];
	uint8_t bounce[256] __attribute__((aligned(64))); /* an operand that is not plain RAM */

	/* Of the current window, host minus guest address, by lane (window.h). */
	uint64_t delta[LANES];
	/* Of the lane that RSP is in (or not far from, see window.h): what blocks in a window may rely
	 * on when they are entered. */
	uint64_t stack_delta;
	/* What translated code keeps while it goes round a loop (loop_slow.c). */
	uint64_t held[HELD_SLOTS];
};

/* --- flags: six arithmetic bits in jc->flags, the rest in st.rflags (whose arithmetic
 * bits are stale while in the engine) --- */
static inline uint32_t jit_flags_get(const struct jit_cpu *c) /* the whole RFLAGS */
{
	return ((uint32_t)c->st.rflags & ~RFLAGS_ARITH) | ((c->flags >> 8) & 0xd5) |
	       ((c->flags & 1u) << 11) | RFLAGS_FIXED;
}

static inline void jit_flags_set_arith(struct jit_cpu *c, uint32_t rflags)
{
	c->flags = (uint16_t)((rflags & 0xd5) << 8 | 0x200 | ((rflags >> 11) & 1));
}

/* --- core.c: leaving helpers --- */
noreturn void jit_raise(struct jit_cpu *c, enum x86_vector v); /* no error code */
noreturn void jit_raise_err(struct jit_cpu *c, enum x86_vector v, uint32_t error);
noreturn void jit_raise_pf(struct jit_cpu *c, uint64_t gva, uint32_t error); /* sets CR2 */
noreturn void jit_shutdown(struct jit_cpu *c);                               /* triple fault */

/* Saves the guest's vector state to st.xsave if it is live in the host registers, and gives
 * C code a clean FPU. It is restored at the next entry. */
void jit_fpu_leave(struct jit_cpu *c);

/* Recomputes mode and mmu; call after changing CPL, CS, SS, DS, ES, CR0, CR4, EFER, XCR0,
 * or RFLAGS.AC/VM. Cheap. */
void jit_mode_update(struct jit_cpu *c);

static inline unsigned jit_cpl(const struct jit_cpu *c)
{
	return (c->st.seg[X86_SS].attr >> SEG_DPL_SHIFT) & 3; /* SS.DPL is the CPL (SDM 5.5) */
}

static inline bool jit_long_mode(const struct jit_cpu *c)
{
	return c->st.efer & EFER_LMA;
}

static inline bool jit_code64(const struct jit_cpu *c)
{
	return c->mode & MODE_CODE64;
}

/* Where the instruction at st.rip lies. */
static inline uint64_t jit_linear_rip(const struct jit_cpu *c)
{
	return jit_code64(c) ? c->st.rip : (uint32_t)(c->st.rip + c->cs.base);
}

/* --- tlb.c: guest-virtual memory from C. size/len in bytes; may cross pages; reaches
 * MMIO. All raise #PF (or #GP/#SS for a non-canonical address, ss says which). --- */
enum jit_access { ACC_READ = 0, ACC_WRITE = 1, ACC_FETCH = 2 };

/* An access touches data breakpoints (17.2.4); those here see to it by themselves. */
void jit_watch(struct jit_cpu *c, uint64_t gva, unsigned len, bool write);
void jit_watch_port(struct jit_cpu *c, uint16_t port, unsigned size);

/* Raises #AC where an access in ring 3 must be aligned and is not; as AMD's processors do it, before
 * any #PF, and for vectors to 16 bytes at most. */
static inline void jit_check_aligned(struct jit_cpu *c, enum jit_mmu m, uint64_t gva, unsigned size)
{
	unsigned align = size > 16 ? 16 : size & (size - 1) ? 8 : size;

	if ((c->mode & MODE_ALIGN) && m == MMU_USER && (gva & (align - 1)))
		jit_raise_err(c, X86_AC, 0);
}

uint64_t jit_read(struct jit_cpu *c, enum jit_mmu m, uint64_t gva, unsigned size);
void jit_write(struct jit_cpu *c, enum jit_mmu m, uint64_t gva, uint64_t v, unsigned size);
void jit_read_buf(struct jit_cpu *c, enum jit_mmu m, uint64_t gva, void *to, unsigned len);
/* Checks every page for writing before it writes a byte. */
void jit_write_buf(struct jit_cpu *c, enum jit_mmu m, uint64_t gva, const void *from, unsigned len);
/* Raises unless all of [gva, gva+len) may be accessed so; sets A/D bits. len <= 4096 */
void jit_probe(struct jit_cpu *c, enum jit_mmu m, uint64_t gva, unsigned len, enum jit_access a);
/* Host address of gva if it is plain RAM reachable with this access and no translated code
 * (for writes), with *left the bytes up to the page's end; NULL otherwise (MMIO, watched
 * code: use jit_read/jit_write). Raises on faults. */
void *jit_ram(struct jit_cpu *c, enum jit_mmu m, uint64_t gva, enum jit_access a, unsigned *left);

/* System accesses (descriptor tables, TSS) are supervisor accesses whatever the CPL, and
 * SMAP binds them whatever EFLAGS.AC says (4.6.1, implicit accesses). */
#define MMU_SYSTEM MMU_KERNEL

/* Adds a segment's base to an offset; checks limit, type and canonical form; raises
 * #GP(0)/#SS(0). */
uint64_t jit_seg_addr(struct jit_cpu *c, enum x86_sreg s, uint64_t offset, unsigned size,
		      enum jit_access a);

void jit_tlb_flush(struct jit_cpu *c, bool global_too);
void jit_tlb_flush_page(struct jit_cpu *c, uint64_t gva);
/* PKRU = pkru; the block under way must end (mappings and mode may have changed). */
void jit_pkru_write(struct jit_cpu *c, uint32_t pkru);
/* pcid.c. CR3 = cr3; keep: what is cached for its PCID stays. */
void jit_load_cr3(struct jit_cpu *c, uint64_t cr3, bool keep);
/* What is not global of a PCID (INVPCID types 1 and 0); of all of them. */
void jit_tlb_flush_pcid(struct jit_cpu *c, uint16_t pcid);
void jit_tlb_flush_pcid_page(struct jit_cpu *c, uint16_t pcid, uint64_t gva);
void jit_tlb_flush_pcids(struct jit_cpu *c);

/* No libc, no vector registers. */
static inline void jit_copy(void *to, const void *from, uint64_t len)
{
	__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(len)::"memory");
}

static inline void jit_zero(void *to, uint64_t len)
{
	__asm__ volatile("rep stosb" : "+D"(to), "+c"(len) : "a"(0) : "memory");
}

/* --- deliver.c: exceptions and interrupts (SDM 6) --- */
/* Delivers through the IDT: reads the gate, switches stack, pushes, sets CS:RIP. May raise.
 * soft: INT n, INT3, INTO (their gate's DPL is checked; st.rip is already past them). */
void jit_deliver(struct jit_cpu *c, uint8_t vector, bool has_error, uint32_t error, bool soft);
/* The run loop's way to deliver c->exc: turns contributory faults into #DF and then into
 * shutdown (6.15, table 6-5); sets RF in the pushed flags for faults. */
void jit_deliver_exception(struct jit_cpu *c);

/* --- helpers called from translated code, one per instruction or class. arg is what the
 * decoder put there (see each). They run as quick code unless in a _slow.c file. ---
 * st.rip is the address of the instruction; next is in c->st.rip + arg's low byte
 * (the instruction's length) unless noted: a helper that finishes normally leaves st.rip
 * alone, and the translated code goes on after it; one marked JUMPS sets st.rip itself and
 * the block ends there. */
typedef void jit_helper(struct jit_cpu *c, uint64_t arg);

/* arg layout used by all: bits 0-7 instruction length; 8-15 operand size in bytes;
 * 16-23, 24-31 register numbers or as named; 32-63 immediate or as named. */
#define ARG_LEN(a)  ((unsigned)((a)&0xff))
#define ARG_SIZE(a) ((unsigned)((a) >> 8 & 0xff))
#define ARG_R1(a)   ((unsigned)((a) >> 16 & 0xff))
#define ARG_R2(a)   ((unsigned)((a) >> 24 & 0xff))
#define ARG_IMM(a)  ((uint32_t)((a) >> 32))

#define ARG_MEM 0xff /* in ARG_R2: the r/m operand is in memory, at ea_seg:ea (not yet checked) */

/* How the translator goes on after a helper:
 * PLAIN  with the next instruction, in the same block;
 * ENDS   the next instruction is looked up anew (mode, mappings or interrupt window may
 *        have changed); the translator sets st.rip to it when the helper returns;
 * JUMPS  the helper has set st.rip. */
enum jit_helper_kind { HELPER_PLAIN, HELPER_ENDS, HELPER_JUMPS };

#define JIT_HELPER(name, kind) jit_helper h_##name;
#include "cpu/jit/helpers.inc"
#undef JIT_HELPER
