/* sums: files of checksums as sha256sum writes them, and as image builders publish them. */
#pragma once

#include "image/digest.h"

/* The digest of the file called name, of the kind; false when it stands not in it. Lines are
 * "DIGEST  NAME", "DIGEST *NAME" or "SHA256 (NAME) = DIGEST"; what is no such line is passed over. */
bool sums_find(const char *text, const char *name, enum digest_kind kind,
	       char to[DIGEST_LEN_MAX + 1]);
