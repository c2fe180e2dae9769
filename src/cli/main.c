/* holon: finds the command, parses its options, calls it. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/log.h"
#include "cli/cli.h"
#include "cli/help.h"

static void set_log_level(const struct common_opts *o)
{
	if (o->quiet)
		log_set_level(LOG_ERROR);
	else if (o->log_level != LOG_BY_DEFAULT)
		log_set_level((enum log_level)o->log_level);
	else
		log_set_level(isatty(STDERR_FILENO) ? LOG_INFO : LOG_WARN);
}

static int usage_error(const struct command *c, const struct err *e)
{
	fprintf(stderr, "holon %s: %s\nTry 'holon help %s'.\n", c->name, e->text, c->name);
	return EXIT_TROUBLE;
}

static int run_command(const struct command *c, int argc, char **argv)
{
	struct common_opts common = {.log_level = LOG_BY_DEFAULT};
	AUTO_FREE void *opts = calloc(1, c->opts_size + 1);
	const struct option_table table[] = {{c->option, opts}, {common_options, &common}};
	struct err err = {0};
	int words;

	if (!opts) {
		fprintf(stderr, "holon: out of memory\n");
		return EXIT_TROUBLE;
	}
	memcpy(opts, c->defaults, c->opts_size);
	if (options_parse(table, 2, argc, argv, &words, &err) < 0)
		return usage_error(c, &err);
	if (common.help) {
		help_command_text(c, stdout);
		return EXIT_DONE;
	}
	if (words > c->max_words) {
		err_set(&err, 0, "unexpected word '%s'", argv[c->max_words]);
		return usage_error(c, &err);
	}
	if (options_check(&table[0], &err) < 0)
		return usage_error(c, &err);
	set_log_level(&common);
	return c->run(opts, words, argv);
}

static int dispatch(int argc, char **argv)
{
	const struct command *c;

	if (argc < 2) {
		help_overview(stderr);
		return EXIT_TROUBLE;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
		help_overview(stdout);
		return EXIT_DONE;
	}
	c = find_command(strcmp(argv[1], "--version") ? argv[1] : "version");
	if (!c) {
		unknown_command(argv[1]);
		return EXIT_TROUBLE;
	}
	return run_command(c, argc - 2, argv + 2);
}

/* A file we open must not become standard output because somebody closed that one. */
static bool have_standard_files(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

int main(int argc, char **argv)
{
	int status = have_standard_files() ? dispatch(argc, argv) : EXIT_TROUBLE;

	if (fflush(stdout) == EOF && status == EXIT_DONE) {
		perror("holon: standard output");
		return EXIT_TROUBLE;
	}
	return status;
}
