/* The test aids themselves: faulty, crashlog and crash_replay. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/test.h"
#include "block/block.h"
#include "block/crash_replay.h"

struct bed {
	char dir[64], disk[96], log[96], state[96], name[256];
	struct block_ctx *ctx;
	struct block *disk_open;
};

static void make_file(const char *path, uint64_t size)
{
	AUTO_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, size), 0);
}

static void init(struct bed *t)
{
	struct err e;

	*t = (struct bed){.dir = "/tmp/holon-aids-XXXXXX"};
	assert_non_null(mkdtemp(t->dir));
	snprintf(t->disk, sizeof t->disk, "%s/disk", t->dir);
	snprintf(t->log, sizeof t->log, "%s/log", t->dir);
	snprintf(t->state, sizeof t->state, "%s/state", t->dir);
	make_file(t->disk, 65536);
	assert_int_equal(block_ctx_new(&t->ctx, NULL, BLOCK_ENGINE_AUTO, &e), 0);
}

static int open_disk(struct bed *t, const char *scheme, const char *text, struct err *e)
{
	struct block_opts o = {.file = t->name, .format = "raw"};

	snprintf(t->name, sizeof t->name, "%s:%s:%s", scheme, text, t->disk);
	return block_open(&t->disk_open, t->ctx, &o, e);
}

static void done(struct bed *t)
{
	char command[96];

	block_ctx_free(t->ctx);
	snprintf(command, sizeof command, "rm -r %s", t->dir);
	assert_int_equal(system(command), 0);
}

static void rules_say_which_operations_fail(void **unused)
{
	uint8_t bytes[512] = {0};
	struct bed t;
	struct err e;

	init(&t);
	assert_int_equal(open_disk(&t, "faulty", "write=ENOSPC@2x2+flush=EIO+read=1ms", &e), 0);
	assert_int_equal(block_write(t.disk_open, 0, bytes, 512), 0);
	assert_int_equal(block_write(t.disk_open, 0, bytes, 512), -ENOSPC);
	assert_int_equal(block_write(t.disk_open, 0, bytes, 512), -ENOSPC);
	assert_int_equal(block_write(t.disk_open, 0, bytes, 512), 0);
	assert_int_equal(block_read(t.disk_open, 0, bytes, 512), 0);
	assert_int_equal(block_flush(t.disk_open), -EIO);
	assert_int_equal(block_flush(t.disk_open), -EIO);
	assert_int_equal(block_close(t.disk_open, &e), -EIO);
	done(&t);
}

static void rules_that_make_no_sense_are_refused(void **unused)
{
	static const char *const bad[] = {"write",      "write=",    "write=EIO@", "write=EIO@0",
					  "write=EIOx", "think=EIO", "read=5",     "=EIO"};
	struct bed t;
	struct err e;

	init(&t);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(open_disk(&t, "faulty", bad[i], &e), -EINVAL);
	done(&t);
}

static void fill(uint8_t bytes[1024], uint8_t value)
{
	memset(bytes, value, 1024);
}

/* Two sectors at 0 and two at 4096, in one digit each. */
static unsigned look(const char *path)
{
	AUTO_CLOSE int fd = open(path, O_RDONLY);
	static const unsigned at[] = {0, 512, 4096, 4608};
	unsigned sum = 0;
	uint8_t b = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(at); i++) {
		assert_int_equal(pread(fd, &b, 1, at[i]), 1);
		sum = sum * 10 + b;
	}
	return sum;
}

static unsigned state(struct bed *t, struct crash_replay *c, uint64_t moment, uint64_t choice)
{
	struct err e;

	assert_int_equal(crash_replay_make(c, moment, choice, t->state, &e), 0);
	return look(t->state);
}

static void a_cut_keeps_what_was_flushed_and_any_part_of_the_rest(void **unused)
{
	struct crash_replay *c = NULL;
	unsigned seen[4] = {0}; /* of the second write: none, first, second sector, both */
	uint8_t bytes[1024];
	uint64_t end;
	struct bed t;
	struct err e;

	init(&t);
	assert_int_equal(open_disk(&t, "crashlog", t.log, &e), 0);
	fill(bytes, 1);
	assert_int_equal(block_write(t.disk_open, 0, bytes, 1024), 0);
	assert_int_equal(block_flush(t.disk_open), 0);
	fill(bytes, 2);
	assert_int_equal(block_write(t.disk_open, 4096, bytes, 1024), 0);
	assert_int_equal(block_close(t.disk_open, &e), 0);

	assert_int_equal(crash_replay_open(&c, t.log, &e), 0);
	end = crash_replay_records(c);
	assert_int_equal(end, 8); /* write, flush, write, flush at close; each begins and ends */
	assert_int_equal(state(&t, c, end, CRASH_NONE), 1122);
	assert_int_equal(state(&t, c, 6, CRASH_NONE), 1100);
	assert_int_equal(state(&t, c, 6, CRASH_ALL), 1122);
	assert_int_equal(state(&t, c, 3, CRASH_NONE), 0); /* the flush is not complete */
	assert_int_equal(state(&t, c, 4, CRASH_NONE), 1100);
	assert_int_equal(state(&t, c, 0, CRASH_ALL), 0);
	for (unsigned choice = 2; choice < 60; choice++) {
		unsigned s = state(&t, c, 6, choice);

		assert_int_equal(s / 100, 11);
		seen[(s / 10 % 10 + s % 10 * 2) / 2]++;
	}
	for (unsigned i = 0; i < 4; i++)
		assert_true(seen[i] > 0);
	crash_replay_free(c);
	done(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rules_say_which_operations_fail),
		cmocka_unit_test(rules_that_make_no_sense_are_refused),
		cmocka_unit_test(a_cut_keeps_what_was_flushed_and_any_part_of_the_rest),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
