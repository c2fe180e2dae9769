/* Whole images through the public calls, on every engine and in every cache mode. */
#include "block/block.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/test.h"

#define DISK_BYTES (MIB(3) + 512)

struct dir {
	char path[64];
};

static struct dir make_dir(void)
{
	struct dir d = {"/tmp/holon-block-XXXXXX"};

	assert_non_null(mkdtemp(d.path));
	return d;
}

/* Good until the 16th call from here. */
static const char *in_dir(const struct dir *d, const char *name)
{
	static _Thread_local char path[16][128];
	static _Thread_local unsigned turn;
	char *p = path[turn++ % 16];

	snprintf(p, sizeof path[0], "%s/%s", d->path, name);
	return p;
}

static void remove_dir(const struct dir *d)
{
	char command[96];

	snprintf(command, sizeof command, "rm -rf %s", d->path);
	assert_int_equal(system(command), 0);
}

static struct block_ctx *new_ctx(enum block_engine engine)
{
	struct block_ctx *c = NULL;
	struct err e = {0};

	if (block_ctx_new(&c, NULL, engine, &e) < 0 && engine == BLOCK_ENGINE_URING)
		return NULL; /* forbidden here */
	assert_non_null(c);
	return c;
}

static void make_raw(const char *path, uint64_t size)
{
	AUTO_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, size), 0);
}

static struct block *open_ok(struct block_ctx *c, struct block_opts o)
{
	struct block *b = NULL;
	struct err e = {0};

	if (block_open(&b, c, &o, &e) < 0)
		fail_msg("%s", e.text);
	return b;
}

static void close_ok(struct block *b)
{
	struct err e = {0};

	if (block_close(b, &e) < 0)
		fail_msg("%s", e.text);
}

/* --- a disk and what it should hold --- */

struct model {
	struct block *disk;
	uint64_t size, rng;
	uint8_t *want, *got;
};

static uint64_t next_random(struct model *m)
{
	m->rng ^= m->rng << 13;
	m->rng ^= m->rng >> 7;
	m->rng ^= m->rng << 17;
	return m->rng;
}

static uint64_t pick(struct model *m, uint64_t below)
{
	return below ? next_random(m) % below : 0;
}

/* Mostly sectors, also pages and odd bytes; mostly short. */
static void pick_range(struct model *m, uint64_t *offset, uint64_t *len)
{
	static const unsigned grains[] = {512, 512, 4096, 1, 65536};
	unsigned grain = grains[pick(m, ARRAY_SIZE(grains))];

	*offset = pick(m, m->size / grain) * grain;
	*len = min_u64((1 + pick(m, pick(m, 8) ? 16 : 300)) * grain, m->size - *offset);
}

#define PIECES 7
/* Cuts buf into pieces at odd places. */
static unsigned cut(struct model *m, uint8_t *buf, uint64_t len, struct iovec iov[PIECES])
{
	unsigned n = 0;

	while (n < PIECES - 1 && len > 1 && pick(m, 2)) {
		uint64_t piece = 1 + pick(m, len - 1);

		if (pick(m, 2))
			piece = max_u64(align_down(piece, 512), min_u64(len, 512));
		iov[n++] = (struct iovec){buf, piece};
		buf += piece;
		len -= piece;
	}
	if (len)
		iov[n++] = (struct iovec){buf, len};
	return n;
}

struct request {
	struct block_req req;
	struct iovec iov[PIECES];
	int result;
	bool done;
};

static void on_done(struct block_req *r, int result)
{
	struct request *q = container_of(r, struct request, req);

	q->result = result;
	q->done = true;
}

static void submit(struct request *q, struct block *b)
{
	q->done = false;
	q->req.done = on_done;
	block_submit(b, &q->req);
}

static int finish(struct request *q, struct block *b)
{
	while (!q->done)
		assert_int_equal(loop_once(block_ctx_loop(block_ctx_of(b))), 0);
	return q->result;
}

static void random_bytes(struct model *m, uint8_t *to, uint64_t len)
{
	uint8_t base = next_random(m);

	for (uint64_t i = 0; i < len; i++)
		to[i] = base + i * 7 + (i >> 9);
}

static void write_random(struct model *m)
{
	struct request q = {.req.op = BLOCK_WRITE};

	pick_range(m, &q.req.offset, &q.req.len);
	random_bytes(m, m->want + q.req.offset, q.req.len);
	q.req.iov = q.iov;
	q.req.iov_count = cut(m, m->want + q.req.offset, q.req.len, q.iov);
	q.req.flags = pick(m, 8) ? 0 : BLOCK_FUA;
	submit(&q, m->disk);
	assert_int_equal(finish(&q, m->disk), 0);
}

