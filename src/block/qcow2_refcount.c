/* qcow2_refcount: how often each cluster of the file is referred to. A refcount block is read
 * and written in pages like L2 tables; the table of blocks is in memory.
 *
 * A new block takes the first cluster of the range that it counts: no block was there, so
 * nothing of the range is in use, and its own count is in itself. It is on the disk before
 * the table names it. A larger table, and the blocks that count it, are written behind all
 * that the old table covers; then one sector of the header switches over. A run of clusters that
 * is longer than what a block counts has its blocks in front of it. */
#include <errno.h>
#include <stdlib.h>

#include "block/qcow2_priv.h"

uint64_t qcow2_refcount_load(const uint8_t *b, unsigned order, uint64_t i)
{
	switch (order) {
	case 0:
	case 1:
	case 2: return b[i >> (3 - order)] >> ((i << order) & 7) & (BIT(1u << order) - 1);
	case 3: return b[i];
	case 4: return (uint64_t)b[2 * i] << 8 | b[2 * i + 1];
	case 5: return load_be32(b + 4 * i);
	default: return load_be64(b + 8 * i);
	}
}

void qcow2_refcount_store(uint8_t *b, unsigned order, uint64_t i, uint64_t v)
{
	const unsigned shift = (i << order) & 7;

	switch (order) {
	case 0:
	case 1:
	case 2:
		b += i >> (3 - order);
		*b = (uint8_t)((*b & ~((BIT(1u << order) - 1) << shift)) | v << shift);
		break;
	case 3: b[i] = (uint8_t)v; break;
	case 4:
		b[2 * i] = (uint8_t)(v >> 8);
		b[2 * i + 1] = (uint8_t)v;
		break;
	case 5: store_be32(b + 4 * i, (uint32_t)v); break;
	default: store_be64(b + 8 * i, v);
	}
}

/* log2 of the counts in a page */
static unsigned page_bits(const struct qcow2 *q)
{
	return (unsigned)__builtin_ctzll(q->page_bytes) + 3 - q->h.refcount_order;
}

int qcow2_refcount_page(struct qcow2 *q, uint64_t cluster, struct qcow2_page **out, uint64_t *at)
{
	const uint64_t block = cluster >> qcow2_rb_bits(q);
	const uint64_t in_block = cluster & (BIT(qcow2_rb_bits(q)) - 1);
	uint64_t offset;

	*out = NULL;
	if (block >= q->rt_entries || !q->rt[block])
		return 0;
	offset = q->rt[block];
	if (offset % q->cluster_bytes || offset >= BIT(56))
		return -EIO;
	*at = in_block & (BIT(page_bits(q)) - 1);
	return qcow2_page_get(&q->rb, offset + (in_block >> page_bits(q)) * q->page_bytes, out);
}

int qcow2_refcount_get(struct qcow2 *q, uint64_t cluster, uint64_t *out)
{
	struct qcow2_page *p;
	uint64_t at = 0;
	int r = qcow2_refcount_page(q, cluster, &p, &at);

	if (r < 0)
		return r;
	*out = p ? qcow2_refcount_load(p->bytes, q->h.refcount_order, at) : 0;
	qcow2_page_put(p);
	return 0;
}

int qcow2_refcount_change(struct qcow2 *q, uint64_t cluster, int delta)
{
	const unsigned order = q->h.refcount_order;
	struct qcow2_page *p;
	uint64_t at = 0, v;
	int r = qcow2_refcount_page(q, cluster, &p, &at);

	if (r < 0)
		return r;
	if (!p)
		return qcow2_corrupt(q);
	v = qcow2_refcount_load(p->bytes, order, at);
	if (delta < 0 ? v == 0 : v == qcow2_refcount_max(order)) {
		qcow2_page_put(p);
		return delta < 0 ? qcow2_corrupt(q) : -ERANGE;
	}
	v = delta < 0 ? v - 1 : v + 1;
	qcow2_refcount_store(p->bytes, order, at, v);
	qcow2_page_dirty(&q->rb, p);
	qcow2_page_put(p);
	if (v == 0) {
		q->free_hint = min_u64(q->free_hint, cluster);
		q->frees++;
	}
	return 0;
}

/* --- growing --- */

