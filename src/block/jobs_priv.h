/* jobs_priv: how the jobs (jobs.h) go over a disk. Several coroutines (workers) take pieces in
 * the order of offsets; each has a buffer of its own. All here runs in coroutines but sweep_disk. */
#pragma once

#include "block/block_priv.h"
#include "block/chain.h"
#include "block/jobs.h"

#define SWEEP_PIECE_BYTES MIB(2)   /* room for a piece, and for a cluster of any size */
#define SWEEP_USUAL_BYTES KIB(512) /* what workers hold stays in the processor's cache */

enum sweep_kind {
	SWEEP_SKIP,   /* nothing to do */
	SWEEP_ZEROES, /* reads as zeros; worked on as one piece, whatever its length */
	SWEEP_DATA,
};

struct sweep_piece {
	uint64_t offset, len;
	enum sweep_kind kind;
	unsigned layer; /* the job's own */
};

struct sweep {
	struct block_ctx *ctx;
	uint64_t size;     /* bytes to go over */
	unsigned depth;    /* workers */
	unsigned buffers;  /* a worker's, of SWEEP_PIECE_BYTES each, one behind the other */
	uint64_t boundary; /* 0, or a power of two: data is cut at multiples of it */
	struct block_progress *progress; /* may be NULL */
	struct err *e;

	/* Says of p->offset what is there, and for how long: p->len at most as it comes. Called
	 * in order, one at a time. */
	int (*look)(struct sweep *s, struct sweep_piece *p);
	/* Does a piece; data pieces are at most SWEEP_PIECE_BYTES long. */
	int (*work)(struct sweep *s, const struct sweep_piece *p, uint8_t *buffer);

	/* sweep.c's own: */
	struct coro_mutex lock;
	struct sweep_piece run; /* what is left of what look found last */
	uint64_t next, done;    /* where look goes on; bytes dealt with */
	bool ended;             /* no further pieces: the end, a failure, or a job's wish */
	int error;
	unsigned running; /* workers */
	struct coro *waiter;
};

WARN_UNUSED int sweep_disk(struct sweep *s); /* plain */
/* Records the first failure: "DOING 'file' at offset N: ..."; returns r. */
int sweep_failed(struct sweep *s, int r, const char *doing, const struct block *b, uint64_t offset);

/* For a target with clusters of granule bytes, where p begins at one: makes p end at one, too.
 * What is shorter becomes one granule of data. most: bytes to the end of the disk. */
void sweep_round(struct sweep_piece *p, uint64_t most, uint64_t granule);

/* One request and the wait for it. */
WARN_UNUSED int co_request(struct block *b, enum block_op op, unsigned flags, uint64_t offset,
			   void *data, uint64_t len);
WARN_UNUSED int co_view(struct block *b, uint64_t offset, uint64_t len, struct block_view *out);

bool is_zero(const uint8_t *bytes, uint64_t len);
