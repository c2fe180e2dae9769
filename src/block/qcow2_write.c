/* qcow2_write: writing. What is there and this image's own is written in place, without a
 * lock. For the rest clusters are handed out, the data is written, with what of the first and
 * last (sub)cluster was there before around it, and only then the L2 table names them:
 * several such writes are under way at once, except that those that want the same cluster
 * wait for each other. A write that fails leaves the old mapping, and gives its clusters back. */
#include <errno.h>
#include <stdlib.h>

#include "block/qcow2_priv.h"

#define SUBCLUSTERS 32u
#define ALL_SUBS    (BIT(SUBCLUSTERS) - 1)

/* --- who has which clusters in hand --- */

void qcow2_lock_range(struct qcow2 *q, uint64_t start, uint64_t *end)
{
	coro_lock(q->coros, &q->lock);
	for (struct qcow2_flight *f = q->flights; f;) {
		if (f->start <= start && start < f->end) {
			coro_unlock(q->coros, &q->lock);
			coro_queue_wait(q->coros, &f->waiters);
			coro_lock(q->coros, &q->lock);
			f = q->flights;
			continue;
		}
		if (start < f->start && f->start < *end)
			*end = f->start;
		f = f->next;
	}
}

void qcow2_flight_begin(struct qcow2 *q, struct qcow2_flight *f, uint64_t start, uint64_t end)
{
	*f = (struct qcow2_flight){.start = start, .end = end, .next = q->flights};
	q->flights = f;
}

void qcow2_flight_end(struct qcow2 *q, struct qcow2_flight *f)
{
	struct qcow2_flight **at = &q->flights;

	while (*at != f)
		at = &(*at)->next;
	*at = f->next;
	coro_queue_wake_all(&f->waiters);
}

/* --- allocating writes --- */

struct alloc {
	struct qcow2_flight flight;
	uint64_t offset, len;    /* of the guest's write */
	uint64_t start, end;     /* with what is copied around it */
	uint64_t cluster, count; /* first guest cluster (bytes), how many */
	uint64_t host;           /* of cluster */
	bool fresh;              /* clusters are new; else they were there, without data */
	bool whole;              /* copied is whole clusters: all subclusters are data then */
	bool virgin;
};

/* An own host cluster that is there, but without (all of the) data. */
static bool reusable(const struct qcow2 *q, struct qcow2_entry entry)
{
	return entry.l2 & QCOW2_COPIED && !(entry.l2 & QCOW2_COMPRESSED) &&
	       entry.l2 & QCOW2_OFFSET_MASK;
}

static bool has_data(const struct qcow2 *q, struct qcow2_entry entry)
{
	if (entry.l2 & QCOW2_COMPRESSED)
		return true;
	if (q->extended)
		return entry.bitmap & ALL_SUBS;
	return entry.l2 & QCOW2_OFFSET_MASK && !(entry.l2 & QCOW2_ZERO);
}

/* Is all that is written of this cluster there to be written in place? */
static bool in_place(const struct qcow2 *q, struct qcow2_entry entry)
{
	if (!reusable(q, entry))
		return false;
	return q->extended ? (entry.bitmap & ALL_SUBS) == ALL_SUBS : !(entry.l2 & QCOW2_ZERO);
}

/* How many clusters from the first on want the same treatment, up to max. */
static uint64_t same_kind(struct qcow2 *q, const struct qcow2_page *p, unsigned index, uint64_t max,
			  struct qcow2_entry first)
{
	const uint64_t host = first.l2 & QCOW2_OFFSET_MASK;
	uint64_t n = 1;

	max = min_u64(max, qcow2_page_entries(q) - index);
	for (; n < max; n++) {
		struct qcow2_entry entry = qcow2_entry_load(q, p, index + (unsigned)n);

		if (qcow2_entry_check(q, entry) < 0 || in_place(q, entry) ||
		    reusable(q, entry) != reusable(q, first))
			break;
		if (reusable(q, first) &&
		    (entry.l2 & QCOW2_OFFSET_MASK) != host + (n << q->cluster_bits))
			break;
		if (q->extended && has_data(q, entry) != has_data(q, first))
			break;
	}
	return n;
}

/* How far the copy reaches beyond the write at its start and end: to the borders of
 * subclusters, or of clusters where other data of the old ones moves along. */
static void plan_copy(struct qcow2 *q, struct alloc *a, struct qcow2_entry first,
		      struct qcow2_entry last)
{
	const uint64_t mask = q->cluster_bytes - 1, end = a->offset + a->len;
	uint64_t unit = BIT(q->sub_bits);