/* A block whose first used entries are 1. */
static int write_block(struct qcow2 *q, uint64_t offset, uint64_t used, bool virgin)
{
	const uint64_t used_bytes = align_up((used << q->h.refcount_order) / 8 + 1, q->page_bytes);
	const uint64_t len = virgin ? min_u64(used_bytes, q->cluster_bytes) : q->cluster_bytes;
	uint8_t *bytes = calloc(1, q->cluster_bytes);
	int r;

	if (!bytes)
		return -ENOMEM;
	for (uint64_t i = 0; i < used; i++)
		qcow2_refcount_store(bytes, q->h.refcount_order, i, 1);
	qcow2_cache_forget(&q->rb, offset, q->cluster_bytes);
	r = proto_write(q->p, offset, bytes, len);
	free(bytes);
	return r;
}

/* The sector of the table on the disk that has this entry. */
static int write_table_entry(struct qcow2 *q, uint64_t block)
{
	const uint64_t first = align_down(block, 64);
	uint8_t sector[512];

	for (unsigned i = 0; i < 64; i++)
		store_be64(sector + 8 * i, q->rt[first + i]);
	return proto_write(q->p, q->h.rt_offset + first * 8, sector, sizeof sector);
}

static int write_table(struct qcow2 *q, uint64_t offset, const uint64_t *table, uint64_t bytes)
{
	uint8_t *out = malloc(bytes);
	int r;

	if (!out)
		return -ENOMEM;
	for (uint64_t i = 0; i < bytes / 8; i++)
		store_be64(out + 8 * i, table[i]);
	r = proto_write(q->p, offset, out, bytes);
	free(out);
	return r;
}

int qcow2_refcount_rewrite(struct qcow2 *q)
{
	return write_table(q, q->h.rt_offset, q->rt, q->rt_entries * 8ull);
}

/* So many entries of one sector of the table could not be written. They may be there after all:
 * such a block counts itself, and stays until the disk does not name it any more. */
static void unname(struct qcow2 *q, uint64_t block, uint64_t count)
{
	memset(&q->rt[block], 0, count * 8);
	if (write_table_entry(q, block) < 0)
		q->header_unsure = true;
}

static int add_block(struct qcow2 *q, uint64_t block)
{
	const uint64_t offset = block << qcow2_rb_bits(q) << q->cluster_bits;
	bool virgin;
	int r = qcow2_claim(q, offset, q->cluster_bytes, &virgin);

	if (r == 0)
		r = write_block(q, offset, 1, virgin);
	if (r == 0)
		r = proto_flush(q->p);
	if (r < 0)
		return r;
	q->rt[block] = offset;
	r = write_table_entry(q, block);
	if (r < 0)
		unname(q, block, 1);
	return r;
}

struct growth {
	uint64_t first;  /* cluster: the old table covers all before it */
	uint64_t blocks; /* new ones, from first on; the table is behind them */
	uint64_t table_clusters;
};

static struct growth plan_growth(const struct qcow2 *q, uint64_t block)
{
	const uint64_t per_block = BIT(qcow2_rb_bits(q));
	struct growth g = {.first = (uint64_t)q->rt_entries << qcow2_rb_bits(q), .blocks = 1};

	for (;;) {
		uint64_t entries = max_u64(q->rt_entries + g.blocks, block + 1);

		entries += entries / 2;
		g.table_clusters = align_up(entries * 8, q->cluster_bytes) >> q->cluster_bits;
		if (g.blocks * per_block >= g.blocks + g.table_clusters)
			return g;
		g.blocks++;
	}
}

static int write_growth(struct qcow2 *q, const struct growth *g, const uint64_t *table, bool virgin)
{
	const uint64_t per_block = BIT(qcow2_rb_bits(q)),
		       bytes = g->table_clusters << q->cluster_bits;
	uint64_t used = g->blocks + g->table_clusters;
	int r = 0;

	for (uint64_t i = 0; r == 0 && i < g->blocks; i++) {
		uint64_t here = min_u64(used, per_block);

		r = write_block(q, (g->first + i) << q->cluster_bits, here, virgin);
		used -= here;
	}
	if (r < 0)
		return r;
	return write_table(q, (g->first + g->blocks) << q->cluster_bits, table, bytes);
}

