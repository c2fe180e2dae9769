/* parts_test: addresses, forwards, the switch's table and messages, segment sizes, filters. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/test.h"
#include "net/backend.h"
#include "net/frames.h"
#include "net/switch_priv.h"
#include "net/user_priv.h"

static uint8_t frame[NET_FRAME_MAX];

/* --- addresses and forwards --- */

static void a_forward_has_an_address_two_ports_and_a_protocol(void **state)
{
	struct net_forward f;

	assert_int_equal(net_forward_parse("2222:22", &f, NULL), 0);
	assert_true(!f.udp && f.host_addr == INADDR_LOOPBACK && f.host_port == 2222 &&
		    f.guest_port == 22);
	assert_int_equal(net_forward_parse("0.0.0.0:53:5353/udp", &f, NULL), 0);
	assert_true(f.udp && f.host_addr == 0 && f.host_port == 53 && f.guest_port == 5353);
	assert_int_equal(net_forward_parse("127.0.0.2:1:65535/tcp", &f, NULL), 0);
	assert_true(!f.udp && f.host_addr == 0x7f000002 && f.guest_port == 65535);
}

static void a_forward_that_makes_no_sense_is_refused(void **state)
{
	static const char *const bad[] = {
		"",       "22",     ":22",       "22:",           "0:22",     "22:65536", "a:22",
		"22:22/", "1:2/ip", "1.2.3:1:2", "host:1:2",      ":1:2",     "1:2:3:4",  "-1:22",
		"22 :22", "/udp",   "1:2/udp/x", "1.2.3.4.5:1:2", "000022:22"};
	struct net_forward f;

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(net_forward_parse(bad[i], &f, NULL), -EINVAL);
}

static void a_made_up_address_is_local_stable_and_of_one_card(void **state)
{
	uint8_t a[6], b[6];

	net_mac(a, "vm", 0);
	net_mac(b, "vm", 0);
	assert_memory_equal(a, b, 6);
	assert_int_equal(a[0] & 3, 2);
	net_mac(b, "vm", 1);
	assert_memory_not_equal(a, b, 6);
	net_mac(b, "vn", 0);
	assert_memory_not_equal(a, b, 6);
}

static void a_written_address_is_read_or_refused(void **state)
{
	static const char *const bad[] = {"",
					  "52:54:00:12:34",
					  "52:54:00:12:34:5g",
					  "52-54-00-12-34-56",
					  "01:00:5e:00:00:01",
					  "00:00:00:00:00:00",
					  "52:54:00:12:34:56:"};
	uint8_t mac[6];

	assert_int_equal(net_mac_parse("52:54:00:aB:34:56", mac, NULL), 0);
	assert_int_equal(mac[3], 0xab);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(net_mac_parse(bad[i], mac, NULL), -EINVAL);
}

/* --- the switch --- */

static void a_station_is_found_where_it_was_seen_last(void **state)
{
	static struct mac_table t;
	const uint8_t mac[6] = {2, 0, 0, 0, 0, 1}, multi[6] = {1, 0, 0, 0, 0, 1};

	mac_table_init(&t);
	assert_int_equal(mac_table_find(&t, mac, 0), -1);
	mac_table_learn(&t, mac, 3, 0);
	assert_int_equal(mac_table_find(&t, mac, 1), 3);
	mac_table_learn(&t, mac, 4, 2);
	assert_int_equal(mac_table_find(&t, mac, 3), 4);
	assert_int_equal(mac_table_find(&t, mac, UINT64_C(400000000000)), -1);
	mac_table_forget(&t, 4);
	assert_int_equal(mac_table_find(&t, mac, 3), -1);
	mac_table_learn(&t, multi, 3, 0);
	assert_int_equal(mac_table_find(&t, multi, 1), -1);
}

