#include "cli/keyboard.h"

#include <string.h>

#include "base/test.h"

/* All keys of the bytes typed, as one line of codes. */
static void expect(const char *typed, const char *codes)
{
	uint8_t all[128];
	uint32_t len = 0, left = (uint32_t)strlen(typed);
	struct keyboard_codes k;

	while (left) {
		uint32_t n = keyboard_key((const uint8_t *)typed, left, &k);

		assert_in_range(n, 1, left);
		typed += n;
		left -= n;
		assert_in_range(len + k.len, len, sizeof all);
		memcpy(all + len, k.code, k.len);
		len += k.len;
	}
	assert_int_equal(len, strlen(codes));
	assert_memory_equal(all, codes, len);
}

static void characters_are_keys_with_shift_where_needed(void **state)
{
	expect("a", "\x1c\xf0\x1c");
	expect("A", "\x12\x1c\xf0\x1c\xf0\x12");
	expect(" ", "\x29\xf0\x29");
	expect("\\", "\x5d\xf0\x5d");
	expect("|", "\x12\x5d\xf0\x5d\xf0\x12");
	expect("0?", "\x45\xf0\x45\x12\x4a\xf0\x4a\xf0\x12");
}

static void control_characters_are_keys(void **state)
{
	expect("\r", "\x5a\xf0\x5a");
	expect("\n", "\x5a\xf0\x5a");
	expect("\t", "\x0d\xf0\x0d");
	expect("\x7f", "\x66\xf0\x66");
	expect("\x03", "\x14\x21\xf0\x21\xf0\x14");     /* Ctrl-C */
	expect("\x1c", "\x14\x5d\xf0\x5d\xf0\x14");     /* Ctrl-\ */
	expect("\x1f", "\x14\x4e\xf0\x4e\xf0\x14");     /* Ctrl-- */
	expect("\x1b", "\x76\xf0\x76");                 /* Esc alone */
	expect("\x1b\x1b", "\x76\xf0\x76\x76\xf0\x76"); /* twice */
	expect("\x1b"
	       "x",
	       "\x11\x22\xf0\x22\xf0\x11"); /* Alt-x */
}

static void sequences_are_one_key(void **state)
{
	expect("\x1b[A", "\xe0\x75\xe0\xf0\x75");
	expect("\x1bOA", "\xe0\x75\xe0\xf0\x75");
	expect("\x1b[3~", "\xe0\x71\xe0\xf0\x71");
	expect("\x1b[1;5C", "\x14\xe0\x74\xe0\xf0\x74\xf0\x14");
	expect("\x1bOP", "\x05\xf0\x05");
	expect("\x1b[[E", "\x03\xf0\x03");
	expect("\x1b[18~", "\x83\xf0\x83");
	expect("\x1b[24~x", "\x07\xf0\x07\x22\xf0\x22");
	expect("\x1b[Z", "\x12\x0d\xf0\x0d\xf0\x12");
}

static void what_no_key_makes_is_passed_over(void **state)
{
	expect("\xc3\xa4"
	       "a",
	       "\x1c\xf0\x1c");
	expect("\x1b[99~\x1b[1;99x", "");
	expect("\x1b[999999999999~", "");
	expect("\xff\x80", "");
}

static void half_a_sequence_is_keys(void **state)
{
	expect("\x1b[", "\x11\x54\xf0\x54\xf0\x11");
	expect("\x1b[1", "\x11\x54\xf0\x54\xf0\x11\x16\xf0\x16");
}

static void every_byte_takes_at_least_itself(void **state)
{
	for (unsigned i = 0; i < 0x10000; i++) {
		uint8_t bytes[] = {0x1b, (uint8_t)i, (uint8_t)(i >> 8)};
		struct keyboard_codes k;

		assert_in_range(keyboard_key(bytes, 3, &k), 1, 3);
		assert_in_range(keyboard_key(bytes + 1, 2, &k), 1, 2);
		assert_in_range(k.len, 0, KEYBOARD_CODES_MAX);
	}
}

static void three_keys_at_once(void **state)
{
	struct keyboard_codes k;

	keyboard_reboot(&k);
	assert_int_equal(k.len, 11);
	assert_memory_equal(k.code, "\x11\x14\xe0\x71\xe0\xf0\x71\xf0\x14\xf0\x11", 11);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(characters_are_keys_with_shift_where_needed),
		cmocka_unit_test(control_characters_are_keys),
		cmocka_unit_test(sequences_are_one_key),
		cmocka_unit_test(what_no_key_makes_is_passed_over),
		cmocka_unit_test(half_a_sequence_is_keys),
		cmocka_unit_test(every_byte_takes_at_least_itself),
		cmocka_unit_test(three_keys_at_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
