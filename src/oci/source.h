/* source: where an image comes from: a directory in OCI's layout, a tar archive of one or by
 * docker save, or a registry. One thread. */
#pragma once

#include "image/pull.h"
#include "oci/image.h"

/* Bytes of a file. */
struct oci_part {
	int fd; /* the caller's to close */
	uint64_t at, len;
};

struct oci_source {
	struct oci_image image; /* as the source's documents have it */
	/* Layer n, whose bytes need not be what they should: the caller checks its diff_id. */
	int (*layer)(struct oci_source *s, unsigned n, struct oci_part *out, struct err *e);
	void (*free)(struct oci_source *s);
};
void oci_source_free(struct oci_source *s); /* accepts NULL */

/* tag: or NULL. */
WARN_UNUSED int oci_layout_open(struct oci_source **out, const char *path, const char *tag,
				struct err *e);

struct oci_ref {
	char base[300];                    /* "https://registry-1.docker.io" */
	char name[OCI_NAME_MAX], tag[160]; /* tag: or "sha256:..." */
};
/* "[http[s]://][HOST[:PORT]/]NAME[:TAG][@DIGEST]"; without a host it is Docker's hub. The host
 * itself (localhost, 127.0.0.1) is asked by http. */
WARN_UNUSED int oci_ref_parse(const char *text, struct oci_ref *out, struct err *e);
/* st: where layers are kept. */
WARN_UNUSED int oci_registry_open(struct oci_source **out, const struct oci_ref *ref,
				  const struct store *st, struct pull_watcher *w, struct err *e);
