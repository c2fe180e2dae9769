/* cache: translated code and what it was made from. One per VM.
 *
 * Code memory is one memfd mapped twice, writable here and executable there (delta apart),
 * never both through one mapping. Hot code grows from the start, cold code (slow paths)
 * from the middle. When either half is full, everything is thrown away (jit_cache_flush):
 * no code memory is ever reused in between, so a dead block's memory stays safe to run into.
 *
 * A code page is a pair (guest-virtual page, guest-physical page) in one mode and, where it is
 * not flat, one code segment; it owns the
 * blocks translated from it, and its id is what guards compare. Physical pages with code
 * know their code pages and, in 64-byte chunks, where code lies; the soft TLB gives no
 * direct write access to them.
 *
 * Edges are direct jumps from block to block. An unlinked edge leads to its stub, which
 * asks the run loop for its target.
 *
 * All vCPUs of the VM share it. What looks things up takes no lock. What is entered (code pages,
 * blocks, links) is under the cache's lock; what goes (killed blocks, everything at a flush) goes
 * while the world is stopped (world.h), so that nobody is in the middle of it. Jumps that are
 * patched while others run them have their displacement within an aligned quadword: a store to it
 * is seen whole. */
#pragma once

#include <pthread.h>
#include <stdio.h>

#include "cpu/jit/emit.h"
#include "cpu/jit/futex.h"
#include "cpu/jit/jit_priv.h"
#include "cpu/jit/template.h"
#include "cpu/jit/world.h"

#define EDGE_MAX    16 /* of one block */
#define BLOCK_INSNS 64 /* guest instructions of one block at most */

/* Where the guest's arithmetic flags are. Both may hold. */
enum { FLAGS_HOST = 1, FLAGS_SLOT = 2 };
/* In a site: RSI has r13 added meanwhile; RDI has r14. */
enum { SITE_RSI = 4, SITE_RDI = 8 };

/* There are tens of thousands of blocks and edges, so they refer to each other by 32 bits: an
 * offset from the arena's start, 0 for none. A block, its edges and its sites are one piece. */
typedef uint32_t jit_ref;
#define ARENA_FIRST 8 /* the first offset that is given out */

struct jit_edge {
	uint64_t target;   /* RIP */
	jit_ref to;        /* block; 0 while unlinked */
	jit_ref next_in;   /* other edges into to */
	uint32_t stub;     /* entered with flags in the host (or where they are); offset from rw */
	uint16_t jump;     /* displacement to patch, from the block's start */
	uint8_t index : 5; /* among the block's edges */
	uint8_t flags : 2; /* FLAGS_* at the jump */
	uint8_t glued : 1; /* linked through the stub's jump (flags had to be saved first) */
	bool call;         /* the jump is a call */
};

/* For each guest instruction that can trap natively: from host to guest. */
struct jit_site {
	uint16_t host_off; /* of the instruction's host code, from the block's start */
	int16_t guest_off; /* of its first byte, from the block's gva */
	uint8_t flags;     /* FLAGS_* when the copied instruction runs; SITE_* */
	uint8_t borrow;    /* host register saved in tmp[3] meanwhile, or R_NONE */
	int16_t rsp_by;    /* what the guest's RSP is more than the host's r15 */
};

struct jit_block {
	uint64_t gva;
	uint8_t *start;      /* of its hot code, writable mapping */
	jit_ref page, page2; /* page2: where a last instruction that straddles ends */
	jit_ref next;        /* in page's bucket */
	jit_ref in;          /* edges that lead here */
	uint32_t stub;       /* exits that look this block's gva up anew; offset from rw */
	uint16_t hot_len, guest_len;
	uint16_t loop; /* from start: where it goes on round itself, behind its entries; or 0 */
	uint16_t peek_from, peek_to; /* bytes of its page that it depends on, too; 0, 0: none */
	uint8_t guard, entry_s, entry_b, entry_h; /* entries, from start */
	uint8_t sites, edges;
	bool valid : 1;
	bool needs_host_flags : 1; /* entry_h leads straight to the body */
	bool flags_dead : 1;       /* any entry will do, wherever they are */
	bool both : 1; /* in step mode: it reads and writes its operand, and nobody may come between */
};

#define PAGE_BUCKETS 32
struct jit_page {
	uint64_t gva; /* page-aligned */
	gpa_t gpa;
	uint32_t mode, id;
	struct jit_cs cs;
	struct jit_page *next_hash, *next_phys;
	jit_ref bucket[PAGE_BUCKETS]; /* blocks */
};

/* The guest's RIP at gva. */
static inline uint64_t jit_page_rip(const struct jit_page *p, uint64_t gva)
{
	return p->cs.base ? (uint32_t)(gva - p->cs.base) : gva;
}

struct jit_phys { /* a physical page that code was translated from */
	struct jit_page *pages;
	_Atomic uint64_t chunks; /* bit n: bytes [64 n, 64 n + 64) hold code */
	_Atomic bool watched;    /* no soft TLB has write access to it */
};

