/* store: where images of whole systems live, under $XDG_DATA_HOME/holon (~/.local/share/holon):
 *
 *   images/sha256/DIGEST.qcow2   an image, read-only, named by what is in it
 *   images/sha256/DIGEST.json    how it was made (struct store_image.info)
 *   images/names/NAME            a link to that JSON file
 *   images/temp/XXXXXX/          what is being made; whoever finds one without its owner removes it
 *   images/partial/              downloads that are not finished (download.h)
 *   images/layers/DIGEST         layers of OCI images, packed, as registries have them
 *   images/lock                  flock'ed while a name or an image goes away, and while one that
 *                                is there gets a user
 *   vms/NAME/                    a VM's disk over an image, and vm.json (vm.h)
 *
 * All changes are renames, so that a crash leaves the old or the new, and several processes
 * may work here at once. One thread per struct. */
#pragma once

#include <jansson.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/bits.h"
#include "base/err.h"
#include "image/digest.h"

#define STORE_NAME_MAX 64u

struct store {
	char root[PATH_MAX / 4]; /* .../holon */
};

/* Makes the directories. dir: NULL for the user's own. */
WARN_UNUSED int store_open(struct store *st, const char *dir, struct err *e);
/* A name: letters, digits, '-', '_' and '.', none of the last three at the beginning. */
WARN_UNUSED int store_check_name(const char *what, const char *name, struct err *e);

struct store_image {
	char name[STORE_NAME_MAX + 1]; /* empty: no name leads to it any more */
	char digest[DIGEST_LEN + 1];
	char file[PATH_MAX / 2];
	uint64_t file_bytes; /* that it takes on the host's disk */
	json_t *info;        /* owned */
};
void store_image_done(struct store_image *i); /* accepts one that is all zero */

/* By name, or by the beginning (6 digits or more) of its digest. -ENOENT: there is none. */
WARN_UNUSED int store_find(const struct store *st, const char *name, struct store_image *out,
			   struct err *e);
/* Calls each(ctx, image) for all, those without a name too, until it returns false. */
WARN_UNUSED int store_list(const struct store *st,
			   bool (*each)(void *ctx, const struct store_image *i), void *ctx,
			   struct err *e);

/* A new directory to work in; *lock is held as long as anybody has that descriptor, child
 * processes included. */
WARN_UNUSED int store_work_new(const struct store *st, char path[PATH_MAX / 2], int *lock,
			       struct err *e);
void store_work_free(const char *path, int lock); /* and all that is in it */

/* Takes a finished image file (from a work directory) in, and lets name lead to it; what name
 * led to before goes away unless another name or a VM needs it. */
WARN_UNUSED int store_add(const struct store *st, const char *name, const char *file, json_t *info,
			  struct err *e);

/* Removes a name, and the image when no other name leads to it. -EBUSY: VMs are based on it;
 * force removes it all the same, and they are good for nothing then. */
WARN_UNUSED int store_remove(const struct store *st, const char *name, bool force, struct err *e);

/* Holds off removals until the descriptor is closed. */
WARN_UNUSED int store_hold(const struct store *st, int *lock, struct err *e);

/* Names of VMs that are based on an image, in words: "a, b"; false when there are none. */
bool store_users(const struct store *st, const char *digest, char *to, uint32_t len);
