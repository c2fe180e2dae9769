#include "base/log.h"

#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "base/test.h"

/* What log_line wrote to stderr while level was set; cut to what fits. */
static void logged(char *to, size_t size, enum log_level level, enum log_level line_level,
		   const char *text)
{
	int pipe_fds[2], saved = dup(STDERR_FILENO);
	ssize_t n;

	assert_int_equal(pipe(pipe_fds), 0);
	dup2(pipe_fds[1], STDERR_FILENO);
	log_set_level(level);
	log_line(line_level, "%s", text);
	dup2(saved, STDERR_FILENO);
	close(saved);
	close(pipe_fds[1]);
	n = read(pipe_fds[0], to, size - 1);
	to[n < 0 ? 0 : n] = 0;
	close(pipe_fds[0]);
}

static void a_line_names_its_level(void **unused)
{
	char got[200];

	logged(got, sizeof got, LOG_INFO, LOG_WARN, "tap is slow");
	assert_string_equal(got, "holon: warn: tap is slow\n");
}

static void a_line_above_the_level_is_dropped(void **unused)
{
	char got[200];

	logged(got, sizeof got, LOG_WARN, LOG_INFO, "hello");
	assert_string_equal(got, "");
	assert_false(log_enabled(LOG_INFO));
	assert_true(log_enabled(LOG_WARN));
}

static void control_characters_do_not_reach_the_terminal(void **unused)
{
	char got[200];

	logged(got, sizeof got, LOG_INFO, LOG_ERROR, "a\x1b[2Jb\nc");
	assert_string_equal(got, "holon: error: a?[2Jb?c\n");
}

static void an_overlong_line_is_cut_and_still_ends(void **unused)
{
	char text[3000], got[3000];

	memset(text, 'x', sizeof text);
	text[sizeof text - 1] = 0;
	logged(got, sizeof got, LOG_INFO, LOG_ERROR, text);
	assert_int_equal(strlen(got), 1023);
	assert_int_equal(got[1022], '\n');
}

static void level_names_are_known_and_others_refused(void **unused)
{
	enum log_level l = LOG_ERROR;

	assert_true(log_parse_level("debug", &l));
	assert_int_equal(l, LOG_DEBUG);
	assert_false(log_parse_level("loud", &l));
	assert_int_equal(l, LOG_DEBUG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_line_names_its_level),
		cmocka_unit_test(a_line_above_the_level_is_dropped),
		cmocka_unit_test(control_characters_do_not_reach_the_terminal),
		cmocka_unit_test(an_overlong_line_is_cut_and_still_ends),
		cmocka_unit_test(level_names_are_known_and_others_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
