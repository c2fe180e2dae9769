/* net_test: the card between the driver's side of its queues and a port that keeps frames. */
#include "virtio/net.h"

#include <string.h>

#include "base/test.h"
#include "net/frames.h"
#include "virtio/fake_driver.h"
#include "virtio/net_priv.h"

#define RAM     MIB(2)
#define BUF     0x60000 /* where buffers may lie */
#define BUF_LEN 0x1000
#define ALL     UINT64_MAX
#define HDR     sizeof(struct net_hdr)
#define RX      0
#define TX      1
#define CTRL    2

static const uint8_t own_mac[6] = {0x52, 0x55, 10, 0, 2, 2}; /* where frame_make sends to */

struct bench {
	struct guest_mem *mem;
	struct loop *loop;
	struct virtio_device *d;
	struct fake_guest g;
	struct keeper wire;
	uint8_t frame[NET_FRAME_MAX];
};

static struct bench b;

static void start(uint64_t features, unsigned wire_caps)
{
	const struct virtio_net_opts o = {
		.mac = {0x52, 0x55, 10, 0, 2, 2}, .mtu = 1500, .pairs = 2};
	struct virtio_env env;

	memset(&b, 0, sizeof b);
	assert_int_equal(mem_new(&b.mem, RAM, NULL), 0);
	assert_int_equal(loop_new(&b.loop, NULL), 0);
	env = (struct virtio_env){.mem = b.mem, .loop = b.loop, .clock = loop_clock(b.loop)};
	assert_int_equal(virtio_net_new(&b.d, &env, &o, NULL), 0);
	keeper_init(&b.wire, wire_caps);
	net_connect(virtio_net_port(b.d), &b.wire.port);
	fake_guest_start(&b.g, b.d, .features = features & b.d->offered & ~VIRTIO_F_RING_PACKED);
}

static int tear_down(void **state)
{
	fake_guest_stop(&b.g);
	keeper_clear(&b.wire);
	b.d->type->free(b.d);
	loop_free(b.loop);
	mem_free(b.mem);
	return 0;
}

/* --- the driver's side --- */

static void send(const struct net_hdr *h, const void *frame, size_t len)
{
	memcpy(fake_at(&b.g.q[TX], BUF, HDR), h, HDR);
	memcpy(fake_at(&b.g.q[TX], BUF + HDR, len), frame, len);
	assert_true(fake_add(&b.g.q[TX], FAKE_OUT(BUF, (uint32_t)(HDR + len))) >= 0);
	virtio_kick(b.d, TX);
}

static void give_buffers(unsigned n, uint32_t len)
{
	for (unsigned i = 0; i < n; i++)
		assert_true(fake_add(&b.g.q[RX], FAKE_IN(BUF + i * BUF_LEN, len)) >= 0);
	virtio_kick(b.d, RX);
}

/* Sends a control command; the answer. */
static int control(uint8_t class, uint8_t command, const void *data, size_t len)
{
	uint8_t *p = fake_at(&b.g.q[CTRL], BUF, 2 + len);
	unsigned ctrl = b.d->features & F_MQ ? 4 : CTRL;
	struct fake_used u;

	p[0] = class;
	p[1] = command;
	memcpy(p + 2, data, len);
	assert_true(fake_add(&b.g.q[ctrl], FAKE_OUT(BUF, (uint32_t)(2 + len)),
			     FAKE_IN(BUF + BUF_LEN, 1)) >= 0);
	assert_true(fake_wants_kick(&b.g.q[ctrl]));
	virtio_kick(b.d, ctrl);
	assert_true(fake_take(&b.g.q[ctrl], &u));
	return *(uint8_t *)fake_at(&b.g.q[ctrl], BUF + BUF_LEN, 1);
}

static unsigned used_buffers(uint32_t *bytes)
{
	struct fake_used u;
	unsigned n = 0;

	for (*bytes = 0; fake_take(&b.g.q[RX], &u); n++)
		*bytes += u.len;
	return n;
}

