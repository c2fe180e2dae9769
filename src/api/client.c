#include "api/client.h"

#include <ctype.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "api/http.h"
#include "base/auto.h"
#include "base/unix_socket.h"

#define TIMEOUT_MS 10000

struct answer {
	unsigned status;
	bool chunked, has_length;
	size_t length;
};

int api_connect(struct api_client *c, const char *path, struct err *e)
{
	const struct timespec wait = {0, 10000000};

	*c = (struct api_client){.fd = unix_connect(path)};
	/* Many connect at this moment. */
	for (int ms = 0; c->fd == -EAGAIN && ms < TIMEOUT_MS; ms += 10) {
		nanosleep(&wait, NULL);
		c->fd = unix_connect(path);
	}
	return c->fd < 0 ? err_sys(e, -c->fd, "connect to '%s'", path) : 0;
}

void api_disconnect(struct api_client *c)
{
	if (c->fd >= 0)
		close(c->fd);
	api_fds_close(&c->fds);
	free(c->buf);
	*c = (struct api_client){.fd = -1};
}

/* --- asking --- */

static int send_all(struct api_client *c, const char *text, size_t len, struct err *e)
{
	while (len) {
		struct pollfd p = {.fd = c->fd, .events = POLLOUT};
		ssize_t n = api_fds_send(c->fd, text, len, &c->fds);

		if (n < 0 && errno == EAGAIN) {
			if (poll(&p, 1, TIMEOUT_MS) == 0)
				return err_set(e, ETIMEDOUT, "the VM does not listen");
			continue;
		}
		if (n < 0)
			return err_sys(e, errno, "the VM's socket");
		api_fds_close(&c->fds);
		text += n;
		len -= (size_t)n;
	}
	return 0;
}

static char *query_of(const json_t *args)
{
	char *text = strdup("");
	const char *name;
	json_t *v;

	json_object_foreach((json_t *)args, name, v)
	{
		AUTO_FREE char *value = json_is_string(v) ? strdup(json_string_value(v))
							  : json_dumps(v, JSON_ENCODE_ANY);
		AUTO_FREE char *old = text;

		if (!old || !value ||
		    asprintf(&text, "%s%c%s=%s", old, *old ? '&' : '?', name, value) < 0)
			text = NULL;
	}
	return text;
}

static int ask(struct api_client *c, const struct api_method *m, const void *args, struct err *e)
{
	json_t *j = m->args && args ? options_to_json(m->args, args, m->defaults) : NULL;
	bool get = !strcmp(m->verb, "GET");
	AUTO_FREE char *query = get ? query_of(j) : strdup("");
	AUTO_FREE char *body = get || !j ? strdup("") : json_dumps(j, JSON_COMPACT);
	AUTO_FREE char *text = NULL;
	int n = -1;

	json_decref(j);
	if (query && body)
		n = asprintf(&text,
			     "%s %s%s HTTP/1.1\r\nHost: holon\r\nContent-Length: %zu\r\n\r\n%s",
			     m->verb, m->path, query, strlen(body), body);
	if (n < 0) {
		text = NULL;
		return err_set(e, ENOMEM, "out of memory");
	}
	return send_all(c, text, (size_t)n, e);
}

/* --- answers --- */

/* One read; 0: the end. */
static long fill(struct api_client *c, int timeout_ms, struct err *e)
{
	struct pollfd p = {.fd = c->fd, .events = POLLIN};
	ssize_t n;

	if (c->len == c->max) {
		size_t max = c->max ? c->max * 2 : 4096;
		char *more = max <= API_ANSWER_MAX + HTTP_HEAD_MAX ? realloc(c->buf, max) : NULL;

		if (!more)
			return err_set(e, EMSGSIZE, "the VM's answer is too long");
		c->buf = more;
		c->max = max;
	}
	if (poll(&p, 1, timeout_ms) == 0)
		return err_set(e, ETIMEDOUT, "the VM does not answer");
	n = read(c->fd, c->buf + c->len, c->max - c->len);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 1;
	if (n < 0)
		return err_sys(e, errno, "the VM's socket");
	c->len += (size_t)n;
	return n ? 1 : 0;
}

static void use(struct api_client *c, size_t n)
{
	c->len -= n;
	memmove(c->buf, c->buf + n, c->len);
}

static int bad(struct err *e)
{
	return err_set(e, EBADMSG, "the VM's answer makes no sense");
}

/* head[len): whole, with its empty line. */
static bool parse_head(struct answer *a, const char *head, size_t len)
{
	const char *line = head, *end;

	*a = (struct answer){0};
	if (len < 15 || memcmp(head, "HTTP/1.1 ", 9) != 0)
		return false;
	for (int i = 9; i < 12; i++) {
		if (!isdigit((unsigned char)head[i]))
			return false;
		a->status = a->status * 10 + (unsigned)(head[i] - '0');
	}
	for (; (end = memmem(line, len - (size_t)(line - head), "\r\n", 2)); line = end + 2) {
		size_t n = (size_t)(end - line);

		if (n >= 26 && !strncasecmp(line, "Transfer-Encoding: chunked", 26))
			a->chunked = true;
		if (n < 17 || strncasecmp(line, "Content-Length: ", 16) != 0)
			continue;
		a->has_length = true;
		for (const char *p = line + 16; p < end; p++) {
			if (!isdigit((unsigned char)*p) || a->length > API_ANSWER_MAX)
				return false;
			a->length = a->length * 10 + (size_t)(*p - '0');
		}
	}
	return a->length <= API_ANSWER_MAX;
}

