/* qcow2_check: does an image add up? Counts what refers to each cluster by walking all tables,
 * and compares that with the refcounts: more refcount than users is a leak, less is a
 * corruption, as is a reference to what cannot be. The walk's time is bounded by the file's
 * size, whatever the tables say: a table that is referred to twice is walked once. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "block/qcow2_priv.h"

#define MAX_CLUSTERS BIT(30)

typedef unsigned long long ull;

void qcow2_report(struct qcow2_check *r, const char *fmt, ...)
{
	char text[200];
	va_list ap;

	if (!r->report)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	r->report(r->report_ctx, text);
}

/* Counts a use of each cluster of the range. false, and a corruption: it is not in the file. */
static bool count(struct qcow2_count *c, uint64_t offset, uint64_t len, const char *what)
{
	const uint64_t first = offset >> c->q->cluster_bits;
	const uint64_t last = (offset + len - 1) >> c->q->cluster_bits;

	if (!len)
		return true;
	if (offset > INT64_MAX || len > INT64_MAX || last >= c->clusters) {
		qcow2_report(c->r, "%s at %#llx is behind the end of the file", what, (ull)offset);
		c->r->corruptions++;
		return false;
	}
	for (uint64_t i = first; i <= last; i++)
		c->n[i] += c->n[i] != UINT32_MAX;
	return true;
}

/* A table, which has its clusters for itself: true when it is to be walked. */
static bool count_table(struct qcow2_count *c, uint64_t offset, uint64_t len, const char *what)
{
	if (offset & (c->q->cluster_bytes - 1)) {
		qcow2_report(c->r, "%s at %#llx is not aligned", what, (ull)offset);
		c->r->corruptions++;
		return false;
	}
	return count(c, offset, len, what);
}

static void count_entry(struct qcow2_count *c, struct qcow2_entry entry, bool active,
			uint64_t *next)
{
	struct qcow2 *q = c->q;
	const uint64_t host = entry.l2 & QCOW2_OFFSET_MASK;

	if (entry.l2 & QCOW2_COMPRESSED) {
		struct qcow2_run run = qcow2_packed_run(q, entry.l2);

		(void)count(c, run.offset, run.len, "a compressed cluster");
		c->r->compressed_clusters += active;
		c->r->allocated_clusters += active;
		c->r->fragmented_clusters += active;
		return;
	}
	if (qcow2_entry_check(q, entry) < 0) {
		qcow2_report(c->r, "an L2 entry makes no sense: %#llx", (ull)entry.l2);
		c->r->corruptions++;
	}
	if (!host || host & (q->cluster_bytes - 1))
		return;
	(void)count(c, host, q->cluster_bytes, "a cluster");
	if (!active)
		return;
	c->r->allocated_clusters++;
	c->r->fragmented_clusters += *next && *next != host;
	*next = host + q->cluster_bytes;
}

int qcow2_count_l2(struct qcow2_count *c, uint64_t table,
		   void (*visit)(struct qcow2_count *c, struct qcow2_page *p, void *arg), void *arg)
{
	struct qcow2 *q = c->q;

	for (uint64_t at = 0; at < q->cluster_bytes; at += q->page_bytes) {
		struct qcow2_page *p;
		int r = qcow2_page_get(&q->l2, table + at, &p);

		if (r == -ENOMEM)
			return r;
		if (r < 0) {
			c->r->check_errors++;
			continue;
		}
		visit(c, p, arg);
		qcow2_page_put(p);
	}
	return 0;
}

struct l2_users {
	bool active;
	uint64_t next; /* where the next data cluster lies if nothing is fragmented */
};

static void count_page(struct qcow2_count *c, struct qcow2_page *p, void *arg)
{
	struct l2_users *u = arg;

	for (unsigned i = 0; i < qcow2_page_entries(c->q); i++)
		count_entry(c, qcow2_entry_load(c->q, p, i), u->active, &u->next);
}

static int count_l1(struct qcow2_count *c, const uint64_t *l1, uint32_t size, bool active)
{
	/* Those that were walked for this L1 table. */
	uint8_t *seen = calloc(1, c->clusters / 8 + 1);
	struct l2_users users = {.active = active};
	int r = seen ? 0 : -ENOMEM;

	for (uint32_t i = 0; r == 0 && i < size; i++) {
		const uint64_t table = l1[i] & QCOW2_OFFSET_MASK;
		const uint64_t cluster = table >> c->q->cluster_bits;

		if (!table || !count_table(c, table, c->q->cluster_bytes, "an L2 table"))
			continue;
		if (seen[cluster / 8] & BIT(cluster % 8)) {
			qcow2_report(c->r, "the L2 table at %#llx is used twice", (ull)table);
			c->r->corruptions++;
			continue;
		}
		seen[cluster / 8] |= (uint8_t)BIT(cluster % 8);
		/* table: checked and counted by now */
		r = qcow2_count_l2(c, table, count_page, &users);
	}
	free(seen);
	return r;
}

