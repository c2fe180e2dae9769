#include "virtio/vsock_fixture.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/test.h"

static struct guest_mem *mem;
static struct loop *loop;
struct virtio_device *d;
struct fake_guest g;
static char dir[64];
char path[128], path9[160];
static int rx_id[BUFFERS];
bool no_buffers;

static bool ran;

static void note_run(struct loop_call *c)
{
	ran = true;
}

void work(void)
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

void boot_guest(void)
{
	memset(&g, 0, sizeof g);
	fake_guest_start(&g, d, .features = 1);
	for (unsigned i = 0; i < BUFFERS; i++)
		give_buffer(i);
	fake_add(&g.q[2], FAKE_IN(EVENT_AT, 8));
	virtio_kick(d, 0);
	virtio_kick(d, 2);
}

struct virtio_device *new_device(void)
{
	struct virtio_env env = {.mem = mem, .loop = loop, .clock = loop_clock(loop)};
	struct virtio_device *new;
	struct err e;

	assert_int_equal(virtio_vsock_new(&new, &env, path, 3, &e), 0);
	return new;
}

int vsock_setup(void **state)
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

int vsock_teardown(void **state)
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

void header(uint8_t *h, uint32_t src, uint32_t dst, unsigned op, uint32_t len, uint32_t flags,
	    uint32_t alloc, uint32_t fwd)
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

void send_header(const uint8_t *h, const void *payload, uint32_t len)
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

uint32_t guest_forwarded;

void send_packet(uint32_t src, uint32_t dst, unsigned op, const void *payload, uint32_t len)
{
	uint8_t h[VSOCK_HEADER_LEN];

	header(h, src, dst, op, len, 0, ROOM, guest_forwarded);
	send_header(h, payload, len);
}

void send_shutdown(uint32_t src, uint32_t dst, uint32_t flags)
{
	uint8_t h[VSOCK_HEADER_LEN];

	header(h, src, dst, VSOCK_SHUTDOWN, 0, flags, ROOM, guest_forwarded);
	send_header(h, NULL, 0);
}

struct got receive(void)
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

void expect(unsigned op, uint32_t src, uint32_t dst)
{
	struct got p = receive();

	assert_int_equal(p.op, op);
	assert_int_equal(p.src, src);
	assert_int_equal(p.dst, dst);
	assert_int_equal(p.src_cid, 2);
	assert_int_equal(p.dst_cid, 3);
}

/* --- the host --- */

int client(const char *line)
{
	int fd = unix_connect(path);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, line, strlen(line)), strlen(line));
	work();
	return fd;
}

void expect_text(int fd, const char *text)
{
	char got[256] = "";

	work();
	assert_true(read(fd, got, sizeof got - 1) >= 0);
	assert_string_equal(got, text);
}

bool at_end(int fd)
{
	char c;
	struct pollfd p = {.fd = fd, .events = POLLIN};

	work();
	return poll(&p, 1, 0) == 1 && read(fd, &c, 1) <= 0;
}

int open_from_host(uint32_t *port)
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

struct unix_listener listener;

void host_listens(void)
{
	struct err e;

	assert_int_equal(unix_listen(&listener, path9, &e), 0);
}

int open_from_guest(void)
{
	int fd;

	send_packet(1000, 9, VSOCK_REQUEST, NULL, 0);
	expect(VSOCK_RESPONSE, 9, 1000);
	fd = unix_accept(&listener);
	assert_true(fd >= 0);
	return fd;
}
