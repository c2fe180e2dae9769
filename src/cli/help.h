/* help: what the table of commands says, as text for people, the options part of the
 * manual page, and the word lists of bash completion. */
#pragma once

#include <stdio.h>

struct command;

void help_text(const struct command *c, FILE *to); /* of a command or a group */
void help_man(FILE *to);                           /* mdoc sections "COMMANDS" and their options */
void help_bash(FILE *to); /* shell variables and functions the completion script uses */
