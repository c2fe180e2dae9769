/* block_convert: sources to one target. What the target holds or need not hold is left out:
 * holes and zeros of a target that reads as zeros, and what is the same in its backing image. */
#include <errno.h>
#include <string.h>

#include "block/jobs_priv.h"
#include "block/qcow2.h"
#include "block/qcow2_priv.h"

struct convert {
	struct sweep sweep;
	struct block *const *src;
	unsigned n;
	struct block *dst;
	const struct block_convert_opts *o;
	uint64_t granule; /* bytes that are written or left out as one */
	bool has_backing;
};

static struct convert *to_convert(struct sweep *s)
{
	return container_of(s, struct convert, sweep);
}

/* Which source has *offset; becomes the offset in it. */
static struct block *source_at(const struct convert *c, uint64_t *offset)
{
	unsigned i = 0;

	while (i + 1 < c->n && *offset >= c->src[i]->size)
		*offset -= c->src[i++]->size;
	return c->src[i];
}

static enum sweep_kind kind_of(const struct convert *c, const struct block_view *v)
{
	if (c->o->same_backing && (v->depth || v->extent.kind == BLOCK_ABSENT))
		return SWEEP_SKIP;
	if (v->extent.kind == BLOCK_DATA || !c->o->sparse_bytes)
		return SWEEP_DATA;
	return c->o->target_is_zero && !c->has_backing ? SWEEP_SKIP : SWEEP_ZEROES;
}

/* With same_backing, what a lower layer has is not even looked at. */
static int view_source(const struct convert *c, struct block *src, uint64_t offset, uint64_t len,
		       struct block_view *v)
{
	if (!c->o->same_backing)
		return co_view(src, offset, len, v);
	*v = (struct block_view){.image = src};
	return src->driver->map(src, offset, len, &v->extent);
}

static int look(struct sweep *s, struct sweep_piece *p)
{
	const struct convert *c = to_convert(s);
	uint64_t offset = p->offset, most = p->len, left;
	struct block *src = source_at(c, &offset);
	struct block_view v;
	int r;

	left = src->size - offset;
	r = view_source(c, src, offset, most < left ? most : left, &v);
	if (r < 0)
		return sweep_failed(s, r, "what is in", src, offset);
	p->len = v.extent.len;
	p->kind = kind_of(c, &v);
	sweep_round(p, most, c->granule);
	return 0;
}

static enum sweep_kind granule_kind(const struct convert *c, const uint8_t *data,
				    const uint8_t *have, uint64_t len)
{
	if (have && !memcmp(data, have, len))
		return SWEEP_SKIP;
	if (!c->o->sparse_bytes || !is_zero(data, len))
		return SWEEP_DATA;
	return c->o->target_is_zero && !have ? SWEEP_SKIP : SWEEP_ZEROES;
}

/* Compressed clusters are written one by one. */
static int write_compressed(struct convert *c, uint64_t offset, const uint8_t *data, uint64_t len)
{
	uint64_t cluster = c->granule;
	int r = 0;

	c->dst->write_gen++; /* these go past block_submit */
	for (uint64_t at = 0; r == 0 && at < len; at += cluster)
		r = qcow2_write_compressed_in_coro(c->dst, offset + at, data + at,
						   len - at < cluster ? len - at : cluster);
	return r;
}

static int write_run(struct convert *c, enum sweep_kind kind, uint64_t offset, uint8_t *data,
		     uint64_t len)
{
	int r = 0;

	if (kind == SWEEP_ZEROES)
		r = co_request(c->dst, BLOCK_ZERO, BLOCK_UNMAP, offset, NULL, len);
	else if (kind == SWEEP_DATA && c->o->compress)
		r = write_compressed(c, offset, data, len);
	else if (kind == SWEEP_DATA)
		r = co_request(c->dst, BLOCK_WRITE, 0, offset, data, len);
	return r < 0 ? sweep_failed(&c->sweep, r, "write", c->dst, offset) : 0;
}

