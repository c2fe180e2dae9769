/* http: requests of HTTP/1.1 (RFC 9112), as the control sockets of VMs take them: strictly, with
 * bounds, and nothing that a local API does not need (no chunked bodies, no continuation lines).
 *
 * A parser of foreign bytes: any bytes are possible. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/bits.h"

#define HTTP_HEAD_MAX KIB(8) /* request line and headers */
#define HTTP_BODY_MAX KIB(64)

struct http_request { /* texts lie in the buffer that was parsed */
	const char *verb, *path;
	char *query;      /* behind the '?', as it came; empty: none */
	const char *body; /* [body_len] */
	size_t body_len;
	const char *headers; /* [headers_len], as they came */
	size_t headers_len;
	bool keep_alive;
	bool old;              /* HTTP/1.0: it knows no chunks */
	bool expects_continue; /* the client waits for "100 Continue" before it sends the body */
};

/* Looks whether buf[0..len) holds a whole request. Its length; 0: more bytes are needed
 * (q->expects_continue may be set already); or minus the HTTP status with which to refuse: after
 * that nothing more of the connection can be understood. */
WARN_UNUSED long http_parse(struct http_request *q, char *buf, size_t len);
/* The same with another bound than HTTP_BODY_MAX. */
WARN_UNUSED long http_parse_max(struct http_request *q, char *buf, size_t len, size_t body_max);

/* The value of the first header of that name, without the blanks around it; NULL: there is none. */
const char *http_header(const struct http_request *q, const char *name, size_t *len);

/* Takes the next NAME=VALUE off *query and decodes both in place: 1; 0: there is no more; -1: it is
 * malformed. */
WARN_UNUSED int http_next_pair(char **query, char **name, char **value);

const char *http_reason(unsigned status); /* "Not Found" */
