/* cpuid: the VM's CPUID table, cut to what this KVM supports, given to the kernel, which
 * answers CPUID from then on (and fills OSXSAVE and the XSAVE size itself). */
#include <errno.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#include "base/auto.h"
#include "cpu/kvm/kvm_priv.h"

enum { EAX = 1, EBX = 2, ECX = 4, EDX = 8 };

/* Registers that are sets of features, so that each bit needs KVM's consent; the others
 * are numbers, which the table knows best. always: bits that KVM leaves to us. */
static const struct feature_leaf {
	uint32_t leaf, subleaf;
	unsigned regs;
	uint32_t always_ecx;
} feature_leaves[] = {
	{0x1, 0, ECX | EDX, 1u << 31 | 1u << 27}, /* hypervisor, OSXSAVE */
	{0x7, 0, EBX | ECX | EDX, 1u << 4},       /* OSPKE */
	{0x7, 1, EAX | EBX | ECX | EDX, 0},
	{0x7, 2, EDX, 0},
	{0xd, 0, EAX | EDX, 0},
	{0xd, 1, EAX | ECX | EDX, 0},
	{0x80000001, 0, ECX | EDX, 0},
	{0x80000007, 0, EDX, 0},
	{0x80000008, 0, EBX, 0},
	{0x80000021, 0, EAX, 0},
	{0x40000001, 0, EAX, 0},
};

#define LEAF7_ECX_LA57         (1u << 16)
#define LEAF1_ECX_X2APIC       (1u << 21)
#define LEAF1_ECX_TSC_DEADLINE (1u << 24)

static const struct kvm_cpuid_entry2 *find_entry(const struct kvm_cpuid2 *t, uint32_t leaf,
						 uint32_t subleaf)
{
	for (uint32_t i = 0; i < t->nent; i++) {
		const struct kvm_cpuid_entry2 *k = &t->entries[i];
		bool indexed = k->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX;

		if (k->function == leaf && (!indexed || k->index == subleaf))
			return k;
	}
	return NULL;
}

static void cut(const struct kvm_vm *vm, const struct feature_leaf *f, struct kvm_cpuid_entry2 *k)
{
	const struct kvm_cpuid_entry2 none = {};
	const struct kvm_cpuid_entry2 *may = find_entry(vm->supported, f->leaf, f->subleaf);
	uint32_t always_ecx = f->always_ecx;

	if (!may)
		may = &none;
	if (f->leaf == 1) {
		always_ecx |= LEAF1_ECX_X2APIC;
		if (ioctl(vm->sys_fd, KVM_CHECK_EXTENSION, KVM_CAP_TSC_DEADLINE_TIMER) > 0)
			always_ecx |= LEAF1_ECX_TSC_DEADLINE;
	}
	if (f->regs & EAX)
		k->eax &= may->eax;
	if (f->regs & EBX)
		k->ebx &= may->ebx;
	if (f->regs & ECX)
		k->ecx &= may->ecx | always_ecx;
	if (f->regs & EDX)
		k->edx &= may->edx;
}

static struct kvm_cpuid_entry2 entry_of(const struct kvm_cpu *c, const struct cpuid_leaf *l)
{
	static const struct x86_state reset = {
		.apic_base = 0xfee00900, .xcr0 = XCR0_X87, .cr4 = CR4_OSXSAVE};
	struct kvm_cpuid_entry2 k = {
		.function = l->leaf,
		.index = l->subleaf,
		.flags = l->has_subleaves ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
	};
	uint32_t r[4];

	cpuid_query(kvm_vm_of(c)->env.cpuid, &reset, c->base.index, l->leaf, l->subleaf, r);
	k.eax = r[0];
	k.ebx = r[1];
	k.ecx = r[2];
	k.edx = r[3];
	for (unsigned i = 0; i < ARRAY_SIZE(feature_leaves); i++)
		if (feature_leaves[i].leaf == l->leaf && feature_leaves[i].subleaf == l->subleaf)
			cut(kvm_vm_of(c), &feature_leaves[i], &k);
	return k;
}

uint64_t kvm_xcr0_mask(const struct kvm_vm *vm)
{
	const struct kvm_cpuid_entry2 *may = find_entry(vm->supported, 0xd, 0);
	uint64_t carried = may ? may->eax | (uint64_t)may->edx << 32 : 0;

	return (vm->env.cpuid->xcr0_mask & carried) | XCR0_X87 | XCR0_SSE;
}

/* The width of linear addresses in leaf 0x80000008 follows from what was left of LA57. */
static void fix_address_width(struct kvm_cpuid2 *t)
{
	const struct kvm_cpuid_entry2 *features = find_entry(t, 7, 0);
	struct kvm_cpuid_entry2 *sizes = (struct kvm_cpuid_entry2 *)find_entry(t, 0x80000008, 0);

	if (sizes && !(features && features->ecx & LEAF7_ECX_LA57))
		sizes->eax = (sizes->eax & ~0xff00u) | 48 << 8;
}

int kvm_cpuid_load(struct kvm_cpu *c, struct err *e)
{
	const struct cpuid_table *t = kvm_vm_of(c)->env.cpuid;
	AUTO_FREE struct kvm_cpuid2 *k = calloc(1, sizeof *k + t->count * sizeof k->entries[0]);

	if (!k)
		return err_set(e, ENOMEM, "KVM: CPUID table");
	for (unsigned i = 0; i < t->count; i++)
		k->entries[k->nent++] = entry_of(c, &t->leaf[i]);
	fix_address_width(k);
	if (ioctl(c->fd, KVM_SET_CPUID2, k) < 0)
		return err_sys(e, errno, "KVM_SET_CPUID2");
	return 0;
}
