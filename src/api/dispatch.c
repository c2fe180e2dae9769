/* From a request to a method: find it, check who asks, when, and with what, run it. */
#include "api/method.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/http.h"
#include "base/auto.h"

static unsigned refuse(const struct api_table *t, struct api_reply *reply, unsigned status,
		       const char *why)
{
	const char *member = api_error_member(t);

	reply->type = API_TYPE_JSON;
	reply->json = json_pack("{s:s}", member, why);
	if (!reply->json) /* a text that is no UTF-8 */
		reply->json = json_pack("{s:s}", member, http_reason(status));
	return t->all_400 ? 400 : status;
}

static unsigned status_of(int r)
{
	switch (-r) {
	case EINVAL:
	case ERANGE:
	case E2BIG: return 400;
	case EPERM:
	case EACCES: return 403;
	case ENOENT: return 404;
	case EBUSY:
	case EEXIST:
	case ESHUTDOWN: return 409;
	case ENOTSUP: return 501;
	default: return 500;
	}
}

static int args_from_query(const struct api_method *m, void *args, char *query, struct err *e)
{
	char *name, *value;
	int r;

	while ((r = http_next_pair(&query, &name, &value)) > 0) {
		const struct option *o = m->args;

		while (o->name && strcmp(o->name, name) != 0)
			o++;
		if (!o->name)
			return err_set(e, EINVAL, "unknown argument '%.64s'", name);
		if (o->kind == OPT_FLAG) {
			if (strcmp(value, "true") != 0 && strcmp(value, "false") != 0)
				return err_set(e, EINVAL, "%s: true or false is expected", name);
			*(bool *)((char *)args + o->offset) = value[0] == 't';
		} else if ((r = option_set(o, "", args, value, e)) < 0) {
			return r;
		}
	}
	return r < 0 ? err_set(e, EINVAL, "a malformed query") : 0;
}

/* As deep as the parser lets a document be. */
static void drop_nulls(json_t *j)
{
	const char *name;
	json_t *v;
	void *next;
	size_t i;

	json_object_foreach_safe(j, next, name, v)
	{
		if (json_is_null(v))
			json_object_del(j, name);
		else
			drop_nulls(v);
	}
	json_array_foreach(j, i, v) drop_nulls(v);
}

/* The texts of args point into *body. */
static int args_from_body(const struct api_table *t, const struct api_method *m, void *args,
			  const char *bytes, size_t len, json_t **body, struct err *e)
{
	json_error_t why;

	if (!len)
		return 0;
	*body = json_loadb(bytes, len, JSON_REJECT_DUPLICATES | (m->any_body ? JSON_DECODE_ANY : 0),
			   &why);
	if (!*body)
		return err_set(e, EINVAL, "the body is no JSON: line %d: %s", why.line, why.text);
	if (m->any_body)
		return 0;
	if (t->null_is_absent)
		drop_nulls(*body);
	return options_from_json(m->args, args, *body, e);
}

static bool is_pointer(const struct option *o)
{
	return o->kind == OPT_TEXT || o->kind == OPT_FILE;
}

/* Of body, what has no value that says that it was not given; and what is in objects in it. */
static int members_missing(const struct option *o, const json_t *body, bool inner, struct err *e)
{
	int r = 0;

	for (; r == 0 && o->name; o++) {
		const json_t *v = json_object_get(body, o->name);

		if (o->required && !v && (inner || !is_pointer(o)))
			return err_set(e, EINVAL, "%s is missing", o->name);
		if (v && o->kind == OPT_OBJECT && (r = members_missing(o->parts, v, true, e)) < 0)
			err_wrap(e, "%s", o->name);
	}
	return r;
}

static const struct option no_args[] = {{0}};

