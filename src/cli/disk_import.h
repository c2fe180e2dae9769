/* disk_import: image formats that are only imported (VMDK, VHD, VHDX, VDI). qemu-img reads them,
 * as a child that sees nothing of the file system but the folder of the image: a VMDK can name
 * any file of the host as one of its parts. */
#pragma once

#include "cli/disk.h"

/* The format, in qemu-img's words, when that file is one to import: as named, or by what it
 * begins with when named is NULL. Else NULL. */
const char *foreign_of(const char *file, const char *named);
/* qemu-img info of it; printed. */
WARN_UNUSED int import_info(struct disk_job *j, const char *file, const char *format, bool json);
/* Its contents as a raw image into the file to, which is there and empty; with progress. */
WARN_UNUSED int import_raw(struct disk_job *j, const char *file, const char *format, const char *to,
			   bool progress);
