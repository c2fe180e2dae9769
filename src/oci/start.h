/* start: the initramfs by which a VM runs an image's command: the agent as its first process, the
 * kernel modules that it needs for the disk, the network and the rest, and what it is to do
 * (agent/init.h). Nothing of ours is put into the image itself. One thread. */
#pragma once

#include <jansson.h>
#include <stdbool.h>

#include "base/bits.h"
#include "base/err.h"

struct oci_start {
	const json_t *config; /* of the image: "oci"."config" of its info */
	char *const *command; /* in place of the image's Cmd; [commands] */
	unsigned commands;
	const char *user, *hostname; /* user: in place of the image's, or NULL */
	const char *console;         /* a device's name: "ttyS0" */
	bool tty, keep;              /* as agent/init.h has them */
	const char *agent;           /* the program's file */
	const char *kernel_root;     /* with lib/modules/VERSION; NULL: the kernel needs none */
};

/* A file without a name, the caller's to close. */
WARN_UNUSED int oci_initramfs(const struct oci_start *s, int *fd, struct err *e);
