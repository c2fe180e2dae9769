/* file: the protocol for regular files and block devices. Through the page cache, or with
 * O_DIRECT (file_direct.c) where cache=none was asked for and the file system can do it.
 *
 * A flush is fdatasync. When one fails, the kernel forgets which pages were not written, and the
 * next one would succeed without them; so from then on every flush fails. */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/file_priv.h"
#include "block/io.h"

static struct file *to_file(struct proto *p)
{
	return container_of(p, struct file, proto);
}

/* What is left after a short count; the file may end here. */
__attribute__((noinline)) static int read_rest(struct file *f, uint64_t offset,
					       const struct iovec *iov, unsigned n, uint64_t len,
					       uint64_t done)
{
	struct iovec rest[BLOCK_IOV_MAX];

	while (done < len) {
		struct io_op op = {
			.kind = IO_READ, .fd = f->fd, .iov = rest, .offset = offset + done};
		bool at_end = f->direct && op.offset % f->proto.align;
		int64_t r = 0;

		op.n = iov_slice(iov, n, done, len - done, rest);
		if (!at_end)
			r = block_io(f->proto.ctx, &op);
		if (r < 0)
			return r;
		if (r == 0) {
			/* Zeros behind the end; but not where somebody cut the file. */
			iov_zero(iov, n, done, len - done);
			return op.offset < f->proto.size ? -EIO : 0;
		}
		done += r;
	}
	return 0;
}

int file_readv_all(struct file *f, uint64_t offset, const struct iovec *iov, unsigned n)
{
	struct io_op op = {.kind = IO_READ, .fd = f->fd, .iov = iov, .n = n, .offset = offset};
	uint64_t len = iov_sum(iov, n);
	int64_t r = block_io(f->proto.ctx, &op);

	if (r < 0 || (uint64_t)r == len)
		return r < 0 ? r : 0;
	return read_rest(f, offset, iov, n, len, r);
}

__attribute__((noinline)) static int write_rest(struct file *f, uint64_t offset,
						const struct iovec *iov, unsigned n, uint64_t len,
						uint64_t done)
{
	struct iovec rest[BLOCK_IOV_MAX];

	while (done < len) {
		struct io_op op = {
			.kind = IO_WRITE, .fd = f->fd, .iov = rest, .offset = offset + done};
		int64_t r;

		op.n = iov_slice(iov, n, done, len - done, rest);
		r = block_io(f->proto.ctx, &op);
		if (r <= 0)
			return r < 0 ? r : -ENOSPC;
		done += r;
	}
	return 0;
}

int file_writev_all(struct file *f, uint64_t offset, const struct iovec *iov, unsigned n)
{
	struct io_op op = {.kind = IO_WRITE, .fd = f->fd, .iov = iov, .n = n, .offset = offset};
	uint64_t len = iov_sum(iov, n);
	int64_t r = block_io(f->proto.ctx, &op);

	if (r < 0 || (uint64_t)r == len)
		return r < 0 ? r : 0;
	return write_rest(f, offset, iov, n, len, r);
}

static int file_readv(struct proto *p, uint64_t offset, const struct iovec *iov, unsigned n)
{
	struct file *f = to_file(p);

	return f->direct ? file_direct_readv(f, offset, iov, n) : file_readv_all(f, offset, iov, n);
}

static int file_writev(struct proto *p, uint64_t offset, const struct iovec *iov, unsigned n)
{
	struct file *f = to_file(p);
	uint64_t end = offset + iov_sum(iov, n);
	int r;

	if (!p->growable && end > p->size)
		return -ENOSPC;
	if (f->direct)
		return file_direct_writev(f, offset, iov, n);
	r = file_writev_all(f, offset, iov, n);
	if (r == 0)
		p->size = max_u64(p->size, end);
	return r;
}

static int file_flush(struct proto *p)
{
	struct file *f = to_file(p);
	struct io_op op = {.kind = IO_SYNC, .fd = f->fd};
	int64_t r;

	if (f->unsafe)
		return 0;
	if (f->flush_error)
		return f->flush_error;
	r = block_io(p->ctx, &op);
	if (r < 0)
		f->flush_error = r;
	return r;
}

static bool unsupported(int64_t r)
{
	return r == -EOPNOTSUPP || r == -ENOSYS || r == -ENOTTY || r == -ENODEV || r == -EINVAL;
}

