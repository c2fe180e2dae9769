/* qcow2_zero: zeros and discards. Both are changes of L2 entries alone, for whole (sub)clusters;
 * zeros at the borders are written. What is not referred to any more is freed after the next
 * flush. A discarded range reads as zeros: without a backing image it is absent, else it says
 * zero; version 2 cannot say that and keeps its data. */
#include <errno.h>

#include "block/qcow2_priv.h"

#define SUBCLUSTERS 32u
#define ALL_SUBS    (BIT(SUBCLUSTERS) - 1)

struct change {
	bool discard, unmap;
	uint64_t start, end; /* of the disk; zero: whole subclusters, discard: whole clusters */
};

/* Writes zeros over part of a (sub)cluster, unless it reads as zeros as it is. */
static int write_zeros(struct qcow2 *q, uint64_t offset, uint64_t len)
{
	struct iovec iov[32];
	int r = 0;

	while (r == 0 && len) {
		uint64_t now = min_u64(len, ARRAY_SIZE(iov) * BLOCK_ZEROS_BYTES), left;
		struct qcow2_extent x;
		unsigned n = 0;

		r = qcow2_lookup(q, offset, now, &x);
		if (r < 0)
			break;
		now = x.len;
		for (left = now; left; n++) {
			iov[n] = (struct iovec){(void *)block_zeros(q->b->ctx),
						min_u64(left, BLOCK_ZEROS_BYTES)};
			left -= iov[n].iov_len;
		}
		if (x.kind != QCOW2_ZEROS &&
		    (x.kind != QCOW2_ABSENT || !qcow2_backing_is_zero(q, offset)))
			r = qcow2_writev(q->b, offset, iov, n, now);
		offset += now;
		len -= now;
	}
	return r;
}

static bool keeps_host(const struct change *c, struct qcow2_entry old)
{
	return !c->discard && !c->unmap && old.l2 & QCOW2_COPIED && !(old.l2 & QCOW2_COMPRESSED) &&
	       old.l2 & QCOW2_OFFSET_MASK;
}

/* The entry of a cluster that becomes zeros as a whole. Returns false when it stays. */
static bool whole_cluster(const struct qcow2 *q, const struct change *c, struct qcow2_entry old,
			  bool backing, struct qcow2_entry *out)
{
	const uint64_t host = old.l2 & (QCOW2_OFFSET_MASK | QCOW2_COPIED);
	const bool flag = q->h.version >= 3;

	*out = (struct qcow2_entry){0};
	if (!flag && backing)
		return false; /* zero: the caller writes them */
	if (!old.l2 && !old.bitmap && !backing)
		return false;
	if (flag && keeps_host(c, old))
		out->l2 = host;
	if (flag && (backing || out->l2)) {
		out->l2 |= q->extended ? 0 : QCOW2_ZERO;
		out->bitmap = q->extended ? ALL_SUBS << SUBCLUSTERS : 0;
	}
	return out->l2 != old.l2 || out->bitmap != old.bitmap;
}

/* The same of some of its subclusters. */
static struct qcow2_entry some_subs(struct qcow2_entry old, uint64_t mask)
{
	old.bitmap = (old.bitmap & ~mask) | mask << SUBCLUSTERS;
	return old;
}

static void change_entry(struct qcow2 *q, const struct change *c, struct qcow2_page *p,
			 uint64_t cluster)
{
	const unsigned index = qcow2_page_index(q, cluster);
	struct qcow2_entry old = qcow2_entry_load(q, p, index), entry;
	uint64_t end = cluster + q->cluster_bytes;

	if (qcow2_entry_check(q, old) < 0)
		return;
	if (c->start <= cluster && c->end >= end) {
		if (!whole_cluster(q, c, old, !qcow2_backing_is_zero(q, cluster), &entry))
			return;
		if ((old.l2 & QCOW2_OFFSET_MASK) != (entry.l2 & QCOW2_OFFSET_MASK) ||
		    old.l2 & QCOW2_COMPRESSED)
			qcow2_entry_drop(q, old);
	} else {
		uint64_t from = max_u64(c->start, cluster) - cluster;
		uint64_t to = min_u64(c->end, end) - cluster;

		entry = some_subs(old,
				  (BIT(to >> q->sub_bits) - 1) & ~(BIT(from >> q->sub_bits) - 1));
	}
	qcow2_entry_store(q, p, index, entry);
}

