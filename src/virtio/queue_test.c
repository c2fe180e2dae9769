/* queue_test: both ring formats against the driver's side in fake_driver.c. What holds for both
 * is tested with each, by the table in main. */
#include "virtio/queue.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "base/test.h"
#include "virtio/fake_driver.h"

#define RAM        MIB(2)
#define BUF        0x20000 /* where buffers may lie */
#define TABLE      0x30000
#define OUTSIDE    (RAM - 8)
#define SIZE       8
#define EVENT_IDX  VIRTIO_F_EVENT_IDX
#define INDIRECT   VIRTIO_F_INDIRECT_DESC
#define PACKED     VIRTIO_F_RING_PACKED
#define ALL_QUEUES (EVENT_IDX | INDIRECT)

struct bench {
	struct guest_mem *mem;
	struct virtq *q;
	struct fake_driver drv;
	unsigned irqs;
	struct virtq_chain c;
	struct iovec iov[16];
};

static void count_irq(void *ctx, unsigned index)
{
	((struct bench *)ctx)->irqs++;
}

static void set_up_with(struct bench *b, uint64_t features, uint16_t size)
{
	memset(b, 0, sizeof *b);
	assert_int_equal(mem_new(&b->mem, RAM, NULL), 0);
	assert_int_equal(virtq_new(&b->q, b->mem, 0, VIRTQ_SIZE_MAX, count_irq, b, NULL), 0);
	b->drv = fake_driver(b->mem, .size = size, .packed = features & PACKED,
			     .event_idx = features & EVENT_IDX);
	fake_connect(&b->drv, b->q);
	assert_int_equal(virtq_start(b->q, features), 0);
	b->c = (struct virtq_chain){.iov = b->iov, .iov_max = ARRAY_SIZE(b->iov)};
}

static uint64_t format_of(void **state)
{
	return *(const uint64_t *)*state;
}

/* In the format that the test runs with. */
static void set_up(struct bench *b, void **state, uint64_t features)
{
	set_up_with(b, format_of(state) | features, SIZE);
}

static void tear_down(struct bench *b)
{
	virtq_free(b->q);
	mem_free(b->mem);
}

static int pop(struct bench *b)
{
	return virtq_pop(b->q, &b->c);
}

static void answer(struct bench *b, uint32_t written)
{
	virtq_push(b->q, &b->c, written);
	virtq_publish(b->q);
}

static void an_empty_queue_gives_nothing(void **state)
{
	struct bench b;

	set_up(&b, state, 0);
	assert_int_equal(pop(&b), 0);
	tear_down(&b);
}

static void a_chain_arrives_in_pieces_and_goes_back_with_its_length(void **state)
{
	struct bench b;
	struct fake_used u;
	int id;

	set_up(&b, state, 0);
	id = fake_add(&b.drv, FAKE_OUT(BUF, 16), FAKE_OUT(BUF + 64, 3), FAKE_IN(BUF + 128, 512));
	assert_int_equal(pop(&b), 1);
	assert_int_equal(b.c.out, 2);
	assert_int_equal(b.c.in, 1);
	assert_int_equal(b.c.out_len, 19);
	assert_int_equal(b.c.in_len, 512);
	assert_ptr_equal(b.iov[1].iov_base, fake_at(&b.drv, BUF + 64, 3));
	assert_int_equal(b.iov[2].iov_len, 512);
	assert_int_equal(pop(&b), 0);

	virtq_push(b.q, &b.c, 500);
	assert_false(fake_take(&b.drv, &u)); /* not before it is published */
	virtq_publish(b.q);
	assert_true(fake_take(&b.drv, &u));
	assert_int_equal(u.id, id);
	assert_int_equal(u.len, 500);
	assert_int_equal(b.irqs, 1);
	tear_down(&b);
}

