#include "base/test.h"

#include <stdlib.h>

#include "cpu/jit/walk.h"

/* Tables of each kind of paging for one address, in 1 MiB of RAM. */
#define TOP   0x1000u /* PML4, or PML5 */
#define L4    0x2000u
#define L3    0x3000u
#define L2    0x4000u
#define L1    0x5000u
#define PAGE  0x77000u
#define GVA   0x0000123456789000ull
#define GVA32 0x56789000ull

#define P  0x01u
#define W  0x02u
#define U  0x04u
#define A  0x20u
#define D  0x40u
#define PS 0x80u
#define G  0x100u
#define NX BIT(63)

static struct guest_mem *mem;
static struct engine_env env;
static struct jit_cpu *c;
static struct jit_mapping map;
static uint32_t error;

static int setup(void **state)
{
	struct err e;

	c = calloc(1, sizeof *c);
	if (!c || mem_new(&mem, MIB(1), &e) < 0)
		return -1;
	env.mem = mem;
	c->env = &env;
	c->phys_bits = 40;
	c->gib_pages = true;
	c->st.cr0 = CR0_PE | CR0_PG | CR0_WP;
	return 0;
}

static int teardown(void **state)
{
	mem_free(mem);
	free(c);
	return 0;
}

static uint64_t *entry(gpa_t table, unsigned n)
{
	return (uint64_t *)mem_span(mem, table, 4096) + n;
}

static uint32_t *entry32(gpa_t table, unsigned n)
{
	return (uint32_t *)mem_span(mem, table, 4096) + n;
}

/* Where the walk for gva reads its entry at each level (1: the page table). */
static uint64_t *at(unsigned level)
{
	static const gpa_t table[] = {0, L1, L2, L3, L4};

	return entry(table[level], GVA >> (3 + 9 * level) & 511);
}

/* 4-level paging with rights; all of them at every level. */
static void four_levels(uint64_t rights)
{
	c->st.efer = EFER_LMA | EFER_LME | EFER_NXE;
	c->st.cr4 |= CR4_PAE;
	c->st.cr3 = L4;
	*at(4) = L3 | rights;
	*at(3) = L2 | rights;
	*at(2) = L1 | rights;
	*at(1) = PAGE | rights;
}

static bool walk(uint64_t gva, enum jit_mmu m, enum jit_access a)
{
	error = 0x5555;
	return jit_walk(c, gva, m, a, &map, &error);
}

static void faults(uint64_t gva, enum jit_mmu m, enum jit_access a, uint32_t code)
{
	assert_false(walk(gva, m, a));
	assert_int_equal(error, code);
}

static void without_paging(void **state)
{
	c->st.cr0 = CR0_PE;
	assert_true(walk(0x12345678, MMU_KERNEL, ACC_WRITE));
	assert_int_equal(map.gpa, 0x12345000);
	assert_true(map.writable);
}

static void a_page_of_4k(void **state)
{
	four_levels(P | W | U);
	assert_true(walk(GVA + 0x123, MMU_USER, ACC_READ));
	assert_int_equal(map.gpa, PAGE);
	assert_false(map.large || map.global);
	assert_false(map.writable); /* D is not set yet: the first write must walk */
}

static void large_pages(void **state)
{
	four_levels(P | W | U);
	*at(2) = 0x40000000 | P | W | PS | D | G;
	c->st.cr4 |= CR4_PGE;
	assert_true(walk(GVA, MMU_KERNEL, ACC_READ));
	assert_int_equal(map.gpa, 0x40000000 | (GVA & 0x1ff000));
	assert_true(map.large && map.global && map.writable);
	*at(3) = 0x80000000ull | P | PS;
	assert_true(walk(GVA, MMU_KERNEL, ACC_READ));
	assert_int_equal(map.gpa, 0x80000000 | (GVA & 0x3ffff000));
	c->gib_pages = false;
	faults(GVA, MMU_KERNEL, ACC_READ, PF_P | PF_RSVD);
}

