/* From requests to methods, as our own API has it, and as another one that is served likewise. */
#include <errno.h>
#include <stdlib.h>

#include "api/method.h"
#include "base/test.h"

struct rate {
	uint64_t size;
	unsigned time;
};
struct args {
	const char *name;
	unsigned count;
	struct rate rate;
	json_t *any;
};

static const struct option rate_parts[] = {
	{"size", OPT_WHOLE, offsetof(struct rate, size), "N", "", .required = true},
	{"time", OPT_NUMBER, offsetof(struct rate, time), "MS", "", .required = true},
	{0}};
static const struct option options[] = {
	{"name", OPT_TEXT, offsetof(struct args, name), "TEXT", ""},
	{"count", OPT_COUNT, offsetof(struct args, count), "N", "", .required = true},
	{"rate", OPT_OBJECT, offsetof(struct args, rate), "", "", .parts = rate_parts},
	{"any", OPT_JSON, offsetof(struct args, any), "", ""},
	{0}};
static const struct args defaults = {.count = 1};

static struct {
	struct args args;
	char id[32], name[32];
	bool body;
} seen;

static int put(void *ctx, const struct api_call *call, const void *args, struct api_reply *reply,
	       struct err *e)
{
	const struct args *a = args;

	seen.args = *a;
	seen.body = call->body;
	snprintf(seen.id, sizeof seen.id, "%s", call->id ? call->id : "");
	snprintf(seen.name, sizeof seen.name, "%s", a->name ? a->name : "");
	return seen.args.count == 13 ? err_set(e, EBUSY, "unlucky") : 0;
}

static int store(void *ctx, const struct api_call *call, const void *args, struct api_reply *reply,
		 struct err *e)
{
	reply->json = json_incref(call->body);
	return 0;
}

static const struct api_method methods[] = {
	{.name = "put",
	 .verb = "PUT",
	 .path = "/things/{thing_id}",
	 .summary = "Make a thing",
	 .args = options,
	 .defaults = &defaults,
	 .args_size = sizeof defaults,
	 .run_call = put},
	{.name = "store",
	 .verb = "PUT",
	 .path = "/store",
	 .summary = "Keep anything",
	 .any_body = true,
	 .type = API_TYPE_JSON,
	 .run_call = store},
};
static const struct api_table ours = {
	.title = "t", .description = "", .method = methods, .methods = 2};
static const struct api_table theirs = {.title = "t",
					.description = "",
					.method = methods,
					.methods = 2,
					.error_member = "fault_message",
					.args_prefix = "bad body",
					.all_400 = true,
					.null_is_absent = true};

static unsigned ask(const struct api_table *t, const char *verb, const char *path, const char *body,
		    json_t **answer)
{
	char query[1] = "";
	struct api_fds fds = {0};
	struct api_reply reply;
	unsigned status =
		api_dispatch(t, RIGHT_OPERATE, verb, path, query, body, strlen(body), &fds, &reply);

	if (answer)
		*answer = reply.json;
	else
		json_decref(reply.json);
	return status;
}

static unsigned put_thing(const struct api_table *t, const char *body)
{
	return ask(t, "PUT", "/things/a1", body, NULL);
}

static void the_path_names_the_thing(void **state)
{
	assert_int_equal(put_thing(&ours, "{\"count\":3,\"name\":\"n\"}"), 204);
	assert_string_equal(seen.id, "a1");
	assert_string_equal(seen.name, "n");
	assert_true(seen.body);
	assert_int_equal(ask(&ours, "PUT", "/things/", "{\"count\":3}", NULL), 404);
	assert_int_equal(ask(&ours, "PUT", "/things", "{\"count\":3}", NULL), 404);
	assert_int_equal(ask(&ours, "PUT", "/things/a/b", "{\"count\":3}", NULL), 404);
	assert_int_equal(ask(&ours, "GET", "/things/a", "", NULL), 405);
}

