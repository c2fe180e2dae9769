/* Power cuts at any moment of random operations, and operations that fail. */
#include <errno.h>
#include <stdlib.h>

#include "base/test.h"
#include "block/qcow2_model.h"

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

	for (unsigned i = 0; i < LAYOUTS; i++)
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

	for (unsigned i = 0; i < LAYOUTS; i++) {
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

/* --- an L1 table that is longer than what a refcount block counts --- */

/* So that the new blocks' table entries are in several sectors, in a larger table, and in the
 * table that is there. */
static const struct far {
	struct block_create_opts create;
	uint64_t size;
} far[] = {
	{{.size = MIB(1), .cluster_size = 512, .refcount_bits = 64}, GIB(8)},
	{{.size = MIB(1), .cluster_size = 512}, GIB(4)},
	{{.size = MIB(1), .cluster_size = 4096, .refcount_bits = 64}, GIB(1024)},
};

struct growing {
	struct model *m;
	uint64_t size;
};

static int grow_far(void *arg)
{
	struct growing *g = arg;

	return qcow2_resize(&g->m->image.block, g->size, BLOCK_PREALLOC_OFF, NULL);
}

/* The flat copy keeps its size. */
static int grow_to(struct model *m, uint64_t size)
{
	struct growing g = {m, size};

	return block_run(m->ctx, grow_far, &g);
}

static void start_far(struct model *m, struct block_ctx *c, const struct far *f)
{
	start_model(m, c, &f->create, 1);
	open_model(m, &default_opts);
	play(m, 4, 60);
	assert_int_equal(disk_image_do(&m->image, BLOCK_FLUSH, 0, NULL, 0, false), 0);
}

static void check_far_cut(struct model *m, uint64_t moment)
{
	struct model cut = {.ctx = m->ctx, .size = m->size, .flat = m->flat, .got = m->got};

	disk_init(&cut.disk, m->ctx, moment);
	disk_cut(&m->disk, moment, moment * 31, &cut.disk);
	open_model(&cut, &default_opts);
	assert_sound(&cut, false);
	compare_all(&cut);
	assert_int_equal(disk_image_close(&cut.image), 0);
	disk_done(&cut.disk);
}

static void test_a_power_cut_while_a_long_l1_is_made_leaves_a_sound_image(void **state)
{
	struct block_ctx *c = new_ctx();

	for (unsigned i = 0; i < sizeof far / sizeof *far; i++) {
		struct model m;

		start_far(&m, c, &far[i]);
		disk_record(&m.disk);
		assert_int_equal(grow_to(&m, far[i].size), 0);
		for (unsigned op = 0; op < m.disk.op_count; op++)
			if (m.disk.op[op].kind != DISK_WRITE || op % 8 == 0 ||
			    m.disk.op[op].len == SECTOR)
				check_far_cut(&m, m.disk.op[op].begun);
		check_far_cut(&m, m.disk.now);
		reopen(&m, true);
		assert_int_equal(m.image.block.size, far[i].size);
		end_model(&m);
	}
	block_ctx_free(c);
}

/* The first operation of many that fail, counted from the first: later ones in larger steps. */
static void fail_far(struct block_ctx *c, const struct far *f, int error, unsigned many)
{
	int r = -1;

	for (unsigned op = 0; r < 0; op += op < 40 ? 1 : op / 8) {
		struct model m;

		start_far(&m, c, f);
		m.disk.error = error;
		m.disk.fail_from = m.disk.ops + op;
		m.disk.fail_to = m.disk.fail_from + many;
		r = grow_to(&m, f->size);
		assert_true(r == 0 || r == error);
		m.disk.fail_to = 0;
		assert_false(qcow2_of(&m.image.block)->read_only);
		assert_sound(&m, false);
		compare_all(&m);
		/* What is written now is counted in blocks that the table on the disk has. */
		assert_int_equal(block_run(c, fill_all, &m), 0);
		reopen(&m, false);
		assert_int_equal(grow_to(&m, f->size), 0);
		play(&m, 4, 20);
		compare_all(&m);
		reopen(&m, false);
		compare_all(&m);
		end_model(&m);
	}
}

static void test_a_long_l1_that_cannot_be_written_can_be_made_later(void **state)
{
	struct block_ctx *c = new_ctx();

	for (unsigned i = 0; i < sizeof far / sizeof *far; i++)
		fail_far(c, &far[i], -EIO, i < 2 ? 1 : 3);
	fail_far(c, &far[1], -EIO, 3);
	fail_far(c, &far[0], -ENOSPC, 2);
	block_ctx_free(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_power_cut_leaves_a_sound_image_with_all_that_was_flushed),
		cmocka_unit_test(test_the_refcount_table_grows_whatever_the_moment_of_a_power_cut),
		cmocka_unit_test(test_an_operation_that_fails_changes_nothing_else_and_works_later),
		cmocka_unit_test(test_a_failed_write_gives_its_clusters_back),
		cmocka_unit_test(test_a_full_file_fails_writes_until_there_is_space),
		cmocka_unit_test(test_a_power_cut_while_the_size_changes_leaves_a_sound_image),
		cmocka_unit_test(test_a_power_cut_while_a_long_l1_is_made_leaves_a_sound_image),
		cmocka_unit_test(test_a_long_l1_that_cannot_be_written_can_be_made_later),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
