/* blk_priv: what the two halves of the block device share.
 *
 *   blk.c          the device: configuration, queues, life cycle, waiting for space
 *   blk_request.c  one request: out of a chain, through the image, status back */
#pragma once

#include "virtio/blk.h"

#define SECTOR_BYTES 512u
#define SECTOR_SHIFT 9

/* Feature bits (5.2.3) */
#define VIRTIO_BLK_F_SEG_MAX      BIT(2)
#define VIRTIO_BLK_F_RO           BIT(5)
#define VIRTIO_BLK_F_BLK_SIZE     BIT(6)
#define VIRTIO_BLK_F_FLUSH        BIT(9)
#define VIRTIO_BLK_F_TOPOLOGY     BIT(10)
#define VIRTIO_BLK_F_CONFIG_WCE   BIT(11)
#define VIRTIO_BLK_F_MQ           BIT(12)
#define VIRTIO_BLK_F_DISCARD      BIT(13)
#define VIRTIO_BLK_F_WRITE_ZEROES BIT(14)

/* Request types and answers (5.2.6) */
#define VIRTIO_BLK_T_IN           0u
#define VIRTIO_BLK_T_OUT          1u
#define VIRTIO_BLK_T_FLUSH        4u
#define VIRTIO_BLK_T_GET_ID       8u
#define VIRTIO_BLK_T_DISCARD      11u
#define VIRTIO_BLK_T_WRITE_ZEROES 13u

#define VIRTIO_BLK_S_OK     0u
#define VIRTIO_BLK_S_IOERR  1u
#define VIRTIO_BLK_S_UNSUPP 2u

#define VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP 1u

/* Configuration space (5.2.4) */
#define CFG_CAPACITY                 0
#define CFG_SEG_MAX                  12
#define CFG_BLK_SIZE                 20
#define CFG_PHYSICAL_BLOCK_EXP       24
#define CFG_MIN_IO_SIZE              26
#define CFG_WRITEBACK                32
#define CFG_NUM_QUEUES               34
#define CFG_MAX_DISCARD_SECTORS      36
#define CFG_MAX_DISCARD_SEG          40
#define CFG_DISCARD_SECTOR_ALIGNMENT 44
#define CFG_MAX_WRITE_ZEROES_SECTORS 48
#define CFG_MAX_WRITE_ZEROES_SEG     52
#define CFG_WRITE_ZEROES_MAY_UNMAP   56
#define CFG_LEN                      60

/* The driver keeps one descriptor for the header and one for the status. */
#define SEG_MAX (BLK_QUEUE_SIZE - 2)
/* A driver may cut header and data as it likes (2.7.4.2); so much more is room enough. */
#define REQUEST_IOV_MAX (SEG_MAX + 32u)

#define RANGES_MAX           32u
#define RANGE_BYTES          16u /* struct virtio_blk_discard_write_zeroes */
#define DISCARD_SECTORS_MAX  (GIB(1) >> SECTOR_SHIFT)
#define ZEROES_SECTORS_MAX   (MIB(128) >> SECTOR_SHIFT)
#define PHYSICAL_BLOCK_EXP   3 /* 4096 bytes: what most host file systems write at once */
#define PHYSICAL_BLOCK_SECTS (1u << PHYSICAL_BLOCK_EXP)

struct blk_range {
	uint64_t offset, len; /* bytes */
	bool unmap;
};

struct blk_request {
	struct block_req io;
	struct virtio_blk *b;
	struct blk_request *next; /* of the free ones, or of those that wait for space */
	struct virtq_chain chain;
	uint8_t *status; /* the last byte the device writes */
	unsigned queue;
	bool retried; /* waited for space, and is under way again */
	unsigned ranges, range;
	struct blk_range ranges_of[RANGES_MAX];
	struct iovec iov[REQUEST_IOV_MAX];
};

/* The requests of one queue. Memory is touched only as far as requests were ever in flight. */
struct blk_queue {
	struct blk_request *request; /* [BLK_QUEUE_SIZE] */
	struct blk_request *free;
	unsigned fresh; /* request[fresh..] was never used */
	bool pushed;    /* answers not yet shown to the driver */
	bool later;     /* more.run will look at it */
};

struct virtio_blk {
	struct virtio_device vd;
	struct block *block;
	char serial[BLK_SERIAL_MAX + 1];
	bool read_only, write_through_at_first;
	void (*space)(void *ctx, bool full);
	void (*failed)(void *ctx, enum block_op op, int error);
	void *ctx;
	uint64_t retry_ns;

	/* I/O thread: */
	struct blk_queue queue[BLK_QUEUES_MAX];
	unsigned in_flight;    /* requests, and 1 while more is posted */
	struct loop_call more; /* queues that had more to give than one turn takes */
	bool more_posted;
	struct loop_prepare prepare; /* shows what was pushed */

	bool full;
	unsigned retrying;                          /* those that waited and are under way again */
	bool try_all;                               /* the last of them went through */
	struct blk_request *waiting, **waiting_end; /* for space, oldest first */
	struct timer retry; /* of the I/O loop: it runs while the machine is paused */

	/* From the vCPU thread that writes the configuration, read by the I/O thread. */
	atomic_bool write_through;
};

static inline struct virtio_blk *to_blk(struct virtio_device *d)
{
	return container_of(d, struct virtio_blk, vd);
}

/* blk_request.c. r->chain holds a chain. -EBADMSG: it cannot be a request. Otherwise
 * blk_finished is called, at once or later; or blk_no_space, and then blk_request_run begins
 * again where it could not go on. */
WARN_UNUSED int blk_request_begin(struct blk_request *r);
void blk_request_run(struct blk_request *r);
/* Writes the status byte; returns how many bytes virtq_push is to be told. */
uint32_t blk_request_end(struct blk_request *r, uint8_t status);

/* blk.c */
void blk_finished(struct blk_request *r, uint8_t status);
void blk_no_space(struct blk_request *r);
