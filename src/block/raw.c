/* raw: the format that is none: the guest's bytes are the file's bytes. The disk ends with a
 * whole sector; what the file lacks of it reads as zeros. */
#include <errno.h>

#include "block/block_priv.h"

#define SECTOR 512

static bool raw_probe(const uint8_t *head, uint64_t len)
{
	return true;
}

static int raw_open(struct block *b, struct err *e)
{
	if (b->proto->size > INT64_MAX - SECTOR)
		return err_set(e, EFBIG, "'%s' is too large", b->file);
	b->size = align_up(b->proto->size, SECTOR);
	return 0;
}

static int raw_readv(struct block *b, uint64_t offset, const struct iovec *iov, unsigned n,
		     uint64_t len)
{
	return b->proto->ops->readv(b->proto, offset, iov, n);
}

static int raw_writev(struct block *b, uint64_t offset, const struct iovec *iov, unsigned n,
		      uint64_t len)
{
	return b->proto->ops->writev(b->proto, offset, iov, n);
}

static int raw_flush(struct block *b)
{
	return proto_flush(b->proto);
}

static int raw_zero(struct block *b, uint64_t offset, uint64_t len, bool unmap)
{
	return proto_zero(b->proto, offset, len, unmap);
}

static int raw_discard(struct block *b, uint64_t offset, uint64_t len)
{
	return proto_discard(b->proto, offset, len);
}

/* Holes have a place, too. */
static int raw_map(struct block *b, uint64_t offset, uint64_t len, struct block_extent *out)
{
	if (b->proto->ops->map) {
		int r = b->proto->ops->map(b->proto, offset, len, out);

		out->has_offset = true;
		out->host_offset = offset;
		return r;
	}
	*out = (struct block_extent){.kind = BLOCK_DATA,
				     .len = len,
				     .has_offset = true,
				     .allocated = true,
				     .host_offset = offset};
	return 0;
}

static int preallocate(struct proto *p, uint64_t from, uint64_t to, enum block_prealloc prealloc,
		       struct err *e)
{
	int r = 0;

	if (to <= from || prealloc == BLOCK_PREALLOC_OFF || prealloc == BLOCK_PREALLOC_METADATA)
		return 0;
	r = prealloc == BLOCK_PREALLOC_FALLOC && p->ops->allocate
		    ? p->ops->allocate(p, from, to - from)
		    : proto_write_zeros(p, from, to - from);
	return r < 0 ? err_sys(e, -r, "take up %llu bytes", (unsigned long long)(to - from)) : 0;
}

static int set_size(struct proto *p, uint64_t size, enum block_prealloc prealloc, struct err *e)
{
	uint64_t was = p->size;
	int r = p->ops->truncate ? p->ops->truncate(p, size) : -ENOTSUP;

	if (r < 0)
		return err_sys(e, -r, "set size to %llu", (unsigned long long)size);
	r = preallocate(p, was, size, prealloc, e);
	if (r < 0 && p->growable) {
		int back = p->ops->truncate(p, was);

		(void)back; /* the first error counts */
	}
	return r;
}

static int raw_create(struct proto *p, const struct block_create_opts *o, struct err *e)
{
	if (o->backing_file)
		return err_set(e, EINVAL, "a raw image has no backing file");
	return set_size(p, align_up(o->size, SECTOR), o->prealloc, e);
}

static int raw_resize(struct block *b, uint64_t size, enum block_prealloc prealloc, struct err *e)
{
	int r = set_size(b->proto, align_up(size, SECTOR), prealloc, e);

	if (r == 0)
		b->size = align_up(size, SECTOR);
	return r;
}

static int raw_close(struct block *b, struct err *e)
{
	return 0;
}

const struct block_driver raw_driver = {
	.name = "raw",
	.probe = raw_probe,
	.create = raw_create,
	.open = raw_open,
	.readv = raw_readv,
	.writev = raw_writev,
	.flush = raw_flush,
	.zero = raw_zero,
	.discard = raw_discard,
	.map = raw_map,
	.resize = raw_resize,
	.close = raw_close,
};
