#include "cpu/jit/walk.h"

#define PTE_P    BIT(0)
#define PTE_W    BIT(1)
#define PTE_U    BIT(2)
#define PTE_A    BIT(5)
#define PTE_D    BIT(6)
#define PTE_PS   BIT(7)
#define PTE_G    BIT(8)
#define PTE_NX   BIT(63)
#define PTE_KEY  59 /* to 62 */
#define PTE_ADDR 0x000ffffffffff000ull

/* More only if another vCPU does nothing but change these entries. */
#define WALK_TRIES 100

struct walk {
	struct jit_cpu *c;
	uint64_t gva;
	bool user, write, fetch, ac;
	bool pae;     /* 64-bit entries */
	bool changed; /* an entry, while it was looked at */
	/* rights of the whole path */
	bool w_ok, u_ok, nx;
	uint8_t key, key_rights; /* PKRU's bits for the key: 1 no access, 2 no write */
};

bool jit_canonical(const struct jit_cpu *c, uint64_t gva)
{
	unsigned bits = c->st.cr4 & CR4_LA57 ? 57 : 48;

	return (uint64_t)((int64_t)(gva << (64 - bits)) >> (64 - bits)) == gva;
}

static void *entry_at(struct walk *w, gpa_t gpa)
{
	return mem_span(w->c->env->mem, gpa, w->pae ? 8 : 4);
}

static uint64_t entry_load(struct walk *w, void *p)
{
	return w->pae ? __atomic_load_n((uint64_t *)p, __ATOMIC_RELAXED)
		      : __atomic_load_n((uint32_t *)p, __ATOMIC_RELAXED);
}

/* Sets A and D bits in the entry that was read. Another vCPU may have changed it meanwhile: then
 * the walk begins anew, so that nothing is set in an entry that means something else by now. */
static void entry_set(struct walk *w, void *p, uint64_t old, uint64_t bits)
{
	uint32_t old32 = (uint32_t)old;

	if ((old & bits) == bits)
		return;
	if (!(w->pae ? __atomic_compare_exchange_n((uint64_t *)p, &old, old | bits, false,
						   __ATOMIC_SEQ_CST, __ATOMIC_RELAXED)
		     : __atomic_compare_exchange_n((uint32_t *)p, &old32, old32 | (uint32_t)bits,
						   false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED)))
		w->changed = true;
}

/* Supervisor writes obey WD where they obey W (4.6.2). */
static bool key_forbids(const struct walk *w)
{
	if (w->fetch)
		return false;
	return (w->key_rights & 1) ||
	       ((w->key_rights & 2) && w->write && (w->user || (w->c->st.cr0 & CR0_WP)));
}

static uint32_t fault_code(const struct walk *w, bool present, bool reserved)
{
	bool nx_on = (w->pae && (w->c->st.efer & EFER_NXE)) || (w->c->st.cr4 & CR4_SMEP);

	return (present ? PF_P : 0) | (w->write ? PF_W : 0) | (w->user ? PF_U : 0) |
	       (reserved ? PF_RSVD : 0) | (w->fetch && nx_on ? PF_I : 0) |
	       (key_forbids(w) ? PF_PK : 0);
}

/* May the access go through, given the path's rights? (4.6.1) */
static bool allowed(const struct walk *w)
{
	const struct x86_state *s = &w->c->st;

	if (w->fetch) {
		if (w->nx && (s->efer & EFER_NXE) && w->pae)
			return false;
		return w->user ? w->u_ok : !(w->u_ok && (s->cr4 & CR4_SMEP));
	}
	if (key_forbids(w))
		return false;
	if (w->user)
		return w->u_ok && (!w->write || w->w_ok);
	if (w->u_ok && (s->cr4 & CR4_SMAP) && !w->ac)
		return false;
	return !w->write || w->w_ok || !(s->cr0 & CR0_WP);
}

/* Bits that must be zero in a present entry: above the physical width (the model offers
 * at most 46 bits; NX when it is off), and the low address bits of a large page. Bits 52 to 62
 * are ignored in 64-bit mode only. */
static bool reserved_set(const struct walk *w, uint64_t e, unsigned page_shift, bool leaf)
{
	uint64_t top = jit_long_mode(w->c) ? BIT(52) - 1 : BIT(63) - 1;
	uint64_t mask = w->pae ? top & ~(BIT(w->c->phys_bits) - 1) : 0;

	if (w->pae && !(w->c->st.efer & EFER_NXE))
		mask |= PTE_NX;
	if (leaf && page_shift > 12 && w->pae)
		mask |= (BIT(page_shift) - 1) & ~0x1fffull; /* bit 12 is PAT */
	return e & mask;
}

static bool finish(struct walk *w, void *p, uint64_t e, unsigned shift, gpa_t base,
		   struct jit_mapping *out, uint32_t *error)
{
	if (w->u_ok && (w->c->st.cr4 & CR4_PKE) && jit_long_mode(w->c)) {
		w->key = e >> PTE_KEY & 15;
		w->key_rights = w->c->pkru >> (2 * w->key) & 3;
	}
	if (!allowed(w)) {
		*error = fault_code(w, true, false);
		return false;
	}
	entry_set(w, p, e, w->write ? PTE_A | PTE_D : PTE_A);

