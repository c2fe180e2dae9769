/* holon: finds the command, parses its options, calls it. */
#include <errno.h>
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

static int check_words(const struct command *c, int words, char **word, struct err *e)
{
	const char *missing = c->words;

	if (words > c->max_words)
		return err_set(e, EINVAL, "unexpected word '%s'", word[c->max_words]);
	if (words >= c->min_words)
		return 0;
	for (int i = 0; i < words; i++)
		missing += strcspn(missing, " ") + 1;
	return err_set(e, EINVAL, "%.*s is missing", (int)strcspn(missing, " ."), missing);
}

static int check_all(const struct command *c, const void *opts, const struct option_table *t,
		     int words, char **word, struct err *e)
{
	int r = check_words(c, words, word, e);

	if (r == 0)
		r = options_check(t, e);
	if (r == 0 && c->check)
		r = c->check(opts, words, word, e);
	return r;
}

struct names {
	char **name; /* owned, as each is */
	int count;
	bool failed; /* no memory */
};

static void add_name(void *ctx, const char *name)
{
	struct names *n = ctx;
	char **more = realloc(n->name, sizeof *more * ((size_t)n->count + 1));

	if (more)
		n->name = more;
	if (!more || !(more[n->count] = strdup(name)))
		n->failed = true;
	else
		n->count++;
}

static void names_done(struct names *n)
{
	for (int i = 0; i < n->count; i++)
		free(n->name[i]);
	free(n->name);
}

static int run_on_all(const struct command *c, const void *opts, int words)
{
	struct names n = {0};
	struct err err = {0};
	int r = words ? err_set(&err, EINVAL, "--all: without names")
		      : c->every(add_name, &n, &err);
	int status = EXIT_DONE;

	if (r == 0 && n.failed)
		r = err_set(&err, ENOMEM, "out of memory");
	if (r == 0 && n.count && c->check)
		r = c->check(opts, n.count, n.name, &err);
	if (r < 0)
		status = usage_error(c, &err);
	else if (n.count)
		status = c->run(opts, n.count, n.name);
	names_done(&n);
	return status;
}

static int run_command_line(const struct command *c, int argc, char **argv)
{
	struct common_opts common = {.log_level = LOG_BY_DEFAULT};
	bool by_method = c->method && !c->option;
	size_t size = by_method ? c->method->args_size : c->opts_size;
	AUTO_FREE void *opts = calloc(1, size + 1);
	const struct option_table table[] = {{command_options(c), opts},
					     {command_common_options(c), &common}};
	struct err err = {0};
	int words;

	if (!opts) {
		fprintf(stderr, "holon: out of memory\n");
		return EXIT_TROUBLE;
	}
	if (size)
		memcpy(opts, by_method ? c->method->defaults : c->defaults, size);
	if (options_parse(table, 2, c->own_words, argc, argv, &words, &err) < 0)
		return usage_error(c, &err);
	if (common.help) {
		help_text(c, stdout);
		return EXIT_DONE;
	}
	if (common.all) {
		set_log_level(&common);
		return run_on_all(c, opts, words);
	}
	if (check_all(c, opts, &table[0], words, argv, &err) < 0)
		return usage_error(c, &err);
	set_log_level(&common);
	return c->run(opts, words, argv);
}

/* word: what follows the group's name; NULL: nothing. */
static int group_alone(const struct command *group, const char *word)
{
	bool asked = word && (!strcmp(word, "--help") || !strcmp(word, "-h"));

	if (word && !asked)
		fprintf(stderr, "holon: unknown option '%s'\nTry 'holon help'.\n", word);
	else
		help_text(group, asked ? stdout : stderr);
	return asked ? EXIT_DONE : EXIT_TROUBLE;
}

static int dispatch(int argc, char **argv)
{
	static char version[] = "version";
	const struct command *c;
	int used;

	if (argc > 1 && !strcmp(argv[1], "--version"))
		argv[1] = version;
	c = find_command(argc - 1, argv + 1, &used);
	if (!c)
		return EXIT_TROUBLE;
	if (c->group)
		return group_alone(c, used + 1 < argc ? argv[used + 1] : NULL);
	return run_command_line(c, argc - 1 - used, argv + 1 + used);
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
