/* Files as formats use them: writes that end anywhere, also behind the end. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/test.h"
#include "block/block_priv.h"

struct bed {
	char dir[64], file[96];
	struct block_ctx *ctx;
	enum block_cache cache;
};

static void init(struct bed *t, enum block_cache cache)
{
	struct err e;

	*t = (struct bed){.dir = "/tmp/holon-file-XXXXXX", .cache = cache};
	assert_non_null(mkdtemp(t->dir));
	snprintf(t->file, sizeof t->file, "%s/file", t->dir);
	assert_int_equal(block_ctx_new(&t->ctx, NULL, BLOCK_ENGINE_AUTO, &e), 0);
}

static void done(struct bed *t)
{
	block_ctx_free(t->ctx);
	unlink(t->file);
	rmdir(t->dir);
}

/* Coroutines return a number, so that what failed shows: the line. */
#define EXPECT(condition)                                                                          \
	do {                                                                                       \
		if (!(condition))                                                                  \
			return __LINE__;                                                           \
	} while (0)

static int grow_by_odd_writes(void *arg)
{
	struct bed *t = arg;
	struct block_opts o = {.file = t->file, .cache = t->cache};
	uint8_t bytes[1500], want[1500] = {0};
	struct proto *p = NULL;
	struct stat s;
	struct err e;

	EXPECT(proto_create(&p, t->ctx, t->file, &e) == 0);
	proto_close(p);
	EXPECT(proto_open(&p, t->ctx, &o, &e) == 0);
	memset(want + 1000, 1, 10);
	EXPECT(proto_write(p, 1000, want + 1000, 10) == 0);
	EXPECT(p->size == 1010 && stat(t->file, &s) == 0 && s.st_size == 1010);
	memset(want + 1010, 2, 14);
	EXPECT(proto_write(p, 1010, want + 1010, 14) == 0);
	EXPECT(p->size == 1024 && stat(t->file, &s) == 0 && s.st_size == 1024);
	EXPECT(proto_write(p, 3, want + 3, 5) == 0); /* inside: it does not become longer */
	EXPECT(proto_read(p, 0, bytes, sizeof bytes) == 0);
	EXPECT(memcmp(bytes, want, sizeof bytes) == 0); /* zeros behind the end */
	EXPECT(stat(t->file, &s) == 0 && s.st_size == 1024);
	proto_close(p);
	return 0;
}

static void a_file_ends_where_the_last_write_ended(void **unused)
{
	for (int cache = BLOCK_CACHE_NONE; cache <= BLOCK_CACHE_WRITEBACK; cache++) {
		struct bed t;

		init(&t, cache);
		assert_int_equal(block_run(t.ctx, grow_by_odd_writes, &t), 0);
		done(&t);
	}
}

static int grow_by_zeros_and_truncation(void *arg)
{
	struct bed *t = arg;
	struct block_opts o = {.file = t->file, .cache = t->cache};
	uint8_t bytes[4096], want[4096] = {0};
	struct proto *p = NULL;
	struct err e;

	EXPECT(proto_create(&p, t->ctx, t->file, &e) == 0);
	proto_close(p);
	EXPECT(proto_open(&p, t->ctx, &o, &e) == 0);
	EXPECT(proto_zero(p, 4096, 4096, true) == 0);
	EXPECT(p->size == 8192);
	memset(want, 3, sizeof want);
	EXPECT(proto_write(p, 4096, want, 4096) == 0);
	EXPECT(p->ops->truncate(p, 5000) == 0);
	EXPECT(p->ops->truncate(p, 8192) == 0);
	memset(want + (5000 - 4096), 0, 8192 - 5000);
	EXPECT(proto_read(p, 4096, bytes, 4096) == 0);
	EXPECT(memcmp(bytes, want, 4096) == 0);
	proto_close(p);
	return 0;
}

static void zeros_and_truncation_make_a_file_longer(void **unused)
{
	for (int cache = BLOCK_CACHE_NONE; cache <= BLOCK_CACHE_WRITEBACK; cache++) {
		struct bed t;

		init(&t, cache);
		assert_int_equal(block_run(t.ctx, grow_by_zeros_and_truncation, &t), 0);
		done(&t);
	}
}

static void iov_slices_are_the_bytes_asked_for(void **unused)
{
	char text[] = "abcdefghij", out[8] = "";
	struct iovec iov[] = {{text, 3}, {text + 3, 0}, {text + 3, 4}, {text + 7, 3}}, part[4];

	assert_int_equal(iov_sum(iov, 4), 10);
	assert_int_equal(iov_slice(iov, 4, 2, 6, part), 3);
	assert_int_equal(iov_sum(part, 3), 6);
	iov_gather(part, 3, 0, out, 6);
	assert_string_equal(out, "cdefgh");
	assert_int_equal(iov_slice(iov, 4, 3, 4, part), 1);
	assert_ptr_equal(part[0].iov_base, text + 3);
	assert_int_equal(iov_slice(iov, 4, 10, 0, part), 0);
	iov_fill(iov, 4, 2, "XYZ", 3);
	assert_string_equal(text, "abXYZfghij");
	iov_zero(iov, 4, 9, 1);
	assert_int_equal(text[9], 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_file_ends_where_the_last_write_ended),
		cmocka_unit_test(zeros_and_truncation_make_a_file_longer),
		cmocka_unit_test(iov_slices_are_the_bytes_asked_for),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
