/* irq_router: the machine's interrupt wiring. An ISA interrupt n reaches PIC input n and
 * IOAPIC pin n, but for IRQ 0, which a PC has on pin 2 (the MADT's override says so), and
 * IRQ 2, the PIC's cascade, which is no interrupt at all. GSI 16..23 reach the IOAPIC only.
 *
 * Where messages and the PIC's output end is a matter of the engine, which a reset makes
 * anew: devices hold this object's lines and sinks, and irq_router_aim says where they lead.
 * Aimed only while no vCPU runs; all lines may be driven from any thread. */
#pragma once

#include "bus/irq.h"
#include "chipset/layout.h"
#include "cpu/engine.h"

struct device;
struct lapic;

struct irq_gsi {
	struct irq_line line;
	struct irq_line *pic, *ioapic; /* NULL: not connected there */
};

struct irq_router {
	struct irq_gsi gsi[IOAPIC_PINS];
	struct irq_line *lines[IOAPIC_PINS]; /* what device_env.irq points to */
	struct irq_line extint;              /* the PIC's output, LINT0 of vCPU 0 */
	struct irq_line nmi;                 /* LINT1 of vCPU 0 */
	struct msi_sink msi;

	struct msi_sink *msi_to;
	struct lapic *lapic0; /* NULL: the engine has its own LAPICs */
	struct vcpu *vcpu0;
};

void irq_router_init(struct irq_router *r);
/* Once, after both devices are there and before anything drives a line. */
void irq_router_connect(struct irq_router *r, struct device *pic, struct device *ioapic);
void irq_router_aim(struct irq_router *r, struct msi_sink *msi, struct lapic *lapic0,
		    struct vcpu *vcpu0);
