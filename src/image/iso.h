/* iso: a few small files as an ISO 9660 disk in memory (ECMA-119), with the names as they are
 * in a Joliet volume beside it: what cloud-init takes its seed from. One directory, read-only;
 * the same files give the same bytes. */
#pragma once

#include <stdint.h>

#include "base/bits.h"
#include "base/err.h"

struct iso_file {
	const char *name; /* at most 60 characters of ASCII */
	const void *bytes;
	uint32_t len;
};

#define ISO_FILES_MAX 16u

/* *bytes is malloc'ed, a multiple of 2048. label: at most 16 characters of ASCII. */
WARN_UNUSED int iso_make(const char *label, const struct iso_file *file, unsigned files,
			 uint8_t **bytes, uint32_t *len, struct err *e);
