/* vm_define: VMs that are described by a file and kept by name, DATA/holon/definitions/NAME.json
 * (DATA: $XDG_DATA_HOME, or ~/.local/share), to be started again and again.
 *
 * A definition is a JSON object: the options of 'holon run' by their names, and
 *   image       what 'holon run' is given as a word
 *   directory   where paths that do not begin with a slash begin; 'holon create' fills it in
 *   after       names of VMs that are started first */
#pragma once

#include <jansson.h>

#include "cli/cli.h"

extern const struct command create_command, start_command;

struct create_opts {
	const char *file;
	bool schema;
};

struct start_opts {
	bool foreground;
};

int cmd_create(const void *opts, int words, char **word);
int cmd_start(const void *opts, int words, char **word);

/* Calls each(ctx, name) for all, by name. */
WARN_UNUSED int define_list(void (*each)(void *ctx, const char *name), void *ctx, struct err *e);
/* Names of the VMs to be started before it, an array; NULL: none. The caller's. */
json_t *define_after(const char *name);
/* -ENOENT: there is none. */
WARN_UNUSED int define_remove(const char *name, struct err *e);
