/* The server and the client against each other, and against clients that mean harm. */
#include "api/server.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "api/client.h"
#include "base/test.h"
#include "base/unix_socket.h"

struct echo_args {
	unsigned n;
};

struct counter {
	struct api_stream stream;
	unsigned left;
};

static atomic_uint streams;

static int echo(void *ctx, const void *args, struct api_reply *reply, struct err *e)
{
	const struct echo_args *a = args;

	if (a->n == 13)
		return err_set(e, EBUSY, "unlucky");
	reply->json = json_pack("{s:i}", "n", (int)a->n);
	return 0;
}

static int nothing(void *ctx, const void *args, struct api_reply *reply, struct err *e)
{
	return 0;
}

static long more(struct api_stream *s, char *to, size_t max)
{
	struct counter *c = container_of(s, struct counter, stream);

	if (!c->left)
		return -1;
	c->left--;
	memset(to, 'x', max);
	return (long)max;
}

static long never(struct api_stream *s, char *to, size_t max)
{
	return 0;
}

static void free_counter(struct api_stream *s)
{
	atomic_fetch_sub(&streams, 1);
	free(container_of(s, struct counter, stream));
}

static int stream(void *ctx, const void *args, struct api_reply *reply, struct err *e)
{
	const struct echo_args *a = args;
	struct counter *c = calloc(1, sizeof *c);

	*c = (struct counter){{a->n ? more : never, free_counter}, a->n};
	atomic_fetch_add(&streams, 1);
	reply->stream = &c->stream;
	return 0;
}

/* Writes to the first descriptor, and keeps none. */
static int write_to(void *ctx, const void *args, struct api_fds *fds, struct api_reply *reply,
		    struct err *e)
{
	int fd = api_fds_take(fds, 0);

	reply->json = json_pack("{s:i}", "n", (int)fds->n);
	if (fd >= 0) {
		assert_int_equal(write(fd, "!", 1), 1);
		close(fd);
	}
	return 0;
}

static const struct option options[] = {{"n", OPT_NUMBER, 0, "N", ""}, {0}};
static const struct echo_args defaults = {5};
enum { ECHO, GET_ECHO, NOTHING, STREAM, WRITE_TO };
static const struct api_method methods[] = {
	{"echo", "POST", "/echo", "", NULL, RIGHT_OPERATE, 0, options, &defaults, sizeof defaults,
	 API_TYPE_JSON, "{}", echo},
	{"get-echo", "GET", "/echo", "", NULL, RIGHT_VIEW, 0, options, &defaults, sizeof defaults,
	 API_TYPE_JSON, "{}", echo},
	{"nothing", "POST", "/nothing", "", NULL, RIGHT_OPERATE, 1, .run = nothing},
	{"stream", "GET", "/stream", "", NULL, RIGHT_VIEW, 0, options, &defaults, sizeof defaults,
	 API_TYPE_BYTES, NULL, stream},
	{"write-to", "PUT", "/echo", "", .right = RIGHT_OPERATE, .type = API_TYPE_JSON,
	 .run_with = write_to},
};

static const char *refuses(void *ctx, const struct api_method *m)
{
	return m->states ? "not now" : NULL;
}

static const struct api_table table = {"t", "", methods, ARRAY_SIZE(methods), refuses, NULL};

struct fixture {
	char dir[32], path[64];
	struct api_server *server;
	struct err err;
};

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof *f);

	strcpy(f->dir, "/tmp/holon-api-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->path, sizeof f->path, "%s/s", f->dir);
	assert_int_equal(api_server_new(&f->server, f->path, &table, &f->err), 0);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	api_server_free(f->server);
	assert_int_equal(atomic_load(&streams), 0);
	assert_int_equal(access(f->path, F_OK), -1);
	rmdir(f->dir);
	free(f);
	return 0;
}

/* Blocking. */
static int raw(struct fixture *f)
{
	int fd = unix_connect(f->path);

	assert_true(fd >= 0);
	assert_int_equal(fcntl(fd, F_SETFL, 0), 0);
	return fd;
}

static size_t read_all(int fd, char *to, size_t max)
{
	size_t len = 0;
	ssize_t n;

	while (len < max && (n = read(fd, to + len, max - len)) > 0)
		len += (size_t)n;
	to[len] = 0;
	return len;
}

static void a_client_gets_its_answer(void **state)
{
	struct fixture *f = *state;
	const struct echo_args args = {42};
	struct api_client c;
	json_t *j;

	assert_int_equal(api_connect(&c, f->path, &f->err), 0);
	for (unsigned i = ECHO; i <= GET_ECHO; i++) {
		assert_int_equal(api_call(&c, &methods[i], &args, &j, &f->err), 0);
		assert_int_equal(json_integer_value(json_object_get(j, "n")), 42);
		json_decref(j);
	}
	assert_int_equal(api_call(&c, &methods[ECHO], NULL, &j, &f->err), 0);
	assert_int_equal(json_integer_value(json_object_get(j, "n")), 5);
	json_decref(j);
	api_disconnect(&c);
}