static void the_ring_turns_over_many_times(void **state)
{
	struct bench b;
	struct fake_used u;

	set_up(&b, state, EVENT_IDX);
	for (unsigned i = 0; i < 70000; i++) {
		unsigned n = 1 + i % 3;
		const struct fake_buf buf[] = {FAKE_OUT(BUF, 1 + i % 100), FAKE_IN(BUF, 1),
					       FAKE_IN(BUF, 1)};

		assert_true(fake_add_chain(&b.drv, buf, n) >= 0);
		assert_true(fake_wants_kick(&b.drv));
		fake_irq_after(&b.drv, 1);
		assert_int_equal(pop(&b), 1);
		assert_int_equal(b.c.out_len, 1 + i % 100);
		assert_int_equal(b.c.out + b.c.in, n);
		assert_false(virtq_kicks_on(b.q));
		answer(&b, i);
		assert_int_equal(b.irqs, i + 1);
		assert_true(fake_take(&b.drv, &u));
		assert_int_equal(u.len, i);
	}
	tear_down(&b);
}

static void chains_may_be_answered_in_any_order(void **state)
{
	static const unsigned order[] = {2, 0, 3, 1};
	struct bench b;
	struct virtq_chain c[4];
	struct fake_used u;

	set_up(&b, state, 0);
	for (unsigned turn = 0; turn < 50; turn++) {
		int id[4];

		for (unsigned i = 0; i < 4; i++) {
			const struct fake_buf buf[] = {FAKE_OUT(BUF, 1), FAKE_IN(BUF, 1)};

			id[i] = fake_add_chain(&b.drv, buf, 1 + i % 2);
			assert_true(id[i] >= 0);
			assert_int_equal(pop(&b), 1);
			c[i] = b.c;
		}
		for (unsigned i = 0; i < 4; i++)
			virtq_push(b.q, &c[order[i]], order[i]);
		virtq_publish(b.q);
		for (unsigned i = 0; i < 4; i++) {
			assert_true(fake_take(&b.drv, &u));
			assert_int_equal(u.id, id[order[i]]);
			assert_int_equal(u.len, order[i]);
		}
	}
	tear_down(&b);
}

static void what_is_taken_back_is_popped_again(void **state)
{
	struct bench b;
	struct virtq_chain first;

	set_up(&b, state, 0);
	for (unsigned turn = 0; turn < 20; turn++) {
		struct fake_used u;

		fake_add(&b.drv, FAKE_OUT(BUF, 1), FAKE_OUT(BUF, 1), FAKE_OUT(BUF, 1));
		fake_add(&b.drv, FAKE_OUT(BUF, 1), FAKE_IN(BUF, 9));
		assert_int_equal(pop(&b), 1);
		first = b.c;
		assert_int_equal(pop(&b), 1);
		virtq_unpop(b.q, &b.c);
		virtq_unpop(b.q, &first);
		assert_int_equal(pop(&b), 1);
		assert_int_equal(b.c.id, first.id);
		answer(&b, 0);
		assert_int_equal(pop(&b), 1);
		assert_int_equal(b.c.in_len, 9);
		answer(&b, 0);
		assert_true(fake_take(&b.drv, &u) && fake_take(&b.drv, &u));
	}
	tear_down(&b);
}

static void an_indirect_table_is_one_entry(void **state)
{
	struct bench b;
	struct fake_used u;

	set_up(&b, state, INDIRECT);
	for (unsigned turn = 0; turn < 3; turn++) {
		for (unsigned i = 0; i < SIZE; i++)
			assert_true(fake_add_indirect(&b.drv, TABLE + i * 0x100 + 4,
						      FAKE_OUT(BUF, 10), FAKE_OUT(BUF, 20),
						      FAKE_IN(BUF, 30)) >= 0);
		for (unsigned i = 0; i < SIZE; i++) {
			assert_int_equal(pop(&b), 1);
			assert_int_equal(b.c.out, 2);
			assert_int_equal(b.c.out_len, 30);
			assert_int_equal(b.c.in_len, 30);
			answer(&b, 7);
		}
		for (unsigned i = 0; i < SIZE; i++)
			assert_true(fake_take(&b.drv, &u));
	}
	tear_down(&b);
}

static void empty_pieces_are_left_out(void **state)
{
	struct bench b;

	set_up(&b, state, 0);
	fake_add(&b.drv, FAKE_OUT(BUF, 0), FAKE_OUT(BUF, 4), FAKE_IN(BUF, 0));
	assert_int_equal(pop(&b), 1);
	assert_int_equal(b.c.out, 1);
	assert_int_equal(b.c.in, 0);
	tear_down(&b);
}

