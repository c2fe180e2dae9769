/* image_fixture: what tests of whole images share: a directory of their own, and images that open.
 * Whatever fails here fails the test that asked. */
#pragma once

#include "block/block.h"

struct dir {
	char path[64];
};

struct dir make_dir(void);
/* Good until the 16th call from here. */
const char *in_dir(const struct dir *d, const char *name);
void remove_dir(const struct dir *d);

/* NULL: io_uring is forbidden here. */
struct block_ctx *new_ctx(enum block_engine engine);
void make_raw(const char *path, uint64_t size);
struct block *open_ok(struct block_ctx *c, struct block_opts o);
void close_ok(struct block *b);

#define PIECES 7
struct request {
	struct block_req req;
	struct iovec iov[PIECES];
	int result;
	bool done;
};

/* Begins q->req; waits for it: its result. */
void submit(struct request *q, struct block *b);
int finish(struct request *q, struct block *b);
