#include "base/test.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "virtio/fake_driver.h"
#include "virtio/vsock_priv.h"

/* The guest's side of a socket device, packet by packet, against real sockets of the host. */
#define BUFFERS  8 /* receive buffers */
#define RX_AT(n) (0x40000 + (n)*0x2000u)
#define RX_LEN   (VSOCK_HEADER_LEN + 4096u)
#define TX_AT    0x80000
#define EVENT_AT 0xa0000
#define ROOM     0x10000u /* what the guest's sockets grant */

static struct guest_mem *mem;
static struct loop *loop;
static struct virtio_device *d;
static struct fake_guest g;
static char dir[64], path[128], path9[160];
static int rx_id[BUFFERS];
static bool no_buffers; /* the guest gives back no receive buffer */

static bool ran;

static void note_run(struct loop_call *c)
{
	ran = true;
}

/* Lets the device do all that it can do now. */
static void work(void)
{
	static struct loop_call c = {.run = note_run};

	for (unsigned i = 0; i < 6; i++) {
		ran = false;
		loop_post(loop, &c);
		while (!ran)
			assert_int_equal(loop_once(loop), 0);
	}
}

static void give_buffer(unsigned n)
{
	rx_id[n] = fake_add(&g.q[0], FAKE_IN(RX_AT(n), VSOCK_HEADER_LEN),
			    FAKE_IN(RX_AT(n) + VSOCK_HEADER_LEN, RX_LEN - VSOCK_HEADER_LEN));
	assert_true(rx_id[n] >= 0);
}

static void boot_guest(void)
{
	memset(&g, 0, sizeof g);
	fake_guest_start(&g, d, .features = 1);
	for (unsigned i = 0; i < BUFFERS; i++)
		give_buffer(i);
	fake_add(&g.q[2], FAKE_IN(EVENT_AT, 8));
	virtio_kick(d, 0);
	virtio_kick(d, 2);
}

static struct virtio_device *new_device(void)
{
	struct virtio_env env = {.mem = mem, .loop = loop, .clock = loop_clock(loop)};
	struct virtio_device *new;
	struct err e;

	assert_int_equal(virtio_vsock_new(&new, &env, path, 3, &e), 0);
	return new;
}

static int setup(void **state)
{
	struct err e;

	strcpy(dir, "/tmp/holon-vsock.XXXXXX");
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof path, "%s/v", dir);
	snprintf(path9, sizeof path9, "%s_9", path);
	assert_int_equal(mem_new(&mem, MIB(2), &e), 0);
	assert_int_equal(loop_new(&loop, &e), 0);
	no_buffers = false;
	d = new_device();
	boot_guest();
	return 0;
}

static int teardown(void **state)
{
	virtio_vsock_type.free(d);
	loop_free(loop);
	mem_free(mem);
	assert_int_equal(access(path, F_OK), -1);
	unlink(path9);
	rmdir(dir);
	return 0;
}

/* --- the guest --- */

static void header(uint8_t *h, uint32_t src, uint32_t dst, unsigned op, uint32_t len,
		   uint32_t flags, uint32_t alloc, uint32_t fwd)
{
	store_le(h, 3, 8);
	store_le(h + 8, 2, 8);
	store_le(h + 16, src, 4);
	store_le(h + 20, dst, 4);
	store_le(h + 24, len, 4);
	store_le(h + 28, VSOCK_STREAM, 2);
	store_le(h + 30, op, 2);
	store_le(h + 32, flags, 4);
	store_le(h + 36, alloc, 4);
	store_le(h + 40, fwd, 4);
}

static void send_header(const uint8_t *h, const void *payload, uint32_t len)
{
	struct fake_used u;

	memcpy(fake_at(&g.q[1], TX_AT, VSOCK_HEADER_LEN), h, VSOCK_HEADER_LEN);
	if (len)
		memcpy(fake_at(&g.q[1], TX_AT + VSOCK_HEADER_LEN, len), payload, len);
	/* in pieces that have nothing to do with the header's end */
	assert_true(fake_add(&g.q[1], FAKE_OUT(TX_AT, 10),
			     FAKE_OUT(TX_AT + 10, VSOCK_HEADER_LEN - 10 + len)) >= 0);
	virtio_kick(d, 1);
	work();
	(void)fake_take(&g.q[1], &u);
}

