/* block_priv: what the files of this room share.
 *
 *   ctx.c        struct block_ctx: coroutines, I/O engine
 *   io_uring.c   the engine over liburing     io_threads.c  over a thread pool
 *   file.c       protocol: files, block devices; O_DIRECT alignment; locks
 *   nbd.c        protocol: NBD through libnbd
 *   block.c      open, close, submit: limits, write-through, backing chain, bounds
 *   raw.c        format raw               qcow2*.c     format qcow2
 *
 * Layers: block (format) -> proto (bytes of a file) -> I/O engine. Functions of both tables
 * below run inside a coroutine of ctx->coros and wait there; they return 0 or -errno. */
#pragma once

#include "base/coro.h"
#include "block/block.h"

/* The bytes of an image, wherever they are. */
struct proto {
	const struct proto_ops *ops;
	struct block_ctx *ctx;
	uint64_t size; /* bytes, as last known */
	bool read_only;
	bool can_discard; /* punches holes */
	unsigned align;   /* no stricter than this is worthwhile (O_DIRECT); proto takes any */
};

struct proto_ops {
	const char *name;
	/* Whole ranges or an error; reading behind the end gives zeros. */
	int (*readv)(struct proto *p, uint64_t offset, const struct iovec *iov, unsigned n);
	int (*writev)(struct proto *p, uint64_t offset, const struct iovec *iov, unsigned n);
	int (*flush)(struct proto *p);
	/* NULL, or -ENOTSUP: the caller writes zeros, or leaves the space. zero: reads as zeros
	 * afterwards, space given back when unmap and the medium can. */
	int (*zero)(struct proto *p, uint64_t offset, uint64_t len, bool unmap);
	int (*discard)(struct proto *p, uint64_t offset, uint64_t len);
	int (*truncate)(struct proto *p, uint64_t size);
	/* Like block_map, of the file's own holes. NULL: all is data. */
	int (*map)(struct proto *p, uint64_t offset, uint64_t len, struct block_extent *out);
	void (*close)(struct proto *p);
};

WARN_UNUSED int proto_open(struct proto **out, struct block_ctx *c, const struct block_opts *o,
			   struct err *e);
/* In a coroutine: */
int proto_read(struct proto *p, uint64_t offset, void *to, uint64_t len);
int proto_write(struct proto *p, uint64_t offset, const void *from, uint64_t len);

struct block_driver {
	const char *name;
	/* head: the first 512 bytes or fewer. */
	bool (*probe)(const uint8_t *head, uint64_t len);
	/* b->proto is open; sets b->size, b->state, and b->backing_file/format if there are. */
	int (*open)(struct block *b, struct err *e);
	/* All in a coroutine. Ranges are within b->size. readv: of this layer alone where
	 * it is present; for what is absent calls block_read_backing. */
	int (*readv)(struct block *b, uint64_t offset, const struct iovec *iov, unsigned n,
		     uint64_t len);
	int (*writev)(struct block *b, uint64_t offset, const struct iovec *iov, unsigned n,
		      uint64_t len);
	int (*flush)(struct block *b);
	int (*zero)(struct block *b, uint64_t offset, uint64_t len, bool unmap);
	int (*discard)(struct block *b, uint64_t offset, uint64_t len);
	int (*map)(struct block *b, uint64_t offset, uint64_t len, struct block_extent *out);
	int (*resize)(struct block *b, uint64_t size, bool preallocate, struct err *e);
	int (*close)(struct block *b, struct err *e); /* metadata back, flush, free b->state */
};

extern const struct block_driver raw_driver, qcow2_driver;

struct block {
	const struct block_driver *driver;
	struct block_ctx *ctx;
	struct proto *proto;
	void *state; /* the driver's */
	uint64_t size;
	struct block_opts opts;              /* its texts are copies of b's own */
	char *backing_file, *backing_format; /* as the image names them; NULL: none */
	struct block *backing;

	/* block.c's own: */
	unsigned in_flight;
	void (*drained)(void *ctx);
	void *drained_ctx;
	struct throttle *throttle;
};

/* Fills iov with what the backing image has there: zeros behind its end or without one. */
int block_read_backing(struct block *b, uint64_t offset, const struct iovec *iov, unsigned n,
		       uint64_t len);

struct coros *block_coros(struct block_ctx *c);
/* Runs fn(arg) in a coroutine and returns its result when it is done (the plain calls). */
int block_run(struct block_ctx *c, int (*fn)(void *arg), void *arg);

/* The part [skip, skip + len) of iov into out[]; returns how many entries. out has room for n. */
unsigned iov_slice(const struct iovec *iov, unsigned n, uint64_t skip, uint64_t len,
		   struct iovec *out);
