/* block: disk images. A struct block is one open image with all below it: its format (raw,
 * qcow2), the protocol that holds its bytes (a file or block device, NBD), and its backing
 * chain. Users: virtio-blk (block_submit), the disk commands (the plain calls), snapshots.
 *
 * Threads: an image belongs to one struct block_ctx, and that to one thread: the I/O thread
 * whose loop it was made with, or the command's only thread. All calls are made there, and
 * done() runs there. No call takes a lock.
 *
 * Promises on a crash of the host or of this process (docs/block.md): what a completed
 * BLOCK_FLUSH, or a completed write with BLOCK_FUA, covered is on the disk. Metadata is
 * written in an order that leaves an image at worst with leaked clusters.
 *
 * Offsets and lengths are bytes of the guest's disk, any alignment (the formats and the
 * O_DIRECT layer read, change and write where the medium wants more). */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/bits.h"
#include "base/err.h"
#include "base/loop.h"

struct block;
struct block_ctx; /* coroutines and the I/O engine (io_uring, or a thread pool) of one thread */

enum block_cache {
	BLOCK_CACHE_NONE,         /* O_DIRECT where the file system has it; flush on request */
	BLOCK_CACHE_WRITEBACK,    /* host page cache; flush on request */
	BLOCK_CACHE_WRITETHROUGH, /* host page cache; every write is flushed before it completes */
	BLOCK_CACHE_UNSAFE,       /* host page cache; flushes are ignored */
};

enum block_engine { BLOCK_ENGINE_AUTO, BLOCK_ENGINE_URING, BLOCK_ENGINE_THREADS };

/* l: the loop of the thread that will use it, or NULL: a loop of the context's own. The plain
 * calls run the loop until they are done, so they work before its thread has started (on the
 * thread that sets it up) and from the loop's callbacks, which may see others meanwhile. */
WARN_UNUSED int block_ctx_new(struct block_ctx **out, struct loop *l, enum block_engine engine,
			      struct err *e);
void block_ctx_free(struct block_ctx *c); /* after its images; accepts NULL */
/* From here until block_ctx_hand_over everything is done by plain calls on this thread, while nothing else is
 * to be done: no other thread is started, and a confined process can be one that has none. */
void block_ctx_set_up(struct block_ctx *c);
/* All that was begun is done, and another thread goes on. */
void block_ctx_hand_over(struct block_ctx *c);
struct loop *block_ctx_loop(struct block_ctx *c);
const char *block_ctx_engine(const struct block_ctx *c); /* "io_uring", "threads" */

struct block_limits { /* token buckets; 0: no limit; bursts in bytes and requests */
	uint64_t bps, iops, bps_burst, iops_burst;
	uint64_t bps_once, iops_once; /* what passes before any of that is counted */
};

/* Files that somebody else has opened, by the names by which they would be. */
struct block_given {
	unsigned n;
	const char *const *name;
	const int *fd; /* stay the caller's */
};

struct block_opts {
	const char *file;   /* path, file:PATH, or URI: nbd:// nbds:// nbd+unix:// nbds+unix:// */
	const char *format; /* "raw", "qcow2"; NULL: by what the file begins with */
	const struct block_given *given; /* instead of opening them; NULL: there are none */
	bool read_only;
	bool no_lock;      /* open beside a writer (info of a running VM's disk) */
			   /* metadata may be inconsistent then, errors are to be expected */
	bool no_backing;   /* this layer alone: what it has not reads as zeros */
	bool repair_later; /* open even when marked dirty or corrupt, for check and repair */
	enum block_cache cache;
	bool discard; /* pass discards on to the file (default for VMs: true) */
	/* qcow2: an internal snapshot to read instead of the disk, by id or name; read_only. */
	const char *snapshot;
	uint64_t metadata_bytes; /* qcow2: bound of the metadata cache; 0: 4 MiB */
	struct block_limits limits;
};

WARN_UNUSED int block_open(struct block **out, struct block_ctx *c, const struct block_opts *o,
			   struct err *e);
/* Waits for what is in flight, writes metadata back and flushes; accepts NULL. -errno when
 * that failed: what was flushed before is safe all the same. */
int block_close(struct block *b, struct err *e);

