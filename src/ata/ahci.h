/* ahci: a SATA controller (AHCI 1.3.1) whose ports have CD-ROM drives: what firmware, installers and
 * systems without virtio know. One command at a time per port, no queueing.
 *
 * Threads: registers are written on vCPUs' threads, under the device's lock; commands are done on
 * the thread of the loop handed in, to which the images belong. */
#pragma once

#include "base/io_thread.h"
#include "block/block.h"
#include "chipset/device.h"

#define AHCI_PORTS 4u

struct ahci_opts {
	struct guest_mem *mem;
	struct io_thread *io;
	struct block *cd[AHCI_PORTS]; /* the caller's, open, read-only; NULL: nothing there */
};

WARN_UNUSED int ahci_new(struct device **out, struct device *pci_host, uint8_t devfn,
			 const struct ahci_opts *o, struct err *e);
/* vCPUs stopped: returns when no command is under way. None begins until the next reset. */
void ahci_pause(struct device *ahci);
