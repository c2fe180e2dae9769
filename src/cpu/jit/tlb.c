/* tlb: the soft MMU: fills, flushes, and guest-virtual memory as C code reaches it.
 *
 * A page that holds translated code never gets a write tag, so every write to it comes by
 * here and kills the blocks it hits. MMIO never gets a tag at all. */
#include <sys/mman.h>

#include "cpu/jit/pcid.h"
#include "cpu/jit/tlb.h"
#include "cpu/jit/walk.h"
#include "cpu/jit/window.h"

static struct jit_tlb_entry *entry_of(struct jit_cpu *c, enum jit_mmu m, uint64_t gva)
{
	return &c->tlb[(gva >> 12) & (JIT_TLB_SIZE - 1)].e[m];
}

static void entry_clear(struct jit_cpu *c, enum jit_mmu m, unsigned slot)
{
	tlb_entry_clear(&c->tlb[slot].e[m], slot);
}

static void clear_all(struct jit_cpu *c, enum jit_mmu m)
{
	for (unsigned i = 0; i < JIT_TLB_SIZE; i++)
		entry_clear(c, m, i);
	c->p->tlb_filled[m] = 0;
}

void jit_tlb_init(struct jit_cpu *c)
{
	for (enum jit_mmu m = 0; m < 3; m++)
		clear_all(c, m);
}

void jit_itlb_clear(struct jit_cpu *c, enum jit_mmu m, bool global_too)
{
	uint32_t n = c->p->itlb_filled[m];

	c->user_rsp = 0; /* calls that rely on what is cleared */
	if (global_too || (m == MMU_USER && n > ITLB_LIST)) {
		jit_zero(c->itlb_id[m], sizeof c->itlb_id[m]);
	} else if (n > ITLB_LIST) {
		for (unsigned i = 0; i < JIT_ITLB_SIZE; i++)
			if (!c->p->itlb_global[m][i])
				c->itlb_id[m][i] = 0;
	} else {
		for (unsigned i = 0; i < n; i++)
			if (!c->p->itlb_global[m][c->p->itlb_list[m][i]] || m == MMU_USER)
				c->itlb_id[m][c->p->itlb_list[m][i]] = 0;
	}
	c->p->itlb_filled[m] = 0;
}

void jit_itlb_note(struct jit_cpu *c, enum jit_mmu m, unsigned slot)
{
	if (c->p->itlb_filled[m] < ITLB_LIST)
		c->p->itlb_list[m][c->p->itlb_filled[m]] = (uint16_t)slot;
	c->p->itlb_filled[m]++;
}

/* What no target in its slot is equal to: 0 and 1 belong into different slots. That no processor can
 * go there would not be enough: a return is compared before it is looked at. */
void jit_jump_clear(struct jit_cpu *c, enum jit_mmu m)
{
	for (unsigned i = 0; i < JIT_JUMP_SIZE; i++)
		c->jump[m][i].gva = jit_jump_slot(0) == i;
}

void jit_tlb_flush(struct jit_cpu *c, bool global_too)
{
	struct jit_priv *p = c->p;

	for (enum jit_mmu m = 0; m < 3; m++) {
		if (global_too || p->tlb_filled[m] > TLB_LIST) {
			clear_all(c, m);
		} else {
			for (unsigned i = 0; i < p->tlb_filled[m]; i++)
				entry_clear(c, m, p->tlb_list[m][i]);
			p->tlb_filled[m] = 0;
		}
		jit_itlb_clear(c, m, global_too);
	}
	if (global_too) {
		p->tlb_large = 0;
		jit_pcid_drop_all(c);
	}
	jit_window_flushed(c, global_too);
}

static void drop_keyed(struct jit_cpu *c, enum jit_mmu m, unsigned slot)
{
	if (c->tlb[slot].e[m].gpa & TLB_KEYED)
		entry_clear(c, m, slot);
}

/* Pages of key 0, nearly all, are not looked at unless its own rights change; windows have no others,
 * and need all rights for these. */
