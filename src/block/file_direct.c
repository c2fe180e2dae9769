/* file_direct: O_DIRECT, which wants offset, lengths and memory aligned. What is aligned goes
 * straight down. The rest goes through an aligned buffer, piece by piece; a write that begins or
 * ends inside a block first reads that block. Such a write excludes all others from its blocks
 * while it runs (file_range), or one of the two would be lost. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "block/file_priv.h"

#define BOUNCE_BYTES MIB(1)
#define BOUNCE_ALIGN 4096

static bool aligned(const struct file *f, uint64_t offset, const struct iovec *iov, unsigned n)
{
	uint64_t lens = offset, bases = 0;

	for (unsigned i = 0; i < n; i++) {
		lens |= iov[i].iov_len;
		bases |= (uintptr_t)iov[i].iov_base;
	}
	return !(lens & (f->proto.align - 1)) && !(bases & (f->mem_align - 1));
}

static struct file_range *conflict(struct file *f, const struct file_range *r)
{
	struct file_range *other = NULL;

	if (r->exclusive || f->exclusive)
		other = f->ranges;
	while (other && !((r->exclusive || other->exclusive) && r->start < other->end &&
			  other->start < r->end))
		other = other->next;
	return other;
}

void file_range_enter(struct file *f, struct file_range *r)
{
	struct file_range *other;

	while ((other = conflict(f, r)))
		coro_queue_wait(block_coros(f->proto.ctx), &other->waiters);
	r->next = f->ranges;
	r->at = &f->ranges;
	if (r->next)
		r->next->at = &r->next;
	f->ranges = r;
	f->exclusive += r->exclusive;
}

void file_range_leave(struct file *f, struct file_range *r)
{
	*r->at = r->next;
	if (r->next)
		r->next->at = r->at;
	f->exclusive -= r->exclusive;
	coro_queue_wake_all(&r->waiters);
}

/* The piece of [pos, end) that goes through the buffer at once, in whole blocks. */
static uint64_t piece_end(const struct file *f, uint64_t pos, uint64_t end)
{
	return min_u64(end, align_down(pos, f->proto.align) + BOUNCE_BYTES);
}

static void *bounce_buffer(const struct file *f, uint64_t pos, uint64_t end)
{
	uint64_t len = align_up(end, f->proto.align) - align_down(pos, f->proto.align);
	void *buf;

	return posix_memalign(&buf, max_u64(BOUNCE_ALIGN, f->mem_align),
			      min_u64(len, BOUNCE_BYTES)) == 0
		       ? buf
		       : NULL;
}

static int read_blocks(struct file *f, uint64_t from, uint64_t to, void *buf)
{
	struct iovec iov = {buf, to - from};

	return from == to ? 0 : file_readv_all(f, from, &iov, 1);
}

int file_direct_readv(struct file *f, uint64_t offset, const struct iovec *iov, unsigned n)
{
	uint64_t end = offset + iov_sum(iov, n), next;
	AUTO_FREE char *buf = NULL;

	if (aligned(f, offset, iov, n))
		return file_readv_all(f, offset, iov, n);
	buf = bounce_buffer(f, offset, end);
	if (!buf)
		return -ENOMEM;
	for (uint64_t pos = offset; pos < end; pos = next) {
		uint64_t from = align_down(pos, f->proto.align);
		int r;

		next = piece_end(f, pos, end);
		r = read_blocks(f, from, align_up(next, f->proto.align), buf);
		if (r < 0)
			return r;
		iov_fill(iov, n, pos - offset, buf + (pos - from), next - pos);
	}
	return 0;
}

/* Reads the blocks that [pos, end) covers only in part. */
static int read_edges(struct file *f, uint64_t pos, uint64_t end, char *buf)
{
	unsigned align = f->proto.align;
	uint64_t from = align_down(pos, align), last = align_down(end, align);
	int r = 0;

	if (from < pos)
		r = read_blocks(f, from, from + align, buf);
	if (r == 0 && last < end && (last != from || from == pos))
		r = read_blocks(f, last, last + align, buf + (last - from));
	return r;
}

