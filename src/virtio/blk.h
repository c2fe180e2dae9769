/* blk: the block device (virtio 1.2, 5.2): a disk over an image of src/block. Requests go
 * straight from guest memory to the image; each queue has a pool of them, so that no memory
 * is allocated while the guest runs.
 *
 * Errors: a request that asks for what is not there, or is malformed inside, is answered with
 * IOERR or UNSUPP; a chain that cannot be a request at all breaks the device (virtio_broken).
 * An image that has no space left is the owner's matter: the request is kept and tried again
 * until there is space, and the owner is told. All other errors of the image are the guest's.
 *
 * Threads: as virtio.h says; the image belongs to the context of env->loop's thread. */
#pragma once

#include "block/block.h"
#include "virtio/virtio.h"

#define BLK_QUEUES_MAX 16u
#define BLK_SERIAL_MAX 20u
#define BLK_QUEUE_SIZE 512u

struct virtio_blk_opts {
	struct block *block; /* the caller's, open; outlives the device */
	const char *serial;  /* at most BLK_SERIAL_MAX bytes; NULL: none */
	unsigned queues;     /* 1..BLK_QUEUES_MAX */
	bool discard;        /* offer discard and unmapping */
	bool write_through;  /* what the driver finds: no flushes needed, until it says otherwise */
	/* full: requests wait for space on the host's disk; else they all went through. I/O
	 * thread. May be NULL. */
	void (*space)(void *ctx, bool full);
	/* The guest is told of an error of the image (a positive errno). Likewise. */
	void (*failed)(void *ctx, enum block_op op, int error);
	void *ctx;
	uint64_t retry_ns; /* between attempts while full; 0: one second */
};

extern const struct virtio_type virtio_blk_type;

WARN_UNUSED int virtio_blk_new(struct virtio_device **out, const struct virtio_env *env,
			       const struct virtio_blk_opts *o, struct err *e);
/* I/O thread: the image has another size now; the driver is told. */
void virtio_blk_resized(struct virtio_device *d);
/* I/O thread: requests go to another image from now on, of the same kind (read-only or not). What is
 * under way in the one before ends there: it must stay until then. */
void virtio_blk_set_image(struct virtio_device *d, struct block *b);
