/* download: a file of a web server, into a file of ours: gone on with where an earlier attempt
 * broke off, as often as there is progress, and checked against its digest.
 *
 * FILE holds what has come so far and is locked meanwhile; FILE.json says by which ETag or date
 * the server can tell that it still has the same. Without one of these, and without a digest,
 * nothing can be gone on with and it begins again. */
#pragma once

#include "image/digest.h"
#include "image/http.h"

struct download_watcher { /* embed it */
	/* done of total bytes (UNKNOWN: nobody knows) are there; at least once a second. False
	 * ends it: -ECANCELED. */
	bool (*step)(struct download_watcher *w, uint64_t done, uint64_t total);
	/* It goes on after a failure, in words. NULL: nobody wants to know. */
	void (*again)(struct download_watcher *w, const char *why);
};

struct download {
	const char *url, *authorization; /* authorization: or NULL */
	const char *file;
	uint64_t size;      /* what is promised, and more is not taken; UNKNOWN: up to the disk */
	const char *digest; /* in hexadecimal; NULL: none is known */
	enum digest_kind kind;
	struct download_watcher *watcher; /* or NULL */
};

/* *fd: the whole file, open and locked, the caller's; who renames or removes it does so before
 * closing that. -EACCES: the server wants (another) authorization, *challenge says which.
 * -ENOENT: it has no such file. -EBUSY: another process fetches it. -EBADMSG: it is not what the
 * digest says, and was removed. */
WARN_UNUSED int download(struct http *h, const struct download *d, int *fd, struct http_reply *r,
			 struct err *e);
void download_forget(const char *file); /* removes what there is of it */
