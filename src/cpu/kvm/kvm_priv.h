/* kvm_priv: what the files of the KVM engine share.
 *
 * vm.c makes the VM: memory slots, the split irqchip (LAPICs in the kernel; PIC, PIT and
 * IOAPIC are our models, as on the JIT), and message-signalled interrupts. vcpu.c makes
 * vCPUs, runs, steps and kicks them; exits.c serves what they exit for; regs.c moves
 * x86_state in and out; ioevent.c has the kernel do writes that only signal; aside.c has the JIT execute one instruction that KVM cannot; debug.c stops for a debugger. */
#pragma once

#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/types.h>
#include <time.h>

#include "cpu/engine.h"

#define KVM_MSRS_MAX 160
#define KVM_PINS     24 /* of our IOAPIC */

#define KVM_DEBUG_SLOTS 4u /* debug registers */

struct kvm_vm {
	struct engine_vm base;
	struct engine_env env;
	struct msi_sink sink;
	int sys_fd, fd;
	int run_bytes;  /* of a vCPU's mapped kvm_run */
	unsigned vcpus; /* changes only while none runs */
	struct bus_watcher watcher;
	bool any_length_events;
	bool has_sregs2, has_xcrs, has_debugregs, has_tsc_control;
	struct kvm_cpuid2 *supported; /* KVM_GET_SUPPORTED_CPUID */
	uint64_t xcr0_mask;           /* of the VM's table, cut to it */

	/* Routes exist for one purpose: by them the kernel knows which vectors are
	 * level-triggered, and reports their EOI. */
	pthread_mutex_t route_lock; /* guards the three below */
	struct kvm_irq_routing_entry route[KVM_PINS];
	unsigned routes, next_route;
};

struct kvm_cpu {
	struct vcpu base;
	int fd;
	struct kvm_run *run;
	/* Set before immediate_exit and the signal; vcpu.c tells why no kick is lost. */
	atomic_bool kicked;
	_Atomic pid_t tid; /* of the thread in run(), else 0 */

	bool unfinished; /* the last exit's instruction is completed by the next KVM_RUN */
	bool has_timer;
	pid_t timer_tid;
	timer_t timer; /* ticks while in run(), to notice a HLT that nothing ends */
	unsigned tick_shift;

	uint64_t frozen_tsc, frozen_tsc_adjust; /* the guest's, while they stand still */

	uint32_t msr[KVM_MSRS_MAX]; /* numbers that this KVM has, of msr_table's */
	unsigned msrs;

	struct engine_debug debug;
	const struct debug_point *slot[KVM_DEBUG_SLOTS]; /* of debug, by debug register */
	bool halted;                                     /* when debug was set */
	bool stepping;                                   /* in engine->step */

	struct engine_vm *jit_vm; /* for stepping aside; both made when first needed */
	struct vcpu *jit;
	struct lapic_port jit_lapic;
	uint64_t asides; /* instructions that the JIT executed for us */
};

static inline struct kvm_vm *to_kvm_vm(struct engine_vm *vm)
{
	return container_of(vm, struct kvm_vm, base);
}

static inline struct kvm_cpu *to_kvm_cpu(struct vcpu *v)
{
	return container_of(v, struct kvm_cpu, base);
}

static inline struct kvm_vm *kvm_vm_of(const struct kvm_cpu *c)
{
	return to_kvm_vm(c->base.vm);
}

/* --- vm.c --- */
int kvm_vm_new(struct engine_vm **out, const struct engine_env *env, struct err *e);
void kvm_vm_free(struct engine_vm *vm);

/* --- ioevent.c: from start to stop, the kernel does the bus's events --- */
void kvm_events_start(struct kvm_vm *vm);
void kvm_events_stop(struct kvm_vm *vm);

/* --- cpuid.c: the VM's table, cut to what KVM supports, into the kernel --- */
uint64_t kvm_xcr0_mask(const struct kvm_vm *vm);
int kvm_cpuid_load(struct kvm_cpu *c, struct err *e);

/* --- exits.c --- */
/* Serves the exit that KVM_RUN came back with. 1: run on; 0: *why says why run returns;
 * negative errno: the VM cannot go on. */
int kvm_serve_exit(struct kvm_cpu *c, enum vcpu_stop *why, struct err *e);
/* "what: rip ... " with the registers that tell most. Returns -code. */
int kvm_fail(struct kvm_cpu *c, struct err *e, int code, const char *what);

/* --- regs.c --- */
enum kvm_parts {
	KVM_PART_REGS = 1,
	KVM_PART_SREGS = 2,
	KVM_PART_FPU = 4, /* XSAVE area and XCR0 */
	KVM_PART_MSRS = 8,
	KVM_PART_DEBUG = 16,
	KVM_PART_EVENTS = 32,
	KVM_PART_MP = 64,
	KVM_PART_LAPIC = 128, /* with the deadline MSR */
	KVM_PART_TIME = 256,  /* TSC */
	KVM_PARTS_ALL = 511,
};
int kvm_store_parts(struct kvm_cpu *c, struct x86_state *s, unsigned parts, struct err *e);
int kvm_load_parts(struct kvm_cpu *c, const struct x86_state *s, unsigned parts, struct err *e);
/* Finds out which MSRs this KVM has. */
int kvm_list_msrs(struct kvm_cpu *c, struct err *e);

/* --- debug.c --- */
int kvm_set_debug(struct vcpu *v, const struct engine_debug *d, struct err *e);
int kvm_singlestep(struct kvm_cpu *c, bool on, struct err *e); /* for engine->step */
/* As kvm_serve_exit. */
int kvm_debug_exit(struct kvm_cpu *c, enum vcpu_stop *why, struct err *e);

/* --- aside.c --- */
/* Executes the instruction at RIP on the JIT, with no event delivered that is not already
 * under way. 1: done; 0: *why (SHUTDOWN); negative errno. */
int kvm_step_aside(struct kvm_cpu *c, enum vcpu_stop *why, struct err *e);
void kvm_aside_done(struct kvm_cpu *c);
