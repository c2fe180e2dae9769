/* acpi: the tables by which a kernel finds its processors, interrupt controllers, PCI and
 * power management (ACPI 6.5, chapter 5.2). They are made once, before the machine runs,
 * in the reserved 128 KiB below 1 MiB; the RSDP is in the last 64 KiB, where every kernel
 * looks for it. The DSDT comes compiled from dsdt.asl; what it needs to know about this
 * machine are names in it whose values are put in here. (Firmware and boot loaders know too
 * little AML for names that another table defines.)
 *
 * Where firmware runs first it decides where the tables lie: they are made as if at 0, and with
 * them goes a list of which bytes are pointers and checksums (acpi_loader.c). */
#include "boot/acpi_priv.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "chipset/layout.h"
#include "dsdt.h" /* made by iasl: dsdt_aml_code */

#define RSDP_BASE 0xf0000u

#define SCI_ACTIVE_HIGH_LEVEL 0x000d
#define XAPIC_IDS             255 /* 0xff is broadcast: from there on only x2APIC entries can name it */

struct table {
	char signature[4];
	uint32_t length;
	uint8_t revision, checksum;
	char oem_id[6], oem_table_id[8];
	uint32_t oem_revision;
	char creator_id[4];
	uint32_t creator_revision;
} __attribute__((packed));

struct gas { /* generic address structure, 5.2.3.2 */
	uint8_t space, bit_width, bit_offset, access;
	uint64_t address;
} __attribute__((packed));

struct rsdp {
	char signature[8];
	uint8_t checksum;
	char oem_id[6];
	uint8_t revision;
	uint32_t rsdt;
	uint32_t length;
	uint64_t xsdt;
	uint8_t extended_checksum, reserved[3];
} __attribute__((packed));

struct fadt {
	struct table head;
	uint32_t facs, dsdt;
	uint8_t reserved0, pm_profile;
	uint16_t sci_int;
	uint32_t smi_cmd;
	uint8_t acpi_enable, acpi_disable, s4bios_req, pstate_cnt;
	uint32_t pm1a_evt, pm1b_evt, pm1a_cnt, pm1b_cnt, pm2_cnt, pm_tmr, gpe0, gpe1;
	uint8_t pm1_evt_len, pm1_cnt_len, pm2_cnt_len, pm_tmr_len, gpe0_len, gpe1_len, gpe1_base,
		cst_cnt;
	uint16_t p_lvl2_lat, p_lvl3_lat, flush_size, flush_stride;
	uint8_t duty_offset, duty_width, day_alarm, month_alarm, century;
	uint16_t boot_arch;
	uint8_t reserved1;
	uint32_t flags;
	struct gas reset_reg;
	uint8_t reset_value;
	uint16_t arm_boot_arch;
	uint8_t minor_version;
	uint64_t x_facs, x_dsdt;
	struct gas x_pm1a_evt, x_pm1b_evt, x_pm1a_cnt, x_pm1b_cnt, x_pm2_cnt, x_pm_tmr, x_gpe0,
		x_gpe1, sleep_control, sleep_status;
	uint64_t hypervisor_vendor;
} __attribute__((packed));

/* FADT flags (5.2.9). Power button bit clear: it is a fixed feature of PM1. */
#define FADT_WBINVD          BIT(0)
#define FADT_PROC_C1         BIT(2)
#define FADT_NO_SLEEP_BUTTON BIT(5)
#define FADT_NO_FIXED_RTC    BIT(6)
#define FADT_RESET_REG       BIT(10)
/* boot architecture flags (5.2.9.3) */
#define BOOT_LEGACY_DEVICES BIT(0)
#define BOOT_8042           BIT(1)
#define BOOT_NO_VGA         BIT(2)

_Static_assert(sizeof(struct table) == 36 && sizeof(struct rsdp) == 36 &&
		       sizeof(struct fadt) == 276,
	       "the layout is ACPI's");

