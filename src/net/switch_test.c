/* switch_test: the switch over real sockets, with others on them that keep to nothing. */
#include "net/switch_priv.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/test.h"
#include "net/frames.h"

#define BIG 60000u /* bytes of a frame */

static struct loop *loop;
static struct keeper card;
static struct net_port way; /* the hub's to the card */
static struct hub *hub;
static struct sockaddr_un at;
static socklen_t at_len;

static void nothing(struct loop_call *c)
{
}

static void settle(void)
{
	for (unsigned i = 0; i < 8; i++) {
		struct loop_call c = {.run = nothing}; /* so that it does not sleep */

		loop_post(loop, &c);
		assert_true(loop_once(loop) >= 0);
	}
}

static int stream(void)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	assert_true(fd >= 0);
	return fd;
}

static unsigned descriptors(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

/* --- messages as a peer sends them --- */

static uint8_t message[KIB(128)];

static bool send_bytes(int fd, uint32_t type, size_t len)
{
	memcpy(message, &type, 4);
	return send(fd, message, 4 + len, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0;
}

static bool send_hello(int fd)
{
	const struct wire_hello h = {WIRE_MAGIC, NET_CAP_ALL, 0};

	memcpy(message + 4, &h, sizeof h);
	return send_bytes(fd, WIRE_HELLO, sizeof h);
}

#define ALL UINT32_MAX

/* A frame of len bytes from and to these stations. */
static uint8_t *make_frame(uint8_t *to, uint32_t dst, uint32_t src, size_t len)
{
	memset(to, 0, len);
	to[0] = to[6] = 2;
	memcpy(to + 1, &dst, 4);
	memcpy(to + 7, &src, 4);
	if (dst == ALL)
		memset(to, 0xff, 6);
	return to;
}

static bool send_frame(int fd, uint32_t dst, uint32_t src, size_t len)
{
	memset(message + 4, 0, sizeof(struct net_hdr));
	make_frame(message + 4 + sizeof(struct net_hdr), dst, src, len);
	return send_bytes(fd, WIRE_FRAME, sizeof(struct net_hdr) + len);
}

static void card_sends(uint32_t dst, uint32_t src, size_t len)
{
	static uint8_t frame[BIG];
	static const struct net_hdr plain;
	struct iovec iov = {make_frame(frame, dst, src, len), len};

	hub_take(hub, &plain, &iov, 1);
	hub_flush(hub);
}

/* How many messages come; -1: the other end has closed. */
static int drain(int fd)
{
	static uint8_t buf[WIRE_MSG_MAX];
	int n = 0;
	ssize_t r;

	while ((r = recv(fd, buf, sizeof buf, MSG_DONTWAIT)) > 0)
		n++;
	return r == 0 || errno != EAGAIN ? -1 : n;
}

/* --- one who serves --- */

static int start_hub(void **state)
{
	static const struct net_port_ops none;
	const struct net_opts o = {.kind = NET_SWITCH};
	int fd = stream();

	at = (struct sockaddr_un){.sun_family = AF_UNIX};
	if (bind(fd, (struct sockaddr *)&at, sizeof at.sun_family) < 0 || listen(fd, 80) < 0)
		return -1;
	at_len = sizeof at;
	if (getsockname(fd, (struct sockaddr *)&at, &at_len) < 0)
		return -1;
	keeper_init(&card, NET_CAP_ALL);
	way = (struct net_port){.ops = &none};
	net_connect(&way, &card.port);
	return loop_new(&loop, NULL) < 0 ? -1 : hub_new(&hub, fd, &way, &o, loop, NULL);
}

static int end_hub(void **state)
{
	hub_free(hub);
	keeper_clear(&card);
	loop_free(loop);
	return 0;
}

static int join(void)
{
	int fd = stream();

	assert_int_equal(connect(fd, (struct sockaddr *)&at, at_len), 0);
	settle();
	return fd;
}

static int join_and_greet(void)
{
	int fd = join();

	assert_true(send_hello(fd));
	settle();
	return fd;
}

static void frames_go_where_their_destination_was_seen(void **state)
{
	int a = join_and_greet(), b = join_and_greet();

	assert_true(send_frame(a, ALL, 0xaa, 60));
	settle();
	assert_int_equal(card.frames, 1);
	assert_int_equal(drain(b), 1);
	assert_int_equal(drain(a), 0);
	card_sends(0xaa, 1, 60);
	assert_int_equal(drain(a), 1);
	assert_int_equal(drain(b), 0);
	card_sends(0xbb, 1, 60); /* whom nobody knows */
	assert_int_equal(drain(a), 1);
	assert_int_equal(drain(b), 1);
	close(a);
	close(b);
}

static void who_sends_before_its_greeting_is_left(void **state)
{
	int a = join();

	assert_true(send_frame(a, ALL, 1, 60));
	settle();
	assert_int_equal(drain(a), -1);
	assert_int_equal(card.frames, 0);
	close(a);
}

static bool send_nonsense(int fd, unsigned kind)
{
	struct wire_hello bad = {WIRE_MAGIC + 1, 0, 0};
	const struct net_hdr lie = {.flags = NET_HDR_NEEDS_CSUM, .csum_start = 60000};

	memset(message, kind < 6 ? 0xa5 : 0, sizeof message);
	switch (kind) {
	case 0: return send(fd, message, 1, MSG_NOSIGNAL) == 1;
	case 1: return send_bytes(fd, 77, 60);
	case 2: return send_bytes(fd, WIRE_HELLO, sizeof bad - 1);
	case 3:
		memcpy(message + 4, &bad, sizeof bad);
		return send_bytes(fd, WIRE_HELLO, sizeof bad);
	case 4: return send_bytes(fd, WIRE_FRAME, sizeof lie + 13);
	case 5: memcpy(message + 4, &lie, sizeof lie); return send_bytes(fd, WIRE_FRAME, 100);
	case 6: return send_bytes(fd, WIRE_FRAME, WIRE_MSG_MAX - 4 + 1);
	default: return send_bytes(fd, WIRE_FRAME, sizeof message - 4);
	}
}

static void who_sends_nonsense_is_left_and_others_are_not(void **state)
{
	int good = join_and_greet();
	unsigned before = descriptors();

	for (unsigned kind = 0; kind < 8; kind++) {
		int fd = join_and_greet();

		assert_true(send_nonsense(fd, kind));
		settle();
		if (drain(fd) != -1)
			fail_msg("nonsense %u is put up with", kind);
		close(fd);
		card_sends(ALL, 1, 60);
		assert_int_equal(drain(good), 1);
	}
	assert_int_equal(card.frames, 0);
	assert_int_equal(descriptors(), before);
	close(good);
}

static void who_never_reads_loses_frames_and_holds_nobody_up(void **state)
{
	int deaf = join_and_greet(), good = join_and_greet();
	unsigned heard = 0, n = 400;

	for (unsigned i = 0; i < n; i++) {
		card_sends(ALL, 1, BIG);
		heard += (unsigned)drain(good);
		assert_true(hub->peer[0]->queue.bytes <= QUEUE_MAX);
		settle();
	}
	assert_int_equal(heard, n);
	assert_true(hub->peer[0]->waits);
	heard = 0;
	for (unsigned i = 0; i < n && hub->peer[0]->waits; i++) { /* it does at last */
		heard += (unsigned)drain(deaf);
		settle();
	}
	assert_false(hub->peer[0]->waits);
	assert_in_range(heard, QUEUE_MAX / BIG, n - 1);
	close(deaf);
	close(good);
}

static void who_leaves_with_frames_waiting_is_forgotten(void **state)
{
	int deaf = join_and_greet(), good = join_and_greet();

	assert_true(send_frame(deaf, ALL, 0xaa, 60));
	settle();
	while (!hub->peer[0]->waits)
		card_sends(ALL, 1, BIG), (void)drain(good);
	close(deaf);
	settle();
	assert_null(hub->peer[0]);
	card_sends(0xaa, 1, 60);
	assert_int_equal(drain(good), 1);
	close(good);
}

static void made_up_stations_take_nobodys_place_and_no_memory(void **state)
{
	int liar = join_and_greet(), good = join_and_greet();
	unsigned sent = 0;

	for (uint32_t src = 0; src < 20000; src++) {
		while (!send_frame(liar, ALL, src * 2654435761u, 60))
			settle(), (void)drain(good), keeper_clear(&card);
		sent++;
	}
	settle();
	(void)drain(good);
	assert_int_equal(sent, 20000);
	assert_true(send_frame(good, ALL, 7, 60));
	settle();
	assert_int_equal(drain(liar), 1);
	card_sends(ALL, 1, 60);
	assert_int_equal(drain(good), 1);
	close(liar);
	close(good);
}

static void who_comes_and_goes_leaves_nothing(void **state)
{
	unsigned before = descriptors();

	for (unsigned i = 0; i < 300; i++) {
		int fd = i % 3 ? join() : join_and_greet();

		if (i % 3)
			(void)send_hello(fd), (void)send_frame(fd, ALL, i, 60);
		close(fd);
		keeper_clear(&card);
	}
	settle();
	for (unsigned i = 0; i < SWITCH_PEERS_MAX; i++)
		assert_null(hub->peer[i]);
	assert_int_equal(descriptors(), before);
}

static void more_than_there_is_room_for_are_turned_away(void **state)
{
	int fd[SWITCH_PEERS_MAX], more;

	for (unsigned i = 0; i < SWITCH_PEERS_MAX; i++)
		fd[i] = join_and_greet();
	more = join();
	assert_int_equal(drain(more), -1);
	close(more);
	close(fd[5]);
	settle();
	fd[5] = join_and_greet();
	card_sends(ALL, 1, 60);
	for (unsigned i = 0; i < SWITCH_PEERS_MAX; i++) {
		assert_int_equal(drain(fd[i]), 1);
		close(fd[i]);
	}
}

/* --- one who is connected: the test holds the lock and serves --- */

static char folder[] = "/tmp/holon-switch-test-XXXXXX";
static char lock_path[96];
static int lock, listener;
static struct net_port *member;

static int listen_there(void)
{
	int fd = stream();

	unlink(at.sun_path);
	return bind(fd, (struct sockaddr *)&at, sizeof at) < 0 || listen(fd, 8) < 0 ? -1 : fd;
}

static int start_member(void **state)
{
	const struct net_opts o = {.kind = NET_SWITCH, .name = "s"};
	char holon[80];

	memcpy(folder + sizeof folder - 7, "XXXXXX", 6);
	if (!mkdtemp(folder) || setenv("XDG_RUNTIME_DIR", folder, 1) < 0)
		return -1;
	snprintf(holon, sizeof holon, "%s/holon", folder);
	snprintf(lock_path, sizeof lock_path, "%s/switch-s/lock", holon);
	at = (struct sockaddr_un){.sun_family = AF_UNIX};
	snprintf(at.sun_path, sizeof at.sun_path, "%s/switch-s/sock", holon);
	if (mkdir(holon, 0700) < 0)
		return -1;
	strcat(holon, "/switch-s");
	if (mkdir(holon, 0700) < 0)
		return -1;
	lock = open(lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	listener = listen_there();
	keeper_init(&card, NET_CAP_ALL);
	if (lock < 0 || listener < 0 || flock(lock, LOCK_EX | LOCK_NB) < 0 ||
	    loop_new(&loop, NULL) < 0)
		return -1;
	return net_backend_new(&member, &card.port, &o, loop, NULL);
}

static int end_member(void **state)
{
	net_backend_free(member);
	keeper_clear(&card);
	loop_free(loop);
	close(listener);
	close(lock);
	unlink(lock_path);
	unlink(at.sun_path);
	for (int i = 0; i < 2; i++) {
		*strrchr(lock_path, '/') = 0;
		rmdir(lock_path);
	}
	return rmdir(folder);
}

/* The connection of the member, which tries again and again. */
static int accept_member(void)
{
	for (;;) {
		int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd >= 0)
			return fd;
		assert_int_equal(errno, EAGAIN);
		assert_true(loop_once(loop) >= 0);
	}
}

static void a_server_that_sends_nonsense_is_left_and_tried_again(void **state)
{
	unsigned before = descriptors();

	for (unsigned kind = 0; kind < 8; kind++) {
		int fd = accept_member();

		assert_in_range(drain(fd), 1, 2); /* greetings */
		assert_true(send_frame(fd, ALL, 1, 60));
		settle();
		assert_int_equal(card.frames, kind + 1);
		assert_true(send_nonsense(fd, kind));
		settle();
		assert_int_equal(drain(fd), -1);
		close(fd);
	}
	assert_in_range(descriptors(), before - 1, before + 1);
	assert_true(card.link_up);
}

static void a_card_waits_for_a_server_that_never_reads_until_that_ends(void **state)
{
	static uint8_t frame[BIG];
	int fd = accept_member();
	unsigned sent = 0;

	make_frame(frame, ALL, 1, BIG);
	while (sent < 10000 && keeper_send(&card, NULL, frame, BIG))
		sent++;
	assert_in_range(sent, 1, 1000);
	settle();
	assert_int_equal(card.rooms, 0);
	close(fd);
	settle();
	assert_int_equal(card.rooms, 1);
	fd = accept_member();
	assert_int_equal(drain(fd), 1);
	assert_true(keeper_send(&card, NULL, frame, BIG));
	assert_int_equal(drain(fd), 1);
	close(fd);
}

static void a_member_serves_when_the_lock_is_free(void **state)
{
	int fd = accept_member(), other;

	close(listener);
	close(lock);
	close(fd);
	settle();
	other = stream();
	while (connect(other, (struct sockaddr *)&at, sizeof at) < 0)
		assert_true(loop_once(loop) >= 0);
	assert_true(send_hello(other));
	assert_true(send_frame(other, ALL, 1, 60));
	settle();
	assert_int_equal(card.frames, 1);
	close(other);
	lock = listener = -1;
}

int main(void)
{
#define HUB(f)    cmocka_unit_test_setup_teardown(f, start_hub, end_hub)
#define MEMBER(f) cmocka_unit_test_setup_teardown(f, start_member, end_member)
	const struct CMUnitTest tests[] = {
		HUB(frames_go_where_their_destination_was_seen),
		HUB(who_sends_before_its_greeting_is_left),
		HUB(who_sends_nonsense_is_left_and_others_are_not),
		HUB(who_never_reads_loses_frames_and_holds_nobody_up),
		HUB(who_leaves_with_frames_waiting_is_forgotten),
		HUB(made_up_stations_take_nobodys_place_and_no_memory),
		HUB(who_comes_and_goes_leaves_nothing),
		HUB(more_than_there_is_room_for_are_turned_away),
		MEMBER(a_server_that_sends_nonsense_is_left_and_tried_again),
		MEMBER(a_card_waits_for_a_server_that_never_reads_until_that_ends),
		MEMBER(a_member_serves_when_the_lock_is_free),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
