#include "base/err.h"

#include <errno.h>
#include <string.h>

#include "base/test.h"

static void set_keeps_code_and_text(void **unused)
{
	struct err e;

	assert_int_equal(err_set(&e, EINVAL, "no %s", "kernel"), -EINVAL);
	assert_int_equal(e.code, EINVAL);
	assert_string_equal(e.text, "no kernel");
}

static void sys_ends_in_what_the_code_means(void **unused)
{
	struct err e;

	assert_int_equal(err_sys(&e, ENOENT, "open '%s'", "x"), -ENOENT);
	assert_string_equal(e.text, "open 'x': No such file or directory");
}

static void wrap_puts_context_in_front(void **unused)
{
	struct err e;

	err_set(&e, EIO, "inner");
	assert_int_equal(err_wrap(&e, "disk '%s'", "a"), -EIO);
	assert_string_equal(e.text, "disk 'a': inner");
}

static void a_long_text_is_cut_not_overrun(void **unused)
{
	char name[600];
	struct err e;

	memset(name, 'n', sizeof name);
	name[sizeof name - 1] = 0;
	err_set(&e, EIO, "%s", name);
	err_wrap(&e, "%s", name);
	assert_int_equal(strlen(e.text), sizeof e.text - 1);
	err_sys(&e, EIO, "%s", name);
	assert_int_equal(strlen(e.text), sizeof e.text - 1);
}

static void no_object_still_returns_the_code(void **unused)
{
	assert_int_equal(err_set(NULL, EIO, "x"), -EIO);
	assert_int_equal(err_sys(NULL, EIO, "x"), -EIO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(set_keeps_code_and_text),
		cmocka_unit_test(sys_ends_in_what_the_code_means),
		cmocka_unit_test(wrap_puts_context_in_front),
		cmocka_unit_test(a_long_text_is_cut_not_overrun),
		cmocka_unit_test(no_object_still_returns_the_code),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
