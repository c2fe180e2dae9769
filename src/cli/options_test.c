#include "cli/options.h"

#include <string.h>

#include "base/test.h"

struct opts {
	bool json, help;
	const char *kernel;
	unsigned cpus;
	uint64_t memory;
	int engine;
	struct option_list disks, ports;
};

static const struct option own[] = {
	{"kernel", OPT_FILE, offsetof(struct opts, kernel), "FILE", "", .required = true},
	{"cpus", OPT_COUNT, offsetof(struct opts, cpus), "N", ""},
	{"memory", OPT_SIZE, offsetof(struct opts, memory), "SIZE", ""},
	{"engine", OPT_CHOICE, offsetof(struct opts, engine), "auto|jit|kvm", ""},
	{"json", OPT_FLAG, offsetof(struct opts, json), NULL, "", .letter = 'j'},
	{"disk", OPT_FILE, offsetof(struct opts, disks), "FILE", "", .repeats = true},
	{"publish", OPT_TEXT, offsetof(struct opts, ports), "H:G", "", .letter = 'p',
	 .repeats = true},
	{0}};
static const struct option common[] = {
	{"help", OPT_FLAG, offsetof(struct opts, help), NULL, "", .letter = 'h'}, {0}};

static struct opts got;
static int words;
static struct err err;

#define PARSE(...)                                                                                 \
	parse((char *[]){__VA_ARGS__, NULL},                                                       \
	      (int)(sizeof((char *[]){__VA_ARGS__}) / sizeof(char *)))

static int parse(char **argv, int argc)
{
	const struct option_table t[] = {{own, &got}, {common, &got}};

	memset(&got, 0, sizeof got);
	memset(&err, 0, sizeof err);
	return options_parse(t, 2, 0, argc, argv, &words, &err);
}

static void values_follow_or_are_joined(void **state)
{
	assert_int_equal(PARSE("--kernel", "vmlinuz", "--memory=2G", "--engine=kvm", "--json"), 0);
	assert_string_equal(got.kernel, "vmlinuz");
	assert_int_equal(got.memory, GIB(2));
	assert_int_equal(got.engine, 2);
	assert_true(got.json);
	assert_int_equal(words, 0);
}

static void a_value_may_look_like_an_option(void **state)
{
	assert_int_equal(PARSE("--kernel", "--json"), 0);
	assert_string_equal(got.kernel, "--json");
	assert_false(got.json);
}

static void words_come_to_the_front(void **state)
{
	char *argv[] = {"--json", "run", "--", "--help", "-", NULL};

	assert_int_equal(parse(argv, 5), 0);
	assert_int_equal(words, 3);
	assert_string_equal(argv[0], "run");
	assert_string_equal(argv[1], "--help");
	assert_string_equal(argv[2], "-");
	assert_false(got.help);
}

static void behind_a_commands_own_words_all_are_words(void **state)
{
	char *argv[] = {"vm", "--json", "ls", "--help", "--", "-l", NULL};
	const struct option_table t[] = {{own, &got}, {common, &got}};

	memset(&got, 0, sizeof got);
	assert_int_equal(options_parse(t, 2, 2, 6, argv, &words, &err), 0);
	assert_true(got.json);
	assert_false(got.help);
	assert_int_equal(words, 5);
	assert_string_equal(argv[2], "--help");
	assert_string_equal(argv[4], "-l");
}

static void a_letter_works(void **state)
{
	assert_int_equal(PARSE("-h"), 0);
	assert_true(got.help);
	assert_true(PARSE("-q") < 0);
	assert_true(PARSE("-hq") < 0);
}

static void letters_of_flags_share_a_dash(void **state)
{
	assert_int_equal(PARSE("-jh"), 0);
	assert_true(got.json && got.help);
	assert_int_equal(PARSE("-jp80:80", "-hp", "22:22", "x"), 0);
	assert_true(got.json && got.help);
	assert_string_equal(got.ports.value[0], "80:80");
	assert_string_equal(got.ports.value[1], "22:22");
	assert_int_equal(words, 1);
}

static void a_letter_takes_its_value_with_or_without_a_blank(void **state)
{
	assert_int_equal(PARSE("-p", "2222:22", "-p8080:80"), 0);
	assert_int_equal(got.ports.n, 2);
	assert_string_equal(got.ports.value[0], "2222:22");
	assert_string_equal(got.ports.value[1], "8080:80");
	assert_true(PARSE("-p") < 0);
	assert_non_null(strstr(err.text, "--publish needs a value: H:G"));
}

static void what_repeats_is_collected_in_order(void **state)
{
	assert_int_equal(PARSE("--disk", "a", "--json", "--disk=b", "--disk", "c"), 0);
	assert_int_equal(got.disks.n, 3);
	assert_string_equal(got.disks.value[0], "a");
	assert_string_equal(got.disks.value[1], "b");
	assert_string_equal(got.disks.value[2], "c");
	assert_true(PARSE("--disk=") < 0);
}

static void a_list_has_an_end(void **state)
{
	static char word[] = "--disk=x";
	char *argv[OPTION_LIST_MAX + 1];

	for (unsigned i = 0; i <= OPTION_LIST_MAX; i++)
		argv[i] = word;
	assert_int_equal(parse(argv, OPTION_LIST_MAX), 0);
	assert_int_equal(got.disks.n, OPTION_LIST_MAX);
	assert_true(parse(argv, OPTION_LIST_MAX + 1) < 0);
	assert_non_null(strstr(err.text, "--disk: no more than 32"));
}

