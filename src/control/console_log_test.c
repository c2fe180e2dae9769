#include "control/console_log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/test.h"

static void what_was_said_can_be_read_from_anywhere(void **state)
{
	struct console_log l;
	uint64_t at = 2;
	char got[16];

	assert_int_equal(console_log_new(&l, NULL, NULL), 0);
	console_log_put(&l, "abcdef", 6);
	assert_int_equal(console_log_read(&l, &at, got, 3), 3);
	assert_memory_equal(got, "cde", 3);
	assert_int_equal(console_log_read(&l, &at, got, 16), 1);
	assert_int_equal(at, 6);
	assert_int_equal(console_log_read(&l, &at, got, 16), 0);
	at = UINT64_MAX;
	assert_int_equal(console_log_read(&l, &at, got, 16), 0);
	assert_int_equal(at, 6);
	console_log_done(&l);
}

static void the_oldest_goes_first(void **state)
{
	static char big[CONSOLE_LOG_BYTES + 100], got[CONSOLE_LOG_BYTES + 100];
	struct console_log l;
	uint64_t at = 0;

	for (unsigned i = 0; i < sizeof big; i++)
		big[i] = (char)(i * 7);
	assert_int_equal(console_log_new(&l, NULL, NULL), 0);
	console_log_put(&l, big, sizeof big);
	assert_int_equal(console_log_read(&l, &at, got, sizeof got), CONSOLE_LOG_BYTES);
	assert_memory_equal(got, big + 100, CONSOLE_LOG_BYTES);
	console_log_done(&l);
}

static void lines_are_counted_from_the_end(void **state)
{
	struct console_log l;

	assert_int_equal(console_log_new(&l, NULL, NULL), 0);
	assert_int_equal(console_log_lines(&l, 3), 0);
	console_log_put(&l, "a\nbb\nccc", 8);
	assert_int_equal(console_log_lines(&l, 1), 5);
	assert_int_equal(console_log_lines(&l, 2), 2);
	assert_int_equal(console_log_lines(&l, 3), 0);
	console_log_put(&l, "\n", 1);
	assert_int_equal(console_log_lines(&l, 1), 5);
	assert_int_equal(console_log_lines(&l, 100), 0);
	console_log_done(&l);
}

static void it_outlives_its_writer_and_others_are_refused(void **state)
{
	char path[] = "/tmp/holon-log-XXXXXX", got[8];
	struct console_log l;
	uint64_t at = 0;
	int fd = mkstemp(path);

	assert_true(write(fd, "no log", 6) == 6);
	close(fd);
	assert_true(console_log_open(&l, path, NULL) < 0);
	unlink(path);
	assert_int_equal(console_log_new(&l, path, NULL), 0);
	console_log_put(&l, "hi", 2);
	console_log_done(&l);
	assert_int_equal(console_log_open(&l, path, NULL), 0);
	assert_int_equal(console_log_read(&l, &at, got, sizeof got), 2);
	console_log_done(&l);
	assert_int_equal(truncate(path, 4096), 0);
	assert_true(console_log_open(&l, path, NULL) < 0);
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_said_can_be_read_from_anywhere),
		cmocka_unit_test(the_oldest_goes_first),
		cmocka_unit_test(lines_are_counted_from_the_end),
		cmocka_unit_test(it_outlives_its_writer_and_others_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
