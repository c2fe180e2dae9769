/* help: what the tables in commands.c say, as text for people, the options part of the
 * manual page, and the word lists of bash completion. */
#pragma once

#include <stdio.h>

struct command;

void help_overview(FILE *to);
void help_command_text(const struct command *c, FILE *to);
void help_man(FILE *to);  /* mdoc sections "COMMANDS" and their options */
void help_bash(FILE *to); /* shell variables and functions the completion script uses */
