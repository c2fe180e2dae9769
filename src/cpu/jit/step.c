/* step: memory operands of one instruction through the bounce buffer, for what translated code
 * cannot reach directly: MMIO, two pages that do not lie side by side, translated code that is
 * being written, watched addresses, masked vector operands at the edge of what is mapped.
 *
 * The copy of the guest's instruction runs on the buffer; jit_bounce_in fills it before and has
 * raised every fault the access can raise; jit_bounce_out writes it back. */
#include "cpu/jit/core.h"
#include "cpu/jit/walk.h"
#include "cpu/jit/window.h"

/* kinds: bit n for R/W field n (17.2.4) */
static void touch(struct jit_cpu *c, uint64_t addr, unsigned size, unsigned kinds)
{
	static const uint8_t lens[] = {1, 2, 8, 4};

	for (unsigned n = 0; n < 4; n++) {
		unsigned kind = c->st.dr7 >> (16 + 4 * n) & 3,
			 len = lens[c->st.dr7 >> (18 + 4 * n) & 3];
		uint64_t at = c->st.dr[n] & ~(uint64_t)(len - 1);

		if (!(c->st.dr7 >> (2 * n) & 3) || !(kinds >> kind & 1))
			continue;
		if (addr < at + len && at < addr + size)
			c->dr6_hits |= (uint8_t)BIT(n);
	}
}

void jit_watch(struct jit_cpu *c, uint64_t gva, unsigned len, bool write)
{
	touch(c, gva, len, write ? BIT(1) | BIT(3) : BIT(3));
}

void jit_watch_port(struct jit_cpu *c, uint16_t port, unsigned size)
{
	if (c->st.cr4 & CR4_DE)
		touch(c, port, size, BIT(2));
}

/* The access of the instruction under way: #SS for one by RSP or RBP, else #GP. */
static void check_canonical(struct jit_cpu *c, uint64_t gva, unsigned size)
{
	if ((c->mode & MODE_CODE64) && !(jit_canonical(c, gva) && jit_canonical(c, gva + size - 1)))
		jit_raise_err(c, c->p->bounce_site & SITE_STACK ? X86_SS_FAULT : X86_GP, 0);
}

/* The buffer keeps the operand's alignment to 64 bytes, so that alignment faults stay. */
uint8_t *jit_bounce_in(struct jit_cpu *c, uint64_t gva, uint32_t site)
{
	struct jit_priv *p = c->p;
	unsigned size = SITE_SIZE(site);
	enum jit_mmu m = SITE_MMU(site);
	uint8_t *at = c->bounce + (gva & 63);
	uint64_t all;

	if (!(c->mode & MODE_CODE64))
		gva = (uint32_t)gva;
	p->bounce_gva = gva;
	p->bounce_site = site;
	p->bounce_at = at;
	p->bounce_active = ~0ull;
	if (site & SITE_MASKED) {
		jit_fpu_leave(c);
		p->bounce_active = jit_masked_bytes(c, size);
	}
	/* What a mask has a part of is checked in its turn, in jit_masked_in. */
	all = size < 64 ? BIT(size) - 1 : ~0ull;
	if (p->bounce_active && (size <= 8 || (p->bounce_active & all) == all))
		jit_check_flat(c, gva, size - 1, site);
	if ((site & SITE_ALIGNED) && (gva & (size - 1)) && p->bounce_active)
		jit_raise_err(c, X86_GP, 0);
	if (site & SITE_MASKED) {
		if (p->bounce_active)
			jit_check_aligned(c, m, gva, size);
		jit_masked_in(c, m, gva, at, size, site & SITE_WRITE);
		jit_fpu_enter(c);
		return at;
	}
	check_canonical(c, gva, size);
	if ((c->mode & MODE_ALIGN) && (site & SITE_X87) && jit_x87_pending(c))
		jit_raise(c, X86_MF);
	jit_check_aligned(c, m, gva, size);
	jit_window_want(c, gva);
	if (site & SITE_WRITE)
		jit_probe(c, m, gva, size, ACC_WRITE);
	/* An x87 store with an unmasked exception leaves its operand as it was. */
	if (!(site & SITE_WRITE) || (site & (SITE_READ | SITE_X87)))
		jit_read_buf(c, m, gva, at, size);
	/* Devices may have run, with the guest's vectors put away. */
	if (!c->fpu_live)
		jit_fpu_enter(c);
	return at;
}

void jit_masked_in(struct jit_cpu *c, enum jit_mmu m, uint64_t gva, uint8_t *to, unsigned size,
		   bool write)
{
	for (unsigned n = 0; n < size; n++) {
		if (!(c->p->bounce_active >> n & 1))
			continue;
		jit_check_flat(c, gva, n, c->p->bounce_site);
		check_canonical(c, gva + n, 1);
		if (write)
			jit_probe(c, m, gva + n, 1, ACC_WRITE);
		jit_read_buf(c, m, gva + n, to + n, 1);
	}
}

void jit_bounce_out(struct jit_cpu *c)
{
	struct jit_priv *p = c->p;
	unsigned size = SITE_SIZE(p->bounce_site);

	if (p->bounce_active == ~0ull) {
		jit_write_buf(c, SITE_MMU(p->bounce_site), p->bounce_gva, p->bounce_at, size);
	} else {
		for (unsigned n = 0; n < size; n++)
			if (p->bounce_active >> n & 1)
				jit_write_buf(c, SITE_MMU(p->bounce_site), p->bounce_gva + n,
					      p->bounce_at + n, 1);
	}
	if (!c->fpu_live)
		jit_fpu_enter(c);
}
