/* blk_test: the block device through the fake driver, over an image that this file makes: it
 * keeps what is submitted until the test says how it went. */
#include "virtio/blk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/test.h"
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
#define OP_MAX  1024

/* --- the image --- */

struct submitted {
	struct block_req *r;
	enum block_op op;
	unsigned flags;
	uint64_t offset, len;
};

static struct {
	uint8_t bytes[DISK];
	uint64_t size;
	bool read_only;
	bool hold;  /* submitted requests wait for finish() */
	int result; /* of each, when not held */
	struct submitted op[OP_MAX];
	unsigned ops, finished;
} disk;

static void move_data(struct block_req *r)
{
	uint64_t at = r->offset;

	for (unsigned i = 0; i < r->iov_count; i++) {
		uint64_t len = r->iov[i].iov_len;

		assert_true(at + len <= sizeof disk.bytes && len);
		if (r->op == BLOCK_READ)
			memcpy(r->iov[i].iov_base, disk.bytes + at, len);
		else
			memcpy(disk.bytes + at, r->iov[i].iov_base, len);
		at += len;
	}
	assert_int_equal(at, r->offset + r->len);
}

/* The oldest that waits. */
static void finish(int result)
{
	struct block_req *r;

	assert_true(disk.finished < disk.ops);
	r = disk.op[disk.finished++].r;
	if (result == 0 && (r->op == BLOCK_READ || r->op == BLOCK_WRITE))
		move_data(r);
	r->done(r, result);
}

void __wrap_block_submit(struct block *b, struct block_req *r);
uint64_t __wrap_block_size(const struct block *b);
bool __wrap_block_read_only(const struct block *b);

void __wrap_block_submit(struct block *b, struct block_req *r)
{
	assert_true(disk.ops < OP_MAX);
	disk.op[disk.ops++] = (struct submitted){r, r->op, r->flags, r->offset, r->len};
	if (!disk.hold)
		finish(disk.result);
}

uint64_t __wrap_block_size(const struct block *b)
{
	return disk.size;
}

bool __wrap_block_read_only(const struct block *b)
{
	return disk.read_only;
}

/* --- the device --- */

static struct guest_mem *mem;
static struct loop *loop;
static struct virtio_device *dev;
static struct fake_guest guest;
static struct err err;
static unsigned times_full, times_space;

static void space(void *ctx, bool full)
{
	assert_ptr_equal(ctx, &disk);
	full ? times_full++ : times_space++;
}

static void set_up(const struct virtio_blk_opts *opts, uint64_t features)
{
	struct virtio_blk_opts o = *opts;
	struct virtio_env env;

	assert_int_equal(mem_new(&mem, RAM, &err), 0);
	assert_int_equal(loop_new(&loop, &err), 0);
	env = (struct virtio_env){.mem = mem, .loop = loop, .clock = loop_clock(loop)};
	o.queues = o.queues ? o.queues : 1;
	o.space = space;
	o.ctx = &disk;
	o.retry_ns = 1000000;
	times_full = times_space = 0;
	if (virtio_blk_new(&dev, &env, &o, &err) < 0)
		fail_msg("%s", err.text);
	fake_guest_start(&guest, dev, .features = features);
	memset(fake_at(&guest.q[0], STATUS, 4096), ANSWER, 4096);
}

static int clean(void **state)
{
	memset(&disk, 0, sizeof disk);
	disk.size = DISK;
	for (unsigned i = 0; i < DISK; i++)
		disk.bytes[i] = (uint8_t)(i >> 9 ^ i);
	return 0;
}

static int tear_down(void **state)
{
	if (dev)
		virtio_blk_type.free(dev);
	loop_free(loop);
	mem_free(mem);
	dev = NULL;
	loop = NULL;
	mem = NULL;
	return 0;
}

#define EVERYTHING                                                                                 \
	(VIRTIO_BLK_F_FLUSH | VIRTIO_BLK_F_CONFIG_WCE | VIRTIO_BLK_F_DISCARD |                     \
	 VIRTIO_BLK_F_WRITE_ZEROES | VIRTIO_BLK_F_MQ | VIRTIO_F_INDIRECT_DESC)

static const struct virtio_blk_opts defaults = {.discard = true};

static uint8_t *at(gpa_t gpa, uint64_t len)
{
	return fake_at(&guest.q[0], gpa, len);
}

static void put_header(unsigned i, uint32_t type, uint64_t sector)
{
	uint8_t *h = at(HEADERS + i * 16, 16);

	store_le(h, type, 4);
	store_le(h + 4, 0, 4);
	store_le(h + 8, sector, 8);
}

/* Request i: header, data of len bytes at DATA (none: 0), status; not yet kicked. */
static void add(unsigned i, uint32_t type, uint64_t sector, uint32_t len)
{
	bool in = type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_GET_ID;
	struct fake_buf buf[3] = {FAKE_OUT(HEADERS + i * 16, 16)};
	unsigned n = 1;

	put_header(i, type, sector);
	if (len)
		buf[n++] = (struct fake_buf){DATA, len, in};
	buf[n++] = FAKE_IN(STATUS + i, 1);
	assert_true(fake_add_chain(&guest.q[0], buf, n) >= 0);
}

