#include "virtio/balloon.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/fake_clock.h"
#include "base/test.h"
#include "virtio/fake_driver.h"

#define MUST_TELL BIT(0)
#define STATS     BIT(1)
#define POISON    BIT(4)
#define REPORTING BIT(5)

#define LIST     0x40000 /* page numbers, statistics */
#define PAGES_AT 0x100000

static struct guest_mem *mem;
static struct loop *loop;
static struct fake_clock guest_time;
static struct virtio_device *d;
static struct fake_guest g;

static void start(uint64_t features)
{
	memset(&g, 0, sizeof g);
	fake_guest_start(&g, d, .features = features);
}

static int setup(void **state)
{
	struct virtio_env env;
	struct err e;

	fake_clock_init(&guest_time);
	if (mem_new(&mem, MIB(8), &e) < 0 || loop_new(&loop, &e) < 0)
		return -1;
	/* huge pages would go back only as a whole */
	madvise(mem_span(mem, 0, MIB(8)), MIB(8), MADV_NOHUGEPAGE);
	env = (struct virtio_env){.mem = mem, .loop = loop, .clock = &guest_time.clock};
	return virtio_balloon_new(&d, &env, MIB(2), &e);
}

static int teardown(void **state)
{
	virtio_balloon_type.free(d);
	loop_free(loop);
	mem_free(mem);
	return 0;
}

