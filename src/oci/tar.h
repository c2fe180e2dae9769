/* tar: reads archives as POSIX (ustar, pax) and GNU tar write them. The bytes are foreign: each
 * number and text has a bound here, and what makes no sense is -EBADMSG. What a path means is
 * the caller's business.
 *
 * One thread. The file is read by pread alone. */
#pragma once

#include <stdint.h>

#include "base/bits.h"
#include "base/err.h"

#define TAR_PATH_MAX   4096u
#define TAR_XATTRS_MAX 32u

enum tar_type { TAR_FILE, TAR_HARD_LINK, TAR_SYMLINK, TAR_CHAR, TAR_BLOCK, TAR_DIR, TAR_FIFO };

struct tar_xattr {
	const char *name;
	const void *value;
	uint32_t len;
};

struct tar_entry { /* texts are the reader's, until the next entry */
	enum tar_type type;
	const char *path, *link;
	uint32_t mode, uid, gid; /* mode: permission bits alone */
	int64_t mtime;
	uint32_t dev_major, dev_minor;
	uint64_t size, at; /* of a file: where its bytes are in the archive's file */
	struct tar_xattr xattr[TAR_XATTRS_MAX];
	unsigned xattrs;
};

struct tar;
/* fd stays the caller's; the archive is len bytes of it from at on. */
WARN_UNUSED int tar_open(struct tar **out, int fd, uint64_t at, uint64_t len, struct err *e);
void tar_close(struct tar *t); /* accepts NULL */
/* 1: the next entry; 0: there is none. */
WARN_UNUSED int tar_next(struct tar *t, struct tar_entry *out, struct err *e);
