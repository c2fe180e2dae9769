/* fake_driver: the guest's side of a virtqueue, split or packed, for unit tests, benchmarks and
 * fuzz targets. It lays the rings out in guest memory, makes chains available, takes used ones
 * back, and can put anything else there too.
 *
 *	struct fake_driver drv = fake_driver(mem, .size = 4, .packed = true);
 *
 *	fake_connect(&drv, q);                     // before the device starts
 *	fake_add(&drv, FAKE_OUT(0x8000, 16), FAKE_IN(0x9000, 512));
 *	...the device works...
 *	CHECK(fake_take(&drv, &used) && used.len == 512);
 *
 * And fake_guest: the whole driver of a device, with a transport that writes down what the
 * device says, so that a device's test is a few lines too.
 *
 * A struct fake_driver is used by one thread, which may be another one than the device's. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "virtio/virtio.h"

#define FAKE_RINGS     0x1000 /* where the rings are by default... */
#define FAKE_RINGS_LEN 0x8000 /* ...and how much one queue takes, at its largest */

struct fake_driver {
	struct guest_mem *mem;
	uint16_t size;
	bool packed, event_idx;
	gpa_t desc, driver, device;
	uint16_t avail, used; /* positions, as in the device */
	bool avail_wrap, used_wrap;
	uint16_t added;               /* entries since the last fake_wants_kick */
	uint16_t free;                /* entries that no chain has */
	bool busy[VIRTQ_SIZE_MAX];    /* split: descriptor i belongs to a chain */
	uint16_t len[VIRTQ_SIZE_MAX]; /* entries of the chain with id i; 0: none */
};

struct fake_opts {
	uint16_t size; /* 0: 8 */
	bool packed, event_idx;
	gpa_t at; /* 4 KiB-aligned; 0: FAKE_RINGS */
};
struct fake_driver fake_driver_make(struct guest_mem *mem, const struct fake_opts *o);
#define fake_driver(mem_, ...) fake_driver_make(mem_, &(struct fake_opts){__VA_ARGS__})

/* Enables q with these rings. */
void fake_connect(struct fake_driver *f, struct virtq *q);

/* --- as a good driver --- */

struct fake_buf {
	gpa_t gpa;
	uint32_t len;
	bool in; /* the device writes it */
};
#define FAKE_OUT(gpa_, len_) ((struct fake_buf){gpa_, len_, false})
#define FAKE_IN(gpa_, len_)  ((struct fake_buf){gpa_, len_, true})

/* Makes a chain available; returns its id, or -1 when the ring is too full for it. */
int fake_add_chain(struct fake_driver *f, const struct fake_buf *buf, unsigned n);
/* The same through an indirect table, which is put at table. */
int fake_add_table(struct fake_driver *f, gpa_t table, const struct fake_buf *buf, unsigned n);
#define fake_add(f, ...)                                                                           \
	fake_add_chain(f, (const struct fake_buf[]){__VA_ARGS__},                                  \
		       sizeof((const struct fake_buf[]){__VA_ARGS__}) / sizeof(struct fake_buf))
#define fake_add_indirect(f, table, ...)                                                           \
	fake_add_table(f, table, (const struct fake_buf[]){__VA_ARGS__},                           \
		       sizeof((const struct fake_buf[]){__VA_ARGS__}) / sizeof(struct fake_buf))

/* Whether the device wants a kick for what was added since the last call. */
bool fake_wants_kick(struct fake_driver *f);

struct fake_used {
	uint16_t id;
	uint32_t len;
};
/* The next chain that the device is done with. */
bool fake_take(struct fake_driver *f, struct fake_used *u);

/* Interrupts: none; for all; or (event index) when the device is done with the n-th chain from
 * now (packed: reaches the n-th entry). */
void fake_irq_off(struct fake_driver *f);
void fake_irq_on(struct fake_driver *f);
void fake_irq_after(struct fake_driver *f, uint16_t n);

/* --- as a bad one --- */

struct fake_desc {
	gpa_t addr;
	uint32_t len;
	uint16_t flags, next, id; /* next: split, id: packed */
};
#define FAKE_NEXT     1u
#define FAKE_WRITE    2u
#define FAKE_INDIRECT 4u
/* Writes descriptor i; packed: as available now if avail, counted from the driver's position. */
void fake_write_desc(struct fake_driver *f, unsigned i, const struct fake_desc *d);
#define fake_desc(f, i, ...) fake_write_desc(f, i, &(struct fake_desc){__VA_ARGS__})
/* Shows what fake_desc wrote: split: the chain that begins at head; packed: all n entries. */
void fake_show(struct fake_driver *f, uint16_t head, uint16_t n);

/* --- the memory --- */

void *fake_at(struct fake_driver *f, gpa_t gpa, uint64_t len); /* must be RAM */

/* --- a whole device --- */

struct fake_guest {
	struct virtio_transport transport;
	struct virtio_device *d;
	struct fake_driver q[VIRTIO_QUEUES_MAX];
	atomic_uint irqs[VIRTIO_QUEUES_MAX], config_irqs, stops;
};

struct fake_guest_opts {
	uint64_t features; /* of those offered; VERSION_1 is added */
	uint16_t size;     /* of each queue; 0: as large as the device has it */
	gpa_t at;          /* of the rings, FAKE_RINGS_LEN for each queue; 0: FAKE_RINGS */
};
/* Agrees on features, lays out and connects every queue. Memory: 256 KiB suffice for 4 queues. */
void fake_guest_connect(struct fake_guest *g, struct virtio_device *d,
			const struct fake_guest_opts *o);
#define fake_guest_init(g, d, ...) fake_guest_connect(g, d, &(struct fake_guest_opts){__VA_ARGS__})
/* Connect, then virtio_start. */
#define fake_guest_start(g, d_, ...)                                                               \
	do {                                                                                       \
		fake_guest_init(g, d_, __VA_ARGS__);                                               \
		virtio_start((g)->d);                                                              \
	} while (0)
/* virtio_stop; true when the device said at once that it stopped. */
bool fake_guest_stop(struct fake_guest *g);
