/* engine: how guest code runs. Two of them (cpu/kvm, cpu/jit) behind one table; the
 * run loop never sees a port or memory access, those go to the bus inside. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/bits.h"
#include "base/clock.h"
#include "base/err.h"
#include "bus/bus.h"
#include "bus/irq.h"
#include "cpu/cpuid.h"
#include "cpu/x86_state.h"
#include "mem/mem.h"

/* Why run() came back.
 * HALTED: the vCPU executed HLT (or waits for SIPI) and nothing is pending; call run
 *   again: it sleeps until an interrupt or a kick by itself (it returns HALTED only
 *   when nothing could ever wake it: HLT with interrupts off and no NMI source).
 * KICKED: kick() was called; do what you kicked it for, then run again.
 * SHUTDOWN: triple fault. BREAKPOINT: what set_debug asked for; vcpu.hit says what. */
enum vcpu_stop { VCPU_HALTED, VCPU_KICKED, VCPU_SHUTDOWN, VCPU_BREAKPOINT };

/* What a debugger wants a vCPU to stop for, unseen by the guest. Addresses are linear, in whatever
 * address space the vCPU is. EXEC stops before the instruction that begins there, also when the
 * vCPU goes on from there; the others after the instruction that touched one of the bytes.
 * INT3: the caller has put an INT3 there; stop before it and keep it from the guest. */
enum debug_kind { DEBUG_EXEC, DEBUG_WRITE, DEBUG_READ, DEBUG_ACCESS, DEBUG_INT3, DEBUG_KINDS };
struct debug_point {
	uint64_t gva;
	uint32_t len;
	enum debug_kind kind;
};
#define DEBUG_POINTS_MAX 64u
struct engine_debug {
	struct debug_point point[DEBUG_POINTS_MAX];
	unsigned points;
	bool step; /* stop after one instruction, and let no interrupt in before */
};

struct debug_hit {
	bool step;            /* the step is done; else: */
	enum debug_kind kind; /* of the point ... */
	uint64_t gva;         /* ... and its address */
};

/* The PIC as the vCPU's LINT0 sees it (ExtINT). Any thread. */
struct extint {
	bool (*pending)(struct extint *x);
	int (*ack)(struct extint *x); /* the vector, now in service; -1: spurious, nothing there */
};

/* A local APIC outside the engine (chipset/lapic); NULL on KVM, which has its own.
 * pending/ack are called by the vCPU thread before each entry, so they must be quick. */
struct lapic_ops;
struct lapic_port {
	const struct lapic_ops *ops;
};
struct lapic_ops {
	bool (*pending)(struct lapic_port *p); /* a vector above PPR waits (or ExtINT via LINT0) */
	int (*ack)(struct lapic_port *p);      /* the vector, moved from IRR to ISR; -1 if none */
	uint8_t (*get_cr8)(struct lapic_port *p);
	void (*set_cr8)(struct lapic_port *p, uint8_t cr8);
	/* APIC base, x2APIC range 0x800-0x8ff and TSC deadline; false: #GP */
	bool (*rdmsr)(struct lapic_port *p, uint32_t msr, uint64_t *v);
	bool (*wrmsr)(struct lapic_port *p, uint32_t msr, uint64_t v);
	/* The register page, when the vCPU's APIC base maps it: 32-bit accesses at 16-byte steps. */
	uint32_t (*mmio_read)(struct lapic_port *p, uint32_t offset);
	void (*mmio_write)(struct lapic_port *p, uint32_t offset, uint32_t value);
	void (*load)(struct lapic_port *p, const struct x86_state *s);
	void (*store)(struct lapic_port *p, struct x86_state *s);
	bool (*take_nmi)(struct lapic_port *p);  /* takes one NMI (LINT1, IPI) of at most two */
	bool (*take_init)(struct lapic_port *p); /* likewise INIT */
	int (*take_sipi)(struct lapic_port *p);  /* SIPI vector, or -1 */
	/* An IPI of mode fixed or NMI (icr: mode and vector) to this APIC ID, in whatever mode the
	 * sender's APIC is. false: it is another mode, or nobody has the ID. May be NULL. */
	bool (*send)(struct lapic_port *p, uint32_t apic_id, uint32_t icr);
};

/* Bounds of code_cache_bytes below: a block and the fixed code must fit with room to spare, and
 * jumps reach 2 GiB. */
