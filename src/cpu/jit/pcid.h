/* pcid: translations of process contexts that are not the current one (SDM volume 3, 4.10.1).
 *
 * The soft TLB and the instruction TLB have the current PCID's translations alone, so that a
 * check compares no PCID. When CR3 is loaded with another one, those that are not global are put
 * away here, and come back when the PCID does, unless they were invalidated meanwhile. What is not
 * kept is walked for again: the processor promises nothing about how long it keeps any.
 *
 * One vCPU's; its thread alone uses it. */
#pragma once

#include "cpu/jit/core.h"

#define PCIDS        8    /* Linux uses 6, or 12 with page-table isolation */
#define PCID_ENTRIES 1024 /* of the soft TLB; more than a process touches between two switches */
#define PCID_PAGES   ITLB_LIST

struct pcid_entry {
	struct jit_tlb_entry e;
	uint16_t slot;
	uint8_t mmu;
};

struct pcid_code {
	struct jit_page *page;
	uint16_t slot;
};

struct pcid_kept {
	uint16_t pcid;
	uint64_t used; /* when, for the choice of a victim */
	unsigned entries, pages;
	struct pcid_entry entry[PCID_ENTRIES];
	/* User code, and for which mode and segment its instruction TLB stood. */
	struct pcid_code code[PCID_PAGES];
	uint32_t mode;
	struct jit_cs cs;
};

struct pcids {
	uint32_t valid; /* bit n: kept[n] is */
	uint64_t clock;
	struct pcid_kept kept[PCIDS];
};

/* The current one; 0 without CR4.PCIDE. */
static inline uint16_t jit_pcid(const struct jit_cpu *c)
{
	return c->st.cr4 & CR4_PCIDE ? c->st.cr3 & 0xfff : 0;
}

/* Nothing that is kept here is to be trusted any more. */
void jit_pcid_drop_all(struct jit_cpu *c);
/* The code cache was thrown away, and its pages with it. */
void jit_pcid_drop_code(struct jit_cpu *c);
