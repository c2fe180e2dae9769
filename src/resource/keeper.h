/* keeper: a tiny process that waits for the end of ours, however it comes, and then removes the
 * directories of its control groups: we cannot, being in them, and confined.
 *
 * Called while there is one thread only. The keeper has none of our descriptors (a lock of ours that
 * it kept would outlive us) and is no member of our session. */
#pragma once

#include "base/bits.h"
#include "base/err.h"

/* Starts it; dir[0..n) need not be there yet. home: the cgroup.procs file of the group that it is to
 * stay in itself; NULL: where it is. Returns the descriptor whose closing, by the end of all who
 * have it, is the end that it waits for. */
WARN_UNUSED int keeper_start(const char *const *dir, unsigned n, const char *home, struct err *e);
