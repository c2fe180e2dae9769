/* partitions: where the partitions of a disk are, by its GPT or MBR (UEFI 2.10, 5). What is
 * read is foreign: a table that makes no sense counts as none. */
#pragma once

#include <stdint.h>

#include "base/bits.h"

/* What is read from: a disk, or a part of one. */
struct disk_source {
	uint64_t size; /* bytes */
	/* All of [offset, offset + len), or a negative errno. */
	int (*read)(struct disk_source *s, uint64_t offset, void *to, uint64_t len);
};

struct partition {
	uint64_t offset, len; /* bytes, within the disk */
};

#define PARTITIONS_MAX 128u

/* Returns how many, or a negative errno of the source's. None: 0. */
int partitions_read(struct disk_source *s, struct partition to[PARTITIONS_MAX]);
