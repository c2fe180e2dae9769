#include "cli/console_keys.h"

#define CTRL_A 0x01

static enum console_key own_key(uint8_t b)
{
	switch (b) {
	case 'x': return KEY_QUIT;
	case 'h': return KEY_HELP;
	case 's': return KEY_VIEW;
	case 'd': return KEY_DETACH;
	case 'r': return KEY_REBOOT;
	default: return KEY_NONE;
	}
}

uint32_t console_keys_filter(struct console_keys *k, uint8_t *bytes, uint32_t len,
			     enum console_key *key)
{
	uint32_t kept = 0;

	*key = KEY_NONE;
	for (uint32_t i = 0; i < len; i++) {
		uint8_t b = bytes[i];

		if (!k->escaped && b == CTRL_A) {
			k->escaped = true;
			continue;
		}
		if (!k->escaped || !own_key(b))
			bytes[kept++] = b;
		else if (*key != KEY_QUIT)
			*key = own_key(b);
		k->escaped = false;
	}
	return kept;
}
