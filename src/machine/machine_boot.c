/* What lies in RAM, and in the vCPUs, when the guest's first instruction runs. */
#include "machine/machine_priv.h"

static uint64_t ram_end(const struct guest_mem *m)
{
	const struct mem_region *region;
	unsigned n = mem_regions(m, &region);

	return n ? region[n - 1].gpa + region[n - 1].size : 0;
}

static int write_acpi(struct machine *m, gpa_t *rsdp, struct err *e)
{
	const struct acpi_config c = {
		.cpus = m->cpus,
		.lapic = LAPIC_BASE,
		.ioapic = IOAPIC_BASE,
		.ecam_base = ECAM_BASE,
		.ecam_last_bus = ECAM_LAST_BUS,
		.pci_mmio_base = PCI_MMIO_BASE,
		.pci_mmio_len = PCI_MMIO_LEN,
		.pci_mmio64_base = align_up(max_u64(ram_end(m->mem), MEM_HIGH_BASE), GIB(1)),
		.pci_mmio64_len = PCI_MMIO64_LEN,
	};

	return acpi_build(m->mem, &c, rsdp, e);
}

static int load_vcpu(struct machine *m, unsigned i, const struct x86_state *s, struct err *e)
{
	int r = m->engine->load(m->cpu[i].vcpu, s, e);

	return r < 0 ? err_wrap(e, "vCPU %u", i) : r;
}

int machine_load_kernel(struct machine *m, struct err *e)
{
	struct boot_config c = {.kernel = m->kernel, .initrd = m->initrd, .cmdline = m->append};
	struct kernel_source *source = m->kernel_source;
	struct x86_state s;
	int r = write_acpi(m, &c.acpi_rsdp, e);

	if (r < 0 || (source && (r = source->get(source, &c.kernel, &c.initrd, &c.cmdline, e)) < 0))
		return r;
	vmgenid_place(m->device[DEV_VMGENID]);
	x86_state_reset(&s, 0);
	if ((r = boot_load(m->mem, &c, &s, e)) < 0 || (r = load_vcpu(m, 0, &s, e)) < 0)
		return r;
	for (unsigned i = 1; r == 0 && i < m->cpus; i++) {
		x86_state_reset(&s, i);
		r = load_vcpu(m, i, &s, e);
	}
	return r;
}
