#include "chipset/lpc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "chipset/layout.h"
#include "chipset/pci.h"

#define DEVFN (0x1f << 3)

/* Configuration registers (Intel ICH9 datasheet, 13.1) */
#define PMBASE        0x40
#define PMBASE_IO     1
#define ACPI_CNTL     0x44
#define ACPI_CNTL_EN  0x80
#define PIRQ_A        0x60 /* A-D here, E-H at 0x68 */
#define PIRQ_E        0x68
#define PIRQ_OFF      0x80
#define MULTIFUNCTION 0x80

struct lpc {
	struct device dev;
	struct pci_device pci;
};

static const struct device_type lpc_type;

static struct lpc *to_lpc(struct device *d)
{
	return container_of(d, struct lpc, dev);
}

static void lpc_reset(struct device *d)
{
	pci_reset(&to_lpc(d)->pci);
}

static void lpc_state(struct device *d, struct state *s)
{
	pci_state(&to_lpc(d)->pci, s);
}

static void lpc_free(struct device *d)
{
	struct lpc *l;

	if (!d)
		return;
	l = to_lpc(d);
	pci_detach(&l->pci);
	pci_done(&l->pci);
	free(l);
}

int lpc_new(struct device **out, struct device *pci_host, struct err *e)
{
	static const struct pci_ids ids = {.vendor = 0x8086,
					   .device = 0x2918,
					   .subsystem_vendor = 0x1af4,
					   .subsystem = 0x1100,
					   .class = 0x060100,
					   .revision = 2};
	struct lpc *l = calloc(1, sizeof *l);
	int r;

	if (!l)
		return err_set(e, ENOMEM, "LPC bridge");
	l->dev.type = &lpc_type;
	pci_init(&l->pci, &ids);
	l->pci.config[PCI_HEADER_TYPE] = MULTIFUNCTION; /* the disk controller is 00:1f.2 */
	store_le(l->pci.config + PMBASE, PORT_PM_EVT | PMBASE_IO, 4);
	l->pci.writable[ACPI_CNTL] = ACPI_CNTL_EN | 7;
	memset(l->pci.writable + PIRQ_A, PIRQ_OFF | 0x0f, 4);
	memset(l->pci.writable + PIRQ_E, PIRQ_OFF | 0x0f, 4);
	r = pci_attach(pci_host, &l->pci, DEVFN, e);
	if (r < 0)
		lpc_free(&l->dev);
	else
		*out = &l->dev;
	return r;
}

static const struct device_type lpc_type = {
	.name = "lpc",
	.reset = lpc_reset,
	.state = lpc_state,
	.free = lpc_free,
};
