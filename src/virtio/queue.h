/* queue: the device's side of a virtqueue, split and packed (virtio 1.2, 2.7 and 2.8), with
 * indirect descriptors and event index.
 *
 * Everything in guest memory is hostile: indices, addresses, lengths, loops; it may change
 * while it is read. Each descriptor is copied once and checked once. A chain that is wrong
 * is the guest's mistake: virtq_pop returns -EBADMSG, and the device calls virtio_broken.
 *
 * Threads: the I/O thread of the device, and the transport while that thread has not begun
 * with the queue or has left it. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/bits.h"
#include "mem/mem.h"
#include "state/state.h"

#define VIRTQ_SIZE_MAX 1024 /* entries */
#define VIRTQ_IOV_MAX                                                                              \
	1024 /* entries of an indirect table, and so pieces of a chain; more is refused */

struct virtq;

/* One request of the driver: first what the device reads, then what it writes. */
struct virtq_chain {
	uint16_t id;      /* to give back */
	uint16_t entries; /* of the ring that it takes (packed: may be several) */
	/* Pieces: iov[0..out) is read, iov[out..out + in) is written. None is empty. */
	unsigned out, in;
	uint64_t out_len, in_len; /* bytes */
	struct iovec *iov;        /* the caller's, of iov_max */
	unsigned iov_max;
};

/* The next chain: 1; none, or the queue does not run: 0; built wrongly: -EBADMSG. c->iov and
 * c->iov_max are set before. No more chains are out at a time than the queue has entries. */
WARN_UNUSED int virtq_pop(struct virtq *q, struct virtq_chain *c);
/* Takes back the last virtq_pop, as if it had not been (a receive buffer not needed yet).
 * Several, the last one first, if none in between was pushed. */
void virtq_unpop(struct virtq *q, const struct virtq_chain *c);
/* Done with a chain, written bytes of it, from the first piece on; the pieces stand in c->iov as
 * virtq_pop left them (they are told to mem_written). The driver sees it at the next
 * virtq_publish. */
void virtq_push(struct virtq *q, const struct virtq_chain *c, uint32_t written);
/* Shows the driver all that was pushed, and interrupts it if it wants that. */
void virtq_publish(struct virtq *q);

/* While off, the driver need not kick (and mostly does not). On: returns true when a chain
 * came meanwhile, so: do { while (virtq_pop...) ...; } while (virtq_kicks_on(q)). */
void virtq_kicks_off(struct virtq *q);
WARN_UNUSED bool virtq_kicks_on(struct virtq *q);

/* --- for virtio.c and transports: set up by the driver while the device does not use it --- */

struct virtq_setup {
	uint16_t size; /* entries; packed: any up to the maximum, split: a power of two */
	bool enabled;
	gpa_t desc, driver, device; /* descriptor table, avail/driver area, used/device area */
};

/* irq(ctx, index): the driver wants an interrupt for queue index. */
WARN_UNUSED int virtq_new(struct virtq **out, struct guest_mem *mem, unsigned index,
			  uint16_t size_max, void (*irq)(void *ctx, unsigned index), void *ctx,
			  struct err *e);
void virtq_free(struct virtq *q); /* accepts NULL */
struct virtq_setup *virtq_setup(struct virtq *q);
uint16_t virtq_size_max(const struct virtq *q);
/* The device starts: takes up setup and features; a disabled queue, or one whose rings are not
 * all in RAM or not aligned, gives nothing (-EBADMSG from start: the driver's mistake). */
WARN_UNUSED int virtq_start(struct virtq *q, uint64_t features);
void virtq_stop(struct virtq *q);  /* pops nothing from now on; keeps its position */
void virtq_reset(struct virtq *q); /* as new */
bool virtq_running(const struct virtq *q);
void virtq_state(struct virtq *q, struct state *s); /* within the device's section */
