/* block_commit: what overlays hold, into an image below them. */
#include "block/jobs_priv.h"

struct commit {
	struct sweep sweep;
	struct block *const *layer;
	unsigned n;
	struct block *base;
};

static struct commit *to_commit(struct sweep *s)
{
	return container_of(s, struct commit, sweep);
}

/* The uppermost layer that holds p->offset; what is in none is base's already. */
static int look(struct sweep *s, struct sweep_piece *p)
{
	const struct commit *c = to_commit(s);

	p->kind = SWEEP_SKIP;
	for (unsigned i = 0; i < c->n; i++) {
		struct block *b = c->layer[i];
		struct block_extent x;
		int r;

		if (p->offset >=
		    b->size) { /* behind its end it reads as zeros, whatever base has */
			p->kind = SWEEP_ZEROES;
			return 0;
		}
		if (p->len > b->size - p->offset)
			p->len = b->size - p->offset;
		r = b->driver->map(b, p->offset, p->len, &x);
		if (r < 0)
			return sweep_failed(s, r, "what is in", b, p->offset);
		p->len = x.len;
		p->layer = i;
		if (x.kind != BLOCK_ABSENT) {
			p->kind = x.kind == BLOCK_DATA ? SWEEP_DATA : SWEEP_ZEROES;
			return 0;
		}
	}
	return 0;
}

static int work(struct sweep *s, const struct sweep_piece *p, uint8_t *buffer)
{
	struct commit *c = to_commit(s);
	struct block *from = c->layer[p->layer];
	int r;

	if (p->kind == SWEEP_ZEROES) {
		r = co_request(c->base, BLOCK_ZERO, BLOCK_UNMAP, p->offset, NULL, p->len);
	} else {
		r = co_request(from, BLOCK_READ, 0, p->offset, buffer, p->len);
		if (r < 0)
			return sweep_failed(s, r, "read", from, p->offset);
		r = co_request(c->base, BLOCK_WRITE, 0, p->offset, buffer, p->len);
	}
	return r < 0 ? sweep_failed(s, r, "write", c->base, p->offset) : 0;
}

int block_commit(struct block *const layer[], unsigned n, struct block *base,
		 struct block_progress *p, struct err *e)
{
	struct commit c = {
		.sweep = {.ctx = base->ctx,
			  .size = layer[0]->size,
			  .depth = BLOCK_JOB_DEPTH,
			  .buffers = 1,
			  .progress = p,
			  .e = e,
			  .look = look,
			  .work = work},
		.layer = layer,
		.n = n,
		.base = base,
	};
	int r = sweep_disk(&c.sweep);

	if (r == 0 && (r = block_flush(base)) < 0)
		err_sys(e, -r, "flush '%s'", block_file(base));
	return r;
}
