/* boot_priv: what the loaders share: the file being read, the map of RAM, the few pages
 * of low memory where boot structures live, and the CPU states of the protocols. */
#pragma once

#include <stdbool.h>

#include "boot/boot.h"

/* Low memory that belongs to the loader until the kernel has read its parameters. It
 * lies where PCs have free RAM and no kernel is linked to. */
#define BOOT_AREA        0x80000u
#define BOOT_GDT         BOOT_AREA
#define BOOT_PARAMS      0x81000u /* zero page, hvm_start_info or multiboot information */
#define BOOT_MAP         0x82000u /* memory map, where it is not part of the parameters */
#define BOOT_LIST        0x82800u /* modules */
#define BOOT_TABLES      0x83000u /* six pages of page tables */
#define BOOT_STRINGS     0x90000u
#define BOOT_STRINGS_LEN 0xc000u
#define BOOT_AREA_END    (BOOT_STRINGS + BOOT_STRINGS_LEN)

#define LOW_RAM_END 0x9fc00u /* the last KiB below 640K is the extended BIOS data area */
#define EXT_RAM     0x100000u
#define ACPI_AREA   0xe0000u

/* --- the file: image.c --- */
struct image {
	const char *role; /* "kernel", "initrd", "module" */
	const char *path;
	int fd;
	uint64_t size;
};

WARN_UNUSED int image_open(struct image *f, const char *role, const char *path, struct err *e);
void image_close(struct image *f);

/* "ROLE 'PATH': reason". Returns -code. */
__attribute__((format(printf, 4, 5))) int image_fail(const struct image *f, struct err *e, int code,
						     const char *fmt, ...);
/* Reads [off, off + len); a span beyond the end says that the file is truncated. */
WARN_UNUSED int image_read(const struct image *f, uint64_t off, void *to, uint64_t len,
			   struct err *e);

/* --- RAM: ram.c --- */
enum { RAM_USABLE = 1, RAM_RESERVED = 2 }; /* numbers of e820, PVH and multiboot alike */

struct ram_entry {
	uint64_t base, len;
	uint32_t type;
};
#define RAM_ENTRIES_MAX 8

/* Sorted, without overlaps. Returns the count. */
unsigned ram_map(const struct guest_mem *m, struct ram_entry to[RAM_ENTRIES_MAX]);

/* End of the RAM that begins at 0. */
gpa_t ram_low_end(const struct guest_mem *m);

/* Host memory of [gpa, gpa + len) where a kernel may lie: in RAM below 4 GiB and outside
 * the areas above. Otherwise says why f does not fit there. */
WARN_UNUSED int ram_place(const struct guest_mem *m, const struct image *f, gpa_t gpa, uint64_t len,
			  uint8_t **hva, struct err *e);

/* Zeroes a span of RAM; whole pages go back to the host instead of being written. */
void ram_zero(uint8_t *hva, uint64_t len);

/* Puts all of f into RAM page-aligned, as high as it fits in [floor, ceiling). */
WARN_UNUSED int ram_load_high(const struct guest_mem *m, const struct image *f, gpa_t floor,
			      gpa_t ceiling, gpa_t *at, struct err *e);

/* A cursor over the string area, for command lines. */
struct ram_strings {
	const struct guest_mem *m;
	uint32_t used;
};
/* Appends s[0..len) and a NUL. -E2BIG when the area is full. */
WARN_UNUSED int ram_string(struct ram_strings *t, const char *s, size_t len, gpa_t *at,
			   struct err *e);

/* --- CPU states: entry.c --- */
void entry_long_mode(const struct guest_mem *m, struct x86_state *s, gpa_t rip);
void entry_protected_mode(const struct guest_mem *m, struct x86_state *s, gpa_t eip);

/* --- ELF, both classes: elf.c --- */
struct elf_segment {
	uint32_t type;
	uint64_t offset, vaddr, paddr, filesz, memsz;
};
#define ELF_SEGMENTS_MAX 64

struct elf {
	bool is64;
	uint16_t machine;
	uint64_t entry;
	unsigned count;
	struct elf_segment seg[ELF_SEGMENTS_MAX];
};

bool elf_is(const struct image *f);
WARN_UNUSED int elf_open(struct elf *elf, const struct image *f, struct err *e);
/* Copies the PT_LOAD segments to their physical addresses; *end is the first byte after. */
WARN_UNUSED int elf_load(const struct elf *elf, const struct image *f, const struct guest_mem *m,
			 gpa_t *end, struct err *e);
/* Looks for a note {name, type} and reads its number (4 or 8 bytes). 1: found, 0: none. */
WARN_UNUSED int elf_note(const struct elf *elf, const struct image *f, const char *name,
			 uint32_t type, uint64_t *value, struct err *e);

/* --- the protocols --- */
struct boot_job {
	const struct guest_mem *m;
	const struct boot_config *c;
	const char *cmdline; /* never NULL */
	struct image kernel;
	struct x86_state *start;
};

bool bzimage_is(const struct image *f);
WARN_UNUSED int bzimage_load(struct boot_job *j, struct err *e);

/* The kernel's PVH entry, if it has one. 1: yes, 0: no. */
WARN_UNUSED int pvh_find(const struct elf *elf, const struct image *f, uint64_t *entry,
			 struct err *e);
WARN_UNUSED int pvh_load(struct boot_job *j, const struct elf *elf, uint64_t entry, struct err *e);

/* *off: where the header stands. 1: there is one, 0: none. */
WARN_UNUSED int multiboot_find(const struct image *f, uint32_t *off, struct err *e);
/* elf: NULL when the file is none. */
WARN_UNUSED int multiboot_load(struct boot_job *j, const struct elf *elf, uint32_t off,
			       struct err *e);
