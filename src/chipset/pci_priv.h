/* pci_priv: what pci.c, pci_msix.c and pci_host.c share. All pci_msix_* are called with
 * the function's irq_lock held, pci_*map_bars with the host's. */
#pragma once

#include "chipset/pci.h"

void pci_map_bars(struct pci_device *p);
void pci_unmap_bars(struct pci_device *p);
void pci_leave(struct pci_device *p); /* no interrupt of it any more, and no host */

bool pci_msix_on(const struct pci_device *p);
void pci_msix_configured(struct pci_device *p); /* config was written */
void pci_msix_reset(struct pci_device *p);
void pci_msix_state(struct pci_device *p, struct state *s);
