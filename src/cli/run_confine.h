/* run_confine: what of the host a VM needs once it is built, from its config; everything else is taken from its
 * process (confine/confine.h). */
#pragma once

#include "control/control.h"
#include "machine/machine.h"

enum confine_choice { CONFINE_ON, CONFINE_OFF, CONFINE_STRICT };
#define CONFINE_CHOICES "on|off|strict" /* in that order */

/* After machine_new, before any thread. c: NULL: nobody finds this VM. Says what this host does not allow. */
WARN_UNUSED int run_confine(enum confine_choice how, struct machine *m,
			    const struct machine_config *config, struct control *c, struct err *e);