static uint16_t status(void)
{
	return (uint16_t)load_le(b.d->config + CONFIG_STATUS, 2);
}

/* --- tests --- */

static void a_frame_goes_out_as_the_driver_made_it(void **state)
{
	const struct frame_spec s = {.data = 100};
	const struct net_hdr plain = {0};
	struct fake_used u;
	size_t len;

	start(ALL & ~F_MQ, NET_CAP_ALL);
	len = frame_make(b.frame, &s);
	send(&plain, b.frame, len);
	assert_int_equal(b.wire.frames, 1);
	assert_int_equal(b.wire.len[0], len);
	assert_memory_equal(b.wire.frame[0], b.frame, len);
	assert_true(fake_take(&b.g.q[TX], &u));
	assert_true(b.wire.flushes > 0);
}

static void a_large_segment_passes_whole_where_the_wire_takes_it(void **state)
{
	const struct frame_spec s = {.data = 30000, .partial = true};
	struct net_hdr h;
	size_t len;

	start(ALL & ~F_MQ, NET_CAP_ALL);
	len = frame_make(b.frame, &s);
	h = frame_gso(&s, b.frame, len, 1460);
	send(&h, b.frame, len);
	assert_int_equal(b.wire.frames, 1);
	assert_memory_equal(&b.wire.hdr[0], &h, HDR);
}

static void a_large_segment_is_cut_where_the_wire_does_not_take_it(void **state)
{
	const struct frame_spec s = {.data = 30000, .partial = true};
	struct net_hdr h;
	size_t len;

	start(ALL & ~F_MQ, 0);
	len = frame_make(b.frame, &s);
	h = frame_gso(&s, b.frame, len, 1460);
	send(&h, b.frame, len);
	assert_int_equal(b.wire.frames, 21);
	for (unsigned i = 0; i < b.wire.frames; i++)
		assert_true(frame_is_right(b.wire.frame[i], b.wire.len[i]));
}

static void an_offload_that_was_not_agreed_on_is_not_done(void **state)
{
	const struct frame_spec s = {.data = 3000, .partial = true};
	struct net_hdr h;
	size_t len;

	start(ALL & ~F_MQ & ~F_HOST_TSO4, NET_CAP_ALL);
	len = frame_make(b.frame, &s);
	h = frame_gso(&s, b.frame, len, 1460);
	send(&h, b.frame, len);
	assert_int_equal(b.wire.frames, 0);
	assert_false(b.d->needs_reset);
}

static void a_frame_shorter_than_its_headers_is_dropped(void **state)
{
	const struct net_hdr plain = {0};
	struct fake_used u;

	start(ALL & ~F_MQ, NET_CAP_ALL);
	send(&plain, b.frame, 13);
	assert_int_equal(b.wire.frames, 0);
	assert_true(fake_take(&b.g.q[TX], &u));
}

static void a_header_in_pieces_is_read(void **state)
{
	const struct frame_spec s = {.data = 3000, .partial = true};
	struct net_hdr h;
	size_t len;
	uint8_t *p;

	start(ALL & ~F_MQ, NET_CAP_ALL);
	len = frame_make(b.frame, &s);
	h = frame_gso(&s, b.frame, len, 1460);
	p = fake_at(&b.g.q[TX], BUF, HDR + len);
	memcpy(p, &h, HDR);
	memcpy(p + HDR, b.frame, len);
	assert_true(fake_add(&b.g.q[TX], FAKE_OUT(BUF, 5), FAKE_OUT(BUF + 5, 7),
			     FAKE_OUT(BUF + 12, 3), FAKE_OUT(BUF + 15, (uint32_t)len - 3)) >= 0);
	virtio_kick(b.d, TX);
	assert_memory_equal(&b.wire.hdr[0], &h, HDR);
	assert_memory_equal(b.wire.frame[0], b.frame, len);
}

