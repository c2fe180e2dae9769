#include "block/crashlog.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/auto.h"
#include "block/wrap.h"

struct crashlog {
	struct wrap wrap;
	int fd;
	uint64_t records;
};

static struct crashlog *to_log(struct proto *p)
{
	return container_of(p, struct crashlog, wrap.proto);
}

/* Returns its number. */
static uint64_t record(struct crashlog *l, enum crash_kind kind, uint64_t offset, uint64_t len,
		       const struct iovec *iov, unsigned n)
{
	struct crash_record r = {kind, offset, len};
	ssize_t done = write(l->fd, &r, sizeof r);

	if (done == sizeof r && n)
		done = writev(l->fd, iov, n);
	/* A log that is cut short is found to be so when it is read. */
	return l->records++;
}

static int complete(struct crashlog *l, uint64_t number, int result)
{
	record(l, CRASH_COMPLETE, number, result < 0, NULL, 0);
	wrap_refresh(&l->wrap);
	return result;
}

static int log_readv(struct proto *p, uint64_t offset, const struct iovec *iov, unsigned n)
{
	struct proto *inner = to_log(p)->wrap.inner;

	return inner->ops->readv(inner, offset, iov, n);
}

static int log_writev(struct proto *p, uint64_t offset, const struct iovec *iov, unsigned n)
{
	struct crashlog *l = to_log(p);
	struct proto *inner = l->wrap.inner;
	uint64_t number = record(l, CRASH_WRITE, offset, iov_sum(iov, n), iov, n);

	return complete(l, number, inner->ops->writev(inner, offset, iov, n));
}

static int log_flush(struct proto *p)
{
	struct crashlog *l = to_log(p);
	uint64_t number = record(l, CRASH_FLUSH, 0, 0, NULL, 0);

	return complete(l, number, proto_flush(l->wrap.inner));
}

static int log_zero(struct proto *p, uint64_t offset, uint64_t len, bool unmap)
{
	struct crashlog *l = to_log(p);
	uint64_t number = record(l, CRASH_ZERO, offset, len, NULL, 0);

	return complete(l, number, proto_zero(l->wrap.inner, offset, len, unmap));
}

static int log_discard(struct proto *p, uint64_t offset, uint64_t len)
{
	struct crashlog *l = to_log(p);
	uint64_t number = record(l, CRASH_DISCARD, offset, len, NULL, 0);

	return complete(l, number, proto_discard(l->wrap.inner, offset, len));
}

static int log_truncate(struct proto *p, uint64_t size)
{
	struct crashlog *l = to_log(p);
	struct proto *inner = l->wrap.inner;
	uint64_t number = record(l, CRASH_TRUNCATE, size, 0, NULL, 0);

	return complete(l, number,
			inner->ops->truncate ? inner->ops->truncate(inner, size) : -ENOTSUP);
}

static void log_close(struct proto *p)
{
	struct crashlog *l = to_log(p);

	wrap_done(&l->wrap);
	if (l->fd >= 0)
		close(l->fd);
	free(l);
}

static const struct proto_ops log_ops = {
	.name = "crashlog",
	.readv = log_readv,
	.writev = log_writev,
	.flush = log_flush,
	.zero = log_zero,
	.discard = log_discard,
	.truncate = log_truncate,
	.close = log_close,
};

static int copy_base(struct crashlog *l, struct err *e)
{
	AUTO_FREE char *path = NULL, *buf = malloc(KIB(64));
	AUTO_CLOSE int fd = -1;
	uint64_t size = l->wrap.inner->size, piece;

	if (!buf || asprintf(&path, "%s.base", l->wrap.text) < 0)
		return err_sys(e, ENOMEM, "crashlog");
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0 || ftruncate(fd, size) < 0)
		return err_sys(e, errno, "crashlog: '%s'", path);
	for (uint64_t at = 0; at < size; at += piece) {
		int r;

		piece = min_u64(size - at, KIB(64));
		r = proto_read(l->wrap.inner, at, buf, piece);
		if (r < 0)
			return err_sys(e, -r, "crashlog: read");
		if (pwrite(fd, buf, piece, at) != (ssize_t)piece)
			return err_sys(e, errno, "crashlog: write '%s'", path);
	}
	return 0;
}

int crashlog_open(struct proto **out, struct block_ctx *c, const struct block_opts *o,
		  struct err *e)
{
	struct crashlog *l = calloc(1, sizeof *l);
	int r;

	if (!l)
		return err_sys(e, ENOMEM, "crashlog");
	l->fd = -1;
	r = wrap_open(&l->wrap, &log_ops, c, o, e);
	if (r == 0)
		r = copy_base(l, e);
	if (r == 0) {
		l->fd = open(l->wrap.text, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
		if (l->fd < 0)
			r = err_sys(e, errno, "crashlog: '%s'", l->wrap.text);
	}
	if (r < 0)
		log_close(&l->wrap.proto);
	else
		*out = &l->wrap.proto;
	return r;
}
