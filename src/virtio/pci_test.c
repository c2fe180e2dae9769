/* pci_test: the transport, as a driver sees it through the bus, with a device whose functions
 * only count, and whose stop may take its time. */
#include "virtio/pci.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "base/io_thread.h"
#include "base/test.h"
#include "chipset/pci.h"
#include "virtio/fake_slot.h"

#define QUEUES     2
#define QUEUE_SIZE 16
#define FEATURE    BIT(3)
#define BUF        0x100000
#define V1         VIRTIO_F_VERSION_1
#define STATUS     0x14

/* Answers each chain with the length of what it read. */
struct echo {
	struct virtio_device vd;
	unsigned starts, stops, resets, kicks[QUEUES], config_writes;
	bool slow; /* stop waits for echo_finish */
};

static struct echo *to_echo(struct virtio_device *d)
{
	return container_of(d, struct echo, vd);
}

static void echo_start(struct virtio_device *d)
{
	to_echo(d)->starts++;
}

static void echo_stop(struct virtio_device *d)
{
	to_echo(d)->stops++;
	if (!to_echo(d)->slow)
		virtio_stopped(d);
}

static void echo_kick(struct virtio_device *d, unsigned n)
{
	struct iovec iov[8];
	struct virtq_chain c = {.iov = iov, .iov_max = 8};
	int r;

	to_echo(d)->kicks[n]++;
	do {
		while ((r = virtq_pop(d->queue[n], &c)) > 0)
			virtq_push(d->queue[n], &c, c.out_len);
		virtq_publish(d->queue[n]);
	} while (r == 0 && virtq_kicks_on(d->queue[n]));
	if (r < 0)
		virtio_broken(d, "a bad chain");
}

static void echo_reset(struct virtio_device *d)
{
	to_echo(d)->resets++;
}

static void echo_config_written(struct virtio_device *d, unsigned offset, unsigned len)
{
	to_echo(d)->config_writes++;
}

static void echo_free(struct virtio_device *d)
{
	virtio_done(d);
	free(to_echo(d));
}

static const struct virtio_type echo_type = {
	.name = "echo",
	.id = 42,
	.pci_class = 0x123456,
	.start = echo_start,
	.stop = echo_stop,
	.kick = echo_kick,
	.reset = echo_reset,
	.config_written = echo_config_written,
	.free = echo_free,
};

struct rig {
	struct fake_slot s;
	struct loop *loop;
	struct echo *echo;
};

static void set_up(struct rig *r, struct loop *loop)
{
	static const uint16_t size[QUEUES] = {QUEUE_SIZE, QUEUE_SIZE};
	struct virtio_env env;

	memset(r, 0, sizeof *r);
	r->loop = NULL;
	if (!loop) {
		assert_int_equal(loop_new(&r->loop, NULL), 0);
		loop = r->loop;
	}
	fake_slot_init(&r->s, loop, &env);
	r->echo = calloc(1, sizeof *r->echo);
	assert_int_equal(virtio_init(&r->echo->vd, &echo_type, &env, FEATURE, QUEUES, size, NULL),
			 0);
	memcpy(r->echo->vd.config, "\1\2\3\4\5\6\7\10\11\12", 10);
	r->echo->vd.config_len = 10;
	r->echo->vd.config_writable = BIT(4) | BIT(5);
	fake_slot_add(&r->s, &r->echo->vd);
	r->echo->resets = 0;
}

static void tear_down(struct rig *r)
{
	fake_slot_done(&r->s);
	loop_free(r->loop);
}

static void settle(struct rig *r)
{
	fake_loop_settle(r->s.loop);
}

static void go(struct rig *r)
{
	fake_slot_go(&r->s, V1 | FEATURE, 0);
	settle(r);
}

static uint8_t status(struct rig *r)
{
	return fake_in(&r->s, STATUS, 1);
}

static void set_status(struct rig *r, uint8_t v)
{
	fake_out(&r->s, STATUS, v, 1);
}

/* --- identity and capabilities --- */

static void the_function_says_what_it_is(void **state)
{
	struct rig r;

	set_up(&r, NULL);
	assert_int_equal(fake_pci_in(&r.s, 0, 4), (0x1040 + 42) << 16 | 0x1af4);
	assert_int_equal(fake_pci_in(&r.s, 8, 4), 0x12345601);
	assert_int_equal(fake_pci_in(&r.s, 0x3d, 1), 1);
	tear_down(&r);
}

