/* nbd: the protocol for disks on an NBD server. What the server says it cannot do (trim, write
 * zeros, flush) is not asked of it; without flush it has no cache. A server may want offsets and
 * lengths in multiples of its block size: what is not goes through a buffer in whole blocks,
 * one such write at a time. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "block/nbd_priv.h"

#define TRANSFER_MAX MIB(32) /* what every server takes */
#define RANGE_MAX    GIB(1)  /* of commands without data; the protocol's lengths have 32 bits */

struct nbd {
	struct proto proto;
	struct nbd_conn conn;
	uint64_t transfer_max;
	bool can_flush, can_trim, can_zero, can_map;
	struct coro_mutex edges; /* held while a block is read, changed and written */
};

static struct nbd *to_nbd(struct proto *p)
{
	return container_of(p, struct nbd, proto);
}

static int64_t start_read(struct nbd_conn *c, struct nbd_command *cmd, nbd_completion_callback done)
{
	return c->lib.aio_pread(c->handle, cmd->buf, cmd->len, cmd->offset, done, 0);
}

static int64_t start_write(struct nbd_conn *c, struct nbd_command *cmd,
			   nbd_completion_callback done)
{
	return c->lib.aio_pwrite(c->handle, cmd->buf, cmd->len, cmd->offset, done, 0);
}

static int64_t start_flush(struct nbd_conn *c, struct nbd_command *cmd,
			   nbd_completion_callback done)
{
	return c->lib.aio_flush(c->handle, done, 0);
}

static int64_t start_zero(struct nbd_conn *c, struct nbd_command *cmd, nbd_completion_callback done)
{
	return c->lib.aio_zero(c->handle, cmd->len, cmd->offset, done, cmd->flags);
}

static int64_t start_trim(struct nbd_conn *c, struct nbd_command *cmd, nbd_completion_callback done)
{
	return c->lib.aio_trim(c->handle, cmd->len, cmd->offset, done, 0);
}

/* Takes the first run of one kind; entries are pairs of length and flags. */
static int on_extents(void *user_data, const char *context, uint64_t offset, uint32_t *entries,
		      size_t n, int *error)
{
	struct nbd_command *cmd = user_data;
	struct block_extent *x = cmd->extent;

	if (strcmp(context, "base:allocation") || offset != cmd->offset)
		return 0;
	x->len = 0;
	for (size_t i = 0; i + 1 < n; i += 2) {
		bool zero = entries[i + 1] & LIBNBD_STATE_ZERO;
		bool allocated = !(entries[i + 1] & LIBNBD_STATE_HOLE);

		if (i > 0 && (zero != (x->kind == BLOCK_ZEROES) || allocated != x->allocated))
			break;
		x->kind = zero ? BLOCK_ZEROES : BLOCK_DATA;
		x->allocated = allocated;
		x->len += entries[i];
	}
	return 0;
}

static int64_t start_map(struct nbd_conn *c, struct nbd_command *cmd, nbd_completion_callback done)
{
	nbd_extent_callback extents = {.callback = on_extents, .user_data = cmd};

	return c->lib.aio_block_status(c->handle, cmd->len, cmd->offset, extents, done, 0);
}

typedef int64_t start_fn(struct nbd_conn *c, struct nbd_command *cmd, nbd_completion_callback done);

/* One after the other, each at most `most` long. */
static int run_split(struct nbd *d, start_fn *start, uint64_t offset, void *buf, uint64_t len,
		     uint64_t most, uint32_t flags)
{
	int r = 0;

	while (len && r == 0) {
		struct nbd_command cmd = {.start = start,
					  .buf = buf,
					  .offset = offset,
					  .len = min_u64(len, most),
					  .flags = flags};

		r = nbd_conn_run(&d->conn, &cmd);
		offset += cmd.len;
		len -= cmd.len;
		buf = buf ? (char *)buf + cmd.len : NULL;
	}
	return r;
}

static bool whole_blocks(const struct nbd *d, uint64_t offset, uint64_t len)
{
	return !((offset | len) & (d->proto.align - 1));
}

static int remote_readv(struct proto *p, uint64_t offset, const struct iovec *iov, unsigned n)
{
	struct nbd *d = to_nbd(p);
	uint64_t len = iov_sum(iov, n),
		 there = offset < p->size ? min_u64(len, p->size - offset) : 0;
	uint64_t from = align_down(offset, p->align), to = align_up(offset + there, p->align);
	AUTO_FREE char *buf = NULL;
	int r;

	iov_zero(iov, n, there, len - there);
	if (there == 0)
		return 0;
	if (n == 1 && whole_blocks(d, offset, there))
		return run_split(d, start_read, offset, iov->iov_base, there, d->transfer_max, 0);
	buf = malloc(to - from);
	if (!buf)
		return -ENOMEM;
	r = run_split(d, start_read, from, buf, to - from, d->transfer_max, 0);
	if (r == 0)
		iov_fill(iov, n, 0, buf + (offset - from), there);
	return r;
}

static int write_blocks(struct nbd *d, uint64_t offset, const struct iovec *iov, unsigned n,
			uint64_t len)
{
	AUTO_FREE char *buf = malloc(len);

	if (!buf)
		return -ENOMEM;
	iov_gather(iov, n, 0, buf, len);
	return run_split(d, start_write, offset, buf, len, d->transfer_max, 0);
}

