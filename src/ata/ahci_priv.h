/* ahci_priv: what the files of the controller share.
 *
 *   ahci.c      registers, life cycle
 *   command.c   a command: out of guest memory, to its end, and what the driver is told then
 *   cdrom.c     what a CD-ROM drive does
 *   disk.c      what a disk does
 *   identify.c  what a disk says of itself */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "ata/ahci.h"
#include "chipset/pci.h"

#define AHCI_SLOTS   32u
#define AHCI_IOV_MAX 512u /* pieces of guest memory in one transfer */
#define CD_SECTOR    2048u
#define DISK_SECTOR  512u
#define FIS_BYTES    20u
#define TRIM_RANGES  64u /* in the one sector of them that a command may have */

/* Status and error register of a drive (ATA8-ACS) */
#define ATA_ERR  0x01
#define ATA_DRQ  0x08
#define ATA_DRDY 0x50 /* with the bit that was "seek complete" */
#define ATA_ABRT 0x04
#define ATA_IDNF 0x10 /* no such sector */
#define ATA_UNC  0x40 /* the data is lost */

/* Port interrupts */
#define IS_DHR 0x00000001u /* a device to host register FIS came */
#define IS_PS  0x00000002u /* a PIO setup FIS came */
#define IS_SDB 0x00000008u /* a set device bits FIS came */
#define IS_TFE 0x40000000u

struct ahci;
struct ahci_port;

/* What a slot's command is doing; the I/O thread's. */
struct ahci_cmd {
	struct ahci_port *p;
	unsigned slot;
	bool queued; /* a command of NCQ, whose slot is its tag */
	uint64_t header, table, fis_area;
	uint8_t fis[FIS_BYTES];
	bool pio, in; /* data went that way, to the guest */
	uint32_t done_bytes;
	uint64_t lba;   /* what the registers tell at the end: */
	uint16_t count; /* both set by the drive */

	struct block_req io;
	struct iovec iov[AHCI_IOV_MAX];
	bool waiting, retried; /* for space on the host; under way again */
	unsigned range;        /* of a TRIM: which is next */
	uint8_t trim[TRIM_RANGES * 8];
};

struct ahci_port {
	struct ahci *a;
	struct ahci_drive drive;

	/* under the controller's lock */
	uint64_t clb, fb;
	uint32_t is, ie, cmd, tfd, sctl, serr, ci, sact, sig;
	bool stopped;     /* by an error, until the driver starts it again */
	uint32_t life;    /* counts the driver's stops: what began before ends unheard */
	uint32_t running; /* slots that the I/O thread has */
	uint32_t began;   /* life when the first of these began */
	bool queued;      /* they are commands of NCQ */

	/* the I/O thread's */
	struct ahci_cmd *slot;         /* [AHCI_SLOTS]; NULL: there is no drive */
	uint8_t sense_key, sense_code; /* a CD's */
	bool no_cache;                 /* a disk's: each write is to be safe when it ends */
	uint8_t multiple;   /* sectors of READ and WRITE MULTIPLE, which is all the same */
	bool failed_queued; /* the log of the last failure of NCQ: */
	uint8_t failed_tag, failed_error;
	uint64_t failed_lba;
	bool full; /* the owner knows that commands wait for space */
	struct timer retry;
};

struct ahci {
	struct device dev;
	struct pci_device pci;
	struct bus_region regs;
	struct guest_mem *mem;
	struct io_thread *io;
	struct loop_call call;
	atomic_bool posted;

	pthread_mutex_t lock; /* guards all below, and what says so in the ports */
	uint32_t ghc, is;
	bool paused;
	bool draining; /* the I/O thread's: nothing begins to wait for space */
	struct ahci_port port[AHCI_PORTS];
};

/* command.c: I/O thread */
void ahci_work(struct loop_call *c);
/* The answer of a command: data into the guest's buffers, at most as much as they hold. */
void ahci_answer(struct ahci_cmd *c, const void *bytes, uint32_t len);
/* Gathers len bytes of the guest's buffers in c->iov; returns how many pieces, 0: they are not
 * there or too many. */
unsigned ahci_gather(struct ahci_cmd *c, uint32_t len);
/* Data has been read into the first c->io.iov_count pieces. */
void ahci_data_came(struct ahci_cmd *c);
/* It ended. Takes the lock. */
void ahci_finish(struct ahci_cmd *c, uint8_t status, uint8_t error);

/* ahci.c: lock held */
void ahci_update_irq(struct ahci *a);
void ahci_kick(struct ahci *a); /* any lock */

/* ATA strings have their bytes swapped in pairs. */
void ata_put_string(uint8_t *to, const char *from, unsigned len);

/* cdrom.c, disk.c, identify.c: I/O thread. Each command ends in ahci_finish. */
void cdrom_identify(struct ahci_cmd *c);
void cdrom_packet(struct ahci_cmd *c, const uint8_t cdb[16]);
void ata_disk_command(struct ahci_cmd *c);
void ata_disk_identify(struct ahci_cmd *c);
void ata_disk_retry(struct timer *t);
/* Commands that wait for space fail: somebody waits for them. */
void ata_disk_give_up(struct ahci_port *p);
void ata_disk_reset(struct ahci_port *p); /* as switched on; lock held, nothing under way */
