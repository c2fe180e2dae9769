#include "mem/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/test.h"

static struct guest_mem *new_mem(uint64_t bytes)
{
	struct guest_mem *m = NULL;
	struct err e;

	assert_int_equal(mem_new(&m, bytes, &e), 0);
	return m;
}

static void small_ram_is_one_region_from_zero(void **unused)
{
	struct guest_mem *m = new_mem(MIB(1) + 1);
	const struct mem_region *r;

	assert_int_equal(mem_size(m), MIB(1) + 4096);
	assert_int_equal(mem_regions(m, &r), 1);
	assert_int_equal(r[0].gpa, 0);
	assert_int_equal(r[0].size, MIB(1) + 4096);
	mem_free(m);
}

static void ram_past_the_hole_continues_at_4g(void **unused)
{
	struct guest_mem *m = new_mem(GIB(5));
	const struct mem_region *r;

	assert_int_equal(mem_regions(m, &r), 2);
	assert_int_equal(r[0].size, MEM_LOW_MAX);
	assert_int_equal(r[1].gpa, GIB(4));
	assert_int_equal(r[1].size, GIB(5) - MEM_LOW_MAX);
	assert_int_equal(r[1].fd_offset, MEM_LOW_MAX);
	assert_null(mem_span(m, MEM_LOW_MAX, 1));
	assert_null(mem_span(m, GIB(4) - 1, 1));
	assert_non_null(mem_span(m, GIB(4), GIB(5) - MEM_LOW_MAX));
	mem_free(m);
}

static void what_is_written_is_read_and_stands_in_the_file(void **unused)
{
	struct guest_mem *m = new_mem(GIB(4));
	uint32_t v = 0x11223344, got = 0, in_file = 0;

	assert_int_equal(mem_write(m, GIB(4) + 0x1000, &v, sizeof v), 0);
	assert_int_equal(mem_read(m, GIB(4) + 0x1000, &got, sizeof got), 0);
	assert_int_equal(got, v);
	assert_int_equal(pread(mem_fd(m), &in_file, 4, MEM_LOW_MAX + 0x1000), 4);
	assert_int_equal(in_file, v);
	mem_free(m);
}

static void fresh_ram_is_zero(void **unused)
{
	struct guest_mem *m = new_mem(MIB(1));
	uint64_t v = 1;

	assert_int_equal(mem_read(m, MIB(1) - 8, &v, 8), 0);
	assert_int_equal(v, 0);
	mem_free(m);
}

struct watch {
	struct mem_watch base;
	gpa_t gpa[8];
	unsigned n;
};

static void note(struct mem_watch *base, gpa_t gpa)
{
	struct watch *w = container_of(base, struct watch, base);

	if (w->n < 8)
		w->gpa[w->n] = gpa;
	w->n++;
}

static void a_write_to_a_marked_page_is_told_once(void **unused)
{
	struct guest_mem *m = new_mem(MIB(1));
	struct watch w = {.base.written = note};

	mem_watch(m, &w.base);
	mem_mark(m, 0x5000);
	assert_int_equal(mem_write(m, 0x4fff, "a", 1), 0);
	assert_int_equal(mem_write(m, 0x6000, "a", 1), 0);
	assert_int_equal(w.n, 0);
	assert_int_equal(mem_write(m, 0x4fff, "ab", 2), 0);
	assert_int_equal(mem_write(m, 0x5800, "a", 1), 0);
	assert_int_equal(w.n, 1);
	assert_int_equal(w.gpa[0], 0x5000);
	mem_mark(m, 0x5000);
	mem_unmark(m, 0x5000);
	assert_int_equal(mem_write(m, 0x5800, "a", 1), 0);
	mem_mark(m, 0x5000);
	mem_watch(m, NULL);
	assert_int_equal(mem_write(m, 0x5800, "a", 1), 0);
	assert_int_equal(w.n, 1);
	mem_free(m);
}

