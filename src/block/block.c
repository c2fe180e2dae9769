/* block: what happens to every request, whatever its image's format: bounds, limits, splitting,
 * what the cache mode promises, the guard of the first sector.
 *
 * A request is one coroutine from submit to done. Flushes are shared: one that starts covers
 * every write that was complete then, so waiters whose writes it covers need none of their own,
 * and a flush with nothing written since the last costs nothing. */
#include <errno.h>
#include <stdatomic.h>

#include "block/block_priv.h"

uint64_t block_size(const struct block *b)
{
	return b->size;
}

bool block_read_only(const struct block *b)
{
	return b->opts.read_only;
}

const char *block_format(const struct block *b)
{
	return b->driver->name;
}

const char *block_file(const struct block *b)
{
	return b->file;
}

const char *block_backing_file(const struct block *b)
{
	return b->backing_file;
}

const char *block_backing_format(const struct block *b)
{
	return b->backing_format;
}

struct block *block_backing(const struct block *b)
{
	return b->backing;
}

const char *block_note(const struct block *b)
{
	return b->proto->note;
}

struct block_ctx *block_ctx_of(const struct block *b)
{
	return b->ctx;
}

unsigned block_in_flight(const struct block *b)
{
	return b->in_flight;
}

/* --- below: in a coroutine --- */

int block_read_backing(struct block *b, uint64_t offset, const struct iovec *iov, unsigned n,
		       uint64_t len)
{
	struct block *under = b->backing;
	uint64_t there = under && offset < under->size ? min_u64(len, under->size - offset) : 0;
	struct iovec part[BLOCK_IOV_MAX];

	iov_zero(iov, n, there, len - there);
	if (there == 0)
		return 0;
	if (there == len)
		return under->driver->readv(under, offset, iov, n, len);
	return under->driver->readv(under, offset, part, iov_slice(iov, n, 0, there, part), there);
}

/* Covers what was written when it was called. */
int block_flush_in_coro(struct block *b)
{
	uint64_t wanted = b->write_gen;
	int r = 0;

	while (b->flushed_gen < wanted && r == 0) {
		uint64_t covered = b->write_gen;

		if (b->flushing) {
			coro_queue_wait(block_coros(b->ctx), &b->flush_queue);
			continue;
		}
		b->flushing = true;
		r = b->driver->flush(b);
		b->flushing = false;
		if (r == 0)
			b->flushed_gen = covered;
		coro_queue_wake_all(&b->flush_queue);
	}
	return r;
}

/* See open.c. Before a write of the first sector of an image that was taken for raw. */
static int block_guard(struct block *b, uint64_t offset, const struct iovec *iov, unsigned n,
		       uint64_t len)
{
	uint8_t head[BLOCK_HEAD_BYTES];
	struct iovec whole = {head, sizeof head};
	int r = 0;

	if (b->size < sizeof head)
		return 0;
	if (offset > 0 || len < sizeof head)
		r = b->driver->readv(b, 0, &whole, 1, sizeof head);
	if (r == 0)
		iov_gather(iov, n, 0, head + offset, min_u64(len, sizeof head - offset));
	return r < 0 ? r : block_looks_foreign(head) ? -EPERM : 0;
}

static int write_first_sector(struct block *b, uint64_t offset, const struct iovec *iov, unsigned n,
			      uint64_t len)
{
	int r;

	coro_lock(block_coros(b->ctx), &b->first_sector);
	r = block_guard(b, offset, iov, n, len);
	if (r == 0)
		r = b->driver->writev(b, offset, iov, n, len);
	coro_unlock(block_coros(b->ctx), &b->first_sector);
	return r;
}

static int write_piece(struct block *b, uint64_t offset, const struct iovec *iov, unsigned n,
		       uint64_t len)
{
	if (b->guessed_raw && offset < BLOCK_HEAD_BYTES)
		return write_first_sector(b, offset, iov, n, len);
	return b->driver->writev(b, offset, iov, n, len);
}

static int transfer(struct block *b, struct block_req *r)
{
	const struct iovec *iov = r->iov;
	uint64_t offset = r->offset;
	int result = 0;

	for (unsigned left = r->iov_count, n; left && result == 0; left -= n, iov += n) {
		uint64_t len = r->len;

		n = left;
		if (left > BLOCK_IOV_MAX) {
			n = BLOCK_IOV_MAX;
			len = iov_sum(iov, n);
		} else if (iov != r->iov) {
			len = r->offset + r->len - offset;
		}
		result = r->op == BLOCK_READ ? b->driver->readv(b, offset, iov, n, len)
					     : write_piece(b, offset, iov, n, len);
		offset += len;
	}
	return result;
}

