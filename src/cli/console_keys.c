#include "cli/console_keys.h"

#define CTRL_A 0x01

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
		if (k->escaped && b == 'x')
			*key = KEY_QUIT;
		else if (k->escaped && b == 'h')
			*key = *key == KEY_QUIT ? KEY_QUIT : KEY_HELP;
		else if (k->escaped && b == 'd')
			*key = *key == KEY_QUIT ? KEY_QUIT : KEY_DETACH;
		else
			bytes[kept++] = b;
		k->escaped = false;
	}
	return kept;
}