#define STRADDLERS  65536 /* more flush the cache */
#define HELPERS_MAX 128
#define TOUCH_BYTES 32768u
#define PAGE_HASH   16384
struct jit_cache {
	struct futex_lock lock;
	struct guest_mem *mem; /* of which pages with code are marked (mem_mark) */
	uint8_t *rw, *rx;
	uint64_t bytes;
	int fd;
	uint8_t *hot, *cold; /* next free, writable mapping */
	uint8_t *hot_end, *cold_end;
	uint8_t *hot_ready, *cold_ready;       /* the host's pages before these are there */
	uint8_t *arena, *arena_end, *arena_at; /* blocks, edges, sites, code pages */
	struct jit_phys **phys;                /* by gpa >> 12 */
	uint8_t *touched;                      /* by gpa / TOUCH_BYTES (tlb.c); whole pages */
	uint64_t phys_count;
	struct jit_page *hash[PAGE_HASH];
	uint32_t next_id; /* of code pages; an id is unique until the next flush, and never 0 */
	jit_ref *block;   /* in order of start, for jit_cache_find */
	uint32_t blocks, blocks_max;
	struct jit_block **straddler; /* blocks with a page2 */
	uint32_t straddlers;
	uint64_t flushes, translated, invalidated;
	struct jit_templates templates;
	FILE *perfmap; /* NULL: none is wanted */
	/* code made at start-up, kept by flushes (thunks.c) */
	uint8_t *hot_start, *cold_start;
	const void *enter, *out, *exit_lookup, *exit_indirect, *exit_edge, *exit_step, *resume;
	const void *return_top, *return_other, *call_unknown;
	const void *miss, *bounce_in, *bounce_out, *seg_addr, *helper[HELPERS_MAX];
};

/* Pages that held code when another than a vCPU wrote to them (mem_watch): the vCPUs drop their
 * blocks at their next safe point, which they are made to reach. */
#define WRITTEN_MAX 256
struct jit_written {
	struct mem_watch watch;
	_Atomic bool any;
	pthread_mutex_t lock; /* guards what follows, and the VM's list of vCPUs */
	gpa_t page[WRITTEN_MAX];
	uint32_t pages; /* > WRITTEN_MAX: too many to list */
};

struct xlate;
struct jit_vm {
	struct engine_vm base;
	struct engine_env env;
	struct jit_cache cache;
	struct jit_written written;
	struct world world;
	struct jit_cpu *cpu[WORLD_MAX];
	unsigned cpus, host_cpus;
	bool debug;                  /* a debugger has points in some of them */
	struct futex_lock time_lock; /* guards the following */
	uint64_t clock_tsc,
		clock_ns; /* the host's TSC and the guest's clock at one moment; 0: none */
	uint64_t frozen_at, thawed_at; /* the host's TSC; thawed_at 0: not yet */
	unsigned frozen;               /* vCPUs */
	struct xlate *xlate;           /* the translator's working memory; under the cache's lock */
	bool isa_ok[512];              /* by ZYDIS_ISA_SET_*: offered to the guest */
	_Atomic uint32_t window_maps;  /* pieces that the vCPUs' windows are mapped in, and ... */
	uint32_t window_maps_max;      /* ... at most (window.h) */
	bool amd; /* near branches take an operand-size prefix in 64-bit mode, as AMD's do */
};

static inline struct jit_cpu *to_jit(struct vcpu *v)
{
	return container_of(v, struct jit_cpu, vcpu);
}

static inline const void *jit_rx(const struct jit_cache *k, const uint8_t *rw)
{
	return rw + (k->rx - k->rw);
}

static inline void *jit_at(const struct jit_cache *k, jit_ref r)
{
	return r ? k->arena + r : NULL;
}

static inline jit_ref jit_ref_to(const struct jit_cache *k, const void *p)
{
	return p ? (jit_ref)((const uint8_t *)p - k->arena) : 0;
}

static inline struct jit_edge *jit_edges(const struct jit_block *b)
{
	return (struct jit_edge *)(b + 1);
}

static inline struct jit_site *jit_sites(const struct jit_block *b)
{
	return (struct jit_site *)(jit_edges(b) + b->edges);
}

static inline struct jit_block *jit_edge_from(const struct jit_edge *e)
{
	return (struct jit_block *)(e - e->index) - 1;
}

/* The code that saves the host's flags; a stub that begins with it can be entered behind it. */
#define SAVE_FLAGS_BYTES 19

/* r13 keeps RAX; AX packs the flags: AH as LAHF, AL = OF. */
static inline void e_save_flags(struct emit *e)
{
	e_mov(e, R_13, R_AX);
	e8(e, 0x9f); /* lahf */
	e8(e, 0x0f); /* seto al */
	e8(e, 0x90);
	e8(e, 0xc0);
	e8(e, 0x66); /* mov gs:[flags], ax */
	e_op_gs(e, false, 0x89, R_AX, (uint32_t)offsetof(struct jit_cpu, flags));
	e_mov(e, R_AX, R_13);
}

