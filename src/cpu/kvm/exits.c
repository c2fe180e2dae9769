/* exits: what a vCPU left KVM_RUN for. Ports and memory go to the bus; the rest is time
 * to look, an EOI for the IOAPIC, or the end. kvm_run's data is the kernel's, not the
 * guest's: sizes in it can be trusted. */
#include <errno.h>
#include <stdio.h>
#include <sys/ioctl.h>

#include "cpu/kvm/kvm_priv.h"
#include "cpu/msr.h"

static void serve_io(struct kvm_cpu *c)
{
	struct kvm_run *run = c->run;
	struct bus *bus = kvm_vm_of(c)->env.bus;
	uint8_t *data = (uint8_t *)run + run->io.data_offset;
	unsigned size = run->io.size;

	for (uint32_t i = 0; i < run->io.count; i++, data += size) {
		if (run->io.direction == KVM_EXIT_IO_OUT)
			bus_write(bus, BUS_PIO, run->io.port, load_le(data, size), size);
		else
			store_le(data, bus_read(bus, BUS_PIO, run->io.port, size), size);
	}
}

/* KVM hands over up to 8 bytes; an odd length (an access across pages) goes in bytes. */
static void serve_mmio(struct kvm_cpu *c)
{
	struct kvm_run *run = c->run;
	struct bus *bus = kvm_vm_of(c)->env.bus;
	unsigned len = run->mmio.len;
	unsigned size = len && !(len & (len - 1)) ? len : 1;

	for (unsigned i = 0; i < len; i += size) {
		uint8_t *data = run->mmio.data + i;
		uint64_t gpa = run->mmio.phys_addr + i;

		if (run->mmio.is_write)
			bus_write(bus, BUS_MMIO, gpa, load_le(data, size), size);
		else
			store_le(data, bus_read(bus, BUS_MMIO, gpa, size), size);
	}
}

static void serve_rdmsr(struct kvm_run *run)
{
	const struct msr_desc *d = msr_find(run->msr.index);

	run->msr.error = !d || !(d->flags & MSR_CONST);
	run->msr.data = run->msr.error ? 0 : d->bits;
}

static void serve_wrmsr(struct kvm_run *run)
{
	const struct msr_desc *d = msr_find(run->msr.index);

	run->msr.error = !d || !(d->flags & MSR_CONST) || !(d->flags & MSR_IGNORED);
}

int kvm_fail(struct kvm_cpu *c, struct err *e, int code, const char *what)
{
	static const unsigned parts = KVM_PART_REGS | KVM_PART_SREGS;
	struct x86_state s = {};
	char bytes[3 * 8 + 1] = "";
	uint64_t gva;
	struct kvm_translation t;

	if (kvm_store_parts(c, &s, parts, NULL) < 0)
		return err_set(e, code, "%s; its registers cannot be read", what);
	gva = s.rip + s.seg[X86_CS].base;
	t = (struct kvm_translation){.linear_address = gva};
	if (ioctl(c->fd, KVM_TRANSLATE, &t) == 0 && t.valid) {
		const uint8_t *p = mem_span(kvm_vm_of(c)->env.mem, t.physical_address, 8);

		for (int i = 0; p && i < 8; i++)
			snprintf(bytes + 3 * i, 4, " %02x", p[i]);
	}
	return err_set(e, code,
		       "%s: rip %#llx [%s] cs %x rsp %#llx rflags %#llx rax %#llx cr0 %#llx "
		       "cr2 %#llx cr3 %#llx cr4 %#llx efer %#llx",
		       what, (unsigned long long)s.rip, bytes[0] ? bytes + 1 : "?",
		       s.seg[X86_CS].sel, (unsigned long long)s.gpr[X86_RSP],
		       (unsigned long long)s.rflags, (unsigned long long)s.gpr[X86_RAX],
		       (unsigned long long)s.cr0, (unsigned long long)s.cr2,
		       (unsigned long long)s.cr3, (unsigned long long)s.cr4,
		       (unsigned long long)s.efer);
}

static int fail_entry(struct kvm_cpu *c, struct err *e)
{
	char what[64];

	snprintf(what, sizeof what, "KVM: entry failed, reason %#llx",
		 (unsigned long long)c->run->fail_entry.hardware_entry_failure_reason);
	return kvm_fail(c, e, EIO, what);
}

static int fail_exit(struct kvm_cpu *c, struct err *e)
{
	char what[64];

	snprintf(what, sizeof what, "KVM: unexpected exit %u", c->run->exit_reason);
	return kvm_fail(c, e, EIO, what);
}

int kvm_serve_exit(struct kvm_cpu *c, enum vcpu_stop *why, struct err *e)
{
	const struct engine_env *env = &kvm_vm_of(c)->env;
	struct kvm_run *run = c->run;

	c->unfinished = false;
	switch (run->exit_reason) {
	case KVM_EXIT_IO:
		serve_io(c);
		c->unfinished = true;
		return 1;
	case KVM_EXIT_MMIO:
		serve_mmio(c);
		c->unfinished = true;
		return 1;
	case KVM_EXIT_X86_RDMSR:
		serve_rdmsr(run);
		c->unfinished = true;
		return 1;
	case KVM_EXIT_X86_WRMSR:
		serve_wrmsr(run);
		c->unfinished = true;
		return 1;
	case KVM_EXIT_IOAPIC_EOI:
		if (env->eoi)
			env->eoi(env->eoi_ctx, run->eoi.vector);
		return 1;
	case KVM_EXIT_INTR:
	case KVM_EXIT_IRQ_WINDOW_OPEN:
	case KVM_EXIT_SET_TPR:
	case KVM_EXIT_SYSTEM_EVENT: return 1;
	case KVM_EXIT_HLT: *why = VCPU_HALTED; return 0;
	case KVM_EXIT_SHUTDOWN: *why = VCPU_SHUTDOWN; return 0;
	case KVM_EXIT_DEBUG: return kvm_debug_exit(c, why, e);
	case KVM_EXIT_INTERNAL_ERROR: return kvm_step_aside(c, why, e);
	case KVM_EXIT_FAIL_ENTRY: return fail_entry(c, e);
	default: return fail_exit(c, e);
	}
}
