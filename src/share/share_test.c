/* A share and a guest that asks for what it should not have, or in ways that it should not. */
#include "share/share_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/test.h"

#define ROOT FUSE_ROOT_ID

static unsigned nodes_now(void)
{
	struct share_counts n;

	share_get_counts(share, &n);
	return n.nodes;
}

static unsigned fds_now(void)
{
	struct share_counts n;

	share_get_counts(share, &n);
	return n.fds;
}

/* --- as it should be --- */

static void what_is_written_is_there(void **state)
{
	uint64_t fh = 0, n = create(ROOT, "a", O_RDWR, &fh);

	assert_true(n);
	assert_int_equal(write_node(fh, 3, "hello", 5), 5);
	assert_int_equal(read_node(fh, 0, 100), 8);
	assert_memory_equal(answer, "\0\0\0hello", 8);
	assert_int_equal(attr_of(n)->size, 8);
	assert_int_equal(lookup(ROOT, "a"), n);
	forget(n, 1);
	assert_true(attr_of(n));
	forget(n, 1);
	assert_null(attr_of(n));
	assert_int_equal(error, -ENOENT);
	assert_int_equal(read_node(fh, 3, 5), 5); /* open files do not need the number */
	assert_int_equal(nodes_now(), 1);
}

static void an_unlinked_file_lives_while_it_is_known(void **state)
{
	uint64_t fh = 0, n = create(ROOT, "a", O_RDWR, &fh);

	assert_int_equal(ask_name(FUSE_UNLINK, ROOT, NULL, 0, "a"), 0);
	assert_false(host_has("share/a"));
	assert_int_equal(attr_of(n)->nlink, 0);
	assert_int_equal(write_node(fh, 0, "x", 1), 1);
	assert_int_equal(attr_of(n)->size, 1);
	assert_false(lookup(ROOT, "a"));
	assert_int_equal(error, -ENOENT);
}

static void a_number_never_means_another_file(void **state)
{
	uint64_t old, new;

	host_write("share/a", "a");
	host_write("share/b", "b");
	old = lookup(ROOT, "a");
	forget(old, 1);
	new = lookup(ROOT, "b");
	assert_true(new &&new != old);
	assert_null(attr_of(old));
	forget(old, 1); /* and harms nobody */
	assert_true(attr_of(new));
}

static void renames_are_followed(void **state)
{
	uint64_t d = make_dir_in(ROOT, "d"), e = make_dir_in(ROOT, "e"), fh = 0, n;
	const struct fuse_rename2_in swap = {.newdir = ROOT, .flags = RENAME_EXCHANGE};
	const struct fuse_rename2_in none = {.newdir = ROOT, .flags = 0x80};
	const struct fuse_rename_in to_e = {.newdir = e};

	n = create(d, "x", O_RDWR, &fh);
	assert_int_equal(ask(FUSE_RENAME, d, &to_e, sizeof to_e, "x\0y", 4), 0);
	assert_int_equal(lookup(e, "y"), n);
	assert_int_equal(ask(FUSE_RENAME2, ROOT, &swap, sizeof swap, "d\0e", 4), 0);
	assert_int_equal(lookup(ROOT, "d"), e);
	assert_true(host_has("share/d/y"));
	assert_int_equal(ask(FUSE_RENAME2, ROOT, &none, sizeof none, "d\0e", 4), -EINVAL);
}

