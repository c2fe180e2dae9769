#include "api/option.h"

#include <errno.h>

#include "base/test.h"

struct opts {
	bool flag;
	const char *text;
	unsigned count, number;
	uint64_t size;
	int choice;
	struct option_list list;
};

static const struct option table[] = {
	{"flag", OPT_FLAG, offsetof(struct opts, flag), NULL, ""},
	{"text", OPT_TEXT, offsetof(struct opts, text), "TEXT", ""},
	{"count", OPT_COUNT, offsetof(struct opts, count), "N", "", .max = 9},
	{"number", OPT_NUMBER, offsetof(struct opts, number), "N", ""},
	{"size", OPT_SIZE, offsetof(struct opts, size), "SIZE", ""},
	{"choice", OPT_CHOICE, offsetof(struct opts, choice), "red|green|blue", ""},
	{"list", OPT_FILE, offsetof(struct opts, list), "FILE", "", .repeats = true},
	{0}};
static const struct opts defaults = {.number = 7};

static void all_kinds_arrive_and_go_back(void **state)
{
	json_t *j = json_loads("{\"flag\":true,\"text\":\"t\",\"count\":3,\"number\":0,\"size\":"
			       "\"2K\",\"choice\":\"blue\",\"list\":[\"a\",\"b\"]}",
			       0, NULL);
	struct opts o = defaults;
	struct err e;
	json_t *back;

	assert_int_equal(options_from_json(table, &o, j, &e), 0);
	assert_true(o.flag);
	assert_string_equal(o.text, "t");
	assert_int_equal(o.count, 3);
	assert_int_equal(o.number, 0);
	assert_int_equal(o.size, 2048);
	assert_int_equal(o.choice, 2);
	assert_int_equal(o.list.n, 2);
	assert_string_equal(o.list.value[1], "b");
	back = options_to_json(table, &o, &defaults);
	json_object_set_new(j, "size", json_integer(2048));
	assert_true(json_equal(j, back));
	json_decref(back);
	json_decref(j);
}

static void what_is_as_by_default_is_left_out(void **state)
{
	json_t *j = options_to_json(table, &defaults, &defaults);

	assert_int_equal(json_object_size(j), 0);
	json_decref(j);
}

static void wrong_values_are_refused(void **state)
{
	static const char *const bad[] = {
		"[]",
		"{\"flag\":1}",
		"{\"text\":1}",
		"{\"count\":0}",
		"{\"count\":10}",
		"{\"count\":\"3\"}",
		"{\"number\":-1}",
		"{\"size\":-1}",
		"{\"size\":\"1Q\"}",
		"{\"choice\":\"pink\"}",
		"{\"list\":[1]}",
		"{\"list\":[[]]}",
		"{\"flag\":null}",
	};
	struct err e;

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		json_t *j = json_loads(bad[i], 0, NULL);
		struct opts o = defaults;

		assert_true(options_from_json(table, &o, j, &e) < 0);
		json_decref(j);
	}
}

static void an_unknown_member_suggests(void **state)
{
	json_t *j = json_loads("{\"cuont\":1}", 0, NULL);
	struct opts o = defaults;
	struct err e;

	assert_int_equal(options_from_json(table, &o, j, &e), -EINVAL);
	assert_non_null(strstr(e.text, "did you mean 'count'"));
	json_decref(j);
}

static void the_schema_names_each(void **state)
{
	json_t *s = options_schema(table), *members = json_object_get(s, "properties");

	assert_int_equal(json_object_size(members), 7);
	assert_int_equal(
		json_integer_value(json_object_get(json_object_get(members, "count"), "maximum")),
		9);
	assert_int_equal(
		json_array_size(json_object_get(json_object_get(members, "choice"), "enum")), 3);
	json_decref(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_kinds_arrive_and_go_back),
		cmocka_unit_test(what_is_as_by_default_is_left_out),
		cmocka_unit_test(wrong_values_are_refused),
		cmocka_unit_test(an_unknown_member_suggests),
		cmocka_unit_test(the_schema_names_each),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
