/* client: holon's side of what the agent in a guest does (wire.h), through the Unix socket of the
 * VM's vsock device (docs/devices.md). Calls wait; a signal that ends the process ends them. */
#pragma once

#include "agent/tree.h"

/* Connects, and tries again for up to wait_ms while nobody in the guest listens. The errors:
 * -ECONNREFUSED, no agent answers; what else is wrong with the socket. */
WARN_UNUSED int agent_connect(struct wire *w, const char *vsock, unsigned wait_ms, struct err *e);

struct agent_exec {
	const char *const *argv; /* [args]; args 0: the user's login shell */
	unsigned args;
	const char *const *env; /* [envs], NAME=VALUE */
	unsigned envs;
	const char *user, *dir; /* NULL: root; the user's home */
	bool tty;
	uint16_t rows, columns; /* of the terminal */
};

/* Starts a command on a new connection. After this, frames WIRE_IN, WIRE_RESIZE and WIRE_SIGNAL
 * go there and WIRE_OUT, WIRE_ERR and at last WIRE_EXIT come back. e->code tells why the program
 * could not be run (ENOENT, EACCES, ...); EINVAL: it did not come to that. */
WARN_UNUSED int agent_exec(struct wire *w, const struct agent_exec *x, struct err *e);
/* What a WIRE_EXIT says, as a shell would: 128 and more, a signal. */
WARN_UNUSED int agent_status(const struct frame *f, int *status, struct err *e);

/* Copies from here into the guest, or out of it (tree.h), on a new connection each. */
WARN_UNUSED int agent_put(struct wire *w, const char *user, const char *from, const char *to,
			  struct tree_progress *p, struct err *e);
WARN_UNUSED int agent_get(struct wire *w, const char *user, const char *from, const char *to,
			  struct tree_progress *p, struct err *e);
