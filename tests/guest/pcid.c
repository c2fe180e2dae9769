/* pcid: process-context identifiers and INVPCID (SDM volume 3A, 4.10.1; volume 2, INVPCID). Two
 * page-table roots share all but the test area, which each maps to a page of its own. */
#include "guest.h"

#define CR4_PGE   0x80ull
#define CR4_PCIDE 0x20000ull
#define NOFLUSH   (1ull << 63)
#define G         0x100ull

enum type { ADDRESS, CONTEXT, ALL_GLOBAL, ALL };

static uint64_t pml4_b[512] __attribute__((aligned(PAGE)));
static uint64_t pdpt_b[512] __attribute__((aligned(PAGE)));
static uint64_t pd_b[512] __attribute__((aligned(PAGE)));
static uint64_t pt_b[512] __attribute__((aligned(PAGE)));

static void wr_cr3(uint64_t v)
{
	__asm__ volatile("mov %0, %%cr3" ::"r"(v) : "memory");
}

static uint64_t rd_cr3(void)
{
	uint64_t v;

	__asm__ volatile("mov %%cr3, %0" : "=r"(v));
	return v;
}

static void invpcid(uint64_t type, uint64_t pcid, uint64_t gva)
{
	struct {
		uint64_t pcid, gva;
	} d = {pcid, gva};

	__asm__ volatile("invpcid %0, %1" ::"m"(d), "r"(type) : "memory");
}

static uint64_t root_a(uint64_t pcid)
{
	return (uint64_t)pml4 | pcid;
}

static uint64_t root_b(uint64_t pcid)
{
	return (uint64_t)pml4_b | pcid;
}

static void copy(uint64_t *to, const uint64_t *from)
{
	for (unsigned i = 0; i < 512; i++)
		to[i] = from[i];
}

static void make_root_b(void)
{
	unsigned top = TEST_AREA >> 39 & 511, third = TEST_AREA >> 30 & 511,
		 second = TEST_AREA >> 21 & 511;

	copy(pml4_b, pml4);
	copy(pdpt_b, pdpt);
	copy(pd_b, test_pd);
	pml4_b[top] = (uint64_t)pdpt_b | (pml4[top] & 0xfff);
	pdpt_b[third] = (uint64_t)pd_b | (pdpt[third] & 0xfff);
	pd_b[second] = (uint64_t)pt_b | (test_pd[second] & 0xfff);
}

static void fill(unsigned n, uint64_t v)
{
	*(volatile uint64_t *)pages[n] = v;
}

/* Page 0 of the test area: n, flags. */
static void entry(uint64_t *pt, unsigned n, uint64_t flags)
{
	*(volatile uint64_t *)pt = (uint64_t)pages[n] | flags;
}

#define AT read64(TEST_AREA)

static void roots_are_apart(void)
{
	begin("two PCIDs");
	entry(test_pt, 1, P | W);
	entry(pt_b, 2, P | W);
	wr_cr3(root_a(1));
	check_eq("a", AT, 0x1111);
	wr_cr3(root_b(2));
	check_eq("b", AT, 0x2222);
	for (unsigned i = 0; i < 4; i++) {
		wr_cr3(root_a(1) | NOFLUSH);
		check_eq("a again", AT, 0x1111);
		check_eq("cr3", rd_cr3(), root_a(1));
		wr_cr3(root_b(2) | NOFLUSH);
		check_eq("b again", AT, 0x2222);
	}
	write64(TEST_AREA, 0x2223);
	wr_cr3(root_a(1) | NOFLUSH);
	check_eq("a's page", *(volatile uint64_t *)pages[1], 0x1111);
	check_eq("b's page", *(volatile uint64_t *)pages[2], 0x2223);
	fill(2, 0x2222);
}

/* A has seen page 1; now B runs, A's entry says page 3, and something is invalidated before A
 * goes on. */
static void changed(const char *what, void (*invalidate)(void), uint64_t flags, uint64_t noflush)
{
	entry(test_pt, 1, P | W | flags);
	invpcid(ALL_GLOBAL, 0, 0);
	wr_cr3(root_a(1));
	check_eq("before", AT, 0x1111);
	wr_cr3(root_b(2) | NOFLUSH);
	entry(test_pt, 3, P | W | flags);
	invalidate();
	wr_cr3(root_a(1) | noflush);
	check_eq(what, AT, 0x3333);
}

static void nothing(void)
{
}