static inline uint8_t *jit_block_stub(const struct jit_cache *k, const struct jit_block *b,
				      bool saved)
{
	return k->rw + b->stub + (saved ? SAVE_FLAGS_BYTES : 0);
}

/* Where the flags have to be saved, a jump stands behind that: to what asks, or to the target. */
static inline uint8_t *jit_edge_stub(const struct jit_cache *k, const struct jit_edge *e,
				     bool saved)
{
	return k->rw + e->stub + (saved && !(e->flags & FLAGS_SLOT) ? SAVE_FLAGS_BYTES : 0);
}

#define STUB_BYTES 64 /* of a block or an edge at most */
/* Emits the stub of a block, and of its edges, whose jumps it makes lead there. */
void jit_block_put_stub(const struct jit_cache *k, struct jit_block *b, struct emit *e);
void jit_edges_put_stubs(const struct jit_cache *k, struct jit_block *b, struct emit *e);
/* Asks the run loop for e's target: what stands in its stub once the flags are saved. */
void jit_edge_ask(const struct jit_cache *k, const struct jit_edge *e, struct emit *to);

/* What has to stand at p so that the displacement behind opcode bytes lies within an aligned
 * quadword. */
static inline unsigned jit_jump_padding(const uint8_t *p, unsigned opcode)
{
	unsigned at = ((uintptr_t)p + opcode) & 7;

	return at > 4 ? 8 - at : 0;
}

static inline void jit_align_jump(struct emit *e, unsigned opcode)
{
	static const uint8_t nop[3][3] = {{0x90}, {0x66, 0x90}, {0x66, 0x66, 0x90}};
	unsigned n = jit_jump_padding(e->p, opcode);

	for (unsigned i = 0; i < n; i++)
		e8(e, nop[n - 1][i]);
}

/* The displacement of the jump in the stub of an edge whose flags have to be saved. */
static inline uint8_t *jit_edge_glue(const struct jit_cache *k, const struct jit_edge *e)
{
	uint8_t *p = jit_edge_stub(k, e, true);

	return p + jit_jump_padding(p, 1) + 1;
}

WARN_UNUSED int jit_cache_init(struct jit_cache *k, struct guest_mem *m, uint64_t bytes,
			       struct err *e);
void jit_cache_done(struct jit_cache *k);
/* World stopped, and all out of helpers: drops all blocks; every jump and instruction TLB must be
 * emptied by the caller. */
void jit_cache_flush(struct jit_cache *k);
/* Has the host put pages behind the next code: in pieces, which costs it much less than a fault
 * for each page in each of the two mappings. */
void jit_cache_prepare(struct jit_cache *k);
/* The memory in use goes back to the host, if it is much; its contents are lost. */
void jit_cache_release(struct jit_cache *k);
void *jit_cache_alloc(struct jit_cache *k, uint64_t bytes); /* NULL: full, flush */

/* The code page for this pair; NULL: perhaps there is none. No lock. */
struct jit_page *jit_page_look_up(struct jit_cache *k, uint64_t gva, gpa_t gpa, uint32_t mode,
				  struct jit_cs cs);
/* Locked. The same, made when new; NULL when the arena is full. */
struct jit_page *jit_page_get(struct jit_cache *k, uint64_t gva, gpa_t gpa, uint32_t mode,
			      struct jit_cs cs);
/* NULL: perhaps it is not there; under the lock, for sure. */
struct jit_block *jit_page_find(struct jit_cache *k, struct jit_page *p, uint64_t gva);
/* Locked: b, whose page, gva and length are known, is being made of these bytes. */
void jit_block_claim(struct jit_cache *k, const struct jit_block *b);
/* Locked. Enters a finished block, whose bytes are claimed: it can be found. */
void jit_block_publish(struct jit_cache *k, struct jit_block *b);
/* Locked. The same; and the code memory that it takes, up to here in the cold half, is its own. */
void jit_block_made(struct jit_cache *k, struct jit_block *b, uint8_t *cold_end);
/* The block whose hot code contains pc (executable mapping), or NULL. */
struct jit_block *jit_cache_find(const struct jit_cache *k, const void *pc);

/* Locked. Makes e jump to b. */
void jit_edge_link(struct jit_cache *k, struct jit_edge *e, struct jit_block *b);

/* A page is watched from before its code is read until the last of it has gone. */
void jit_code_watch(struct jit_cache *k, gpa_t gpa); /* world stopped; jit_page_get was there */
bool jit_code_on_page(const struct jit_cache *k, gpa_t gpa);
/* Does [gpa, gpa + len), within a page, touch translated code (to 64 bytes)? */
bool jit_code_overlaps(const struct jit_cache *k, gpa_t gpa, unsigned len);
/* World stopped: kills the blocks made from bytes in [gpa, gpa + len). Returns how many. */
unsigned jit_code_invalidate(struct jit_cache *k, gpa_t gpa, unsigned len);
unsigned jit_code_invalidate_all(struct jit_cache *k);