static int get_args(const struct api_table *t, const struct api_method *m, void *args, char *query,
		    const char *bytes, size_t len, json_t **body, struct err *e)
{
	struct api_method with = *m;
	int r;

	if (!with.args)
		with.args = no_args;
	else
		memcpy(args, m->defaults, m->args_size);
	r = args_from_query(&with, args, query, e);
	if (r == 0)
		r = args_from_body(t, &with, args, bytes, len, body, e);
	for (const struct option *o = with.args; r == 0 && o->name; o++)
		if (o->required && is_pointer(o) &&
		    !*(const char *const *)((const char *)args + o->offset))
			r = err_set(e, EINVAL, "%s is missing", o->name);
	if (r == 0 && !m->any_body)
		r = members_missing(with.args, *body, false, e);
	return r < 0 && t->args_prefix ? err_wrap(e, "%s", t->args_prefix) : r;
}

/* The part of path that stands for the method's "{...}", in *id; NULL: it has none. False: it is
 * another path. */
static bool path_matches(const char *pattern, const char *path, const char **id)
{
	const char *brace = strchr(pattern, '{');
	size_t len = brace ? (size_t)(brace - pattern) : 0;

	*id = NULL;
	if (!brace)
		return !strcmp(pattern, path);
	if (strncmp(pattern, path, len) != 0 || !path[len] || strchr(path + len, '/'))
		return false;
	*id = path + len;
	return true;
}

static unsigned run(const struct api_table *t, const struct api_method *m, const char *id,
		    char *query, const char *bytes, size_t len, struct api_fds *fds,
		    struct api_reply *reply)
{
	AUTO_FREE void *args = calloc(1, m->args_size + 1);
	const char *why = t->refuses ? t->refuses(t->ctx, m) : NULL;
	struct err err = {0};
	json_t *body = NULL;
	int r;

	if (why)
		return refuse(t, reply, 409, why);
	if (fds->n && !m->run_with)
		return refuse(t, reply, 400, "this method takes no descriptors");
	if (fds->too_many)
		return refuse(t, reply, 400, "more descriptors than one request can have");
	if (!args)
		return refuse(t, reply, 500, "out of memory");
	r = get_args(t, m, args, query, bytes, len, &body, &err);
	if (r == 0 && m->run_with)
		r = m->run_with(t->ctx, args, fds, reply, &err);
	else if (r == 0 && m->run_call)
		r = m->run_call(t->ctx, &(struct api_call){id, body}, args, reply, &err);
	else if (r == 0)
		r = m->run(t->ctx, args, reply, &err);
	json_decref(body);
	if (r < 0)
		return refuse(t, reply, status_of(r), err.text);
	return reply->json || reply->text || reply->stream ? 200 : 204;
}

static unsigned nothing_there(const struct api_table *t, bool path_is_there, const char *verb,
			      const char *path, struct api_reply *reply)
{
	char why[160];

	if (t->all_400) {
		snprintf(why, sizeof why, "Invalid request method and/or path: %.16s %.100s.", verb,
			 path);
		return refuse(t, reply, 400, why);
	}
	return path_is_there
		       ? refuse(t, reply, 405, "this path has other methods; see " API_OPENAPI_PATH)
		       : refuse(t, reply, 404, "there is no such path; see " API_OPENAPI_PATH);
}

unsigned api_dispatch(const struct api_table *t, enum api_right right, const char *verb,
		      const char *path, char *query, const char *body, size_t body_len,
		      struct api_fds *fds, struct api_reply *reply)
{
	bool there = false;

	*reply = (struct api_reply){.type = API_TYPE_JSON};
	if (!strcmp(path, API_OPENAPI_PATH) && !strcmp(verb, "GET")) {
		reply->json = api_openapi(t);
		return reply->json ? 200 : refuse(t, reply, 500, "out of memory");
	}
	for (unsigned i = 0; i < t->methods; i++) {
		const struct api_method *m = &t->method[i];
		const char *id;

		if (!path_matches(m->path, path, &id))
			continue;
		there = true;
		if (strcmp(m->verb, verb) != 0)
			continue;
		if (right < m->right)
			return refuse(t, reply, 403, "only the VM's own user may do that");
		if (m->type)
			reply->type = m->type;
		return run(t, m, id, query, body, body_len, fds, reply);
	}
	return nothing_there(t, there, verb, path, reply);
}