	a->whole = q->extended && a->fresh && has_data(q, first);
	if (a->whole)
		unit = q->cluster_bytes;
	a->start = align_down(a->offset, unit);
	a->end = align_up(end, unit);
	if (!q->extended || a->fresh)
		return;
	if (first.bitmap & BIT((a->offset & mask) >> q->sub_bits))
		a->start = a->offset;
	if (last.bitmap & BIT(((end - 1) & mask) >> q->sub_bits))
		a->end = end;
}

/* Under q->lock, no flight there: decides on the clusters for [offset, offset + len), or for
 * its first part. a->len == 0: it can be written in place by now. */
static int plan(struct qcow2 *q, struct qcow2_page *p, struct alloc *a, uint64_t offset,
		uint64_t len)
{
	const unsigned index = qcow2_page_index(q, offset);
	const uint64_t in = offset & (q->cluster_bytes - 1);
	struct qcow2_entry first = qcow2_entry_load(q, p, index), last;
	int r = 0;

	*a = (struct alloc){.offset = offset, .cluster = offset - in};
	if (qcow2_entry_check(q, first) < 0)
		return -EIO;
	if (in_place(q, first))
		return 0;
	a->count = same_kind(q, p, index, align_up(in + len, q->cluster_bytes) >> q->cluster_bits,
			     first);
	a->fresh = !reusable(q, first);
	if (a->fresh)
		r = qcow2_alloc(q, a->count, &a->host, &a->count, &a->virgin);
	else
		a->host = first.l2 & QCOW2_OFFSET_MASK;
	if (r < 0)
		return r;
	a->len = min_u64(len, (a->count << q->cluster_bits) - in);
	last = qcow2_entry_load(q, p, index + (unsigned)a->count - 1);
	plan_copy(q, a, first, last);
	return 0;
}

/* Reads what is around the write; *to is NULL and *len 0 where nothing need be written. */
static int read_around(struct qcow2 *q, const struct alloc *a, uint64_t from, uint64_t *len,
		       uint8_t **to)
{
	const uint64_t end = from + *len;
	struct qcow2_extent x = {.len = 0};
	int r = 0;

	*to = NULL;
	for (uint64_t at = from; a->virgin && at < end; at += x.len) {
		r = qcow2_lookup(q, at, end - at, &x);
		if (r < 0)
			return r;
		if (x.kind == QCOW2_DATA || x.kind == QCOW2_PACKED ||
		    (x.kind == QCOW2_ABSENT && !qcow2_backing_is_zero(q, at)))
			break;
		if (at + x.len == end)
			*len = 0;
	}
	if (!*len)
		return 0;
	*to = malloc(*len);
	if (!*to)
		return -ENOMEM;
	/* The last cluster of the disk may reach beyond its end. */
	memset(*to, 0, *len);
	if (from < q->h.size)
		r = qcow2_read_bytes(q, from, *to, min_u64(*len, q->h.size - from));
	return r;
}

static int write_around(struct qcow2 *q, const struct alloc *a, uint8_t *head, uint64_t head_len,
			uint8_t *tail, uint64_t tail_len, const struct iovec *iov, unsigned n)
{
	const uint64_t host = a->host + (a->offset - a->cluster);
	struct iovec all[BLOCK_IOV_MAX + 2];
	unsigned count = 0;
	int r = 0;

	if (n + 2 <= BLOCK_IOV_MAX) {
		if (head_len)
			all[count++] = (struct iovec){head, head_len};
		memcpy(all + count, iov, n * sizeof *iov);
		count += n;
		if (tail_len)
			all[count++] = (struct iovec){tail, tail_len};
		return q->p->ops->writev(q->p, host - head_len, all, count);
	}
	if (head_len)
		r = proto_write(q->p, host - head_len, head, head_len);
	if (r == 0)
		r = q->p->ops->writev(q->p, host, iov, n);
	if (r == 0 && tail_len)
		r = proto_write(q->p, host + a->len, tail, tail_len);
	return r;
}

static int write_data(struct qcow2 *q, const struct alloc *a, const struct iovec *iov, unsigned n)
{
	uint64_t head_len = a->offset - a->start, tail_len = a->end - a->offset - a->len;
	uint8_t *head = NULL, *tail = NULL;
	int r = 0;

	if (head_len)
		r = read_around(q, a, a->start, &head_len, &head);
	if (r == 0 && tail_len)
		r = read_around(q, a, a->offset + a->len, &tail_len, &tail);
	if (r == 0)
		r = write_around(q, a, head, head_len, tail, tail_len, iov, n);
	free(head);
	free(tail);
	return r;
}