static void a_full_wire_holds_frames_back_until_it_has_room(void **state)
{
	const struct frame_spec s = {.data = 100};
	const struct net_hdr plain = {0};
	struct fake_used u;
	size_t len;

	start(ALL & ~F_MQ, NET_CAP_ALL);
	len = frame_make(b.frame, &s);
	b.wire.full = true;
	send(&plain, b.frame, len);
	assert_false(fake_take(&b.g.q[TX], &u));
	b.wire.full = false;
	net_room(&b.wire.port);
	assert_int_equal(b.wire.frames, 1);
	assert_true(fake_take(&b.g.q[TX], &u));
}

static void a_frame_arrives_in_one_buffer(void **state)
{
	const struct frame_spec s = {.data = 100};
	uint32_t bytes;
	size_t len;
	struct net_hdr *h;

	start(ALL & ~F_MQ, 0);
	len = frame_make(b.frame, &s);
	give_buffers(2, 2000);
	assert_true(keeper_send(&b.wire, NULL, b.frame, len));
	assert_int_equal(used_buffers(&bytes), 0); /* until the batch ends */
	net_flush(&b.wire.port);
	assert_int_equal(used_buffers(&bytes), 1);
	assert_int_equal(bytes, HDR + len);
	h = fake_at(&b.g.q[RX], BUF, HDR);
	assert_int_equal(h->num_buffers, 1);
	assert_memory_equal(h + 1, b.frame, len);
}

static void a_large_frame_takes_as_many_buffers_as_it_needs(void **state)
{
	const struct frame_spec s = {.data = 10000};
	uint32_t bytes;
	struct net_hdr h;
	size_t len;

	start(ALL & ~F_MQ, 0);
	len = frame_make(b.frame, &s);
	h = frame_gso(&s, b.frame, len, 1460);
	give_buffers(10, 1500);
	assert_true(keeper_send(&b.wire, &h, b.frame, len));
	net_flush(&b.wire.port);
	assert_int_equal(used_buffers(&bytes), 7);
	assert_int_equal(bytes, HDR + len);
	assert_int_equal(((struct net_hdr *)fake_at(&b.g.q[RX], BUF, HDR))->num_buffers, 7);
	assert_memory_equal(fake_at(&b.g.q[RX], BUF + BUF_LEN, 100), b.frame + 1500 - HDR, 100);
}

static void a_frame_that_finds_too_few_buffers_gets_them_at_the_next_kick(void **state)
{
	const struct frame_spec s = {.data = 10000}, small = {.data = 10};
	uint32_t bytes;
	struct net_hdr h;
	size_t len;

	start(ALL & ~F_MQ, 0);
	len = frame_make(b.frame, &s);
	h = frame_gso(&s, b.frame, len, 1460);
	give_buffers(3, 1500);
	assert_false(keeper_send(&b.wire, &h, b.frame, len));
	fake_wants_kick(&b.g.q[RX]);
	for (unsigned i = 3; i < 8; i++)
		assert_true(fake_add(&b.g.q[RX], FAKE_IN(BUF + i * BUF_LEN, 1500)) >= 0);
	assert_true(fake_wants_kick(&b.g.q[RX]));
	virtio_kick(b.d, RX);
	assert_int_equal(b.wire.rooms, 2); /* one at the start */
	assert_true(keeper_send(&b.wire, &h, b.frame, len));
	net_flush(&b.wire.port);
	assert_int_equal(used_buffers(&bytes), 7);
	len = frame_make(b.frame, &small);
	assert_true(keeper_send(&b.wire, NULL, b.frame, len));
	net_flush(&b.wire.port);
	assert_int_equal(used_buffers(&bytes), 1);
}

