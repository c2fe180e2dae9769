/* Connections: how they begin and end, and how much may be under way. */
#include "base/test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "virtio/vsock_fixture.h"

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

#define T(name) cmocka_unit_test_setup_teardown(name, vsock_setup, vsock_teardown)

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
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