static int count_snapshot(struct qcow2_count *c, uint32_t i)
{
	const struct qcow2_l1_ref l1 = c->q->snapshot_l1[i];
	uint64_t *table;
	int r;

	if ((uint64_t)l1.size * 8 > QCOW2_MAX_L1_BYTES) {
		qcow2_report(c->r, "the L1 table of snapshot %u is too large", i);
		c->r->corruptions++;
		return 0;
	}
	if (!count_table(c, l1.offset, l1.size * 8ull, "a snapshot's L1 table"))
		return 0;
	if (l1.size && c->n[l1.offset >> c->q->cluster_bits] > 1) {
		qcow2_report(c->r, "the L1 table of snapshot %u is used otherwise, too", i);
		c->r->corruptions++;
		return 0;
	}
	r = qcow2_table_read(c->q, l1.offset, l1.size, &table, NULL);
	if (r == -ENOMEM)
		return r;
	if (r < 0) {
		c->r->check_errors++;
		return 0;
	}
	r = count_l1(c, table, l1.size, false);
	free(table);
	return r;
}

/* The table of one bitmap, and its data. */
static int count_bitmap(struct qcow2_count *c, uint64_t offset, uint32_t entries)
{
	uint64_t *table;
	int r;

	if (entries > MIB(4) || !count_table(c, offset, entries * 8ull, "a bitmap table"))
		return 0;
	r = qcow2_table_read(c->q, offset, entries, &table, NULL);
	for (uint32_t i = 0; r == 0 && i < entries; i++) {
		uint64_t data = table[i] & QCOW2_OFFSET_MASK;

		if (data)
			(void)count_table(c, data, c->q->cluster_bytes, "a bitmap");
	}
	if (r == 0)
		free(table);
	return r;
}

static int count_bitmaps(struct qcow2_count *c)
{
	const struct qcow2_header *h = &c->q->h;
	uint8_t *dir;
	int r;

	/* Without the bit the bitmaps do not count any more. */
	if (!h->bitmaps_bytes || !(h->autoclear & QCOW2_BITMAPS) ||
	    !count_table(c, h->bitmaps_offset, h->bitmaps_bytes, "the bitmap directory"))
		return 0;
	dir = malloc(h->bitmaps_bytes);
	r = dir ? proto_read(c->q->p, h->bitmaps_offset, dir, h->bitmaps_bytes) : -ENOMEM;
	for (uint64_t at = 0; r == 0 && at + 24 <= h->bitmaps_bytes;) {
		const uint8_t *b = dir + at;

		r = count_bitmap(c, load_be64(b), load_be32(b + 8));
		at = align_up(at + 24 + (load_be32(b + 16) & 0xffff) + load_be32(b + 20), 8);
	}
	free(dir);
	return r;
}

int qcow2_count_users(struct qcow2_count *c, struct err *e)
{
	struct qcow2 *q = c->q;
	int r;

	c->n[0] = 1; /* the header */
	r = count_table(c, q->h.l1_offset, q->h.l1_size * 8ull, "the L1 table")
		    ? count_l1(c, q->l1, q->h.l1_size, true)
		    : 0;
	if (q->h.snapshot_count)
		(void)count_table(c, q->h.snapshots_offset, q->snapshots_bytes,
				  "the snapshot table");
	for (uint32_t i = 0; r == 0 && i < q->h.snapshot_count; i++)
		r = count_snapshot(c, i);
	if (r == 0)
		r = count_bitmaps(c);
	return r < 0 ? err_sys(e, -r, "count the image's clusters") : 0;
}

/* The refcount table and its blocks; what is wrong there is a matter for a rebuild. */
static void count_refcounts(struct qcow2_count *c)
{
	struct qcow2 *q = c->q;
	const uint64_t before = c->r->corruptions;

	if (!q->h.rt_clusters || !q->h.rt_offset) {
		qcow2_report(c->r, "there is no refcount table");
		c->r->corruptions++;
	}
	(void)count_table(c, q->h.rt_offset, (uint64_t)q->h.rt_clusters << q->cluster_bits,
			  "the refcount table");
	for (uint32_t i = 0; i < q->rt_entries; i++) {
		const uint64_t block = q->rt[i];

		if (!block || !count_table(c, block, q->cluster_bytes, "a refcount block"))
			continue;
		if (c->n[block >> q->cluster_bits] != 1) {
			qcow2_report(c->r, "the refcount block at %#llx is used otherwise, too",
				     (ull)block);
			c->r->corruptions++;
		}
	}
	c->rebuild = c->r->corruptions != before;
}

