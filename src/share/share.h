/* share: a folder of the host, served to a guest in the words of FUSE (linux/fuse.h, protocol
 * 7.27 to 7.38). Who carries the words, a virtio device, hands in requests and room for answers.
 *
 * The guest's kernel resolves paths; here a request names a file by a number that an earlier
 * answer gave, or by that of a folder and one name in it. Behind a number is a descriptor of just
 * that file (O_PATH), so what someone renames or links meanwhile, in guest or host, leads nowhere
 * else: no name with a slash, no "..", no symbolic link is ever followed here. Only regular files
 * and folders are opened; devices, pipes and sockets are names alone.
 *
 * Ids. A process that may act for others (root) makes files for whom the guest says. Else all
 * belongs to the process's user, who is opts.uid in the guest; other owners are seen as 65534.
 *
 * Bounds. Descriptors: opts.fds; beyond it the files that were used least recently are let go,
 * and found again by folder and name; they must then be the same files, or are ESTALE. Files
 * known: SHARE_NODES_MAX.
 *
 * Threads: share_new and share_free anywhere; between them, all on one thread, which calls
 * share_begin first. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/bits.h"
#include "base/err.h"

#define SHARE_NODES_MAX (1u << 21)
#define SHARE_FDS_MIN   64u
#define SHARE_FDS_MAX   32768u
#define SHARE_IOV_MAX   1024u /* pieces of a request, and of room for an answer */
#define SHARE_WRITE_MAX MIB(1)

struct share_opts {
	int dir; /* a descriptor of the folder, O_PATH suffices; taken over, also on failure */
	bool read_only;
	bool writeback;    /* the guest may keep written data for a while: the host sees it late */
	unsigned fds;      /* 0: SHARE_FDS_MIN; what may be open at a time */
	uid_t uid;         /* in the guest, of what is ours; where ids are not the host's */
	gid_t gid;         /* likewise */
	bool force_squash; /* for tests: do as a process that may not act for others */
};

struct share;

WARN_UNUSED int share_new(struct share **out, const struct share_opts *o, struct err *e);
void share_free(struct share *s); /* accepts NULL */

/* The calling thread is the one from now on: it gets a working directory and a umask of its own.
 * Before the process is confined to fewer system calls, or with unshare, fchdir, umask and prctl
 * allowed. Again: nothing. */
WARN_UNUSED int share_begin(struct share *s);

/* One request. in: its bytes; out: room for the answer, whose length is returned; 0: there is
 * none. At most SHARE_IOV_MAX pieces each. Memory behind both may change at any time. */
WARN_UNUSED uint32_t share_serve(struct share *s, const struct iovec *in, unsigned ins,
				 const struct iovec *out, unsigned outs);

/* All that the guest knew is forgotten: what it had open is closed. */
void share_reset(struct share *s);

struct share_counts {
	uint64_t requests, read_bytes, written_bytes;
	unsigned nodes, fds; /* known and open now */
	bool mounted;
};
void share_get_counts(const struct share *s, struct share_counts *to);
