/* qcow2_read: reading, and the map of what there is. A request is cut where the kind of
 * cluster changes or the host's bytes do not go on; one that lies in one piece on the host is
 * one read. */
#include <errno.h>

#include "block/qcow2_priv.h"

bool qcow2_backing_is_zero(const struct qcow2 *q, uint64_t offset)
{
	return !q->b->backing || offset >= q->b->backing->size;
}

static int read_extent(struct qcow2 *q, const struct qcow2_extent *x, uint64_t offset,
		       const struct iovec *iov, unsigned n)
{
	unsigned gen;
	int r = 0;

	switch (x->kind) {
	case QCOW2_ZEROS: iov_zero(iov, n, 0, x->len); break;
	case QCOW2_ABSENT:
		if (qcow2_backing_is_zero(q, offset))
			iov_zero(iov, n, 0, x->len);
		else
			r = block_read_backing(q->b, offset, iov, n, x->len);
		break;
	case QCOW2_DATA:
		gen = qcow2_io_enter(q);
		r = q->p->ops->readv(q->p, x->host, iov, n);
		qcow2_io_leave(q, gen);
		break;
	case QCOW2_PACKED:
		gen = qcow2_io_enter(q);
		r = qcow2_read_packed(q, x->host, offset & (q->cluster_bytes - 1), iov, n, x->len);
		qcow2_io_leave(q, gen);
	}
	return r;
}

int qcow2_readv(struct block *b, uint64_t offset, const struct iovec *iov, unsigned n, uint64_t len)
{
	struct qcow2 *q = qcow2_of(b);
	struct qcow2_extent x;
	struct iovec part[BLOCK_IOV_MAX];

	for (uint64_t done = 0; done < len; done += x.len) {
		unsigned count = n;
		int r = qcow2_lookup(q, offset + done, len - done, &x);

		if (r < 0)
			return r;
		if (x.len < len)
			count = iov_slice(iov, n, done, x.len, part);
		r = read_extent(q, &x, offset + done, x.len < len ? part : iov, count);
		if (r < 0)
			return r;
	}
	return 0;
}

int qcow2_read_bytes(struct qcow2 *q, uint64_t offset, void *to, uint64_t len)
{
	struct iovec iov = {to, len};

	return len ? qcow2_readv(q->b, offset, &iov, 1, len) : 0;
}

int qcow2_map(struct block *b, uint64_t offset, uint64_t len, struct block_extent *out)
{
	static const enum block_kind kinds[] = {
		[QCOW2_ABSENT] = BLOCK_ABSENT,
		[QCOW2_ZEROS] = BLOCK_ZEROES,
		[QCOW2_DATA] = BLOCK_DATA,
		[QCOW2_PACKED] = BLOCK_DATA,
	};
	struct qcow2_extent x, more;
	int r = qcow2_lookup(qcow2_of(b), offset, len, &x);

	if (r < 0)
		return r;
	/* On over the ends of pages. */
	while (x.len < len && x.kind != QCOW2_PACKED) {
		r = qcow2_lookup(qcow2_of(b), offset + x.len, len - x.len, &more);
		if (r < 0 || more.kind != x.kind ||
		    (x.host ? more.host != x.host + x.len : more.host != 0))
			break;
		x.len += more.len;
	}
	*out = (struct block_extent){
		.kind = kinds[x.kind],
		.len = x.len,
		.has_offset = x.host && x.kind != QCOW2_PACKED,
		.compressed = x.kind == QCOW2_PACKED,
		.allocated = x.host,
		.host_offset = x.kind == QCOW2_PACKED ? 0 : x.host,
	};
	return 0;
}
