/* qcow2_disk: a file in memory to test the qcow2 format on: its operations can take time and
 * finish in any order, can fail, and are recorded, so that the file can be had as a power cut
 * at any moment would leave it. For the unit tests and the fuzzer. */
#pragma once

#include "block/block_priv.h"

struct disk_op { /* recorded */
	enum { DISK_WRITE, DISK_TRUNCATE, DISK_FLUSH } kind;
	uint64_t offset, len;
	uint8_t *bytes;        /* WRITE; NULL: zeros */
	uint64_t begun, ended; /* moments; ended 0: not yet */
};

struct disk {
	struct proto proto;
	uint8_t *bytes;
	uint64_t room;

	bool slow; /* operations take time */
	uint64_t rng;

	unsigned reads, most_reads;  /* under way; at once, at most */
	uint64_t ops;                /* operations so far */
	uint64_t fail_from, fail_to; /* these fail */
	int error;                   /* -errno that they fail with */
	uint64_t max_size;           /* a larger file is -ENOSPC; 0: any */

	bool record;
	uint64_t now; /* moments of the record */
	struct disk_op *op;
	unsigned op_count, op_room;
	uint8_t *base; /* the file when the record began */
	uint64_t base_size;
};

void disk_init(struct disk *d, struct block_ctx *c, uint64_t seed);
void disk_done(struct disk *d);
void disk_set(struct disk *d, const void *bytes, uint64_t size);
void disk_record(struct disk *d);
/* The file into to, as a power cut at that moment may leave it: flushed writes are there, of
 * the others any sectors. */
void disk_cut(const struct disk *d, uint64_t moment, uint64_t seed, struct disk *to);
uint64_t disk_random(uint64_t *rng, uint64_t below);

/* An image on a disk, without block.c. Calls are plain. */
struct disk_image {
	struct block block;
	struct disk *disk;
	bool open;
};
/* backing: NULL or an open image, which stays the caller's. */
int disk_image_open(struct disk_image *i, struct disk *d, const struct block_opts *o,
		    struct block *backing, struct err *e);
int disk_image_close(struct disk_image *i);
/* Without a word to the disk, as if the process ended. */
void disk_image_abandon(struct disk_image *i);
int disk_image_create(struct disk *d, const struct block_create_opts *o, struct err *e);
/* op as BLOCK_*; bytes for READ and WRITE. */
int disk_image_do(struct disk_image *i, enum block_op op, uint64_t offset, void *bytes,
		  uint64_t len, bool unmap);