static void all_marked_pages_of_a_long_write_are_told(void **unused)
{
	struct guest_mem *m = new_mem(GIB(4));
	struct watch w = {.base.written = note};
	gpa_t end = GIB(4) + MIB(1);

	mem_watch(m, &w.base);
	mem_mark(m, GIB(4));
	mem_mark(m, GIB(4) + 63 * 4096);
	mem_mark(m, GIB(4) + 64 * 4096);
	mem_mark(m, end - 4096);
	mem_mark(m, end);
	mem_mark(m, MEM_LOW_MAX - 4096);
	mem_written(m, mem_span(m, GIB(4), MIB(1)), MIB(1));
	assert_int_equal(w.n, 4);
	assert_int_equal(w.gpa[0], GIB(4));
	assert_int_equal(w.gpa[1], GIB(4) + 63 * 4096);
	assert_int_equal(w.gpa[2], GIB(4) + 64 * 4096);
	assert_int_equal(w.gpa[3], end - 4096);
	mem_written(m, mem_span(m, 0, MEM_LOW_MAX), MEM_LOW_MAX);
	assert_int_equal(w.n, 5);
	assert_int_equal(w.gpa[4], MEM_LOW_MAX - 4096);
	mem_free(m);
}

static uint64_t blocks_of(const struct guest_mem *m)
{
	struct stat st;

	assert_int_equal(fstat(mem_fd(m), &st), 0);
	return (uint64_t)st.st_blocks;
}

static void discarded_pages_go_back_to_the_host_and_read_as_zeros(void **unused)
{
	static const gpa_t at[] = {0x10000, GIB(4) + 0x20000};
	struct guest_mem *m = new_mem(GIB(4));
	struct watch w = {.base.written = note};
	uint64_t before;
	uint8_t *p;

	mem_watch(m, &w.base);
	for (unsigned i = 0; i < 2; i++) {
		/* huge pages would go back only as a whole */
		madvise(mem_span(m, at[i] & ~(MIB(2) - 1), MIB(2)), MIB(2), MADV_NOHUGEPAGE);
		p = mem_span(m, at[i], 4 * 4096);
		memset(p, 'x', 4 * 4096);
		mem_mark(m, at[i] + 4096);
		before = blocks_of(m);
		assert_int_equal(mem_discard(m, at[i] + 1, 4 * 4096 - 2), 0);
		assert_true(blocks_of(m) < before);
		assert_int_equal(p[4095], 'x');
		assert_int_equal(p[4096], 0);
		assert_int_equal(p[3 * 4096 - 1], 0);
		assert_int_equal(p[3 * 4096], 'x');
		assert_int_equal(w.gpa[i], at[i] + 4096);
	}
	assert_int_equal(mem_discard(m, 0x1800, 0x900), 0); /* holds no whole page */
	assert_int_equal(mem_discard(m, MEM_LOW_MAX - 4096, 8192), -EFAULT);
	assert_int_equal(mem_discard(m, UINT64_MAX - 4095, 4096), -EFAULT);
	mem_free(m);
}

static void a_span_that_leaves_ram_is_refused(void **unused)
{
	struct guest_mem *m = new_mem(MIB(1));
	char byte = 'x';

	assert_non_null(mem_span(m, MIB(1) - 1, 1));
	assert_null(mem_span(m, MIB(1) - 1, 2));
	assert_null(mem_span(m, MIB(1), 1));
	assert_null(mem_span(m, MIB(1), 0));
	assert_non_null(mem_span(m, MIB(1) - 1, 0));
	assert_null(mem_span(m, 0x1000, UINT64_MAX));
	assert_null(mem_span(m, 0x1000, UINT64_MAX - 0xfff));
	assert_null(mem_span(m, UINT64_MAX, 1));
	assert_null(mem_span(m, UINT64_MAX, 2));
	assert_int_equal(mem_read(m, MIB(1) - 1, &byte, 2), -EFAULT);
	assert_int_equal(mem_write(m, MIB(1), &byte, 1), -EFAULT);
	assert_int_equal(byte, 'x');
	mem_free(m);
}

