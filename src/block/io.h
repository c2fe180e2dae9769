/* io: what the block layer asks of the kernel without waiting for it, and the two engines that
 * do it: io_uring, and a pool of threads that make the plain system calls. An operation belongs
 * to a coroutine, which block_io suspends until the result is there.
 *
 * Threads: all functions on the thread of the context, but io_op_run. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/coro.h"
#include "base/loop.h"

enum io_kind {
	IO_READ,     /* preadv */
	IO_WRITE,    /* pwritev */
	IO_SYNC,     /* fdatasync */
	IO_ALLOCATE, /* fallocate */
	IO_CALL,     /* fn(arg), on a thread of the pool */
};

struct io_op { /* may lie on the coroutine's stack, like what it points to */
	enum io_kind kind;
	int fd, mode; /* mode: fallocate's */
	const struct iovec *iov;
	unsigned n;
	uint64_t offset, len; /* len: fallocate's */
	int (*fn)(void *arg);
	void *arg;

	int64_t result; /* the system call's, or -errno */
	struct coro *waiter;
	struct io_op *next;
};

struct block_ctx;
/* In a coroutine: does it and returns its result. Short counts are the caller's business. */
int64_t block_io(struct block_ctx *c, struct io_op *op);

/* Makes the system call on the calling thread. */
int64_t io_op_run(const struct io_op *op);

/* Operations gathered since the loop last slept are handed to the kernel in one call. The
 * kernel allows only one thread to use the ring, so it is made anew when another thread takes
 * the context over. */
struct io_ring;
WARN_UNUSED int io_ring_new(struct io_ring **out, struct loop *l, struct err *e);
void io_ring_free(struct io_ring *u); /* accepts NULL; nothing may be in flight */
/* The thread that submits next takes it over, without making it anew. It can do then what io_kind has, and
 * nothing else. */
void io_ring_hand_over(struct io_ring *u);
/* Wakes op->waiter later, never at once. -errno: not taken. */
WARN_UNUSED int io_ring_submit(struct io_ring *u, struct io_op *op);

/* Threads are made as they are needed, and leave when there was nothing to do for a while. */
struct io_pool;
WARN_UNUSED int io_pool_new(struct io_pool **out, struct loop *l, struct err *e);
void io_pool_free(struct io_pool *p); /* accepts NULL; nothing may be in flight */
WARN_UNUSED int io_pool_submit(struct io_pool *p, struct io_op *op);