static void buffers_that_a_large_frame_waits_with_serve_a_small_one(void **state)
{
	const struct frame_spec large = {.data = 10000}, small = {.data = 10};
	uint32_t bytes;
	struct net_hdr h;
	size_t len;

	start(ALL & ~F_MQ, 0);
	len = frame_make(b.frame, &large);
	h = frame_gso(&large, b.frame, len, 1460);
	give_buffers(3, 1500);
	assert_false(keeper_send(&b.wire, &h, b.frame, len));
	len = frame_make(b.frame, &small);
	for (unsigned i = 0; i < 3; i++)
		assert_true(keeper_send(&b.wire, NULL, b.frame, len));
	assert_false(keeper_send(&b.wire, NULL, b.frame, len));
	assert_int_equal(used_buffers(&bytes), 3);
}

static void a_stop_gives_held_buffers_back(void **state)
{
	const struct frame_spec s = {.data = 10000}, small = {.data = 10};
	uint32_t bytes;
	struct net_hdr h;
	size_t len;

	start(ALL & ~F_MQ, 0);
	len = frame_make(b.frame, &s);
	h = frame_gso(&s, b.frame, len, 1460);
	give_buffers(3, 1500);
	assert_false(keeper_send(&b.wire, &h, b.frame, len));
	assert_true(fake_guest_stop(&b.g));
	virtio_start(b.d);
	len = frame_make(b.frame, &small);
	for (unsigned i = 0; i < 3; i++)
		assert_true(keeper_send(&b.wire, NULL, b.frame, len));
	net_flush(&b.wire.port);
	assert_int_equal(used_buffers(&bytes), 3);
}

static void without_mergeable_buffers_a_frame_that_does_not_fit_is_dropped(void **state)
{
	const struct frame_spec s = {.data = 3000};
	uint32_t bytes;
	size_t len;

	start(ALL & ~F_MQ & ~F_MRG_RXBUF, 0);
	len = frame_make(b.frame, &s);
	give_buffers(4, 1500);
	assert_true(keeper_send(&b.wire, NULL, b.frame, len));
	net_flush(&b.wire.port);
	assert_int_equal(used_buffers(&bytes), 0);
}

static void what_the_driver_takes_undone_is_what_it_agreed_on(void **state)
{
	uint64_t none = 0, more = F_GUEST_TSO4 | F_HOST_TSO4;

	start(ALL & ~F_MQ, 0);
	assert_int_equal(virtio_net_port(b.d)->caps,
			 NET_CAP_CSUM | NET_CAP_TSO4 | NET_CAP_TSO6 | NET_CAP_ECN);
	assert_int_equal(control(5, 0, &none, 8), 0);
	assert_int_equal(virtio_net_port(b.d)->caps, 0);
	assert_true(b.wire.caps_changes > 0);
	assert_int_equal(control(5, 0, &more, 8), 1);
	assert_int_equal(virtio_net_port(b.d)->caps, 0);
}

static bool gets(const uint8_t *mac)
{
	const struct frame_spec s = {.data = 10};
	size_t len = frame_make(b.frame, &s);
	uint32_t bytes;

	memcpy(b.frame, mac, 6);
	assert_true(keeper_send(&b.wire, NULL, b.frame, len));
	net_flush(&b.wire.port);
	return used_buffers(&bytes) == 1;
}

static void only_wanted_addresses_get_through(void **state)
{
	const uint8_t other[6] = {0x52, 1, 2, 3, 4, 5}, multi[6] = {1, 0, 0x5e, 0, 0, 1};
	const uint8_t broadcast[6] = {255, 255, 255, 255, 255, 255};
	uint8_t table[20] = {1, 0, 0, 0, 0x52, 1, 2, 3, 4, 5, 1, 0, 0, 0, 1, 0, 0x5e, 0, 0, 1};

	start(ALL & ~F_MQ & ~F_CTRL_VLAN, 0);
	give_buffers(8, 1500);
	assert_true(gets(other)); /* all, until the driver says otherwise */
	assert_int_equal(control(0, 0, "", 1), 0);
	assert_false(gets(other));
	assert_false(gets(multi));
	assert_true(gets(own_mac));
	assert_true(gets(broadcast));
	assert_int_equal(control(1, 0, table, sizeof table), 0);
	assert_true(gets(other));
	assert_true(gets(multi));
	table[0] = 3; /* more than there are bytes for */
	assert_int_equal(control(1, 0, table, sizeof table), 1);
	assert_true(gets(other));
}