static void pat_of_a_large_page_is_no_address(void **state)
{
	four_levels(P | W | U);
	*at(2) = 0x40000000 | 0x1000 | P | PS;
	assert_true(walk(GVA, MMU_KERNEL, ACC_READ));
	assert_int_equal(map.gpa, 0x40000000 | (GVA & 0x1ff000));
}

static void five_levels(void **state)
{
	four_levels(P | W | U);
	c->st.cr4 |= CR4_LA57;
	c->st.cr3 = TOP;
	faults(GVA, MMU_KERNEL, ACC_READ, 0);
	*entry(TOP, GVA >> 48 & 511) = L4 | P;
	assert_true(walk(GVA, MMU_KERNEL, ACC_READ));
	assert_int_equal(map.gpa, PAGE);
}

static void each_level_may_be_absent(void **state)
{
	for (unsigned level = 1; level <= 4; level++) {
		four_levels(P | W | U);
		*at(level) &= ~(uint64_t)P;
		faults(GVA, MMU_USER, ACC_WRITE, PF_W | PF_U);
		faults(GVA, MMU_KERNEL, ACC_READ, 0);
		faults(GVA, MMU_KERNEL, ACC_FETCH, PF_I);
	}
}

static void each_level_may_forbid(void **state)
{
	for (unsigned level = 1; level <= 4; level++) {
		four_levels(P | W | U);
		*at(level) &= ~(uint64_t)W;
		faults(GVA, MMU_USER, ACC_WRITE, PF_P | PF_W | PF_U);
		assert_true(walk(GVA, MMU_USER, ACC_READ));
		four_levels(P | W | U);
		*at(level) &= ~(uint64_t)U;
		faults(GVA, MMU_USER, ACC_READ, PF_P | PF_U);
		assert_true(walk(GVA, MMU_KERNEL, ACC_WRITE));
		four_levels(P | W | U);
		*at(level) |= NX;
		faults(GVA, MMU_USER, ACC_FETCH, PF_P | PF_U | PF_I);
		assert_true(walk(GVA, MMU_USER, ACC_READ));
	}
}

static void reserved_bits_fault_first(void **state)
{
	for (unsigned level = 1; level <= 4; level++) {
		four_levels(P); /* no rights either: the reserved bit is what is reported */
		*at(level) |= BIT(40);
		faults(GVA, MMU_USER, ACC_WRITE, PF_P | PF_W | PF_U | PF_RSVD);
		*at(level) ^= BIT(40) | BIT(39) | BIT(52) | BIT(62); /* an address; ignored */
		if (level == 1)
			faults(GVA, MMU_USER, ACC_WRITE, PF_P | PF_W | PF_U);
	}
	four_levels(P | W);
	*at(4) |= PS;
	faults(GVA, MMU_KERNEL, ACC_READ, PF_P | PF_RSVD);
	four_levels(P | W);
	*at(2) = 0x40002000 | P | PS; /* bits 13 to 20 of a large page */
	faults(GVA, MMU_KERNEL, ACC_READ, PF_P | PF_RSVD);
}

static void nx_is_reserved_where_it_is_off(void **state)
{
	four_levels(P | W | U);
	*at(1) |= NX;
	c->st.efer &= ~(uint64_t)EFER_NXE;
	faults(GVA, MMU_USER, ACC_READ, PF_P | PF_U | PF_RSVD);
	faults(GVA, MMU_USER, ACC_FETCH, PF_P | PF_U | PF_RSVD); /* and PF_I is not told */
	c->st.cr4 |= CR4_SMEP;
	faults(GVA, MMU_USER, ACC_FETCH, PF_P | PF_U | PF_RSVD | PF_I);
}

