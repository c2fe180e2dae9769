/* disk: a SATA disk (ATA8-ACS): reads and writes in all their forms, from one at a time with 28-bit
 * addresses to NCQ; flush, write cache, TRIM. Data goes between the image and guest memory without a
 * copy.
 *
 * No space on the host: the command is kept and tried again, as virtio/blk.c does; the owner is told
 * when that begins and ends. */
#include <errno.h>
#include <string.h>

#include "ata/ahci_priv.h"

#define DATA_SET_MANAGEMENT 0x06
#define RECALIBRATE         0x10
#define READ_SECTORS        0x20
#define READ_SECTORS_EXT    0x24
#define READ_DMA_EXT        0x25
#define READ_MULTIPLE_EXT   0x29
#define READ_LOG_EXT        0x2f
#define WRITE_SECTORS       0x30
#define WRITE_SECTORS_EXT   0x34
#define WRITE_DMA_EXT       0x35
#define WRITE_MULTIPLE_EXT  0x39
#define WRITE_DMA_FUA_EXT   0x3d
#define READ_VERIFY         0x40
#define READ_VERIFY_EXT     0x42
#define READ_FPDMA          0x60
#define WRITE_FPDMA         0x61
#define SEEK                0x70
#define DEVICE_PARAMETERS   0x91
#define READ_MULTIPLE       0xc4
#define WRITE_MULTIPLE      0xc5
#define SET_MULTIPLE        0xc6
#define READ_DMA            0xc8
#define WRITE_DMA           0xca
#define WRITE_MULTIPLE_FUA  0xce
#define STANDBY_IMMEDIATE   0xe0
#define IDLE_IMMEDIATE      0xe1
#define STANDBY             0xe2
#define IDLE                0xe3
#define CHECK_POWER         0xe5
#define SLEEP               0xe6
#define FLUSH               0xe7
#define FLUSH_EXT           0xea
#define IDENTIFY            0xec
#define SET_FEATURES        0xef

#define DEVICE_LBA 0x40 /* else cylinder, head and sector, which no driver of SATA uses */
#define FUA_QUEUED 0x80 /* in the device register of NCQ */
#define TRIM       1    /* what DATA SET MANAGEMENT does */
#define LOG_QUEUE  0x10

#define RETRY_DEFAULT_NS UINT64_C(1000000000)

enum form { PLAIN, EXT, QUEUED };

static void refuse(struct ahci_cmd *c)
{
	ahci_finish(c, ATA_DRDY | ATA_ERR, ATA_ABRT);
}

static void good(struct ahci_cmd *c)
{
	ahci_finish(c, ATA_DRDY, 0);
}

/* --- no space on the host --- */

static void tell_space(struct ahci_port *p)
{
	bool full = false;

	for (unsigned i = 0; i < AHCI_SLOTS; i++)
		full |= p->slot[i].waiting || p->slot[i].retried;
	if (full == p->full)
		return;
	p->full = full;
	if (p->drive.space)
		p->drive.space(p->drive.ctx, full);
}

static void wait_for_space(struct ahci_cmd *c)
{
	struct ahci_port *p = c->p;
	struct clock *clock = loop_clock(io_thread_loop(p->a->io));
	uint64_t after = p->drive.retry_ns ? p->drive.retry_ns : RETRY_DEFAULT_NS;

	c->waiting = true;
	c->retried = false;
	timer_arm(clock, &p->retry, clock_now(clock) + after);
	tell_space(p);
}

void ata_disk_retry(struct timer *t)
{
	struct ahci_port *p = container_of(t, struct ahci_port, retry);

	for (unsigned i = 0; i < AHCI_SLOTS; i++) {
		struct ahci_cmd *c = &p->slot[i];

		if (!c->waiting)
			continue;
		c->waiting = false;
		c->retried = true;
		block_submit(p->drive.image, &c->io);
	}
}

void ata_disk_give_up(struct ahci_port *p)
{
	timer_cancel(loop_clock(io_thread_loop(p->a->io)), &p->retry);
	for (unsigned i = 0; i < AHCI_SLOTS; i++)
		if (p->slot[i].waiting) {
			p->slot[i].waiting = false;
			ahci_finish(&p->slot[i], ATA_DRDY | ATA_ERR, ATA_ABRT);
		}
	tell_space(p);
}

/* --- what the image does --- */

static void trim_next(struct ahci_cmd *c);

static uint8_t error_of(const struct ahci_cmd *c)
{
	return c->io.op == BLOCK_READ ? ATA_UNC : ATA_ABRT;
}

