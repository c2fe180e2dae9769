/* plain: the calls for commands. Each is a coroutine that the context's loop is run for. */
#include <errno.h>

#include "block/block_priv.h"

struct plain {
	struct block_req req;
	struct coro *waiter;
	int result;
	bool done;
};

static void plain_done(struct block_req *r, int result)
{
	struct plain *p = container_of(r, struct plain, req);

	p->result = result;
	p->done = true;
	if (p->waiter)
		coro_wake(p->waiter);
}

int block_request_in_coro(struct block *b, struct block_req r)
{
	struct coros *s = block_coros(b->ctx);
	struct plain p = {.req = r};

	p.req.done = plain_done;
	block_submit(b, &p.req);
	p.waiter = coro_self(s);
	if (!p.done)
		coro_wait(s);
	return p.result;
}

static int plain_in_coro(void *arg)
{
	struct block_req *r = arg;

	return block_request_in_coro(r->block, *r);
}

static int plain(struct block *b, struct block_req r)
{
	r.block = b;
	return block_run(b->ctx, plain_in_coro, &r);
}

int block_read(struct block *b, uint64_t offset, void *to, uint64_t len)
{
	struct iovec iov = {to, len};

	return plain(b, (struct block_req){.op = BLOCK_READ,
					   .offset = offset,
					   .len = len,
					   .iov = &iov,
					   .iov_count = 1});
}

int block_write(struct block *b, uint64_t offset, const void *from, uint64_t len)
{
	struct iovec iov = {(void *)from, len};

	return plain(b, (struct block_req){.op = BLOCK_WRITE,
					   .offset = offset,
					   .len = len,
					   .iov = &iov,
					   .iov_count = 1});
}

int block_zero(struct block *b, uint64_t offset, uint64_t len, unsigned flags)
{
	return plain(b, (struct block_req){
				.op = BLOCK_ZERO, .flags = flags, .offset = offset, .len = len});
}

int block_discard(struct block *b, uint64_t offset, uint64_t len)
{
	return plain(b, (struct block_req){.op = BLOCK_DISCARD, .offset = offset, .len = len});
}

int block_flush(struct block *b)
{
	return plain(b, (struct block_req){.op = BLOCK_FLUSH});
}

struct map_args {
	struct block *block;
	uint64_t offset, len;
	struct block_extent *out;
};

static int map_in_coro(void *arg)
{
	struct map_args *a = arg;

	return a->block->driver->map(a->block, a->offset, a->len, a->out);
}

int block_map(struct block *b, uint64_t offset, uint64_t len, struct block_extent *out)
{
	struct map_args a = {b, offset, len, out};

	if (offset >= b->size || len == 0)
		return -EINVAL;
	a.len = min_u64(len, b->size - offset);
	return block_run(b->ctx, map_in_coro, &a);
}

struct resize_args {
	struct block *block;
	uint64_t size;
	enum block_prealloc prealloc;
	struct err *e;
};

static int resize_in_coro(void *arg)
{
	struct resize_args *a = arg;
	int r = a->block->driver->resize(a->block, a->size, a->prealloc, a->e);

	if (r < 0)
		return err_wrap(a->e, "resize '%s'", a->block->file);
	a->block->write_gen++;
	r = block_flush_in_coro(a->block);
	return r < 0 ? err_sys(a->e, -r, "flush '%s'", a->block->file) : 0;
}

int block_resize(struct block *b, uint64_t size, enum block_prealloc prealloc, struct err *e)
{
	struct resize_args a = {b, size, prealloc, e};

	if (b->opts.read_only)
		return err_set(e, EROFS, "'%s' is opened read-only", b->file);
	return block_run(b->ctx, resize_in_coro, &a);
}
