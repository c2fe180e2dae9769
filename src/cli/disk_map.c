/* holon disk map: where a guest's bytes are. Runs that follow each other in all respects are one
 * line. */
#include <errno.h>
#include <stdio.h>

#include "block/chain.h"
#include "cli/disk.h"

struct mapper {
	bool json, any;        /* any: something was printed */
	struct block_view run; /* not printed yet */
	uint64_t start;        /* of run */
};

static bool is_data(const struct block_view *v)
{
	return v->extent.kind == BLOCK_DATA;
}

static bool follows(const struct mapper *m, const struct block_view *v)
{
	const struct block_extent *a = &m->run.extent, *b = &v->extent;

	return a->kind == b->kind && m->run.image == v->image && a->has_offset == b->has_offset &&
	       a->compressed == b->compressed && a->allocated == b->allocated &&
	       (!a->has_offset || a->host_offset + a->len == b->host_offset);
}

static void print_json_run(const struct mapper *m)
{
	const struct block_extent *x = &m->run.extent;

	printf("%s{ \"start\": %llu, \"length\": %llu, \"depth\": %u, \"present\": %s, "
	       "\"zero\": %s, \"data\": %s",
	       m->any ? ",\n" : "[", (unsigned long long)m->start, (unsigned long long)x->len,
	       m->run.depth, x->kind == BLOCK_ABSENT ? "false" : "true",
	       is_data(&m->run) ? "false" : "true", is_data(&m->run) ? "true" : "false");
	if (x->has_offset)
		printf(", \"offset\": %llu", (unsigned long long)x->host_offset);
	putchar('}');
}

static int print_run(struct disk_job *j, struct mapper *m)
{
	const struct block_extent *x = &m->run.extent;

	if (!x->len)
		return 0;
	if (m->json) {
		print_json_run(m);
		m->any = true;
	} else if (is_data(&m->run)) {
		if (!x->has_offset)
			return err_set(&j->err, ENOTSUP,
				       "'%s' has compressed clusters, which have no place of their "
				       "own (--output json shows them)",
				       block_file(m->run.image));
		printf("%#-16llx%#-16llx%#-16llx%s\n", (unsigned long long)m->start,
		       (unsigned long long)x->len, (unsigned long long)x->host_offset,
		       block_file(m->run.image));
	}
	return 0;
}

static int map(struct disk_job *j, const struct disk_map_opts *o, struct block *b)
{
	struct mapper m = {.json = o->output == DISK_JSON};
	uint64_t size = block_size(b), at = o->start < size ? o->start : size;
	uint64_t end = o->length < size - at ? at + o->length : size;
	int r = 0;

	if (!m.json)
		printf("%-16s%-16s%-16s%s\n", "Offset", "Length", "Mapped to", "File");
	while (r == 0 && at < end) {
		struct block_view v;

		r = block_view(b, at, end - at, &v);
		if (r < 0)
			return err_sys(&j->err, -r, "'%s' at offset %llu", block_file(b),
				       (unsigned long long)at);
		if (m.run.extent.len && follows(&m, &v)) {
			m.run.extent.len += v.extent.len;
		} else {
			r = print_run(j, &m);
			m.run = v;
			m.start = at;
		}
		at += v.extent.len;
	}
	if (r == 0)
		r = print_run(j, &m);
	if (m.json)
		printf("%s]\n", m.any ? "" : "[");
	return r;
}

int cmd_disk_map(const void *opts, int words, char **word)
{
	const struct disk_map_opts *o = opts;
	const struct block_opts open = {
		.file = word[0],
		.format = disk_format_name(o->format),
		.read_only = true,
		.no_lock = o->share,
		.cache = BLOCK_CACHE_WRITEBACK,
	};
	struct block *b = NULL;
	struct disk_job j;
	int r = disk_begin(&j, "disk map", false);

	if (r == 0 && (r = disk_open(&j, &b, &open)) == 0)
		r = map(&j, o, b);
	return disk_end(&j, disk_close(&j, b, r));
}
