#include "cli/console_out.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/test.h"

/* More than a pipe and our buffer hold together. */
#define MUCH 200000u

static struct console_out out;
static int end[2]; /* reader, writer */
static struct err err;

static void text(const char *s)
{
	out.sink.put(&out.sink, (const uint8_t *)s, (uint32_t)strlen(s));
}

static uint8_t pattern(uint32_t i)
{
	return (uint8_t)(i * 7 + i / 251);
}

static void *put_much(void *arg)
{
	for (uint32_t i = 0; i < MUCH; i++) {
		uint8_t b = pattern(i);

		out.sink.put(&out.sink, &b, 1);
	}
	return NULL;
}

static void *put_much_and_finish(void *arg)
{
	put_much(arg);
	console_out_done(&out);
	return NULL;
}

static void expect_much(int fd)
{
	uint8_t *got = malloc(MUCH);
	uint32_t len = 0;

	while (len < MUCH) {
		ssize_t n = read(fd, got + len, MUCH - len);

		assert_true(n > 0);
		len += (uint32_t)n;
	}
	for (uint32_t i = 0; i < MUCH; i++)
		assert_int_equal(got[i], pattern(i));
	free(got);
}

static int with_pipe(void **state)
{
	signal(SIGPIPE, SIG_IGN);
	return pipe2(end, O_CLOEXEC) < 0 ? -1 : console_out_init(&out, end[1], &err);
}

static int closed(void **state)
{
	close(end[0]);
	close(end[1]);
	return 0;
}

static void without_a_loop_bytes_come_at_the_end(void **state)
{
	char got[8] = "";

	text("abc");
	console_out_done(&out);
	assert_int_equal(read(end[0], got, sizeof got), 3);
	assert_string_equal(got, "abc");
}

static void *run_loop(void *l)
{
	assert_int_equal(loop_run(l), 0);
	return NULL;
}

/* A writer, the loop and a reader, all at once. */
static void through_a_loop(int reader)
{
	struct loop *l;
	pthread_t loop_thread, writer;

	assert_int_equal(loop_new(&l, &err), 0);
	assert_int_equal(console_out_attach(&out, l, &err), 0);
	pthread_create(&loop_thread, NULL, run_loop, l);
	pthread_create(&writer, NULL, put_much, NULL);
	expect_much(reader);
	pthread_join(writer, NULL);
	text("end");
	char got[3];
	assert_int_equal(read(reader, got, sizeof got), 3);
	loop_stop(l);
	pthread_join(loop_thread, NULL);
	console_out_detach(&out);
	loop_free(l);
	console_out_done(&out);
}

static void the_loop_writes_in_order_and_loses_nothing(void **state)
{
	through_a_loop(end[0]);
}

static void a_socket_works_too(void **state)
{
	int s[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s), 0);
	assert_int_equal(console_out_init(&out, s[1], &err), 0);
	through_a_loop(s[0]);
	close(s[0]);
	close(s[1]);
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* Bytes that come one by one are written together, and soon. */
static void single_bytes_are_gathered(void **state)
{
	char got[64];
	struct loop *l;
	pthread_t loop_thread;
	uint64_t start;

	assert_int_equal(loop_new(&l, &err), 0);
	assert_int_equal(console_out_attach(&out, l, &err), 0);
	text("a");
	text("b");
	text("c");
	start = now_ns();
	pthread_create(&loop_thread, NULL, run_loop, l);
	assert_int_equal(read(end[0], got, sizeof got), 3);
	assert_true(now_ns() - start < 500000000);
	loop_stop(l);
	pthread_join(loop_thread, NULL);
	console_out_detach(&out);
	loop_free(l);
	console_out_done(&out);
}

static void a_slow_reader_makes_the_writer_wait(void **state)
{
	pthread_t writer;

	pthread_create(&writer, NULL, put_much_and_finish, NULL);
	usleep(20000);
	assert_false(out.gone);
	expect_much(end[0]);
	pthread_join(writer, NULL);
}

static void abandoning_frees_the_writer(void **state)
{
	pthread_t writer;

	pthread_create(&writer, NULL, put_much, NULL);
	usleep(20000);
	console_out_abandon(&out);
	pthread_join(writer, NULL);
	console_out_done(&out);
}

static void a_reader_who_leaves_frees_the_writer(void **state)
{
	pthread_t writer;

	pthread_create(&writer, NULL, put_much, NULL);
	usleep(20000);
	close(end[0]);
	pthread_join(writer, NULL);
	assert_true(out.gone);
	console_out_done(&out);
	assert_int_equal(pipe2(end, O_CLOEXEC), 0);
}

static void no_descriptor_is_no_failure(void **state)
{
	assert_int_equal(console_out_init(&out, -1, &err), 0);
	text("abc");
	console_out_done(&out);
}

static void the_given_descriptor_keeps_its_flags(void **state)
{
	text("abc");
	console_out_done(&out);
	assert_int_equal(fcntl(end[1], F_GETFL) & O_NONBLOCK, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(without_a_loop_bytes_come_at_the_end, with_pipe,
						closed),
		cmocka_unit_test_setup_teardown(the_loop_writes_in_order_and_loses_nothing,
						with_pipe, closed),
		cmocka_unit_test(a_socket_works_too),
		cmocka_unit_test_setup_teardown(single_bytes_are_gathered, with_pipe, closed),
		cmocka_unit_test_setup_teardown(a_slow_reader_makes_the_writer_wait, with_pipe,
						closed),
		cmocka_unit_test_setup_teardown(abandoning_frees_the_writer, with_pipe, closed),
		cmocka_unit_test_setup_teardown(a_reader_who_leaves_frees_the_writer, with_pipe,
						closed),
		cmocka_unit_test(no_descriptor_is_no_failure),
		cmocka_unit_test_setup_teardown(the_given_descriptor_keeps_its_flags, with_pipe,
						closed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
