#include "cli/keyboard.h"

#include <stdbool.h>
#include <string.h>

#include "base/bits.h"

#define EXTENDED 0xe0
#define BREAK    0xf0
#define ESC      0x1b

/* Modifiers, as terminals number them in sequences, less one; and their keys */
#define SHIFT 1u
#define ALT   2u
#define CTRL  4u
static const uint8_t modifier_code[] = {0x12, 0x11, 0x14};

/* Scan codes of set 2. Above 0xff: after EXTENDED. */
enum {
	ENTER = 0x5a,
	ESCAPE = 0x76,
	BACKSPACE = 0x66,
	TAB = 0x0d,
	UP = 0xe075,
	DOWN = 0xe072,
	RIGHT = 0xe074,
	LEFT = 0xe06b,
	HOME = 0xe06c,
	END = 0xe069,
	INSERT = 0xe070,
	DELETE = 0xe071,
	PAGE_UP = 0xe07d,
	PAGE_DOWN = 0xe07a,
	F1 = 0x05,
	F2 = 0x06,
	F3 = 0x04,
	F4 = 0x0c,
	F5 = 0x03,
};

/* Keys that make characters, without and with shift. */
static const char plain[] = "`1234567890-=qwertyuiop[]asdfghjkl;'zxcvbnm,./\\ ";
static const char shifted[] = "~!@#$%^&*()_+QWERTYUIOP{}ASDFGHJKL:\"ZXCVBNM<>?| ";
static const uint8_t code_of[] = {
	0x0e, 0x16, 0x1e, 0x26, 0x25, 0x2e, 0x36, 0x3d, 0x3e, 0x46, 0x45, 0x4e,       /* ` to - */
	0x55, 0x15, 0x1d, 0x24, 0x2d, 0x2c, 0x35, 0x3c, 0x43, 0x44, 0x4d, 0x54, 0x5b, /* = to ] */
	0x1c, 0x1b, 0x23, 0x2b, 0x34, 0x33, 0x3b, 0x42, 0x4b, 0x4c, 0x52,             /* a to ' */
	0x1a, 0x22, 0x21, 0x2a, 0x32, 0x31, 0x3a, 0x41, 0x49, 0x4a, 0x5d, 0x29, /* z to space */
};
_Static_assert(sizeof code_of == sizeof plain - 1 && sizeof shifted == sizeof plain,
	       "one code for each");

static void put(struct keyboard_codes *out, uint8_t code)
{
	if (out->len < KEYBOARD_CODES_MAX)
		out->code[out->len++] = code;
}

static void put_key(struct keyboard_codes *out, unsigned key, bool up)
{
	if (key > 0xff)
		put(out, EXTENDED);
	if (up)
		put(out, BREAK);
	put(out, (uint8_t)key);
}

static void press(struct keyboard_codes *out, unsigned key, unsigned modifiers)
{
	out->len = 0;
	for (unsigned i = 0; i < ARRAY_SIZE(modifier_code); i++)
		if (modifiers & 1u << i)
			put_key(out, modifier_code[i], false);
	put_key(out, key, false);
	put_key(out, key, true);
	for (unsigned i = ARRAY_SIZE(modifier_code); i-- > 0;)
		if (modifiers & 1u << i)
			put_key(out, modifier_code[i], true);
}

void keyboard_reboot(struct keyboard_codes *out)
{
	press(out, DELETE, CTRL | ALT);
}

/* --- characters --- */

static void press_character(struct keyboard_codes *out, char c, unsigned modifiers)
{
	const char *at = c ? strchr(plain, c) : NULL;

	if (at) {
		press(out, code_of[at - plain], modifiers);
	} else if (c && (at = strchr(shifted, c))) {
		press(out, code_of[at - shifted], modifiers | SHIFT);
	}
}

/* Control characters that are not keys of their own: as typed with Ctrl. */
static char with_ctrl(uint8_t b)
{
	static const char above_z[] = "\\]6-"; /* after ESC */

	if (b == 0)
		return '2';
	return b <= 26 ? (char)('a' + b - 1) : above_z[b - ESC - 1];
}