/* Bits of the subclusters that [start, end) has in the cluster at offset cluster. */
static uint64_t sub_mask(const struct qcow2 *q, uint64_t cluster, uint64_t start, uint64_t end)
{
	uint64_t from = start > cluster ? (start - cluster) >> q->sub_bits : 0;
	uint64_t to =
		min_u64(SUBCLUSTERS, align_up(end - cluster, BIT(q->sub_bits)) >> q->sub_bits);

	return (BIT(to) - 1) & ~(BIT(from) - 1);
}

/* Names the clusters in the L2 table. Under q->lock. */
static int link_clusters(struct qcow2 *q, const struct alloc *a)
{
	struct qcow2_page *p;
	int r = qcow2_l2_get_own(q, a->cluster, &p);

	if (r < 0)
		return r;
	for (uint64_t i = 0; i < a->count; i++) {
		const unsigned index = qcow2_page_index(q, a->cluster) + (unsigned)i;
		const uint64_t cluster = a->cluster + (i << q->cluster_bits);
		struct qcow2_entry old = qcow2_entry_load(q, p, index), entry = {0};

		entry.l2 = (a->host + (i << q->cluster_bits)) | QCOW2_COPIED;
		if (q->extended && a->whole) {
			entry.bitmap = ALL_SUBS;
		} else if (q->extended) {
			uint64_t mask = sub_mask(q, cluster, a->start, a->end);

			if (!(old.l2 & QCOW2_COMPRESSED))
				entry.bitmap = old.bitmap;
			entry.bitmap = (entry.bitmap & ~(mask << SUBCLUSTERS)) | mask;
		}
		if (a->fresh)
			qcow2_entry_drop(q, old);
		qcow2_entry_store(q, p, index, entry);
	}
	q->order = true;
	qcow2_page_put(p);
	return 0;
}

/* Writes the first part of the range that needs clusters; *done: how much, 0: look again. */
static int alloc_write(struct qcow2 *q, uint64_t offset, const struct iovec *iov, unsigned n,
		       uint64_t len, uint64_t skip, uint64_t *done)
{
	const uint64_t start = align_down(offset, q->cluster_bytes);
	uint64_t end = align_up(offset + len, q->cluster_bytes);
	struct iovec part[BLOCK_IOV_MAX];
	struct qcow2_page *p;
	struct alloc a;
	int r;

	qcow2_lock_range(q, start, &end);
	r = q->read_only ? -EIO : qcow2_l2_get_own(q, offset, &p);
	if (r == 0) {
		r = plan(q, p, &a, offset, min_u64(len, end - offset));
		qcow2_page_put(p);
	}
	if (r == 0 && a.len)
		qcow2_flight_begin(q, &a.flight, a.cluster,
				   a.cluster + (a.count << q->cluster_bits));
	coro_unlock(q->coros, &q->lock);
	if (r < 0 || !a.len)
		return r;

	r = write_data(q, &a, part, iov_slice(iov, n, skip, a.len, part));
	coro_lock(q->coros, &q->lock);
	if (r == 0)
		r = q->read_only ? -EIO : link_clusters(q, &a);
	if (r < 0 && a.fresh)
		qcow2_free_now(q, a.host, a.count << q->cluster_bits);
	qcow2_flight_end(q, &a.flight);
	coro_unlock(q->coros, &q->lock);
	if (r == 0)
		*done = a.len;
	return r;
}

static int write_part(struct qcow2 *q, uint64_t offset, const struct iovec *iov, unsigned n,
		      uint64_t len, uint64_t skip, uint64_t *done)
{
	struct iovec part[BLOCK_IOV_MAX];
	struct qcow2_extent x;
	unsigned gen;
	int r = qcow2_lookup(q, offset, len, &x);

	if (r < 0)
		return r;
	if (x.kind != QCOW2_DATA || !x.copied)
		return alloc_write(q, offset, iov, n, len, skip, done);
	if (qcow2_overlaps_fixed(q, x.host, x.len))
		return qcow2_corrupt(q);
	gen = qcow2_io_enter(q);
	r = q->p->ops->writev(q->p, x.host, part, iov_slice(iov, n, skip, x.len, part));
	qcow2_io_leave(q, gen);
	*done = x.len;
	return r;
}

int qcow2_writev(struct block *b, uint64_t offset, const struct iovec *iov, unsigned n,
		 uint64_t len)
{
	struct qcow2 *q = qcow2_of(b);
	int r = qcow2_begin_write(q);

	for (uint64_t at = 0; r == 0 && at < len;) {
		uint64_t done = 0;

		r = write_part(q, offset + at, iov, n, len - at, at, &done);
		at += done;
	}
	return r == 0 ? qcow2_free_pressure(q) : r;
}
