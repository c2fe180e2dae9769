/* disk: what the files disk_*.c share: the options of 'holon disk ...' (commands_disk.c is the
 * table) and the surroundings of one run.
 *
 * Signals of people (SIGINT, SIGTERM, SIGHUP) end a long job between two pieces, so that it can
 * clean up; a second one ends the process at once, temporary file removed. */
#pragma once

#include <signal.h>

#include "block/block.h"
#include "block/jobs.h"
#include "cli/cli.h"
#include "cli/progress.h"

/* The orders of the OPT_CHOICEs; -1: not given. */
#define DISK_FORMATS   "raw|qcow2"
#define DISK_SOURCES   "raw|qcow2|vmdk|vpc|vhdx|vdi"
#define DISK_OUTPUTS   "human|json"
#define DISK_CACHES    "none|writeback|writethrough|unsafe" /* enum block_cache */
#define DISK_PREALLOCS "off|metadata|falloc|full"           /* enum block_prealloc */
#define DISK_NOT_GIVEN (-1)
#define DISK_NO_SIZE   UINT64_MAX
enum disk_output { DISK_HUMAN, DISK_JSON };

struct disk_create_opts {
	int format, backing_format;
	const char *backing;
	bool unsafe;
	struct option_list options;
};

struct disk_info_opts {
	int format, output;
	bool chain, share;
};

struct disk_check_opts {
	int format, output, repair; /* repair: enum qcow2_fix less one */
	bool share;
};

struct disk_resize_opts {
	int format, prealloc;
	bool shrink;
};

struct disk_convert_opts {
	int format, output_format, backing_format, cache, source_cache;
	const char *backing, *snapshot;
	struct option_list options;
	uint64_t sparse_bytes;
	unsigned depth;
	bool compress, no_create, progress, share, target_is_zero;
};

struct disk_commit_opts {
	int format, cache;
	const char *base;
	bool keep, progress;
};

struct disk_rebase_opts {
	int format, backing_format, cache;
	const char *backing;
	bool unsafe, progress, share;
};

struct disk_map_opts {
	int format, output;
	uint64_t start, length;
	bool share;
};

struct disk_compare_opts {
	int format, second_format;
	bool strict, progress, share;
};

struct disk_snapshot_opts {
	int format, output;
	bool list, share;
};

int cmd_disk_create(const void *opts, int words, char **word);
int cmd_disk_info(const void *opts, int words, char **word);
int cmd_disk_check(const void *opts, int words, char **word);
int cmd_disk_resize(const void *opts, int words, char **word);
int cmd_disk_convert(const void *opts, int words, char **word);
int cmd_disk_commit(const void *opts, int words, char **word);
int cmd_disk_rebase(const void *opts, int words, char **word);
int cmd_disk_map(const void *opts, int words, char **word);
int cmd_disk_compare(const void *opts, int words, char **word);
int cmd_disk_snapshot(const void *opts, int words, char **word);

/* The name at that place of DISK_SOURCES; NULL for DISK_NOT_GIVEN. */
const char *disk_format_name(int format);

/* One run of a command. */
struct disk_job {
	const char *command; /* for messages */
	struct block_ctx *ctx;
	struct err err; /* what failed */

	/* For block_convert and the like: progress, and the end when a signal came. */
	struct block_progress step;
	struct progress progress;
	uint64_t done, total; /* as last told */

	struct loop_fd signals; /* fd -1: signals do what they always do */
	sigset_t old_mask;
	int signal;           /* that came; 0: none */
	char temporary[4096]; /* file to remove when it ends before its time; "": none */
};

/* stoppable: signals are taken as described above. */
WARN_UNUSED int disk_begin(struct disk_job *j, const char *command, bool stoppable);
/* r: 0 or a negative errno, with its reason in j->err, which is printed. Removes j->temporary.
 * Returns the exit status: done when r is 0, trouble otherwise. */
int disk_end(struct disk_job *j, int r);
/* Says what failed, with no end yet. */
void disk_complain(struct disk_job *j);
/* A line on standard output, unless --quiet. */
__attribute__((format(printf, 1, 2))) void disk_say(const char *fmt, ...);

/* An image that is ours. format: as block_opts; share: beside a writer. */
WARN_UNUSED int disk_open(struct disk_job *j, struct block **out, const struct block_opts *o);
/* Closes b; the failure of a writer's close is the job's, unless r is one already. */
int disk_close(struct disk_job *j, struct block *b, int r);

/* --- options of a new image (disk_create_options.c) --- */

/* -o k=v,... into o, whose texts then point into *storage (free it). size and backing file may
 * stand there, too. */
WARN_UNUSED int disk_create_options(struct block_create_opts *o, const struct option_list *list,
				    char **storage, struct err *e);
/* "Formatting 'x', fmt=qcow2 ..." */
void disk_say_formatting(const struct block_create_opts *o);
/* Opens o->backing_file, as an image at file will name it, and fills o's size and backing_format
 * from it as far as they are not given. */
WARN_UNUSED int disk_look_at_backing(struct disk_job *j, struct block_create_opts *o,
				     const char *file);

/* --- a new file in the place of an old one (disk_place.c) --- */

struct disk_place {
	char path[4096];     /* where it shall be, symbolic links followed */
	struct block *guard; /* holds the lock of what is there now; NULL: nothing is */
	bool in_place;       /* a device or URI: written where it is, no temporary file */
	unsigned mode;       /* of what is there now */
	bool unsafe;         /* set by the caller: put in place without waiting for the disk */
};
/* Finds where file is to be and a name beside it, j->temporary, made as an empty file.
 * -EAGAIN: somebody uses what is there. */
WARN_UNUSED int disk_place_begin(struct disk_job *j, struct disk_place *p, const char *file);
/* Makes j->temporary, an empty file beside file, that its user alone can read. */
WARN_UNUSED int disk_temporary(struct disk_job *j, const char *file);
const char *disk_place_file(const struct disk_job *j, const struct disk_place *p); /* to write */
/* r: 0, and the file is put into its place and survives a crash of the host; or a failure, and
 * nothing has changed. */
int disk_place_end(struct disk_job *j, struct disk_place *p, int r);
