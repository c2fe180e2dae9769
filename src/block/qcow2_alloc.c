/* qcow2_alloc: clusters handed out. First fit from the lowest free one on, several side by
 * side where they are free, so that what is written in order lies in order. The file grows in
 * steps ahead of that; what of it nobody had yet reads as zeros ("virgin"), which saves
 * writing zeros around small writes. All under q->lock but qcow2_free_now. */
#include <errno.h>

#include "block/qcow2_priv.h"

#define MAX_STEP   MIB(16) /* by which the file grows */
#define SCAN_LIMIT 1024u   /* entries of L1 and refcount table that are looked at each time */

static bool touches(uint64_t offset, uint64_t len, uint64_t table, uint64_t bytes)
{
	return bytes && table && offset < table + bytes && table < offset + len;
}

bool qcow2_overlaps_fixed(const struct qcow2 *q, uint64_t offset, uint64_t len)
{
	return offset < q->cluster_bytes ||
	       touches(offset, len, q->h.l1_offset, (uint64_t)q->h.l1_size * 8) ||
	       touches(offset, len, q->h.rt_offset,
		       (uint64_t)q->h.rt_clusters << q->cluster_bits) ||
	       touches(offset, len, q->h.snapshots_offset, q->snapshots_bytes);
}

/* A cluster whose refcount says free, but that is a table: the refcounts are wrong, and what
 * was written there would destroy the image. */
static bool overlaps_tables(const struct qcow2 *q, uint64_t offset, uint64_t len)
{
	if (qcow2_overlaps_fixed(q, offset, len))
		return true;
	for (uint32_t i = 0; q->h.l1_size <= SCAN_LIMIT && i < q->h.l1_size; i++)
		if (touches(offset, len, q->l1[i] & QCOW2_OFFSET_MASK, q->cluster_bytes))
			return true;
	for (uint32_t i = 0; q->rt_entries <= SCAN_LIMIT && i < q->rt_entries; i++)
		if (touches(offset, len, q->rt[i], q->cluster_bytes))
			return true;
	return false;
}

/* The file's length, and its space where that can be taken. -ENOSPC: as it was. */
static int grow_to(struct qcow2 *q, uint64_t to)
{
	const uint64_t size = q->p->size;
	int r = q->p->ops->truncate(q->p, to);

	if (r < 0 || q->sparse || !q->p->ops->allocate)
		return r;
	if (q->p->ops->allocate(q->p, size, to - size) != -ENOSPC)
		return 0; /* done, or cannot be done here */
	(void)q->p->ops->truncate(q->p, size);
	return -ENOSPC;
}

/* Makes the file reach end, and more, in steps, with its space: else every write to a new cluster
 * has the file system look for some, and on a full one, tables that are in memory could not be
 * written any more for data that came before them. What is not used is given back when the image
 * is closed. */
static int grow_file(struct qcow2 *q, uint64_t end)
{
	const uint64_t size = q->p->size;
	uint64_t step = min_u64(max_u64(size / 8, MIB(1)), MAX_STEP);
	int r;

	if (end <= size)
		return 0;
	if (!q->p->growable || !q->p->ops->truncate)
		return -ENOSPC;
	r = grow_to(q, align_up(align_up(end, KIB(64)) + step, q->cluster_bytes));
	return r == -ENOSPC ? grow_to(q, align_up(end, q->cluster_bytes)) : r;
}

int qcow2_claim(struct qcow2 *q, uint64_t offset, uint64_t len, bool *virgin)
{
	int r;

	if (offset >= BIT(56) || len >= BIT(56))
		return -EFBIG;
	if (overlaps_tables(q, offset, len))
		return qcow2_corrupt(q);
	r = grow_file(q, offset + len);
	if (r < 0)
		return r;
	*virgin = offset >= q->virgin;
	q->virgin = max_u64(q->virgin, offset + len);
	q->used_end = max_u64(q->used_end, offset + len);
	return 0;
}

/* Free clusters from *cluster on: the first of them, and how many up to want, on its page of
 * refcounts. Blocks are made where there are none. */
static int find_run(struct qcow2 *q, uint64_t want, uint64_t *cluster, uint64_t *got)
{
	const unsigned order = q->h.refcount_order;
	const uint64_t per_page = q->page_bytes * 8 >> order;

	for (uint64_t c = *cluster;;) {
		struct qcow2_page *p;
		uint64_t at = 0, n = 0;
		int r = qcow2_refcount_page(q, c, &p, &at);

		if (r == 0 && !p)
			r = qcow2_refcount_grow(q, c);
		if (r < 0)
			return r;
		if (!p)
			continue;
		while (at < per_page && qcow2_refcount_load(p->bytes, order, at))
			at++, c++;
		while (at + n < per_page && n < want &&
		       !qcow2_refcount_load(p->bytes, order, at + n))
			n++;
		qcow2_page_put(p);
		if (!n)
			continue;
		*cluster = c;
		*got = n;
		return 0;
	}
}

