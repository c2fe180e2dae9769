#include "ata/ahci_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"

#define REGS_LEN 0x1000u
#define PORTS_AT 0x100u
#define PORT_LEN 0x80u
#define INTX_PIN 1

/* Generic host control */
#define CAP       0x00
#define GHC       0x04
#define IS        0x08
#define PI        0x0c
#define VS        0x10
#define GHC_RESET 0x00000001u
#define GHC_IRQ   0x00000002u
#define GHC_AHCI  0x80000000u
#define CAP_VALUE                                                                                  \
	(0x80000000u /* 64-bit addresses */ | 1u << 20 /* 1.5 Gb/s */ | 1u << 18 /* AHCI only */ | \
	 1u << 30 /* NCQ */ | (AHCI_SLOTS - 1) << 8 | (AHCI_PORTS - 1))
#define VS_VALUE 0x00010300u

/* Of a port */
#define P_CLB  0x00
#define P_CLBU 0x04
#define P_FB   0x08
#define P_FBU  0x0c
#define P_IS   0x10
#define P_IE   0x14
#define P_CMD  0x18
#define P_TFD  0x20
#define P_SIG  0x24
#define P_SSTS 0x28
#define P_SCTL 0x2c
#define P_SERR 0x30
#define P_SACT 0x34
#define P_CI   0x38

#define CMD_ST      0x00000001u
#define CMD_SUD     0x00000002u
#define CMD_POD     0x00000004u
#define CMD_CLO     0x00000008u
#define CMD_FRE     0x00000010u
#define CMD_FR      0x00004000u
#define CMD_CR      0x00008000u
#define CMD_WRITE   (CMD_ST | CMD_SUD | CMD_POD | CMD_FRE)
#define IE_WRITE    0x7dc0007fu
#define SSTS_UP     0x113u /* device present, 1.5 Gb/s, active */
#define SCTL_DET    0x0fu
#define SIG_ATAPI   0xeb140101u
#define SIG_DISK    0x00000101u
#define SIG_NONE    0xffffffffu
#define TFD_NONE    0x7fu
#define SERR_CHANGE 0x04000000u

static struct ahci *to_ahci(struct device *d)
{
	return container_of(d, struct ahci, dev);
}

void ahci_kick(struct ahci *a)
{
	if (!atomic_exchange(&a->posted, true))
		loop_post(io_thread_loop(a->io), &a->call);
}

void ahci_update_irq(struct ahci *a)
{
	for (unsigned i = 0; i < AHCI_PORTS; i++)
		if (a->port[i].is & a->port[i].ie)
			a->is |= 1u << i;
	pci_irq(&a->pci, (a->ghc & GHC_IRQ) && a->is);
}

/* --- ports; lock held --- */

static void port_forget(struct ahci_port *p)
{
	p->life++;
	p->ci = p->sact = 0;
}

static void port_link_reset(struct ahci_port *p)
{
	static const uint32_t sig[] = {
		[ATA_NOTHING] = SIG_NONE, [ATA_CDROM] = SIG_ATAPI, [ATA_DISK] = SIG_DISK};

	p->tfd = p->drive.kind ? ATA_DRDY : TFD_NONE;
	p->sig = sig[p->drive.kind];
	p->stopped = false;
	port_forget(p);
}

static void port_reset(struct ahci_port *p)
{
	p->clb = p->fb = 0;
	p->is = p->ie = p->sctl = p->serr = 0;
	p->cmd = CMD_SUD | CMD_POD;
	port_link_reset(p);
}

static void port_command(struct ahci_port *p, uint32_t v)
{
	bool was = p->cmd & CMD_ST;

	p->cmd = v & CMD_WRITE;
	if (v & CMD_CLO)
		p->tfd &= ~0x88u;
	if (was && !(v & CMD_ST))
		port_forget(p);
	if (!was && (v & CMD_ST))
		p->stopped = false;
}

static void port_control(struct ahci_port *p, uint32_t v)
{
	bool was = p->sctl & SCTL_DET;

	p->sctl = v & 0xfff;
	if (!was || (v & SCTL_DET))
		return;
	port_link_reset(p); /* the link comes up again */
	if (p->drive.kind)
		p->serr |= SERR_CHANGE;
}

static uint32_t port_read(const struct ahci_port *p, unsigned at)
{
	switch (at) {
	case P_CLB: return (uint32_t)p->clb;
	case P_CLBU: return (uint32_t)(p->clb >> 32);
	case P_FB: return (uint32_t)p->fb;
	case P_FBU: return (uint32_t)(p->fb >> 32);
	case P_IS: return p->is;
	case P_IE: return p->ie;
	case P_CMD:
		return p->cmd | (p->cmd & CMD_ST || p->running ? CMD_CR : 0) |
		       (p->cmd & CMD_FRE ? CMD_FR : 0);
	case P_TFD: return p->tfd;
	case P_SIG: return p->sig;
	case P_SSTS: return p->drive.kind && !(p->sctl & SCTL_DET) ? SSTS_UP : 0;
	case P_SCTL: return p->sctl;
	case P_SERR: return p->serr;
	case P_SACT: return p->sact;
	case P_CI: return p->ci;
	default: return 0;
	}
}