static uint64_t used_by_host(void)
{
	struct stat st;

	assert_int_equal(fstat(mem_fd(mem), &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

static void fill(gpa_t gpa, uint64_t len)
{
	memset(mem_span(mem, gpa, len), 'x', len);
}

static void put_pfn(unsigned i, uint32_t pfn)
{
	store_le(fake_at(&g.q[0], LIST + 4 * i, 4), pfn, 4);
}

static struct fake_used give(unsigned queue, uint32_t bytes)
{
	struct fake_used u = {0};

	assert_true(fake_add(&g.q[queue], FAKE_OUT(LIST, bytes)) >= 0);
	virtio_kick(d, queue);
	(void)fake_take(&g.q[queue], &u);
	return u;
}

static char byte_at(gpa_t gpa)
{
	return *(char *)mem_span(mem, gpa, 1);
}

static void pages_in_the_balloon_go_back_to_the_host(void **state)
{
	uint64_t before;

	start(MUST_TELL);
	fill(PAGES_AT, 16 * 4096);
	for (unsigned i = 0; i < 8; i++) /* every other one, the last first */
		put_pfn(i, (PAGES_AT >> 12) + 14 - 2 * i);
	before = used_by_host();
	give(0, 8 * 4);
	assert_int_equal(used_by_host(), before - 8 * 4096);
	assert_int_equal(byte_at(PAGES_AT), 0);
	assert_int_equal(byte_at(PAGES_AT + 4095), 0);
	assert_int_equal(byte_at(PAGES_AT + 4096), 'x');
}

static void pages_out_of_the_balloon_may_be_used_again(void **state)
{
	start(MUST_TELL);
	fill(PAGES_AT, 4096);
	put_pfn(0, PAGES_AT >> 12);
	give(0, 4);
	give(1, 4);
	fill(PAGES_AT, 4096);
	assert_int_equal(byte_at(PAGES_AT), 'x');
	assert_false(atomic_load(&d->needs_reset));
}

static void page_numbers_that_are_no_ram_do_nothing(void **state)
{
	static const uint32_t bad[] = {MIB(8) >> 12, 0xc0000,        0xfffff,       0x100000,
				       UINT32_MAX,   UINT32_MAX - 1, PAGES_AT >> 12};

	start(0);
	fill(PAGES_AT, 4096);
	fill(MIB(8) - 4096, 4096);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		put_pfn(i, bad[i]);
	give(0, sizeof bad);
	assert_int_equal(byte_at(PAGES_AT), 0); /* the good one among them */
	assert_int_equal(byte_at(MIB(8) - 1), 'x');
	assert_false(atomic_load(&d->needs_reset));
}

static void lists_that_are_none_break_the_device(void **state)
{
	start(0);
	give(0, 5);
	assert_true(atomic_load(&d->needs_reset));
	virtio_reset(d);
	fake_guest_stop(&g);
	virtio_reset(d);
	start(0);
	assert_true(fake_add(&g.q[0], FAKE_IN(LIST, 4)) >= 0);
	virtio_kick(d, 0);
	assert_true(atomic_load(&d->needs_reset));
	fake_guest_stop(&g);
	virtio_reset(d);
	start(0);
	give(0, 4 * 16385);
	assert_true(atomic_load(&d->needs_reset));
}

static void long_lists_are_taken_whole(void **state)
{
	uint64_t before;

	start(0);
	fill(PAGES_AT, 1000 * 4096);
	for (unsigned i = 0; i < 1000; i++)
		put_pfn(i, (PAGES_AT >> 12) + i);
	before = used_by_host();
	give(0, 4000);
	assert_int_equal(used_by_host(), before - 1000 * 4096);
}

/* Its queue's number depends on which features were agreed on. */
static void free_pages_that_are_reported_go_back(void **state)
{
	static const struct {
		uint64_t features;
		unsigned queue;
	} as[] = {{REPORTING, 2}, {REPORTING | STATS, 3}, {REPORTING | STATS, 4}};
	struct balloon_report r;

	for (unsigned i = 0; i < ARRAY_SIZE(as); i++) {
		struct fake_used u;
		uint64_t before;

		start(as[i].features);
		fill(PAGES_AT, MIB(4));
		before = used_by_host();
		assert_true(fake_add(&g.q[as[i].queue], FAKE_IN(PAGES_AT, MIB(2)),
				     FAKE_IN(PAGES_AT + MIB(3), 4096)) >= 0);
		virtio_kick(d, as[i].queue);
		assert_true(fake_take(&g.q[as[i].queue], &u));
		assert_int_equal(used_by_host(), before - MIB(2) - 4096);
		assert_int_equal(byte_at(PAGES_AT), 0);
		assert_int_equal(byte_at(PAGES_AT + MIB(2)), 'x');
		virtio_balloon_report(d, &r);
		assert_int_equal(r.reported, (i + 1) * (MIB(2) + 4096));
		fake_guest_stop(&g);
		virtio_reset(d);
	}
}

static void poisoned_pages_stay(void **state)
{
	struct fake_used u;

	start(REPORTING | POISON);
	store_le(d->config + 12, 0xaaaaaaaa, 4);
	fill(PAGES_AT, 4096);
	assert_true(fake_add(&g.q[2], FAKE_IN(PAGES_AT, 4096)) >= 0);
	virtio_kick(d, 2);
	assert_true(fake_take(&g.q[2], &u));
	assert_int_equal(byte_at(PAGES_AT), 'x');
}

static void put_stat(unsigned i, unsigned tag, uint64_t v)
{
	uint8_t *at = fake_at(&g.q[2], LIST + 10 * i, 10);

	store_le(at, tag, 2);
	store_le(at + 2, v, 8);
}

static void statistics_are_kept_and_asked_for_again(void **state)
{
	struct balloon_report r;
	struct fake_used u;

	start(STATS);
	virtio_balloon_ask(d); /* before there is anything to ask with */
	put_stat(0, BALLOON_FREE, MIB(100));
	put_stat(1, 77, 1); /* one that we do not know */
	put_stat(2, BALLOON_AVAILABLE, MIB(200));
	assert_true(fake_add(&g.q[2], FAKE_OUT(LIST, 30)) >= 0);
	fake_clock_advance(&guest_time, 1000);
	virtio_kick(d, 2);
	assert_true(fake_take(&g.q[2], &u)); /* it was asked for */
	fake_clock_advance(&guest_time, 5);
	virtio_balloon_report(d, &r);
	assert_true(r.have[BALLOON_FREE] && r.have[BALLOON_AVAILABLE] && !r.have[BALLOON_TOTAL]);
	assert_int_equal(r.stat[BALLOON_FREE], MIB(100));
	assert_int_equal(r.stat[BALLOON_AVAILABLE], MIB(200));
	assert_int_equal(r.age_ns, 5);

	put_stat(0, BALLOON_FREE, MIB(50));
	assert_true(fake_add(&g.q[2], FAKE_OUT(LIST, 30)) >= 0);
	virtio_kick(d, 2);
	virtio_kick(d, 2); /* the same buffer */
	assert_false(fake_take(&g.q[2], &u));
	virtio_balloon_report(d, &r);
	assert_int_equal(r.stat[BALLOON_FREE], MIB(50));
	virtio_balloon_ask(d);
	assert_true(fake_take(&g.q[2], &u));
}

static void the_driver_kicks_with_each_answer(void **state)
{
	struct fake_used u;

	start(STATS | VIRTIO_F_EVENT_IDX);
	for (unsigned i = 0; i < 3; i++) {
		assert_true(fake_add(&g.q[2], FAKE_OUT(LIST, 10)) >= 0);
		assert_true(fake_wants_kick(&g.q[2]));
		virtio_kick(d, 2);
		virtio_balloon_ask(d);
		assert_true(fake_take(&g.q[2], &u));
	}
}

static void the_target_is_in_the_configuration(void **state)
{
	struct balloon_report r;

	start(0);
	assert_int_equal(load_le(d->config, 4), MIB(2) / 4096);
	virtio_balloon_set_target(d, MIB(3) + 5);
	assert_int_equal(load_le(d->config, 4), MIB(3) / 4096);
	assert_int_equal(atomic_load(&g.config_irqs), 1);
	store_le(d->config + 4, 17, 4); /* the driver, on its way there */
	virtio_balloon_report(d, &r);
	assert_int_equal(r.target, MIB(3));
	assert_int_equal(r.actual, 17 * 4096);
	fake_guest_stop(&g);
	virtio_reset(d);
	virtio_balloon_report(d, &r);
	assert_int_equal(r.actual, 0);
	assert_int_equal(r.target, MIB(3));
}

static void statistics_survive_a_pause(void **state)
{
	struct fake_used u;

	start(STATS);
	put_stat(0, BALLOON_FREE, MIB(1));
	assert_true(fake_add(&g.q[2], FAKE_OUT(LIST, 10)) >= 0);
	virtio_kick(d, 2);
	assert_true(fake_guest_stop(&g));
	virtio_start(d);
	virtio_balloon_ask(d);
	assert_true(fake_take(&g.q[2], &u));
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(pages_in_the_balloon_go_back_to_the_host),
		T(pages_out_of_the_balloon_may_be_used_again),
		T(page_numbers_that_are_no_ram_do_nothing),
		T(lists_that_are_none_break_the_device),
		T(long_lists_are_taken_whole),
		T(free_pages_that_are_reported_go_back),
		T(poisoned_pages_stay),
		T(statistics_are_kept_and_asked_for_again),
		T(the_driver_kicks_with_each_answer),
		T(the_target_is_in_the_configuration),
		T(statistics_survive_a_pause),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