static uint32_t guest_forwarded;

static void send_packet(uint32_t src, uint32_t dst, unsigned op, const void *payload, uint32_t len)
{
	uint8_t h[VSOCK_HEADER_LEN];

	header(h, src, dst, op, len, 0, ROOM, guest_forwarded);
	send_header(h, payload, len);
}

static void send_shutdown(uint32_t src, uint32_t dst, uint32_t flags)
{
	uint8_t h[VSOCK_HEADER_LEN];

	header(h, src, dst, VSOCK_SHUTDOWN, 0, flags, ROOM, guest_forwarded);
	send_header(h, NULL, 0);
}

struct got {
	uint32_t src, dst, len, flags, alloc, fwd;
	unsigned op;
	uint64_t src_cid, dst_cid;
	char data[4097];
};

/* The next packet for the guest; op 0: there is none. */
static struct got receive(void)
{
	static struct got p;
	struct fake_used u;
	const uint8_t *h;
	unsigned n = 0;

	work();
	memset(&p, 0, sizeof p);
	if (!fake_take(&g.q[0], &u))
		return p;
	while (rx_id[n] != u.id)
		n++;
	h = fake_at(&g.q[0], RX_AT(n), RX_LEN);
	p.src_cid = load_le(h, 8);
	p.dst_cid = load_le(h + 8, 8);
	p.src = (uint32_t)load_le(h + 16, 4);
	p.dst = (uint32_t)load_le(h + 20, 4);
	p.len = (uint32_t)load_le(h + 24, 4);
	p.op = (unsigned)load_le(h + 30, 2);
	p.flags = (uint32_t)load_le(h + 32, 4);
	p.alloc = (uint32_t)load_le(h + 36, 4);
	p.fwd = (uint32_t)load_le(h + 40, 4);
	assert_int_equal(u.len, VSOCK_HEADER_LEN + p.len);
	memcpy(p.data, h + VSOCK_HEADER_LEN, p.len);
	if (!no_buffers) {
		give_buffer(n);
		virtio_kick(d, 0);
	}
	return p;
}

static void expect(unsigned op, uint32_t src, uint32_t dst)
{
	struct got p = receive();

	assert_int_equal(p.op, op);
	assert_int_equal(p.src, src);
	assert_int_equal(p.dst, dst);
	assert_int_equal(p.src_cid, 2);
	assert_int_equal(p.dst_cid, 3);
}

/* --- the host --- */

static int client(const char *line)
{
	int fd = unix_connect(path);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, line, strlen(line)), strlen(line));
	work();
	return fd;
}

static void expect_text(int fd, const char *text)
{
	char got[256] = "";

	work();
	assert_true(read(fd, got, sizeof got - 1) >= 0);
	assert_string_equal(got, text);
}

static bool at_end(int fd)
{
	char c;
	struct pollfd p = {.fd = fd, .events = POLLIN};

	work();
	return poll(&p, 1, 0) == 1 && read(fd, &c, 1) <= 0;
}

/* A connection from the host to the guest's port 52. */
static int open_from_host(uint32_t *port)
{
	int fd = client("CONNECT 52\n");
	struct got p = receive();
	char line[32];

	assert_int_equal(p.op, VSOCK_REQUEST);
	*port = p.src;
	send_packet(52, *port, VSOCK_RESPONSE, NULL, 0);
	snprintf(line, sizeof line, "OK %u\n", *port);
	expect_text(fd, line);
	return fd;
}

static struct unix_listener listener;

static void host_listens(void)
{
	struct err e;

	assert_int_equal(unix_listen(&listener, path9, &e), 0);
}

/* One from the guest's port 1000 to the host's port 9. */
static int open_from_guest(void)
{
	int fd;

	send_packet(1000, 9, VSOCK_REQUEST, NULL, 0);
	expect(VSOCK_RESPONSE, 9, 1000);
	fd = unix_accept(&listener);
	assert_true(fd >= 0);
	return fd;
}

