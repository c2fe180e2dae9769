/* The table of 'holon disk'. Letters, words and their order are qemu-img's where it has the
 * same command. */
#include "cli/disk.h"

#define ALWAYS_BY_FILE "Default: what the file begins with."

/* Options that several commands have, for a struct s. */
#define FORMAT(s, formats)                                                                         \
	{                                                                                          \
		"format", OPT_CHOICE, offsetof(struct s, format), formats,                         \
			"The image's format. " ALWAYS_BY_FILE, .letter = 'f'                       \
	}
#define OUTPUT(s)                                                                                  \
	{                                                                                          \
		"output", OPT_CHOICE, offsetof(struct s, output), DISK_OUTPUTS,                    \
			"For people or as JSON. Default: human."                                   \
	}
#define SHARE(s)                                                                                                 \
	{                                                                                                        \
		"force-share", OPT_FLAG, offsetof(struct s, share), NULL,                                        \
			"Read the image while another program writes to it, a running VM for instance. What is " \
			"read may be out of date, or between two states.",                                       \
			.letter = 'U'                                                                            \
	}
#define PROGRESS(s)                                                                                    \
	{                                                                                              \
		"progress", OPT_FLAG, offsetof(struct s, progress), NULL,                              \
			"Tell how far it is, line by line, even where standard error is no terminal.", \
			.letter = 'p'                                                                  \
	}
#define CACHE(s, name, letter_, field, what)                                                       \
	{                                                                                          \
		name, OPT_CHOICE, offsetof(struct s, field), DISK_CACHES, what, .letter = letter_  \
	}
#define BACKING_FORMAT(s)                                                                          \
	{                                                                                          \
		"backing-format", OPT_CHOICE, offsetof(struct s, backing_format), DISK_FORMATS,    \
			"The backing file's format. " ALWAYS_BY_FILE, .letter = 'F'                \
	}
#define NEW_OPTIONS(s)                                                                                              \
	{                                                                                                           \
		"options", OPT_TEXT, offsetof(struct s, options), "KEY=VALUE[,...]",                                \
			"Of the new image: preallocation=" DISK_PREALLOCS                                           \
			", size, and for qcow2 cluster_size, "                                                      \
			"refcount_bits, lazy_refcounts, extended_l2, compression_type=zlib|zstd, compat=0.10|1.1, " \
			"backing_file, backing_fmt.",                                                               \
			.letter = 'o', .repeats = true                                                              \
	}

/* --- create --- */

static const struct option create_options[] = {
	{"format", OPT_CHOICE, offsetof(struct disk_create_opts, format), DISK_FORMATS,
	 "The new image's format. Default: raw.", .letter = 'f'},
	{"backing", OPT_FILE, offsetof(struct disk_create_opts, backing), "FILE",
	 "An image that has what the new one does not hold yet. A relative name is relative to "
	 "the new image.",
	 .letter = 'b'},
	BACKING_FORMAT(disk_create_opts),
	{"unsafe", OPT_FLAG, offsetof(struct disk_create_opts, unsafe), NULL,
	 "Do not look at the backing file, which may not be there yet.", .letter = 'u'},
	NEW_OPTIONS(disk_create_opts),
	{0}};
static const struct disk_create_opts create_defaults = {.backing_format = DISK_NOT_GIVEN};
static const struct command create_command = {
	.name = "disk create",
	.words = "FILE [SIZE]",
	.summary = "Make an empty image",
	.text = "SIZE is in bytes, or has a suffix K, M, G, T, P or E. Without it the image has\n"
		"the size of its backing file. A file that is there already is replaced.\n",
	.option = create_options,
	.defaults = &create_defaults,
	.opts_size = sizeof create_defaults,
	.min_words = 1,
	.max_words = 2,
	.complete = WORDS_FILES,
	.run = cmd_disk_create,
};

/* --- info, snapshot, map --- */

static const struct option info_options[] = {
	FORMAT(disk_info_opts, DISK_SOURCES),
	OUTPUT(disk_info_opts),
	{"backing-chain", OPT_FLAG, offsetof(struct disk_info_opts, chain), NULL,
	 "Also of the backing file, of that one's, and so on."},
	SHARE(disk_info_opts),
	{0}};
