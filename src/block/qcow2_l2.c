/* qcow2_l2: from an offset of the guest's disk to where its bytes are. The L1 table is in
 * memory, L2 tables are in pages of the cache. A lookup that hits the cache does not wait. */
#include <errno.h>
#include <stdlib.h>

#include "block/qcow2_priv.h"

#define SUBCLUSTERS 32u
#define ALL_SUBS    (BIT(SUBCLUSTERS) - 1)

unsigned qcow2_page_entries(const struct qcow2 *q)
{
	return (unsigned)(q->page_bytes / q->entry_bytes);
}

unsigned qcow2_page_index(const struct qcow2 *q, uint64_t offset)
{
	return (unsigned)(offset >> q->cluster_bits) & (qcow2_page_entries(q) - 1);
}

struct qcow2_entry qcow2_entry_load(const struct qcow2 *q, const struct qcow2_page *p,
				    unsigned index)
{
	const uint8_t *b = p->bytes + (size_t)index * q->entry_bytes;

	return (struct qcow2_entry){load_be64(b), q->extended ? load_be64(b + 8) : 0};
}

void qcow2_entry_store(struct qcow2 *q, struct qcow2_page *p, unsigned index,
		       struct qcow2_entry entry)
{
	uint8_t *b = p->bytes + (size_t)index * q->entry_bytes;

	store_be64(b, entry.l2);
	if (q->extended)
		store_be64(b + 8, entry.bitmap);
	qcow2_page_dirty(&q->l2, p);
}

int qcow2_entry_check(const struct qcow2 *q, struct qcow2_entry entry)
{
	const uint64_t host = entry.l2 & QCOW2_OFFSET_MASK;

	if (entry.l2 & QCOW2_COMPRESSED)
		return 0;
	if (host & (q->cluster_bytes - 1))
		return -EIO;
	if (q->extended) {
		uint32_t data = (uint32_t)entry.bitmap, zero = (uint32_t)(entry.bitmap >> 32);

		return data & zero || (data && !host) || entry.l2 & QCOW2_ZERO ? -EIO : 0;
	}
	if (entry.l2 & QCOW2_ZERO)
		return q->h.version < 3 ? -EIO : 0;
	return !host && entry.l2 & QCOW2_COPIED ? -EIO : 0;
}

enum qcow2_kind qcow2_entry_kind(const struct qcow2 *q, struct qcow2_entry entry, unsigned sub)
{
	if (entry.l2 & QCOW2_COMPRESSED)
		return QCOW2_PACKED;
	if (q->extended) {
		if (entry.bitmap & BIT(sub))
			return QCOW2_DATA;
		return entry.bitmap & BIT(sub + SUBCLUSTERS) ? QCOW2_ZEROS : QCOW2_ABSENT;
	}
	if (entry.l2 & QCOW2_ZERO)
		return QCOW2_ZEROS;
	return entry.l2 & QCOW2_OFFSET_MASK ? QCOW2_DATA : QCOW2_ABSENT;
}

struct qcow2_run qcow2_packed_run(const struct qcow2 *q, uint64_t l2)
{
	const unsigned x = 62 - (q->cluster_bits - 8);
	const uint64_t offset = l2 & (BIT(x) - 1) & (BIT(56) - 1);
	const uint64_t sectors = ((l2 & (BIT(62) - 1)) >> x) + 1;

	return (struct qcow2_run){.offset = offset, .len = sectors * 512 - offset % 512};
}

void qcow2_entry_drop(struct qcow2 *q, struct qcow2_entry entry)
{
	const uint64_t host = entry.l2 & QCOW2_OFFSET_MASK;

	if (entry.l2 & QCOW2_COMPRESSED) {
		struct qcow2_run run = qcow2_packed_run(q, entry.l2);
		uint64_t first = align_down(run.offset, q->cluster_bytes);

		qcow2_free_later(q, first, align_up(run.offset + run.len, q->cluster_bytes) - first,
				 false, true);
	} else if (host) {
		qcow2_free_later(q, host, q->cluster_bytes, false, false);
	}
}

/* --- L2 tables --- */