struct watch {
	struct mem_watch watch;
	gpa_t last;
	unsigned writes;
};

static void note_write(struct mem_watch *w, gpa_t gpa)
{
	struct watch *x = container_of(w, struct watch, watch);

	x->last = gpa;
	x->writes++;
}

static void what_was_written_is_told_to_the_memory(void **state)
{
	struct bench b;
	struct watch w = {.watch.written = note_write};

	set_up(&b, state, 0);
	mem_watch(b.mem, &w.watch);
	for (gpa_t page = BUF; page < BUF + 0x4000; page += 0x1000)
		mem_mark(b.mem, page);
	fake_add(&b.drv, FAKE_OUT(BUF, 8), FAKE_IN(BUF + 0x1000, 8), FAKE_IN(BUF + 0x2000, 8),
		 FAKE_IN(BUF + 0x3000, 8));
	assert_int_equal(pop(&b), 1);
	answer(&b, 9); /* a byte of the second piece */
	assert_int_equal(w.writes, 2);
	assert_int_equal(w.last, BUF + 0x2000);
	mem_watch(b.mem, NULL);
	tear_down(&b);
}

/* --- kicks and interrupts --- */

static void the_driver_kicks_only_while_it_should(void **state)
{
	struct bench b;

	set_up(&b, state, 0);
	fake_add(&b.drv, FAKE_OUT(BUF, 1));
	assert_true(fake_wants_kick(&b.drv));
	virtq_kicks_off(b.q);
	fake_add(&b.drv, FAKE_OUT(BUF, 1));
	assert_false(fake_wants_kick(&b.drv));
	assert_true(virtq_kicks_on(b.q)); /* it came meanwhile */
	assert_int_equal(pop(&b), 1);
	assert_int_equal(pop(&b), 1);
	assert_false(virtq_kicks_on(b.q));
	fake_add(&b.drv, FAKE_OUT(BUF, 1));
	assert_true(fake_wants_kick(&b.drv));
	tear_down(&b);
}

static void with_event_index_one_kick_is_wanted_after_each_look(void **state)
{
	struct bench b;

	set_up(&b, state, EVENT_IDX);
	fake_add(&b.drv, FAKE_OUT(BUF, 1));
	assert_true(fake_wants_kick(&b.drv));
	virtq_kicks_off(b.q);
	fake_add(&b.drv, FAKE_OUT(BUF, 1));
	assert_false(fake_wants_kick(&b.drv));
	assert_int_equal(pop(&b), 1);
	assert_int_equal(pop(&b), 1);
	assert_false(virtq_kicks_on(b.q));
	fake_add(&b.drv, FAKE_OUT(BUF, 1), FAKE_OUT(BUF, 1));
	assert_true(fake_wants_kick(&b.drv));
	tear_down(&b);
}

static void the_driver_is_interrupted_only_while_it_wants(void **state)
{
	struct bench b;

	set_up(&b, state, 0);
	fake_irq_off(&b.drv);
	fake_add(&b.drv, FAKE_OUT(BUF, 1));
	fake_add(&b.drv, FAKE_OUT(BUF, 1));
	assert_int_equal(pop(&b), 1);
	answer(&b, 0);
	assert_int_equal(b.irqs, 0);
	fake_irq_on(&b.drv);
	assert_int_equal(pop(&b), 1);
	answer(&b, 0);
	assert_int_equal(b.irqs, 1);
	virtq_publish(b.q); /* nothing new */
	assert_int_equal(b.irqs, 1);
	tear_down(&b);
}

static void with_event_index_an_interrupt_comes_when_the_place_is_passed(void **state)
{
	struct bench b;
	struct fake_used u;
	unsigned irqs = 0;

	set_up(&b, state, EVENT_IDX);
	for (unsigned turn = 0; turn < 100; turn++) {
		fake_irq_after(&b.drv, 3);
		for (unsigned i = 0; i < 5; i++)
			fake_add(&b.drv, FAKE_OUT(BUF, 1));
		for (unsigned i = 0; i < 5; i++) {
			assert_int_equal(pop(&b), 1);
			answer(&b, 0);
			irqs += i == 2;
			assert_int_equal(b.irqs, irqs);
		}
		while (fake_take(&b.drv, &u))
			;
	}
	tear_down(&b);
}

