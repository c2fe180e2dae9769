#include "block/image_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/test.h"

struct dir make_dir(void)
{
	struct dir d = {"/tmp/holon-block-XXXXXX"};

	assert_non_null(mkdtemp(d.path));
	return d;
}

const char *in_dir(const struct dir *d, const char *name)
{
	static _Thread_local char path[16][128];
	static _Thread_local unsigned turn;
	char *p = path[turn++ % 16];

	snprintf(p, sizeof path[0], "%s/%s", d->path, name);
	return p;
}

void remove_dir(const struct dir *d)
{
	char command[96];

	snprintf(command, sizeof command, "rm -rf %s", d->path);
	assert_int_equal(system(command), 0);
}

struct block_ctx *new_ctx(enum block_engine engine)
{
	struct block_ctx *c = NULL;
	struct err e = {0};

	if (block_ctx_new(&c, NULL, engine, &e) < 0 && engine == BLOCK_ENGINE_URING)
		return NULL; /* forbidden here */
	assert_non_null(c);
	return c;
}

void make_raw(const char *path, uint64_t size)
{
	AUTO_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, size), 0);
}

struct block *open_ok(struct block_ctx *c, struct block_opts o)
{
	struct block *b = NULL;
	struct err e = {0};

	if (block_open(&b, c, &o, &e) < 0)
		fail_msg("%s", e.text);
	return b;
}

void close_ok(struct block *b)
{
	struct err e = {0};

	if (block_close(b, &e) < 0)
		fail_msg("%s", e.text);
}

static void on_done(struct block_req *r, int result)
{
	struct request *q = container_of(r, struct request, req);

	q->result = result;
	q->done = true;
}

void submit(struct request *q, struct block *b)
{
	q->done = false;
	q->req.done = on_done;
	block_submit(b, &q->req);
}

int finish(struct request *q, struct block *b)
{
	while (!q->done)
		assert_int_equal(loop_once(block_ctx_loop(block_ctx_of(b))), 0);
	return q->result;
}