static uint8_t status(unsigned i)
{
	return *at(STATUS + i, 1);
}

/* Kicks; returns what the first request was answered. */
static uint8_t answer_to(uint32_t type, uint64_t sector, uint32_t len)
{
	struct fake_used used;

	*at(STATUS, 1) = ANSWER;
	add(0, type, sector, len);
	virtio_kick(dev, 0);
	assert_true(fake_take(&guest.q[0], &used));
	return status(0);
}

static void put_range(unsigned i, uint64_t sector, uint32_t sectors, uint32_t flags)
{
	uint8_t *r = at(DATA + i * 16, 16);

	store_le(r, sector, 8);
	store_le(r + 8, sectors, 4);
	store_le(r + 12, flags, 4);
}

static bool broken(void)
{
	return atomic_load(&dev->needs_reset);
}

/* --- data --- */

static void a_read_fills_the_drivers_pieces(void **state)
{
	struct fake_used used;

	set_up(&defaults, EVERYTHING);
	put_header(0, VIRTIO_BLK_T_IN, 4);
	fake_add(&guest.q[0], FAKE_OUT(HEADERS, 16), FAKE_IN(DATA, 512), FAKE_IN(DATA + 4096, 1024),
		 FAKE_IN(STATUS, 1));
	virtio_kick(dev, 0);
	assert_true(fake_take(&guest.q[0], &used));
	assert_int_equal(used.len, 1537);
	assert_int_equal(status(0), VIRTIO_BLK_S_OK);
	assert_memory_equal(at(DATA, 512), disk.bytes + 4 * 512, 512);
	assert_memory_equal(at(DATA + 4096, 1024), disk.bytes + 5 * 512, 1024);
	assert_int_equal(guest.irqs[0], 1);
}

static void a_write_takes_them(void **state)
{
	struct fake_used used;

	set_up(&defaults, EVERYTHING);
	memset(at(DATA, 1024), 0x5a, 1024);
	put_header(0, VIRTIO_BLK_T_OUT, 7);
	fake_add(&guest.q[0], FAKE_OUT(HEADERS, 16), FAKE_OUT(DATA, 100), FAKE_OUT(DATA + 100, 924),
		 FAKE_IN(STATUS, 1));
	virtio_kick(dev, 0);
	assert_true(fake_take(&guest.q[0], &used));
	assert_int_equal(used.len, 1);
	assert_int_equal(status(0), VIRTIO_BLK_S_OK);
	assert_memory_equal(disk.bytes + 7 * 512, at(DATA, 1024), 1024);
	assert_int_equal(disk.bytes[9 * 512], 9);
}

static void the_driver_may_cut_a_request_anywhere(void **state)
{
	struct fake_used used;

	set_up(&defaults, EVERYTHING);
	memset(at(DATA, 512), 0x77, 512);
	put_header(0, VIRTIO_BLK_T_OUT, 1);
	memcpy(at(DATA - 8, 8), at(HEADERS + 8, 8), 8);
	/* Half of the header, the other half with the data behind it. */
	fake_add(&guest.q[0], FAKE_OUT(HEADERS, 8), FAKE_OUT(DATA - 8, 520), FAKE_IN(STATUS, 1));
	put_header(1, VIRTIO_BLK_T_IN, 1);
	/* The status behind the data, in one piece. */
	fake_add(&guest.q[0], FAKE_OUT(HEADERS + 16, 16), FAKE_IN(DATA + 4096, 513));
	virtio_kick(dev, 0);
	assert_true(fake_take(&guest.q[0], &used) && fake_take(&guest.q[0], &used));
	assert_int_equal(used.len, 513);
	assert_int_equal(*at(DATA + 4096 + 512, 1), VIRTIO_BLK_S_OK);
	assert_int_equal(status(0), VIRTIO_BLK_S_OK);
	assert_int_equal(disk.bytes[512], 0x77);
	assert_int_equal(disk.bytes[1023], 0x77);
	assert_memory_equal(at(DATA + 4096, 512), disk.bytes + 512, 512);
}

static void an_indirect_request_of_many_pieces_is_one_request(void **state)
{
	struct fake_buf buf[SEG_MAX + 2] = {FAKE_OUT(HEADERS, 16)};
	struct fake_used used;

	set_up(&defaults, EVERYTHING);
	put_header(0, VIRTIO_BLK_T_IN, 0);
	for (unsigned i = 0; i < SEG_MAX; i++)
		buf[i + 1] = FAKE_IN(DATA + i * 512, 512);
	buf[SEG_MAX + 1] = FAKE_IN(STATUS, 1);
	assert_true(fake_add_table(&guest.q[0], TABLES, buf, ARRAY_SIZE(buf)) >= 0);
	virtio_kick(dev, 0);
	assert_true(fake_take(&guest.q[0], &used));
	assert_int_equal(status(0), VIRTIO_BLK_S_OK);
	assert_int_equal(disk.ops, 1);
	assert_memory_equal(at(DATA, SEG_MAX * 512), disk.bytes, SEG_MAX * 512);
}

