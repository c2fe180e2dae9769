#include "virtio/console.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/test.h"
#include "base/unix_socket.h"
#include "virtio/fake_driver.h"

#define SIZE        BIT(0)
#define MULTIPORT   BIT(1)
#define CONTROL_AT  0x100000
#define CONTROL_LEN 128u
#define OUT_AT      0x110000
#define IN_AT       0x140000

static struct guest_mem *mem;
static struct loop *loop;
static struct virtio_device *d;
static struct fake_guest g;
static char dir[64], path[2][96];
static bool ran;
static unsigned next; /* buffer for a message to the driver */

static void note_run(struct loop_call *c)
{
	ran = true;
}

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

static struct virtio_env env(void)
{
	return (struct virtio_env){.mem = mem, .loop = loop, .clock = loop_clock(loop)};
}

static int setup(void **state)
{
	struct err e;

	strcpy(dir, "/tmp/holon-console.XXXXXX");
	assert_non_null(mkdtemp(dir));
	for (unsigned i = 0; i < 2; i++)
		snprintf(path[i], sizeof path[i], "%s/%u", dir, i);
	return mem_new(&mem, MIB(2), &e) < 0 || loop_new(&loop, &e) < 0;
}

static int teardown(void **state)
{
	virtio_console_type.free(d);
	d = NULL;
	loop_free(loop);
	mem_free(mem);
	assert_int_equal(rmdir(dir), 0); /* no socket is left there */
	return 0;
}

/* --- a device with the ports "one" and "two" --- */

static void make_ports(void)
{
	struct console_port_opts p[] = {{"one", NULL}, {"two", NULL}};
	struct virtio_console_opts o = {.port = p, .ports = 2};
	struct virtio_env v = env();
	struct err e;

	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(console_socket_new(&p[i].end, loop, path[i], &e), 0);
	assert_int_equal(virtio_console_new(&d, &v, &o, &e), 0);
	memset(&g, 0, sizeof g);
	next = 0;
	fake_guest_start(&g, d, .features = MULTIPORT);
	for (unsigned i = 0; i < 4; i++)
		fake_add(&g.q[2], FAKE_IN(CONTROL_AT + i * CONTROL_LEN, CONTROL_LEN));
}

static void say(unsigned port, unsigned event, unsigned value)
{
	uint8_t *m = fake_at(&g.q[3], CONTROL_AT + 0x1000, 8);
	struct fake_used u;

	store_le(m, port, 4);
	store_le(m + 4, event, 2);
	store_le(m + 6, value, 2);
	assert_true(fake_add(&g.q[3], FAKE_OUT(CONTROL_AT + 0x1000, 8)) >= 0);
	virtio_kick(d, 3);
	work();
	assert_true(fake_take(&g.q[3], &u));
}

/* The next message for the driver, as text: "PORT EVENT VALUE NAME"; "" when there is none. */
static const char *heard(void)
{
	static char text[128];
	struct fake_used u;
	const uint8_t *m;

	work();
	*text = 0;
	if (!fake_take(&g.q[2], &u))
		return text;
	m = fake_at(&g.q[2], CONTROL_AT + (next++ % 4) * CONTROL_LEN, CONTROL_LEN);
	snprintf(text, sizeof text, "%u %u %u %.*s", (unsigned)load_le(m, 4),
		 (unsigned)load_le(m + 4, 2), (unsigned)load_le(m + 6, 2), (int)(u.len - 8),
		 u.len > 8 ? (const char *)m + 8 : "");
	fake_add(&g.q[2], FAKE_IN((gpa_t)(m - (uint8_t *)fake_at(&g.q[2], 0, 1)), CONTROL_LEN));
	virtio_kick(d, 2);
	return text;
}

/* The driver finds port 1, and a program opens it. */
static void open_port_1(void)
{
	make_ports();
	say(0, 0, 1); /* DEVICE_READY */
	while (*heard())
		;
	say(1, 3, 1); /* PORT_READY */
	say(1, 6, 1); /* PORT_OPEN */
	while (*heard())
		;
}

static int client(unsigned n)
{
	int fd = unix_connect(path[n]);

	assert_true(fd >= 0);
	work();
	return fd;
}

static void guest_writes(unsigned queue, const char *text)
{
	strcpy(fake_at(&g.q[queue], OUT_AT, 4096), text);
	assert_true(fake_add(&g.q[queue], FAKE_OUT(OUT_AT, (uint32_t)strlen(text))) >= 0);
	virtio_kick(d, queue);
	work();
}