static int switch_table(struct qcow2 *q, uint64_t offset, uint32_t clusters)
{
	uint8_t field[12];
	int r;

	store_be64(field, offset);
	store_be32(field + 8, clusters);
	r = proto_flush(q->p);
	return r == 0 ? qcow2_header_switch(q, QCOW2_AT_RT, field, sizeof field) : r;
}

static int grow_table(struct qcow2 *q, uint64_t block)
{
	const struct growth g = plan_growth(q, block);
	const uint64_t bytes = g.table_clusters << q->cluster_bits;
	const uint64_t offset = (g.first + g.blocks) << q->cluster_bits;
	const uint64_t old_offset = q->h.rt_offset, old_clusters = q->h.rt_clusters;
	uint64_t *table;
	bool virgin;
	int r;

	if (bytes > QCOW2_MAX_RT_BYTES)
		return -EFBIG;
	table = calloc(1, bytes);
	if (!table)
		return -ENOMEM;
	memcpy(table, q->rt, q->rt_entries * 8);
	for (uint64_t i = 0; i < g.blocks; i++)
		table[q->rt_entries + i] = (g.first + i) << q->cluster_bits;
	r = qcow2_claim(q, g.first << q->cluster_bits, (g.blocks << q->cluster_bits) + bytes,
			&virgin);
	if (r == 0)
		r = write_growth(q, &g, table, virgin);
	if (r == 0)
		r = switch_table(q, offset, (uint32_t)g.table_clusters);
	if (r < 0) {
		free(table);
		return r;
	}
	free(q->rt);
	q->rt = table;
	q->rt_entries = (uint32_t)(bytes / 8);
	q->h.rt_offset = offset;
	q->h.rt_clusters = (uint32_t)g.table_clusters;
	qcow2_free_now(q, old_offset, old_clusters << q->cluster_bits);
	return 0;
}

int qcow2_refcount_grow(struct qcow2 *q, uint64_t cluster)
{
	const uint64_t block = cluster >> qcow2_rb_bits(q);
	/* What is written now may be what the disk names. */
	int r = qcow2_header_settle(q);

	if (r < 0)
		return r;
	if (block >= q->rt_entries)
		return grow_table(q, block);
	return q->rt[block] ? 0 : add_block(q, block);
}

/* --- long runs --- */

/* The first block behind all that there are. */
static uint64_t blocks_end(const struct qcow2 *q)
{
	uint64_t n = q->rt_entries;

	while (n && !q->rt[n - 1])
		n--;
	return n;
}

/* count blocks that are on the disk, one behind the other from cluster on, into the table. A block
 * is counted by itself or one before it. The table is written in order, sector by sector: so
 * what of it is on the disk names a block only together with the one that counts it. */
static int name_blocks(struct qcow2 *q, uint64_t block, uint64_t count, uint64_t cluster)
{
	while (count) {
		const uint64_t now = min_u64(count, 64 - block % 64);
		int r;

		for (uint64_t i = 0; i < now; i++)
			q->rt[block + i] = (cluster + i) << q->cluster_bits;
		r = write_table_entry(q, block);
		if (r == 0)
			r = proto_flush(q->p);
		if (r < 0) {
			unname(q, block, now);
			return r;
		}
		block += now;
		cluster += now;
		count -= now;
	}
	return 0;
}

int qcow2_refcount_grow_run(struct qcow2 *q, uint64_t clusters, uint64_t *first)
{
	const uint64_t per_block = BIT(qcow2_rb_bits(q));
	const uint64_t blocks = (clusters + per_block - 2) / (per_block - 1);
	uint64_t block = blocks_end(q), at, left = blocks;
	bool virgin;
	int r = qcow2_header_settle(q);

	while (r == 0 && block + blocks > q->rt_entries) {
		r = grow_table(q, block + blocks - 1);
		block = blocks_end(q);
	}
	if (r < 0)
		return r;
	at = block << qcow2_rb_bits(q);
	r = qcow2_claim(q, at << q->cluster_bits, (blocks + clusters) << q->cluster_bits, &virgin);
	for (uint64_t i = 0; r == 0 && i < blocks; i++) {
		const uint64_t here = min_u64(left, per_block);

		r = write_block(q, (at + i) << q->cluster_bits, here, virgin);
		left -= here;
	}
	if (r == 0)
		r = proto_flush(q->p);
	if (r == 0)
		r = name_blocks(q, block, blocks, at);
	*first = at + blocks;
	return r;
}
