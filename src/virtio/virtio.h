/* virtio: what every virtio device is made of (virtio 1.2, chapter 2): a const type table, an
 * embedded base, its surroundings handed in. A device knows queues, not how they are reached:
 * the transport (virtio/pci.c) calls the device through the table and the functions in the
 * second half, the device calls the transport through queues and virtio_config_changed.
 * Neither includes the other's header.
 *
 *   struct virtio_rng { struct virtio_device vd; ... };
 *
 * Threads. A device has an I/O loop (small devices share one). start, stop, kick and all use
 * of queues are on that loop's thread; between stop and the next start nothing is called.
 * config_written is called on a vCPU thread. state and free: while the device is stopped or
 * paused, and no vCPU runs.
 *
 * Life: new -> (attached to a transport) -> start -> kick... -> stop -> virtio_stopped -> start
 * again, or free. A pause (snapshot) is a stop that keeps the queues' positions: every chain
 * that was popped is pushed or unpopped before virtio_stopped. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/bits.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/loop.h"
#include "mem/mem.h"
#include "state/state.h"
#include "virtio/queue.h"

/* Device types (virtio 1.2, 5) */
#define VIRTIO_ID_NET     1
#define VIRTIO_ID_BLOCK   2
#define VIRTIO_ID_CONSOLE 3
#define VIRTIO_ID_RNG     4
#define VIRTIO_ID_BALLOON 5
#define VIRTIO_ID_VSOCK   19
#define VIRTIO_ID_FS      26

/* Feature bits that concern the queues (6). virtio_init offers the first four. */
#define VIRTIO_F_INDIRECT_DESC BIT(28)
#define VIRTIO_F_EVENT_IDX     BIT(29)
#define VIRTIO_F_VERSION_1     BIT(32)
#define VIRTIO_F_RING_PACKED   BIT(34)

#define VIRTIO_QUEUES_MAX 64
#define VIRTIO_CONFIG_MAX 64 /* bytes */

struct virtio_device;

struct virtio_env {
	struct guest_mem *mem;
	struct loop *loop;      /* the I/O thread's */
	struct clock *clock;    /* guest time; its timers fire on the machine's loop thread */
	uint64_t hide_features; /* bits not offered although the device could */
};

struct virtio_type {
	const char *name; /* in logs, and as snapshot section name: "virtio-rng" */
	uint16_t id;
	uint32_t pci_class; /* class << 16 | subclass << 8 | interface */
	/* The driver is ready (DRIVER_OK), features are agreed. May be NULL. */
	void (*start)(struct virtio_device *d);
	/* Finish what is in flight and take up nothing new, then virtio_stopped, at once or later.
	 * NULL: nothing is ever in flight. */
	void (*stop)(struct virtio_device *d);
	/* The driver put something into queue n, or may have. Only while started and not
	 * stopping, and the queue runs; each queue gets one after start. */
	void (*kick)(struct virtio_device *d, unsigned n);
	/* The driver wrote d->config[offset..offset + len), all within config_writable. Called
	 * with config_lock held. May be NULL. */
	void (*config_written)(struct virtio_device *d, unsigned offset, unsigned len);
	/* The driver reset the device, or the machine was reset: forget what it did. The device
	 * is stopped. What the host said (capacity, link) stays. May be NULL. */
	void (*reset)(struct virtio_device *d);
	/* Fields beyond the base's; may be NULL. After loading, config is what the file had; one
	 * that failed to load is only good for free. */
	void (*state)(struct virtio_device *d, struct state *s);
	void (*free)(struct virtio_device *d); /* accepts NULL */
};

/* What the transport gives: how to reach the driver. Any thread. */
struct virtio_transport {
	void (*queue_irq)(struct virtio_transport *t, unsigned n);
	void (*config_irq)(struct virtio_transport *t);
	void (*stopped)(struct virtio_transport *t); /* I/O thread: the stop asked for is done */
};

struct virtio_device {
	const struct virtio_type *type;
	uint32_t instance;
	struct virtio_env env;
	struct virtio_transport *transport; /* NULL: not attached */

	uint64_t offered, features; /* features: as agreed with the driver, fixed while started */
	unsigned queues;
	struct virtq *queue[VIRTIO_QUEUES_MAX];
	bool started, stopping;  /* I/O thread; stopping: from virtio_stop to virtio_stopped */
	bool broken_before;      /* I/O thread: the log knows */
	atomic_bool needs_reset; /* the driver built something wrong (2.1.1) */

	pthread_mutex_t config_lock;       /* guards the three below */
	uint8_t config[VIRTIO_CONFIG_MAX]; /* as the driver reads it (little-endian) */
	unsigned config_len;
	uint8_t config_generation;
	uint64_t config_writable; /* bit n: the driver may write byte n; fixed after new */
};

/* --- for devices --- */

/* offered: the device's own bits; the queue features and VERSION_1 are added, hide_features
 * taken away. queue_size[n]: a power of two, at most VIRTQ_SIZE_MAX. */
WARN_UNUSED int virtio_init(struct virtio_device *d, const struct virtio_type *type,
			    const struct virtio_env *env, uint64_t offered, unsigned queues,
			    const uint16_t *queue_size, struct err *e);
void virtio_done(struct virtio_device *d); /* accepts one that virtio_init failed on */

static inline bool virtio_has(const struct virtio_device *d, uint64_t feature)
{
	return d->features & feature;
}

/* Any thread: puts new bytes into the configuration space and tells the driver. */
void virtio_config_set(struct virtio_device *d, unsigned offset, const void *bytes, unsigned len);
/* I/O thread: the driver made a mistake. No queue gives anything from now on until the driver
 * resets the device; it is told (DEVICE_NEEDS_RESET), the log too, once. */
__attribute__((format(printf, 2, 3))) void virtio_broken(struct virtio_device *d, const char *fmt,
							 ...);
void virtio_stopped(struct virtio_device *d); /* see stop */

/* --- for transports (I/O thread, but the state walker) --- */

void virtio_start(struct virtio_device *d);
void virtio_stop(struct virtio_device *d); /* answered by transport->stopped */
void virtio_kick(struct virtio_device *d, unsigned n);
/* Queues, features, configuration; then the type's own. */
void virtio_state(struct virtio_device *d, struct state *s);
/* After a stop: queues disabled, features and positions forgotten. */
void virtio_reset(struct virtio_device *d);
