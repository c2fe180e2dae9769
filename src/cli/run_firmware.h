/* run_firmware: --firmware and --boot of 'holon run': whether firmware starts the machine, which,
 * and from what. */
#pragma once

#include "cli/run_system.h"

/* Fills c->firmware when firmware is asked for, or when the system's disk has no kernel that
 * could be started without. system: NULL when no disk or image was named. Texts are the options'
 * or constants. */
WARN_UNUSED int run_firmware_config(const struct run_opts *o, struct run_system *system,
				    struct machine_config *c, struct err *e);

/* What the options say about it, for 'holon run' to check early. */
WARN_UNUSED int run_firmware_check(const struct run_opts *o, bool has_word, struct err *e);
