/* Raw images: what the file's size, its holes and its first bytes mean. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/test.h"
#include "block/image_fixture.h"

static void a_file_that_ends_inside_a_sector_reads_as_zeros_there(void **unused)
{
	struct dir d = make_dir();
	struct block_ctx *c = new_ctx(BLOCK_ENGINE_AUTO);
	struct block_opts o = {.file = in_dir(&d, "disk"), .format = "raw"};
	uint8_t sector[512], want[512] = {0};
	struct block *b;

	make_raw(o.file, 0);
	AUTO_CLOSE int fd = open(o.file, O_WRONLY);
	assert_int_equal(write(fd, "abc", 3), 3);
	b = open_ok(c, o);
	assert_int_equal(block_size(b), 512);
	assert_int_equal(block_read(b, 0, sector, sizeof sector), 0);
	memcpy(want, "abc", 3);
	assert_memory_equal(sector, want, sizeof want);
	close_ok(b);
	block_ctx_free(c);
	remove_dir(&d);
}

static void a_file_that_was_cut_gives_errors_not_zeros(void **unused)
{
	struct dir d = make_dir();
	struct block_ctx *c = new_ctx(BLOCK_ENGINE_AUTO);

	for (int cache = BLOCK_CACHE_NONE; cache <= BLOCK_CACHE_WRITEBACK; cache++) {
		struct block_opts o = {.file = in_dir(&d, "disk"), .format = "raw", .cache = cache};
		uint8_t bytes[8192];
		struct block *b;

		make_raw(o.file, MIB(1));
		b = open_ok(c, o);
		assert_int_equal(truncate(o.file, MIB(1) / 2), 0);
		assert_int_equal(block_read(b, MIB(1) / 2 - 4096, bytes, 8192), -EIO);
		assert_int_equal(block_read(b, MIB(1) - 4096, bytes, 4096), -EIO);
		assert_int_equal(block_read(b, 0, bytes, 8192), 0);
		close_ok(b);
	}
	block_ctx_free(c);
	remove_dir(&d);
}

static void what_is_outside_of_the_disk_is_refused(void **unused)
{
	struct dir d = make_dir();
	struct block_ctx *c = new_ctx(BLOCK_ENGINE_AUTO);
	struct block_opts o = {.file = in_dir(&d, "disk"), .format = "raw"};
	uint8_t bytes[1024] = {0};
	struct block *b;

	make_raw(o.file, MIB(1));
	b = open_ok(c, o);
	assert_int_equal(block_read(b, MIB(1) - 512, bytes, 1024), -EINVAL);
	assert_int_equal(block_write(b, MIB(1), bytes, 1), -EINVAL);
	assert_int_equal(block_write(b, UINT64_MAX - 511, bytes, 1024), -EINVAL);
	assert_int_equal(block_zero(b, 512, UINT64_MAX, 0), -EINVAL);
	assert_int_equal(block_discard(b, MIB(2), 512), -EINVAL);
	assert_int_equal(block_write(b, MIB(1), bytes, 0), 0);
	close_ok(b);
	o.read_only = true;
	b = open_ok(c, o);
	assert_int_equal(block_write(b, 0, bytes, 512), -EROFS);
	assert_int_equal(block_zero(b, 0, 512, 0), -EROFS);
	assert_int_equal(block_discard(b, 0, 512), -EROFS);
	assert_int_equal(block_read(b, 0, bytes, 512), 0);
	close_ok(b);
	block_ctx_free(c);
	remove_dir(&d);
}

static void map_tells_data_from_holes(void **unused)
{
	struct dir d = make_dir();
	struct block_ctx *c = new_ctx(BLOCK_ENGINE_AUTO);
	struct block_opts o = {
		.file = in_dir(&d, "disk"), .format = "raw", .discard = true, .cache = 1};
	static uint8_t data[65536];
	struct block_extent x;
	struct block *b;

	make_raw(o.file, MIB(1));
	memset(data, 1, sizeof data);
	b = open_ok(c, o);
	assert_int_equal(block_write(b, 131072, data, sizeof data), 0);
	assert_int_equal(block_map(b, 0, MIB(1), &x), 0);
	assert_int_equal(x.kind, BLOCK_ZEROES);
	assert_int_equal(x.len, 131072);
	assert_int_equal(block_map(b, 131072, MIB(4), &x), 0);
	assert_int_equal(x.kind, BLOCK_DATA);
	assert_int_equal(x.len, 65536);
	assert_int_equal(x.host_offset, 131072);
	assert_int_equal(block_discard(b, 131072, 65536), 0);
	assert_int_equal(block_map(b, 0, MIB(1), &x), 0);
	assert_int_equal(x.kind, BLOCK_ZEROES);
	assert_int_equal(x.len, MIB(1));
	assert_int_equal(block_map(b, MIB(1), 512, &x), -EINVAL);
	close_ok(b);
	block_ctx_free(c);
	remove_dir(&d);
}

static void create_and_resize(void **unused)
{
	struct dir d = make_dir();
	struct block_ctx *c = new_ctx(BLOCK_ENGINE_AUTO);
	struct block_create_opts make = {.file = in_dir(&d, "disk"), .format = "raw", .size = 1000};
	struct block_opts o = {.file = make.file, .format = "raw"};
	uint8_t bytes[512], zeros[512] = {0};
	struct stat s;
	struct err e;
	struct block *b;

	assert_int_equal(block_create(c, &make, &e), 0);
	b = open_ok(c, o);
	assert_int_equal(block_size(b), 1024);
	assert_int_equal(block_resize(b, MIB(2), BLOCK_PREALLOC_FALLOC, &e), 0);
	assert_int_equal(block_size(b), MIB(2));
	assert_int_equal(block_read(b, MIB(2) - 512, bytes, 512), 0);
	assert_memory_equal(bytes, zeros, 512);
	assert_int_equal(stat(o.file, &s), 0);
	assert_true(s.st_blocks * 512 >= (blkcnt_t)MIB(1));
	assert_int_equal(block_resize(b, 512, BLOCK_PREALLOC_OFF, &e), 0);
	assert_int_equal(block_size(b), 512);
	close_ok(b);
	/* A file that was there is made anew, unless somebody uses it. */
	make.size = 4096;
	assert_int_equal(block_create(c, &make, &e), 0);
	b = open_ok(c, o);
	assert_int_equal(block_size(b), 4096);
	assert_int_equal(block_create(c, &make, &e), -EAGAIN);
	close_ok(b);
	block_ctx_free(c);
	remove_dir(&d);
}

