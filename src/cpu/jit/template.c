#include "cpu/jit/template.h"

#include "cpu/jit/core.h"
#include "cpu/jit/perfmap_slow.h"
#include "cpu/jit/window.h"

#define HASH_BYTES 16 /* of guest code; a block that starts nearer to its page's end has none */
#define LIST_MAX   16 /* templates of one hash slot that are looked at */
#define PEEK_MAX   1024

/* What a mark becomes when the code is put away. */
enum { FIX_CROSS, FIX_OUT, FIX_STUB, FIX_GUARD, FIX_ABS64, FIX_ABS32, FIX_ABS32S };

struct fix {
	uint16_t at; /* in the hot or cold code */
	uint8_t how; /* FIX_* */
	bool cold : 1, lane : 1;
};

/* Followed by the block's edges and sites, then: fixes, hot code, cold code, guest bytes, peeked bytes.
 * b.start and cold say where the code was. */
struct jit_template {
	uint32_t next, hash, mode;
	uint16_t fixes, cold_len;
	const uint8_t *cold;
	bool pinned;
	struct jit_block b;
};

static uint64_t block_bytes(const struct jit_block *b)
{
	return sizeof *b + b->edges * sizeof(struct jit_edge) + b->sites * sizeof(struct jit_site);
}

static struct fix *fixes_of(const struct jit_template *t)
{
	return (struct fix *)((uint8_t *)&t->b + block_bytes(&t->b));
}

static uint8_t *hot_of(const struct jit_template *t)
{
	return (uint8_t *)(fixes_of(t) + t->fixes);
}

static uint8_t *cold_of(const struct jit_template *t)
{
	return hot_of(t) + t->b.hot_len;
}

static uint8_t *bytes_of(const struct jit_template *t)
{
	return cold_of(t) + t->cold_len;
}

static unsigned peek_len(const struct jit_block *b)
{
	return b->peek_to - b->peek_from;
}

static uint64_t load64(const uint8_t *p)
{
	uint64_t v;

	__builtin_memcpy(&v, p, 8);
	return v;
}

static uint32_t load32(const uint8_t *p)
{
	uint32_t v;

	__builtin_memcpy(&v, p, 4);
	return v;
}

static bool same(const uint8_t *a, const uint8_t *b, unsigned n)
{
	for (; n >= 8; a += 8, b += 8, n -= 8)
		if (load64(a) != load64(b))
			return false;
	for (; n; a++, b++, n--)
		if (*a != *b)
			return false;
	return true;
}

/* ---- which ---- */

uint32_t jit_template_hash(struct jit_cpu *c, const struct jit_page *page, uint64_t gva)
{
	unsigned off = gva & 0xfff;
	const uint8_t *at;
	uint64_t h;

	if (!c->vm->cache.templates.mem || c->vm->debug || off > 4096 - HASH_BYTES ||
	    (page->mode & (MODE_CODE64 | MODE_STEP)) != MODE_CODE64)
		return 0;
	at = (const uint8_t *)mem_span(c->env->mem, page->gpa, 4096) + off;
	h = (load64(at) ^ off) * 0x9e3779b97f4a7c15ull;
	h = (h ^ h >> 32 ^ load64(at + 8) ^ (uint64_t)page->mode << 32) * 0xc2b2ae3d27d4eb4full;
	h = (h ^ h >> 29) * 0x165667b19e3779f9ull;
	return (uint32_t)(h >> 32) | 1;
}

static uint32_t slot_of(uint32_t hash, unsigned slots)
{
	return hash >> 1 & (slots - 1);
}

bool jit_template_wanted(struct jit_cache *k, uint32_t hash)
{
	uint32_t *seen = hash ? &k->templates.seen[slot_of(hash, TEMPLATE_SEEN)] : NULL;

	if (!seen || *seen == hash)
		return seen;
	*seen = hash;
	return false;
}

static bool holds(const struct jit_template *t, const uint8_t *page, unsigned off)
{
	return same(page + off, bytes_of(t), t->b.guest_len) &&
	       same(page + t->b.peek_from, bytes_of(t) + t->b.guest_len, peek_len(&t->b));
}

static const struct jit_template *find(const struct jit_cache *k, uint32_t hash, uint32_t mode,
				       const uint8_t *page, unsigned off)
{
	const struct jit_templates *ts = &k->templates;
	uint32_t at = ts->head[slot_of(hash, TEMPLATE_SLOTS)];

	for (unsigned n = 0; at && n < LIST_MAX; n++) {
		const struct jit_template *t = (const struct jit_template *)(ts->mem + at);

		if (t->hash == hash && t->mode == mode && (t->b.gva & 0xfff) == off &&
		    holds(t, page, off))
			return t;
		at = t->next;
	}
	return NULL;
}