static uint32_t l1_index(const struct qcow2 *q, uint64_t offset)
{
	return (uint32_t)(offset >> (q->cluster_bits + q->l2_bits));
}

/* Offset in the table of the page with offset's entry. */
static uint64_t page_offset(const struct qcow2 *q, uint64_t offset)
{
	uint64_t index = (offset >> q->cluster_bits) & (BIT(q->l2_bits) - 1);

	return align_down(index * q->entry_bytes, q->page_bytes);
}

/* *table: 0 where there is none. */
static int l2_table(struct qcow2 *q, uint64_t offset, uint64_t *table)
{
	uint32_t i = l1_index(q, offset);

	*table = i < q->h.l1_size ? q->l1[i] & QCOW2_OFFSET_MASK : 0;
	return *table & (q->cluster_bytes - 1) ? -EIO : 0;
}

int qcow2_l2_get(struct qcow2 *q, uint64_t offset, struct qcow2_page **out)
{
	for (;;) {
		uint64_t table, again;
		unsigned gen;
		int r = l2_table(q, offset, &table);

		*out = NULL;
		if (r < 0 || !table)
			return r;
		/* While it loads, the table may be replaced; freed it is not. */
		gen = qcow2_io_enter(q);
		r = qcow2_page_get(&q->l2, table + page_offset(q, offset), out);
		qcow2_io_leave(q, gen);
		if (r < 0 || (l2_table(q, offset, &again) == 0 && again == table))
			return r;
		qcow2_page_put(*out);
	}
}

static int new_table(struct qcow2 *q, uint64_t *table, bool *virgin)
{
	uint64_t got;
	int r = qcow2_alloc(q, 1, table, &got, virgin);

	if (r == 0) {
		qcow2_cache_forget(&q->l2, *table, q->cluster_bytes);
		qcow2_cache_forget(&q->rb, *table, q->cluster_bytes);
	}
	return r;
}

/* An empty table where there was none. */
static int make_table(struct qcow2 *q, uint64_t offset)
{
	uint64_t table;
	bool virgin;
	int r = new_table(q, &table, &virgin);

	if (r < 0)
		return r;
	if (!virgin)
		r = proto_zero(q->p, table, q->cluster_bytes, false);
	if (r == 0) {
		struct qcow2_page *p;

		r = qcow2_page_new(&q->l2, table + page_offset(q, offset), &p);
		if (r == 0)
			qcow2_page_put(p);
	}
	if (r < 0)
		qcow2_free_now(q, table, q->cluster_bytes);
	else
		qcow2_l1_set(q, l1_index(q, offset), table | QCOW2_COPIED);
	return r;
}

static int copy_bytes(struct qcow2 *q, uint64_t from, uint8_t *to)
{
	int r = 0;

	for (uint64_t at = 0; r == 0 && at < q->cluster_bytes; at += q->page_bytes) {
		struct qcow2_page *p;

		r = qcow2_page_get(&q->l2, from + at, &p);
		if (r < 0)
			break;
		memcpy(to + at, p->bytes, q->page_bytes);
		qcow2_page_put(p);
	}
	return r;
}

/* A copy of our own of a table that a snapshot has too. Its entries are counted once for each
 * L1 table already. */
static int copy_table(struct qcow2 *q, uint64_t offset, uint64_t old)
{
	uint8_t *bytes = malloc(q->cluster_bytes);
	uint64_t table;
	bool virgin;
	int r;

	if (!bytes)
		return -ENOMEM;
	r = copy_bytes(q, old, bytes);
	if (r == 0)
		r = new_table(q, &table, &virgin);
	if (r == 0) {
		r = proto_write(q->p, table, bytes, q->cluster_bytes);
		if (r < 0)
			qcow2_free_now(q, table, q->cluster_bytes);
	}
	free(bytes);
	if (r < 0)
		return r;
	qcow2_l1_set(q, l1_index(q, offset), table | QCOW2_COPIED);
	qcow2_free_later(q, old, q->cluster_bytes, true, false);
	return 0;
}