static void folders_are_listed_with_attributes_or_without(void **state)
{
	struct fuse_open_in open = {0};
	struct fuse_read_in in = {.size = 4096};
	unsigned seen = 0, plain = 0;

	for (int i = 0; i < 300; i++) {
		char name[64];

		snprintf(name, sizeof name, "share/a file with a longer name %03d", i);
		host_write(name, "x");
	}
	assert_int_equal(ask(FUSE_OPENDIR, ROOT, &open, sizeof open, NULL, 0), 0);
	in.fh = ((struct fuse_open_out *)answer)->fh;
	for (;;) {
		assert_int_equal(ask(FUSE_READDIRPLUS, ROOT, &in, sizeof in, NULL, 0), 0);
		if (!answer_len)
			break;
		for (uint32_t at = 0; at < answer_len;) {
			struct fuse_direntplus *p = (void *)(answer + at);

			seen += p->entry_out.nodeid && p->entry_out.attr.size == 1;
			in.offset = p->dirent.off;
			at += (uint32_t)FUSE_DIRENTPLUS_SIZE(p);
		}
	}
	assert_int_equal(seen, 300);
	assert_int_equal(nodes_now(), 301);
	for (in.offset = 0;;) {
		assert_int_equal(ask(FUSE_READDIR, ROOT, &in, sizeof in, NULL, 0), 0);
		if (!answer_len)
			break;
		for (uint32_t at = 0; at < answer_len; plain++) {
			struct fuse_dirent *p = (void *)(answer + at);

			in.offset = p->off;
			at += (uint32_t)FUSE_DIRENT_SIZE(p);
		}
	}
	assert_int_equal(plain, 302);
	in.offset = 0;
	in.size = 10;
	assert_int_equal(ask(FUSE_READDIR, ROOT, &in, sizeof in, NULL, 0), -EINVAL);
}

static void attributes_of_users_and_no_others(void **state)
{
	struct {
		struct fuse_setxattr_in in;
		char name[16];
	} set = {{.size = 5}, "user.color"};
	struct fuse_getxattr_in get = {.size = 100};
	uint64_t n;

	host_write("share/a", "a");
	n = lookup(ROOT, "a");
	if (setxattr(host_path("share/a"), "user.shape", "round", 5, 0) < 0)
		skip(); /* the file system has none */
	assert_int_equal(ask(FUSE_SETXATTR, n, &set.in, sizeof set.in, "user.color\0green", 16), 0);
	assert_int_equal(ask_name(FUSE_GETXATTR, n, &get, sizeof get, "user.color"), 0);
	assert_int_equal(answer_len, 5);
	assert_memory_equal(answer, "green", 5);
	(void)!setxattr(host_path("share/a"), "trusted.overlay.opaque", "y", 1, 0);
	assert_int_equal(ask(FUSE_LISTXATTR, n, &get, sizeof get, NULL, 0), 0);
	assert_int_equal(answer_len, 22);
	get.size = 21;
	assert_int_equal(ask(FUSE_LISTXATTR, n, &get, sizeof get, NULL, 0), -ERANGE);
	get.size = 0;
	assert_int_equal(ask(FUSE_LISTXATTR, n, &get, sizeof get, NULL, 0), 0);
	assert_int_equal(((struct fuse_getxattr_out *)answer)->size, 22);
	assert_int_equal(ask_name(FUSE_GETXATTR, n, &get, sizeof get, "trusted.overlay.opaque"),
			 -EOPNOTSUPP);
	assert_int_equal(ask_name(FUSE_REMOVEXATTR, n, NULL, 0, "user.color"), 0);
	assert_int_equal(getxattr(host_path("share/a"), "user.color", NULL, 0), -1);
	set.in.size = 6; /* more than there is */
	assert_int_equal(ask(FUSE_SETXATTR, n, &set.in, sizeof set.in, "user.color\0green", 16),
			 -EINVAL);
}

/* --- what must not lead out --- */

