/* ahci: a SATA controller (AHCI 1.3.1) whose ports have disks and CD-ROM drives: what firmware,
 * installers and systems without virtio know. Disks take up to 32 queued commands (NCQ) at once;
 * everything else is one command at a time per port.
 *
 * Threads: registers are written on vCPUs' threads, under the device's lock; commands are done on
 * the thread of the loop handed in, to which the images belong. */
#pragma once

#include "base/io_thread.h"
#include "block/block.h"
#include "chipset/device.h"

#define AHCI_PORTS     8u
#define ATA_SERIAL_MAX 20u

enum ata_kind { ATA_NOTHING, ATA_CDROM, ATA_DISK };

struct ahci_drive {
	enum ata_kind kind;
	struct block *image; /* the caller's, open; a CD's: read-only */

	/* Of a disk. The callbacks run on the I/O thread, as virtio/blk.h has them. */
	const char *serial; /* NULL: one by the port's number */
	bool discard;       /* TRIM is offered */
	bool write_through; /* the write cache is off until the driver wants it */
	uint64_t retry_ns;  /* between attempts while the host has no space; 0: a second */
	void (*space)(void *ctx, bool full);
	void (*failed)(void *ctx, enum block_op op, int error);
	void *ctx;
};

struct ahci_opts {
	struct guest_mem *mem;
	struct io_thread *io;
	struct ahci_drive drive[AHCI_PORTS];
};

WARN_UNUSED int ahci_new(struct device **out, struct device *pci_host, uint8_t devfn,
			 const struct ahci_opts *o, struct err *e);
/* vCPUs stopped: returns when no command is under way. None begins until the next reset. Commands
 * that wait for space on the host fail. */
void ahci_pause(struct device *ahci);
