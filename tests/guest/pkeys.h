/* pkeys: protection keys of user pages, for the guests that look at them. */
#pragma once

#include "guest.h"

#define CR4_PKE 0x400000ull
#define KEY(n)  ((uint64_t)(n) << 59)
#define AD(n)   (1u << 2 * (n))
#define WD(n)   (2u << 2 * (n))

enum { PF_P = 1, PF_W = 2, PF_U = 4, PF_PK = 0x20 };

static inline void wrpkru(uint32_t v)
{
	__asm__ volatile("wrpkru" ::"a"(v), "c"(0), "d"(0) : "memory");
}

static inline uint32_t rdpkru(void)
{
	uint32_t v, high;

	__asm__ volatile("rdpkru" : "=a"(v), "=d"(high) : "c"(0), "d"(~0u));
	check_eq("EDX of RDPKRU", high, 0);
	return v;
}
