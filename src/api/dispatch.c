/* From a request to a method: find it, check who asks, when, and with what, run it. */
#include "api/method.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "api/http.h"
#include "base/auto.h"

static unsigned refuse(struct api_reply *reply, unsigned status, const char *why)
{
	reply->json = json_pack("{s:s}", "error", why);
	if (!reply->json) /* a text that is no UTF-8 */
		reply->json = json_pack("{s:s}", "error", http_reason(status));
	return status;
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

/* The texts of args point into *body. */
static int args_from_body(const struct api_method *m, void *args, const char *bytes, size_t len,
			  json_t **body, struct err *e)
{
	json_error_t why;

	if (!len)
		return 0;
	*body = json_loadb(bytes, len, JSON_REJECT_DUPLICATES, &why);
	if (!*body)
		return err_set(e, EINVAL, "the body is no JSON: line %d: %s", why.line, why.text);
	return options_from_json(m->args, args, *body, e);
}

static const struct option no_args[] = {{0}};

static int get_args(const struct api_method *m, void *args, char *query, const char *bytes,
		    size_t len, json_t **body, struct err *e)
{
	struct api_method with = *m;
	int r;

	if (!with.args)
		with.args = no_args;
	else
		memcpy(args, m->defaults, m->args_size);
	r = args_from_query(&with, args, query, e);
	if (r == 0)
		r = args_from_body(&with, args, bytes, len, body, e);
	for (const struct option *o = with.args; r == 0 && o->name; o++)
		if (o->required && !*(const char *const *)((const char *)args + o->offset))
			r = err_set(e, EINVAL, "%s is missing", o->name);
	return r;
}

static unsigned run(const struct api_table *t, const struct api_method *m, char *query,
		    const char *bytes, size_t len, struct api_fds *fds, struct api_reply *reply)
{
	AUTO_FREE void *args = calloc(1, m->args_size + 1);
	const char *why = t->refuses ? t->refuses(t->ctx, m) : NULL;
	struct err err = {0};
	json_t *body = NULL;
	int r;

	if (why)
		return refuse(reply, 409, why);
	if (fds->n && !m->run_with)
		return refuse(reply, 400, "this method takes no descriptors");
	if (fds->too_many)
		return refuse(reply, 400, "more descriptors than one request can have");
	if (!args)
		return refuse(reply, 500, "out of memory");
	r = get_args(m, args, query, bytes, len, &body, &err);
	if (r == 0)
		r = m->run_with ? m->run_with(t->ctx, args, fds, reply, &err)
				: m->run(t->ctx, args, reply, &err);
	json_decref(body);
	if (r < 0)
		return refuse(reply, status_of(r), err.text);
	return reply->json || reply->text || reply->stream ? 200 : 204;
}

unsigned api_dispatch(const struct api_table *t, enum api_right right, const char *verb,
		      const char *path, char *query, const char *body, size_t body_len,
		      struct api_fds *fds, struct api_reply *reply)
{
	bool there = false;

	*reply = (struct api_reply){.type = API_TYPE_JSON};
	if (!strcmp(path, API_OPENAPI_PATH) && !strcmp(verb, "GET")) {
		reply->json = api_openapi(t);
		return reply->json ? 200 : refuse(reply, 500, "out of memory");
	}
	for (unsigned i = 0; i < t->methods; i++) {
		const struct api_method *m = &t->method[i];

		if (strcmp(m->path, path) != 0)
			continue;
		there = true;
		if (strcmp(m->verb, verb) != 0)
			continue;
		if (right < m->right)
			return refuse(reply, 403, "only the VM's own user may do that");
		if (m->type)
			reply->type = m->type;
		return run(t, m, query, body, body_len, fds, reply);
	}
	return there ? refuse(reply, 405, "this path has other methods; see " API_OPENAPI_PATH)
		     : refuse(reply, 404, "there is no such path; see " API_OPENAPI_PATH);
}
