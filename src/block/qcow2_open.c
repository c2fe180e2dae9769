/* qcow2_open: an image opened and closed, what is known about it, and the marks in its header
 * that say it is in use or broken. Opening for writing changes nothing on the disk; the first
 * write does (qcow2_begin_write). */
#include <errno.h>
#include <stdlib.h>

#include "block/qcow2_priv.h"

#define DEFAULT_METADATA_BYTES MIB(4)

/* --- marks --- */

int qcow2_header_update(struct qcow2 *q, unsigned at, const void *bytes, size_t len)
{
	return proto_write(q->p, at, bytes, len);
}

/* Where L1 and the refcount table are, as memory has it. */
static int write_table_fields(struct qcow2 *q)
{
	uint8_t field[24];
	int r;

	store_be32(field, q->h.l1_size);
	store_be64(field + 4, q->h.l1_offset);
	store_be64(field + 12, q->h.rt_offset);
	store_be32(field + 20, q->h.rt_clusters);
	r = qcow2_header_update(q, QCOW2_AT_L1, field, sizeof field);
	return r == 0 ? proto_flush(q->p) : r;
}

int qcow2_header_settle(struct qcow2 *q)
{
	int r = 0;

	if (!q->header_unsure)
		return 0;
	coro_lock(q->coros, &q->header_lock);
	if (q->header_unsure) {
		r = qcow2_refcount_rewrite(q);
		if (r == 0)
			r = write_table_fields(q);
		q->header_unsure = r < 0;
	}
	coro_unlock(q->coros, &q->header_lock);
	return r;
}

int qcow2_header_switch(struct qcow2 *q, unsigned at, const void *bytes, size_t len)
{
	int r;

	coro_lock(q->coros, &q->header_lock);
	r = qcow2_header_update(q, at, bytes, len);
	if (r == 0)
		r = proto_flush(q->p);
	if (r < 0 && write_table_fields(q) < 0) /* it may be there all the same */
		q->header_unsure = true;
	coro_unlock(q->coros, &q->header_lock);
	return r;
}

static int write_incompatible(struct qcow2 *q, uint64_t bits)
{
	uint8_t field[8];

	store_be64(field, bits);
	return qcow2_header_update(q, QCOW2_AT_INCOMPATIBLE, field, sizeof field);
}

int qcow2_corrupt(struct qcow2 *q)
{
	if (q->read_only)
		return -EIO;
	q->read_only = true; /* whatever was planned, not on top of this */
	if (q->h.version >= 3) {
		q->h.incompatible |= QCOW2_CORRUPT;
		if (write_incompatible(q, q->h.incompatible) == 0)
			(void)proto_flush(q->p);
	}
	return -EIO;
}

/* Bitmaps do not follow what is written from here, and what an unknown feature says may not
 * hold either: their bits go. With lazy refcounts the dirty bit comes. */
static int mark_begun(struct qcow2 *q)
{
	const bool lazy = q->h.compatible & QCOW2_LAZY && !(q->h.incompatible & QCOW2_DIRTY);
	uint8_t zero[8] = {0};
	int r = 0;

	if (q->h.autoclear)
		r = qcow2_header_update(q, QCOW2_AT_AUTOCLEAR, zero, sizeof zero);
	if (r == 0 && lazy)
		r = write_incompatible(q, q->h.incompatible | QCOW2_DIRTY);
	if (r == 0 && (q->h.autoclear || lazy))
		r = proto_flush(q->p);
	if (r < 0)
		return r;
	q->h.autoclear = 0;
	if (lazy)
		q->h.incompatible |= QCOW2_DIRTY;
	q->write_begun = true;
	return 0;
}

int qcow2_begin_write(struct qcow2 *q)
{
	int r;

	if (q->read_only)
		return q->b->opts.read_only ? -EROFS : -EIO;
	if (q->write_begun)
		return 0;
	if (q->h.version < 3) {
		q->write_begun = true;
		return 0;
	}
	coro_lock(q->coros, &q->lock);
	r = q->write_begun ? 0 : mark_begun(q);
	coro_unlock(q->coros, &q->lock);
	return r;
}

/* --- open --- */

int qcow2_table_read(struct qcow2 *q, uint64_t offset, uint32_t entries, uint64_t **out,
		     struct err *e)
{
	const size_t bytes = align_up((uint64_t)entries * 8, 512);
	uint64_t *table = malloc(bytes + 512);
	int r;

