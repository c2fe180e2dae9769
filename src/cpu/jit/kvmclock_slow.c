/* kvmclock: the clock page by which a KVM guest turns its TSC into nanoseconds (Linux
 * Documentation/virt/kvm/x86/msr.rst, MSR_KVM_SYSTEM_TIME_NEW and MSR_KVM_WALL_CLOCK_NEW).
 * The version is odd while a page is being written. */
#include <x86intrin.h>

#include "cpu/jit/core.h"
#include "cpu/jit/sys_priv.h"

#define SYSTEM_TIME_ENABLED 1u
#define FLAG_TSC_STABLE     1u

struct pvclock_vcpu_time {
	uint32_t version, pad0;
	uint64_t tsc_timestamp, system_time;
	uint32_t tsc_to_system_mul;
	int8_t tsc_shift;
	uint8_t flags, pad[2];
};

struct pvclock_wall_clock {
	uint32_t version, sec, nsec;
};

/* ns = (ticks << shift) * mul >> 32, with mul as large as fits. */
static void scale_for(uint64_t hz, struct pvclock_vcpu_time *t)
{
	for (int shift = -31; shift <= 31; shift++) {
		unsigned __int128 mul = (unsigned __int128)1000000000 << (32 - shift);

		mul /= hz;
		if (mul <= UINT32_MAX) {
			t->tsc_shift = (int8_t)shift;
			t->tsc_to_system_mul = (uint32_t)mul;
			return;
		}
	}
}

/* All vCPUs count from the same point: then none is before another. */
static void vm_clock(struct jit_vm *vm, uint64_t *tsc, uint64_t *ns)
{
	futex_take(&vm->time_lock);
	if (!vm->clock_tsc) {
		vm->clock_tsc = __rdtsc();
		vm->clock_ns = clock_now(vm->env.clock);
	}
	*tsc = vm->clock_tsc;
	*ns = vm->clock_ns;
	futex_give(&vm->time_lock);
}

void kvmclock_publish(struct jit_cpu *c)
{
	struct guest_mem *m = c->env->mem;
	uint64_t gpa = c->st.kvm_system_time & ~UINT64_C(1), hz = c->env->cpuid->tsc_hz;
	struct pvclock_vcpu_time t = {.flags = FLAG_TSC_STABLE};

	if (!(c->st.kvm_system_time & SYSTEM_TIME_ENABLED) || !hz ||
	    mem_read(m, gpa, &t.version, sizeof t.version) < 0)
		return;
	scale_for(hz, &t);
	t.version = (t.version | 1) + 2;
	vm_clock(c->vm, &t.tsc_timestamp, &t.system_time);
	t.tsc_timestamp += c->tsc_offset;
	if (mem_write(m, gpa, &t, sizeof t) < 0)
		return;
	/* Pairs with the guest's read barriers around its reads of the version. */
	atomic_thread_fence(memory_order_release);
	t.version++;
	if (mem_write(m, gpa, &t.version, sizeof t.version) < 0)
		return;
}

void kvmclock_wall(struct jit_cpu *c, uint64_t gpa)
{
	uint64_t ns = c->env->wall_epoch_ns;
	struct pvclock_wall_clock w = {.sec = (uint32_t)(ns / 1000000000),
				       .nsec = (uint32_t)(ns % 1000000000)};
	uint32_t version;

	if (mem_read(c->env->mem, gpa, &version, sizeof version) < 0)
		return;
	w.version = (version | 1) + 1; /* even: the write below is not seen half done */
	if (mem_write(c->env->mem, gpa, &w, sizeof w) < 0)
		return;
}