static void names_are_one_step(void **state)
{
	static const char *const bad[] = {"..", ".", "/etc", "a/b", "../outside", "/", ""};
	const struct fuse_create_in make = {.flags = O_CREAT | O_RDWR, .mode = 0644};
	const struct fuse_mkdir_in dir = {.mode = 0755};
	const struct fuse_mknod_in nod = {.mode = S_IFREG | 0644};
	const struct fuse_rename_in here = {.newdir = ROOT};
	uint64_t d = make_dir_in(ROOT, "d");

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		char two[64] = "d";
		size_t len = strlen(bad[i]) + 1;

		memcpy(two + 2, bad[i], len);
		assert_false(lookup(d, bad[i]));
		assert_int_not_equal(ask_name(FUSE_CREATE, d, &make, sizeof make, bad[i]), 0);
		assert_int_not_equal(ask_name(FUSE_MKDIR, d, &dir, sizeof dir, bad[i]), 0);
		assert_int_not_equal(ask_name(FUSE_MKNOD, d, &nod, sizeof nod, bad[i]), 0);
		assert_int_not_equal(ask_name(FUSE_UNLINK, d, NULL, 0, bad[i]), 0);
		assert_int_not_equal(ask_name(FUSE_RMDIR, d, NULL, 0, bad[i]), 0);
		assert_int_not_equal(ask(FUSE_RENAME, ROOT, &here, sizeof here, two, len + 2), 0);
		memcpy(two + len, "x", 2);
		memcpy(two, bad[i], len);
		assert_int_not_equal(ask(FUSE_RENAME, d, &here, sizeof here, two, len + 2), 0);
		assert_int_not_equal(ask(FUSE_SYMLINK, d, NULL, 0, two, len + 2), 0);
	}
	assert_false(lookup(ROOT, ".."));
	/* One that does not end. */
	assert_int_equal(ask(FUSE_LOOKUP, ROOT, NULL, 0, "d", 1), -EINVAL);
	assert_int_equal(ask(FUSE_LOOKUP, ROOT, NULL, 0, NULL, 0), -EINVAL);
}

static void links_are_the_guests_to_follow(void **state)
{
	uint64_t n;

	assert_int_equal(symlink("../outside/secret", host_path("share/l")), 0);
	assert_int_equal(symlink("../outside", host_path("share/d")), 0);
	n = lookup(ROOT, "l");
	assert_true(n);
	assert_true(S_ISLNK(entry_attr()->mode));
	assert_int_equal(ask(FUSE_READLINK, n, NULL, 0, NULL, 0), 0);
	assert_int_equal(answer_len, strlen("../outside/secret"));
	assert_false(open_node(n, O_RDONLY));
	assert_int_equal(error, -ELOOP);
	n = lookup(ROOT, "d");
	assert_false(lookup(n, "secret"));
	assert_int_equal(error, -ENOTDIR);
	assert_false(create(n, "new", O_RDWR, NULL));
	assert_false(create(ROOT, "l", O_RDWR | O_TRUNC, NULL)); /* what is there already */
	assert_int_equal(error, -ELOOP);
	assert_false(host_has("outside/new"));
}

static void a_mode_or_a_size_does_not_go_through_a_link(void **state)
{
	const struct fuse_setattr_in mode = {.valid = FATTR_MODE, .mode = 0777};
	const struct fuse_setattr_in size = {.valid = FATTR_SIZE, .size = 0};
	const struct fuse_setattr_in owner = {.valid = FATTR_UID, .uid = 0};
	struct stat st, after;
	uint64_t n;

	assert_int_equal(symlink("../outside/secret", host_path("share/l")), 0);
	assert_int_equal(stat(host_path("outside/secret"), &st), 0);
	n = lookup(ROOT, "l");
	assert_int_not_equal(ask(FUSE_SETATTR, n, &mode, sizeof mode, NULL, 0), 0);
	assert_int_not_equal(ask(FUSE_SETATTR, n, &size, sizeof size, NULL, 0), 0);
	assert_int_equal(ask(FUSE_SETATTR, n, &owner, sizeof owner, NULL, 0), 0); /* the link's */
	assert_int_equal(stat(host_path("outside/secret"), &after), 0);
	assert_memory_equal(&st.st_ctim, &after.st_ctim, sizeof st.st_ctim);
}

