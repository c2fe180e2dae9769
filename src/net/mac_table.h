/* mac_table: which way a switch has last seen a station. Bounded: a new station pushes out the
 * one of its set that was silent for longest, so that a peer which makes up addresses costs
 * others no more than frames that go everywhere. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define MAC_SETS 256u
#define MAC_WAYS 4u

struct mac_entry {
	uint8_t mac[6];
	int8_t way; /* where it is; -1: free */
	uint64_t seen_ns;
};

struct mac_table {
	struct mac_entry entry[MAC_SETS][MAC_WAYS];
};

void mac_table_init(struct mac_table *t);
/* A frame from mac came in at way. Multicast addresses are nobody's. */
void mac_table_learn(struct mac_table *t, const uint8_t *mac, int way, uint64_t now_ns);
/* Where mac is, or -1: not known, not seen for five minutes, or multicast. */
int mac_table_find(const struct mac_table *t, const uint8_t *mac, uint64_t now_ns);
/* The way leads nowhere any more. */
void mac_table_forget(struct mac_table *t, int way);
