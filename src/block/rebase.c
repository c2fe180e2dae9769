/* block_rebase: copies into an overlay what another backing image would change. */
#include "block/jobs_priv.h"

#include <string.h>

#include "block/qcow2.h"

struct rebase {
	struct sweep sweep;
	struct block *top, *backing;
	uint64_t cluster;
};

static struct rebase *to_rebase(struct sweep *s)
{
	return container_of(s, struct rebase, sweep);
}

/* Zeros from the old backing image and from the new one need no look at contents. */
static int look(struct sweep *s, struct sweep_piece *p)
{
	const struct rebase *c = to_rebase(s);
	struct block_view old, new = {.extent.kind = BLOCK_ABSENT};
	uint64_t most = p->len;
	int r = co_view(c->top, p->offset, most, &old);

	if (r < 0)
		return sweep_failed(s, r, "what is in", c->top, p->offset);
	p->len = old.extent.len;
	p->kind = SWEEP_SKIP;
	if (!old.depth && old.extent.kind != BLOCK_ABSENT)
		return 0; /* whole clusters */
	if (c->backing && p->offset < c->backing->size) {
		r = co_view(c->backing, p->offset, p->len, &new);
		if (r < 0)
			return sweep_failed(s, r, "what is in", c->backing, p->offset);
		p->len = new.extent.len;
	}
	if (old.extent.kind == BLOCK_DATA || new.extent.kind == BLOCK_DATA)
		p->kind = SWEEP_DATA;
	sweep_round(p, most, c->cluster);
	return 0;
}

/* What the new backing image has; zeros behind its end. */
static int read_new(struct rebase *c, uint64_t offset, uint8_t *to, uint64_t len)
{
	uint64_t size = c->backing ? c->backing->size : 0;
	uint64_t have = offset >= size ? 0 : size - offset < len ? size - offset : len;
	int r = 0;

	memset(to + have, 0, len - have);
	if (have)
		r = co_request(c->backing, BLOCK_READ, 0, offset, to, have);
	return r < 0 ? sweep_failed(&c->sweep, r, "read", c->backing, offset) : 0;
}

static int keep(struct rebase *c, uint64_t offset, uint8_t *data, uint64_t len)
{
	int r;

	if (!len)
		return 0;
	if (is_zero(data, len))
		r = co_request(c->top, BLOCK_ZERO, BLOCK_UNMAP, offset, NULL, len);
	else
		r = co_request(c->top, BLOCK_WRITE, 0, offset, data, len);
	return r < 0 ? sweep_failed(&c->sweep, r, "write", c->top, offset) : 0;
}

/* Runs of clusters that differ are written, each as a whole. */
static int work(struct sweep *s, const struct sweep_piece *p, uint8_t *buffer)
{
	struct rebase *c = to_rebase(s);
	uint8_t *now = buffer + SWEEP_PIECE_BYTES;
	uint64_t start = 0;
	int r = co_request(c->top, BLOCK_READ, 0, p->offset, buffer, p->len);

	if (r < 0)
		return sweep_failed(s, r, "read", c->top, p->offset);
	r = read_new(c, p->offset, now, p->len);
	for (uint64_t at = 0; r == 0 && at < p->len;) {
		uint64_t n = c->cluster - ((p->offset + at) & (c->cluster - 1));

		n = n < p->len - at ? n : p->len - at;
		if (!memcmp(buffer + at, now + at, n)) {
			r = keep(c, p->offset + start, buffer + start, at - start);
			start = at + n;
		}
		at += n;
	}
	return r < 0 ? r : keep(c, p->offset + start, buffer + start, p->len - start);
}

int block_rebase(struct block *top, struct block *backing, struct block_progress *p, struct err *e)
{
	struct qcow2_info info;
	struct rebase c = {
		.sweep = {.ctx = top->ctx,
			  .size = top->size,
			  .depth = BLOCK_JOB_DEPTH,
			  .buffers = 2,
			  .progress = p,
			  .e = e,
			  .look = look,
			  .work = work},
		.top = top,
		.backing = backing,
	};
	int r = qcow2_get_info(top, &info);

	if (r < 0)
		return err_sys(e, -r, "'%s'", block_file(top));
	c.cluster = c.sweep.boundary = info.cluster_bytes;
	r = sweep_disk(&c.sweep);
	if (r == 0 && (r = block_flush(top)) < 0)
		err_sys(e, -r, "flush '%s'", block_file(top));
	return r;
}