/* ---- put away ---- */

struct range {
	const uint8_t *from, *to;
};

static bool is_in(struct range r, const uint8_t *p)
{
	return p >= r.from && p < r.to;
}

/* false: the displacement needs none, or is an edge's, which its stub's place decides. */
static bool fix_jump(const struct jit_cache *k, const struct jit_template_source *s,
		     const uint8_t *at, bool cold, struct fix *f)
{
	struct range in_hot = {s->b->start, s->b->start + s->b->hot_len},
		     in_cold = {s->cold, k->rw + s->b->stub};
	const uint8_t *to = at + 4 + (int32_t)load32(at);

	if (is_in(cold ? in_cold : in_hot, to))
		return false;
	if (is_in(cold ? in_hot : in_cold, to))
		f->how = FIX_CROSS;
	else if (to == jit_block_stub(k, s->b, true))
		f->how = FIX_STUB;
	else if (to < k->hot_start || (to >= k->hot_end && to < k->cold_start))
		f->how = FIX_OUT;
	else
		return false;
	return true;
}

static struct fix *put_fixes(const struct jit_cache *k, const struct jit_template_source *s,
			     const struct emit_marks *m, bool cold, struct fix *f)
{
	static const uint8_t how[] = {[MARK_GUARD] = FIX_GUARD,
				      [MARK_ABS64] = FIX_ABS64,
				      [MARK_ABS32] = FIX_ABS32,
				      [MARK_ABS32S] = FIX_ABS32S};

	for (unsigned n = 0; n < m->n; n++) {
		unsigned kind = m->mark[n].kind & ~MARK_LANE;

		*f = (struct fix){.at = (uint16_t)(m->mark[n].at - (cold ? s->cold : s->b->start)),
				  .how = how[kind],
				  .lane = m->mark[n].kind & MARK_LANE,
				  .cold = cold};
		if (kind != MARK_JUMP || fix_jump(k, s, m->mark[n].at, cold, f))
			f++;
	}
	return f;
}

static void drop_all(struct jit_templates *ts)
{
	jit_zero(ts->head, TEMPLATE_SLOTS * sizeof *ts->head);
	ts->at = ts->mem + 8; /* 0 is none */
	ts->dropped++;
}

void jit_template_keep(struct jit_cache *k, const struct jit_template_source *s)
{
	struct jit_templates *ts = &k->templates;
	unsigned cold_len = (unsigned)(k->rw + s->b->stub - s->cold), peek = peek_len(s->b);
	uint64_t most = sizeof(struct jit_template) + block_bytes(s->b) + s->b->hot_len + cold_len +
			(s->hot_marks->n + s->cold_marks->n) * sizeof(struct fix) +
			s->b->guest_len + peek + 8;
	struct jit_template *t;
	uint32_t *head = &ts->head[slot_of(s->hash, TEMPLATE_SLOTS)];
	struct fix *end;

	if (s->b->page2 || peek > PEEK_MAX || s->hot_marks->n == EMIT_MARKS ||
	    s->cold_marks->n == EMIT_MARKS)
		return;
	if ((uint64_t)(ts->end - ts->at) < most)
		drop_all(ts);
	if ((uint64_t)(ts->end - ts->at) < most)
		return;
	t = (struct jit_template *)ts->at;
	*t = (struct jit_template){.next = *head,
				   .hash = s->hash,
				   .mode = ((struct jit_page *)jit_at(k, s->b->page))->mode,
				   .cold_len = (uint16_t)cold_len,
				   .cold = s->cold,
				   .pinned = s->pinned};
	jit_copy(&t->b, s->b, block_bytes(s->b));
	end = put_fixes(k, s, s->hot_marks, false, fixes_of(t));
	end = put_fixes(k, s, s->cold_marks, true, end);
	t->fixes = (uint16_t)(end - fixes_of(t));
	jit_copy(hot_of(t), s->b->start, s->b->hot_len);
	jit_copy(cold_of(t), s->cold, cold_len);
	jit_copy(bytes_of(t), s->bytes, s->b->guest_len);
	jit_copy(bytes_of(t) + s->b->guest_len, s->peeked + s->b->peek_from, peek);
	*head = (uint32_t)(ts->at - ts->mem);
	ts->at += align_up((uint64_t)(bytes_of(t) + s->b->guest_len + peek - ts->at), 8);
}

/* ---- copied ---- */

struct move {
	const struct jit_template *t;
	const struct jit_page *page;
	uint8_t *hot, *cold;
	uint64_t by; /* guest addresses move by this */
};

static void store32(uint8_t *p, uint32_t v)
{
	__builtin_memcpy(p, &v, 4);
}

