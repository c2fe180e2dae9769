/* open: opens and closes images with their backing chains, makes new ones.
 *
 * The format, when none is named, is that by which the file begins. A guest that owns a raw
 * disk could then write the head of another format into it, naming any host file as backing,
 * and be given that file at the next start. So what was guessed to be raw stays raw: a write
 * that would make its first sector look like an image format is refused (-EPERM; see
 * block_guard). Who names the format has no such limit.
 *
 * The name of a backing file comes out of an image: relative ones are relative to the overlay;
 * protocols meant for tests are not reached by it. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "block/block_priv.h"

/* In the order of probing; raw takes anything. */
static const struct block_driver *const drivers[] = {&qcow2_driver, &raw_driver};

static const struct block_driver *driver_named(const char *name, struct err *e)
{
	for (unsigned i = 0; i < ARRAY_SIZE(drivers); i++)
		if (!strcmp(drivers[i]->name, name))
			return drivers[i];
	err_set(e, ENOTSUP, "no image format '%s'", name);
	return NULL;
}

const struct block_driver *block_probe(const uint8_t *head, uint64_t len)
{
	unsigned i = 0;

	while (!drivers[i]->probe(head, len))
		i++;
	return drivers[i];
}

/* Heads of formats that we or other programs know. Not LUKS: guests encrypt whole disks. */
static const struct {
	unsigned offset, len;
	const char *bytes;
} foreign[] = {
	{0, 4, "QFI\xfb"},
	{0, 4, "QED"},
	{0, 4, "KDMV"},
	{0, 4, "COWD"},
	{0, 8, "vhdxfile"},
	{0, 8, "conectix"},
	{64, 4, "\x7f\x10\xda\xbe"}, /* VDI */
	{0, 21, "# Disk DescriptorFile"},
};

bool block_looks_foreign(const uint8_t head[BLOCK_HEAD_BYTES])
{
	for (unsigned i = 0; i < ARRAY_SIZE(foreign); i++)
		if (!memcmp(head + foreign[i].offset, foreign[i].bytes, foreign[i].len))
			return true;
	return block_probe(head, BLOCK_HEAD_BYTES) != &raw_driver;
}

static int choose_driver(struct block *b, struct err *e)
{
	uint8_t head[BLOCK_HEAD_BYTES] = {0};
	uint64_t len = min_u64(sizeof head, b->proto->size);
	int r;

	if (b->opts.format) {
		b->driver = driver_named(b->opts.format, e);
		return b->driver ? 0 : -ENOTSUP;
	}
	r = proto_read(b->proto, 0, head, len);
	if (r < 0)
		return err_sys(e, -r, "read '%s'", b->file);
	b->driver = block_probe(head, len);
	b->guessed_raw = b->driver == &raw_driver && !b->opts.read_only;
	return 0;
}

struct open_args {
	struct block **out;
	struct block_ctx *ctx;
	const struct block_opts *opts;
	const struct block *overlay; /* chain above it */
	unsigned depth;
	struct err *e;
};

static int open_layer(struct open_args *a);

/* Whether an image that a is opened under is the same file. */
static bool in_chain(const struct open_args *a, const char *file)
{
	AUTO_FREE char *path = realpath(block_path(file), NULL);

	for (const struct block *b = a->overlay; path && b; b = b->overlay) {
		AUTO_FREE char *other = realpath(block_path(b->file), NULL);

		if (other && !strcmp(path, other))
			return true;
	}
	return false;
}

/* Without what a test laid around it. */
static const char *inner_file(const char *file)
{
	while (proto_type_of(file)->only_by_user)
		file = strchr(strchr(file, ':') + 1, ':') + 1;
	return block_path(file);
}

char *block_backing_path(const char *overlay, const char *backing)
{
	const char *path = block_path(backing), *slash;
	char *full;

	overlay = inner_file(overlay);
	slash = strrchr(overlay, '/');
	if (proto_type_of(backing)->scheme[0] || path[0] == '/' || !slash)
		return strdup(path);
	if (asprintf(&full, "%.*s/%s", (int)(slash - overlay), overlay, path) < 0)
		return NULL;
	return full;
}

static int open_backing(struct block *b, struct open_args *above, struct err *e)
{
	AUTO_FREE char *file = block_backing_path(b->file, b->backing_file);
	struct block_opts o = {.file = file,
			       .format = b->backing_format,
			       .read_only = true,
			       .no_lock = b->opts.no_lock,
			       .given = above->opts->given,
			       .cache = b->opts.cache};
	struct open_args a = {&b->backing, b->ctx, &o, b, above->depth + 1, e};

	if (!file)
		return err_sys(e, ENOMEM, "backing file '%s'", b->backing_file);
	if (a.depth >= BLOCK_CHAIN_MAX)
		return err_set(e, ELOOP, "more than %d images on top of each other",
			       BLOCK_CHAIN_MAX);
	if (proto_type_of(file)->only_by_user || !strncmp(b->backing_file, "json:", 5))
		return err_set(e, ENOTSUP, "backing file '%s': not by this protocol",
			       b->backing_file);
	if (in_chain(&a, file))
		return err_set(e, ELOOP, "'%s' is its own backing file", file);
	if (open_layer(&a) < 0)
		return err_wrap(e, "backing file of '%s'", b->file);
	return 0;
}

