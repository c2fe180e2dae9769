#include "bus/bus.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/test.h"

/* A region of plain bytes which notes each call as "r4@8 " or "w1@3=7f ". */
struct ram_region {
	struct bus_region region;
	uint8_t bytes[64];
	char log[256];
};

static uint64_t ram_read(struct bus_region *r, uint64_t offset, unsigned size)
{
	struct ram_region *m = container_of(r, struct ram_region, region);
	size_t n = strlen(m->log);

	snprintf(m->log + n, sizeof m->log - n, "r%u@%u ", size, (unsigned)offset);
	return load_le(m->bytes + offset, size) | ~trunc_bytes(UINT64_MAX, size);
}

static void ram_write(struct bus_region *r, uint64_t offset, uint64_t v, unsigned size)
{
	struct ram_region *m = container_of(r, struct ram_region, region);
	size_t n = strlen(m->log);

	snprintf(m->log + n, sizeof m->log - n, "w%u@%u=%llx ", size, (unsigned)offset,
		 (unsigned long long)v);
	store_le(m->bytes + offset, v, size);
}

/* Byte i holds i. */
static struct ram_region ram_region(unsigned min, unsigned max)
{
	struct ram_region m = {.region = {"ram", min, max, ram_read, ram_write}};

	for (unsigned i = 0; i < sizeof m.bytes; i++)
		m.bytes[i] = i;
	return m;
}

static struct bus *new_bus(void)
{
	struct bus *b = NULL;
	struct err e;

	assert_int_equal(bus_new(&b, &e), 0);
	return b;
}

static void map(struct bus *b, uint64_t base, uint64_t len, struct ram_region *m)
{
	struct err e;

	assert_int_equal(bus_map(b, BUS_MMIO, base, len, &m->region, &e), 0);
}

static void an_access_reaches_its_region_at_its_offset(void **unused)
{
	struct bus *b = new_bus();
	struct ram_region m = ram_region(0, 0);

	map(b, 0x1000, 64, &m);
	assert_int_equal(bus_read(b, BUS_MMIO, 0x1008, 8), 0x0f0e0d0c0b0a0908);
	bus_write(b, BUS_MMIO, 0x1004, 0x11223344aabbccdd, 4);
	assert_string_equal(m.log, "r8@8 w4@4=aabbccdd ");
	bus_free(b);
}

static void unclaimed_reads_are_ones_and_writes_vanish(void **unused)
{
	struct bus *b = new_bus();
	struct ram_region m = ram_region(0, 0);

	map(b, 0x1000, 64, &m);
	assert_int_equal(bus_read(b, BUS_MMIO, 0x0, 8), UINT64_MAX);
	assert_int_equal(bus_read(b, BUS_MMIO, 0x1040, 2), 0xffff);
	assert_int_equal(bus_read(b, BUS_PIO, 0x1000, 1), 0xff);
	bus_write(b, BUS_MMIO, 0xfff, 1, 1);
	assert_string_equal(m.log, "");
	bus_free(b);
}

static void a_wide_access_is_split(void **unused)
{
	struct bus *b = new_bus();
	struct ram_region m = ram_region(1, 2);

	map(b, 0x1000, 64, &m);
	assert_int_equal(bus_read(b, BUS_MMIO, 0x1004, 4), 0x07060504);
	bus_write(b, BUS_MMIO, 0x1000, 0xaabbccdd, 4);
	assert_string_equal(m.log, "r2@4 r2@6 w2@0=ccdd w2@2=aabb ");
	bus_free(b);
}

static void a_misaligned_access_is_split_into_aligned_ones(void **unused)
{
	struct bus *b = new_bus();
	struct ram_region m = ram_region(0, 0);

	map(b, 0x1000, 64, &m);
	assert_int_equal(bus_read(b, BUS_MMIO, 0x1003, 8), 0x0a09080706050403);
	assert_string_equal(m.log, "r1@3 r4@4 r2@8 r1@10 ");
	bus_free(b);
}

static void a_narrow_access_is_widened(void **unused)
{
	struct bus *b = new_bus();
	struct ram_region m = ram_region(4, 4);

	map(b, 0x1000, 64, &m);
	assert_int_equal(bus_read(b, BUS_MMIO, 0x1005, 1), 0x05);
	bus_write(b, BUS_MMIO, 0x1006, 0xffee, 2);
	assert_string_equal(m.log, "r4@4 r4@4 w4@4=ffee0504 ");
	bus_free(b);
}

