/* What is said of a new image: -o k=v,..., and what its backing file says. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "cli/disk.h"
#include "cli/suboptions.h"

/* The keys of qemu-img's formats. */
struct keys {
	int compat, compression, prealloc, backing_format;
	uint64_t size, cluster_size;
	unsigned refcount_bits;
	bool lazy_refcounts, extended_l2;
	const char *backing_file;
};

#define SIZE_KEY                                                                                   \
	{                                                                                          \
		"size", OPT_SIZE, offsetof(struct keys, size), "SIZE"                              \
	}
#define PREALLOC                                                                                   \
	{                                                                                          \
		"preallocation", OPT_CHOICE, offsetof(struct keys, prealloc), DISK_PREALLOCS       \
	}
#define JOINED_MAX  4096u
#define COMPAT_V2_1 1 /* the second name of version 2 */

static const struct option qcow2_keys[] = {
	{"backing_file", OPT_FILE, offsetof(struct keys, backing_file), "FILE"},
	{"backing_fmt", OPT_CHOICE, offsetof(struct keys, backing_format), DISK_FORMATS},
	{"cluster_size", OPT_SIZE, offsetof(struct keys, cluster_size), "SIZE"},
	{"compat", OPT_CHOICE, offsetof(struct keys, compat), "0.10|v2|1.1|v3"},
	{"compression_type", OPT_CHOICE, offsetof(struct keys, compression), "zlib|zstd"},
	{"extended_l2", OPT_FLAG, offsetof(struct keys, extended_l2)},
	{"lazy_refcounts", OPT_FLAG, offsetof(struct keys, lazy_refcounts)},
	PREALLOC,
	{"refcount_bits", OPT_COUNT, offsetof(struct keys, refcount_bits), "N"},
	SIZE_KEY,
	{0}};

static const struct option raw_keys[] = {PREALLOC, SIZE_KEY, {0}};

static int join(char *to, size_t room, const struct option_list *list, struct err *e)
{
	size_t len = 0;

	to[0] = 0;
	for (unsigned i = 0; i < list->n; i++) {
		len += (size_t)snprintf(to + len, room - len, "%s%s", i ? "," : "", list->value[i]);
		if (len >= room)
			return err_set(e, E2BIG, "-o: too long");
	}
	return 0;
}

static int apply(struct block_create_opts *o, const struct keys *k, struct err *e)
{
	if (k->cluster_size > UINT32_MAX)
		return err_set(e, EINVAL, "-o cluster_size: from 512 to 2M");
	if (k->backing_file)
		o->backing_file = k->backing_file;
	if (k->backing_format >= 0)
		o->backing_format = disk_format_name(k->backing_format);
	if (k->size != DISK_NO_SIZE)
		o->size = k->size;
	if (k->compat >= 0)
		o->version = k->compat <= COMPAT_V2_1 ? 2 : 3;
	o->prealloc = (enum block_prealloc)k->prealloc;
	o->cluster_size = (uint32_t)k->cluster_size;
	o->refcount_bits = k->refcount_bits;
	o->lazy_refcounts = k->lazy_refcounts;
	o->extended_l2 = k->extended_l2;
	o->zstd = k->compression == 1;
	return 0;
}

int disk_create_options(struct block_create_opts *o, const struct option_list *list, char **storage,
			struct err *e)
{
	bool raw = !strcmp(o->format, "raw");
	struct keys k = {.compat = -1, .backing_format = -1, .size = DISK_NO_SIZE};
	char joined[JOINED_MAX];
	int r;

	if (!list->n)
		return 0;
	r = join(joined, sizeof joined, list, e);
	if (r == 0)
		r = suboptions_parse(raw ? raw_keys : qcow2_keys, joined, NULL, &k, storage, e);
	return r < 0 ? err_wrap(e, "-o") : apply(o, &k, e);
}

static const char *on_off(bool b)
{
	return b ? "on" : "off";
}

void disk_say_formatting(const struct block_create_opts *o)
{
	static const char *const preallocs[] = {"off", "metadata", "falloc", "full"};
	char prealloc[40] = "", backing[PATH_MAX + 80] = "";

	if (o->prealloc)
		snprintf(prealloc, sizeof prealloc, " preallocation=%s", preallocs[o->prealloc]);
	if (strcmp(o->format, "qcow2") != 0) {
		disk_say("Formatting '%s', fmt=%s size=%llu%s", o->file, o->format,
			 (unsigned long long)o->size, prealloc);
		return;
	}
	if (o->backing_file)
		snprintf(backing, sizeof backing, " backing_file=%s backing_fmt=%s",
			 o->backing_file, o->backing_format ? o->backing_format : "raw");
	disk_say("Formatting '%s', fmt=qcow2 cluster_size=%u extended_l2=%s%s "
		 "compression_type=%s size=%llu%s%s lazy_refcounts=%s refcount_bits=%u",
		 o->file, o->cluster_size ? o->cluster_size : 65536, on_off(o->extended_l2),
		 prealloc, o->zstd ? "zstd" : "zlib", (unsigned long long)o->size, backing,
		 o->version == 2 ? " compat=0.10" : "", on_off(o->lazy_refcounts),
		 o->refcount_bits ? o->refcount_bits : 16);
}

int disk_look_at_backing(struct disk_job *j, struct block_create_opts *o, const char *file)
{
	AUTO_FREE char *path = block_backing_path(file, o->backing_file);
	const struct block_opts open = {.file = path,
					.format = o->backing_format,
					.read_only = true,
					.cache = BLOCK_CACHE_WRITEBACK};
	struct block *b;
	int r = path ? disk_open(j, &b, &open) : err_sys(&j->err, ENOMEM, "'%s'", file);

	if (r < 0)
		return err_wrap(&j->err, "backing file");
	if (o->size == DISK_NO_SIZE)
		o->size = block_size(b);
	if (!o->backing_format)
		o->backing_format = disk_format_name(strcmp(block_format(b), "raw") != 0);
	return disk_close(j, b, 0);
}