	if (!table)
		return err_set(e, ENOMEM, "a table of %u entries", entries);
	r = bytes ? proto_read(q->p, offset, table, bytes) : 0;
	if (r < 0) {
		free(table);
		return err_sys(e, -r, "read a table");
	}
	for (size_t i = 0; i < bytes / 8; i++)
		table[i] = load_be64(&table[i]);
	*out = table;
	return 0;
}

static int open_header(struct qcow2 *q, struct err *e)
{
	struct block *b = q->b;
	size_t len = (size_t)min_u64(b->proto->size, BIT(QCOW2_MAX_CLUSTER_BITS));
	uint8_t *bytes;
	int r;

	bytes = malloc(max_u64(len, 512));
	if (!bytes)
		return err_set(e, ENOMEM, "header");
	r = proto_read(b->proto, 0, bytes, min_u64(len, KIB(4)));
	if (r < 0)
		err_sys(e, -r, "read the header");
	else
		r = qcow2_header_parse(&q->h, bytes, min_u64(len, KIB(4)), e);
	if (r == 0 && (len = min_u64(len, BIT(q->h.cluster_bits))) > KIB(4) &&
	    (r = proto_read(b->proto, 0, bytes, len)) < 0)
		err_sys(e, -r, "read the header");
	if (r == 0)
		r = qcow2_extensions_parse(&q->h, bytes, len, &b->backing_format, e);
	if (r == 0 && q->h.backing_offset + q->h.backing_len > len)
		r = err_set(e, EINVAL, "the backing file's name is behind the end of the file");
	if (r == 0 && q->h.backing_len) {
		b->backing_file = strndup((char *)bytes + q->h.backing_offset, q->h.backing_len);
		if (!b->backing_file)
			r = err_set(e, ENOMEM, "backing file");
	}
	free(bytes);
	return r;
}

static void set_geometry(struct qcow2 *q)
{
	q->cluster_bits = q->h.cluster_bits;
	q->cluster_bytes = BIT(q->cluster_bits);
	q->page_bytes = min_u64(q->cluster_bytes, QCOW2_PAGE_BYTES);
	q->extended = q->h.incompatible & QCOW2_EXTENDED_L2;
	q->entry_bytes = q->extended ? 16 : 8;
	q->l2_bits = q->cluster_bits - (q->extended ? 4 : 3);
	q->sub_bits = q->cluster_bits - (q->extended ? 5 : 0);
	q->virgin = q->p->growable ? align_up(q->p->size, q->cluster_bytes) : UINT64_MAX;
	q->used_end = q->p->size;
}

static int open_tables(struct qcow2 *q, struct err *e)
{
	const uint64_t rt_bytes = (uint64_t)q->h.rt_clusters << q->cluster_bits;
	uint64_t bound = q->b->opts.metadata_bytes;
	int r;

	bound = bound ? bound : DEFAULT_METADATA_BYTES;
	r = qcow2_table_read(q, q->h.l1_offset, q->h.l1_size, &q->l1, e);
	if (r < 0)
		return err_wrap(e, "L1 table");
	r = qcow2_table_read(q, q->h.rt_offset, (uint32_t)(rt_bytes / 8), &q->rt, e);
	if (r < 0)
		return err_wrap(e, "refcount table");
	q->rt_entries = (uint32_t)(rt_bytes / 8);
	q->l1_dirty = calloc(1, q->h.l1_size / 64 + 1);
	if (!q->l1_dirty ||
	    qcow2_cache_init(&q->l2, q, q->page_bytes, bound - bound / 4, true) < 0 ||
	    qcow2_cache_init(&q->rb, q, q->page_bytes, bound / 4, false) < 0)
		return err_set(e, ENOMEM, "metadata cache");
	return 0;
}

/* Marks that tell of an unclean end or of damage. */
static int check_marks(struct qcow2 *q, struct err *e)
{
	struct qcow2_check found = {0};
	int r;

	if (q->read_only || q->b->opts.repair_later)
		return 0;
	if (q->h.incompatible & QCOW2_CORRUPT)
		return err_set(e, EROFS,
			       "the image is marked corrupt: read it, or repair it "
			       "('holon disk check -r all')");
	if (!q->h.rt_clusters)
		return err_set(e, EINVAL, "there is no refcount table");
	if (!(q->h.incompatible & QCOW2_DIRTY))
		return 0;
	r = qcow2_check_run(q, QCOW2_FIX_ALL, &found, e);
	if (r == 0 && (found.corruptions || found.check_errors))
		r = err_set(e, EIO, "not closed cleanly, and it could not be repaired");
	return r;
}

