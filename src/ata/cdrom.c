/* cdrom: a CD-ROM drive behind ATAPI: the few commands of MMC-3 and SPC-3 by which firmware and
 * systems find a data CD and read it. */
#include <string.h>

#include "ata/ahci_priv.h"

#define TEST_UNIT_READY 0x00
#define REQUEST_SENSE   0x03
#define INQUIRY         0x12
#define MODE_SENSE_6    0x1a
#define START_STOP      0x1b
#define PREVENT_REMOVAL 0x1e
#define READ_CAPACITY   0x25
#define READ_10         0x28
#define SEEK_10         0x2b
#define READ_TOC        0x43
#define GET_CONFIG      0x46
#define GET_EVENT       0x4a
#define READ_DISC_INFO  0x51
#define MODE_SENSE_10   0x5a
#define READ_12         0xa8

#define REASON_DONE 3

#define MEDIUM_ERROR    3
#define ILLEGAL_REQUEST 5
#define READ_ERROR      0x11
#define BAD_COMMAND     0x20
#define BAD_ADDRESS     0x21
#define BAD_FIELD       0x24

static void put_be(uint8_t *to, uint32_t v, unsigned size)
{
	for (unsigned i = 0; i < size; i++)
		to[i] = (uint8_t)(v >> (size - 1 - i) * 8);
}

static uint32_t get_be(const uint8_t *from, unsigned size)
{
	uint32_t v = 0;

	for (unsigned i = 0; i < size; i++)
		v = v << 8 | from[i];
	return v;
}

static void finish(struct ahci_cmd *c, uint8_t status, uint8_t error)
{
	c->lba = (uint64_t)(c->done_bytes & 0xffff) << 8;
	c->count = REASON_DONE;
	ahci_finish(c, status, error);
}

static void refuse(struct ahci_cmd *c, uint8_t key, uint8_t code)
{
	c->p->sense_key = key;
	c->p->sense_code = code;
	finish(c, ATA_DRDY | ATA_ERR, (uint8_t)(key << 4 | ATA_ABRT));
}

static void good(struct ahci_cmd *c)
{
	c->p->sense_key = c->p->sense_code = 0;
	finish(c, ATA_DRDY, 0);
}

/* limit: what the command allows. */
static void answer(struct ahci_cmd *c, const uint8_t *bytes, uint32_t len, uint32_t limit)
{
	ahci_answer(c, bytes, (uint32_t)min_u64(len, limit));
	good(c);
}

static uint32_t sectors(const struct ahci_cmd *c)
{
	return (uint32_t)min_u64(block_size(c->p->drive.image) / CD_SECTOR, UINT32_MAX);
}

void cdrom_identify(struct ahci_cmd *c)
{
	uint8_t id[512] = {0};
	char serial[8] = "HOLON0";

	serial[5] = (char)('0' + (c->p - c->p->a->port));
	store_le(id, 0x85c0, 2); /* ATAPI, CD-ROM, removable, 12-byte packets */
	ata_put_string(id + 20, serial, 20);
	ata_put_string(id + 46, "1.0", 8);
	ata_put_string(id + 54, "Holon CD-ROM", 40);
	store_le(id + 98, 0x0300, 2);  /* DMA, LBA */
	store_le(id + 106, 0x0006, 2); /* words 64-70 and 88 are valid */
	store_le(id + 126, 0x0007, 2); /* multiword DMA 0-2 */
	store_le(id + 128, 0x0003, 2); /* PIO 3, 4 */
	for (unsigned w = 65; w <= 68; w++)
		store_le(id + 2 * w, 120, 2);
	store_le(id + 152, 0x0002, 2); /* SATA 1.5 Gb/s */
	store_le(id + 160, 0x00f0, 2); /* ATA-4 to 7 */
	store_le(id + 176, 0x203f, 2); /* Ultra DMA 0-5; 5 is selected */
	ahci_answer(c, id, sizeof id);
	finish(c, ATA_DRDY, 0);
}

static void read_done(struct block_req *r, int result)
{
	struct ahci_cmd *c = container_of(r, struct ahci_cmd, io);

	ahci_data_came(c);
	c->done_bytes = result < 0 ? 0 : (uint32_t)r->len;
	if (result < 0)
		refuse(c, MEDIUM_ERROR, READ_ERROR);
	else
		good(c);
}

static void cd_read(struct ahci_cmd *c, uint32_t at, uint32_t count)
{
	uint64_t len = (uint64_t)count * CD_SECTOR;
	unsigned n;

	if (at > sectors(c) || count > sectors(c) - at) {
		refuse(c, ILLEGAL_REQUEST, BAD_ADDRESS);
		return;
	}
	if (!count) {
		good(c);
		return;
	}
	n = len > UINT32_MAX ? 0 : ahci_gather(c, (uint32_t)len);
	if (!n) {
		refuse(c, ILLEGAL_REQUEST, BAD_FIELD);
		return;
	}
	c->io = (struct block_req){.op = BLOCK_READ,
				   .offset = (uint64_t)at * CD_SECTOR,
				   .len = len,
				   .iov = c->iov,
				   .iov_count = n,
				   .done = read_done};
	block_submit(c->p->drive.image, &c->io);
}