static void made_up_stations_do_not_grow_the_table(void **state)
{
	static struct mac_table t;
	uint8_t mac[6] = {2};

	mac_table_init(&t);
	for (unsigned i = 0; i < 100000; i++) {
		memcpy(mac + 1, &i, 4);
		mac_table_learn(&t, mac, 5, i);
	}
	assert_int_equal(mac_table_find(&t, mac, 100000), 5);
	memset(mac + 1, 0, 5);
	assert_int_equal(mac_table_find(&t, mac, 100000), -1);
}

static size_t message(uint8_t *to, uint32_t type, const void *body, size_t len)
{
	memcpy(to, &type, 4);
	memcpy(to + 4, body, len);
	return len + 4;
}

static void messages_of_the_switch_are_checked(void **state)
{
	static uint8_t buf[WIRE_MSG_MAX];
	struct wire_hello hello = {WIRE_MAGIC, 3, 1};
	const struct frame_spec s = {.data = 100};
	struct wire_msg m;
	struct net_hdr h;
	size_t len, body = 12 + frame_make(frame + 12, &s);

	assert_int_equal(wire_parse(buf, message(buf, WIRE_HELLO, &hello, 12), &m), 1);
	assert_int_equal(m.hello.caps, 3);
	assert_int_equal(wire_parse(buf, message(buf, WIRE_HELLO, &hello, 11), &m), -EPROTO);
	hello.magic++;
	assert_int_equal(wire_parse(buf, message(buf, WIRE_HELLO, &hello, 12), &m), -EPROTO);
	memset(frame, 0, 12);
	len = message(buf, WIRE_FRAME, frame, body);
	assert_int_equal(wire_parse(buf, len, &m), 1);
	assert_int_equal(m.len, body - 12);
	assert_int_equal(wire_parse(buf, 4 + 12 + 13, &m), -EPROTO);
	assert_int_equal(wire_parse(buf, 3, &m), -EPROTO);
	h = (struct net_hdr){.gso_type = NET_GSO_TCPV6, .flags = 1, .gso_size = 1000};
	memcpy(frame, &h, 12);
	assert_int_equal(wire_parse(buf, message(buf, WIRE_FRAME, frame, body), &m), -EPROTO);
	assert_int_equal(wire_parse(buf, message(buf, 9, frame, body), &m), -EPROTO);
}

/* --- segment sizes --- */

/* A SYN with the option at a place of its options. */
static size_t make_syn(unsigned at, uint16_t mss)
{
	const struct frame_spec s = {.options = 12, .tcp_flags = 2};
	size_t len = frame_make(frame, &s);
	uint8_t *o = frame + 54 + at, *sum = frame + 50;
	uint16_t v;

	o[0] = 2, o[1] = 4, o[2] = (uint8_t)(mss >> 8), o[3] = (uint8_t)mss;
	sum[0] = sum[1] = 0;
	v = (uint16_t)~net_sum(frame + 34, len - 34,
			       net_pseudo_sum(frame + 14, false, 6, len - 34));
	sum[0] = (uint8_t)(v >> 8), sum[1] = (uint8_t)v;
	return len;
}

static void a_syn_announces_the_largest_segments_and_the_real_size_is_kept(void **state)
{
	static struct mss_table t;
	struct net_layout l;

	for (unsigned at = 0; at < 8; at++) {
		size_t len = make_syn(at, 1400);

		assert_true(frame_is_right(frame, len));
		assert_true(net_layout(frame, len, &l));
		mss_raise(&t, frame, &l, false);
		assert_true(frame_is_right(frame, len));
		assert_int_equal(frame[54 + at + 2] << 8 | frame[54 + at + 3], 65495);
		for (unsigned i = 0; i < 4; i++) { /* the answer's addresses and ports */
			uint8_t a = frame[26 + i];

			frame[26 + i] = frame[30 + i], frame[30 + i] = a;
		}
		for (unsigned i = 0; i < 2; i++) {
			uint8_t p = frame[34 + i];

			frame[34 + i] = frame[36 + i], frame[36 + i] = p;
		}
		assert_int_equal(mss_of(&t, frame, &l), 1400);
		frame[35]++;
		assert_int_equal(mss_of(&t, frame, &l), 536);
	}
}

