#include "boot/boot_priv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "chipset/layout.h"

static const struct acpi_config config = {
	.cpus = 2,
	.lapic = LAPIC_BASE,
	.ioapic = IOAPIC_BASE,
	.ecam_base = ECAM_BASE,
	.ecam_last_bus = ECAM_LAST_BUS,
	.pci_mmio_base = PCI_MMIO_BASE,
	.pci_mmio_len = PCI_MMIO_LEN,
	.pci_mmio64_base = GIB(8),
	.pci_mmio64_len = PCI_MMIO64_LEN,
};

struct built {
	struct guest_mem *m;
	const uint8_t *rsdp;
};

static struct built build(const struct acpi_config *c)
{
	struct built b;
	struct err e;
	gpa_t rsdp;

	assert_int_equal(mem_new(&b.m, MIB(2), &e), 0);
	if (acpi_build(b.m, c, &rsdp, &e) < 0)
		fail_msg("%s", e.text);
	assert_int_equal(rsdp & 15, 0);
	assert_true(rsdp >= 0xe0000 && rsdp < 0x100000);
	b.rsdp = mem_span(b.m, rsdp, 36);
	return b;
}

static uint8_t sum(const uint8_t *p, uint32_t len)
{
	uint8_t s = 0;

	while (len--)
		s += *p++;
	return s;
}

static const uint8_t *table_at(const struct built *b, gpa_t gpa)
{
	const uint8_t *t = mem_span(b->m, gpa, 8);

	assert_non_null(t);
	assert_true(gpa >= 0xe0000 && gpa + load_le(t + 4, 4) <= 0x100000);
	return t;
}

/* By way of RSDP and XSDT, as a kernel finds it. */
static const uint8_t *find(const struct built *b, const char *signature)
{
	const uint8_t *xsdt = table_at(b, load_le(b->rsdp + 24, 8));
	uint32_t len = (uint32_t)load_le(xsdt + 4, 4);

	for (uint32_t i = 36; i < len; i += 8) {
		const uint8_t *t = table_at(b, load_le(xsdt + i, 8));

		if (!memcmp(t, signature, 4))
			return t;
	}
	fail_msg("no %s", signature);
	return NULL;
}

static void assert_sum(const uint8_t *t)
{
	assert_int_equal(sum(t, (uint32_t)load_le(t + 4, 4)), 0);
}

static void all_checksums_are_right(void **state)
{
	struct built b = build(&config);
	const uint8_t *fadt = find(&b, "FACP");

	assert_memory_equal(b.rsdp, "RSD PTR ", 8);
	assert_int_equal(sum(b.rsdp, 20), 0);
	assert_int_equal(sum(b.rsdp, 36), 0);
	assert_sum(table_at(&b, load_le(b.rsdp + 24, 8)));
	assert_sum(fadt);
	assert_sum(find(&b, "APIC"));
	assert_sum(find(&b, "MCFG"));
	assert_sum(table_at(&b, load_le(fadt + 140, 8)));
	mem_free(b.m);
}

static void fadt_names_the_ports_of_the_layout(void **state)
{
	struct built b = build(&config);
	const uint8_t *f = find(&b, "FACP");

	assert_int_equal(load_le(f + 4, 4), 276);
	assert_int_equal(load_le(f + 46, 2), IRQ_SCI);
	assert_int_equal(load_le(f + 48, 4), 0); /* no SMI: always in ACPI mode */
	assert_int_equal(load_le(f + 56, 4), PORT_PM_EVT);
	assert_int_equal(load_le(f + 64, 4), PORT_PM_CNT);
	assert_int_equal(load_le(f + 76, 4), PORT_PM_TMR);
	assert_int_equal(load_le(f + 120, 8), PORT_RESET);
	assert_int_equal(f[116], 1);
	assert_int_equal(f[128], 6);
	assert_int_equal(load_le(f + 112, 4) & 0x100010, 0); /* not hw-reduced; PM1 button */
	assert_int_equal(load_le(f + 109, 2) & 7, 7);
	assert_int_equal(load_le(f + 152, 8), PORT_PM_EVT);
	assert_int_equal(load_le(f + 212, 8), PORT_PM_TMR);
	assert_memory_equal(table_at(&b, load_le(f + 36, 4)), "FACS", 4);
	assert_int_equal(load_le(f + 36, 4) & 63, 0);
	assert_memory_equal(table_at(&b, load_le(f + 40, 4)), "DSDT", 4);
	mem_free(b.m);
}

/* The n-th entry of a type, or NULL. */
static const uint8_t *madt_entry(const uint8_t *madt, uint8_t type, unsigned n)
{
	const uint8_t *end = madt + load_le(madt + 4, 4);

	for (const uint8_t *p = madt + 44; p < end; p += p[1]) {
		assert_true(p[1] >= 2);
		if (p[0] == type && n-- == 0)
			return p;
	}
	return NULL;
}

