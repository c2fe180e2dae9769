/* detach: a VM that goes on without its terminal, and is started again when it ended, if wished.
 *
 * With a restart policy one more process stays, which has made no VM and no thread, waits for the
 * VM's process and makes the next. Killing it leaves the VM alone. */
#pragma once

#include "base/bits.h"
#include "base/err.h"

enum restart_policy { RESTART_NO, RESTART_ON_FAILURE, RESTART_ALWAYS }; /* --restart's list */
#define RESTART_POLICIES "no|on-failure|always"

struct detached {
	int ready_fd; /* written to when the VM is up; -1: we are not detached */
};

/* Calls run(ctx, name, d) in a process of its own, which has no terminal, and returns the status
 * with which this one is to exit: when the VM is up, or has failed to get there. name: the one the
 * VM has to take again; NULL: its first start. */
int detach_run(enum restart_policy restart,
	       int (*run)(void *ctx, const char *name, struct detached *d), void *ctx);

/* The VM of that name is up; what is said from now on goes to log_path. */
WARN_UNUSED int detach_ready(struct detached *d, const char *name, const char *log_path,
			     struct err *e);