void jit_pkru_write(struct jit_cpu *c, uint32_t pkru)
{
	struct jit_priv *p = c->p;
	uint32_t changed = c->pkru ^ pkru;

	c->pkru = pkru;
	if (!changed || !(c->st.cr4 & CR4_PKE)) /* a change of CR4.PKE flushes everything */
		return;
	if (changed & 3) {
		jit_tlb_flush(c, true);
		jit_mode_update(c);
	} else if (p->keyed_filled > KEYED_LIST) {
		for (unsigned i = 0; i < JIT_TLB_SIZE; i++)
			for (enum jit_mmu m = 0; m < 3; m++)
				drop_keyed(c, m, i);
	} else {
		for (unsigned i = 0; i < p->keyed_filled; i++)
			drop_keyed(c, (enum jit_mmu)(p->keyed_list[i] >> JIT_TLB_BITS),
				   p->keyed_list[i] & (JIT_TLB_SIZE - 1));
	}
	p->keyed_filled = 0;
}

static void flush_large(struct jit_cpu *c, uint64_t gva)
{
	for (unsigned i = 0; i < JIT_TLB_SIZE; i++)
		for (enum jit_mmu m = 0; m < 3; m++)
			if ((c->tlb[i].e[m].gpa & TLB_LARGE) &&
			    c->tlb[i].e[m].tag_read >> 30 == gva >> 30)
				entry_clear(c, m, i);
	for (enum jit_mmu m = 0; m < 3; m++)
		jit_itlb_clear(c, m, true);
}

void jit_tlb_flush_page(struct jit_cpu *c, uint64_t gva)
{
	if (c->p->tlb_large & tlb_large_bit(gva))
		flush_large(c, gva);
	for (enum jit_mmu m = 0; m < 3; m++) {
		entry_clear(c, m, (gva >> 12) & (JIT_TLB_SIZE - 1));
		c->itlb_id[m][(gva >> 12) % JIT_ITLB_SIZE] = 0;
	}
	c->user_rsp = 0;
	jit_window_flushed_page(c, jit_pcid(c), gva);
}

void jit_tlb_unwrite(struct jit_cpu *c, gpa_t gpa)
{
	uint64_t *written = c->p->tlb_written;

	gpa &= ~0xfffull;
	jit_window_unwrite(c, gpa);
	if (!(written[tlb_write_hash(gpa) / 64] & BIT(tlb_write_hash(gpa) % 64)))
		return;
	jit_zero(written, sizeof c->p->tlb_written);
	for (unsigned i = 0; i < JIT_TLB_SIZE; i++)
		for (enum jit_mmu m = 0; m < 3; m++) {
			struct jit_tlb_entry *t = &c->tlb[i].e[m];

			if (!tlb_is_tag(t->tag_write))
				continue;
			if ((t->gpa & ~0xfffull) == gpa)
				t->tag_write = tlb_no_tag(i);
			else
				tlb_note_write(c, t->gpa);
		}
}

void jit_tlb_unwrite_all(struct jit_cpu *c)
{
	for (unsigned i = 0; i < JIT_TLB_SIZE; i++)
		for (enum jit_mmu m = 0; m < 3; m++)
			c->tlb[i].e[m].tag_write = tlb_no_tag(i);
	jit_window_unwrite(c, WINDOW_ALL);
}

static noreturn void raise_address(struct jit_cpu *c, bool stack)
{
	jit_raise_err(c, stack ? X86_SS_FAULT : X86_GP, 0);
}

#define HUGE_PIECES (MIB(2) / TOUCH_BYTES)
#define HUGE_AFTER  12 /* pieces of a huge page's that the guest has touched */

/* So much of these 2 MiB was touched that the rest will be, too: the host can have all of it at
 * once, and its TLB will hold it in one entry. */
static bool touch_huge(struct jit_cpu *c, gpa_t gpa)
{
	uint8_t *all = &c->vm->cache.touched[(gpa & ~(gpa_t)(MIB(2) - 1)) / TOUCH_BYTES];
	unsigned n = 0;

	for (unsigned i = 0; i < HUGE_PIECES; i++)
		n += __atomic_load_n(&all[i], __ATOMIC_RELAXED);
	if (n != HUGE_AFTER || !mem_make_huge(c->env->mem, gpa))
		return false;
	for (unsigned i = 0; i < HUGE_PIECES; i++)
		__atomic_store_n(&all[i], 1, __ATOMIC_RELAXED);
	return true;
}

