/* client: asks a server (server.h) over its Unix socket. What answers may be a VM that its guest has
 * taken over: answers are bounded, and nothing of them is trusted.
 *
 * Blocks, but never for ever: TIMEOUT_MS without a byte is -ETIMEDOUT, save in streams, which are
 * waited for as long as the server lives. */
#pragma once

#include "api/method.h"

#define API_ANSWER_MAX MIB(1) /* bytes of one that is no stream */

struct api_client {
	int fd;
	char *buf; /* what came and was not used yet */
	size_t len, max;
	struct api_fds fds; /* go with the next request, and are closed then */
};

WARN_UNUSED int api_connect(struct api_client *c, const char *path, struct err *e);
void api_disconnect(struct api_client *c);

/* Asks for a method; args as it describes them, or NULL. *answer (if not NULL) is its JSON, or NULL
 * when there is none. A refusal becomes -EPROTO with the server's reason. */
WARN_UNUSED int api_call(struct api_client *c, const struct api_method *m, const void *args,
			 json_t **answer, struct err *e);

/* The same of one that answers by a stream: piece(ctx, ...) gets each as it comes, until it returns
 * false or the stream has ended. wake: a descriptor that is looked at meanwhile, woken(ctx) is
 * called when it is readable, and says whether to go on; -1: there is none. */
struct api_sink {
	bool (*piece)(void *ctx, const char *bytes, size_t len);
	int wake;
	bool (*woken)(void *ctx);
	void *ctx;
};
WARN_UNUSED int api_follow(struct api_client *c, const struct api_method *m, const void *args,
			   const struct api_sink *sink, struct err *e);
