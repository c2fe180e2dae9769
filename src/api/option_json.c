/* Options from and to JSON. A number or a flag becomes the text that a command line would have, so
 * that there is one check of each value (option_set). */
#include "api/option.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define NAMES_MAX 64u

static const struct option *find(const struct option *o, const char *name)
{
	for (; o->name; o++)
		if (!strcmp(o->name, name))
			return o;
	return NULL;
}

static int unknown(const struct option *table, const char *name, struct err *e)
{
	const char *names[NAMES_MAX], *near;
	unsigned n = 0;

	for (const struct option *o = table; o->name && n < NAMES_MAX; o++)
		names[n++] = o->name;
	near = strlen(name) < 64 ? nearest_name(name, names, n) : NULL;
	if (near)
		return err_set(e, EINVAL, "unknown member '%s'; did you mean '%s'?", name, near);
	return err_set(e, EINVAL, "unknown member '%.64s'", name);
}

static const char *wanted(const struct option *o)
{
	switch (o->kind) {
	case OPT_FLAG: return "true or false";
	case OPT_COUNT:
	case OPT_NUMBER:
	case OPT_WHOLE: return "a number";
	case OPT_SIZE: return "a size: bytes, or a text like \"512M\"";
	case OPT_OBJECT: return "an object";
	default: return "a text";
	}
}

static bool is_kind(const struct option *o, const json_t *v)
{
	switch (o->kind) {
	case OPT_FLAG: return json_is_boolean(v);
	case OPT_COUNT:
	case OPT_NUMBER:
	case OPT_WHOLE: return json_is_integer(v);
	case OPT_OBJECT: return json_is_object(v);
	case OPT_JSON: return true;
	case OPT_SIZE: return json_is_integer(v) || json_is_string(v);
	default: return json_is_string(v);
	}
}

static int set_one(const struct option *o, void *into, json_t *v, struct err *e)
{
	char *at = (char *)into + o->offset;
	char number[24];
	int r;

	if (!is_kind(o, v))
		return err_set(e, EINVAL, "%s: %s is expected", o->name, wanted(o));
	if (o->kind == OPT_OBJECT) {
		r = options_from_json(o->parts, at, v, e);
		return r < 0 ? err_wrap(e, "%s", o->name) : 0;
	}
	if (o->kind == OPT_JSON) {
		*(json_t **)at = v;
		return 0;
	}
	if (o->kind == OPT_FLAG) {
		*(bool *)at = json_is_true(v);
		return 0;
	}
	if (json_is_string(v))
		return option_set(o, "", into, json_string_value(v), e);
	snprintf(number, sizeof number, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
	return option_set(o, "", into, number, e);
}

int options_from_json(const struct option *table, void *into, json_t *object, struct err *e)
{
	const char *name;
	json_t *v, *one;
	size_t i;
	int r = 0;

	if (!json_is_object(object))
		return err_set(e, EINVAL, "an object is expected");
	json_object_foreach(object, name, v)
	{
		const struct option *o = find(table, name);

		if (!o)
			return unknown(table, name, e);
		if (!o->repeats || !json_is_array(v)) {
			if ((r = set_one(o, into, v, e)) < 0)
				return r;
			continue;
		}
		json_array_foreach(v, i, one) if ((r = set_one(o, into, one, e)) < 0) return r;
	}
	return 0;
}

/* --- to JSON --- */

/* NULL: as by default. */
static json_t *value_of(const struct option *o, const void *from, const void *defaults)
{
	const void *at = (const char *)from + o->offset, *def = (const char *)defaults + o->offset;
	const char *list = o->value;

	switch (o->kind) {
	case OPT_FLAG:
		return *(const bool *)at == *(const bool *)def ? NULL
							       : json_boolean(*(const bool *)at);
	case OPT_TEXT:
	case OPT_FILE:
		return *(const char *const *)at ? json_string(*(const char *const *)at) : NULL;
	case OPT_COUNT:
	case OPT_NUMBER:
		return *(const unsigned *)at == *(const unsigned *)def
			       ? NULL
			       : json_integer(*(const unsigned *)at);
	case OPT_OBJECT: return options_to_json(o->parts, at, def);
	case OPT_JSON: return json_incref(*(json_t *const *)at);
	case OPT_WHOLE:
	case OPT_SIZE:
		return *(const uint64_t *)at == *(const uint64_t *)def
			       ? NULL
			       : json_integer((json_int_t) * (const uint64_t *)at);
	case OPT_CHOICE:
		if (*(const int *)at == *(const int *)def)
			return NULL;
		for (int i = 0; i < *(const int *)at; i++)
			list += strcspn(list, "|") + 1;
		return json_stringn(list, strcspn(list, "|"));
	}
	return NULL;
}

static json_t *list_of(const struct option *o, const void *from)
{
	const struct option_list *l = (const void *)((const char *)from + o->offset);
	json_t *array = l->n ? json_array() : NULL;

	for (unsigned i = 0; i < l->n; i++)
		json_array_append_new(array, json_string(l->value[i]));
	return array;
}

json_t *options_to_json(const struct option *table, const void *from, const void *defaults)
{
	json_t *object = json_object();

	for (const struct option *o = table; object && o->name; o++) {
		json_t *v = o->repeats ? list_of(o, from) : value_of(o, from, defaults);

		if (v)
			json_object_set_new(object, o->name, v);
	}
	return object;
}

/* --- schemas --- */

static json_t *choice_schema(const char *list)
{
	json_t *names = json_array();

	while (*list) {
		size_t len = strcspn(list, "|");

		json_array_append_new(names, json_stringn(list, len));
		list += len + (list[len] == '|');
	}
	return json_pack("{s:s, s:o}", "type", "string", "enum", names);
}

static json_t *kind_schema(const struct option *o)
{
	json_int_t max = o->max ? o->max : INT32_MAX;

	switch (o->kind) {
	case OPT_FLAG: return json_pack("{s:s}", "type", "boolean");
	case OPT_COUNT:
	case OPT_NUMBER:
		return json_pack("{s:s, s:i, s:I}", "type", "integer", "minimum",
				 o->kind == OPT_COUNT, "maximum", max);
	case OPT_SIZE:
		return json_pack("{s:[s, s], s:i, s:s}", "type", "integer", "string", "minimum", 0,
				 "pattern", "^[0-9]+(\\.[0-9]+)?[KMGTPEkmgtpe]?$");
	case OPT_CHOICE: return choice_schema(o->value);
	case OPT_WHOLE: return json_pack("{s:s, s:i}", "type", "integer", "minimum", 0);
	case OPT_OBJECT: return options_schema(o->parts);
	case OPT_JSON: return json_object();
	default: break;
	}
	return json_pack("{s:s}", "type", "string");
}

json_t *options_schema(const struct option *table)
{
	json_t *members = json_object(), *required = json_array();

	for (const struct option *o = table; o->name; o++) {
		json_t *s = kind_schema(o);

		if (o->repeats)
			s = json_pack("{s:[o, {s:s, s:O, s:i}]}", "anyOf", s, "type", "array",
				      "items", s, "maxItems", (int)OPTION_LIST_MAX);
		json_object_set_new(s, "description", json_string(o->help));
		json_object_set_new(members, o->name, s);
		if (o->required)
			json_array_append_new(required, json_string(o->name));
	}
	return json_pack("{s:s, s:o, s:o, s:b}", "type", "object", "properties", members,
			 "required", required, "additionalProperties", 0);
}
