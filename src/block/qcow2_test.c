/* Images on disks in memory (qcow2_disk.h), against a flat model of what they should hold:
 * random operations side by side, power cuts at any moment, operations that fail. What
 * qemu-img thinks of our images is tests/system/qcow2_test.py's part. */
#include "block/qcow2.h"

#include <errno.h>
#include <stdlib.h>

#include "base/test.h"
#include "block/qcow2_disk.h"
#include "block/qcow2_priv.h"

#define SECTOR 512u

static struct block_ctx *new_ctx(void)
{
	struct block_ctx *c;
	struct err e = {0};

	if (block_ctx_new(&c, NULL, BLOCK_ENGINE_THREADS, &e) < 0)
		fail_msg("%s", e.text);
	return c;
}

/* --- a disk and what it should hold --- */

struct past {                  /* a change of the disk */
	uint64_t first, count; /* sectors */
	bool zero;
	uint64_t begun, ended; /* moments of the disk's record */
};

struct model {
	struct block_ctx *ctx;
	struct disk disk;
	struct disk_image image, *backing;
	uint8_t *flat, *got;
	uint64_t size, rng;
	uint8_t *busy; /* per sector */
	bool aligned;  /* whole sectors only, and keep the past */
	bool retry;    /* what fails is tried again */
	struct past *past;
	unsigned past_count;
	struct past flush[256];
	unsigned flush_count;
	unsigned workers, ops; /* to be done */
	struct coro_queue idle;
};

static uint64_t pick(struct model *m, uint64_t below)
{
	return disk_random(&m->rng, below);
}

static void open_model(struct model *m, const struct block_opts *o)
{
	struct err e = {0};

	if (disk_image_open(&m->image, &m->disk, o, m->backing ? &m->backing->block : NULL, &e) < 0)
		fail_msg("%s", e.text);
}

static const struct block_opts default_opts = {.discard = true, .metadata_bytes = 1};

