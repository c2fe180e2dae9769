/* kernel: the Linux kernel that a disk would boot, taken out of it, for a machine that starts
 * kernels itself. On any disk with ext2/3/4 where /vmlinuz is a link (Debian), or that has
 * vmlinuz-VERSION in /boot (there the newest counts), on the root file system or on one of
 * its own for /boot. The command line is that of /etc/kernel/cmdline, or else what GRUB
 * would pass (/etc/default/grub), with root= and console=ttyS0 where they are missing.
 *
 * The disk is foreign: see ext.h. */
#pragma once

#include <stdbool.h>

#include "base/err.h"
#include "image/partitions.h"

#define KERNEL_CMDLINE_MAX 2048u

struct guest_kernel {
	int kernel_fd, initrd_fd; /* unnamed files, the caller's to close; initrd_fd may be -1 */
	char name[256];           /* the kernel's file name */
	char cmdline[KERNEL_CMDLINE_MAX];
};

/* -ENOENT: the disk has none, and the error says what was looked for. */
WARN_UNUSED int kernel_find(struct disk_source *s, struct guest_kernel *out, struct err *e);

/* Whether the system on a disk has a file of that path; false also where it cannot be read. */
bool system_has(struct disk_source *s, const char *path);
