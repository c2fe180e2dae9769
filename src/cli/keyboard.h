/* keyboard: what a terminal sends, as the keys of a US keyboard: scan codes of set 2, down and up,
 * with shift, control and alt around them as the character needs. */
#pragma once

#include <stdint.h>

#define KEYBOARD_CODES_MAX 16

struct keyboard_codes {
	uint8_t code[KEYBOARD_CODES_MAX];
	uint32_t len; /* 0: no key makes that */
};

/* The first key in bytes, of which there is at least one. Returns how many of them it is. An
 * escape sequence is one key when it is there as a whole; an ESC before anything else is Alt, and at
 * the end it is the key itself. */
uint32_t keyboard_key(const uint8_t *bytes, uint32_t len, struct keyboard_codes *out);

/* What no terminal sends: Ctrl-Alt-Del. */
void keyboard_reboot(struct keyboard_codes *out);
