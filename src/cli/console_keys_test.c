#include "cli/console_keys.h"

#include <string.h>

#include "base/test.h"

static struct console_keys keys;
static enum console_key key;
static uint8_t bytes[64];

static uint32_t typed(const char *text)
{
	uint32_t len = (uint32_t)strlen(text);

	memcpy(bytes, text, len);
	return console_keys_filter(&keys, bytes, len, &key);
}

static int fresh(void **state)
{
	keys = (struct console_keys){0};
	return 0;
}

static void plain_text_passes(void **state)
{
	assert_int_equal(typed("hexlax\x03\r"), 8);
	assert_memory_equal(bytes, "hexlax\x03\r", 8);
	assert_int_equal(key, KEY_NONE);
}

static void keys_are_taken_out(void **state)
{
	assert_int_equal(typed("a\001hb"), 2);
	assert_memory_equal(bytes, "ab", 2);
	assert_int_equal(key, KEY_HELP);
	assert_int_equal(typed("\001s"), 0);
	assert_int_equal(key, KEY_VIEW);
	assert_int_equal(typed("\001r"), 0);
	assert_int_equal(key, KEY_REBOOT);
	assert_int_equal(typed("\001x"), 0);
	assert_int_equal(key, KEY_QUIT);
}

static void a_key_may_come_in_two_reads(void **state)
{
	assert_int_equal(typed("a\001"), 1);
	assert_int_equal(key, KEY_NONE);
	assert_int_equal(typed("xb"), 1);
	assert_int_equal(key, KEY_QUIT);
}

static void ctrl_a_twice_sends_one(void **state)
{
	assert_int_equal(typed("\001\001x"), 2);
	assert_memory_equal(bytes, "\001x", 2);
	assert_int_equal(key, KEY_NONE);
}

static void an_unknown_key_passes_without_its_prefix(void **state)
{
	assert_int_equal(typed("\001zx"), 2);
	assert_memory_equal(bytes, "zx", 2);
	assert_int_equal(key, KEY_NONE);
}

static void help_does_not_undo_a_quit(void **state)
{
	assert_int_equal(typed("\001x\001h"), 0);
	assert_int_equal(key, KEY_QUIT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(plain_text_passes, fresh),
		cmocka_unit_test_setup(keys_are_taken_out, fresh),
		cmocka_unit_test_setup(a_key_may_come_in_two_reads, fresh),
		cmocka_unit_test_setup(ctrl_a_twice_sends_one, fresh),
		cmocka_unit_test_setup(an_unknown_key_passes_without_its_prefix, fresh),
		cmocka_unit_test_setup(help_does_not_undo_a_quit, fresh),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
