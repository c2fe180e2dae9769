/* Disks on NBD servers: qemu-nbd and nbdkit, whichever are installed. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/test.h"
#include "block/block.h"

#define DISK_BYTES MIB(4)

struct bed {
	char dir[64], disk[96], socket[96], uri[160];
	pid_t server;
	struct block_ctx *ctx;
	uint64_t rng;
};

static void init(struct bed *t)
{
	struct err e;

	*t = (struct bed){.dir = "/tmp/holon-nbd-XXXXXX", .rng = 4711};
	assert_non_null(mkdtemp(t->dir));
	snprintf(t->disk, sizeof t->disk, "%s/disk", t->dir);
	snprintf(t->socket, sizeof t->socket, "%s/socket", t->dir);
	snprintf(t->uri, sizeof t->uri, "nbd+unix:///?socket=%s", t->socket);
	assert_int_equal(block_ctx_new(&t->ctx, NULL, BLOCK_ENGINE_AUTO, &e), 0);
	AUTO_CLOSE int fd = open(t->disk, O_RDWR | O_CREAT, 0644);
	assert_int_equal(ftruncate(fd, DISK_BYTES), 0);
}

static bool listens(const struct bed *t)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	AUTO_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	memcpy(a.sun_path, t->socket, sizeof t->socket);
	return connect(fd, (struct sockaddr *)&a, sizeof a) == 0;
}

/* Returns when somebody listens; false: no such program. */
static bool serve(struct bed *t, char *const argv[])
{
	unlink(t->socket);
	t->server = fork();
	assert_true(t->server >= 0);
	if (t->server == 0) {
		int null = open("/dev/null", O_RDWR);

		dup2(null, 1);
		dup2(null, 2);
		execvp(argv[0], argv);
		_exit(127);
	}
	for (unsigned i = 0; i < 1000; i++) {
		if (listens(t))
			return true;
		if (waitpid(t->server, NULL, WNOHANG) == t->server)
			break;
		usleep(10000);
	}
	t->server = 0;
	return false;
}

static bool serve_qemu(struct bed *t, bool read_only)
{
	char *const argv[] = {"qemu-nbd", "-f", "raw",     "-t",    "--discard=unmap",       "-e",
			      "8",        "-k", t->socket, t->disk, read_only ? "-r" : NULL, NULL};

	return serve(t, argv);
}

static bool serve_nbdkit(struct bed *t, char *filter, char *parameter)
{
	char *const argv[] = {"nbdkit", "-f",    "-U",      t->socket, filter,
			      "file",   t->disk, parameter, NULL};

	return serve(t, argv);
}

static void stop_server(struct bed *t)
{
	if (!t->server)
		return;
	kill(t->server, SIGKILL);
	waitpid(t->server, NULL, 0);
	t->server = 0;
}

static void done(struct bed *t)
{
	char command[96];

	stop_server(t);
	block_ctx_free(t->ctx);
	snprintf(command, sizeof command, "rm -r %s", t->dir);
	assert_int_equal(system(command), 0);
}

static struct block *open_uri(struct bed *t)
{
	struct block_opts o = {.file = t->uri, .format = "raw", .discard = true};
	struct block *b = NULL;
	struct err e = {0};

	if (block_open(&b, t->ctx, &o, &e) < 0)
		fail_msg("%s", e.text);
	assert_int_equal(block_size(b), DISK_BYTES);
	return b;
}

static uint64_t pick(struct bed *t, uint64_t below)
{
	t->rng = t->rng * UINT64_C(6364136223846793005) + 1442695040888963407;
	return (t->rng >> 33) % below;
}

struct request {
	struct block_req req;
	struct iovec iov[2];
	int result;
	bool done;
};

static void on_done(struct block_req *r, int result)
{
	container_of(r, struct request, req)->result = result;
	container_of(r, struct request, req)->done = true;
}

/* In two pieces. */
static int transfer(struct block *b, enum block_op op, uint64_t offset, uint8_t *bytes,
		    uint64_t len)
{
	struct request q = {.iov = {{bytes, len / 3}, {bytes + len / 3, len - len / 3}},
			    .req = {.op = op,
				    .offset = offset,
				    .len = len,
				    .iov = q.iov,
				    .iov_count = 2,
				    .done = on_done}};

	block_submit(b, &q.req);
	while (!q.done)
		assert_int_equal(loop_once(block_ctx_loop(block_ctx_of(b))), 0);
	return q.result;
}

