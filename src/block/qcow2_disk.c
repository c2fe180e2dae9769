#include "block/qcow2_disk.h"

#include <errno.h>
#include <stdlib.h>

#include "block/qcow2_priv.h"

uint64_t disk_random(uint64_t *rng, uint64_t below)
{
	*rng ^= *rng << 13;
	*rng ^= *rng >> 7;
	*rng ^= *rng << 17;
	return below ? *rng % below : 0;
}

static struct disk *disk_of(struct proto *p)
{
	return container_of(p, struct disk, proto);
}

static bool reserve(struct disk *d, uint64_t size)
{
	uint64_t room = max_u64(size, min_u64(2 * d->room, d->room + MIB(16)));
	uint8_t *more;

	if (size <= d->room)
		return true;
	more = size <= GIB(1) ? realloc(d->bytes, room) : NULL;
	if (!more)
		return false;
	memset(more + d->room, 0, room - d->room);
	d->bytes = more;
	d->room = room;
	return true;
}

/* Time passes, and the operation may fail. */
static int begin(struct disk *d)
{
	const uint64_t op = d->ops++;

	if (d->slow && disk_random(&d->rng, 4))
		block_sleep(d->proto.ctx, disk_random(&d->rng, 20000));
	return op >= d->fail_from && op < d->fail_to ? d->error : 0;
}

static struct disk_op *record(struct disk *d, int kind, uint64_t offset, uint64_t len)
{
	if (!d->record)
		return NULL;
	if (d->op_count == d->op_room) {
		d->op_room = d->op_room ? 2 * d->op_room : 1024;
		d->op = realloc(d->op, d->op_room * sizeof *d->op);
		if (!d->op)
			abort();
	}
	d->op[d->op_count] =
		(struct disk_op){.kind = kind, .offset = offset, .len = len, .begun = ++d->now};
	return &d->op[d->op_count++];
}

static int disk_readv(struct proto *p, uint64_t offset, const struct iovec *iov, unsigned n)
{
	struct disk *d = disk_of(p);
	int r;

	if (++d->reads > d->most_reads)
		d->most_reads = d->reads;
	r = begin(d);
	d->reads--;
	for (unsigned i = 0; r == 0 && i < n; i++) {
		uint64_t there = offset < p->size ? min_u64(iov[i].iov_len, p->size - offset) : 0;

		if (there)
			memcpy(iov[i].iov_base, d->bytes + offset, there);
		memset((uint8_t *)iov[i].iov_base + there, 0, iov[i].iov_len - there);
		offset += iov[i].iov_len;
	}
	return r;
}

static int reach(struct disk *d, uint64_t end)
{
	if ((d->max_size && end > d->max_size && end > d->proto.size) || !reserve(d, end))
		return -ENOSPC;
	d->proto.size = max_u64(d->proto.size, end);
	return 0;
}

static int disk_writev(struct proto *p, uint64_t offset, const struct iovec *iov, unsigned n)
{
	struct disk *d = disk_of(p);
	const uint64_t len = iov_sum(iov, n);
	unsigned at = d->op_count;
	uint8_t *copy = NULL;
	int r;

	if (d->record) {
		copy = malloc(len + 1);
		iov_gather(iov, n, 0, copy, len);
		record(d, DISK_WRITE, offset, len)->bytes = copy;
	}
	r = begin(d);
	if (r == 0)
		r = reach(d, offset + len);
	if (r == 0)
		iov_gather(iov, n, 0, d->bytes + offset, len);
	if (r == 0 && copy)
		d->op[at].ended = ++d->now;
	return r;
}

static int disk_zero(struct proto *p, uint64_t offset, uint64_t len, bool unmap)
{
	struct disk *d = disk_of(p);
	unsigned at = d->op_count;
	int r;

	record(d, DISK_WRITE, offset, len);
	r = begin(d);
	if (r == 0)
		r = reach(d, offset + len);
	if (r == 0)
		memset(d->bytes + offset, 0, len);
	if (r == 0 && d->record)
		d->op[at].ended = ++d->now;
	return r;
}

static int disk_discard(struct proto *p, uint64_t offset, uint64_t len)
{
	if (offset >= p->size)
		return 0;
	return disk_zero(p, offset, min_u64(len, p->size - offset), true);
}

static int disk_truncate(struct proto *p, uint64_t size)
{
	struct disk *d = disk_of(p);
	unsigned at = d->op_count;
	int r;

	record(d, DISK_TRUNCATE, 0, size);
	r = begin(d);
	if (r < 0)
		return r;
	if (size > p->size) {
		r = reach(d, size);
	} else if (p->size) {
		memset(d->bytes + size, 0, p->size - size);
		p->size = size;
	}
	if (r == 0 && d->record)
		d->op[at].ended = ++d->now;
	return r;
}

static int disk_flush(struct proto *p)
{
	struct disk *d = disk_of(p);
	unsigned at = d->op_count;
	int r;

	record(d, DISK_FLUSH, 0, 0);
	r = begin(d);
	if (r == 0 && d->record)
		d->op[at].ended = ++d->now;
	return r;
}

static void disk_close(struct proto *p)
{
}

static const struct proto_ops disk_ops = {
	.name = "disk",
	.readv = disk_readv,
	.writev = disk_writev,
	.flush = disk_flush,
	.zero = disk_zero,
	.discard = disk_discard,
	.truncate = disk_truncate,
	.close = disk_close,
};

void disk_init(struct disk *d, struct block_ctx *c, uint64_t seed)
{
	*d = (struct disk){.proto = {.ops = &disk_ops,
				     .ctx = c,
				     .growable = true,
				     .can_discard = true,
				     .align = 1},
			   .rng = seed * 2 + 1,
			   .error = -EIO};
}