static void io_done(struct block_req *r, int result)
{
	struct ahci_cmd *c = container_of(r, struct ahci_cmd, io);
	struct ahci_port *p = c->p;

	/* A stop gives up all that waits: what comes later must not begin to. */
	if ((result == -ENOSPC || result == -EDQUOT) && !p->a->draining) {
		wait_for_space(c);
		return;
	}
	if (c->retried) {
		c->retried = false;
		tell_space(p);
	}
	if (r->op == BLOCK_READ)
		ahci_data_came(c);
	if (result < 0) {
		if (p->drive.failed)
			p->drive.failed(p->drive.ctx, r->op, -result);
		ahci_finish(c, ATA_DRDY | ATA_ERR, error_of(c));
	} else if (r->op == BLOCK_DISCARD) {
		trim_next(c);
	} else {
		c->done_bytes = (uint32_t)r->len;
		good(c);
	}
}

static void submit(struct ahci_cmd *c, enum block_op op, unsigned flags, uint64_t offset,
		   uint64_t len, unsigned pieces)
{
	c->io = (struct block_req){.op = op,
				   .flags = flags,
				   .offset = offset,
				   .len = len,
				   .iov = c->iov,
				   .iov_count = pieces,
				   .done = io_done};
	block_submit(c->p->drive.image, &c->io);
}

/* --- reads and writes --- */

/* Where the registers point; *count: sectors. */
static uint64_t address(const uint8_t *f, enum form form, uint32_t *count)
{
	const uint8_t *n = form == QUEUED ? f + 3 : f + 12; /* the feature register holds it then */
	uint64_t lba = load_le(f + 4, 3);

	if (form == PLAIN) {
		*count = f[12] ? f[12] : 256;
		return lba | (uint64_t)(f[7] & 0xf) << 24;
	}
	*count = n[0] | (uint32_t)(form == QUEUED ? f[11] : n[1]) << 8;
	*count = *count ? *count : 65536;
	return lba | load_le(f + 8, 3) << 24;
}

/* Whether there is such a range; if not, the command has ended. */
static bool range(struct ahci_cmd *c, enum form form, uint64_t *offset, uint64_t *len)
{
	uint64_t sectors = block_size(c->p->drive.image) / DISK_SECTOR;
	uint32_t count;
	uint64_t lba = address(c->fis, form, &count);

	c->lba = lba;
	if (!(c->fis[7] & DEVICE_LBA)) {
		refuse(c);
		return false;
	}
	if (lba >= sectors || count > sectors - lba) {
		ahci_finish(c, ATA_DRDY | ATA_ERR, ATA_IDNF);
		return false;
	}
	*offset = lba * DISK_SECTOR;
	*len = (uint64_t)count * DISK_SECTOR;
	return true;
}

static void transfer(struct ahci_cmd *c, enum block_op op, enum form form, bool fua)
{
	uint64_t offset, len;
	unsigned pieces;

	if (!range(c, form, &offset, &len))
		return;
	pieces = ahci_gather(c, (uint32_t)len);
	if (!pieces) {
		refuse(c);
		return;
	}
	fua = op == BLOCK_WRITE && (fua || c->p->no_cache);
	submit(c, op, fua ? BLOCK_FUA : 0, offset, len, pieces);
}

/* There is nothing to verify that reading would not tell. */
static void verify(struct ahci_cmd *c, enum form form)
{
	uint64_t offset, len;

	if (range(c, form, &offset, &len))
		good(c);
}

/* --- TRIM: entries of 48 bits of address and 16 of length --- */

static void trim_next(struct ahci_cmd *c)
{
	uint64_t sectors = block_size(c->p->drive.image) / DISK_SECTOR;

	while (c->range < TRIM_RANGES) {
		uint64_t entry = load_le(c->trim + c->range++ * 8, 8);
		uint64_t lba = entry & (BIT(48) - 1), count = entry >> 48;

		if (!count)
			continue;
		if (lba >= sectors || count > sectors - lba) {
			c->lba = lba;
			ahci_finish(c, ATA_DRDY | ATA_ERR, ATA_IDNF);
			return;
		}
		submit(c, BLOCK_DISCARD, 0, lba * DISK_SECTOR, count * DISK_SECTOR, 0);
		return; /* io_done comes back here: at most as deep as there are entries */
	}
	good(c);
}

static void trim(struct ahci_cmd *c)
{
	uint32_t at = 0, count = (uint32_t)load_le(c->fis + 12, 2);
	unsigned pieces;

	if (!c->p->drive.discard || c->fis[3] != TRIM || count != 1) {
		refuse(c);
		return;
	}
	pieces = ahci_gather(c, sizeof c->trim);
	for (unsigned i = 0; i < pieces; at += (uint32_t)c->iov[i++].iov_len)
		memcpy(c->trim + at, c->iov[i].iov_base, c->iov[i].iov_len);
	if (at < sizeof c->trim) {
		refuse(c);
		return;
	}
	c->range = 0;
	trim_next(c);
}

/* --- the rest --- */

