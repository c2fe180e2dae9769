#include "cpu/linear.h"

#define PTE_P    BIT(0)
#define PTE_PS   BIT(7)
#define PTE_ADDR 0x000ffffffffff000ull

/* Reads the entry at gpa; false when it is not there. */
static bool entry(const struct guest_mem *m, gpa_t gpa, unsigned size, struct linear_walk *w,
		  uint64_t *e)
{
	uint8_t *p = mem_span(m, gpa, size);

	if (!p || w->levels == LINEAR_LEVELS)
		return false;
	*e = load_le(p, size);
	w->step[w->levels].at = gpa;
	w->step[w->levels++].entry = *e;
	return *e & PTE_P;
}

static bool found(struct linear_walk *w, uint64_t gva, gpa_t base, unsigned shift)
{
	uint64_t offset = gva & (BIT(shift) - 1);

	w->gpa = (base & ~(BIT(shift) - 1)) + offset;
	w->left = BIT(shift) - offset;
	return true;
}

/* From a table of 64-bit entries at this level (0: of 4 KiB pages). */
static bool walk_wide(const struct guest_mem *m, gpa_t table, int level, uint64_t gva,
		      struct linear_walk *w)
{
	uint64_t e;

	for (;; level--, table = e & PTE_ADDR) {
		unsigned shift = 12 + 9 * (unsigned)level;

		if (!entry(m, table + (gva >> shift & 511) * 8, 8, w, &e))
			return false;
		if (level == 0 || (level <= 2 && (e & PTE_PS)))
			return found(w, gva, e & PTE_ADDR, shift);
	}
}

static bool walk_pae(const struct guest_mem *m, uint64_t cr3, uint64_t gva, struct linear_walk *w)
{
	uint64_t e;

	return entry(m, (cr3 & 0xffffffe0) + (gva >> 30 & 3) * 8, 8, w, &e) &&
	       walk_wide(m, e & PTE_ADDR, 1, gva, w);
}

static bool walk_32(const struct guest_mem *m, const struct x86_state *s, uint64_t gva,
		    struct linear_walk *w)
{
	uint64_t e;

	if (!entry(m, (s->cr3 & 0xfffff000) + (gva >> 22 & 1023) * 4, 4, w, &e))
		return false;
	if ((e & PTE_PS) && (s->cr4 & CR4_PSE))
		return found(w, gva, (e & 0xffc00000) | (e >> 13 & 0xff) << 32, 22);
	return entry(m, (e & 0xfffff000) + (gva >> 12 & 1023) * 4, 4, w, &e) &&
	       found(w, gva, e & 0xfffff000, 12);
}

static bool canonical(uint64_t gva, unsigned bits)
{
	return (uint64_t)((int64_t)(gva << (64 - bits)) >> (64 - bits)) == gva;
}

bool linear_walk(const struct guest_mem *m, const struct x86_state *s, uint64_t gva,
		 struct linear_walk *w)
{
	bool la57 = s->cr4 & CR4_LA57;

	*w = (struct linear_walk){0};
	if (s->efer & EFER_LMA)
		return canonical(gva, la57 ? 57 : 48) &&
		       walk_wide(m, s->cr3 & PTE_ADDR, la57 ? 4 : 3, gva, w);
	if (gva >> 32)
		return false;
	if (!(s->cr0 & CR0_PG))
		return found(w, gva, gva & 0xfffff000, 12);
	return s->cr4 & CR4_PAE ? walk_pae(m, s->cr3, gva, w) : walk_32(m, s, gva, w);
}

uint64_t linear_read(const struct guest_mem *m, const struct x86_state *s, uint64_t gva, void *to,
		     uint64_t len)
{
	struct linear_walk w;
	uint64_t done = 0, n;

	for (; done < len; done += n) {
		if (!linear_walk(m, s, gva + done, &w))
			break;
		n = min_u64(w.left, len - done);
		if (mem_read(m, w.gpa, (uint8_t *)to + done, n) < 0)
			break;
	}
	return done;
}

uint64_t linear_write(struct guest_mem *m, const struct x86_state *s, uint64_t gva,
		      const void *from, uint64_t len)
{
	struct linear_walk w;
	uint64_t done = 0, n;

	for (; done < len; done += n) {
		if (!linear_walk(m, s, gva + done, &w))
			break;
		n = min_u64(w.left, len - done);
		if (mem_write(m, w.gpa, (const uint8_t *)from + done, n) < 0)
			break;
	}
	return done;
}