static void walk_at_random(struct bed *t, struct block *b, unsigned steps)
{
	static uint8_t want[DISK_BYTES], got[DISK_BYTES];

	assert_int_equal(block_read(b, 0, want, DISK_BYTES), 0);
	while (steps--) {
		uint64_t grain = pick(t, 4) ? 512 : 1, offset = pick(t, DISK_BYTES / grain) * grain;
		uint64_t len = min_u64(DISK_BYTES - offset, (1 + pick(t, 200)) * grain);

		switch (pick(t, 6)) {
		case 0:
			assert_int_equal(block_zero(b, offset, len, pick(t, 2)), 0);
			memset(want + offset, 0, len);
			break;
		case 1:
			assert_int_equal(block_discard(b, offset, len), 0);
			assert_int_equal(block_read(b, offset, want + offset, len), 0);
			break;
		case 2: assert_int_equal(block_flush(b), 0); break;
		case 3:
			assert_int_equal(transfer(b, BLOCK_READ, offset, got, len), 0);
			assert_memory_equal(got, want + offset, len);
			break;
		default:
			memset(want + offset, pick(t, 256), len);
			assert_int_equal(transfer(b, BLOCK_WRITE, offset, want + offset, len), 0);
		}
	}
	assert_int_equal(block_read(b, 0, got, DISK_BYTES), 0);
	assert_memory_equal(got, want, DISK_BYTES);
}

static void walk_and_close(struct bed *t)
{
	struct block *b = open_uri(t);
	struct err e;

	walk_at_random(t, b, 300);
	assert_int_equal(block_close(b, &e), 0);
}

static void a_disk_on_qemu_nbd_is_a_disk(void **unused)
{
	struct bed t;

	init(&t);
	if (serve_qemu(&t, false))
		walk_and_close(&t);
	done(&t);
}

static void a_disk_on_nbdkit_is_a_disk(void **unused)
{
	struct bed t;

	init(&t);
	if (serve_nbdkit(&t, "--filter=fua", "fuamode=emulate"))
		walk_and_close(&t);
	done(&t);
}

static void a_server_may_want_whole_blocks_and_no_zeros_or_trims(void **unused)
{
	struct bed t;

	init(&t);
	if (serve_nbdkit(&t, "--filter=blocksize-policy", "blocksize-minimum=4096"))
		walk_and_close(&t);
	stop_server(&t);
	if (serve_nbdkit(&t, "--filter=nozero", "zeromode=none"))
		walk_and_close(&t);
	done(&t);
}

static void a_read_only_server_is_not_opened_for_writing(void **unused)
{
	struct block_opts o = {.format = "raw"};
	struct block *b = NULL;
	struct bed t;
	struct err e;

	init(&t);
	o.file = t.uri;
	if (serve_qemu(&t, true)) {
		assert_int_equal(block_open(&b, t.ctx, &o, &e), -EROFS);
		o.read_only = true;
		assert_int_equal(block_open(&b, t.ctx, &o, &e), 0);
		assert_int_equal(block_close(b, &e), 0);
	}
	done(&t);
}

static void without_a_server_it_says_so(void **unused)
{
	struct block_opts o = {.format = "raw"};
	struct block *b = NULL;
	struct bed t;
	struct err e;

	init(&t);
	o.file = t.uri;
	assert_true(block_open(&b, t.ctx, &o, &e) < 0);
	assert_non_null(strstr(e.text, t.uri));
	o.file = "nbd://[";
	assert_true(block_open(&b, t.ctx, &o, &e) < 0);
	done(&t);
}

static void what_is_extents_of_the_server_is_seen(void **unused)
{
	static uint8_t data[65536];
	struct block_extent x;
	struct block *b;
	struct bed t;
	struct err e;

	init(&t);
	if (serve_qemu(&t, false)) {
		b = open_uri(&t);
		memset(data, 1, sizeof data);
		assert_int_equal(block_write(b, MIB(1), data, sizeof data), 0);
		assert_int_equal(block_map(b, 0, DISK_BYTES, &x), 0);
		assert_int_equal(x.kind, BLOCK_ZEROES);
		assert_int_equal(x.len, MIB(1));
		assert_int_equal(block_map(b, MIB(1) + 1000, DISK_BYTES, &x), 0);
		assert_int_equal(x.kind, BLOCK_DATA);
		assert_int_equal(x.len, sizeof data - 1000);
		assert_int_equal(block_close(b, &e), 0);
	}
	done(&t);
}

static void a_server_that_comes_back_is_used_again(void **unused)
{
	uint8_t bytes[512], want[512];
	struct block *b;
	struct bed t;
	struct err e;

	init(&t);
	if (serve_qemu(&t, false)) {
		b = open_uri(&t);
		memset(want, 7, sizeof want);
		assert_int_equal(block_write(b, 512, want, 512), 0);
		for (unsigned i = 0; i < 3; i++) {
			stop_server(&t);
			assert_true(serve_qemu(&t, false));
			assert_int_equal(block_read(b, 512, bytes, 512), 0);
			assert_memory_equal(bytes, want, 512);
		}
		assert_int_equal(block_close(b, &e), 0);
	}
	done(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_disk_on_qemu_nbd_is_a_disk),
		cmocka_unit_test(a_disk_on_nbdkit_is_a_disk),
		cmocka_unit_test(a_server_may_want_whole_blocks_and_no_zeros_or_trims),
		cmocka_unit_test(a_read_only_server_is_not_opened_for_writing),
		cmocka_unit_test(without_a_server_it_says_so),
		cmocka_unit_test(what_is_extents_of_the_server_is_seen),
		cmocka_unit_test(a_server_that_comes_back_is_used_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
