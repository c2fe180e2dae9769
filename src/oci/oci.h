/* oci: an image for containers as an image of the store: its layers become one ext4 file system,
 * as a disk of its own, and what it runs stands in the image's info under "oci":
 *   {"id": digest of its configuration, "ref": what it was asked for by, "config": {...}}
 * The same image is made once, wherever it comes from. */
#pragma once

#include "image/pull.h"

/* word: what stands behind "oci:": a directory or an archive, PATH[:TAG], or a reference to a
 * registry, which is asked again only when refresh is wished. */
WARN_UNUSED int oci_get(const struct store *st, const char *word, bool refresh,
			struct pull_watcher *w, struct store_image *out, struct err *e);
