/* holon disk convert: one or several sources to a new image. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "cli/disk.h"
#include "cli/disk_import.h"

struct conversion {
	struct disk_job job;
	const struct disk_convert_opts *o;
	struct block **src;
	unsigned n;
	uint64_t size; /* of all sources */
	const char *target;
	struct disk_place place;
	struct block *dst;
};

static bool same_file(const char *a, const char *b)
{
	struct stat sa, sb;

	return stat(a, &sa) == 0 && stat(b, &sb) == 0 && sa.st_dev == sb.st_dev &&
	       sa.st_ino == sb.st_ino;
}

/* --- sources --- */

/* Beside the target there is room for what it will hold, unless that is no file. */
static const char *import_place(const struct conversion *c)
{
	struct stat st;
	bool is_file = stat(c->target, &st) < 0 ? !strstr(c->target, "://") : S_ISREG(st.st_mode);

	return is_file ? c->target : "/var/tmp/holon-import";
}

/* A foreign image becomes a raw one, which has no name any more once it is open. */
static int open_imported(struct conversion *c, const char *file, const char *format)
{
	struct disk_job *j = &c->job;
	int r = disk_temporary(j, import_place(c));

	if (r == 0)
		r = import_raw(j, file, format, j->temporary, c->o->progress);
	if (r == 0)
		r = disk_open(j, &c->src[c->n],
			      &(struct block_opts){.file = j->temporary,
						   .format = "raw",
						   .read_only = true,
						   .cache = BLOCK_CACHE_WRITEBACK});
	if (j->temporary[0])
		unlink(j->temporary);
	j->temporary[0] = 0;
	return r;
}

static int open_source(struct conversion *c, const char *file)
{
	const struct block_opts open = {
		.file = file,
		.format = disk_format_name(c->o->format),
		.read_only = true,
		.no_lock = c->o->share,
		.snapshot = c->o->snapshot,
		.cache = (enum block_cache)c->o->source_cache,
	};
	const char *foreign = foreign_of(file, open.format);
	int r;

	if (same_file(file, c->target))
		return err_set(&c->job.err, EINVAL, "'%s' is source and target at once", file);
	r = foreign ? open_imported(c, file, foreign) : disk_open(&c->job, &c->src[c->n], &open);
	if (r < 0)
		return r;
	c->size += block_size(c->src[c->n++]);
	return 0;
}

/* --- target --- */

static int make_target(struct conversion *c)
{
	struct block_create_opts create = {
		.file = c->target,
		.format = disk_format_name(c->o->output_format),
		.size = DISK_NO_SIZE,
		.backing_file = c->o->backing,
		.backing_format = disk_format_name(c->o->backing_format),
	};
	AUTO_FREE char *storage = NULL;
	struct disk_job *j = &c->job;
	int r = disk_create_options(&create, &c->o->options, &storage, &j->err);

	if (create.size == DISK_NO_SIZE)
		create.size = c->size;
	if (r == 0 && create.backing_file)
		r = disk_look_at_backing(j, &create, c->target);
	if (r == 0)
		r = disk_place_begin(j, &c->place, c->target);
	if (r < 0)
		return r;
	create.file = disk_place_file(j, &c->place);
	return block_create(j->ctx, &create, &j->err);
}

static int open_target(struct conversion *c)
{
	const struct block_opts open = {
		.file = c->o->no_create ? c->target : disk_place_file(&c->job, &c->place),
		.format = disk_format_name(c->o->output_format),
		.cache = (enum block_cache)c->o->cache,
		.discard = true,
	};

	return disk_open(&c->job, &c->dst, &open);
}

/* Of the one source, what its own layer has not is in the backing file that both name. */
static bool same_backing(const struct conversion *c)
{
	struct block *a = block_backing(c->src[0]), *b = block_backing(c->dst);

	return c->n == 1 && a && b && same_file(block_file(a), block_file(b));
}

static int copy(struct conversion *c)
{
	const bool fresh = !c->o->no_create && !(c->place.in_place && !c->o->output_format);
	const struct block_convert_opts o = {
		.sparse_bytes = c->o->sparse_bytes,
		.target_is_zero = fresh || c->o->target_is_zero,
		.same_backing = same_backing(c),
		.compress = c->o->compress,
		.depth = c->o->depth,
	};
	struct disk_job *j = &c->job;
	int r;

	progress_begin(&j->progress, c->o->progress);
	r = block_convert(c->src, c->n, c->dst, &o, &j->step, &j->err);
	progress_end(&j->progress, j->done, j->total);
	return r;
}

static int convert(struct conversion *c, unsigned sources, char **source)
{
	int r = 0;

	if (c->o->compress && !c->o->output_format)
		return err_set(&c->job.err, ENOTSUP, "-c needs -O qcow2: raw has no compression");
	for (unsigned i = 0; r == 0 && i < sources; i++)
		r = open_source(c, source[i]);
	if (r == 0 && !c->o->no_create)
		r = make_target(c);
	if (r == 0)
		r = open_target(c);
	if (r == 0)
		r = copy(c);
	r = disk_close(&c->job, c->dst, r);
	c->place.unsafe = c->o->cache == BLOCK_CACHE_UNSAFE;
	return c->o->no_create ? r : disk_place_end(&c->job, &c->place, r);
}

int cmd_disk_convert(const void *opts, int words, char **word)
{
	unsigned sources = (unsigned)words - 1;
	struct conversion c = {.o = opts, .target = word[sources]};
	int r = disk_begin(&c.job, "disk convert", true);

	c.src = calloc(sources, sizeof(struct block *));
	if (r == 0)
		r = c.src ? convert(&c, sources, word) : err_sys(&c.job.err, ENOMEM, "sources");
	while (c.n)
		r = disk_close(&c.job, c.src[--c.n], r);
	free(c.src);
	return disk_end(&c.job, r);
}