static void start_model(struct model *m, struct block_ctx *c, const struct block_create_opts *o,
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

static void end_model(struct model *m)
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
static void stamp(uint8_t *to, uint64_t offset, uint64_t len, uint32_t number)
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

static void do_flush(struct model *m)
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

static void do_write(struct model *m, uint64_t offset, uint64_t len)
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

static void play(struct model *m, unsigned workers, unsigned ops)
{
	m->workers = workers;
	m->ops = ops;
	assert_int_equal(block_run(m->ctx, run_workers, m), 0);
}

static void compare_all(struct model *m)
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

static struct qcow2_check check_image(struct disk_image *i, enum qcow2_fix fix)
{
	struct qcow2_check found = {.report = fix ? NULL : print_finding};
	struct err e = {0};

	if (qcow2_check(&i->block, fix, &found, &e) < 0)
		fail_msg("%s", e.text);
	return found;
}

static void assert_sound(struct model *m, bool leaks_too)
{
	struct qcow2_check found = check_image(&m->image, QCOW2_FIX_NONE);

	assert_int_equal(found.corruptions, 0);
	assert_int_equal(found.check_errors, 0);
	if (leaks_too)
		assert_int_equal(found.leaks, 0);
}

static void reopen(struct model *m, bool leaks_too)
{
	assert_int_equal(disk_image_close(&m->image), 0);
	open_model(m, &default_opts);
	assert_sound(m, leaks_too);
}

/* --- layouts --- */

/* With large clusters all takes longer: less of it. */
static unsigned rounds(const struct block_create_opts *o, unsigned n)
{
	return o->cluster_size >= MIB(2) ? (n + 3) / 4 : n;
}

static const struct block_create_opts layouts[] = {
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

static void test_random_operations_leave_what_a_flat_disk_would_hold(void **state)
{
	struct block_ctx *c = new_ctx();

	for (unsigned i = 0; i < ARRAY_SIZE(layouts); i++) {
		struct model m;

		start_model(&m, c, &layouts[i], i + 1);
		open_model(&m, &default_opts);
		for (unsigned round = 0; round < 4; round++) {
			m.disk.slow = round > 1;
			play(&m, round ? 8 : 1, 150);
			m.disk.slow = false;
			compare_all(&m);
			assert_sound(&m, false);
			reopen(&m, true);
			compare_all(&m);
		}
		end_model(&m);
	}
	block_ctx_free(c);
}

/* The same over another image, smaller or larger. */
static void with_backing(struct block_ctx *c, const struct block_create_opts *o, uint64_t under)
{
	struct block_create_opts bo = {.size = under, .cluster_size = 4096};
	struct model back, m;

	start_model(&back, c, &bo, under);
	open_model(&back, &default_opts);
	play(&back, 1, 60);
	start_model(&m, c, o, under + 1);
	m.backing = &back.image;
	memcpy(m.flat, back.flat, min_u64(m.size, back.size));
	open_model(&m, &default_opts);
	for (unsigned round = 0; round < 3; round++) {
		m.disk.slow = back.disk.slow = round;
		play(&m, round ? 8 : 1, 120);
		m.disk.slow = back.disk.slow = false;
		compare_all(&m);
		reopen(&m, true);
		compare_all(&m);
	}
	end_model(&m);
	compare_all(&back);
	end_model(&back);
}

static void test_what_is_not_written_comes_from_the_backing_image(void **state)
{
	struct block_ctx *c = new_ctx();

	for (unsigned i = 0; i < ARRAY_SIZE(layouts); i++) {
		with_backing(c, &layouts[i], KIB(150) + 512);
		with_backing(c, &layouts[i], layouts[i].size + KIB(64));
	}
	block_ctx_free(c);
}

/* --- power cuts --- */

/* Sector s at that moment: what it may be. */
static bool may_be(const struct model *m, uint64_t s, const uint8_t *got, uint64_t moment)
{
	uint64_t flushed = 0;
	unsigned oldest = 0;
	bool any = false, zero = true;

	for (unsigned i = 0; i < m->flush_count; i++)
		if (m->flush[i].ended <= moment)
			flushed = max_u64(flushed, m->flush[i].begun);
	for (unsigned i = 0; i < m->past_count; i++)
		if (s >= m->past[i].first && s < m->past[i].first + m->past[i].count &&
		    m->past[i].ended && m->past[i].ended < flushed) {
			oldest = i;
			any = true;
		}
	for (unsigned i = 0; i < SECTOR; i++)
		zero &= !got[i];
	if (zero && !any)
		return true;
	for (unsigned i = oldest; i < m->past_count && m->past[i].begun <= moment; i++) {
		uint8_t want[SECTOR];

		if (s < m->past[i].first || s >= m->past[i].first + m->past[i].count)
			continue;
		if (m->past[i].zero && zero)
			return true;
		stamp(want, s * SECTOR, SECTOR, i);
		if (!m->past[i].zero && !memcmp(want, got, SECTOR))
			return true;
	}
	return false;
}

static void check_cut(struct model *m, uint64_t moment, uint64_t seed)
{
	struct model cut = {.ctx = m->ctx, .size = m->size, .backing = m->backing};
	struct block_opts o = {.discard = true};

	disk_init(&cut.disk, m->ctx, seed);
	disk_cut(&m->disk, moment, seed, &cut.disk);
	cut.got = malloc(m->size);
	/* A dirty image of lazy refcounts is repaired as it opens. */
	open_model(&cut, &o);
	assert_sound(&cut, false);
	assert_int_equal(disk_image_do(&cut.image, BLOCK_READ, 0, cut.got, m->size, false), 0);
	for (uint64_t s = 0; s < m->size / SECTOR; s++)
		if (!may_be(m, s, cut.got + s * SECTOR, moment))
			fail_msg("cut at %llu, seed %llu: sector %llu is wrong",
				 (unsigned long long)moment, (unsigned long long)seed,
				 (unsigned long long)s);
	assert_int_equal(disk_image_close(&cut.image), 0);
	free(cut.got);
	disk_done(&cut.disk);
}

static void power_cuts(struct block_ctx *c, const struct block_create_opts *o, uint64_t seed)
{
	struct block_create_opts small = *o;
	struct model m;

	small.size = min_u64(o->size, max_u64(24 * o->cluster_size, KIB(64)));
	start_model(&m, c, &small, seed);
	m.aligned = true;
	disk_record(&m.disk);
	open_model(&m, &default_opts);
	m.disk.slow = true;
	play(&m, 6, 120);
	m.disk.slow = false;
	assert_int_equal(disk_image_close(&m.image), 0);
	for (unsigned i = 0; i < rounds(o, 60); i++)
		check_cut(&m, pick(&m, m.disk.now + 1), seed * 1000 + i);
	for (unsigned i = 0; i < rounds(o, m.flush_count); i++)
		check_cut(&m, m.flush[i].ended, i);
	open_model(&m, &default_opts);
	end_model(&m);
}

static void test_a_power_cut_leaves_a_sound_image_with_all_that_was_flushed(void **state)
{
	struct block_ctx *c = new_ctx();

	for (unsigned i = 0; i < ARRAY_SIZE(layouts); i++)
		for (unsigned seed = 0; seed < rounds(&layouts[i], 3); seed++)
			power_cuts(c, &layouts[i], 10 * i + seed + 1);
	block_ctx_free(c);
}

static int fill_all(void *arg)
{
	struct model *m = arg;

	for (uint64_t at = 0; at < m->size; at += KIB(64)) {
		do_write(m, at, min_u64(KIB(64), m->size - at));
		do_flush(m);
	}
	return 0;
}

static void test_the_refcount_table_grows_whatever_the_moment_of_a_power_cut(void **state)
{
	struct block_ctx *c = new_ctx();
	struct block_create_opts o = {.size = MIB(4), .cluster_size = 512, .refcount_bits = 64};
	struct model m;
	uint64_t table;

	start_model(&m, c, &o, 1);
	m.aligned = true;
	disk_record(&m.disk);
	open_model(&m, &default_opts);
	table = qcow2_of(&m.image.block)->h.rt_offset;
	assert_int_equal(block_run(c, fill_all, &m), 0);
	assert_true(qcow2_of(&m.image.block)->h.rt_offset != table);
	compare_all(&m);
	reopen(&m, true);
	for (unsigned i = 0; i < 20; i++)
		check_cut(&m, pick(&m, m.disk.now + 1), i);
	/* And when the header has just been written, or may be. */
	for (unsigned i = 0; i < m.disk.op_count; i++)
		for (unsigned seed = 0;
		     seed < 10 && m.disk.op[i].kind == DISK_WRITE && m.disk.op[i].offset < 512;
		     seed++)
			check_cut(&m, m.disk.op[i].begun, seed);
	end_model(&m);
	block_ctx_free(c);
}

/* --- failures --- */

static void failing(struct block_ctx *c, const struct block_create_opts *o, uint64_t seed,
		    int error)
{
	struct model m;

	start_model(&m, c, o, seed);
	open_model(&m, &default_opts);
	m.retry = true;
	m.disk.error = error;
	for (unsigned round = 0; round < rounds(o, 12); round++) {
		m.disk.fail_from = m.disk.ops + pick(&m, 40);
		m.disk.fail_to = m.disk.fail_from + 1 + pick(&m, 5);
		m.disk.slow = round % 2;
		play(&m, 4, 40);
		m.disk.slow = false;
		m.disk.fail_to = 0;
		assert_false(qcow2_of(&m.image.block)->read_only);
		compare_all(&m);
		assert_sound(&m, false);
	}
	reopen(&m, false);
	compare_all(&m);
	end_model(&m);
}

static void test_an_operation_that_fails_changes_nothing_else_and_works_later(void **state)
{
	struct block_ctx *c = new_ctx();

	for (unsigned i = 0; i < ARRAY_SIZE(layouts); i++) {
		failing(c, &layouts[i], i + 1, -EIO);
		failing(c, &layouts[i], i + 100, -ENOSPC);
	}
	block_ctx_free(c);
}

static void test_a_failed_write_gives_its_clusters_back(void **state)
{
	struct block_ctx *c = new_ctx();
	struct block_create_opts o = {.size = MIB(8)};
	struct model m;

	start_model(&m, c, &o, 1);
	open_model(&m, &default_opts);
	assert_int_equal(disk_image_do(&m.image, BLOCK_WRITE, 0, m.flat, 4096, false), 0);
	m.disk.fail_from = m.disk.ops;
	m.disk.fail_to = m.disk.ops + 1;
	assert_int_equal(disk_image_do(&m.image, BLOCK_WRITE, MIB(1), m.flat, 4096, false), -EIO);
	assert_sound(&m, true);
	compare_all(&m);
	end_model(&m);
	block_ctx_free(c);
}

static void test_a_full_file_fails_writes_until_there_is_space(void **state)
{
	struct block_ctx *c = new_ctx();
	struct block_create_opts o = {.size = MIB(8)};
	static uint8_t data[65536];
	struct model m;
	unsigned done = 0;
	int r = 0;

	start_model(&m, c, &o, 1);
	open_model(&m, &default_opts);
	m.disk.max_size = MIB(2);
	stamp(data, 0, sizeof data, 1);
	for (; done < 128 && r == 0; done++)
		r = disk_image_do(&m.image, BLOCK_WRITE, done * sizeof data, data, sizeof data,
				  false);
	assert_int_equal(r, -ENOSPC);
	assert_true(done > 8 && done < 40);
	assert_int_equal(disk_image_do(&m.image, BLOCK_FLUSH, 0, NULL, 0, false), 0);
	m.disk.max_size = 0;
	for (done--; done < 128; done++)
		assert_int_equal(disk_image_do(&m.image, BLOCK_WRITE, done * sizeof data, data,
					       sizeof data, false),
				 0);
	reopen(&m, true);
	end_model(&m);
	block_ctx_free(c);
}

/* --- speed, in operations --- */

static uint64_t ops_of(struct model *m, enum block_op op, uint64_t offset, uint64_t len)
{
	const uint64_t before = m->disk.ops;

	assert_int_equal(disk_image_do(&m->image, op, offset, m->got, len, false), 0);
	return m->disk.ops - before;
}

static void test_requests_of_allocated_clusters_are_one_operation_each(void **state)
{
	struct block_ctx *c = new_ctx();
	struct block_create_opts o = {.size = MIB(8)};
	struct block_extent x;
	struct model m;

	start_model(&m, c, &o, 1);
	open_model(&m, &(struct block_opts){0});
	for (uint64_t at = 0; at < MIB(8); at += KIB(256))
		ops_of(&m, BLOCK_WRITE, at, KIB(256));
	assert_int_equal(block_map(&m.image.block, 0, MIB(8), &x), 0);
	assert_int_equal(x.len, MIB(8)); /* in one piece */
	assert_int_equal(ops_of(&m, BLOCK_WRITE, MIB(1) + 4096, 4096), 1);
	assert_int_equal(ops_of(&m, BLOCK_READ, KIB(60), MIB(3)), 1);
	assert_int_equal(ops_of(&m, BLOCK_WRITE, KIB(60), MIB(3)), 1);
	ops_of(&m, BLOCK_FLUSH, 0, 0);
	assert_int_equal(ops_of(&m, BLOCK_FLUSH, 0, 0), 1); /* nothing to write */
	end_model(&m);
	block_ctx_free(c);
}

static void test_a_small_write_to_new_space_writes_no_zeros_around_it(void **state)
{
	struct block_ctx *c = new_ctx();
	struct block_create_opts o = {.size = MIB(64)};
	struct model m;

	start_model(&m, c, &o, 1);
	open_model(&m, &(struct block_opts){0});
	ops_of(&m, BLOCK_WRITE, 0, 4096);
	disk_record(&m.disk);
	assert_int_equal(ops_of(&m, BLOCK_WRITE, MIB(1) + 8192, 4096), 1);
	assert_int_equal(m.disk.op[0].len, 4096);
	end_model(&m);
	block_ctx_free(c);
}

/* --- size --- */

static int resize_it(void *arg)
{
	struct model *m = arg;

	return qcow2_resize(&m->image.block, m->size, BLOCK_PREALLOC_OFF, NULL);
}

static void resize(struct model *m, uint64_t size)
{
	if (size > m->size)
		memset(m->flat + m->size, 0, size - m->size);
	m->size = size;
	assert_int_equal(block_run(m->ctx, resize_it, m), 0);
	assert_int_equal(m->image.block.size, size);
}

static void test_what_a_resized_disk_gains_is_zeros(void **state)
{
	struct block_ctx *c = new_ctx();

	for (unsigned i = 0; i < ARRAY_SIZE(layouts); i++) {
		struct model m;
		uint64_t size = layouts[i].size;

		start_model(&m, c, &layouts[i], i + 1);
		open_model(&m, &default_opts);
		for (unsigned round = 0; round < 4; round++) {
			play(&m, 4, 60);
			resize(&m, align_up(pick(&m, size), SECTOR) + SECTOR);
			play(&m, 4, 30);
			resize(&m, size + pick(&m, MIB(30)) / SECTOR * SECTOR);
			compare_all(&m);
			reopen(&m, true);
			compare_all(&m);
		}
		end_model(&m);
	}
	block_ctx_free(c);
}

static void test_a_power_cut_while_the_size_changes_leaves_a_sound_image(void **state)
{
	struct block_ctx *c = new_ctx();
	struct block_create_opts o = {.size = MIB(2), .cluster_size = 512};

	for (unsigned i = 0; i < 2; i++) {
		struct model m;

		start_model(&m, c, &o, i + 1);
		open_model(&m, &default_opts);
		play(&m, 4, 80);
		assert_int_equal(disk_image_do(&m.image, BLOCK_FLUSH, 0, NULL, 0, false), 0);
		disk_record(&m.disk);
		resize(&m, i ? KIB(300) : MIB(9));
		for (uint64_t moment = 0; moment <= m.disk.now; moment++) {
			struct model now = {.ctx = c};

			disk_init(&now.disk, c, moment);
			disk_cut(&m.disk, moment, moment * 31, &now.disk);
			open_model(&now, &default_opts);
			assert_sound(&now, false);
			assert_int_equal(disk_image_close(&now.image), 0);
			disk_done(&now.disk);
		}
		end_model(&m);
	}
	block_ctx_free(c);
}

/* --- check and repair --- */

static void damage_refcounts(struct model *m)
{
	struct qcow2 *q = qcow2_of(&m->image.block);
	uint64_t block = q->rt[0];

	assert_int_equal(disk_image_close(&m->image), 0);
	for (unsigned i = 10; i < 40; i++)
		m->disk.bytes[block + i] ^= 0x11;
}

static const struct block_opts repair_opts = {.discard = true, .repair_later = true};

static void test_wrong_refcounts_are_found_and_repaired(void **state)
{
	struct block_ctx *c = new_ctx();

	for (unsigned i = 0; i < ARRAY_SIZE(layouts); i++) {
		struct qcow2_check found;
		struct model m;

		start_model(&m, c, &layouts[i], i + 1);
		open_model(&m, &default_opts);
		play(&m, 4, 80);
		damage_refcounts(&m);
		open_model(&m, &repair_opts);
		found = check_image(&m.image, QCOW2_FIX_LEAKS);
		assert_true(found.corruptions || found.leaks_fixed);
		found = check_image(&m.image, QCOW2_FIX_ALL);
		assert_int_equal(found.corruptions + found.leaks + found.check_errors, 0);
		reopen(&m, true);
		compare_all(&m);
		end_model(&m);
	}
	block_ctx_free(c);
}

static void test_a_broken_refcount_table_is_rebuilt(void **state)
{
	struct block_ctx *c = new_ctx();

	for (unsigned i = 0; i < ARRAY_SIZE(layouts); i++) {
		struct qcow2_check found;
		struct model m;
		uint64_t table;

		start_model(&m, c, &layouts[i], i + 1);
		open_model(&m, &default_opts);
		play(&m, 4, 80);
		table = qcow2_of(&m.image.block)->h.rt_offset;
		assert_int_equal(disk_image_close(&m.image), 0);
		store_be64(m.disk.bytes + table, 7);
		open_model(&m, &repair_opts);
		assert_true(check_image(&m.image, QCOW2_FIX_LEAKS).corruptions);
		found = check_image(&m.image, QCOW2_FIX_ALL);
		assert_true(found.corruptions_fixed);
		assert_int_equal(found.corruptions + found.leaks + found.check_errors, 0);
		reopen(&m, true);
		play(&m, 4, 40);
		compare_all(&m);
		reopen(&m, true);
		end_model(&m);
	}
	block_ctx_free(c);
}

static void test_a_dirty_image_is_repaired_when_it_is_opened(void **state)
{
	struct block_ctx *c = new_ctx();
	struct block_create_opts o = {.size = MIB(4), .lazy_refcounts = true};
	struct qcow2_info info;
	struct model m;

	start_model(&m, c, &o, 1);
	open_model(&m, &default_opts);
	play(&m, 1, 50);
	assert_int_equal(disk_image_do(&m.image, BLOCK_FLUSH, 0, NULL, 0, false), 0);
	disk_image_abandon(&m.image);
	assert_true(m.disk.bytes[QCOW2_AT_INCOMPATIBLE + 7] & QCOW2_DIRTY);
	open_model(&m, &default_opts);
	assert_int_equal(qcow2_get_info(&m.image.block, &info), 0);
	assert_false(info.dirty);
	assert_sound(&m, true);
	compare_all(&m);
	end_model(&m);
	assert_int_equal(info.refcount_bits, 16);
	block_ctx_free(c);
}

static void test_a_corrupt_image_is_read_but_not_written(void **state)
{
	struct block_ctx *c = new_ctx();
	struct block_create_opts o = {.size = MIB(4)};
	struct model m;

	start_model(&m, c, &o, 1);
	open_model(&m, &default_opts);
	play(&m, 1, 50);
	assert_int_equal(disk_image_close(&m.image), 0);
	m.disk.bytes[QCOW2_AT_INCOMPATIBLE + 7] |= QCOW2_CORRUPT;
	assert_int_equal(disk_image_open(&m.image, &m.disk, &default_opts, NULL, NULL), -EROFS);
	open_model(&m, &(struct block_opts){.read_only = true});
	compare_all(&m);
	assert_int_equal(disk_image_close(&m.image), 0);
	open_model(&m, &repair_opts);
	check_image(&m.image, QCOW2_FIX_ALL);
	reopen(&m, true);
	end_model(&m);
	block_ctx_free(c);
}

/* An L2 entry that names the header: a write through it would rewrite the header. */
static void test_a_write_over_metadata_is_refused_and_marks_the_image(void **state)
{
	struct block_ctx *c = new_ctx();
	struct block_create_opts o = {.size = MIB(4)};
	struct model m;
	struct qcow2 *q;
	uint64_t l2, l1;

	start_model(&m, c, &o, 1);
	open_model(&m, &default_opts);
	assert_int_equal(disk_image_do(&m.image, BLOCK_WRITE, 0, m.flat, 512, false), 0);
	q = qcow2_of(&m.image.block);
	l2 = q->l1[0] & QCOW2_OFFSET_MASK;
	l1 = q->h.l1_offset;
	assert_int_equal(disk_image_close(&m.image), 0);
	store_be64(m.disk.bytes + l2, l1 | QCOW2_COPIED);
	open_model(&m, &default_opts);
	assert_int_equal(disk_image_do(&m.image, BLOCK_WRITE, 0, m.flat, 512, false), -EIO);
	assert_int_equal(disk_image_do(&m.image, BLOCK_WRITE, 65536, m.flat, 512, false), -EIO);
	assert_int_equal(disk_image_close(&m.image), -EIO);
	assert_true(m.disk.bytes[QCOW2_AT_INCOMPATIBLE + 7] & QCOW2_CORRUPT);
	open_model(&m, &(struct block_opts){.read_only = true});
	end_model(&m);
	block_ctx_free(c);
}

/* --- compressed --- */

static void write_packed(struct model *m, uint64_t offset, uint64_t cluster)
{
	uint64_t len = min_u64(cluster, m->size - offset);

	for (uint64_t i = 0; i < len; i++)
		m->flat[offset + i] = (uint8_t)(offset / cluster + i / 100 * (offset % 3));
	assert_int_equal(qcow2_write_compressed(&m->image.block, offset, m->flat + offset, len), 0);
}

static void test_compressed_clusters_read_back_and_can_be_written_over(void **state)
{
	struct block_ctx *c = new_ctx();

	for (unsigned i = 0; i < ARRAY_SIZE(layouts); i++) {
		uint64_t cluster = layouts[i].cluster_size;
		struct model m;

		start_model(&m, c, &layouts[i], i + 1);
		open_model(&m, &default_opts);
		for (uint64_t at = 0; at < m.size; at += cluster * (1 + pick(&m, 2)))
			write_packed(&m, at, cluster);
		compare_all(&m);
		reopen(&m, true);
		compare_all(&m);
		m.disk.slow = true;
		play(&m, 6, 150);
		m.disk.slow = false;
		compare_all(&m);
		for (uint64_t at = 0; at < m.size; at += cluster * (1 + pick(&m, 6)))
			write_packed(&m, at, cluster);
		reopen(&m, true);
		compare_all(&m);
		end_model(&m);
	}
	block_ctx_free(c);
}

/* --- the header --- */

static void test_another_backing_file_is_named_and_all_else_stays(void **state)
{
	struct block_ctx *c = new_ctx();
	struct block_create_opts o = {
		.size = MIB(4), .backing_file = "a-long-name.qcow2", .backing_format = "qcow2"};
	struct model m;
	struct err e = {0};

	start_model(&m, c, &o, 1);
	open_model(&m, &default_opts);
	assert_string_equal(m.image.block.backing_file, "a-long-name.qcow2");
	play(&m, 1, 50);
	assert_int_equal(qcow2_set_backing(&m.image.block, "b.raw", "raw", &e), 0);
	reopen(&m, true);
	assert_string_equal(m.image.block.backing_file, "b.raw");
	assert_string_equal(m.image.block.backing_format, "raw");
	compare_all(&m);
	assert_int_equal(qcow2_set_backing(&m.image.block, NULL, NULL, &e), 0);
	reopen(&m, true);
	assert_null(m.image.block.backing_file);
	assert_null(m.image.block.backing_format);
	compare_all(&m);
	end_model(&m);
	block_ctx_free(c);
}

static void test_an_emptied_image_gives_its_space_back(void **state)
{
	struct block_ctx *c = new_ctx();
	struct block_create_opts o = {.size = MIB(8)};
	struct model m;
	uint64_t fresh;

	start_model(&m, c, &o, 1);
	fresh = m.disk.proto.size;
	open_model(&m, &default_opts);
	play(&m, 4, 200);
	assert_int_equal(qcow2_make_empty(&m.image.block, NULL), 0);
	memset(m.flat, 0, m.size);
	compare_all(&m);
	reopen(&m, true);
	assert_int_equal(m.disk.proto.size, fresh);
	compare_all(&m);
	end_model(&m);
	block_ctx_free(c);
}

static int parse_with(uint8_t *head, unsigned at, unsigned bytes, uint64_t value)
{
	uint8_t saved[8];
	struct qcow2_header h;
	int r;

	memcpy(saved, head + at, bytes);
	if (bytes == 4)
		store_be32(head + at, (uint32_t)value);
	else
		store_be64(head + at, value);
	r = qcow2_header_parse(&h, head, 4096, NULL);
	memcpy(head + at, saved, bytes);
	return r;
}

static void test_headers_that_cannot_be_are_refused(void **state)
{
	static const struct {
		unsigned at, bytes;
		uint64_t value;
		int error;
	} bad[] = {
		{0, 4, 0, EINVAL},        {4, 4, 1, ENOTSUP},       {4, 4, 4, ENOTSUP},
		{20, 4, 8, EINVAL},       {20, 4, 22, EINVAL},      {24, 8, BIT(63), EFBIG},
		{24, 8, BIT(50), EINVAL}, /* L1 too small */
		{32, 4, 1, ENOTSUP},      {36, 4, 0x500000, EFBIG}, {40, 8, 0x30200, EINVAL},
		{40, 8, BIT(56), EINVAL}, {48, 8, 0x10200, EINVAL}, {56, 4, 0x1000, EFBIG},
		{60, 4, 65537, EFBIG},    {72, 8, BIT(2), ENOTSUP}, {72, 8, BIT(3), EINVAL},
		{72, 8, BIT(5), ENOTSUP}, {96, 4, 7, EINVAL},       {100, 4, 96, EINVAL},
		{100, 4, 107, EINVAL},    {100, 4, 65536, EINVAL},
	};
	struct block_ctx *c = new_ctx();
	struct block_create_opts o = {.size = GIB(1)};
	struct qcow2_header h;
	struct disk d;

	disk_init(&d, c, 1);
	assert_int_equal(disk_image_create(&d, &o, NULL), 0);
	assert_int_equal(qcow2_header_parse(&h, d.bytes, 4096, NULL), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(parse_with(d.bytes, bad[i].at, bad[i].bytes, bad[i].value),
				 -bad[i].error);
	/* The name of the unknown feature is in the image. */
	disk_done(&d);
	block_ctx_free(c);
}

static void test_refcounts_of_every_width_are_kept_apart(void **state)
{
	for (unsigned order = 0; order <= 6; order++) {
		uint8_t bytes[64 * 8];
		uint64_t max = qcow2_refcount_max(order);

		memset(bytes, 0xff, sizeof bytes);
		for (unsigned i = 0; i < 64; i++)
			qcow2_refcount_store(bytes, order, i, i & max);
		for (unsigned i = 0; i < 64; i++)
			assert_int_equal(qcow2_refcount_load(bytes, order, i), i & max);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_headers_that_cannot_be_are_refused),
		cmocka_unit_test(test_refcounts_of_every_width_are_kept_apart),
		cmocka_unit_test(test_requests_of_allocated_clusters_are_one_operation_each),
		cmocka_unit_test(test_a_small_write_to_new_space_writes_no_zeros_around_it),
		cmocka_unit_test(test_random_operations_leave_what_a_flat_disk_would_hold),
		cmocka_unit_test(test_what_is_not_written_comes_from_the_backing_image),
		cmocka_unit_test(test_a_power_cut_leaves_a_sound_image_with_all_that_was_flushed),
		cmocka_unit_test(test_an_operation_that_fails_changes_nothing_else_and_works_later),
		cmocka_unit_test(test_the_refcount_table_grows_whatever_the_moment_of_a_power_cut),
		cmocka_unit_test(test_a_failed_write_gives_its_clusters_back),
		cmocka_unit_test(test_a_full_file_fails_writes_until_there_is_space),
		cmocka_unit_test(test_what_a_resized_disk_gains_is_zeros),
		cmocka_unit_test(test_a_power_cut_while_the_size_changes_leaves_a_sound_image),
		cmocka_unit_test(test_wrong_refcounts_are_found_and_repaired),
		cmocka_unit_test(test_a_broken_refcount_table_is_rebuilt),
		cmocka_unit_test(test_a_dirty_image_is_repaired_when_it_is_opened),
		cmocka_unit_test(test_a_corrupt_image_is_read_but_not_written),
		cmocka_unit_test(test_a_write_over_metadata_is_refused_and_marks_the_image),
		cmocka_unit_test(test_compressed_clusters_read_back_and_can_be_written_over),
		cmocka_unit_test(test_another_backing_file_is_named_and_all_else_stays),
		cmocka_unit_test(test_an_emptied_image_gives_its_space_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