/* Offset of the virtio capability of that type. */
static unsigned virtio_cap(struct rig *r, unsigned type)
{
	unsigned cap = fake_pci_in(&r->s, 0x34, 1);

	while (cap && (fake_pci_in(&r->s, cap, 1) != 9 || fake_pci_in(&r->s, cap + 3, 1) != type))
		cap = fake_pci_in(&r->s, cap + 1, 1);
	assert_int_not_equal(cap, 0);
	return cap;
}

static void the_capabilities_say_where_the_registers_are(void **state)
{
	static const struct {
		unsigned type, len, at, size;
	} want[] = {{1, 16, FAKE_COMMON, 64},
		    {2, 20, FAKE_NOTIFY, 4 * QUEUES},
		    {3, 16, FAKE_ISR, 1},
		    {4, 16, FAKE_CONFIG, VIRTIO_CONFIG_MAX}};
	struct rig r;

	set_up(&r, NULL);
	for (unsigned i = 0; i < ARRAY_SIZE(want); i++) {
		unsigned cap = virtio_cap(&r, want[i].type);

		assert_int_equal(fake_pci_in(&r.s, cap + 2, 1), want[i].len);
		assert_int_equal(fake_pci_in(&r.s, cap + 4, 1), 0);
		assert_int_equal(fake_pci_in(&r.s, cap + 8, 4), want[i].at);
		assert_int_equal(fake_pci_in(&r.s, cap + 12, 4), want[i].size);
	}
	assert_int_equal(fake_pci_in(&r.s, virtio_cap(&r, 2) + 16, 4), 4);
	tear_down(&r);
}

static void registers_can_be_reached_through_configuration_space(void **state)
{
	struct rig r;
	unsigned cap;

	set_up(&r, NULL);
	cap = virtio_cap(&r, 5);
	fake_pci_out(&r.s, cap + 8, STATUS, 4);
	fake_pci_out(&r.s, cap + 12, 1, 4);
	fake_pci_out(&r.s, cap + 16, 3, 1);
	assert_int_equal(status(&r), 3);
	assert_int_equal(fake_pci_in(&r.s, cap + 16, 1), 3);
	fake_pci_out(&r.s, cap + 8, FAKE_CONFIG + 4, 4);
	fake_pci_out(&r.s, cap + 12, 4, 4);
	assert_int_equal(fake_pci_in(&r.s, cap + 16, 4), 0x08070605);

	/* Nonsense reaches nothing. */
	fake_pci_out(&r.s, cap + 12, 3, 4);
	fake_pci_out(&r.s, cap + 16, 0, 4);
	fake_pci_out(&r.s, cap + 12, 0, 4);
	fake_pci_out(&r.s, cap + 16, 0, 4);
	fake_pci_out(&r.s, cap + 12, 4, 4);
	fake_pci_out(&r.s, cap + 8, 0xfffffffc, 4);
	fake_pci_out(&r.s, cap + 16, 0, 4);
	fake_pci_out(&r.s, cap + 4, 1, 1);
	fake_pci_out(&r.s, cap + 8, STATUS, 4);
	fake_pci_out(&r.s, cap + 12, 1, 4);
	fake_pci_out(&r.s, cap + 16, 0, 1);
	assert_int_equal(status(&r), 3);
	tear_down(&r);
}

/* --- features and status --- */

static void features_are_offered_in_halves(void **state)
{
	struct rig r;

	set_up(&r, NULL);
	fake_out(&r.s, 0, 0, 4);
	assert_int_equal(fake_in(&r.s, 4, 4),
			 FEATURE | VIRTIO_F_EVENT_IDX | VIRTIO_F_INDIRECT_DESC);
	fake_out(&r.s, 0, 1, 4);
	assert_int_equal(fake_in(&r.s, 4, 4), (V1 | VIRTIO_F_RING_PACKED) >> 32);
	fake_out(&r.s, 0, 2, 4);
	assert_int_equal(fake_in(&r.s, 4, 4), 0);
	tear_down(&r);
}