void disk_done(struct disk *d)
{
	for (unsigned i = 0; i < d->op_count; i++)
		free(d->op[i].bytes);
	free(d->op);
	free(d->base);
	free(d->bytes);
	d->bytes = d->base = NULL;
	d->op = NULL;
	d->op_count = d->op_room = 0;
	d->room = 0;
}

void disk_set(struct disk *d, const void *bytes, uint64_t size)
{
	if (!reserve(d, size + 1))
		abort();
	memset(d->bytes, 0, d->room);
	memcpy(d->bytes, bytes, size);
	d->proto.size = size;
}

void disk_record(struct disk *d)
{
	d->record = true;
	d->base = malloc(d->proto.size + 1);
	memcpy(d->base, d->bytes, d->proto.size);
	d->base_size = d->proto.size;
}

/* The beginning of the last flush that had ended by then. */
static uint64_t flushed_at(const struct disk *d, uint64_t moment)
{
	uint64_t at = 0;

	for (unsigned i = 0; i < d->op_count; i++)
		if (d->op[i].kind == DISK_FLUSH && d->op[i].ended && d->op[i].ended <= moment)
			at = max_u64(at, d->op[i].begun);
	return at;
}

static void apply(struct disk *to, const struct disk_op *op, bool all, uint64_t *rng)
{
	const uint64_t mode = disk_random(rng, 4); /* all, nothing, any sectors */

	if (op->kind == DISK_TRUNCATE) {
		if (all || mode)
			disk_truncate(&to->proto, op->len);
		return;
	}
	for (uint64_t at = 0, n; at < op->len; at += n) {
		n = min_u64(512 - (op->offset + at) % 512, op->len - at);
		if (!all && (mode == 0 || (mode > 1 && disk_random(rng, 2))))
			continue;
		if (!reserve(to, op->offset + at + n))
			abort();
		to->proto.size = max_u64(to->proto.size, op->offset + at + n);
		if (op->bytes)
			memcpy(to->bytes + op->offset + at, op->bytes + at, n);
		else
			memset(to->bytes + op->offset + at, 0, n);
	}
}

void disk_cut(const struct disk *d, uint64_t moment, uint64_t seed, struct disk *to)
{
	const uint64_t flushed = flushed_at(d, moment);
	uint64_t rng = seed * 2 + 1;

	disk_set(to, d->base, d->base_size);
	for (unsigned i = 0; i < d->op_count; i++) {
		const struct disk_op *op = &d->op[i];

		if (op->kind != DISK_FLUSH && op->begun <= moment)
			apply(to, op, op->ended && op->ended < flushed, &rng);
	}
}

/* --- images --- */

struct call {
	struct disk_image *image;
	struct disk *disk;
	const struct block_create_opts *create;
	enum block_op op;
	uint64_t offset, len;
	void *bytes;
	bool unmap;
	struct err *e;
};

static int open_it(void *arg)
{
	struct call *c = arg;

	return qcow2_driver.open(&c->image->block, c->e);
}

int disk_image_open(struct disk_image *i, struct disk *d, const struct block_opts *o,
		    struct block *backing, struct err *e)
{
	struct call c = {.image = i, .e = e};
	int r;

	*i = (struct disk_image){.disk = d,
				 .block = {.driver = &qcow2_driver,
					   .ctx = d->proto.ctx,
					   .proto = &d->proto,
					   .backing = backing}};
	if (o)
		i->block.opts = *o;
	r = block_run(d->proto.ctx, open_it, &c);
	i->open = r == 0;
	if (r < 0) {
		free(i->block.backing_file);
		free(i->block.backing_format);
	}
	return r;
}

static int close_it(void *arg)
{
	struct call *c = arg;

	return qcow2_driver.close(&c->image->block, NULL);
}

int disk_image_close(struct disk_image *i)
{
	struct call c = {.image = i};
	int r;

	if (!i->open)
		return 0;
	r = block_run(i->block.ctx, close_it, &c);
	free(i->block.backing_file);
	free(i->block.backing_format);
	i->open = false;
	return r;
}

void disk_image_abandon(struct disk_image *i)
{
	qcow2_of(&i->block)->read_only = true;
	i->block.opts.read_only = true;
	(void)disk_image_close(i);
}

static int create_it(void *arg)
{
	struct call *c = arg;

	return qcow2_driver.create(&c->disk->proto, c->create, c->e);
}

int disk_image_create(struct disk *d, const struct block_create_opts *o, struct err *e)
{
	struct call c = {.disk = d, .create = o, .e = e};

	return block_run(d->proto.ctx, create_it, &c);
}

static int do_it(void *arg)
{
	struct call *c = arg;
	struct block *b = &c->image->block;
	struct iovec iov = {c->bytes, c->len};

	switch (c->op) {
	case BLOCK_READ: return qcow2_driver.readv(b, c->offset, &iov, 1, c->len);
	case BLOCK_WRITE: return qcow2_driver.writev(b, c->offset, &iov, 1, c->len);
	case BLOCK_FLUSH: return qcow2_driver.flush(b);
	case BLOCK_DISCARD: return qcow2_driver.discard(b, c->offset, c->len);
	case BLOCK_ZERO: return qcow2_driver.zero(b, c->offset, c->len, c->unmap);
	}
	return -EINVAL;
}

int disk_image_do(struct disk_image *i, enum block_op op, uint64_t offset, void *bytes,
		  uint64_t len, bool unmap)
{
	struct call c = {
		.image = i, .op = op, .offset = offset, .bytes = bytes, .len = len, .unmap = unmap};

	return block_run(i->block.ctx, do_it, &c);
}