static void *append(struct area *a, const void *from, uint32_t len)
{
	uint8_t *at = a->hva + a->used;

	if (len > ACPI_TABLES_LEN - a->used) {
		a->full = true;
		return NULL;
	}
	if (from)
		memcpy(at, from, len);
	else
		memset(at, 0, len);
	a->used += len;
	return at;
}

static void put(struct area *a, uint64_t v, unsigned size)
{
	append(a, &v, size);
}

static gpa_t align_area(struct area *a, uint32_t to)
{
	while (a->used & (to - 1) && !a->full)
		put(a, 0, 1);
	return a->base + a->used;
}

/* The size bytes at gpa point to somewhere in the area; or, with size 0, a table stands there. */
static void note(struct area *a, gpa_t gpa, uint8_t size)
{
	if (a->notes == ACPI_NOTES_MAX)
		a->full = true;
	else
		a->note[a->notes++] = (struct acpi_note){(uint32_t)(gpa - a->base), size};
}

static uint8_t checksum(const void *p, size_t len)
{
	const uint8_t *b = p;
	uint8_t sum = 0;

	while (len--)
		sum += *b++;
	return (uint8_t)-sum;
}

static struct table table_head(const char *signature, uint8_t revision)
{
	struct table t = {.revision = revision, .oem_revision = 1, .creator_revision = 1};

	memcpy(t.signature, signature, 4);
	memcpy(t.oem_id, "HOLON ", 6);
	memcpy(t.oem_table_id, "HOLONPC ", 8);
	memcpy(t.creator_id, "HLN ", 4);
	return t;
}

static gpa_t table_begin(struct area *a, const char *signature, uint8_t revision)
{
	struct table t = table_head(signature, revision);
	gpa_t at = align_area(a, 16);

	append(a, &t, sizeof t);
	return at;
}

static void table_end(struct area *a, gpa_t at)
{
	struct table *t = (struct table *)(a->hva + (at - a->base));

	if (a->full)
		return;
	t->length = a->used - (uint32_t)(at - a->base);
	t->checksum = 0;
	t->checksum = checksum(t, t->length);
}

static struct gas io_port(uint16_t port, unsigned bytes)
{
	return (struct gas){.space = 1,
			    .bit_width = (uint8_t)(bytes * 8),
			    .access = bytes == 4 ? 3 : (uint8_t)bytes,
			    .address = port};
}

static gpa_t put_facs(struct area *a)
{
	gpa_t at = align_area(a, 64);

	append(a, "FACS", 4);
	put(a, 64, 4);
	put(a, 0, 8); /* hardware signature, 32-bit waking vector */
	put(a, 0, 8); /* global lock, flags */
	put(a, 0, 8); /* 64-bit waking vector */
	put(a, 2, 1); /* version */
	append(a, NULL, 31);
	return at;
}

static gpa_t put_fadt(struct area *a, const struct acpi_config *c, gpa_t facs, gpa_t dsdt)
{
	struct fadt f = {
		.head = table_head("FACP", 6),
		.facs = (uint32_t)facs,
		.dsdt = (uint32_t)dsdt,
		.sci_int = IRQ_SCI,
		.pm1a_evt = PORT_PM_EVT,
		.pm1a_cnt = PORT_PM_CNT,
		.pm_tmr = PORT_PM_TMR,
		.pm1_evt_len = 4,
		.pm1_cnt_len = 2,
		.pm_tmr_len = 4,
		.p_lvl2_lat = 0xffff, /* above 100 and 1000: no C2, no C3 */
		.p_lvl3_lat = 0xffff,
		.boot_arch = BOOT_LEGACY_DEVICES | BOOT_8042 | (c->vga ? 0 : BOOT_NO_VGA),
		.flags = FADT_WBINVD | FADT_PROC_C1 | FADT_NO_SLEEP_BUTTON | FADT_NO_FIXED_RTC |
			 FADT_RESET_REG,
		.reset_reg = io_port(PORT_RESET, 1),
		.reset_value = 6,
		.minor_version = 5,
		.x_dsdt = dsdt,
		.x_pm1a_evt = io_port(PORT_PM_EVT, 4),
		.x_pm1a_cnt = io_port(PORT_PM_CNT, 2),
		.x_pm_tmr = io_port(PORT_PM_TMR, 4),
	};
	gpa_t at = align_area(a, 16);

	append(a, &f, sizeof f);
	table_end(a, at);
	note(a, at + offsetof(struct fadt, facs), 4);
	note(a, at + offsetof(struct fadt, dsdt), 4);
	note(a, at + offsetof(struct fadt, x_dsdt), 8);
	note(a, at, 0);
	return at;
}