static void state_free(struct qcow2 *q)
{
	qcow2_cache_done(&q->l2);
	qcow2_cache_done(&q->rb);
	qcow2_snapshots_free(q);
	free(q->pending.run);
	free(q->closing.run);
	free(q->ready.run);
	free(q->l1);
	free(q->l1_dirty);
	free(q->rt);
	free(q->unpacked);
	free(q);
}

static int open_state(struct qcow2 *q, struct err *e)
{
	int r = open_header(q, e);

	if (r < 0)
		return r;
	set_geometry(q);
	r = open_tables(q, e);
	if (r == 0)
		r = qcow2_snapshots_load(q, e);
	if (r == 0 && q->b->opts.snapshot)
		r = qcow2_snapshot_select(q, q->b->opts.snapshot, e);
	if (r == 0)
		r = check_marks(q, e);
	return r;
}

static int qcow2_open(struct block *b, struct err *e)
{
	struct qcow2 *q = calloc(1, sizeof *q);
	int r;

	if (!q)
		return err_set(e, ENOMEM, "qcow2");
	q->b = b;
	q->p = b->proto;
	q->coros = block_coros(b->ctx);
	q->read_only = b->opts.read_only;
	b->state = q;
	r = open_state(q, e);
	if (r < 0) {
		state_free(q);
		b->state = NULL;
		return r;
	}
	b->size = q->h.size;
	return 0;
}

/* --- close --- */

/* Free clusters at the end of the file are cut off. */
static void find_end(struct qcow2 *q)
{
	uint64_t n = 0;

	if (!q->write_begun || q->h.incompatible & (QCOW2_DIRTY | QCOW2_CORRUPT))
		return;
	q->used_end = align_up(q->used_end, q->cluster_bytes);
	while (q->used_end > q->cluster_bytes &&
	       qcow2_refcount_get(q, (q->used_end >> q->cluster_bits) - 1, &n) == 0 && n == 0)
		q->used_end -= q->cluster_bytes;
}

/* All that is dirty back, what is to be freed freed, and the file ends where its clusters do. */
static int write_back(struct qcow2 *q)
{
	int r = qcow2_checkpoint(q);

	if (r == 0)
		r = qcow2_reclaim(q);
	if (r == 0)
		r = qcow2_cache_write(&q->rb);
	if (r == 0)
		find_end(q);
	if (r == 0 && q->p->growable && q->used_end < q->p->size && q->p->ops->truncate)
		(void)q->p->ops->truncate(q->p, q->used_end);
	if (r == 0 && q->write_begun)
		r = proto_flush(q->p);
	if (r == 0 && q->h.incompatible & QCOW2_DIRTY && !q->b->opts.repair_later) {
		r = write_incompatible(q, q->h.incompatible & ~QCOW2_DIRTY);
		if (r == 0)
			r = proto_flush(q->p);
	}
	return r;
}

static int qcow2_close(struct block *b, struct err *e)
{
	struct qcow2 *q = qcow2_of(b);
	int r = 0;

	if (!q->read_only)
		r = write_back(q);
	else if (!b->opts.read_only)
		r = -EIO;
	if (r < 0)
		err_sys(e, -r, "write metadata back");
	while (q->reclaiming)
		coro_queue_wait(q->coros, &q->reclaim_waiters);
	state_free(q);
	b->state = NULL;
	return r;
}

int qcow2_get_info(struct block *b, struct qcow2_info *out)
{
	struct qcow2 *q = qcow2_of(b);

	if (b->driver != &qcow2_driver)
		return -EINVAL;
	*out = (struct qcow2_info){
		.version = q->h.version,
		.refcount_bits = 1u << q->h.refcount_order,
		.cluster_bytes = q->cluster_bytes,
		.file_bytes = q->p->size,
		.lazy_refcounts = q->h.compatible & QCOW2_LAZY,
		.extended_l2 = q->extended,
		.zstd = q->h.compression_type == 1,
		.dirty = q->h.incompatible & QCOW2_DIRTY,
		.corrupt = q->h.incompatible & QCOW2_CORRUPT,
		.bitmaps = q->h.bitmaps_bytes,
		.snapshot_count = q->h.snapshot_count,
		.snapshots = q->snapshots,
	};
	return 0;
}

const struct block_driver qcow2_driver = {
	.name = "qcow2",
	.probe = qcow2_probe,
	.create = qcow2_create,
	.open = qcow2_open,
	.readv = qcow2_readv,
	.writev = qcow2_writev,
	.flush = qcow2_flush,
	.zero = qcow2_zero,
	.discard = qcow2_discard,
	.map = qcow2_map,
	.resize = qcow2_resize,
	.close = qcow2_close,
};
