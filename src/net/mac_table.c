#include "net/mac_table.h"

#include <string.h>

#define AGE_NS UINT64_C(300000000000) /* as IEEE 802.1D proposes */

static unsigned set_of(const uint8_t *mac)
{
	uint32_t h = 2166136261u;

	for (int i = 0; i < 6; i++)
		h = (h ^ mac[i]) * 16777619u;
	return (h ^ h >> 16) % MAC_SETS;
}

void mac_table_init(struct mac_table *t)
{
	memset(t, 0, sizeof *t);
	for (unsigned i = 0; i < MAC_SETS; i++)
		for (unsigned j = 0; j < MAC_WAYS; j++)
			t->entry[i][j].way = -1;
}

void mac_table_learn(struct mac_table *t, const uint8_t *mac, int way, uint64_t now_ns)
{
	struct mac_entry *set = t->entry[set_of(mac)], *to = NULL;

	if (mac[0] & 1)
		return;
	for (unsigned i = 0; i < MAC_WAYS && !to; i++)
		if (set[i].way >= 0 && !memcmp(set[i].mac, mac, 6))
			to = &set[i];
	for (unsigned i = 0; i < MAC_WAYS && !to; i++)
		if (set[i].way < 0)
			to = &set[i];
	if (!to) {
		to = &set[0];
		for (unsigned i = 1; i < MAC_WAYS; i++)
			if (set[i].seen_ns < to->seen_ns)
				to = &set[i];
	}
	memcpy(to->mac, mac, 6);
	to->way = (int8_t)way;
	to->seen_ns = now_ns;
}

int mac_table_find(const struct mac_table *t, const uint8_t *mac, uint64_t now_ns)
{
	const struct mac_entry *set = t->entry[set_of(mac)];

	for (unsigned i = 0; i < MAC_WAYS; i++)
		if (set[i].way >= 0 && !memcmp(set[i].mac, mac, 6))
			return now_ns - set[i].seen_ns < AGE_NS ? set[i].way : -1;
	return -1;
}

void mac_table_forget(struct mac_table *t, int way)
{
	for (unsigned i = 0; i < MAC_SETS; i++)
		for (unsigned j = 0; j < MAC_WAYS; j++)
			if (t->entry[i][j].way == way)
				t->entry[i][j].way = -1;
}