static void a_batch_costs_one_interrupt(void **state)
{
	struct bench b;

	set_up(&b, state, EVENT_IDX);
	fake_irq_after(&b.drv, 2);
	for (unsigned i = 0; i < SIZE; i++)
		fake_add(&b.drv, FAKE_OUT(BUF, 1));
	while (pop(&b) > 0)
		virtq_push(b.q, &b.c, 0);
	virtq_publish(b.q);
	assert_int_equal(b.irqs, 1);
	tear_down(&b);
}

/* --- mistakes --- */

static void refuses(void **state, uint64_t features, const struct fake_desc *d, unsigned n)
{
	struct bench b;

	set_up(&b, state, features);
	for (unsigned i = 0; i < n; i++)
		fake_write_desc(&b.drv, i, &d[i]);
	fake_show(&b.drv, 0, n);
	assert_int_equal(pop(&b), -EBADMSG);
	tear_down(&b);
}
#define REFUSES(features, ...)                                                                     \
	refuses(state, features, (const struct fake_desc[]){__VA_ARGS__},                          \
		ARRAY_SIZE(((const struct fake_desc[]){__VA_ARGS__})))
#define D(...)                                                                                     \
	{                                                                                          \
		__VA_ARGS__                                                                        \
	}

static void a_chain_outside_of_ram_is_refused(void **state)
{
	REFUSES(0, D(.addr = OUTSIDE, .len = 9));
	REFUSES(0, D(.addr = UINT64_MAX - 3, .len = 8));
	REFUSES(0, D(.addr = BUF, .len = UINT32_MAX));
}

static void a_chain_that_loops_is_refused(void **state)
{
	static const uint32_t lens[] = {8, 0};

	for (unsigned k = 0; k < ARRAY_SIZE(lens); k++) {
		struct bench b;

		set_up(&b, state, 0);
		for (unsigned i = 0; i < SIZE; i++)
			fake_desc(&b.drv, i, .addr = BUF, .len = lens[k], .flags = FAKE_NEXT,
				  .next = i ^ 1);
		fake_show(&b.drv, 0, SIZE);
		assert_int_equal(pop(&b), -EBADMSG);
		tear_down(&b);
	}
}

static void reading_after_writing_is_refused(void **state)
{
	REFUSES(0, D(.addr = BUF, .len = 1, .flags = FAKE_WRITE | FAKE_NEXT, .next = 1),
		D(.addr = BUF, .len = 1));
}

static void a_chain_of_more_pieces_than_there_is_room_for_is_refused(void **state)
{
	struct bench b;

	set_up(&b, state, 0);
	b.c.iov_max = 2;
	fake_add(&b.drv, FAKE_OUT(BUF, 1), FAKE_OUT(BUF, 1), FAKE_OUT(BUF, 1));
	assert_int_equal(pop(&b), -EBADMSG);
	tear_down(&b);
}

static void a_bad_indirect_table_is_refused(void **state)
{
	REFUSES(0, D(.addr = TABLE, .len = 16, .flags = FAKE_INDIRECT)); /* not agreed on */
	REFUSES(INDIRECT, D(.addr = TABLE, .len = 0, .flags = FAKE_INDIRECT));
	REFUSES(INDIRECT, D(.addr = TABLE, .len = 17, .flags = FAKE_INDIRECT));
	REFUSES(INDIRECT, D(.addr = OUTSIDE, .len = 16, .flags = FAKE_INDIRECT));
	REFUSES(INDIRECT,
		D(.addr = TABLE, .len = 16 * (VIRTQ_IOV_MAX + 1), .flags = FAKE_INDIRECT));
	REFUSES(INDIRECT,
		D(.addr = TABLE, .len = 16, .flags = FAKE_INDIRECT | FAKE_NEXT, .next = 1),
		D(.addr = BUF, .len = 1));
}

