/* chipset: the models' types and the few functions beyond struct device_type by which
 * the machine wires them. */
#pragma once

#include "chipset/device.h"
#include "chipset/layout.h"
#include "cpu/engine.h"

extern const struct device_type pic_type;      /* two 8259A, ELCR */
extern const struct device_type ioapic_type;   /* 82093AA, version 0x20 (EOI register) */
extern const struct device_type pit_type;      /* 8254, port 0x61 */
extern const struct device_type rtc_type;      /* MC146818 and CMOS */
extern const struct device_type uart_type;     /* 16550A at COM1 */
extern const struct device_type i8042_type;    /* keyboard controller: keyboard, reset line, A20 */
extern const struct device_type vga_type;      /* text on a VGA (vga.h) */
extern const struct device_type pm_type;       /* ACPI PM1a and PM timer */
extern const struct device_type plug_type;     /* what comes and goes (plug.h) */
extern const struct device_type pci_host_type; /* config ports, reset register 0xcf9, ECAM, bus 0 */
extern const struct device_type fw_cfg_type; /* what the machine has: CPUs, RAM, files (fw_cfg.h) */
extern const struct device_type debugcon_type;    /* port 0x402: what firmware says */
extern const struct device_type vmgenid_type;     /* generation identifier in RAM */
extern const struct device_type debug_exit_type;  /* port 0xf4 */
extern const struct device_type test_device_type; /* for CPU test suites: ports, wires, memory */

/* Input pins. The returned lines live as long as the device. */
struct irq_line *pic_input(struct device *pic, unsigned irq);       /* 0..15 */
struct irq_line *ioapic_input(struct device *ioapic, unsigned pin); /* 0..23 */
struct extint *pic_extint(struct device *pic);
/* A level-triggered vector was EOIed at a LAPIC. Any thread. */
void ioapic_eoi(struct device *ioapic, uint8_t vector);

/* Bytes towards the guest; returns how many fitted. room() is called (any thread) when
 * there is space again after a short count. */
uint32_t uart_input(struct device *uart, const uint8_t *bytes, uint32_t len);
void uart_on_room(struct device *uart, void (*room)(void *ctx), void *ctx);

/* The bytes of one key of the keyboard going down or up, of scan code set 2. False: there is no
 * room for them now; then as of the UART. */
WARN_UNUSED bool i8042_type_keys(struct device *i8042, const uint8_t *codes, uint32_t len);
void i8042_on_room(struct device *i8042, void (*room)(void *ctx), void *ctx);

/* Presses the ACPI power button (a fixed feature; raises SCI if the guest enabled it). */
void pm_power_button(struct device *pm);
/* Whether the guest has enabled ACPI power-button events: no use pressing it before. */
bool pm_power_button_armed(struct device *pm);

/* Puts the identifier into RAM: after RAM was cleared, before the guest runs. */
void vmgenid_place(struct device *vmgenid);
/* The machine goes on from a state that something else goes on from too: a new identifier (random
 * bytes), of which the guest is told. Any thread. */
void vmgenid_renew(struct device *vmgenid, const uint8_t id[VMGENID_LEN]);

/* --- lapic.c: local APICs, for engines without their own --- */
struct lapic;
struct lapic_bus; /* the LAPICs of one VM: routes IPIs and MSIs */

struct lapic_env {
	struct clock *clock;
	uint64_t timer_hz;              /* input of the timer before its divider; 0: 1 GHz */
	uint64_t (*tsc_now)(void *ctx); /* guest TSC now; called with the lapic's lock held */
	uint64_t tsc_hz;
	void (*wake)(void *ctx); /* something became pending: the engine's irq() for this vCPU */
	void *ctx;
	struct extint *extint; /* for LINT0 in ExtINT mode; vCPU 0 only, else NULL */
	void (*eoi)(void *ctx, uint8_t vector); /* level-triggered EOI, to ioapic_eoi */
	void *eoi_ctx;
};

WARN_UNUSED int lapic_bus_new(struct lapic_bus **out, struct err *e);
void lapic_bus_free(struct lapic_bus *b); /* after its lapics; accepts NULL */
struct msi_sink *lapic_bus_msi(struct lapic_bus *b);

WARN_UNUSED int lapic_new(struct lapic **out, struct lapic_bus *b, uint32_t apic_id,
			  const struct lapic_env *env, struct err *e);
void lapic_free(struct lapic *l); /* accepts NULL */
struct lapic_port *lapic_port(struct lapic *l);
void lapic_reset(struct lapic *l);
struct irq_line *lapic_nmi_line(struct lapic *l); /* LINT1, a rising edge */
void lapic_extint_changed(struct lapic *l);       /* the PIC's output rose: look again */