/* --- filters --- */

struct wire {
	struct loop *loop;
	struct keeper card, far;
	struct net_filter *f;
};

static struct wire w;

static void make_wire(struct net_filter *f)
{
	w.f = f;
	net_connect(&f->side[NET_CARD_SIDE], &w.card.port);
	net_connect(&f->side[NET_WIRE_SIDE], &w.far.port);
}

static int set_up(void **state)
{
	memset(&w, 0, sizeof w);
	keeper_init(&w.card, NET_CAP_CSUM);
	keeper_init(&w.far, NET_CAP_ALL);
	return loop_new(&w.loop, NULL);
}

static int tear_down(void **state)
{
	if (w.f)
		w.f->ops->free(w.f);
	keeper_clear(&w.card);
	keeper_clear(&w.far);
	loop_free(w.loop);
	return 0;
}

static const struct net_limits mega = {.bytes.rate = 1000000};

static void a_filter_shows_each_side_what_the_other_can(void **state)
{
	struct net_filter *f;

	assert_int_equal(limit_new(&f, &mega, &mega, w.loop, NULL), 0);
	make_wire(f);
	assert_int_equal(net_peer_caps(&w.card.port), NET_CAP_ALL);
	assert_int_equal(net_peer_caps(&w.far.port), NET_CAP_CSUM);
	net_link(&w.far.port, false);
	assert_false(w.card.link_up);
	net_start(&w.card.port);
	assert_int_equal(w.far.starts, 1);
}

static void a_limit_holds_each_direction_to_its_rate(void **state)
{
	const struct frame_spec s = {.data = 946}; /* 1000 bytes */
	size_t len = frame_make(frame, &s);
	struct net_filter *f;
	unsigned sent = 0;

	loop_clock_pause(w.loop, true);
	assert_int_equal(limit_new(&f, &mega, &(struct net_limits){0}, w.loop, NULL), 0);
	make_wire(f);
	for (unsigned ms = 0; ms <= 1000; ms++) {
		loop_clock_set(w.loop, UINT64_C(1000000) * ms);
		while (keeper_send(&w.far, NULL, frame, len))
			sent++;
		keeper_clear(&w.card);
	}
	/* A second at 1000 frames a second, and a burst of 20 ms before it. */
	assert_in_range(sent, 1010, 1030);
	for (unsigned i = 0; i < 1000; i++)
		assert_true(keeper_send(&w.card, NULL, frame, len));
}

/* How many frames of len bytes pass in ms, and one at a time before. */
static unsigned passed_in(unsigned from_ms, unsigned to_ms, size_t len)
{
	unsigned sent = 0;

	for (unsigned ms = from_ms; ms <= to_ms; ms++) {
		loop_clock_set(w.loop, UINT64_C(1000000) * ms);
		while (keeper_send(&w.far, NULL, frame, len))
			sent++;
		keeper_clear(&w.card);
	}
	return sent;
}

static void a_limit_of_frames_counts_frames(void **state)
{
	const struct net_limits frames = {.frames = {.rate = 100, .burst = 10, .once = 50}};
	const struct frame_spec s = {.data = 946};
	size_t len = frame_make(frame, &s);
	struct net_filter *f;

	loop_clock_pause(w.loop, true);
	assert_int_equal(limit_new(&f, &frames, &(struct net_limits){0}, w.loop, NULL), 0);
	make_wire(f);
	assert_int_equal(passed_in(0, 0, len), 60); /* what is given once, then the bucket */
	assert_in_range(passed_in(1, 1000, len), 99, 101);
}

