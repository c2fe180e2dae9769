/* cgroup: control groups of a VM's own, below where its process was, or beside that: of version 2 or
 * 1, whichever has the controller. What the user may not do is not there (cgroup_has), and no error.
 *
 * Made by the VM's process, which enters them, before it has threads. The files that are written
 * later are opened at once, so that a confined process can go on writing them. A process of its own
 * (keeper.h) removes them when the VM's is gone, however that ended; what is left of one that was
 * killed as well the next VM removes. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/bits.h"
#include "base/err.h"

enum {
	CGROUP_CPU = 1,
	CGROUP_MEMORY = 2,
	CGROUP_IO = 4,
	CGROUP_ALL = 7,
};

#define CGROUP_PATH_MAX 512u
#define CGROUP_DIRS     3u

struct cgroup;

/* want: bits of the above. proc: "/proc/self", or what a test puts in its place. -ENOMEM alone is an
 * error: *out is there otherwise, perhaps with nothing in it. */
WARN_UNUSED int cgroup_new(struct cgroup **out, unsigned want, const char *proc, struct err *e);
void cgroup_free(struct cgroup *g); /* accepts NULL */

unsigned cgroup_has(const struct cgroup *g);
const char *cgroup_path(const struct cgroup *g, unsigned n); /* [n], NULL: no more of them */

/* Any thread. cap: thousandths of a core, 0: none. -ENOTSUP: the controller, or the file, is not there. */
WARN_UNUSED int cgroup_set_cap(struct cgroup *g, unsigned cap, struct err *e);
WARN_UNUSED int cgroup_set_weight(struct cgroup *g, unsigned weight, struct err *e);
WARN_UNUSED int cgroup_set_io_weight(struct cgroup *g, unsigned weight, struct err *e);
/* Bytes; CGROUP_NO_LIMIT: none. swap: of these, what may be swapped out. */
#define CGROUP_NO_LIMIT UINT64_MAX
WARN_UNUSED int cgroup_set_memory(struct cgroup *g, uint64_t memory, uint64_t swap, struct err *e);
/* What it uses now; 0: not known. */
uint64_t cgroup_memory(struct cgroup *g);
