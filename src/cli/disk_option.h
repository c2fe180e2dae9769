/* disk_option: what --disk says, "FILE[,KEY[=VALUE]...]", as the machine wants it. */
#pragma once

#include "cli/options.h"
#include "control/plug_args.h"

struct disk_options {
	unsigned n;
	struct machine_disk disk[MACHINE_DISKS_MAX];
	char *storage[MACHINE_DISKS_MAX]; /* their texts */
};

/* *out: zeroed; disk_options_done frees what it holds, also after a failure. */
WARN_UNUSED int disk_options_parse(struct disk_options *out, const struct option_list *list,
				   struct err *e);
void disk_options_done(struct disk_options *d);