static void an_indirect_table_within_another_is_refused(void **state)
{
	struct bench b;
	struct fake_driver inner;

	set_up(&b, state, INDIRECT);
	inner = b.drv;
	inner.desc = TABLE;
	fake_desc(&inner, 0, .addr = TABLE, .len = 16, .flags = FAKE_INDIRECT);
	fake_desc(&b.drv, 0, .addr = TABLE, .len = 16, .flags = FAKE_INDIRECT);
	fake_show(&b.drv, 0, 1);
	if (b.drv.packed) /* there the flag means nothing, and the piece is what it points to */
		assert_int_equal(pop(&b), 1);
	else
		assert_int_equal(pop(&b), -EBADMSG);
	tear_down(&b);
}

static void more_chains_than_entries_are_refused(void **state)
{
	struct bench b;

	set_up(&b, state, 0);
	for (unsigned i = 0; i < SIZE; i++) {
		fake_add(&b.drv, FAKE_OUT(BUF, 1));
		assert_int_equal(pop(&b), 1);
	}
	b.drv.avail_wrap = !b.drv.packed || b.drv.avail_wrap;
	fake_desc(&b.drv, 0, .addr = BUF, .len = 1);
	fake_show(&b.drv, 0, 1);
	assert_int_equal(pop(&b), -EBADMSG);
	tear_down(&b);
}

static void a_split_ring_refuses_a_head_outside_of_the_table(void **state)
{
	struct bench b;

	set_up_with(&b, 0, SIZE);
	fake_show(&b.drv, SIZE, 1);
	assert_int_equal(pop(&b), -EBADMSG);
	tear_down(&b);
}

static void a_split_ring_refuses_an_index_that_jumps(void **state)
{
	struct bench b;

	set_up_with(&b, 0, SIZE);
	b.drv.avail = SIZE;
	fake_show(&b.drv, 0, 1);
	assert_int_equal(pop(&b), -EBADMSG);
	tear_down(&b);
}

static void a_split_chain_may_end_in_an_indirect_table(void **state)
{
	struct bench b;
	struct fake_driver inner;

	set_up_with(&b, INDIRECT, SIZE);
	inner = b.drv;
	inner.desc = TABLE;
	fake_desc(&inner, 0, .addr = BUF, .len = 5, .flags = FAKE_WRITE);
	fake_desc(&b.drv, 0, .addr = BUF, .len = 1, .flags = FAKE_NEXT, .next = 3);
	fake_desc(&b.drv, 3, .addr = TABLE, .len = 16, .flags = FAKE_INDIRECT);
	fake_show(&b.drv, 0, 1);
	assert_int_equal(pop(&b), 1);
	assert_int_equal(b.c.out_len, 1);
	assert_int_equal(b.c.in_len, 5);
	tear_down(&b);
}

static void a_packed_chain_does_not_end_in_an_indirect_table(void **state)
{
	static const uint64_t packed = PACKED;
	void *prestate = (void *)&packed;

	state = &prestate;
	REFUSES(INDIRECT, D(.addr = BUF, .len = 1, .flags = FAKE_NEXT),
		D(.addr = TABLE, .len = 16, .flags = FAKE_INDIRECT));
}

static void misplaced_rings_are_refused(void **state)
{
	struct bench b;
	struct virtq_setup *s, good;

	set_up(&b, state, 0);
	s = virtq_setup(b.q);
	good = *s;
	virtq_stop(b.q);
#define WITH(field, v)                                                                             \
	do {                                                                                       \
		*s = good;                                                                         \
		s->field = v;                                                                      \
		assert_int_equal(virtq_start(b.q, format_of(state)), -EBADMSG);                    \
		assert_int_equal(pop(&b), 0);                                                      \
	} while (0)
	WITH(enabled, false);
	WITH(size, 0);
	WITH(size, VIRTQ_SIZE_MAX + 1);
	WITH(desc, good.desc + 8);
	WITH(desc, RAM - 16);
	WITH(driver, good.driver + 1);
	WITH(driver, RAM - 2);
	WITH(device, good.device + 2);
	WITH(device, RAM);
#undef WITH
	*s = good;
	assert_int_equal(virtq_start(b.q, format_of(state)), 0);
	tear_down(&b);
}