static int write_by_bounce(struct file *f, uint64_t offset, const struct iovec *iov, unsigned n,
			   char *buf)
{
	uint64_t end = offset + iov_sum(iov, n), next;

	for (uint64_t pos = offset; pos < end; pos = next) {
		uint64_t from = align_down(pos, f->proto.align);
		struct iovec blocks = {buf, 0};
		int r;

		next = piece_end(f, pos, end);
		blocks.iov_len = align_up(next, f->proto.align) - from;
		r = read_edges(f, pos, next, buf);
		if (r < 0)
			return r;
		iov_gather(iov, n, pos - offset, buf + (pos - from), next - pos);
		r = file_writev_all(f, from, &blocks, 1);
		if (r < 0)
			return r;
	}
	return 0;
}

static int write_unaligned(struct file *f, uint64_t offset, const struct iovec *iov, unsigned n)
{
	unsigned align = f->proto.align;
	uint64_t end = offset + iov_sum(iov, n), size;
	struct file_range r = {align_down(offset, align), align_up(end, align), true};
	AUTO_FREE char *buf = bounce_buffer(f, offset, end);
	int result;

	if (!buf)
		return -ENOMEM;
	/* Its last block may make the file longer than it shall be; nobody writes behind it
	 * until that is put right. */
	if (r.end > f->proto.size)
		r.end = UINT64_MAX;
	file_range_enter(f, &r);
	size = max_u64(f->proto.size, end);
	result = write_by_bounce(f, offset, iov, n, buf);
	if (f->proto.growable && align_up(end, align) > size) {
		int cut = file_truncate(f, size);

		result = result < 0 ? result : cut;
	}
	if (result == 0)
		f->proto.size = size;
	file_range_leave(f, &r);
	return result;
}

int file_direct_writev(struct file *f, uint64_t offset, const struct iovec *iov, unsigned n)
{
	struct file_range r = {offset, offset + iov_sum(iov, n)};
	int result;

	if (!aligned(f, offset, iov, n))
		return write_unaligned(f, offset, iov, n);
	file_range_enter(f, &r);
	result = file_writev_all(f, offset, iov, n);
	if (result == 0)
		f->proto.size = max_u64(f->proto.size, r.end);
	file_range_leave(f, &r);
	return result;
}

static bool takes(int fd, void *buf, unsigned len)
{
	return pread(fd, buf, len, 0) >= 0;
}

/* No news from the kernel: tries. */
static void probe_by_reading(struct file *f)
{
	AUTO_FREE char *buf = NULL;
	void *p;

	f->proto.align = f->mem_align = BOUNCE_ALIGN;
	if (posix_memalign(&p, 2 * BOUNCE_ALIGN, 2 * BOUNCE_ALIGN) != 0)
		return;
	buf = p;
	if (f->proto.size >= BOUNCE_ALIGN && takes(f->fd, buf, 512))
		f->proto.align = 512;
	if (f->proto.size >= BOUNCE_ALIGN && takes(f->fd, buf + 512, BOUNCE_ALIGN))
		f->mem_align = 512;
}

void file_direct_probe(struct file *f)
{
	int sector;
#ifdef STATX_DIOALIGN
	struct statx s;

	if (statx(f->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &s) == 0 &&
	    (s.stx_mask & STATX_DIOALIGN)) {
		f->direct = s.stx_dio_offset_align > 0 && s.stx_dio_mem_align > 0;
		f->proto.align = s.stx_dio_offset_align;
		f->mem_align = s.stx_dio_mem_align;
		return;
	}
#endif
	if (f->is_device && ioctl(f->fd, BLKSSZGET, &sector) == 0)
		f->proto.align = f->mem_align = sector;
	else
		probe_by_reading(f);
}