static void nothing_is_answered_before_the_image_is_done(void **state)
{
	struct fake_used used;

	set_up(&defaults, EVERYTHING);
	disk.hold = true;
	add(0, VIRTIO_BLK_T_IN, 0, 512);
	add(1, VIRTIO_BLK_T_IN, 1, 512);
	virtio_kick(dev, 0);
	assert_false(fake_take(&guest.q[0], &used));
	assert_int_equal(status(0), ANSWER);
	finish(0);
	assert_int_equal(status(0), VIRTIO_BLK_S_OK);
	assert_int_equal(status(1), ANSWER);
	assert_true(fake_take(&guest.q[0], &used));
	assert_false(fake_take(&guest.q[0], &used));
	finish(0);
}

static void an_error_of_the_image_is_the_guests(void **state)
{
	struct fake_used used;

	set_up(&defaults, EVERYTHING);
	disk.result = -EIO;
	add(0, VIRTIO_BLK_T_IN, 0, 512);
	virtio_kick(dev, 0);
	assert_true(fake_take(&guest.q[0], &used));
	assert_int_equal(used.len, 0);
	assert_int_equal(status(0), VIRTIO_BLK_S_IOERR);
	assert_int_equal(answer_to(VIRTIO_BLK_T_OUT, 0, 512), VIRTIO_BLK_S_IOERR);
	assert_int_equal(answer_to(VIRTIO_BLK_T_FLUSH, 0, 0), VIRTIO_BLK_S_IOERR);
	assert_false(broken());
}

static void requests_are_used_again(void **state)
{
	set_up(&defaults, EVERYTHING);
	for (unsigned i = 0; i < 3 * BLK_QUEUE_SIZE; i++)
		assert_int_equal(answer_to(VIRTIO_BLK_T_FLUSH, 0, 0), VIRTIO_BLK_S_OK);
	assert_int_equal(to_blk(dev)->queue[0].fresh, 1);
}

static unsigned pages_told;

static void count_page(struct mem_watch *w, gpa_t gpa)
{
	pages_told++;
}

/* The guest may have code there. */
static void all_that_is_written_to_memory_is_told_to_its_watch(void **state)
{
	struct mem_watch watch = {count_page};

	set_up(&defaults, EVERYTHING);
	pages_told = 0;
	mem_watch(mem, &watch);
	mem_mark(mem, DATA);
	mem_mark(mem, STATUS);
	assert_int_equal(answer_to(VIRTIO_BLK_T_IN, 0, 512), VIRTIO_BLK_S_OK);
	assert_int_equal(pages_told, 2);
	mem_mark(mem, DATA);
	mem_mark(mem, STATUS);
	disk.result = -EIO;
	assert_int_equal(answer_to(VIRTIO_BLK_T_IN, 0, 512), VIRTIO_BLK_S_IOERR);
	assert_int_equal(pages_told, 4);
	mem_watch(mem, NULL);
}

/* --- what is written when --- */

static void a_flush_reaches_the_image(void **state)
{
	set_up(&defaults, EVERYTHING);
	assert_int_equal(answer_to(VIRTIO_BLK_T_FLUSH, 0, 0), VIRTIO_BLK_S_OK);
	assert_int_equal(disk.op[0].op, BLOCK_FLUSH);
}

static void a_driver_that_flushes_gets_writes_without_it(void **state)
{
	set_up(&defaults, EVERYTHING);
	assert_int_equal(answer_to(VIRTIO_BLK_T_OUT, 0, 512), VIRTIO_BLK_S_OK);
	assert_int_equal(disk.op[0].flags, 0);
}

static void a_driver_that_knows_no_flush_gets_each_write_flushed(void **state)
{
	set_up(&defaults, EVERYTHING & ~(VIRTIO_BLK_F_FLUSH | VIRTIO_BLK_F_CONFIG_WCE));
	assert_int_equal(answer_to(VIRTIO_BLK_T_OUT, 0, 512), VIRTIO_BLK_S_OK);
	assert_int_equal(disk.op[0].flags, BLOCK_FUA);
	put_range(0, 0, 8, 1);
	assert_int_equal(answer_to(VIRTIO_BLK_T_WRITE_ZEROES, 0, 16), VIRTIO_BLK_S_OK);
	assert_int_equal(disk.op[1].flags, BLOCK_FUA | BLOCK_UNMAP);
}

static void write_config(unsigned offset, uint8_t v)
{
	pthread_mutex_lock(&dev->config_lock);
	dev->config[offset] = v;
	dev->type->config_written(dev, offset, 1);
	pthread_mutex_unlock(&dev->config_lock);
}

static void the_driver_may_choose_write_through(void **state)
{
	set_up(&defaults, EVERYTHING);
	assert_int_equal(dev->config[CFG_WRITEBACK], 1);
	write_config(CFG_WRITEBACK, 0);
	assert_int_equal(answer_to(VIRTIO_BLK_T_OUT, 0, 512), VIRTIO_BLK_S_OK);
	assert_int_equal(disk.op[0].flags, BLOCK_FUA);
	write_config(CFG_WRITEBACK, 1);
	assert_int_equal(answer_to(VIRTIO_BLK_T_OUT, 0, 512), VIRTIO_BLK_S_OK);
	assert_int_equal(disk.op[1].flags, 0);
}

