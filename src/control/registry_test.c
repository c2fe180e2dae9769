#include "control/registry.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/test.h"

static char folder[32];

static int set_up(void **state)
{
	strcpy(folder, "/tmp/holon-reg-XXXXXX");
	return mkdtemp(folder) && setenv("XDG_RUNTIME_DIR", folder, 1) == 0 ? 0 : -1;
}

static int tear_down(void **state)
{
	char path[64];

	snprintf(path, sizeof path, "%s/holon/vms", folder);
	rmdir(path); /* fails, and the test with it, when something was left */
	snprintf(path, sizeof path, "%s/holon", folder);
	rmdir(path);
	return rmdir(folder);
}

static void a_name_is_taken_once(void **state)
{
	struct vm_dir a, b, c;
	struct err e;

	assert_int_equal(vm_dir_claim(&a, "web", true, &e), 0);
	assert_int_equal(vm_dir_claim(&b, "web", true, &e), -EBUSY);
	assert_int_equal(vm_dir_claim(&c, "web", false, &e), 0);
	assert_string_equal(c.name, "web-2");
	vm_dir_release(&a, false);
	assert_int_equal(vm_dir_claim(&b, "web", true, &e), 0);
	vm_dir_release(&b, false);
	vm_dir_release(&c, false);
}

static void names_that_are_paths_are_refused(void **state)
{
	static const char *const bad[] = {"", ".", "..", "a/b", "-x", "a b", ".x"};
	struct vm_dir d;
	struct err e;

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(vm_dir_claim(&d, bad[i], true, &e), -EINVAL);
}

static void one_that_ended_tells_how(void **state)
{
	struct vm_dir d;
	struct vm_seen v;
	struct err e;

	assert_int_equal(vm_dir_claim(&d, "web", true, &e), 0);
	assert_int_equal(vm_find(&v, "web", &e), 0);
	assert_int_equal(v.life, VM_RUNS);
	vm_seen_done(&v);
	assert_int_equal(vm_remove("web", &e), -EBUSY);
	assert_int_equal(vm_dir_write(&d, "state.json", "{\"ended\": {\"how\": \"x\"}}", &e), 0);
	vm_dir_release(&d, true);
	assert_int_equal(vm_find(&v, "web", &e), 0);
	assert_int_equal(v.life, VM_ENDED);
	vm_seen_done(&v);
	assert_int_equal(vm_remove("web", &e), 0);
	assert_int_equal(vm_find(&v, "web", &e), -ENOENT);
}

/* As after kill -9: no word, and a state file that is cut short. */
static void one_whose_process_died_is_told_from_that(void **state)
{
	struct vm_seen v;
	struct vm_dir d;
	struct err e;
	pid_t pid = fork();

	if (pid == 0) {
		if (vm_dir_claim(&d, "web", true, &e) < 0 ||
		    vm_dir_write(&d, "state.json", "{\"sta", &e) < 0)
			_exit(1);
		raise(SIGKILL);
	}
	waitpid(pid, NULL, 0);
	assert_int_equal(vm_find(&v, "web", &e), 0);
	assert_int_equal(v.life, VM_DIED);
	vm_seen_done(&v);
	assert_int_equal(vm_dir_claim(&d, "web", true, &e), 0);
	vm_dir_release(&d, false);
}

static void a_running_one_can_be_renamed(void **state)
{
	struct vm_dir a, b;
	struct vm_seen v;
	struct err e;

	assert_int_equal(vm_dir_claim(&a, "a", true, &e), 0);
	assert_int_equal(vm_dir_claim(&b, "b", true, &e), 0);
	assert_int_equal(vm_dir_rename(&a, "b", &e), -EBUSY);
	assert_int_equal(vm_dir_rename(&a, "c", &e), 0);
	assert_int_equal(vm_find(&v, "c", &e), 0);
	assert_int_equal(v.life, VM_RUNS);
	vm_seen_done(&v);
	assert_int_equal(vm_find(&v, "a", &e), -ENOENT);
	vm_dir_release(&a, false);
	vm_dir_release(&b, false);
}

static void a_name_is_made_of_anything(void **state)
{
	char name[VM_NAME_MAX + 1];

	vm_make_name(name, "/-.boot/vmlinuz-6.1 (x)");
	assert_string_equal(name, "bootvmlinuz-6.1x");
	vm_make_name(name, "//");
	assert_string_equal(name, "vm");
}

int main(void)
{
#define TEST(t) cmocka_unit_test_setup_teardown(t, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(a_name_is_taken_once),         TEST(names_that_are_paths_are_refused),
		TEST(one_that_ended_tells_how),     TEST(one_whose_process_died_is_told_from_that),
		TEST(a_running_one_can_be_renamed), TEST(a_name_is_made_of_anything),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
