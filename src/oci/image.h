/* image: what the JSON documents of an image say: OCI's index, manifest and configuration (OCI
 * image spec 1.1), Docker's of the same kinds, and the manifest.json of docker save. All of it is
 * foreign. Functions, no state. */
#pragma once

#include <jansson.h>
#include <stdbool.h>

#include "image/digest.h"

#define OCI_LAYERS_MAX   256u
#define OCI_DOCUMENT_MAX MIB(4)
#define OCI_NAME_MAX     256u

struct oci_descriptor {
	char digest[DIGEST_LEN + 1]; /* SHA-256, the only kind that is taken */
	uint64_t size;
};

struct oci_layer {
	struct oci_descriptor blob;
	char name[OCI_NAME_MAX];      /* docker save: its file */
	char diff_id[DIGEST_LEN + 1]; /* of what is in it, unpacked */
};

struct oci_image {
	struct oci_descriptor config_blob;
	char config_name[OCI_NAME_MAX]; /* docker save: its file */
	char id[DIGEST_LEN + 1]; /* the digest of the configuration, which names the layers */
	struct oci_layer *layer; /* owned */
	unsigned layers;
	json_t *config; /* owned: what it runs, "config" of the configuration */
};
void oci_image_done(struct oci_image *i); /* accepts one that is all zero */

/* Of an index: the manifest for Linux on x86-64, of that tag (NULL: any, if there is but one).
 * *manifest false: what was chosen is an index again. 1: the text is no index, but a manifest. */
WARN_UNUSED int oci_parse_index(const char *text, size_t len, const char *tag,
				struct oci_descriptor *out, bool *manifest, struct err *e);
WARN_UNUSED int oci_parse_manifest(const char *text, size_t len, struct oci_image *out,
				   struct err *e);
WARN_UNUSED int oci_parse_docker(const char *text, size_t len, const char *tag,
				 struct oci_image *out, struct err *e);
/* Into an image whose layers are known already. */
WARN_UNUSED int oci_parse_config(const char *text, size_t len, struct oci_image *i, struct err *e);
