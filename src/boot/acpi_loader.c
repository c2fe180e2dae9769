/* acpi_loader: the list of what firmware does to the tables once it has put them into RAM (QEMU's
 * etc/table-loader): where each file goes, which of its bytes are pointers to be moved along, and
 * which are checksums to be made. Entries are 128 bytes, names 56. */
#include "boot/acpi_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ENTRY 128u
#define NAME  56u

#define ALLOCATE     1u
#define ADD_POINTER  2u
#define ADD_CHECKSUM 3u
#define ZONE_HIGH    1u
#define ZONE_FSEG    2u /* where a BIOS's callers look for the RSDP */

#define RSDP_RSDT_AT 16
#define RSDP_XSDT_AT 24
#define RSDP_SUM_AT  8
#define RSDP_SUM_LEN 20 /* what ACPI 1.0 had */
#define RSDP_XSUM_AT 32

static uint8_t *entry(struct acpi_files *f, uint32_t command, const char *file)
{
	uint8_t *at = f->script + f->script_len;

	f->script_len += ENTRY;
	store_le(at, command, 4);
	memcpy(at + 4, file, strlen(file) + 1);
	return at + 4 + NAME;
}

static void allocate(struct acpi_files *f, const char *file, uint32_t align, uint8_t zone)
{
	uint8_t *at = entry(f, ALLOCATE, file);

	store_le(at, align, 4);
	at[4] = zone;
}

/* file's bytes [at, at + size) are an offset in the tables and become an address. */
static void add_pointer(struct acpi_files *f, const char *file, uint32_t at, uint8_t size)
{
	uint8_t *p = entry(f, ADD_POINTER, file);

	memcpy(p, ACPI_TABLES_FILE, sizeof ACPI_TABLES_FILE);
	store_le(p + NAME, at, 4);
	p[NAME + 4] = size;
}

/* The byte at result becomes the checksum of len bytes from start on. It must be 0 before. */
static void add_checksum(struct acpi_files *f, const char *file, uint32_t result, uint32_t start,
			 uint32_t len)
{
	uint8_t *at = entry(f, ADD_CHECKSUM, file);

	store_le(at, result, 4);
	store_le(at + 4, start, 4);
	store_le(at + 8, len, 4);
}

static void tables(struct acpi_files *f, const struct area *a)
{
	for (unsigned i = 0; i < a->notes; i++)
		if (a->note[i].size)
			add_pointer(f, ACPI_TABLES_FILE, a->note[i].at, a->note[i].size);
	for (unsigned i = 0; i < a->notes; i++) {
		uint32_t at = a->note[i].at;

		if (a->note[i].size)
			continue;
		f->tables[at + TABLE_SUM_AT] = 0;
		add_checksum(f, ACPI_TABLES_FILE, at + TABLE_SUM_AT, at,
			     (uint32_t)load_le(f->tables + at + TABLE_LENGTH_AT, 4));
	}
}

static void rsdp(struct acpi_files *f)
{
	f->rsdp[RSDP_SUM_AT] = f->rsdp[RSDP_XSUM_AT] = 0;
	add_pointer(f, ACPI_RSDP_FILE, RSDP_RSDT_AT, 4);
	add_pointer(f, ACPI_RSDP_FILE, RSDP_XSDT_AT, 8);
	add_checksum(f, ACPI_RSDP_FILE, RSDP_SUM_AT, 0, RSDP_SUM_LEN);
	add_checksum(f, ACPI_RSDP_FILE, RSDP_XSUM_AT, 0, ACPI_RSDP_LEN);
}

int acpi_loader_script(struct acpi_files *f, const struct area *a, struct err *e)
{
	f->script = calloc(a->notes + 6, ENTRY);
	if (!f->script)
		return err_set(e, ENOMEM, "ACPI tables");
	allocate(f, ACPI_RSDP_FILE, 16, ZONE_FSEG);
	allocate(f, ACPI_TABLES_FILE, 64, ZONE_HIGH);
	tables(f, a);
	rsdp(f);
	return 0;
}
