/* ctx: what the images of one thread share: its loop, coroutines, and the I/O engine. The thread
 * pool is made when it is first needed. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "block/block_priv.h"
#include "block/io.h"

struct block_ctx {
	struct loop *loop;
	bool own_loop;
	struct coros *coros;
	struct io_ring *ring; /* NULL: the pool does everything */
	struct io_pool *pool;
	bool setting_up;   /* nothing else is to be done meanwhile: plain calls */
	const void *zeros; /* untouched memory, so that it takes none */
};

static int open_engine(struct block_ctx *c, enum block_engine engine, struct err *e)
{
	int r = engine == BLOCK_ENGINE_THREADS ? -ENOSYS : io_ring_new(&c->ring, c->loop, e);

	if (r < 0 && engine == BLOCK_ENGINE_URING)
		return r;
	return c->ring ? 0 : io_pool_new(&c->pool, c->loop, e);
}

static int map_zeros(struct block_ctx *c, struct err *e)
{
	void *p = mmap(NULL, BLOCK_ZEROS_BYTES, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return err_sys(e, errno, "block layer");
	c->zeros = p;
	return 0;
}

int block_ctx_new(struct block_ctx **out, struct loop *l, enum block_engine engine, struct err *e)
{
	struct block_ctx *c = calloc(1, sizeof *c);
	int r = 0;

	if (!c)
		return err_sys(e, ENOMEM, "block layer");
	c->loop = l;
	if (!l) {
		r = loop_new(&c->loop, e);
		c->own_loop = r == 0;
	}
	if (r == 0)
		r = coros_new(&c->coros, e);
	if (r == 0)
		r = open_engine(c, engine, e);
	if (r == 0)
		r = map_zeros(c, e);
	if (r < 0)
		block_ctx_free(c);
	else
		*out = c;
	return r;
}

void block_ctx_free(struct block_ctx *c)
{
	if (!c)
		return;
	io_ring_free(c->ring);
	io_pool_free(c->pool);
	coros_free(c->coros);
	if (c->zeros)
		munmap((void *)c->zeros, BLOCK_ZEROS_BYTES);
	if (c->own_loop)
		loop_free(c->loop);
	free(c);
}

void block_ctx_set_up(struct block_ctx *c)
{
	c->setting_up = true;
}

void block_ctx_hand_over(struct block_ctx *c)
{
	c->setting_up = false;
	if (c->ring)
		io_ring_hand_over(c->ring);
}

struct loop *block_ctx_loop(struct block_ctx *c)
{
	return c->loop;
}

const char *block_ctx_engine(const struct block_ctx *c)
{
	return c->ring ? "io_uring" : "threads";
}

const void *block_zeros(struct block_ctx *c)
{
	return c->zeros;
}

struct coros *block_coros(struct block_ctx *c)
{
	return c->coros;
}

static int submit_to_pool(struct block_ctx *c, struct io_op *op)
{
	int r = c->pool ? 0 : io_pool_new(&c->pool, c->loop, NULL);

	return r < 0 ? r : io_pool_submit(c->pool, op);
}

static int64_t io_by_pool(struct block_ctx *c, struct io_op *op)
{
	/* Out of descriptors or threads: slow beats failing. */
	if (submit_to_pool(c, op) < 0)
		return io_op_run(op);
	coro_wait(c->coros);
	return op->result;
}

int64_t block_io(struct block_ctx *c, struct io_op *op)
{
	if (c->setting_up)
		return io_op_run(op);
	op->waiter = coro_self(c->coros);
	if (!c->ring || io_ring_submit(c->ring, op) < 0)
		return io_by_pool(c, op);
	coro_wait(c->coros);
	/* What the ring could not do without blocking, or was interrupted in. */
	if (op->result == -EAGAIN || op->result == -EINTR)
		return io_by_pool(c, op);
	return op->result;
}

int block_offload(struct block_ctx *c, int (*fn)(void *arg), void *arg)
{
	struct io_op op = {.kind = IO_CALL, .fn = fn, .arg = arg};

	if (c->setting_up)
		return fn(arg);
	op.waiter = coro_self(c->coros);
	return io_by_pool(c, &op);
}

struct sleeper {
	struct timer timer;
	struct coro *coro;
};

static void on_slept(struct timer *t)
{
	coro_wake(container_of(t, struct sleeper, timer)->coro);
}

void block_sleep(struct block_ctx *c, uint64_t ns)
{
	struct sleeper s = {{.fire = on_slept}, coro_self(c->coros)};
	struct clock *clock = loop_clock(c->loop);

	timer_arm(clock, &s.timer, clock_now(clock) + ns);
	coro_wait(c->coros);
}

struct run {
	int (*fn)(void *arg);
	void *arg;
	int result;
	bool done;
};

static void run_it(void *arg)
{
	struct run *run = arg;

	run->result = run->fn(run->arg);
	run->done = true;
}

int block_run(struct block_ctx *c, int (*fn)(void *arg), void *arg)
{
	struct run run = {fn, arg, 0, false};
	int r;

	assert(!coro_self(c->coros) && "a plain call from inside the block layer");
	r = coro_start(c->coros, run_it, &run);
	if (r < 0)
		return r;
	while (!run.done) {
		r = loop_once(c->loop);
		assert(r == 0); /* epoll of descriptors of our own */
	}
	return run.result;
}
