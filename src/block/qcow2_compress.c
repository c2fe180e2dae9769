/* qcow2_compress: compressed clusters, by zlib (raw deflate with a window of 4 KiB, as the
 * format has it) or zstd. The work is done on a worker thread. The cluster that was
 * decompressed last is kept: small reads in a row want the same. */
#include <errno.h>
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>

#include "block/qcow2_priv.h"

#define DEFLATE_WINDOW_BITS (-12)

struct work {
	bool zstd;
	const uint8_t *from;
	uint8_t *to;
	size_t from_len, to_len; /* to_len: room, and what came out */
};

static int inflate_zlib(struct work *w)
{
	z_stream s = {.next_in = (uint8_t *)w->from,
		      .avail_in = (uInt)w->from_len,
		      .next_out = w->to,
		      .avail_out = (uInt)w->to_len};
	int r;

	if (inflateInit2(&s, -MAX_WBITS) != Z_OK)
		return -ENOMEM;
	r = inflate(&s, Z_FINISH);
	inflateEnd(&s);
	/* A frame may be followed by the rest of its sector. */
	return (r == Z_STREAM_END || r == Z_BUF_ERROR || r == Z_OK) && !s.avail_out ? 0 : -EIO;
}

static int inflate_zstd(struct work *w)
{
	ZSTD_DCtx *d = ZSTD_createDCtx();
	ZSTD_inBuffer in = {w->from, w->from_len, 0};
	ZSTD_outBuffer out = {w->to, w->to_len, 0};
	size_t r = 0;

	if (!d)
		return -ENOMEM;
	while (out.pos < out.size) {
		size_t in_before = in.pos, out_before = out.pos;

		r = ZSTD_decompressStream(d, &out, &in);
		if (ZSTD_isError(r) || (in.pos == in_before && out.pos == out_before))
			break;
	}
	ZSTD_freeDCtx(d);
	return out.pos == out.size && !ZSTD_isError(r) ? 0 : -EIO;
}

static int unpack(void *arg)
{
	struct work *w = arg;

	return w->zstd ? inflate_zstd(w) : inflate_zlib(w);
}

static int deflate_zlib(struct work *w)
{
	z_stream s = {.next_in = (uint8_t *)w->from,
		      .avail_in = (uInt)w->from_len,
		      .next_out = w->to,
		      .avail_out = (uInt)w->to_len};
	int r;

	if (deflateInit2(&s, Z_DEFAULT_COMPRESSION, Z_DEFLATED, DEFLATE_WINDOW_BITS, 9,
			 Z_DEFAULT_STRATEGY) != Z_OK)
		return -ENOMEM;
	r = deflate(&s, Z_FINISH);
	w->to_len = s.total_out;
	deflateEnd(&s);
	return r == Z_STREAM_END ? 0 : -ENOSPC;
}

/* -ENOSPC: it does not get smaller. */
static int pack(void *arg)
{
	struct work *w = arg;
	size_t n;

	if (!w->zstd)
		return deflate_zlib(w);
	n = ZSTD_compress(w->to, w->to_len, w->from, w->from_len, ZSTD_CLEVEL_DEFAULT);
	if (ZSTD_isError(n))
		return -ENOSPC;
	w->to_len = n;
	return 0;
}

/* --- reading --- */

/* The whole cluster that the entry names, decompressed into to. */
static int read_cluster(struct qcow2 *q, uint64_t l2, uint8_t *to)
{
	const struct qcow2_run run = qcow2_packed_run(q, l2);
	uint8_t *packed = malloc(run.len);
	struct work w = {.zstd = q->h.compression_type == 1,
			 .from = packed,
			 .from_len = run.len,
			 .to = to,
			 .to_len = q->cluster_bytes};
	int r;

	if (!packed)
		return -ENOMEM;
	r = proto_read(q->p, run.offset, packed, run.len);
	if (r == 0)
		r = block_offload(q->b->ctx, unpack, &w);
	free(packed);
	return r;
}

int qcow2_read_packed(struct qcow2 *q, uint64_t l2, uint64_t skip, const struct iovec *iov,
		      unsigned n, uint64_t len)
{
	const uint64_t epoch = q->unpack_epoch;
	uint8_t *bytes;
	int r;

	if (skip + len > q->cluster_bytes)
		return -EIO;
	if (q->unpacked_entry == l2) {
		iov_fill(iov, n, 0, q->unpacked + skip, len);
		return 0;
	}
	bytes = malloc(q->cluster_bytes);
	if (!bytes)
		return -ENOMEM;
	r = read_cluster(q, l2, bytes);
	if (r == 0)
		iov_fill(iov, n, 0, bytes + skip, len);
	if (r == 0 && epoch == q->unpack_epoch) {
		free(q->unpacked);
		q->unpacked = bytes;
		q->unpacked_entry = l2;
	} else {
		free(bytes);
	}
	return r;
}

