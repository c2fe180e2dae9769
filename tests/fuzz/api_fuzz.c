/* A client, or a VM, that means harm. The first byte says which. As a client its bytes are requests, one
 * behind the other, to the methods of a VM, whose doing is left out. As a VM they are what it
 * answers to 'holon events' and to 'holon inspect'. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "api/client.h"
#include "api/http.h"
#include "control/methods.h"

#define METHODS_MAX 32u

static int run(void *ctx, const void *args, struct api_reply *reply, struct err *e)
{
	return 0;
}

static void as_client(const uint8_t *data, size_t size)
{
	struct api_method methods[METHODS_MAX];
	const struct api_table table = {"fuzz", "", methods, control_methods_count, NULL, NULL};
	size_t at = 0;
	long used = 0;

	assert(control_methods_count <= METHODS_MAX);
	memcpy(methods, control_methods, control_methods_count * sizeof *methods);
	for (unsigned i = 0; i < control_methods_count; i++)
		methods[i].run = run, methods[i].run_with = NULL;
	do {
		struct http_request q;
		struct api_reply reply;
		struct api_fds fds = {0};
		char *copy = malloc(size - at);

		memcpy(copy, data + at, size - at);
		used = http_parse(&q, copy, size - at);
		assert(used <= (long)(size - at));
		if (used > 0) {
			unsigned status = api_dispatch(&table, RIGHT_OPERATE, q.verb, q.path,
						       q.query, q.body, q.body_len, &fds, &reply);

			assert(status < 600 && (status < 300 || reply.json));
			json_decref(reply.json);
		}
		free(copy);
		at += used > 0 ? (size_t)used : 0;
	} while (used > 0 && at < size);
}

static bool piece(void *ctx, const char *bytes, size_t len)
{
	assert(len > 0);
	return bytes[0] != '!';
}

static void as_vm(const uint8_t *data, size_t size, bool stream)
{
	const struct api_sink sink = {.piece = piece, .wake = -1};
	struct api_client c = {.fd = -1};
	struct err err = {0};
	json_t *j = NULL;
	int fd[2];

	if (size > 100000 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd) < 0)
		return;
	if (write(fd[1], data, size) != (ssize_t)size)
		size = 0;
	shutdown(fd[1], SHUT_WR);
	c.fd = fd[0];
	if (stream)
		(void)!api_follow(&c, &control_methods[METHOD_EVENTS], NULL, &sink, &err);
	else if (api_call(&c, &control_methods[METHOD_INFO], NULL, &j, &err) == 0)
		json_decref(j);
	api_disconnect(&c);
	close(fd[1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!size)
		return 0;
	if (data[0] % 3 == 0)
		as_client(data + 1, size - 1);
	else
		as_vm(data + 1, size - 1, data[0] % 3 == 1);
	return 0;
}