static uint64_t with_low(uint64_t v, uint32_t low)
{
	return (v & ~0xffffffffull) | low;
}

static uint64_t with_high(uint64_t v, uint32_t high)
{
	return (v & 0xffffffff) | (uint64_t)high << 32;
}

static void port_write(struct ahci_port *p, unsigned at, uint32_t v)
{
	switch (at) {
	case P_CLB: p->clb = with_low(p->clb, v & ~0x3ffu); break;
	case P_CLBU: p->clb = with_high(p->clb, v); break;
	case P_FB: p->fb = with_low(p->fb, v & ~0xffu); break;
	case P_FBU: p->fb = with_high(p->fb, v); break;
	case P_IS: p->is &= ~v; break;
	case P_IE: p->ie = v & IE_WRITE; break;
	case P_CMD: port_command(p, v); break;
	case P_SCTL: port_control(p, v); break;
	case P_SERR: p->serr &= ~v; break;
	case P_SACT: /* before the slot's bit in CI: that it is queued */
		if (p->cmd & CMD_ST)
			p->sact |= v;
		break;
	case P_CI:
		if (p->cmd & CMD_ST)
			p->ci |= v;
		break;
	default: break;
	}
}

/* --- the controller --- */

static void controller_reset(struct ahci *a)
{
	a->ghc = GHC_AHCI;
	a->is = 0;
	for (unsigned i = 0; i < AHCI_PORTS; i++)
		port_reset(&a->port[i]);
	ahci_update_irq(a);
}

static uint64_t regs_read(struct bus_region *r, uint64_t offset, unsigned size)
{
	struct ahci *a = container_of(r, struct ahci, regs);
	AUTO_LOCK(&a->lock);

	if (offset >= PORTS_AT + AHCI_PORTS * PORT_LEN)
		return 0;
	if (offset >= PORTS_AT)
		return port_read(&a->port[(offset - PORTS_AT) / PORT_LEN], offset % PORT_LEN);
	switch (offset) {
	case CAP: return CAP_VALUE;
	case GHC: return a->ghc;
	case IS: return a->is;
	case PI: return (1u << AHCI_PORTS) - 1;
	case VS: return VS_VALUE;
	default: return 0;
	}
}

static void host_write(struct ahci *a, uint64_t offset, uint32_t v)
{
	if (offset == GHC && (v & GHC_RESET))
		controller_reset(a);
	else if (offset == GHC)
		a->ghc = GHC_AHCI | (v & GHC_IRQ);
	else if (offset == IS)
		a->is &= ~v;
}

static void regs_write(struct bus_region *r, uint64_t offset, uint64_t value, unsigned size)
{
	struct ahci *a = container_of(r, struct ahci, regs);
	AUTO_LOCK(&a->lock);

	if (offset < PORTS_AT)
		host_write(a, offset, (uint32_t)value);
	else if (offset < PORTS_AT + AHCI_PORTS * PORT_LEN)
		port_write(&a->port[(offset - PORTS_AT) / PORT_LEN], offset % PORT_LEN,
			   (uint32_t)value);
	ahci_update_irq(a);
	ahci_kick(a);
}

/* --- life --- */

/* On the I/O thread, which alone changes running. */
static void drain(void *arg)
{
	struct ahci *a = arg;

	a->draining = true;
	for (unsigned i = 0; i < AHCI_PORTS; i++)
		while (a->port[i].running) {
			ata_disk_give_up(&a->port[i]);
			if (a->port[i].running && loop_once(io_thread_loop(a->io)) < 0)
				break;
		}
	a->draining = false;
}

void ahci_pause(struct device *d)
{
	struct ahci *a = to_ahci(d);

	pthread_mutex_lock(&a->lock);
	a->paused = true;
	pthread_mutex_unlock(&a->lock);
	io_thread_call(a->io, drain, a);
}

static void ahci_reset(struct device *d)
{
	struct ahci *a = to_ahci(d);

	ahci_pause(d);
	pci_reset(&a->pci);
	AUTO_LOCK(&a->lock);
	controller_reset(a);
	for (unsigned i = 0; i < AHCI_PORTS; i++)
		ata_disk_reset(&a->port[i]);
	a->paused = false;
}

