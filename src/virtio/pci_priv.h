/* pci_priv: what pci.c and pci_regs.c share. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "chipset/pci.h"
#include "virtio/pci.h"

#define STATUS_ACKNOWLEDGE 1u
#define STATUS_DRIVER      2u
#define STATUS_DRIVER_OK   4u
#define STATUS_FEATURES_OK 8u
#define STATUS_NEEDS_RESET 64u
#define STATUS_FAILED      128u

#define NO_VECTOR 0xffffu

/* Places in BAR 0 */
#define PLACE_COMMON  0x0000u
#define PLACE_ISR     0x1000u
#define PLACE_DEVICE  0x2000u
#define PLACE_NOTIFY  0x3000u
#define BAR_LEN       0x4000u
#define COMMON_LEN    64u
#define NOTIFY_STRIDE 4u

#define ISR_QUEUE  1u
#define ISR_CONFIG 2u

struct kick {
	struct loop_fd fd; /* eventfd; edge-triggered, so it is never read */
	struct virtio_pci *v;
	/* A write to fd is on its way: the next kick need not write again. */
	atomic_bool pending;
};

struct virtio_pci {
	struct device dev;
	struct pci_device pci;
	struct bus_region bar;
	struct virtio_transport transport;
	struct virtio_device *vd;
	unsigned cfg_cap; /* where the PCI configuration access capability is */
	struct kick kick[VIRTIO_QUEUES_MAX];
	struct bus_event event[VIRTIO_QUEUES_MAX]; /* the same, for the bus */
	unsigned kicks;                            /* that are on the loop */

	pthread_mutex_t lock; /* guards what follows, and the queues' setup */
	pthread_cond_t changed;
	uint32_t device_select, driver_select;
	uint64_t driver_features;
	uint16_t queue_select;
	uint8_t status;

	/* The I/O thread has the device from active (or will have, when sync has run) until it
	 * has stopped. */
	bool active, resetting, paused;
	bool posted; /* sync is on its way to the I/O thread */
	struct loop_call sync;
	struct loop_call *when_paused; /* is posted then, once; or NULL */

	/* Written under lock, read on any thread. */
	_Atomic uint16_t queue_vector[VIRTIO_QUEUES_MAX], config_vector;

	pthread_mutex_t isr_lock; /* guards isr, and keeps it and the wire in step */
	uint8_t isr;
};

/* pci_regs.c: accesses to BAR 0, of 1, 2 or 4 bytes */
uint64_t virtio_pci_read(struct virtio_pci *v, uint64_t offset, unsigned size);
void virtio_pci_write(struct virtio_pci *v, uint64_t offset, uint64_t value, unsigned size);

/* pci.c: all called with lock held */
void virtio_pci_status_written(struct virtio_pci *v, uint8_t status);
void virtio_pci_update(struct virtio_pci *v); /* status, paused or resetting changed */
/* No lock. */
void virtio_pci_kick(struct virtio_pci *v, unsigned queue);