static void address(void)
{
	invpcid(ADDRESS, 1, TEST_AREA + 8);
}

static void context(void)
{
	invpcid(CONTEXT, 1, 0);
}

static void all(void)
{
	invpcid(ALL, 0, 0);
}

static void all_global(void)
{
	invpcid(ALL_GLOBAL, 0, 0);
}

static void one_page(void) /* INVLPG: global ones under any PCID */
{
	entry(pt_b, 3, P | W | G);
	flush(TEST_AREA);
	entry(pt_b, 2, P | W);
}

static void pge(void)
{
	wr_cr4(rd_cr4() & ~CR4_PGE);
	wr_cr4(rd_cr4() | CR4_PGE);
}

static void invalidations(void)
{
	begin("what invalidates another PCID's");
	changed("a load of CR3", nothing, 0, 0);
	changed("INVPCID of the address", address, 0, NOFLUSH);
	changed("INVPCID of the context", context, 0, NOFLUSH);
	changed("INVPCID of all", all, 0, NOFLUSH);
	changed("INVPCID of all and global", all_global, 0, NOFLUSH);
	changed("INVPCID of global ones", all_global, G, NOFLUSH);
	changed("INVLPG of a global one", one_page, G, NOFLUSH);
	changed("CR4.PGE", pge, G, NOFLUSH);
	invpcid(ALL_GLOBAL, 0, 0);
}

static void current(void)
{
	begin("what invalidates the current one's");
	for (unsigned type = ADDRESS; type <= ALL; type++) {
		entry(test_pt, 1, P | W);
		wr_cr3(root_a(1));
		check_eq("before", AT, 0x1111);
		entry(test_pt, 3, P | W);
		invpcid(type, 1, TEST_AREA);
		check_eq("after", AT, 0x3333);
	}
}

/* The processor may, but need not keep anything. More roots than any keeps. */
static void many(void)
{
	begin("many PCIDs");
	for (unsigned i = 0; i < 200; i++) {
		uint64_t pcid = (i * 7) % 40;
		bool b = pcid & 1;

		entry(test_pt, 1, P | W);
		wr_cr3((b ? root_b(pcid) : root_a(pcid)) | NOFLUSH);
		check_eq("page", AT, b ? 0x2222 : 0x1111);
	}
}

/* Code of one PCID is not run in another, and a write to its page under another is seen. */
static void code_is_apart(void)
{
	static const uint8_t one[] = {0xb8, 1, 0, 0, 0, 0xc3}, two[] = {0xb8, 2, 0, 0, 0, 0xc3};
	int (*f)(void) = (int (*)(void))TEST_AREA;

	begin("code");
	for (unsigned i = 0; i < sizeof one; i++) {
		pages[4][i] = one[i];
		pages[5][i] = two[i];
	}
	entry(test_pt, 4, P | W);
	entry(pt_b, 5, P | W);
	invpcid(ALL_GLOBAL, 0, 0);
	for (unsigned i = 0; i < 3; i++) {
		wr_cr3(root_a(1) | NOFLUSH);
		check_eq("a", (uint64_t)f(), 1);
		wr_cr3(root_b(2) | NOFLUSH);
		check_eq("b", (uint64_t)f(), 2);
	}
	read64(TEST_AREA);
	write64(TEST_AREA, read64(TEST_AREA));
	wr_cr3(root_a(1) | NOFLUSH);
	*(volatile uint8_t *)&pages[5][1] = 7;
	check_eq("a", (uint64_t)f(), 1);
	wr_cr3(root_b(2) | NOFLUSH);
	check_eq("b, changed", (uint64_t)f(), 7);
	write64(TEST_AREA + 2048, 1);
	*(volatile uint8_t *)(TEST_AREA + 1) = 9;
	check_eq("b, changed here", (uint64_t)f(), 9);
	entry(pt_b, 2, P | W);
	entry(test_pt, 1, P | W);
	invpcid(ALL_GLOBAL, 0, 0);
}

