/* The server in a wire, against a guest whose segments are made by hand. */
#include "net/service.h"

#include <stdlib.h>
#include <string.h>

#include "base/test.h"
#include "net/frames.h"

#define ADDRESS 0xa9fea9feu /* 169.254.169.254 */
#define GUEST   0xac100002u
#define FIN     1u
#define SYN     2u
#define RST     4u
#define PSH     8u
#define ACK     16u

/* --- a guest --- */

static struct bed {
	struct loop *loop;
	struct keeper card, far;
	struct net_filter *f;
	uint16_t port, window;
	uint32_t seq, ack;
	size_t seen; /* frames that were looked at */
	char got[200000];
	size_t got_len;
} b;

static size_t answer_len;
static unsigned served;

/* A request is a line; "big" has a long answer, "bye" the last one. */
static long serve(void *ctx, char *bytes, size_t len, char **answer, size_t *alen)
{
	char *end = memchr(bytes, '\n', len);

	if (!end)
		return 0;
	served++;
	if (!memcmp(bytes, "big", 3)) {
		*alen = answer_len;
		*answer = malloc(answer_len);
		for (size_t i = 0; i < answer_len; i++)
			(*answer)[i] = (char)('a' + i % 23);
		return end - bytes + 1;
	}
	*answer = strndup(bytes, (size_t)(end - bytes + 1));
	*alen = strlen(*answer);
	return memcmp(bytes, "bye", 3) ? end - bytes + 1 : -1;
}

static void put16(uint8_t *p, unsigned v)
{
	p[0] = (uint8_t)(v >> 8), p[1] = (uint8_t)v;
}

static void put32(uint8_t *p, uint32_t v)
{
	put16(p, v >> 16), put16(p + 2, v & 0xffff);
}

static uint32_t get32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void send_to(unsigned to_port, uint32_t seq, unsigned flags, const char *data, size_t len)
{
	static uint8_t f[NET_FRAME_MAX];
	const struct net_hdr h = {0};
	size_t total = 54 + len;

	memset(f, 0, 54);
	memset(f, 6, 12);
	put16(f + 12, 0x0800);
	f[14] = 0x45;
	put16(f + 16, (unsigned)total - 14);
	f[23] = 6;
	put32(f + 26, GUEST);
	put32(f + 30, ADDRESS);
	put16(f + 34, b.port);
	put16(f + 36, to_port);
	put32(f + 38, seq);
	put32(f + 42, flags & ACK ? b.ack : 0);
	f[46] = 5 << 4;
	f[47] = (uint8_t)flags;
	put16(f + 48, b.window);
	if (len)
		memcpy(f + 54, data, len);
	assert_true(keeper_send(&b.card, &h, f, total));
}

static void send_seg(unsigned flags, const char *data)
{
	size_t len = data ? strlen(data) : 0;

	send_to(80, b.seq, flags, data, len);
	b.seq += (uint32_t)len + !!(flags & SYN) + !!(flags & FIN);
}

/* Looks at what came: data in order is kept. Returns the flags of all, or'ed. */
static unsigned look(void)
{
	unsigned flags = 0;

	for (; b.seen < b.card.frames; b.seen++) {
		const uint8_t *f = b.card.frame[b.seen];
		size_t len = b.card.len[b.seen], head = 34 + (f[46] >> 4) * 4u;
		uint32_t seq = get32(f + 38), n = (uint32_t)(len - head);

		assert_true(frame_is_right(f, len));
		flags |= f[47];
		if (f[47] & SYN)
			b.ack = seq + 1;
		else if (seq == b.ack) {
			memcpy(b.got + b.got_len, f + head, n);
			b.got_len += n;
			b.ack += n + (f[47] & FIN);
		}
	}
	b.got[b.got_len] = 0;
	return flags;
}

static void connect_guest(void)
{
	send_seg(SYN, NULL);
	assert_int_equal(look(), SYN | ACK);
	send_seg(ACK, NULL);
	assert_int_equal(look(), 0);
}

static int set_up(void **state)
{
	const struct net_service s = {.address = ADDRESS, .port = 80, .serve = serve};

	memset(&b, 0, sizeof b);
	keeper_init(&b.card, NET_CAP_ALL);
	keeper_init(&b.far, NET_CAP_ALL);
	b.port = 1000;
	b.window = 65535;
	b.seq = 0xfffffff0; /* wraps soon */
	served = 0;
	if (loop_new(&b.loop, NULL) < 0 || service_new(&b.f, &s, b.loop, NULL) < 0)
		return -1;
	loop_clock_pause(b.loop, true);
	net_connect(&b.f->side[NET_CARD_SIDE], &b.card.port);
	net_connect(&b.f->side[NET_WIRE_SIDE], &b.far.port);
	return 0;
}

static int tear_down(void **state)
{
	b.f->ops->free(b.f);
	keeper_clear(&b.card);
	keeper_clear(&b.far);
	loop_free(b.loop);
	return 0;
}

/* --- tests --- */