#define JIT_CACHE_MIN     MIB(1)
#define JIT_CACHE_DEFAULT MIB(128)
#define JIT_CACHE_MAX     GIB(1)

/* The vCPU's time-stamp counter is linear in host TSC: guest = host + tsc_offset. */
struct engine_env {
	struct guest_mem *mem;
	struct bus *bus;
	struct clock *clock;
	const struct cpuid_table *cpuid;
	struct extint *extint; /* may be NULL in tests */
	/* A level-triggered vector was EOIed (KVM split irqchip). */
	void (*eoi)(void *ctx, uint8_t vector);
	void *eoi_ctx;
	uint64_t apic_hz;          /* LAPIC timer input; 0: 1 GHz */
	uint64_t wall_epoch_ns;    /* wall clock at guest time 0, for kvmclock */
	uint64_t code_cache_bytes; /* JIT; 0: JIT_CACHE_DEFAULT */
	bool force;                /* KVM: run although the probe says no */
	bool windows_at_once;      /* JIT: user code has a window from its first entry (tests) */
	bool always_loaded; /* JIT: a load comes before each step, so it need not watch RAM */
};

struct engine;
struct engine_vm { /* base of each engine's per-VM object */
	const struct engine *engine;
	struct msi_sink *msi; /* KVM: delivers to in-kernel LAPICs; NULL: use chipset/lapic */
};

struct vcpu { /* base of each engine's per-vCPU object */
	const struct engine *engine;
	struct engine_vm *vm;
	uint32_t index;           /* also its APIC ID */
	struct lapic_port *lapic; /* set by the machine after vcpu_new, before run; NULL on KVM */
	struct debug_hit hit;     /* after run returned VCPU_BREAKPOINT */
};

/* All but kick are called on the vCPU's own thread, or with that thread not in run. */
struct engine {
	const char *name; /* "kvm", "jit" */
	bool own_lapic;   /* LAPICs live in the engine (KVM) */
	/* Of set_debug: how many points besides those of kind INT3; bit n: takes enum debug_kind n. */
	unsigned debug_points, debug_kinds;
	int (*vm_new)(struct engine_vm **out, const struct engine_env *env, struct err *e);
	void (*vm_free)(struct engine_vm *vm); /* after its vCPUs; accepts NULL */
	int (*vcpu_new)(struct vcpu **out, struct engine_vm *vm, uint32_t index, struct err *e);
	void (*vcpu_free)(struct vcpu *v); /* accepts NULL */
	int (*run)(struct vcpu *v, enum vcpu_stop *why, struct err *e);
	/* Executes exactly one instruction (or delivers one pending event). */
	int (*step)(struct vcpu *v, enum vcpu_stop *why, struct err *e);
	/* Any thread, async-signal-safe: run returns soon. Outside run it is remembered: the next
	 * run returns at once. */
	void (*kick)(struct vcpu *v);
	/* An interrupt may have become pending: wakes a halted vCPU, makes a running one
	 * look; run does not return for it. Any thread, async-signal-safe. */
	void (*irq)(struct vcpu *v);
	int (*load)(struct vcpu *v, const struct x86_state *s, struct err *e);
	int (*store)(struct vcpu *v, struct x86_state *s, struct err *e);
	/* General, segment, control, debug and vector registers, and the MSRs that are registers,
	 * as a debugger changes them; what moves by itself (LAPIC, TSC, events) stays. */
	int (*load_regs)(struct vcpu *v, const struct x86_state *s, struct err *e);
	/* Holds for the runs to come; NULL: nothing any more. */
	int (*set_debug)(struct vcpu *v, const struct engine_debug *d, struct err *e);
	/* The guest's TSC now, for the deadline timer of a LAPIC outside; any thread. NULL with
	 * own_lapic. */
	uint64_t (*tsc)(struct vcpu *v);
	/* From freeze(true) to freeze(false) the guest's TSC stands still. */
	void (*freeze)(struct vcpu *v, bool frozen);
	/* Forgets what it can make again and keeps memory for: the guest is idle. All vCPUs of the VM
	 * are outside run. May be NULL. */
	void (*trim)(struct vcpu *v);
	/* One line for people on what the engine did so far; with no vCPU in run. May be NULL. */
	void (*stats)(struct engine_vm *vm, char *to, uint32_t len);
};

extern const struct engine engine_jit;
extern const struct engine engine_kvm;