/* Name (NAME, value): NameOp, NameSeg, QWordPrefix, the number (20.2.5.1). */
static void set_name(uint8_t *dsdt, uint32_t len, const char *name, uint64_t value)
{
	const uint8_t head[] = {
		0x08, (uint8_t)name[0], (uint8_t)name[1], (uint8_t)name[2], (uint8_t)name[3], 0x0e};
	uint8_t *at = memmem(dsdt, len, head, sizeof head);

	assert(at && at + sizeof head + 8 <= dsdt + len);
	store_le(at + sizeof head, value, 8);
}

static gpa_t put_dsdt(struct area *a, const struct acpi_config *c)
{
	gpa_t at = align_area(a, 16);
	uint8_t *dsdt = append(a, dsdt_aml_code, sizeof dsdt_aml_code);

	if (!dsdt)
		return at;
	set_name(dsdt, sizeof dsdt_aml_code, "HB32", c->pci_mmio_base);
	set_name(dsdt, sizeof dsdt_aml_code, "HL32", c->pci_mmio_len);
	set_name(dsdt, sizeof dsdt_aml_code, "HB64", c->pci_mmio64_base);
	set_name(dsdt, sizeof dsdt_aml_code, "HL64", c->pci_mmio64_len);
	set_name(dsdt, sizeof dsdt_aml_code, "HECM", c->ecam_base);
	set_name(dsdt, sizeof dsdt_aml_code, "HECL", MIB(1) * (c->ecam_last_bus + 1u));
	set_name(dsdt, sizeof dsdt_aml_code, "HVGN", !c->no_vmgenid);
	set_name(dsdt, sizeof dsdt_aml_code, "HKBD", c->keyboard);
	table_end(a, at);
	return at;
}

static void put_processor(struct area *a, unsigned id)
{
	if (id < XAPIC_IDS) {
		put(a, 0, 1); /* processor local APIC */
		put(a, 8, 1);
		put(a, id, 1);
		put(a, id, 1);
		put(a, 1, 4); /* enabled */
		return;
	}
	put(a, 9, 1); /* processor local x2APIC */
	put(a, 16, 1);
	put(a, 0, 2);
	put(a, id, 4);
	put(a, 1, 4);
	put(a, id, 4);
}

static void put_override(struct area *a, uint8_t irq, uint32_t gsi, uint16_t flags)
{
	put(a, 2, 1);
	put(a, 10, 1);
	put(a, 0, 1); /* bus: ISA */
	put(a, irq, 1);
	put(a, gsi, 4);
	put(a, flags, 2);
}

static gpa_t put_madt(struct area *a, const struct acpi_config *c)
{
	gpa_t at = table_begin(a, "APIC", 5);

	put(a, c->lapic, 4);
	put(a, 1, 4); /* there is a PIC too */
	for (unsigned i = 0; i < c->cpus; i++)
		put_processor(a, i);
	put(a, 1, 1); /* IOAPIC */
	put(a, 12, 1);
	put(a, 0, 2); /* id, reserved */
	put(a, c->ioapic, 4);
	put(a, 0, 4); /* its first GSI */
	/* ISA IRQs are the GSIs of their number, but the timer is wired to pin 2. */
	put_override(a, IRQ_PIT, 2, 0);
	put_override(a, IRQ_SCI, IRQ_SCI, SCI_ACTIVE_HIGH_LEVEL);
	put(a, 4, 1); /* NMI: LINT1 of all processors */
	put(a, 6, 1);
	put(a, 0xff, 1);
	put(a, 0, 2);
	put(a, 1, 1);
	table_end(a, at);
	return at;
}

