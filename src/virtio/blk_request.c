/* blk_request: what the driver asks for is copied out of its memory once, checked, and then
 * done; data goes to and from guest memory without a copy. The status byte is written after
 * all else, just before the chain is given back. */
#include "virtio/blk_priv.h"

#include <errno.h>
#include <string.h>

#define HEADER_BYTES 16u

struct header {
	uint32_t type;
	uint64_t sector;
};

/* The first len bytes of iov; returns how many there are. */
static uint64_t copy_out(const struct iovec *iov, unsigned n, void *to, uint64_t len)
{
	uint64_t done = 0;

	for (unsigned i = 0; i < n && done < len; i++) {
		uint64_t part = min_u64(iov[i].iov_len, len - done);

		memcpy((uint8_t *)to + done, iov[i].iov_base, part);
		done += part;
	}
	return done;
}

static void copy_in(const struct iovec *iov, unsigned n, const void *from, uint64_t len)
{
	uint64_t done = 0;

	for (unsigned i = 0; i < n && done < len; i++) {
		uint64_t part = min_u64(iov[i].iov_len, len - done);

		memcpy(iov[i].iov_base, (const uint8_t *)from + done, part);
		done += part;
	}
}

/* Takes the header off what the device reads; what follows becomes the request's data. */
static int take_header(struct blk_request *r, struct header *h)
{
	uint8_t bytes[HEADER_BYTES];
	struct iovec *iov = r->chain.iov;
	unsigned n = r->chain.out;
	uint64_t skip = HEADER_BYTES;

	if (copy_out(iov, n, bytes, sizeof bytes) < sizeof bytes)
		return -EBADMSG;
	h->type = (uint32_t)load_le(bytes, 4);
	h->sector = load_le(bytes + 8, 8);
	while (n && iov->iov_len <= skip) {
		skip -= iov->iov_len;
		iov++;
		n--;
	}
	if (n) {
		iov->iov_base = (uint8_t *)iov->iov_base + skip;
		iov->iov_len -= skip;
	}
	r->io.iov = iov;
	r->io.iov_count = n;
	r->io.len = r->chain.out_len - HEADER_BYTES;
	return 0;
}

/* Takes the status byte off the end of what the device writes, until blk_request_end. */
static int take_status(struct blk_request *r)
{
	struct iovec *last = &r->chain.iov[r->chain.out + r->chain.in - 1];

	if (!r->chain.in)
		return -EBADMSG;
	last->iov_len--;
	r->status = (uint8_t *)last->iov_base + last->iov_len;
	return 0;
}

/* How much of a chain the driver may take as written (2.7.8.2): of a failed request nothing, as
 * the status byte stands behind data that was not. */
static uint32_t written(const struct blk_request *r, uint8_t status)
{
	if (status == VIRTIO_BLK_S_OK || r->chain.in_len == 1)
		return (uint32_t)min_u64(r->chain.in_len, UINT32_MAX);
	return 0;
}

uint32_t blk_request_end(struct blk_request *r, uint8_t status)
{
	struct iovec *in = r->chain.iov + r->chain.out;
	uint32_t len = written(r, status);

	in[r->chain.in - 1].iov_len++;
	*r->status = status;
	if (!len) /* a part of the data may have come all the same */
		for (unsigned i = 0; i < r->chain.in; i++)
			mem_written(r->b->vd.env.mem, in[i].iov_base, in[i].iov_len);
	return len;
}

/* Bytes of the disk, from sectors that the driver named. */
static bool within(const struct virtio_blk *b, uint64_t sector, uint64_t len)
{
	uint64_t size = block_size(b->block);

	return sector <= size >> SECTOR_SHIFT && len <= size - (sector << SECTOR_SHIFT);
}

/* --- under way --- */

static bool is_no_space(int result)
{
	return result == -ENOSPC || result == -EDQUOT;
}

static uint8_t answer_to_failure(struct blk_request *r, int error)
{
	if (error == ENOTSUP)
		return VIRTIO_BLK_S_UNSUPP;
	if (r->b->failed)
		r->b->failed(r->b->ctx, r->io.op, error);
	return VIRTIO_BLK_S_IOERR;
}

static void part_done(struct block_req *io, int result)
{
	struct blk_request *r = container_of(io, struct blk_request, io);

	if (is_no_space(result))
		blk_no_space(r);
	else if (result < 0)
		blk_finished(r, answer_to_failure(r, -result));
	else if (++r->range < r->ranges)
		blk_request_run(r);
	else
		blk_finished(r, VIRTIO_BLK_S_OK);
}

/* Shorter pieces gain nothing. */
#define LARGE_PIECE KIB(32)

static void want_huge(struct blk_request *r)
{
	for (unsigned i = 0; i < r->io.iov_count; i++)
		if (r->io.iov[i].iov_len >= LARGE_PIECE)
			mem_want_huge(r->b->vd.env.mem, r->io.iov[i].iov_base,
				      r->io.iov[i].iov_len);
}

void blk_request_run(struct blk_request *r)
{
	if (r->ranges) {
		const struct blk_range *range = &r->ranges_of[r->range];

		r->io.offset = range->offset;
		r->io.len = range->len;
		r->io.flags = (r->io.flags & BLOCK_FUA) | (range->unmap ? BLOCK_UNMAP : 0);
	} else if (r->io.op == BLOCK_READ || r->io.op == BLOCK_WRITE)
		want_huge(r);
	r->io.done = part_done;
	block_submit(r->b->block, &r->io);
}

