/* bootable: which kind of firmware can start what is on a disk or CD: by the types of its partitions
 * (UEFI 2.10, 5) and the boot catalogue of a CD (El Torito 1.0, UEFI 2.10, 13.3.2). What is read is
 * foreign: what makes no sense counts as not there. */
#pragma once

#include "image/partitions.h"

#define BOOTABLE_BIOS 1u
#define BOOTABLE_UEFI 2u

/* Bits of the above; 0: neither can be seen. A negative errno of the source's. */
int bootable_by(struct disk_source *s);
