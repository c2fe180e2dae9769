#include "cli/help.h"

#include <string.h>

#include "cli/cli.h"

#define HELP_COLUMN 26u
#define PART_COLUMN 30u
#define HELP_WIDTH  80u

static void group_text(const struct command *group, FILE *to)
{
	const char *gap = *group->name ? " " : "";

	fprintf(to, "Usage: holon %s%sCOMMAND [OPTION...]\n\n%s.\n", group->name, gap,
		command_summary(group));
	if (group->text)
		fprintf(to, "\n%s", group->text);
	fprintf(to, "\nCommands:\n");
	for (const struct command *const *c = group->group; *c; c++)
		fprintf(to, "  %-10s %s\n", command_word(*c), command_summary(*c));
	fprintf(to, "\n'holon help %s%sCOMMAND' explains one of them.\n", group->name, gap);
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

static const char *equals(const struct option *part)
{
	return part->value ? "=" : "";
}

/* ",key=VALUE" of an option's value */
static void part_line(const struct option *part, FILE *to)
{
	fprintf(to, "%*s,%s%s%s\n%*s", (int)HELP_COLUMN, "", part->name, equals(part),
		part->value ? part->value : "", (int)PART_COLUMN, "");
	wrapped(part->help, PART_COLUMN, to);
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
	if (o->repeats)
		fprintf(to, "%*sMay be given several times.\n", (int)HELP_COLUMN, "");
	for (const struct option *part = o->parts; part && part->name; part++)
		part_line(part, to);
}

static void option_lines(const struct option *o, FILE *to)
{
	for (; o->name; o++)
		option_line(o, to);
}

static void command_text(const struct command *c, FILE *to)
{
	fprintf(to, "Usage: holon %s", c->name);
	for (const struct option *o = command_options(c); o->name; o++)
		if (o->required)
			fprintf(to, " --%s %s", o->name, o->value);
	fprintf(to, " [OPTION...]%s%s\n%s.\n", c->words ? " " : "", c->words ? c->words : "",
		command_summary(c));
	if (command_details(c))
		fprintf(to, "\n%s", command_details(c));
	fprintf(to, "\nOptions:\n");
	option_lines(command_options(c), to);
	option_lines(command_common_options(c), to);
}

void help_text(const struct command *c, FILE *to)
{
	if (c->group)
		group_text(c, to);
	else
		command_text(c, to);
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

static void man_part(const struct option *part, FILE *to)
{
	fprintf(to, ".It Li ,%s%s", part->name, equals(part));
	if (part->value)
		fprintf(to, " Ns Ar %s", part->value);
	fputc('\n', to);
	man_text(part->help, to);
	fputc('\n', to);
}

static void man_parts(const struct option *part, FILE *to)
{
	fprintf(to, ".Bl -tag -width Ds\n");
	for (; part->name; part++)
		man_part(part, to);
	fprintf(to, ".El\n");
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
	if (o->repeats)
		fputs("\nMay be given several times.", to);
	fputc('\n', to);
	if (o->parts)
		man_parts(o->parts, to);
}

static void man_options(const struct option *o, FILE *to)
{
	fprintf(to, ".Bl -tag -width Ds\n");
	for (; o->name; o++)
		man_option(o, to);
	fprintf(to, ".El\n");
}

static void man_command(const struct command *c, FILE *to)
{
	fprintf(to, ".Ss holon %s%s%s\n%s.\n", c->name, c->words ? " " : "",
		c->words ? c->words : "", command_summary(c));
	if (command_details(c)) {
		fprintf(to, ".Bd -literal -offset indent\n");
		man_text(command_details(c), to);
		fprintf(to, ".Ed\n");
	}
	if (c->every)
		fputs("Instead of names there may be\n.Fl \\-all .\n", to);
	if (c->group)
		for (const struct command *const *sub = c->group; *sub; sub++)
			man_command(*sub, to);
	else if (command_options(c)->name)
		man_options(command_options(c), to);
}

void help_man(FILE *to)
{
	for (const struct command *const *c = root_command.group; *c; c++)
		man_command(*c, to);
	fprintf(to, ".Ss Options of every command\n");
	man_options(command_common_options(NULL), to);
}

/* --- bash --- */

/* Lines of a shell 'case' over a command's name. */
static void bash_group(const struct command *c, FILE *to)
{
	if (!c->group)
		return;
	fprintf(to, "\t'%s') REPLY='", c->name);
	for (const struct command *const *sub = c->group; *sub; sub++)
		fprintf(to, "%s%s", sub == c->group ? "" : " ", command_word(*sub));
	fputs("' ;;\n", to);
}

static void bash_words(const struct option *o, FILE *to)
{
	for (; o->name; o++)
		fprintf(to, " --%s", o->name);
}

static void bash_options(const struct command *c, FILE *to)
{
	if (c->group)
		return;
	fprintf(to, "\t'%s') REPLY='", c->name);
	bash_words(command_options(c), to);
	bash_words(command_common_options(c), to);
	fputs("' ;;\n", to);
}

static const char *value_kind(const struct option *o)
{
	return o->kind == OPT_FILE ? "file" : o->kind == OPT_CHOICE ? o->value : "none";
}

/* One pattern of a shell 'case' per option that takes a value: what may stand there. */
static void bash_values(const char *command, const struct option *o, FILE *to)
{
	for (; o->name; o++) {
		if (o->kind == OPT_FLAG)
			continue;
		fprintf(to, "\t%s:--%s", command, o->name);
		if (o->letter)
			fprintf(to, "|%s:-%c", command, o->letter);
		fprintf(to, ") REPLY='%s' ;;\n", value_kind(o));
	}
}

static void bash_command_values(const struct command *c, FILE *to)
{
	char name[64];

	snprintf(name, sizeof name, "'%s'", c->name);
	if (!c->group)
		bash_values(name, command_options(c), to);
}

static void bash_complete(const struct command *c, FILE *to)
{
	if (c->complete)
		fprintf(to, "\t'%s') REPLY='%s' ;;\n", c->name, c->complete);
}

static void each_command(const struct command *c, void (*print)(const struct command *c, FILE *to),
			 FILE *to)
{
	print(c, to);
	for (const struct command *const *sub = c->group; sub && *sub; sub++)
		each_command(*sub, print, to);
}

static void bash_case(const char *head, void (*print)(const struct command *c, FILE *to), FILE *to)
{
	fprintf(to, "%s\n{\n\tcase $1 in\n", head);
	each_command(&root_command, print, to);
}

static void bash_esac(FILE *to)
{
	fprintf(to, "\t*) REPLY= ;;\n\tesac\n}\n\n");
}

void help_bash(FILE *to)
{
	bash_case("# $1: a group, empty for all. REPLY: its commands; empty: it is none.\n"
		  "_holon_commands()",
		  bash_group, to);
	bash_esac(to);
	bash_case("# $1: a command\n_holon_options()", bash_options, to);
	bash_esac(to);
	bash_case(
		"# $1: command:option. REPLY: file, none, a list a|b|c, or empty: takes no value.\n"
		"_holon_value()",
		bash_command_values, to);
	bash_values("*", command_common_options(NULL), to);
	bash_esac(to);
	bash_case("# $1: a command. REPLY, of its words: file, vm, a list a|b|c, or empty.\n"
		  "_holon_word()",
		  bash_complete, to);
	bash_esac(to);
}