uint64_t block_size(const struct block *b); /* bytes */
bool block_read_only(const struct block *b);
const char *block_format(const struct block *b);
const char *block_file(const struct block *b);
/* The backing file as the image names it; NULL: it names none, or not its format. */
const char *block_backing_file(const struct block *b);
const char *block_backing_format(const struct block *b);
/* The file that backing, named in the image overlay, means; malloc'ed, NULL: no memory. */
char *block_backing_path(const char *overlay, const char *backing);
struct block *block_backing(const struct block *b); /* NULL: none; stays b's */
/* What the user should know (O_DIRECT is not to be had); NULL: nothing. */
const char *block_note(const struct block *b);
struct block_ctx *block_ctx_of(const struct block *b);

/* --- asynchronous, for devices --- */

enum block_op { BLOCK_READ, BLOCK_WRITE, BLOCK_FLUSH, BLOCK_DISCARD, BLOCK_ZERO };
#define BLOCK_FUA   1u /* WRITE, ZERO: on the disk before done() */
#define BLOCK_UNMAP 2u /* ZERO: the space may be given back */

struct block_req { /* the caller's, until done() */
	enum block_op op;
	unsigned flags;
	uint64_t offset, len; /* len: also for READ and WRITE, the sum of iov */
	const struct iovec *iov;
	unsigned iov_count;
	/* result: 0 or -errno (-ENOSPC, -EIO, ...). A range outside of the disk is -EINVAL. May
	 * be called before block_submit returns. May submit more, but make no plain call. */
	void (*done)(struct block_req *r, int result);

	struct block *block; /* block's own from here on */
	struct block_req *next;
};
void block_submit(struct block *b, struct block_req *r);
unsigned block_in_flight(const struct block *b);
/* drained(ctx) once nothing is in flight; the caller submits nothing in between. */
void block_drain(struct block *b, void (*drained)(void *ctx), void *ctx);
/* What devices had done by block_submit, without error. Any thread. */
struct block_counts {
	uint64_t reads, writes, read_bytes, write_bytes;
};
void block_get_counts(const struct block *b, struct block_counts *to);
/* Other limits, from now on. */
void block_set_limits(struct block *b, const struct block_limits *l);

/* --- plain, for commands: they return when it is done. Not from a coroutine of c. --- */

WARN_UNUSED int block_read(struct block *b, uint64_t offset, void *to, uint64_t len);
WARN_UNUSED int block_write(struct block *b, uint64_t offset, const void *from, uint64_t len);
WARN_UNUSED int block_zero(struct block *b, uint64_t offset, uint64_t len, unsigned flags);
WARN_UNUSED int block_discard(struct block *b, uint64_t offset, uint64_t len);
WARN_UNUSED int block_flush(struct block *b);

/* What [offset, *len) is: the longest run of one kind from offset on, at most *len at entry. */
enum block_kind {
	BLOCK_DATA,   /* in this layer, at host_offset of its file if has_offset */
	BLOCK_ZEROES, /* in this layer, reads as zeros */
	BLOCK_ABSENT, /* not in this layer: the backing image's, or zeros without one */
};
struct block_extent {
	enum block_kind kind;
	uint64_t len;
	bool has_offset, compressed, allocated; /* allocated: takes space in the file */
	uint64_t host_offset;
};
WARN_UNUSED int block_map(struct block *b, uint64_t offset, uint64_t len, struct block_extent *out);

/* --- making and resizing images: plain, too --- */

enum block_prealloc {
	BLOCK_PREALLOC_OFF,
	BLOCK_PREALLOC_METADATA, /* tables are there, data is sparse */
	BLOCK_PREALLOC_FALLOC,   /* space is taken, not written */
	BLOCK_PREALLOC_FULL,     /* zeros are written */
};

struct block_create_opts {
	const char *file, *format; /* a file that is there is emptied first */
	uint64_t size;
	enum block_prealloc prealloc;
	/* qcow2 */
	const char *backing_file, *backing_format; /* as they shall stand in it; NULL: none */
	unsigned version;                          /* 2 or 3; 0: 3 */
	uint32_t cluster_size;                     /* bytes; 0: 64 KiB */
	unsigned refcount_bits;                    /* 0: 16 */
	bool lazy_refcounts, extended_l2, zstd;
};
WARN_UNUSED int block_create(struct block_ctx *c, const struct block_create_opts *o, struct err *e);
/* Nothing may be in flight. Growing: the new part reads as zeros. */
WARN_UNUSED int block_resize(struct block *b, uint64_t size, enum block_prealloc prealloc,
			     struct err *e);