static void what_was_guessed_to_be_raw_stays_raw(void **unused)
{
	struct dir d = make_dir();
	struct block_ctx *c = new_ctx(BLOCK_ENGINE_AUTO);
	struct block_opts o = {.file = in_dir(&d, "disk")};
	uint8_t head[1024] = "KDMV";
	struct block *b;

	make_raw(o.file, MIB(1));
	b = open_ok(c, o);
	assert_string_equal(block_format(b), "raw");
	assert_int_equal(block_write(b, 0, head, sizeof head), -EPERM);
	assert_int_equal(block_write(b, 0, head, 2), 0);
	assert_int_equal(block_write(b, 2, head + 2, 2), -EPERM); /* in two steps */
	assert_int_equal(block_zero(b, 0, 512, 0), 0);
	head[0] = 'M';
	assert_int_equal(block_write(b, 0, head, sizeof head), 0);
	close_ok(b);
	o.format = "raw";
	b = open_ok(c, o);
	head[0] = 'K';
	assert_int_equal(block_write(b, 0, head, sizeof head), 0);
	close_ok(b);
	block_ctx_free(c);
	remove_dir(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_file_that_ends_inside_a_sector_reads_as_zeros_there),
		cmocka_unit_test(a_file_that_was_cut_gives_errors_not_zeros),
		cmocka_unit_test(what_is_outside_of_the_disk_is_refused),
		cmocka_unit_test(map_tells_data_from_holes),
		cmocka_unit_test(create_and_resize),
		cmocka_unit_test(what_was_guessed_to_be_raw_stays_raw),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
