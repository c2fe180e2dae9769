/* pci: how a device model becomes a PCI function on bus 0 (PCI Local Bus 3.0, PCI Express
 * Base 4.0 for ECAM and the 4 KiB configuration space).
 *
 *   pci_init(&v->pci, ids, class);
 *   pci_add_bar(&v->pci, 0, PCI_BAR_MEM64, 0x4000, &v->regs);
 *   cap = pci_add_cap(&v->pci, PCI_CAP_VENDOR, 16);
 *   pci_add_msix(&v->pci, 1, vectors);
 *   pci_attach(host, &v->pci, devfn, e);
 *
 * The host keeps the configuration space: it maps BARs when the guest enables and places
 * them, and a BAR placed over something else is left unmapped. A device embeds struct
 * pci_device, calls pci_reset and pci_state from its own, and pci_detach before it is freed.
 *
 * Locks: the host's lock is outside of the device's (written() is called with it held);
 * pci_irq and pci_msix_send may be called with the device's lock held, from any thread. */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "chipset/device.h"

#define PCI_CONFIG_LEN 4096
#define PCI_BARS       6
#define PCI_MSIX_MAX   2048

/* Configuration registers */
#define PCI_VENDOR           0x00
#define PCI_DEVICE           0x02
#define PCI_COMMAND          0x04
#define PCI_STATUS           0x06
#define PCI_REVISION         0x08
#define PCI_CLASS            0x09 /* programming interface, subclass, class */
#define PCI_HEADER_TYPE      0x0e
#define PCI_HEADER_MULTI     0x80 /* it has more functions than one */
#define PCI_BAR0             0x10
#define PCI_SUBSYSTEM_VENDOR 0x2c
#define PCI_SUBSYSTEM        0x2e
#define PCI_CAP_LIST         0x34
#define PCI_INT_LINE         0x3c
#define PCI_INT_PIN          0x3d

#define PCI_COMMAND_IO      0x0001
#define PCI_COMMAND_MEM     0x0002
#define PCI_COMMAND_MASTER  0x0004
#define PCI_COMMAND_NO_INTX 0x0400
#define PCI_STATUS_INTX     0x0008
#define PCI_STATUS_CAPS     0x0010

#define PCI_CAP_VENDOR 0x09
#define PCI_CAP_MSIX   0x11

struct pci_ids {
	uint16_t vendor, device, subsystem_vendor, subsystem;
	uint32_t class; /* class << 16 | subclass << 8 | programming interface */
	uint8_t revision;
};

enum pci_bar_kind { PCI_BAR_NONE, PCI_BAR_IO, PCI_BAR_MEM32, PCI_BAR_MEM64 };

struct pci_bar {
	enum pci_bar_kind kind;
	bool prefetch;
	uint64_t len; /* a power of two, at least 16 */
	struct bus_region *region;
	uint64_t mapped; /* where it is mapped; 0: nowhere */
};

struct pci_msix {
	struct bus_region region;
	unsigned vectors; /* 0: no MSI-X */
	uint16_t cap;
	uint8_t *table; /* 16 bytes each, as the guest sees it */
	uint64_t pending[PCI_MSIX_MAX / 64];
};

struct pci_host;

struct pci_device {
	struct pci_host *host; /* NULL: not attached */
	uint8_t devfn;
	uint8_t config[PCI_CONFIG_LEN];
	uint8_t writable[PCI_CONFIG_LEN]; /* bits that a guest's write changes */
	uint8_t clear[PCI_CONFIG_LEN];    /* bits that a written 1 clears */
	struct pci_bar bar[PCI_BARS];
	uint16_t cap_end; /* first byte behind the last capability */
	/* The guest is about to read config bytes, which this may change first; the guest wrote
	 * some. Both may be NULL. The host's lock is held. */
	void (*reading)(struct pci_device *p, unsigned offset, unsigned len);
	void (*written)(struct pci_device *p, unsigned offset, unsigned len);

	pthread_mutex_t irq_lock; /* guards the two below, and the interrupt bits in config */
	struct pci_msix msix;
	bool intx;
};

void pci_init(struct pci_device *p, const struct pci_ids *ids);
void pci_done(struct pci_device *p); /* after pci_detach */
void pci_add_bar(struct pci_device *p, unsigned n, enum pci_bar_kind kind, uint64_t len,
		 struct bus_region *region);
/* len bytes with the two-byte header; returns its offset in config, or -ENOSPC. */
WARN_UNUSED int pci_add_cap(struct pci_device *p, uint8_t id, uint8_t len);
/* BAR n (32-bit memory) becomes the MSI-X table and, in its upper half, the PBA. */
WARN_UNUSED int pci_add_msix(struct pci_device *p, unsigned n, unsigned vectors);
/* Interrupt pin A..D as 1..4: before pci_attach. */
void pci_add_intx(struct pci_device *p, unsigned pin);

/* -EBUSY when devfn is taken. pci_host is the device made by pci_host_type. */
WARN_UNUSED int pci_attach(struct device *pci_host, struct pci_device *p, uint8_t devfn,
			   struct err *e);
/* Also while the guest runs, once: it finds nothing there any more, and gets no interrupt of it; an
 * access that began before may still be in the device (bus/bus.h). */
void pci_detach(struct pci_device *p);
/* Likewise, of one that the guest's driver still uses. Where its memory BARs were, zeros are read until
 * something else is mapped there: drivers that reset their device wait for such a register to become
 * 0, for ever (Linux's of virtio does), and would from a bus where nobody answers read ones. */
void pci_pull(struct pci_device *p);

void pci_reset(struct pci_device *p);
/* Writes or reads the guest-visible state, within the device's own section. */
void pci_state(struct pci_device *p, struct state *s);

/* The INTx wire. */
void pci_irq(struct pci_device *p, bool level);
bool pci_msix_enabled(struct pci_device *p);
/* Sends vector n, or notes it as pending while it is masked. Out of range: nothing. False: MSI-X
 * is off, so that the wire is the way. */
bool pci_msix_send(struct pci_device *p, unsigned n);

/* IRQ (GSI) on which a function's pin arrives: INTA..D of device d, swizzled over four
 * lines from PCI_INTX_BASE. The ACPI _PRT says the same. */
#define PCI_INTX_BASE 16
static inline unsigned pci_intx_gsi(unsigned device, unsigned pin)
{
	return PCI_INTX_BASE + (device + pin - 1) % 4;
}

/* --- for the host (pci_host.c) --- */
uint32_t pci_config_read(struct pci_device *p, unsigned offset, unsigned size);
/* Called with the host's lock held. */
void pci_config_write(struct pci_device *p, unsigned offset, uint32_t v, unsigned size);

struct bus *pci_host_bus(struct pci_host *h);
/* Nothing of what was pulled out is in the way any more. The host's lock is held. */
void pci_host_clear(struct pci_host *h);
struct msi_sink *pci_host_msi(struct pci_host *h);
/* Wires are shared: the line is high while any function pulls it. Takes the wires' own lock. */
void pci_host_intx(struct pci_host *h, uint8_t devfn, unsigned pin, bool level);