/* The guest's first access to a few pages: it has more to do there, and a fault for each costs the
 * host more than all of them at once. The host's pages may go again (a balloon); then faults do. */
static void touch(struct jit_cpu *c, gpa_t gpa)
{
	const struct jit_cache *k = &c->vm->cache;
	uint8_t *touched = &k->touched[gpa / TOUCH_BYTES];
	void *at;

	if (gpa >> 12 >= k->phys_count || __atomic_load_n(touched, __ATOMIC_RELAXED))
		return;
	__atomic_store_n(touched, 1, __ATOMIC_RELAXED);
	if (touch_huge(c, gpa))
		return;
	at = mem_span(c->env->mem, gpa & ~(gpa_t)(TOUCH_BYTES - 1), TOUCH_BYTES);
	if (at)
		(void)madvise(at, TOUCH_BYTES, MADV_POPULATE_WRITE);
}

/* Walks for gva and fills its slot. Returns the page's host address, or NULL when it is not
 * RAM (*gpa says what it is). Raises. */
static uint8_t *fill(struct jit_cpu *c, enum jit_mmu m, uint64_t gva, enum jit_access a, bool stack,
		     gpa_t *gpa)
{
	struct jit_mapping map;
	struct jit_tlb_entry *t = entry_of(c, m, gva);
	uint64_t page = gva & ~0xfffull;
	unsigned slot = (gva >> 12) & (JIT_TLB_SIZE - 1);
	uint32_t error;
	uint8_t *ram, *hva;
	bool writable;

	if (!jit_canonical(c, gva))
		raise_address(c, stack);
	if (!jit_walk(c, gva, m, a, &map, &error))
		jit_raise_pf(c, gva, error);
	*gpa = map.gpa;
	ram = mem_ram(c->env->mem, map.gpa, 4096);
	/* ROM takes no writes: they go the way of MMIO, where nobody is. */
	hva = ram || a == ACC_WRITE ? ram : mem_span(c->env->mem, map.gpa, 4096);
	if (!hva)
		return NULL;
	if (ram)
		touch(c, map.gpa);
	writable = ram && map.writable;
	t->tag_read = page;
	t->tag_write = tlb_no_tag(slot);
	if (writable && !jit_code_on_page(&c->vm->cache, map.gpa)) {
		t->tag_write = page;
		tlb_note_write(c, map.gpa);
	}
	if (c->p->debug.watches) {
		if (jit_debug_watched(c, page, 4096, true))
			t->tag_write = tlb_no_tag(slot);
		if (jit_debug_watched(c, page, 4096, false))
			t->tag_read = t->tag_write = tlb_no_tag(slot);
	}
	t->hva = (uint64_t)hva;
	t->gpa = map.gpa | (map.global ? TLB_GLOBAL : 0) | (map.large ? TLB_LARGE : 0) |
		 (writable ? TLB_WRITABLE : 0) | (map.key ? TLB_KEYED : 0);
	if (map.key)
		tlb_note_keyed(c, m, slot);
	if (map.large)
		c->p->tlb_large |= tlb_large_bit(gva);
	if (!map.global || m == MMU_USER)
		tlb_note(c, m, slot);
	return hva;
}

/* The host page for an access, from the TLB or by a walk; NULL: not RAM. */
static uint8_t *page_for(struct jit_cpu *c, enum jit_mmu m, uint64_t gva, enum jit_access a,
			 bool stack, gpa_t *gpa)
{
	struct jit_tlb_entry *t = entry_of(c, m, gva);

	if (t->tag_read == (gva & ~0xfffull) &&
	    (a == ACC_READ || (a == ACC_WRITE && (t->gpa & TLB_WRITABLE)))) {
		*gpa = t->gpa & ~0xfffull;
		return (uint8_t *)t->hva;
	}
	return fill(c, m, gva, a, stack, gpa);
}

static bool lapic_page(const struct jit_cpu *c, gpa_t gpa)
{
	return c->vcpu.lapic && (gpa & ~0xfffull) == (c->st.apic_base & 0xffffff000ull) &&
	       (c->st.apic_base & 0xc00) == 0x800;
}

