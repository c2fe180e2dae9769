/* registry: where the VMs of a user are found while they run, and for a while after: a directory per
 * VM, RUNTIME/vms/NAME (base/runtime_dir.h), with
 *
 *   lock          locked (F_OFD_SETLK) by the VM's process as long as it lives: whoever can take it finds a VM
 *                 that is not running, however it ended
 *   pid           of that process
 *   control       its socket (docs/manage.md)
 *   state.json    what it is and how it does, or how it ended (written anew and renamed)
 *   console.log   the last of what the guest said (console_log.h)
 *   holon.log     what Holon had to say, when it runs in the background
 *   died          what a forbidden system call that ended it was (confine.h); else empty
 *   vsock         the socket of its vsock device, or a link to where --vsock put that
 *   restart.lock  locked by the process that starts it again when it ended, if there is one
 *
 * Nothing here needs cleaning up after a crash: the next start takes the directory over. */
#pragma once

#include <jansson.h>
#include <limits.h>
#include <stdbool.h>

#include "base/bits.h"
#include "base/err.h"

#define VM_NAME_MAX 64u
#define VM_PATH_MAX 512u

struct vm_dir {
	char name[VM_NAME_MAX + 1];
	char path[VM_PATH_MAX];
	int lock; /* -1: not ours */
	/* By this one a confined process knows it, whatever its name becomes; 0: by its path. */
	int fd;
};

/* Letters, digits, '-', '_' and '.', a letter or digit first. */
WARN_UNUSED int vm_check_name(const char *name, struct err *e);
/* What of text can be a name, or "vm". */
void vm_make_name(char to[VM_NAME_MAX + 1], const char *text);

/* Makes the directory and locks it. exact: -EBUSY when a VM of that name runs; else another name is
 * made of it (NAME-2). What a VM of that name left is removed. */
WARN_UNUSED int vm_dir_claim(struct vm_dir *d, const char *name, bool exact, struct err *e);
/* keep: what tells how it ended stays to be looked at. */
void vm_dir_release(struct vm_dir *d, bool keep); /* accepts one with lock -1 */
/* What vm_dir_release does to the files, for somebody else who has the lock. */
void vm_dir_clear(struct vm_dir *d, bool keep);
/* That of a VM of that name, which may be there; lock -1. */
WARN_UNUSED int vm_dir_at(struct vm_dir *out, const char *name, struct err *e);
WARN_UNUSED int vm_dir_rename(struct vm_dir *d, const char *name, struct err *e);
void vm_dir_file(const struct vm_dir *d, const char *file, char to[VM_PATH_MAX + 32]);
WARN_UNUSED int vm_dir_write(const struct vm_dir *d, const char *file, const char *text,
			     struct err *e);

/* --- for others --- */

enum vm_life { VM_RUNS, VM_ENDED, VM_DIED }; /* died: without a word about why */

struct vm_seen {
	struct vm_dir dir; /* lock -1 */
	enum vm_life life;
	bool waits;    /* for its next start: somebody has restart.lock */
	json_t *state; /* an object, maybe empty; owned */
};
void vm_seen_done(struct vm_seen *v);

/* -ENOENT: there is none. */
WARN_UNUSED int vm_find(struct vm_seen *out, const char *name, struct err *e);
/* Calls each(ctx, v) for all, by name. */
WARN_UNUSED int vm_list(void (*each)(void *ctx, const struct vm_seen *v), void *ctx, struct err *e);
/* What one that died could still say; false: nothing. */
bool vm_last_word(const struct vm_dir *d, char *to, size_t len);
/* Removes what an ended one left; -EBUSY: it runs. */
WARN_UNUSED int vm_remove(const char *name, struct err *e);
