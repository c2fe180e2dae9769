#include "control/events.h"

#include <string.h>

#include "base/test.h"

static json_int_t number_of(const char *line, size_t len)
{
	json_t *j = json_loadb(line, len, 0, NULL);
	json_int_t n = json_integer_value(json_object_get(j, "number"));

	json_decref(j);
	return n;
}

static void each_is_read_once_and_in_order(void **state)
{
	uint64_t at = 0;
	struct events v;
	char line[512];
	size_t len;

	events_init(&v);
	events_add(&v, "vm", "started", NULL);
	events_add(&v, "vm", "ended", json_pack("{s:i}", "status", 3));
	len = events_read(&v, &at, line, sizeof line);
	assert_int_equal(number_of(line, len), 1);
	assert_int_equal(events_read(&v, &at, line, 10), 0); /* no room: it stays */
	len = events_read(&v, &at, line, sizeof line);
	assert_int_equal(number_of(line, len), 2);
	assert_int_equal(line[len - 1], '\n');
	line[len] = 0;
	assert_non_null(strstr(line, "\"status\":3"));
	assert_int_equal(events_read(&v, &at, line, sizeof line), 0);
	events_done(&v);
}

static void only_the_last_are_kept(void **state)
{
	uint64_t at = 0;
	struct events v;
	char line[512];

	events_init(&v);
	for (unsigned i = 0; i < EVENTS_MAX + 10; i++)
		events_add(&v, "vm", "reset", NULL);
	assert_int_equal(number_of(line, events_read(&v, &at, line, sizeof line)), 11);
	events_done(&v);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_is_read_once_and_in_order),
		cmocka_unit_test(only_the_last_are_kept),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
