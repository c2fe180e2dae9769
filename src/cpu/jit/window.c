#include "cpu/jit/window.h"

#include "cpu/jit/pcid.h"
#include "cpu/jit/walk.h"

#define PTE_P    BIT(0)
#define PTE_W    BIT(1)
#define PTE_U    BIT(2)
#define PTE_A    BIT(5)
#define PTE_D    BIT(6)
#define PTE_PS   BIT(7)
#define PTE_ADDR 0x000ffffffffff000ull
#define PTE_KEY  (15ull << 59)

#define PROMOTE_TICKS 3
#define TICK_MAX      50000000ull /* TSC ticks that one sample may count for */

static uint64_t root_of(const struct jit_cpu *c)
{
	return c->st.cr3 & PTE_ADDR;
}

/* Windows know paging of four levels, and no protection key but 0, which allows all. */
static bool possible(const struct jit_cpu *c)
{
	if ((c->st.cr4 & CR4_PKE) && (c->pkru & 3))
		return false;
	return jit_long_mode(c) && (c->st.cr0 & CR0_PG) && !(c->st.cr4 & CR4_LA57) && root_of(c);
}

static struct window *find(const struct jit_cpu *c)
{
	struct windows *ws = c->p->win;
	uint64_t root = root_of(c);

	if (ws->now && ws->now->root == root)
		return ws->now;
	for (struct window *w = ws->w; w < ws->w + WINDOWS; w++)
		if (w->root == root)
			return w;
	return NULL;
}

static unsigned table_bucket(uint64_t gva)
{
	return (unsigned)(gva >> 21 ^ gva >> 31) % WIN_BUCKETS;
}

struct win_table *jit_window_table(struct window *w, uint64_t gva)
{
	struct win_table *t, **at = &w->bucket[table_bucket(gva)];

	gva &= ~(MIB(2) - 1);
	for (t = *at; t; t = t->next)
		if (t->gva == gva)
			return t;
	if (w->tables == WIN_TABLES)
		return NULL;
	t = &w->table[w->tables++];
	jit_zero(t, sizeof *t);
	t->gva = gva;
	t->next = *at;
	*at = t;
	return t;
}

/* ---- looking at translations again ---- */

struct path {                  /* of the 2 MiB at some address */
	const uint64_t *table; /* its page table; NULL: a large page, or nothing */
	uint64_t large;        /* its entry, as if of 4 KiB pages; 0: nothing */
	uint64_t keys;         /* bits of the protection key, where there are any */
	bool user, write;
};

static void walk_path(const struct jit_cpu *c, uint64_t gva, struct path *p)
{
	uint64_t table = root_of(c);

	*p = (struct path){.keys = c->st.cr4 & CR4_PKE ? PTE_KEY : 0, .user = true, .write = true};
	for (unsigned level = 3; level; level--) {
		unsigned shift = 12 + 9 * level;
		const uint64_t *at = mem_span(c->env->mem, table + (gva >> shift & 511) * 8, 8);
		uint64_t e = at ? __atomic_load_n(at, __ATOMIC_RELAXED) : 0;

		if (!(e & PTE_P) || !(e & PTE_A))
			return;
		p->user &= !!(e & PTE_U);
		p->write &= !!(e & PTE_W);
		if (level < 3 && (e & PTE_PS)) {
			p->large = (e & (0xfff | PTE_KEY)) | (e & PTE_ADDR & ~(BIT(shift) - 1)) |
				   (gva & (BIT(shift) - 1) & ~(MIB(2) - 1));
			return;
		}
		table = e & PTE_ADDR;
	}
	p->table = mem_span(c->env->mem, table, 4096);
}

static bool same(const struct path *p, const struct win_table *t, unsigned n)
{
	uint64_t e = p->table   ? __atomic_load_n(&p->table[n], __ATOMIC_RELAXED)
		     : p->large ? p->large + 4096ull * n
				: 0;
	uint64_t need = PTE_P | PTE_U | PTE_A;

	if (t->writable[n / 64] >> (n % 64) & 1) {
		need |= PTE_W | PTE_D;
		if (!p->write)
			return false;
	}
	return p->user && (e & (need | p->keys)) == need && (e & PTE_ADDR) >> 12 == t->pfn[n];
}

