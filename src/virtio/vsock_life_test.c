/* Hostile guests, resets, saved states, files in the way, and much data. */
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

#define T(name) cmocka_unit_test_setup_teardown(name, vsock_setup, vsock_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
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
