#include "cli/options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Longer words are no misspelling of any of ours. */
#define WORD_MAX    32u
#define OPTIONS_MAX 64u

static unsigned least(unsigned a, unsigned b)
{
	return a < b ? a : b;
}

/* How many insertions, deletions, replacements and swaps of neighbours lead from a to b
 * (optimal string alignment); d[i][j] is that for their first i and j letters. */
static unsigned distance(const char *a, const char *b)
{
	unsigned d[WORD_MAX + 1][WORD_MAX + 1];
	size_t la = strlen(a), lb = strlen(b);

	for (unsigned i = 0; i <= la; i++)
		for (unsigned j = 0; j <= lb; j++) {
			if (!i || !j) {
				d[i][j] = i + j;
				continue;
			}
			d[i][j] = least(least(d[i - 1][j], d[i][j - 1]) + 1,
					d[i - 1][j - 1] + (a[i - 1] != b[j - 1]));
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
				d[i][j] = least(d[i][j], d[i - 2][j - 2] + 1);
		}
	return d[la][lb];
}

const char *nearest_name(const char *word, const char *const names[], unsigned n)
{
	const char *best = NULL;
	unsigned best_distance = 0;

	if (strlen(word) > WORD_MAX)
		return NULL;
	for (unsigned i = 0; i < n; i++) {
		unsigned d = strlen(names[i]) <= WORD_MAX ? distance(word, names[i]) : WORD_MAX;

		if (d <= (strlen(names[i]) + 1) / 3 && (!best || d < best_distance)) {
			best = names[i];
			best_distance = d;
		}
	}
	return best;
}

static unsigned unit_shift(const char *unit)
{
	static const char units[] = "KMGT";
	const char *at = *unit && !unit[1] ? strchr(units, *unit) : NULL;

	return at ? (unsigned)(at - units + 1) * 10 : 0;
}

int size_parse(const char *text, uint64_t *bytes, struct err *e)
{
	char *end;
	unsigned long long n;
	unsigned shift;

	errno = 0;
	n = strtoull(text, &end, 10);
	shift = unit_shift(end);
	if (*text < '0' || *text > '9' || (*end && !shift))
		return err_set(e, EINVAL, "'%s' is not a size (write 512M or 2G)", text);
	if (errno || n > UINT64_MAX >> shift)
		return err_set(e, ERANGE, "'%s' is too big", text);
	*bytes = (uint64_t)n << shift;
	return 0;
}

static int count_parse(const char *text, unsigned *count, struct err *e)
{
	char *end;
	unsigned long n;

	errno = 0;
	n = strtoul(text, &end, 10);
	if (*text < '0' || *text > '9' || *end || errno || n < 1 || n > INT32_MAX)
		return err_set(e, EINVAL, "'%s' is not a number from 1 on", text);
	*count = (unsigned)n;
	return 0;
}

/* list: "a|b|c" */
static int choice_parse(const char *text, const char *list, int *choice, struct err *e)
{
	size_t len = strlen(text);

	for (int i = 0; *list; i++) {
		size_t n = strcspn(list, "|");

		if (n == len && !memcmp(list, text, n)) {
			*choice = i;
			return 0;
		}
		list += n + (list[n] == '|');
	}
	return err_set(e, EINVAL, "'%s'", text);
}

int option_set(const struct option *o, const char *dashes, void *into, const char *text,
	       struct err *e)
{
	void *at = (char *)into + o->offset;
	int r = 0;

	switch (o->kind) {
	case OPT_FLAG: *(bool *)at = true; break;
	case OPT_TEXT: *(const char **)at = text; break;
	case OPT_FILE:
		if (!*text)
			return err_set(e, EINVAL, "%s%s needs a value: %s", dashes, o->name,
				       o->value);
		*(const char **)at = text;
		break;
	case OPT_COUNT: r = count_parse(text, at, e); break;
	case OPT_SIZE: r = size_parse(text, at, e); break;
	case OPT_CHOICE:
		r = choice_parse(text, o->value, at, e);
		if (r < 0)
			return err_set(e, EINVAL, "%s%s: '%s' is none of %s", dashes, o->name, text,
				       o->value);
		break;
	}
	return r < 0 ? err_wrap(e, "%s%s", dashes, o->name) : 0;
}

static const struct option *find(const struct option_table *t, unsigned tables, const char *name,
				 size_t len, const struct option_table **in)
{
	for (unsigned i = 0; i < tables; i++)
		for (const struct option *o = t[i].option; o->name; o++)
			if (strlen(o->name) == len && !memcmp(o->name, name, len)) {
				*in = &t[i];
				return o;
			}
	return NULL;
}

static const struct option *find_letter(const struct option_table *t, unsigned tables, char letter,
					const struct option_table **in)
{
	for (unsigned i = 0; i < tables; i++)
		for (const struct option *o = t[i].option; o->name; o++)
			if (o->letter == letter) {
				*in = &t[i];
				return o;
			}
	return NULL;
}

static int unknown(const struct option_table *t, unsigned tables, const char *word, struct err *e)
{
	const char *names[OPTIONS_MAX], *near;
	char name[WORD_MAX + 2] = "";
	unsigned n = 0;

	for (unsigned i = 0; i < tables; i++)
		for (const struct option *o = t[i].option; o->name && n < OPTIONS_MAX; o++)
			names[n++] = o->name;
	strncat(name, word + strspn(word, "-"), WORD_MAX + 1);
	name[strcspn(name, "=")] = 0;
	near = nearest_name(name, names, n);
	if (near)
		return err_set(e, EINVAL, "unknown option '%s'; did you mean '--%s'?", word, near);
	return err_set(e, EINVAL, "unknown option '%s'", word);
}

/* Takes argv[*at], an option, and its value if that is a word of its own. */
static int take_option(const struct option_table *t, unsigned tables, int argc, char **argv,
		       int *at, struct err *e)
{
	char *word = argv[*at];
	const struct option_table *in;
	const struct option *o;
	char *value = NULL;

	if (word[1] == '-') {
		size_t len = strcspn(word + 2, "=");

		o = find(t, tables, word + 2, len, &in);
		value = word[2 + len] ? word + 2 + len + 1 : NULL;
	} else {
		o = word[2] ? NULL : find_letter(t, tables, word[1], &in);
	}
	if (!o)
		return unknown(t, tables, word, e);
	if (o->kind == OPT_FLAG && value)
		return err_set(e, EINVAL, "--%s takes no value", o->name);
	if (o->kind != OPT_FLAG && !value) {
		if (*at + 1 >= argc)
			return err_set(e, EINVAL, "--%s needs a value: %s", o->name, o->value);
		value = argv[++*at];
	}
	return option_set(o, "--", in->into, value, e);
}

int options_parse(const struct option_table *t, unsigned tables, int argc, char **argv, int *words,
		  struct err *e)
{
	int kept = 0;
	bool ended = false;

	for (int i = 0; i < argc; i++) {
		int r;

		if (!ended && !strcmp(argv[i], "--")) {
			ended = true;
		} else if (ended || argv[i][0] != '-' || !argv[i][1]) {
			argv[kept++] = argv[i];
		} else if ((r = take_option(t, tables, argc, argv, &i, e)) < 0) {
			return r;
		}
	}
	*words = kept;
	return 0;
}

int options_check(const struct option_table *t, struct err *e)
{
	for (const struct option *o = t->option; o->name; o++)
		if (o->required && !*(const char **)((char *)t->into + o->offset))
			return err_set(e, EINVAL, "--%s %s is missing", o->name, o->value);
	return 0;
}
