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
#define FIS_COMMAND  0x80
#define PIO_AT       0x20 /* in the area of received FISes */
#define D2H_AT       0x40
#define CONTROL_SRST 0x04

#define ATA_DEVICE_RESET    0x08
#define ATA_PACKET          0xa0
#define ATA_IDENTIFY_PACKET 0xa1
#define ATA_SET_FEATURES    0xef
#define REASON_DONE         3

#define CMD_ST 1u

/* --- data --- */

unsigned ahci_gather(struct ahci_port *p, uint32_t len)
{
	uint8_t h[4], prd[PRD_BYTES];
	uint32_t entries;
	unsigned n = 0;

	if (mem_read(p->a->mem, p->header, h, sizeof h) < 0)
		return 0;
	entries = (uint32_t)load_le(h + 2, 2);
	for (uint32_t i = 0; i < entries && len && n < AHCI_IOV_MAX; i++) {
		uint32_t bytes;

		if (mem_read(p->a->mem, p->table + PRDT_AT + i * PRD_BYTES, prd, sizeof prd) < 0)
			return 0;
		bytes = (uint32_t)min_u64((load_le(prd + 12, 4) & 0x3fffff) + 1, len);
		p->iov[n].iov_base = mem_span(p->a->mem, load_le(prd, 8), bytes);
		p->iov[n].iov_len = bytes;
		if (!p->iov[n++].iov_base)
			return 0;
		len -= bytes;
	}
	return len ? 0 : n;
}

/* The most that the guest's buffers hold, up to len. */
static uint32_t room(struct ahci_port *p, uint32_t len)
{
	while (len && !ahci_gather(p, len))
		len /= 2;
	return len;
}

void ahci_answer(struct ahci_port *p, const void *bytes, uint32_t len)
{
	uint32_t fits = ahci_gather(p, len) ? len : room(p, len), at = 0;

	for (unsigned i = 0; at < fits; at += (uint32_t)p->iov[i++].iov_len) {
		memcpy(p->iov[i].iov_base, (const uint8_t *)bytes + at, p->iov[i].iov_len);
		mem_written(p->a->mem, p->iov[i].iov_base, p->iov[i].iov_len);
	}
	p->done_bytes = fits;
	p->in = true;
}

/* --- the end --- */

static void send_fis(struct ahci_port *p, uint8_t type, unsigned at, uint8_t status, uint8_t error)
{
	uint8_t f[20] = {type, 0x40, status, error};

	f[12] = REASON_DONE;
	f[5] = (uint8_t)p->done_bytes;
	f[6] = (uint8_t)(p->done_bytes >> 8);
	if (type == FIS_PIO) {
		f[1] = 0x60; /* towards the host, with an interrupt */
		f[15] = status;
		store_le(f + 16, p->done_bytes & 0xffff, 2);
	}
	(void)!mem_write(p->a->mem, p->fis_area + at, f, sizeof f);
}

void ahci_finish(struct ahci_port *p, uint8_t status, uint8_t error)
{
	struct ahci *a = p->a;
	bool pio = p->pio && p->in && !(status & ATA_ERR);
	uint8_t count[4];
	AUTO_LOCK(&a->lock);

	p->busy = false;
	if (p->began != p->life)
		return; /* the driver has stopped the port */
	store_le(count, p->done_bytes, 4);
	(void)!mem_write(a->mem, p->header + 4, count, sizeof count);
	if (pio)
		send_fis(p, FIS_PIO, PIO_AT, status, error);
	send_fis(p, FIS_D2H, D2H_AT, status, error);
	p->tfd = (uint32_t)error << 8 | status;
	p->is |= IS_DHR | (pio ? IS_PS : 0) | (status & ATA_ERR ? IS_TFE : 0);
	if (status & ATA_ERR)
		p->stopped = true;
	else
		p->ci &= ~(1u << p->slot);
	ahci_update_irq(a);
	ahci_kick(a);
}

/* --- the beginning --- */

static void run_command(struct ahci_port *p, const uint8_t fis[20])
{
	uint8_t cdb[16];

	switch (fis[2]) {
	case ATA_PACKET:
		p->pio = !(fis[3] & 1);
		if (mem_read(p->a->mem, p->table + CDB_AT, cdb, sizeof cdb) < 0)
			break;
		cdrom_packet(p, cdb);
		return;
	case ATA_IDENTIFY_PACKET:
		p->pio = true;
		cdrom_identify(p);
		return;
	case ATA_SET_FEATURES:
	case ATA_DEVICE_RESET: ahci_finish(p, ATA_DRDY, 0); return;
	default: break;
	}
	ahci_finish(p, ATA_DRDY | ATA_ERR, ATA_ABRT);
}

/* The slot's header and FIS. */
static void begin(struct ahci_port *p)
{
	uint8_t h[HEADER_BYTES], fis[20];

	p->pio = p->in = false;
	p->done_bytes = 0;
	if (mem_read(p->a->mem, p->header, h, sizeof h) < 0) {
		ahci_finish(p, ATA_DRDY | ATA_ERR, ATA_ABRT);
		return;
	}
	p->table = load_le(h + 8, 8) & ~0x7full;
	if (mem_read(p->a->mem, p->table, fis, sizeof fis) < 0 || fis[0] != FIS_H2D)
		ahci_finish(p, ATA_DRDY | ATA_ERR, ATA_ABRT);
	else if (fis[1] & FIS_COMMAND)
		run_command(p, fis);
	else
		ahci_finish(p, ATA_DRDY, 1); /* device control: a reset, or its end; all is well */
}

/* Takes the next command of a port. */
static bool take(struct ahci_port *p)
{
	AUTO_LOCK(&p->a->lock);

	if (!p->cd || p->busy || p->stopped || p->a->paused || !(p->cmd & CMD_ST) || !p->ci)
		return false;
	p->slot = (unsigned)__builtin_ctz(p->ci);
	p->header = p->clb + p->slot * HEADER_BYTES;
	p->fis_area = p->fb;
	p->began = p->life;
	p->busy = true;
	return true;
}

void ahci_work(struct loop_call *c)
{
	struct ahci *a = container_of(c, struct ahci, call);

	atomic_store(&a->posted, false);
	for (unsigned i = 0; i < AHCI_PORTS; i++)
		if (take(&a->port[i]))
			begin(&a->port[i]);
}
