/* pci_host: PCI bus 0. Configuration mechanism 1 (ports 0xcf8, 0xcfc; PCI Local Bus 3.0,
 * 3.2.2.3.2), ECAM (PCI Express Base 4.0, 7.2.2), the host bridge at 00:00.0, and the four
 * interrupt wires. Port 0xcf9, in the middle of the address register, is the reset control
 * register of Intel's south bridges, and so is served here.
 *
 * Lock: guards the address, the list of functions and all writes to configuration space. */
#include "chipset/chipset.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "chipset/pci.h"
#include "chipset/pci_priv.h"

#define ADDRESS_ENABLE  0x80000000u
#define ADDRESS_BITS    0x80fffffcu
#define PORTS_LEN       8
#define DATA_AT         4 /* 0xcfc */
#define RESET_AT        1 /* 0xcf9 */
#define RESET_CPU       0x04
#define RESET_BITS      0x0a /* SYS_RST, FULL_RST */
#define GHOSTS          64
#define PCIEXBAR        0x60
#define PCIEXBAR_ENABLE 1
#define PAM0            0x90 /* to PAM6: which of the memory from 0xc0000 to 0xfffff is RAM */
#define PAMS            7

struct pci_host {
	struct device dev;
	struct bus_region ports, ecam;
	struct bus *bus;
	struct msi_sink *msi;
	struct machine_port *machine;
	struct irq_line *irq[4];
	struct pci_device bridge;

	pthread_mutex_t lock; /* see above */
	struct pci_device *function[256];
	uint32_t address;
	uint8_t reset_control;
	struct bus_region ghost[GHOSTS]; /* of BARs of functions that were pulled out */
	unsigned ghosts;

	pthread_mutex_t wires; /* guards wire; inside of every function's irq_lock */
	uint32_t wire[4][8];   /* one bit for each devfn that pulls it */
};

static struct pci_host *to_host(struct device *d)
{
	return container_of(d, struct pci_host, dev);
}

struct bus *pci_host_bus(struct pci_host *h)
{
	return h->bus;
}

struct msi_sink *pci_host_msi(struct pci_host *h)
{
	return h->msi;
}

void pci_host_intx(struct pci_host *h, uint8_t devfn, unsigned pin, bool level)
{
	unsigned n = pci_intx_gsi(devfn >> 3, pin) - PCI_INTX_BASE;
	uint32_t any = 0;
	AUTO_LOCK(&h->wires);

	if (level)
		h->wire[n][devfn / 32] |= 1u << devfn % 32;
	else
		h->wire[n][devfn / 32] &= ~(1u << devfn % 32);
	for (unsigned i = 0; i < 8; i++)
		any |= h->wire[n][i];
	irq_set(h->irq[n], any);
}

/* Called with lock held. */
static uint32_t config_read(struct pci_host *h, unsigned bus, unsigned devfn, unsigned reg,
			    unsigned size)
{
	struct pci_device *p = bus ? NULL : h->function[devfn];

	return p ? pci_config_read(p, reg, size) : trunc_bytes(~0ull, size);
}

static void config_write(struct pci_host *h, unsigned bus, unsigned devfn, unsigned reg, uint32_t v,
			 unsigned size)
{
	struct pci_device *p = bus ? NULL : h->function[devfn];

	if (p)
		pci_config_write(p, reg, v, size);
}

static uint64_t ports_read(struct bus_region *r, uint64_t offset, unsigned size)
{
	struct pci_host *h = container_of(r, struct pci_host, ports);
	AUTO_LOCK(&h->lock);

	if (offset >= DATA_AT) {
		if (!(h->address & ADDRESS_ENABLE))
			return trunc_bytes(~0ull, size);
		return config_read(h, h->address >> 16 & 0xff, h->address >> 8 & 0xff,
				   (h->address & 0xfc) + offset - DATA_AT, size);
	}
	if (offset == 0 && size == 4)
		return h->address;
	return offset == RESET_AT && size == 1 ? h->reset_control : trunc_bytes(~0ull, size);
}

/* The reset line is pulled when RST_CPU goes from 0 to 1. */
static void write_reset_control(struct pci_host *h, uint8_t v)
{
	h->reset_control = v & RESET_BITS;
	if ((v & RESET_CPU) && h->machine)
		h->machine->request(h->machine, MACHINE_RESET, 0);
}

static void ports_write(struct bus_region *r, uint64_t offset, uint64_t value, unsigned size)
{
	struct pci_host *h = container_of(r, struct pci_host, ports);
	AUTO_LOCK(&h->lock);

	if (offset >= DATA_AT) {
		if (h->address & ADDRESS_ENABLE)
			config_write(h, h->address >> 16 & 0xff, h->address >> 8 & 0xff,
				     (h->address & 0xfc) + offset - DATA_AT, value, size);
	} else if (offset == 0 && size == 4) {
		h->address = value & ADDRESS_BITS;
	} else if (offset == RESET_AT && size == 1) {
		write_reset_control(h, value);
	}
}

static uint64_t ecam_read(struct bus_region *r, uint64_t offset, unsigned size)
{
	struct pci_host *h = container_of(r, struct pci_host, ecam);
	AUTO_LOCK(&h->lock);

	return config_read(h, offset >> 20, offset >> 12 & 0xff, offset & 0xfff, size);
}

static void ecam_write(struct bus_region *r, uint64_t offset, uint64_t value, unsigned size)
{
	struct pci_host *h = container_of(r, struct pci_host, ecam);
	AUTO_LOCK(&h->lock);

	config_write(h, offset >> 20, offset >> 12 & 0xff, offset & 0xfff, value, size);
}