/* fallocate, beside no write that reads its block first. */
static int allocate(struct file *f, int mode, uint64_t offset, uint64_t len)
{
	struct file_range range = {offset, offset + len};
	struct io_op op = {
		.kind = IO_ALLOCATE, .fd = f->fd, .mode = mode, .offset = offset, .len = len};
	int64_t r;

	file_range_enter(f, &range);
	r = block_io(f->proto.ctx, &op);
	if (r == 0 && !(mode & FALLOC_FL_KEEP_SIZE))
		f->proto.size = max_u64(f->proto.size, offset + len);
	file_range_leave(f, &range);
	return unsupported(r) ? -ENOTSUP : r;
}

static int punch(struct file *f, uint64_t offset, uint64_t len)
{
	return allocate(f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, len);
}

static int file_discard(struct proto *p, uint64_t offset, uint64_t len)
{
	struct file *f = to_file(p);
	int r = -ENOTSUP;

	if (!f->no_discard)
		r = punch(f, offset, len);
	f->no_discard = r == -ENOTSUP;
	p->can_discard = !f->no_discard;
	return r;
}

static int file_zero(struct proto *p, uint64_t offset, uint64_t len, bool unmap)
{
	struct file *f = to_file(p);
	int r = -ENOTSUP;

	if (offset + len > p->size && !p->growable)
		return -ENOSPC;
	/* A hole does not make a file longer. */
	if (unmap && p->can_discard && offset + len <= p->size)
		r = punch(f, offset, len);
	if (r == -ENOTSUP && !f->no_zero) {
		r = allocate(f, FALLOC_FL_ZERO_RANGE, offset, len);
		f->no_zero = r == -ENOTSUP;
	}
	return r;
}

static int file_allocate(struct proto *p, uint64_t offset, uint64_t len)
{
	return to_file(p)->is_device ? -ENOTSUP : allocate(to_file(p), 0, offset, len);
}

struct truncation {
	int fd;
	uint64_t size;
};

static int do_truncate(void *arg)
{
	struct truncation *t = arg;

	return ftruncate(t->fd, t->size) < 0 ? -errno : 0;
}

int file_truncate(struct file *f, uint64_t size)
{
	struct truncation t = {f->fd, size};
	int r = block_offload(f->proto.ctx, do_truncate, &t);

	if (r == 0)
		f->proto.size = size;
	return r;
}

static int proto_truncate(struct proto *p, uint64_t size)
{
	if (!p->growable)
		return size > p->size ? -ENOSPC : 0;
	return file_truncate(to_file(p), size);
}

/* A hole at offset that ends with the file is not seen as one by lseek: ENXIO. */
static int file_map(struct proto *p, uint64_t offset, uint64_t len, struct block_extent *out)
{
	struct file *f = to_file(p);
	off_t data = f->is_device ? (off_t)offset : lseek(f->fd, offset, SEEK_DATA);
	off_t end = offset + len, hole;

	if (data < 0 && errno == ENXIO)
		data = end;
	if (data > (off_t)offset) {
		*out = (struct block_extent){.kind = BLOCK_ZEROES,
					     .len = min_u64(data - offset, len)};
		return 0;
	}
	hole = data < 0 || f->is_device ? end : lseek(f->fd, offset, SEEK_HOLE);
	if (hole <= (off_t)offset)
		hole = end; /* it cannot tell */
	*out = (struct block_extent){.kind = BLOCK_DATA,
				     .len = min_u64(hole - offset, len),
				     .has_offset = true,
				     .allocated = true,
				     .host_offset = offset};
	return 0;
}

static void file_close(struct proto *p)
{
	struct file *f = to_file(p);

	if (f->fd >= 0) {
		file_unlock(f->fd);
		close(f->fd);
	}
	free(f);
}

static const struct proto_ops file_ops = {
	.name = "file",
	.readv = file_readv,
	.writev = file_writev,
	.flush = file_flush,
	.zero = file_zero,
	.discard = file_discard,
	.truncate = proto_truncate,
	.allocate = file_allocate,
	.map = file_map,
	.close = file_close,
};

