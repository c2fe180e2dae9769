#include "cli/cli.h"

#include <stdio.h>
#include <string.h>

#include "machine/machine.h"

#define COMMANDS_MAX 32u

/* The order of enum log_level (base/log.h) and of enum engine_choice (machine/machine.h). */
#define LOG_LEVELS "error|warn|info|debug"
#define ENGINES    "auto|jit|kvm"

const struct option common_options[] = {
	{"log-level", OPT_CHOICE, offsetof(struct common_opts, log_level), LOG_LEVELS,
	 "How much to say on standard error. Default: info on a terminal, else warn."},
	{"quiet", OPT_FLAG, offsetof(struct common_opts, quiet), NULL,
	 "Say nothing but errors: --log-level error."},
	{"help", OPT_FLAG, offsetof(struct common_opts, help), NULL, "Show this help.",
	 .letter = 'h'},
	{0}};

static const struct option run_options[] = {
	{"kernel", OPT_FILE, offsetof(struct run_opts, kernel), "FILE",
	 "The kernel: a Linux bzImage, an ELF vmlinux with a PVH entry, or a multiboot 1 image.",
	 .required = true},
	{"initrd", OPT_FILE, offsetof(struct run_opts, initrd), "FILE",
	 "The initial RAM disk. For multiboot: modules, \"FILE[ ARGUMENTS][,FILE...]\"."},
	{"append", OPT_TEXT, offsetof(struct run_opts, append), "TEXT",
	 "The kernel's command line."},
	{"memory", OPT_SIZE, offsetof(struct run_opts, memory), "SIZE",
	 "Guest memory, in bytes or with a suffix K, M, G or T. Default: 512M."},
	{"cpus", OPT_COUNT, offsetof(struct run_opts, cpus), "N",
	 "How many vCPUs. Default: 1. The JIT engine runs one."},
	{"engine", OPT_CHOICE, offsetof(struct run_opts, engine), ENGINES,
	 "What runs guest code: auto takes KVM where a probe finds it usable, else the JIT. "
	 "Default: auto."},
	{"jit-cache", OPT_SIZE, offsetof(struct run_opts, jit_cache), "SIZE",
	 "What the JIT engine may use for translated code, from 1M to 1G, and again as much for its "
	 "tables; when it is full, translation starts afresh. Default: 128M."},
	{"force", OPT_FLAG, offsetof(struct run_opts, force), NULL,
	 "With --engine kvm: run even where the probe refuses."},
	{"no-reboot", OPT_FLAG, offsetof(struct run_opts, no_reboot), NULL,
	 "End with exit status 3 when the guest resets, instead of rebooting it."},
	{"debug-exit", OPT_FLAG, offsetof(struct run_opts, debug_exit), NULL,
	 "Give the guest port 0xf4: writing a byte v there ends Holon with exit status (v << 1) | 1. "
	 "Also a device that CPU test suites use to raise interrupt lines."},
	{"name", OPT_TEXT, offsetof(struct run_opts, name), "NAME",
	 "The VM's name, in messages. Default: the kernel's file name."},
	{0}};

static const struct run_opts run_defaults = {
	.engine = ENGINE_AUTO,
	.cpus = 1,
	.memory = MIB(512),
};

static const struct option json_options[] = {
	{"json", OPT_FLAG, offsetof(struct json_opts, json), NULL, "Print JSON."}, {0}};

static const struct json_opts json_defaults = {0};

static const struct option no_options[] = {{0}};

static const struct command run_command = {
	.name = "run",
	.summary = "Run a virtual machine on this terminal",
	.text = "The guest's serial console is the terminal. Keys:\n"
		"  Ctrl-A x       end the VM at once\n"
		"  Ctrl-A h       list the keys\n"
		"  Ctrl-A Ctrl-A  send one Ctrl-A to the guest\n"
		"SIGTERM and SIGINT press the guest's power button; a second one ends the VM.\n"
		"\n"
		"Exit status: 0 after the guest powers off or Ctrl-A x; 3 after it resets with\n"
		"--no-reboot or ends in a triple fault; 1 for a usage or set-up error; 128 + N\n"
		"after a second signal N.\n",
	.option = run_options,
	.defaults = &run_defaults,
	.opts_size = sizeof(struct run_opts),
	.run = cmd_run,
};

static const struct command doctor_command = {
	.name = "doctor",
	.summary = "Show what this host offers, and what to do about what it lacks",
	.option = json_options,
	.defaults = &json_defaults,
	.opts_size = sizeof(struct json_opts),
	.run = cmd_doctor,
};

static const struct command version_command = {
	.name = "version",
	.summary = "Show Holon's version",
	.option = json_options,
	.defaults = &json_defaults,
	.opts_size = sizeof(struct json_opts),
	.run = cmd_version,
};

static const struct command help_command = {
	.name = "help",
	.words = "[COMMAND]",
	.summary = "Show help, for all of Holon or one command",
	.option = no_options,
	.defaults = "",
	.max_words = 1,
	.run = cmd_help,
};

const struct command *const commands[] = {&run_command, &doctor_command, &version_command,
					  &help_command, NULL};

const struct command *find_command(const char *name)
{
	for (const struct command *const *c = commands; *c; c++)
		if (!strcmp((*c)->name, name))
			return *c;
	return NULL;
}

void unknown_command(const char *name)
{
	const char *names[COMMANDS_MAX], *near;
	unsigned n = 0;

	for (const struct command *const *c = commands; *c && n < COMMANDS_MAX; c++)
		names[n++] = (*c)->name;
	near = nearest_name(name, names, n);
	fprintf(stderr, "holon: unknown command '%s'", name);
	if (near)
		fprintf(stderr, "; did you mean '%s'?", near);
	fprintf(stderr, "\nTry 'holon help'.\n");
}