static void expect_text(int fd, const char *text)
{
	char got[256] = "";

	work();
	(void)!read(fd, got, sizeof got - 1);
	assert_string_equal(got, text);
}

static void the_driver_hears_of_ports_and_their_names(void **state)
{
	make_ports();
	assert_int_equal(load_le(d->config + 4, 4), 3);
	assert_string_equal(heard(), "");
	say(0, 0, 1);
	assert_string_equal(heard(), "1 1 1 ");
	assert_string_equal(heard(), "2 1 1 ");
	assert_string_equal(heard(), "");
	say(2, 3, 1);
	assert_string_equal(heard(), "2 7 1 two");
	assert_string_equal(heard(), "");
	say(1, 3, 1);
	assert_string_equal(heard(), "1 7 1 one");
}

static void the_driver_hears_when_clients_come_and_go(void **state)
{
	int fd;

	open_port_1();
	fd = client(0);
	assert_string_equal(heard(), "1 6 1 ");
	close(fd);
	assert_string_equal(heard(), "1 6 0 ");
	fd = client(0);
	close(fd);
	work();
	fd = client(0);
	assert_string_equal(heard(), "1 6 1 ");
	close(fd);
}

static void bytes_go_both_ways(void **state)
{
	struct fake_used u;
	int fd;

	open_port_1();
	fd = client(0);
	guest_writes(5, "from guest");
	expect_text(fd, "from guest");
	assert_true(fake_take(&g.q[5], &u));
	fake_add(&g.q[4], FAKE_IN(IN_AT, 4), FAKE_IN(IN_AT + 0x1000, 4096));
	virtio_kick(d, 4);
	assert_int_equal(write(fd, "from host", 9), 9);
	work();
	assert_true(fake_take(&g.q[4], &u));
	assert_int_equal(u.len, 9);
	assert_memory_equal(fake_at(&g.q[4], IN_AT, 4), "from", 4);
	assert_memory_equal(fake_at(&g.q[4], IN_AT + 0x1000, 5), " host", 5);
	close(fd);
}

static void who_writes_waits_for_a_client(void **state)
{
	struct fake_used u;
	int fd;

	open_port_1();
	guest_writes(5, "early");
	assert_false(fake_take(&g.q[5], &u));
	fd = client(0);
	expect_text(fd, "early");
	assert_true(fake_take(&g.q[5], &u));
	close(fd);
}

static void a_client_waits_until_the_guest_opens_the_port(void **state)
{
	struct fake_used u;
	int fd;

	open_port_1();
	say(1, 6, 0);
	fake_add(&g.q[4], FAKE_IN(IN_AT, 4096));
	fd = client(0);
	assert_int_equal(write(fd, "x", 1), 1);
	work();
	assert_false(fake_take(&g.q[4], &u));
	say(1, 6, 1);
	assert_true(fake_take(&g.q[4], &u));
	close(fd);
}

static void a_slow_client_loses_nothing(void **state)
{
	static uint8_t got[MIB(1)];
	uint8_t *from;
	size_t len = 0;
	int fd;

	open_port_1();
	fd = client(0);
	from = fake_at(&g.q[5], IN_AT, 65536);
	for (unsigned i = 0; i < 65536; i++)
		from[i] = (uint8_t)(i * 7 + (i >> 8));
	for (unsigned n = 0; n < 16; n++)
		assert_true(fake_add(&g.q[5], FAKE_OUT(IN_AT, 65536)) >= 0);
	virtio_kick(d, 5);
	for (unsigned tries = 0; len < sizeof got && tries < 100000; tries++) {
		ssize_t n = read(fd, got + len, 3000);

		len += n > 0 ? (size_t)n : 0;
		if (tries % 7 == 0)
			work();
		if (tries == 50) { /* a pause in the middle changes nothing */
			assert_true(fake_guest_stop(&g));
			work();
			virtio_start(d);
		}
	}
	assert_int_equal(len, sizeof got);
	for (unsigned i = 0; i < 16; i++)
		assert_memory_equal(got + i * 65536, from, 65536);
	close(fd);
}

static void half_a_message_is_not_the_next_clients(void **state)
{
	static char got[65536];
	size_t total = 0, whole = 0;
	struct fake_used u;
	int fd;

	open_port_1();
	fd = client(0);
	for (unsigned n = 0; n < 16; n++)
		fake_add(&g.q[5], FAKE_OUT(IN_AT, 65536));
	virtio_kick(d, 5);
	work();
	close(fd);
	work();
	while (fake_take(&g.q[5], &u))
		whole++;
	fd = client(0);
	for (unsigned idle = 0; idle < 3; work()) {
		ssize_t n = read(fd, got, sizeof got);

		total += n > 0 ? (size_t)n : 0;
		idle = n > 0 ? 0 : idle + 1;
	}
	assert_int_equal(total, (16 - whole - 1) * 65536);
	close(fd);
}

