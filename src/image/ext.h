/* ext: files of an ext2, ext3 or ext4 file system that nobody has mounted, through libext2fs.
 *
 * The disk is a guest's and may be hostile. libext2fs keeps its bounds; what it reads is
 * limited here in number and in time, so that no loop in the file system holds us. The
 * journal is not replayed: of a system that was not shut down, what is found is what its
 * last checkpoint left.
 *
 * One thread. Nothing is written. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/bits.h"
#include "base/err.h"
#include "image/partitions.h"

struct ext;

/* s stays the caller's, and is used until ext_close. -ENOEXEC: it has no such file system. */
WARN_UNUSED int ext_open(struct ext **out, struct disk_source *s, struct err *e);
void ext_close(struct ext *x); /* accepts NULL */

void ext_uuid(const struct ext *x, char to[37]);

/* Paths are from the file system's root; symbolic links are followed within it. */
bool ext_has(struct ext *x, const char *path);
/* Where a symbolic link points, at most len - 1 bytes; false when path is none. */
bool ext_link(struct ext *x, const char *path, char *to, uint32_t len);
/* Each name in a directory, until name() returns false. */
WARN_UNUSED int ext_list(struct ext *x, const char *path, bool (*name)(void *ctx, const char *name),
			 void *ctx, struct err *e);
/* A text file's beginning, NUL-ended: at most len - 1 bytes. -ENOENT: there is none. */
WARN_UNUSED int ext_text(struct ext *x, const char *path, char *to, uint32_t len, struct err *e);
/* Copies a file of at most max bytes to the end of fd. */
WARN_UNUSED int ext_copy(struct ext *x, const char *path, uint64_t max, int fd, struct err *e);