static void refusals_carry_their_reason(void **state)
{
	struct fixture *f = *state;
	const struct echo_args args = {13};
	struct api_client c;

	assert_int_equal(api_connect(&c, f->path, &f->err), 0);
	assert_int_equal(api_call(&c, &methods[ECHO], &args, NULL, &f->err), -EPROTO);
	assert_string_equal(f->err.text, "unlucky");
	assert_int_equal(api_call(&c, &methods[NOTHING], NULL, NULL, &f->err), -EPROTO);
	assert_string_equal(f->err.text, "not now");
	api_disconnect(&c);
}

/* Puts so many write ends of a pipe into the client; returns the read end. */
static int give_pipe(struct api_client *c, unsigned n)
{
	int end[2];

	assert_int_equal(pipe2(end, O_CLOEXEC), 0);
	while (c->fds.n < n)
		c->fds.fd[c->fds.n++] = fcntl(end[1], F_DUPFD_CLOEXEC, 0);
	close(end[1]);
	return end[0];
}

/* That nobody else has the write end any more. */
static void assert_closed(int end)
{
	char byte;

	assert_int_equal(read(end, &byte, 1), 0);
	close(end);
}

static void descriptors_arrive_and_those_not_taken_are_closed(void **state)
{
	struct fixture *f = *state;
	struct api_client c;
	char byte;
	json_t *j;
	int end;

	assert_int_equal(api_connect(&c, f->path, &f->err), 0);
	for (unsigned n = 1; n <= API_FDS_MAX; n += API_FDS_MAX - 1) {
		end = give_pipe(&c, n);
		assert_int_equal(api_call(&c, &methods[WRITE_TO], NULL, &j, &f->err), 0);
		assert_int_equal(json_integer_value(json_object_get(j, "n")), n);
		json_decref(j);
		assert_int_equal(read(end, &byte, 1), 1);
		assert_closed(end);
	}
	/* The next request has none. */
	assert_int_equal(api_call(&c, &methods[WRITE_TO], NULL, &j, &f->err), 0);
	assert_int_equal(json_integer_value(json_object_get(j, "n")), 0);
	json_decref(j);
	api_disconnect(&c);
}

static void a_method_that_takes_no_descriptors_says_so(void **state)
{
	struct fixture *f = *state;
	struct api_client c;
	int end;

	assert_int_equal(api_connect(&c, f->path, &f->err), 0);
	end = give_pipe(&c, 2);
	assert_int_equal(api_call(&c, &methods[ECHO], NULL, NULL, &f->err), -EPROTO);
	assert_non_null(strstr(f->err.text, "descriptors"));
	assert_closed(end);
	api_disconnect(&c);
}

/* In pieces, and without a request at all. */
static void more_descriptors_than_a_request_can_have_are_closed(void **state)
{
	static const char text[] = "PUT /echo HTTP/1.0\r\n\r\n";
	struct fixture *f = *state;
	struct api_client c = {.fd = raw(f)}, idle = {.fd = raw(f)};
	int end = give_pipe(&c, API_FDS_MAX), idle_end = give_pipe(&idle, 3);
	char got[4096];

	assert_int_equal(api_fds_send(c.fd, text, 5, &c.fds), 5);
	assert_int_equal(api_fds_send(c.fd, text + 5, sizeof text - 6, &c.fds), sizeof text - 6);
	read_all(c.fd, got, sizeof got - 1);
	assert_non_null(strstr(got, "more descriptors than"));
	assert_int_equal(api_fds_send(idle.fd, "G", 1, &idle.fds), 1);
	api_disconnect(&c);
	assert_closed(end);
	api_disconnect(&idle);
	assert_closed(idle_end);
}

static bool count(void *ctx, const char *bytes, size_t len)
{
	*(size_t *)ctx += len;
	return true;
}

static void a_stream_arrives_whole(void **state)
{
	struct fixture *f = *state;
	const struct echo_args args = {100};
	size_t len = 0;
	const struct api_sink sink = {count, -1, NULL, &len};
	struct api_client c;

	assert_int_equal(api_connect(&c, f->path, &f->err), 0);
	assert_int_equal(api_follow(&c, &methods[STREAM], &args, &sink, &f->err), 0);
	assert_int_equal(len, 100 * 16384);
	/* The connection can be used again. */
	assert_int_equal(api_call(&c, &methods[ECHO], NULL, NULL, &f->err), 0);
	api_disconnect(&c);
}

