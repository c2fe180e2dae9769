#include "cpu/jit/cache.h"

#include <assert.h>

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
	k->hot = k->hot_ready = k->hot_start;
	k->cold = k->cold_ready = k->cold_start;
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

/* Lists are read without the lock while they change under it: what is put in front is whole
 * before, and a reader that an element moves away from sees the rest once more, or misses some of
 * it. Who found nothing looks again under the lock. */
#define LOOK(list)    __atomic_load_n(&(list), __ATOMIC_ACQUIRE)
#define SET(list, to) __atomic_store_n(&(list), to, __ATOMIC_RELEASE)
#define FRONT_IS_NEAR 4 /* elements */

struct jit_page *jit_page_look_up(struct jit_cache *k, uint64_t gva, gpa_t gpa, uint32_t mode,
				  struct jit_cs cs)
{
	struct jit_page **h = &k->hash[page_bucket(gva & ~0xfffull, mode ^ cs.base)], *p;
	unsigned depth = 0;

	gva &= ~0xfffull;
	gpa &= ~0xfffull;
	for (p = LOOK(*h); p; p = LOOK(p->next_hash), depth++)
		if (p->gva == gva && p->gpa == gpa && p->mode == mode && p->cs.base == cs.base &&
		    p->cs.limit == cs.limit)
			break;
	/* What is asked for now is asked for again soon. */
	if (p && depth > FRONT_IS_NEAR && futex_trylock(&k->lock)) {
		for (struct jit_page **at = h; *at; at = &(*at)->next_hash)
			if (*at == p) {
				SET(*at, p->next_hash);
				SET(p->next_hash, *h);
				SET(*h, p);
				break;
			}
		futex_give(&k->lock);
	}
	return p;
}

struct jit_page *jit_page_get(struct jit_cache *k, uint64_t gva, gpa_t gpa, uint32_t mode,
			      struct jit_cs cs)
{
	struct jit_page *p = jit_page_look_up(k, gva, gpa, mode, cs), **h;
	struct jit_phys *phys;

	if (p)
		return p;
	gva &= ~0xfffull;
	gpa &= ~0xfffull;
	h = &k->hash[page_bucket(gva, mode ^ cs.base)];
	phys = k->phys[gpa >> 12];
	if (!phys)
		phys = jit_cache_alloc(k, sizeof *phys);
	p = phys ? jit_cache_alloc(k, sizeof *p) : NULL;
	if (!p)
		return NULL;
	SET(k->phys[gpa >> 12], phys);
	p->gva = gva;
	p->gpa = gpa;
	p->mode = mode;
	p->cs = cs;
	p->id = ++k->next_id;
	p->next_hash = *h;
	SET(*h, p);
	p->next_phys = phys->pages;
	phys->pages = p;
	return p;
}

static unsigned block_bucket(uint64_t gva)
{
	return (gva ^ gva >> 4 ^ gva >> 8) % PAGE_BUCKETS;
}

struct jit_block *jit_page_find(struct jit_cache *k, struct jit_page *p, uint64_t gva)
{
	jit_ref *bucket = &p->bucket[block_bucket(gva)];
	struct jit_block *b = jit_at(k, LOOK(*bucket));
	unsigned depth = 0;

