/* http: files and answers of web servers, by libcurl, which is loaded when it is first needed.
 *
 * The server is foreign. Only http and https are spoken, redirects included, and none leads from
 * https to http; certificates are checked ($SSL_CERT_FILE names other authorities); the caller
 * of http_get sees each byte before it counts and may end it. A server that is silent for a
 * minute is given up.
 *
 * One thread; a struct keeps its connections. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bits.h"
#include "base/err.h"

#define HTTP_LENGTH_UNKNOWN UINT64_MAX

struct http;
WARN_UNUSED int http_new(struct http **out, struct err *e);
void http_free(struct http *h); /* accepts NULL */

/* What is longer than its place here is left empty. */
struct http_reply {
	long status;
	uint64_t length;             /* of the body that comes, or HTTP_LENGTH_UNKNOWN */
	uint64_t range_at, range_of; /* of status 206; UNKNOWN: not said, or not understood */
	char etag[256];              /* empty: none, or a weak one, which promises no bytes */
	char last_modified[64];
	char type[128], authenticate[1024], content_digest[160];
};

struct http_request {
	const char *url;
	const char *accept, *authorization; /* or NULL */
	uint64_t from;                      /* > 0: what lies behind that many bytes */
	const char *if_range;               /* with from: an ETag or a date of before */
};

struct http_sink { /* embed it; a negative errno of these ends the transfer and is returned */
	/* Before the first byte of the body, redirects followed. */
	int (*begin)(struct http_sink *s, const struct http_reply *r, struct err *e);
	int (*data)(struct http_sink *s, const void *bytes, size_t len, struct err *e);
	/* At least once a second. NULL: nobody looks. */
	int (*tick)(struct http_sink *s, struct err *e);
};

/* 0: there was an answer, whatever its status, and its body came whole. -EPIPE: it broke off or
 * never came, and may come another time. */
WARN_UNUSED int http_get(struct http *h, const struct http_request *q, struct http_sink *s,
			 struct http_reply *r, struct err *e);
/* A body of at most max bytes as text that ends with NUL, malloc'ed, when the status is 200; else
 * *text is NULL. tick as in http_sink; ctx is not touched. */
struct http_text {
	struct http_sink sink;
	size_t max, len;
	char *text;
};
WARN_UNUSED int http_get_text(struct http *h, const struct http_request *q, struct http_text *t,
			      struct http_reply *r, struct err *e);

/* Whether a text is a URL of this kind. */
bool http_is_url(const char *text);
