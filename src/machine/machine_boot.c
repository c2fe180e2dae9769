/* What lies in RAM, and in the vCPUs, when the guest's first instruction runs. */
#include "machine/machine_priv.h"

static int load_vcpu(struct machine *m, unsigned i, const struct x86_state *s, struct err *e)
{
	int r = m->engine->load(m->cpu[i].vcpu, s, e);

	return r < 0 ? err_wrap(e, "vCPU %u", i) : r;
}

static int load_kernel(struct machine *m, struct x86_state *s, struct err *e)
{
	struct boot_config c = {
		.kernel = m->kernel, .initrd = m->initrd, .cmdline = m->append, .vga = m->vga};
	struct kernel_source *source = m->kernel_source;
	struct acpi_config acpi;
	int r;

	machine_acpi_config(m, &acpi);
	r = acpi_build(m->mem, &acpi, &c.acpi_rsdp, e);
	if (r < 0 || (source && (r = source->get(source, &c.kernel, &c.initrd, &c.cmdline, e)) < 0))
		return r;
	vmgenid_place(m->device[DEV_VMGENID]);
	if ((r = smbios_place(m->mem, m->name, m->cpus, e)) < 0)
		return r;
	return boot_load(m->mem, &c, s, e);
}

int machine_load_guest(struct machine *m, struct err *e)
{
	struct x86_state s;
	int r;

	x86_state_reset(&s, 0);
	r = m->firmware ? firmware_load(m->mem, m->firmware, e) : load_kernel(m, &s, e);
	if (r < 0 || (r = load_vcpu(m, 0, &s, e)) < 0)
		return r;
	for (unsigned i = 1; r == 0 && i < m->cpus; i++) {
		x86_state_reset(&s, i);
		r = load_vcpu(m, i, &s, e);
	}
	return r;
}
