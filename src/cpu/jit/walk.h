/* walk: the page walk of the JIT's MMU (SDM volume 3A, 4): no paging, 32-bit, PAE, 4-level;
 * 4K, 2M/4M and 1G pages; NX, WP, SMEP, SMAP, protection keys; sets accessed and dirty bits. */
#pragma once

#include "cpu/jit/jit_priv.h"

struct jit_mapping {
	gpa_t gpa;     /* of the 4K page that holds gva */
	bool writable; /* a write needs no further walk: allowed, and D is set */
	bool global, large;
	uint8_t key; /* protection key of a user page, where keys count (4.6.2); else 0 */
};

/* true: *out is valid. false: a page fault, *error is its error code (4.7). Touches guest
 * RAM only through c->env->mem; a table outside RAM reads as not present. */
bool jit_walk(struct jit_cpu *c, uint64_t gva, enum jit_mmu m, enum jit_access a,
	      struct jit_mapping *out, uint32_t *error);

bool jit_canonical(const struct jit_cpu *c, uint64_t gva);