/* --- connections --- */

static void the_host_connects_when_the_guest_accepts(void **state)
{
	int fd = client("CONNECT 52\n");
	struct got p = receive();
	char line[32];

	assert_int_equal(p.op, VSOCK_REQUEST);
	assert_int_equal(p.dst, 52);
	assert_int_equal(p.src_cid, 2);
	assert_int_equal(p.dst_cid, 3);
	assert_int_equal(p.alloc, VSOCK_BUFFER);
	send_packet(52, p.src, VSOCK_RESPONSE, NULL, 0);
	snprintf(line, sizeof line, "OK %u\n", p.src);
	expect_text(fd, line);
	close(fd);
}

static void the_host_is_closed_when_the_guest_refuses(void **state)
{
	int fd = client("CONNECT 52\n");
	struct got p = receive();

	send_packet(52, p.src, VSOCK_RST, NULL, 0);
	assert_true(at_end(fd));
	close(fd);
}

static void a_host_that_hangs_up_while_it_waits_is_a_reset(void **state)
{
	int fd = client("CONNECT 52\n");
	struct got p = receive();

	close(fd);
	expect(VSOCK_RST, p.src, 52);
	send_packet(52, p.src, VSOCK_RESPONSE, NULL, 0);
	expect(VSOCK_RST, p.src, 52);
}

static void what_the_host_says_behind_the_line_is_the_guests(void **state)
{
	int fd = client("CONNECT 52\nhello");
	struct got p = receive();

	assert_int_equal(receive().op, 0); /* not before it accepts */
	send_packet(52, p.src, VSOCK_RESPONSE, NULL, 0);
	p = receive();
	assert_int_equal(p.op, VSOCK_RW);
	assert_string_equal(p.data, "hello");
	close(fd);
}

static void lines_that_are_none_are_closed(void **state)
{
	static const char *const bad[] = {
		"CONNECT\n",
		"CONNECT \n",
		"CONNECT x\n",
		"CONNECT 1x\n",
		"CONNECT -1\n",
		"CONNECT 4294967296\n",
		"CONNECT 99999999999\n",
		"connect 1\n",
		"\n",
		"CONNECT 1111111111111111111111111111111111111111111111111111111111111111",
	};

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		int fd = client(bad[i]);

		assert_true(at_end(fd));
		close(fd);
	}
	assert_int_equal(receive().op, 0);
}

static void a_line_may_come_in_pieces(void **state)
{
	int fd = client("CONN");

	work();
	assert_int_equal(write(fd, "ECT 7", 5), 5);
	work();
	assert_int_equal(write(fd, "\n", 1), 1);
	assert_int_equal(receive().dst, 7);
	close(fd);
}

static void the_slowest_of_too_many_clients_gives_way(void **state)
{
	int fd[VSOCK_CLIENTS], more[2];

	for (unsigned i = 0; i < VSOCK_CLIENTS; i++)
		fd[i] = client("C");
	close(fd[0]);
	work();
	more[0] = client("C"); /* in the place of the first, but the last to come */
	more[1] = client("C");
	assert_true(at_end(fd[1]));
	assert_false(at_end(fd[2]));
	assert_false(at_end(more[0]));
	for (unsigned i = 1; i < VSOCK_CLIENTS; i++)
		close(fd[i]);
	close(more[0]);
	close(more[1]);
	work();
}

static void the_guest_connects_to_who_listens(void **state)
{
	struct got p;
	int fd;

	host_listens();
	fd = open_from_guest();
	send_packet(1000, 9, VSOCK_RW, "from guest", 10);
	expect_text(fd, "from guest");
	assert_int_equal(write(fd, "from host", 9), 9);
	p = receive();
	assert_int_equal(p.op, VSOCK_RW);
	assert_string_equal(p.data, "from host");
	assert_int_equal(p.fwd, 10);
	close(fd);
	unix_listener_done(&listener);
}

