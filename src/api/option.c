/* The values of options: text to what the struct holds. */
#include "api/option.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* -1: no unit of ours */
static int unit_shift(const char *unit)
{
	static const char units[] = "KMGTPE";
	const char *at;

	if (!*unit)
		return 0;
	at = unit[1] ? NULL : strchr(units, toupper((unsigned char)*unit));
	return at ? (int)(at - units + 1) * 10 : -1;
}

/* The digits behind a decimal point as *num of *den; returns where they end. */
static const char *fraction(const char *text, uint64_t *num, uint64_t *den)
{
	*num = 0;
	for (*den = 1; isdigit((unsigned char)*text); text++)
		if (*den < 1000000000) { /* further ones are less than a byte of a gigabyte */
			*num = *num * 10 + (uint64_t)(*text - '0');
			*den *= 10;
		}
	return text;
}

int size_parse(const char *text, uint64_t *bytes, struct err *e)
{
	uint64_t num = 0, den = 1;
	unsigned __int128 total;
	const char *unit;
	char *end;
	unsigned long long n;
	int shift;

	errno = 0;
	n = strtoull(text, &end, 10);
	unit = *end == '.' && isdigit((unsigned char)end[1]) ? fraction(end + 1, &num, &den) : end;
	shift = unit_shift(unit);
	if (!isdigit((unsigned char)*text) || shift < 0 || (den > 1 && !shift))
		return err_set(e, EINVAL, "'%s' is not a size (write 512M or 2G)", text);
	total = ((unsigned __int128)n << shift) + ((unsigned __int128)num << shift) / den;
	if (errno || total > UINT64_MAX)
		return err_set(e, ERANGE, "'%s' is too big", text);
	*bytes = (uint64_t)total;
	return 0;
}

static int count_parse(const struct option *o, const char *text, unsigned *count, struct err *e)
{
	unsigned min = o->kind == OPT_COUNT, max = o->max ? o->max : INT32_MAX;
	char *end;
	unsigned long n;

	errno = 0;
	n = strtoul(text, &end, 10);
	if (*text < '0' || *text > '9' || *end || errno || n < min || n > INT32_MAX)
		return err_set(e, EINVAL, "'%s' is not a number from %u on", text, min);
	if (n > max)
		return err_set(e, ERANGE, "%s: at most %u is possible", text, max);
	*count = (unsigned)n;
	return 0;
}

/* list: "a|b|c" */
static int choice_parse(const char *text, const char *list, int *choice, struct err *e)
{
	size_t len = strlen(text);
	const char *at = list;

	for (int i = 0; *at; i++) {
		size_t n = strcspn(at, "|");

		if (n == len && !memcmp(at, text, n)) {
			*choice = i;
			return 0;
		}
		at += n + (at[n] == '|');
	}
	return err_set(e, EINVAL, "'%s' is none of %s", text, list);
}

static int whole_parse(const char *text, uint64_t *to, struct err *e)
{
	unsigned long long n;
	char *end;

	errno = 0;
	n = strtoull(text, &end, 10);
	if (!isdigit((unsigned char)*text) || *end || errno || n > INT64_MAX)
		return err_set(e, EINVAL, "'%s' is not a number from 0 on", text);
	*to = n;
	return 0;
}

int option_set(const struct option *o, const char *dashes, void *into, const char *text,
	       struct err *e)
{
	void *at = (char *)into + o->offset;
	int r = 0;

	if (o->kind == OPT_FILE && !*text)
		return err_set(e, EINVAL, "%s%s needs a value: %s", dashes, o->name, o->value);
	if (o->repeats) {
		struct option_list *list = at;

		if (list->n == OPTION_LIST_MAX)
			return err_set(e, E2BIG, "%s%s: no more than %u of them", dashes, o->name,
				       OPTION_LIST_MAX);
		at = &list->value[list->n++];
	}
	switch (o->kind) {
	case OPT_FLAG: *(bool *)at = true; break;
	case OPT_TEXT:
	case OPT_FILE: *(const char **)at = text; break;
	case OPT_COUNT:
	case OPT_NUMBER: r = count_parse(o, text, at, e); break;
	case OPT_SIZE: r = size_parse(text, at, e); break;
	case OPT_CHOICE: r = choice_parse(text, o->value, at, e); break;
	case OPT_WHOLE: r = whole_parse(text, at, e); break;
	case OPT_OBJECT:
	case OPT_JSON: r = err_set(e, EINVAL, "not to be had as a text"); break;
	}
	return r < 0 ? err_wrap(e, "%s%s", dashes, o->name) : 0;
}