static void press_byte(struct keyboard_codes *out, uint8_t b, unsigned modifiers)
{
	switch (b) {
	case '\r':
	case '\n': press(out, ENTER, modifiers); break;
	case '\t': press(out, TAB, modifiers); break;
	case '\b':
	case 0x7f: press(out, BACKSPACE, modifiers); break;
	case ESC: press(out, ESCAPE, modifiers); break;
	default:
		if (b < ' ')
			press_character(out, with_ctrl(b), modifiers | CTRL);
		else if (b < 0x80)
			press_character(out, (char)b, modifiers);
		break;
	}
}

/* A character beyond ASCII is one key less, not several others. */
static uint32_t character_len(const uint8_t *bytes, uint32_t len)
{
	uint32_t n = 1;

	while (bytes[0] >= 0xc0 && n < len && n < 4 && (bytes[n] & 0xc0) == 0x80)
		n++;
	return n;
}

/* --- escape sequences --- */

/* ESC [ ... letter, ESC O letter */
static unsigned key_of_letter(uint8_t letter)
{
	switch (letter) {
	case 'A': return UP;
	case 'B': return DOWN;
	case 'C': return RIGHT;
	case 'D': return LEFT;
	case 'H': return HOME;
	case 'F': return END;
	case 'P': return F1;
	case 'Q': return F2;
	case 'R': return F3;
	case 'S': return F4;
	default: return 0;
	}
}

/* ESC [ number ~ */
static unsigned key_of_number(unsigned number)
{
	static const uint16_t keys[] = {
		[1] = HOME,      [2] = INSERT, [3] = DELETE, [4] = END,   [5] = PAGE_UP,
		[6] = PAGE_DOWN, [7] = HOME,   [8] = END,    [11] = F1,   [12] = F2,
		[13] = F3,       [14] = F4,    [15] = F5,    [17] = 0x0b, [18] = 0x83,
		[19] = 0x0a,     [20] = 0x01,  [21] = 0x09,  [23] = 0x78, [24] = 0x07,
	};

	return number < ARRAY_SIZE(keys) ? keys[number] : 0;
}

/* After ESC [. Returns its length; 0: it is not all there. */
static uint32_t control_sequence(const uint8_t *bytes, uint32_t len, struct keyboard_codes *out)
{
	unsigned number[2] = {0, 1}, which = 0, key;
	uint32_t i = 0;

	if (len >= 2 && bytes[0] == '[') { /* F1 to F5 of Linux's own terminals */
		static const uint8_t f[] = {F1, F2, F3, F4, F5};

		if (bytes[1] >= 'A' && bytes[1] <= 'E')
			press(out, f[bytes[1] - 'A'], 0);
		return 2;
	}
	for (; i < len && bytes[i] >= 0x20 && bytes[i] < 0x40; i++) {
		if (bytes[i] == ';' && which == 0)
			number[++which] = 0;
		else if (bytes[i] >= '0' && bytes[i] <= '9' && number[which] < 1000)
			number[which] = number[which] * 10 + bytes[i] - '0';
	}
	if (i == len)
		return 0;
	key = bytes[i] == '~' ? key_of_number(number[0]) : key_of_letter(bytes[i]);
	if (bytes[i] == 'Z')
		press(out, TAB, SHIFT);
	else if (key)
		press(out, key, number[1] ? (number[1] - 1) & (SHIFT | ALT | CTRL) : 0);
	return i + 1;
}

static uint32_t escape(const uint8_t *bytes, uint32_t len, struct keyboard_codes *out)
{
	uint32_t n;

	if (len > 2 && bytes[1] == '[' && (n = control_sequence(bytes + 2, len - 2, out)))
		return 2 + n;
	if (len > 2 && bytes[1] == 'O' && key_of_letter(bytes[2])) {
		press(out, key_of_letter(bytes[2]), 0);
		return 3;
	}
	if (len == 1 || bytes[1] == ESC) {
		press_byte(out, ESC, 0);
		return 1;
	}
	press_byte(out, bytes[1], ALT);
	return 1 + character_len(bytes + 1, len - 1);
}

uint32_t keyboard_key(const uint8_t *bytes, uint32_t len, struct keyboard_codes *out)
{
	out->len = 0;
	if (bytes[0] == ESC)
		return escape(bytes, len, out);
	press_byte(out, bytes[0], 0);
	return character_len(bytes, len);
}
