/* qcow2_repair: refcounts and COPIED bits made to say what qcow2_check.c counted. Refcounts go
 * up before bits say that a cluster is nobody else's. Where the refcount table itself is
 * broken, a new one is written behind all else, and one sector of the header switches over. */
#include <errno.h>
#include <stdlib.h>

#include "block/qcow2_priv.h"

typedef unsigned long long ull;

static int set_refcount(struct qcow2 *q, uint64_t cluster, uint64_t value)
{
	struct qcow2_page *p;
	uint64_t at = 0;
	int r = qcow2_refcount_grow(q, cluster);

	if (r == 0)
		r = qcow2_refcount_page(q, cluster, &p, &at);
	if (r < 0)
		return r;
	if (!p)
		return -EIO;
	qcow2_refcount_store(p->bytes, q->h.refcount_order, at, value);
	qcow2_page_dirty(&q->rb, p);
	qcow2_page_put(p);
	return 0;
}

static int compare_one(struct qcow2_count *c, uint64_t i, enum qcow2_fix fix)
{
	struct qcow2 *q = c->q;
	const bool leak_only = fix == QCOW2_FIX_LEAKS;
	uint64_t have, want = c->n[i];
	int r = qcow2_refcount_get(q, i, &have);
	bool leak;

	if (r == -ENOMEM)
		return r;
	if (r < 0) {
		c->r->check_errors++;
		return 0;
	}
	if (have == want)
		return 0;
	leak = have > want;
	qcow2_report(c->r, "%s cluster %llu: refcount %llu, used %llu times",
		     leak ? "leaked" : "ERROR", (ull)i, (ull)have, (ull)want);
	if (fix == QCOW2_FIX_NONE || (leak_only && !leak) ||
	    want > qcow2_refcount_max(q->h.refcount_order)) {
		c->r->leaks += leak;
		c->r->corruptions += !leak;
		c->leaks_end = have ? i + 1 : c->leaks_end;
		return 0;
	}
	r = set_refcount(q, i, want);
	c->r->leaks_fixed += r == 0 && leak;
	c->r->corruptions_fixed += r == 0 && !leak;
	return r;
}

int qcow2_compare_counts(struct qcow2_count *c, enum qcow2_fix fix)
{
	int r = 0;

	for (uint64_t i = 0; r == 0 && i < c->clusters; i++)
		r = compare_one(c, i, fix);
	/* Up before anything relies on it. */
	if (r == 0 && fix != QCOW2_FIX_NONE)
		r = qcow2_cache_write(&c->q->rb);
	return r == 0 && fix != QCOW2_FIX_NONE ? proto_flush(c->q->p) : r;
}

/* --- COPIED --- */

/* Is the bit as it should be of something at offset? By now the refcounts are as right as they
 * get. */
static bool copied_is_right(const struct qcow2_count *c, uint64_t entry, const char *what)
{
	const uint64_t cluster = (entry & QCOW2_OFFSET_MASK) >> c->q->cluster_bits;
	const bool copied = entry & QCOW2_COPIED;
	uint64_t n;

	if (cluster >= c->clusters || qcow2_refcount_get(c->q, cluster, &n) < 0 ||
	    copied == (n == 1))
		return true;
	qcow2_report(c->r, "ERROR %s at %#llx: the bit that says it is used once is %s", what,
		     (ull)(entry & QCOW2_OFFSET_MASK), copied ? "set" : "not set");
	return false;
}

static void note(struct qcow2_count *c, bool fixed)
{
	c->r->corruptions_fixed += fixed;
	c->r->corruptions += !fixed;
}

static void check_entry(struct qcow2_count *c, struct qcow2_page *p, unsigned i, bool fix)
{
	struct qcow2 *q = c->q;
	struct qcow2_entry entry = qcow2_entry_load(q, p, i);
	bool right;

	if (entry.l2 & QCOW2_COMPRESSED)
		right = !(entry.l2 & QCOW2_COPIED);
	else if (!(entry.l2 & QCOW2_OFFSET_MASK) || qcow2_entry_check(q, entry) < 0)
		return;
	else
		right = copied_is_right(c, entry.l2, "a cluster");
	if (right)
		return;
	note(c, fix);
	if (!fix)
		return;
	entry.l2 ^= QCOW2_COPIED;
	qcow2_entry_store(q, p, i, entry);
}

static void check_page(struct qcow2_count *c, struct qcow2_page *p, void *fix)
{
	for (unsigned i = 0; i < qcow2_page_entries(c->q); i++)
		check_entry(c, p, i, *(const bool *)fix);
}

int qcow2_check_copied(struct qcow2_count *c, enum qcow2_fix fix)
{
	struct qcow2 *q = c->q;
	bool all = fix == QCOW2_FIX_ALL;
	/* Each table once, however often L1 names it. */
	uint8_t *seen = calloc(1, c->clusters / 8 + 1);
	int r = seen ? 0 : -ENOMEM;

	for (uint32_t i = 0; r == 0 && !q->at_snapshot && i < q->h.l1_size; i++) {
		const uint64_t table = q->l1[i] & QCOW2_OFFSET_MASK;
		const uint64_t cluster = table >> q->cluster_bits;

		if (!table || table & (q->cluster_bytes - 1) || cluster >= c->clusters ||
		    seen[cluster / 8] & BIT(cluster % 8))
			continue;
		seen[cluster / 8] |= (uint8_t)BIT(cluster % 8);
		if (!copied_is_right(c, q->l1[i], "an L2 table")) {
			note(c, all);
			if (all)
				qcow2_l1_set(q, i, q->l1[i] ^ QCOW2_COPIED);
		}
		r = qcow2_count_l2(c, table, check_page, &all);
	}
	free(seen);
	return r;
}

