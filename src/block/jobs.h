/* jobs: what takes long on whole disks: convert, compare, commit, rebase. Several requests are
 * in flight all the time, holes are not read, and what reads as zeros is not written where
 * zeros are already.
 *
 * Plain calls like those of block.h. A job that fails or is cancelled (-ECANCELED) leaves every
 * image consistent: its target holds a part of what it should, its sources are untouched. The
 * target is flushed at the end. */
#pragma once

#include "block/block.h"

struct block_progress { /* embed it */
	/* done of total bytes are dealt with. False ends the job. Runs on the context's thread
	 * within the job, so it makes no plain calls. */
	bool (*step)(struct block_progress *p, uint64_t done, uint64_t total);
};

#define BLOCK_JOB_DEPTH 8u /* pieces in flight, by default */

struct block_convert_opts {
	/* Shortest run of zeros that is left out where the target reads as zeros; 0: all is
	 * written, the holes of the source too. */
	uint64_t sparse_bytes;
	bool target_is_zero; /* the target is new, or known to read as zeros */
	/* What the top layer of the (only) source does not hold is the same in the target's
	 * backing image. */
	bool same_backing;
	bool compress;  /* a qcow2 target */
	unsigned depth; /* 0: BLOCK_JOB_DEPTH */
};

/* The sources one behind the other to the beginning of dst, which is at least as large. If dst
 * has a backing image, only what differs from that is written. */
WARN_UNUSED int block_convert(struct block *const src[], unsigned n, struct block *dst,
			      const struct block_convert_opts *o, struct block_progress *p,
			      struct err *e);

enum block_difference {
	BLOCK_SAME,
	BLOCK_DIFFERENT_CONTENT,
	BLOCK_DIFFERENT_ALLOCATION, /* strict only: data here, a hole there */
};
/* strict: where there is data must be the same, too. The larger one may have zeros behind the
 * end of the other. *where: the first difference, rounded down to a multiple of 512. */
WARN_UNUSED int block_compare(struct block *a, struct block *b, bool strict,
			      struct block_progress *p, enum block_difference *difference,
			      uint64_t *where, struct err *e);

/* Writes what the layers hold into base, which is at least as large. layer[0] is the top; each
 * is opened with no_backing. */
WARN_UNUSED int block_commit(struct block *const layer[], unsigned n, struct block *base,
			     struct block_progress *p, struct err *e);

/* Makes top independent of where backing (NULL: none, zeros) differs from the backing image
 * that top has now: such parts are copied into top. The caller then names the new backing
 * image in top (qcow2_set_backing). */
WARN_UNUSED int block_rebase(struct block *top, struct block *backing, struct block_progress *p,
			     struct err *e);