	bool write_ok;
	bool fetch = w->fetch, write = w->write;

	w->fetch = false;
	w->write = true;
	write_ok = allowed(w);
	w->fetch = fetch;
	w->write = write;
	out->gpa = base + (w->gva & (BIT(shift) - 1) & ~0xfffull);
	out->writable = write_ok && (write || (e & PTE_D));
	out->global = (e & PTE_G) && (w->c->st.cr4 & CR4_PGE);
	out->large = shift > 12;
	out->key = w->key;
	return true;
}

/* 4-level, 5-level, and PAE below its four PDPTEs */
static bool walk_long(struct walk *w, int level, gpa_t table, struct jit_mapping *out,
		      uint32_t *error)
{
	for (;; level--) {
		unsigned shift = 12 + 9 * (unsigned)level;
		void *p = entry_at(w, table + ((w->gva >> shift) & 511) * 8);
		uint64_t e = p ? entry_load(w, p) : 0;

		if (!(e & PTE_P)) {
			*error = fault_code(w, false, false);
			return false;
		}
		bool leaf = level == 0 || ((e & PTE_PS) && level <= 2);

		if (reserved_set(w, e, shift, leaf) || (!leaf && level > 2 && (e & PTE_PS)) ||
		    (level == 2 && leaf && !w->c->gib_pages)) {
			*error = fault_code(w, true, true);
			return false;
		}
		w->w_ok &= !!(e & PTE_W);
		w->u_ok &= !!(e & PTE_U);
		w->nx |= !!(e & PTE_NX);
		if (leaf)
			return finish(w, p, e, shift, e & PTE_ADDR & ~(BIT(shift) - 1), out, error);
		entry_set(w, p, e, PTE_A);
		table = e & PTE_ADDR;
	}
}

static bool walk_pae(struct walk *w, struct jit_mapping *out, uint32_t *error)
{
	/* Processors read the four PDPTEs when CR3 is loaded (4.4.1); later changes to them need
	 * a load of CR3 all the same, so reading them here is one of the allowed timings. */
	void *p = entry_at(w, (w->c->st.cr3 & 0xffffffe0) + (w->gva >> 30 & 3) * 8);
	uint64_t pdpte = p ? entry_load(w, p) : 0;

	if (!(pdpte & PTE_P)) {
		*error = fault_code(w, false, false);
		return false;
	}
	return walk_long(w, 1, pdpte & PTE_ADDR, out, error);
}

static bool walk_32(struct walk *w, struct jit_mapping *out, uint32_t *error)
{
	void *p = entry_at(w, (w->c->st.cr3 & 0xfffff000) + (w->gva >> 22 & 1023) * 4);
	uint64_t e = p ? entry_load(w, p) : 0;

	if (!(e & PTE_P)) {
		*error = fault_code(w, false, false);
		return false;
	}
	w->w_ok &= !!(e & PTE_W);
	w->u_ok &= !!(e & PTE_U);
	if ((e & PTE_PS) && (w->c->st.cr4 & CR4_PSE)) {
		if (e & BIT(21)) { /* PSE-36 has bits 13-20 as address bits 32-39 */
			*error = fault_code(w, true, true);
			return false;
		}
		return finish(w, p, e, 22, (e & 0xffc00000) | (e >> 13 & 0xff) << 32, out, error);
	}
	entry_set(w, p, e, PTE_A);
	p = entry_at(w, (e & 0xfffff000) + (w->gva >> 12 & 1023) * 4);
	e = p ? entry_load(w, p) : 0;
	if (!(e & PTE_P)) {
		*error = fault_code(w, false, false);
		return false;
	}
	w->w_ok &= !!(e & PTE_W);
	w->u_ok &= !!(e & PTE_U);
	return finish(w, p, e, 12, e & 0xfffff000, out, error);
}

static bool walk(struct walk *w, struct jit_mapping *out, uint32_t *error)
{
	const struct x86_state *s = &w->c->st;

	if (jit_long_mode(w->c))
		return walk_long(w, s->cr4 & CR4_LA57 ? 4 : 3, s->cr3 & PTE_ADDR, out, error);
	return w->pae ? walk_pae(w, out, error) : walk_32(w, out, error);
}

bool jit_walk(struct jit_cpu *c, uint64_t gva, enum jit_mmu m, enum jit_access a,
	      struct jit_mapping *out, uint32_t *error)
{
	const struct x86_state *s = &c->st;

	if (!(s->cr0 & CR0_PG)) {
		*out = (struct jit_mapping){.gpa = gva & 0xfffff000, .writable = true};
		return true;
	}
	for (unsigned tries = 1;; tries++) {
		struct walk w = {.c = c,
				 .gva = gva,
				 .user = m == MMU_USER,
				 .write = a == ACC_WRITE,
				 .fetch = a == ACC_FETCH,
				 .ac = m == MMU_KERNEL_AC,
				 .w_ok = true,
				 .u_ok = true,
				 .pae = s->cr4 & CR4_PAE};
		bool ok = walk(&w, out, error);

		if (!w.changed || tries == WALK_TRIES)
			return ok;
	}
}