static void features_that_were_not_offered_are_refused(void **state)
{
	struct rig r;

	set_up(&r, NULL);
	assert_false(fake_slot_agree(&r.s, V1 | BIT(5)));
	assert_int_equal(status(&r), 3);
	set_status(&r, 7); /* DRIVER_OK all the same */
	settle(&r);
	assert_int_equal(status(&r), 3);
	assert_int_equal(r.echo->starts, 0);
	assert_true(fake_slot_agree(&r.s, V1 | FEATURE));
	assert_int_equal(r.echo->vd.features, V1 | FEATURE);
	tear_down(&r);
}

static void a_driver_of_the_old_kind_is_refused(void **state)
{
	struct rig r;

	set_up(&r, NULL);
	assert_false(fake_slot_agree(&r.s, FEATURE));
	tear_down(&r);
}

static void features_are_fixed_once_agreed_on(void **state)
{
	struct rig r;

	set_up(&r, NULL);
	assert_true(fake_slot_agree(&r.s, V1));
	fake_out(&r.s, 8, 0, 4);
	fake_out(&r.s, 12, FEATURE, 4);
	assert_int_equal(fake_in(&r.s, 12, 4), 0);
	set_status(&r, 0xf);
	settle(&r);
	assert_int_equal(r.echo->vd.features, V1);
	tear_down(&r);
}

static void bits_of_the_status_are_cleared_by_a_reset_only(void **state)
{
	struct rig r;

	set_up(&r, NULL);
	set_status(&r, 3);
	set_status(&r, 1);
	assert_int_equal(status(&r), 3);
	set_status(&r, 0x80 | 3);
	assert_int_equal(status(&r), 0x83);
	set_status(&r, 0);
	assert_int_equal(status(&r), 0);
	tear_down(&r);
}

static void hidden_features_are_not_offered(void **state)
{
	static const uint16_t size[] = {8};
	struct rig r;
	struct virtio_device d;
	struct virtio_env env;

	set_up(&r, NULL);
	env = r.echo->vd.env;
	env.hide_features = VIRTIO_F_RING_PACKED | FEATURE | V1;
	assert_int_equal(virtio_init(&d, &echo_type, &env, FEATURE, 1, size, NULL), 0);
	assert_int_equal(d.offered, V1 | VIRTIO_F_EVENT_IDX | VIRTIO_F_INDIRECT_DESC);
	virtio_done(&d);
	tear_down(&r);
}

/* --- queues --- */

static void a_queue_is_set_up_field_by_field(void **state)
{
	struct rig r;

	set_up(&r, NULL);
	assert_int_equal(fake_in(&r.s, 0x12, 2), QUEUES);
	fake_out(&r.s, 0x16, 1, 2);
	assert_int_equal(fake_in(&r.s, 0x18, 2), QUEUE_SIZE);
	assert_int_equal(fake_in(&r.s, 0x1e, 2), 1);
	fake_out(&r.s, 0x18, 8, 2);
	fake_out(&r.s, 0x24, 0x11223344, 4);
	fake_out(&r.s, 0x20, 0x55667788, 4);
	assert_int_equal(fake_in(&r.s, 0x24, 4), 0x11223344);
	fake_out(&r.s, 0x1c, 1, 2);
	fake_out(&r.s, 0x18, 4, 2); /* too late */
	fake_out(&r.s, 0x20, 0, 4);
	fake_out(&r.s, 0x1c, 0, 2);
	assert_int_equal(fake_in(&r.s, 0x18, 2), 8);
	assert_int_equal(fake_in(&r.s, 0x20, 4), 0x55667788);
	assert_int_equal(fake_in(&r.s, 0x1c, 2), 1);
	fake_out(&r.s, 0x16, 0, 2); /* the other one is as it was */
	assert_int_equal(fake_in(&r.s, 0x18, 2), QUEUE_SIZE);
	assert_int_equal(fake_in(&r.s, 0x1c, 2), 0);
	tear_down(&r);
}

static void a_queue_that_is_not_there_has_no_size(void **state)
{
	struct rig r;

	set_up(&r, NULL);
	fake_out(&r.s, 0x16, QUEUES, 2);
	assert_int_equal(fake_in(&r.s, 0x18, 2), 0);
	fake_out(&r.s, 0x18, 4, 2);
	fake_out(&r.s, 0x1a, 0, 2);
	fake_out(&r.s, 0x1c, 1, 2);
	assert_int_equal(fake_in(&r.s, 0x1c, 2), 0);
	fake_out(&r.s, 0x16, 0xffff, 2);
	assert_int_equal(fake_in(&r.s, 0x18, 2), 0);
	fake_slot_kick(&r.s, QUEUES); /* and is not kicked */
	fake_slot_kick(&r.s, 0x3ff);
	settle(&r);
	tear_down(&r);
}

