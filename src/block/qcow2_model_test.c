#include "base/test.h"
#include "block/qcow2_model.h"

#include <errno.h>
#include <stdlib.h>

struct block_ctx *new_ctx(void)
{
	struct block_ctx *c;
	struct err e = {0};

	if (block_ctx_new(&c, NULL, BLOCK_ENGINE_THREADS, &e) < 0)
		fail_msg("%s", e.text);
	return c;
}

/* --- a disk and what it should hold --- */

uint64_t pick(struct model *m, uint64_t below)
{
	return disk_random(&m->rng, below);
}

void open_model(struct model *m, const struct block_opts *o)
{
	struct err e = {0};

	if (disk_image_open(&m->image, &m->disk, o, m->backing ? &m->backing->block : NULL, &e) < 0)
		fail_msg("%s", e.text);
}

const struct block_opts default_opts = {.discard = true, .metadata_bytes = 1};

void start_model(struct model *m, struct block_ctx *c, const struct block_create_opts *o,
		 uint64_t seed)
{
	struct err e = {0};

	*m = (struct model){.ctx = c, .size = align_up(o->size, SECTOR), .rng = seed * 77 + 1};
	disk_init(&m->disk, c, seed);
	if (disk_image_create(&m->disk, o, &e) < 0)
		fail_msg("%s", e.text);
	m->flat = calloc(1, m->size + MIB(40));
	m->got = calloc(1, m->size + MIB(40));
	m->busy = calloc(1, m->size / SECTOR + 80000);
}

void end_model(struct model *m)
{
	assert_int_equal(disk_image_close(&m->image), 0);
	disk_done(&m->disk);
	free(m->flat);
	free(m->got);
	free(m->busy);
	free(m->past);
}

/* A range that nobody else has in hand. */
static void take_range(struct model *m, uint64_t *offset, uint64_t *len)
{
	static const unsigned grains[] = {512, 4096, 1, 65536};
	const uint64_t cluster = qcow2_of(&m->image.block)->cluster_bytes;

	for (unsigned tries = 0;; tries++) {
		uint64_t grain = m->aligned ? 512 : grains[pick(m, 4)];
		uint64_t most = pick(m, 6) ? 16 * grain : 3 * cluster;
		bool free_range = true;

		if (tries > 10) {
			most = grain;
			block_sleep(m->ctx, 1000);
		}
		*offset = align_down(pick(m, m->size), grain);
		*len = min_u64(align_up(1 + pick(m, most), grain), m->size - *offset);
		for (uint64_t s = *offset / SECTOR; s <= (*offset + *len - 1) / SECTOR; s++)
			free_range &= !m->busy[s];
		if (free_range)
			break;
	}
	for (uint64_t s = *offset / SECTOR; s <= (*offset + *len - 1) / SECTOR; s++)
		m->busy[s] = 1;
}

static void give_range(struct model *m, uint64_t offset, uint64_t len)
{
	for (uint64_t s = offset / SECTOR; s <= (offset + len - 1) / SECTOR; s++)
		m->busy[s] = 0;
}

static unsigned begin_past(struct model *m, uint64_t offset, uint64_t len, bool zero)
{
	if (m->past_count % 256 == 0)
		m->past = realloc(m->past, (m->past_count + 256) * sizeof *m->past);
	m->past[m->past_count] = (struct past){.first = offset / SECTOR,
					       .count = len / SECTOR,
					       .zero = zero,
					       .begun = ++m->disk.now};
	return m->past_count++;
}

/* Each sector says which change it is of. */
void stamp(uint8_t *to, uint64_t offset, uint64_t len, uint32_t number)
{
	for (uint64_t i = 0; i + 8 <= len; i += 8) {
		store_le(to + i, number + 1, 4);
		store_le(to + i + 4, (offset + i) / SECTOR, 4);
	}
	for (uint64_t i = align_down(len, 8); i < len; i++)
		to[i] = (uint8_t)(number + i);
}