static void a_folder_that_becomes_a_link_leads_nowhere(void **state)
{
	uint64_t d = make_dir_in(ROOT, "d"), x = make_dir_in(d, "x");

	assert_true(d && x);
	assert_int_equal(rename(host_path("share/d"), host_path("moved")), 0);
	assert_int_equal(symlink("../outside", host_path("share/d")), 0);
	/* It is what it was, wherever that is now. */
	assert_false(lookup(d, "secret"));
	assert_int_equal(error, -ENOENT);
	assert_true(create(d, "new", O_RDWR, NULL));
	assert_true(host_has("moved/new"));
	assert_false(host_has("outside/new"));
	assert_false(lookup(lookup(ROOT, "d"), "secret"));
}

static void devices_and_pipes_are_not_opened(void **state)
{
	const struct fuse_mknod_in pipe = {.mode = S_IFIFO | 0644};
	const struct fuse_mknod_in disk = {.mode = S_IFBLK | 0666, .rdev = 0x800};
	const struct fuse_mknod_in null = {.mode = S_IFCHR | 0666, .rdev = 0x103};
	uint64_t n;

	assert_int_equal(ask_name(FUSE_MKNOD, ROOT, &pipe, sizeof pipe, "p"), 0);
	n = lookup(ROOT, "p");
	assert_false(open_node(n, O_RDONLY)); /* does not wait for a writer either */
	assert_int_equal(error, -ENXIO);
	assert_false(create(ROOT, "p", O_WRONLY, NULL));
	assert_int_equal(ask_name(FUSE_MKNOD, ROOT, &disk, sizeof disk, "b"), -EPERM);
	assert_int_equal(ask_name(FUSE_MKNOD, ROOT, &null, sizeof null, "c"), -EPERM);
	if (mknod(host_path("share/n"), S_IFCHR | 0666, 0x103) < 0)
		return; /* for root alone */
	n = lookup(ROOT, "n");
	assert_int_equal(entry_attr()->rdev, 0x103);
	assert_false(open_node(n, O_RDWR));
	assert_int_equal(error, -ENXIO);
}

static void read_only_is_read_only(void **state)
{
	const struct fuse_setattr_in mode = {.valid = FATTR_MODE, .mode = 0777};
	const struct fuse_mkdir_in dir = {.mode = 0755};
	const struct fuse_setxattr_in set = {.size = 1};
	const struct fuse_link_in link = {.oldnodeid = ROOT};
	uint64_t n, fh;

	host_write("share/a", "text");
	share_again(&(struct share_opts){.read_only = true});
	n = lookup(ROOT, "a");
	fh = open_node(n, O_RDONLY);
	assert_true(n && fh);
	assert_int_equal(read_node(fh, 0, 10), 4);
	assert_int_equal(write_node(fh, 0, "x", 1), -EROFS);
	assert_false(open_node(n, O_WRONLY));
	assert_int_equal(error, -EROFS);
	assert_false(open_node(n, O_RDONLY | O_TRUNC));
	assert_int_equal(error, -EROFS);
	assert_false(create(ROOT, "b", O_RDWR, NULL));
	assert_false(create(ROOT, "a", O_RDONLY, NULL));
	assert_int_equal(ask(FUSE_SETATTR, n, &mode, sizeof mode, NULL, 0), -EROFS);
	assert_int_equal(ask_name(FUSE_MKDIR, ROOT, &dir, sizeof dir, "d"), -EROFS);
	assert_int_equal(ask_name(FUSE_UNLINK, ROOT, NULL, 0, "a"), -EROFS);
	assert_int_equal(ask_name(FUSE_LINK, ROOT, &link, sizeof link, "a"), -EROFS);
	assert_int_equal(ask(FUSE_SYMLINK, ROOT, NULL, 0, "a\0b", 4), -EROFS);
	assert_int_equal(ask(FUSE_SETXATTR, n, &set, sizeof set, "user.a\0b", 8), -EROFS);
	assert_int_equal(attr_of(n)->size, 4);
}

/* --- owners --- */

