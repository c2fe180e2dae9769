#include "cpu/jit/cache.h"

void *jit_cache_alloc(struct jit_cache *k, uint64_t bytes)
{
	uint8_t *p = k->arena_at;

	bytes = align_up(bytes, 8);
	if ((uint64_t)(k->arena_end - p) < bytes)
		return NULL;
	k->arena_at += bytes;
	jit_zero(p, bytes);
	return p;
}

void jit_cache_flush(struct jit_cache *k)
{
	for (struct jit_page **h = k->hash; h < k->hash + PAGE_HASH; h++)
		for (struct jit_page *p = *h; p; p = p->next_hash) {
			k->phys[p->gpa >> 12] = NULL;
			mem_unmark(k->mem, p->gpa);
		}
	jit_zero(k->hash, sizeof k->hash);
	jit_cache_release(k); /* of which the pages above were part */
	k->hot = k->hot_start;
	k->cold = k->cold_start;
	k->arena_at = k->arena + ARENA_FIRST;
	k->blocks = 0;
	k->straddlers = 0;
	k->next_id = 0;
	k->flushes++;
}

static unsigned page_bucket(uint64_t gva, uint32_t mode)
{
	return (unsigned)((gva >> 12) * 0x9e3779b1u + mode * 0x85ebca6bu) >> 7 & (PAGE_HASH - 1);
}

struct jit_page *jit_page_get(struct jit_cache *k, uint64_t gva, gpa_t gpa, uint32_t mode,
			      struct jit_cs cs)
{
	struct jit_page **h, *p;
	struct jit_phys *phys;

	gva &= ~0xfffull;
	gpa &= ~0xfffull;
	h = &k->hash[page_bucket(gva, mode ^ cs.base)];
	for (struct jit_page **at = h; (p = *at); at = &p->next_hash)
		if (p->gva == gva && p->gpa == gpa && p->mode == mode && p->cs.base == cs.base &&
		    p->cs.limit == cs.limit) {
			*at = p->next_hash; /* what is asked for now is asked for again soon */
			p->next_hash = *h;
			*h = p;
			return p;
		}

	phys = k->phys[gpa >> 12];
	if (!phys)
		phys = jit_cache_alloc(k, sizeof *phys);
	p = phys ? jit_cache_alloc(k, sizeof *p) : NULL;
	if (!p)
		return NULL;
	k->phys[gpa >> 12] = phys;
	p->gva = gva;
	p->gpa = gpa;
	p->mode = mode;
	p->cs = cs;
	p->id = ++k->next_id;
	p->next_hash = *h;
	*h = p;
	p->next_phys = phys->pages;
	phys->pages = p;
	return p;
}

static unsigned block_bucket(uint64_t gva)
{
	return (gva ^ gva >> 4 ^ gva >> 8) % PAGE_BUCKETS;
}

struct jit_block *jit_page_find(const struct jit_cache *k, struct jit_page *p, uint64_t gva)
{
	jit_ref *bucket = &p->bucket[block_bucket(gva)], first = *bucket;
	struct jit_block *b = jit_at(k, first), *before = NULL;

	while (b && b->gva != gva) {
		before = b;
		b = jit_at(k, b->next);
	}
	if (b && before) { /* to the front: a page may have hundreds of blocks */
		before->next = b->next;
		*bucket = jit_ref_to(k, b);
		b->next = first;
	}
	return b;
}

static struct jit_page *page_of(const struct jit_cache *k, const struct jit_block *b)
{
	return jit_at(k, b->page);
}

static uint64_t chunk_bits(unsigned off, unsigned len)
{
	unsigned first = off / 64, last = (off + len - 1) / 64;

	return (last == 63 ? ~0ull : BIT(last + 1) - 1) & ~(BIT(first) - 1);
}

/* Bytes of the block on its first page. */
static unsigned first_part(const struct jit_block *b)
{
	return b->page2 ? 4096 - (b->gva & 0xfff) : b->guest_len;
}

void jit_block_publish(struct jit_cache *k, struct jit_block *b)
{
	jit_ref *bucket = &page_of(k, b)->bucket[block_bucket(b->gva)];
	const struct jit_page *page2 = jit_at(k, b->page2);

	b->next = *bucket;
	*bucket = jit_ref_to(k, b);
	k->phys[page_of(k, b)->gpa >> 12]->chunks |= chunk_bits(b->gva & 0xfff, first_part(b));
	if (page2) {
		k->phys[page2->gpa >> 12]->chunks |= chunk_bits(0, b->guest_len - first_part(b));
		k->straddler[k->straddlers++] = b;
	}
	k->block[k->blocks++] = jit_ref_to(k, b);
	k->translated++;
}

struct jit_block *jit_cache_find(const struct jit_cache *k, const void *pc)
{
	const uint8_t *at = (const uint8_t *)pc - (k->rx - k->rw);
	uint32_t lo = 0, hi = k->blocks;

	while (lo < hi) {
		uint32_t mid = (lo + hi) / 2;
		struct jit_block *b = jit_at(k, k->block[mid]);

		if (at < b->start)
			hi = mid;
		else if (at >= b->start + b->hot_len)
			lo = mid + 1;
		else
			return b;
	}
	return NULL;
}

static void put_jump(uint8_t *at, const uint8_t *target)
{
	struct emit e = {at};

	e_jmp_to(&e, target);
}

void jit_edge_ask(const struct jit_cache *k, const struct jit_edge *e, struct emit *to)
{
	e_mov_imm(to, R_14, jit_ref_to(k, e));
	e_jmp_to(to, (const uint8_t *)k->exit_edge - (k->rx - k->rw));
}

