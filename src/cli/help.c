#include "cli/help.h"

#include <string.h>

#include "cli/cli.h"

#define HELP_COLUMN 26u
#define HELP_WIDTH  80u

void help_overview(FILE *to)
{
	fprintf(to,
		"Usage: holon COMMAND [OPTION...]\n\n"
		"Runs virtual machines, on KVM where that works and on its own binary translator\n"
		"where it does not.\n\nCommands:\n");
	for (const struct command *const *c = commands; *c; c++)
		fprintf(to, "  %-10s %s\n", (*c)->name, (*c)->summary);
	fprintf(to, "\n'holon help COMMAND' explains one of them.\n");
}

/* Prints text from column on, broken at blanks, and ends the line. */
static void wrapped(const char *text, unsigned column, FILE *to)
{
	unsigned at = column;

	while (*text) {
		size_t len = strcspn(text, " ");

		if (at > column && at + 1 + len > HELP_WIDTH) {
			fprintf(to, "\n%*s", (int)column, "");
			at = column;
		}
		at += (unsigned)fprintf(to, "%s%.*s", at > column ? " " : "", (int)len, text);
		text += len + strspn(text + len, " ");
	}
	fputc('\n', to);
}

static void option_line(const struct option *o, FILE *to)
{
	unsigned at = (unsigned)fprintf(to, "  --%s", o->name);

	if (o->letter)
		at += (unsigned)fprintf(to, ", -%c", o->letter);
	if (o->value)
		at += (unsigned)fprintf(to, " %s", o->value);
	if (at + 2 > HELP_COLUMN) {
		fputc('\n', to);
		at = 0;
	}
	fprintf(to, "%*s", (int)(HELP_COLUMN - at), "");
	wrapped(o->help, HELP_COLUMN, to);
}

static void option_lines(const struct option *o, FILE *to)
{
	for (; o->name; o++)
		option_line(o, to);
}

void help_command_text(const struct command *c, FILE *to)
{
	fprintf(to, "Usage: holon %s", c->name);
	for (const struct option *o = c->option; o->name; o++)
		if (o->required)
			fprintf(to, " --%s %s", o->name, o->value);
	fprintf(to, " [OPTION...]%s%s\n%s.\n", c->words ? " " : "", c->words ? c->words : "",
		c->summary);
	if (c->text)
		fprintf(to, "\n%s", c->text);
	fprintf(to, "\nOptions:\n");
	option_lines(c->option, to);
	option_lines(common_options, to);
}

/* --- mdoc(7) --- */

/* Text lines must not start with a dot or quote, nor hold a bare backslash. */
static void man_text(const char *text, FILE *to)
{
	for (bool start = true; *text; text++) {
		if (start && (*text == '.' || *text == '\''))
			fputs("\\&", to);
		if (*text == '\\')
			fputs("\\e", to);
		else
			fputc(*text, to);
		start = *text == '\n';
	}
}

static void man_option(const struct option *o, FILE *to)
{
	fprintf(to, ".It Fl \\-%s", o->name);
	if (o->letter)
		fprintf(to, " , Fl %c", o->letter);
	if (o->value)
		fprintf(to, " Ar %s", o->value);
	fputc('\n', to);
	man_text(o->help, to);
	fputc('\n', to);
}

static void man_options(const struct option *o, FILE *to)
{
	fprintf(to, ".Bl -tag -width Ds\n");
	for (; o->name; o++)
		man_option(o, to);
	fprintf(to, ".El\n");
}

void help_man(FILE *to)
{
	for (const struct command *const *c = commands; *c; c++) {
		fprintf(to, ".Ss holon %s%s%s\n%s.\n", (*c)->name, (*c)->words ? " " : "",
			(*c)->words ? (*c)->words : "", (*c)->summary);
		if ((*c)->text) {
			fprintf(to, ".Bd -literal -offset indent\n");
			man_text((*c)->text, to);
			fprintf(to, ".Ed\n");
		}
		if ((*c)->option->name)
			man_options((*c)->option, to);
	}
	fprintf(to, ".Ss Options of every command\n");
	man_options(common_options, to);
}

/* --- bash --- */

static void bash_words(const struct option *o, FILE *to)
{
	for (; o->name; o++)
		fprintf(to, " --%s", o->name);
}

/* One pattern of a shell 'case' per option that takes a value: what may stand there. */
static void bash_values(const char *command, const struct option *o, FILE *to)
{
	for (; o->name; o++) {
		if (o->kind == OPT_FLAG)
			continue;
		fprintf(to, "\t%s:--%s) ", command, o->name);
		if (o->kind == OPT_FILE)
			fputs("REPLY=file", to);
		else if (o->kind == OPT_CHOICE)
			fprintf(to, "REPLY='%s'", o->value);
		else
			fputs("REPLY=none", to);
		fputs(" ;;\n", to);
	}
}

void help_bash(FILE *to)
{
	fprintf(to, "_holon_commands='");
	for (const struct command *const *c = commands; *c; c++)
		fprintf(to, "%s%s", c == commands ? "" : " ", (*c)->name);
	fprintf(to, "'\n\n_holon_options()\n{\n\tcase $1 in\n");
	for (const struct command *const *c = commands; *c; c++) {
		fprintf(to, "\t%s) REPLY='", (*c)->name);
		bash_words((*c)->option, to);
		bash_words(common_options, to);
		fprintf(to, "' ;;\n");
	}
	fprintf(to,
		"\t*) REPLY= ;;\n\tesac\n}\n\n"
		"# $1: command:option. REPLY: file, none, a list a|b|c, or empty: takes no value.\n"
		"_holon_value()\n{\n\tcase $1 in\n");
	for (const struct command *const *c = commands; *c; c++)
		bash_values((*c)->name, (*c)->option, to);
	bash_values("*", common_options, to);
	fprintf(to, "\t*) REPLY= ;;\n\tesac\n}\n");
}