static void files_belong_to_the_caller_or_to_us(void **state)
{
	const struct fuse_setattr_in give = {.valid = FATTR_UID, .uid = 4242};
	struct stat st;
	uint64_t n;

	caller_uid = 1234;
	caller_gid = 5678;
	if (geteuid() == 0) {
		assert_true(create(ROOT, "a", O_RDWR, NULL));
		assert_int_equal(stat(host_path("share/a"), &st), 0);
		assert_int_equal(st.st_uid, 1234);
		assert_int_equal(st.st_gid, 5678);
		assert_true(make_dir_in(ROOT, "d"));
		assert_int_equal(entry_attr()->uid, 1234);
	}
	share_again(&(struct share_opts){.force_squash = true, .uid = 1000, .gid = 1001});
	n = create(ROOT, "b", O_RDWR, NULL);
	assert_true(n);
	assert_int_equal(entry_attr()->uid, 1000);
	assert_int_equal(entry_attr()->gid, 1001);
	assert_int_equal(stat(host_path("share/b"), &st), 0);
	assert_int_equal(st.st_uid, geteuid());
	assert_int_equal(ask(FUSE_SETATTR, n, &give, sizeof give, NULL, 0), -EPERM);
	if (geteuid() == 0) {
		assert_true(lookup(ROOT, "a"));
		assert_int_equal(entry_attr()->uid, 65534);
	}
}

static void writing_takes_set_id_bits_away_when_the_guest_says_so(void **state)
{
	struct fuse_write_in in = {.size = 1, .write_flags = FUSE_WRITE_KILL_SUIDGID};
	const struct fuse_setattr_in mode = {.valid = FATTR_MODE, .mode = 06755};
	uint64_t n = create(ROOT, "a", O_RDWR, &in.fh);

	assert_int_equal(ask(FUSE_SETATTR, n, &mode, sizeof mode, NULL, 0), 0);
	assert_int_equal(attr_of(n)->mode & 07777, 06755);
	assert_int_equal(ask(FUSE_WRITE, n, &in, sizeof in, "x", 1), 0);
	assert_int_equal(attr_of(n)->mode & 07777, 0755);
}

/* --- words that are none --- */

static void nothing_is_served_before_its_begin(void **state)
{
	const struct fuse_init_in old = {.major = 7, .minor = 12};
	const struct fuse_init_in next = {.major = 8, .minor = 0};

	share_reset(share);
	assert_false(lookup(ROOT, "a"));
	assert_int_equal(error, -EIO);
	assert_int_equal(ask(FUSE_INIT, 0, &old, sizeof old, NULL, 0), -EPROTO);
	assert_int_equal(ask(FUSE_INIT, 0, &next, sizeof next, NULL, 0), 0);
	assert_int_equal(((struct fuse_init_out *)answer)->major, 7);
	assert_false(lookup(ROOT, "a"));
	assert_int_equal(error, -EIO);
	begin_session();
	assert_false(lookup(ROOT, "a"));
	assert_int_equal(error, -ENOENT);
}

static void short_long_and_unknown_requests(void **state)
{
	static uint8_t much[SHARE_WRITE_MAX * 2];
	struct fuse_write_in lies = {.size = 1000};
	struct fuse_read_in in = {.size = UINT32_MAX, .offset = UINT64_MAX};
	uint64_t n = create(ROOT, "a", O_RDWR, &in.fh);

	for (uint32_t op = 0; op < 70; op++)
		for (size_t len = 0; len < 120; len += 7) {
			if (op == FUSE_DESTROY)
				continue;
			(void)ask(op, n, much, len, NULL, 0);
			(void)ask_room(op, n, much, len, NULL, 0, len % 20);
		}
	begin_session();
	n = create(ROOT, "b", O_RDWR, &in.fh);
	assert_int_equal(ask(99, n, NULL, 0, NULL, 0), -ENOSYS);
	assert_int_equal(ask(FUSE_LOOKUP, ROOT, much, sizeof much, NULL, 0), -E2BIG);
	assert_int_equal(ask(FUSE_READ, n, &in, sizeof in, NULL, 0), -EINVAL);
	in.offset = 0;
	assert_int_equal(ask(FUSE_READ, n, &in, sizeof in, NULL, 0), 0);
	lies.fh = in.fh;
	assert_int_equal(ask(FUSE_WRITE, n, &lies, sizeof lies, "x", 1), -EINVAL);
	in.fh = 77;
	assert_int_equal(ask(FUSE_READ, n, &in, sizeof in, NULL, 0), -EBADF);
	assert_int_equal(ask(FUSE_GETATTR, 12345, much, 16, NULL, 0), -ENOENT);
	assert_int_equal(ask_room(FUSE_LOOKUP, ROOT, NULL, 0, "b", 2, 16), -ERANGE);
	assert_int_equal(nodes_now(), 2); /* what the guest did not learn of is not kept */
}