static void a_chain_goes_there_and_back(void **state)
{
	struct rig r;
	struct fake_used u;

	set_up(&r, NULL);
	go(&r);
	assert_int_equal(r.echo->starts, 1);
	for (unsigned i = 1; i <= 40; i++) {
		fake_add(&r.s.q[1], FAKE_OUT(BUF, i));
		fake_slot_kick(&r.s, 1);
		settle(&r);
		assert_true(fake_take(&r.s.q[1], &u));
		assert_int_equal(u.len, i);
	}
	assert_int_equal(r.echo->kicks[1], 1 + 40); /* one of them by the start */
	assert_int_equal(r.echo->kicks[0], 1);
	tear_down(&r);
}

static void kicks_before_the_device_looks_are_one(void **state)
{
	struct rig r;

	set_up(&r, NULL);
	go(&r);
	for (unsigned i = 0; i < 100; i++)
		fake_slot_kick(&r.s, 0);
	settle(&r);
	assert_int_equal(r.echo->kicks[0], 2);
	fake_slot_kick(&r.s, 0);
	settle(&r);
	assert_int_equal(r.echo->kicks[0], 3);
	tear_down(&r);
}

static void kicks_of_a_device_that_does_not_run_are_nothing(void **state)
{
	struct rig r;

	set_up(&r, NULL);
	fake_slot_kick(&r.s, 0);
	settle(&r);
	go(&r);
	set_status(&r, 0);
	settle(&r);
	fake_slot_kick(&r.s, 0);
	settle(&r);
	assert_int_equal(r.echo->kicks[0], 1);
	tear_down(&r);
}

/* --- reset --- */

static void a_reset_is_done_when_the_device_has_stopped(void **state)
{
	struct rig r;

	set_up(&r, NULL);
	r.echo->slow = true;
	go(&r);
	set_status(&r, 0);
	assert_int_not_equal(status(&r), 0);
	settle(&r);
	assert_int_equal(r.echo->stops, 1);
	assert_int_not_equal(status(&r), 0);
	set_status(&r, 1); /* nothing counts until then */
	fake_out(&r.s, 0x16, 1, 2);
	set_status(&r, 0);
	settle(&r);
	assert_int_equal(r.echo->stops, 1);
	assert_int_equal(r.echo->resets, 0);

	virtio_stopped(&r.echo->vd);
	assert_int_equal(status(&r), 0);
	assert_int_equal(r.echo->resets, 1);
	assert_int_equal(fake_in(&r.s, 0x16, 2), 0);
	assert_int_equal(r.echo->vd.features, 0);
	r.echo->slow = false;
	go(&r);
	assert_int_equal(r.echo->starts, 2);
	tear_down(&r);
}

static void a_reset_before_the_device_heard_of_its_start_is_done_too(void **state)
{
	struct rig r;

	set_up(&r, NULL);
	fake_slot_go(&r.s, V1, 0);
	set_status(&r, 0);
	settle(&r);
	assert_int_equal(status(&r), 0);
	assert_int_equal(r.echo->starts, 0);
	go(&r);
	assert_int_equal(r.echo->starts, 1);
	tear_down(&r);
}

static void a_mistake_is_shown_until_the_reset(void **state)
{
	struct rig r;

	set_up(&r, NULL);
	go(&r);
	fake_add(&r.s.q[0], FAKE_OUT(FAKE_SLOT_RAM - 4, 8));
	fake_add(&r.s.q[1], FAKE_OUT(BUF, 8));
	fake_slot_kick(&r.s, 0);
	settle(&r);
	assert_int_equal(status(&r), 0x4f);
	assert_int_equal(fake_in(&r.s, FAKE_ISR, 1), 2);
	fake_slot_kick(&r.s, 1);
	settle(&r);
	assert_int_equal(r.echo->kicks[1], 1); /* nothing is taken any longer */
	set_status(&r, 0);
	settle(&r);
	assert_int_equal(status(&r), 0);
	go(&r);
	assert_int_equal(status(&r), 0xf);
	tear_down(&r);
}