static const struct disk_info_opts info_defaults = {.format = DISK_NOT_GIVEN};
static const struct command info_command = {
	.name = "disk info",
	.words = "FILE",
	.summary = "Show an image's format, sizes and backing file",
	.option = info_options,
	.defaults = &info_defaults,
	.opts_size = sizeof info_defaults,
	.min_words = 1,
	.max_words = 1,
	.complete = WORDS_FILES,
	.run = cmd_disk_info,
};

static const struct option snapshot_options[] = {
	{"list", OPT_FLAG, offsetof(struct disk_snapshot_opts, list), NULL,
	 "List them; that is all that this command does, and need not be said.", .letter = 'l'},
	OUTPUT(disk_snapshot_opts),
	SHARE(disk_snapshot_opts),
	{0}};
static const struct disk_snapshot_opts snapshot_defaults = {.list = true};
static const struct command snapshot_command = {
	.name = "disk snapshot",
	.words = "FILE",
	.summary = "List the snapshots inside a qcow2 image",
	.option = snapshot_options,
	.defaults = &snapshot_defaults,
	.opts_size = sizeof snapshot_defaults,
	.min_words = 1,
	.max_words = 1,
	.complete = WORDS_FILES,
	.run = cmd_disk_snapshot,
};

static const struct option map_options[] = {
	FORMAT(disk_map_opts, DISK_FORMATS),
	OUTPUT(disk_map_opts),
	{"start-offset", OPT_SIZE, offsetof(struct disk_map_opts, start), "SIZE",
	 "Where to begin. Default: 0.", .letter = 's'},
	{"max-length", OPT_SIZE, offsetof(struct disk_map_opts, length), "SIZE",
	 "How far to go. Default: to the end.", .letter = 'l'},
	SHARE(disk_map_opts),
	{0}};
static const struct disk_map_opts map_defaults = {.format = DISK_NOT_GIVEN, .length = UINT64_MAX};
static const struct command map_command = {
	.name = "disk map",
	.words = "FILE",
	.summary = "Show where an image and its backing files hold data",
	.option = map_options,
	.defaults = &map_defaults,
	.opts_size = sizeof map_defaults,
	.min_words = 1,
	.max_words = 1,
	.complete = WORDS_FILES,
	.run = cmd_disk_map,
};

/* --- check, compare --- */

static const struct option check_options[] = {
	FORMAT(disk_check_opts, DISK_FORMATS),
	OUTPUT(disk_check_opts),
	{"repair", OPT_CHOICE, offsetof(struct disk_check_opts, repair), "leaks|all",
	 "Repair leaks, which only waste space, or all that is wrong, with the risk of a wrong "
	 "choice.",
	 .letter = 'r'},
	SHARE(disk_check_opts),
	{0}};
static const struct disk_check_opts check_defaults = {.format = DISK_NOT_GIVEN,
						      .repair = DISK_NOT_GIVEN};
static const struct command check_command = {
	.name = "disk check",
	.words = "FILE",
	.summary = "Check a qcow2 image for what does not add up",
	.text = "Exit status: 0 when it is clean; 1 when the check failed; 2 when the image is\n"
		"corrupt; 3 when it has leaks only; 63 when the format has nothing to check.\n",
	.option = check_options,
	.defaults = &check_defaults,
	.opts_size = sizeof check_defaults,
	.min_words = 1,
	.max_words = 1,
	.complete = WORDS_FILES,
	.run = cmd_disk_check,
};

static const struct option compare_options[] = {
	{"format", OPT_CHOICE, offsetof(struct disk_compare_opts, format), DISK_FORMATS,
	 "The first image's format. " ALWAYS_BY_FILE, .letter = 'f'},
	{"second-format", OPT_CHOICE, offsetof(struct disk_compare_opts, second_format),
	 DISK_FORMATS, "The second image's format. " ALWAYS_BY_FILE, .letter = 'F'},
	{"strict", OPT_FLAG, offsetof(struct disk_compare_opts, strict), NULL,
	 "Sizes must be the same, too, and data be in the same places.", .letter = 's'},
	PROGRESS(disk_compare_opts),
	SHARE(disk_compare_opts),
	{0}};
