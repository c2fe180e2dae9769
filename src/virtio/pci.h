/* pci: virtio over PCI, modern only (virtio 1.2, 4.1). Makes a struct virtio_device a function
 * on PCI bus 0, and that a struct device, as the machine knows them.
 *
 * BAR 0 has, a page each, the common configuration, ISR status, the device's configuration and
 * the notifications; BAR 1 the MSI-X table, with a vector for the configuration and one per
 * queue. Without MSI-X, interrupt pin A. A kick is an eventfd per queue on the device's I/O
 * loop.
 *
 * Threads: registers are accessed by vCPUs, under one lock. The device itself is started,
 * stopped and kicked on its I/O thread, to which the registers only state their wish; a reset
 * by the guest is done (status reads 0) when the device has stopped. */
#pragma once

#include "chipset/device.h"
#include "virtio/virtio.h"

struct virtio_pci;

/* Takes vd: it is freed with the result, or when this fails. pci_host: made by pci_host_type.
 * The I/O thread does not run yet. */
WARN_UNUSED int virtio_pci_new(struct virtio_pci **out, struct virtio_device *vd,
			       struct device *pci_host, uint8_t devfn, struct err *e);
/* Its reset, state and free are called with all vCPUs parked. reset and free wait until the
 * device has stopped, for which its I/O thread must run, if it ever did; free and state are
 * called with that thread stopped, or the device paused. */
struct device *virtio_pci_device(struct virtio_pci *v);
struct virtio_device *virtio_pci_virtio(struct virtio_pci *v);

/* Stops the device, whatever the guest does, until resume; in two steps, so that several stop
 * at once. vCPUs are parked. A paused device takes resets and loads. */
void virtio_pci_pause(struct virtio_pci *v);
void virtio_pci_wait_paused(struct virtio_pci *v);
void virtio_pci_resume(struct virtio_pci *v);

/* For one that is plugged out, while the guest runs. First it disappears from the guest's view: any
 * thread; pulled: its driver may still use it. Then it is paused for good, which nobody waits for: call is posted to its I/O thread. */
void virtio_pci_vanish(struct virtio_pci *v, bool pulled);
void virtio_pci_pause_then(struct virtio_pci *v, struct loop_call *call);