/* Takes away those of t's pages that are not what they were. */
static void sync_table(struct jit_cpu *c, struct window *w, struct win_table *t)
{
	struct path p;
	unsigned from = 0, n = 0;

	walk_path(c, t->gva, &p);
	for (unsigned word = 0; word < 8; word++) {
		uint64_t left = t->there[word];

		if (!left && n == 0)
			continue;
		for (; left; left &= left - 1) {
			unsigned k = word * 64 + (unsigned)__builtin_ctzll(left);

			if (same(&p, t, k))
				continue;
			if (n && k != from + n) {
				jit_window_unmap(c, w, t, from, n);
				n = 0;
			}
			if (!n)
				from = k;
			n++;
		}
	}
	if (n)
		jit_window_unmap(c, w, t, from, n);
}

static void sync_page(struct jit_cpu *c, struct window *w, uint64_t gva)
{
	unsigned n = gva >> 12 & 511;
	struct win_table *t = w->bucket[table_bucket(gva)];
	struct path p;

	while (t && t->gva != (gva & ~(MIB(2) - 1)))
		t = t->next;
	if (!t || !(t->there[n / 64] >> (n % 64) & 1))
		return;
	walk_path(c, t->gva, &p);
	if (p.large) /* INVLPG drops all of it */
		sync_table(c, w, t);
	else if (!same(&p, t, n))
		jit_window_unmap(c, w, t, n, 1);
}

static void sync(struct jit_cpu *c, struct window *w)
{
	c->p->win->synced++;
	if (w->stale || w->stale_pages > WIN_PAGES) {
		for (struct win_table *t = w->table; t < w->table + w->tables; t++)
			sync_table(c, w, t);
	} else {
		for (unsigned i = 0; i < w->stale_pages; i++)
			sync_page(c, w, w->stale_page[i]);
	}
	w->stale = false;
	w->stale_pages = 0;
}

/* Without PCIDs a window is looked at again when its root is loaded. With them, it counts whose
 * translations it has. */
static bool is_of(const struct jit_cpu *c, const struct window *w, uint16_t pcid)
{
	return w->root && (c->st.cr4 & CR4_PCIDE ? w->pcid == pcid : w->root == root_of(c));
}

void jit_window_flushed(struct jit_cpu *c, bool all)
{
	struct windows *ws = c->p->win;

	for (struct window *w = ws->w; w < ws->w + WINDOWS; w++)
		if (w->root && (all || is_of(c, w, jit_pcid(c))))
			w->stale = true;
}

void jit_window_flushed_page(struct jit_cpu *c, uint16_t pcid, uint64_t gva)
{
	struct windows *ws = c->p->win;

	if (gva >> LANE_BITS >= LANES)
		return;
	for (struct window *w = ws->w; w < ws->w + WINDOWS; w++) {
		if (!is_of(c, w, pcid))
			continue;
		if (w->stale_pages < WIN_PAGES)
			w->stale_page[w->stale_pages] = gva;
		if (w->stale_pages <= WIN_PAGES)
			w->stale_pages++;
	}
}

void jit_window_flushed_pcid(struct jit_cpu *c, uint16_t pcid)
{
	struct windows *ws = c->p->win;

	for (struct window *w = ws->w; w < ws->w + WINDOWS; w++)
		if (is_of(c, w, pcid))
			w->stale = true;
}

/* ---- use ---- */

#define PAGE_COST                                                                                  \
	60000 /* TSC ticks for a page that comes and goes: two faults, mmap, and mmap again */
#define COST_SPARE 8000000 /* which nobody minds */

static bool too_costly(const struct window *w)
{
	return w->churn * PAGE_COST > w->gain / 4 + COST_SPARE;
}

static void demote(struct jit_cpu *c, struct window *w)
{
	unsigned n = (unsigned)(w->root >> 12) % WIN_ROOTS;

	if (c->p->win->seen[n].root == w->root) {
		c->p->win->seen[n].ticks = 0;
		c->p->win->seen[n].need = (uint32_t)min_u64(c->p->win->seen[n].need * 8ull, 100000);
	}
	c->p->win->demoted++;
	jit_window_close(c, w);
}