static bool write_through(struct virtio_blk *b)
{
	return !virtio_has(&b->vd, VIRTIO_BLK_F_FLUSH) ||
	       (virtio_has(&b->vd, VIRTIO_BLK_F_CONFIG_WCE) &&
		atomic_load_explicit(&b->write_through, memory_order_relaxed));
}

/* --- each type; they return an answer that can be given at once, or -1 --- */

static int begin_data(struct blk_request *r, const struct header *h)
{
	struct virtio_blk *b = r->b;
	bool write = h->type == VIRTIO_BLK_T_OUT;

	if (!write) {
		r->io.iov = r->chain.iov + r->chain.out;
		/* no piece is empty but the last, without the status */
		r->io.iov_count =
			r->chain.in - (r->chain.iov[r->chain.out + r->chain.in - 1].iov_len == 0);
		r->io.len = r->chain.in_len - 1;
	}
	if ((write && b->read_only) || r->io.len % SECTOR_BYTES || !within(b, h->sector, r->io.len))
		return VIRTIO_BLK_S_IOERR;
	if (!r->io.len)
		return VIRTIO_BLK_S_OK;
	r->io.op = write ? BLOCK_WRITE : BLOCK_READ;
	r->io.flags = write && write_through(b) ? BLOCK_FUA : 0;
	r->io.offset = h->sector << SECTOR_SHIFT;
	blk_request_run(r);
	return -1;
}

static int begin_flush(struct blk_request *r)
{
	r->io.op = BLOCK_FLUSH;
	r->io.flags = 0;
	r->io.offset = r->io.len = 0;
	r->io.iov_count = 0;
	blk_request_run(r);
	return -1;
}

static int get_id(struct blk_request *r)
{
	/* 20 bytes, with a zero at the end only where there is room for it (5.2.6.1) */
	copy_in(r->chain.iov + r->chain.out, r->chain.in, r->b->serial, BLK_SERIAL_MAX);
	return VIRTIO_BLK_S_OK;
}

/* One struct virtio_blk_discard_write_zeroes. Returns an answer, or -1: it is good. */
static int check_range(struct virtio_blk *b, const uint8_t *bytes, bool zeroes,
		       struct blk_range *out)
{
	uint64_t sector = load_le(bytes, 8), sectors = load_le(bytes + 8, 4);
	uint64_t flags = load_le(bytes + 12, 4);

	/* Discards know no flag at all (5.2.6.2). */
	if (flags & ~(uint64_t)(zeroes ? VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP : 0))
		return VIRTIO_BLK_S_UNSUPP;
	if (sectors > (zeroes ? ZEROES_SECTORS_MAX : DISCARD_SECTORS_MAX) ||
	    !within(b, sector, sectors << SECTOR_SHIFT))
		return VIRTIO_BLK_S_IOERR;
	out->offset = sector << SECTOR_SHIFT;
	out->len = sectors << SECTOR_SHIFT;
	out->unmap = flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
	return -1;
}

/* All ranges are checked before the first is touched. */
static int begin_ranges(struct blk_request *r, bool zeroes)
{
	struct virtio_blk *b = r->b;
	uint8_t bytes[RANGES_MAX * RANGE_BYTES];
	uint64_t feature = zeroes ? VIRTIO_BLK_F_WRITE_ZEROES : VIRTIO_BLK_F_DISCARD;
	uint64_t len = r->io.len;

	if (!virtio_has(&b->vd, feature))
		return VIRTIO_BLK_S_UNSUPP;
	if (b->read_only || len % RANGE_BYTES || len > sizeof bytes)
		return VIRTIO_BLK_S_IOERR;
	len = copy_out(r->io.iov, r->io.iov_count, bytes, len);
	r->ranges = 0;
	for (uint64_t at = 0; at < len; at += RANGE_BYTES) {
		struct blk_range *range = &r->ranges_of[r->ranges];
		int answer = check_range(b, bytes + at, zeroes, range);

		if (answer >= 0)
			return answer;
		if (range->len)
			r->ranges++;
	}
	if (!r->ranges)
		return VIRTIO_BLK_S_OK;
	r->io.op = zeroes ? BLOCK_ZERO : BLOCK_DISCARD;
	r->io.flags = zeroes && write_through(b) ? BLOCK_FUA : 0;
	r->io.iov_count = 0;
	blk_request_run(r);
	return -1;
}

int blk_request_begin(struct blk_request *r)
{
	struct header h;
	int answer = VIRTIO_BLK_S_UNSUPP;

	r->ranges = r->range = 0;
	r->retried = false;
	if (take_header(r, &h) < 0 || take_status(r) < 0)
		return -EBADMSG;
	switch (h.type) {
	case VIRTIO_BLK_T_IN:
	case VIRTIO_BLK_T_OUT: answer = begin_data(r, &h); break;
	case VIRTIO_BLK_T_FLUSH: answer = begin_flush(r); break;
	case VIRTIO_BLK_T_GET_ID: answer = get_id(r); break;
	case VIRTIO_BLK_T_DISCARD: answer = begin_ranges(r, false); break;
	case VIRTIO_BLK_T_WRITE_ZEROES: answer = begin_ranges(r, true); break;
	default: break;
	}
	if (answer >= 0)
		blk_finished(r, (uint8_t)answer);
	return 0;
}