/* Function 0 says whether there are more (PCI 3.0, 6.2.1). */
static void mark_functions(struct pci_host *h, unsigned first)
{
	for (unsigned i = first + 1; i < first + 8 && h->function[first]; i++)
		if (h->function[i])
			h->function[first]->config[PCI_HEADER_TYPE] |= PCI_HEADER_MULTI;
}

static uint64_t ghost_read(struct bus_region *r, uint64_t offset, unsigned size)
{
	return 0;
}

void pci_host_clear(struct pci_host *h)
{
	while (h->ghosts)
		bus_unmap(h->bus, &h->ghost[--h->ghosts]);
}

static void leave_ghost(struct pci_host *h, const struct pci_bar *b)
{
	struct bus_region *g;

	if (h->ghosts == GHOSTS)
		pci_host_clear(h);
	g = &h->ghost[h->ghosts];
	*g = (struct bus_region){"pulled out", 1, 8, ghost_read, NULL};
	if (bus_map(h->bus, BUS_MMIO, b->mapped, b->len, g, NULL) == 0)
		h->ghosts++;
}

int pci_attach(struct device *pci_host, struct pci_device *p, uint8_t devfn, struct err *e)
{
	struct pci_host *h = to_host(pci_host);
	AUTO_LOCK(&h->lock);

	if (h->function[devfn])
		return err_set(e, EBUSY, "PCI slot 00:%02x.%x is taken", devfn >> 3, devfn & 7);
	p->host = h;
	p->devfn = devfn;
	h->function[devfn] = p;
	mark_functions(h, devfn & ~7u);
	return 0;
}

static void detach(struct pci_device *p, bool leave_ghosts)
{
	struct pci_host *h = p->host;
	struct pci_bar bar[PCI_BARS];

	if (!h)
		return;
	pthread_mutex_lock(&h->lock);
	memcpy(bar, p->bar, sizeof bar);
	pci_unmap_bars(p);
	for (unsigned i = 0; i < PCI_BARS && leave_ghosts; i++)
		if (bar[i].mapped && bar[i].kind != PCI_BAR_IO)
			leave_ghost(h, &bar[i]);
	h->function[p->devfn] = NULL;
	pci_leave(p);
	pthread_mutex_unlock(&h->lock);
}

void pci_detach(struct pci_device *p)
{
	detach(p, false);
}

void pci_pull(struct pci_device *p)
{
	detach(p, true);
}

static void pci_host_reset(struct device *d)
{
	struct pci_host *h = to_host(d);
	AUTO_LOCK(&h->lock);

	h->address = 0;
	h->reset_control = 0;
	pci_host_clear(h);
	pci_reset(&h->bridge);
}

static void pci_host_state(struct device *d, struct state *s)
{
	struct pci_host *h = to_host(d);
	AUTO_LOCK(&h->lock);

	state_u32(s, "address", &h->address);
	state_u8(s, "reset_control", &h->reset_control);
	pci_state(&h->bridge, s);
	if (state_loading(s)) {
		h->address &= ADDRESS_BITS;
		h->reset_control &= RESET_BITS;
	}
}

static void pci_host_free(struct device *d)
{
	struct pci_host *h;

	if (!d)
		return;
	h = to_host(d);
	bus_unmap(h->bus, &h->ports);
	bus_unmap(h->bus, &h->ecam);
	pci_host_clear(h);
	pci_detach(&h->bridge);
	pci_done(&h->bridge);
	pthread_mutex_destroy(&h->lock);
	pthread_mutex_destroy(&h->wires);
	free(h);
}

/* The bridge has the ids of a Q35 memory controller, whose PCIEXBAR tells firmware where
 * ECAM is. It does not move: firmware that writes it writes the same. The PAM registers are
 * only kept: all of that memory is RAM, always. */
static int add_bridge(struct pci_host *h, struct err *e)
{
	static const struct pci_ids ids = {.vendor = 0x8086, .device = 0x29c0, .class = 0x060000};

	pci_init(&h->bridge, &ids);
	store_le(h->bridge.config + PCIEXBAR, ECAM_BASE | PCIEXBAR_ENABLE, 8);
	for (unsigned i = 0; i < PAMS; i++)
		h->bridge.writable[PAM0 + i] = i ? 0x33 : 0x30;
	return pci_attach(&h->dev, &h->bridge, 0, e);
}

static int pci_host_new(struct device **out, const struct device_env *env, struct err *e)
{
	struct pci_host *h = calloc(1, sizeof *h);
	int r;

	if (!h)
		return err_set(e, ENOMEM, "PCI host bridge");
	h->dev.type = &pci_host_type;
	h->bus = env->bus;
	h->msi = env->msi;
	h->machine = env->machine;
	for (unsigned i = 0; i < 4; i++)
		h->irq[i] = env->irq[PCI_INTX_BASE + i];
	pthread_mutex_init(&h->lock, NULL);
	pthread_mutex_init(&h->wires, NULL);
	h->ports = (struct bus_region){"pci-config", 1, 4, ports_read, ports_write};
	h->ecam = (struct bus_region){"ecam", 1, 4, ecam_read, ecam_write};
	r = add_bridge(h, e);
	if (r >= 0)
		r = bus_map(env->bus, BUS_PIO, PORT_PCI_CONFIG, PORTS_LEN, &h->ports, e);
	if (r >= 0)
		r = bus_map(env->bus, BUS_MMIO, ECAM_BASE, (ECAM_LAST_BUS + 1ull) << 20, &h->ecam,
			    e);
	if (r < 0)
		pci_host_free(&h->dev);
	else
		*out = &h->dev;
	return r;
}

const struct device_type pci_host_type = {
	.name = "pci-host",
	.new = pci_host_new,
	.reset = pci_host_reset,
	.state = pci_host_state,
	.free = pci_host_free,
};