static void inquiry(struct ahci_cmd *c, uint32_t limit)
{
	uint8_t a[36] = {5, 0x80, 5, 0x32, 31};

	memcpy(a + 8, "HOLON   CD-ROM          1.0 ", 28);
	answer(c, a, sizeof a, limit);
}

static void sense(struct ahci_cmd *c, uint32_t limit)
{
	uint8_t a[18] = {0x70, 0, c->p->sense_key, [7] = 10, [12] = c->p->sense_code};

	answer(c, a, sizeof a, limit);
}

static void capacity(struct ahci_cmd *c)
{
	uint8_t a[8];

	put_be(a, sectors(c) ? sectors(c) - 1 : 0, 4);
	put_be(a + 4, CD_SECTOR, 4);
	answer(c, a, sizeof a, sizeof a);
}

/* An address of the table of contents: a sector's number, or minutes, seconds and frames. */
static void put_address(uint8_t to[4], uint32_t lba, bool msf)
{
	uint32_t frames = lba + 150;

	put_be(to, lba, 4);
	if (!msf)
		return;
	to[0] = 0;
	to[1] = (uint8_t)(frames / 75 / 60);
	to[2] = (uint8_t)(frames / 75 % 60);
	to[3] = (uint8_t)(frames % 75);
}

/* One data track, and where it ends; or that there is one session. */
static void toc(struct ahci_cmd *c, const uint8_t cdb[16])
{
	bool msf = cdb[1] & 2, session = (cdb[2] & 0xf) == 1;
	uint8_t a[20] = {0, 18, 1, 1, 0, 0x14, 1, 0, [13] = 0x14, [14] = 0xaa};
	uint32_t len = session ? 12 : 20;

	if ((cdb[2] & 0xf) > 1) {
		refuse(c, ILLEGAL_REQUEST, BAD_FIELD);
		return;
	}
	a[1] = (uint8_t)(len - 2);
	put_address(a + 8, 0, msf);
	put_address(a + 16, sectors(c), msf);
	answer(c, a, len, get_be(cdb + 7, 2));
}

/* The profile: a CD-ROM is in the drive. */
static void configuration(struct ahci_cmd *c, uint32_t limit)
{
	uint8_t a[16] = {0, 0, 0, 12, 0, 0, 0, 8, 0, 0, 3, 4, 0, 8, 1, 0};

	answer(c, a, sizeof a, limit);
}

static void event(struct ahci_cmd *c, const uint8_t cdb[16])
{
	uint8_t a[8] = {0, 6, 4, 0x10, 0, 2, 0, 0}; /* media class: no event, there is a medium */

	if (!(cdb[1] & 1)) {
		refuse(c, ILLEGAL_REQUEST, BAD_FIELD); /* there is nobody to wait */
		return;
	}
	if (!(cdb[4] & 0x10)) {
		a[1] = 2;
		a[2] = 0x80; /* no event of the classes asked for */
	}
	answer(c, a, cdb[4] & 0x10 ? 8 : 4, get_be(cdb + 7, 2));
}

/* Page 2a, what the drive can do; 3f means all. */
static void mode_sense(struct ahci_cmd *c, uint8_t page, bool ten, uint32_t limit)
{
	uint8_t a[8 + 20] = {0};
	unsigned head = ten ? 8 : 4;

	page &= 0x3f;
	if (page != 0x2a && page != 0x3f) {
		refuse(c, ILLEGAL_REQUEST, BAD_FIELD);
		return;
	}
	a[ten ? 1 : 0] = (uint8_t)(head + 20 - (ten ? 2 : 1));
	a[head] = 0x2a;
	a[head + 1] = 18;
	a[head + 6] = 0x29; /* a tray that can be locked and ejected */
	answer(c, a, head + 20, limit);
}

static void disc_info(struct ahci_cmd *c, uint32_t limit)
{
	uint8_t a[34] = {0, 32, 0x0e, 1, 1, 1, 1}; /* complete, one session, one track */

	answer(c, a, sizeof a, limit);
}

void cdrom_packet(struct ahci_cmd *c, const uint8_t cdb[16])
{
	switch (cdb[0]) {
	case TEST_UNIT_READY:
	case START_STOP:
	case PREVENT_REMOVAL:
	case SEEK_10: good(c); break;
	case REQUEST_SENSE: sense(c, cdb[4]); break;
	case INQUIRY: inquiry(c, get_be(cdb + 3, 2)); break;
	case MODE_SENSE_6: mode_sense(c, cdb[2], false, cdb[4]); break;
	case MODE_SENSE_10: mode_sense(c, cdb[2], true, get_be(cdb + 7, 2)); break;
	case READ_CAPACITY: capacity(c); break;
	case READ_10: cd_read(c, get_be(cdb + 2, 4), get_be(cdb + 7, 2)); break;
	case READ_12: cd_read(c, get_be(cdb + 2, 4), get_be(cdb + 6, 4)); break;
	case READ_TOC: toc(c, cdb); break;
	case GET_CONFIG: configuration(c, get_be(cdb + 7, 2)); break;
	case GET_EVENT: event(c, cdb); break;
	case READ_DISC_INFO: disc_info(c, get_be(cdb + 7, 2)); break;
	default: refuse(c, ILLEGAL_REQUEST, BAD_COMMAND); break;
	}
}
