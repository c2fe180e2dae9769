#include "net/offload.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "base/test.h"
#include "net/frames.h"

static const struct frame_spec kinds[] = {
	{.data = 0},
	{.data = 1},
	{.data = 5000, .options = 12},
	{.data = 5000, .v6 = true},
	{.data = 65000},
	{.data = 65000, .v6 = true, .options = 40, .vlan = true},
	{.data = 4321, .vlan = true, .tcp_flags = 0x99}, /* CWR, ACK, PSH, FIN */
	{.data = 1460},
	{.data = 3000, .udp = true},
	{.data = 3001, .udp = true, .v6 = true},
};

static struct keeper keep;
static uint8_t frame[NET_FRAME_MAX];

static int set_up(void **state)
{
	keeper_init(&keep, 0);
	return 0;
}

static int tear_down(void **state)
{
	keeper_clear(&keep);
	return 0;
}

static void sums_are_those_of_rfc_1071(void **state)
{
	static const uint8_t example[] = {0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7};

	assert_int_equal(net_sum(example, sizeof example, 0), 0xddf2);
}

static void sums_equal_the_slow_ones_at_every_length_and_place(void **state)
{
	for (unsigned i = 0; i < sizeof frame; i++)
		frame[i] = (uint8_t)(i * 167 + i / 251);
	for (unsigned at = 0; at < 9; at++)
		for (unsigned len = 0; len < 300; len++)
			assert_int_equal(net_sum(frame + at, len, 0x8765),
					 slow_sum(frame + at, len, 0x8765));
	memset(frame, 0xff, sizeof frame);
	for (unsigned len = 65500; len < 65540; len++)
		assert_int_equal(net_sum(frame, len, 0xffff), slow_sum(frame, len, 0xffff));
}

static void a_checksum_that_was_left_open_is_filled_in(void **state)
{
	for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++) {
		struct frame_spec s = kinds[i];
		struct net_hdr h;
		size_t len;

		s.partial = true;
		len = frame_make(frame, &s);
		h = frame_gso(&s, frame, len, 1);
		h.gso_type = NET_GSO_NONE;
		assert_false(frame_is_right(frame, len));
		assert_true(net_hdr_valid(&h, frame, len));
		net_finish_csum(&h, frame, len);
		assert_true(frame_is_right(frame, len));
	}
}

static void padding_is_no_part_of_the_checksum(void **state)
{
	struct frame_spec s = {.data = 3, .partial = true};
	size_t len = frame_make(frame, &s);
	struct net_hdr h = frame_gso(&s, frame, len, 1);

	h.gso_type = NET_GSO_NONE;
	memset(frame + len, 0xaa, 60);
	net_finish_csum(&h, frame, len + 60);
	assert_true(frame_is_right(frame, len));
}

static unsigned header_len(const struct frame_spec *s)
{
	return (s->vlan ? 18 : 14) + (s->v6 ? 40 : 20) + (s->udp ? 8 : 20 + s->options);
}

static void check_segments(const struct frame_spec *s, const uint8_t *whole, size_t len,
			   unsigned size)
{
	size_t head = header_len(s), at = head;

	for (unsigned i = 0; i < keep.frames; i++) {
		assert_true(frame_is_right(keep.frame[i], keep.len[i]));
		assert_true(keep.len[i] <= head + size);
		assert_memory_equal(keep.frame[i] + head, whole + at, keep.len[i] - head);
		assert_int_equal(keep.hdr[i].gso_type, NET_GSO_NONE);
		at += keep.len[i] - head;
	}
	assert_int_equal(at, len);
}

static void a_large_frame_is_cut_into_right_ones_with_the_same_data(void **state)
{
	static const uint16_t sizes[] = {64, 536, 1440, 1460, 9000};
	static uint8_t copy[NET_FRAME_MAX];

	for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++)
		for (unsigned j = 0; j < ARRAY_SIZE(sizes); j++) {
			size_t len = frame_make(frame, &kinds[i]);
			struct net_hdr h = frame_gso(&kinds[i], frame, len, sizes[j]);

			memcpy(copy, frame, len);
			if (kinds[i].data > sizes[j] * NET_SEGMENTS_MAX)
				continue;
			assert_true(net_hdr_valid(&h, frame, len));
			assert_true(net_segment(&h, frame, len, keeper_emit, &keep));
			check_segments(&kinds[i], copy, len, sizes[j]);
			keeper_clear(&keep);
		}
}

static uint32_t sequence_of(unsigned i)
{
	const uint8_t *tcp = keep.frame[i] + 34;

	return (uint32_t)tcp[4] << 24 | tcp[5] << 16 | tcp[6] << 8 | tcp[7];
}

static void only_the_first_segment_has_cwr_and_only_the_last_fin_and_psh(void **state)
{
	const struct frame_spec s = {.data = 3000, .tcp_flags = 0x99};
	size_t len = frame_make(frame, &s);
	struct net_hdr h = frame_gso(&s, frame, len, 1000);

	h.gso_type |= NET_GSO_ECN;
	assert_true(net_segment(&h, frame, len, keeper_emit, &keep));
	assert_int_equal(keep.frames, 3);
	assert_int_equal(keep.frame[0][34 + 13], 0x90);
	assert_int_equal(keep.frame[1][34 + 13], 0x10);
	assert_int_equal(keep.frame[2][34 + 13], 0x19);
	assert_int_equal(sequence_of(2) - sequence_of(0), 2000);
}

static void segments_of_ipv4_have_identifiers_of_their_own(void **state)
{
	const struct frame_spec s = {.data = 2000};
	size_t len = frame_make(frame, &s);
	struct net_hdr h = frame_gso(&s, frame, len, 1000);

	assert_true(net_segment(&h, frame, len, keeper_emit, &keep));
	assert_int_equal(keep.frame[0][19], 0x34);
	assert_int_equal(keep.frame[1][19], 0x35);
}