/* B could write to a page before A made it code. */
static void code_written_by_another(void)
{
	static const uint8_t one[] = {0xb8, 1, 0, 0, 0, 0xc3};
	int (*f)(void) = (int (*)(void))TEST_AREA;

	begin("code that another PCID writes");
	entry(test_pt, 6, P);
	entry(pt_b, 6, P | W);
	invpcid(ALL_GLOBAL, 0, 0);
	wr_cr3(root_b(2));
	for (unsigned i = 0; i < sizeof one; i++)
		*(volatile uint8_t *)(TEST_AREA + i) = one[i];
	wr_cr3(root_a(1) | NOFLUSH);
	check_eq("before", (uint64_t)f(), 1);
	wr_cr3(root_b(2) | NOFLUSH);
	*(volatile uint8_t *)(TEST_AREA + 1) = 5;
	wr_cr3(root_a(1) | NOFLUSH);
	check_eq("after", (uint64_t)f(), 5);
	entry(pt_b, 2, P | W);
	entry(test_pt, 1, P | W);
	invpcid(ALL_GLOBAL, 0, 0);
}

/* User code under two PCIDs, with its memory. */
USER static void user_add(uint64_t gva)
{
	++*(volatile uint64_t *)gva;
	leave_user();
}

static void users(void)
{
	begin("user mode");
	entry(test_pt, 1, P | W | U);
	entry(pt_b, 2, P | W | U);
	wr_cr3(root_a(1));
	wr_cr3(root_b(2));
	for (unsigned i = 0; i < 20; i++) {
		wr_cr3(root_a(1) | NOFLUSH);
		check_eq("a", attempt_user(user_add, TEST_AREA) ? trap.f.vector : 0, 0x80);
		wr_cr3(root_b(2) | NOFLUSH);
		check_eq("b", attempt_user(user_add, TEST_AREA) ? trap.f.vector : 0, 0x80);
	}
	check_eq("a's sum", *(volatile uint64_t *)pages[1], 0x1111 + 20);
	check_eq("b's sum", *(volatile uint64_t *)pages[2], 0x2222 + 20);
	fill(1, 0x1111);
	fill(2, 0x2222);
	entry(test_pt, 1, P | W);
	entry(pt_b, 2, P | W);
	invpcid(ALL_GLOBAL, 0, 0);
}

static void bad_type(uint64_t type)
{
	invpcid(type, 1, 0);
}

static void bad_pcid(uint64_t type)
{
	invpcid(type, 0x1000, 0);
}

static void bad_address(uint64_t gva)
{
	invpcid(ADDRESS, 1, gva);
}

static void pcide_off(uint64_t type)
{
	invpcid(type, 1, 0);
}

USER static void user_invpcid(uint64_t gva)
{
	__asm__ volatile("invpcid (%0), %1" ::"r"(gva), "r"(2ull) : "memory");
	leave_user();
}

static void set_cr3(uint64_t v)
{
	wr_cr3(v);
}

static void set_cr4(uint64_t v)
{
	wr_cr4(v);
}

static void refused(void)
{
	begin("what is refused");
	check_trap("type 4", attempt(bad_type, 4), GP, 0);
	check_trap("PCID of 13 bits", attempt(bad_pcid, ADDRESS), GP, 0);
	check_trap("PCID of 13 bits", attempt(bad_pcid, CONTEXT), GP, 0);
	check_trap("not canonical", attempt(bad_address, 1ull << 62), GP, 0);
	check_trap("ring 3", attempt_user(user_invpcid, TEST_AREA), GP, 0);
	check_trap("CR3 bit 62", attempt(set_cr3, root_a(0) | 1ull << 62), GP, 0);
	wr_cr3(root_a(0));
	wr_cr4(rd_cr4() & ~CR4_PCIDE);
	check_trap("CR3 bit 63", attempt(set_cr3, root_a(0) | NOFLUSH), GP, 0);
	check_trap("PCID 1, off", attempt(pcide_off, CONTEXT), GP, 0);
	wr_cr3(root_a(0) | 8);
	check_trap("PCIDE at PCID 8", attempt(set_cr4, rd_cr4() | CR4_PCIDE), GP, 0);
	wr_cr3(root_a(0));
	wr_cr4(rd_cr4() | CR4_PCIDE);
}

void run_checks(void)
{
	uint32_t r1[4], r7[4];

	cpuid(1, 0, r1);
	cpuid(7, 0, r7);
	if (!(r1[2] >> 17 & 1) || !(r7[1] >> 10 & 1)) {
		print("no PCID or INVPCID here\n");
		return;
	}
	make_root_b();
	fill(1, 0x1111);
	fill(2, 0x2222);
	fill(3, 0x3333);
	wr_cr4(rd_cr4() | CR4_PCIDE | CR4_PGE);
	roots_are_apart();
	invalidations();
	current();
	many();
	code_is_apart();
	code_written_by_another();
	users();
	refused();
	wr_cr3(root_a(0));
}
