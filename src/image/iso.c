/* An ISO 9660 disk of one directory. Sectors:
 *
 *   0-15   nothing            20  path tables, little-endian: plain, Joliet (21)
 *   16     primary volume     22  path tables, big-endian: plain, Joliet (23)
 *   17     Joliet's volume    24  root directory, plain
 *   18     the end of these   25  root directory, Joliet
 *                             26  the files, each on a sector boundary
 *
 * A directory fits in its sector: ISO_FILES_MAX records of at most 34 + 2 * 60 bytes.
 * Numbers are mostly written in both byte orders. Dates are left zero. */
#include "image/iso.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECTOR       2048u
#define NAME_LEN_MAX 60u
#define LABEL_MAX    16u

enum { PRIMARY = 16, JOLIET, TERMINATOR, TABLE_LE = 20, TABLE_BE = 22, ROOT = 24, FILES = 26 };

struct volume { /* one of the two views of the same files */
	bool joliet;
	uint32_t sectors; /* of the whole disk */
	uint32_t root, table_le, table_be;
};

static void put_be32(uint8_t *p, uint32_t v)
{
	for (unsigned i = 0; i < 4; i++)
		p[i] = (uint8_t)(v >> 8 * (3 - i));
}

static void put_both32(uint8_t *p, uint32_t v)
{
	store_le(p, v, 4);
	put_be32(p + 4, v);
}

static void put_both16(uint8_t *p, uint16_t v)
{
	p[0] = p[3] = (uint8_t)v;
	p[1] = p[2] = (uint8_t)(v >> 8);
}

/* Text of a fixed width, filled up with blanks; Joliet's is UCS-2. */
static void put_text(uint8_t *p, unsigned width, const char *s, bool joliet)
{
	unsigned len = (unsigned)strlen(s), n = joliet ? width / 2 : width;

	for (unsigned i = 0; i < n; i++) {
		uint8_t c = i < len ? (uint8_t)s[i] : ' ';

		if (joliet) {
			p[2 * i] = 0;
			p[2 * i + 1] = c;
		} else {
			p[i] = c;
		}
	}
}

/* A record of a directory (9.1); returns its length. id: len bytes as they stand there. */
static unsigned put_record(uint8_t *p, uint32_t sector, uint32_t bytes, bool directory,
			   const uint8_t *id, unsigned len)
{
	unsigned total = (33 + len + 1) & ~1u;

	p[0] = (uint8_t)total;
	put_both32(p + 2, sector);
	put_both32(p + 10, bytes);
	p[25] = directory ? 2 : 0;
	put_both16(p + 28, 1); /* volume in the set */
	p[32] = (uint8_t)len;
	memcpy(p + 33, id, len);
	return total;
}

/* The name in a directory: as it is in Joliet, else F<n>.;1, for nobody reads that one. */
static unsigned file_id(const struct volume *v, const char *name, unsigned n, uint8_t id[128])
{
	unsigned len = (unsigned)strlen(name);

	if (!v->joliet)
		return (unsigned)snprintf((char *)id, 128, "F%02u.;1", n % 100);
	put_text(id, 2 * len, name, true);
	return 2 * len;
}

static uint32_t sectors_of(uint32_t bytes)
{
	return bytes / SECTOR + (bytes % SECTOR != 0);
}

static void put_root(uint8_t *disk, const struct volume *v, const struct iso_file *file,
		     unsigned files)
{
	uint8_t *p = disk + v->root * SECTOR, id[128] = {0};
	uint32_t at = FILES;

	p += put_record(p, v->root, SECTOR, true, (const uint8_t *)"\0", 1);
	p += put_record(p, v->root, SECTOR, true, (const uint8_t *)"\1", 1);
	for (unsigned i = 0; i < files; i++) {
		unsigned len = file_id(v, file[i].name, i, id);

		p += put_record(p, at, file[i].len, false, id, len);
		at += sectors_of(file[i].len);
	}
}

/* The path tables (9.4) list the root and nothing else. */
static void put_tables(uint8_t *disk, const struct volume *v)
{
	uint8_t *le = disk + v->table_le * SECTOR, *be = disk + v->table_be * SECTOR;

	le[0] = be[0] = 1;
	store_le(le + 2, v->root, 4);
	put_be32(be + 2, v->root);
	le[6] = be[7] = 1;
}

static void put_volume(uint8_t *disk, const struct volume *v, const char *label)
{
	uint8_t *p = disk + (v->joliet ? JOLIET : PRIMARY) * SECTOR;

	p[0] = v->joliet ? 2 : 1;
	memcpy(p + 1, "CD001\1", 6);
	put_text(p + 8, 32, "LINUX", v->joliet);
	put_text(p + 40, 32, label, v->joliet);
	put_both32(p + 80, v->sectors);
	if (v->joliet)
		memcpy(p + 88, "%/E", 3); /* UCS-2 level 3 */
	put_both16(p + 120, 1);
	put_both16(p + 124, 1);
	put_both16(p + 128, SECTOR);
	put_both32(p + 132, 10); /* bytes of the path table */
	store_le(p + 140, v->table_le, 4);
	put_be32(p + 148, v->table_be);
	put_record(p + 156, v->root, SECTOR, true, (const uint8_t *)"\0", 1);
	put_text(p + 190, 128, "", v->joliet);
	put_text(p + 318, 128, "", v->joliet);
	put_text(p + 446, 128, "", v->joliet);
	put_text(p + 574, 128, "HOLON", v->joliet);
	put_text(p + 702, 111, "", v->joliet);
	for (unsigned i = 0; i < 4; i++)
		memset(p + 813 + 17 * i, '0', 16);
	p[881] = 1;
}

static int check(const char *label, const struct iso_file *file, unsigned files, uint32_t *sectors,
		 struct err *e)
{
	uint64_t total = FILES;

	if (strlen(label) > LABEL_MAX || files > ISO_FILES_MAX)
		return err_set(e, EINVAL, "seed: too long a label, or too many files");
	for (unsigned i = 0; i < files; i++) {
		if (strlen(file[i].name) > NAME_LEN_MAX)
			return err_set(e, ENAMETOOLONG, "seed: '%s'", file[i].name);
		total += sectors_of(file[i].len);
	}
	if (total > UINT32_MAX / SECTOR / 4)
		return err_set(e, EFBIG, "seed: more than a gigabyte");
	*sectors = (uint32_t)total;
	return 0;
}

int iso_make(const char *label, const struct iso_file *file, unsigned files, uint8_t **bytes,
	     uint32_t *len, struct err *e)
{
	uint32_t sectors = 0, at = FILES;
	int r = check(label, file, files, &sectors, e);
	uint8_t *disk;

	if (r < 0)
		return r;
	disk = calloc(sectors, SECTOR);
	if (!disk)
		return err_set(e, ENOMEM, "seed: out of memory");
	for (unsigned i = 0; i < 2; i++) {
		const struct volume v = {i == 1, sectors, ROOT + i, TABLE_LE + i, TABLE_BE + i};

		put_volume(disk, &v, label);
		put_tables(disk, &v);
		put_root(disk, &v, file, files);
	}
	memcpy(disk + TERMINATOR * SECTOR, "\377CD001\1", 7);
	for (unsigned i = 0; i < files; i++) {
		if (file[i].len)
			memcpy(disk + (size_t)at * SECTOR, file[i].bytes, file[i].len);
		at += sectors_of(file[i].len);
	}
	*bytes = disk;
	*len = sectors * SECTOR;
	return 0;
}