/* MMIO of any length up to 8 within a page. */
static uint64_t mmio_read(struct jit_cpu *c, gpa_t gpa, unsigned size)
{
	uint64_t v;

	jit_fpu_leave(c);
	if (lapic_page(c, gpa)) {
		v = c->vcpu.lapic->ops->mmio_read(c->vcpu.lapic, gpa & 0xff0);
		return v >> (gpa & 3) * 8;
	}
	jit_still(c, WORLD_MID); /* a device may take its time */
	v = bus_read(c->env->bus, BUS_MMIO, gpa, size);
	jit_move(c);
	return v;
}

static void mmio_write(struct jit_cpu *c, gpa_t gpa, uint64_t v, unsigned size)
{
	jit_fpu_leave(c);
	if (lapic_page(c, gpa)) {
		c->vcpu.lapic->ops->mmio_write(c->vcpu.lapic, gpa & 0xff0, (uint32_t)v);
		return;
	}
	jit_still(c, WORLD_MID);
	bus_write(c->env->bus, BUS_MMIO, gpa, v, size);
	jit_move(c);
}

/* The largest power of two, up to 8, that the access can start with. */
static unsigned mmio_chunk(uint64_t at, unsigned len)
{
	unsigned n = 8;

	while (n > len || (at & (n - 1)))
		n >>= 1;
	return n;
}

/* Aligned accesses of up to 8 bytes are one access, as other vCPUs see them. */
static void copy(uint8_t *to, const uint8_t *from, unsigned len)
{
	if (len == 8 && (((uintptr_t)to | (uintptr_t)from) & 7) == 0)
		*(volatile uint64_t *)to = *(const volatile uint64_t *)from;
	else if (len == 4 && (((uintptr_t)to | (uintptr_t)from) & 3) == 0)
		*(volatile uint32_t *)to = *(const volatile uint32_t *)from;
	else if (len == 2 && (((uintptr_t)to | (uintptr_t)from) & 1) == 0)
		*(volatile uint16_t *)to = *(const volatile uint16_t *)from;
	else
		jit_copy(to, from, len);
}

/* One page's part of an access. */
static void read_part(struct jit_cpu *c, enum jit_mmu m, uint64_t gva, uint8_t *to, unsigned len)
{
	gpa_t gpa;
	uint8_t *page = page_for(c, m, gva, ACC_READ, false, &gpa);

	if (page) {
		copy(to, page + (gva & 0xfff), len);
		return;
	}
	for (unsigned n; len; len -= n, to += n, gva += n) {
		uint64_t v;

		n = mmio_chunk(gva, len);
		v = mmio_read(c, (gpa & ~0xfffull) | (gva & 0xfff), n);
		jit_copy(to, &v, n);
	}
}

/* Where the bytes are code, it goes first, and nobody runs it meanwhile. */
static void write_ram(struct jit_cpu *c, gpa_t gpa, uint8_t *to, const uint8_t *from, unsigned len)
{
	struct jit_cache *k = &c->vm->cache;
	bool stop = false;

	if (jit_code_on_page(k, gpa)) {
		jit_writing(c, gpa);
		if (jit_code_overlaps(k, gpa, len)) {
			stop = !c->p->member.stopping;
			if (stop)
				jit_stop(c, WORLD_MID);
			jit_code_invalidate(k, gpa, len);
			atomic_store_explicit(&c->attention, 1, memory_order_relaxed);
		}
	}
	copy(to, from, len);
	jit_not_writing(c);
	if (stop)
		jit_go(c);
}

static void write_part(struct jit_cpu *c, enum jit_mmu m, uint64_t gva, const uint8_t *from,
		       unsigned len)
{
	gpa_t gpa;
	uint8_t *page = page_for(c, m, gva, ACC_WRITE, false, &gpa);

	if (page) {
		gpa_t at = (gpa & ~0xfffull) | (gva & 0xfff);

		write_ram(c, at, page + (gva & 0xfff), from, len);
		return;
	}
	for (unsigned n; len; len -= n, from += n, gva += n) {
		uint64_t v = 0;

		n = mmio_chunk(gva, len);
		jit_copy(&v, from, n);
		mmio_write(c, (gpa & ~0xfffull) | (gva & 0xfff), v, n);
	}
}

