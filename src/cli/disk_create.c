/* holon disk create, holon disk resize */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "cli/disk.h"

static int make(struct disk_job *j, const struct disk_create_opts *c, struct block_create_opts *o)
{
	struct disk_place place;
	const char *file = o->file;
	int r = 0;

	if (o->backing_file && !strcmp(o->format, "raw"))
		return err_set(&j->err, EINVAL,
			       "a raw image has no backing file (-f qcow2 makes one)");
	if (o->backing_file && !c->unsafe)
		r = disk_look_at_backing(j, o, file);
	if (r < 0)
		return r;
	if (o->size == DISK_NO_SIZE)
		return err_set(&j->err, EINVAL, "SIZE is missing");
	r = disk_place_begin(j, &place, file);
	if (r == 0) {
		o->file = disk_place_file(j, &place);
		r = block_create(j->ctx, o, &j->err);
		r = disk_place_end(j, &place, r);
	}
	if (r < 0)
		return err_wrap(&j->err, "'%s'", file);
	o->file = file;
	disk_say_formatting(o);
	return 0;
}

int cmd_disk_create(const void *opts, int words, char **word)
{
	const struct disk_create_opts *c = opts;
	struct block_create_opts o = {
		.file = word[0],
		.format = disk_format_name(c->format),
		.size = DISK_NO_SIZE,
	};
	AUTO_FREE char *storage = NULL;
	struct disk_job j;
	int r = disk_begin(&j, "disk create", true);

	if (r == 0)
		r = disk_create_options(&o, &c->options, &storage, &j.err);
	if (c->backing)
		o.backing_file = c->backing;
	if (c->backing_format >= 0)
		o.backing_format = disk_format_name(c->backing_format);
	if (r == 0 && words > 1)
		r = size_parse(word[1], &o.size, &j.err);
	if (r == 0)
		r = make(&j, c, &o);
	return disk_end(&j, r);
}

/* text: "10G", "+10G", "-10G" */
static int new_size(const char *text, uint64_t now, uint64_t *size, struct err *e)
{
	uint64_t n = 0;
	int r = size_parse(text + (*text == '+' || *text == '-'), &n, e);

	if (r < 0)
		return r;
	if (*text == '+' ? n > INT64_MAX - now : *text == '-' ? n > now : n > INT64_MAX)
		return err_set(e, ERANGE, "'%s': no disk has that size", text);
	*size = *text == '+' ? now + n : *text == '-' ? now - n : n;
	return 0;
}

static int resize(struct disk_job *j, const struct disk_resize_opts *o, struct block *b,
		  const char *text)
{
	uint64_t size = 0;
	int r = new_size(text, block_size(b), &size, &j->err);

	if (r < 0)
		return r;
	if (size < block_size(b) && !o->shrink)
		return err_set(&j->err, EINVAL,
			       "shrinking loses what lies behind the new end; --shrink does it");
	if (size < block_size(b) && o->prealloc)
		return err_set(&j->err, EINVAL, "--preallocation is for growing");
	r = block_resize(b, size, (enum block_prealloc)o->prealloc, &j->err);
	return r < 0 ? err_wrap(&j->err, "'%s'", block_file(b)) : 0;
}

int cmd_disk_resize(const void *opts, int words, char **word)
{
	const struct disk_resize_opts *o = opts;
	const struct block_opts open = {.file = word[0],
					.format = disk_format_name(o->format),
					.cache = BLOCK_CACHE_WRITEBACK,
					.discard = true};
	struct block *b = NULL;
	struct disk_job j;
	int r = disk_begin(&j, "disk resize", true);

	if (r == 0)
		r = disk_open(&j, &b, &open);
	if (r == 0)
		r = resize(&j, o, b, word[1]);
	r = disk_close(&j, b, r);
	if (r == 0)
		disk_say("Image resized.");
	return disk_end(&j, r);
}
