#include "cli/suboptions.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"

#define KEYS_MAX 64u /* also how many a table may have */

/* Ends the part at text with a 0, with double commas made single. Returns the next part, or
 * NULL after the last. */
static char *cut_part(char *text)
{
	char *to = text;

	for (; *text; text++) {
		if (*text == ',' && *++text != ',') {
			*to = 0;
			return text;
		}
		*to++ = *text;
	}
	*to = 0;
	return NULL;
}

static const struct option *find_key(const struct option *table, const char *key, size_t len)
{
	for (; table->name; table++)
		if (strlen(table->name) == len && !memcmp(table->name, key, len))
			return table;
	return NULL;
}

/* "a, b and c" */
static void list_keys(const struct option *table, char *to, size_t size)
{
	size_t at = 0;

	for (const struct option *o = table; o->name && at < size; o++)
		at += (size_t)snprintf(to + at, size - at, "%s%s",
				       o == table          ? ""
				       : o[1].name == NULL ? " and "
							   : ", ",
				       o->name);
}

static int unknown_key(const struct option *table, const char *key, struct err *e)
{
	const char *names[KEYS_MAX], *near;
	char all[160] = "";
	unsigned n = 0;

	for (const struct option *o = table; o->name && n < KEYS_MAX; o++)
		names[n++] = o->name;
	near = nearest_name(key, names, n);
	if (near)
		return err_set(e, EINVAL, "unknown key '%.40s'; did you mean '%s'?", key, near);
	list_keys(table, all, sizeof all);
	return err_set(e, EINVAL, "unknown key '%.40s'; there are %s", key, all);
}

/* Splits "KEY=VALUE" of a known key, and sets it. */
static int take_part(const struct option *table, char *part, void *into, uint64_t *seen,
		     struct err *e)
{
	size_t len = strcspn(part, "=");
	char *value = part[len] ? part + len + 1 : NULL;
	const struct option *o = find_key(table, part, len);

	part[len] = 0;
	if (!o)
		return unknown_key(table, part, e);
	if (*seen & BIT(o - table))
		return err_set(e, EINVAL, "%s is given twice", o->name);
	*seen |= BIT(o - table);
	if (o->kind == OPT_FLAG) {
		if (value && strcmp(value, "on") != 0 && strcmp(value, "off") != 0)
			return err_set(e, EINVAL, "%s: '%.40s' is none of on|off", o->name, value);
		*(bool *)((char *)into + o->offset) = !value || !strcmp(value, "on");
		return 0;
	}
	if (!value)
		return err_set(e, EINVAL, "%s needs a value: %s=%s", o->name, o->name, o->value);
	return option_set(o, "", into, value, e);
}

static int take_parts(const struct option *table, char *text, const char **first, void *into,
		      struct err *e)
{
	uint64_t seen = 0;

	if (first) {
		char *part = text;

		if (!*part || (*part == ',' && part[1] != ','))
			return err_set(e, EINVAL, "begins with no value");
		text = cut_part(part);
		*first = part;
	}
	while (text) {
		char *part = text;
		int r;

		text = cut_part(part);
		r = take_part(table, part, into, &seen, e);
		if (r < 0)
			return r;
	}
	return 0;
}

int suboptions_parse(const struct option *table, const char *text, const char **first, void *into,
		     char **storage, struct err *e)
{
	AUTO_FREE char *copy = strdup(text);
	int r;

	if (!copy)
		return err_sys(e, ENOMEM, "'%.80s'", text);
	r = take_parts(table, copy, first, into, e);
	if (r < 0)
		return r;
	*storage = copy;
	copy = NULL;
	return 0;
}
