/* lapic_priv: what the files of the local APIC share. lapic.c has the way of an interrupt
 * into the vCPU, lapic_regs.c the registers as page, MSRs and x86_state, lapic_timer.c the
 * timer, lapic_bus.c the messages between LAPICs. Section numbers are of the Intel SDM,
 * volume 3A.
 *
 * Locks: each LAPIC has one mutex, the innermost of the chipset (after it only the
 * clock's own). Nothing that leaves the LAPIC happens under it: waking the vCPU, an IPI,
 * and telling the IOAPIC of an EOI are noted in struct lapic_todo and done by
 * lapic_unlock. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "chipset/chipset.h"

enum lapic_mode { DM_FIXED, DM_LOWEST, DM_SMI, DM_NMI = 4, DM_INIT, DM_SIPI, DM_EXTINT };

enum lvt { LVT_TIMER, LVT_THERMAL, LVT_PERF, LVT_LINT0, LVT_LINT1, LVT_ERROR, LVT_COUNT };
#define LVT_MASKED     0x10000u
#define LVT_MODE_SHIFT 8

enum timer_mode { TIMER_ONE_SHOT, TIMER_PERIODIC, TIMER_TSC_DEADLINE, TIMER_RESERVED };

#define ESR_REDIRECT       0x10u
#define ESR_SEND_VECTOR    0x20u
#define ESR_RECEIVE_VECTOR 0x40u
#define ESR_REGISTER       0x80u

#define SVR_ENABLE       0x100u
#define SVR_NO_BROADCAST 0x1000u

#define APIC_BASE_BSP 0x100u
#define APIC_BASE_X2  0x400u
#define APIC_BASE_ON  0x800u

/* A message between APICs. dest is 32 bits wide as in x2APIC mode; broadcast says that the
 * sender's form of "all" was used. */
struct lapic_msg {
	uint8_t mode, vector;
	bool logical, level, broadcast;
	enum { TO_DEST, TO_SELF, TO_ALL, TO_OTHERS } to;
	uint32_t dest;
};

/* What is to be done once the lock is released. */
struct lapic_todo {
	bool wake, eoi, send;
	uint8_t eoi_vector;
	struct lapic_msg msg;
};

struct lapic {
	struct lapic_port port;
	struct irq_line nmi_line;
	struct lapic_bus *bus;
	struct lapic_env env;
	uint32_t id;
	struct timer timer;

	/* Read without the lock: highest vector in IRR that beats PPR, or -1; and whether the
	 * PIC's output reaches the vCPU. */
	_Atomic int candidate;
	atomic_bool extint_open;
	/* Latched for the vCPU; set by any thread, taken by the vCPU's. */
	atomic_bool init, extint_msg;
	atomic_uint nmis; /* 2 at most: one to be served, one to wait */
	_Atomic int sipi; /* vector, or -1 */

	pthread_mutex_t lock; /* guards all below */
	struct lapic_todo todo;
	uint64_t base; /* IA32_APIC_BASE */
	uint32_t tpr, ldr, dfr, svr, esr, esr_seen, lvt[LVT_COUNT];
	uint64_t icr;
	uint32_t irr[8], isr[8], tmr[8];
	bool lint1;

	/* The timer: the first count ends first ticks after start_ns, the later ones (periodic)
	 * initial ticks each. A tick is 1 / (timer_hz / divider). */
	uint32_t initial, first, divide;
	uint64_t start_ns;
	uint64_t fired; /* periods that have been signalled */
	bool over;      /* a one-shot that had ended when it was made periodic: stands at 0 */
	uint64_t tsc_deadline;
};

struct lapic_bus {
	struct msi_sink msi;
	struct lapic **lapics; /* changes only while the VM is being built or taken down */
	unsigned count;
	atomic_uint turn; /* where the search for a lowest-priority target begins */
};

static inline struct lapic *to_lapic(struct lapic_port *p)
{
	return container_of(p, struct lapic, port);
}

static inline void lapic_lock(struct lapic *l)
{
	pthread_mutex_lock(&l->lock);
}

void lapic_unlock(struct lapic *l);

static inline bool lapic_on(const struct lapic *l)
{
	return l->base & APIC_BASE_ON;
}

static inline bool lapic_x2(const struct lapic *l)
{
	return l->base & APIC_BASE_X2;
}

/* --- lapic.c; lock held --- */
void lapic_update(struct lapic *l);
void lapic_raise(struct lapic *l, uint8_t vector, bool level);
void lapic_error(struct lapic *l, uint32_t bit);
void lapic_lvt_fire(struct lapic *l, enum lvt which);
void lapic_nmi(struct lapic *l);
uint8_t lapic_ppr(const struct lapic *l);
void lapic_end_interrupt(struct lapic *l);
/* As RESET and INIT leave them (11.4.7); the ID and the base register stay. */
void lapic_reset_registers(struct lapic *l);

/* --- lapic_regs.c: see struct lapic_ops; they take the lock --- */
bool lapic_rdmsr(struct lapic_port *p, uint32_t msr, uint64_t *v);
bool lapic_wrmsr(struct lapic_port *p, uint32_t msr, uint64_t v);
uint32_t lapic_mmio_read(struct lapic_port *p, uint32_t offset);
void lapic_mmio_write(struct lapic_port *p, uint32_t offset, uint32_t value);
void lapic_load(struct lapic_port *p, const struct x86_state *s);
void lapic_store(struct lapic_port *p, struct x86_state *s);

/* --- lapic_bus.c; no LAPIC's lock held --- */
void lapic_route(struct lapic_bus *b, struct lapic *from, const struct lapic_msg *m);
bool lapic_send(struct lapic_port *p, uint32_t id, uint32_t icr); /* see struct lapic_ops */

/* --- lapic_timer.c; lock held --- */
enum timer_mode lapic_timer_mode(const struct lapic *l);
void lapic_timer_fire(struct timer *t); /* takes the lock itself */
uint32_t lapic_timer_count(struct lapic *l);
void lapic_timer_set_initial(struct lapic *l, uint32_t v);
void lapic_timer_set_divide(struct lapic *l, uint32_t v);
void lapic_timer_set_deadline(struct lapic *l, uint64_t tsc);
/* The LVT's mode bits went from before to what they are now. */
void lapic_timer_mode_changed(struct lapic *l, enum timer_mode before);
void lapic_timer_stop(struct lapic *l);
/* Goes on from a loaded current count (initial, divide, LVT and deadline are set). */
void lapic_timer_resume(struct lapic *l, uint32_t count);