/* Does the table of offset exist, or need to, for this change? */
static bool needs_table(const struct qcow2 *q, uint64_t offset)
{
	return !qcow2_backing_is_zero(q, offset) ||
	       q->l1[offset >> (q->cluster_bits + q->l2_bits)] & QCOW2_OFFSET_MASK;
}

/* One page of entries, from *at on. */
static int change_page(struct qcow2 *q, const struct change *c, uint64_t *at)
{
	const uint64_t covers = (uint64_t)qcow2_page_entries(q) << q->cluster_bits;
	const uint64_t table = BIT(q->cluster_bits + q->l2_bits);
	const uint64_t first = align_down(*at, q->cluster_bytes);
	uint64_t end = align_up(c->end, q->cluster_bytes);
	struct qcow2_page *p;
	int r;

	if (!needs_table(q, *at)) {
		*at = min_u64(c->end, align_down(*at, table) + table);
		return 0;
	}
	end = min_u64(end, align_down(*at, covers) + covers);
	qcow2_lock_range(q, first, &end);
	r = q->read_only ? -EIO : qcow2_l2_get_own(q, *at, &p);
	if (r == 0) {
		for (uint64_t cluster = first; cluster < end; cluster += q->cluster_bytes)
			change_entry(q, c, p, cluster);
		qcow2_page_put(p);
		*at = min_u64(c->end, end);
	}
	coro_unlock(q->coros, &q->lock);
	return r == 0 ? qcow2_free_pressure(q) : r;
}

static int change_range(struct qcow2 *q, const struct change *c)
{
	int r = 0;

	for (uint64_t at = c->start; r == 0 && at < c->end;)
		r = change_page(q, c, &at);
	return r;
}

/* A compressed cluster has no subclusters: those at the borders become zeros by writing. */
static int border_unit(struct qcow2 *q, uint64_t offset, uint64_t *unit)
{
	struct qcow2_extent x;
	int r;

	*unit = BIT(q->sub_bits);
	if (!q->extended || offset >= q->h.size)
		return 0;
	r = qcow2_lookup(q, offset, 1, &x);
	if (r == 0 && x.kind == QCOW2_PACKED)
		*unit = q->cluster_bytes;
	return r;
}

/* Whole units within [offset, end); those at the end of the disk count as whole. */
static int zero_middle(struct qcow2 *q, struct change *c, uint64_t offset, uint64_t end)
{
	uint64_t head, tail = 0;
	int r = border_unit(q, offset, &head);

	if (r == 0)
		r = border_unit(q, end - 1, &tail);
	if (r < 0)
		return r;
	c->start = align_up(offset, head);
	c->end = end == q->h.size ? align_up(end, q->cluster_bytes) : align_down(end, tail);
	return 0;
}

/* Version 2 over a backing image, or nothing whole in the range. */
static bool must_write(const struct qcow2 *q, const struct change *c, uint64_t offset)
{
	return c->start >= c->end || (q->h.version < 3 && !qcow2_backing_is_zero(q, offset));
}

int qcow2_zero(struct block *b, uint64_t offset, uint64_t len, bool unmap)
{
	struct qcow2 *q = qcow2_of(b);
	struct change c = {.unmap = unmap};
	const uint64_t end = offset + len;
	int r = qcow2_begin_write(q);

	if (r == 0 && len)
		r = zero_middle(q, &c, offset, end);
	if (r < 0 || !len)
		return r;
	if (must_write(q, &c, offset))
		return write_zeros(q, offset, len);
	if (c.start > offset)
		r = write_zeros(q, offset, c.start - offset);
	if (r == 0)
		r = change_range(q, &c);
	if (r == 0 && end > c.end)
		r = write_zeros(q, c.end, end - c.end);
	return r;
}

int qcow2_discard(struct block *b, uint64_t offset, uint64_t len)
{
	struct qcow2 *q = qcow2_of(b);
	const uint64_t end = offset + len;
	struct change c = {
		.discard = true,
		.start = align_up(offset, q->cluster_bytes),
		.end = end == q->h.size ? align_up(end, q->cluster_bytes)
					: align_down(end, q->cluster_bytes),
	};
	int r = qcow2_begin_write(q);

	return r == 0 && c.start < c.end ? change_range(q, &c) : r;
}
