/* vm: a KVM virtual machine with guest RAM as memory slots and a split irqchip. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/auto.h"
#include "cpu/kvm/kvm_priv.h"

/* Four pages for Intel hosts that run real mode in virtual-8086 mode; just below the
 * BIOS's place, where the machine has nothing (KVM API, 4.35 and 4.41). */
#define IDENTITY_MAP_GPA 0xfeffc000u
#define TSS_GPA          0xfeffd000u

/* Message data: bit 15 is the trigger mode, set for level (SDM vol. 3, 11.11.2). */
#define MSI_LEVEL BIT(15)

#ifndef KVM_CAP_EXIT_ON_EMULATION_FAILURE /* Linux 5.14 */
#define KVM_CAP_EXIT_ON_EMULATION_FAILURE 204
#endif
#ifndef KVM_CAP_X86_APIC_BUS_CYCLES_NS /* Linux 6.11 */
#define KVM_CAP_X86_APIC_BUS_CYCLES_NS 237
#endif

static int has_cap(const struct kvm_vm *vm, int cap)
{
	return ioctl(vm->sys_fd, KVM_CHECK_EXTENSION, cap);
}

static int enable_cap(const struct kvm_vm *vm, uint32_t cap, uint64_t arg)
{
	struct kvm_enable_cap on = {.cap = cap, .args = {arg}};

	return ioctl(vm->fd, KVM_ENABLE_CAP, &on);
}

/* Makes the kernel report EOIs of the vector in this message. */
static void note_level_message(struct kvm_vm *vm, uint64_t addr, uint32_t data)
{
	AUTO_LOCK(&vm->route_lock);
	_Alignas(8) uint8_t bytes[sizeof(struct kvm_irq_routing) + sizeof vm->route] = {};
	struct kvm_irq_routing *all = (struct kvm_irq_routing *)bytes;

	for (unsigned i = 0; i < vm->routes; i++)
		if (vm->route[i].u.msi.address_lo == (uint32_t)addr &&
		    vm->route[i].u.msi.data == data)
			return;
	/* More messages than pins: the guest has programmed pins anew; the oldest goes. */
	vm->route[vm->next_route] = (struct kvm_irq_routing_entry){
		.gsi = vm->next_route,
		.type = KVM_IRQ_ROUTING_MSI,
		.u.msi = {.address_lo = addr, .address_hi = addr >> 32, .data = data},
	};
	if (vm->routes < KVM_PINS)
		vm->routes++;
	vm->next_route = (vm->next_route + 1) % KVM_PINS;
	all->nr = vm->routes;
	memcpy(all->entries, vm->route, sizeof vm->route);
	(void)!ioctl(vm->fd, KVM_SET_GSI_ROUTING, all);
}

static void send_msi(struct msi_sink *s, uint64_t addr, uint32_t data)
{
	struct kvm_vm *vm = container_of(s, struct kvm_vm, sink);
	struct kvm_msi msi = {.address_lo = addr, .address_hi = addr >> 32, .data = data};

	if (data & MSI_LEVEL)
		note_level_message(vm, addr, data);
	/* 0: no LAPIC took it, which is the guest's affair */
	(void)!ioctl(vm->fd, KVM_SIGNAL_MSI, &msi);
}

static int add_slot(struct kvm_vm *vm, uint32_t n, const struct mem_region *r, uint32_t flags,
		    struct err *e)
{
	struct kvm_userspace_memory_region slot = {
		.slot = n,
		.flags = flags,
		.guest_phys_addr = r->gpa,
		.memory_size = r->size,
		.userspace_addr = (uintptr_t)r->hva,
	};

	if (ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &slot) < 0)
		return err_sys(e, errno, "KVM: guest memory at %#llx", (unsigned long long)r->gpa);
	return 0;
}

static int add_memory(struct kvm_vm *vm, struct err *e)
{
	const struct mem_region *r, *rom = mem_rom(vm->env.mem);
	unsigned n = mem_regions(vm->env.mem, &r);
	int ret = 0;

	for (unsigned i = 0; i < n && ret == 0; i++)
		ret = add_slot(vm, i, &r[i], 0, e);
	if (ret < 0 || !rom)
		return ret;
	if (has_cap(vm, KVM_CAP_READONLY_MEM) <= 0)
		return err_set(e, ENOTSUP, "this KVM has no read-only memory for firmware");
	return add_slot(vm, n, rom, KVM_MEM_READONLY, e);
}

static int set_apic_hz(struct kvm_vm *vm, struct err *e)
{
	struct kvm_enable_cap on = {.cap = KVM_CAP_X86_APIC_BUS_CYCLES_NS};

	if (!vm->env.apic_hz || vm->env.apic_hz == 1000000000)
		return 0; /* what KVM does by itself */
	on.args[0] = 1000000000 / vm->env.apic_hz;
	if (ioctl(vm->fd, KVM_ENABLE_CAP, &on) < 0)
		return err_set(e, ENOTSUP, "this KVM's LAPIC timer runs at 1 GHz only");
	return 0;
}

