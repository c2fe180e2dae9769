/* lpc: the LPC bridge of an ICH9, 00:1f.0, as firmware for a Q35 looks for it: where the ACPI ports
 * are (they do not move), and registers for the routing of PCI interrupts to the PIC, which are
 * only kept: PCI's wires lead to the IOAPIC. A machine that starts a kernel by itself has none. */
#pragma once

#include "chipset/device.h"

/* Attached to the PCI host, which outlives it. */
WARN_UNUSED int lpc_new(struct device **out, struct device *pci_host, struct err *e);
