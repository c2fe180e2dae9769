/* unpack: a packed stream into a file of the store, with a look at the space that is left. */
#pragma once

#include "image/digest.h"
#include "image/pull.h"

/* What stands in from, len bytes at at, unpacked into to from its beginning on. sum: takes in what comes
 * out, or NULL; size: how much that is. -ENOSPC before the disk is full, -ECANCELED, and those of
 * inflate_fd. */
WARN_UNUSED int unpack_fd(int from, uint64_t at, uint64_t len, int to, struct digest *sum,
			  struct pull_watcher *w, uint64_t *size, struct err *e);
