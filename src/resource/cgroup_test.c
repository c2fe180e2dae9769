/* Control groups as the kernel shows them, played by files; the real ones are in
 * tests/system/limits_test.py. */
#include "resource/cgroup.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/test.h"
#include "resource/cgroup_priv.h"

struct place {
	char top[64], path[256];
};

static const char *at(struct place *p, const char *path)
{
	snprintf(p->path, sizeof p->path, "%s/%s", p->top, path);
	return p->path;
}

static void put(struct place *p, const char *path, const char *text)
{
	FILE *f = fopen(at(p, path), "w");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static void expect(struct place *p, const char *path, const char *text)
{
	char is[128] = "";
	FILE *f = fopen(at(p, path), "r");

	assert_non_null(f);
	(void)!fread(is, 1, sizeof is - 1, f);
	fclose(f);
	assert_string_equal(is, text);
}

static void make(struct place *p, const char *path)
{
	assert_int_equal(mkdir(at(p, path), 0755), 0);
}

static void set_up(struct place *p)
{
	strcpy(p->top, "/tmp/holon-cgroup-test-XXXXXX");
	assert_non_null(mkdtemp(p->top));
	make(p, "proc");
	make(p, "sys");
}

static void done(struct place *p)
{
	char command[128];

	snprintf(command, sizeof command, "rm -rf %s", p->top);
	assert_int_equal(system(command), 0);
}

static void mountinfo(struct place *p, const char *root, const char *v1, const char *v2)
{
	char text[512];

	snprintf(text, sizeof text,
		 "20 1 0:5 / / rw - ext4 /dev/vda rw\n"
		 "32 31 0:29 %s %s/sys/%s rw,relatime - %s x rw%s%s\n",
		 root, p->top, v1 ? v1 : v2, v1 ? "cgroup" : "cgroup2", v1 ? "," : "",
		 v1 ? v1 : "");
	put(p, "proc/mountinfo", text);
}

/* Files are there already, where the kernel would make them. */
static char *own(struct place *p, const char *parent)
{
	static char name[128];

	snprintf(name, sizeof name, "%s/holon-%d", parent, (int)getpid());
	make(p, name);
	return name;
}

static char *in(const char *dir, const char *file)
{
	static char path[256];

	snprintf(path, sizeof path, "%s/%s", dir, file);
	return path;
}

static void version_1(void **state)
{
	struct place p;
	struct cgroup *g;
	char pid[24];
	const char *dir;

	set_up(&p);
	mountinfo(&p, "/", "cpu", NULL);
	put(&p, "proc/cgroup", "3:cpuset:/\n1:cpu:/a\n0::/x\n");
	make(&p, "sys/cpu");
	make(&p, "sys/cpu/a");
	dir = own(&p, "sys/cpu/a");
	put(&p, in(dir, "cgroup.procs"), "");
	put(&p, in(dir, "cpu.cfs_quota_us"), "");
	put(&p, in(dir, "cpu.shares"), "");
	assert_int_equal(cgroup_new(&g, CGROUP_ALL, at(&p, "proc"), NULL), 0);
	assert_int_equal(cgroup_has(g), CGROUP_CPU);
	assert_non_null(strstr(cgroup_path(g, 0), dir));
	assert_null(cgroup_path(g, 1));
	snprintf(pid, sizeof pid, "%d\n", (int)getpid());
	expect(&p, in(dir, "cgroup.procs"), pid);
	assert_int_equal(cgroup_set_cap(g, 500, NULL), 0);
	expect(&p, in(dir, "cpu.cfs_quota_us"), "50000");
	assert_int_equal(cgroup_set_weight(g, 50, NULL), 0);
	expect(&p, in(dir, "cpu.shares"), "512");
	assert_int_equal(cgroup_set_memory(g, 4096, 0, NULL), -ENOTSUP);
	assert_int_equal(cgroup_set_io_weight(g, 50, NULL), -ENOTSUP);
	cgroup_free(g);
	done(&p);
}

/* A login: our own group gives nothing, and the slice above it does. */
static void version_2_beside(void **state)
{
	struct place p;
	struct cgroup *g;
	const char *dir;

	set_up(&p);
	mountinfo(&p, "/", NULL, "unified");
	put(&p, "proc/cgroup", "0::/app.slice/term.scope\n");
	make(&p, "sys/unified");
	put(&p, "sys/unified/cgroup.subtree_control", "cpu io memory pids\n");
	make(&p, "sys/unified/app.slice");
	put(&p, "sys/unified/app.slice/cgroup.subtree_control", "cpu memory\n");
	make(&p, "sys/unified/app.slice/term.scope");
	put(&p, "sys/unified/app.slice/term.scope/cgroup.subtree_control", "\n");
	put(&p, "sys/unified/app.slice/term.scope/cgroup.controllers", "pids\n");
	dir = own(&p, "sys/unified/app.slice");
	put(&p, in(dir, "cgroup.procs"), "");
	put(&p, in(dir, "cpu.max"), "");
	put(&p, in(dir, "cpu.weight"), "");
	put(&p, in(dir, "memory.max"), "");
	put(&p, in(dir, "memory.swap.max"), "");
	assert_int_equal(cgroup_new(&g, CGROUP_CPU | CGROUP_MEMORY, at(&p, "proc"), NULL), 0);
	assert_int_equal(cgroup_has(g), CGROUP_CPU | CGROUP_MEMORY);
	assert_int_equal(cgroup_set_cap(g, 1500, NULL), 0);
	expect(&p, in(dir, "cpu.max"), "150000 100000");
	assert_int_equal(cgroup_set_weight(g, 50, NULL), 0);
	expect(&p, in(dir, "cpu.weight"), "50");
	assert_int_equal(cgroup_set_memory(g, 4096, 0, NULL), 0);
	expect(&p, in(dir, "memory.max"), "4096");
	expect(&p, in(dir, "memory.swap.max"), "0");
	cgroup_free(g);
	done(&p);
}

/* A unit with Delegate=yes: our own is split, and the keeper has a home in it. */
static void version_2_delegated(void **state)
{
	struct place p;
	struct cgroup *g;
	const char *dir;

	set_up(&p);
	mountinfo(&p, "/machine", NULL, "unified"); /* a container: the mount is below the root */
	put(&p, "proc/cgroup", "0::/machine/unit\n");
	make(&p, "sys/unified");
	make(&p, "sys/unified/unit");
	put(&p, "sys/unified/unit/cgroup.controllers", "cpuset cpu io memory\n");
	put(&p, "sys/unified/unit/cgroup.subtree_control", "");
	put(&p, "sys/unified/unit/cgroup.procs", "");
	dir = own(&p, "sys/unified/unit");
	put(&p, in(dir, "cgroup.procs"), "");
	put(&p, in(dir, "cpu.max"), "");
	assert_int_equal(cgroup_new(&g, CGROUP_CPU, at(&p, "proc"), NULL), 0);
	assert_int_equal(cgroup_has(g), CGROUP_CPU);
	expect(&p, "sys/unified/unit/cgroup.subtree_control", "+cpu");
	assert_int_equal(access(at(&p, "sys/unified/unit/holon-keepers"), F_OK), 0);
	assert_int_equal(cgroup_set_cap(g, 0, NULL), 0);
	expect(&p, in(dir, "cpu.max"), "max 100000");
	cgroup_free(g);
	done(&p);
}

static void none_there(void **state)
{
	struct place p;
	struct cgroup *g;

	set_up(&p);
	assert_int_equal(cgroup_new(&g, CGROUP_ALL, at(&p, "proc"), NULL), 0);
	assert_int_equal(cgroup_has(g), 0);
	assert_int_equal(cgroup_set_cap(g, 500, NULL), -ENOTSUP);
	cgroup_free(g);
	mountinfo(&p, "/", "cpu", NULL);
	put(&p, "proc/cgroup", "1:cpu:/not/there\nno line of its kind\n1:cpu\n");
	assert_int_equal(cgroup_new(&g, CGROUP_ALL, at(&p, "proc"), NULL), 0);
	assert_int_equal(cgroup_has(g), 0);
	cgroup_free(g);
	done(&p);
}

/* What a VM left that was killed together with its keeper. */
static void stale_ones_go(void **state)
{
	struct place p;
	struct cgroup *g;

	set_up(&p);
	mountinfo(&p, "/", "cpu", NULL);
	put(&p, "proc/cgroup", "1:cpu:/\n");
	make(&p, "sys/cpu");
	make(&p, "sys/cpu/holon-2147483646");
	make(&p, "sys/cpu/holon-1");
	make(&p, "sys/cpu/holon-1/in-use");
	make(&p, "sys/cpu/holon-1x");
	assert_int_equal(cgroup_new(&g, CGROUP_ALL, at(&p, "proc"), NULL), 0);
	cgroup_free(g);
	assert_int_equal(access(at(&p, "sys/cpu/holon-2147483646"), F_OK), -1);
	assert_int_equal(access(at(&p, "sys/cpu/holon-1"), F_OK), 0);
	assert_int_equal(access(at(&p, "sys/cpu/holon-1x"), F_OK), 0);
	done(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(version_1),           cmocka_unit_test(version_2_beside),
		cmocka_unit_test(version_2_delegated), cmocka_unit_test(none_there),
		cmocka_unit_test(stale_ones_go),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
