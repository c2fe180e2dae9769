#include "cli/cli.h"

#include <stdio.h>
#include <string.h>

#include "cli/plug.h"
#include "cli/vm.h"
#include "cli/vm_define.h"

#define COMMANDS_MAX 32u

/* The order of enum log_level (base/log.h). */
#define LOG_LEVELS "error|warn|info|debug"

static const struct option common_options[] = {
	{"all", OPT_FLAG, offsetof(struct common_opts, all), NULL,
	 "All that there are to do this to, instead of naming them."}, /* the first, see below */
	{"log-level", OPT_CHOICE, offsetof(struct common_opts, log_level), LOG_LEVELS,
	 "How much to say on standard error. Default: info on a terminal, else warn."},
	{"quiet", OPT_FLAG, offsetof(struct common_opts, quiet), NULL,
	 "Say nothing but errors: --log-level error.", .letter = 'q'},
	{"help", OPT_FLAG, offsetof(struct common_opts, help), NULL, "Show this help.",
	 .letter = 'h'},
	{0}};

static const struct option json_options[] = {
	{"json", OPT_FLAG, offsetof(struct json_opts, json), NULL, "Print JSON."}, {0}};

static const struct json_opts json_defaults = {0};

static const struct option no_options[] = {{0}};

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
	.words = "[COMMAND...]",
	.summary = "Show help, for all of Holon, a group of commands, or one command",
	.option = no_options,
	.defaults = "",
	.max_words = WORDS_MANY,
	.run = cmd_help,
};

static const struct command *const commands[] = {&run_command,
						 &firecracker_command,
						 &create_command,
						 &start_command,
						 &ls_command,
						 &inspect_command,
						 &console_command,
						 &logs_command,
						 &exec_command,
						 &cp_command,
						 &stop_command,
						 &kill_command,
						 &pause_command,
						 &resume_command,
						 &reset_command,
						 &wait_command,
						 &rm_command,
						 &rename_command,
						 &set_command,
						 &events_command,
						 &stats_command,
						 &attach_command,
						 &detach_command,
						 &top_command,
						 &agent_command,
						 &disk_command,
						 &image_command,
						 &doctor_command,
						 &version_command,
						 &help_command,
						 NULL};

const struct command root_command = {
	.name = "",
	.summary =
		"Runs virtual machines, on KVM where that works and on its own binary translator\n"
		"where it does not",
	.group = commands,
};

const char *command_summary(const struct command *c)
{
	return c->method && !c->summary ? c->method->summary : c->summary;
}

const char *command_details(const struct command *c)
{
	return c->method && !c->text ? c->method->text : c->text;
}

const struct option *command_options(const struct command *c)
{
	if (c->option)
		return c->option;
	return c->method && c->method->args ? c->method->args : no_options;
}

const struct option *command_common_options(const struct command *c)
{
	return common_options + (c && c->every ? 0 : 1);
}

const char *command_word(const struct command *c)
{
	const char *blank = strrchr(c->name, ' ');

	return blank ? blank + 1 : c->name;
}

static void unknown_command(const struct command *group, const char *word)
{
	const char *names[COMMANDS_MAX], *near;
	unsigned n = 0;

	for (const struct command *const *c = group->group; *c && n < COMMANDS_MAX; c++)
		names[n++] = command_word(*c);
	near = nearest_name(word, names, n);
	fprintf(stderr, "holon%s%s: unknown command '%s'", *group->name ? " " : "", group->name,
		word);
	if (near)
		fprintf(stderr, "; did you mean '%s'?", near);
	fprintf(stderr, "\nTry 'holon help%s%s'.\n", *group->name ? " " : "", group->name);
}

static const struct command *find_in(const struct command *group, const char *word)
{
	for (const struct command *const *c = group->group; *c; c++)
		if (!strcmp(command_word(*c), word))
			return *c;
	return NULL;
}

const struct command *find_command(int n, char **word, int *used)
{
	const struct command *c = &root_command;

	for (*used = 0; c->group && *used < n && word[*used][0] != '-'; ++*used) {
		const struct command *next = find_in(c, word[*used]);

		if (!next) {
			unknown_command(c, word[*used]);
			return NULL;
		}
		c = next;
	}
	return c;
}
