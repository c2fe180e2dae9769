/* options: command-line words into a plain struct, by a table. The same table gives the
 * help text, the manual page and shell completion (help.h), so none of them can be behind.
 *
 * "--name value" and "--name=value" are alike, and so are "-n value" and "-nvalue"; letters
 * of flags may share a dash. "--" ends options, and what begins with a dash and a digit is a
 * word ("-1G"). Texts point into argv. */
#pragma once

#include "api/option.h"

struct option_table {
	const struct option *option; /* ended by one without a name */
	void *into;
};

/* Fills the tables' structs from argv[0..argc); words that are no options are moved to the
 * front of argv, *words of them. Unknown names come back with the nearest known one. What
 * is required is checked by options_check, so that --help wins over a missing option.
 * own_words: behind that many words all is words; 0: options may stand anywhere. */
WARN_UNUSED int options_parse(const struct option_table *t, unsigned tables, int own_words,
			      int argc, char **argv, int *words, struct err *e);
WARN_UNUSED int options_check(const struct option_table *t, struct err *e);