static void arp_for_the_address_is_answered(void **state)
{
	uint8_t f[42] = {255, 255, 255, 255, 255, 255, 6, 6, 6, 6, 6, 6, 8,   6,  0, 1,
			 8,   0,   6,   4,   0,   1,   6, 6, 6, 6, 6, 6, 172, 16, 0, 2};
	const struct net_hdr h = {0};

	put32(f + 38, ADDRESS);
	assert_true(keeper_send(&b.card, &h, f, sizeof f));
	assert_int_equal(b.card.frames, 1);
	assert_int_equal(b.far.frames, 0);
	assert_int_equal(b.card.frame[0][21], 2);
	assert_int_equal(get32(b.card.frame[0] + 28), ADDRESS);
	put32(f + 38, ADDRESS + 1); /* somebody else's */
	assert_true(keeper_send(&b.card, &h, f, sizeof f));
	assert_int_equal(b.far.frames, 1);
}

static void other_frames_pass_both_ways(void **state)
{
	static uint8_t f[NET_FRAME_MAX];
	const struct frame_spec s = {.data = 100};
	size_t len = frame_make(f, &s);

	assert_true(keeper_send(&b.card, NULL, f, len));
	assert_true(keeper_send(&b.far, NULL, f, len));
	assert_int_equal(b.far.frames, 1);
	assert_int_equal(b.card.frames, 1);
}

static void a_request_is_answered_and_another(void **state)
{
	connect_guest();
	send_seg(ACK | PSH, "hello\n");
	look();
	assert_string_equal(b.got, "hello\n");
	send_seg(ACK | PSH, "in pie");
	send_seg(ACK | PSH, "ces\n");
	look();
	assert_string_equal(b.got, "hello\nin pieces\n");
	send_seg(ACK | FIN, NULL);
	assert_true(look() & FIN);
	send_seg(ACK, NULL);
	assert_int_equal(look(), 0);
	send_seg(ACK, "x"); /* there is nobody any more */
	assert_true(look() & RST);
}

static void the_last_answer_closes(void **state)
{
	connect_guest();
	send_seg(ACK | PSH, "bye\n");
	assert_true(look() & FIN);
	assert_string_equal(b.got, "bye\n");
	send_seg(ACK | FIN, NULL);
	look();
	send_seg(ACK, "x");
	assert_true(look() & RST);
}

static void a_long_answer_keeps_to_the_window(void **state)
{
	answer_len = 150000;
	b.window = 4000;
	connect_guest();
	send_seg(ACK | PSH, "big\n");
	for (unsigned i = 0; i < 200 && b.got_len < answer_len; i++) {
		size_t before = b.got_len;

		look();
		assert_true(b.got_len - before <= 4000);
		send_seg(ACK, NULL);
	}
	look();
	assert_int_equal(b.got_len, answer_len);
	for (size_t i = 0; i < answer_len; i++)
		assert_int_equal(b.got[i], 'a' + i % 23);
}

static void what_got_lost_comes_again(void **state)
{
	answer_len = 5000;
	connect_guest();
	b.card.full = true; /* no room for any of it */
	send_seg(ACK | PSH, "big\n");
	b.card.full = false;
	assert_int_equal(look(), 0);
	loop_clock_set(b.loop, UINT64_C(250000000));
	loop_clock_pause(b.loop, false);
	assert_int_equal(loop_once(b.loop), 0);
	look();
	assert_int_equal(b.got_len, answer_len);
}

static void data_that_comes_twice_or_too_early_counts_once(void **state)
{
	connect_guest();
	send_to(80, b.seq + 3, ACK, "lo\n", 3);
	assert_int_equal(look(), ACK);
	send_to(80, b.seq, ACK, "hel", 3);
	send_to(80, b.seq, ACK, "hel", 3);
	send_to(80, b.seq + 1, ACK, "ello\n", 5);
	look();
	assert_string_equal(b.got, "hello\n");
}

static void other_ports_are_closed(void **state)
{
	send_to(81, b.seq, SYN, NULL, 0);
	assert_int_equal(look(), RST | ACK);
	assert_int_equal(b.far.frames, 0);
}

static void the_quietest_makes_room_for_one_more(void **state)
{
	for (unsigned i = 0; i < SERVICE_CONNS + 5; i++) {
		loop_clock_set(b.loop, UINT64_C(1000000) * i);
		b.port++;
		b.seq = 7;
		connect_guest();
	}
	send_seg(ACK | PSH, "still\n");
	look();
	assert_string_equal(b.got, "still\n");
}

static void a_line_without_end_ends_the_connection(void **state)
{
	static char much[SERVICE_IN_MAX + 1];

	memset(much, 'x', sizeof much - 1);
	connect_guest();
	send_seg(ACK | PSH, much);
	assert_true(look() & FIN);
	assert_int_equal(served, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(arp_for_the_address_is_answered),
		TEST(other_frames_pass_both_ways),
		TEST(a_request_is_answered_and_another),
		TEST(the_last_answer_closes),
		TEST(a_long_answer_keeps_to_the_window),
		TEST(what_got_lost_comes_again),
		TEST(data_that_comes_twice_or_too_early_counts_once),
		TEST(other_ports_are_closed),
		TEST(the_quietest_makes_room_for_one_more),
		TEST(a_line_without_end_ends_the_connection),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