/* --- writing --- */

struct packed_write {
	struct block *b;
	uint64_t offset, len;
	const void *from;
};

static int link_packed(struct qcow2 *q, uint64_t offset, uint64_t at, uint64_t len)
{
	const unsigned x = 62 - (q->cluster_bits - 8), index = qcow2_page_index(q, offset);
	const uint64_t sectors = ((at + len - 1) >> 9) - (at >> 9);
	struct qcow2_page *p;
	int r = qcow2_l2_get_own(q, offset, &p);

	if (r < 0)
		return r;
	qcow2_entry_drop(q, qcow2_entry_load(q, p, index));
	qcow2_entry_store(q, p, index,
			  (struct qcow2_entry){.l2 = QCOW2_COMPRESSED | sectors << x | at});
	q->order = true;
	qcow2_page_put(p);
	return 0;
}

/* Gives a packed cluster's space back that was never linked. */
static void unpack_alloc(struct qcow2 *q, uint64_t at, uint64_t len)
{
	uint64_t first = align_down(at, q->cluster_bytes);

	q->packed_at = 0;
	qcow2_free_now(q, first, align_up(at + len, q->cluster_bytes) - first);
}

static int store_packed(struct qcow2 *q, uint64_t offset, const uint8_t *bytes, uint64_t len)
{
	const unsigned x = 62 - (q->cluster_bits - 8);
	uint64_t end = offset + q->cluster_bytes, at;
	struct qcow2_flight f;
	int r;

	qcow2_lock_range(q, offset, &end);
	r = q->read_only ? -EIO : qcow2_alloc_bytes(q, len, &at);
	if (r == 0)
		qcow2_flight_begin(q, &f, offset, end);
	coro_unlock(q->coros, &q->lock);
	if (r < 0)
		return r;
	r = at + len > BIT(x) ? -EFBIG : proto_write(q->p, at, bytes, len);
	coro_lock(q->coros, &q->lock);
	if (r == 0)
		r = q->read_only ? -EIO : link_packed(q, offset, at, len);
	if (r < 0)
		unpack_alloc(q, at, len);
	qcow2_flight_end(q, &f);
	coro_unlock(q->coros, &q->lock);
	return r;
}

static int write_packed(struct qcow2 *q, uint64_t offset, const void *from, uint64_t len)
{
	uint8_t *whole = calloc(1, q->cluster_bytes), *packed = malloc(q->cluster_bytes);
	struct work w = {.zstd = q->h.compression_type == 1,
			 .from = whole,
			 .from_len = q->cluster_bytes,
			 .to = packed,
			 .to_len = q->cluster_bytes - 1};
	struct iovec iov = {whole, len};
	int r = whole && packed ? qcow2_begin_write(q) : -ENOMEM;

	if (r == 0) {
		memcpy(whole, from, len);
		r = block_offload(q->b->ctx, pack, &w);
		if (r == 0)
			r = store_packed(q, offset, packed, w.to_len);
		else if (r == -ENOSPC)
			r = qcow2_writev(q->b, offset, &iov, 1, len);
	}
	free(whole);
	free(packed);
	return r == 0 ? qcow2_free_pressure(q) : r;
}

int qcow2_write_compressed_in_coro(struct block *b, uint64_t offset, const void *from, uint64_t len)
{
	return write_packed(qcow2_of(b), offset, from, len);
}

static int run_packed_write(void *arg)
{
	struct packed_write *w = arg;

	return qcow2_write_compressed_in_coro(w->b, w->offset, w->from, w->len);
}

int qcow2_write_compressed(struct block *b, uint64_t offset, const void *from, uint64_t len)
{
	struct packed_write w = {b, offset, len, from};
	uint64_t cluster;

	if (b->driver != &qcow2_driver)
		return -EINVAL;
	cluster = qcow2_of(b)->cluster_bytes;
	if (offset % cluster || offset >= b->size || len != min_u64(cluster, b->size - offset))
		return -EINVAL;
	return block_run(b->ctx, run_packed_write, &w);
}
