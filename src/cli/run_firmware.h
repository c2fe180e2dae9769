/* run_firmware: --firmware and --boot of 'holon run': whether firmware starts the machine, which,
 * and from what. A UEFI's variables are a file of the store, efivars/NAME.fd, which is copied from
 * the firmware's template when the VM of that name has none yet. */
#pragma once

#include "cli/run_system.h"

struct run_firmware {
	char *storage;
	char vars[PATH_MAX / 2];
};

/* Fills c->firmware when firmware is asked for, or when the system's disk has no kernel that
 * could be started without. system: NULL when no disk or image was named. name: the VM's. */
WARN_UNUSED int run_firmware_config(struct run_firmware *f, const struct run_opts *o,
				    struct run_system *system, const char *name,
				    struct machine_config *c, struct err *e);
void run_firmware_done(struct run_firmware *f); /* accepts one that is all zero */

/* What the options say about it, for 'holon run' to check early. */
WARN_UNUSED int run_firmware_check(const struct run_opts *o, struct err *e);