int qcow2_l2_get_own(struct qcow2 *q, uint64_t offset, struct qcow2_page **out)
{
	uint64_t table;
	int r = l2_table(q, offset, &table);

	if (r < 0 || l1_index(q, offset) >= q->h.l1_size)
		return qcow2_corrupt(q);
	if (!table)
		r = make_table(q, offset);
	else if (!(q->l1[l1_index(q, offset)] & QCOW2_COPIED))
		r = copy_table(q, offset, table);
	else if (qcow2_overlaps_fixed(q, table, q->cluster_bytes))
		return qcow2_corrupt(q);
	if (r < 0)
		return r;
	table = q->l1[l1_index(q, offset)] & QCOW2_OFFSET_MASK;
	return qcow2_page_get(&q->l2, table + page_offset(q, offset), out);
}

/* --- lookup --- */

/* How many subclusters from sub on are like it. */
static unsigned sub_run(const struct qcow2 *q, struct qcow2_entry entry, unsigned sub)
{
	const enum qcow2_kind kind = qcow2_entry_kind(q, entry, sub);
	uint32_t same, data = (uint32_t)entry.bitmap, zero = (uint32_t)(entry.bitmap >> 32);

	if (!q->extended || kind == QCOW2_PACKED)
		return q->extended ? SUBCLUSTERS - sub : 1;
	same = kind == QCOW2_DATA ? data : kind == QCOW2_ZEROS ? zero : ~(data | zero);
	same = ~(same >> sub);
	return same ? (unsigned)__builtin_ctz(same) : SUBCLUSTERS - sub;
}

static uint64_t host_of(const struct qcow2 *q, struct qcow2_entry entry)
{
	return entry.l2 & QCOW2_COMPRESSED ? entry.l2 : entry.l2 & QCOW2_OFFSET_MASK;
}

/* Is the cluster of entry, from its start on, more of x? */
static bool goes_on(const struct qcow2 *q, struct qcow2_entry entry, const struct qcow2_extent *x)
{
	if (x->kind == QCOW2_PACKED || qcow2_entry_kind(q, entry, 0) != x->kind ||
	    !!(entry.l2 & QCOW2_COPIED) != x->copied)
		return false;
	return x->host ? host_of(q, entry) == x->host + x->len : !host_of(q, entry);
}

static int look(struct qcow2 *q, const struct qcow2_page *p, uint64_t offset, uint64_t max,
		struct qcow2_extent *x)
{
	const uint64_t in = offset & (q->cluster_bytes - 1);
	unsigned i = qcow2_page_index(q, offset), sub = (unsigned)(in >> q->sub_bits), n;
	struct qcow2_entry entry = qcow2_entry_load(q, p, i);

	if (qcow2_entry_check(q, entry) < 0)
		return -EIO;
	x->kind = qcow2_entry_kind(q, entry, sub);
	x->copied = entry.l2 & QCOW2_COPIED;
	x->host = host_of(q, entry);
	if (x->host && x->kind != QCOW2_PACKED)
		x->host += in;
	n = sub_run(q, entry, sub);
	x->len = ((uint64_t)(sub + n) << q->sub_bits) - in;
	while (x->len < max && ((offset + x->len) & (q->cluster_bytes - 1)) == 0 &&
	       ++i < qcow2_page_entries(q)) {
		entry = qcow2_entry_load(q, p, i);
		if (qcow2_entry_check(q, entry) < 0 || !goes_on(q, entry, x))
			break;
		x->len += (uint64_t)sub_run(q, entry, 0) << q->sub_bits;
	}
	x->len = min_u64(x->len, max);
	return 0;
}

int qcow2_lookup(struct qcow2 *q, uint64_t offset, uint64_t max, struct qcow2_extent *x)
{
	const uint64_t covers = BIT(q->cluster_bits + q->l2_bits);
	struct qcow2_page *p;
	int r = qcow2_l2_get(q, offset, &p);

	if (r < 0)
		return r;
	if (p) {
		r = look(q, p, offset, max, x);
		qcow2_page_put(p);
		return r;
	}
	*x = (struct qcow2_extent){.kind = QCOW2_ABSENT,
				   .len = min_u64(max, covers - (offset & (covers - 1)))};
	return 0;
}
