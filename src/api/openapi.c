/* The OpenAPI 3.1 document of a table of methods. */
#include <string.h>

#include "api/method.h"

static json_t *error_response(const char *description)
{
	return json_pack("{s:s, s:{s:{s:{s:s}}}}", "description", description, "content",
			 API_TYPE_JSON, "schema", "$ref", "#/components/schemas/Error");
}

static json_t *good_response(const struct api_method *m)
{
	json_t *content, *schema;

	if (!m->type)
		return json_pack("{s:s}", "description", "Done.");
	schema = m->schema ? json_loads(m->schema, 0, NULL) : json_pack("{s:s}", "type", "string");
	content = json_object();
	json_object_set_new(content, m->type, json_pack("{s:o}", "schema", schema));
	return json_pack("{s:s, s:o}", "description", "Done.", "content", content);
}

static json_t *responses(const struct api_method *m)
{
	json_t *r = json_object();

	json_object_set_new(r, m->type ? "200" : "204", good_response(m));
	json_object_set_new(r, "400", error_response("The request is not as it must be."));
	if (m->right > RIGHT_VIEW)
		json_object_set_new(r, "403", error_response("The client may not do that."));
	if (m->states)
		json_object_set_new(r, "409", error_response("Not in the state that it is in."));
	json_object_set_new(r, "default", error_response("It failed."));
	return r;
}

static json_t *parameters(const struct api_method *m)
{
	json_t *schema = options_schema(m->args), *member, *list = json_array();
	const char *name;

	json_object_foreach(json_object_get(schema, "properties"), name, member)
		json_array_append_new(list, json_pack("{s:s, s:s, s:O, s:O}", "name", name, "in",
						      "query", "schema", member, "description",
						      json_object_get(member, "description")));
	json_decref(schema);
	return list;
}

/* The part of the path that stands for any name. */
static json_t *path_parameters(const char *brace)
{
	return json_pack("[{s:s%, s:s, s:b, s:{s:s}}]", "name", brace + 1, strcspn(brace + 1, "}"),
			 "in", "path", "required", 1, "schema", "type", "string");
}

static json_t *operation(const struct api_method *m)
{
	const char *brace = strchr(m->path, '{');
	json_t *o = json_pack("{s:s, s:s, s:o}", "operationId", m->name, "summary", m->summary,
			      "responses", responses(m));

	if (m->text)
		json_object_set_new(o, "description", json_string(m->text));
	if (brace)
		json_object_set_new(o, "parameters", path_parameters(brace));
	if (m->any_body)
		json_object_set_new(
			o, "requestBody",
			json_pack("{s:{s:{s:{}}}}", "content", API_TYPE_JSON, "schema"));
	if (!m->args)
		return o;
	if (!strcmp(m->verb, "GET"))
		json_object_set_new(o, "parameters", parameters(m));
	else
		json_object_set_new(o, "requestBody",
				    json_pack("{s:{s:{s:o}}}", "content", API_TYPE_JSON, "schema",
					      options_schema(m->args)));
	return o;
}

static const char *lower(const char *verb)
{
	static const char *const verbs[][2] = {
		{"GET", "get"}, {"PUT", "put"}, {"POST", "post"}, {"PATCH", "patch"}};

	for (unsigned i = 0; i < ARRAY_SIZE(verbs); i++)
		if (!strcmp(verbs[i][0], verb))
			return verbs[i][1];
	return "delete";
}

json_t *api_openapi(const struct api_table *t)
{
	json_t *paths = json_object();

	for (unsigned i = 0; i < t->methods; i++) {
		const struct api_method *m = &t->method[i];
		json_t *path = json_object_get(paths, m->path);

		if (!path) {
			json_object_set_new(paths, m->path, json_object());
			path = json_object_get(paths, m->path);
		}
		json_object_set_new(path, lower(m->verb), operation(m));
	}
	return json_pack("{s:s, s:{s:s, s:s, s:s}, s:o, s:{s:{s:{s:s, s:{s:{s:s}}, s:[s]}}}}",
			 "openapi", "3.1.0", "info", "title", t->title, "description",
			 t->description, "version", HOLON_VERSION, "paths", paths, "components",
			 "schemas", "Error", "type", "object", "properties", api_error_member(t),
			 "type", "string", "required", api_error_member(t));
}