static void a_limit_can_be_another(void **state)
{
	const struct net_limits none = {0};
	const struct frame_spec s = {.data = 946};
	size_t len = frame_make(frame, &s);
	struct net_filter *f;

	loop_clock_pause(w.loop, true);
	assert_int_equal(limit_new(&f, &none, &none, w.loop, NULL), 0);
	make_wire(f);
	for (unsigned i = 0; i < 100; i++)
		assert_true(keeper_send(&w.far, NULL, frame, len));
	keeper_clear(&w.card);
	net_backend_set_limits(&f->side[NET_CARD_SIDE], &mega, &none);
	assert_in_range(passed_in(0, 1000, len), 1010, 1030);
	net_backend_set_limits(&f->side[NET_CARD_SIDE], &none, &none);
	for (unsigned i = 0; i < 100; i++)
		assert_true(keeper_send(&w.far, NULL, frame, len));
}

static void a_capture_has_every_frame_whole(void **state)
{
	char name[] = "/tmp/holon-capture.XXXXXX";
	const struct frame_spec s = {.data = 60000};
	const struct net_warn warn = {0};
	size_t len = frame_make(frame, &s);
	static uint8_t file[KIB(200)];
	struct net_filter *f;
	uint32_t at = 0, block, size = 0, packets = 0;
	ssize_t n;
	int fd = mkstemp(name);

	assert_true(fd >= 0);
	assert_int_equal(capture_new(&f, name, "vm", &warn, w.loop, NULL), 0);
	make_wire(f);
	assert_true(keeper_send(&w.far, NULL, frame, len));
	assert_true(keeper_send(&w.card, NULL, frame, 60));
	w.card.full = true;
	assert_false(keeper_send(&w.far, NULL, frame, len)); /* not yet on the wire */
	w.f->ops->free(w.f);
	w.f = NULL;
	n = read(fd, file, sizeof file);
	unlink(name);
	close(fd);
	for (; at < n; at += size) {
		memcpy(&block, file + at, 4);
		memcpy(&size, file + at + 4, 4);
		assert_true(size >= 12 && size % 4 == 0 && at + size <= n);
		assert_memory_equal(file + at + 4, file + at + size - 4, 4);
		if (block == 6 && packets++ == 0) {
			assert_int_equal(load_le(file + at + 20, 4), len);
			assert_memory_equal(file + at + 28, frame, len);
		}
	}
	assert_int_equal(packets, 2);
}

static unsigned warnings;

static void count_warning(void *ctx, const char *text)
{
	warnings++;
}

static void a_full_disk_ends_the_capture_and_not_the_wire(void **state)
{
	const struct net_warn warn = {count_warning, NULL};
	struct net_filter *f;

	if (access("/dev/full", W_OK) < 0)
		skip();
	warnings = 0;
	assert_int_equal(capture_new(&f, "/dev/full", "vm", &warn, w.loop, NULL), 0);
	make_wire(f);
	for (unsigned i = 0; i < 10; i++)
		assert_true(keeper_send(&w.card, NULL, frame, 60000));
	assert_int_equal(warnings, 1);
	assert_int_equal(w.far.frames, 10);
}

int main(void)
{
#define WIRE(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_forward_has_an_address_two_ports_and_a_protocol),
		cmocka_unit_test(a_forward_that_makes_no_sense_is_refused),
		cmocka_unit_test(a_made_up_address_is_local_stable_and_of_one_card),
		cmocka_unit_test(a_written_address_is_read_or_refused),
		cmocka_unit_test(a_station_is_found_where_it_was_seen_last),
		cmocka_unit_test(made_up_stations_do_not_grow_the_table),
		cmocka_unit_test(messages_of_the_switch_are_checked),
		cmocka_unit_test(a_syn_announces_the_largest_segments_and_the_real_size_is_kept),
		WIRE(a_filter_shows_each_side_what_the_other_can),
		WIRE(a_limit_holds_each_direction_to_its_rate),
		WIRE(a_limit_of_frames_counts_frames),
		WIRE(a_limit_can_be_another),
		WIRE(a_capture_has_every_frame_whole),
		WIRE(a_full_disk_ends_the_capture_and_not_the_wire),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
