#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "cpu/jit/pcid.h"
#include "cpu/jit/walk.h"
#include "cpu/jit/window.h"

#define RESERVED (LANE_SIZE + 2 * LANE_GUARD)

static void *reserve(void *at, uint64_t len)
{
	return mmap(at, len, PROT_NONE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (at ? MAP_FIXED : 0), -1, 0);
}

#define HOST_MAPS_USUAL 65530

uint32_t jit_windows_budget(void)
{
	FILE *f = fopen("/proc/sys/vm/max_map_count", "re");
	unsigned long host = HOST_MAPS_USUAL;

	if (f) {
		if (fscanf(f, "%lu", &host) != 1)
			host = HOST_MAPS_USUAL;
		fclose(f);
	}
	return (uint32_t)min_u64(host / 2, INT32_MAX);
}

/* n more pieces of w, of the VM's windows in all. */
static void count_maps(struct jit_cpu *c, struct window *w, unsigned n)
{
	w->maps += n;
	atomic_fetch_add_explicit(&c->vm->window_maps, n, memory_order_relaxed);
}

static void forget_maps(struct jit_cpu *c, struct window *w)
{
	atomic_fetch_sub_explicit(&c->vm->window_maps, w->maps, memory_order_relaxed);
	w->maps = 0;
}

static bool over_budget(const struct jit_cpu *c)
{
	return atomic_load_explicit(&c->vm->window_maps, memory_order_relaxed) >=
	       c->vm->window_maps_max;
}

static void close_lanes(struct window *w)
{
	for (unsigned n = 0; n < LANES; n++) {
		if (w->lane[n])
			munmap(w->lane[n] - LANE_GUARD, RESERVED);
		w->lane[n] = NULL;
	}
}

void jit_window_close(struct jit_cpu *c, struct window *w)
{
	struct windows *ws = c->p->win;

	close_lanes(w);
	forget_maps(c, w);
	if (w->table)
		munmap(w->table, WIN_TABLES * sizeof *w->table);
	if (ws->now == w)
		ws->now = NULL;
	memset(w, 0, sizeof *w);
}

void jit_windows_done(struct jit_cpu *c)
{
	if (!c->p->win)
		return;
	for (unsigned i = 0; i < WINDOWS; i++)
		jit_window_close(c, &c->p->win->w[i]);
	free(c->p->win);
}

/* A free one, or the one that was used longest ago. */
static struct window *victim(struct jit_cpu *c)
{
	struct windows *ws = c->p->win;
	struct window *oldest = NULL;

	for (struct window *w = ws->w; w < ws->w + WINDOWS; w++) {
		if (!w->root)
			return w;
		if (!oldest || w->used < oldest->used)
			oldest = w;
	}
	jit_window_close(c, oldest);
	return oldest;
}

static bool open_lane(struct window *w, unsigned n)
{
	uint8_t *p;

	if (w->lane[n])
		return true;
	p = reserve(NULL, RESERVED);
	if (p == MAP_FAILED)
		return false;
	w->lane[n] = p + LANE_GUARD;
	return true;
}

/* The host's address space has room for some thirty lanes, of all vCPUs. false: others have them. */
static bool make_lane(struct jit_cpu *c, struct window *w, unsigned n)
{
	struct windows *ws = c->p->win;

	while (!open_lane(w, n)) {
		struct window *oldest = NULL;

		for (struct window *o = ws->w; o < ws->w + WINDOWS; o++)
			if (o != w && o->root && (!oldest || o->used < oldest->used))
				oldest = o;
		if (!oldest)
			return false;
		jit_window_close(c, oldest);
	}
	return true;
}

