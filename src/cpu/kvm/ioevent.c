/* ioevent: writes that only signal an eventfd (bus_event) are done by the kernel: the vCPU does
 * not leave it. Where KVM refuses one, the write comes as an exit, and the region does it. */
#include <sys/ioctl.h>

#include "cpu/kvm/kvm_priv.h"

static void set_events(struct bus_watcher *w, enum bus_space s, uint64_t base,
		       const struct bus_region *r, unsigned flags)
{
	struct kvm_vm *vm = container_of(w, struct kvm_vm, watcher);

	for (unsigned i = 0; i < r->event_count; i++) {
		struct kvm_ioeventfd e = {
			.addr = base + r->events[i].offset,
			.len = vm->any_length_events ? 0 : 2, /* 0: a write of any width */
			.fd = r->events[i].fd,
			.flags = flags | (s == BUS_PIO ? KVM_IOEVENTFD_FLAG_PIO : 0u),
		};

		(void)!ioctl(vm->fd, KVM_IOEVENTFD, &e);
	}
}

static void mapped(struct bus_watcher *w, enum bus_space s, uint64_t base,
		   const struct bus_region *r)
{
	set_events(w, s, base, r, 0);
}

static void unmapped(struct bus_watcher *w, enum bus_space s, uint64_t base,
		     const struct bus_region *r)
{
	set_events(w, s, base, r, KVM_IOEVENTFD_FLAG_DEASSIGN);
}

void kvm_events_start(struct kvm_vm *vm)
{
	if (!vm->env.bus || ioctl(vm->sys_fd, KVM_CHECK_EXTENSION, KVM_CAP_IOEVENTFD) <= 0)
		return;
	vm->any_length_events =
		ioctl(vm->sys_fd, KVM_CHECK_EXTENSION, KVM_CAP_IOEVENTFD_ANY_LENGTH) > 0;
	vm->watcher = (struct bus_watcher){mapped, unmapped};
	bus_watch(vm->env.bus, &vm->watcher);
}

void kvm_events_stop(struct kvm_vm *vm)
{
	if (vm->watcher.mapped)
		bus_watch(vm->env.bus, NULL);
}
