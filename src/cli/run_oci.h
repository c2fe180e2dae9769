/* run_oci: what 'holon run oci:IMAGE -- COMMAND' needs beyond the disk: the house's kernel, and an
 * initramfs that runs the command. */
#pragma once

#include "cli/cli.h"
#include "image/store.h"

#define RUN_OCI_PREFIX "oci:"

struct run_oci {
	char *kernel; /* its file; NULL: it is no such run */
	int initrd;   /* -1: none */
	char initrd_path[32];
	char append[1024];
};

bool run_oci_is(const char *word);
/* The image, made if need be; progress is told on standard error. */
WARN_UNUSED int run_oci_image(const struct store *st, const char *word, struct store_image *i,
			      struct err *e);
/* keep: the disk stays after the run. */
WARN_UNUSED int run_oci_init(struct run_oci *r, const struct run_opts *o,
			     const struct store_image *i, const char *hostname, bool keep,
			     char *const *command, unsigned commands, struct err *e);
void run_oci_done(struct run_oci *r); /* accepts one that is all zero but initrd */