/* Next to each other, so that they share blocks, and at the same time. */
static void write_neighbours(struct model *m)
{
	struct request q[5];
	uint64_t at = pick(m, m->size - 5 * 3000);

	for (unsigned i = 0; i < ARRAY_SIZE(q); i++) {
		uint64_t len = 1 + pick(m, 3000);

		random_bytes(m, m->want + at, len);
		q[i] = (struct request){.iov = {{m->want + at, len}},
					.req = {.op = BLOCK_WRITE,
						.offset = at,
						.len = len,
						.iov = q[i].iov,
						.iov_count = 1}};
		submit(&q[i], m->disk);
		at += len;
	}
	for (unsigned i = 0; i < ARRAY_SIZE(q); i++)
		assert_int_equal(finish(&q[i], m->disk), 0);
}

static void read_and_compare(struct model *m, uint64_t offset, uint64_t len)
{
	struct request q = {.req = {.op = BLOCK_READ, .offset = offset, .len = len, .iov = q.iov}};

	memset(m->got + offset, 0xa5, len);
	q.req.iov_count = cut(m, m->got + offset, len, q.iov);
	submit(&q, m->disk);
	assert_int_equal(finish(&q, m->disk), 0);
	assert_memory_equal(m->got + offset, m->want + offset, len);
}

static void read_random(struct model *m)
{
	uint64_t offset, len;

	pick_range(m, &offset, &len);
	read_and_compare(m, offset, len);
}

static void zero_random(struct model *m)
{
	uint64_t offset, len;

	pick_range(m, &offset, &len);
	assert_int_equal(block_zero(m->disk, offset, len, pick(m, 2) ? BLOCK_UNMAP : 0), 0);
	memset(m->want + offset, 0, len);
}

/* What is discarded reads as anything; take up what it is. */
static void discard_random(struct model *m)
{
	uint64_t offset, len;

	pick_range(m, &offset, &len);
	assert_int_equal(block_discard(m->disk, offset, len), 0);
	assert_int_equal(block_read(m->disk, offset, m->want + offset, len), 0);
}

static void flush_it(struct model *m)
{
	assert_int_equal(block_flush(m->disk), 0);
}

static void walk_at_random(struct model *m, unsigned steps)
{
	static void (*const step[])(struct model * m) = {
		write_random, write_random, write_neighbours, read_random,
		read_random,  zero_random,  discard_random,   flush_it,
	};

	while (steps--)
		step[pick(m, ARRAY_SIZE(step))](m);
	read_and_compare(m, 0, m->size);
}

static struct model new_model(struct block *b, uint64_t seed)
{
	struct model m = {.disk = b, .size = block_size(b), .rng = seed};

	m.want = calloc(1, m.size);
	m.got = malloc(m.size);
	assert_true(m.want && m.got);
	return m;
}

static void free_model(struct model *m)
{
	free(m->want);
	free(m->got);
}

static void check_mode(const struct dir *d, enum block_engine engine, enum block_cache cache)
{
	struct block_opts o = {
		.file = in_dir(d, "disk"), .format = "raw", .cache = cache, .discard = true};
	struct block_ctx *c = new_ctx(engine);
	struct model m;

	if (!c)
		return;
	make_raw(o.file, DISK_BYTES);
	m = new_model(open_ok(c, o), 88172645463325252ull + engine * 16 + cache);
	walk_at_random(&m, 400);
	close_ok(m.disk);
	/* What a new open sees is what was there. */
	m.disk = open_ok(c, o);
	assert_int_equal(block_size(m.disk), DISK_BYTES);
	read_and_compare(&m, 0, m.size);
	close_ok(m.disk);
	block_ctx_free(c);
	free_model(&m);
}

static void random_operations_match_a_flat_model(void **unused)
{
	struct dir d = make_dir();

	for (int cache = BLOCK_CACHE_NONE; cache <= BLOCK_CACHE_UNSAFE; cache++) {
		check_mode(&d, BLOCK_ENGINE_URING, cache);
		check_mode(&d, BLOCK_ENGINE_THREADS, cache);
	}
	remove_dir(&d);
}

/* --- raw files --- */

