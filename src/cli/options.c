#include "cli/options.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

#define NAMES_MAX 64u
#define NAME_LEN  34u /* of a misspelt one; longer ones are near to nothing */

struct args {
	const struct option_table *table;
	unsigned tables;
	int argc, at; /* argv[at] is looked at */
	char **argv;
};

static const struct option *find(const struct option *o, const char *name, size_t len)
{
	for (; o->name; o++)
		if (strlen(o->name) == len && !memcmp(o->name, name, len))
			return o;
	return NULL;
}

static const struct option *find_letter(const struct option *o, char letter)
{
	for (; o->name; o++)
		if (o->letter == letter)
			return o;
	return NULL;
}

static int unknown(const struct option_table *t, unsigned tables, const char *word, struct err *e)
{
	const char *names[NAMES_MAX], *near;
	char name[NAME_LEN] = "";
	unsigned n = 0;

	for (unsigned i = 0; i < tables; i++)
		for (const struct option *o = t[i].option; o->name && n < NAMES_MAX; o++)
			names[n++] = o->name;
	strncat(name, word + strspn(word, "-"), NAME_LEN - 1);
	name[strcspn(name, "=")] = 0;
	near = nearest_name(name, names, n);
	if (near)
		return err_set(e, EINVAL, "unknown option '%s'; did you mean '--%s'?", word, near);
	return err_set(e, EINVAL, "unknown option '%s'", word);
}

static int set_with_value(struct args *a, const struct option *o, void *into, const char *value,
			  struct err *e)
{
	if (!value && a->at + 1 >= a->argc)
		return err_set(e, EINVAL, "--%s needs a value: %s", o->name, o->value);
	return option_set(o, "--", into, value ? value : a->argv[++a->at], e);
}

static int take_long(struct args *a, struct err *e)
{
	const char *name = a->argv[a->at] + 2;
	size_t len = strcspn(name, "=");
	const char *value = name[len] ? name + len + 1 : NULL;

	for (unsigned i = 0; i < a->tables; i++) {
		const struct option *o = find(a->table[i].option, name, len);

		if (!o)
			continue;
		if (o->kind != OPT_FLAG)
			return set_with_value(a, o, a->table[i].into, value, e);
		if (value)
			return err_set(e, EINVAL, "--%s takes no value", o->name);
		return option_set(o, "--", a->table[i].into, NULL, e);
	}
	return unknown(a->table, a->tables, a->argv[a->at], e);
}

/* One letter; *more: the next one of the same word may follow. */
static int take_letter(struct args *a, const char *letter, bool *more, struct err *e)
{
	for (unsigned i = 0; i < a->tables; i++) {
		const struct option *o = find_letter(a->table[i].option, *letter);

		if (!o)
			continue;
		*more = o->kind == OPT_FLAG;
		if (*more)
			return option_set(o, "--", a->table[i].into, NULL, e);
		return set_with_value(a, o, a->table[i].into, letter[1] ? letter + 1 : NULL, e);
	}
	return unknown(a->table, a->tables, a->argv[a->at], e);
}

static int take_letters(struct args *a, struct err *e)
{
	bool more = true;
	int r = 0;

	for (const char *letter = a->argv[a->at] + 1; r == 0 && more && *letter; letter++)
		r = take_letter(a, letter, &more, e);
	return r;
}

static bool is_word(const char *s)
{
	return s[0] != '-' || !s[1] || isdigit((unsigned char)s[1]);
}

int options_parse(const struct option_table *t, unsigned tables, int own_words, int argc,
		  char **argv, int *words, struct err *e)
{
	struct args a = {.table = t, .tables = tables, .argc = argc, .argv = argv};
	int kept = 0, r;
	bool ended = false;

	for (; a.at < argc; a.at++) {
		char *word = argv[a.at];

		if (!ended && !strcmp(word, "--"))
			ended = true;
		else if (ended || is_word(word)) {
			argv[kept++] = word;
			ended |= kept == own_words;
		} else if ((r = word[1] == '-' ? take_long(&a, e) : take_letters(&a, e)) < 0)
			return r;
	}
	*words = kept;
	return 0;
}

static bool is_given(const struct option_table *t, const struct option *o)
{
	const void *at = (char *)t->into + o->offset;

	return o->repeats ? ((const struct option_list *)at)->n > 0
			  : *(const char *const *)at != NULL;
}

int options_check(const struct option_table *t, struct err *e)
{
	for (const struct option *o = t->option; o->name; o++)
		if (o->required && !is_given(t, o))
			return err_set(e, EINVAL, "--%s %s is missing", o->name, o->value);
	return 0;
}
