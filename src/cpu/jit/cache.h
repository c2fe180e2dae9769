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
 * Used by the vCPU's thread (one vCPU per VM so far). */
#pragma once

#include <pthread.h>

#include "cpu/jit/emit.h"
#include "cpu/jit/jit_priv.h"

#define EDGE_MAX    16 /* of one block */
#define BLOCK_INSNS 64 /* guest instructions of one block at most */

/* Where the guest's arithmetic flags are. Both may hold. */
enum { FLAGS_HOST = 1, FLAGS_SLOT = 2 };

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
	uint8_t glued : 1; /* linked through the stub (flags had to be saved first) */
};

/* For each guest instruction that can trap natively: from host to guest. */
struct jit_site {
	uint16_t host_off;  /* of the instruction's host code, from the block's start */
	uint16_t guest_off; /* of its first byte, from the block's gva */
	uint8_t flags;      /* FLAGS_* when the copied instruction runs */
	uint8_t borrow;     /* host register saved in tmp[3] meanwhile, or R_NONE */
};

struct jit_block {
	uint64_t gva;
	uint8_t *start;      /* of its hot code, writable mapping */
	jit_ref page, page2; /* page2: where a last instruction that straddles ends */
	jit_ref next;        /* in page's bucket */
	jit_ref in;          /* edges that lead here */
	uint32_t stub;       /* exits that look this block's gva up anew; offset from rw */
	uint16_t hot_len, guest_len;
	uint8_t guard, entry_s, entry_h; /* entries, from start */
	uint8_t sites, edges;
	bool valid : 1, needs_host_flags : 1; /* entry_h leads straight to the body */
};

#define PAGE_BUCKETS 16
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
	uint64_t chunks; /* bit n: bytes [64 n, 64 n + 64) hold code */
};

#define STRADDLERS  65536 /* more flush the cache */
#define HELPERS_MAX 128
#define PAGE_HASH   16384
struct jit_cache {
	struct guest_mem *mem; /* of which pages with code are marked (mem_mark) */
	uint8_t *rw, *rx;
	uint64_t bytes;
	int fd;
	uint8_t *hot, *cold; /* next free, writable mapping */
	uint8_t *hot_end, *cold_end;
	uint8_t *arena, *arena_end, *arena_at; /* blocks, edges, sites, code pages */
	struct jit_phys **phys;                /* by gpa >> 12 */
	uint64_t phys_count;
	struct jit_page *hash[PAGE_HASH];
	uint32_t next_id; /* of code pages; an id is unique until the next flush, and never 0 */
	jit_ref *block;   /* in order of start, for jit_cache_find */
	uint32_t blocks, blocks_max;
	struct jit_block **straddler; /* blocks with a page2 */
	uint32_t straddlers;
	uint64_t flushes, translated, invalidated;
	/* code made at start-up, kept by flushes (thunks.c) */
	uint8_t *hot_start, *cold_start;
	const void *enter, *out, *exit_lookup, *exit_indirect, *exit_edge, *resume;
	const void *miss, *bounce_in, *bounce_out, *seg_addr, *helper[HELPERS_MAX];
};

/* Pages that held code when another than the vCPU wrote to them (mem_watch): the vCPU drops their
 * blocks at its next safe point, which it is made to reach. */
#define WRITTEN_MAX 256
struct jit_written {
	struct mem_watch watch;
	_Atomic bool any;
	pthread_mutex_t lock; /* guards what follows */
	struct jit_cpu *cpu;  /* the VM's vCPU; NULL: none yet */
	gpa_t page[WRITTEN_MAX];
	uint32_t pages; /* > WRITTEN_MAX: too many to list */
};

struct xlate;
struct jit_vm {
	struct engine_vm base;
	struct engine_env env;
	struct jit_cache cache;
	struct jit_written written;
	struct xlate *xlate; /* the translator's working memory */
	bool isa_ok[512];    /* by ZYDIS_ISA_SET_*: offered to the guest */
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

static inline uint8_t *jit_block_stub(const struct jit_cache *k, const struct jit_block *b,
				      bool saved)
{
	return k->rw + b->stub + (saved ? SAVE_FLAGS_BYTES : 0);
}

static inline uint8_t *jit_edge_stub(const struct jit_cache *k, const struct jit_edge *e,
				     bool saved)
{
	return k->rw + e->stub + (saved && !(e->flags & FLAGS_SLOT) ? SAVE_FLAGS_BYTES : 0);
}

/* Asks the run loop for e's target: what stands in its stub once the flags are saved. */
void jit_edge_ask(const struct jit_cache *k, const struct jit_edge *e, struct emit *to);

WARN_UNUSED int jit_cache_init(struct jit_cache *k, struct guest_mem *m, uint64_t bytes,
			       struct err *e);
void jit_cache_done(struct jit_cache *k);
/* Drops all blocks; every jump and instruction TLB must be emptied by the caller. */
void jit_cache_flush(struct jit_cache *k);
/* The memory in use goes back to the host, if it is much; its contents are lost. */
void jit_cache_release(struct jit_cache *k);
void *jit_cache_alloc(struct jit_cache *k, uint64_t bytes); /* NULL: full, flush */

/* The code page for this pair, made when new; NULL when the arena is full. */
struct jit_page *jit_page_get(struct jit_cache *k, uint64_t gva, gpa_t gpa, uint32_t mode,
			      struct jit_cs cs);
struct jit_block *jit_page_find(const struct jit_cache *k, struct jit_page *p, uint64_t gva);
/* Enters a finished block: it can be found and is tied to the physical bytes it came from. */
void jit_block_publish(struct jit_cache *k, struct jit_block *b);
/* The block whose hot code contains pc (executable mapping), or NULL. */
struct jit_block *jit_cache_find(const struct jit_cache *k, const void *pc);

/* Makes e jump to b. */
void jit_edge_link(struct jit_cache *k, struct jit_edge *e, struct jit_block *b);

bool jit_code_on_page(const struct jit_cache *k, gpa_t gpa);
/* Does [gpa, gpa + len), within a page, touch translated code (to 64 bytes)? */
bool jit_code_overlaps(const struct jit_cache *k, gpa_t gpa, unsigned len);
/* Kills the blocks made from bytes in [gpa, gpa + len). Returns how many. */
unsigned jit_code_invalidate(struct jit_cache *k, gpa_t gpa, unsigned len);