static void forgetting_too_much_is_forgetting(void **state)
{
	uint64_t d = make_dir_in(ROOT, "d"), n = create(d, "a", O_RDWR, NULL);

	forget(ROOT, UINT64_MAX);
	assert_true(attr_of(ROOT));
	forget(d, UINT64_MAX); /* the file below it is still known */
	assert_null(attr_of(d));
	assert_true(attr_of(n));
	assert_int_equal(nodes_now(), 3);
	forget(n, 5);
	assert_int_equal(nodes_now(), 1);
}

/* --- bounds --- */

#define MANY 500

static void files_let_go_are_found_again(void **state)
{
	uint64_t dir[MANY], at = ROOT;
	char name[32];

	/* A path deeper than what may be open, and a file with a name of its own at each step. */
	for (int i = 0; i < MANY; i++) {
		snprintf(name, sizeof name, "%d", i);
		at = dir[i] = make_dir_in(at, name);
		assert_true(at);
		assert_true(fds_now() <= SHARE_FDS_MIN);
	}
	assert_int_equal(nodes_now(), MANY + 1);
	for (int i = 0; i < MANY; i += 7) {
		assert_true(attr_of(dir[i]));
		assert_true(fds_now() <= SHARE_FDS_MIN);
	}
	assert_true(attr_of(dir[MANY - 1]));
	assert_true(create(dir[MANY - 1], "deep", O_RDWR, NULL));
	/* The guest renames a folder on the way, of which it still knows what is below. */
	assert_true(attr_of(dir[3]));
	assert_int_equal(ask(FUSE_RENAME, dir[1], &(struct fuse_rename_in){.newdir = ROOT},
			     sizeof(struct fuse_rename_in), "2\0two", 6),
			 0);
	assert_true(attr_of(dir[MANY - 1]));
	assert_true(lookup(dir[MANY - 1], "deep"));
}

static void what_another_file_took_the_name_of_is_stale(void **state)
{
	uint64_t a, n;
	char name[32];

	host_write("share/a", "first");
	a = lookup(ROOT, "a");
	for (int i = 0; i < MANY; i++) {
		snprintf(name, sizeof name, "share/%d", i);
		host_write(name, "x");
		assert_true(lookup(ROOT, name + 6));
	}
	assert_int_equal(unlink(host_path("share/a")), 0);
	host_write("share/a", "second");
	assert_null(attr_of(a));
	assert_int_equal(error, -ESTALE);
	n = lookup(ROOT, "a");
	assert_true(n && n != a);
	assert_int_equal(entry_attr()->size, 6);
}

static void removed_files_stay_although_there_are_too_many(void **state)
{
	uint64_t a, first = 0;
	char name[32];

	host_write("share/a", "still here");
	a = lookup(ROOT, "a");
	assert_int_equal(ask_name(FUSE_UNLINK, ROOT, NULL, 0, "a"), 0);
	for (int i = 0; i < MANY; i++) {
		snprintf(name, sizeof name, "share/%d", i);
		host_write(name, "x");
		assert_true(lookup(ROOT, name + 6));
	}
	assert_int_equal(attr_of(a)->size, 10);
	/* Open files are not taken from the guest; it gets no more instead. */
	for (int i = 0; i < MANY; i++) {
		uint64_t fh = open_node(a, O_RDONLY);

		if (!fh)
			break;
		first = first ? first : fh;
	}
	assert_int_equal(error, -ENFILE);
	assert_true(fds_now() <= SHARE_FDS_MIN);
	assert_int_equal(read_node(first, 0, 5), 5);
	assert_true(lookup(ROOT, "7"));
}