static void that_choice_ends_with_a_reset(void **state)
{
	set_up(&defaults, EVERYTHING);
	write_config(CFG_WRITEBACK, 0);
	assert_true(fake_guest_stop(&guest));
	virtio_reset(dev);
	assert_int_equal(dev->config[CFG_WRITEBACK], 1);
}

/* --- ranges --- */

static void discards_name_ranges(void **state)
{
	set_up(&defaults, EVERYTHING);
	put_range(0, 8, 16, 0);
	put_range(1, 5, 0, 0);
	put_range(2, SECTORS - 1, 1, 0);
	assert_int_equal(answer_to(VIRTIO_BLK_T_DISCARD, 0, 48), VIRTIO_BLK_S_OK);
	assert_int_equal(disk.ops, 2);
	assert_int_equal(disk.op[0].op, BLOCK_DISCARD);
	assert_int_equal(disk.op[0].offset, 8 * 512);
	assert_int_equal(disk.op[0].len, 16 * 512);
	assert_int_equal(disk.op[1].offset, DISK - 512);
	assert_int_equal(disk.op[1].len, 512);
	assert_int_equal(answer_to(VIRTIO_BLK_T_DISCARD, 0, 24), VIRTIO_BLK_S_IOERR);
	assert_int_equal(disk.ops, 2);
}

static void zeroes_may_be_unmapped(void **state)
{
	set_up(&defaults, EVERYTHING);
	put_range(0, 0, 8, 1);
	put_range(1, 16, 8, 0);
	assert_int_equal(answer_to(VIRTIO_BLK_T_WRITE_ZEROES, 0, 32), VIRTIO_BLK_S_OK);
	assert_int_equal(disk.op[0].op, BLOCK_ZERO);
	assert_int_equal(disk.op[0].flags, BLOCK_UNMAP);
	assert_int_equal(disk.op[1].flags, 0);
	assert_int_equal(disk.op[1].offset, 16 * 512);
}

static void an_error_ends_the_ranges(void **state)
{
	set_up(&defaults, EVERYTHING);
	put_range(0, 0, 8, 0);
	put_range(1, 16, 8, 0);
	disk.result = -EIO;
	assert_int_equal(answer_to(VIRTIO_BLK_T_DISCARD, 0, 32), VIRTIO_BLK_S_IOERR);
	assert_int_equal(disk.ops, 1);
}

static void flags_that_are_not_known_are_not_supported(void **state)
{
	set_up(&defaults, EVERYTHING);
	put_range(0, 0, 8, 2);
	assert_int_equal(answer_to(VIRTIO_BLK_T_WRITE_ZEROES, 0, 16), VIRTIO_BLK_S_UNSUPP);
	assert_int_equal(answer_to(VIRTIO_BLK_T_DISCARD, 0, 16), VIRTIO_BLK_S_UNSUPP);
	put_range(0, 0, 8, 1);
	assert_int_equal(answer_to(VIRTIO_BLK_T_DISCARD, 0, 16), VIRTIO_BLK_S_UNSUPP);
	assert_int_equal(disk.ops, 0);
}

static void wrong_ranges_are_errors(void **state)
{
	static const struct {
		uint64_t sector;
		uint32_t sectors;
	} wrong[] = {{SECTORS, 1},
		     {SECTORS - 1, 2},
		     {UINT64_MAX, 1},
		     {UINT64_MAX >> 9, 8},
		     {0, UINT32_MAX}};

	set_up(&defaults, EVERYTHING);
	for (unsigned i = 0; i < ARRAY_SIZE(wrong); i++) {
		put_range(0, 0, 8, 0); /* a good one before it is not done either */
		put_range(1, wrong[i].sector, wrong[i].sectors, 0);
		assert_int_equal(answer_to(VIRTIO_BLK_T_DISCARD, 0, 32), VIRTIO_BLK_S_IOERR);
		assert_int_equal(answer_to(VIRTIO_BLK_T_WRITE_ZEROES, 0, 32), VIRTIO_BLK_S_IOERR);
	}
	assert_int_equal(answer_to(VIRTIO_BLK_T_DISCARD, 0, 33 * 16), VIRTIO_BLK_S_IOERR);
	assert_int_equal(disk.ops, 0);
	assert_false(broken());
}

static void more_than_the_limit_is_an_error_even_of_a_large_disk(void **state)
{
	disk.size = UINT64_C(1) << 62;
	set_up(&defaults, EVERYTHING);
	put_range(0, 0, ZEROES_SECTORS_MAX, 0);
	assert_int_equal(answer_to(VIRTIO_BLK_T_WRITE_ZEROES, 0, 16), VIRTIO_BLK_S_OK);
	put_range(0, 0, ZEROES_SECTORS_MAX + 1, 0);
	assert_int_equal(answer_to(VIRTIO_BLK_T_WRITE_ZEROES, 0, 16), VIRTIO_BLK_S_IOERR);
}