static int add_irqchip(struct kvm_vm *vm, struct err *e)
{
	uint64_t identity = IDENTITY_MAP_GPA;

	if (has_cap(vm, KVM_CAP_SET_TSS_ADDR) > 0 &&
	    ioctl(vm->fd, KVM_SET_TSS_ADDR, (unsigned long)TSS_GPA) < 0)
		return err_sys(e, errno, "KVM_SET_TSS_ADDR");
	if (has_cap(vm, KVM_CAP_SET_IDENTITY_MAP_ADDR) > 0 &&
	    ioctl(vm->fd, KVM_SET_IDENTITY_MAP_ADDR, &identity) < 0)
		return err_sys(e, errno, "KVM_SET_IDENTITY_MAP_ADDR");
	if (enable_cap(vm, KVM_CAP_SPLIT_IRQCHIP, KVM_PINS) < 0)
		return err_sys(e, errno, "KVM: split irqchip");
	/* Registers that KVM does not know are answered from msr_table (exits.c). Old kernels
	 * have no such exit: there the guest gets #GP for them. */
	(void)!enable_cap(vm, KVM_CAP_X86_USER_SPACE_MSR, KVM_MSR_EXIT_REASON_UNKNOWN);
	/* Without this, what fails to be emulated in ring 3 becomes #UD there. */
	(void)!enable_cap(vm, KVM_CAP_EXIT_ON_EMULATION_FAILURE, 1);
	return set_apic_hz(vm, e);
}

static int read_supported_cpuid(struct kvm_vm *vm, struct err *e)
{
	unsigned max = 64;

	for (;; max *= 2) {
		struct kvm_cpuid2 *t = calloc(1, sizeof *t + max * sizeof t->entries[0]);

		if (!t)
			return err_set(e, ENOMEM, "KVM: CPUID table");
		t->nent = max;
		if (ioctl(vm->sys_fd, KVM_GET_SUPPORTED_CPUID, t) == 0) {
			vm->supported = t;
			vm->xcr0_mask = kvm_xcr0_mask(vm);
			return 0;
		}
		free(t);
		if (errno != E2BIG || max > 4096)
			return err_sys(e, errno, "KVM_GET_SUPPORTED_CPUID");
	}
}

static int open_kvm(struct kvm_vm *vm, struct err *e)
{
	vm->sys_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (vm->sys_fd < 0)
		return err_sys(e, errno, "open '/dev/kvm'");
	if (ioctl(vm->sys_fd, KVM_GET_API_VERSION, 0) != KVM_API_VERSION)
		return err_set(e, ENOTSUP, "/dev/kvm speaks another API version");
	if (has_cap(vm, KVM_CAP_SPLIT_IRQCHIP) <= 0 || has_cap(vm, KVM_CAP_IMMEDIATE_EXIT) <= 0 ||
	    has_cap(vm, KVM_CAP_SIGNAL_MSI) <= 0)
		return err_set(e, ENOTSUP, "this KVM is too old: Linux 4.11 or later is needed");
	vm->run_bytes = ioctl(vm->sys_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (vm->run_bytes < (int)sizeof(struct kvm_run))
		return err_set(e, ENOTSUP, "KVM_GET_VCPU_MMAP_SIZE: %d", vm->run_bytes);
	vm->has_sregs2 = has_cap(vm, KVM_CAP_SREGS2) > 0;
	vm->has_xcrs = has_cap(vm, KVM_CAP_XCRS) > 0;
	vm->has_debugregs = has_cap(vm, KVM_CAP_DEBUGREGS) > 0;
	vm->has_tsc_control = has_cap(vm, KVM_CAP_TSC_CONTROL) > 0;
	do
		vm->fd = ioctl(vm->sys_fd, KVM_CREATE_VM, 0);
	while (vm->fd < 0 && errno == EINTR);
	return vm->fd < 0 ? err_sys(e, errno, "KVM_CREATE_VM") : 0;
}

/* Whether this host is fit for it at all is the probe's question, and asked above. */
int kvm_vm_new(struct engine_vm **out, const struct engine_env *env, struct err *e)
{
	struct kvm_vm *vm = calloc(1, sizeof *vm);
	int r;

	if (!vm)
		return err_set(e, ENOMEM, "KVM: virtual machine");
	vm->base = (struct engine_vm){.engine = &engine_kvm, .msi = &vm->sink};
	vm->env = *env;
	vm->sink.send = send_msi;
	vm->sys_fd = vm->fd = -1;
	pthread_mutex_init(&vm->route_lock, NULL);

	r = open_kvm(vm, e);
	if (r == 0)
		r = read_supported_cpuid(vm, e);
	if (r == 0)
		r = add_irqchip(vm, e);
	if (r == 0)
		r = add_memory(vm, e);
	if (r < 0) {
		kvm_vm_free(&vm->base);
		return r;
	}
	kvm_events_start(vm);
	*out = &vm->base;
	return 0;
}

void kvm_vm_free(struct engine_vm *base)
{
	struct kvm_vm *vm;

	if (!base)
		return;
	vm = to_kvm_vm(base);
	kvm_events_stop(vm);
	if (vm->fd >= 0)
		close(vm->fd);
	if (vm->sys_fd >= 0)
		close(vm->sys_fd);
	pthread_mutex_destroy(&vm->route_lock);
	free(vm->supported);
	free(vm);
}
