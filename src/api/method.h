/* method: what can be asked of a server, described once. From a table of methods come the checks of
 * each request, the command line's commands with their help, and the OpenAPI document, so that none
 * of them can be behind. */
#pragma once

#include <sys/types.h>

#include "api/fds.h"
#include "api/option.h"

enum api_right { RIGHT_VIEW, RIGHT_OPERATE }; /* the second has the first, too */

/* A body that comes bit by bit. All calls on the server's thread. */
struct api_stream {
	/* Puts up to max bytes to to[] and returns how many; 0: none now, ask again after
	 * api_server_wake; -1: that was all. */
	long (*more)(struct api_stream *s, char *to, size_t max);
	void (*free)(struct api_stream *s);
};

/* What a method answers: nothing (204), or one of these. */
struct api_reply {
	json_t *json;              /* the server frees it */
	char *text;                /* likewise; malloc'ed, of type */
	struct api_stream *stream; /* likewise, by its free; of type */
	const char *type;
};

#define API_TYPE_JSON  "application/json"
#define API_TYPE_LINES "application/x-ndjson" /* a JSON text a line */
#define API_TYPE_BYTES "application/octet-stream"

/* What a request was besides its arguments. */
struct api_call {
	const char *id; /* the part of the path that stands for "{...}"; NULL: it has none */
	json_t *body;   /* NULL: there was none */
};

struct api_method {
	const char *name; /* also of the command: "pause" */
	const char *verb;
	const char *path; /* its last part may be a "{name}", which stands for anything but a '/' */
	const char *summary; /* one line, no full stop */
	const char *text;    /* further lines for people; or NULL */
	enum api_right right;
	unsigned
		states; /* bits, as the table's user has them, in which it can be asked; 0: always */
	/* Arguments: of GET in the query, else a JSON object in the body. */
	const struct option *args;
	const void *defaults;
	size_t args_size;
	const char *type; /* of the answer: API_TYPE_...; NULL: there is none */
	const char *
		schema; /* JSON schema, as a text, of API_TYPE_JSON and of each of API_TYPE_LINES */
	/* ctx: the table's user's. Fails with -EINVAL (400), -EPERM (403), -ENOENT (404),
	 * -EBUSY, -ESHUTDOWN (409), -ENOTSUP (501); others are 500. */
	int (*run)(void *ctx, const void *args, struct api_reply *reply, struct err *e);
	/* Instead of run: it takes descriptors, too. It may keep some (api_fds_take). */
	int (*run_with)(void *ctx, const void *args, struct api_fds *fds, struct api_reply *reply,
			struct err *e);
	/* Instead of run, for those that want the whole request. */
	int (*run_call)(void *ctx, const struct api_call *call, const void *args,
			struct api_reply *reply, struct err *e);
	bool any_body; /* the body is not looked at as arguments: any JSON */
};

struct api_table {
	const char *title, *description;
	const struct api_method *method;
	unsigned methods;
	/* Why a method cannot be asked now, or NULL. */
	const char *(*refuses)(void *ctx, const struct api_method *m);
	void *ctx;
	/* As another API has it; zeros: as ours. */
	size_t body_max;          /* bytes of a request's body; 0: HTTP_BODY_MAX */
	const char *error_member; /* of a refusal's JSON; NULL: "error" */
	const char *args_prefix;  /* what stands before complaints about arguments */
	bool all_400;             /* every refusal has that status */
	bool null_is_absent;      /* members that are null are as if they were not there */
};

static inline const char *api_error_member(const struct api_table *t)
{
	return t->error_member ? t->error_member : "error";
}

#define API_OPENAPI_PATH "/openapi.json" /* of every table */

/* The description of all of them (OpenAPI 3.1); NULL: no memory. */
json_t *api_openapi(const struct api_table *t);

/* Finds the method and has it run. query and body are as in struct http_request (query is
 * changed); fds: what came with it. Returns the HTTP status; when that is an error, reply->json says
 * why. right: what the client may. */
unsigned api_dispatch(const struct api_table *t, enum api_right right, const char *verb,
		      const char *path, char *query, const char *body, size_t body_len,
		      struct api_fds *fds, struct api_reply *reply);