static void what_was_not_agreed_on_is_not_supported(void **state)
{
	set_up(&defaults, VIRTIO_BLK_F_FLUSH);
	put_range(0, 0, 8, 0);
	assert_int_equal(answer_to(VIRTIO_BLK_T_DISCARD, 0, 16), VIRTIO_BLK_S_UNSUPP);
	assert_int_equal(answer_to(VIRTIO_BLK_T_WRITE_ZEROES, 0, 16), VIRTIO_BLK_S_UNSUPP);
	assert_int_equal(answer_to(14, 0, 16), VIRTIO_BLK_S_UNSUPP); /* secure erase */
	assert_int_equal(answer_to(UINT32_MAX, 0, 0), VIRTIO_BLK_S_UNSUPP);
}

static void without_discard_it_is_not_offered(void **state)
{
	set_up(&(struct virtio_blk_opts){0}, EVERYTHING & ~VIRTIO_BLK_F_DISCARD);
	assert_false(dev->offered & VIRTIO_BLK_F_DISCARD);
	assert_int_equal(dev->config[CFG_WRITE_ZEROES_MAY_UNMAP], 0);
}

/* --- identity --- */

static void the_serial_can_be_read(void **state)
{
	set_up(&(struct virtio_blk_opts){.serial = "holon-1"}, EVERYTHING);
	memset(at(DATA, 24), 'x', 24);
	assert_int_equal(answer_to(VIRTIO_BLK_T_GET_ID, 0, 24), VIRTIO_BLK_S_OK);
	assert_memory_equal(at(DATA, 24), "holon-1\0\0\0\0\0\0\0\0\0\0\0\0\0xxxx", 24);
}

static void a_serial_of_twenty_bytes_has_no_end(void **state)
{
	set_up(&(struct virtio_blk_opts){.serial = "12345678901234567890"}, EVERYTHING);
	assert_int_equal(answer_to(VIRTIO_BLK_T_GET_ID, 0, 20), VIRTIO_BLK_S_OK);
	assert_memory_equal(at(DATA, 20), "12345678901234567890", 20);
	assert_int_equal(answer_to(VIRTIO_BLK_T_GET_ID, 0, 5), VIRTIO_BLK_S_OK);
}

static void options_that_cannot_be_are_refused(void **state)
{
	const struct virtio_blk_opts long_serial = {.serial = "123456789012345678901", .queues = 1};
	const struct virtio_blk_opts no_queues = {.queues = 0}, many = {.queues = 17};
	struct virtio_env env = {0};

	assert_int_equal(virtio_blk_new(&dev, &env, &long_serial, &err), -EINVAL);
	assert_non_null(strstr(err.text, "longer than 20"));
	assert_int_equal(virtio_blk_new(&dev, &env, &no_queues, &err), -EINVAL);
	assert_int_equal(virtio_blk_new(&dev, &env, &many, &err), -EINVAL);
	assert_null(dev);
}

static void the_configuration_says_what_the_disk_is(void **state)
{
	set_up(&(struct virtio_blk_opts){.discard = true, .queues = 4}, EVERYTHING);
	assert_int_equal(load_le(dev->config + CFG_CAPACITY, 8), SECTORS);
	assert_int_equal(load_le(dev->config + CFG_SEG_MAX, 4), 254);
	assert_int_equal(load_le(dev->config + CFG_BLK_SIZE, 4), 512);
	assert_int_equal(load_le(dev->config + CFG_NUM_QUEUES, 2), 4);
	assert_int_equal(load_le(dev->config + CFG_MAX_DISCARD_SEG, 4), 32);
	assert_int_equal(dev->config[CFG_WRITE_ZEROES_MAY_UNMAP], 1);
	assert_true(dev->offered & VIRTIO_BLK_F_MQ);
	assert_false(dev->offered & VIRTIO_BLK_F_RO);
}

static void a_new_size_is_announced(void **state)
{
	set_up(&defaults, EVERYTHING);
	disk.size = DISK / 2;
	virtio_blk_resized(dev);
	assert_int_equal(load_le(dev->config + CFG_CAPACITY, 8), SECTORS / 2);
	assert_int_equal(guest.config_irqs, 1);
	assert_int_equal(answer_to(VIRTIO_BLK_T_IN, SECTORS / 2, 512), VIRTIO_BLK_S_IOERR);
}

/* --- mistakes --- */

static void outside_of_the_disk_is_an_error(void **state)
{
	set_up(&defaults, EVERYTHING);
	assert_int_equal(answer_to(VIRTIO_BLK_T_IN, SECTORS - 1, 512), VIRTIO_BLK_S_OK);
	assert_int_equal(answer_to(VIRTIO_BLK_T_IN, SECTORS, 512), VIRTIO_BLK_S_IOERR);
	assert_int_equal(answer_to(VIRTIO_BLK_T_OUT, SECTORS - 1, 1024), VIRTIO_BLK_S_IOERR);
	assert_int_equal(answer_to(VIRTIO_BLK_T_IN, UINT64_MAX, 512), VIRTIO_BLK_S_IOERR);
	assert_int_equal(answer_to(VIRTIO_BLK_T_IN, UINT64_MAX >> 9, 512), VIRTIO_BLK_S_IOERR);
	assert_int_equal(disk.ops, 1);
}

static void parts_of_sectors_are_errors(void **state)
{
	set_up(&defaults, EVERYTHING);
	assert_int_equal(answer_to(VIRTIO_BLK_T_IN, 0, 511), VIRTIO_BLK_S_IOERR);
	assert_int_equal(answer_to(VIRTIO_BLK_T_OUT, 0, 513), VIRTIO_BLK_S_IOERR);
	assert_int_equal(disk.ops, 0);
}