/* Opened without waiting, should it be a pipe; the flag must go, as io_uring would heed it. */
static int open_fd(struct file *f, const char *path, const struct block_opts *o, int flags,
		   struct err *e)
{
	flags |= (o->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK;
	if (o->cache == BLOCK_CACHE_NONE)
		f->fd = open(path, flags | O_DIRECT, 0644);
	f->direct = f->fd >= 0;
	if (f->fd < 0 && (o->cache != BLOCK_CACHE_NONE || errno == EINVAL))
		f->fd = open(path, flags, 0644);
	if (f->fd < 0)
		return err_sys(e, errno, "open '%s'", path);
	fcntl(f->fd, F_SETFL, fcntl(f->fd, F_GETFL) & ~O_NONBLOCK);
	return 0;
}

/* -1: it is not among those given. Its locks are those of whoever else has the same open file. */
static int given_fd(const char *path, const struct block_opts *o)
{
	for (unsigned i = 0; o->given && i < o->given->n; i++)
		if (o->given->fd[i] >= 0 && !strcmp(block_path(o->given->name[i]), path))
			return fcntl(o->given->fd[i], F_DUPFD_CLOEXEC, 0);
	return -1;
}

static int use_given(struct file *f, const char *path, const struct block_opts *o, struct err *e)
{
	int flags = fcntl(f->fd, F_GETFL);

	if (flags < 0 || (flags & O_ACCMODE) == O_WRONLY ||
	    (!o->read_only && (flags & O_ACCMODE) != O_RDWR))
		return err_set(e, EBADF, "'%s' was opened for other things", path);
	flags &= ~(O_NONBLOCK | O_APPEND | O_DIRECT);
	f->direct = o->cache == BLOCK_CACHE_NONE && fcntl(f->fd, F_SETFL, flags | O_DIRECT) == 0;
	if (!f->direct && fcntl(f->fd, F_SETFL, flags) < 0)
		return err_sys(e, errno, "'%s'", path);
	return 0;
}

static int look(struct file *f, const char *path, struct err *e)
{
	struct stat s;
	off_t end;

	if (fstat(f->fd, &s) < 0)
		return err_sys(e, errno, "'%s'", path);
	if (!S_ISREG(s.st_mode) && !S_ISBLK(s.st_mode))
		return err_set(e, EINVAL, "'%s' is neither a file nor a block device", path);
	f->is_device = S_ISBLK(s.st_mode);
	end = lseek(f->fd, 0, SEEK_END);
	if (end < 0)
		return err_sys(e, errno, "size of '%s'", path);
	f->proto.size = end;
	f->proto.growable = !f->is_device;
	f->proto.can_discard = !f->proto.read_only;
	return 0;
}

static void choose_direct(struct file *f, bool wanted)
{
	f->proto.align = f->mem_align = 1;
	if (f->direct)
		file_direct_probe(f);
	if (f->direct || !wanted)
		return;
	fcntl(f->fd, F_SETFL, fcntl(f->fd, F_GETFL) & ~O_DIRECT);
	f->proto.align = f->mem_align = 1;
	f->proto.note = "its file system has no O_DIRECT: the host's page cache is used";
}

static int open_file(struct file *f, const char *path, const struct block_opts *o, int flags,
		     struct err *e)
{
	int r;

	f->fd = given_fd(path, o);
	r = f->fd >= 0 ? use_given(f, path, o, e) : open_fd(f, path, o, flags, e);
	if (r == 0)
		r = look(f, path, e);
	if (r == 0 && !o->no_lock)
		r = file_lock(f->fd, !o->read_only, e);
	if (r == -EAGAIN)
		err_wrap(e, "'%s' is in use", path);
	if (r == 0)
		choose_direct(f, o->cache == BLOCK_CACHE_NONE);
	return r;
}

static int file_new(struct proto **out, struct block_ctx *c, const struct block_opts *o, int flags,
		    struct err *e)
{
	struct file *f = calloc(1, sizeof *f);
	const char *path = block_path(o->file);
	int r;

	if (!f)
		return err_sys(e, ENOMEM, "'%s'", path);
	f->fd = -1;
	f->proto = (struct proto){.ops = &file_ops, .ctx = c, .read_only = o->read_only};
	f->unsafe = o->cache == BLOCK_CACHE_UNSAFE;
	r = open_file(f, path, o, flags, e);
	if (r < 0)
		file_close(&f->proto);
	else
		*out = &f->proto;
	return r;
}

int file_open(struct proto **out, struct block_ctx *c, const struct block_opts *o, struct err *e)
{
	return file_new(out, c, o, 0, e);
}

int file_create(struct proto **out, struct block_ctx *c, const struct block_opts *o, struct err *e)
{
	struct proto *p;
	int r = file_new(&p, c, o, O_CREAT, e);

	if (r < 0)
		return r;
	if (p->growable && p->size && (r = proto_truncate(p, 0)) < 0) {
		err_sys(e, -r, "empty '%s'", o->file);
		file_close(p);
		return r;
	}
	*out = p;
	return 0;
}
