/* Which images open, and which do not: what is no disk, what others have open, backing chains. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/test.h"
#include "block/image_fixture.h"

static int open_result(struct block_ctx *c, struct block_opts o, struct err *e)
{
	struct block *b = NULL;
	int r = block_open(&b, c, &o, e);

	if (r == 0)
		close_ok(b);
	return r;
}

static void what_is_no_disk_is_refused(void **unused)
{
	struct dir d = make_dir();
	struct block_ctx *c = new_ctx(BLOCK_ENGINE_AUTO);
	struct err e;

	assert_int_equal(open_result(c, (struct block_opts){.file = d.path, .read_only = true}, &e),
			 -EINVAL);
	assert_non_null(strstr(e.text, "neither a file nor a block device"));
	assert_int_equal(mkfifo(in_dir(&d, "pipe"), 0644), 0);
	assert_int_equal(open_result(c, (struct block_opts){.file = in_dir(&d, "pipe")}, &e),
			 -EINVAL);
	assert_int_equal(open_result(c, (struct block_opts){.file = "/dev/null"}, &e), -EINVAL);
	assert_int_equal(open_result(c, (struct block_opts){.file = in_dir(&d, "none")}, &e),
			 -ENOENT);
	make_raw(in_dir(&d, "disk"), 512);
	assert_int_equal(
		open_result(c, (struct block_opts){in_dir(&d, "disk"), .format = "vax"}, &e),
		-ENOTSUP);
	block_ctx_free(c);
	remove_dir(&d);
}

/* --- locks --- */

static void a_second_writer_is_refused_and_readers_share(void **unused)
{
	struct dir d = make_dir();
	struct block_ctx *c = new_ctx(BLOCK_ENGINE_AUTO);
	struct block_opts writer = {.file = in_dir(&d, "disk"), .format = "raw"}, reader = writer;
	struct block *b;
	struct err e;

	reader.read_only = true;
	make_raw(writer.file, MIB(1));
	b = open_ok(c, writer);
	assert_int_equal(open_result(c, writer, &e), -EAGAIN);
	assert_non_null(strstr(e.text, "is in use"));
	assert_int_equal(open_result(c, reader, &e), -EAGAIN);
	reader.no_lock = true;
	assert_int_equal(open_result(c, reader, &e), 0);
	close_ok(b);
	reader.no_lock = false;
	b = open_ok(c, reader);
	assert_int_equal(open_result(c, reader, &e), 0);
	assert_int_equal(open_result(c, writer, &e), -EAGAIN);
	close_ok(b);
	assert_int_equal(open_result(c, writer, &e), 0);
	block_ctx_free(c);
	remove_dir(&d);
}

/* True: the program is there, and said no. */
static bool qemu_io_fails(const char *arguments, const char *path)
{
	char command[256];

	snprintf(command, sizeof command, "qemu-io -f raw %s %s >/dev/null 2>&1", arguments, path);
	return system("command -v qemu-io >/dev/null") != 0 || system(command) != 0;
}

static void qemu_refuses_what_we_have_and_we_what_it_has(void **unused)
{
	struct dir d = make_dir();
	struct block_ctx *c = new_ctx(BLOCK_ENGINE_AUTO);
	struct block_opts o = {.file = in_dir(&d, "disk"), .format = "raw"};
	char command[320], said[128];
	struct block *b;
	struct err e;
	FILE *qemu;

	make_raw(o.file, MIB(1));
	b = open_ok(c, o);
	assert_true(qemu_io_fails("-c 'w 0 512'", o.file));
	close_ok(b);
	o.read_only = true;
	b = open_ok(c, o);
	assert_true(qemu_io_fails("-c 'w 0 512'", o.file));
	close_ok(b);
	o.read_only = false;
	if (system("command -v qemu-io >/dev/null") == 0) {
		assert_false(qemu_io_fails("-c 'w 0 512'", o.file));
		snprintf(said, sizeof said, "%s", in_dir(&d, "said"));
		snprintf(command, sizeof command, "qemu-io -f raw %s >%s", o.file, said);
		qemu = popen(command, "we");
		assert_non_null(qemu);
		fputs("w 0 512\n", qemu);
		fflush(qemu);
		for (struct stat s = {0}; s.st_size == 0; usleep(1000))
			if (stat(said, &s) < 0)
				s.st_size = 0; /* the shell has not made it yet */
		assert_int_equal(open_result(c, o, &e), -EAGAIN);
		fputs("q\n", qemu);
		assert_int_equal(pclose(qemu), 0);
		assert_int_equal(open_result(c, o, &e), 0);
	}
	block_ctx_free(c);
	remove_dir(&d);
}

/* --- backing chains --- */

static void make_overlay(struct block_ctx *c, const char *file, const char *backing)
{
	struct block_create_opts o = {.file = file,
				      .format = "qcow2",
				      .size = MIB(1),
				      .backing_file = backing,
				      .backing_format = backing ? "qcow2" : NULL};
	struct err e;

	if (block_create(c, &o, &e) < 0)
		fail_msg("%s", e.text);
}

