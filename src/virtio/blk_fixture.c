#include "virtio/blk_fixture.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* --- the image --- */

struct fake_disk disk;

static void move_data(struct block_req *r)
{
	uint64_t at = r->offset;

	for (unsigned i = 0; i < r->iov_count; i++) {
		uint64_t len = r->iov[i].iov_len;

		assert(at + len <= sizeof disk.bytes && len);
		if (r->op == BLOCK_READ)
			memcpy(r->iov[i].iov_base, disk.bytes + at, len);
		else
			memcpy(disk.bytes + at, r->iov[i].iov_base, len);
		at += len;
	}
	assert(at == r->offset + r->len);
}

void finish(int result)
{
	struct block_req *r;

	assert(disk.finished < disk.ops);
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
	assert(disk.ops < OP_MAX);
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

struct blk_bench bench;

static void failed(void *ctx, enum block_op op, int error)
{
	assert(error > 0);
	bench.times_failed++;
}

static void space(void *ctx, bool full)
{
	assert(ctx == &disk);
	full ? bench.times_full++ : bench.times_space++;
}

void set_up(const struct virtio_blk_opts *opts, uint64_t features)
{
	struct virtio_blk_opts o = *opts;
	struct virtio_env env;

	assert(mem_new(&bench.mem, RAM, &bench.err) == 0);
	assert(loop_new(&bench.loop, &bench.err) == 0);
	env = (struct virtio_env){
		.mem = bench.mem, .loop = bench.loop, .clock = loop_clock(bench.loop)};
	o.queues = o.queues ? o.queues : 1;
	o.space = space;
	o.failed = failed;
	o.ctx = &disk;
	o.retry_ns = 1000000;
	bench.times_full = bench.times_space = bench.times_failed = 0;
	assert(virtio_blk_new(&bench.dev, &env, &o, &bench.err) == 0);
	fake_guest_start(&bench.guest, bench.dev, .features = features);
	memset(fake_at(&bench.guest.q[0], STATUS, 4096), ANSWER, 4096);
}

int clean(void **state)
{
	memset(&disk, 0, sizeof disk);
	disk.size = DISK;
	for (unsigned i = 0; i < DISK; i++)
		disk.bytes[i] = (uint8_t)(i >> 9 ^ i);
	return 0;
}

int tear_down(void **state)
{
	if (bench.dev)
		virtio_blk_type.free(bench.dev);
	loop_free(bench.loop);
	mem_free(bench.mem);
	bench.dev = NULL;
	bench.loop = NULL;
	bench.mem = NULL;
	return 0;
}

const struct virtio_blk_opts defaults = {.discard = true};

uint8_t *at(gpa_t gpa, uint64_t len)
{
	return fake_at(&bench.guest.q[0], gpa, len);
}

void put_header(unsigned i, uint32_t type, uint64_t sector)
{
	uint8_t *h = at(HEADERS + i * 16, 16);

	store_le(h, type, 4);
	store_le(h + 4, 0, 4);
	store_le(h + 8, sector, 8);
}

void add(unsigned i, uint32_t type, uint64_t sector, uint32_t len)
{
	bool in = type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_GET_ID;
	struct fake_buf buf[3] = {FAKE_OUT(HEADERS + i * 16, 16)};
	unsigned n = 1;

	put_header(i, type, sector);
	if (len)
		buf[n++] = (struct fake_buf){DATA, len, in};
	buf[n++] = FAKE_IN(STATUS + i, 1);
	assert(fake_add_chain(&bench.guest.q[0], buf, n) >= 0);
}

uint8_t status(unsigned i)
{
	return *at(STATUS + i, 1);
}

uint8_t answer_to(uint32_t type, uint64_t sector, uint32_t len)
{
	struct fake_used used;

	*at(STATUS, 1) = ANSWER;
	add(0, type, sector, len);
	virtio_kick(bench.dev, 0);
	assert(take(&used));
	return status(0);
}

void put_range(unsigned i, uint64_t sector, uint32_t sectors, uint32_t flags)
{
	uint8_t *r = at(DATA + i * 16, 16);

	store_le(r, sector, 8);
	store_le(r + 8, sectors, 4);
	store_le(r + 12, flags, 4);
}

bool take(struct fake_used *used)
{
	struct loop_prepare *p = &to_blk(bench.dev)->prepare;

	p->run(p);
	return fake_take(&bench.guest.q[0], used);
}

bool broken(void)
{
	return atomic_load(&bench.dev->needs_reset);
}

void write_config(unsigned offset, uint8_t v)
{
	pthread_mutex_lock(&bench.dev->config_lock);
	bench.dev->config[offset] = v;
	bench.dev->type->config_written(bench.dev, offset, 1);
	pthread_mutex_unlock(&bench.dev->config_lock);
}
