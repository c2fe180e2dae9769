/* ahci_priv: what ahci.c (registers), command.c (commands in guest memory) and cdrom.c (what a drive
 * does) share. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "ata/ahci.h"
#include "chipset/pci.h"

#define AHCI_IOV_MAX 512u /* pieces of guest memory in one transfer */
#define CD_SECTOR    2048u

/* Status and error register of a drive (ATA8-ACS) */
#define ATA_ERR  0x01
#define ATA_DRQ  0x08
#define ATA_DRDY 0x50 /* with the bit that was "seek complete" */
#define ATA_ABRT 0x04

/* Port interrupts */
#define IS_DHR 0x00000001u /* a device to host register FIS came */
#define IS_PS  0x00000002u /* a PIO setup FIS came */
#define IS_TFE 0x40000000u

struct ahci;

struct ahci_port {
	struct ahci *a;
	struct block *cd; /* NULL: nothing there */

	/* under the controller's lock */
	uint64_t clb, fb;
	uint32_t is, ie, cmd, tfd, sctl, serr, ci, sig;
	bool busy;     /* the I/O thread has a command of it */
	bool stopped;  /* by an error, until the driver starts it again */
	uint32_t life; /* counts the driver's stops: what began before ends unheard */

	/* the I/O thread's, while busy */
	unsigned slot;
	uint32_t began; /* life then */
	uint64_t header, table, fis_area;
	bool pio, in; /* data went that way, to the guest */
	uint32_t done_bytes, want;
	struct block_req io;
	struct iovec iov[AHCI_IOV_MAX];
	uint8_t sense_key, sense_code;
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
	struct ahci_port port[AHCI_PORTS];
};

/* command.c: I/O thread */
void ahci_work(struct loop_call *c);
/* The answer of a command: data into the guest's buffers, at most as much as they hold. */
void ahci_answer(struct ahci_port *p, const void *bytes, uint32_t len);
/* Gathers len bytes of the guest's buffers in p->iov; returns how many pieces, 0: they are not
 * there or too many. */
unsigned ahci_gather(struct ahci_port *p, uint32_t len);
/* It ended. Takes the lock. */
void ahci_finish(struct ahci_port *p, uint8_t status, uint8_t error);

/* ahci.c: lock held */
void ahci_update_irq(struct ahci *a);
void ahci_kick(struct ahci *a); /* any lock */

/* cdrom.c: I/O thread */
void cdrom_identify(struct ahci_port *p);
void cdrom_packet(struct ahci_port *p, const uint8_t cdb[16]);
