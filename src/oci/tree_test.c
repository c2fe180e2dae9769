/* What layers make together, and references. Whole images are tests/system/oci_test.py's. */
#include "base/test.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "oci/source.h"
#include "oci/tree.h"

static struct tree *tree;
static struct err err;

static int setup(void **state)
{
	return tree_new(&tree, &err);
}

static int teardown(void **state)
{
	tree_free(tree);
	return 0;
}

static int put(unsigned layer, enum tar_type type, const char *path, const char *link)
{
	const struct tar_entry x = {
		.type = type, .path = path, .link = link, .mode = 0644, .size = layer};

	return tree_apply(tree, layer, &x, &err);
}

static void add(unsigned layer, enum tar_type type, const char *path, const char *link)
{
	assert_int_equal(put(layer, type, path, link), 0);
}

static void whiteouts_are_for_lower_layers(void **state)
{
	add(0, TAR_FILE, "a/gone", "");
	add(0, TAR_FILE, "a/stays", "");
	add(0, TAR_FILE, "b/c/d", "");
	add(1, TAR_FILE, "a/.wh.gone", "");
	add(1, TAR_FILE, "b/new", "");
	add(1, TAR_FILE, "b/.wh..wh..opq", "");
	add(1, TAR_FILE, "a/same", "");
	add(1, TAR_FILE, "a/.wh.same", "");
	add(1, TAR_FILE, ".wh.never-there", "");
	assert_null(tree_find(tree, "a/gone"));
	assert_non_null(tree_find(tree, "/a/stays"));
	assert_null(tree_find(tree, "b/c"));
	assert_non_null(tree_find(tree, "b/new"));
	assert_non_null(tree_find(tree, "a/same"));
	assert_null(tree_find(tree, "a/.wh.same"));
}

static void hard_links_outlive_names(void **state)
{
	struct tree_node *n;

	add(0, TAR_FILE, "one", "");
	add(0, TAR_HARD_LINK, "two", "./one");
	add(0, TAR_HARD_LINK, "two", "two");
	assert_int_equal(tree_find(tree, "two")->inode->links, 2);
	add(1, TAR_FILE, ".wh.one", "");
	n = tree_find(tree, "two");
	assert_int_equal(n->inode->links, 1);
	add(1, TAR_FILE, "two", "");
	assert_int_equal(tree_find(tree, "two")->inode->size, 1);
	/* The directory that the target is in gives way to the link. */
	add(1, TAR_FILE, "dir/file", "");
	add(1, TAR_HARD_LINK, "dir", "dir/file");
	assert_int_equal(tree_find(tree, "dir")->inode->links, 1);
	assert_int_equal(put(1, TAR_HARD_LINK, "x", "none"), -EBADMSG);
	assert_int_equal(put(1, TAR_HARD_LINK, "x", "/"), -EBADMSG);
}

static void parents_are_followed_inside(void **state)
{
	add(0, TAR_DIR, "usr/bin", "");
	add(0, TAR_SYMLINK, "bin", "../../usr/bin");
	add(0, TAR_SYMLINK, "usr/loop", "/usr/loop");
	add(1, TAR_FILE, "bin/sh", "");
	assert_non_null(tree_find(tree, "usr/bin/sh"));
	assert_int_equal(put(1, TAR_FILE, "usr/loop/x", ""), -ELOOP);
	add(1, TAR_FILE, "bin", "");
	assert_null(tree_find(tree, "bin/sh"));
	assert_non_null(tree_find(tree, "usr/bin/sh"));
	add(2, TAR_FILE, "bin/now-a-directory", "");
	assert_non_null(tree_find(tree, "bin/now-a-directory"));
	assert_int_equal(put(1, TAR_FILE, "a/../../b", ""), -EBADMSG);
	assert_int_equal(put(1, TAR_FILE, "..", ""), -EBADMSG);
	assert_int_equal(put(1, TAR_FILE, "a..b/..c", ""), 0);
	assert_int_equal(put(1, TAR_FILE, "./", ""), -EBADMSG);
	assert_int_equal(put(1, TAR_DIR, "./", ""), 0);
}

static void archives_are_read(void **state)
{
	static const char *const dir = "/tmp/holon_tree_test.XXXXXX";
	char path[64], command[400];
	struct tar_entry x;
	struct tar *t;
	FILE *f;
	unsigned n = 0;
	int r;

	strcpy(path, dir);
	assert_non_null(mkdtemp(path));
	snprintf(
		command, sizeof command,
		"cd %s && echo hello > a && L=$(printf 'long-%%.0s' $(seq 30)) && mkdir -p $L/$L && "
		"echo x > $L/$L/f && tar --format=gnu --owner=3000000:3000000 -cf - .",
		path);
	f = popen(command, "re");
	int fd = memfd_create("tar", MFD_CLOEXEC);
	char buf[4096];
	size_t all = 0, len;

	while ((len = fread(buf, 1, sizeof buf, f)) > 0) {
		assert_int_equal(write(fd, buf, len), len);
		all += len;
	}
	assert_int_equal(pclose(f), 0);
	snprintf(command, sizeof command, "rm -r %s", path);
	assert_int_equal(system(command), 0);
	assert_int_equal(tar_open(&t, fd, 0, all, &err), 0);
	while ((r = tar_next(t, &x, &err)) == 1) {
		n++;
		assert_int_equal(x.uid, 3000000);
		if (x.type == TAR_FILE && x.size == 6) {
			assert_int_equal(pread(fd, buf, 6, (off_t)x.at), 6);
			assert_memory_equal(buf, "hello\n", 6);
		}
		add(0, x.type, x.path, x.link);
	}
	assert_int_equal(r, 0);
	assert_int_equal(n, 5);
	assert_int_equal(tree_count(tree), 5);
	tar_close(t);
	close(fd);
}

static void references_are_understood(void **state)
{
	static const char *const good[][4] = {
		{"alpine", "https://registry-1.docker.io", "library/alpine", "latest"},
		{"docker.io/alpine:3", "https://registry-1.docker.io", "library/alpine", "3"},
		{"me/app:v1", "https://registry-1.docker.io", "me/app", "v1"},
		{"ghcr.io/o/n", "https://ghcr.io", "o/n", "latest"},
		{"localhost:5000/a:b", "http://localhost:5000", "a", "b"},
		{"https://localhost:5000/a/b/c", "https://localhost:5000", "a/b/c", "latest"},
		{"http://example.org/a", "http://example.org", "a", "latest"},
	};
	static const char *const bad[] = {"",       "Hello World", "a:",          "a@sha256:12",
					  "a/../b", "x.org/",      "x.org/a:b:c", "https://x.org",
					  "/a",     "a?b",         "a:b/c@"};
	struct oci_ref r;

	for (unsigned i = 0; i < ARRAY_SIZE(good); i++) {
		assert_int_equal(oci_ref_parse(good[i][0], &r, &err), 0);
		assert_string_equal(r.base, good[i][1]);
		assert_string_equal(r.name, good[i][2]);
		assert_string_equal(r.tag, good[i][3]);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(oci_ref_parse(bad[i], &r, &err), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(whiteouts_are_for_lower_layers, setup, teardown),
		cmocka_unit_test_setup_teardown(hard_links_outlive_names, setup, teardown),
		cmocka_unit_test_setup_teardown(parents_are_followed_inside, setup, teardown),
		cmocka_unit_test_setup_teardown(archives_are_read, setup, teardown),
		cmocka_unit_test(references_are_understood),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
