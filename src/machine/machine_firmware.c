/* What firmware needs that starts the machine by itself: its ROM, the bridge where it looks for
 * ACPI's ports, and fw_cfg's files: the map of RAM, ACPI tables, and in which order to try disks,
 * CDs and networks. Device names in that order are paths of Open Firmware, as SeaBIOS and OVMF
 * know them. */
#include "machine/machine_priv.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "base/log.h"
#include "chipset/fw_cfg.h"
#include "chipset/lpc.h"

#define MMIO64_ALIGN   GIB(32) /* where UEFI puts its window above RAM */
#define MENU_WAIT_MS   5000
#define BOOTORDER_MAX  2048
#define OPTION_ROM_MAX KIB(512)

/* --- memory and tables --- */

int machine_make_mem(struct machine *m, uint64_t bytes, struct err *e)
{
	uint64_t rom = 0;
	int r = m->firmware ? firmware_size(m->firmware, &rom, e) : 0;

	return r < 0 ? r : mem_new_with_rom(&m->mem, bytes, rom, e);
}

static uint64_t ram_end(const struct guest_mem *m)
{
	const struct mem_region *region;
	unsigned n = mem_regions(m, &region);

	return region[n - 1].gpa + region[n - 1].size;
}

void machine_acpi_config(const struct machine *m, struct acpi_config *c)
{
	uint64_t end = max_u64(ram_end(m->mem), MEM_HIGH_BASE);

	*c = (struct acpi_config){
		.cpus = m->cpus,
		.lapic = LAPIC_BASE,
		.ioapic = IOAPIC_BASE,
		.ecam_base = ECAM_BASE,
		.ecam_last_bus = ECAM_LAST_BUS,
		.pci_mmio_base = PCI_MMIO_BASE,
		.pci_mmio_len = PCI_MMIO_LEN,
		.pci_mmio64_base = align_up(end, m->firmware ? MMIO64_ALIGN : GIB(1)),
		.pci_mmio64_len = PCI_MMIO64_LEN,
		.vga = m->vga,
		.keyboard = m->keyboard,
		.no_vmgenid = m->firmware,
	};
}

/* --- what firmware says --- */

/* On the vCPU's thread that writes: a BIOS's other vCPUs are quiet. */
static void debug_put(struct byte_sink *s, const uint8_t *bytes, uint32_t len)
{
	struct machine *m = container_of(s, struct machine, debug_sink);

	for (uint32_t i = 0; i < len; i++) {
		bool end = bytes[i] == '\n' || m->debug_len == sizeof m->debug_line - 1;

		if (end) {
			log_debug("firmware: %.*s", (int)m->debug_len, m->debug_line);
			m->debug_len = 0;
		}
		if (bytes[i] >= ' ' && bytes[i] < 0x7f)
			m->debug_line[m->debug_len++] = (char)bytes[i];
	}
}

struct byte_sink *machine_debug_sink(struct machine *m)
{
	m->debug_sink.put = debug_put;
	return m->firmware_debug ? &m->debug_sink : NULL;
}

/* --- the order --- */

struct order {
	char text[BOOTORDER_MAX];
	uint32_t len;
};

__attribute__((format(printf, 2, 3))) static void add(struct order *o, const char *fmt, ...)
{
	uint32_t room = sizeof o->text - o->len;
	va_list args;
	int n;

	va_start(args, fmt);
	n = vsnprintf(o->text + o->len, room, fmt, args);
	va_end(args);
	if (n > 0 && (uint32_t)n < room)
		o->len += (uint32_t)n;
}

static void add_ata(struct order *o, unsigned port)
{
	add(o, "/pci@i0cf8/pci8086,2922@%x/drive@%x/disk@0\n", SLOT_AHCI, port);
}

static void add_kind(struct order *o, const struct machine *m, const struct machine_config *c,
		     enum machine_boot_from from)
{
	unsigned ata = 0, virtio = 0;

	for (unsigned i = 0; i < c->cdroms && from == BOOT_FROM_CDROM; i++)
		add_ata(o, machine_cd_port(i));
	for (unsigned i = 0; i < c->disks && from == BOOT_FROM_DISK; i++)
		if (c->disk[i].bus == DISK_ATA)
			add_ata(o, ata++);
		else
			add(o, "/pci@i0cf8/scsi@%x/disk@0,0\n", SLOT_DISK + virtio++);
	for (unsigned i = 0; i < PCI_SLOTS; i++)
		if (m->virtio[i] && from == BOOT_FROM_NET && i >= SLOT_NET && i < SLOT_DISK)
			add(o, "/pci@i0cf8/ethernet@%x/ethernet-phy@0\n", i);
}

static int give_order(struct machine *m, const struct machine_config *config, struct err *e)
{
	const struct machine_firmware *c = &config->firmware;
	struct order o = {.len = 0};

	for (unsigned i = 0; i < c->orders; i++)
		add_kind(&o, m, config, c->order[i]);
	return fw_cfg_set_file(m->device[DEV_FW_CFG], "bootorder", o.text, o.len + 1, e);
}