static void requests_in_one_piece_are_answered_in_order(void **state)
{
	static const char text[] = "GET /echo?n=1 HTTP/1.1\r\nHost: x\r\n\r\n"
				   "GET /nix HTTP/1.1\r\nHost: x\r\n\r\n"
				   "GET /echo?n=2 HTTP/1.0\r\n\r\n";
	char got[4096], *at;
	int fd = raw(*state);

	assert_int_equal(write(fd, text, sizeof text - 1), sizeof text - 1);
	read_all(fd, got, sizeof got - 1);
	assert_non_null(at = strstr(got, "{\"n\":1}"));
	assert_non_null(at = strstr(at, "404 Not Found"));
	assert_non_null(strstr(at, "{\"n\":2}"));
	close(fd);
}

static void old_clients_get_a_stream_without_chunks(void **state)
{
	static const char text[] = "GET /stream?n=1 HTTP/1.0\r\n\r\n";
	static char got[32768];
	int fd = raw(*state);

	assert_int_equal(write(fd, text, sizeof text - 1), sizeof text - 1);
	read_all(fd, got, sizeof got - 1);
	assert_null(strstr(got, "chunked"));
	assert_non_null(strstr(got, "\r\n\r\nxxx"));
	close(fd);
}

static void wrong_requests_name_their_mistake(void **state)
{
	static const struct {
		const char *text, *says;
	} wrong[] = {
		{"PATCH /echo HTTP/1.0\r\n\r\n", "405 "},
		{"GET /echo?m=1 HTTP/1.0\r\n\r\n", "unknown argument 'm'"},
		{"GET /echo?n=x HTTP/1.0\r\n\r\n", "'x' is not a number"},
		{"POST /echo HTTP/1.0\r\nContent-Length: 1\r\n\r\n{", "the body is no JSON"},
		{"POST /echo HTTP/1.0\r\nContent-Length: 7\r\n\r\n{\"m\":1}", "unknown member 'm'"},
		{"nonsense\r\n\r\n", "400 Bad Request"},
	};
	char got[4096];

	for (unsigned i = 0; i < ARRAY_SIZE(wrong); i++) {
		int fd = raw(*state);

		assert_true(write(fd, wrong[i].text, strlen(wrong[i].text)) > 0);
		read_all(fd, got, sizeof got - 1);
		assert_non_null(strstr(got, wrong[i].says));
		close(fd);
	}
}

static void who_connects_too_often_loses_the_idle_ones(void **state)
{
	struct fixture *f = *state;
	int fd[API_CONNECTIONS_MAX + 20];
	struct api_client c;

	for (unsigned i = 0; i < ARRAY_SIZE(fd); i++) {
		fd[i] = raw(f);
		assert_int_equal(write(fd[i], "GET /", 5), 5);
	}
	assert_int_equal(api_connect(&c, f->path, &f->err), 0);
	assert_int_equal(api_call(&c, &methods[ECHO], NULL, NULL, &f->err), 0);
	api_disconnect(&c);
	for (unsigned i = 0; i < ARRAY_SIZE(fd); i++)
		close(fd[i]);
}

/* Endless streams, and one whose reader does not read, do not keep the server from ending. */
static void the_end_does_not_wait_for_those_who_do_not_read(void **state)
{
	static const char endless[] = "GET /stream?n=0 HTTP/1.1\r\nHost: x\r\n\r\n",
			  much[] = "GET /stream?n=100000 HTTP/1.1\r\nHost: x\r\n\r\n";
	struct fixture *f = *state;
	int a = raw(f), b = raw(f);

	assert_true(write(a, endless, sizeof endless - 1) > 0);
	assert_true(write(b, much, sizeof much - 1) > 0);
	while (atomic_load(&streams) < 2)
		usleep(1000);
	api_server_free(f->server);
	f->server = NULL;
	close(a);
	close(b);
}

static void the_openapi_document_has_every_method(void **state)
{
	json_t *j = api_openapi(&table), *paths = json_object_get(j, "paths");

	assert_int_equal(json_object_size(paths), 3);
	assert_int_equal(json_object_size(json_object_get(paths, "/echo")), 3);
	json_decref(j);
}

int main(void)
{
#define TEST(t) cmocka_unit_test_setup_teardown(t, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(a_client_gets_its_answer),
		TEST(refusals_carry_their_reason),
		TEST(a_stream_arrives_whole),
		TEST(descriptors_arrive_and_those_not_taken_are_closed),
		TEST(a_method_that_takes_no_descriptors_says_so),
		TEST(more_descriptors_than_a_request_can_have_are_closed),
		TEST(requests_in_one_piece_are_answered_in_order),
		TEST(old_clients_get_a_stream_without_chunks),
		TEST(wrong_requests_name_their_mistake),
		TEST(who_connects_too_often_loses_the_idle_ones),
		TEST(the_end_does_not_wait_for_those_who_do_not_read),
		cmocka_unit_test(the_openapi_document_has_every_method),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
