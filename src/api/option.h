/* option: a named value with a type, a limit and a line of help. A table of them describes a plain
 * struct; from the same table the struct is filled from command-line words (cli/options.h) or from
 * JSON, and help, the manual page, shell completion and JSON schemas are made, so that none of
 * these can be behind. Texts point into where they came from. */
#pragma once

#include <jansson.h>
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
	OPT_NUMBER, /* unsigned, from 0 on */
	OPT_SIZE,   /* uint64_t, bytes */
	OPT_CHOICE, /* int: the place in value's list "a|b|c" */
	OPT_WHOLE,  /* uint64_t, a plain number */
	/* In JSON only: */
	OPT_OBJECT, /* a struct with the members of parts, at offset */
	OPT_JSON,   /* json_t *, whatever it is; the document's */
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
	unsigned max;  /* OPT_COUNT, OPT_NUMBER: 0: INT32_MAX */
	bool repeats;  /* pointer kinds only: a struct option_list, in the order given */
	/* What the value may consist of besides its first part (suboptions.h), for help; or NULL.
	 * OPT_OBJECT: its members. */
	const struct option *parts;
};

/* Puts one value into the struct; text is NULL for a flag. dashes stand before the option's
 * name in messages. */
WARN_UNUSED int option_set(const struct option *o, const char *dashes, void *into, const char *text,
			   struct err *e);

/* "512M", "1.5G", "65536": bytes, with K, M, G, T, P or E (powers of 1024) of either case. */
WARN_UNUSED int size_parse(const char *text, uint64_t *bytes, struct err *e);

/* Of names[0..n), the one most like word, if any is near enough to be meant; else NULL. */
const char *nearest_name(const char *word, const char *const names[], unsigned n);

/* --- the same from and to JSON --- */

/* Fills the struct from the members of object, which must stay: texts point into it. A size may
 * be a number of bytes or a text ("512M"); what repeats may be one value or an array. What is
 * required is not looked for. */
WARN_UNUSED int options_from_json(const struct option *table, void *into, json_t *object,
				  struct err *e);
/* What differs from defaults; NULL: no memory. */
json_t *options_to_json(const struct option *table, const void *from, const void *defaults);
/* A JSON schema (2020-12) of the object that options_from_json takes; NULL: no memory. */
json_t *options_schema(const struct option *table);
