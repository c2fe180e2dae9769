/* identify: the page of 256 words in which a disk says what it is and can do (ATA8-ACS, 7.16.7). */
#include <stdio.h>
#include <string.h>

#include "ata/ahci_priv.h"

void ata_put_string(uint8_t *to, const char *from, unsigned len)
{
	for (unsigned i = 0, end = (unsigned)strlen(from); i < len; i++)
		to[i ^ 1] = (uint8_t)(i < end ? from[i] : ' ');
}

static void word(uint8_t *id, unsigned n, uint16_t v)
{
	store_le(id + 2 * n, v, 2);
}

static void names(uint8_t *id, const struct ahci_port *p)
{
	char serial[ATA_SERIAL_MAX + 1];

	snprintf(serial, sizeof serial, "HOLON%02u", (unsigned)(p - p->a->port));
	ata_put_string(id + 2 * 10, p->drive.serial ? p->drive.serial : serial, 20);
	ata_put_string(id + 2 * 23, "1.0", 8);
	ata_put_string(id + 2 * 27, "Holon disk", 40);
}

/* Addresses: the geometry that disks of any size have had since 8 GB, and 28 and 48 bits. */
static void size(uint8_t *id, const struct ahci_port *p)
{
	uint64_t sectors = block_size(p->drive.image) / DISK_SECTOR;
	uint64_t cylinders = min_u64(sectors / (16 * 63), 16383);

	word(id, 1, (uint16_t)cylinders);
	word(id, 3, 16);
	word(id, 6, 63);
	word(id, 54, (uint16_t)cylinders);
	word(id, 55, 16);
	word(id, 56, 63);
	store_le(id + 2 * 57, cylinders * 16 * 63, 4);
	store_le(id + 2 * 60, min_u64(sectors, 0x0fffffff), 4);
	store_le(id + 2 * 100, sectors, 8);
	word(id, 106, 0x6003); /* 8 of them are what the medium writes at once */
	word(id, 209, 0x4000); /* and the first begins one */
}

static void modes(uint8_t *id, const struct ahci_port *p)
{
	word(id, 47, 0x8010); /* up to 16 sectors in a READ MULTIPLE */
	word(id, 49, 0x0f00); /* LBA, DMA, IORDY */
	word(id, 50, 0x4000);
	word(id, 53, 0x0007); /* words 54-58, 64-70 and 88 are valid */
	word(id, 59, p->multiple ? 0x0100 | p->multiple : 0);
	word(id, 63, 0x0007); /* multiword DMA 0-2 */
	word(id, 64, 0x0003); /* PIO 3, 4 */
	for (unsigned w = 65; w <= 68; w++)
		word(id, w, 120);
	word(id, 75, AHCI_SLOTS - 1);
	word(id, 76, 0x0102); /* 1.5 Gb/s, NCQ */
	word(id, 80, 0x01f0); /* ATA-4 to 8 */
	word(id, 88, 0x203f); /* Ultra DMA 0-5; 5 is selected */
	word(id, 217, 1);     /* nothing turns */
}

/* Power management, write cache, look-ahead; 48 bits, flushes; logs, FUA. */
static void features(uint8_t *id, const struct ahci_port *p)
{
	word(id, 82, 0x0068);
	word(id, 83, 0x7400);
	word(id, 84, 0x4060);
	word(id, 85, p->no_cache ? 0x0048 : 0x0068);
	word(id, 86, 0x3400);
	word(id, 87, 0x4060);
	if (!p->drive.discard)
		return;
	word(id, 105, 1); /* sector of ranges in a TRIM */
	word(id, 169, 1);
}

void ata_disk_identify(struct ahci_cmd *c)
{
	uint8_t id[512] = {0}, sum = 0;

	word(id, 0, 0x0040); /* ATA, not removable */
	names(id, c->p);
	size(id, c->p);
	modes(id, c->p);
	features(id, c->p);
	id[510] = 0xa5;
	for (unsigned i = 0; i < 511; i++)
		sum += id[i];
	id[511] = (uint8_t)-sum;
	c->pio = true;
	ahci_answer(c, id, sizeof id);
	ahci_finish(c, ATA_DRDY, 0);
}
