/* chain: what a guest sees at some place of a disk, and which image of the backing chain has
 * it. block_map (block.h) speaks of one layer alone. */
#pragma once

#include "block/block.h"

struct block_view {
	struct block_extent extent; /* of the image that holds it; ABSENT: in none, zeros */
	unsigned depth;             /* of that image; 0: the top */
	struct block *image;
};

/* The longest run of one kind from offset on, at most len, within the disk. A plain call. */
WARN_UNUSED int block_view(struct block *b, uint64_t offset, uint64_t len, struct block_view *out);
