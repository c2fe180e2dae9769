/* qcow2_resize: another size of the disk, and clusters ahead of their use. Nothing else is in
 * flight meanwhile. The size in the header changes last when what is behind it must be made
 * to read as zeros first; a larger L1 table is on the disk before the header names it. */
#include <errno.h>
#include <stdlib.h>

#include "block/qcow2_priv.h"

static int write_l1(struct qcow2 *q, uint64_t offset, const uint64_t *l1, uint32_t size,
		    uint64_t bytes)
{
	uint8_t *out = calloc(1, bytes);
	int r;

	if (!out)
		return -ENOMEM;
	for (uint32_t i = 0; i < size; i++)
		store_be64(out + 8ul * i, l1[i]);
	r = proto_write(q->p, offset, out, bytes);
	free(out);
	return r;
}

static int switch_l1(struct qcow2 *q, uint64_t offset, uint32_t size)
{
	uint8_t field[12];

	store_be32(field, size);
	store_be64(field + 4, offset);
	return qcow2_header_switch(q, QCOW2_AT_L1, field, sizeof field);
}

/* Under q->lock, after a checkpoint: nothing of L1 is dirty. */
static int grow_l1(struct qcow2 *q, uint32_t size)
{
	const uint64_t bytes = align_up(size * 8ull, q->cluster_bytes);
	const uint64_t old_offset = q->h.l1_offset, old_size = q->h.l1_size;
	uint64_t *l1 = calloc(1, bytes), offset;
	uint8_t *dirty = calloc(1, size / 64 + 1);
	int r = l1 && dirty ? qcow2_alloc_exact(q, bytes >> q->cluster_bits, &offset) : -ENOMEM;

	if (r == 0) {
		memcpy(l1, q->l1, old_size * 8);
		r = write_l1(q, offset, l1, size, bytes);
		if (r == 0)
			r = qcow2_cache_write(&q->rb);
		if (r == 0)
			r = proto_flush(q->p);
		if (r == 0)
			r = switch_l1(q, offset, size);
		if (r < 0 && !q->header_unsure)
			qcow2_free_now(q, offset, bytes);
	}
	if (r < 0) {
		free(l1);
		free(dirty);
		return r;
	}
	free(q->l1);
	free(q->l1_dirty);
	q->l1 = l1;
	q->l1_dirty = dirty;
	q->h.l1_offset = offset;
	q->h.l1_size = size;
	qcow2_free_now(q, old_offset, align_up(old_size * 8, q->cluster_bytes));
	return 0;
}

static int write_size(struct qcow2 *q, uint64_t size)
{
	uint8_t field[8];
	int r = qcow2_checkpoint(q);

	store_be64(field, size);
	if (r == 0)
		r = qcow2_header_update(q, QCOW2_AT_SIZE, field, sizeof field);
	return r == 0 ? proto_flush(q->p) : r;
}

static void set_size(struct qcow2 *q, uint64_t size)
{
	q->h.size = size;
	q->b->size = size;
}

static int grow(struct qcow2 *q, uint64_t size, enum block_prealloc how)
{
	const uint64_t old = q->h.size, covers = BIT(q->cluster_bits + q->l2_bits);
	const uint64_t l1_size = size / covers + !!(size % covers);
	uint64_t zero_to = q->b->backing ? min_u64(size, q->b->backing->size) : 0;
	int r = qcow2_checkpoint(q);

	if (l1_size * 8 > QCOW2_MAX_L1_BYTES)
		return -EFBIG;
	if (r == 0 && l1_size > q->h.l1_size) {
		coro_lock(q->coros, &q->lock);
		r = grow_l1(q, (uint32_t)l1_size);
		coro_unlock(q->coros, &q->lock);
	}
	if (r < 0)
		return r;
	set_size(q, size);
	/* The backing image's bytes were out of sight before. */
	if (zero_to > old)
		r = qcow2_zero(q->b, old, zero_to - old, true);
	if (r == 0 && how != BLOCK_PREALLOC_OFF)
		r = qcow2_preallocate(q, old, size - old, how);
	if (r == 0)
		r = write_size(q, size);
	if (r < 0)
		set_size(q, old);
	return r;
}