/* Counts clusters from free to used. */
static int count_up(struct qcow2 *q, uint64_t cluster, uint64_t n)
{
	for (uint64_t i = 0; i < n; i++) {
		int r = qcow2_refcount_change(q, cluster + i, 1);

		if (r < 0) {
			qcow2_free_now(q, cluster << q->cluster_bits, i << q->cluster_bits);
			return r;
		}
	}
	return 0;
}

int qcow2_alloc(struct qcow2 *q, uint64_t want, uint64_t *offset, uint64_t *got, bool *virgin)
{
	uint64_t cluster = q->free_hint, frees = q->frees, n;
	int r = find_run(q, want, &cluster, &n);

	/* Old and new space apart: the one needs zeros written. */
	if (r == 0 && cluster << q->cluster_bits < q->virgin)
		n = min_u64(n, max_u64(1, (q->virgin >> q->cluster_bits) - cluster));
	if (r == 0)
		r = qcow2_claim(q, cluster << q->cluster_bits, n << q->cluster_bits, virgin);
	if (r == 0)
		r = count_up(q, cluster, n);
	if (r < 0)
		return r;
	if (q->frees == frees)
		q->free_hint = cluster + n;
	*offset = cluster << q->cluster_bits;
	*got = n;
	return 0;
}

/* The first of so many free clusters side by side. */
static int find_exact(struct qcow2 *q, uint64_t clusters, uint64_t *cluster)
{
	uint64_t at = q->free_hint, first = at, have = 0;

	while (have < clusters) {
		uint64_t n;
		int r = find_run(q, clusters - have, &at, &n);

		if (r < 0)
			return r;
		if (at != first + have) {
			first = at;
			have = 0;
		}
		have += n;
		at += n;
	}
	*cluster = first;
	return 0;
}

int qcow2_alloc_exact(struct qcow2 *q, uint64_t clusters, uint64_t *offset)
{
	uint64_t first = 0;
	bool virgin;
	int r;

	/* find_exact has each new block at the beginning of what it counts: no room for more. */
	if (clusters < BIT(qcow2_rb_bits(q))) {
		r = find_exact(q, clusters, &first);
	} else {
		q->sparse = true; /* what lies before it is not used yet */
		r = qcow2_refcount_grow_run(q, clusters, &first);
		q->sparse = false;
	}
	if (r == 0)
		r = qcow2_claim(q, first << q->cluster_bits, clusters << q->cluster_bits, &virgin);
	if (r == 0)
		r = count_up(q, first, clusters);
	if (r == 0)
		*offset = first << q->cluster_bits;
	return r;
}

/* A new cluster to pack into; one behind the last, and the room there counts as well. */
static int new_packing(struct qcow2 *q, uint64_t len)
{
	uint64_t offset, got;
	bool virgin;
	int r = qcow2_alloc(q, 1, &offset, &got, &virgin);

	if (r < 0)
		return r;
	/* What follows the last compressed cluster's sector by sector continues it. */
	if (q->packed_at && align_up(q->packed_at, q->cluster_bytes) == offset &&
	    q->packed_at % q->cluster_bytes && len > offset - q->packed_at)
		r = qcow2_refcount_change(q, q->packed_at >> q->cluster_bits, 1);
	else
		q->packed_at = offset;
	if (r == -ERANGE) { /* the last one is counted as often as it can be */
		q->packed_at = offset;
		r = 0;
	}
	if (r < 0)
		qcow2_free_now(q, offset, q->cluster_bytes);
	return r;
}

int qcow2_alloc_bytes(struct qcow2 *q, uint64_t len, uint64_t *offset)
{
	const uint64_t in = q->packed_at % q->cluster_bytes;
	int r = -ERANGE;

	if (in && q->cluster_bytes - in >= len)
		r = qcow2_refcount_change(q, q->packed_at >> q->cluster_bits, 1);
	if (r == -ERANGE)
		r = new_packing(q, len);
	if (r < 0)
		return r;
	*offset = q->packed_at;
	q->packed_at += len;
	return 0;
}

void qcow2_free_now(struct qcow2 *q, uint64_t offset, uint64_t len)
{
	qcow2_cache_forget(&q->l2, offset, len);
	qcow2_cache_forget(&q->rb, offset, len);
	for (uint64_t at = offset; at < offset + len; at += q->cluster_bytes)
		if (qcow2_refcount_change(q, at >> q->cluster_bits, -1) < 0)
			break; /* it leaks */
}