/* In a few pieces, or in as many as there may be. */
static unsigned cut(struct model *m, uint8_t *bytes, uint64_t len, struct iovec *iov)
{
	const unsigned most = pick(m, 8) ? 3 : BLOCK_IOV_MAX;
	unsigned n = 0;

	for (uint64_t at = 0; at < len; n++) {
		uint64_t piece = n + 1 < most ? max_u64(1, len / most) : len - at;

		piece = min_u64(piece, len - at);
		iov[n] = (struct iovec){bytes + at, piece};
		at += piece;
	}
	return n;
}

static int perform(struct model *m, enum block_op op, uint64_t offset, void *bytes, uint64_t len,
		   bool unmap)
{
	struct iovec iov[BLOCK_IOV_MAX];
	struct block *b = &m->image.block;
	const unsigned n = cut(m, bytes, len, iov);
	int r;

	do {
		switch (op) {
		case BLOCK_READ: r = qcow2_readv(b, offset, iov, n, len); break;
		case BLOCK_WRITE: r = qcow2_writev(b, offset, iov, n, len); break;
		case BLOCK_ZERO: r = qcow2_zero(b, offset, len, unmap); break;
		case BLOCK_DISCARD: r = qcow2_discard(b, offset, len); break;
		default: r = qcow2_flush(b);
		}
	} while (r < 0 && m->retry && !qcow2_of(b)->read_only);
	return r;
}

void do_flush(struct model *m)
{
	struct past f = {.begun = ++m->disk.now};

	assert_int_equal(perform(m, BLOCK_FLUSH, 0, NULL, 0, false), 0);
	f.ended = ++m->disk.now;
	if (m->flush_count < ARRAY_SIZE(m->flush))
		m->flush[m->flush_count++] = f;
}

static void do_read(struct model *m, uint64_t offset, uint64_t len)
{
	memset(m->got + offset, 0x5a, len);
	assert_int_equal(perform(m, BLOCK_READ, offset, m->got + offset, len, false), 0);
	assert_memory_equal(m->got + offset, m->flat + offset, len);
}

void do_write(struct model *m, uint64_t offset, uint64_t len)
{
	unsigned n = begin_past(m, offset, len, false);

	stamp(m->flat + offset, offset, len, n);
	assert_int_equal(perform(m, BLOCK_WRITE, offset, m->flat + offset, len, false), 0);
	m->past[n].ended = ++m->disk.now;
}

static void do_zero(struct model *m, uint64_t offset, uint64_t len)
{
	unsigned n = begin_past(m, offset, len, true);

	assert_int_equal(perform(m, BLOCK_ZERO, offset, NULL, len, pick(m, 2)), 0);
	memset(m->flat + offset, 0, len);
	m->past[n].ended = ++m->disk.now;
}

/* Whole clusters read as zeros then; but not in version 2 over a backing image. */
static void do_discard(struct model *m, uint64_t offset, uint64_t len)
{
	struct qcow2 *q = qcow2_of(&m->image.block);
	uint64_t start = align_up(offset, q->cluster_bytes), end = offset + len;
	unsigned n;

	end = end == m->size ? end : align_down(end, q->cluster_bytes);
	if (start >= end)
		n = begin_past(m, offset, 0, true);
	else
		n = begin_past(m, start, end - start, true);
	assert_int_equal(perform(m, BLOCK_DISCARD, offset, NULL, len, false), 0);
	for (uint64_t at = start; at < end; at += q->cluster_bytes)
		if (q->h.version >= 3 || qcow2_backing_is_zero(q, at))
			memset(m->flat + at, 0, min_u64(end - at, q->cluster_bytes));
	m->past[n].ended = ++m->disk.now;
}

static void worker(void *arg)
{
	struct model *m = arg;

	while (m->ops) {
		uint64_t offset, len, kind = pick(m, 32);

		m->ops--;
		if (kind < 2) {
			do_flush(m);
			continue;
		}
		take_range(m, &offset, &len);
		if (kind < 8)
			do_read(m, offset, len);
		else if (kind < 24)
			do_write(m, offset, len);
		else if (kind < 28)
			do_zero(m, offset, len);
		else
			do_discard(m, offset, len);
		give_range(m, offset, len);
	}
	if (--m->workers == 0)
		coro_queue_wake_all(&m->idle);
}

