#include "image/store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/test.h"
#include "image/store_priv.h"

#define DIGEST_OF_ONE "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed" /* "one" */

static char dir[64];
static struct store st;
static struct err err;

static int make_store(void **state)
{
	strcpy(dir, "/tmp/holon-store-test.XXXXXX");
	return mkdtemp(dir) && store_open(&st, dir, &err) == 0 ? 0 : -1;
}

static int remove_store(void **state)
{
	remove_tree(dir);
	return 0;
}

static void write_text(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static int add(const char *name, const char *content)
{
	char file[PATH_MAX / 2];
	json_t *info = json_pack("{s:s}", "suite", content);
	int r;

	assert_true(store_path(&st, file, sizeof file, "images/temp/file"));
	write_text(file, content);
	r = store_add(&st, name, file, info, &err);
	json_decref(info);
	return r;
}

static void add_vm(const char *name, const char *digest)
{
	char path[PATH_MAX / 2];
	json_t *vm = json_pack("{s:s}", "image", digest);

	assert_true(store_path(&st, path, sizeof path, "vms/%s", name));
	assert_int_equal(make_dirs(path, &err), 0);
	strcat(path, "/vm.json");
	assert_int_equal(write_json(path, vm, &err), 0);
	json_decref(vm);
}

static bool count(void *ctx, const struct store_image *i)
{
	++*(unsigned *)ctx;
	return true;
}

static unsigned images(void)
{
	unsigned n = 0;

	assert_int_equal(store_list(&st, count, &n, &err), 0);
	return n;
}

static void image_is_found_by_name_and_by_the_beginning_of_its_digest(void **state)
{
	struct store_image i;

	assert_int_equal(add("first", "one"), 0);
	assert_int_equal(store_find(&st, "first", &i, &err), 0);
	assert_string_equal(i.digest, DIGEST_OF_ONE);
	assert_int_equal(access(i.file, R_OK), 0);
	assert_string_equal(json_string_value(json_object_get(i.info, "suite")), "one");
	store_image_done(&i);
	assert_int_equal(store_find(&st, "7692c3ad", &i, &err), 0);
	assert_string_equal(i.name, "first");
	store_image_done(&i);
	assert_int_equal(store_find(&st, "sha256:7692c3ad", &i, &err), 0);
	store_image_done(&i);
	assert_int_equal(store_find(&st, "7692c", &i, &err), -ENOENT);
	assert_int_equal(store_find(&st, "other", &i, &err), -ENOENT);
}

static void names_that_would_leave_the_store_are_refused(void **state)
{
	static const char *const bad[] = {"", ".", "..", "../x", "a/b", "-f", "a b", ".new"};
	struct store_image i;

	for (unsigned n = 0; n < ARRAY_SIZE(bad); n++) {
		assert_int_equal(add(bad[n], "one"), -EINVAL);
		assert_int_equal(store_find(&st, bad[n], &i, &err), -EINVAL);
	}
}

static void image_that_nobody_names_or_uses_goes_when_its_name_gets_another(void **state)
{
	assert_int_equal(add("a", "one"), 0);
	assert_int_equal(add("a", "two"), 0);
	assert_int_equal(images(), 1);
}

static void image_that_a_vm_uses_stays_without_a_name(void **state)
{
	struct store_image i;

	assert_int_equal(add("a", "one"), 0);
	add_vm("box-with-a-name-that-is-longer-than-any-short-buffer", DIGEST_OF_ONE);
	assert_int_equal(add("a", "two"), 0);
	assert_int_equal(images(), 2);
	assert_int_equal(store_find(&st, "7692c3ad", &i, &err), 0);
	assert_string_equal(i.name, "");
	store_image_done(&i);
}

static void image_in_use_is_removed_only_by_force(void **state)
{
	assert_int_equal(add("a", "one"), 0);
	add_vm("box", DIGEST_OF_ONE);
	assert_int_equal(store_remove(&st, "a", false, &err), -EBUSY);
	assert_non_null(strstr(err.text, "box"));
	assert_int_equal(images(), 1);
	assert_int_equal(store_remove(&st, "a", true, &err), 0);
	assert_int_equal(images(), 0);
}

static void image_with_a_second_name_stays_when_the_first_is_removed(void **state)
{
	struct store_image i;

	assert_int_equal(add("a", "one"), 0);
	assert_int_equal(add("b", "one"), 0);
	assert_int_equal(store_remove(&st, "a", false, &err), 0);
	assert_int_equal(store_find(&st, "b", &i, &err), 0);
	assert_int_equal(access(i.file, R_OK), 0);
	store_image_done(&i);
	assert_int_equal(store_remove(&st, "b", false, &err), 0);
	assert_int_equal(images(), 0);
}

static void work_of_a_process_that_is_gone_is_removed_and_that_of_others_is_not(void **state)
{
	char gone[PATH_MAX / 2], mine[PATH_MAX / 2], other[PATH_MAX / 2], file[PATH_MAX];
	int lock, other_lock;
	pid_t child = fork();

	if (!child) {
		assert_int_equal(store_work_new(&st, gone, &lock, &err), 0);
		snprintf(file, sizeof file, "%s/left", gone);
		write_text(file, "behind");
		_exit(0);
	}
	waitpid(child, NULL, 0);
	assert_int_equal(store_work_new(&st, mine, &lock, &err), 0);
	assert_int_equal(store_work_new(&st, other, &other_lock, &err), 0);
	assert_int_equal(access(mine, F_OK), 0);
	store_work_free(other, other_lock);
	store_work_free(mine, lock);
	assert_true(store_path(&st, file, sizeof file, "images/temp"));
	assert_int_equal(rmdir(file), 0); /* it is empty */
}

static void damaged_description_is_an_error_and_no_crash(void **state)
{
	char path[PATH_MAX / 2];
	struct store_image i;

	assert_int_equal(add("a", "one"), 0);
	assert_true(store_path(&st, path, sizeof path, "images/sha256/%s.json", DIGEST_OF_ONE));
	write_text(path, "{\"suite\": ");
	assert_int_equal(store_find(&st, "a", &i, &err), -EBADMSG);
	assert_int_equal(images(), 0);
	assert_int_equal(add("a", "one"), 0);
	assert_int_equal(images(), 1);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, make_store, remove_store)
	const struct CMUnitTest tests[] = {
		TEST(image_is_found_by_name_and_by_the_beginning_of_its_digest),
		TEST(names_that_would_leave_the_store_are_refused),
		TEST(image_that_nobody_names_or_uses_goes_when_its_name_gets_another),
		TEST(image_that_a_vm_uses_stays_without_a_name),
		TEST(image_in_use_is_removed_only_by_force),
		TEST(image_with_a_second_name_stays_when_the_first_is_removed),
		TEST(work_of_a_process_that_is_gone_is_removed_and_that_of_others_is_not),
		TEST(damaged_description_is_an_error_and_no_crash),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