static uint8_t *jump_of(const struct jit_edge *e)
{
	return jit_edge_from(e)->start + e->jump;
}

void jit_edge_link(struct jit_cache *k, struct jit_edge *e, struct jit_block *b)
{
	const struct jit_block *from = jit_edge_from(e);
	bool same_page = b->page == from->page && !b->page2;
	const uint8_t *to;

	if (e->to || !b->valid || !from->valid)
		return;
	if ((e->flags & FLAGS_HOST) && b->needs_host_flags && same_page) {
		to = b->start + b->entry_h;
	} else if (e->flags & FLAGS_SLOT) {
		to = b->start + (same_page ? b->entry_s : b->guard);
	} else if (!b->needs_host_flags) {
		to = b->start + b->entry_h; /* saves the flags and falls into the guard */
	} else {
		put_jump(jit_edge_stub(k, e, true), b->start + (same_page ? b->entry_s : b->guard));
		e->glued = true;
		to = NULL;
	}
	if (to)
		e_patch(jump_of(e), to);
	e->to = jit_ref_to(k, b);
	e->next_in = b->in;
	b->in = jit_ref_to(k, e);
}

static void edge_unlink(struct jit_cache *k, struct jit_edge *e)
{
	struct emit stub = {jit_edge_stub(k, e, true)};

	if (e->glued)
		jit_edge_ask(k, e, &stub);
	else
		e_patch(jump_of(e), jit_edge_stub(k, e, false));
	e->glued = false;
	e->to = 0;
}

/* Takes e out of the edges into the block that it leads to. */
static void edge_forget(struct jit_cache *k, struct jit_edge *e)
{
	struct jit_block *to = jit_at(k, e->to);
	jit_ref *in = &to->in, self = jit_ref_to(k, e);

	while (*in && *in != self)
		in = &((struct jit_edge *)jit_at(k, *in))->next_in;
	if (*in)
		*in = e->next_in;
	e->to = 0;
}

/* A dead block can still be entered, by an indirect jump or from itself: it leads to its
 * look-up stubs from now on. */
static void block_kill(struct jit_cache *k, struct jit_block *b)
{
	jit_ref *link = &page_of(k, b)->bucket[block_bucket(b->gva)], self = jit_ref_to(k, b);

	while (*link != self)
		link = &((struct jit_block *)jit_at(k, *link))->next;
	*link = b->next;
	for (struct jit_edge *e = jit_at(k, b->in), *next; e; e = next) {
		next = jit_at(k, e->next_in);
		edge_unlink(k, e);
	}
	b->in = 0;
	for (struct jit_edge *e = jit_edges(b); e < jit_edges(b) + b->edges; e++)
		if (e->to)
			edge_forget(k, e);
	put_jump(b->start + b->entry_h, jit_block_stub(k, b, false));
	put_jump(b->start + b->guard, jit_block_stub(k, b, true));
	put_jump(b->start + b->entry_s, jit_block_stub(k, b, true));
	b->valid = false;
	k->invalidated++;
}

bool jit_code_on_page(const struct jit_cache *k, gpa_t gpa)
{
	return gpa >> 12 < k->phys_count && k->phys[gpa >> 12] && k->phys[gpa >> 12]->chunks;
}

bool jit_code_overlaps(const struct jit_cache *k, gpa_t gpa, unsigned len)
{
	return jit_code_on_page(k, gpa) &&
	       (k->phys[gpa >> 12]->chunks & chunk_bits(gpa & 0xfff, len));
}

/* Kills those blocks of page p that touch [off, off + len) of it; notes what the others cover. */
static unsigned page_invalidate(struct jit_cache *k, struct jit_page *p, unsigned off, unsigned len,
				uint64_t *left)
{
	unsigned killed = 0;

	for (unsigned i = 0; i < PAGE_BUCKETS; i++) {
		for (struct jit_block *b = jit_at(k, p->bucket[i]), *next; b; b = next) {
			unsigned at = b->gva & 0xfff, n = first_part(b);

			next = jit_at(k, b->next);
			if (at < off + len && off < at + n) {
				block_kill(k, b);
				killed++;
			} else {
				*left |= chunk_bits(at, n);
			}
		}
	}
	return killed;
}

/* Blocks whose last instruction straddles into the page at gpa. They are few: the code page
 * before it, in each mode, holds them. */
static unsigned straddlers_invalidate(struct jit_cache *k, gpa_t gpa, unsigned off, uint64_t *left)
{
	unsigned killed = 0;

	for (uint32_t i = 0; i < k->straddlers; i++) {
		struct jit_block *b = k->straddler[i];
		unsigned tail;

		if (!b->valid || ((struct jit_page *)jit_at(k, b->page2))->gpa != gpa)
			continue;
		tail = b->guest_len - first_part(b);
		if (off < tail) {
			block_kill(k, b);
			killed++;
		} else {
			*left |= chunk_bits(0, tail);
		}
	}
	return killed;
}

unsigned jit_code_invalidate(struct jit_cache *k, gpa_t gpa, unsigned len)
{
	struct jit_phys *phys = k->phys[gpa >> 12];
	uint64_t left = 0;
	unsigned killed = 0;

	for (struct jit_page *p = phys->pages; p; p = p->next_phys)
		killed += page_invalidate(k, p, gpa & 0xfff, len, &left);
	if (phys->chunks & 1) /* where a straddler's tail would lie */
		killed += straddlers_invalidate(k, gpa & ~0xfffull, gpa & 0xfff, &left);
	phys->chunks = left;
	return killed;
}
