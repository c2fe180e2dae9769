#include "base/test.h"

#include <string.h>

#include "cpu/linear.h"

#define ROOT 0x10000u

static struct guest_mem *mem;
static struct x86_state s;
static struct linear_walk w;
static struct err err;

static int setup(void **state)
{
	memset(&s, 0, sizeof s);
	s.cr0 = CR0_PE | CR0_PG;
	s.cr3 = ROOT;
	return mem_new(&mem, MIB(1), &err);
}

static int teardown(void **state)
{
	mem_free(mem);
	return 0;
}

static void put(gpa_t table, unsigned index, uint64_t entry, unsigned size)
{
	store_le((uint8_t *)mem_span(mem, table, 4096) + index * size, entry, size);
}

static void leads_to(uint64_t gva, gpa_t gpa, uint64_t left)
{
	assert_true(linear_walk(mem, &s, gva, &w));
	assert_int_equal(w.gpa, gpa);
	assert_int_equal(w.left, left);
}

static void without_paging_it_is_physical(void **state)
{
	s.cr0 = 0;
	leads_to(0x12345, 0x12345, 0xcbb);
	assert_false(linear_walk(mem, &s, BIT(32), &w));
}

static void four_and_five_levels(void **state)
{
	uint64_t gva = 0xffff800040201000;

	s.efer = EFER_LMA | EFER_LME;
	s.cr4 = CR4_PAE;
	put(ROOT, 256, 0x11000 | 1, 8);
	put(0x11000, 1, 0x12000 | 1, 8);
	put(0x12000, 1, 0x13000 | 1, 8);
	put(0x13000, 1, 0x8000000000020001, 8); /* NX */
	leads_to(gva + 0x234, 0x20234, 0xdcc);
	assert_int_equal(w.levels, 4);
	assert_int_equal(w.step[3].at, 0x13008);
	put(0x12000, 2, 0x200000 | 0x1001 | 0x80, 8); /* 2 MiB; bit 12 is PAT */
	leads_to(0xffff800040412345, 0x212345, 0x1edcbb);
	put(0x11000, 2, 0x40000000 | 0x81, 8); /* 1 GiB */
	leads_to(0xffff800081234567, 0x41234567, 0x3edcba99);
	assert_false(linear_walk(mem, &s, gva + 0x1000, &w));
	assert_int_equal(w.levels, 4);
	assert_false(linear_walk(mem, &s, 0x0000800040201000, &w)); /* not canonical */
	s.cr4 |= CR4_LA57;
	s.cr3 = 0x30000;
	put(0x30000, 511, ROOT | 1, 8);
	leads_to(gva, 0x20000, 4096);
	assert_int_equal(w.levels, 5);
}

static void pae_and_32_bit(void **state)
{
	s.cr4 = CR4_PAE;
	s.cr3 = ROOT | 0x20;
	store_le((uint8_t *)mem_span(mem, ROOT, 4096) + 0x20 + 8, 0x11001, 8);
	put(0x11000, 3, 0x12001, 8);
	put(0x12000, 5, 0x20001, 8);
	leads_to(0x40605678, 0x20678, 0x988);
	s.cr4 = 0;
	s.cr3 = ROOT;
	put(ROOT, 1, 0x11001, 4);
	put(0x11000, 2, 0x21001, 4);
	leads_to(0x402123, 0x21123, 0xedd);
	put(ROOT, 2, 0x400081 | 1 << 13, 4);
	assert_false(linear_walk(mem, &s, 0x800000, &w)); /* no table there */
	s.cr4 = CR4_PSE;
	leads_to(0x812345, 0x100412345, 0x3edcbb);
}

static void tables_outside_of_ram_map_nothing(void **state)
{
	s.efer = EFER_LMA | EFER_LME;
	s.cr3 = 0xffffffffff000;
	assert_false(linear_walk(mem, &s, 0, &w));
	assert_int_equal(w.levels, 0);
	s.cr3 = ROOT;
	put(ROOT, 0, ROOT | 1, 8); /* into itself */
	leads_to(0, ROOT, 4096);
}

static void copies_end_where_nothing_is_mapped(void **state)
{
	char text[16] = "";

	s.cr4 = 0;
	put(ROOT, 0, 0x11001, 4);
	put(0x11000, 1, 0x30001, 4);
	put(0x11000, 2, 0x20001, 4);
	assert_int_equal(linear_write(mem, &s, 0x1ffc, "abcdefgh", 8), 8);
	assert_memory_equal(mem_span(mem, 0x30ffc, 4), "abcd", 4);
	assert_memory_equal(mem_span(mem, 0x20000, 4), "efgh", 4);
	assert_int_equal(linear_read(mem, &s, 0x1ffe, text, 4), 4);
	assert_string_equal(text, "cdef");
	assert_int_equal(linear_read(mem, &s, 0x2ffc, text, 8), 4);
	assert_int_equal(linear_read(mem, &s, 0x3000, text, 8), 0);
	put(0x11000, 3, 0x100001, 4); /* no RAM */
	assert_int_equal(linear_read(mem, &s, 0x2ffc, text, 8), 4);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(without_paging_it_is_physical),
		T(four_and_five_levels),
		T(pae_and_32_bit),
		T(tables_outside_of_ram_map_nothing),
		T(copies_end_where_nothing_is_mapped),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
