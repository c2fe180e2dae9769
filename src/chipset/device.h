/* device: what every device model of the chipset is made of: a const type table, an
 * embedded base, and its surroundings handed in. A device knows no machine, no file
 * descriptor and no host clock; its unit test is ten lines and deterministic.
 *
 * Threads and locks: vCPU threads, the loop thread and I/O threads call in at once; each
 * device has one mutex. A device may call out with it held, always in this order:
 *   PCI host -> device -> the machine's irq fan-out -> PIC, IOAPIC -> MSI sink, LAPIC -> clock
 * so irq_set, msi_send, bus_map and the timers are fine under a device's lock, and whoever
 * implements them never calls up again. machine->request and sink->put only note or queue;
 * sink->put must not call into its device. A LAPIC calls ioapic_eoi, extint, other LAPICs
 * and wake() with no lock held. reset, state and free are called with all threads that
 * might call in stopped, or on the loop thread before they start. */
#pragma once

#include <stdint.h>

#include "base/bits.h"
#include "base/clock.h"
#include "base/err.h"
#include "bus/bus.h"
#include "bus/irq.h"
#include "mem/mem.h"
#include "state/state.h"

struct device;

/* Bytes out of a device (the UART's transmitter). Must not block for long. */
struct byte_sink {
	void (*put)(struct byte_sink *s, const uint8_t *bytes, uint32_t len);
};

/* What the guest asks of the machine as a whole. Any thread; the call only records
 * the wish and returns, the machine acts on it. */
enum machine_request { MACHINE_POWER_OFF, MACHINE_RESET, MACHINE_DEBUG_EXIT };

struct machine_port {
	void (*request)(struct machine_port *p, enum machine_request what, uint32_t value);
};

/* Handed to a constructor; a device takes what it needs and keeps the pointers, all
 * of which outlive it. irq lines are indexed by ISA IRQ / GSI number. */
struct device_env {
	struct bus *bus;
	struct guest_mem *mem;
	struct clock *clock;
	struct irq_line *const *irq; /* 24 lines: the machine fans each to PIC and IOAPIC */
	struct msi_sink *msi;
	struct byte_sink *serial_out;
	struct byte_sink *debug_out; /* what firmware says; NULL: nobody listens */
	struct machine_port *machine;
	struct irq_line *nmi;    /* NMI wire of vCPU 0 (port 0x61/0x92 users) */
	struct irq_line *extint; /* raised by the PIC while it has an interrupt to offer */
	uint64_t rtc_epoch_s;    /* wall clock at guest time 0, seconds since 1970, UTC */
	uint64_t ram_bytes;      /* for CMOS memory size cells, and fw_cfg */
	uint32_t cpus;           /* for fw_cfg */
	bool keyboard;           /* one is plugged in */
};

struct device_type {
	const char *name; /* in configs, logs, and as snapshot section name */
	int (*new)(struct device **out, const struct device_env *env, struct err *e);
	void (*reset)(struct device *d);
	/* Save, load, show. A device whose loading failed is good for nothing but free. */
	void (*state)(struct device *d, struct state *s);
	void (*free)(struct device *d); /* accepts NULL */
};

struct device {
	const struct device_type *type;
	uint32_t instance;
};

/* Every device model there is; the generic state test walks this list. NULL-ended. */
extern const struct device_type *const device_types[];