bool jit_window_open(struct jit_cpu *c)
{
	struct window *w = victim(c);
	uint64_t rip = c->st.rip >> LANE_BITS, sp = c->st.gpr[X86_RSP] >> LANE_BITS;

	w->table = mmap(NULL, WIN_TABLES * sizeof *w->table, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (w->table == MAP_FAILED) {
		w->table = NULL;
		return false;
	}
	w->root = c->st.cr3 & 0x000ffffffffff000ull;
	w->pcid = jit_pcid(c);
	w->used = ++c->p->win->clock;
	if ((rip < LANES && !make_lane(c, w, (unsigned)rip)) ||
	    (sp < LANES && !make_lane(c, w, (unsigned)sp))) {
		jit_window_close(c, w);
		return false;
	}
	return true;
}

/* A window that lacks a lane would be left by a signal at each access there: it goes. */
void jit_window_open_lanes(struct jit_cpu *c)
{
	struct windows *ws = c->p->win;
	struct window *w = ws->now;

	if (!ws->want)
		return;
	jit_fpu_leave(c);
	for (unsigned n = 0; w && n < LANES; n++) {
		if (!(ws->want >> n & 1))
			continue;
		if (make_lane(c, w, n))
			c->delta[n] = (uint64_t)w->lane[n] - n * LANE_SIZE;
		else
			w->churn = UINT32_MAX;
	}
	ws->want = 0;
}

/* ---- pages ---- */

static uint8_t *hva_of(const struct window *w, const struct win_table *t, unsigned n)
{
	uint64_t gva = t->gva + 4096ull * n;

	return w->lane[gva >> LANE_BITS] + (gva & (LANE_SIZE - 1));
}

static void set_bits(uint64_t *bits, unsigned n, unsigned pages, bool to)
{
	for (; pages; pages--, n++)
		bits[n / 64] = (bits[n / 64] & ~BIT(n % 64)) | (uint64_t)to << (n % 64);
}

/* Forgets everything that w has mapped; most of it will be wanted again. */
static void empty(struct jit_cpu *c, struct window *w)
{
	for (unsigned n = 0; n < LANES; n++)
		if (w->lane[n])
			reserve(w->lane[n], LANE_SIZE);
	memset(w->bucket, 0, sizeof w->bucket);
	w->churn += w->pages;
	w->tables = w->pages = 0;
	forget_maps(c, w);
}

void jit_window_unmap(struct jit_cpu *c, struct window *w, struct win_table *t, unsigned n,
		      unsigned pages)
{
	c->p->win->unmapped++;
	w->churn++;
	w->pages -= (uint32_t)min_u64(pages, w->pages);
	if (reserve(hva_of(w, t, n), 4096ull * pages) == MAP_FAILED) {
		empty(c, w);
		return;
	}
	set_bits(t->there, n, pages, false);
	set_bits(t->writable, n, pages, false);
	count_maps(c, w, 1); /* it may have cut one in two */
}

void jit_window_protect(struct jit_cpu *c, struct window *w, struct win_table *t, unsigned n)
{
	if (mprotect(hva_of(w, t, n), 4096, PROT_READ) < 0)
		jit_window_unmap(c, w, t, n, 1);
	set_bits(t->writable, n, 1, false);
	count_maps(c, w, 2);
}

static uint64_t file_offset(const struct jit_cpu *c, gpa_t gpa)
{
	const struct mem_region *r;
	unsigned n = mem_regions(c->env->mem, &r);

	for (unsigned i = 0; i + 1 < n; i++, r++)
		if (gpa < r->gpa + r->size)
			break;
	return r->fd_offset + (gpa - r->gpa);
}

static bool map(struct jit_cpu *c, struct window *w, struct win_table *t, unsigned n,
		unsigned pages, gpa_t gpa, bool write)
{
	void *at = hva_of(w, t, n);

	if (mmap(at, 4096ull * pages, PROT_READ | (write ? PROT_WRITE : 0),
		 MAP_SHARED | MAP_FIXED | MAP_NORESERVE | MAP_POPULATE, mem_fd(c->env->mem),
		 (off_t)file_offset(c, gpa)) == MAP_FAILED)
		return false;
	if (!(t->there[n / 64] >> (n % 64) & 1))
		w->pages += pages;
	for (unsigned k = 0; k < pages; k++)
		t->pfn[n + k] = (uint32_t)(gpa >> 12) + k;
	set_bits(t->there, n, pages, true);
	set_bits(t->writable, n, pages, write);
	count_maps(c, w, 1);
	c->p->win->mapped++;
	return true;
}

static bool pages_free_of_code(const struct jit_cpu *c, gpa_t gpa, unsigned pages)
{
	for (unsigned k = 0; k < pages; k++)
		if (jit_code_on_page(&c->vm->cache, gpa + 4096ull * k))
			return false;
	return true;
}

/* Room for one more piece: the vCPU's other windows go first. false: other vCPUs have it all; then w
 * counts as too costly and goes, too. */
static bool make_room(struct jit_cpu *c, struct window *w)
{
	struct windows *ws = c->p->win;

	if (w->maps > WIN_MAPS || w->tables == WIN_TABLES)
		empty(c, w);
	if (!over_budget(c))
		return true;
	for (struct window *o = ws->w; o < ws->w + WINDOWS; o++)
		if (o != w)
			jit_window_close(c, o);
	empty(c, w);
	if (!over_budget(c))
		return true;
	w->churn = UINT32_MAX;
	return false;
}

static bool map_gva(struct jit_cpu *c, struct window *w, uint64_t gva, bool write)
{
	struct jit_mapping m;
	uint32_t error;
	struct win_table *t;
	bool writable;

	if (!jit_walk(c, gva, MMU_USER, write ? ACC_WRITE : ACC_READ, &m, &error))
		return false; /* a page fault of the guest's own */
	writable = m.writable && !jit_code_on_page(&c->vm->cache, m.gpa);
	if (m.key || (write && !writable) || !mem_ram(c->env->mem, m.gpa, 4096)) {
		w->churn++;
		return false;
	}
	if (!make_room(c, w))
		return false;
	t = jit_window_table(w, gva);
	if (m.large) { /* at least 2 MiB of RAM, all alike */
		gpa_t first = m.gpa & ~(MIB(2) - 1);

		if (mem_ram(c->env->mem, first, MIB(2)) && pages_free_of_code(c, first, 512))
			return map(c, w, t, 0, 512, first, writable);
	}
	return map(c, w, t, gva >> 12 & 511, 1, m.gpa, writable);
}

int jit_window_fault(struct jit_cpu *c, uint64_t hva, bool write, const void *pc)
{
	struct windows *ws = c->p->win;
	struct window *w = ws->now;
	bool again = ws->fault_pc == pc && ws->fault_at == (const void *)hva;
	int r = -1;

	for (unsigned n = 0; w && n < LANES; n++) {
		uint64_t lane = (uint64_t)w->lane[n];

		if (!lane || hva < lane - LANE_GUARD || hva >= lane + LANE_SIZE + LANE_GUARD)
			continue;
		r = 0;
		if (!again && hva >= lane && hva < lane + LANE_SIZE &&
		    map_gva(c, w, hva - lane + n * LANE_SIZE, write))
			r = 1;
		break;
	}
	ws->fault_pc = r == 1 ? pc : NULL;
	ws->fault_at = (const void *)hva;
	return r;
}
