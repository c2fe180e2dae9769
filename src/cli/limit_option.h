/* limit_option: what 'holon run' is told about limits, as the machine wants it. */
#pragma once

#include "cli/cli.h"
#include "resource/resource.h"

struct limit_options {
	struct resource *resource;
	struct cpu_pin pin[OPTION_LIST_MAX]; /* of vCPUs */
	unsigned pins;
};

WARN_UNUSED int limit_options_check(const struct limit_opts *o, struct err *e);
/* Sets the limits of this process, which has no threads yet. */
WARN_UNUSED int limit_options_apply(struct limit_options *l, const struct limit_opts *o,
				    struct err *e);
void limit_options_done(struct limit_options *l); /* accepts one that is all zero */