	for (; b && b->gva != gva; depth++)
		b = jit_at(k, LOOK(b->next));
	/* To the front: a page may have hundreds of blocks. */
	if (b && depth > FRONT_IS_NEAR && futex_trylock(&k->lock)) {
		jit_ref self = jit_ref_to(k, b);

		for (jit_ref *at = bucket; *at; at = &((struct jit_block *)jit_at(k, *at))->next)
			if (*at == self) {
				SET(*at, b->next);
				SET(b->next, *bucket);
				SET(*bucket, self);
				break;
			}
		futex_give(&k->lock);
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

static uint64_t chunks_of(const struct jit_block *b)
{
	uint64_t bits = chunk_bits(b->gva & 0xfff, first_part(b));

	return b->peek_to ? bits | chunk_bits(b->peek_from, b->peek_to - b->peek_from) : bits;
}

static bool is_made_from(const struct jit_block *b, unsigned off, unsigned len)
{
	unsigned at = b->gva & 0xfff;

	return (at < off + len && off < at + first_part(b)) ||
	       (b->peek_from < off + len && off < b->peek_to);
}

void jit_block_claim(struct jit_cache *k, const struct jit_block *b)
{
	const struct jit_page *page2 = jit_at(k, b->page2);

	atomic_fetch_or(&k->phys[page_of(k, b)->gpa >> 12]->chunks, chunks_of(b));
	if (page2)
		atomic_fetch_or(&k->phys[page2->gpa >> 12]->chunks,
				chunk_bits(0, b->guest_len - first_part(b)));
}

void jit_block_publish(struct jit_cache *k, struct jit_block *b)
{
	jit_ref *bucket = &page_of(k, b)->bucket[block_bucket(b->gva)];

	if (b->page2)
		k->straddler[k->straddlers++] = b;
	k->block[k->blocks] = jit_ref_to(k, b);
	SET(k->blocks, k->blocks + 1);
	b->next = *bucket;
	SET(*bucket, jit_ref_to(k, b));
	k->translated++;
}

void jit_block_made(struct jit_cache *k, struct jit_block *b, uint8_t *cold_end)
{
	k->hot = (uint8_t *)align_up((uint64_t)(b->start + b->hot_len), 16);
	k->cold = cold_end;
	jit_block_publish(k, b);
}

struct jit_block *jit_cache_find(const struct jit_cache *k, const void *pc)
{
	const uint8_t *at = (const uint8_t *)pc - (k->rx - k->rw);
	uint32_t lo = 0, hi = LOOK(k->blocks);

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

/* A jump that other vCPUs may be running: see jit_align_jump. */
static void patch_live(uint8_t *rel32, const uint8_t *target)
{
	__atomic_store_n((int32_t *)rel32, (int32_t)(target - (rel32 + 4)), __ATOMIC_RELEASE);
}

void jit_edge_ask(const struct jit_cache *k, const struct jit_edge *e, struct emit *to)
{
	if (!(e->flags & FLAGS_SLOT)) {
		jit_align_jump(to, 1);
		e_jmp_to(to, to->p + 5);
	}
	e_mov_imm(to, R_14, jit_ref_to(k, e));
	e_jmp_to(to, (const uint8_t *)k->exit_edge - (k->rx - k->rw));
}

void jit_block_put_stub(const struct jit_cache *k, struct jit_block *b, struct emit *e)
{
	b->stub = (uint32_t)(e->p - k->rw);
	e_save_flags(e);
	assert(e->p == jit_block_stub(k, b, true));
	e_store_imm(e, (uint32_t)offsetof(struct jit_cpu, st.rip),
		    jit_page_rip(jit_at(k, b->page), b->gva), R_13);
	e_jmp_to(e, (const uint8_t *)k->exit_lookup - (k->rx - k->rw));
}

void jit_edges_put_stubs(const struct jit_cache *k, struct jit_block *b, struct emit *e)
{
	for (struct jit_edge *d = jit_edges(b); d < jit_edges(b) + b->edges; d++) {
		d->stub = (uint32_t)(e->p - k->rw);
		if (!(d->flags & FLAGS_SLOT))
			e_save_flags(e);
		jit_edge_ask(k, d, e);
		e_patch(b->start + d->jump, jit_edge_stub(k, d, false));
	}
}

static uint8_t *jump_of(const struct jit_edge *e)
{
	return jit_edge_from(e)->start + e->jump;
}

static bool is_same_page(const struct jit_block *from, const struct jit_block *b)
{
	return b->page == from->page && !b->page2;
}

/* A way that never polls always leads upwards on one page: so every loop polls. Calls do, so that
 * many of them, one in the other, cannot take forever. */
static bool may_skip_poll(const struct jit_edge *e, const struct jit_block *from,
			  const struct jit_block *b)
{
	return !e->call && is_same_page(from, b) && b->gva > from->gva;
}

static unsigned slot_entry(const struct jit_edge *e, const struct jit_block *from,
			   const struct jit_block *b)
{
	return !is_same_page(from, b)      ? b->guard
	       : may_skip_poll(e, from, b) ? b->entry_b
					   : b->entry_s;
}

/* Where e enters b; NULL: by its stub, which saves the flags first. */
static const uint8_t *entry_for(const struct jit_edge *e, const struct jit_block *from,
				const struct jit_block *b)
{
	if ((e->flags & FLAGS_HOST) && b->needs_host_flags && may_skip_poll(e, from, b))
		return b->start + b->entry_h;
	if ((e->flags & FLAGS_SLOT) || b->flags_dead)
		return b->start + slot_entry(e, from, b);
	return b->needs_host_flags ? NULL : b->start + b->entry_h; /* saves them, then the guard */
}

void jit_edge_link(struct jit_cache *k, struct jit_edge *e, struct jit_block *b)
{
	const struct jit_block *from = jit_edge_from(e);
	const uint8_t *to;

	if (e->to || !b->valid || !from->valid)
		return;
	to = entry_for(e, from, b);
	if (!to) {
		patch_live(jit_edge_glue(k, e), b->start + slot_entry(e, from, b));
		e->glued = true;
	}
	if (to)
		patch_live(jump_of(e), to);
	e->to = jit_ref_to(k, b);
	e->next_in = b->in;
	b->in = jit_ref_to(k, e);
}

static void edge_unlink(struct jit_cache *k, struct jit_edge *e)
{
	if (e->glued)
		patch_live(jit_edge_glue(k, e), jit_edge_glue(k, e) + 4);
	else
		patch_live(jump_of(e), jit_edge_stub(k, e, false));
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
	put_jump(b->start + b->entry_b, jit_block_stub(k, b, true));
	if (b->loop)
		put_jump(b->start + b->loop, jit_block_stub(k, b, true));
	b->valid = false;
	k->invalidated++;
}

static struct jit_phys *phys_of(const struct jit_cache *k, gpa_t gpa)
{
	return gpa >> 12 < k->phys_count ? LOOK(k->phys[gpa >> 12]) : NULL;
}

void jit_code_watch(struct jit_cache *k, gpa_t gpa)
{
	atomic_store(&phys_of(k, gpa)->watched, true);
}

bool jit_code_on_page(const struct jit_cache *k, gpa_t gpa)
{
	const struct jit_phys *phys = phys_of(k, gpa);

	return phys && atomic_load_explicit(&phys->watched, memory_order_relaxed);
}

bool jit_code_overlaps(const struct jit_cache *k, gpa_t gpa, unsigned len)
{
	const struct jit_phys *phys = phys_of(k, gpa);

	return phys && (atomic_load(&phys->chunks) & chunk_bits(gpa & 0xfff, len));
}

/* Kills those blocks of page p that touch [off, off + len) of it; notes what the others cover. */
static unsigned page_invalidate(struct jit_cache *k, struct jit_page *p, unsigned off, unsigned len,
				uint64_t *left)
{
	unsigned killed = 0;

	for (unsigned i = 0; i < PAGE_BUCKETS; i++) {
		for (struct jit_block *b = jit_at(k, p->bucket[i]), *next; b; b = next) {
			next = jit_at(k, b->next);
			if (is_made_from(b, off, len)) {
				block_kill(k, b);
				killed++;
			} else {
				*left |= chunks_of(b);
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
	struct jit_phys *phys = phys_of(k, gpa);
	uint64_t left = 0;
	unsigned killed = 0;

	if (!phys)
		return 0;
	for (struct jit_page *p = phys->pages; p; p = p->next_phys)
		killed += page_invalidate(k, p, gpa & 0xfff, len, &left);
	if (phys->chunks & 1) /* where a straddler's tail would lie */
		killed += straddlers_invalidate(k, gpa & ~0xfffull, gpa & 0xfff, &left);
	phys->chunks = left;
	if (!left)
		phys->watched = false;
	return killed;
}

unsigned jit_code_invalidate_all(struct jit_cache *k)
{
	unsigned killed = 0;

	for (struct jit_page **h = k->hash; h < k->hash + PAGE_HASH; h++)
		for (struct jit_page *p = *h; p; p = p->next_hash)
			killed += jit_code_invalidate(k, p->gpa, 4096);
	return killed;
}
