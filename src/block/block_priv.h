/* block_priv: what the files of this room share.
 *
 *   ctx.c        struct block_ctx: coroutines, I/O engine
 *   io_uring.c   the engine over liburing     io_threads.c  over a thread pool
 *   file.c       protocol: files, block devices    file_direct.c  O_DIRECT's alignment
 *   file_lock.c  against a second writer           iov.c          iovec arrays
 *   nbd.c        protocol: NBD through libnbd
 *   faulty.c     protocol for tests: injects errors   crashlog.c  records for power-cut tests
 *   proto.c      which protocol a name means; what all of them share
 *   open.c       open, close, probe, backing chain, create
 *   block.c      submit: bounds, limits, write-through   plain.c        the plain calls
 *   chain.c      what the guest sees of a backing chain
 *   sweep.c      goes over a disk for convert.c, compare.c, commit.c, rebase.c (jobs_priv.h)
 *   raw.c        format raw               qcow2*.c     format qcow2
 *
 * Layers: block (format) -> proto (bytes of a file) -> I/O engine. Functions of both tables
 * below run inside a coroutine of ctx->coros and wait there; they return 0 or -errno. Requests
 * of one image run side by side, each in a coroutine of its own.
 *
 * An iovec array here has at most BLOCK_IOV_MAX entries and a backing chain at most
 * BLOCK_CHAIN_MAX images, so that a slice of an array fits on the stack at each layer. */
#pragma once

#include "base/coro.h"
#include "block/block.h"
#include "block/throttle.h"

#define BLOCK_IOV_MAX   256
#define BLOCK_CHAIN_MAX 32

/* The bytes of an image, wherever they are. */
struct proto {
	const struct proto_ops *ops;
	struct block_ctx *ctx;
	uint64_t size; /* bytes, as last known; a write behind it makes a file larger */
	bool growable; /* regular files; else a write or truncate behind size is -ENOSPC */
	bool read_only;
	bool can_discard; /* punches holes */
	unsigned align;   /* no stricter than this is worthwhile (O_DIRECT); proto takes any */
	const char *note; /* what the user should know: a promise that cannot be kept; or NULL */
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
	/* Takes up space there, keeping contents. NULL, or -ENOTSUP: cannot. */
	int (*allocate)(struct proto *p, uint64_t offset, uint64_t len);
	/* Like block_map, of the file's own holes. NULL: all is data. */
	int (*map)(struct proto *p, uint64_t offset, uint64_t len, struct block_extent *out);
	void (*close)(struct proto *p);
};

/* In a coroutine, like all below. */
WARN_UNUSED int proto_open(struct proto **out, struct block_ctx *c, const struct block_opts *o,
			   struct err *e);
/* Of an empty file: made, or made empty. */
WARN_UNUSED int proto_create(struct proto **out, struct block_ctx *c, const char *file,
			     struct err *e);
void proto_close(struct proto *p); /* accepts NULL; no flush */
int proto_read(struct proto *p, uint64_t offset, void *to, uint64_t len);
int proto_write(struct proto *p, uint64_t offset, const void *from, uint64_t len);
int proto_flush(struct proto *p);
/* Always work: by the proto's own means, or by writing zeros / not at all. */
int proto_zero(struct proto *p, uint64_t offset, uint64_t len, bool unmap);
int proto_discard(struct proto *p, uint64_t offset, uint64_t len);
int proto_write_zeros(struct proto *p, uint64_t offset, uint64_t len);

/* How the name of an image begins says which protocol it is. */
struct proto_type {
	const char *scheme; /* "nbd://"; the last one is "", files */
	int (*open)(struct proto **out, struct block_ctx *c, const struct block_opts *o,
		    struct err *e);
	bool only_by_user; /* not as a backing file, whose name comes out of an image */
};
const struct proto_type *proto_type_of(const char *file);
/* The file in "file:PATH" or PATH. */
const char *block_path(const char *file);
int file_open(struct proto **out, struct block_ctx *c, const struct block_opts *o, struct err *e);
int nbd_open(struct proto **out, struct block_ctx *c, const struct block_opts *o, struct err *e);
int file_create(struct proto **out, struct block_ctx *c, const struct block_opts *o, struct err *e);

struct block_driver {
	const char *name;
	/* head: the first 512 bytes or fewer. */
	bool (*probe)(const uint8_t *head, uint64_t len);
	/* Fills an empty p with a new image. */
	int (*create)(struct proto *p, const struct block_create_opts *o, struct err *e);
	/* b->proto is open; sets b->size, b->state, and b->backing_file/format (malloc'ed) if
	 * there are. When it fails it has freed b->state. */
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
	int (*resize)(struct block *b, uint64_t size, enum block_prealloc prealloc, struct err *e);
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
	char *file;                  /* copy of opts.file */
	bool opened;                 /* driver->open succeeded */
	const struct block *overlay; /* while it is being opened: what is above it */
	bool guessed_raw;            /* no format was named: block.c guards its first sector */
	unsigned in_flight;
	uint64_t write_gen, flushed_gen; /* writes completed; covered by the last flush */
	bool flushing;
	struct coro_queue flush_queue, idle_queue;
	struct coro_mutex first_sector; /* guessed_raw: one write of it at a time */
	void (*drained)(void *ctx);
	void *drained_ctx;
	struct throttle throttle;
	struct {
		_Atomic uint64_t requests, bytes; /* written by the image's thread alone */
	} read_count, write_count;
};

/* Fills iov with what the backing image has there: zeros behind its end or without one. */
int block_read_backing(struct block *b, uint64_t offset, const struct iovec *iov, unsigned n,
		       uint64_t len);

/* --- between open.c, block.c and plain.c --- */

#define BLOCK_HEAD_BYTES 512
/* By how it begins; raw takes anything. */
const struct block_driver *block_probe(const uint8_t *head, uint64_t len);
/* Begins like an image of any format, ours or not. */
bool block_looks_foreign(const uint8_t head[BLOCK_HEAD_BYTES]);
int block_flush_in_coro(struct block *b);
int block_close_in_coro(struct block *b, struct err *e);
/* block_submit and the wait for its result; done is not the caller's. */
WARN_UNUSED int block_request_in_coro(struct block *b, struct block_req r);

/* --- ctx.c --- */

struct coros *block_coros(struct block_ctx *c);
/* In a coroutine: waits; runs fn(arg) in a worker thread (decompression) and waits for its
 * result. */
void block_sleep(struct block_ctx *c, uint64_t ns);
int block_offload(struct block_ctx *c, int (*fn)(void *arg), void *arg);
/* Runs fn(arg) in a coroutine and returns its result when it is done (the plain calls). */
int block_run(struct block_ctx *c, int (*fn)(void *arg), void *arg);

/* BLOCK_ZEROS_BYTES zeros to write from. A mapping that stays as long as c. */
#define BLOCK_ZEROS_BYTES KIB(64)
const void *block_zeros(struct block_ctx *c);

/* --- iovec arrays (iov.c); skip + len is at most their sum --- */

uint64_t iov_sum(const struct iovec *iov, unsigned n);
/* The part [skip, skip + len) of iov into out[]; returns how many entries. out has room for n. */
unsigned iov_slice(const struct iovec *iov, unsigned n, uint64_t skip, uint64_t len,
		   struct iovec *out);
void iov_zero(const struct iovec *iov, unsigned n, uint64_t skip, uint64_t len);
void iov_fill(const struct iovec *iov, unsigned n, uint64_t skip, const void *from, uint64_t len);
void iov_gather(const struct iovec *iov, unsigned n, uint64_t skip, void *to, uint64_t len);