static void sizes_out_of_range_are_refused_in_words(void **unused)
{
	struct guest_mem *m = NULL;
	struct err e;

	assert_int_equal(mem_new(&m, 4096, &e), -EINVAL);
	assert_string_equal(e.text, "guest RAM of 4 KiB: must be 1 MiB to 64 TiB");
	assert_int_equal(mem_new(&m, UINT64_MAX, &e), -EINVAL);
	assert_null(m);
	mem_free(NULL);
}

static void nobody_can_cut_the_file(void **unused)
{
	struct guest_mem *m = new_mem(MIB(1));

	assert_int_equal(ftruncate(mem_fd(m), 4096), -1);
	assert_int_equal(errno, EPERM);
	assert_true(fcntl(mem_fd(m), F_GETFD) & FD_CLOEXEC);
	mem_free(m);
}

/* The signal that touching p ends a child with; 0: none. */
static int signal_of_touching(const volatile uint8_t *p)
{
	pid_t pid = fork();
	int status = 0;

	if (pid == 0) {
		signal(SIGSEGV, SIG_DFL);
		signal(SIGBUS, SIG_DFL);
		(void)*p;
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void guards_stand_around_each_region(void **unused)
{
	struct guest_mem *m = new_mem(GIB(4));
	const struct mem_region *r;
	unsigned n = mem_regions(m, &r);

	for (unsigned i = 0; i < n; i++) {
		assert_int_equal((uintptr_t)r[i].hva % MIB(2), 0);
		assert_int_equal(signal_of_touching(r[i].hva), 0);
		assert_int_equal(signal_of_touching(r[i].hva - 1), SIGSEGV);
		assert_int_equal(signal_of_touching(r[i].hva + r[i].size), SIGSEGV);
	}
	mem_free(m);
}

/* What of the mapping at hva, in KiB, is in huge pages. */
static unsigned huge_kib(const void *hva)
{
	FILE *f = fopen("/proc/self/smaps", "re");
	unsigned long start, end;
	unsigned kib, found = 0;
	bool here = false;
	char line[256];

	assert_non_null(f);
	while (fgets(line, sizeof line, f)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			here = (uintptr_t)hva >= start && (uintptr_t)hva < end;
		else if (here && sscanf(line, "ShmemPmdMapped: %u kB", &kib) == 1)
			found = kib;
	}
	fclose(f);
	return found;
}

static bool host_collapses(void)
{
	int fd = memfd_create("probe", MFD_CLOEXEC);
	uint8_t *p, *at;
	bool can;

	assert_int_equal(ftruncate(fd, MIB(4)), 0);
	p = mmap(NULL, MIB(8), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	at = (uint8_t *)align_up((uintptr_t)p, MIB(2));
	assert_ptr_equal(mmap(at, MIB(4), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0),
			 at);
	memset(at, 1, MIB(4));
	can = madvise(at, MIB(2), 25 /* MADV_COLLAPSE */) == 0;
	munmap(p, MIB(8));
	close(fd);
	return can;
}

static void used_memory_becomes_huge_and_stays_the_same(void **unused)
{
	struct guest_mem *m = new_mem(MIB(8));
	uint8_t *p = mem_span(m, 0, MIB(8));

	if (!host_collapses()) {
		mem_free(m);
		skip();
	}
	for (unsigned i = 0; i < MIB(4); i++)
		p[MIB(2) + i] = (uint8_t)(i * 7 ^ i >> 11);
	assert_int_equal(huge_kib(p), 0);
	mem_want_huge(m, p + MIB(4) - 4096, 8192); /* on both sides of a border */
	for (unsigned i = 0; i < MIB(4); i++)
		assert_int_equal(p[MIB(2) + i], (uint8_t)(i * 7 ^ i >> 11));
	assert_int_equal(huge_kib(p), 4096);
	mem_free(m);
}

static void memory_is_made_huge_with_its_gaps(void **unused)
{
	struct guest_mem *m = new_mem(MIB(7));
	uint8_t *p = mem_span(m, 0, MIB(7));

	if (!host_collapses()) {
		mem_free(m);
		skip();
	}
	memset(p + MIB(2) + 4096, 7, 4096);
	assert_true(mem_make_huge(m, MIB(3)));
	assert_int_equal(huge_kib(p), 2048);
	for (unsigned i = 0; i < MIB(2); i++)
		assert_int_equal(p[MIB(2) + i], i / 4096 == 1 ? 7 : 0);
	p[MIB(6)] = 1;
	for (unsigned i = 0; i < 20; i++)
		assert_false(mem_make_huge(m, MIB(6))); /* RAM ends there */
	memset(p, 1, 4096);
	assert_true(mem_make_huge(m, 0));
	mem_free(m);
}

static void unused_memory_does_not_become_huge(void **unused)
{
	struct guest_mem *m = new_mem(MIB(8));
	uint8_t *p = mem_span(m, 0, MIB(8));
	struct stat st;

	memset(p, 1, MIB(1));
	for (unsigned i = 0; i < 1000; i++)
		mem_want_huge(m, p, MIB(8));
	assert_int_equal(fstat(mem_fd(m), &st), 0);
	assert_int_equal(st.st_blocks * 512, MIB(1));
	mem_free(m);
}

static void a_rom_ends_at_4_gib_and_is_no_ram(void **state)
{
	const struct mem_region *rom;
	struct guest_mem *m;

	assert_int_equal(mem_new_with_rom(&m, MIB(1), KIB(8), NULL), 0);
	rom = mem_rom(m);
	assert_non_null(rom);
	assert_int_equal(rom->gpa, GIB(4) - KIB(8));
	assert_int_equal(rom->size, KIB(8));
	rom->hva[0] = 0x42;
	rom->hva[KIB(8) - 1] = 0x43;
	assert_null(mem_ram(m, rom->gpa, 1));
	assert_int_equal(mem_size(m), MIB(1));
	assert_int_equal(mem_gpa(m, rom->hva + 1), rom->gpa + 1);
	assert_int_equal(*(const uint8_t *)mem_span(m, GIB(4) - 1, 1), 0x43);
	assert_null(mem_span(m, GIB(4) - 1, 2));
	assert_null(mem_span(m, rom->gpa - 1, 1));
	assert_int_equal(mem_write(m, rom->gpa, "x", 1), -EFAULT);
	assert_int_equal(mem_discard(m, rom->gpa, 4096), -EFAULT);
	assert_non_null(mem_span(m, 0, MIB(1)));
	mem_mark(m, rom->gpa);
	mem_unmark(m, rom->gpa);
	mem_free(m);
}

static void a_rom_has_whole_pages_and_a_limit(void **state)
{
	struct guest_mem *m;
	struct err e;

	assert_int_equal(mem_new_with_rom(&m, MIB(1), 4097, &e), -EINVAL);
	assert_int_equal(mem_new_with_rom(&m, MIB(1), MEM_ROM_MAX + 4096, &e), -EINVAL);
	assert_int_equal(mem_new(&m, MIB(1), NULL), 0);
	assert_null(mem_rom(m));
	mem_free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(small_ram_is_one_region_from_zero),
		cmocka_unit_test(ram_past_the_hole_continues_at_4g),
		cmocka_unit_test(what_is_written_is_read_and_stands_in_the_file),
		cmocka_unit_test(fresh_ram_is_zero),
		cmocka_unit_test(a_write_to_a_marked_page_is_told_once),
		cmocka_unit_test(all_marked_pages_of_a_long_write_are_told),
		cmocka_unit_test(discarded_pages_go_back_to_the_host_and_read_as_zeros),
		cmocka_unit_test(a_span_that_leaves_ram_is_refused),
		cmocka_unit_test(sizes_out_of_range_are_refused_in_words),
		cmocka_unit_test(nobody_can_cut_the_file),
		cmocka_unit_test(guards_stand_around_each_region),
		cmocka_unit_test(used_memory_becomes_huge_and_stays_the_same),
		cmocka_unit_test(memory_is_made_huge_with_its_gaps),
		cmocka_unit_test(unused_memory_does_not_become_huge),
		cmocka_unit_test(a_rom_ends_at_4_gib_and_is_no_ram),
		cmocka_unit_test(a_rom_has_whole_pages_and_a_limit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