static void make_current(struct jit_cpu *c, struct window *w)
{
	for (unsigned n = 0; n < LANES; n++)
		c->delta[n] = w->lane[n] ? (uint64_t)w->lane[n] - n * LANE_SIZE : LANE_ABSENT;
	c->p->win->now = w;
}

bool jit_window_enter(struct jit_cpu *c)
{
	struct windows *ws = c->p->win;
	struct window *w;

	if (!possible(c) || c->p->debug.watches)
		return false;
	w = find(c);
	if (!w && ws->at_once) {
		jit_fpu_leave(c);
		if (jit_window_open(c))
			w = find(c);
	}
	if (!w)
		return false;
	w->used = ++ws->clock;
	if (w->pcid != jit_pcid(c)) {
		w->pcid = jit_pcid(c);
		w->stale = true;
	}
	if (w->stale || w->stale_pages) {
		jit_fpu_leave(c);
		sync(c, w);
		if (too_costly(w) && !ws->at_once) {
			demote(c, w);
			return false;
		}
	}
	if (ws->now != w)
		make_current(c, w);
	return true;
}

void jit_window_want(struct jit_cpu *c, uint64_t gva)
{
	if ((c->mode & MODE_DIRECT) && gva >> LANE_BITS < LANES &&
	    c->delta[gva >> LANE_BITS] == LANE_ABSENT)
		c->p->win->want |= BIT(gva >> LANE_BITS);
}

/* ---- code ---- */

static bool has_code(const struct jit_cpu *c, uint32_t pfn, gpa_t gpa)
{
	if (gpa != WINDOW_ALL)
		return pfn == gpa >> 12;
	return jit_code_on_page(&c->vm->cache, (gpa_t)pfn << 12);
}

static void unwrite(struct jit_cpu *c, struct window *w, gpa_t gpa)
{
	for (struct win_table *t = w->table; t < w->table + w->tables; t++)
		for (unsigned word = 0; word < 8; word++)
			for (uint64_t left = t->writable[word]; left; left &= left - 1) {
				unsigned n = word * 64 + (unsigned)__builtin_ctzll(left);

				if (has_code(c, t->pfn[n], gpa))
					jit_window_protect(c, w, t, n);
			}
}

void jit_window_unwrite(struct jit_cpu *c, gpa_t gpa)
{
	struct windows *ws = c->p->win;

	for (struct window *w = ws->w; w < ws->w + WINDOWS; w++)
		if (w->root)
			unwrite(c, w, gpa);
}

/* ---- who gets one ---- */

static void promote(struct jit_cpu *c)
{
	struct windows *ws = c->p->win;
	unsigned n = (unsigned)(root_of(c) >> 12) % WIN_ROOTS;

	if (ws->seen[n].root != root_of(c)) {
		ws->seen[n].root = root_of(c);
		ws->seen[n].ticks = 0;
		ws->seen[n].need = PROMOTE_TICKS;
	}
	if (++ws->seen[n].ticks < ws->seen[n].need)
		return;
	ws->seen[n].ticks = 0;
	if (jit_window_open(c)) {
		ws->promoted++;
		jit_mode_update(c);
	}
}

void jit_window_sample(struct jit_cpu *c)
{
	struct windows *ws = c->p->win;
	uint64_t now = __builtin_ia32_rdtsc(), past = now - ws->sampled;
	struct window *w;

	if (past < 2000000) /* much closer than a timer's */
		return;
	ws->sampled = now;
	if (!(c->mode & MODE_USER) || !(c->mode & MODE_CODE64) || !possible(c))
		return;
	w = find(c);
	if (!w) {
		promote(c);
		return;
	}
	w->gain += min_u64(past, TICK_MAX);
	if (too_costly(w) && !ws->at_once) {
		demote(c, w);
		jit_mode_update(c);
		return;
	}
	w->churn -= w->churn / 16; /* what is long past counts less */
	w->gain -= w->gain / 16;
}