static int run_workers(void *arg)
{
	struct model *m = arg;
	unsigned n = m->workers;

	for (unsigned i = 0; i < n; i++)
		assert_int_equal(coro_start(block_coros(m->ctx), worker, m), 0);
	while (m->workers)
		coro_queue_wait(block_coros(m->ctx), &m->idle);
	return 0;
}

void play(struct model *m, unsigned workers, unsigned ops)
{
	m->workers = workers;
	m->ops = ops;
	assert_int_equal(block_run(m->ctx, run_workers, m), 0);
}

void compare_all(struct model *m)
{
	assert_int_equal(disk_image_do(&m->image, BLOCK_READ, 0, m->got, m->size, false), 0);
	for (uint64_t i = 0; i < m->size; i++)
		if (m->got[i] != m->flat[i])
			fail_msg("byte %llu is %02x, not %02x", (unsigned long long)i, m->got[i],
				 m->flat[i]);
}

static void print_finding(void *ctx, const char *text)
{
	if (strncmp(text, "leaked", 6))
		print_message("  %s\n", text);
}

struct qcow2_check check_image(struct disk_image *i, enum qcow2_fix fix)
{
	struct qcow2_check found = {.report = fix ? NULL : print_finding};
	struct err e = {0};

	if (qcow2_check(&i->block, fix, &found, &e) < 0)
		fail_msg("%s", e.text);
	return found;
}

void assert_sound(struct model *m, bool leaks_too)
{
	struct qcow2_check found = check_image(&m->image, QCOW2_FIX_NONE);

	assert_int_equal(found.corruptions, 0);
	assert_int_equal(found.check_errors, 0);
	if (leaks_too)
		assert_int_equal(found.leaks, 0);
}

void reopen(struct model *m, bool leaks_too)
{
	assert_int_equal(disk_image_close(&m->image), 0);
	open_model(m, &default_opts);
	assert_sound(m, leaks_too);
}

/* --- layouts --- */

/* With large clusters all takes longer: less of it. */
unsigned rounds(const struct block_create_opts *o, unsigned n)
{
	return o->cluster_size >= MIB(2) ? (n + 3) / 4 : n;
}

const struct block_create_opts layouts[LAYOUTS] = {
	{.size = MIB(3) + 512, .cluster_size = 512},
	{.size = KIB(300), .cluster_size = 512, .refcount_bits = 64},
	{.size = MIB(1), .cluster_size = 1024, .refcount_bits = 1},
	{.size = MIB(2), .cluster_size = 2048, .refcount_bits = 2, .lazy_refcounts = true},
	{.size = MIB(4) + 1536, .cluster_size = 4096, .refcount_bits = 4},
	{.size = MIB(6) + 512, .cluster_size = 65536},
	{.size = MIB(6), .cluster_size = 65536, .version = 2},
	{.size = MIB(6) + 512, .cluster_size = 65536, .extended_l2 = true, .refcount_bits = 8},
	{.size = MIB(2), .cluster_size = 16384, .extended_l2 = true, .lazy_refcounts = true},
	{.size = MIB(8) + 512, .cluster_size = 2097152, .refcount_bits = 32, .extended_l2 = true},
	{.size = MIB(8) + 512, .cluster_size = 2097152, .zstd = true},
};

static int resize_it(void *arg)
{
	struct model *m = arg;

	return qcow2_resize(&m->image.block, m->size, BLOCK_PREALLOC_OFF, NULL);
}

void resize(struct model *m, uint64_t size)
{
	if (size > m->size)
		memset(m->flat + m->size, 0, size - m->size);
	m->size = size;
	assert_int_equal(block_run(m->ctx, resize_it, m), 0);
	assert_int_equal(m->image.block.size, size);
}
