/* run_devices: the options of 'holon run' that make the small devices, into a machine's config. */
#pragma once

#include "cli/cli.h"
#include "machine/machine.h"

struct run_devices {
	char *storage[OPTION_LIST_MAX + 2 +
		      MACHINE_SHARES_MAX]; /* what the config's texts point into */
	unsigned n;
};

WARN_UNUSED int run_devices_config(struct run_devices *d, const struct run_opts *o,
				   struct machine_config *c, struct err *e);
/* The keys that a --share takes. */
extern const struct option share_parts[];

void run_devices_done(struct run_devices *d);
