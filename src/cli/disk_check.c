/* holon disk check, holon disk compare: their exit statuses are qemu-img's. */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "block/qcow2.h"
#include "cli/disk.h"
#include "cli/print.h"

enum { CHECK_CLEAN, CHECK_FAILED, CHECK_CORRUPT, CHECK_LEAKS, CHECK_NOT_SUPPORTED = 63 };

static void report(void *ctx, const char *text)
{
	if (log_enabled(LOG_WARN))
		fprintf(stderr, "%s\n", text);
}

static void set_count(json_t *j, const char *key, uint64_t n)
{
	json_object_set_new(j, key, json_integer((json_int_t)n));
}

/* qemu-img names only counts that are not zero, but for these of every check. */
static int print_check_json(const struct block *b, const struct qcow2_check *c)
{
	json_t *j = json_pack("{s:s, s:s}", "filename", block_file(b), "format", block_format(b));
	const struct {
		const char *key;
		uint64_t n;
	} optional[] = {{"corruptions", c->corruptions},
			{"leaks", c->leaks},
			{"corruptions-fixed", c->corruptions_fixed},
			{"leaks-fixed", c->leaks_fixed},
			{"total-clusters", c->total_clusters},
			{"allocated-clusters", c->allocated_clusters},
			{"fragmented-clusters", c->fragmented_clusters},
			{"compressed-clusters", c->compressed_clusters},
			{"image-end-offset", c->image_end_offset}};

	set_count(j, "check-errors", c->check_errors);
	for (unsigned i = 0; i < ARRAY_SIZE(optional); i++)
		if (optional[i].n)
			set_count(j, optional[i].key, optional[i].n);
	return print_json(j);
}

static double percent(uint64_t part, uint64_t of)
{
	return of ? 100.0 * (double)part / (double)of : 0;
}

static void print_check(const struct qcow2_check *c)
{
	if (!c->corruptions && !c->leaks && !c->check_errors)
		disk_say("No errors were found on the image.");
	if (c->corruptions)
		disk_say("\n%" PRIu64 " errors were found on the image.\n"
			 "Data may be corrupted, or further writes to the image may corrupt it.",
			 c->corruptions);
	if (c->leaks)
		disk_say("\n%" PRIu64 " leaked clusters were found on the image.\n"
			 "This means waste of disk space, but no harm to data.",
			 c->leaks);
	if (c->check_errors)
		disk_say("\n%" PRIu64 " internal errors have occurred during the check.",
			 c->check_errors);
	if (c->total_clusters)
		disk_say("%" PRIu64 "/%" PRIu64 " = %0.2f%% allocated, %0.2f%% fragmented, "
			 "%0.2f%% compressed clusters",
			 c->allocated_clusters, c->total_clusters,
			 percent(c->allocated_clusters, c->total_clusters),
			 percent(c->fragmented_clusters, c->allocated_clusters),
			 percent(c->compressed_clusters, c->allocated_clusters));
	if (c->image_end_offset)
		disk_say("Image end offset: %" PRIu64, c->image_end_offset);
}

static void say_fixed(const struct qcow2_check *c)
{
	if (c->corruptions_fixed || c->leaks_fixed)
		disk_say("The following inconsistencies were found and repaired:\n\n"
			 "    %" PRIu64 " leaked clusters\n    %" PRIu64 " corruptions\n\n"
			 "Double checking the fixed image now...",
			 c->leaks_fixed, c->corruptions_fixed);
}

/* A repair is followed by a check of what it left. */
static int check(struct disk_job *j, const struct disk_check_opts *o, struct block *b,
		 struct qcow2_check *c)
{
	struct qcow2_check fixed = {.report = report};
	int r = 0;

	if (o->repair >= 0) {
		r = qcow2_check(b, QCOW2_FIX_LEAKS + (enum qcow2_fix)o->repair, &fixed, &j->err);
		if (r == 0 && o->output == DISK_HUMAN)
			say_fixed(&fixed);
	}
	*c = (struct qcow2_check){.report = report};
	if (r == 0)
		r = qcow2_check(b, QCOW2_FIX_NONE, c, &j->err);
	c->corruptions_fixed = fixed.corruptions_fixed;
	c->leaks_fixed = fixed.leaks_fixed;
	return r < 0 ? err_wrap(&j->err, "'%s'", block_file(b)) : 0;
}