static void only_wanted_vlans_get_through(void **state)
{
	const struct frame_spec s = {.data = 10, .vlan = true}; /* of VLAN 7 */
	const uint16_t seven = 7, too_large = 4096;
	uint32_t bytes;
	size_t len;

	start(ALL & ~F_MQ, 0);
	give_buffers(8, 1500);
	len = frame_make(b.frame, &s);
	assert_true(keeper_send(&b.wire, NULL, b.frame, len));
	assert_int_equal(control(2, 0, &seven, 2), 0);
	assert_true(keeper_send(&b.wire, NULL, b.frame, len));
	assert_int_equal(control(2, 1, &seven, 2), 0);
	assert_true(keeper_send(&b.wire, NULL, b.frame, len));
	assert_int_equal(control(2, 0, &too_large, 2), 1);
	net_flush(&b.wire.port);
	assert_int_equal(used_buffers(&bytes), 1);
}

static void the_driver_can_change_its_address_until_a_reset(void **state)
{
	const uint8_t other[6] = {0x52, 1, 2, 3, 4, 5};

	start(ALL & ~F_MQ, 0);
	assert_memory_equal(b.d->config, own_mac, 6);
	assert_int_equal(control(1, 1, other, 6), 0);
	assert_memory_equal(b.d->config, other, 6);
	assert_int_equal(control(1, 1, other, 5), 1);
	assert_true(fake_guest_stop(&b.g));
	virtio_reset(b.d);
	assert_memory_equal(b.d->config, own_mac, 6);
}

static void the_driver_is_told_of_the_link_and_asked_to_announce_itself(void **state)
{
	start(ALL & ~F_MQ, 0);
	assert_int_equal(status(), STATUS_LINK_UP);
	net_link(&b.wire.port, false);
	assert_int_equal(status(), 0);
	net_link(&b.wire.port, true);
	net_announce(&b.wire.port);
	assert_int_equal(status(), STATUS_LINK_UP | STATUS_ANNOUNCE);
	assert_true(b.g.config_irqs >= 3);
	assert_int_equal(control(3, 0, "", 0), 0);
	assert_int_equal(status(), STATUS_LINK_UP);
}

static void commands_that_make_no_sense_are_answered_with_an_error(void **state)
{
	const uint16_t none = 0, many = 3, two = 2;

	start(ALL, 0);
	assert_int_equal(control(0, 6, "\1", 1), 1);
	assert_int_equal(control(0, 0, "", 0), 1);
	assert_int_equal(control(9, 0, "", 0), 1);
	assert_int_equal(control(4, 0, &none, 2), 1);
	assert_int_equal(control(4, 0, &many, 2), 1);
	assert_int_equal(control(4, 0, &two, 2), 0);
	assert_false(b.d->needs_reset);
}

