/* cpu_memory: loads that wait for each other, and copies. */
#include <string.h>

#include "cpu.h"

enum { SMALL = 16 << 10, SMALL_STEP = 64, LARGE = 32 << 20, LARGE_STEP = 128 };

/* One cycle through all places of the buffer, in random order: each load's address is the result
 * of the one before. */
static uint64_t *ring(unsigned bytes, unsigned step)
{
	unsigned places = bytes / step, words = step / 8;
	uint64_t *buffer = pages(bytes), seed = 11;

	for (unsigned i = 0; i < places; i++)
		buffer[i * words] = i * words;
	for (unsigned i = places - 1; i > 0; i--) {
		unsigned j = (unsigned)(next_random(&seed) % i);
		uint64_t t = buffer[i * words];

		buffer[i * words] = buffer[j * words];
		buffer[j * words] = t;
	}
	return buffer;
}

static uint64_t chase(const uint64_t *buffer, unsigned loads)
{
	uint64_t at = 0, sum = 0;

	while (loads--) {
		at = buffer[at];
		sum += at;
	}
	return sum;
}

static uint64_t *small_ring, *large_ring;

static int small_setup(void)
{
	small_ring = ring(SMALL, SMALL_STEP);
	return 0;
}

static int large_setup(void)
{
	large_ring = ring(LARGE, LARGE_STEP);
	return 0;
}

static uint64_t chase_small(void)
{
	return chase(small_ring, 1 << 20);
}

static uint64_t chase_large(void)
{
	return chase(large_ring, LARGE / LARGE_STEP);
}

enum { COPY = 8 << 20, NEAR = 128 << 10, NEAR_TIMES = 32 };
static unsigned char *from, *to;

static int copy_setup(void)
{
	uint64_t seed = 13;

	if (!from) {
		from = pages(COPY);
		to = pages(COPY);
	}
	for (unsigned i = 0; i < COPY; i += 8) {
		uint64_t r = next_random(&seed);

		memcpy(from + i, &r, 8);
	}
	memset(to, 0, COPY);
	return 0;
}

/* libc's memcpy, in the form that it picks for the processor it sees, from one mapping to another. */
static uint64_t copy_libc(void)
{
	memcpy(to, from, COPY);
	return checksum(0, to + COPY / 3, 4096);
}

/* A load and a store for each eight bytes, in the second-level cache, within one mapping. */
__attribute__((optimize("no-tree-vectorize", "no-tree-loop-distribute-patterns"))) static void
copy_loop(uint64_t *out, const uint64_t *in, unsigned words)
{
	for (unsigned i = 0; i < words; i++)
		out[i] = in[i] + 1;
}

static uint64_t copy_words(void)
{
	uint64_t *in = (uint64_t *)(void *)from, *out = in + NEAR / 8;

	for (unsigned i = 0; i < NEAR_TIMES; i++)
		copy_loop(out, in, NEAR / 8);
	return checksum(0, out + NEAR / 24, 4096);
}

/* Reads, changes and writes back words all over 4 MiB, each independent of the others. */
static uint64_t scatter(void)
{
	uint64_t *table = (uint64_t *)(void *)to, seed = 17, sum = 0;

	memset(to, 0, 4 << 20);
	for (unsigned i = 0; i < 200000; i++) {
		uint64_t r = next_random(&seed);

		table[r % (4 << 17)] ^= r;
	}
	for (unsigned i = 0; i < 4 << 17; i += 512)
		sum += table[i];
	return sum;
}

const struct test memory_tests[] = {
	{"memory", "chase-16k", "load", 1 << 20, chase_small, small_setup, NULL},
	{"memory", "chase-32m", "load", LARGE / LARGE_STEP, chase_large, large_setup, NULL},
	{"memory", "memcpy-8m", "KiB", COPY >> 10, copy_libc, copy_setup, NULL},
	{"memory", "copy-words", "KiB", (NEAR >> 10) * NEAR_TIMES, copy_words, copy_setup, NULL},
	{"memory", "scatter-4m", "update", 200000, scatter, copy_setup, NULL},
	{0},
};
