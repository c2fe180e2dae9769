#include "chipset/ps2_keyboard.h"

#include <string.h>

#define ACK    0xfa
#define RESEND 0xfe
#define ECHO   0xee
#define PASSED 0xaa /* self test */

#define CMD_LEDS       0xed
#define CMD_ECHO       0xee
#define CMD_CODE_SET   0xf0
#define CMD_IDENTIFY   0xf2
#define CMD_TYPEMATIC  0xf3
#define CMD_ENABLE     0xf4
#define CMD_DISABLE    0xf5
#define CMD_DEFAULTS   0xf6
#define CMD_RESEND     0xfe
#define CMD_RESET      0xff
#define THE_CODE_SET   2
#define PARAMETERS_END 0xed /* below it, a byte is a parameter, never a command */

static void say(struct ps2_keyboard *k, uint8_t v)
{
	if (k->answer_len < sizeof k->answer)
		k->answer[k->answer_len++] = v;
}

static void forget_typed(struct ps2_keyboard *k)
{
	k->typed_len = 0;
}

void ps2_keyboard_reset(struct ps2_keyboard *k)
{
	*k = (struct ps2_keyboard){.scanning = true};
}

static void take_parameter(struct ps2_keyboard *k, uint8_t v)
{
	uint8_t command = k->command;

	k->command = 0;
	/* Other sets are not there to be chosen; a driver then stays with this one. */
	if (command == CMD_CODE_SET && v != 0 && v != THE_CODE_SET) {
		say(k, RESEND);
		return;
	}
	say(k, ACK);
	if (command == CMD_LEDS)
		k->leds = v & 7;
	else if (command == CMD_CODE_SET && v == 0)
		say(k, THE_CODE_SET);
}

static void take_command(struct ps2_keyboard *k, uint8_t v)
{
	switch (v) {
	case CMD_ECHO: say(k, ECHO); return;
	case CMD_RESEND: say(k, k->last); return;
	case CMD_LEDS:
	case CMD_CODE_SET:
	case CMD_TYPEMATIC: k->command = v; break;
	case CMD_ENABLE: k->scanning = true; break;
	case CMD_DISABLE:
	case CMD_DEFAULTS:
		k->scanning = v == CMD_DEFAULTS;
		forget_typed(k);
		break;
	case CMD_IDENTIFY:
		say(k, ACK);
		say(k, 0xab);
		say(k, 0x83);
		return;
	case CMD_RESET:
		ps2_keyboard_reset(k);
		say(k, ACK);
		say(k, PASSED);
		return;
	default: say(k, RESEND); return;
	}
	say(k, ACK);
}

void ps2_keyboard_command(struct ps2_keyboard *k, uint8_t v)
{
	k->answer_len = 0; /* a new command ends what was said of the one before */
	if (k->command && v < PARAMETERS_END) {
		take_parameter(k, v);
		return;
	}
	k->command = 0;
	take_command(k, v);
}

bool ps2_keyboard_peek(const struct ps2_keyboard *k, unsigned i, uint8_t *v)
{
	const uint8_t *from = k->answer_len ? k->answer : k->typed;

	if (i >= (k->answer_len ? k->answer_len : k->typed_len))
		return false;
	*v = from[i];
	return true;
}

static uint8_t drop(uint8_t *from, uint8_t len, unsigned n)
{
	memmove(from, from + n, len - n);
	return (uint8_t)(len - n);
}

void ps2_keyboard_sent(struct ps2_keyboard *k, unsigned n)
{
	uint8_t v;

	if (n == 0 || !ps2_keyboard_peek(k, n - 1, &v))
		return;
	k->last = v;
	if (k->answer_len)
		k->answer_len = drop(k->answer, k->answer_len, n);
	else
		k->typed_len = drop(k->typed, k->typed_len, n);
}

bool ps2_keyboard_type(struct ps2_keyboard *k, const uint8_t *codes, uint32_t len)
{
	if (!k->scanning)
		return true;
	if (len > sizeof k->typed - k->typed_len)
		return false;
	memcpy(k->typed + k->typed_len, codes, len);
	k->typed_len += (uint8_t)len;
	return true;
}

void ps2_keyboard_state(struct ps2_keyboard *k, struct state *s)
{
	state_bytes(s, "kbd_typed", k->typed, sizeof k->typed);
	state_u8(s, "kbd_typed_len", &k->typed_len);
	state_bytes(s, "kbd_answer", k->answer, sizeof k->answer);
	state_u8(s, "kbd_answer_len", &k->answer_len);
	state_u8(s, "kbd_command", &k->command);
	state_u8(s, "kbd_last", &k->last);
	state_u8(s, "kbd_leds", &k->leds);
	state_bool(s, "kbd_scanning", &k->scanning);
	if (!state_loading(s) || state_failed(s))
		return;
	if (k->typed_len > sizeof k->typed || k->answer_len > sizeof k->answer)
		state_fail(s, "more bytes than the keyboard's buffers have");
}
