/* tlb: entries of the soft TLB, for those who fill, keep and bring them back (tlb.c, pcid.c). */
#pragma once

#include "cpu/jit/core.h"

/* A tag that no address of this slot can hit: non-canonical, and of another slot. */
static inline uint64_t tlb_no_tag(unsigned slot)
{
	return 0x8000000000000000ull | (uint64_t)(slot ^ 1) << 12;
}

static inline bool tlb_is_tag(uint64_t tag)
{
	return tag >> 62 != 2; /* tlb_no_tag's */
}

static inline void tlb_entry_clear(struct jit_tlb_entry *t, unsigned slot)
{
	t->tag_read = t->tag_write = tlb_no_tag(slot);
}

/* An entry of this slot is to go with those that are not global. */
static inline void tlb_note(struct jit_cpu *c, enum jit_mmu m, unsigned slot)
{
	if (c->p->tlb_filled[m] < TLB_LIST)
		c->p->tlb_list[m][c->p->tlb_filled[m]] = (uint16_t)slot;
	c->p->tlb_filled[m]++;
}

static inline uint16_t tlb_keyed_slot(enum jit_mmu m, unsigned slot)
{
	return (uint16_t)((unsigned)m << JIT_TLB_BITS | slot);
}

static inline void tlb_note_keyed(struct jit_cpu *c, enum jit_mmu m, unsigned slot)
{
	if (c->p->keyed_filled < KEYED_LIST)
		c->p->keyed_list[c->p->keyed_filled] = tlb_keyed_slot(m, slot);
	c->p->keyed_filled++;
}

static inline unsigned tlb_write_hash(gpa_t gpa)
{
	return (gpa >> 12) % WRITE_HASH;
}

/* gpa's page has got a write tag. */
static inline void tlb_note_write(struct jit_cpu *c, gpa_t gpa)
{
	c->p->tlb_written[tlb_write_hash(gpa) / 64] |= BIT(tlb_write_hash(gpa) % 64);
}

/* A large page may fill many slots with its parts. Which gigabytes have any is remembered, in
 * a few bits, since a kernel invalidates single small pages all the time. */
static inline uint64_t tlb_large_bit(uint64_t gva)
{
	return BIT((gva >> 30) & 63);
}
