/* options: command-line words into a plain struct, by a table. The same table gives the
 * help text, the manual page and shell completion (help.h), so none of them can be behind.
 *
 * "--name value" and "--name=value" are alike, and so are "-n value" and "-nvalue"; letters
 * of flags may share a dash. "--" ends options, and what begins with a dash and a digit is a
 * word ("-1G"). Texts point into argv. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bits.h"
#include "base/err.h"

/* What the value becomes at offset in the command's struct. */
enum option_kind {
	OPT_FLAG,   /* bool; takes no value */
	OPT_TEXT,   /* const char * */
	OPT_FILE,   /* const char *; completes to files */
	OPT_COUNT,  /* unsigned, at least 1 */
	OPT_SIZE,   /* uint64_t, bytes */
	OPT_CHOICE, /* int: the place in value's list "a|b|c" */
};

#define OPTION_LIST_MAX 32u

struct option_list {
	unsigned n;
	const char *value[OPTION_LIST_MAX];
};

struct option {
	const char *name; /* without dashes */
	enum option_kind kind;
	size_t offset;
	const char *value; /* how help calls the value; the list of an OPT_CHOICE */
	const char *help;
	char letter;   /* 0, or the short form */
	bool required; /* pointer kinds only */
	bool repeats;  /* pointer kinds only: a struct option_list, in the order given */
	/* What the value may consist of besides its first part (suboptions.h), for help; or NULL. */
	const struct option *parts;
};

struct option_table {
	const struct option *option; /* ended by one without a name */
	void *into;
};

/* Fills the tables' structs from argv[0..argc); words that are no options are moved to the
 * front of argv, *words of them. Unknown names come back with the nearest known one. What
 * is required is checked by options_check, so that --help wins over a missing option. */
WARN_UNUSED int options_parse(const struct option_table *t, unsigned tables, int argc, char **argv,
			      int *words, struct err *e);
WARN_UNUSED int options_check(const struct option_table *t, struct err *e);

/* Puts one value into the struct; text is NULL for a flag. dashes stand before the option's
 * name in messages. */
WARN_UNUSED int option_set(const struct option *o, const char *dashes, void *into, const char *text,
			   struct err *e);

/* "512M", "1.5G", "65536": bytes, with K, M, G, T, P or E (powers of 1024) of either case. */
WARN_UNUSED int size_parse(const char *text, uint64_t *bytes, struct err *e);

/* Of names[0..n), the one most like word, if any is near enough to be meant; else NULL. */
const char *nearest_name(const char *word, const char *const names[], unsigned n);
