#include "cpu/jit/pcid.h"

#include "cpu/jit/tlb.h"
#include "cpu/jit/window.h"

static struct pcid_kept *find(struct pcids *p, uint16_t pcid)
{
	for (uint32_t left = p->valid; left; left &= left - 1) {
		struct pcid_kept *k = &p->kept[__builtin_ctz(left)];

		if (k->pcid == pcid)
			return k;
	}
	return NULL;
}

static void set_valid(struct pcids *p, const struct pcid_kept *k, bool valid)
{
	uint32_t bit = 1u << (k - p->kept);

	p->valid = valid ? p->valid | bit : p->valid & ~bit;
}

/* A free one, or the one that was used longest ago. */
static struct pcid_kept *victim(struct pcids *p)
{
	struct pcid_kept *oldest = p->kept;

	if (p->valid != (1u << PCIDS) - 1)
		return &p->kept[__builtin_ctz(~p->valid)];
	for (struct pcid_kept *k = p->kept; k < p->kept + PCIDS; k++)
		if (k->used < oldest->used)
			oldest = k;
	return oldest;
}

/* A global translation of a user page is not kept: INVLPG under another PCID drops it, too. Neither is
 * what PKRU had a say in, which may say something else by then. */
static void put_away(struct jit_cpu *c, struct pcid_kept *k, enum jit_mmu m, unsigned slot)
{
	struct jit_tlb_entry *e = &c->tlb[slot].e[m];

	if (!tlb_is_tag(e->tag_read) || ((e->gpa & TLB_GLOBAL) && m != MMU_USER))
		return;
	if (!(e->gpa & (TLB_GLOBAL | TLB_KEYED)) && k->entries < PCID_ENTRIES)
		k->entry[k->entries++] = (struct pcid_entry){*e, (uint16_t)slot, (uint8_t)m};
	tlb_entry_clear(e, slot);
}

static void put_away_entries(struct jit_cpu *c, struct pcid_kept *k, enum jit_mmu m)
{
	struct jit_priv *p = c->p;

	if (p->tlb_filled[m] > TLB_LIST)
		for (unsigned i = 0; i < JIT_TLB_SIZE; i++)
			put_away(c, k, m, i);
	else
		for (unsigned i = 0; i < p->tlb_filled[m]; i++)
			put_away(c, k, m, p->tlb_list[m][i]);
	p->tlb_filled[m] = 0;
}

static void put_away_code(struct jit_cpu *c, struct pcid_kept *k)
{
	struct jit_priv *p = c->p;

	k->mode = c->tables_mode[MMU_USER];
	k->cs = p->tables_cs[MMU_USER];
	for (unsigned i = 0; i < min_u64(p->itlb_filled[MMU_USER], ITLB_LIST); i++) {
		unsigned slot = p->itlb_list[MMU_USER][i];

		if (!c->itlb_id[MMU_USER][slot] || p->itlb_global[MMU_USER][slot])
			continue;
		k->code[k->pages++] =
			(struct pcid_code){p->itlb_page[MMU_USER][slot], (uint16_t)slot};
		c->itlb_id[MMU_USER][slot] = 0; /* it may be listed twice */
	}
}

/* The TLBs have global translations at most, then. */
static void leave(struct jit_cpu *c)
{
	struct pcids *p = c->p->pcids;
	struct pcid_kept *k = find(p, jit_pcid(c));

	if (!k)
		k = victim(p);
	set_valid(p, k, true);
	k->pcid = jit_pcid(c);
	k->used = ++p->clock;
	k->entries = k->pages = 0;
	for (enum jit_mmu m = 0; m < 3; m++)
		put_away_entries(c, k, m);
	put_away_code(c, k);
	for (enum jit_mmu m = 0; m < 3; m++)
		jit_itlb_clear(c, m, false);
}

static void bring_back_entry(struct jit_cpu *c, const struct pcid_entry *from)
{
	struct jit_tlb_entry *e = &c->tlb[from->slot].e[from->mmu];

	*e = from->e;
	if (tlb_is_tag(e->tag_write)) {
		/* There may be code on it since. */
		if (jit_code_on_page(&c->vm->cache, e->gpa))
			e->tag_write = tlb_no_tag(from->slot);
		else
			tlb_note_write(c, e->gpa);
	}
	if (e->gpa & TLB_LARGE)
		c->p->tlb_large |= tlb_large_bit(e->tag_read);
	tlb_note(c, (enum jit_mmu)from->mmu, from->slot);
}

static void enter(struct jit_cpu *c)
{
	struct pcids *p = c->p->pcids;
	struct pcid_kept *k = find(p, jit_pcid(c));

	if (!k)
		return;
	set_valid(p, k, false); /* they are in use */
	for (unsigned i = 0; i < k->entries; i++)
		bring_back_entry(c, &k->entry[i]);
	/* No user code is in the instruction TLB now, so it can stand for any mode. */
	c->tables_mode[MMU_USER] = k->mode;
	c->p->tables_cs[MMU_USER] = k->cs;
	for (unsigned i = 0; i < k->pages; i++) {
		unsigned slot = k->code[i].slot;

		c->p->itlb_page[MMU_USER][slot] = k->code[i].page;
		c->itlb_id[MMU_USER][slot] = k->code[i].page->id;
		c->p->itlb_global[MMU_USER][slot] = false;
		jit_itlb_note(c, MMU_USER, slot);
	}
}

static void drop(struct jit_cpu *c, uint16_t pcid)
{
	struct pcid_kept *k = find(c->p->pcids, pcid);

	if (k)
		set_valid(c->p->pcids, k, false);
}

void jit_pcid_drop_all(struct jit_cpu *c)
{
	c->p->pcids->valid = 0;
}

void jit_pcid_drop_code(struct jit_cpu *c)
{
	struct pcids *p = c->p->pcids;

	for (uint32_t left = p->valid; left; left &= left - 1)
		p->kept[__builtin_ctz(left)].pages = 0;
}

void jit_load_cr3(struct jit_cpu *c, uint64_t cr3, bool keep)
{
	bool other = jit_pcid(c) != (c->st.cr4 & CR4_PCIDE ? cr3 & 0xfff : 0);

	if (other)
		leave(c);
	c->st.cr3 = cr3;
	if (!keep) {
		drop(c, jit_pcid(c));
		jit_tlb_flush(c,
			      false); /* of the new one; what it lists is empty if it is another */
	} else if (other) {
		enter(c);
	}
}

void jit_tlb_flush_pcid(struct jit_cpu *c, uint16_t pcid)
{
	if (pcid == jit_pcid(c)) {
		jit_tlb_flush(c, false);
		return;
	}
	drop(c, pcid);
	jit_window_flushed_pcid(c, pcid);
}

/* Another's are rarely invalidated one by one: they all go. */
void jit_tlb_flush_pcid_page(struct jit_cpu *c, uint16_t pcid, uint64_t gva)
{
	if (pcid == jit_pcid(c)) {
		jit_tlb_flush_page(c, gva);
		return;
	}
	drop(c, pcid);
	jit_window_flushed_page(c, pcid, gva);
}

void jit_tlb_flush_pcids(struct jit_cpu *c)
{
	jit_pcid_drop_all(c);
	jit_tlb_flush(c, false);
	jit_window_flushed(c, true);
}