static void the_guest_is_reset_where_nobody_listens(void **state)
{
	send_packet(1000, 9, VSOCK_REQUEST, NULL, 0);
	expect(VSOCK_RST, 9, 1000);
	send_packet(1000, 10, VSOCK_RW, "x", 1);
	expect(VSOCK_RST, 10, 1000);
	send_packet(1000, 10, VSOCK_RST, NULL, 0); /* no answer to this */
	assert_int_equal(receive().op, 0);
}

/* --- the end of connections --- */

static void either_side_may_say_that_it_sends_no_more(void **state)
{
	struct got p;
	int fd;

	host_listens();
	fd = open_from_guest();
	shutdown(fd, SHUT_WR);
	p = receive();
	assert_int_equal(p.op, VSOCK_SHUTDOWN);
	assert_int_equal(p.flags, VSOCK_NO_SEND);
	send_packet(1000, 9, VSOCK_RW, "still", 5);
	expect_text(fd, "still");
	send_shutdown(1000, 9, VSOCK_NO_SEND);
	assert_true(at_end(fd));
	p = receive(); /* now that both said so, it is over */
	assert_int_equal(p.op, VSOCK_SHUTDOWN);
	assert_int_equal(p.flags, VSOCK_SHUT_BOTH);
	send_shutdown(1000, 9, VSOCK_SHUT_BOTH);
	expect(VSOCK_RST, 9, 1000);
	close(fd);
	unix_listener_done(&listener);
}

static void a_host_that_closes_has_its_last_bytes_delivered(void **state)
{
	struct got p;
	int fd;

	host_listens();
	fd = open_from_guest();
	assert_int_equal(write(fd, "last", 4), 4);
	close(fd);
	p = receive();
	assert_string_equal(p.data, "last");
	p = receive();
	assert_int_equal(p.op, VSOCK_SHUTDOWN);
	p = p.flags == VSOCK_SHUT_BOTH ? p : receive();
	assert_int_equal(p.op, VSOCK_SHUTDOWN);
	assert_int_equal(p.flags, VSOCK_SHUT_BOTH);
	send_packet(1000, 9, VSOCK_RST, NULL, 0);
	send_packet(1000, 9, VSOCK_RW, "x", 1);
	expect(VSOCK_RST, 9, 1000);
	unix_listener_done(&listener);
}

static void a_guest_that_closes_has_its_last_bytes_delivered(void **state)
{
	static char sent[VSOCK_BUFFER], got[VSOCK_BUFFER + 1];
	size_t total = 0, len = 0;
	ssize_t n;
	int fd;

	for (unsigned i = 0; i < sizeof sent; i++)
		sent[i] = (char)(i * 7 + (i >> 8));
	host_listens();
	fd = open_from_guest();
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &(int){4096}, sizeof(int));
	for (; total + 4096 <= sizeof sent; total += 4096)
		send_packet(1000, 9, VSOCK_RW, sent + total, 4096);
	while (receive().op)
		; /* of credit */
	send_shutdown(1000, 9, VSOCK_SHUT_BOTH);
	expect(VSOCK_RST, 9, 1000);
	while ((n = read(fd, got + len, sizeof got - len)) != 0) {
		if (n > 0)
			len += (size_t)n;
		work();
	}
	assert_int_equal(len, total);
	assert_memory_equal(got, sent, total);
	close(fd);
	unix_listener_done(&listener);
}

static void a_reset_by_the_guest_closes_the_host(void **state)
{
	uint32_t port;
	int fd = open_from_host(&port);

	send_packet(52, port, VSOCK_RST, NULL, 0);
	assert_true(at_end(fd));
	close(fd);
}

/* --- credit --- */

static void the_host_sends_no_more_than_the_guest_has_room_for(void **state)
{
	static char bytes[3 * ROOM];
	uint32_t port, total = 0, sent = 0;
	int fd = open_from_host(&port);
	struct got p;

	while (total < ROOM) {
		ssize_t n = write(fd, bytes, sizeof bytes - sent);

		sent += n > 0 ? (uint32_t)n : 0;
		p = receive();
		assert_int_equal(p.op, VSOCK_RW);
		total += p.len;
	}
	assert_int_equal(total, ROOM);
	assert_int_equal(receive().op, VSOCK_CREDIT_REQUEST);
	assert_int_equal(receive().op, 0);
	guest_forwarded = 100;
	send_packet(52, port, VSOCK_CREDIT_UPDATE, NULL, 0);
	guest_forwarded = 0;
	p = receive();
	assert_int_equal(p.op, VSOCK_RW);
	assert_int_equal(p.len, 100);
	close(fd);
}

