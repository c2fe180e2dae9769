/* inflate: streams that are packed with gzip or zstd, or not at all, told by what they begin
 * with. The bytes are foreign. One thread. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bits.h"
#include "base/err.h"

enum inflate_kind {
	INFLATE_NONE,
	INFLATE_GZIP,
	INFLATE_ZSTD,
	INFLATE_XZ /* known, not unpacked */
};
enum inflate_kind inflate_kind(const void *bytes, size_t len);

struct inflate_sink { /* embed it */
	/* The next unpacked bytes; a negative errno ends it and is returned. */
	int (*data)(struct inflate_sink *s, const void *bytes, size_t len, struct err *e);
};

/* What stands in fd from at on, at most len bytes of it, unpacked into s; used: how much of it was
 * read so far, for others to see (NULL: nobody). It must come to its proper end: -EBADMSG. */
WARN_UNUSED int inflate_fd(int fd, uint64_t at, uint64_t len, struct inflate_sink *s,
			   uint64_t *used, struct err *e);