static int write_with_edges(struct nbd *d, uint64_t offset, const struct iovec *iov, unsigned n,
			    uint64_t len)
{
	unsigned align = d->proto.align;
	uint64_t from = align_down(offset, align), to = align_up(offset + len, align);
	AUTO_FREE char *buf = malloc(to - from);
	int r;

	if (!buf)
		return -ENOMEM;
	coro_lock(block_coros(d->proto.ctx), &d->edges);
	r = run_split(d, start_read, from, buf, align, align, 0);
	if (r == 0 && to - from > align)
		r = run_split(d, start_read, to - align, buf + (to - align - from), align, align,
			      0);
	if (r == 0) {
		iov_gather(iov, n, 0, buf + (offset - from), len);
		r = run_split(d, start_write, from, buf, to - from, d->transfer_max, 0);
	}
	coro_unlock(block_coros(d->proto.ctx), &d->edges);
	return r;
}

static int remote_writev(struct proto *p, uint64_t offset, const struct iovec *iov, unsigned n)
{
	struct nbd *d = to_nbd(p);
	uint64_t len = iov_sum(iov, n);

	if (offset > p->size || len > p->size - offset)
		return -ENOSPC;
	if (!whole_blocks(d, offset, len))
		return write_with_edges(d, offset, iov, n, len);
	if (n == 1)
		return run_split(d, start_write, offset, iov->iov_base, len, d->transfer_max, 0);
	return write_blocks(d, offset, iov, n, len);
}

static int remote_flush(struct proto *p)
{
	struct nbd *d = to_nbd(p);
	struct nbd_command cmd = {.start = start_flush};

	return d->can_flush ? nbd_conn_run(&d->conn, &cmd) : 0;
}

static int remote_zero(struct proto *p, uint64_t offset, uint64_t len, bool unmap)
{
	struct nbd *d = to_nbd(p);

	if (!d->can_zero || !whole_blocks(d, offset, len))
		return -ENOTSUP;
	return run_split(d, start_zero, offset, NULL, len, RANGE_MAX,
			 unmap ? 0 : LIBNBD_CMD_FLAG_NO_HOLE);
}

static int remote_discard(struct proto *p, uint64_t offset, uint64_t len)
{
	struct nbd *d = to_nbd(p);
	uint64_t from = align_up(offset, p->align), to = align_down(offset + len, p->align);

	if (!d->can_trim)
		return -ENOTSUP;
	return from < to ? run_split(d, start_trim, from, NULL, to - from, RANGE_MAX, 0) : 0;
}

static int remote_map(struct proto *p, uint64_t offset, uint64_t len, struct block_extent *out)
{
	struct nbd *d = to_nbd(p);
	struct block_extent x = {.kind = BLOCK_DATA, .allocated = true};
	struct nbd_command cmd = {
		.start = start_map, .offset = align_down(offset, p->align), .extent = &x};
	uint64_t skip = offset - cmd.offset;
	int r = 0;

	cmd.len = min_u64(align_up(offset + len, p->align) - cmd.offset, RANGE_MAX);
	if (d->can_map)
		r = nbd_conn_run(&d->conn, &cmd);
	if (r < 0)
		return r;
	if (x.len <= skip) /* it cannot tell */
		x = (struct block_extent){.kind = BLOCK_DATA, .allocated = true, .len = skip + len};
	x.len = min_u64(x.len - skip, len);
	x.has_offset = x.kind == BLOCK_DATA;
	x.host_offset = offset;
	*out = x;
	return 0;
}

static void remote_close(struct proto *p)
{
	struct nbd *d = to_nbd(p);

	nbd_conn_close(&d->conn);
	free(d);
}

static const struct proto_ops nbd_ops = {
	.name = "nbd",
	.readv = remote_readv,
	.writev = remote_writev,
	.flush = remote_flush,
	.zero = remote_zero,
	.discard = remote_discard,
	.map = remote_map,
	.close = remote_close,
};

/* What the server told of itself. */
static int look(struct nbd *d, bool read_only, struct err *e)
{
	const struct nbd_lib *l = &d->conn.lib;
	struct nbd_handle *h = d->conn.handle;
	int64_t size = l->get_size(h), min = l->get_block_size(h, LIBNBD_SIZE_MINIMUM),
		max = l->get_block_size(h, LIBNBD_SIZE_MAXIMUM);

	if (size < 0)
		return err_set(e, EIO, "%s", l->get_error());
	if (!read_only && l->is_read_only(h) > 0)
		return err_set(e, EROFS, "the server lets it be read only");
	if (min > (int64_t)KIB(64) || (min > 0 && (min & (min - 1))))
		return err_set(e, ENOTSUP, "block size %lld", (long long)min);
	d->proto.align = min > 0 ? min : 1;
	d->proto.size = align_down(size, d->proto.align);
	d->transfer_max = max >= d->proto.align ? min_u64(max, TRANSFER_MAX) : TRANSFER_MAX;
	d->transfer_max = align_down(d->transfer_max, d->proto.align);
	d->can_flush = l->can_flush(h) > 0;
	d->can_trim = l->can_trim(h) > 0;
	d->can_zero = l->can_zero(h) > 0;
	d->can_map = l->can_meta_context(h, "base:allocation") > 0;
	d->proto.can_discard = d->can_trim && !read_only;
	return 0;
}

int nbd_open(struct proto **out, struct block_ctx *c, const struct block_opts *o, struct err *e)
{
	struct nbd *d = calloc(1, sizeof *d);
	int r;

	if (!d || !(d->conn.uri = strdup(o->file))) {
		free(d);
		return err_sys(e, ENOMEM, "'%s'", o->file);
	}
	d->proto = (struct proto){.ops = &nbd_ops, .ctx = c, .read_only = o->read_only};
	d->conn.ctx = c;
	r = nbd_conn_open(&d->conn, e);
	if (r == 0)
		r = look(d, o->read_only, e);
	if (r < 0) {
		err_wrap(e, "'%s'", o->file);
		remote_close(&d->proto);
	} else {
		*out = &d->proto;
	}
	return r;
}
