#include "cli/suboptions.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/test.h"

struct opts {
	bool ro, discard;
	const char *serial;
	unsigned iops;
	uint64_t bps;
	int cache;
};

static const struct option table[] = {
	{"cache", OPT_CHOICE, offsetof(struct opts, cache), "none|writeback"},
	{"ro", OPT_FLAG, offsetof(struct opts, ro)},
	{"discard", OPT_FLAG, offsetof(struct opts, discard)},
	{"serial", OPT_TEXT, offsetof(struct opts, serial), "TEXT"},
	{"iops", OPT_COUNT, offsetof(struct opts, iops), "N"},
	{"bps", OPT_SIZE, offsetof(struct opts, bps), "SIZE"},
	{0}};

static struct opts got;
static const char *first;
static char *storage;
static struct err err;

static int parse(const char *text)
{
	free(storage);
	storage = NULL;
	first = NULL;
	got = (struct opts){.discard = true};
	err = (struct err){0};
	return suboptions_parse(table, text, &first, &got, &storage, &err);
}

static int teardown(void **state)
{
	free(storage);
	storage = NULL;
	return 0;
}

static void refused(const char *text, const char *why)
{
	assert_int_equal(parse(text), -EINVAL);
	assert_string_equal(err.text, why);
	assert_null(storage);
}

static void the_first_part_may_stand_alone(void **state)
{
	assert_int_equal(parse("disk.img"), 0);
	assert_string_equal(first, "disk.img");
	assert_false(got.ro);
	assert_true(got.discard);
}

static void each_kind_of_value_is_set(void **state)
{
	assert_int_equal(parse("x,ro,cache=writeback,serial=abc=d,iops=100,bps=2M,discard=off"), 0);
	assert_string_equal(first, "x");
	assert_true(got.ro);
	assert_false(got.discard);
	assert_int_equal(got.cache, 1);
	assert_string_equal(got.serial, "abc=d");
	assert_int_equal(got.iops, 100);
	assert_int_equal(got.bps, MIB(2));
}

static void a_flag_may_be_said_to_be_on(void **state)
{
	assert_int_equal(parse("x,ro=on"), 0);
	assert_true(got.ro);
	assert_int_equal(parse("x,ro=off"), 0);
	assert_false(got.ro);
	refused("x,ro=maybe", "ro: 'maybe' is none of on|off");
}

static void a_comma_in_a_value_is_written_twice(void **state)
{
	assert_int_equal(parse("a,,b.img,serial=,,1,,,,2,,,ro"), 0);
	assert_string_equal(first, "a,b.img");
	assert_string_equal(got.serial, ",1,,2,");
	assert_true(got.ro);
	assert_int_equal(parse(",,x"), 0);
	assert_string_equal(first, ",x");
}

static void the_first_part_keeps_what_follows_its_equals_sign(void **state)
{
	assert_int_equal(parse("nbd://host/?ro=1,ro"), 0);
	assert_string_equal(first, "nbd://host/?ro=1");
	assert_true(got.ro);
}

static void without_a_first_part_all_are_keys(void **state)
{
	got = (struct opts){0};
	assert_int_equal(suboptions_parse(table, "ro,iops=1", NULL, &got, &storage, &err), 0);
	assert_true(got.ro);
	assert_int_equal(got.iops, 1);
}

static void an_unknown_key_brings_the_nearest_or_all(void **state)
{
	refused("x,cahce=none", "unknown key 'cahce'; did you mean 'cache'?");
	refused("x,volume=1",
		"unknown key 'volume'; there are cache, ro, discard, serial, iops and bps");
	refused("x,", "unknown key ''; there are cache, ro, discard, serial, iops and bps");
	refused("x,rod", "unknown key 'rod'; did you mean 'ro'?");
}

static void a_wrong_value_names_its_key_and_what_is_possible(void **state)
{
	refused("x,cache=fast", "cache: 'fast' is none of none|writeback");
	refused("x,cache", "cache needs a value: cache=none|writeback");
	refused("x,iops=0", "iops: '0' is not a number from 1 on");
	refused("x,bps=fast", "bps: 'fast' is not a size (write 512M or 2G)");
}

static void a_key_given_twice_is_refused(void **state)
{
	refused("x,ro,ro=off", "ro is given twice");
}

static void a_missing_first_part_is_refused(void **state)
{
	refused("", "begins with no value");
	refused(",ro", "begins with no value");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(the_first_part_may_stand_alone, teardown),
		cmocka_unit_test_teardown(each_kind_of_value_is_set, teardown),
		cmocka_unit_test_teardown(a_flag_may_be_said_to_be_on, teardown),
		cmocka_unit_test_teardown(a_comma_in_a_value_is_written_twice, teardown),
		cmocka_unit_test_teardown(the_first_part_keeps_what_follows_its_equals_sign,
					  teardown),
		cmocka_unit_test_teardown(without_a_first_part_all_are_keys, teardown),
		cmocka_unit_test_teardown(an_unknown_key_brings_the_nearest_or_all, teardown),
		cmocka_unit_test_teardown(a_wrong_value_names_its_key_and_what_is_possible,
					  teardown),
		cmocka_unit_test_teardown(a_key_given_twice_is_refused, teardown),
		cmocka_unit_test_teardown(a_missing_first_part_is_refused, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