static void a_slow_reader_stops_the_guest_by_credit(void **state)
{
	static char bytes[VSOCK_BUFFER];
	uint32_t sent = 0, fwd = 0;
	struct got p;
	int fd;

	host_listens();
	fd = open_from_guest();
	/* As a good driver: no more than the device granted. */
	for (;;) {
		uint32_t room = VSOCK_BUFFER - (sent - fwd), n = room < 4096 ? room : 4096;

		if (n)
			send_packet(1000, 9, VSOCK_RW, bytes, n);
		sent += n;
		p = receive();
		if (p.op == VSOCK_CREDIT_UPDATE)
			fwd = p.fwd;
		else if (!n)
			break;
	}
	assert_true(sent - fwd == VSOCK_BUFFER);
	while (read(fd, bytes, sizeof bytes) > 0)
		;
	p = receive();
	assert_int_equal(p.op, VSOCK_CREDIT_UPDATE);
	assert_true(p.fwd > fwd);
	close(fd);
	unix_listener_done(&listener);
}

static void a_guest_that_sends_more_than_it_may_is_reset(void **state)
{
	static char bytes[4096];
	struct got p;
	int fd;

	host_listens();
	fd = open_from_guest();
	for (unsigned i = 0; i < 1000; i++) {
		send_packet(1000, 9, VSOCK_RW, bytes, sizeof bytes);
		p = receive();
		if (p.op == VSOCK_RST)
			break;
	}
	assert_int_equal(p.op, VSOCK_RST);
	close(fd);
	unix_listener_done(&listener);
}

static void a_request_for_credit_is_answered(void **state)
{
	uint32_t port;
	int fd = open_from_host(&port);

	send_packet(52, port, VSOCK_CREDIT_REQUEST, NULL, 0);
	expect(VSOCK_CREDIT_UPDATE, port, 52);
	close(fd);
}

/* --- hostile --- */

static void packets_for_others_are_refused_or_ignored(void **state)
{
	uint8_t h[VSOCK_HEADER_LEN];

	header(h, 1000, 9, VSOCK_REQUEST, 0, 0, ROOM, 0);
	store_le(h + 8, 7, 8); /* to a CID that is not the host */
	send_header(h, NULL, 0);
	assert_int_equal(receive().op, VSOCK_RST);
	header(h, 1000, 9, VSOCK_REQUEST, 0, 0, ROOM, 0);
	store_le(h, 4, 8); /* from a CID that it has not */
	send_header(h, NULL, 0);
	assert_int_equal(receive().op, 0);
	header(h, 1000, 9, VSOCK_REQUEST, 0, 0, ROOM, 0);
	store_le(h + 28, 2, 2); /* a type that is not offered */
	send_header(h, NULL, 0);
	assert_int_equal(receive().op, VSOCK_RST);
}

static void unknown_or_misplaced_operations_reset_the_connection(void **state)
{
	static const unsigned ops[] = {0, 8, 0xffff, VSOCK_REQUEST, VSOCK_RESPONSE};

	for (unsigned i = 0; i < ARRAY_SIZE(ops); i++) {
		uint32_t port;
		int fd = open_from_host(&port);

		send_packet(52, port, ops[i], NULL, 0);
		expect(VSOCK_RST, port, 52);
		assert_true(at_end(fd));
		close(fd);
	}
}

static void a_packet_with_a_wrong_length_breaks_the_device(void **state)
{
	uint8_t h[VSOCK_HEADER_LEN];

	header(h, 1000, 9, VSOCK_RW, 100, 0, ROOM, 0);
	send_header(h, "x", 1);
	assert_true(atomic_load(&d->needs_reset));
}

