/* plug: 'holon attach' and 'holon detach' (docs/hotplug.md). */
#pragma once

#include "cli/cli.h"

extern const struct command attach_command, detach_command;

struct attach_opts {
	struct option_list disks, nets;
};

struct unplug_opts {
	unsigned timeout; /* seconds */
	bool force;
};
