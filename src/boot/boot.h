/* boot: puts a kernel into guest RAM and says in which state vCPU 0 starts.
 *
 * Kinds, told by content, never by name: Linux bzImage by the 64-bit boot protocol
 * (Documentation/arch/x86/boot.rst), ELF vmlinux by PVH (XEN_ELFNOTE_PHYS32_ENTRY),
 * multiboot 1 (32-bit ELF, or the a.out kludge). Files are foreign bytes: each length
 * and address in them is checked against the file and the RAM given. A refusal names
 * the file and the reason.
 *
 * All functions are for one thread, before the VM runs. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/bits.h"
#include "base/err.h"
#include "cpu/x86_state.h"
#include "mem/mem.h"

struct boot_config {
	const char *kernel; /* path; required */
	const char *
		initrd; /* path or NULL; for multiboot: "FILE[ ARGS][,FILE...]" modules, as QEMU has it */
	const char *cmdline; /* NULL: "" */
	gpa_t acpi_rsdp;     /* from acpi_build */
	bool vga;            /* there is one, in text mode 3 */
};

/* Loads everything, writes the boot parameters, and fills start with the entry state of
 * vCPU 0 (the rest of *start is as x86_state_reset left it). */
WARN_UNUSED int boot_load(struct guest_mem *m, const struct boot_config *c, struct x86_state *start,
			  struct err *e);

/* --- in acpi.c --- */
struct acpi_config {
	unsigned cpus;
	gpa_t lapic, ioapic; /* MMIO bases */
	uint64_t ecam_base;  /* PCI segment 0 */
	uint8_t ecam_last_bus;
	uint64_t pci_mmio_base, pci_mmio_len;     /* the window below 4 GiB */
	uint64_t pci_mmio64_base, pci_mmio64_len; /* above RAM */
	bool vga, keyboard;                       /* there is one */
	bool no_vmgenid;                          /* no generation identifier at VMGENID_BASE */
};

/* Writes RSDP, XSDT, FADT, FACS, DSDT, MADT, MCFG into guest RAM between 0xe0000 and
 * 0xfffff (ACPI 6.5, 5.2); *rsdp is the RSDP's address. */
WARN_UNUSED int acpi_build(struct guest_mem *m, const struct acpi_config *c, gpa_t *rsdp,
			   struct err *e);

/* The same tables for firmware, which puts them where it likes: its fw_cfg files of these names. */
#define ACPI_TABLES_FILE "etc/acpi/tables"
#define ACPI_RSDP_FILE   "etc/acpi/rsdp"
#define ACPI_SCRIPT_FILE "etc/table-loader"
#define ACPI_RSDP_LEN    36

struct acpi_files {
	uint8_t *tables, *script;
	uint32_t tables_len, script_len;
	_Alignas(8) uint8_t rsdp[ACPI_RSDP_LEN];
};
WARN_UNUSED int acpi_build_files(struct acpi_files *f, const struct acpi_config *c, struct err *e);
void acpi_files_done(struct acpi_files *f);

/* --- in smbios.c --- */
#define SMBIOS_TABLES_FILE "etc/smbios/smbios-tables"
#define SMBIOS_ANCHOR_FILE "etc/smbios/smbios-anchor"
#define SMBIOS_ANCHOR_LEN  24
#define SMBIOS_NAME_MAX    64 /* of the VM's name; the rest is left out */

struct smbios {
	uint8_t anchor[SMBIOS_ANCHOR_LEN], tables[2048];
	uint32_t len;
};
/* name: of the VM, or NULL. For firmware, which says itself who it is and puts them where it likes. */
void smbios_build(struct smbios *s, const struct guest_mem *m, const char *name, unsigned cpus);
/* For a kernel that starts without: into guest RAM between 0xf2000 and 0xf3000. */
WARN_UNUSED int smbios_place(struct guest_mem *m, const char *name, unsigned cpus, struct err *e);
void smbios_uuid(const char *name, uint8_t to[16]); /* of the VM of that name */

/* --- in firmware.c --- */

/* How many bytes of ROM the firmware in this file needs. */
WARN_UNUSED int firmware_size(const char *path, uint64_t *bytes, struct err *e);
/* Puts it into the ROM, which is as large, and its end below 1 MiB too, where a BIOS runs. The
 * processor's reset state (x86_state_reset) starts it. */
WARN_UNUSED int firmware_load(struct guest_mem *m, const char *path, struct err *e);
/* The map of RAM as firmware reads it (etc/e820): 20 bytes an entry; returns how many bytes. */
#define FIRMWARE_MAP_MAX 160
uint32_t firmware_ram_map(const struct guest_mem *m, uint8_t to[FIRMWARE_MAP_MAX]);
