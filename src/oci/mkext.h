/* mkext: writes a tree as an ext4 file system, through libext2fs, without privileges: owners,
 * devices and attributes are what the tree says. One thread. */
#pragma once

#include "oci/tree.h"

struct mkext_opts {
	const char *file; /* new; sparse */
	uint64_t room;    /* free bytes beyond the tree */
	const int *layer; /* where the bytes of files are: descriptors, by tree_inode.layer */
	uint8_t uuid[16];
	/* Bytes of files written so far; false ends it: -ECANCELED. */
	bool (*step)(void *ctx, uint64_t done, uint64_t total);
	void *ctx;
};

WARN_UNUSED int mkext(struct tree *t, const struct mkext_opts *o, struct err *e);
