/* qemu_img: runs qemu-img for formats that are not ours, without a shell, and confined by
 * Landlock: it may read its own program files and one folder, and write one file. */
#pragma once

#include <stddef.h>
#include <sys/types.h>

#include "base/bits.h"
#include "base/err.h"

struct qemu_img {
	const char *argv[12];   /* without "qemu-img" itself; NULL-ended */
	const char *read_dir;   /* with all that is in it */
	const char *write_file; /* NULL: nothing */
	int stop_fd;            /* readable: end it; -1: never */
	/* What it prints, as it comes. */
	void (*output)(void *ctx, const char *text, size_t len);
	void *ctx;
};

/* -ENOENT: there is no qemu-img. -ECANCELED: stop_fd. -EIO: it failed and said why on standard
 * error. */
WARN_UNUSED int qemu_img_run(const struct qemu_img *q, struct err *e);
