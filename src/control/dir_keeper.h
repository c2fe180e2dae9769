/* dir_keeper: a small process beside a VM's, which keeps what that one gives up when it is confined: the right
 * to rename and remove the VM's directory, and to remove the sockets that the VM made in directories of
 * others. It does nothing else, whatever the VM's process asks for, and ends with it.
 *
 * Main thread, but dir_keeper_rename: any. */
#pragma once

#include "control/registry.h"

struct dir_keeper {
	int fd; /* -1: there is none */
};

/* Forks it: while the process has but one thread, and before it has locks that end with it. */
WARN_UNUSED int dir_keeper_start(struct dir_keeper *k, struct err *e);
/* Before dir_keeper_seal: that socket goes at the end, unless another stands there by then. */
WARN_UNUSED int dir_keeper_add_socket(struct dir_keeper *k, const char *path, struct err *e);
/* From now on it is about this directory, and can be told no more. */
WARN_UNUSED int dir_keeper_seal(struct dir_keeper *k, const struct vm_dir *d, struct err *e);
/* As vm_dir_rename, but d->path stays: the confined process knows the directory by that name. */
WARN_UNUSED int dir_keeper_rename(struct dir_keeper *k, struct vm_dir *d, const char *name,
				  struct err *e);
/* As vm_dir_release, which is left to do for the lock; then it ends. */
void dir_keeper_release(struct dir_keeper *k, bool keep);
void dir_keeper_done(struct dir_keeper *k); /* accepts one with fd -1 */
