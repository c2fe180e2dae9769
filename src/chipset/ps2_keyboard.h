/* ps2_keyboard: an IBM AT keyboard as the keyboard controller sees it (IBM PS/2 Hardware Interface
 * Technical Reference, keyboards): scan codes of set 2, a buffer of what was typed, commands and
 * their answers. Keys do not repeat by themselves: who holds one down sends it again.
 *
 * The i8042 owns it and guards it by its own lock. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "state/state.h"

struct ps2_keyboard {
	uint8_t typed[64]; /* whole codes only, so that a key is never lost by half */
	uint8_t typed_len;
	uint8_t answer[4]; /* goes before what was typed */
	uint8_t answer_len;
	uint8_t command; /* waits for its parameter; 0: none does */
	uint8_t last;    /* what was sent last, for a resend */
	uint8_t leds;    /* scroll, num, caps lock */
	bool scanning;   /* keys are sent */
};

void ps2_keyboard_reset(struct ps2_keyboard *k);
void ps2_keyboard_state(struct ps2_keyboard *k, struct state *s);
/* A byte from the controller. */
void ps2_keyboard_command(struct ps2_keyboard *k, uint8_t v);
/* What is to be sent next, number i of it; false: no so many bytes. */
bool ps2_keyboard_peek(const struct ps2_keyboard *k, unsigned i, uint8_t *v);
/* That many bytes were sent, of an answer or of what was typed. */
void ps2_keyboard_sent(struct ps2_keyboard *k, unsigned n);
/* The bytes of one key going down or up; false: the buffer has no room for all of them. */
bool ps2_keyboard_type(struct ps2_keyboard *k, const uint8_t *codes, uint32_t len);
