/* bus_fuzz: random accesses on a random map. Regions are plain bytes, so what an access
 * must read is known byte for byte; each call's promises (bus.h) are checked on the way. */
#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "bus/bus.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define SPACE   256 /* all addresses lie in here, at the origin below */
#define REGIONS 16

static uint8_t cells[REGIONS][SPACE];

struct fuzz_region {
	struct bus_region region;
	uint64_t base, len; /* len 0: not mapped */
	unsigned min, max;
	uint8_t *bytes;
};

struct input {
	const uint8_t *p;
	size_t left;
};

static uint8_t next(struct input *in)
{
	return in->left ? in->left--, *in->p++ : 0;
}

static struct fuzz_region *checked(struct bus_region *r, uint64_t offset, unsigned size)
{
	struct fuzz_region *f = container_of(r, struct fuzz_region, region);

	assert(f->len);
	assert(size >= f->min && size <= f->max);
	assert(offset % size == 0 && offset < f->len && size <= f->len - offset);
	return f;
}

static uint64_t region_read(struct bus_region *r, uint64_t offset, unsigned size)
{
	return load_le(checked(r, offset, size)->bytes + offset, size) |
	       ~trunc_bytes(UINT64_MAX, size);
}

static void region_write(struct bus_region *r, uint64_t offset, uint64_t v, unsigned size)
{
	assert(v == trunc_bytes(v, size));
	store_le(checked(r, offset, size)->bytes + offset, v, size);
}

static bool overlaps(const struct fuzz_region *all, uint64_t base, uint64_t len)
{
	for (int i = 0; i < REGIONS; i++)
		if (all[i].len && base < all[i].base + all[i].len && all[i].base < base + len)
			return true;
	return false;
}

static void map(struct bus *b, struct fuzz_region *all, uint64_t origin, struct input *in)
{
	struct fuzz_region *f = &all[next(in) % REGIONS];
	uint64_t base = next(in), len = next(in) % 64;
	unsigned min = 1 << next(in) % 4, max = 1 << next(in) % 4;
	bool sound = min <= max && len && len % min == 0 && base + len <= SPACE;
	int r;

	if (f->len || (base + len > SPACE && origin < UINT64_MAX - 2 * SPACE))
		return;
	f->region = (struct bus_region){"fuzz", min, max, region_read, region_write};
	r = bus_map(b, BUS_MMIO, origin + base, len, &f->region, NULL);
	assert((r == 0) == (sound && !overlaps(all, base, len)));
	if (r == 0) {
		f->base = base;
		f->len = len;
		f->min = min;
		f->max = max;
	}
}

static void unmap(struct bus *b, struct fuzz_region *f)
{
	bus_unmap(b, &f->region);
	f->len = 0;
}

/* The byte behind an address, or NULL. */
static uint8_t *cell(struct fuzz_region *all, uint64_t at)
{
	for (int i = 0; i < REGIONS; i++)
		if (all[i].len && at >= all[i].base && at - all[i].base < all[i].len)
			return all[i].bytes + (at - all[i].base);
	return NULL;
}

static void access(struct bus *b, struct fuzz_region *all, uint64_t origin, struct input *in)
{
	unsigned size = 1 << next(in) % 4;
	uint64_t at = next(in), v = next(in) * UINT64_C(0x0123456789abcdef);

	bus_write(b, BUS_MMIO, origin + at, v, size);
	for (unsigned i = 0; i < size; i++) {
		/* at + i past SPACE: nothing is mapped there. */
		uint8_t *c = cell(all, at + i);

		assert(!c || *c == (uint8_t)(v >> i * 8));
	}
	v = bus_read(b, BUS_MMIO, origin + at, size);
	for (unsigned i = 0; i < size; i++) {
		uint8_t *c = cell(all, at + i);

		assert((uint8_t)(v >> i * 8) == (c ? *c : 0xff));
	}
	assert(v == trunc_bytes(v, size));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, size};
	struct fuzz_region all[REGIONS] = {0};
	/* At both ends of the space, and in the middle. */
	const uint64_t origins[] = {0, UINT64_MAX - SPACE + 1, 0xfee00000};
	uint64_t origin = origins[next(&in) % 3];
	struct bus *b = NULL;

	if (bus_new(&b, NULL) < 0)
		abort();
	for (int i = 0; i < REGIONS; i++)
		all[i].bytes = cells[i];
	while (in.left) {
		switch (next(&in) % 8) {
		case 0:
		case 1: map(b, all, origin, &in); break;
		case 2: unmap(b, &all[next(&in) % REGIONS]); break;
		default: access(b, all, origin, &in);
		}
	}
	bus_free(b);
	return 0;
}