static void split_rings_have_a_power_of_two_entries_and_packed_ones_any_number(void **state)
{
	struct bench b;
	struct fake_used u;

	set_up_with(&b, 0, SIZE);
	virtq_setup(b.q)->size = 7;
	assert_int_equal(virtq_start(b.q, 0), -EBADMSG);
	tear_down(&b);

	set_up_with(&b, PACKED, 7);
	for (unsigned i = 0; i < 100; i++) {
		fake_add(&b.drv, FAKE_OUT(BUF, 1), FAKE_OUT(BUF, 1));
		assert_int_equal(pop(&b), 1);
		answer(&b, i);
		assert_true(fake_take(&b.drv, &u));
		assert_int_equal(u.len, i);
	}
	tear_down(&b);
}

/* --- pause --- */

static void a_queue_goes_on_where_it_was_stopped(void **state)
{
	struct bench b;
	struct fake_used u;

	set_up(&b, state, ALL_QUEUES);
	for (unsigned i = 0; i < 30; i++) {
		fake_add(&b.drv, FAKE_OUT(BUF, 1), FAKE_IN(BUF, 1), FAKE_IN(BUF, i + 1));
		virtq_stop(b.q);
		assert_int_equal(pop(&b), 0);
		assert_int_equal(virtq_start(b.q, format_of(state) | ALL_QUEUES), 0);
		assert_int_equal(pop(&b), 1);
		assert_int_equal(b.c.in_len, i + 2);
		virtq_push(b.q, &b.c, i);
		virtq_stop(b.q); /* publishes */
		assert_true(fake_take(&b.drv, &u));
		assert_int_equal(u.len, i);
		assert_int_equal(virtq_start(b.q, format_of(state) | ALL_QUEUES), 0);
	}
	tear_down(&b);
}

static void walk(struct bench *b, struct state *s)
{
	state_begin(s, "queue", 0);
	virtq_state(b->q, s);
	state_end(s);
}

static void a_loaded_queue_goes_on_where_it_was_saved(void **state)
{
	struct bench b;
	struct virtq *saved;
	struct state *w = state_writer(), *r;
	const void *bytes;
	size_t len;

	set_up(&b, state, 0);
	for (unsigned i = 0; i < 11; i++) {
		struct fake_used u;

		fake_add(&b.drv, FAKE_OUT(BUF, 1));
		assert_int_equal(pop(&b), 1);
		answer(&b, 0);
		assert_true(fake_take(&b.drv, &u));
	}
	fake_add(&b.drv, FAKE_OUT(BUF, 77));
	virtq_stop(b.q);
	walk(&b, w);
	bytes = state_written(w, &len);

	saved = b.q;
	assert_int_equal(virtq_new(&b.q, b.mem, 0, VIRTQ_SIZE_MAX, count_irq, &b, NULL), 0);
	r = state_reader(bytes, len);
	walk(&b, r);
	assert_int_equal(state_result(r, NULL), 0);
	assert_int_equal(virtq_start(b.q, format_of(state)), 0);
	assert_int_equal(pop(&b), 1);
	assert_int_equal(b.c.out_len, 77);
	state_free(r);
	state_free(w);
	virtq_free(saved);
	tear_down(&b);
}

static void hostile_positions_do_not_start(void **state)
{
	struct bench b;
	const void *bytes;
	struct state *w = state_writer(), *r;
	size_t len;

	set_up_with(&b, PACKED, SIZE);
	for (unsigned i = 0; i < 3; i++)
		fake_add(&b.drv, FAKE_OUT(BUF, 1));
	while (pop(&b) > 0)
		answer(&b, 0);
	virtq_stop(b.q);
	virtq_setup(b.q)->size = 2; /* both positions are 3 */
	walk(&b, w);
	bytes = state_written(w, &len);
	r = state_reader(bytes, len);
	walk(&b, r);
	assert_int_equal(state_result(r, NULL), 0);
	assert_int_equal(virtq_start(b.q, PACKED), -EBADMSG);
	state_free(r);
	state_free(w);
	tear_down(&b);
}

/* --- two threads --- */

#define RACE_CHAINS 200000u

struct race {
	struct bench b;
	atomic_uint kicks, seen_kicks;
	atomic_bool done;
};