static void refusals_that_the_guest_does_not_take_hold_its_packets_back(void **state)
{
	uint8_t h[VSOCK_HEADER_LEN];
	struct fake_used u;
	unsigned refused = 0;

	no_buffers = true;
	for (unsigned i = 0; i < BUFFERS + VSOCK_REFUSALS; i++) {
		send_packet(1000 + i, 9, VSOCK_REQUEST, NULL, 0);
	}
	/* One more stays in the ring. */
	header(h, 5, 9, VSOCK_REQUEST, 0, 0, ROOM, 0);
	memcpy(fake_at(&g.q[1], TX_AT, sizeof h), h, sizeof h);
	assert_true(fake_add(&g.q[1], FAKE_OUT(TX_AT, sizeof h)) >= 0);
	virtio_kick(d, 1);
	work();
	assert_false(fake_take(&g.q[1], &u));
	no_buffers = false;
	for (unsigned i = 0; i < BUFFERS; i++)
		(void)receive();
	virtio_kick(d, 0);
	while (receive().op == VSOCK_RST)
		refused++;
	assert_int_equal(refused, VSOCK_REFUSALS + 1);
}

static void connections_are_bounded(void **state)
{
	struct got p = {0};
	int fd[VSOCK_CONNS + 8];
	unsigned n = 0;

	host_listens();
	for (; n < VSOCK_CONNS + 8; n++) {
		send_packet(1000 + n, 9, VSOCK_REQUEST, NULL, 0);
		p = receive();
		if (p.op != VSOCK_RESPONSE)
			break;
		fd[n] = unix_accept(&listener);
		if (fd[n] < 0)
			break; /* the test itself may have no more descriptors */
	}
	assert_true(n <= VSOCK_CONNS);
	for (unsigned i = 0; i < n; i++)
		close(fd[i]);
	unix_listener_done(&listener);
}

/* --- life --- */

static void a_reset_of_the_driver_ends_all_connections(void **state)
{
	uint32_t port;
	int fd = open_from_host(&port);

	fake_guest_stop(&g);
	virtio_reset(d);
	assert_true(at_end(fd));
	close(fd);
	boot_guest();
	fd = open_from_host(&port);
	close(fd);
}

static void connections_stand_still_while_the_device_is_stopped(void **state)
{
	struct got p;
	int fd;

	host_listens();
	fd = open_from_guest();
	assert_true(fake_guest_stop(&g));
	assert_int_equal(write(fd, "x", 1), 1);
	work();
	virtio_start(d);
	p = receive();
	assert_int_equal(p.op, VSOCK_RW);
	close(fd);
	unix_listener_done(&listener);
}

static void a_driver_of_a_loaded_state_hears_that_its_connections_are_gone(void **state)
{
	struct state *s = state_writer();
	struct virtio_device *old = d;
	struct fake_used u;
	struct err e;
	size_t len;
	const void *bytes;

	assert_true(fake_guest_stop(&g));
	state_begin(s, "virtio-vsock", 0);
	virtio_state(d, s);
	state_end(s);
	bytes = state_written(s, &len);
	path[strlen(path) - 1] = 'w';
	d = new_device();
	struct state *r = state_reader(bytes, len);
	state_begin(r, "virtio-vsock", 0);
	virtio_state(d, r);
	state_end(r);
	assert_int_equal(state_result(r, &e), 0);
	g.d = d;
	d->transport = &g.transport;
	virtio_start(d);
	assert_true(fake_take(&g.q[2], &u));
	assert_int_equal(u.len, 4);
	assert_int_equal(load_le(fake_at(&g.q[2], EVENT_AT, 4), 4), 0);
	state_free(r);
	state_free(s);
	virtio_vsock_type.free(old);
}

static void the_socket_is_its_owners_and_takes_the_place_of_a_stale_one(void **state)
{
	struct unix_listener second;
	struct stat st;
	struct err e;

	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(unix_listen(&second, path, &e), -EADDRINUSE);
	host_listens();
	close(listener.fd); /* as if its process had died */
	assert_int_equal(unix_listen(&second, path9, &e), 0);
	unix_listener_done(&second);
	assert_int_equal(access(path9, F_OK), -1);
	close(listener.spare);
}