static void a_driver_that_takes_no_messages_hears_of_a_change_later(void **state)
{
	struct fake_used u;
	int fd;

	make_ports();
	say(0, 0, 1);
	say(1, 3, 1);
	fd = client(0);
	for (unsigned i = 0; i < 4; i++) /* two ports, a name, a client: no buffer is left */
		assert_true(fake_take(&g.q[2], &u));
	close(fd);
	work();
	fd = client(0);
	for (unsigned i = 0; i < 4; i++)
		fake_add(&g.q[2], FAKE_IN(CONTROL_AT + i * CONTROL_LEN, CONTROL_LEN));
	virtio_kick(d, 2);
	assert_string_equal(heard(), "1 6 0 ");
	assert_string_equal(heard(), "1 6 1 ");
	close(fd);
}

static void one_client_at_a_time(void **state)
{
	int first, second;

	open_port_1();
	first = client(0);
	second = client(0);
	guest_writes(5, "for the first");
	expect_text(first, "for the first");
	close(first);
	work();
	guest_writes(5, "for the second");
	expect_text(second, "for the second");
	close(second);
}

static void a_client_that_said_all_may_still_listen(void **state)
{
	struct fake_used u;
	int fd;

	open_port_1();
	fake_add(&g.q[4], FAKE_IN(IN_AT, 4096));
	fd = client(0);
	assert_int_equal(write(fd, "question", 8), 8);
	shutdown(fd, SHUT_WR);
	work();
	assert_true(fake_take(&g.q[4], &u));
	guest_writes(5, "answer");
	expect_text(fd, "answer");
	close(fd);
}

static void what_a_client_left_is_read_after_it_has_gone(void **state)
{
	struct fake_used u;
	int fd;

	open_port_1();
	fd = client(0);
	assert_string_equal(heard(), "1 6 1 ");
	assert_int_equal(write(fd, "left", 4), 4);
	close(fd);
	assert_string_equal(heard(), "");
	fake_add(&g.q[4], FAKE_IN(IN_AT, 4096));
	fake_add(&g.q[4], FAKE_IN(IN_AT + 0x1000, 4096));
	virtio_kick(d, 4);
	work();
	assert_true(fake_take(&g.q[4], &u));
	assert_int_equal(u.len, 4);
	assert_string_equal(heard(), "1 6 0 ");
}

static void messages_for_no_port_do_nothing(void **state)
{
	make_ports();
	say(1, 6, 1); /* not announced yet */
	say(0, 0, 1);
	say(3, 3, 1);
	say(UINT32_MAX, 6, 1);
	say(0, 3, 1);
	say(1, 99, 1);
	assert_false(atomic_load(&d->needs_reset));
	virtio_kick(d, 7);
}

static void bad_data_chains_break_the_device(void **state)
{
	static const struct {
		unsigned queue;
		struct fake_buf buf;
	} bad[] = {{4, FAKE_OUT(IN_AT, 8)}, {5, FAKE_IN(IN_AT, 8)}};

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		int fd;

		virtio_console_type.free(d);
		open_port_1();
		fd = client(0);
		fake_add_chain(&g.q[bad[i].queue], &bad[i].buf, 1);
		virtio_kick(d, bad[i].queue);
		assert_true(atomic_load(&d->needs_reset));
		close(fd);
	}
}

static void bad_message_buffers_break_the_device(void **state)
{
	static const struct fake_buf bad[] = {FAKE_IN(CONTROL_AT, 8), FAKE_OUT(CONTROL_AT, 100)};

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		virtio_console_type.free(d);
		make_ports();
		for (unsigned n = 0; n < 4; n++)
			assert_true(virtq_pop(d->queue[2],
					      &(struct virtq_chain){.iov = &(struct iovec){0},
								    .iov_max = 1}) > 0);
		fake_add_chain(&g.q[2], &bad[i], 1);
		say(0, 0, 1);
		assert_true(atomic_load(&d->needs_reset));
	}
}