static void folders_that_the_host_moves_into_each_other(void **state)
{
	uint64_t a = make_dir_in(ROOT, "a"), b = make_dir_in(a, "b"), n;
	char name[32];

	assert_int_equal(rename(host_path("share/a/b"), host_path("share/b")), 0);
	assert_int_equal(rename(host_path("share/a"), host_path("share/b/a")), 0);
	assert_int_equal(lookup(b, "a"), a); /* each is below the other now, for whom believes it */
	for (int i = 0; i < MANY; i++) {
		snprintf(name, sizeof name, "%d", i);
		n = make_dir_in(ROOT, name);
		assert_true(n);
	}
	(void)attr_of(a); /* ends */
	(void)attr_of(b);
	assert_int_equal(lookup(ROOT, "b"), b);
	assert_true(attr_of(b));
}

static void a_reset_closes_all(void **state)
{
	uint64_t d = make_dir_in(ROOT, "d"), fh = 0;

	assert_true(create(d, "a", O_RDWR, &fh));
	assert_int_equal(fds_now(), 4);
	share_reset(share);
	assert_int_equal(fds_now(), 1);
	begin_session();
	assert_null(attr_of(d));
	assert_int_equal(read_node(fh, 0, 1), -EBADF);
	assert_true(lookup(ROOT, "d"));
}

/* --- races: somebody on the host changes names all the while --- */

static atomic_bool over;

static void *swap_folder_and_link(void *arg)
{
	while (!atomic_load(&over))
		(void)!syscall(SYS_renameat2, AT_FDCWD, host_path("share/d"), AT_FDCWD,
			       host_path("share/l"), RENAME_EXCHANGE);
	return NULL;
}

static void *move_out_and_in(void *arg)
{
	while (!atomic_load(&over)) {
		(void)!rename(host_path("share/d/x"), host_path("outside/x"));
		(void)!rename(host_path("outside/x"), host_path("share/d/x"));
	}
	return NULL;
}

static void race(void *(*fn)(void *), void (*step)(void))
{
	pthread_t t;

	atomic_store(&over, false);
	assert_int_equal(pthread_create(&t, NULL, fn, NULL), 0);
	for (int i = 0; i < 1500; i++)
		step();
	atomic_store(&over, true);
	pthread_join(t, NULL);
}

static void use_folder(void)
{
	uint64_t d = lookup(ROOT, "d"), n, fh;

	if (!d)
		return;
	n = lookup(d, "secret");
	if (n) {
		fh = open_node(n, O_RDWR);
		if (fh && read_node(fh, 0, 100) > 0)
			assert_null(memmem(answer, answer_len, SECRET, strlen(SECRET)));
		if (fh)
			ask(FUSE_RELEASE, n, &(struct fuse_release_in){.fh = fh},
			    sizeof(struct fuse_release_in), NULL, 0);
		forget(n, 1);
	}
	n = create(d, "new", O_RDWR | O_TRUNC, &fh);
	if (n) {
		ask(FUSE_RELEASE, n, &(struct fuse_release_in){.fh = fh},
		    sizeof(struct fuse_release_in), NULL, 0);
		ask_name(FUSE_UNLINK, d, NULL, 0, "new");
		forget(n, 1);
	}
	(void)make_dir_in(d, "made");
	ask_name(FUSE_RMDIR, d, NULL, 0, "made");
	ask_name(FUSE_UNLINK, d, NULL, 0, "victim");
	forget(d, 1);
}

