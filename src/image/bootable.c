#include "image/bootable.h"

#include <stdbool.h>
#include <string.h>

#define SECTOR      512u
#define GPT_ENTRY   128u
#define GPT_ENTRIES 128u
#define MBR_CODE    440u /* bytes before the table that a BIOS jumps to */
#define MBR_GPT     0xee
#define MBR_ESP     0xef

#define CD_SECTOR       2048u
#define CD_RECORD       17u /* the boot record, if there is one */
#define CD_CATALOGUE_AT 0x47
#define PLATFORM_UEFI   0xef

static const uint8_t type_esp[16] = {0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11,
				     0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b};
/* Where boot loaders for a BIOS lie on a GPT disk: GRUB's, and FreeBSD's. */
static const uint8_t type_bios[][16] = {{0x48, 0x61, 0x68, 0x21, 0x49, 0x64, 0x6f, 0x6e, 0x74, 0x4e,
					 0x65, 0x65, 0x64, 0x45, 0x46, 0x49},
					{0x9d, 0x6b, 0xbd, 0x83, 0x41, 0x7f, 0xdc, 0x11, 0xbe, 0x0b,
					 0x00, 0x15, 0x60, 0xb8, 0x4f, 0x0f}};

static unsigned by_type(const uint8_t *type)
{
	if (memcmp(type, type_esp, sizeof type_esp) == 0)
		return BOOTABLE_UEFI;
	for (unsigned i = 0; i < ARRAY_SIZE(type_bios); i++)
		if (memcmp(type, type_bios[i], sizeof type_bios[i]) == 0)
			return BOOTABLE_BIOS;
	return 0;
}

static int by_gpt(struct disk_source *s)
{
	uint8_t head[SECTOR], entry[GPT_ENTRY];
	unsigned by = 0, count;
	uint64_t table;
	int r = s->read(s, SECTOR, head, sizeof head);

	if (r < 0)
		return r;
	table = load_le(head + 72, 8);
	count = (unsigned)min_u64(load_le(head + 80, 4), GPT_ENTRIES);
	if (memcmp(head, "EFI PART", 8) != 0 || load_le(head + 84, 4) != GPT_ENTRY ||
	    table >= s->size / SECTOR)
		return 0;
	for (unsigned i = 0; i < count; i++) {
		uint64_t at = table * SECTOR + i * GPT_ENTRY;

		if (at > s->size - GPT_ENTRY)
			break;
		if ((r = s->read(s, at, entry, sizeof entry)) < 0)
			return r;
		by |= by_type(entry);
	}
	return (int)by;
}

/* The first sector of a disk. Without a GPT, what its code does is not known: it counts. */
static int by_mbr(struct disk_source *s)
{
	static const uint8_t no_code[MBR_CODE];
	uint8_t mbr[SECTOR];
	bool esp = false;
	int r = s->read(s, 0, mbr, sizeof mbr);

	if (r < 0)
		return r;
	if (mbr[510] != 0x55 || mbr[511] != 0xaa)
		return 0;
	for (unsigned i = 0; i < 4; i++) {
		uint8_t type = mbr[446 + 16 * i + 4];

		if (type == MBR_GPT)
			return by_gpt(s);
		esp |= type == MBR_ESP;
	}
	return (int)((memcmp(mbr, no_code, sizeof no_code) != 0 ? BOOTABLE_BIOS : 0) |
		     (esp ? BOOTABLE_UEFI : 0));
}

/* The catalogue: a validation entry with the first platform, its default entry, then sections,
 * each a header and a number of entries. */
static unsigned by_catalogue(const uint8_t c[CD_SECTOR])
{
	unsigned by = 0, at = 64;

	if (c[0] != 1 || c[30] != 0x55 || c[31] != 0xaa)
		return 0;
	if (c[32] == 0x88)
		by = c[1] == PLATFORM_UEFI ? BOOTABLE_UEFI : BOOTABLE_BIOS;
	while (at + 32 <= CD_SECTOR && (c[at] == 0x90 || c[at] == 0x91)) {
		by |= c[at + 1] == PLATFORM_UEFI ? BOOTABLE_UEFI : BOOTABLE_BIOS;
		at += 32 + 32 * (unsigned)load_le(c + at + 2, 2);
	}
	return by;
}

static int by_cd(struct disk_source *s)
{
	uint8_t sector[CD_SECTOR];
	uint64_t at;
	int r = s->read(s, CD_RECORD * CD_SECTOR, sector, sizeof sector);

	if (r < 0)
		return r;
	if (memcmp(sector, "\0CD001\1EL TORITO SPECIFICATION", 30) != 0)
		return 0;
	at = load_le(sector + CD_CATALOGUE_AT, 4) * CD_SECTOR;
	if (at > s->size - CD_SECTOR)
		return 0;
	r = s->read(s, at, sector, sizeof sector);
	return r < 0 ? r : (int)by_catalogue(sector);
}

int bootable_by(struct disk_source *s)
{
	int by = 0;

	if (s->size >= (CD_RECORD + 1) * CD_SECTOR && (by = by_cd(s)) != 0)
		return by;
	return s->size >= 4 * SECTOR ? by_mbr(s) : 0;
}