static int shrink(struct qcow2 *q, uint64_t size)
{
	int r = qcow2_zero(q->b, size, q->h.size - size, true);

	if (r == 0)
		r = write_size(q, size);
	if (r == 0)
		set_size(q, size);
	return r;
}

int qcow2_resize(struct block *b, uint64_t size, enum block_prealloc prealloc, struct err *e)
{
	struct qcow2 *q = qcow2_of(b);
	int r;

	if (size > INT64_MAX - 512)
		return err_set(e, EFBIG, "the disk would be too large");
	size = align_up(size, 512);
	if (size == q->h.size)
		return 0;
	if (q->h.snapshot_count && q->h.version < 3)
		return err_set(e, ENOTSUP, "version 2 images with snapshots keep their size");
	if (q->h.bitmaps_bytes && q->h.autoclear & QCOW2_BITMAPS)
		return err_set(e, ENOTSUP, "the image has bitmaps, which would not fit any more");
	r = qcow2_begin_write(q);
	if (r == 0)
		r = size > q->h.size ? grow(q, size, prealloc) : shrink(q, size);
	return r < 0 ? err_sys(e, -r, "resize") : 0;
}

/* --- preallocation --- */

static int fill(struct qcow2 *q, uint64_t host, uint64_t len, bool virgin, enum block_prealloc how)
{
	int r = 0;

	if (how == BLOCK_PREALLOC_FULL) {
		for (uint64_t at = 0; r == 0 && at < len;) {
			uint64_t now = min_u64(len - at, BLOCK_ZEROS_BYTES);

			r = proto_write(q->p, host + at, block_zeros(q->b->ctx), now);
			at += now;
		}
		return r;
	}
	if (!virgin)
		r = proto_zero(q->p, host, len, false);
	if (r == 0 && how == BLOCK_PREALLOC_FALLOC && q->p->ops->allocate)
		r = q->p->ops->allocate(q->p, host, len);
	return r == -ENOTSUP ? 0 : r;
}

/* Clusters for absent entries of the page, from index on. Under q->lock. */
static int fill_page(struct qcow2 *q, struct qcow2_page *p, unsigned index, uint64_t count,
		     enum block_prealloc how)
{
	const unsigned end = index + (unsigned)count;
	int r = 0;

	while (r == 0 && index < end) {
		uint64_t want = 0, host, got;
		bool virgin;

		while (index + want < end && !qcow2_entry_load(q, p, index + (unsigned)want).l2)
			want++;
		if (!want) {
			index++;
			continue;
		}
		r = qcow2_alloc(q, want, &host, &got, &virgin);
		if (r < 0)
			break;
		r = fill(q, host, got << q->cluster_bits, virgin, how);
		if (r < 0)
			qcow2_free_now(q, host, got << q->cluster_bits);
		for (uint64_t i = 0; r == 0 && i < got; i++)
			qcow2_entry_store(
				q, p, index++,
				(struct qcow2_entry){
					.l2 = (host + (i << q->cluster_bits)) | QCOW2_COPIED,
					.bitmap = q->extended ? UINT32_MAX : 0,
				});
		q->order = true;
	}
	return r;
}

int qcow2_preallocate(struct qcow2 *q, uint64_t offset, uint64_t len, enum block_prealloc how)
{
	const uint64_t covers = (uint64_t)qcow2_page_entries(q) << q->cluster_bits;
	const uint64_t end = align_up(offset + len, q->cluster_bytes);
	uint64_t at = align_down(offset, q->cluster_bytes);
	int r = qcow2_begin_write(q);

	q->sparse = how == BLOCK_PREALLOC_METADATA;
	while (r == 0 && at < end) {
		uint64_t stop = min_u64(end, align_down(at, covers) + covers);
		struct qcow2_page *p;

		qcow2_lock_range(q, at, &stop);
		r = qcow2_l2_get_own(q, at, &p);
		if (r == 0) {
			r = fill_page(q, p, qcow2_page_index(q, at), (stop - at) >> q->cluster_bits,
				      how);
			qcow2_page_put(p);
		}
		coro_unlock(q->coros, &q->lock);
		at = stop;
	}
	q->sparse = false;
	return r;
}
