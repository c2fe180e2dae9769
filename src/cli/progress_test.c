#include "cli/progress.h"

#include <string.h>

#include "base/bits.h"
#include "base/test.h"
#include "cli/print.h"

#define SEC 1000000000ull

static char text[256];

static const char *told(unsigned width, uint64_t done, uint64_t total, uint64_t ns)
{
	size_t len = progress_text(text, sizeof text, width, done, total, ns);

	assert_int_equal(len, strlen(text));
	return text;
}

static void a_line_says_share_bytes_rate_and_time_left(void **state)
{
	assert_string_equal(told(0, MIB(256), GIB(1), SEC),
			    " 25%  256 MiB of 1 GiB, 256 MiB/s, 0:03 left");
	assert_string_equal(told(0, GIB(1), GIB(1), 2 * SEC),
			    "100%  1 GiB of 1 GiB, 512 MiB/s, 0:00 left");
}

static void long_times_have_hours(void **state)
{
	assert_non_null(strstr(told(0, MIB(1), MIB(7201), SEC), "2:00:00 left"));
	assert_non_null(strstr(told(0, 1, UINT64_MAX, SEC), "99:59:59 left"));
}

static void before_the_first_byte_no_time_is_known(void **state)
{
	assert_string_equal(told(0, 0, GIB(1), SEC), "  0%  0 B of 1 GiB, 0 B/s, - left");
	assert_string_equal(told(0, 0, GIB(1), 0), "  0%  0 B of 1 GiB, 0 B/s, - left");
	assert_string_equal(told(0, 0, 0, 0), "100%  0 B of 0 B, 0 B/s, - left");
}

static void a_wide_terminal_has_a_bar_and_a_narrow_one_none(void **state)
{
	assert_int_equal(told(200, MIB(512), GIB(1), SEC)[0], '[');
	assert_non_null(strstr(text, "===>   "));
	assert_true(strlen(told(79, MIB(512), GIB(1), SEC)) <= 79);
	assert_int_equal(text[0], '[');
	assert_int_equal(told(50, MIB(512), GIB(1), SEC)[0], ' ');
}

static void a_full_bar_has_no_head(void **state)
{
	assert_null(strchr(told(100, 5, 5, SEC), '>'));
	assert_non_null(strstr(text, "=]"));
}

static void sizes_have_three_digits(void **state)
{
	char s[SIZE_TEXT_LEN];

	assert_string_equal(size_text(s, 0), "0 B");
	assert_string_equal(size_text(s, 999), "999 B");
	assert_string_equal(size_text(s, 1000), "0.977 KiB");
	assert_string_equal(size_text(s, KIB(196)), "196 KiB");
	assert_string_equal(size_text(s, MIB(1) + KIB(256)), "1.25 MiB");
	assert_string_equal(size_text(s, MIB(1000)), "0.977 GiB");
	assert_string_equal(size_text(s, UINT64_MAX), "16 EiB");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_line_says_share_bytes_rate_and_time_left),
		cmocka_unit_test(long_times_have_hours),
		cmocka_unit_test(before_the_first_byte_no_time_is_known),
		cmocka_unit_test(a_wide_terminal_has_a_bar_and_a_narrow_one_none),
		cmocka_unit_test(a_full_bar_has_no_head),
		cmocka_unit_test(sizes_have_three_digits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