static int get_head(struct api_client *c, struct answer *a, struct err *e)
{
	for (;;) {
		const char *end = c->len ? memmem(c->buf, c->len, "\r\n\r\n", 4) : NULL;
		long r;

		if (end) {
			size_t len = (size_t)(end - c->buf) + 4;

			if (!parse_head(a, c->buf, len))
				return bad(e);
			use(c, len);
			return 0;
		}
		if (c->len > HTTP_HEAD_MAX)
			return bad(e);
		r = fill(c, TIMEOUT_MS, e);
		if (r <= 0)
			return r < 0 ? (int)r : err_set(e, ECONNRESET, "the VM hung up");
	}
}

static int get_body(struct api_client *c, const struct answer *a, json_t **out, struct err *e)
{
	*out = NULL;
	while (c->len < a->length) {
		long r = fill(c, TIMEOUT_MS, e);

		if (r <= 0)
			return r < 0 ? (int)r : err_set(e, ECONNRESET, "the VM hung up");
	}
	if (a->length) {
		*out = json_loadb(c->buf, a->length, JSON_DECODE_ANY, NULL);
		use(c, a->length);
		if (!*out)
			return bad(e);
	}
	return 0;
}

static int refused(struct api_client *c, const struct answer *a, struct err *e)
{
	const char *why;
	json_t *j;
	int r = get_body(c, a, &j, e);

	if (r < 0)
		return r;
	why = json_string_value(json_object_get(j, "error"));
	err_set(e, EPROTO, "%s", why ? why : http_reason(a->status));
	json_decref(j);
	return -EPROTO;
}

int api_call(struct api_client *c, const struct api_method *m, const void *args, json_t **answer,
	     struct err *e)
{
	struct answer a;
	json_t *j;
	int r;

	if ((r = ask(c, m, args, e)) < 0 || (r = get_head(c, &a, e)) < 0)
		return r;
	if (a.chunked)
		return bad(e);
	if (a.status >= 300)
		return refused(c, &a, e);
	if ((r = get_body(c, &a, &j, e)) < 0)
		return r;
	if (answer)
		*answer = j;
	else
		json_decref(j);
	return 0;
}

/* --- streams --- */

/* Waits for bytes from the VM; 1: there are some; 0: the end; 2: enough. */
static long wait_more(struct api_client *c, const struct api_sink *s, struct err *e)
{
	for (;;) {
		struct pollfd p[] = {{.fd = c->fd, .events = POLLIN},
				     {.fd = s->wake, .events = POLLIN}};

		if (poll(p, s->wake >= 0 ? 2 : 1, -1) < 0 && errno != EINTR)
			return err_sys(e, errno, "poll");
		if (s->wake >= 0 && p[1].revents && !s->woken(s->ctx))
			return 2;
		if (p[0].revents)
			return fill(c, TIMEOUT_MS, e);
	}
}

/* The length that a chunk says; -1: not whole yet; -2: none. *used: bytes of its line. */
static long chunk_length(const struct api_client *c, size_t *used)
{
	const char *end = c->len ? memmem(c->buf, c->len, "\r\n", 2) : NULL;
	long n = 0;

	if (!end)
		return c->len > 16 ? -2 : -1;
	if (end == c->buf || end - c->buf > 6)
		return -2;
	for (const char *p = c->buf; p < end; p++) {
		if (!isxdigit((unsigned char)*p))
			return -2;
		n = n * 16 + (isdigit((unsigned char)*p) ? *p - '0'
							 : (tolower((unsigned char)*p) - 'a' + 10));
	}
	*used = (size_t)(end - c->buf) + 2;
	return n > (long)API_ANSWER_MAX / 2 ? -2 : n;
}

int api_follow(struct api_client *c, const struct api_method *m, const void *args,
	       const struct api_sink *sink, struct err *e)
{
	struct answer a;
	size_t head = 0;
	int r;

	if ((r = ask(c, m, args, e)) < 0 || (r = get_head(c, &a, e)) < 0)
		return r;
	if (a.status >= 300)
		return refused(c, &a, e);
	if (!a.chunked)
		return bad(e);
	for (;;) {
		long n = chunk_length(c, &head), more;

		if (n == -2)
			return bad(e);
		if (n >= 0 && c->len >= head + (size_t)n + 2) {
			bool on = n > 0 && sink->piece(sink->ctx, c->buf + head, (size_t)n);

			use(c, head + (size_t)n + 2);
			if (!on)
				return 0;
			continue;
		}
		more = wait_more(c, sink, e);
		if (more < 0)
			return (int)more;
		if (more == 2)
			return 0;
		if (more == 0)
			return c->len ? bad(e) : err_set(e, ECONNRESET, "the VM hung up");
	}
}