static void an_access_across_a_region_end_is_half_claimed(void **unused)
{
	struct bus *b = new_bus();
	struct ram_region low = ram_region(0, 0), high = ram_region(0, 0);

	map(b, 0x1000, 6, &low);
	map(b, 0x1007, 8, &high);
	assert_int_equal(bus_read(b, BUS_MMIO, 0x1004, 4), 0x00ff0504);
	assert_string_equal(low.log, "r2@4 ");
	assert_string_equal(high.log, "r1@0 ");
	bus_free(b);
}

static void an_access_at_the_end_of_the_space_wraps_harmlessly(void **unused)
{
	struct bus *b = new_bus();
	struct ram_region m = ram_region(0, 0);

	map(b, UINT64_MAX - 63, 64, &m);
	assert_int_equal(bus_read(b, BUS_MMIO, UINT64_MAX - 1, 4), 0xffff3f3e);
	bus_free(b);
}

static void overlaps_are_refused_by_name(void **unused)
{
	struct bus *b = new_bus();
	struct ram_region m = ram_region(0, 0);
	struct err e;

	map(b, 0x1000, 64, &m);
	assert_int_equal(bus_map(b, BUS_MMIO, 0x103f, 1, &m.region, &e), -EEXIST);
	assert_string_equal(e.text, "map 'ram' at 0x103f+0x1: overlaps 'ram'");
	assert_int_equal(bus_map(b, BUS_MMIO, 0xfff, 2, &m.region, &e), -EEXIST);
	assert_int_equal(bus_map(b, BUS_MMIO, 0, 0x2000, &m.region, &e), -EEXIST);
	map(b, 0x1040, 64, &m);
	map(b, 0xfff, 1, &m);
	bus_free(b);
}

static void unsound_ranges_and_sizes_are_refused(void **unused)
{
	struct bus *b = new_bus();
	struct ram_region m = ram_region(4, 4), odd = ram_region(3, 4), crossed = ram_region(4, 2);
	struct err e;

	assert_int_equal(bus_map(b, BUS_MMIO, 0, 0, &m.region, &e), -EINVAL);
	assert_int_equal(bus_map(b, BUS_MMIO, 0, 6, &m.region, &e), -EINVAL);
	assert_int_equal(bus_map(b, BUS_MMIO, UINT64_MAX - 3, 8, &m.region, &e), -EINVAL);
	assert_int_equal(bus_map(b, BUS_PIO, 0xfffc, 8, &m.region, &e), -EINVAL);
	assert_int_equal(bus_map(b, BUS_MMIO, 0, 4, &odd.region, &e), -EINVAL);
	assert_int_equal(bus_map(b, BUS_MMIO, 0, 4, &crossed.region, &e), -EINVAL);
	bus_free(b);
}

static void unmap_takes_all_places_of_a_region_and_no_other(void **unused)
{
	struct bus *b = new_bus();
	struct ram_region gone = ram_region(0, 0), stays = ram_region(0, 0);

	map(b, 0x3000, 64, &gone);
	map(b, 0x1000, 64, &gone);
	map(b, 0x2000, 64, &stays);
	bus_unmap(b, &gone.region);
	assert_int_equal(bus_read(b, BUS_MMIO, 0x1001, 1), 0xff);
	assert_int_equal(bus_read(b, BUS_MMIO, 0x3001, 1), 0xff);
	assert_int_equal(bus_read(b, BUS_MMIO, 0x2001, 1), 0x01);
	bus_free(b);
}

static void the_table_has_a_limit_that_unmapping_frees(void **unused)
{
	struct bus *b = new_bus();
	struct ram_region m = ram_region(0, 0);
	struct err e;

	for (unsigned i = 0; i < 1024; i++)
		map(b, i * 0x1000, 1, &m);
	assert_int_equal(bus_map(b, BUS_MMIO, 0x800000, 1, &m.region, &e), -ENOSPC);
	bus_unmap(b, &m.region);
	map(b, 0x800000, 1, &m);
	bus_free(b);
}

static uint64_t quiet_read(struct bus_region *r, uint64_t offset, unsigned size)
{
	return 0x5a;
}

static struct bus_region fixed = {.name = "fixed", .read = quiet_read};