static void find_image_end(struct qcow2_count *c)
{
	uint64_t i = c->clusters;

	while (i > 1 && i > c->leaks_end && !c->n[i - 1])
		i--;
	c->r->image_end_offset = i << c->q->cluster_bits;
}

static int count_all(struct qcow2_count *c, struct err *e)
{
	const struct qcow2 *q = c->q;
	int r;

	c->clusters = max_u64(1, align_up(q->p->size, q->cluster_bytes) >> q->cluster_bits);
	if (q->p->size > INT64_MAX || c->clusters > MAX_CLUSTERS)
		return err_set(e, EFBIG, "the file is too large to be checked");
	free(c->n);
	c->n = calloc(c->clusters, sizeof *c->n);
	if (!c->n)
		return err_set(e, ENOMEM, "check");
	r = qcow2_count_users(c, e);
	if (r == 0)
		count_refcounts(c);
	return r;
}

/* Counts, compares, and fixes what fix says. */
static int pass(struct qcow2 *q, enum qcow2_fix fix, struct qcow2_check *r, struct err *e)
{
	struct qcow2_count c = {.q = q, .r = r};
	int ret = count_all(&c, e);

	r->total_clusters = align_up(q->h.size, q->cluster_bytes) >> q->cluster_bits;
	if (ret == 0 && c.rebuild && fix == QCOW2_FIX_ALL && !r->check_errors) {
		ret = qcow2_rebuild(&c, e);
		r->corruptions_fixed += ret == 0;
	} else if (ret == 0) {
		ret = qcow2_compare_counts(&c, c.rebuild ? QCOW2_FIX_NONE : fix);
		if (ret < 0)
			err_sys(e, -ret, "refcounts");
	}
	if (ret == 0 && (ret = qcow2_check_copied(&c, fix)) < 0)
		err_sys(e, -ret, "L2 tables");
	if (ret == 0)
		find_image_end(&c);
	free(c.n);
	return ret;
}

static int clear_marks(struct qcow2 *q)
{
	const uint64_t bits = q->h.incompatible & ~(QCOW2_DIRTY | QCOW2_CORRUPT);
	uint8_t field[8];
	int r;

	if (bits == q->h.incompatible)
		return 0;
	store_be64(field, bits);
	r = qcow2_header_update(q, QCOW2_AT_INCOMPATIBLE, field, sizeof field);
	if (r == 0)
		r = proto_flush(q->p);
	if (r == 0) {
		q->h.incompatible = bits;
		q->write_begun = false; /* lazy refcounts mark it anew */
	}
	return r;
}

/* After a fix: writes it, and looks again for what is left. */
static int finish(struct qcow2 *q, struct qcow2_check *r, struct err *e)
{
	struct qcow2_check again = {0};
	int ret = qcow2_cache_write(&q->rb);

	if (ret == 0)
		ret = qcow2_checkpoint(q);
	if (ret < 0)
		return err_sys(e, -ret, "write the repair");
	ret = pass(q, QCOW2_FIX_NONE, &again, e);
	if (ret < 0)
		return ret;
	r->corruptions = again.corruptions;
	r->leaks = again.leaks;
	r->check_errors = again.check_errors;
	r->image_end_offset = again.image_end_offset;
	q->free_hint = 0;
	return 0;
}

int qcow2_check_run(struct qcow2 *q, enum qcow2_fix fix, struct qcow2_check *r, struct err *e)
{
	struct qcow2_check found = {.report = r->report, .report_ctx = r->report_ctx};
	int ret = 0;

	if (fix != QCOW2_FIX_NONE && q->read_only)
		return err_set(e, EROFS, "a repair needs to write");
	if (!q->read_only)
		ret = qcow2_checkpoint(q);
	if (ret == 0 && !q->read_only)
		ret = qcow2_reclaim(q);
	if (ret < 0)
		return err_sys(e, -ret, "write metadata back");
	ret = pass(q, fix, &found, e);
	if (ret == 0 && (found.corruptions_fixed || found.leaks_fixed))
		ret = finish(q, &found, e);
	if (ret == 0 && fix == QCOW2_FIX_ALL && !found.corruptions && !found.check_errors &&
	    (ret = clear_marks(q)) < 0)
		err_sys(e, -ret, "mark the image clean");
	if (ret == 0)
		*r = found;
	return ret;
}