static void a_chain_that_loops_or_has_no_end_is_refused(void **unused)
{
	struct dir d = make_dir();
	struct block_ctx *c = new_ctx(BLOCK_ENGINE_AUTO);
	struct err e;

	make_overlay(c, in_dir(&d, "a"), "b");
	make_overlay(c, in_dir(&d, "b"), "./a");
	assert_int_equal(open_result(c, (struct block_opts){.file = in_dir(&d, "a")}, &e), -ELOOP);
	assert_non_null(strstr(e.text, "its own backing file"));
	make_overlay(c, in_dir(&d, "0"), NULL);
	for (unsigned i = 1; i <= 32; i++) {
		char below[8], name[8];

		snprintf(below, sizeof below, "%u", i - 1);
		snprintf(name, sizeof name, "%u", i);
		make_overlay(c, in_dir(&d, name), below);
	}
	assert_int_equal(open_result(c, (struct block_opts){.file = in_dir(&d, "31")}, &e), 0);
	assert_int_equal(open_result(c, (struct block_opts){.file = in_dir(&d, "32")}, &e), -ELOOP);
	block_ctx_free(c);
	remove_dir(&d);
}

static void a_deep_chain_is_read_to_its_end(void **unused)
{
	enum { N = 250, DEEP = 31 };
	struct dir d = make_dir();
	struct block_ctx *c = new_ctx(BLOCK_ENGINE_AUTO);
	static uint8_t want[N * 512], got[N * 512];
	static struct iovec iov[N];
	struct request q = {
		.req = {.op = BLOCK_READ, .len = sizeof got, .iov = iov, .iov_count = N}};
	struct block *b;

	memset(want, 9, sizeof want);
	make_overlay(c, in_dir(&d, "0"), NULL);
	b = open_ok(c, (struct block_opts){.file = in_dir(&d, "0")});
	assert_int_equal(block_write(b, 0, want, sizeof want), 0);
	close_ok(b);
	for (unsigned i = 1; i <= DEEP; i++) {
		char below[8], name[8];

		snprintf(below, sizeof below, "%u", i - 1);
		snprintf(name, sizeof name, "%u", i);
		make_overlay(c, in_dir(&d, name), below);
		/* So that each layer gives a part of it. */
		b = open_ok(c, (struct block_opts){.file = in_dir(&d, name)});
		if (i % 8 == 0)
			assert_int_equal(block_write(b, 65536 + i, want, 1), 0);
		close_ok(b);
	}
	for (unsigned i = 0; i < N; i++)
		iov[i] = (struct iovec){got + i * 512, 512};
	b = open_ok(c, (struct block_opts){.file = in_dir(&d, "31")});
	submit(&q, b);
	assert_int_equal(finish(&q, b), 0);
	assert_memory_equal(got, want, sizeof want);
	close_ok(b);
	block_ctx_free(c);
	remove_dir(&d);
}

static void test_protocols_are_not_reached_by_a_backing_files_name(void **unused)
{
	struct dir d = make_dir();
	struct block_ctx *c = new_ctx(BLOCK_ENGINE_AUTO);
	char log[160];
	struct err e;

	make_overlay(c, in_dir(&d, "below"), NULL);
	snprintf(log, sizeof log, "crashlog:%s:%s", in_dir(&d, "log"), in_dir(&d, "below"));
	make_overlay(c, in_dir(&d, "disk"), log);
	assert_int_equal(open_result(c, (struct block_opts){.file = in_dir(&d, "disk")}, &e),
			 -ENOTSUP);
	assert_int_equal(access(in_dir(&d, "log"), F_OK), -1);
	make_overlay(c, in_dir(&d, "disk"), "json:{}");
	assert_int_equal(open_result(c, (struct block_opts){.file = in_dir(&d, "disk")}, &e),
			 -ENOTSUP);
	block_ctx_free(c);
	remove_dir(&d);
}

/* --- files that somebody else has opened --- */

/* As in a process that can open none of them: nothing of these names is there. */
static void given_files_are_used_instead_of_opening_them(void **unused)
{
	struct dir d = make_dir();
	struct block_ctx *c = new_ctx(BLOCK_ENGINE_AUTO);
	const char *name[] = {strdup(in_dir(&d, "disk")), strdup(in_dir(&d, "base"))};
	int fd[2];
	const struct block_given given = {2, name, fd};
	struct block_opts o = {.file = name[0], .given = &given};
	struct block *b;
	struct err e;

	make_overlay(c, name[1], NULL);
	make_overlay(c, name[0], "base");
	for (unsigned i = 0; i < 2; i++) {
		fd[i] = open(name[i], i ? O_RDONLY : O_RDWR);
		assert_true(fd[i] >= 0);
		unlink(name[i]);
	}
	b = open_ok(c, o);
	assert_string_equal(block_file(block_backing(b)), name[1]);
	assert_int_equal(block_write(b, 0, "holon", 5), 0);
	close_ok(b);
	assert_int_equal(open_result(c, o, &e), 0); /* and again: they stay ours */
	close(fd[0]);
	fd[0] = open("/dev/null", O_RDONLY);
	assert_int_equal(open_result(c, o, &e), -EBADF);
	assert_non_null(strstr(e.text, "opened for other things"));
	for (unsigned i = 0; i < 2; i++) {
		close(fd[i]);
		free((char *)name[i]);
	}
	block_ctx_free(c);
	remove_dir(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_no_disk_is_refused),
		cmocka_unit_test(a_second_writer_is_refused_and_readers_share),
		cmocka_unit_test(qemu_refuses_what_we_have_and_we_what_it_has),
		cmocka_unit_test(a_chain_that_loops_or_has_no_end_is_refused),
		cmocka_unit_test(a_deep_chain_is_read_to_its_end),
		cmocka_unit_test(given_files_are_used_instead_of_opening_them),
		cmocka_unit_test(test_protocols_are_not_reached_by_a_backing_files_name),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
