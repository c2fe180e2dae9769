/* The commands on VMs. Those of one method have their summary, their options and what else is to
 * be said of them in the table of methods (control/methods.c). */
#include "cli/vm.h"

#define METHOD(m)       .method = &control_methods[METHOD_##m]
#define ON_ONE_VM       .words = "NAME", .min_words = 1, .max_words = 1, .complete = WORDS_VMS
#define ON_MANY         .words = "NAME...", .min_words = 1, .max_words = WORDS_MANY, .complete = WORDS_VMS
#define EVERY_THAT_RUNS .every = vm_each_that_runs
#define OPTS(o, d)      .option = o, .defaults = &(d), .opts_size = sizeof(d)

static const struct option none[] = {{0}};
static const char nothing[1];
#define NO_OPTIONS .option = none, .defaults = nothing

static const struct option ls_options[] = {
	{"json", OPT_FLAG, offsetof(struct ls_opts, json), NULL, "Print JSON."},
	{"names", OPT_FLAG, offsetof(struct ls_opts, names), NULL, "Print names only."},
	{0}};
static const struct ls_opts ls_defaults = {0};

const struct command ls_command = {
	.name = "ls",
	.summary = "List VMs: those that run, that ran in the background, or are defined",
	.text = "One that ended is listed until 'holon rm', or its next start, with how it ended.\n",
	OPTS(ls_options, ls_defaults),
	.run = cmd_ls,
};

const struct command inspect_command = {
	.name = "inspect", METHOD(INFO), ON_ONE_VM, .text = "Prints JSON.\n", .run = cmd_inspect};
const struct command stats_command = {
	.name = "stats", METHOD(STATS), ON_ONE_VM, .text = "Prints JSON.\n", .run = cmd_stats};
const struct command events_command = {
	.name = "events", METHOD(EVENTS), ON_ONE_VM, .run = cmd_events};
const struct command logs_command = {.name = "logs", METHOD(CONSOLE), ON_ONE_VM, .run = cmd_logs};
const struct command pause_command = {
	.name = "pause", METHOD(PAUSE), ON_MANY, EVERY_THAT_RUNS, .run = cmd_pause};
const struct command resume_command = {
	.name = "resume", METHOD(RESUME), ON_MANY, EVERY_THAT_RUNS, .run = cmd_resume};
const struct command reset_command = {
	.name = "reset", METHOD(RESET), ON_MANY, EVERY_THAT_RUNS, .run = cmd_reset};
const struct command stop_command = {
	.name = "stop", METHOD(STOP), ON_MANY, EVERY_THAT_RUNS, .run = cmd_stop};
const struct command kill_command = {
	.name = "kill", METHOD(KILL), ON_MANY, EVERY_THAT_RUNS, .run = cmd_kill};
const struct command set_command = {.name = "set", METHOD(SET), ON_ONE_VM, .run = cmd_set};

const struct command wait_command = {
	.name = "wait",
	METHOD(WAIT),
	ON_MANY,
	EVERY_THAT_RUNS,
	.text = "Exits with the status that 'holon run' would have had (of the last one named).\n",
	.run = cmd_wait,
};

const struct command rename_command = {
	.name = "rename",
	.summary = "Give a VM that runs another name",
	.words = "NAME NEW",
	.min_words = 2,
	.max_words = 2,
	.complete = WORDS_VMS,
	NO_OPTIONS,
	.run = cmd_rename,
};

static const struct option console_options[] = {
	{"lines", OPT_NUMBER, offsetof(struct console_args, lines), "N",
	 "Only the last N lines of what was missed. Default: all that is kept.", .letter = 'n'},
	{0}};
static const struct console_args console_defaults = {.lines = CONSOLE_ALL_LINES};

const struct command console_command = {
	.name = "console",
	.summary = "Connect this terminal to a VM's console, beginning with what was missed",
	.text = "Several may be connected at once. Keys:\n"
		"  Ctrl-A d       leave the console; the VM goes on\n"
		"  Ctrl-A x       end the VM at once\n"
		"  Ctrl-A h       list the keys\n"
		"  Ctrl-A Ctrl-A  send one Ctrl-A to the guest\n"
		"Input may be a pipe; its end leaves the console.\n",
	ON_ONE_VM,
	OPTS(console_options, console_defaults),
	.run = cmd_console,
};

static const struct option rm_options[] = {{"force", OPT_FLAG, offsetof(struct rm_opts, force),
					    NULL, "Kill it first if it runs.", .letter = 'f'},
					   {0}};
static const struct rm_opts rm_defaults = {0};

const struct command rm_command = {
	.name = "rm",
	.summary = "Forget VMs that have ended: their logs, how they ended, their definitions",
	.text = "Disks stay.\n",
	ON_MANY,
	OPTS(rm_options, rm_defaults),
	.run = cmd_rm,
};

static const struct option top_options[] = {{"once", OPT_FLAG, offsetof(struct top_opts, once),
					     NULL,
					     "Print one second's figures and end, as in a pipe."},
					    {0}};
static const struct top_opts top_defaults = {0};

const struct command top_command = {
	.name = "top",
	.summary = "Show what VMs use: processors, memory, disks, network; and how the host stands",
	.text = "The host's line says OVERLOADED, and by what, when VMs wait for it or are about to.\n",
	OPTS(top_options, top_defaults),
	.run = cmd_top,
};