static const struct disk_compare_opts compare_defaults = {.format = DISK_NOT_GIVEN,
							  .second_format = DISK_NOT_GIVEN};
static const struct command compare_command = {
	.name = "disk compare",
	.words = "FILE1 FILE2",
	.summary = "Tell whether two images have the same contents",
	.text = "Exit status: 0 when a guest would find the same; 1 when not; 2 when an image\n"
		"could not be opened; 3 when reading failed. One may be larger, with zeros\n"
		"there.\n",
	.option = compare_options,
	.defaults = &compare_defaults,
	.opts_size = sizeof compare_defaults,
	.min_words = 2,
	.max_words = 2,
	.complete = WORDS_FILES,
	.run = cmd_disk_compare,
};

/* --- resize --- */

static const struct option resize_options[] = {
	FORMAT(disk_resize_opts, DISK_FORMATS),
	{"shrink", OPT_FLAG, offsetof(struct disk_resize_opts, shrink), NULL,
	 "Allow that the image gets smaller, and lose what lies behind its new end."},
	{"preallocation", OPT_CHOICE, offsetof(struct disk_resize_opts, prealloc), DISK_PREALLOCS,
	 "What the new part takes up at once. Default: off."},
	{0}};
static const struct disk_resize_opts resize_defaults = {.format = DISK_NOT_GIVEN};
static const struct command resize_command = {
	.name = "disk resize",
	.words = "FILE [+-]SIZE",
	.summary = "Make an image larger or smaller",
	.text = "With + or - before it, SIZE is what comes or goes.\n",
	.option = resize_options,
	.defaults = &resize_defaults,
	.opts_size = sizeof resize_defaults,
	.min_words = 2,
	.max_words = 2,
	.complete = WORDS_FILES,
	.run = cmd_disk_resize,
};

/* --- convert --- */

static const struct option convert_options[] = {
	{"format", OPT_CHOICE, offsetof(struct disk_convert_opts, format), DISK_SOURCES,
	 "The sources' format. vmdk, vpc (VHD), vhdx and vdi are read by qemu-img. " ALWAYS_BY_FILE,
	 .letter = 'f'},
	{"output-format", OPT_CHOICE, offsetof(struct disk_convert_opts, output_format),
	 DISK_FORMATS, "The target's format. Default: raw.", .letter = 'O'},
	{"compress", OPT_FLAG, offsetof(struct disk_convert_opts, compress), NULL,
	 "Compress the target, which is qcow2.", .letter = 'c'},
	NEW_OPTIONS(disk_convert_opts),
	{"backing", OPT_FILE, offsetof(struct disk_convert_opts, backing), "FILE",
	 "Give the target this backing file, and write only what differs from it.", .letter = 'B'},
	BACKING_FORMAT(disk_convert_opts),
	{"no-create", OPT_FLAG, offsetof(struct disk_convert_opts, no_create), NULL,
	 "Write into the target that is there, whose size stays.", .letter = 'n'},
	{"target-is-zero", OPT_FLAG, offsetof(struct disk_convert_opts, target_is_zero), NULL,
	 "With -n: the target reads as zeros, which then need not be written."},
	{"sparse-size", OPT_SIZE, offsetof(struct disk_convert_opts, sparse_bytes), "SIZE",
	 "Leave out runs of zeros of at least this length; 0: write everything. Default: 4K.",
	 .letter = 'S'},
	{"snapshot", OPT_TEXT, offsetof(struct disk_convert_opts, snapshot), "NAME",
	 "Read this snapshot inside the source, by its name or ID.", .letter = 'l'},
	CACHE(disk_convert_opts, "cache", 't', cache,
	      "How the target is written. unsafe does not wait for the disk. Default: writeback."),
	CACHE(disk_convert_opts, "source-cache", 'T', source_cache,
	      "How the sources are read. Default: writeback."),
	{"requests", OPT_COUNT, offsetof(struct disk_convert_opts, depth), "N",
	 "How many pieces to copy side by side, at most 16. Default: 8.", .letter = 'm'},
	PROGRESS(disk_convert_opts),
	SHARE(disk_convert_opts),
	{0}};
