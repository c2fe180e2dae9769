/* Requests through the public calls, on every engine and in every cache mode. */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/test.h"
#include "block/image_fixture.h"

#define DISK_BYTES (MIB(3) + 512)

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

/* --- many at a time, and on another thread --- */

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
		cmocka_unit_test(a_range_with_many_pieces_is_one_request),
		cmocka_unit_test(where_io_uring_is_forbidden_threads_do_it),
		cmocka_unit_test(drain_waits_for_all_that_is_in_flight),
		cmocka_unit_test(an_image_opened_on_one_thread_is_used_on_another),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
