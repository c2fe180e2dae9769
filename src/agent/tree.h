/* tree: a file, a link or a whole directory through a wire. Sender and receiver are the same on
 * the host and in the guest, and the receiver trusts nobody: an entry's name is one component,
 * and every one is made inside the directory that was opened for it, following no link.
 *
 *   ENTRY  u8 kind ('f', 'd', 'l'), 3 zero bytes, u32 permission bits, u64 bytes of a file,
 *          u64 nanoseconds since 1970 of its last change, the name, 0, a link's target, 0
 *   DATA   of the file that was the last entry, until it is complete
 *   UP     a directory has ended
 *   END    all has
 *
 * Sockets, pipes and devices are left out, with a word through note. */
#pragma once

#include "agent/wire.h"

struct tree_progress {
	/* Bytes so far, and of all files so far; may be NULL. */
	void (*step)(struct tree_progress *p, uint64_t done, uint64_t total);
	/* Something that was left out; may be NULL. */
	void (*note)(struct tree_progress *p, const char *path, const char *why);
};

/* Sends what is at path, by its last name, and END. */
WARN_UNUSED int tree_send(struct wire *w, const char *path, struct tree_progress *p, struct err *e);
/* Receives a tree up to END: into path if that is a directory (or ends in a slash), else as
 * path. What is there is replaced; directories are merged. */
WARN_UNUSED int tree_receive(struct wire *w, const char *path, struct tree_progress *p,
			     struct err *e);