static void free_layer(struct block *b)
{
	if (!b)
		return;
	throttle_done(&b->throttle);
	proto_close(b->proto);
	free(b->file);
	free(b->backing_file);
	free(b->backing_format);
	free(b);
}

/* What is open so far of b, after a failure. */
static void abandon(struct block *b)
{
	if (b->backing)
		block_close_in_coro(b->backing, NULL);
	if (b->opened)
		b->driver->close(b, NULL);
	free_layer(b);
}

static int open_parts(struct block *b, struct open_args *a, struct err *e)
{
	int r;

	b->file = strdup(a->opts->file);
	if (!b->file)
		return err_sys(e, ENOMEM, "'%s'", a->opts->file);
	b->opts.file = b->file;
	r = proto_open(&b->proto, b->ctx, a->opts, e);
	if (r == 0)
		r = choose_driver(b, e);
	if (r < 0)
		return r;
	b->opts.format = b->driver->name;
	r = b->driver->open(b, e);
	if (r < 0)
		return err_wrap(e, "'%s'", b->file);
	b->opened = true;
	if (b->backing_file && !b->opts.no_backing)
		r = open_backing(b, a, e);
	return r;
}

static int open_layer(struct open_args *a)
{
	struct block *b = calloc(1, sizeof *b);
	int r;

	if (!b)
		return err_sys(a->e, ENOMEM, "'%s'", a->opts->file);
	b->ctx = a->ctx;
	b->opts = *a->opts;
	b->overlay = a->overlay;
	b->write_gen = 1; /* what a killed process wrote may not be on the disk yet: flush once */
	throttle_init(&b->throttle, loop_clock(block_ctx_loop(b->ctx)), block_coros(b->ctx));
	throttle_set(&b->throttle, &b->opts.limits);
	r = open_parts(b, a, a->e);
	b->overlay = NULL;
	b->opts.given = NULL;
	if (r < 0)
		abandon(b);
	else
		*a->out = b;
	return r;
}

static int open_in_coro(void *arg)
{
	return open_layer(arg);
}

int block_open(struct block **out, struct block_ctx *c, const struct block_opts *o, struct err *e)
{
	struct open_args a = {out, c, o, NULL, 0, e};
	int r = block_run(c, open_in_coro, &a);

	return r == -ENOMEM && e ? err_sys(e, ENOMEM, "open '%s'", o->file) : r;
}

/* --- close --- */

/* The first failure counts; its cause is in e. */
static void keep_first(int *first, int r)
{
	if (*first == 0)
		*first = r;
}

int block_close_in_coro(struct block *b, struct err *e)
{
	int result = 0, r;
	struct err later;

	while (b->in_flight)
		coro_queue_wait(block_coros(b->ctx), &b->idle_queue);
	if (!b->opts.read_only) {
		r = block_flush_in_coro(b);
		if (r < 0)
			err_sys(e, -r, "flush '%s'", b->file);
		keep_first(&result, r);
	}
	keep_first(&result, b->driver->close(b, result ? &later : e));
	if (b->backing)
		keep_first(&result, block_close_in_coro(b->backing, result ? &later : e));
	free_layer(b);
	return result;
}

struct close_args {
	struct block *block;
	struct err *e;
};

static int close_it(void *arg)
{
	struct close_args *a = arg;

	return block_close_in_coro(a->block, a->e);
}

int block_close(struct block *b, struct err *e)
{
	struct close_args a = {b, e};

	return b ? block_run(b->ctx, close_it, &a) : 0;
}

/* --- create --- */

struct create_args {
	struct block_ctx *ctx;
	const struct block_create_opts *opts;
	struct err *e;
};

/* The file's name is on the disk, too. */
static int sync_folder(void *arg)
{
	AUTO_FREE char *copy = strdup(arg);
	AUTO_CLOSE int fd = copy ? open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

	return fd >= 0 && fsync(fd) == 0 ? 0 : -errno;
}

static int create_in_coro(void *arg)
{
	struct create_args *a = arg;
	const char *file = a->opts->file;
	const struct block_driver *d = driver_named(a->opts->format, a->e);
	struct proto *p = NULL;
	int r = d ? proto_create(&p, a->ctx, file, a->e) : -ENOTSUP;

	if (r < 0)
		return r;
	r = d->create(p, a->opts, a->e);
	if (r == 0 && (r = proto_flush(p)) < 0)
		err_sys(a->e, -r, "flush");
	proto_close(p);
	if (r < 0)
		return err_wrap(a->e, "create '%s'", file);
	if (!proto_type_of(file)->scheme[0])
		block_offload(a->ctx, sync_folder, (void *)block_path(file)); /* as far as it can */
	return 0;
}

int block_create(struct block_ctx *c, const struct block_create_opts *o, struct err *e)
{
	struct create_args a = {c, o, e};

	return block_run(c, create_in_coro, &a);
}
