/* window: a guest address space as a piece of the host's. A user address space that computes for
 * long gets one: its pages of RAM are mapped, as they are touched, at a fixed distance (delta) from
 * their guest address, and its code (MODE_DIRECT) uses its memory operands natively (direct_slow.c).
 *
 * User addresses have 47 bits, as many as the host has itself. They are cut into lanes of 4 TiB, of
 * which programs use two or three; each that is used has a region of its own in the host, with a
 * guard zone on either side. Nothing else is ever mapped there.
 *
 * A window is a TLB: what was flushed there must be looked at again before it is used again. That is
 * done when user code is entered next (sync): a page whose entry still says the same stays.
 *
 * One vCPU's; its thread alone uses it. */
#pragma once

#include "cpu/jit/core.h"

#define LANE_BITS  42
#define LANE_SIZE  (UINT64_C(1) << LANE_BITS)
#define LANE_GUARD (UINT64_C(1) << 36)
/* The delta of a lane that is not open: an address plus this is not canonical. */
#define LANE_ABSENT (UINT64_C(1) << 62)
/* Where a block in a window is entered, jit_cpu.stack_delta is the delta of a lane, and RSP is in it or
 * so many bytes beside it at most; or of no lane, and makes an address that is not canonical. */
#define STACK_SLACK (1 << 17)

#define WINDOWS     8
#define WIN_BUCKETS 1024
#define WIN_TABLES  2048  /* of one window, each for 2 MiB of its addresses */
#define WIN_MAPS    16384 /* pieces that one window is mapped in at most */
#define WIN_PAGES   32    /* single pages to look at again; if more, all */

/* What one guest page table maps, as far as the window has it. */
struct win_table {
	uint64_t gva; /* of the first byte */
	struct win_table *next;
	uint64_t there[8], writable[8]; /* by page */
	uint32_t pfn[512];              /* guest page frame numbers */
};

struct window {
	uint64_t root; /* CR3's address; 0: free */
	uint16_t pcid; /* whose translations it has */
	uint8_t *lane[LANES];
	struct win_table *bucket[WIN_BUCKETS];
	struct win_table *table; /* WIN_TABLES of them, the first `tables` in use */
	unsigned tables, maps;
	uint64_t used; /* when it was entered last, for the choice of a victim */
	bool stale;    /* all of it must be looked at again */
	unsigned stale_pages;
	uint64_t stale_page[WIN_PAGES];
	/* What it costs, in pages that were taken away again or could not be mapped; and gains, in TSC
	 * ticks of user mode. Old ones count less. */
	uint64_t churn, gain;
	uint32_t pages; /* mapped now, about */
};

#define WIN_ROOTS 64
struct windows {
	struct window w[WINDOWS];
	struct window *now; /* whose deltas are in jit_cpu.delta */
	struct {            /* address spaces that were seen computing, hashed by root */
		uint64_t root;
		uint32_t ticks,
			need; /* interrupts that found it in user mode; how many promote it */
	} seen[WIN_ROOTS];
	uint64_t sampled;                /* TSC of the last sample */
	uint64_t want;                   /* lanes to open (bit n: lane n) */
	const void *fault_pc, *fault_at; /* the last one, to see that it helped */
	uint64_t clock;
	bool at_once; /* promote at the first entry (tests) */
	uint64_t promoted, demoted, mapped, unmapped, synced; /* statistics */
};

/* --- window.c: quick --- */
/* At an entry of 64-bit user code: does its address space have a window? Makes it current and true. */
bool jit_window_enter(struct jit_cpu *c);
/* Translations of the current address space (all: of every one) are not to be trusted. */
void jit_window_flushed(struct jit_cpu *c, bool all);
/* Likewise of a PCID (0 where there are none): a page, or all. */
void jit_window_flushed_page(struct jit_cpu *c, uint16_t pcid, uint64_t gva);
void jit_window_flushed_pcid(struct jit_cpu *c, uint16_t pcid);
/* A timer's interrupt, or something like it, found the vCPU in user mode. */
void jit_window_sample(struct jit_cpu *c);
/* The page at gpa has code now; WINDOW_ALL: any page may. */
#define WINDOW_ALL UINT64_MAX
void jit_window_unwrite(struct jit_cpu *c, gpa_t gpa);
/* Step mode met gva, which may lie in a lane that is not open. */
void jit_window_want(struct jit_cpu *c, uint64_t gva);

struct win_table *jit_window_table(struct window *w, uint64_t gva);

/* --- window_slow.c --- */
/* Pieces that all windows of a VM may be mapped in: half of what the host allows a process. */
uint32_t jit_windows_budget(void);
/* Gives the current address space a window; false: no room. */
bool jit_window_open(struct jit_cpu *c);
void jit_window_close(struct jit_cpu *c, struct window *w);
void jit_window_open_lanes(struct jit_cpu *c);
/* A native access at hva faulted. 1: it is mapped now; 0: it is up to step mode; -1: hva is in no
 * window. */
int jit_window_fault(struct jit_cpu *c, uint64_t hva, bool write, const void *pc);
/* Page n of t and those after it are taken away. */
void jit_window_unmap(struct jit_cpu *c, struct window *w, struct win_table *t, unsigned n,
		      unsigned pages);
void jit_window_protect(struct jit_cpu *c, struct window *w, struct win_table *t, unsigned n);
void jit_windows_done(struct jit_cpu *c);
