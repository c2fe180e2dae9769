/* block_compare: two disks, as a guest would see them. */
#include "block/jobs_priv.h"

#include <errno.h>
#include <string.h>

#define SECTOR 512u

struct compare {
	struct sweep sweep;
	struct block *a, *b;
	uint64_t common; /* bytes that both have */
	bool strict;
	enum block_difference difference;
	uint64_t where; /* the first difference found so far */
};

static struct compare *to_compare(struct sweep *s)
{
	return container_of(s, struct compare, sweep);
}

/* Pieces are taken in order, so what is in flight may bring an earlier difference, and what
 * is not taken yet cannot. */
static void found(struct compare *c, enum block_difference d, uint64_t where)
{
	c->sweep.ended = true;
	if (c->difference != BLOCK_SAME && c->where <= where)
		return;
	c->difference = d;
	c->where = where - where % SECTOR;
}

static int view(struct sweep *s, struct block *b, struct sweep_piece *p, struct block_view *v)
{
	int r = co_view(b, p->offset, p->len, v);

	if (r < 0)
		return sweep_failed(s, r, "what is in", b, p->offset);
	p->len = v->extent.len;
	return 0;
}

static int look(struct sweep *s, struct sweep_piece *p)
{
	struct compare *c = to_compare(s);
	struct block_view va = {.extent.kind = BLOCK_ABSENT}, vb = va;
	int r = 0;

	if (p->offset < c->common && p->len > c->common - p->offset)
		p->len = c->common - p->offset;
	if (p->offset < c->a->size)
		r = view(s, c->a, p, &va);
	if (r == 0 && p->offset < c->b->size)
		r = view(s, c->b, p, &vb);
	if (r < 0)
		return r;
	p->kind = va.extent.kind == BLOCK_DATA || vb.extent.kind == BLOCK_DATA ? SWEEP_DATA
									       : SWEEP_SKIP;
	if (c->strict && va.extent.kind != vb.extent.kind && p->offset < c->common)
		found(c, BLOCK_DIFFERENT_ALLOCATION, p->offset);
	return 0;
}

/* Behind its end: zeros. */
static int read_one(struct sweep *s, struct block *b, const struct sweep_piece *p, uint8_t *to)
{
	int r;

	if (p->offset >= b->size) {
		memset(to, 0, p->len);
		return 0;
	}
	r = co_request(b, BLOCK_READ, 0, p->offset, to, p->len);
	return r < 0 ? sweep_failed(s, r, "read", b, p->offset) : 0;
}

static int work(struct sweep *s, const struct sweep_piece *p, uint8_t *buffer)
{
	struct compare *c = to_compare(s);
	uint8_t *other = buffer + SWEEP_PIECE_BYTES;
	int r = read_one(s, c->a, p, buffer);

	if (r == 0)
		r = read_one(s, c->b, p, other);
	if (r < 0 || !memcmp(buffer, other, p->len))
		return r;
	for (uint64_t at = 0; at < p->len; at++)
		if (buffer[at] != other[at]) {
			found(c, BLOCK_DIFFERENT_CONTENT, p->offset + at);
			break;
		}
	return 0;
}

int block_compare(struct block *a, struct block *b, bool strict, struct block_progress *p,
		  enum block_difference *difference, uint64_t *where, struct err *e)
{
	struct compare c = {
		.sweep = {.ctx = a->ctx,
			  .size = a->size > b->size ? a->size : b->size,
			  .depth = BLOCK_JOB_DEPTH,
			  .buffers = 2,
			  .progress = p,
			  .e = e,
			  .look = look,
			  .work = work},
		.a = a,
		.b = b,
		.common = a->size < b->size ? a->size : b->size,
		.strict = strict,
	};
	int r = sweep_disk(&c.sweep);

	if (r < 0)
		return r;
	*difference = c.difference;
	*where = c.where;
	return 0;
}