static void nothing_to_move_is_done_at_once(void **state)
{
	set_up(&defaults, EVERYTHING);
	assert_int_equal(answer_to(VIRTIO_BLK_T_IN, 0, 0), VIRTIO_BLK_S_OK);
	assert_int_equal(answer_to(VIRTIO_BLK_T_OUT, 0, 0), VIRTIO_BLK_S_OK);
	assert_int_equal(answer_to(VIRTIO_BLK_T_DISCARD, 0, 0), VIRTIO_BLK_S_OK);
	assert_int_equal(disk.ops, 0);
}

static void a_read_only_disk_is_only_read(void **state)
{
	disk.read_only = true;
	set_up(&(struct virtio_blk_opts){0}, VIRTIO_BLK_F_RO | VIRTIO_BLK_F_FLUSH);
	assert_int_equal(dev->offered & (VIRTIO_BLK_F_RO | VIRTIO_BLK_F_DISCARD), VIRTIO_BLK_F_RO);
	assert_int_equal(answer_to(VIRTIO_BLK_T_OUT, 0, 512), VIRTIO_BLK_S_IOERR);
	assert_int_equal(disk.ops, 0);
	assert_int_equal(answer_to(VIRTIO_BLK_T_IN, 0, 512), VIRTIO_BLK_S_OK);
}

static void a_request_without_a_whole_header_breaks_the_device(void **state)
{
	struct fake_used used;

	set_up(&defaults, EVERYTHING);
	fake_add(&guest.q[0], FAKE_OUT(HEADERS, 15), FAKE_IN(STATUS, 1));
	virtio_kick(dev, 0);
	assert_true(broken());
	assert_false(fake_take(&guest.q[0], &used));
	assert_int_equal(status(0), ANSWER);
}

static void a_request_without_a_status_breaks_the_device(void **state)
{
	set_up(&defaults, EVERYTHING);
	put_header(0, VIRTIO_BLK_T_OUT, 0);
	fake_add(&guest.q[0], FAKE_OUT(HEADERS, 16), FAKE_OUT(DATA, 512));
	virtio_kick(dev, 0);
	assert_true(broken());
	assert_int_equal(disk.ops, 0);
}

static void a_chain_that_leads_out_of_memory_breaks_the_device(void **state)
{
	set_up(&defaults, EVERYTHING);
	put_header(0, VIRTIO_BLK_T_IN, 0);
	fake_add(&guest.q[0], FAKE_OUT(HEADERS, 16), FAKE_IN(RAM - 256, 512), FAKE_IN(STATUS, 1));
	virtio_kick(dev, 0);
	assert_true(broken());
	assert_int_equal(disk.ops, 0);
}

static void what_is_in_flight_of_a_broken_device_ends_well(void **state)
{
	set_up(&defaults, EVERYTHING);
	disk.hold = true;
	add(0, VIRTIO_BLK_T_IN, 0, 512);
	fake_add(&guest.q[0], FAKE_OUT(HEADERS, 3), FAKE_IN(STATUS + 1, 1));
	virtio_kick(dev, 0);
	assert_true(broken());
	finish(0);
	assert_true(fake_guest_stop(&guest));
}

/* --- turns, stops --- */

static void a_queue_that_has_much_lets_others_have_their_turn(void **state)
{
	struct fake_used used;
	unsigned done = 0;

	set_up(&(struct virtio_blk_opts){.queues = 2}, VIRTIO_BLK_F_FLUSH | VIRTIO_BLK_F_MQ);
	put_header(0, VIRTIO_BLK_T_FLUSH, 0);
	for (unsigned i = 0; i < 100; i++)
		assert_true(fake_add(&guest.q[0], FAKE_OUT(HEADERS, 16), FAKE_IN(STATUS, 1)) >= 0);
	virtio_kick(dev, 0);
	assert_int_equal(disk.ops, 64);
	fake_add(&guest.q[1], FAKE_OUT(HEADERS, 16), FAKE_IN(STATUS + 1, 1));
	virtio_kick(dev, 1);
	assert_int_equal(status(1), VIRTIO_BLK_S_OK);
	assert_int_equal(disk.ops, 65);
	assert_int_equal(loop_once(loop), 0);
	assert_int_equal(disk.ops, 101);
	while (fake_take(&guest.q[0], &used))
		done++;
	assert_int_equal(done, 100);
	assert_int_equal(guest.irqs[0], 2);
}

static void a_stop_waits_for_what_is_in_flight(void **state)
{
	struct fake_used used;

	set_up(&defaults, EVERYTHING);
	disk.hold = true;
	add(0, VIRTIO_BLK_T_OUT, 0, 512);
	add(1, VIRTIO_BLK_T_OUT, 1, 512);
	virtio_kick(dev, 0);
	assert_false(fake_guest_stop(&guest));
	add(2, VIRTIO_BLK_T_OUT, 2, 512);
	virtio_kick(dev, 0);
	assert_int_equal(disk.ops, 2);
	finish(0);
	assert_int_equal(guest.stops, 0);
	finish(-EIO);
	assert_int_equal(guest.stops, 1);
	assert_true(fake_take(&guest.q[0], &used) && fake_take(&guest.q[0], &used));
	virtio_start(dev); /* the third is found then */
	assert_int_equal(disk.ops, 3);
	finish(0);
	assert_int_equal(status(2), VIRTIO_BLK_S_OK);
}

