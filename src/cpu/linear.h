/* linear: where linear addresses lead by a vCPU's page tables, for people who look at it from outside
 * (debuggers). Nobody's rights are asked, and no accessed or dirty bit is set. */
#pragma once

#include "cpu/x86_state.h"
#include "mem/mem.h"

#define LINEAR_LEVELS 5u

struct linear_walk {
	unsigned levels; /* entries read, from the root */
	struct {
		gpa_t at;
		uint64_t entry;
	} step[LINEAR_LEVELS];
	gpa_t gpa;
	uint64_t left; /* bytes from gpa to the end of the page it is in */
};

/* false: nothing is mapped there (the last entry that was read says why). Any thread; the vCPU of
 * which s is the state may run on. */
bool linear_walk(const struct guest_mem *m, const struct x86_state *s, uint64_t gva,
		 struct linear_walk *w);

/* Copies from or to what is mapped at gva; returns how many bytes could be. Writing does not mind
 * write protection, and tells mem's watch. */
uint64_t linear_read(const struct guest_mem *m, const struct x86_state *s, uint64_t gva, void *to,
		     uint64_t len);
uint64_t linear_write(struct guest_mem *m, const struct x86_state *s, uint64_t gva,
		      const void *from, uint64_t len);
