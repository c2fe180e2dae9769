/* pci: configuration space of one function, its BARs and interrupt wire. MSI-X is in
 * pci_msix.c, the bus in pci_host.c. */
#include "chipset/pci.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "chipset/pci_priv.h"

#define CAPS_BEGIN   0x40
#define CAPS_END     0x100
#define BAR_IO       0x1
#define BAR_MEM64    0x4
#define BAR_PREFETCH 0x8

static void set16(uint8_t *config, unsigned at, uint16_t v)
{
	store_le(config + at, v, 2);
}

void pci_init(struct pci_device *p, const struct pci_ids *ids)
{
	memset(p, 0, sizeof *p);
	set16(p->config, PCI_VENDOR, ids->vendor);
	set16(p->config, PCI_DEVICE, ids->device);
	set16(p->config, PCI_SUBSYSTEM_VENDOR, ids->subsystem_vendor);
	set16(p->config, PCI_SUBSYSTEM, ids->subsystem);
	p->config[PCI_REVISION] = ids->revision;
	store_le(p->config + PCI_CLASS, ids->class, 3);
	set16(p->writable, PCI_COMMAND,
	      PCI_COMMAND_IO | PCI_COMMAND_MEM | PCI_COMMAND_MASTER | PCI_COMMAND_NO_INTX);
	p->writable[PCI_INT_LINE] = 0xff;
	p->cap_end = CAPS_BEGIN;
	pthread_mutex_init(&p->irq_lock, NULL);
}

void pci_done(struct pci_device *p)
{
	free(p->msix.table);
	p->msix.table = NULL;
	pthread_mutex_destroy(&p->irq_lock);
}

void pci_add_bar(struct pci_device *p, unsigned n, enum pci_bar_kind kind, uint64_t len,
		 struct bus_region *region)
{
	unsigned at = PCI_BAR0 + n * 4, size = kind == PCI_BAR_MEM64 ? 8 : 4;
	uint64_t flags = kind == PCI_BAR_IO ? BAR_IO : kind == PCI_BAR_MEM64 ? BAR_MEM64 : 0;

	p->bar[n] = (struct pci_bar){.kind = kind, .len = len, .region = region};
	store_le(p->config + at, flags, size);
	store_le(p->writable + at, ~(len - 1), size); /* sizing: the low bits stay 0 */
}

int pci_add_cap(struct pci_device *p, uint8_t id, uint8_t len)
{
	unsigned at = align_up(p->cap_end, 4);

	if (at + len > CAPS_END)
		return -ENOSPC;
	p->config[at] = id;
	p->config[at + 1] = p->config[PCI_CAP_LIST];
	p->config[PCI_CAP_LIST] = at;
	p->config[PCI_STATUS] |= PCI_STATUS_CAPS;
	p->cap_end = at + len;
	return at;
}

void pci_add_intx(struct pci_device *p, unsigned pin)
{
	p->config[PCI_INT_PIN] = pin;
}

static unsigned command(const struct pci_device *p)
{
	return load_le(p->config + PCI_COMMAND, 2);
}

/* Where BAR n would be decoded now; 0: nowhere. */
static uint64_t bar_place(const struct pci_device *p, unsigned n)
{
	const struct pci_bar *b = &p->bar[n];
	unsigned need = b->kind == PCI_BAR_IO ? PCI_COMMAND_IO : PCI_COMMAND_MEM;
	uint64_t at = load_le(p->config + PCI_BAR0 + n * 4, b->kind == PCI_BAR_MEM64 ? 8 : 4);

	if (b->kind == PCI_BAR_NONE || !(command(p) & need))
		return 0;
	at &= ~(b->len - 1);
	if (b->kind == PCI_BAR_IO && at + b->len > 0x10000)
		return 0;
	/* All ones is a size probe, and nothing decodes the end of the address space. */
	return at + b->len - 1 >= (b->kind == PCI_BAR_MEM32 ? 0xffffffffu : BIT(52)) ? 0 : at;
}

static bool map_bar(struct bus *bus, struct pci_bar *b, uint64_t at)
{
	if (bus_map(bus, b->kind == PCI_BAR_IO ? BUS_PIO : BUS_MMIO, at, b->len, b->region, NULL) <
	    0)
		return false;
	b->mapped = at;
	return true;
}