static void port_state(struct ahci_port *p, struct state *s)
{
	state_u64(s, "clb", &p->clb);
	state_u64(s, "fb", &p->fb);
	state_u32(s, "is", &p->is);
	state_u32(s, "ie", &p->ie);
	state_u32(s, "cmd", &p->cmd);
	state_u32(s, "tfd", &p->tfd);
	state_u32(s, "sctl", &p->sctl);
	state_u32(s, "serr", &p->serr);
	state_u32(s, "ci", &p->ci);
	state_u32(s, "sact", &p->sact);
	state_u32(s, "sig", &p->sig);
	state_bool(s, "stopped", &p->stopped);
	state_u8(s, "sense_key", &p->sense_key);
	state_u8(s, "sense_code", &p->sense_code);
	state_bool(s, "no_cache", &p->no_cache);
	state_u8(s, "multiple", &p->multiple);
	state_bool(s, "failed_queued", &p->failed_queued);
	state_u8(s, "failed_tag", &p->failed_tag);
	state_u8(s, "failed_error", &p->failed_error);
	state_u64(s, "failed_lba", &p->failed_lba);
	if (state_loading(s)) {
		p->clb &= ~0x3ffull;
		p->fb &= ~0xffull;
		p->ie &= IE_WRITE;
		p->cmd &= CMD_WRITE;
	}
}

/* Paused. */
static void ahci_state(struct device *d, struct state *s)
{
	struct ahci *a = to_ahci(d);

	pci_state(&a->pci, s);
	AUTO_LOCK(&a->lock);
	state_u32(s, "ghc", &a->ghc);
	state_u32(s, "is", &a->is);
	for (unsigned i = 0; i < AHCI_PORTS; i++)
		port_state(&a->port[i], s);
	if (state_loading(s) && !state_failed(s)) {
		a->ghc = GHC_AHCI | (a->ghc & GHC_IRQ);
		ahci_update_irq(a);
	}
}

static void ahci_free(struct device *d)
{
	struct ahci *a;

	if (!d)
		return;
	a = to_ahci(d);
	pci_detach(&a->pci);
	a->paused = true;
	while (atomic_load(&a->posted)) /* closing the images will run the loop again */
		if (loop_once(io_thread_loop(a->io)) < 0)
			break;
	pci_done(&a->pci);
	for (unsigned i = 0; i < AHCI_PORTS; i++) {
		timer_cancel(loop_clock(io_thread_loop(a->io)), &a->port[i].retry);
		free(a->port[i].slot);
	}
	pthread_mutex_destroy(&a->lock);
	free(a);
}

static const struct device_type ahci_type = {
	.name = "ahci",
	.reset = ahci_reset,
	.state = ahci_state,
	.free = ahci_free,
};

static int make_ports(struct ahci *a, const struct ahci_opts *o, struct err *e)
{
	for (unsigned i = 0; i < AHCI_PORTS; i++) {
		struct ahci_port *p = &a->port[i];

		p->a = a;
		p->drive = o->drive[i];
		p->retry.fire = ata_disk_retry;
		ata_disk_reset(p);
		if (!p->drive.kind)
			continue;
		p->slot =
			calloc(AHCI_SLOTS, sizeof *p->slot); /* touched only as far as it is used */
		if (!p->slot)
			return err_set(e, ENOMEM, "AHCI");
		for (unsigned n = 0; n < AHCI_SLOTS; n++) {
			p->slot[n].p = p;
			p->slot[n].slot = n;
		}
	}
	return 0;
}

int ahci_new(struct device **out, struct device *pci_host, uint8_t devfn, const struct ahci_opts *o,
	     struct err *e)
{
	static const struct pci_ids ids = {.vendor = 0x8086,
					   .device = 0x2922,
					   .subsystem_vendor = 0x1af4,
					   .subsystem = 0x1100,
					   .class = 0x010601,
					   .revision = 2};
	struct ahci *a = calloc(1, sizeof *a);
	int r;

	if (!a)
		return err_set(e, ENOMEM, "AHCI");
	a->dev.type = &ahci_type;
	a->mem = o->mem;
	a->io = o->io;
	a->call.run = ahci_work;
	a->regs = (struct bus_region){"ahci", 4, 4, regs_read, regs_write};
	pthread_mutex_init(&a->lock, NULL);
	pci_init(&a->pci, &ids);
	pci_add_bar(&a->pci, 5, PCI_BAR_MEM32, REGS_LEN, &a->regs);
	pci_add_intx(&a->pci, INTX_PIN);
	r = make_ports(a, o, e);
	if (r == 0)
		r = pci_attach(pci_host, &a->pci, devfn, e);
	if (r < 0) {
		ahci_free(&a->dev);
		return r;
	}
	controller_reset(a);
	*out = &a->dev;
	return 0;
}
