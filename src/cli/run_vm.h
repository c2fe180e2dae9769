/* run_vm: 'holon run' for another command that has a VM of its own kind: the terminal, the signals
 * and the control socket are the same. */
#pragma once

#include "cli/cli.h"
#include "control/control.h"
#include "machine/machine.h"

/* All on the calling thread. */
struct run_hooks {
	const char *name; /* of the VM; one that has it already makes it NAME-2 */
	/* The last word on how the machine shall be. */
	int (*config)(struct run_hooks *h, struct machine_config *c, struct err *e);
	/* It is built, can be asked, and is about to run. */
	int (*started)(struct run_hooks *h, struct control *c, struct machine *m, struct err *e);
	/* It ended, or never began (failure: why; else NULL). Nobody asks the control any more when this
	 * returns. */
	void (*ended)(struct run_hooks *h, const struct err *failure);
};

/* For who has threads before: the signals that the VM will take come to nobody else. */
void run_block_signals(void);

/* Returns the exit status. A guest's reset ends the VM, as a power-off does. */
int run_vm(const struct run_opts *o, struct run_hooks *h);
extern const struct run_opts run_defaults;