static void misplaced_rings_are_a_mistake(void **state)
{
	struct rig r;

	set_up(&r, NULL);
	assert_true(fake_slot_agree(&r.s, V1));
	fake_slot_queues(&r.s, 0);
	virtq_setup(r.echo->vd.queue[1])->desc = FAKE_SLOT_RAM;
	set_status(&r, 0xf);
	settle(&r);
	assert_int_equal(status(&r), 0x4f);
	tear_down(&r);
}

/* --- interrupts --- */

static void each_queue_has_its_vector(void **state)
{
	struct rig r;

	set_up(&r, NULL);
	fake_slot_msix(&r.s, QUEUES + 1);
	fake_out(&r.s, 0x10, 0, 2);
	for (unsigned n = 0; n < QUEUES; n++) {
		fake_out(&r.s, 0x16, n, 2);
		fake_out(&r.s, 0x1a, n + 1, 2);
		assert_int_equal(fake_in(&r.s, 0x1a, 2), n + 1);
	}
	go(&r);
	fake_add(&r.s.q[1], FAKE_OUT(BUF, 1));
	fake_slot_kick(&r.s, 1);
	settle(&r);
	assert_int_equal(r.s.board.msis, 1);
	assert_int_equal(r.s.board.msi_data, 0x42);
	assert_int_equal(fake_in(&r.s, FAKE_ISR, 1), 0);
	virtio_config_set(&r.echo->vd, 0, "\77", 1);
	assert_int_equal(r.s.board.msis, 2);
	assert_int_equal(r.s.board.msi_data, 0x40);
	tear_down(&r);
}

static void without_a_vector_there_is_no_message(void **state)
{
	struct rig r;

	set_up(&r, NULL);
	fake_slot_msix(&r.s, QUEUES + 1);
	fake_out(&r.s, 0x10, QUEUES + 1, 2);
	assert_int_equal(fake_in(&r.s, 0x10, 2), 0xffff);
	fake_out(&r.s, 0x1a, 0x1234, 2);
	assert_int_equal(fake_in(&r.s, 0x1a, 2), 0xffff);
	go(&r);
	fake_add(&r.s.q[0], FAKE_OUT(BUF, 1));
	fake_slot_kick(&r.s, 0);
	settle(&r);
	virtio_config_set(&r.echo->vd, 0, "\77", 1);
	assert_int_equal(r.s.board.msis, 0);
	tear_down(&r);
}

static void without_msix_the_wire_is_up_until_isr_is_read(void **state)
{
	struct rig r;
	const struct test_wire *wire = &r.s.board.wire[pci_intx_gsi(1, 1)];

	set_up(&r, NULL);
	go(&r);
	assert_false(wire->level);
	fake_add(&r.s.q[0], FAKE_OUT(BUF, 1));
	fake_slot_kick(&r.s, 0);
	settle(&r);
	assert_true(wire->level);
	assert_int_equal(fake_in(&r.s, FAKE_ISR, 1), 1);
	assert_false(wire->level);
	virtio_config_set(&r.echo->vd, 0, "\77", 1);
	assert_true(wire->level);
	set_status(&r, 0);
	settle(&r);
	assert_false(wire->level);
	assert_int_equal(fake_in(&r.s, FAKE_ISR, 1), 0);
	tear_down(&r);
}

/* --- configuration --- */

static void configuration_is_read_at_any_width_and_ends(void **state)
{
	struct rig r;

	set_up(&r, NULL);
	assert_int_equal(fake_in(&r.s, FAKE_CONFIG, 1), 1);
	assert_int_equal(fake_in(&r.s, FAKE_CONFIG + 2, 2), 0x0403);
	assert_int_equal(fake_in(&r.s, FAKE_CONFIG + 8, 4), 0x00000a09);
	assert_int_equal(fake_in(&r.s, FAKE_CONFIG + VIRTIO_CONFIG_MAX, 4), 0);
	tear_down(&r);
}