/* --- the files --- */

static int give_number(struct machine *m, const char *name, uint64_t v, unsigned size,
		       struct err *e)
{
	uint8_t bytes[8];

	store_le(bytes, v, size);
	return fw_cfg_set_file(m->device[DEV_FW_CFG], name, bytes, size, e);
}

static int give_ram_map(struct machine *m, struct err *e)
{
	uint8_t map[FIRMWARE_MAP_MAX];
	uint32_t len = firmware_ram_map(m->mem, map);

	return fw_cfg_set_file(m->device[DEV_FW_CFG], "etc/e820", map, len, e);
}

static int give_acpi(struct machine *m, struct err *e)
{
	struct device *fw = m->device[DEV_FW_CFG];
	struct acpi_config c;
	struct acpi_files f;
	int r;

	machine_acpi_config(m, &c);
	if ((r = acpi_build_files(&f, &c, e)) < 0)
		return r;
	if ((r = fw_cfg_set_file(fw, ACPI_TABLES_FILE, f.tables, f.tables_len, e)) == 0 &&
	    (r = fw_cfg_set_file(fw, ACPI_RSDP_FILE, f.rsdp, sizeof f.rsdp, e)) == 0)
		r = fw_cfg_set_file(fw, ACPI_SCRIPT_FILE, f.script, f.script_len, e);
	acpi_files_done(&f);
	return r;
}

static int give_smbios(struct machine *m, struct err *e)
{
	struct device *fw = m->device[DEV_FW_CFG];
	struct smbios s;
	int r;

	smbios_build(&s, m->mem, m->name, m->cpus);
	r = fw_cfg_set_file(fw, SMBIOS_TABLES_FILE, s.tables, s.len, e);
	return r < 0 ? r : fw_cfg_set_file(fw, SMBIOS_ANCHOR_FILE, s.anchor, sizeof s.anchor, e);
}

/* Without the menu the firmware boots at once. */
static int give_menu(struct machine *m, const struct machine_firmware *c, struct err *e)
{
	const uint8_t on[2] = {c->menu};
	int r = fw_cfg_set_item(m->device[DEV_FW_CFG], FW_CFG_BOOT_MENU, on, sizeof on, e);

	if (r == 0)
		r = give_number(m, "etc/show-boot-menu", c->menu, 1, e);
	if (r == 0 && c->menu)
		r = give_number(m, "etc/boot-menu-wait", MENU_WAIT_MS, 2, e);
	return r;
}

/* An option ROM, under a name by which SeaBIOS looks for it: that of a virtio card, by which it
 * boots from the network; or the BIOS of a VGA that is no PCI function. */
static int give_rom(struct machine *m, const char *name, const char *path, struct err *e)
{
	AUTO_FCLOSE FILE *f = fopen(path, "re");
	AUTO_FREE uint8_t *rom = malloc(OPTION_ROM_MAX);
	size_t len;

	if (!f || !rom)
		return err_sys(e, f ? ENOMEM : errno, "'%s'", path);
	len = fread(rom, 1, OPTION_ROM_MAX, f);
	if (ferror(f) || !feof(f))
		return err_set(e, EFBIG, "'%s' is no option ROM: at most %u KiB", path,
			       (unsigned)(OPTION_ROM_MAX >> 10));
	return fw_cfg_set_file(m->device[DEV_FW_CFG], name, rom, (uint32_t)len, e);
}

int machine_make_firmware(struct machine *m, const struct machine_config *c, struct err *e)
{
	const struct machine_firmware *f = &c->firmware;
	int r;

	if (!m->firmware)
		return 0;
	if ((r = lpc_new(&m->lpc, m->device[DEV_PCI_HOST], e)) < 0 ||
	    (r = give_ram_map(m, e)) < 0 || (r = give_acpi(m, e)) < 0 ||
	    (r = give_smbios(m, e)) < 0 || (r = give_order(m, c, e)) < 0 ||
	    (r = give_menu(m, f, e)) < 0)
		return err_wrap(e, "firmware");
	if ((f->net_rom && (r = give_rom(m, "pci1af4,1041.rom", f->net_rom, e)) < 0) ||
	    (f->vga_rom && (r = give_rom(m, "vgaroms/vgabios.bin", f->vga_rom, e)) < 0))
		return r;
	if (f->vars && (r = machine_flash_new(&m->flash, m, f->vars, f->keep_vars, e)) < 0)
		return r;
	if (!f->no_serial)
		r = give_number(m, "etc/sercon-port", PORT_COM1, 2, e);
	return r;
}

void machine_reset_firmware(struct machine *m)
{
	if (m->lpc)
		m->lpc->type->reset(m->lpc);
	if (m->flash)
		machine_flash_reset(m->flash);
}

void machine_free_firmware(struct machine *m)
{
	machine_flash_free(m->flash);
	if (m->lpc)
		m->lpc->type->free(m->lpc);
}
