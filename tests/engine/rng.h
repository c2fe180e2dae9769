/* rng: a small deterministic generator (splitmix64), so that a seed names a run. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct rng {
	uint64_t x;
};

static inline uint64_t rng_next(struct rng *r)
{
	uint64_t z = r->x += 0x9e3779b97f4a7c15u;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

/* 0 .. n - 1 */
static inline uint32_t rng_below(struct rng *r, uint32_t n)
{
	return (uint32_t)((rng_next(r) >> 32) * n >> 32);
}

static inline bool rng_odds(struct rng *r, uint32_t one_in)
{
	return rng_below(r, one_in) == 0;
}