static int check_status(const struct qcow2_check *c)
{
	return c->check_errors  ? CHECK_FAILED
	       : c->corruptions ? CHECK_CORRUPT
	       : c->leaks       ? CHECK_LEAKS
				: CHECK_CLEAN;
}

static int check_opened(struct disk_job *j, const struct disk_check_opts *o, struct block *b)
{
	struct qcow2_check c;

	if (strcmp(block_format(b), "qcow2") != 0) {
		err_set(&j->err, ENOTSUP, "'%s': a raw image has nothing that could be checked",
			block_file(b));
		disk_complain(j);
		return CHECK_NOT_SUPPORTED;
	}
	if (check(j, o, b, &c) < 0) {
		disk_complain(j);
		return CHECK_FAILED;
	}
	if (o->output == DISK_JSON)
		print_check_json(b, &c);
	else
		print_check(&c);
	return check_status(&c);
}

int cmd_disk_check(const void *opts, int words, char **word)
{
	const struct disk_check_opts *o = opts;
	const struct block_opts open = {
		.file = word[0],
		.format = disk_format_name(o->format),
		.read_only = o->repair < 0,
		.no_lock = o->share,
		.no_backing = true,
		.repair_later = true,
		.cache = BLOCK_CACHE_WRITEBACK,
	};
	struct block *b = NULL;
	struct disk_job j;
	int status, r = disk_begin(&j, "disk check", false);

	if (r < 0 || (r = disk_open(&j, &b, &open)) < 0)
		return disk_end(&j, r);
	status = check_opened(&j, o, b);
	r = disk_end(&j, disk_close(&j, b, 0));
	return r ? r : status;
}

/* --- compare --- */

enum { COMPARE_SAME, COMPARE_DIFFERENT, COMPARE_FAILED_TO_OPEN, COMPARE_FAILED };

static int compare(struct disk_job *j, const struct disk_compare_opts *o, struct block *a,
		   struct block *b)
{
	enum block_difference d;
	uint64_t where;
	bool sizes = block_size(a) != block_size(b);
	int r;

	if (sizes && o->strict) {
		disk_say("Strict mode: Image size mismatch!");
		return COMPARE_DIFFERENT;
	}
	progress_begin(&j->progress, o->progress);
	r = block_compare(a, b, o->strict, &j->step, &d, &where, &j->err);
	progress_end(&j->progress, j->done, j->total);
	if (r < 0) {
		disk_complain(j);
		return j->signal ? EXIT_SIGNALLED + j->signal : COMPARE_FAILED;
	}
	if (sizes && (d == BLOCK_SAME || where >= min_u64(block_size(a), block_size(b))))
		disk_say("Warning: Image size mismatch!");
	if (d == BLOCK_DIFFERENT_ALLOCATION)
		disk_say("Strict mode: Offset %" PRIu64 " allocation mismatch!", where);
	else if (d == BLOCK_DIFFERENT_CONTENT)
		disk_say("Content mismatch at offset %" PRIu64 "!", where);
	else
		disk_say("Images are identical.");
	return d == BLOCK_SAME ? COMPARE_SAME : COMPARE_DIFFERENT;
}

int cmd_disk_compare(const void *opts, int words, char **word)
{
	const struct disk_compare_opts *o = opts;
	struct block_opts open = {.file = word[0],
				  .format = disk_format_name(o->format),
				  .read_only = true,
				  .no_lock = o->share,
				  .cache = BLOCK_CACHE_WRITEBACK};
	struct block *a = NULL, *b = NULL;
	struct disk_job j;
	int status = COMPARE_FAILED_TO_OPEN, r = disk_begin(&j, "disk compare", true);

	if (r == 0)
		r = disk_open(&j, &a, &open);
	open.file = word[1];
	open.format = disk_format_name(o->second_format);
	if (r == 0)
		r = disk_open(&j, &b, &open);
	if (r == 0)
		status = compare(&j, o, a, b);
	if (b)
		r = disk_close(&j, b, r);
	if (a)
		r = disk_close(&j, a, r);
	disk_end(&j, r);
	return status;
}