static void what_lies_in_objects_arrives(void **state)
{
	assert_int_equal(
		put_thing(&ours, "{\"count\":3,\"rate\":{\"size\":5000000000,\"time\":7}}"), 204);
	assert_int_equal(seen.args.rate.size, 5000000000);
	assert_int_equal(seen.args.rate.time, 7);
	assert_int_equal(put_thing(&ours, "{\"count\":3,\"any\":[1,{}]}"), 204);
	assert_non_null(seen.args.any);
}

static void what_is_required_is_asked_for(void **state)
{
	static const char *const bad[] = {
		"",
		"{}",
		"{\"count\":null}",
		"{\"count\":3,\"rate\":{}}",
		"{\"count\":3,\"rate\":{\"size\":1}}",
		"{\"count\":3,\"rate\":{\"size\":1,\"time\":1,\"x\":1}}",
		"{\"count\":3,\"rate\":{\"size\":\"1\",\"time\":1}}",
		"{\"count\":3,\"rate\":{\"size\":-1,\"time\":1}}",
		"{\"count\":3,\"rate\":3}",
		"[]",
		"3",
	};

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(put_thing(&ours, bad[i]), 400);
		assert_int_equal(put_thing(&theirs, bad[i]), 400);
	}
}

static void null_is_absent_where_the_table_says_so(void **state)
{
	assert_int_equal(put_thing(&ours, "{\"count\":3,\"name\":null}"), 400);
	assert_int_equal(put_thing(&theirs, "{\"count\":3,\"name\":null,\"rate\":null}"), 204);
	assert_string_equal(seen.name, "");
}

static void any_body_is_left_as_it_is(void **state)
{
	json_t *j;

	assert_int_equal(ask(&theirs, "PUT", "/store", "{\"a\":null}", &j), 200);
	assert_true(json_is_null(json_object_get(j, "a")));
	json_decref(j);
	assert_int_equal(ask(&theirs, "PUT", "/store", "\"text\"", &j), 200);
	json_decref(j);
}

static void refusals_have_the_tables_shape(void **state)
{
	static const char unlucky[] = "{\"count\":13}";
	json_t *j;

	assert_int_equal(ask(&ours, "PUT", "/things/a1", unlucky, &j), 409);
	assert_string_equal(json_string_value(json_object_get(j, "error")), "unlucky");
	json_decref(j);
	assert_int_equal(ask(&theirs, "PUT", "/things/a1", unlucky, &j), 400);
	assert_string_equal(json_string_value(json_object_get(j, "fault_message")), "unlucky");
	json_decref(j);
	assert_int_equal(ask(&theirs, "GET", "/nothing", "", &j), 400);
	assert_string_equal(json_string_value(json_object_get(j, "fault_message")),
			    "Invalid request method and/or path: GET /nothing.");
	json_decref(j);
	assert_int_equal(ask(&theirs, "PUT", "/things/a1", "{\"x\":1}", &j), 400);
	assert_ptr_equal(strstr(json_string_value(json_object_get(j, "fault_message")), "bad body"),
			 json_string_value(json_object_get(j, "fault_message")));
	json_decref(j);
}

static void the_description_has_the_parameter_of_the_path(void **state)
{
	json_t *j = api_openapi(&theirs), *put_it, *p;

	put_it = json_object_get(json_object_get(json_object_get(j, "paths"), "/things/{thing_id}"),
				 "put");
	p = json_array_get(json_object_get(put_it, "parameters"), 0);
	assert_string_equal(json_string_value(json_object_get(p, "name")), "thing_id");
	assert_string_equal(json_string_value(json_object_get(p, "in")), "path");
	json_decref(j);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_path_names_the_thing),
		cmocka_unit_test(what_lies_in_objects_arrives),
		cmocka_unit_test(what_is_required_is_asked_for),
		cmocka_unit_test(null_is_absent_where_the_table_says_so),
		cmocka_unit_test(any_body_is_left_as_it_is),
		cmocka_unit_test(refusals_have_the_tables_shape),
		cmocka_unit_test(the_description_has_the_parameter_of_the_path),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
