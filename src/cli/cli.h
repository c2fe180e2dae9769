/* cli: the command line. Only this room (and the daemon to come) prints to people.
 *
 * The commands make one table: root_command in commands.c is a group, and a group's commands
 * may be groups again. Each of the root's has its options in commands_NAME.c, or here. main.c
 * finds the command by its words, parses its options into its struct and calls it. */
#pragma once

#include "api/method.h"
#include "cli/options.h"
#include "resource/limits.h"

enum exit_status {
	EXIT_DONE = 0,       /* what was asked for is done; run: the guest powered off */
	EXIT_TROUBLE = 1,    /* usage, set-up, or a failure of the host's */
	EXIT_GUEST_DOWN = 3, /* run: a reset with --no-reboot, or a triple fault */
	/* exec; else it is the command's own */
	EXIT_NOT_BEGUN = 125, /* trouble of ours */
	EXIT_NOT_RUN = 126,   /* the command is there, and cannot be run */
	EXIT_NOT_FOUND = 127,
	EXIT_SIGNALLED = 128 /* run: plus the number of the second signal */
};

#define WORDS_FILES "file" /* see struct command */
#define WORDS_VMS   "vm"
#define WORDS_MANY  4096

/* A command, or a group of commands, which has only name, summary, text and group. */
struct command {
	const char *name;    /* all that is typed before the options: "run", "disk create" */
	const char *words;   /* what else is typed, for usage: "FILE [SIZE]"; NULL: nothing */
	const char *summary; /* one line */
	const char *text;    /* further lines of help; may be NULL */
	const struct command *const *group; /* NULL-ended; NULL: a command */
	/* A VM's method: summary, text, options and defaults are its own. NULL: they stand here. */
	const struct api_method *method;
	const struct option *option;
	const void *defaults; /* a struct of the command's own, opts_size bytes */
	size_t opts_size;
	int min_words, max_words;
	int own_words; /* words behind that many belong to another program, with its options */
	/* What --all stands for: calls each(ctx, name). NULL: there is no --all. */
	int (*every)(void (*each)(void *ctx, const char *name), void *ctx, struct err *e);
	const char *
		complete; /* words: WORDS_FILES, WORDS_VMS, or a list "a|b|c"; NULL: nothing known */
	/* What the table cannot say: which options and words need or exclude each other. NULL:
	 * nothing of that kind. */
	int (*check)(const void *opts, int words, char **word, struct err *e);
	int (*run)(const void *opts, int words, char **word); /* returns the exit status */
};

extern const struct command root_command;
/* Goes down from the root as long as word[0..n) are names; *used of them were. Returns where it
 * ended: a command; a group when the words ended or an option came; or NULL, having said on
 * stderr that there is no such command, and which one may have been meant. */
const struct command *find_command(int n, char **word, int *used);
const char *command_summary(const struct command *c);
const char *command_details(const struct command *c); /* or NULL */
const struct option *command_options(const struct command *c);
const char *command_word(const struct command *c); /* the last one of its name */
/* Those that every command takes, into a struct common_opts; c: NULL, or of this one. */
const struct option *command_common_options(const struct command *c);

/* Options that every command takes. */
struct common_opts {
	bool help, quiet, all;
	int log_level; /* enum log_level, or LOG_BY_DEFAULT */
};
#define LOG_BY_DEFAULT (-1)

/* --- each command's struct and its doing --- */
extern const struct command run_command, disk_command, image_command;
extern const struct command firecracker_command;
extern const struct command exec_command, cp_command, agent_command;

enum vga_choice { VGA_AUTO, VGA_ON, VGA_OFF };

struct limit_opts {
	const char *cpu_cap, *vcpu_cap, *swap_limit;
	struct option_list cpu_pin;
	unsigned cpu_weight, io_weight;
	uint64_t memory_limit;
	int cgroup; /* 1: off */
};

struct run_opts {
	const char *name;
	int engine; /* enum engine_choice */
	int cpu;    /* enum cpuid_model */
	unsigned cpus;
	uint64_t memory, jit_cache;
	bool detach;
	int restart;           /* enum restart_policy (cli/detach.h) */
	unsigned stop_timeout; /* seconds */
	const char *kernel, *initrd, *append, *virtio_off;
	bool no_reboot, debug_exit, force;
	int confine; /* enum confine_choice (cli/run_confine.h) */
	struct option_list disks, net, publish;
	const char *capture;
	int console; /* 1: virtio */
	const char *vsock, *balloon, *gdb;
	bool gdb_wait;
	struct option_list port, share;
	struct limit_opts limits;
	/* with an image or a disk */
	const char *user, *password, *hostname, *user_data;
	struct option_list ssh_key;
	bool ephemeral, fresh;
	/* firmware */
	const char *firmware, *boot;
	int vga; /* enum vga_choice */
	struct option_list cdrom;
};

struct exec_opts {
	const char *user, *dir;
	struct option_list env;
	bool tty, no_tty;
	unsigned wait; /* seconds */
};

struct cp_opts {
	const char *user;
	unsigned wait;
};

struct json_opts {
	bool json;
};

struct firecracker_opts {
	int engine; /* enum engine_choice */
	bool force;
	const char *api_sock, *config_file, *metadata, *id;
	const char *log_path, *level, *module, *metrics_path;
	uint64_t mmds_size_limit, http_api_max_payload_size;
	bool no_api, show_level, show_log_origin, boot_timer, enable_pci, no_seccomp, version;
	bool snapshot_version;
	const char *seccomp_filter, *describe_snapshot;
	uint64_t start_time_us, start_time_cpu_us, parent_cpu_time_us;
};

int cmd_firecracker(const void *opts, int words, char **word);
int cmd_run(const void *opts, int words, char **word);
int cmd_exec(const void *opts, int words, char **word);
int cmd_cp(const void *opts, int words, char **word);
int cmd_agent(const void *opts, int words, char **word);
int cmd_doctor(const void *opts, int words, char **word);
int cmd_version(const void *opts, int words, char **word);
int cmd_help(const void *opts, int words, char **word);