/* The device sleeps when it finds nothing, until a kick comes; a lost wake-up is a hang here. */
static void *race_device(void *arg)
{
	struct race *r = arg;
	uint32_t expect = 0;

	while (expect < RACE_CHAINS) {
		virtq_kicks_off(r->b.q);
		do {
			while (pop(&r->b) > 0) {
				uint32_t v;

				memcpy(&v, r->b.iov[0].iov_base, 4);
				if (v != expect++)
					abort();
				virtq_push(r->b.q, &r->b.c, v);
			}
			virtq_publish(r->b.q);
		} while (virtq_kicks_on(r->b.q));
		while (expect < RACE_CHAINS &&
		       atomic_load(&r->kicks) == atomic_load(&r->seen_kicks))
			sched_yield();
		atomic_store(&r->seen_kicks, atomic_load(&r->kicks));
	}
	return NULL;
}

static void no_chain_is_lost_between_two_threads(void **state)
{
	static const uint64_t features[] = {0, EVENT_IDX};

	for (unsigned f = 0; f < ARRAY_SIZE(features); f++) {
		struct race *r = calloc(1, sizeof *r);
		uint32_t added = 0, taken = 0;
		pthread_t device;

		set_up(&r->b, state, features[f]);
		assert_int_equal(pthread_create(&device, NULL, race_device, r), 0);
		while (taken < RACE_CHAINS) {
			struct fake_used u;

			while (added < RACE_CHAINS && added - taken < SIZE) {
				gpa_t at = BUF + added % SIZE * 64;

				memcpy(fake_at(&r->b.drv, at, 4), &added, 4);
				assert_true(fake_add(&r->b.drv, FAKE_OUT(at, 4)) >= 0);
				added++;
			}
			if (fake_wants_kick(&r->b.drv))
				atomic_fetch_add(&r->kicks, 1);
			while (fake_take(&r->b.drv, &u))
				assert_int_equal(u.len, taken++);
			sched_yield();
		}
		pthread_join(device, NULL);
		tear_down(&r->b);
		free(r);
	}
}

int main(void)
{
	static const uint64_t split = 0, packed = PACKED;
#define BOTH(f)                                                                                    \
	cmocka_unit_test_prestate(f, (void *)&split), cmocka_unit_test_prestate(f, (void *)&packed)
	const struct CMUnitTest tests[] = {
		BOTH(an_empty_queue_gives_nothing),
		BOTH(a_chain_arrives_in_pieces_and_goes_back_with_its_length),
		BOTH(the_ring_turns_over_many_times),
		BOTH(chains_may_be_answered_in_any_order),
		BOTH(what_is_taken_back_is_popped_again),
		BOTH(an_indirect_table_is_one_entry),
		BOTH(empty_pieces_are_left_out),
		BOTH(what_was_written_is_told_to_the_memory),
		BOTH(the_driver_kicks_only_while_it_should),
		BOTH(with_event_index_one_kick_is_wanted_after_each_look),
		BOTH(the_driver_is_interrupted_only_while_it_wants),
		BOTH(with_event_index_an_interrupt_comes_when_the_place_is_passed),
		BOTH(a_batch_costs_one_interrupt),
		BOTH(a_chain_outside_of_ram_is_refused),
		BOTH(a_chain_that_loops_is_refused),
		BOTH(reading_after_writing_is_refused),
		BOTH(a_chain_of_more_pieces_than_there_is_room_for_is_refused),
		BOTH(a_bad_indirect_table_is_refused),
		BOTH(an_indirect_table_within_another_is_refused),
		BOTH(more_chains_than_entries_are_refused),
		cmocka_unit_test(a_split_ring_refuses_a_head_outside_of_the_table),
		cmocka_unit_test(a_split_ring_refuses_an_index_that_jumps),
		cmocka_unit_test(a_split_chain_may_end_in_an_indirect_table),
		cmocka_unit_test(a_packed_chain_does_not_end_in_an_indirect_table),
		BOTH(misplaced_rings_are_refused),
		cmocka_unit_test(
			split_rings_have_a_power_of_two_entries_and_packed_ones_any_number),
		BOTH(a_queue_goes_on_where_it_was_stopped),
		BOTH(a_loaded_queue_goes_on_where_it_was_saved),
		cmocka_unit_test(hostile_positions_do_not_start),
		BOTH(no_chain_is_lost_between_two_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
