/* pflash: a flash chip with Intel's command set (CFI), as UEFI keeps its variables in: read as
 * memory, written and erased by commands. All accesses come here over the bus.
 *
 * Bytes that changed are handed to the owner's save, on the vCPU's thread, so that they outlive the
 * machine. */
#pragma once

#include "chipset/device.h"

#define PFLASH_BLOCK 4096u /* what is erased at once */

struct pflash_opts {
	gpa_t gpa;
	uint8_t *bytes; /* what it holds, the caller's, while the device lives */
	uint32_t len;   /* a multiple of PFLASH_BLOCK */
	/* bytes[at, at + len) changed. May be NULL. */
	void (*save)(void *ctx, uint32_t at, uint32_t len);
	void *ctx;
};

WARN_UNUSED int pflash_new(struct device **out, struct bus *bus, const struct pflash_opts *o,
			   struct err *e);