static void madt_wires_the_timer_to_pin_2_and_the_sci_by_level(void **state)
{
	static const uint8_t pit[] = {2, 10, 0, 0, 2, 0, 0, 0, 0, 0};
	static const uint8_t sci[] = {2, 10, 0, 9, 9, 0, 0, 0, 0x0d, 0};
	struct built b = build(&config);
	const uint8_t *madt = find(&b, "APIC");

	assert_int_equal(load_le(madt + 36, 4), LAPIC_BASE);
	assert_memory_equal(madt_entry(madt, 2, 0), pit, sizeof pit);
	assert_memory_equal(madt_entry(madt, 2, 1), sci, sizeof sci);
	assert_int_equal(load_le(madt_entry(madt, 1, 0) + 4, 4), IOAPIC_BASE);
	assert_int_equal(madt_entry(madt, 0, 1)[3], 1);
	assert_null(madt_entry(madt, 0, 2));
	mem_free(b.m);
}

static void processors_above_254_are_x2apic_entries(void **state)
{
	struct acpi_config many = config;
	struct built b;
	const uint8_t *madt;

	many.cpus = 300;
	b = build(&many);
	madt = find(&b, "APIC");
	assert_non_null(madt_entry(madt, 0, 254));
	assert_null(madt_entry(madt, 0, 255));
	assert_int_equal(load_le(madt_entry(madt, 9, 44) + 4, 4), 299);
	assert_null(madt_entry(madt, 9, 45));
	mem_free(b.m);
}

static void too_many_processors_are_refused(void **state)
{
	struct acpi_config many = config;
	struct guest_mem *m;
	struct err e;
	gpa_t rsdp = 1;

	many.cpus = 5000;
	assert_int_equal(mem_new(&m, MIB(2), &e), 0);
	assert_true(acpi_build(m, &many, &rsdp, &e) < 0);
	assert_non_null(strstr(e.text, "5000 processors"));
	assert_int_equal(rsdp, 1);
	mem_free(m);
}

static void the_dsdt_has_its_addresses(void **state)
{
	struct built b = build(&config);
	const uint8_t *dsdt = table_at(&b, load_le(find(&b, "FACP") + 140, 8));
	const uint8_t *name = memmem(dsdt, load_le(dsdt + 4, 4), "\x08HB64\x0e", 6);

	assert_non_null(name);
	assert_int_equal(load_le(name + 6, 8), GIB(8));
	mem_free(b.m);
}

static void mcfg_covers_the_buses(void **state)
{
	struct built b = build(&config);
	const uint8_t *mcfg = find(&b, "MCFG");

	assert_int_equal(load_le(mcfg + 44, 8), ECAM_BASE);
	assert_int_equal(mcfg[54], 0);
	assert_int_equal(mcfg[55], ECAM_LAST_BUS);
	mem_free(b.m);
}

/* What firmware does with the script. */
struct loaded {
	uint8_t *tables, *rsdp;
};

static uint8_t *file_of(const struct loaded *l, const char *name)
{
	if (!strcmp(name, ACPI_TABLES_FILE))
		return l->tables;
	assert_string_equal(name, ACPI_RSDP_FILE);
	return l->rsdp;
}

static void run_script(const struct loaded *l, const struct acpi_files *f, gpa_t tables_at)
{
	for (const uint8_t *p = f->script; p < f->script + f->script_len; p += 128) {
		uint8_t *to = file_of(l, (const char *)p + 4);
		uint32_t a = (uint32_t)load_le(p + 60, 4), b = (uint32_t)load_le(p + 64, 4);

		switch (load_le(p, 4)) {
		case 1: break;
		case 2:
			assert_string_equal((const char *)p + 60, ACPI_TABLES_FILE);
			a = (uint32_t)load_le(p + 116, 4);
			store_le(to + a, load_le(to + a, p[120]) + tables_at, p[120]);
			break;
		case 3:
			assert_int_equal(to[a], 0);
			to[a] = (uint8_t)-sum(to + b, (uint32_t)load_le(p + 68, 4));
			break;
		default: fail_msg("command %u", (unsigned)load_le(p, 4));
		}
	}
}

/* Put where acpi_build puts them, the tables are the same. */
static void firmware_makes_the_same_tables_elsewhere(void **state)
{
	struct built b = build(&config);
	struct acpi_files f;
	struct loaded l;

	assert_int_equal(acpi_build_files(&f, &config, NULL), 0);
	l = (struct loaded){.tables = f.tables, .rsdp = f.rsdp};
	run_script(&l, &f, 0xe0000);
	assert_memory_equal(f.tables, table_at(&b, 0xe0000), f.tables_len);
	assert_memory_equal(f.rsdp, b.rsdp, sizeof f.rsdp);
	acpi_files_done(&f);
	mem_free(b.m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_checksums_are_right),
		cmocka_unit_test(fadt_names_the_ports_of_the_layout),
		cmocka_unit_test(madt_wires_the_timer_to_pin_2_and_the_sci_by_level),
		cmocka_unit_test(processors_above_254_are_x2apic_entries),
		cmocka_unit_test(too_many_processors_are_refused),
		cmocka_unit_test(the_dsdt_has_its_addresses),
		cmocka_unit_test(firmware_makes_the_same_tables_elsewhere),
		cmocka_unit_test(mcfg_covers_the_buses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
