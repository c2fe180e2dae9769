/* console_keys: picks Holon's own keys, Ctrl-A and a letter, out of what is typed. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum console_key { KEY_NONE, KEY_QUIT, KEY_HELP, KEY_DETACH, KEY_VIEW, KEY_REBOOT };

struct console_keys {
	bool escaped; /* the last byte was Ctrl-A */
};

/* Leaves in bytes what the guest shall have and returns how much that is. *key is the last
 * key of Holon's own among them, but a quit stays a quit. */
uint32_t console_keys_filter(struct console_keys *k, uint8_t *bytes, uint32_t len,
			     enum console_key *key);
