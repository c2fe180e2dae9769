/* command: from a slot of the command list to its end: the header and the table in guest memory, all
 * of which is foreign and copied before it is looked at, and the FISes that tell how it went. */
#include "ata/ahci_priv.h"

#include <stdatomic.h>
#include <string.h>

#include "base/auto.h"

#define HEADER_BYTES 32
#define PRDT_AT      0x80
#define PRD_BYTES    16
#define CDB_AT       0x40
#define FIS_H2D      0x27
#define FIS_D2H      0x34
#define FIS_PIO      0x5f
#define FIS_SDB      0xa1
#define FIS_COMMAND  0x80
#define PIO_AT       0x20 /* in the area of received FISes */
#define D2H_AT       0x40
#define SDB_AT       0x58
#define FIS_IRQ      0x40
#define CONTROL_SRST 0x04

#define ATA_DEVICE_RESET    0x08
#define ATA_PACKET          0xa0
#define ATA_IDENTIFY_PACKET 0xa1
#define ATA_SET_FEATURES    0xef

#define CMD_ST 1u

/* --- data --- */

unsigned ahci_gather(struct ahci_cmd *c, uint32_t len)
{
	uint8_t h[4], prd[PRD_BYTES];
	uint32_t entries;
	unsigned n = 0;

	if (mem_read(c->p->a->mem, c->header, h, sizeof h) < 0)
		return 0;
	entries = (uint32_t)load_le(h + 2, 2);
	for (uint32_t i = 0; i < entries && len && n < AHCI_IOV_MAX; i++) {
		uint32_t bytes;

		if (mem_read(c->p->a->mem, c->table + PRDT_AT + i * PRD_BYTES, prd, sizeof prd) < 0)
			return 0;
		bytes = (uint32_t)min_u64((load_le(prd + 12, 4) & 0x3fffff) + 1, len);
		c->iov[n].iov_base = mem_span(c->p->a->mem, load_le(prd, 8), bytes);
		c->iov[n].iov_len = bytes;
		if (!c->iov[n++].iov_base)
			return 0;
		len -= bytes;
	}
	return len ? 0 : n;
}

/* The most that the guest's buffers hold, up to len. */
static uint32_t room(struct ahci_cmd *c, uint32_t len)
{
	while (len && !ahci_gather(c, len))
		len /= 2;
	return len;
}

void ahci_answer(struct ahci_cmd *c, const void *bytes, uint32_t len)
{
	uint32_t fits = ahci_gather(c, len) ? len : room(c, len), at = 0;

	for (unsigned i = 0; at < fits; at += (uint32_t)c->iov[i++].iov_len) {
		memcpy(c->iov[i].iov_base, (const uint8_t *)bytes + at, c->iov[i].iov_len);
		mem_written(c->p->a->mem, c->iov[i].iov_base, c->iov[i].iov_len);
	}
	c->done_bytes = fits;
	c->in = true;
}

void ahci_data_came(struct ahci_cmd *c)
{
	for (unsigned i = 0; i < c->io.iov_count; i++)
		mem_written(c->p->a->mem, c->iov[i].iov_base, c->iov[i].iov_len);
	c->in = true;
}

/* --- the end; lock held --- */

static void send_fis(struct ahci_cmd *c, uint8_t type, unsigned at, uint8_t status, uint8_t error)
{
	uint8_t f[20] = {type, FIS_IRQ, status, error};

	store_le(f + 4, c->lba, 3);
	f[7] = c->fis[7];
	store_le(f + 8, c->lba >> 24, 3);
	store_le(f + 12, c->count, 2);
	if (type == FIS_PIO) {
		f[1] = 0x60; /* towards the host, with an interrupt */
		f[15] = status;
		store_le(f + 16, c->done_bytes & 0xffff, 2);
	}
	(void)!mem_write(c->p->a->mem, c->fis_area + at, f, sizeof f);
}

static void end_queued(struct ahci_cmd *c, uint8_t status, uint8_t error)
{
	struct ahci_port *p = c->p;
	uint32_t done = 1u << c->slot;
	uint8_t f[8] = {FIS_SDB, FIS_IRQ, status & 0x77, error};

	if (status & ATA_ERR) {
		p->failed_queued = true;
		p->failed_tag = (uint8_t)c->slot;
		p->failed_error = error;
		p->failed_lba = c->lba;
	} else {
		store_le(f + 4, done, 4);
		p->sact &= ~done;
	}
	(void)!mem_write(p->a->mem, c->fis_area + SDB_AT, f, sizeof f);
	p->is |= IS_SDB;
}