void jit_read_buf(struct jit_cpu *c, enum jit_mmu m, uint64_t gva, void *to, unsigned len)
{
	uint8_t *at = to;

	if (c->st.dr7 & 0xff)
		jit_watch(c, gva, len, false);
	if (c->p->debug.watches)
		jit_debug_touch(c, gva, len, false);
	if ((gva & 0xfff) + len > 4096 && len <= 4096)
		jit_probe(c, m, gva, len, ACC_READ);
	for (unsigned n; len; len -= n, at += n, gva += n) {
		n = (unsigned)min_u64(4096 - (gva & 0xfff), len);
		read_part(c, m, gva, at, n);
	}
}

void jit_write_buf(struct jit_cpu *c, enum jit_mmu m, uint64_t gva, const void *from, unsigned len)
{
	const uint8_t *at = from;

	if (c->st.dr7 & 0xff)
		jit_watch(c, gva, len, true);
	if (c->p->debug.watches)
		jit_debug_touch(c, gva, len, true);
	if ((gva & 0xfff) + len > 4096)
		for (uint64_t page = gva & ~0xfffull; page < gva + len; page += 4096)
			jit_probe(c, m, max_u64(page, gva), 1, ACC_WRITE);
	for (unsigned n; len; len -= n, at += n, gva += n) {
		n = (unsigned)min_u64(4096 - (gva & 0xfff), len);
		write_part(c, m, gva, at, n);
	}
}

uint64_t jit_read(struct jit_cpu *c, enum jit_mmu m, uint64_t gva, unsigned size)
{
	uint64_t v = 0;

	jit_check_aligned(c, m, gva, size);
	jit_read_buf(c, m, gva, &v, size);
	return v;
}

void jit_write(struct jit_cpu *c, enum jit_mmu m, uint64_t gva, uint64_t v, unsigned size)
{
	jit_check_aligned(c, m, gva, size);
	jit_write_buf(c, m, gva, &v, size);
}

void jit_probe(struct jit_cpu *c, enum jit_mmu m, uint64_t gva, unsigned len, enum jit_access a)
{
	gpa_t gpa;

	page_for(c, m, gva, a, false, &gpa);
	if ((gva & 0xfff) + len > 4096)
		page_for(c, m, (gva | 0xfff) + 1, a, false, &gpa);
	/* Whoever probes may have effects before the access itself. */
	if (c->p->debug.watches && !c->p->stepping)
		jit_debug_touch(c, gva, len, a == ACC_WRITE);
}

void *jit_ram(struct jit_cpu *c, enum jit_mmu m, uint64_t gva, enum jit_access a, unsigned *left)
{
	gpa_t gpa;
	uint8_t *page = page_for(c, m, gva, a, false, &gpa);

	if (!page || (c->st.dr7 & 0xff) ||
	    (c->p->debug.watches && jit_debug_watched(c, gva & ~0xfffull, 4096, a == ACC_WRITE)) ||
	    (a == ACC_WRITE && jit_code_on_page(&c->vm->cache, gpa)))
		return NULL;
	*left = 4096 - (gva & 0xfff);
	return page + (gva & 0xfff);
}

/* Expand-down segments (type 01xx) are valid above the limit (SDM 5.3). */
static bool limit_ok(const struct x86_seg *s, uint64_t offset, unsigned size)
{
	uint64_t last = offset + size - 1;

	if ((s->attr & SEG_S) && (s->attr & 0xc) == 0x4)
		return offset > s->limit && last <= (s->attr & SEG_DB ? 0xffffffffu : 0xffffu);
	return last <= s->limit;
}

uint64_t jit_seg_addr(struct jit_cpu *c, enum x86_sreg s, uint64_t offset, unsigned size,
		      enum jit_access a)
{
	const struct x86_seg *seg = &c->st.seg[s];
	uint64_t gva;

	if (jit_code64(c)) {
		gva = offset + (s >= X86_FS ? seg->base : 0);
		if (!jit_canonical(c, gva))
			raise_address(c, s == X86_SS);
		return gva;
	}
	if ((seg->attr & SEG_UNUSABLE) || !limit_ok(seg, offset, size))
		raise_address(c, s == X86_SS);
	if (!(c->mode & MODE_REAL)) {
		bool code = seg->attr & 8, rw = seg->attr & 2;

		if (a == ACC_WRITE ? code || !rw : code && !rw)
			raise_address(c, s == X86_SS);
	}
	return (uint32_t)(seg->base + offset);
}