static void a_file_that_ends_inside_a_sector_reads_as_zeros_there(void **unused)
{
	struct dir d = make_dir();
	struct block_ctx *c = new_ctx(BLOCK_ENGINE_AUTO);
	struct block_opts o = {.file = in_dir(&d, "disk"), .format = "raw"};
	uint8_t sector[512], want[512] = {0};
	struct block *b;

	make_raw(o.file, 0);
	AUTO_CLOSE int fd = open(o.file, O_WRONLY);
	assert_int_equal(write(fd, "abc", 3), 3);
	b = open_ok(c, o);
	assert_int_equal(block_size(b), 512);
	assert_int_equal(block_read(b, 0, sector, sizeof sector), 0);
	memcpy(want, "abc", 3);
	assert_memory_equal(sector, want, sizeof want);
	close_ok(b);
	block_ctx_free(c);
	remove_dir(&d);
}

static void a_file_that_was_cut_gives_errors_not_zeros(void **unused)
{
	struct dir d = make_dir();
	struct block_ctx *c = new_ctx(BLOCK_ENGINE_AUTO);

	for (int cache = BLOCK_CACHE_NONE; cache <= BLOCK_CACHE_WRITEBACK; cache++) {
		struct block_opts o = {.file = in_dir(&d, "disk"), .format = "raw", .cache = cache};
		uint8_t bytes[8192];
		struct block *b;

		make_raw(o.file, MIB(1));
		b = open_ok(c, o);
		assert_int_equal(truncate(o.file, MIB(1) / 2), 0);
		assert_int_equal(block_read(b, MIB(1) / 2 - 4096, bytes, 8192), -EIO);
		assert_int_equal(block_read(b, MIB(1) - 4096, bytes, 4096), -EIO);
		assert_int_equal(block_read(b, 0, bytes, 8192), 0);
		close_ok(b);
	}
	block_ctx_free(c);
	remove_dir(&d);
}

static void what_is_outside_of_the_disk_is_refused(void **unused)
{
	struct dir d = make_dir();
	struct block_ctx *c = new_ctx(BLOCK_ENGINE_AUTO);
	struct block_opts o = {.file = in_dir(&d, "disk"), .format = "raw"};
	uint8_t bytes[1024] = {0};
	struct block *b;

	make_raw(o.file, MIB(1));
	b = open_ok(c, o);
	assert_int_equal(block_read(b, MIB(1) - 512, bytes, 1024), -EINVAL);
	assert_int_equal(block_write(b, MIB(1), bytes, 1), -EINVAL);
	assert_int_equal(block_write(b, UINT64_MAX - 511, bytes, 1024), -EINVAL);
	assert_int_equal(block_zero(b, 512, UINT64_MAX, 0), -EINVAL);
	assert_int_equal(block_discard(b, MIB(2), 512), -EINVAL);
	assert_int_equal(block_write(b, MIB(1), bytes, 0), 0);
	close_ok(b);
	o.read_only = true;
	b = open_ok(c, o);
	assert_int_equal(block_write(b, 0, bytes, 512), -EROFS);
	assert_int_equal(block_zero(b, 0, 512, 0), -EROFS);
	assert_int_equal(block_discard(b, 0, 512), -EROFS);
	assert_int_equal(block_read(b, 0, bytes, 512), 0);
	close_ok(b);
	block_ctx_free(c);
	remove_dir(&d);
}

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

static void a_range_with_many_pieces_is_one_request(void **unused)
{
	enum { N = 1000 };
	struct dir d = make_dir();
	struct block_ctx *c = new_ctx(BLOCK_ENGINE_AUTO);
	struct block_opts o = {.file = in_dir(&d, "disk"), .format = "raw"};
	static uint8_t want[N * 512], got[N * 512];
	static struct iovec iov[N];
	struct request q = {.req = {.op = BLOCK_WRITE,
				    .offset = 512,
				    .len = sizeof want,
				    .iov = iov,
				    .iov_count = N}};
	struct block *b;

	make_raw(o.file, MIB(1));
	b = open_ok(c, o);
	for (unsigned i = 0; i < N; i++) {
		memset(want + i * 512, i, 512);
		iov[i] = (struct iovec){want + i * 512, 512};
	}
	submit(&q, b);
	assert_int_equal(finish(&q, b), 0);
	for (unsigned i = 0; i < N; i++)
		iov[i].iov_base = got + i * 512;
	q.req.op = BLOCK_READ;
	submit(&q, b);
	assert_int_equal(finish(&q, b), 0);
	assert_memory_equal(got, want, sizeof want);
	close_ok(b);
	block_ctx_free(c);
	remove_dir(&d);
}