static void accessed_and_dirty(void **state)
{
	four_levels(P | W | U);
	assert_true(walk(GVA, MMU_USER, ACC_READ));
	for (unsigned level = 1; level <= 4; level++)
		assert_int_equal(*at(level) & (A | D), A);
	assert_true(walk(GVA, MMU_USER, ACC_WRITE));
	assert_int_equal(*at(1) & (A | D), A | D);
	assert_int_equal(*at(2) & D, 0);
	assert_true(map.writable);
	assert_true(walk(GVA, MMU_USER, ACC_READ));
	assert_true(map.writable); /* D is set: writes need no more walks */

	four_levels(P | U); /* not where the access faults */
	faults(GVA, MMU_USER, ACC_WRITE, PF_P | PF_W | PF_U);
	assert_int_equal(*at(1) & (A | D), 0);
}

static void supervisor_writes_and_wp(void **state)
{
	four_levels(P);
	faults(GVA, MMU_KERNEL, ACC_WRITE, PF_P | PF_W);
	c->st.cr0 &= ~(uint64_t)CR0_WP;
	assert_true(walk(GVA, MMU_KERNEL, ACC_WRITE));
	four_levels(P | U);
	faults(GVA, MMU_USER, ACC_WRITE, PF_P | PF_W | PF_U); /* users are bound all the same */
}

static void smep(void **state)
{
	four_levels(P | W | U);
	assert_true(walk(GVA, MMU_KERNEL, ACC_FETCH));
	c->st.cr4 |= CR4_SMEP;
	faults(GVA, MMU_KERNEL, ACC_FETCH, PF_P | PF_I);
	assert_true(walk(GVA, MMU_USER, ACC_FETCH));
	*at(3) &= ~(uint64_t)U; /* a supervisor page, if any level says so */
	assert_true(walk(GVA, MMU_KERNEL, ACC_FETCH));
}

static void smap(void **state)
{
	four_levels(P | W | U);
	c->st.cr4 |= CR4_SMAP;
	faults(GVA, MMU_KERNEL, ACC_READ, PF_P);
	faults(GVA, MMU_KERNEL, ACC_WRITE, PF_P | PF_W);
	assert_true(walk(GVA, MMU_KERNEL_AC, ACC_READ));
	assert_true(walk(GVA, MMU_USER, ACC_READ));
	assert_true(walk(GVA, MMU_KERNEL, ACC_FETCH)); /* SMEP's business */
	*at(1) &= ~(uint64_t)U;
	assert_true(walk(GVA, MMU_KERNEL, ACC_READ));
}

/* --- PAE --- */

static void pae(uint64_t rights)
{
	c->st.efer = EFER_NXE;
	c->st.cr4 |= CR4_PAE;
	c->st.cr3 = L3 | 0x20; /* the four entries stand at multiples of 32 bytes */
	*entry(L3 + 0x20, GVA32 >> 30) = L2 | P;
	*entry(L2, GVA32 >> 21 & 511) = L1 | rights;
	*entry(L1, GVA32 >> 12 & 511) = PAGE | rights;
}

static void pae_pages(void **state)
{
	pae(P | W | U);
	assert_true(walk(GVA32, MMU_USER, ACC_WRITE)); /* the PDPTE has no rights of its own */
	assert_int_equal(map.gpa, PAGE);
	*entry(L1, GVA32 >> 12 & 511) |= NX;
	faults(GVA32, MMU_USER, ACC_FETCH, PF_P | PF_U | PF_I);
	*entry(L1, GVA32 >> 12 & 511) = PAGE | BIT(40) | P;
	faults(GVA32, MMU_KERNEL, ACC_READ, PF_P | PF_RSVD);
	*entry(L1, GVA32 >> 12 & 511) =
		PAGE | BIT(52) | P; /* reserved here, unlike in 4-level paging */
	faults(GVA32, MMU_KERNEL, ACC_READ, PF_P | PF_RSVD);
	*entry(L2, GVA32 >> 21 & 511) = 0x40000000 | P | PS;
	assert_true(walk(GVA32, MMU_KERNEL, ACC_READ));
	assert_int_equal(map.gpa, 0x40000000 | (GVA32 & 0x1ff000));
	*entry(L3 + 0x20, GVA32 >> 30) = 0;
	faults(GVA32, MMU_KERNEL, ACC_WRITE, PF_W);
}