static void set_features(struct ahci_cmd *c)
{
	switch (c->fis[3]) {
	case 0x02: c->p->no_cache = false; break;
	case 0x82:
		/* What is in the cache now is still to be flushed by the driver (7.45.8). */
		c->p->no_cache = true;
		break;
	case 0x03: /* transfer mode */
	case 0x55: /* look-ahead off, on */
	case 0xaa:
	case 0x66: /* defaults after a soft reset: kept or not */
	case 0xcc: break;
	default: refuse(c); return;
	}
	good(c);
}

static void set_multiple(struct ahci_cmd *c)
{
	uint8_t n = c->fis[12];

	if (n > 16 || n & (n - 1)) {
		refuse(c);
		return;
	}
	c->p->multiple = n;
	good(c);
}

/* The list of logs, and which command of the queue failed, and where. Reading that ends it. */
static void read_log(struct ahci_cmd *c)
{
	struct ahci_port *p = c->p;
	uint8_t page[DISK_SECTOR] = {0}, sum = 0;

	if (load_le(c->fis + 12, 2) != 1 || (c->fis[4] != 0 && c->fis[4] != LOG_QUEUE)) {
		refuse(c);
		return;
	}
	if (c->fis[4] == 0) {
		page[0] = 1; /* version */
		page[LOG_QUEUE * 2] = 1;
	} else {
		page[0] = p->failed_queued ? p->failed_tag : 0x80;
		page[2] = p->failed_queued ? ATA_DRDY | ATA_ERR : 0;
		page[3] = p->failed_error;
		store_le(page + 4, p->failed_lba, 3);
		page[7] = DEVICE_LBA;
		store_le(page + 8, p->failed_lba >> 24, 3);
		for (unsigned i = 0; i < sizeof page - 1; i++)
			sum += page[i];
		page[sizeof page - 1] = (uint8_t)-sum;
		p->failed_queued = false;
		p->failed_error = 0;
		p->failed_lba = 0;
	}
	c->pio = true;
	ahci_answer(c, page, sizeof page);
	good(c);
}

static void queued_command(struct ahci_cmd *c)
{
	bool fua = c->fis[7] & FUA_QUEUED;

	if (c->fis[12] >> 3 != c->slot)
		refuse(c);
	else if (c->fis[2] == READ_FPDMA)
		transfer(c, BLOCK_READ, QUEUED, fua);
	else if (c->fis[2] == WRITE_FPDMA)
		transfer(c, BLOCK_WRITE, QUEUED, fua);
	else
		refuse(c);
}

void ata_disk_command(struct ahci_cmd *c)
{
	uint8_t command = c->fis[2];

	if (c->queued) {
		queued_command(c);
		return;
	}
	switch (command) {
	case READ_SECTORS:
	case READ_MULTIPLE:
		c->pio = true;
		/* fall through */
	case READ_DMA: transfer(c, BLOCK_READ, PLAIN, false); break;
	case READ_SECTORS_EXT:
	case READ_MULTIPLE_EXT:
		c->pio = true;
		/* fall through */
	case READ_DMA_EXT: transfer(c, BLOCK_READ, EXT, false); break;
	case WRITE_SECTORS:
	case WRITE_MULTIPLE:
	case WRITE_DMA: transfer(c, BLOCK_WRITE, PLAIN, false); break;
	case WRITE_SECTORS_EXT:
	case WRITE_MULTIPLE_EXT:
	case WRITE_DMA_EXT: transfer(c, BLOCK_WRITE, EXT, false); break;
	case WRITE_DMA_FUA_EXT:
	case WRITE_MULTIPLE_FUA: transfer(c, BLOCK_WRITE, EXT, true); break;
	case READ_VERIFY: verify(c, PLAIN); break;
	case READ_VERIFY_EXT: verify(c, EXT); break;
	case FLUSH:
	case FLUSH_EXT: submit(c, BLOCK_FLUSH, 0, 0, 0, 0); break;
	case DATA_SET_MANAGEMENT: trim(c); break;
	case IDENTIFY: ata_disk_identify(c); break;
	case READ_LOG_EXT: read_log(c); break;
	case SET_FEATURES: set_features(c); break;
	case SET_MULTIPLE: set_multiple(c); break;
	case CHECK_POWER:
		c->count = 0xff; /* active or idle */
		good(c);
		break;
	case RECALIBRATE:
	case SEEK:
	case DEVICE_PARAMETERS:
	case STANDBY_IMMEDIATE:
	case IDLE_IMMEDIATE:
	case STANDBY:
	case IDLE:
	case SLEEP: good(c); break;
	default: refuse(c); break;
	}
}

void ata_disk_reset(struct ahci_port *p)
{
	p->no_cache = p->drive.write_through;
	p->multiple = 0;
	p->failed_queued = false;
	p->failed_tag = p->failed_error = 0;
	p->failed_lba = 0;
}