static void add32(uint8_t *p, uint64_t v)
{
	store32(p, load32(p) + (uint32_t)v);
}

static void fix_guard(const struct move *m, uint8_t *at)
{
	uint32_t was = (uint32_t)(m->t->b.gva >> 12) % JIT_ITLB_SIZE,
		 is = (uint32_t)(m->page->gva >> 12) % JIT_ITLB_SIZE;

	add32(at, (is - was) * (uint32_t)sizeof(uint32_t));
	store32(at + 4, m->page->id);
}

/* false: it does not fit there, or is another lane. */
static bool fix_constant(const struct move *m, const struct fix *f, uint8_t *at)
{
	uint64_t v = f->how == FIX_ABS64   ? load64(at)
		     : f->how == FIX_ABS32 ? load32(at)
					   : (uint64_t)(int32_t)load32(at);
	uint64_t to = v + m->by;

	if ((f->how == FIX_ABS32 && to > UINT32_MAX) || (f->how == FIX_ABS32S && !fits_s32(to)) ||
	    (f->lane && to >> LANE_BITS != v >> LANE_BITS))
		return false;
	__builtin_memcpy(at, &to, f->how == FIX_ABS64 ? 8 : 4);
	return true;
}

static bool fix_all(const struct move *m)
{
	const struct jit_template *t = m->t;
	uint64_t hot_by = (uint64_t)(m->hot - t->b.start), cold_by = (uint64_t)(m->cold - t->cold);

	for (const struct fix *f = fixes_of(t), *end = f + t->fixes; f < end; f++) {
		uint8_t *at = (f->cold ? m->cold : m->hot) + f->at;

		switch (f->how) {
		case FIX_CROSS: add32(at, f->cold ? hot_by - cold_by : cold_by - hot_by); break;
		case FIX_OUT: add32(at, -(f->cold ? cold_by : hot_by)); break;
		case FIX_STUB: e_patch(at, m->cold + t->cold_len + SAVE_FLAGS_BYTES); break;
		case FIX_GUARD: fix_guard(m, at); break;
		default:
			if (m->by && !fix_constant(m, f, at))
				return false;
		}
	}
	return true;
}

static bool has_room(const struct jit_cache *k, const struct jit_template *t)
{
	return k->hot_end - k->hot > t->b.hot_len &&
	       k->cold_end - k->cold > t->cold_len + STUB_BYTES * (t->b.edges + 1) &&
	       k->blocks < k->blocks_max;
}

static struct jit_block *put_block(struct jit_cache *k, const struct move *m)
{
	struct jit_block *b = jit_cache_alloc(k, block_bytes(&m->t->b));

	if (!b)
		return NULL;
	jit_copy(b, &m->t->b, block_bytes(&m->t->b));
	b->gva += m->by;
	b->start = m->hot;
	b->page = jit_ref_to(k, m->page);
	for (struct jit_edge *e = jit_edges(b); e < jit_edges(b) + b->edges; e++)
		e->target += m->by;
	return b;
}

struct jit_block *jit_template_copy(struct jit_cpu *c, struct jit_page *page, uint64_t gva)
{
	struct jit_cache *k = &c->vm->cache;
	uint32_t hash = jit_template_hash(c, page, gva);
	const uint8_t *bytes = mem_span(c->env->mem, page->gpa, 4096);
	const struct jit_template *t = hash ? find(k, hash, page->mode, bytes, gva & 0xfff) : NULL;
	struct move m;
	struct jit_block *b;
	struct emit cold;

	if (!t || !has_room(k, t) || (t->pinned && t->b.gva != gva))
		return NULL;
	if (k->hot >= k->hot_ready || k->cold >= k->cold_ready) {
		jit_fpu_leave(c);
		jit_cache_prepare(k);
	}
	m = (struct move){
		.t = t, .page = page, .hot = k->hot, .cold = k->cold, .by = gva - t->b.gva};
	jit_copy(m.hot, hot_of(t), t->b.hot_len);
	jit_copy(m.cold, cold_of(t), t->cold_len);
	b = fix_all(&m) ? put_block(k, &m) : NULL;
	if (!b)
		return NULL;
	/* As the translator does: see take_bytes there. */
	jit_block_claim(k, b);
	if (!c->p->member.stopping &&
	    (jit_writer_on(c, page->gpa) || !holds(t, bytes, gva & 0xfff)))
		return NULL;
	cold = (struct emit){.p = m.cold + t->cold_len};
	jit_block_put_stub(k, b, &cold);
	jit_edges_put_stubs(k, b, &cold);
	if (k->perfmap) {
		jit_fpu_leave(c);
		jit_perfmap_block(k, b, m.cold, cold.p);
	}
	jit_block_made(k, b, cold.p);
	k->templates.copied++;
	return b;
}