bool jit_x87_pending(const struct jit_cpu *c)
{
	uint16_t fsw;

	__asm__ volatile("fnstsw %0" : "=a"(fsw));
	return c->fpu_live && (fsw & 0x80);
}

uint64_t jit_seg_thunk(struct jit_cpu *c, uint64_t offset, uint32_t arg)
{
	if ((arg & SITE_X87) && jit_x87_pending(c))
		jit_raise(c, X86_MF);
	return jit_seg_addr(c, (enum x86_sreg)(arg >> 24), offset, SITE_SIZE(arg),
			    arg & SITE_WRITE ? ACC_WRITE : ACC_READ);
}

void jit_check_flat(struct jit_cpu *c, uint64_t gva, unsigned last, uint32_t site)
{
	if ((site & SITE_FLAT) && gva + last > 0xffffffffu)
		raise_address(c, site & SITE_STACK);
}

/* An access that spans two pages: one host address for both when they lie side by side in
 * RAM and may be accessed directly; a copy for a plain read; else NULL, for the slow way. */
static uint8_t *miss_across(struct jit_cpu *c, uint64_t gva, uint32_t site)
{
	enum jit_mmu m = SITE_MMU(site);
	enum jit_access a = site & SITE_WRITE ? ACC_WRITE : ACC_READ;
	gpa_t gpa1, gpa2;
	uint8_t *one = page_for(c, m, gva, a, site & SITE_STACK, &gpa1);
	uint8_t *two = page_for(c, m, (gva | 0xfff) + 1, a, site & SITE_STACK, &gpa2);

	if (!one || !two)
		return NULL;
	if (a == ACC_WRITE &&
	    (jit_code_on_page(&c->vm->cache, gpa1) || jit_code_on_page(&c->vm->cache, gpa2)))
		return NULL;
	if (two == one + 4096)
		return one + (gva & 0xfff);
	if (a == ACC_WRITE || SITE_SIZE(site) > sizeof c->bounce - 64)
		return NULL;
	unsigned first = 4096 - (gva & 0xfff);
	uint8_t *at = c->bounce + (gva & 63); /* alignment faults stay */

	jit_copy(at, one + (gva & 0xfff), first);
	jit_copy(at + first, two, SITE_SIZE(site) - first);
	return at;
}

static bool site_watched(const struct jit_cpu *c, uint64_t gva, uint32_t site)
{
	unsigned size = SITE_SIZE(site);
	bool reads = !(site & SITE_WRITE) || (site & SITE_READ);

	return ((site & SITE_WRITE) && jit_debug_watched(c, gva, size, true)) ||
	       (reads && jit_debug_watched(c, gva, size, false));
}

uint8_t *jit_miss(struct jit_cpu *c, uint64_t gva, uint32_t site)
{
	unsigned size = SITE_SIZE(site);
	uint8_t *page, *at = NULL;
	gpa_t gpa;

	c->p->misses++;
	if (!(c->mode & MODE_CODE64))
		gva = (uint32_t)gva;
	if (site & SITE_MASKED)
		jit_leave(c, LEAVE_STEP);
	if ((site & SITE_X87) && jit_x87_pending(c))
		jit_raise(c, X86_MF);
	jit_check_flat(c, gva, size - 1, site);
	if ((site & SITE_ALIGNED) && (gva & (size - 1)))
		jit_raise_err(c, X86_GP, 0);
	if (c->p->debug.watches && site_watched(c, gva, site))
		jit_leave(c, LEAVE_STEP);
	if ((gva & 0xfff) + size > 4096) {
		at = miss_across(c, gva, site);
	} else {
		bool write = site & SITE_WRITE;

		page = page_for(c, SITE_MMU(site), gva, write ? ACC_WRITE : ACC_READ,
				site & SITE_STACK, &gpa);
		gpa = (gpa & ~0xfffull) | (gva & 0xfff);
		write &= page && jit_code_on_page(&c->vm->cache, gpa);
		if (write)
			jit_writing(c, gpa);
		if (page && !(write && jit_code_overlaps(&c->vm->cache, gpa, size)))
			at = page + (gva & 0xfff);
	}
	if (!at)
		jit_leave(c, LEAVE_STEP);
	return at;
}
