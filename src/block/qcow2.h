/* qcow2: disk images of QEMU's format, versions 2 and 3, as docs/interop/qcow2 of QEMU has
 * it; docs/qcow2.md says how one is kept consistent. Reading and writing go through block.h;
 * what only this format has is here: what its header says, check and repair, internal
 * snapshots, compressed writes, another backing file.
 *
 * All are plain calls like block_read: on the context's thread, not from a coroutine. Those
 * that take a struct block want one whose format is "qcow2", else -EINVAL. To read an image
 * as of an internal snapshot, open it with block_opts.snapshot.
 *
 * Not supported, and refused in words when met: encryption, unknown incompatible features,
 * an external data file. Persistent bitmaps are left alone; what is written to the image
 * marks them as not in use any more, as the format has it. */
#pragma once

#include "block/block.h"

struct qcow2_snapshot {
	char *id, *name;
	uint64_t disk_size;  /* bytes */
	uint64_t state_size; /* bytes of VM state */
	uint64_t date_sec, date_nsec, vm_clock_ns;
};

struct qcow2_info {
	unsigned version, refcount_bits;
	uint64_t cluster_bytes, file_bytes;
	bool lazy_refcounts, extended_l2, zstd, dirty, corrupt, bitmaps;
	unsigned snapshot_count;
	const struct qcow2_snapshot *snapshots; /* the image's, until it is closed */
};
WARN_UNUSED int qcow2_get_info(struct block *b, struct qcow2_info *out);

/* check: what of an image does not add up. Leaks waste space; corruptions may cost data. */
enum qcow2_fix { QCOW2_FIX_NONE, QCOW2_FIX_LEAKS, QCOW2_FIX_ALL };
struct qcow2_check {
	uint64_t corruptions, leaks, check_errors; /* left; check_errors: could not be read */
	uint64_t corruptions_fixed, leaks_fixed;
	uint64_t image_end_offset; /* bytes of the file in use */
	uint64_t total_clusters, allocated_clusters, fragmented_clusters, compressed_clusters;
	/* Each finding in words, if wanted; set by the caller. */
	void (*report)(void *ctx, const char *text);
	void *report_ctx;
};
/* For fixes the image is open for writing, best with repair_later. 0 also with findings. */
WARN_UNUSED int qcow2_check(struct block *b, enum qcow2_fix fix, struct qcow2_check *r,
			    struct err *e);

/* Names another backing file in the header (NULL: none), nothing else; b goes on with the
 * one it has open. */
WARN_UNUSED int qcow2_set_backing(struct block *b, const char *file, const char *format,
				  struct err *e);

/* Writes one whole cluster (the last one of the disk may be short) compressed, or plain when
 * that is not smaller. offset: a multiple of cluster_bytes. */
WARN_UNUSED int qcow2_write_compressed(struct block *b, uint64_t offset, const void *from,
				       uint64_t len);

/* Drops all that this layer holds, so that the disk is the backing image's again (after a
 * commit). -ENOTSUP with internal snapshots. */
WARN_UNUSED int qcow2_make_empty(struct block *b, struct err *e);

/* Changes of an existing image; what is NULL or negative stays. */
struct qcow2_amend {
	int lazy_refcounts;
};
WARN_UNUSED int qcow2_amend(struct block *b, const struct qcow2_amend *o, struct err *e);
