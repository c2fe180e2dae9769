/* image: what 'holon image' and 'holon run IMAGE' share. */
#pragma once

#include "cli/cli.h"
#include "cli/interrupt.h"
#include "cli/progress.h"
#include "image/pull.h"

struct image_build_opts {
	const char *suite, *name;
	struct option_list package;
	uint64_t size;
};

struct image_list_opts {
	bool json;
};

struct image_pull_opts {
	const char *sha256, *name;
};

struct image_rm_opts {
	bool force;
};

int cmd_image_build(const void *opts, int words, char **word);
int cmd_image_pull(const void *opts, int words, char **word);
int cmd_image_ls(const void *opts, int words, char **word);
int cmd_image_info(const void *opts, int words, char **word);
int cmd_image_rm(const void *opts, int words, char **word);

/* Builds, telling people how far it is; what went wrong is in e. */
WARN_UNUSED int image_build(const struct store *st, const struct image_build_opts *o,
			    struct err *e);

/* Tells people how a pull goes: steps and a bar on standard error, and ends it on a signal. */
struct pull_telling {
	struct pull_watcher watcher;
	const char *command; /* "image pull" */
	bool brief;          /* nothing in a pipe but notes */
	struct interrupt interrupt;
	struct progress progress;
	bool showing;
	uint64_t done, total;
};
WARN_UNUSED int pull_telling_begin(struct pull_telling *t, const char *command, struct err *e);
void pull_telling_end(struct pull_telling *t);