void pci_map_bars(struct pci_device *p)
{
	struct bus *bus = pci_host_bus(p->host);

	for (unsigned n = 0; n < PCI_BARS; n++) {
		struct pci_bar *b = &p->bar[n];
		uint64_t at = bar_place(p, n);

		if (at == b->mapped)
			continue;
		if (b->mapped)
			bus_unmap(bus, b->region);
		b->mapped = 0;
		if (!at)
			continue;
		if (!map_bar(bus, b, at)) {
			pci_host_clear(p->host);
			/* On top of something else: the guest's mistake, it decodes nothing. */
			(void)map_bar(bus, b, at);
		}
	}
}

void pci_unmap_bars(struct pci_device *p)
{
	for (unsigned n = 0; n < PCI_BARS; n++) {
		if (p->bar[n].mapped)
			bus_unmap(pci_host_bus(p->host), p->bar[n].region);
		p->bar[n].mapped = 0;
	}
}

/* Drives the wire as the device, the guest's disable bit and MSI-X want it. irq_lock held. */
static void update_intx(struct pci_device *p)
{
	unsigned pin = p->config[PCI_INT_PIN];

	if (p->intx)
		p->config[PCI_STATUS] |= PCI_STATUS_INTX;
	else
		p->config[PCI_STATUS] &= ~PCI_STATUS_INTX;
	if (pin && p->host)
		pci_host_intx(p->host, p->devfn, pin,
			      p->intx && !(command(p) & PCI_COMMAND_NO_INTX) && !pci_msix_on(p));
}

void pci_leave(struct pci_device *p)
{
	AUTO_LOCK(&p->irq_lock);

	p->intx = false;
	update_intx(p);
	p->host = NULL;
}

void pci_irq(struct pci_device *p, bool level)
{
	AUTO_LOCK(&p->irq_lock);

	p->intx = level;
	update_intx(p);
}

uint32_t pci_config_read(struct pci_device *p, unsigned offset, unsigned size)
{
	if (p->reading)
		p->reading(p, offset, size);
	AUTO_LOCK(&p->irq_lock);
	return load_le(p->config + offset, size);
}

void pci_config_write(struct pci_device *p, unsigned offset, uint32_t v, unsigned size)
{
	pthread_mutex_lock(&p->irq_lock);
	for (unsigned i = 0; i < size; i++) {
		uint8_t byte = v >> (i * 8), *c = &p->config[offset + i];

		*c = (*c & ~p->writable[offset + i]) | (byte & p->writable[offset + i]);
		*c &= ~(byte & p->clear[offset + i]);
	}
	pci_msix_configured(p);
	update_intx(p);
	pthread_mutex_unlock(&p->irq_lock);
	if (offset < PCI_BAR0 + PCI_BARS * 4)
		pci_map_bars(p);
	if (p->written)
		p->written(p, offset, size);
}

/* Writable bits become 0, as they all are when a function is made. */
void pci_reset(struct pci_device *p)
{
	pthread_mutex_lock(&p->irq_lock);
	for (unsigned i = 0; i < PCI_CONFIG_LEN; i++)
		p->config[i] &= ~(p->writable[i] | p->clear[i]);
	p->intx = false;
	pci_msix_reset(p);
	update_intx(p);
	pthread_mutex_unlock(&p->irq_lock);
	if (p->host)
		pci_map_bars(p);
}

/* The file may differ from this function's space only where the guest can write. */
static void load_config(struct pci_device *p, struct state *s, const uint8_t *config)
{
	for (unsigned i = 0; i < PCI_CONFIG_LEN; i++) {
		uint8_t may = p->writable[i] | p->clear[i];

		if (i == PCI_STATUS)
			may |= PCI_STATUS_INTX; /* derived */
		if ((config[i] ^ p->config[i]) & ~may) {
			state_fail(s, "configuration byte 0x%x is another function's", i);
			return;
		}
	}
	memcpy(p->config, config, PCI_CONFIG_LEN);
}

void pci_state(struct pci_device *p, struct state *s)
{
	uint8_t config[PCI_CONFIG_LEN];

	pthread_mutex_lock(&p->irq_lock);
	memcpy(config, p->config, sizeof config);
	state_bytes(s, "pci.config", config, sizeof config);
	state_bool(s, "pci.intx", &p->intx);
	if (state_loading(s) && !state_failed(s))
		load_config(p, s, config);
	pci_msix_state(p, s);
	if (state_loading(s) && !state_failed(s))
		update_intx(p);
	pthread_mutex_unlock(&p->irq_lock);
	if (state_loading(s) && !state_failed(s) && p->host)
		pci_map_bars(p);
}