static void what_the_receiver_can_take_is_left_as_it_is(void **state)
{
	const struct frame_spec s = {.data = 5000, .partial = true};
	size_t len = frame_make(frame, &s);
	struct net_hdr h = frame_gso(&s, frame, len, 1460);

	assert_true(net_finish_offload(NET_CAP_ALL, &h, frame, len, keeper_emit, &keep));
	assert_int_equal(keep.frames, 1);
	assert_memory_equal(&keep.hdr[0], &h, sizeof h);
	keeper_clear(&keep);
	assert_true(net_finish_offload(NET_CAP_CSUM, &h, frame, len, keeper_emit, &keep));
	assert_int_equal(keep.frames, 4);
}

static void a_refusal_is_that_of_the_first_frame(void **state)
{
	const struct frame_spec s = {.data = 5000};
	size_t len = frame_make(frame, &s);
	struct net_hdr h = frame_gso(&s, frame, len, 1460);

	keep.full = true;
	assert_false(net_finish_offload(0, &h, frame, len, keeper_emit, &keep));
	h.csum_start++; /* makes no sense: dropped, which is no refusal */
	assert_true(net_finish_offload(0, &h, frame, len, keeper_emit, &keep));
}

static void a_long_datagram_becomes_fragments(void **state)
{
	const struct frame_spec s = {.data = 4000, .udp = true};
	size_t len = frame_make(frame, &s), at = 0;

	assert_true(net_fragment4(frame, len, 1500, keeper_emit, &keep));
	assert_int_equal(keep.frames, 3);
	for (unsigned i = 0; i < 3; i++) {
		const uint8_t *ip = keep.frame[i] + 14;
		unsigned field = (unsigned)ip[6] << 8 | ip[7];

		assert_int_equal(slow_sum(ip, 20, 0), 0xffff);
		assert_true(keep.len[i] <= 1514);
		assert_int_equal((field & 0x1fff) * 8, at);
		assert_int_equal(field >> 13, i < 2);
		assert_memory_equal(ip + 20, frame + 34 + at, keep.len[i] - 34);
		at += keep.len[i] - 34;
	}
	assert_int_equal(at, 4008);
}

static void a_datagram_that_may_not_be_fragmented_is_not(void **state)
{
	const struct frame_spec s = {.data = 4000, .udp = true};
	size_t len = frame_make(frame, &s);

	frame[20] = 0x40;
	assert_false(net_fragment4(frame, len, 1500, keeper_emit, &keep));
	assert_int_equal(keep.frames, 0);
}

static void headers_that_make_no_sense_are_refused(void **state)
{
	const struct frame_spec s = {.data = 5000};
	size_t len = frame_make(frame, &s);
	const struct net_hdr good = frame_gso(&s, frame, len, 1460);
	struct net_hdr bad[10];

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		bad[i] = good;
	bad[0].gso_size = 0;
	bad[1].gso_size = 4; /* too many segments */
	bad[2].flags = 0;
	bad[3].gso_type = NET_GSO_TCPV6;
	bad[4].gso_type = NET_GSO_UDP_L4;
	bad[5].gso_type = 3; /* UFO is not offered */
	bad[6].csum_start = 0xffff;
	bad[7].csum_offset = 0xffff;
	bad[8].csum_start -= 1;
	bad[9].gso_type = NET_GSO_ECN;
	assert_true(net_hdr_valid(&good, frame, len));
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		assert_false(net_hdr_valid(&bad[i], frame, len));
	assert_false(net_hdr_valid(&good, frame, 13));
}

static void layouts_stay_inside_the_frame(void **state)
{
	for (unsigned i = 0; i < 200000; i++) {
		struct frame_spec s = kinds[(unsigned)rand() % ARRAY_SIZE(kinds)];
		struct net_layout l;
		size_t len;

		s.data %= 100;
		len = frame_make(frame, &s);
		frame[12 + (unsigned)rand() % 60] = (uint8_t)rand();
		len -= (unsigned)rand() % (len - 13);
		if (!net_layout(frame, len, &l))
			continue;
		assert_true(l.end <= len && l.l4 <= l.end && l.data <= l.end);
		assert_true(l.data - l.l3 <= 120);
	}
}

static void a_frame_in_pieces_is_gathered_or_refused_as_too_long(void **state)
{
	struct iovec iov[] = {{"abc", 3}, {"", 0}, {"de", 2}};
	char to[6] = "";

	assert_int_equal(net_gather(to, 5, iov, 3), 5);
	assert_string_equal(to, "abcde");
	assert_int_equal(net_gather(to, 4, iov, 3), 0);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(sums_are_those_of_rfc_1071),
		TEST(sums_equal_the_slow_ones_at_every_length_and_place),
		TEST(a_checksum_that_was_left_open_is_filled_in),
		TEST(padding_is_no_part_of_the_checksum),
		TEST(a_large_frame_is_cut_into_right_ones_with_the_same_data),
		TEST(only_the_first_segment_has_cwr_and_only_the_last_fin_and_psh),
		TEST(segments_of_ipv4_have_identifiers_of_their_own),
		TEST(what_the_receiver_can_take_is_left_as_it_is),
		TEST(a_refusal_is_that_of_the_first_frame),
		TEST(a_long_datagram_becomes_fragments),
		TEST(a_datagram_that_may_not_be_fragmented_is_not),
		TEST(headers_that_make_no_sense_are_refused),
		TEST(layouts_stay_inside_the_frame),
		TEST(a_frame_in_pieces_is_gathered_or_refused_as_too_long),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
