#include "user.h"

#include <cpuid.h>
#include <string.h>

#define XCR0_CARRIED (XCR0_X87 | XCR0_SSE | XCR0_AVX | XCR0_AVX512)

uint64_t user_xfeatures(void)
{
	uint32_t lo, hi;

	__asm__("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
	return lo & XCR0_CARRIED;
}

uint32_t user_xoffset(unsigned n, uint32_t *size)
{
	uint32_t a, b, c, d;

	__cpuid_count(0xd, n, a, b, c, d);
	*size = a;
	return b;
}

void user_xsave_normalize(uint8_t *x)
{
	uint64_t bv = load_le(x + 512, 8);

	if (!(bv & XCR0_X87)) {
		memset(x, 0, 24);
		x[0] = 0x7f;
		x[1] = 0x03;
		memset(x + 32, 0, 128);
	}
	for (int i = 0; i < 8; i++) /* the upper 48 bits of each x87 slot are padding */
		memset(x + 32 + 16 * i + 10, 0, 6);
	if (!(bv & XCR0_SSE))
		memset(x + 160, 0, 256);
	for (unsigned n = 2; n < 8; n++) {
		uint32_t size, at;

		if (!(user_xfeatures() & BIT(n)) || (bv & BIT(n)))
			continue;
		at = user_xoffset(n, &size);
		memset(x + at, 0, size);
	}
	memset(x + 28, 0, 4);   /* MXCSR_MASK */
	memset(x + 416, 0, 96); /* left to software */
}

void user_apply_patches(const struct user_case *c, uint8_t *(*page)(void *ctx, unsigned n),
			void *ctx)
{
	for (unsigned i = 0; i < c->patches; i++)
		for (unsigned k = 0; k < 8; k++) {
			uint64_t at = c->patch[i].gva + k - DATA_BASE;
			uint8_t *p = at < DATA_PAGES * PAGE ? page(ctx, at / PAGE) : NULL;

			if (p)
				p[at % PAGE] = (uint8_t)(c->patch[i].value >> 8 * k);
		}
}