struct reader {
	struct bus *b;
	unsigned wrong;
	_Atomic bool stop;
};

static void *read_on(void *arg)
{
	struct reader *r = arg;

	while (!r->stop)
		if (bus_read(r->b, BUS_MMIO, 0x8000, 1) != 0x5a)
			r->wrong++;
	return NULL;
}

static void look_ups_hold_while_other_regions_move(void **unused)
{
	/* Below the fixed one, so that each update moves its route in the table. */
	struct bus_region moving[6];
	struct reader arg = {.b = new_bus()};
	pthread_t t;
	struct err e;

	assert_int_equal(bus_map(arg.b, BUS_MMIO, 0x8000, 1, &fixed, &e), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(moving); i++)
		moving[i] = (struct bus_region){.name = "moving"};
	pthread_create(&t, NULL, read_on, &arg);
	for (int round = 0; round < 20000; round++) {
		struct bus_region *r = &moving[round % ARRAY_SIZE(moving)];

		bus_unmap(arg.b, r);
		assert_int_equal(bus_map(arg.b, BUS_MMIO, 0x10 * (round % 64), 16, r, &e), 0);
	}
	arg.stop = true;
	pthread_join(t, NULL);
	assert_int_equal(arg.wrong, 0);
	bus_free(arg.b);
}

struct watch {
	struct bus_watcher watcher;
	char log[256];
};

static void note_place(struct bus_watcher *w, const char *what, enum bus_space s, uint64_t base)
{
	struct watch *x = container_of(w, struct watch, watcher);
	size_t n = strlen(x->log);

	snprintf(x->log + n, sizeof x->log - n, "%s%s%x ", what, s == BUS_PIO ? "io " : "",
		 (unsigned)base);
}

static void note_mapped(struct bus_watcher *w, enum bus_space s, uint64_t base,
			const struct bus_region *r)
{
	note_place(w, "+", s, base);
}

static void note_unmapped(struct bus_watcher *w, enum bus_space s, uint64_t base,
			  const struct bus_region *r)
{
	note_place(w, "-", s, base);
}

static void a_watcher_sees_regions_with_events_come_and_go(void **unused)
{
	static const struct bus_event event = {8, -1};
	struct watch w = {{note_mapped, note_unmapped}, ""};
	struct ram_region early = ram_region(1, 8), plain = ram_region(1, 8), r = ram_region(1, 8);
	struct bus *b = new_bus();

	early.region.events = r.region.events = &event;
	early.region.event_count = r.region.event_count = 1;
	map(b, 0x1000, 64, &early);
	map(b, 0x2000, 64, &plain);
	bus_watch(b, &w.watcher);
	assert_string_equal(w.log, "+1000 ");
	map(b, 0x3000, 64, &r);
	assert_int_equal(bus_map(b, BUS_PIO, 0x40, 64, &r.region, NULL), 0);
	map(b, 0x4000, 64, &plain);
	assert_int_equal(bus_map(b, BUS_MMIO, 0x1000, 64, &r.region, NULL), -EEXIST);
	bus_unmap(b, &plain.region);
	bus_unmap(b, &r.region);
	assert_string_equal(w.log, "+1000 +3000 +io 40 -io 40 -3000 ");
	bus_watch(b, NULL);
	bus_unmap(b, &early.region);
	assert_string_equal(w.log, "+1000 +3000 +io 40 -io 40 -3000 ");
	bus_free(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_access_reaches_its_region_at_its_offset),
		cmocka_unit_test(unclaimed_reads_are_ones_and_writes_vanish),
		cmocka_unit_test(a_wide_access_is_split),
		cmocka_unit_test(a_misaligned_access_is_split_into_aligned_ones),
		cmocka_unit_test(a_narrow_access_is_widened),
		cmocka_unit_test(an_access_across_a_region_end_is_half_claimed),
		cmocka_unit_test(an_access_at_the_end_of_the_space_wraps_harmlessly),
		cmocka_unit_test(overlaps_are_refused_by_name),
		cmocka_unit_test(unsound_ranges_and_sizes_are_refused),
		cmocka_unit_test(unmap_takes_all_places_of_a_region_and_no_other),
		cmocka_unit_test(the_table_has_a_limit_that_unmapping_frees),
		cmocka_unit_test(a_watcher_sees_regions_with_events_come_and_go),
		cmocka_unit_test(look_ups_hold_while_other_regions_move),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
