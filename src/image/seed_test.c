#include "image/seed.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/test.h"
#include "image/iso.h"

static json_t *user_data_of(const struct seed_opts *o)
{
	struct err e = {0};
	char *text;
	json_t *root;

	assert_int_equal(seed_user_data(o, &text, &e), 0);
	assert_memory_equal(text, "#cloud-config\n", 14);
	root = json_loads(text + 14, 0, NULL);
	assert_non_null(root);
	free(text);
	return root;
}

static const char *user_text(json_t *root, const char *key)
{
	json_t *user = json_array_get(json_object_get(root, "users"), 0);

	return json_string_value(json_object_get(user, key));
}

static void user_with_keys_logs_in_by_itself_on_the_console_and_by_key_elsewhere(void **state)
{
	const struct seed_opts o = {.instance_id = "i",
				    .hostname = "box",
				    .user = "ana",
				    .ssh_keys = "# mine\nssh-ed25519 AAAA ana@here\n"};
	json_t *root = user_data_of(&o);
	json_t *user = json_array_get(json_object_get(root, "users"), 0);
	json_t *keys = json_object_get(user, "ssh_authorized_keys");
	json_t *file = json_array_get(json_object_get(root, "write_files"), 0);

	assert_string_equal(json_string_value(json_object_get(root, "hostname")), "box");
	assert_string_equal(user_text(root, "name"), "ana");
	assert_int_equal(json_array_size(keys), 1);
	assert_string_equal(json_string_value(json_array_get(keys, 0)),
			    "ssh-ed25519 AAAA ana@here");
	assert_true(json_is_true(json_object_get(user, "lock_passwd")));
	assert_string_equal(json_string_value(json_object_get(file, "content")),
			    "LOGIN=\"--autologin ana\"\n");
	json_decref(root);
}

static void password_is_hashed_and_the_console_asks_for_it(void **state)
{
	const struct seed_opts o = {.instance_id = "i", .user = "ana", .password = "s\"e c"};
	json_t *root = user_data_of(&o);

	assert_memory_equal(user_text(root, "passwd"), "$6$", 3);
	assert_true(json_is_true(json_object_get(root, "ssh_pwauth")));
	assert_null(json_object_get(root, "write_files"));
	json_decref(root);
}

static void names_and_keys_that_no_system_takes_are_refused(void **state)
{
	static const struct seed_opts bad[] = {
		{.hostname = "two words"},
		{.hostname = ""},
		{.user = "-rf"},
		{.user = "1st"},
		{.user = "a:b"},
		{.user = "ana", .ssh_keys = "-----BEGIN OPENSSH PRIVATE KEY-----"},
		{.user = "ana", .ssh_keys = "hello there, this is no key"},
		{.password = "without a user"},
		{.user = "ana", .user_data = "#cloud-config", .user_data_len = 13},
	};
	struct err e;

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(seed_check(&bad[i], &e), -EINVAL);
}

static void user_data_of_ones_own_is_passed_on_as_it_is(void **state)
{
	static const char mine[] = "#!/bin/sh\necho hello\n";
	const struct seed_opts o = {
		.instance_id = "i", .user_data = mine, .user_data_len = sizeof mine - 1};
	struct err e = {0};
	char disk[65536];
	ssize_t n;
	int fd;

	assert_int_equal(seed_make(&o, &fd, &e), 0);
	n = pread(fd, disk, sizeof disk, 0);
	close(fd);
	assert_int_equal(n, 28 * 2048);
	assert_memory_equal(disk + 26 * 2048, mine, sizeof mine - 1);
}

static void disk_has_its_label_and_long_names_where_the_standard_wants_them(void **state)
{
	const struct iso_file file[] = {{"user-data", "abc", 3}, {"meta-data", "x", 1}};
	struct err e = {0};
	uint8_t *disk;
	uint32_t len;

	assert_int_equal(iso_make("cidata", file, 2, &disk, &len, &e), 0);
	assert_int_equal(len, 28 * 2048);
	assert_memory_equal(disk + 16 * 2048, "\1CD001", 6);
	assert_memory_equal(disk + 16 * 2048 + 40, "cidata          ", 16);
	assert_memory_equal(disk + 17 * 2048, "\2CD001", 6);
	assert_memory_equal(disk + 17 * 2048 + 40, "\0c\0i\0d\0a\0t\0a", 12);
	assert_non_null(memmem(disk + 25 * 2048, 2048, "\0u\0s\0e\0r\0-\0d\0a\0t\0a", 18));
	assert_memory_equal(disk + 26 * 2048, "abc", 3);
	free(disk);
}

static void too_many_files_and_too_long_names_are_refused(void **state)
{
	struct iso_file many[ISO_FILES_MAX + 1];
	char name[80];
	struct err e;
	uint8_t *disk;
	uint32_t len;

	for (unsigned i = 0; i < ARRAY_SIZE(many); i++)
		many[i] = (struct iso_file){"n", "", 0};
	assert_int_equal(iso_make("l", many, ISO_FILES_MAX + 1, &disk, &len, &e), -EINVAL);
	memset(name, 'n', sizeof name - 1);
	name[sizeof name - 1] = 0;
	many[0].name = name;
	assert_int_equal(iso_make("l", many, 1, &disk, &len, &e), -ENAMETOOLONG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			user_with_keys_logs_in_by_itself_on_the_console_and_by_key_elsewhere),
		cmocka_unit_test(password_is_hashed_and_the_console_asks_for_it),
		cmocka_unit_test(names_and_keys_that_no_system_takes_are_refused),
		cmocka_unit_test(user_data_of_ones_own_is_passed_on_as_it_is),
		cmocka_unit_test(disk_has_its_label_and_long_names_where_the_standard_wants_them),
		cmocka_unit_test(too_many_files_and_too_long_names_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
