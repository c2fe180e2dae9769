/* vm: commands on VMs that run, or did: their structs, and what they share. */
#pragma once

#include "api/client.h"
#include "cli/cli.h"
#include "control/methods.h"
#include "control/registry.h"

extern const struct command ls_command, inspect_command, console_command, logs_command,
	stop_command, kill_command, pause_command, resume_command, reset_command, wait_command,
	rm_command, rename_command, set_command, events_command, stats_command, top_command;

struct ls_opts {
	bool json, names;
};

struct rm_opts {
	bool force;
};

struct top_opts {
	bool once;
};

int cmd_ls(const void *opts, int words, char **word);
int cmd_inspect(const void *opts, int words, char **word);
int cmd_console(const void *opts, int words, char **word);
int cmd_logs(const void *opts, int words, char **word);
int cmd_stop(const void *opts, int words, char **word);
int cmd_kill(const void *opts, int words, char **word);
int cmd_pause(const void *opts, int words, char **word);
int cmd_resume(const void *opts, int words, char **word);
int cmd_reset(const void *opts, int words, char **word);
int cmd_wait(const void *opts, int words, char **word);
int cmd_rm(const void *opts, int words, char **word);
int cmd_rename(const void *opts, int words, char **word);
int cmd_set(const void *opts, int words, char **word);
int cmd_events(const void *opts, int words, char **word);
int cmd_stats(const void *opts, int words, char **word);
int cmd_top(const void *opts, int words, char **word);

/* --- shared --- */

/* struct command's every. One that is about to be started again runs. */
WARN_UNUSED int vm_each_that_runs(void (*each)(void *ctx, const char *name), void *ctx,
				  struct err *e);

/* One word: "running", "ended", "died". */
const char *vm_state_word(const struct vm_seen *v);
/* Of one that ended or died, in words; empty: it did not. */
void vm_end_text(const struct vm_seen *v, char to[160]);
/* Connects to one that runs. */
WARN_UNUSED int vm_connect(struct api_client *c, const struct vm_seen *v, struct err *e);
/* All at once: find, connect, ask. */
WARN_UNUSED int vm_ask(const char *name, enum control_method m, const void *args, json_t **answer,
		       struct err *e);
/* The Unix socket of the vsock device of one that runs; a name with a slash in it is one itself. */
WARN_UNUSED int vm_vsock(const char *name, char path[VM_PATH_MAX + 32], struct err *e);
int vm_trouble(const char *name, const struct err *e); /* says so; EXIT_TROUBLE */
/* Text of others, without what steers a terminal. */
const char *json_text(const json_t *object, const char *member, char *to, size_t len);
/* Ends the process of one that does not answer. */
WARN_UNUSED int vm_signal(const struct vm_seen *v, const char *lock, int sig, struct err *e);
