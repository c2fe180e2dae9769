/* blk_fixture: the block device under the fake driver, over an image that keeps what is
 * submitted until the test says how it went. The tests are linked with
 * --wrap=block_submit,--wrap=block_size,--wrap=block_read_only. */
#pragma once

#include "virtio/blk_priv.h"
#include "virtio/fake_driver.h"

#define RAM     MIB(1)
#define HEADERS 0x50000 /* 16 bytes each */
#define STATUS  0x60000 /* a byte each */
#define DATA    0x70000
#define TABLES  0xc0000
#define DISK    MIB(1) /* bytes of the disk */
#define SECTORS (DISK / 512)
#define ANSWER  0xee /* in a status byte: none yet */
#define OP_MAX  2048

#define EVERYTHING                                                                                 \
	(VIRTIO_BLK_F_FLUSH | VIRTIO_BLK_F_CONFIG_WCE | VIRTIO_BLK_F_DISCARD |                     \
	 VIRTIO_BLK_F_WRITE_ZEROES | VIRTIO_BLK_F_MQ | VIRTIO_F_INDIRECT_DESC)

struct submitted {
	struct block_req *r;
	enum block_op op;
	unsigned flags;
	uint64_t offset, len;
};

struct fake_disk {
	uint8_t bytes[DISK];
	uint64_t size;
	bool read_only;
	bool hold;  /* submitted requests wait for finish() */
	int result; /* of each, when not held */
	struct submitted op[OP_MAX];
	unsigned ops, finished;
};

/* As the test under way has them. */
struct blk_bench {
	struct guest_mem *mem;
	struct loop *loop;
	struct virtio_device *dev;
	struct fake_guest guest;
	struct err err;
	unsigned times_full, times_space, times_failed;
};

extern struct fake_disk disk;
extern struct blk_bench bench;
extern const struct virtio_blk_opts defaults;

/* Of the oldest that waits. */
void finish(int result);

/* Before and after each test. */
int clean(void **state);
int tear_down(void **state);
#define TEST(f) cmocka_unit_test_setup_teardown(f, clean, tear_down)

/* The device, started by a driver that has these features. */
void set_up(const struct virtio_blk_opts *opts, uint64_t features);

uint8_t *at(gpa_t gpa, uint64_t len);
void put_header(unsigned i, uint32_t type, uint64_t sector);
void put_range(unsigned i, uint64_t sector, uint32_t sectors, uint32_t flags);
/* Request i: header, data of len bytes at DATA (none: 0), status; not yet kicked. */
void add(unsigned i, uint32_t type, uint64_t sector, uint32_t len);
uint8_t status(unsigned i);
/* Kicks; returns what the request was answered. */
uint8_t answer_to(uint32_t type, uint64_t sector, uint32_t len);
/* The next that the device is done with, once it has gathered its answers. */
bool take(struct fake_used *used);
bool broken(void);
void write_config(unsigned offset, uint8_t v); /* as the driver does */
