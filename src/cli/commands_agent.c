/* The tables of what is done in a guest by its agent. */
#include <errno.h>

#include "cli/cli.h"

#define WAIT_HELP "Wait that long for the guest's agent, if the VM has only just started."

static const struct option exec_options[] = {
	{"user", OPT_TEXT, offsetof(struct exec_opts, user), "NAME",
	 "Who runs it, a name or a number of the guest's. Default: root.", .letter = 'u'},
	{"dir", OPT_TEXT, offsetof(struct exec_opts, dir), "DIR",
	 "Where it starts. Default: the user's home.", .letter = 'w'},
	{"env", OPT_TEXT, offsetof(struct exec_opts, env), "NAME=VALUE",
	 "A variable of its environment; NAME alone: as it is here.", .letter = 'e',
	 .repeats = true},
	{"tty", OPT_FLAG, offsetof(struct exec_opts, tty), NULL,
	 "Give it a terminal. Default: if standard input and output are one.", .letter = 't'},
	{"no-tty", OPT_FLAG, offsetof(struct exec_opts, no_tty), NULL, "Give it none.",
	 .letter = 'T'},
	{"wait", OPT_COUNT, offsetof(struct exec_opts, wait), "SECONDS", WAIT_HELP},
	{0}};

static const struct exec_opts exec_defaults = {0};

static int check_exec(const void *opts, int words, char **word, struct err *e)
{
	const struct exec_opts *o = opts;

	if (o->tty && o->no_tty)
		return err_set(e, EINVAL, "--tty and --no-tty exclude each other");
	return 0;
}

const struct command exec_command = {
	.name = "exec",
	.words = "VM [COMMAND [ARGUMENT...]]",
	.summary = "Run a command in a guest",
	.text = "Without COMMAND, a login shell. The guest needs Holon's agent\n"
		"('holon agent --help'). VM is a name, or the path of a VM's vsock socket.\n"
		"Input, output and signals are carried, and the command's exit status is ours: 128\n"
		"and the number of a signal that killed it. 125: it did not come to that; 126: it\n"
		"cannot be run; 127: there is no such command.\n",
	.option = exec_options,
	.defaults = &exec_defaults,
	.opts_size = sizeof(struct exec_opts),
	.min_words = 1,
	.max_words = WORDS_MANY,
	.own_words = 2,
	.complete = WORDS_VMS,
	.check = check_exec,
	.run = cmd_exec,
};

static const struct option cp_options[] = {
	{"user", OPT_TEXT, offsetof(struct cp_opts, user), "NAME",
	 "Who reads and writes in the guest, and owns what is new there. Default: root.",
	 .letter = 'u'},
	{"wait", OPT_COUNT, offsetof(struct cp_opts, wait), "SECONDS", WAIT_HELP},
	{0}};

static const struct cp_opts cp_defaults = {0};

const struct command cp_command = {
	.name = "cp",
	.words = "FROM... TO",
	.summary = "Copy files and directories into a guest, or out of it",
	.text = "Either FROM or TO is in a guest: VM:PATH, where VM is a name, or the path of a\n"
		"VM's vsock socket. A PATH that does not begin with a slash\n"
		"starts at the user's home. Directories are copied whole, links as links;\n"
		"permissions and times are kept. The guest needs Holon's agent\n"
		"('holon agent --help').\n",
	.option = cp_options,
	.defaults = &cp_defaults,
	.opts_size = sizeof(struct cp_opts),
	.min_words = 2,
	.max_words = WORDS_MANY,
	.complete = WORDS_FILES,
	.run = cmd_cp,
};

static const struct option agent_options[] = {{0}};

const struct command agent_command = {
	.name = "agent",
	.words = "[FILE]",
	.summary = "Write the program that guests need for exec and cp to a file",
	.text = "Images that 'holon image build' makes have it. Elsewhere, bring FILE into the\n"
		"guest and run it there as root with --install. It needs no library, and serves\n"
		"whoever can reach the VM's sockets on the host, and nobody else. Without FILE:\n"
		"where it is on this host.\n",
	.option = agent_options,
	.defaults = "",
	.max_words = 1,
	.complete = WORDS_FILES,
	.run = cmd_agent,
};
