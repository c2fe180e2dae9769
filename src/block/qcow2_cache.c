/* qcow2_cache: pages of L2 tables and refcount blocks in memory, found by their offset in the
 * file through a hash table, thrown out by least use within a bound.
 *
 * A page being loaded or written is not thrown out; nor is a pinned one. A page is never
 * written twice at the same time, so its newest bytes are what stays. What is written is a
 * copy, because others may change the page meanwhile (it is dirty again then).
 *
 * Dirty pages of refcount blocks may be written at any time: counts go up before something
 * refers to a cluster and go down after the disk refers to it no more (qcow2_flush.c). Dirty
 * L2 pages leave through a checkpoint only. */
#include <errno.h>
#include <stdlib.h>

#include "block/qcow2_priv.h"

#define MIN_PAGES 16u

static void ring_init(struct qcow2_page *head)
{
	head->newer = head->older = head;
	head->dirty_prev = head->dirty_next = head;
}

static void use_remove(struct qcow2_page *p)
{
	p->newer->older = p->older;
	p->older->newer = p->newer;
}

static void use_newest(struct qcow2_cache *c, struct qcow2_page *p)
{
	p->newer = &c->ring;
	p->older = c->ring.older;
	c->ring.older->newer = p;
	c->ring.older = p;
}

void qcow2_page_dirty(struct qcow2_cache *c, struct qcow2_page *p)
{
	if (p->dirty)
		return;
	p->dirty = true;
	p->dirty_next = &c->dirty;
	p->dirty_prev = c->dirty.dirty_prev;
	p->dirty_prev->dirty_next = p;
	c->dirty.dirty_prev = p;
}

void qcow2_page_clean(struct qcow2_page *p)
{
	if (!p->dirty)
		return;
	p->dirty = false;
	p->dirty_prev->dirty_next = p->dirty_next;
	p->dirty_next->dirty_prev = p->dirty_prev;
}

int qcow2_cache_init(struct qcow2_cache *c, struct qcow2 *q, size_t page_bytes,
		     uint64_t bound_bytes, bool ordered)
{
	unsigned buckets = 64;

	*c = (struct qcow2_cache){.q = q, .page_bytes = page_bytes, .ordered = ordered};
	c->max = (unsigned)max_u64(MIN_PAGES, min_u64(bound_bytes / page_bytes, BIT(20)));
	while (buckets < c->max)
		buckets *= 2;
	c->hash_mask = buckets - 1;
	ring_init(&c->ring);
	ring_init(&c->dirty);
	c->hash = calloc(buckets, sizeof(struct qcow2_page *));
	return c->hash ? 0 : -ENOMEM;
}

static struct qcow2_page **bucket(struct qcow2_cache *c, uint64_t offset)
{
	uint64_t n = offset / c->page_bytes * UINT64_C(0x9e3779b97f4a7c15);

	return &c->hash[(n >> 32) & c->hash_mask];
}

struct qcow2_page *qcow2_cache_find(struct qcow2_cache *c, uint64_t offset)
{
	struct qcow2_page *p = *bucket(c, offset);

	while (p && p->offset != offset)
		p = p->hash_next;
	return p && !p->loading ? p : NULL;
}

static struct qcow2_page *find_any(struct qcow2_cache *c, uint64_t offset)
{
	struct qcow2_page *p = *bucket(c, offset);

	while (p && p->offset != offset)
		p = p->hash_next;
	return p;
}

static void page_remove(struct qcow2_cache *c, struct qcow2_page *p)
{
	struct qcow2_page **at = bucket(c, p->offset);

	while (*at != p)
		at = &(*at)->hash_next;
	*at = p->hash_next;
	use_remove(p);
	qcow2_page_clean(p);
	c->count--;
	free(p->bytes);
	free(p);
}

void qcow2_cache_done(struct qcow2_cache *c)
{
	while (c->hash && c->ring.newer != &c->ring)
		page_remove(c, c->ring.newer);
	free(c->hash);
	c->hash = NULL;
}

static int page_write(struct qcow2_cache *c, struct qcow2_page *p)
{
	uint8_t *copy = malloc(c->page_bytes);
	int r;

	if (!copy)
		return -ENOMEM;
	memcpy(copy, p->bytes, c->page_bytes);
	qcow2_page_clean(p);
	p->writing = true;
	c->writing++;
	r = proto_write(c->q->p, p->offset, copy, c->page_bytes);
	c->writing--;
	p->writing = false;
	if (r < 0)
		qcow2_page_dirty(c, p);
	coro_queue_wake_all(&p->waiters);
	free(copy);
	return r;
}

/* Least used first; those that the caller can have without a write are preferred among the
 * first few. */