static void answers_come_to_the_queue_that_a_flow_is_sent_from(void **state)
{
	const struct frame_spec s = {.data = 10};
	const struct net_hdr plain = {0};
	const uint16_t two = 2;
	struct fake_used u;
	size_t len;

	start(ALL, NET_CAP_ALL);
	assert_int_equal(control(4, 0, &two, 2), 0);
	len = frame_make(b.frame, &s);
	memcpy(fake_at(&b.g.q[3], BUF, HDR), &plain, HDR);
	memcpy(fake_at(&b.g.q[3], BUF + HDR, len), b.frame, len);
	assert_true(fake_add(&b.g.q[3], FAKE_OUT(BUF, (uint32_t)(HDR + len))) >= 0);
	virtio_kick(b.d, 3);
	assert_true(fake_add(&b.g.q[2], FAKE_IN(BUF, 1500)) >= 0);
	virtio_kick(b.d, 2);
	for (unsigned i = 0; i < 4; i++) { /* the answer: addresses and ports the other way */
		uint8_t a = b.frame[26 + i], p = b.frame[34 + i % 2];

		b.frame[26 + i] = b.frame[30 + i], b.frame[30 + i] = a;
		if (i < 2)
			b.frame[34 + i] = b.frame[36 + i], b.frame[36 + i] = p;
	}
	assert_true(keeper_send(&b.wire, NULL, b.frame, len));
	net_flush(&b.wire.port);
	assert_true(fake_take(&b.g.q[2], &u));
}

static void a_receive_buffer_without_room_for_a_header_breaks_the_device(void **state)
{
	const struct frame_spec s = {.data = 10};
	size_t len;

	start(ALL & ~F_MQ, 0);
	len = frame_make(b.frame, &s);
	give_buffers(1, 8);
	give_buffers(1, 1500);
	assert_true(keeper_send(&b.wire, NULL, b.frame, len));
	assert_true(b.d->needs_reset);
}

static void what_was_set_survives_saving_and_loading(void **state)
{
	const uint8_t other[6] = {0x52, 1, 2, 3, 4, 5};
	struct state *w = state_writer(), *r;
	const void *bytes;
	size_t len;

	start(ALL & ~F_MQ, 0);
	assert_int_equal(control(1, 1, other, 6), 0);
	assert_int_equal(control(0, 0, "", 1), 0);
	state_begin(w, "virtio-net", 0);
	virtio_state(b.d, w);
	state_end(w);
	bytes = state_written(w, &len);
	assert_true(fake_guest_stop(&b.g));
	virtio_reset(b.d);
	r = state_reader(bytes, len);
	state_begin(r, "virtio-net", 0);
	virtio_state(b.d, r);
	state_end(r);
	assert_int_equal(state_result(r, NULL), 0);
	virtio_start(b.d);
	assert_false(container_of(b.d, struct virtio_net, vd)->filter.promisc);
	assert_memory_equal(b.d->config, other, 6);
	state_free(w);
	state_free(r);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_teardown(f, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(a_frame_goes_out_as_the_driver_made_it),
		TEST(a_large_segment_passes_whole_where_the_wire_takes_it),
		TEST(a_large_segment_is_cut_where_the_wire_does_not_take_it),
		TEST(an_offload_that_was_not_agreed_on_is_not_done),
		TEST(a_frame_shorter_than_its_headers_is_dropped),
		TEST(a_header_in_pieces_is_read),
		TEST(a_full_wire_holds_frames_back_until_it_has_room),
		TEST(a_frame_arrives_in_one_buffer),
		TEST(a_large_frame_takes_as_many_buffers_as_it_needs),
		TEST(a_frame_that_finds_too_few_buffers_gets_them_at_the_next_kick),
		TEST(buffers_that_a_large_frame_waits_with_serve_a_small_one),
		TEST(a_stop_gives_held_buffers_back),
		TEST(without_mergeable_buffers_a_frame_that_does_not_fit_is_dropped),
		TEST(what_the_driver_takes_undone_is_what_it_agreed_on),
		TEST(only_wanted_addresses_get_through),
		TEST(only_wanted_vlans_get_through),
		TEST(the_driver_can_change_its_address_until_a_reset),
		TEST(the_driver_is_told_of_the_link_and_asked_to_announce_itself),
		TEST(commands_that_make_no_sense_are_answered_with_an_error),
		TEST(answers_come_to_the_queue_that_a_flow_is_sent_from),
		TEST(a_receive_buffer_without_room_for_a_header_breaks_the_device),
		TEST(what_was_set_survives_saving_and_loading),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