static int write_zeros(struct block *b, uint64_t offset, uint64_t len)
{
	int r = 0;

	while (len && r == 0) {
		uint64_t piece = min_u64(len, BLOCK_ZEROS_BYTES);
		struct iovec iov = {(void *)block_zeros(b->ctx), piece};

		r = write_piece(b, offset, &iov, 1, piece);
		offset += piece;
		len -= piece;
	}
	return r;
}

static int zero(struct block *b, struct block_req *r)
{
	bool unmap = (r->flags & BLOCK_UNMAP) && b->opts.discard;
	int result = -ENOTSUP;

	if (b->driver->zero && !(b->guessed_raw && r->offset < BLOCK_HEAD_BYTES))
		result = b->driver->zero(b, r->offset, r->len, unmap);
	return result == -ENOTSUP ? write_zeros(b, r->offset, r->len) : result;
}

static int discard(struct block *b, struct block_req *r)
{
	int result = -ENOTSUP;

	if (b->opts.discard && b->driver->discard)
		result = b->driver->discard(b, r->offset, r->len);
	return result == -ENOTSUP ? 0 : result;
}

static int change(struct block *b, struct block_req *r)
{
	int result;

	if (r->op == BLOCK_WRITE)
		result = transfer(b, r);
	else if (r->op == BLOCK_ZERO)
		result = zero(b, r);
	else
		result = discard(b, r);
	b->write_gen++; /* also when it failed: some of it may be written */
	if (result == 0 && r->op != BLOCK_DISCARD &&
	    ((r->flags & BLOCK_FUA) || b->opts.cache == BLOCK_CACHE_WRITETHROUGH))
		result = block_flush_in_coro(b);
	return result;
}

static int perform(struct block *b, struct block_req *r)
{
	switch (r->op) {
	case BLOCK_READ: return transfer(b, r);
	case BLOCK_FLUSH: return block_flush_in_coro(b);
	default: return r->len ? change(b, r) : 0;
	}
}

static void add(_Atomic uint64_t *count, uint64_t n)
{
	atomic_store_explicit(count, atomic_load_explicit(count, memory_order_relaxed) + n,
			      memory_order_relaxed);
}

static void count(struct block *b, const struct block_req *r)
{
	if (r->op == BLOCK_READ) {
		add(&b->read_count.requests, 1);
		add(&b->read_count.bytes, r->len);
	} else if (r->op == BLOCK_WRITE) {
		add(&b->write_count.requests, 1);
		add(&b->write_count.bytes, r->len);
	}
}

void block_get_counts(const struct block *b, struct block_counts *to)
{
	to->reads = atomic_load_explicit(&b->read_count.requests, memory_order_relaxed);
	to->writes = atomic_load_explicit(&b->write_count.requests, memory_order_relaxed);
	to->read_bytes = atomic_load_explicit(&b->read_count.bytes, memory_order_relaxed);
	to->write_bytes = atomic_load_explicit(&b->write_count.bytes, memory_order_relaxed);
}

static void finish(struct block *b, struct block_req *r, int result)
{
	b->in_flight--;
	if (result >= 0)
		count(b, r);
	r->done(r, result);
	if (b->in_flight)
		return;
	if (b->drained) {
		void (*drained)(void *ctx) = b->drained;

		b->drained = NULL;
		drained(b->drained_ctx);
	}
	coro_queue_wake_all(&b->idle_queue); /* last: it may close b */
}

static void run_request(void *arg)
{
	struct block_req *r = arg;
	struct block *b = r->block;

	throttle_pass(&b->throttle, r);
	finish(b, r, perform(b, r));
}

static int check_request(const struct block *b, const struct block_req *r)
{
	if (r->op == BLOCK_FLUSH)
		return 0;
	if (r->offset > b->size || r->len > b->size - r->offset)
		return -EINVAL;
	return b->opts.read_only && r->op != BLOCK_READ ? -EROFS : 0;
}

/* --- for devices --- */

void block_submit(struct block *b, struct block_req *r)
{
	int result = check_request(b, r);

	r->block = b;
	b->in_flight++;
	if (result == 0)
		result = coro_start(block_coros(b->ctx), run_request, r);
	if (result < 0)
		finish(b, r, result);
}

void block_drain(struct block *b, void (*drained)(void *ctx), void *ctx)
{
	if (!b->in_flight) {
		drained(ctx);
		return;
	}
	b->drained = drained;
	b->drained_ctx = ctx;
}

void block_set_limits(struct block *b, const struct block_limits *l)
{
	b->opts.limits = *l;
	throttle_set(&b->throttle, l);
}