static void end_alone(struct ahci_cmd *c, uint8_t status, uint8_t error)
{
	struct ahci_port *p = c->p;
	bool pio = c->pio && c->in && !(status & ATA_ERR);
	uint8_t count[4];

	store_le(count, c->done_bytes, 4);
	(void)!mem_write(p->a->mem, c->header + 4, count, sizeof count);
	if (pio)
		send_fis(c, FIS_PIO, PIO_AT, status, error);
	send_fis(c, FIS_D2H, D2H_AT, status, error);
	p->is |= IS_DHR | (pio ? IS_PS : 0);
	if (!(status & ATA_ERR))
		p->ci &= ~(1u << c->slot);
}

void ahci_finish(struct ahci_cmd *c, uint8_t status, uint8_t error)
{
	struct ahci_port *p = c->p;
	struct ahci *a = p->a;
	AUTO_LOCK(&a->lock);

	p->running &= ~(1u << c->slot);
	ahci_kick(a);
	/* The driver has stopped the port, or one of the queue failed: that ends them all. */
	if (p->began != p->life || p->stopped)
		return;
	if (c->queued)
		end_queued(c, status, error);
	else
		end_alone(c, status, error);
	p->tfd = (uint32_t)error << 8 | status;
	if (status & ATA_ERR) {
		p->is |= IS_TFE;
		p->stopped = true;
	}
	ahci_update_irq(a);
}

/* --- the beginning --- */

static void cd_command(struct ahci_cmd *c)
{
	uint8_t cdb[16];

	switch (c->fis[2]) {
	case ATA_PACKET:
		c->pio = !(c->fis[3] & 1);
		if (mem_read(c->p->a->mem, c->table + CDB_AT, cdb, sizeof cdb) < 0)
			break;
		cdrom_packet(c, cdb);
		return;
	case ATA_IDENTIFY_PACKET:
		c->pio = true;
		cdrom_identify(c);
		return;
	case ATA_SET_FEATURES:
	case ATA_DEVICE_RESET: ahci_finish(c, ATA_DRDY, 0); return;
	default: break;
	}
	ahci_finish(c, ATA_DRDY | ATA_ERR, ATA_ABRT);
}

/* A reset, or its end; all is well. The registers say what kind of drive it is. */
static void device_control(struct ahci_cmd *c)
{
	uint32_t sig = c->p->drive.kind == ATA_CDROM ? 0xeb1401 : 0x000001;

	c->lba = sig;
	c->count = 1;
	c->fis[7] = 0;
	ahci_finish(c, ATA_DRDY, 1);
}

/* The slot's header and FIS. */
static void begin(struct ahci_cmd *c)
{
	struct ahci_port *p = c->p;
	uint8_t h[HEADER_BYTES];

	c->pio = c->in = c->waiting = c->retried = false;
	c->done_bytes = c->count = 0;
	c->lba = 0;
	memset(c->fis, 0, sizeof c->fis);
	if (mem_read(p->a->mem, c->header, h, sizeof h) < 0) {
		ahci_finish(c, ATA_DRDY | ATA_ERR, ATA_ABRT);
		return;
	}
	c->table = load_le(h + 8, 8) & ~0x7full;
	if (mem_read(p->a->mem, c->table, c->fis, sizeof c->fis) < 0 || c->fis[0] != FIS_H2D)
		ahci_finish(c, ATA_DRDY | ATA_ERR, ATA_ABRT);
	else if (!(c->fis[1] & FIS_COMMAND))
		device_control(c);
	else if (p->drive.kind == ATA_CDROM)
		cd_command(c);
	else
		ata_disk_command(c);
}

/* Which slot comes next: those of the queue together, others when nothing else is under way. */
static uint32_t ready(const struct ahci_port *p)
{
	if (!p->drive.kind || p->stopped || p->a->paused || !(p->cmd & CMD_ST))
		return 0;
	if (!p->running)
		return p->ci;
	return p->queued && p->began == p->life ? p->ci & p->sact & ~p->running : 0;
}

/* Takes the next command of a port; NULL: there is none that may begin. */
static struct ahci_cmd *take(struct ahci_port *p)
{
	AUTO_LOCK(&p->a->lock);
	uint32_t slots = ready(p);
	struct ahci_cmd *c;

	if (!slots)
		return NULL;
	c = &p->slot[__builtin_ctz(slots)];
	c->header = p->clb + c->slot * HEADER_BYTES;
	c->fis_area = p->fb;
	c->queued = p->sact >> c->slot & 1;
	if (c->queued)
		p->ci &= ~(1u << c->slot); /* the drive has it now, in its queue */
	p->queued = c->queued;
	p->began = p->life;
	p->running |= 1u << c->slot;
	return c;
}

void ahci_work(struct loop_call *call)
{
	struct ahci *a = container_of(call, struct ahci, call);
	struct ahci_cmd *c;

	atomic_store(&a->posted, false);
	/* What ends at once posts this again. */
	for (unsigned i = 0; i < AHCI_PORTS; i++)
		for (unsigned n = 0; n < AHCI_SLOTS && (c = take(&a->port[i])); n++)
			begin(c);
}