static void a_negative_number_is_a_word(void **state)
{
	char *argv[] = {"-1G", "-j", NULL};

	assert_int_equal(parse(argv, 2), 0);
	assert_int_equal(words, 1);
	assert_string_equal(argv[0], "-1G");
	assert_true(got.json);
}

static void a_misspelt_option_names_the_nearest(void **state)
{
	assert_true(PARSE("--memroy=1G") < 0);
	assert_non_null(strstr(err.text, "did you mean '--memory'?"));
	assert_true(PARSE("--hepl") < 0);
	assert_non_null(strstr(err.text, "did you mean '--help'?"));
}

static void a_strange_option_suggests_nothing(void **state)
{
	assert_true(PARSE("--frobnicate") < 0);
	assert_null(strstr(err.text, "did you mean"));
	assert_true(PARSE("--this-is-a-very-long-option-beyond-all-names-that-we-have") < 0);
	assert_null(strstr(err.text, "did you mean"));
}

static void a_prefix_is_not_the_option(void **state)
{
	assert_true(PARSE("--kern", "x") < 0);
}

static void bad_values_are_refused(void **state)
{
	assert_true(PARSE("--cpus", "0") < 0);
	assert_true(PARSE("--cpus", "-1") < 0);
	assert_true(PARSE("--cpus", "2x") < 0);
	assert_true(PARSE("--cpus", "99999999999") < 0);
	assert_true(PARSE("--memory", "12Q") < 0);
	assert_true(PARSE("--memory", "") < 0);
	assert_true(PARSE("--memory", "99999999999G") < 0);
	assert_true(PARSE("--engine", "turbo") < 0);
	assert_non_null(strstr(err.text, "auto|jit|kvm"));
	assert_true(PARSE("--engine", "jit|kvm") < 0);
	assert_true(PARSE("--json=yes") < 0);
	assert_true(PARSE("--kernel") < 0);
	assert_non_null(strstr(err.text, "--kernel needs a value"));
}

static void what_is_required_is_missed(void **state)
{
	const struct option_table t = {own, &got};

	assert_int_equal(PARSE("--json"), 0);
	assert_true(options_check(&t, &err) < 0);
	assert_int_equal(PARSE("--kernel=k"), 0);
	assert_int_equal(options_check(&t, &err), 0);
}

static void a_list_may_be_required(void **state)
{
	static const struct option o[] = {{"disk", OPT_FILE, offsetof(struct opts, disks), "FILE",
					   "", .required = true, .repeats = true},
					  {0}};
	const struct option_table t = {o, &got};

	memset(&got, 0, sizeof got);
	assert_true(options_check(&t, &err) < 0);
	got.disks.n = 1;
	assert_int_equal(options_check(&t, &err), 0);
}

static void sizes_have_units(void **state)
{
	uint64_t n = 0;

	assert_int_equal(size_parse("4096", &n, NULL), 0);
	assert_int_equal(n, 4096);
	assert_int_equal(size_parse("64K", &n, NULL), 0);
	assert_int_equal(n, KIB(64));
	assert_int_equal(size_parse("512M", &n, NULL), 0);
	assert_int_equal(n, MIB(512));
	assert_int_equal(size_parse("1T", &n, NULL), 0);
	assert_int_equal(n, GIB(1024));
	assert_int_equal(size_parse("1E", &n, NULL), 0);
	assert_int_equal(n, GIB(1024) << 20);
	assert_int_equal(size_parse("64k", &n, NULL), 0);
	assert_int_equal(n, KIB(64));
	assert_int_equal(size_parse("1.5G", &n, NULL), 0);
	assert_int_equal(n, MIB(1536));
	assert_int_equal(size_parse("0.0009765625M", &n, NULL), 0);
	assert_int_equal(n, 1023); /* of ten decimals the last is not looked at */
	assert_int_equal(size_parse("1T", &n, NULL), 0);
	assert_true(size_parse("16E", &n, NULL) < 0);
	assert_true(size_parse("15.99999999E", &n, NULL) == 0);
	assert_int_equal(size_parse("1T", &n, NULL), 0);
	assert_true(size_parse("1.5", &n, NULL) < 0);
	assert_true(size_parse("1.G", &n, NULL) < 0);
	assert_true(size_parse("-1G", &n, NULL) < 0);
	assert_true(size_parse("16777216T", &n, NULL) < 0);
	assert_true(size_parse("1MM", &n, NULL) < 0);
	assert_true(size_parse(" 1M", &n, NULL) < 0);
	assert_int_equal(n, GIB(1024));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(values_follow_or_are_joined),
		cmocka_unit_test(a_value_may_look_like_an_option),
		cmocka_unit_test(words_come_to_the_front),
		cmocka_unit_test(behind_a_commands_own_words_all_are_words),
		cmocka_unit_test(a_letter_works),
		cmocka_unit_test(letters_of_flags_share_a_dash),
		cmocka_unit_test(a_letter_takes_its_value_with_or_without_a_blank),
		cmocka_unit_test(what_repeats_is_collected_in_order),
		cmocka_unit_test(a_list_has_an_end),
		cmocka_unit_test(a_negative_number_is_a_word),
		cmocka_unit_test(a_misspelt_option_names_the_nearest),
		cmocka_unit_test(a_strange_option_suggests_nothing),
		cmocka_unit_test(a_prefix_is_not_the_option),
		cmocka_unit_test(bad_values_are_refused),
		cmocka_unit_test(what_is_required_is_missed),
		cmocka_unit_test(a_list_may_be_required),
		cmocka_unit_test(sizes_have_units),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