static void map_tells_data_from_holes(void **unused)
{
	struct dir d = make_dir();
	struct block_ctx *c = new_ctx(BLOCK_ENGINE_AUTO);
	struct block_opts o = {
		.file = in_dir(&d, "disk"), .format = "raw", .discard = true, .cache = 1};
	static uint8_t data[65536];
	struct block_extent x;
	struct block *b;

	make_raw(o.file, MIB(1));
	memset(data, 1, sizeof data);
	b = open_ok(c, o);
	assert_int_equal(block_write(b, 131072, data, sizeof data), 0);
	assert_int_equal(block_map(b, 0, MIB(1), &x), 0);
	assert_int_equal(x.kind, BLOCK_ZEROES);
	assert_int_equal(x.len, 131072);
	assert_int_equal(block_map(b, 131072, MIB(4), &x), 0);
	assert_int_equal(x.kind, BLOCK_DATA);
	assert_int_equal(x.len, 65536);
	assert_int_equal(x.host_offset, 131072);
	assert_int_equal(block_discard(b, 131072, 65536), 0);
	assert_int_equal(block_map(b, 0, MIB(1), &x), 0);
	assert_int_equal(x.kind, BLOCK_ZEROES);
	assert_int_equal(x.len, MIB(1));
	assert_int_equal(block_map(b, MIB(1), 512, &x), -EINVAL);
	close_ok(b);
	block_ctx_free(c);
	remove_dir(&d);
}

