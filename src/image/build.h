/* build: makes an image by the script build-debian, which is installed beside Holon or lies in
 * its source tree, and puts it into the store. */
#pragma once

#include "block/block.h"
#include "image/store.h"

#define BUILD_PACKAGES_MAX 32u

struct build_opts {
	const char *name, *suite;
	const char *const *package; /* further ones; [packages] */
	unsigned packages;
	uint64_t size; /* of the disk */
};

struct build_watcher {
	/* A step begins. */
	void (*step)(struct build_watcher *w, const char *what);
	/* Bytes of the disk that are converted; false ends it. */
	bool (*progress)(struct build_watcher *w, uint64_t done, uint64_t total);
};

/* Ends early, with nothing left behind, on SIGINT, SIGTERM or SIGHUP: -ECANCELED. The script
 * and what it starts write to standard error. */
WARN_UNUSED int build_debian(const struct store *st, const struct build_opts *o,
			     struct build_watcher *w, struct err *e);
