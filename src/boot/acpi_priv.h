/* acpi_priv: what acpi.c and acpi_loader.c share. */
#pragma once

#include <stdbool.h>

#include "boot/boot_priv.h"

#define ACPI_TABLES_LEN 0x10000u
#define ACPI_NOTES_MAX  24
#define TABLE_LENGTH_AT 4 /* in a table's head */
#define TABLE_SUM_AT    9

struct acpi_note {
	uint32_t at;  /* offset in the area */
	uint8_t size; /* of a pointer that stands there; 0: it is a table whose bytes change */
};

/* A cursor in the table area. Running out of room is sticky. */
struct area {
	uint8_t *hva;
	gpa_t base; /* where the guest has it */
	uint32_t used;
	bool full;
	struct acpi_note note[ACPI_NOTES_MAX];
	unsigned notes;
};

/* Fills f->script, by what is noted; sets the checksums that firmware makes to 0. */
WARN_UNUSED int acpi_loader_script(struct acpi_files *f, const struct area *a, struct err *e);