static void a_stop_waits_for_a_posted_turn(void **state)
{
	set_up(&defaults, EVERYTHING);
	put_header(0, VIRTIO_BLK_T_FLUSH, 0);
	for (unsigned i = 0; i < 70; i++)
		fake_add(&guest.q[0], FAKE_OUT(HEADERS, 16), FAKE_IN(STATUS, 1));
	virtio_kick(dev, 0);
	assert_false(fake_guest_stop(&guest));
	assert_int_equal(loop_once(loop), 0);
	assert_int_equal(guest.stops, 1);
	assert_int_equal(disk.ops, 64);
}

/* --- no space --- */

static void requests_without_space_wait_and_are_tried_again(void **state)
{
	struct fake_used used;

	set_up(&defaults, EVERYTHING);
	memset(at(DATA, 512), 0x31, 512);
	disk.result = -ENOSPC;
	for (unsigned i = 0; i < 3; i++)
		add(i, VIRTIO_BLK_T_OUT, i, 512);
	virtio_kick(dev, 0);
	assert_int_equal(disk.ops, 3);
	assert_int_equal(times_full, 1);
	assert_false(fake_take(&guest.q[0], &used));
	assert_int_equal(loop_once(loop), 0); /* one attempt, of the oldest */
	assert_int_equal(disk.ops, 4);
	assert_int_equal(disk.op[3].offset, 0);
	assert_int_equal(times_full, 1);
	assert_int_equal(times_space, 0);
	disk.result = 0;
	while (!times_space)
		assert_int_equal(loop_once(loop), 0);
	assert_int_equal(disk.ops, 7);
	assert_int_equal(times_space, 1);
	for (unsigned i = 0; i < 3; i++) {
		assert_true(fake_take(&guest.q[0], &used));
		assert_int_equal(status(i), VIRTIO_BLK_S_OK);
		assert_int_equal(disk.bytes[i * 512], 0x31);
	}
}

static void once_an_attempt_failed_again_only_one_is_made_at_a_time(void **state)
{
	set_up(&defaults, EVERYTHING);
	disk.hold = true;
	for (unsigned i = 0; i < 4; i++)
		add(i, VIRTIO_BLK_T_OUT, i, 512);
	virtio_kick(dev, 0);
	for (unsigned i = 0; i < 4; i++)
		finish(-ENOSPC);
	assert_int_equal(loop_once(loop), 0);
	finish(0); /* there was space for one: all others are tried */
	assert_int_equal(loop_once(loop), 0);
	assert_int_equal(disk.ops, 8);
	for (unsigned i = 0; i < 3; i++)
		finish(-ENOSPC);
	assert_int_equal(loop_once(loop), 0);
	assert_int_equal(disk.ops, 9);
	assert_int_equal(times_full, 1);
	assert_int_equal(times_space, 0);
	finish(-ENOSPC);
}

static void a_disk_may_be_full_again_and_again(void **state)
{
	set_up(&defaults, EVERYTHING);
	for (unsigned i = 1; i <= 3; i++) {
		disk.result = i & 1 ? -ENOSPC : -EDQUOT;
		add(0, VIRTIO_BLK_T_OUT, 0, 512);
		virtio_kick(dev, 0);
		assert_int_equal(times_full, i);
		disk.result = 0;
		assert_int_equal(loop_once(loop), 0);
		assert_int_equal(times_space, i);
	}
}

static void a_discard_goes_on_with_the_range_that_had_no_space(void **state)
{
	struct fake_used used;

	set_up(&defaults, EVERYTHING);
	disk.hold = true;
	put_range(0, 0, 8, 0);
	put_range(1, 16, 8, 0);
	add(0, VIRTIO_BLK_T_DISCARD, 0, 32);
	virtio_kick(dev, 0);
	finish(0);
	finish(-ENOSPC);
	assert_int_equal(times_full, 1);
	assert_int_equal(loop_once(loop), 0);
	assert_int_equal(disk.op[2].offset, 16 * 512);
	finish(0);
	assert_int_equal(times_space, 1);
	assert_true(fake_take(&guest.q[0], &used));
	assert_int_equal(status(0), VIRTIO_BLK_S_OK);
}

static void reads_go_on_while_writes_wait(void **state)
{
	struct fake_used used;

	set_up(&defaults, EVERYTHING);
	disk.result = -ENOSPC;
	add(0, VIRTIO_BLK_T_OUT, 0, 512);
	virtio_kick(dev, 0);
	disk.result = 0;
	add(1, VIRTIO_BLK_T_IN, 0, 512);
	virtio_kick(dev, 0);
	assert_true(fake_take(&guest.q[0], &used));
	assert_int_equal(status(1), VIRTIO_BLK_S_OK);
	assert_int_equal(times_space, 0);
}

