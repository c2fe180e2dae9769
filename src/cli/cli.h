/* cli: the command line. Only this room (and the daemon to come) prints to people.
 *
 * commands.c holds the one table of commands and options; main.c finds the command there,
 * parses its options into its struct and calls it. */
#pragma once

#include "cli/options.h"

enum exit_status {
	EXIT_DONE = 0,       /* what was asked for is done; run: the guest powered off */
	EXIT_TROUBLE = 1,    /* usage, set-up, or a failure of the host's */
	EXIT_GUEST_DOWN = 3, /* run: a reset with --no-reboot, or a triple fault */
	EXIT_SIGNALLED = 128 /* run: plus the number of the second signal */
};

struct command {
	const char *name;
	const char *words;   /* what follows the options, for usage: "[COMMAND]"; NULL: nothing */
	const char *summary; /* one line */
	const char *text;    /* further lines of help; may be NULL */
	const struct option *option;
	const void *defaults; /* a struct of the command's own, opts_size bytes */
	size_t opts_size;
	int max_words;
	int (*run)(const void *opts, int words, char **word); /* returns the exit status */
};

extern const struct command *const commands[]; /* NULL-ended */
const struct command *find_command(const char *name);
/* Says on stderr that there is no such command, and which one may have been meant. */
void unknown_command(const char *name);

/* Options that every command takes. */
struct common_opts {
	bool help, quiet;
	int log_level; /* enum log_level, or LOG_BY_DEFAULT */
};
#define LOG_BY_DEFAULT (-1)
extern const struct option common_options[];

/* --- each command's struct and its doing --- */
struct run_opts {
	const char *name;
	int engine; /* enum engine_choice */
	unsigned cpus;
	uint64_t memory, jit_cache;
	const char *kernel, *initrd, *append;
	bool no_reboot, debug_exit, force;
};

struct json_opts {
	bool json;
};

int cmd_run(const void *opts, int words, char **word);
int cmd_doctor(const void *opts, int words, char **word);
int cmd_version(const void *opts, int words, char **word);
int cmd_help(const void *opts, int words, char **word);