static void create_and_resize(void **unused)
{
	struct dir d = make_dir();
	struct block_ctx *c = new_ctx(BLOCK_ENGINE_AUTO);
	struct block_create_opts make = {.file = in_dir(&d, "disk"), .format = "raw", .size = 1000};
	struct block_opts o = {.file = make.file, .format = "raw"};
	uint8_t bytes[512], zeros[512] = {0};
	struct stat s;
	struct err e;
	struct block *b;

	assert_int_equal(block_create(c, &make, &e), 0);
	b = open_ok(c, o);
	assert_int_equal(block_size(b), 1024);
	assert_int_equal(block_resize(b, MIB(2), BLOCK_PREALLOC_FALLOC, &e), 0);
	assert_int_equal(block_size(b), MIB(2));
	assert_int_equal(block_read(b, MIB(2) - 512, bytes, 512), 0);
	assert_memory_equal(bytes, zeros, 512);
	assert_int_equal(stat(o.file, &s), 0);
	assert_true(s.st_blocks * 512 >= (blkcnt_t)MIB(1));
	assert_int_equal(block_resize(b, 512, BLOCK_PREALLOC_OFF, &e), 0);
	assert_int_equal(block_size(b), 512);
	close_ok(b);
	/* A file that was there is made anew, unless somebody uses it. */
	make.size = 4096;
	assert_int_equal(block_create(c, &make, &e), 0);
	b = open_ok(c, o);
	assert_int_equal(block_size(b), 4096);
	assert_int_equal(block_create(c, &make, &e), -EAGAIN);
	close_ok(b);
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

/* --- where io_uring is forbidden --- */

static void forbid_io_uring(void)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_io_uring_setup, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {ARRAY_SIZE(filter), filter};

	assert_int_equal(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	assert_int_equal(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
}

static int open_without_io_uring(void)
{
	struct block_ctx *c = NULL;
	struct err e;

	forbid_io_uring();
	if (block_ctx_new(&c, NULL, BLOCK_ENGINE_URING, &e) != -EPERM)
		return 1;
	if (block_ctx_new(&c, NULL, BLOCK_ENGINE_AUTO, &e) != 0)
		return 2;
	return strcmp(block_ctx_engine(c), "threads") ? 3 : 0;
}

static void where_io_uring_is_forbidden_threads_do_it(void **unused)
{
	pid_t child = fork();
	int status;

	if (child == 0)
		_exit(open_without_io_uring());
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
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

/* --- guessing --- */

static void what_was_guessed_to_be_raw_stays_raw(void **unused)
{
	struct dir d = make_dir();
	struct block_ctx *c = new_ctx(BLOCK_ENGINE_AUTO);
	struct block_opts o = {.file = in_dir(&d, "disk")};
	uint8_t head[1024] = "KDMV";
	struct block *b;

	make_raw(o.file, MIB(1));
	b = open_ok(c, o);
	assert_string_equal(block_format(b), "raw");
	assert_int_equal(block_write(b, 0, head, sizeof head), -EPERM);
	assert_int_equal(block_write(b, 0, head, 2), 0);
	assert_int_equal(block_write(b, 2, head + 2, 2), -EPERM); /* in two steps */
	assert_int_equal(block_zero(b, 0, 512, 0), 0);
	head[0] = 'M';
	assert_int_equal(block_write(b, 0, head, sizeof head), 0);
	close_ok(b);
	o.format = "raw";
	b = open_ok(c, o);
	head[0] = 'K';
	assert_int_equal(block_write(b, 0, head, sizeof head), 0);
	close_ok(b);
	block_ctx_free(c);
	remove_dir(&d);
}

/* --- asynchronous --- */

static void note_drained(void *ctx)
{
	*(bool *)ctx = true;
}

static void drain_waits_for_all_that_is_in_flight(void **unused)
{
	enum { N = 300 }; /* more than the ring has room for */
	struct dir d = make_dir();
	static struct request q[N];
	static uint8_t bytes[N][4096];

	for (int engine = BLOCK_ENGINE_AUTO; engine <= BLOCK_ENGINE_THREADS; engine++) {
		struct block_ctx *c = new_ctx(engine);
		struct block_opts o = {.file = in_dir(&d, "disk"), .format = "raw"};
		bool drained = false;
		struct block *b;

		if (!c)
			continue;
		make_raw(o.file, N * 4096);
		b = open_ok(c, o);
		for (unsigned i = 0; i < N; i++) {
			q[i] = (struct request){.iov = {{bytes[i], 4096}},
						.req = {.op = BLOCK_READ,
							.offset = i * 4096,
							.len = 4096,
							.iov = q[i].iov,
							.iov_count = 1}};
			submit(&q[i], b);
		}
		block_drain(b, note_drained, &drained);
		while (!drained)
			assert_int_equal(loop_once(block_ctx_loop(c)), 0);
		for (unsigned i = 0; i < N; i++)
			assert_true(q[i].done && q[i].result == 0);
		assert_int_equal(block_in_flight(b), 0);
		close_ok(b);
		block_ctx_free(c);
	}
	remove_dir(&d);
}

static void *walk_there(void *arg)
{
	walk_at_random(arg, 60);
	return NULL;
}

static void an_image_opened_on_one_thread_is_used_on_another(void **unused)
{
	struct dir d = make_dir();
	struct loop *l = NULL;
	struct err e;

	for (int engine = BLOCK_ENGINE_AUTO; engine <= BLOCK_ENGINE_THREADS; engine++) {
		struct block_opts o = {.file = in_dir(&d, "disk"), .format = "raw"};
		struct block_ctx *c = NULL;
		struct model m;
		pthread_t thread;

		assert_int_equal(loop_new(&l, &e), 0);
		if (block_ctx_new(&c, l, engine, &e) == 0) {
			make_raw(o.file, MIB(1));
			m = new_model(open_ok(c, o), 12345);
			assert_int_equal(pthread_create(&thread, NULL, walk_there, &m), 0);
			pthread_join(thread, NULL);
			close_ok(m.disk);
			free_model(&m);
			block_ctx_free(c);
		}
		loop_free(l);
	}
	remove_dir(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_operations_match_a_flat_model),
		cmocka_unit_test(a_file_that_ends_inside_a_sector_reads_as_zeros_there),
		cmocka_unit_test(a_file_that_was_cut_gives_errors_not_zeros),
		cmocka_unit_test(what_is_outside_of_the_disk_is_refused),
		cmocka_unit_test(what_is_no_disk_is_refused),
		cmocka_unit_test(a_range_with_many_pieces_is_one_request),
		cmocka_unit_test(map_tells_data_from_holes),
		cmocka_unit_test(create_and_resize),
		cmocka_unit_test(a_second_writer_is_refused_and_readers_share),
		cmocka_unit_test(qemu_refuses_what_we_have_and_we_what_it_has),
		cmocka_unit_test(where_io_uring_is_forbidden_threads_do_it),
		cmocka_unit_test(a_chain_that_loops_or_has_no_end_is_refused),
		cmocka_unit_test(a_deep_chain_is_read_to_its_end),
		cmocka_unit_test(test_protocols_are_not_reached_by_a_backing_files_name),
		cmocka_unit_test(what_was_guessed_to_be_raw_stays_raw),
		cmocka_unit_test(drain_waits_for_all_that_is_in_flight),
		cmocka_unit_test(an_image_opened_on_one_thread_is_used_on_another),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