static void a_change_of_configuration_changes_its_generation(void **state)
{
	struct rig r;
	uint8_t before;

	set_up(&r, NULL);
	before = fake_in(&r.s, 0x15, 1);
	virtio_config_set(&r.echo->vd, 2, "\77", 1);
	assert_int_equal(fake_in(&r.s, FAKE_CONFIG + 2, 1), 077);
	assert_int_not_equal(fake_in(&r.s, 0x15, 1), before);
	tear_down(&r);
}

static void only_writable_configuration_is_written(void **state)
{
	struct rig r;

	set_up(&r, NULL);
	fake_out(&r.s, FAKE_CONFIG + 4, 0xabcd, 2);
	assert_int_equal(fake_in(&r.s, FAKE_CONFIG + 4, 2), 0xabcd);
	assert_int_equal(r.echo->config_writes, 1);
	fake_out(&r.s, FAKE_CONFIG, 0, 4);
	fake_out(&r.s, FAKE_CONFIG + 4, 0, 4); /* not all of it is writable */
	fake_out(&r.s, FAKE_CONFIG + VIRTIO_CONFIG_MAX - 4, 0, 4);
	assert_int_equal(fake_in(&r.s, FAKE_CONFIG, 4), 0x04030201);
	assert_int_equal(fake_in(&r.s, FAKE_CONFIG + 4, 4), 0x0807abcd);
	assert_int_equal(r.echo->config_writes, 1);
	tear_down(&r);
}

/* --- pause and the machine's reset --- */

static void a_paused_device_goes_on_where_it_was(void **state)
{
	struct rig r;
	struct fake_used u;

	set_up(&r, NULL);
	go(&r);
	virtio_pci_pause(r.s.v);
	settle(&r);
	virtio_pci_wait_paused(r.s.v);
	assert_int_equal(r.echo->stops, 1);
	fake_add(&r.s.q[0], FAKE_OUT(BUF, 3));
	fake_slot_kick(&r.s, 0);
	settle(&r);
	assert_false(fake_take(&r.s.q[0], &u));
	assert_int_equal(status(&r), 0xf);
	virtio_pci_resume(r.s.v);
	settle(&r);
	assert_true(fake_take(&r.s.q[0], &u)); /* though its kick is gone */
	assert_int_equal(r.echo->starts, 2);
	assert_int_equal(r.echo->resets, 0);
	tear_down(&r);
}

static void a_start_while_paused_waits(void **state)
{
	struct rig r;

	set_up(&r, NULL);
	virtio_pci_pause(r.s.v);
	virtio_pci_wait_paused(r.s.v);
	go(&r);
	assert_int_equal(r.echo->starts, 0);
	virtio_pci_resume(r.s.v);
	settle(&r);
	assert_int_equal(r.echo->starts, 1);
	tear_down(&r);
}

static void a_resume_during_the_stop_starts_again_afterwards(void **state)
{
	struct rig r;

	set_up(&r, NULL);
	r.echo->slow = true;
	go(&r);
	virtio_pci_pause(r.s.v);
	settle(&r);
	virtio_pci_resume(r.s.v);
	settle(&r);
	assert_int_equal(r.echo->starts, 1);
	virtio_stopped(&r.echo->vd);
	settle(&r);
	assert_int_equal(r.echo->starts, 2);
	r.echo->slow = false;
	tear_down(&r);
}

static void the_machines_reset_forgets_all(void **state)
{
	struct rig r;
	struct device *d;

	set_up(&r, NULL);
	fake_slot_msix(&r.s, 1);
	go(&r);
	virtio_pci_pause(r.s.v);
	settle(&r);
	d = virtio_pci_device(r.s.v);
	d->type->reset(d);
	virtio_pci_resume(r.s.v);
	settle(&r);
	assert_int_equal(r.echo->resets, 1);
	assert_int_equal(fake_in(&r.s, STATUS, 1), 0xff); /* the BAR is gone */
	assert_int_equal(fake_pci_in(&r.s, 4, 2), 0);
	fake_pci_out(&r.s, 0x10, FAKE_SLOT_BAR, 4);
	fake_pci_out(&r.s, 4, 2, 2);
	assert_int_equal(status(&r), 0);
	assert_int_equal(r.echo->starts, 1);
	tear_down(&r);
}

/* --- threads --- */

#define RACE_ROUNDS 200
#define RACE_CHAINS 50

struct racer {
	struct rig *r;
	unsigned queue;
};

