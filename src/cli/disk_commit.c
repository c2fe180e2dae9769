/* holon disk commit, holon disk rebase: an overlay and what is below it. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "block/qcow2.h"
#include "cli/disk.h"

#define LAYERS_MAX 32u

/* From the top down to, and without, base; each opened with no_backing. */
struct layers {
	struct block *layer[LAYERS_MAX];
	unsigned n;
	char base[PATH_MAX];
	char *base_format; /* NULL: by its beginning */
};

static bool same_file(const char *a, const char *b)
{
	AUTO_FREE char *ra = realpath(a, NULL);
	AUTO_FREE char *rb = realpath(b, NULL);

	return !strcmp(a, b) || (ra && rb && !strcmp(ra, rb));
}

/* Which file the image names as its backing file, into l->base. */
static int next_down(struct disk_job *j, struct layers *l, struct block *b)
{
	const char *named = block_backing_file(b), *format = block_backing_format(b);
	AUTO_FREE char *path = named ? block_backing_path(block_file(b), named) : NULL;

	if (!named)
		return err_set(&j->err, EINVAL, "'%s' has no backing file", block_file(b));
	if (!path || strlen(path) >= sizeof l->base)
		return err_sys(&j->err, ENAMETOOLONG, "backing file of '%s'", block_file(b));
	strcpy(l->base, path);
	free(l->base_format);
	l->base_format = format ? strdup(format) : NULL;
	return 0;
}

/* One image without what is below it; the uppermost is emptied afterwards, the others are
 * only read. */
static int open_layer(struct disk_job *j, struct layers *l, const struct disk_commit_opts *o,
		      const char *file)
{
	const struct block_opts open = {
		.file = l->n ? l->base : file,
		.format = l->n ? l->base_format : disk_format_name(o->format),
		.read_only = l->n || o->base || o->keep,
		.no_backing = true,
		.cache = BLOCK_CACHE_WRITEBACK,
		.discard = true,
	};
	int r;

	if (l->n == LAYERS_MAX)
		return err_set(&j->err, ELOOP, "more than %u images on top of each other",
			       LAYERS_MAX);
	r = disk_open(j, &l->layer[l->n], &open);
	if (r < 0)
		return r;
	return next_down(j, l, l->layer[l->n++]);
}

static int open_layers(struct disk_job *j, struct layers *l, const struct disk_commit_opts *o,
		       const char *file)
{
	int r = open_layer(j, l, o, file);

	while (r == 0 && o->base && !same_file(l->base, o->base)) {
		r = open_layer(j, l, o, NULL);
		if (r == -EINVAL)
			return err_set(&j->err, EINVAL,
				       "'%s' is not among the backing files of '%s'", o->base,
				       file);
	}
	return r;
}

static int commit(struct disk_job *j, const struct disk_commit_opts *o, struct layers *l)
{
	const struct block_opts open = {.file = l->base,
					.format = l->base_format,
					.cache = (enum block_cache)o->cache,
					.discard = true};
	uint64_t size = block_size(l->layer[0]);
	struct block *base = NULL;
	int r = disk_open(j, &base, &open);

	if (r == 0 && block_size(base) < size)
		r = block_resize(base, size, BLOCK_PREALLOC_OFF, &j->err);
	progress_begin(&j->progress, o->progress);
	if (r == 0)
		r = block_commit(l->layer, l->n, base, &j->step, &j->err);
	progress_end(&j->progress, j->done, j->total);
	/* What is to be forgotten above must be safe below. */
	r = disk_close(j, base, r);
	if (r == 0 && !o->keep && !o->base)
		r = qcow2_make_empty(l->layer[0], &j->err);
	return r;
}

int cmd_disk_commit(const void *opts, int words, char **word)
{
	const struct disk_commit_opts *o = opts;
	struct layers l = {0};
	struct disk_job j;
	int r = disk_begin(&j, "disk commit", true);

	if (r == 0)
		r = open_layers(&j, &l, o, word[0]);
	if (r == 0)
		r = commit(&j, o, &l);
	while (l.n)
		r = disk_close(&j, l.layer[--l.n], r);
	free(l.base_format);
	if (r == 0)
		disk_say("Image committed.");
	return disk_end(&j, r);
}

/* --- rebase --- */

static int copy_differences(struct disk_job *j, const struct disk_rebase_opts *o, struct block *top,
			    const char *format)
{
	AUTO_FREE char *path = NULL;
	struct block *backing = NULL;
	int r = 0;

	if (*o->backing) {
		path = block_backing_path(block_file(top), o->backing);
		if (!path)
			return err_sys(&j->err, ENOMEM, "'%s'", o->backing);
		r = disk_open(j, &backing,
			      &(struct block_opts){.file = path,
						   .format = format,
						   .read_only = true,
						   .no_lock = o->share,
						   .cache = BLOCK_CACHE_WRITEBACK});
	}
	progress_begin(&j->progress, o->progress);
	if (r == 0)
		r = block_rebase(top, backing, &j->step, &j->err);
	progress_end(&j->progress, j->done, j->total);
	return disk_close(j, backing, r);
}

/* What the new backing file is, when nobody says it. */
static const char *format_to_name(struct disk_job *j, const struct disk_rebase_opts *o,
				  const char *file)
{
	struct block_create_opts look = {.backing_file = o->backing, .size = 0};

	if (o->backing_format >= 0)
		return disk_format_name(o->backing_format);
	if (!*o->backing || disk_look_at_backing(j, &look, file) < 0)
		return NULL;
	return look.backing_format;
}

static int rebase(struct disk_job *j, const struct disk_rebase_opts *o, struct block *top)
{
	const char *format = format_to_name(j, o, block_file(top));
	int r = 0;

	if (strcmp(block_format(top), "qcow2") != 0)
		return err_set(&j->err, ENOTSUP, "'%s': only qcow2 images have backing files",
			       block_file(top));
	if (!o->unsafe && *o->backing && !format)
		return j->err.code ? -j->err.code : err_set(&j->err, EINVAL, "'%s'", o->backing);
	if (!o->unsafe)
		r = copy_differences(j, o, top, format);
	if (r == 0)
		r = qcow2_set_backing(top, *o->backing ? o->backing : NULL, format, &j->err);
	return r;
}

int cmd_disk_rebase(const void *opts, int words, char **word)
{
	const struct disk_rebase_opts *o = opts;
	const struct block_opts open = {
		.file = word[0],
		.format = disk_format_name(o->format),
		.no_backing = o->unsafe,
		.cache = (enum block_cache)o->cache,
		.discard = true,
	};
	struct block *b = NULL;
	struct disk_job j;
	int r = disk_begin(&j, "disk rebase", true);

	if (r == 0 && (r = disk_open(&j, &b, &open)) == 0)
		r = rebase(&j, o, b);
	r = disk_close(&j, b, r);
	if (r == 0)
		disk_say("Image rebased.");
	return disk_end(&j, r);
}