/* --- 32-bit --- */

static void paging_32(uint32_t rights)
{
	c->st.cr3 = L2;
	*entry32(L2, GVA32 >> 22) = L1 | rights;
	*entry32(L1, GVA32 >> 12 & 1023) = PAGE | rights;
}

static void pages_of_32_bit_paging(void **state)
{
	paging_32(P | W | U);
	assert_true(walk(GVA32, MMU_USER, ACC_WRITE));
	assert_int_equal(map.gpa, PAGE);
	assert_int_equal(*entry32(L2, GVA32 >> 22) & (A | D), A);
	assert_int_equal(*entry32(L1, GVA32 >> 12 & 1023) & (A | D), A | D);
	faults(GVA32 + 0x1000, MMU_USER, ACC_FETCH, PF_U); /* no NX: PF_I is not told */
	paging_32(P | W | U);
	*entry32(L2, GVA32 >> 22) &= ~U;
	faults(GVA32, MMU_USER, ACC_READ, PF_P | PF_U);
	*entry32(L2, GVA32 >> 22) &= ~P;
	faults(GVA32, MMU_USER, ACC_READ, PF_U);
}

static void pages_of_4m(void **state)
{
	paging_32(P | W | U);
	*entry32(L2, GVA32 >> 22) = 0x80000000 | P | PS | 3u << 13;
	assert_false(walk(GVA32, MMU_KERNEL, ACC_READ)); /* without PSE the bit means nothing */
	c->st.cr4 |= CR4_PSE;
	assert_true(walk(GVA32, MMU_KERNEL, ACC_READ));
	assert_int_equal(map.gpa, 0x380000000ull | (GVA32 & 0x3ff000)); /* PSE-36 */
	assert_true(map.large);
	*entry32(L2, GVA32 >> 22) |= 1u << 21;
	faults(GVA32, MMU_KERNEL, ACC_READ, PF_P | PF_RSVD);
}

static void tables_outside_ram_read_as_absent(void **state)
{
	four_levels(P | W | U);
	*at(2) = GIB(1) | P | W | U;
	faults(GVA, MMU_KERNEL, ACC_READ, 0);
	c->st.cr3 = 0xffffffffff000;
	faults(GVA, MMU_KERNEL, ACC_READ, 0);
}

static void canonical_addresses(void **state)
{
	assert_true(jit_canonical(c, 0x00007fffffffffff) && jit_canonical(c, 0xffff800000000000));
	assert_false(jit_canonical(c, 0x0000800000000000) || jit_canonical(c, 0xffff7fffffffffff));
	c->st.cr4 |= CR4_LA57;
	assert_true(jit_canonical(c, 0x0000800000000000) && jit_canonical(c, 0x00ffffffffffffff));
	assert_false(jit_canonical(c, 0x0100000000000000));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(without_paging),
		TEST(a_page_of_4k),
		TEST(large_pages),
		TEST(pat_of_a_large_page_is_no_address),
		TEST(five_levels),
		TEST(each_level_may_be_absent),
		TEST(each_level_may_forbid),
		TEST(reserved_bits_fault_first),
		TEST(nx_is_reserved_where_it_is_off),
		TEST(accessed_and_dirty),
		TEST(supervisor_writes_and_wp),
		TEST(smep),
		TEST(smap),
		TEST(pae_pages),
		TEST(pages_of_32_bit_paging),
		TEST(pages_of_4m),
		TEST(tables_outside_ram_read_as_absent),
		TEST(canonical_addresses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