/* data: what shall be at offset; have: what the target's backing image has there, or NULL. */
static int write_data(struct convert *c, uint64_t offset, uint8_t *data, const uint8_t *have,
		      uint64_t len)
{
	enum sweep_kind kind = SWEEP_SKIP;
	uint64_t start = 0;

	for (uint64_t at = 0; at < len;) {
		uint64_t n = c->granule - ((offset + at) & (c->granule - 1));
		enum sweep_kind k;

		n = n < len - at ? n : len - at;
		k = granule_kind(c, data + at, have ? have + at : NULL, n);
		if (k != kind) {
			int r = write_run(c, kind, offset + start, data + start, at - start);

			if (r < 0)
				return r;
			kind = k;
			start = at;
		}
		at += n;
	}
	return write_run(c, kind, offset + start, data + start, len - start);
}

/* A piece may lie across the end of one source and the beginning of the next. */
static int read_sources(struct convert *c, uint64_t offset, uint8_t *to, uint64_t len)
{
	while (len) {
		uint64_t at = offset, n;
		struct block *src = source_at(c, &at);
		int r;

		n = src->size - at < len ? src->size - at : len;
		r = co_request(src, BLOCK_READ, 0, at, to, n);
		if (r < 0)
			return sweep_failed(&c->sweep, r, "read", src, at);
		offset += n;
		to += n;
		len -= n;
	}
	return 0;
}

static int work(struct sweep *s, const struct sweep_piece *p, uint8_t *buffer)
{
	struct convert *c = to_convert(s);
	uint8_t *have = c->has_backing ? buffer + SWEEP_PIECE_BYTES : NULL;
	int r;

	if (p->kind == SWEEP_ZEROES)
		return write_run(c, p->kind, p->offset, NULL, p->len);
	r = read_sources(c, p->offset, buffer, p->len);
	if (r < 0)
		return r;
	if (have) {
		r = co_request(c->dst, BLOCK_READ, 0, p->offset, have, p->len);
		if (r < 0)
			return sweep_failed(s, r, "read", c->dst, p->offset);
	}
	return write_data(c, p->offset, buffer, have, p->len);
}

/* A power of two. */
static int choose_granule(struct convert *c, struct err *e)
{
	struct qcow2_info info;
	uint64_t want = c->o->sparse_bytes ? c->o->sparse_bytes : 4096;

	c->granule = 512;
	if (!strcmp(c->dst->driver->name, "qcow2")) {
		int r = qcow2_get_info(c->dst, &info);

		if (r < 0)
			return err_sys(e, -r, "'%s'", block_file(c->dst));
		c->granule = info.cluster_bytes;
	} else if (c->o->compress) {
		return err_set(e, ENOTSUP, "only qcow2 images can be compressed");
	}
	while (!c->o->compress && c->granule < want && c->granule < SWEEP_PIECE_BYTES)
		c->granule *= 2;
	return 0;
}

int block_convert(struct block *const src[], unsigned n, struct block *dst,
		  const struct block_convert_opts *o, struct block_progress *p, struct err *e)
{
	struct convert c = {
		.sweep = {.ctx = dst->ctx,
			  .depth = o->depth ? o->depth : BLOCK_JOB_DEPTH,
			  .buffers = dst->backing ? 2 : 1,
			  .progress = p,
			  .e = e,
			  .look = look,
			  .work = work},
		.src = src,
		.n = n,
		.dst = dst,
		.o = o,
		.has_backing = dst->backing != NULL,
	};
	int r = choose_granule(&c, e);

	if (r < 0)
		return r;
	for (unsigned i = 0; i < n; i++)
		c.sweep.size += src[i]->size;
	if (c.sweep.size > dst->size)
		return err_set(e, EINVAL, "'%s' is smaller than what it shall hold",
			       block_file(dst));
	c.sweep.boundary = c.granule;
	r = sweep_disk(&c.sweep);
	if (r == 0 && (r = block_flush(dst)) < 0)
		err_sys(e, -r, "flush '%s'", block_file(dst));
	return r;
}
