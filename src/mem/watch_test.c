#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "base/test.h"
#include "mem/mem.h"

/* A writer and a watcher that do not wait for each other: for each value written, the watcher has
 * read it, or is told. */
#define ROUNDS 200000u
#define PAGE   0x5000u

struct race {
	struct mem_watch watch;
	struct guest_mem *m;
	_Atomic uint32_t *word; /* in guest RAM */
	atomic_uint told;
	atomic_bool done;
};

static void note(struct mem_watch *w, gpa_t gpa)
{
	struct race *r = container_of(w, struct race, watch);

	assert_int_equal(gpa, PAGE);
	atomic_fetch_add(&r->told, 1);
}

static void *write_values(void *arg)
{
	struct race *r = arg;

	for (uint32_t v = 1; v <= ROUNDS; v++) {
		atomic_store_explicit(r->word, v, memory_order_relaxed);
		mem_written(r->m, (void *)r->word, 4);
	}
	atomic_store(&r->done, true);
	return NULL;
}

static void what_is_written_is_read_or_told(void **state)
{
	struct race r = {.watch.written = note};
	uint32_t read = 0;
	unsigned told = 0;
	pthread_t writer;
	struct err e;

	assert_int_equal(mem_new(&r.m, MIB(1), &e), 0);
	r.word = mem_span(r.m, PAGE, 4);
	mem_watch(r.m, &r.watch);
	mem_mark(r.m, PAGE);
	assert_int_equal(pthread_create(&writer, NULL, write_values, &r), 0);
	while (!atomic_load(&r.done)) {
		unsigned now = atomic_load(&r.told);

		if (now == told)
			continue;
		told = now;
		mem_mark(r.m, PAGE);
		read = atomic_load_explicit(r.word, memory_order_relaxed);
	}
	pthread_join(writer, NULL);
	if (atomic_load(&r.told) == told)
		assert_int_equal(read, ROUNDS);
	mem_watch(r.m, NULL);
	mem_free(r.m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(what_is_written_is_read_or_told)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