/* A vCPU that works its own queue. */
static void *race(void *arg)
{
	struct racer *x = arg;
	struct fake_driver *q = &x->r->s.q[x->queue];
	struct fake_used u;

	for (unsigned done = 0, added = 0; done < RACE_CHAINS;) {
		while (added < RACE_CHAINS && fake_add(q, FAKE_OUT(BUF, 1)) >= 0)
			added++;
		if (fake_wants_kick(q))
			fake_slot_kick(&x->r->s, x->queue);
		while (fake_take(q, &u))
			done++;
		(void)fake_in(&x->r->s, FAKE_ISR, 1);
		(void)fake_in(&x->r->s, 0x16, 2);
		sched_yield();
	}
	return NULL;
}

static void vcpus_kick_and_reset_while_the_device_works(void **state)
{
	struct io_thread *io;
	struct rig r;

	assert_int_equal(io_thread_new(&io, THREAD_DEVICES, "io", NULL), 0);
	set_up(&r, io_thread_loop(io));
	assert_int_equal(io_thread_start(io, NULL), 0);
	for (unsigned i = 0; i < RACE_ROUNDS; i++) {
		struct racer x[QUEUES] = {{&r, 0}, {&r, 1}};
		pthread_t t[QUEUES];

		fake_slot_go(&r.s,
			     V1 | (i % 2 ? VIRTIO_F_RING_PACKED : 0) |
				     (i % 3 ? VIRTIO_F_EVENT_IDX : 0),
			     0);
		for (unsigned n = 0; n < QUEUES; n++)
			assert_int_equal(pthread_create(&t[n], NULL, race, &x[n]), 0);
		for (unsigned n = 0; n < QUEUES; n++)
			pthread_join(t[n], NULL);
		fake_slot_kick(&r.s, i % QUEUES);
		set_status(&r, 0);
		while (status(&r) != 0)
			sched_yield();
	}
	virtio_pci_pause(r.s.v);
	virtio_pci_wait_paused(r.s.v);
	io_thread_stop(io);
	assert_int_equal(r.echo->resets, RACE_ROUNDS);
	tear_down(&r);
	io_thread_free(io);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_function_says_what_it_is),
		cmocka_unit_test(the_capabilities_say_where_the_registers_are),
		cmocka_unit_test(registers_can_be_reached_through_configuration_space),
		cmocka_unit_test(features_are_offered_in_halves),
		cmocka_unit_test(features_that_were_not_offered_are_refused),
		cmocka_unit_test(a_driver_of_the_old_kind_is_refused),
		cmocka_unit_test(features_are_fixed_once_agreed_on),
		cmocka_unit_test(bits_of_the_status_are_cleared_by_a_reset_only),
		cmocka_unit_test(hidden_features_are_not_offered),
		cmocka_unit_test(a_queue_is_set_up_field_by_field),
		cmocka_unit_test(a_queue_that_is_not_there_has_no_size),
		cmocka_unit_test(a_chain_goes_there_and_back),
		cmocka_unit_test(kicks_before_the_device_looks_are_one),
		cmocka_unit_test(kicks_of_a_device_that_does_not_run_are_nothing),
		cmocka_unit_test(a_reset_is_done_when_the_device_has_stopped),
		cmocka_unit_test(a_reset_before_the_device_heard_of_its_start_is_done_too),
		cmocka_unit_test(a_mistake_is_shown_until_the_reset),
		cmocka_unit_test(misplaced_rings_are_a_mistake),
		cmocka_unit_test(each_queue_has_its_vector),
		cmocka_unit_test(without_a_vector_there_is_no_message),
		cmocka_unit_test(without_msix_the_wire_is_up_until_isr_is_read),
		cmocka_unit_test(configuration_is_read_at_any_width_and_ends),
		cmocka_unit_test(a_change_of_configuration_changes_its_generation),
		cmocka_unit_test(only_writable_configuration_is_written),
		cmocka_unit_test(a_paused_device_goes_on_where_it_was),
		cmocka_unit_test(a_start_while_paused_waits),
		cmocka_unit_test(a_resume_during_the_stop_starts_again_afterwards),
		cmocka_unit_test(the_machines_reset_forgets_all),
		cmocka_unit_test(vcpus_kick_and_reset_while_the_device_works),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
