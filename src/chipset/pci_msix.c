/* pci_msix: the MSI-X capability, table and pending bits of a function (PCI Local Bus 3.0,
 * 6.8.2). Table and PBA fill one BAR of their own: the table from 0, the PBA from the half. */
#include "chipset/pci.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "chipset/pci_priv.h"

#define ENTRY_LEN        16
#define ENTRY_DATA       8
#define ENTRY_CONTROL    12
#define ENTRY_MASKED     0x1
#define CAP_LEN          12
#define CAP_CONTROL      2
#define CAP_TABLE        4
#define CAP_PBA          8
#define CONTROL_ENABLE   0x8000
#define CONTROL_MASK_ALL 0x4000

static unsigned control(const struct pci_device *p)
{
	return load_le(p->config + p->msix.cap + CAP_CONTROL, 2);
}

bool pci_msix_on(const struct pci_device *p)
{
	return p->msix.vectors && (control(p) & CONTROL_ENABLE);
}

static uint64_t half_len(const struct pci_msix *x)
{
	uint64_t len = 2048;

	while (len < (uint64_t)x->vectors * ENTRY_LEN)
		len *= 2;
	return len;
}

static bool entry_masked(const struct pci_device *p, unsigned n)
{
	const uint8_t *entry = p->msix.table + n * ENTRY_LEN;

	return (control(p) & CONTROL_MASK_ALL) || (entry[ENTRY_CONTROL] & ENTRY_MASKED);
}

static void send_or_hold(struct pci_device *p, unsigned n)
{
	const uint8_t *entry = p->msix.table + n * ENTRY_LEN;

	if (!pci_msix_on(p) || !p->host)
		return;
	if (entry_masked(p, n)) {
		p->msix.pending[n / 64] |= BIT(n % 64);
		return;
	}
	p->msix.pending[n / 64] &= ~BIT(n % 64);
	msi_send(pci_host_msi(p->host), load_le(entry, 8), load_le(entry + ENTRY_DATA, 4));
}

/* Sends what was held back and is not masked any longer. */
void pci_msix_configured(struct pci_device *p)
{
	if (!pci_msix_on(p) || (control(p) & CONTROL_MASK_ALL))
		return;
	for (unsigned n = 0; n < p->msix.vectors; n++)
		if ((p->msix.pending[n / 64] & BIT(n % 64)) && !entry_masked(p, n))
			send_or_hold(p, n);
}

bool pci_msix_send(struct pci_device *p, unsigned n)
{
	AUTO_LOCK(&p->irq_lock);

	if (n < p->msix.vectors)
		send_or_hold(p, n);
	return pci_msix_on(p);
}

bool pci_msix_enabled(struct pci_device *p)
{
	AUTO_LOCK(&p->irq_lock);

	return pci_msix_on(p);
}

static uint64_t table_read(struct bus_region *r, uint64_t offset, unsigned size)
{
	struct pci_device *p = container_of(r, struct pci_device, msix.region);
	struct pci_msix *x = &p->msix;
	uint64_t half = half_len(x);
	AUTO_LOCK(&p->irq_lock);

	if (offset < (uint64_t)x->vectors * ENTRY_LEN)
		return load_le(x->table + offset, size);
	if (offset >= half && offset - half < sizeof x->pending)
		return load_le((const uint8_t *)x->pending + (offset - half), size);
	return 0;
}

static void table_write(struct bus_region *r, uint64_t offset, uint64_t value, unsigned size)
{
	struct pci_device *p = container_of(r, struct pci_device, msix.region);
	struct pci_msix *x = &p->msix;
	unsigned n = offset / ENTRY_LEN;
	AUTO_LOCK(&p->irq_lock);

	if (offset >= (uint64_t)x->vectors * ENTRY_LEN)
		return; /* the PBA is read-only */
	store_le(x->table + offset, value, size);
	store_le(x->table + n * ENTRY_LEN + ENTRY_CONTROL,
		 x->table[n * ENTRY_LEN + ENTRY_CONTROL] & ENTRY_MASKED, 4);
	if ((x->pending[n / 64] & BIT(n % 64)) && !entry_masked(p, n))
		send_or_hold(p, n);
}

int pci_add_msix(struct pci_device *p, unsigned n, unsigned vectors)
{
	struct pci_msix *x = &p->msix;
	int cap = pci_add_cap(p, PCI_CAP_MSIX, CAP_LEN);

	if (cap < 0 || !vectors || vectors > PCI_MSIX_MAX)
		return cap < 0 ? cap : -EINVAL;
	x->table = calloc(vectors, ENTRY_LEN);
	if (!x->table)
		return -ENOMEM;
	x->vectors = vectors;
	x->cap = cap;
	store_le(p->config + cap + CAP_CONTROL, vectors - 1, 2);
	store_le(p->writable + cap + CAP_CONTROL, CONTROL_ENABLE | CONTROL_MASK_ALL, 2);
	store_le(p->config + cap + CAP_TABLE, n, 4);
	store_le(p->config + cap + CAP_PBA, half_len(x) | n, 4);
	x->region = (struct bus_region){"msix", 4, 8, table_read, table_write};
	pci_add_bar(p, n, PCI_BAR_MEM32, half_len(x) * 2, &x->region);
	pci_msix_reset(p);
	return 0;
}

void pci_msix_reset(struct pci_device *p)
{
	struct pci_msix *x = &p->msix;

	memset(x->pending, 0, sizeof x->pending);
	for (unsigned n = 0; n < x->vectors; n++) {
		memset(x->table + n * ENTRY_LEN, 0, ENTRY_LEN);
		x->table[n * ENTRY_LEN + ENTRY_CONTROL] = ENTRY_MASKED;
	}
}

void pci_msix_state(struct pci_device *p, struct state *s)
{
	struct pci_msix *x = &p->msix;
	unsigned words = (x->vectors + 63) / 64;

	if (!x->vectors)
		return;
	state_bytes(s, "pci.msix_table", x->table, (size_t)x->vectors * ENTRY_LEN);
	state_bytes(s, "pci.msix_pending", x->pending, words * 8);
	if (!state_loading(s) || state_failed(s))
		return;
	if (x->vectors % 64)
		x->pending[words - 1] &= BIT(x->vectors % 64) - 1;
}