/* --- rebuild --- */

struct plan {
	uint64_t first, blocks,
		table; /* cluster; counts of clusters; the table follows the blocks */
};

static struct plan plan_rebuild(const struct qcow2_count *c)
{
	const uint64_t per_block = BIT(qcow2_rb_bits(c->q));
	struct plan p = {.first = c->clusters, .blocks = 1};

	for (;;) {
		p.table = align_up(p.blocks * 8, c->q->cluster_bytes) >> c->q->cluster_bits;
		if (p.blocks * per_block >= p.first + p.blocks + p.table)
			return p;
		p.blocks++;
	}
}

static int write_blocks(struct qcow2_count *c, const struct plan *p, uint8_t *buf)
{
	struct qcow2 *q = c->q;
	const uint64_t per_block = BIT(qcow2_rb_bits(q)), end = p->first + p->blocks + p->table;
	int r = 0;

	for (uint64_t i = 0; r == 0 && i < p->blocks; i++) {
		memset(buf, 0, q->cluster_bytes);
		for (uint64_t k = 0; k < per_block && i * per_block + k < end; k++) {
			uint64_t cluster = i * per_block + k;
			uint64_t n = cluster < c->clusters ? c->n[cluster] : 1;

			if (n > qcow2_refcount_max(q->h.refcount_order))
				return -ERANGE;
			qcow2_refcount_store(buf, q->h.refcount_order, k, n);
		}
		r = proto_write(q->p, (p->first + i) << q->cluster_bits, buf, q->cluster_bytes);
	}
	return r;
}

static int write_table(struct qcow2 *q, const struct plan *p, uint64_t *table)
{
	const uint64_t bytes = p->table << q->cluster_bits;
	uint8_t *out = calloc(1, bytes);
	int r;

	if (!out)
		return -ENOMEM;
	for (uint64_t i = 0; i < p->blocks; i++) {
		table[i] = (p->first + i) << q->cluster_bits;
		store_be64(out + 8 * i, table[i]);
	}
	r = proto_write(q->p, (p->first + p->blocks) << q->cluster_bits, out, bytes);
	free(out);
	return r;
}

static int switch_over(struct qcow2 *q, const struct plan *p, uint64_t *table)
{
	const uint64_t offset = (p->first + p->blocks) << q->cluster_bits;
	uint8_t field[12];
	int r = proto_flush(q->p);

	store_be64(field, offset);
	store_be32(field + 8, (uint32_t)p->table);
	if (r == 0)
		r = qcow2_header_update(q, QCOW2_AT_RT, field, sizeof field);
	if (r == 0)
		r = proto_flush(q->p);
	if (r < 0)
		return r;
	free(q->rt);
	q->rt = table;
	q->rt_entries = (uint32_t)((p->table << q->cluster_bits) / 8);
	q->h.rt_offset = offset;
	q->h.rt_clusters = (uint32_t)p->table;
	q->used_end = max_u64(q->used_end, (p->first + p->blocks + p->table) << q->cluster_bits);
	q->virgin = max_u64(q->virgin, q->used_end);
	return 0;
}

/* What the old blocks say is not to be kept, nor written. */
static void forget_blocks(struct qcow2 *q)
{
	while (q->rb.dirty.dirty_next != &q->rb.dirty)
		qcow2_page_clean(q->rb.dirty.dirty_next);
	for (uint32_t i = 0; i < q->rt_entries; i++)
		if (q->rt[i])
			qcow2_cache_forget(&q->rb, q->rt[i], q->cluster_bytes);
}

int qcow2_rebuild(struct qcow2_count *c, struct err *e)
{
	struct qcow2 *q = c->q;
	const struct plan p = plan_rebuild(c);
	struct qcow2_check ignored = {0}, *r = c->r;
	uint64_t *table;
	uint8_t *buf;
	int ret;

	if (p.table << q->cluster_bits > QCOW2_MAX_RT_BYTES)
		return err_set(e, EFBIG, "the refcount table would be too large");
	/* Again, without the old table and its blocks. */
	memset(c->n, 0, c->clusters * sizeof *c->n);
	c->r = &ignored;
	ret = qcow2_count_users(c, e);
	c->r = r;
	if (ret < 0)
		return ret;
	table = calloc(1, p.table << q->cluster_bits);
	buf = malloc(q->cluster_bytes);
	ret = table && buf ? write_blocks(c, &p, buf) : -ENOMEM;
	if (ret == 0)
		ret = write_table(q, &p, table);
	forget_blocks(q);
	if (ret == 0)
		ret = switch_over(q, &p, table);
	free(buf);
	if (ret < 0) {
		free(table);
		return err_sys(e, -ret, "rebuild the refcounts");
	}
	return 0;
}