static void a_stop_gives_up_what_waits_for_space(void **state)
{
	set_up(&defaults, EVERYTHING);
	disk.result = -ENOSPC;
	add(0, VIRTIO_BLK_T_OUT, 0, 512);
	add(1, VIRTIO_BLK_T_OUT, 1, 512);
	virtio_kick(dev, 0);
	assert_true(fake_guest_stop(&guest));
	assert_int_equal(status(0), VIRTIO_BLK_S_IOERR);
	assert_int_equal(status(1), VIRTIO_BLK_S_IOERR);
	assert_int_equal(times_space, 1);
}

static void a_stop_during_a_new_attempt_gives_it_up_too(void **state)
{
	set_up(&defaults, EVERYTHING);
	disk.hold = true;
	add(0, VIRTIO_BLK_T_OUT, 0, 512);
	virtio_kick(dev, 0);
	finish(-ENOSPC);
	assert_int_equal(loop_once(loop), 0);
	assert_false(fake_guest_stop(&guest));
	finish(-ENOSPC);
	assert_int_equal(guest.stops, 1);
	assert_int_equal(status(0), VIRTIO_BLK_S_IOERR);
	assert_int_equal(times_space, 1);
}

/* --- state --- */

static void load_what_was_saved(struct state *from)
{
	size_t len;
	const void *bytes = state_written(from, &len);
	struct state *s = state_reader(bytes, len);

	state_begin(s, "virtio-blk", 0);
	virtio_state(dev, s);
	state_end(s);
	if (state_result(s, &err) < 0)
		fail_msg("%s", err.text);
	state_free(s);
}

static void a_loaded_configuration_is_only_the_drivers(void **state)
{
	struct state *saved = state_writer();

	set_up(&defaults, EVERYTHING);
	write_config(CFG_WRITEBACK, 0);
	assert_true(fake_guest_stop(&guest));
	state_begin(saved, "virtio-blk", 0);
	virtio_state(dev, saved);
	state_end(saved);
	write_config(CFG_WRITEBACK, 1);
	disk.size = DISK / 2;
	load_what_was_saved(saved);
	state_free(saved);
	assert_int_equal(load_le(dev->config + CFG_CAPACITY, 8), SECTORS / 2);
	assert_int_equal(dev->config[CFG_WRITEBACK], 0);
	virtio_start(dev);
	assert_int_equal(answer_to(VIRTIO_BLK_T_OUT, 0, 512), VIRTIO_BLK_S_OK);
	assert_int_equal(disk.op[0].flags, BLOCK_FUA);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, clean, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_read_fills_the_drivers_pieces),
		TEST(a_write_takes_them),
		TEST(the_driver_may_cut_a_request_anywhere),
		TEST(an_indirect_request_of_many_pieces_is_one_request),
		TEST(nothing_is_answered_before_the_image_is_done),
		TEST(an_error_of_the_image_is_the_guests),
		TEST(requests_are_used_again),
		TEST(all_that_is_written_to_memory_is_told_to_its_watch),
		TEST(a_flush_reaches_the_image),
		TEST(a_driver_that_flushes_gets_writes_without_it),
		TEST(a_driver_that_knows_no_flush_gets_each_write_flushed),
		TEST(the_driver_may_choose_write_through),
		TEST(that_choice_ends_with_a_reset),
		TEST(discards_name_ranges),
		TEST(zeroes_may_be_unmapped),
		TEST(an_error_ends_the_ranges),
		TEST(flags_that_are_not_known_are_not_supported),
		TEST(wrong_ranges_are_errors),
		TEST(more_than_the_limit_is_an_error_even_of_a_large_disk),
		TEST(what_was_not_agreed_on_is_not_supported),
		TEST(without_discard_it_is_not_offered),
		TEST(the_serial_can_be_read),
		TEST(a_serial_of_twenty_bytes_has_no_end),
		TEST(options_that_cannot_be_are_refused),
		TEST(the_configuration_says_what_the_disk_is),
		TEST(a_new_size_is_announced),
		TEST(outside_of_the_disk_is_an_error),
		TEST(parts_of_sectors_are_errors),
		TEST(nothing_to_move_is_done_at_once),
		TEST(a_read_only_disk_is_only_read),
		TEST(a_request_without_a_whole_header_breaks_the_device),
		TEST(a_request_without_a_status_breaks_the_device),
		TEST(a_chain_that_leads_out_of_memory_breaks_the_device),
		TEST(what_is_in_flight_of_a_broken_device_ends_well),
		TEST(a_queue_that_has_much_lets_others_have_their_turn),
		TEST(a_stop_waits_for_what_is_in_flight),
		TEST(a_stop_waits_for_a_posted_turn),
		TEST(requests_without_space_wait_and_are_tried_again),
		TEST(once_an_attempt_failed_again_only_one_is_made_at_a_time),
		TEST(a_disk_may_be_full_again_and_again),
		TEST(a_discard_goes_on_with_the_range_that_had_no_space),
		TEST(reads_go_on_while_writes_wait),
		TEST(a_stop_gives_up_what_waits_for_space),
		TEST(a_stop_during_a_new_attempt_gives_it_up_too),
		TEST(a_loaded_configuration_is_only_the_drivers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
