/* holon disk info, holon disk snapshot: what an image says of itself. The JSON has qemu-img's
 * keys, so that scripts written for that one work. */
#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/auto.h"
#include "block/qcow2.h"
#include "cli/disk.h"
#include "cli/disk_import.h"
#include "cli/print.h"

/* One image of a chain, with what its file system says. */
struct layer {
	struct block *b;
	struct qcow2_info q;
	bool is_qcow2, has_disk_size;
	uint64_t disk_size;
	char *full_backing; /* NULL: no backing file */
};

static int look_at(struct disk_job *j, struct layer *l, struct block *b)
{
	const char *backing = block_backing_file(b);
	struct stat st;
	int r = 0;

	*l = (struct layer){.b = b, .is_qcow2 = !strcmp(block_format(b), "qcow2")};
	if (l->is_qcow2 && (r = qcow2_get_info(b, &l->q)) < 0)
		return err_sys(&j->err, -r, "'%s'", block_file(b));
	if (stat(block_file(b), &st) == 0) {
		l->has_disk_size = true;
		l->disk_size = (uint64_t)st.st_blocks * 512;
	}
	if (backing) {
		l->full_backing = block_backing_path(block_file(b), backing);
		if (!l->full_backing)
			return err_sys(&j->err, ENOMEM, "'%s'", block_file(b));
	}
	return 0;
}

/* --- JSON --- */

static json_t *snapshots_json(const struct layer *l)
{
	json_t *all = json_array();

	for (unsigned i = 0; i < l->q.snapshot_count; i++) {
		const struct qcow2_snapshot *s = &l->q.snapshots[i];

		json_array_append_new(
			all,
			json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I}", "id", s->id, "name",
				  s->name, "vm-state-size", (json_int_t)s->state_size, "date-sec",
				  (json_int_t)s->date_sec, "date-nsec", (json_int_t)s->date_nsec,
				  "vm-clock-sec", (json_int_t)(s->vm_clock_ns / 1000000000),
				  "vm-clock-nsec", (json_int_t)(s->vm_clock_ns % 1000000000)));
	}
	return all;
}

static json_t *specific_json(const struct qcow2_info *q)
{
	json_t *data = json_pack("{s:s, s:s, s:i}", "compat", q->version < 3 ? "0.10" : "1.1",
				 "compression-type", q->zstd ? "zstd" : "zlib", "refcount-bits",
				 (int)q->refcount_bits);

	if (q->version >= 3) {
		json_object_set_new(data, "lazy-refcounts", json_boolean(q->lazy_refcounts));
		json_object_set_new(data, "corrupt", json_boolean(q->corrupt));
		json_object_set_new(data, "extended-l2", json_boolean(q->extended_l2));
	}
	return json_pack("{s:s, s:o}", "type", "qcow2", "data", data);
}

static json_t *layer_json(const struct layer *l)
{
	json_t *j = json_pack("{s:s, s:s, s:I, s:b}", "filename", block_file(l->b), "format",
			      block_format(l->b), "virtual-size", (json_int_t)block_size(l->b),
			      "dirty-flag", l->is_qcow2 && l->q.dirty);

	if (l->has_disk_size)
		json_object_set_new(j, "actual-size", json_integer((json_int_t)l->disk_size));
	if (l->full_backing) {
		const char *format = block_backing_format(l->b);

		json_object_set_new(j, "backing-filename", json_string(block_backing_file(l->b)));
		json_object_set_new(j, "full-backing-filename", json_string(l->full_backing));
		if (format)
			json_object_set_new(j, "backing-filename-format", json_string(format));
	}
	if (!l->is_qcow2)
		return j;
	json_object_set_new(j, "cluster-size", json_integer((json_int_t)l->q.cluster_bytes));
	if (l->q.snapshot_count)
		json_object_set_new(j, "snapshots", snapshots_json(l));
	json_object_set_new(j, "format-specific", specific_json(&l->q));
	return j;
}

/* --- for people --- */

static void print_snapshot(const struct qcow2_snapshot *s)
{
	char size[SIZE_TEXT_LEN], date[32] = "-", clock[40];
	time_t sec = (time_t)s->date_sec;
	uint64_t ms = s->vm_clock_ns / 1000000;
	struct tm tm;

	if (localtime_r(&sec, &tm))
		strftime(date, sizeof date, "%Y-%m-%d %H:%M:%S", &tm);
	snprintf(clock, sizeof clock, "%02llu:%02llu:%02llu.%03llu",
		 (unsigned long long)(ms / 3600000), (unsigned long long)(ms / 60000 % 60),
		 (unsigned long long)(ms / 1000 % 60), (unsigned long long)(ms % 1000));
	printf("%-10s%-17s%8s%20s%13s\n", s->id, s->name, size_text(size, s->state_size), date,
	       clock);
}

static void print_snapshots(const struct qcow2_info *q)
{
	printf("Snapshot list:\n%-10s%-17s%8s%20s%13s\n", "ID", "TAG", "VM SIZE", "DATE",
	       "VM CLOCK");
	for (unsigned i = 0; i < q->snapshot_count; i++)
		print_snapshot(&q->snapshots[i]);
}