static struct qcow2_page *victim(struct qcow2_cache *c)
{
	struct qcow2_page *dirty = NULL;
	unsigned looked = 0;

	for (struct qcow2_page *p = c->ring.newer; p != &c->ring; p = p->newer) {
		if (p->pins || p->loading || p->writing)
			continue;
		if (!p->dirty)
			return p;
		dirty = dirty ? dirty : p;
		if (++looked == 64)
			break;
	}
	return dirty;
}

/* Room for one more page; may wait. Where all are in use, the bound gives way. */
static int make_room(struct qcow2_cache *c)
{
	int r = 0;

	while (r == 0 && c->count >= c->max) {
		struct qcow2_page *p = victim(c);

		if (!p)
			return 0;
		if (!p->dirty)
			page_remove(c, p);
		else if (c->ordered)
			r = qcow2_checkpoint(c->q);
		else
			r = page_write(c, p);
	}
	return r;
}

static struct qcow2_page *page_insert(struct qcow2_cache *c, uint64_t offset)
{
	struct qcow2_page *p = calloc(1, sizeof *p);

	if (!p)
		return NULL;
	p->bytes = calloc(1, c->page_bytes);
	if (!p->bytes) {
		free(p);
		return NULL;
	}
	p->offset = offset;
	p->hash_next = *bucket(c, offset);
	*bucket(c, offset) = p;
	use_newest(c, p);
	c->count++;
	return p;
}

static void take(struct qcow2_cache *c, struct qcow2_page *p, struct qcow2_page **out)
{
	p->pins++;
	use_remove(p);
	use_newest(c, p);
	*out = p;
}

static int page_load(struct qcow2_cache *c, uint64_t offset, struct qcow2_page **out)
{
	struct qcow2_page *p = page_insert(c, offset);
	int r;

	if (!p)
		return -ENOMEM;
	p->loading = true;
	r = proto_read(c->q->p, offset, p->bytes, c->page_bytes);
	p->loading = false;
	coro_queue_wake_all(&p->waiters); /* they look for it again */
	if (r < 0)
		page_remove(c, p);
	else
		take(c, p, out);
	return r;
}

/* Finds it, or has made room for it and *found is NULL. */
static int find_or_room(struct qcow2_cache *c, uint64_t offset, struct qcow2_page **found)
{
	int r = 0;

	for (;;) {
		struct qcow2_page *p = find_any(c, offset);

		if (p && p->loading) {
			coro_queue_wait(c->q->coros, &p->waiters);
			continue;
		}
		*found = p;
		if (p || c->count < c->max)
			return 0;
		r = make_room(c);
		if (r < 0)
			return r;
		*found = find_any(c, offset);
		if (!*found)
			return 0;
	}
}

int qcow2_page_get(struct qcow2_cache *c, uint64_t offset, struct qcow2_page **out)
{
	struct qcow2_page *p;
	int r = find_or_room(c, offset, &p);

	if (r == 0 && p)
		take(c, p, out);
	else if (r == 0)
		r = page_load(c, offset, out);
	return r;
}

int qcow2_page_new(struct qcow2_cache *c, uint64_t offset, struct qcow2_page **out)
{
	struct qcow2_page *p;
	int r = find_or_room(c, offset, &p);

	if (r < 0)
		return r;
	if (p)
		memset(p->bytes, 0, c->page_bytes);
	else if (!(p = page_insert(c, offset)))
		return -ENOMEM;
	take(c, p, out);
	return 0;
}

void qcow2_page_put(struct qcow2_page *p)
{
	if (p)
		p->pins--;
}

void qcow2_cache_forget(struct qcow2_cache *c, uint64_t offset, uint64_t len)
{
	for (uint64_t at = offset; at < offset + len; at += c->page_bytes) {
		struct qcow2_page *p = qcow2_cache_find(c, at);

		if (p && !p->pins && !p->writing)
			page_remove(c, p);
		else if (p)
			qcow2_page_clean(p);
	}
}

static struct qcow2_page *being_written(struct qcow2_cache *c)
{
	for (struct qcow2_page *p = c->ring.newer; p != &c->ring; p = p->newer)
		if (p->writing)
			return p;
	return NULL;
}

int qcow2_cache_write(struct qcow2_cache *c)
{
	int r = 0;

	while (r == 0 && c->writing)
		coro_queue_wait(c->q->coros, &being_written(c)->waiters);
	for (unsigned n = c->count; r == 0 && n && c->dirty.dirty_next != &c->dirty; n--) {
		struct qcow2_page *p = c->dirty.dirty_next;

		if (p->writing)
			coro_queue_wait(c->q->coros, &p->waiters);
		else
			r = page_write(c, p);
	}
	while (r == 0 && c->writing)
		coro_queue_wait(c->q->coros, &being_written(c)->waiters);
	return r;
}