static void a_driver_of_a_loaded_state_hears_who_is_there_now(void **state)
{
	struct state *s = state_writer(), *r;
	const void *bytes;
	struct err e;
	size_t len;
	int fd;

	open_port_1();
	fd = client(0);
	assert_string_equal(heard(), "1 6 1 ");
	assert_true(fake_guest_stop(&g));
	state_begin(s, "virtio-console", 0);
	virtio_state(d, s);
	state_end(s);
	bytes = state_written(s, &len);
	close(fd);
	work();
	r = state_reader(bytes, len);
	state_begin(r, "virtio-console", 0);
	virtio_state(d, r);
	state_end(r);
	assert_int_equal(state_result(r, &e), 0);
	virtio_start(d);
	assert_string_equal(heard(), "1 6 0 ");
	state_free(r);
	state_free(s);
}

/* --- a console --- */

static char printed[256];
static unsigned printed_len;

static void print(void *ctx, const uint8_t *bytes, uint32_t len)
{
	assert_true(printed_len + len < sizeof printed);
	memcpy(printed + printed_len, bytes, len);
	printed_len += len;
	printed[printed_len] = 0;
}

static unsigned rooms;

static void note_room(void *ctx)
{
	rooms++;
}

static struct console_end *make_console(void)
{
	struct console_pipe_opts p = {.put = print, .room = note_room};
	struct virtio_console_opts o = {0};
	struct virtio_env v = env();
	struct err e;

	printed_len = rooms = 0;
	assert_int_equal(console_pipe_new(&o.console, loop, &p, &e), 0);
	assert_int_equal(virtio_console_new(&d, &v, &o, &e), 0);
	memset(&g, 0, sizeof g);
	fake_guest_start(&g, d, .features = SIZE);
	return o.console;
}

static void a_console_prints_and_reads(void **state)
{
	struct console_end *end = make_console();
	struct fake_used u;

	guest_writes(1, "login: ");
	assert_string_equal(printed, "login: ");
	assert_int_equal(console_pipe_input(end, (const uint8_t *)"root", 4), 4);
	work();
	fake_add(&g.q[0], FAKE_IN(IN_AT, 16));
	virtio_kick(d, 0);
	assert_true(fake_take(&g.q[0], &u));
	assert_int_equal(u.len, 4);
	assert_memory_equal(fake_at(&g.q[0], IN_AT, 4), "root", 4);
}

static void input_waits_for_the_guest_and_says_when_there_is_room(void **state)
{
	static const uint8_t bytes[5000];
	struct console_end *end = make_console();
	struct fake_used u;

	assert_int_equal(console_pipe_input(end, bytes, sizeof bytes), 4096);
	assert_int_equal(console_pipe_input(end, bytes, 1), 0);
	assert_int_equal(rooms, 0);
	fake_add(&g.q[0], FAKE_IN(IN_AT, 16));
	virtio_kick(d, 0);
	assert_true(fake_take(&g.q[0], &u));
	assert_int_equal(rooms, 1);
	assert_int_equal(console_pipe_input(end, bytes, sizeof bytes), 16);
}

static void its_size_is_in_the_configuration(void **state)
{
	make_console();
	virtio_console_resize(d, 132, 43);
	assert_int_equal(load_le(d->config, 2), 132);
	assert_int_equal(load_le(d->config + 2, 2), 43);
	assert_int_equal(atomic_load(&g.config_irqs), 1);
}

static void bad_names_are_refused_in_words(void **state)
{
	char longest[CONSOLE_NAME_MAX + 2];
	struct err e;

	memset(longest, 'x', sizeof longest);
	longest[sizeof longest - 1] = 0;
	assert_int_equal(console_check_name("org.holon.agent_0-1", &e), 0);
	assert_int_equal(console_check_name("", &e), -EINVAL);
	assert_int_equal(console_check_name("a/b", &e), -EINVAL);
	assert_int_equal(console_check_name(longest, &e), -EINVAL);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(the_driver_hears_of_ports_and_their_names),
		T(the_driver_hears_when_clients_come_and_go),
		T(bytes_go_both_ways),
		T(who_writes_waits_for_a_client),
		T(a_client_waits_until_the_guest_opens_the_port),
		T(a_slow_client_loses_nothing),
		T(half_a_message_is_not_the_next_clients),
		T(a_driver_that_takes_no_messages_hears_of_a_change_later),
		T(one_client_at_a_time),
		T(a_client_that_said_all_may_still_listen),
		T(what_a_client_left_is_read_after_it_has_gone),
		T(messages_for_no_port_do_nothing),
		T(bad_data_chains_break_the_device),
		T(bad_message_buffers_break_the_device),
		T(a_driver_of_a_loaded_state_hears_who_is_there_now),
		T(a_console_prints_and_reads),
		T(input_waits_for_the_guest_and_says_when_there_is_room),
		T(its_size_is_in_the_configuration),
		T(bad_names_are_refused_in_words),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