static const char *yes_no(bool b)
{
	return b ? "true" : "false";
}

static void print_specific(const struct qcow2_info *q)
{
	printf("Format specific information:\n"
	       "    compat: %s\n"
	       "    compression type: %s\n",
	       q->version < 3 ? "0.10" : "1.1", q->zstd ? "zstd" : "zlib");
	if (q->version >= 3)
		printf("    lazy refcounts: %s\n", yes_no(q->lazy_refcounts));
	printf("    refcount bits: %u\n", q->refcount_bits);
	if (q->version >= 3)
		printf("    corrupt: %s\n    extended l2: %s\n", yes_no(q->corrupt),
		       yes_no(q->extended_l2));
}

static void print_backing(const struct layer *l)
{
	const char *named = block_backing_file(l->b), *format = block_backing_format(l->b);

	printf("backing file: %s", named);
	if (strcmp(named, l->full_backing) != 0)
		printf(" (actual path: %s)", l->full_backing);
	putchar('\n');
	if (format)
		printf("backing file format: %s\n", format);
}

static void print_layer(const struct layer *l)
{
	char size[SIZE_TEXT_LEN];

	printf("image: %s\nfile format: %s\nvirtual size: %s (%llu bytes)\n", block_file(l->b),
	       block_format(l->b), size_text(size, block_size(l->b)),
	       (unsigned long long)block_size(l->b));
	if (l->has_disk_size)
		printf("disk size: %s\n", size_text(size, l->disk_size));
	if (l->is_qcow2 && l->q.dirty)
		printf("cleanly shut down: no\n");
	if (l->is_qcow2)
		printf("cluster_size: %llu\n", (unsigned long long)l->q.cluster_bytes);
	if (l->full_backing)
		print_backing(l);
	if (!l->is_qcow2)
		return;
	if (l->q.snapshot_count)
		print_snapshots(&l->q);
	print_specific(&l->q);
}

/* --- the commands --- */

/* json: an array to add to, or NULL: printed for people. */
static int tell(struct disk_job *j, struct block *b, json_t *json)
{
	struct layer l = {0};
	int r = look_at(j, &l, b);

	if (r == 0 && json)
		r = json_array_append_new(json, layer_json(&l)) < 0
			    ? err_set(&j->err, EINVAL, "'%s' is no name in UTF-8, which JSON needs",
				      block_file(b))
			    : 0;
	else if (r == 0)
		print_layer(&l);
	free(l.full_backing);
	return r;
}

static int tell_chain(struct disk_job *j, const struct disk_info_opts *o, struct block *b)
{
	json_t *json = o->output == DISK_JSON ? json_array() : NULL;
	int r = 0;

	for (struct block *at = b; r == 0 && at; at = o->chain ? block_backing(at) : NULL) {
		if (!json && at != b)
			putchar('\n');
		r = tell(j, at, json);
	}
	if (r == 0 && json)
		r = print_json(o->chain ? json_incref(json) : json_incref(json_array_get(json, 0)))
			    ? err_set(&j->err, EIO, "nothing was printed")
			    : 0;
	json_decref(json);
	return r;
}

int cmd_disk_info(const void *opts, int words, char **word)
{
	const struct disk_info_opts *o = opts;
	const struct block_opts open = {
		.file = word[0],
		.format = disk_format_name(o->format),
		.read_only = true,
		.no_lock = o->share,
		.no_backing = !o->chain,
		.repair_later = true,
		.cache = BLOCK_CACHE_WRITEBACK,
	};
	const char *foreign = foreign_of(word[0], open.format);
	struct block *b = NULL;
	struct disk_job j;
	int r = disk_begin(&j, "disk info", false);

	if (r == 0 && foreign)
		r = import_info(&j, word[0], foreign, o->output == DISK_JSON);
	else if (r == 0 && (r = disk_open(&j, &b, &open)) == 0)
		r = tell_chain(&j, o, b);
	return disk_end(&j, disk_close(&j, b, r));
}

int cmd_disk_snapshot(const void *opts, int words, char **word)
{
	const struct disk_snapshot_opts *o = opts;
	const struct block_opts open = {
		.file = word[0],
		.format = "qcow2",
		.read_only = true,
		.no_lock = o->share,
		.no_backing = true,
		.cache = BLOCK_CACHE_WRITEBACK,
	};
	struct block *b = NULL;
	struct layer l = {0};
	struct disk_job j;
	int r = disk_begin(&j, "disk snapshot", false);

	if (r == 0)
		r = disk_open(&j, &b, &open);
	if (r == 0)
		r = look_at(&j, &l, b);
	if (r == 0 && o->output == DISK_JSON)
		print_json(snapshots_json(&l));
	else if (r == 0 && l.q.snapshot_count)
		print_snapshots(&l.q);
	free(l.full_backing);
	return disk_end(&j, disk_close(&j, b, r));
}
