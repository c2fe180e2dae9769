/* pull: takes a disk image from a web server, or a file, into the store. */
#pragma once

#include "image/download.h"
#include "image/store.h"

struct pull_opts {
	const char *source;        /* a URL, or a path */
	const char *sha256, *name; /* or NULL */
};

struct pull_watcher {
	/* A step begins. */
	void (*step)(struct pull_watcher *w, const char *what);
	/* total: HTTP_LENGTH_UNKNOWN where nobody knows. False ends it: -ECANCELED. */
	bool (*progress)(struct pull_watcher *w, uint64_t done, uint64_t total);
	/* Something the user should know. */
	void (*note)(struct pull_watcher *w, const char *what);
};

/* A download that tells such a watcher how far it is, and why it goes on anew. */
struct pull_download {
	struct download_watcher download;
	struct pull_watcher *w;
};
struct pull_download pull_download(struct pull_watcher *w);

/* A checksum that is not given is looked for in SHA512SUMS or SHA256SUMS beside the source. The
 * disk must stand alone (no backing file) and be qcow2 or raw, plain or packed with gzip or zstd.
 * What came of a download that fails stays for the next attempt. name: that it has in the store. */
WARN_UNUSED int pull(const struct store *st, const struct pull_opts *o, struct pull_watcher *w,
		     char name[STORE_NAME_MAX + 1], struct err *e);
/* What a source is called without a name given: its file's, without suffixes. */
void pull_name(const char *source, char to[STORE_NAME_MAX + 1]);
