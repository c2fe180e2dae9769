/* bits: alignment, bit fields, container_of and little-endian access to unaligned bytes. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define BIT(n)                          (UINT64_C(1) << (n))
#define KIB(n)                          ((uint64_t)(n) << 10)
#define MIB(n)                          ((uint64_t)(n) << 20)
#define GIB(n)                          ((uint64_t)(n) << 30)
#define ARRAY_SIZE(a)                   (sizeof(a) / sizeof((a)[0]))
#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))
#define WARN_UNUSED                     __attribute__((warn_unused_result))

/* to: a power of two */
static inline uint64_t align_up(uint64_t v, uint64_t to)
{
	return (v + to - 1) & ~(to - 1);
}

static inline uint64_t align_down(uint64_t v, uint64_t to)
{
	return v & ~(to - 1);
}

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

/* The low size bytes of v; size is 1, 2, 4 or 8. */
static inline uint64_t trunc_bytes(uint64_t v, unsigned size)
{
	return size >= 8 ? v : v & (BIT(size * 8) - 1);
}

/* size: 1..8 bytes, little-endian */
static inline uint64_t load_le(const void *p, unsigned size)
{
	uint64_t v = 0;

	memcpy(&v, p, size);
	return v;
}

static inline void store_le(void *p, uint64_t v, unsigned size)
{
	memcpy(p, &v, size);
}