static void other_files_are_left_alone(void **state)
{
	struct unix_listener l;
	struct err e;
	int fd = open(path9, O_CREAT | O_WRONLY, 0600);

	close(fd);
	assert_int_equal(unix_listen(&l, path9, &e), -EADDRINUSE);
	assert_int_equal(access(path9, F_OK), 0);
}

/* Bytes in both directions at once, through random sizes, come as they were sent. */
static void much_data_both_ways_comes_as_it_was_sent(void **state)
{
	static uint8_t up[MIB(1)], down[MIB(1)], got[MIB(1)];
	uint32_t up_sent = 0, up_fwd = 0, up_got = 0, down_sent = 0, down_got = 0;
	unsigned seed = 1;
	int fd;

	for (unsigned i = 0; i < MIB(1); i++) {
		up[i] = (uint8_t)(i * 131 + (i >> 11));
		down[i] = (uint8_t)(i * 61 + (i >> 9));
	}
	host_listens();
	fd = open_from_guest();
	while (up_got < MIB(1) || down_got < MIB(1)) {
		uint32_t room =
			(uint32_t)min_u64(VSOCK_BUFFER - (up_sent - up_fwd), MIB(1) - up_sent);
		uint32_t n = (uint32_t)min_u64(room, (uint32_t)rand_r(&seed) % 4096);
		struct got p;
		ssize_t r;

		guest_forwarded = down_got;
		if (n)
			send_packet(1000, 9, VSOCK_RW, up + up_sent, n);
		up_sent += n;
		r = write(fd, down + down_sent,
			  min_u64(MIB(1) - down_sent, (uint32_t)rand_r(&seed) % 9000));
		down_sent += r > 0 ? (uint32_t)r : 0;
		r = read(fd, got + up_got, (size_t)rand_r(&seed) % 9000);
		up_got += r > 0 ? (uint32_t)r : 0;
		while ((p = receive()).op) {
			up_fwd = p.fwd;
			if (p.op == VSOCK_CREDIT_REQUEST)
				send_packet(1000, 9, VSOCK_CREDIT_UPDATE, NULL, 0);
			assert_memory_equal(p.data, down + down_got, p.len);
			down_got += p.len;
		}
	}
	assert_memory_equal(got, up, MIB(1));
	guest_forwarded = 0;
	close(fd);
	unix_listener_done(&listener);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(the_host_connects_when_the_guest_accepts),
		T(the_host_is_closed_when_the_guest_refuses),
		T(a_host_that_hangs_up_while_it_waits_is_a_reset),
		T(what_the_host_says_behind_the_line_is_the_guests),
		T(lines_that_are_none_are_closed),
		T(a_line_may_come_in_pieces),
		T(the_slowest_of_too_many_clients_gives_way),
		T(the_guest_connects_to_who_listens),
		T(the_guest_is_reset_where_nobody_listens),
		T(either_side_may_say_that_it_sends_no_more),
		T(a_host_that_closes_has_its_last_bytes_delivered),
		T(a_guest_that_closes_has_its_last_bytes_delivered),
		T(a_reset_by_the_guest_closes_the_host),
		T(the_host_sends_no_more_than_the_guest_has_room_for),
		T(a_slow_reader_stops_the_guest_by_credit),
		T(a_guest_that_sends_more_than_it_may_is_reset),
		T(a_request_for_credit_is_answered),
		T(packets_for_others_are_refused_or_ignored),
		T(unknown_or_misplaced_operations_reset_the_connection),
		T(a_packet_with_a_wrong_length_breaks_the_device),
		T(refusals_that_the_guest_does_not_take_hold_its_packets_back),
		T(connections_are_bounded),
		T(a_reset_of_the_driver_ends_all_connections),
		T(connections_stand_still_while_the_device_is_stopped),
		T(a_driver_of_a_loaded_state_hears_that_its_connections_are_gone),
		T(the_socket_is_its_owners_and_takes_the_place_of_a_stale_one),
		T(other_files_are_left_alone),
		T(much_data_both_ways_comes_as_it_was_sent),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