static void a_folder_swapped_with_a_link(void **state)
{
	assert_int_equal(mkdir(host_path("share/d"), 0755), 0);
	host_write("share/d/secret", "of no worth");
	assert_int_equal(symlink("../outside", host_path("share/l")), 0);
	host_write("outside/victim", "stays");
	race(swap_folder_and_link, use_folder);
	assert_true(host_has("outside/victim") && host_has("outside/secret"));
	assert_false(host_has("outside/new") || host_has("outside/made"));
	host_write("outside/victim", "stays");
}

static void *swap_file_and_link(void *arg)
{
	while (!atomic_load(&over))
		(void)!syscall(SYS_renameat2, AT_FDCWD, host_path("share/f"), AT_FDCWD,
			       host_path("share/l"), RENAME_EXCHANGE);
	return NULL;
}

static void use_file(void)
{
	const struct fuse_setattr_in set = {.valid = FATTR_MODE | FATTR_SIZE, .mode = 0604};
	uint64_t fh, n = create(ROOT, "f", O_RDWR | O_TRUNC, &fh);

	if (n) {
		assert_int_not_equal(write_node(fh, 0, "x", 1), 0);
		ask(FUSE_RELEASE, n, &(struct fuse_release_in){.fh = fh},
		    sizeof(struct fuse_release_in), NULL, 0);
		forget(n, 1);
	}
	n = lookup(ROOT, "f");
	if (n) {
		ask(FUSE_SETATTR, n, &set, sizeof set, NULL, 0);
		fh = open_node(n, O_RDONLY);
		if (fh && read_node(fh, 0, 100) > 0)
			assert_null(memmem(answer, answer_len, SECRET, strlen(SECRET)));
		if (fh)
			ask(FUSE_RELEASE, n, &(struct fuse_release_in){.fh = fh},
			    sizeof(struct fuse_release_in), NULL, 0);
		forget(n, 1);
	}
}

static void a_file_swapped_with_a_link(void **state)
{
	struct stat st;

	host_write("share/f", "file");
	assert_int_equal(symlink("../outside/secret", host_path("share/l")), 0);
	race(swap_file_and_link, use_file);
	assert_int_equal(stat(host_path("outside/secret"), &st), 0);
	assert_int_equal(st.st_size, strlen(SECRET));
	assert_int_not_equal(st.st_mode & 0777, 0604);
}

static uint64_t moved;

static void use_moved(void)
{
	assert_false(lookup(moved, ".."));
	assert_false(lookup(moved, "secret"));
	(void)attr_of(moved);
}

static void a_folder_moved_out_of_the_share(void **state)
{
	uint64_t d = make_dir_in(ROOT, "d");

	moved = make_dir_in(d, "x");
	race(move_out_and_in, use_moved);
}

#define T(name) cmocka_unit_test_setup_teardown(name, share_setup, share_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(what_is_written_is_there),
		T(an_unlinked_file_lives_while_it_is_known),
		T(a_number_never_means_another_file),
		T(renames_are_followed),
		T(folders_are_listed_with_attributes_or_without),
		T(attributes_of_users_and_no_others),
		T(names_are_one_step),
		T(links_are_the_guests_to_follow),
		T(a_mode_or_a_size_does_not_go_through_a_link),
		T(a_folder_that_becomes_a_link_leads_nowhere),
		T(devices_and_pipes_are_not_opened),
		T(read_only_is_read_only),
		T(files_belong_to_the_caller_or_to_us),
		T(writing_takes_set_id_bits_away_when_the_guest_says_so),
		T(nothing_is_served_before_its_begin),
		T(short_long_and_unknown_requests),
		T(forgetting_too_much_is_forgetting),
		T(files_let_go_are_found_again),
		T(what_another_file_took_the_name_of_is_stale),
		T(removed_files_stay_although_there_are_too_many),
		T(folders_that_the_host_moves_into_each_other),
		T(a_reset_closes_all),
		T(a_folder_swapped_with_a_link),
		T(a_file_swapped_with_a_link),
		T(a_folder_moved_out_of_the_share),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