static const struct disk_convert_opts convert_defaults = {
	.format = DISK_NOT_GIVEN,
	.backing_format = DISK_NOT_GIVEN,
	.sparse_bytes = KIB(4),
	.depth = BLOCK_JOB_DEPTH,
	.cache = BLOCK_CACHE_WRITEBACK,
	.source_cache = BLOCK_CACHE_WRITEBACK,
};
static const struct command convert_command = {
	.name = "disk convert",
	.words = "SRC... DST",
	.summary = "Copy an image to another format",
	.text = "Several sources come one behind the other. DST is written under a temporary\n"
		"name and takes its place when it is complete, so that an interrupted run\n"
		"leaves what was there before; but a device, an NBD disk, and with -n a file, is\n"
		"written in place.\n",
	.option = convert_options,
	.defaults = &convert_defaults,
	.opts_size = sizeof convert_defaults,
	.min_words = 2,
	.max_words = WORDS_MANY,
	.complete = WORDS_FILES,
	.run = cmd_disk_convert,
};

/* --- commit, rebase --- */

static const struct option commit_options[] = {
	FORMAT(disk_commit_opts, DISK_FORMATS),
	{"base", OPT_FILE, offsetof(struct disk_commit_opts, base), "FILE",
	 "Down to this one of the backing files, past those between. The image stays as it is.",
	 .letter = 'b'},
	{"keep", OPT_FLAG, offsetof(struct disk_commit_opts, keep), NULL,
	 "Do not empty the image afterwards.", .letter = 'd'},
	CACHE(disk_commit_opts, "cache", 't', cache,
	      "How the backing file is written. Default: writeback."),
	PROGRESS(disk_commit_opts),
	{0}};
static const struct disk_commit_opts commit_defaults = {.format = DISK_NOT_GIVEN,
							.cache = BLOCK_CACHE_WRITEBACK};
static const struct command commit_command = {
	.name = "disk commit",
	.words = "FILE",
	.summary = "Write what an image holds into its backing file",
	.text = "The image is then emptied; a guest finds the same in it as before. Other images\n"
		"that have the same backing file are spoilt.\n",
	.option = commit_options,
	.defaults = &commit_defaults,
	.opts_size = sizeof commit_defaults,
	.min_words = 1,
	.max_words = 1,
	.complete = WORDS_FILES,
	.run = cmd_disk_commit,
};

static const struct option rebase_options[] = {
	FORMAT(disk_rebase_opts, DISK_FORMATS),
	{"backing", OPT_TEXT, offsetof(struct disk_rebase_opts, backing), "FILE",
	 "The new backing file; an empty name: none.", .letter = 'b', .required = true},
	BACKING_FORMAT(disk_rebase_opts),
	{"unsafe", OPT_FLAG, offsetof(struct disk_rebase_opts, unsafe), NULL,
	 "Change nothing but the name: the new backing file has the same contents.", .letter = 'u'},
	CACHE(disk_rebase_opts, "cache", 't', cache,
	      "How the image is written. Default: writeback."),
	PROGRESS(disk_rebase_opts),
	SHARE(disk_rebase_opts),
	{0}};
static const struct disk_rebase_opts rebase_defaults = {
	.format = DISK_NOT_GIVEN, .backing_format = DISK_NOT_GIVEN, .cache = BLOCK_CACHE_WRITEBACK};
static const struct command rebase_command = {
	.name = "disk rebase",
	.words = "FILE",
	.summary = "Give an image another backing file",
	.text = "What the new backing file has otherwise than the old one is copied into the\n"
		"image first, so that a guest finds the same in it as before.\n",
	.option = rebase_options,
	.defaults = &rebase_defaults,
	.opts_size = sizeof rebase_defaults,
	.min_words = 1,
	.max_words = 1,
	.complete = WORDS_FILES,
	.run = cmd_disk_rebase,
};

static const struct command *const commands[] = {&create_command,
						 &info_command,
						 &check_command,
						 &resize_command,
						 &convert_command,
						 &commit_command,
						 &rebase_command,
						 &map_command,
						 &compare_command,
						 &snapshot_command,
						 NULL};

const struct command disk_command = {
	.name = "disk",
	.summary = "Make, inspect, convert and change disk images",
	.text = "Formats: raw and qcow2. Letters and their order are those of qemu-img.\n",
	.group = commands,
};