static gpa_t put_mcfg(struct area *a, const struct acpi_config *c)
{
	gpa_t at = table_begin(a, "MCFG", 1);

	put(a, 0, 8);
	put(a, c->ecam_base, 8);
	put(a, 0, 2); /* segment */
	put(a, 0, 1); /* first bus */
	put(a, c->ecam_last_bus, 1);
	put(a, 0, 4);
	table_end(a, at);
	return at;
}

struct lists {
	gpa_t xsdt, rsdt; /* the latter for who knows ACPI 1.0 only, boot loaders among them */
};

/* XSDT or RSDT: the list of tables, by pointers of that size. */
static gpa_t put_list(struct area *a, const char *signature, uint8_t size, const gpa_t *tables,
		      unsigned n)
{
	gpa_t at = table_begin(a, signature, 1);

	for (unsigned i = 0; i < n; i++) {
		note(a, a->base + a->used, size);
		put(a, tables[i], size);
	}
	table_end(a, at);
	note(a, at, 0);
	return at;
}

static void put_rsdp(struct rsdp *to, const struct lists *l)
{
	struct rsdp p = {
		.revision = 2, .rsdt = (uint32_t)l->rsdt, .length = sizeof p, .xsdt = l->xsdt};

	memcpy(p.signature, "RSD PTR ", 8);
	memcpy(p.oem_id, "HOLON ", 6);
	p.checksum = checksum(&p, 20); /* what ACPI 1.0 had */
	p.extended_checksum = checksum(&p, sizeof p);
	*to = p;
}

static struct lists put_tables(struct area *a, const struct acpi_config *c)
{
	gpa_t tables[3], facs = put_facs(a), dsdt = put_dsdt(a, c);

	tables[0] = put_fadt(a, c, facs, dsdt);
	tables[1] = put_madt(a, c);
	tables[2] = put_mcfg(a, c);
	return (struct lists){.xsdt = put_list(a, "XSDT", 8, tables, ARRAY_SIZE(tables)),
			      .rsdt = put_list(a, "RSDT", 4, tables, ARRAY_SIZE(tables))};
}

static int too_long(const struct acpi_config *c, struct err *e)
{
	return err_set(e, E2BIG, "ACPI tables for %u processors are too long", c->cpus);
}

int acpi_build(struct guest_mem *m, const struct acpi_config *c, gpa_t *rsdp, struct err *e)
{
	struct area a = {.hva = mem_span(m, ACPI_AREA, ACPI_TABLES_LEN), .base = ACPI_AREA};
	struct rsdp *root = mem_span(m, RSDP_BASE, sizeof *root);
	struct lists lists;

	if (!a.hva || !root)
		return err_set(e, ENOMEM, "a machine needs at least 1 MiB of memory");
	lists = put_tables(&a, c);
	if (a.full)
		return too_long(c, e);
	put_rsdp(root, &lists);
	*rsdp = RSDP_BASE;
	return 0;
}

int acpi_build_files(struct acpi_files *f, const struct acpi_config *c, struct err *e)
{
	struct area a = {.hva = calloc(1, ACPI_TABLES_LEN)};
	struct lists lists;
	int r = 0;

	*f = (struct acpi_files){.tables = a.hva};
	if (!a.hva)
		return err_set(e, ENOMEM, "ACPI tables");
	lists = put_tables(&a, c);
	f->tables_len = a.used;
	put_rsdp((struct rsdp *)f->rsdp, &lists);
	r = a.full ? too_long(c, e) : acpi_loader_script(f, &a, e);
	if (r < 0)
		acpi_files_done(f);
	return r;
}

void acpi_files_done(struct acpi_files *f)
{
	free(f->tables);
	free(f->script);
	*f = (struct acpi_files){0};
}
