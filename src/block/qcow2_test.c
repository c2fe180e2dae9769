/* What images do, against a flat model of what they should hold. What qemu-img thinks of our
 * images is tests/system/qcow2_test.py's part; power cuts and failures are qcow2_crash_test.c's. */
#include "block/qcow2.h"

#include <errno.h>
#include <stdlib.h>

#include "base/test.h"
#include "block/qcow2_model.h"

static void test_random_operations_leave_what_a_flat_disk_would_hold(void **state)
{
	struct block_ctx *c = new_ctx();

	for (unsigned i = 0; i < LAYOUTS; i++) {
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

	for (unsigned i = 0; i < LAYOUTS; i++) {
		with_backing(c, &layouts[i], KIB(150) + 512);
		with_backing(c, &layouts[i], layouts[i].size + KIB(64));
	}
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

static void test_what_a_resized_disk_gains_is_zeros(void **state)
{
	struct block_ctx *c = new_ctx();

	for (unsigned i = 0; i < LAYOUTS; i++) {
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

	for (unsigned i = 0; i < LAYOUTS; i++) {
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

	for (unsigned i = 0; i < LAYOUTS; i++) {
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

	for (unsigned i = 0; i < LAYOUTS; i++) {
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

/* The clusters of m's image, none where the one before it goes on. */
static void scatter(struct model *m, bool compressed)
{
	const uint64_t cluster = qcow2_of(&m->image.block)->cluster_bytes;

	for (unsigned odd = 0; odd < 2; odd++)
		for (uint64_t at = odd * cluster; at < m->size; at += 2 * cluster) {
			for (uint64_t i = 0; i < cluster; i += 256) /* compressible */
				stamp(m->flat + at + i, at + i, 64, 1);
			if (compressed)
				assert_int_equal(qcow2_write_compressed(&m->image.block, at,
									m->flat + at, cluster),
						 0);
			else
				assert_int_equal(disk_image_do(&m->image, BLOCK_WRITE, at,
							       m->flat + at, cluster, false),
						 0);
		}
}

static void test_the_pieces_of_a_read_are_read_side_by_side(void **state)
{
	const struct block_create_opts o = {.size = MIB(4)};
	struct block_ctx *c = new_ctx();

	for (unsigned compressed = 0; compressed < 2; compressed++) {
		struct model m;

		start_model(&m, c, &o, 1);
		open_model(&m, &default_opts);
		scatter(&m, compressed);
		compare_all(&m);
		m.disk.slow = true;
		m.disk.most_reads = 0;
		compare_all(&m);
		assert_in_range(m.disk.most_reads, 8, 17);
		/* One that fails is the request's result, when all have ended. */
		m.disk.fail_from = m.disk.ops + 5;
		m.disk.fail_to = m.disk.fail_from + 1;
		assert_int_equal(disk_image_do(&m.image, BLOCK_READ, 0, m.got, m.size, false),
				 -EIO);
		assert_int_equal(m.disk.reads, 0);
		compare_all(&m);
		end_model(&m);
	}
	block_ctx_free(c);
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
		cmocka_unit_test(test_what_a_resized_disk_gains_is_zeros),
		cmocka_unit_test(test_wrong_refcounts_are_found_and_repaired),
		cmocka_unit_test(test_a_broken_refcount_table_is_rebuilt),
		cmocka_unit_test(test_a_dirty_image_is_repaired_when_it_is_opened),
		cmocka_unit_test(test_a_corrupt_image_is_read_but_not_written),
		cmocka_unit_test(test_a_write_over_metadata_is_refused_and_marks_the_image),
		cmocka_unit_test(test_compressed_clusters_read_back_and_can_be_written_over),
		cmocka_unit_test(test_another_backing_file_is_named_and_all_else_stays),
		cmocka_unit_test(test_an_emptied_image_gives_its_space_back),
		cmocka_unit_test(test_the_pieces_of_a_read_are_read_side_by_side),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
