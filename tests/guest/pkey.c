/* pkey: protection keys of user pages (SDM volume 3A, 4.6.2). What PKRU decided is
 * cached by processors of our kind, so each check is made after the other answer was seen. */
#include "pkeys.h"

#define CR4_PCIDE 0x20000ull
#define CR0_WP    0x10000ull
#define NOFLUSH   (1ull << 63)
#define MANY      200 /* more than the engine lists */

static void read_(uint64_t gva)
{
	(void)read64(gva);
}

static void write_(uint64_t gva)
{
	write64(gva, 1);
}

USER static void user_read(uint64_t gva)
{
	(void)*(volatile uint64_t *)gva;
	leave_user();
}

USER static void user_write(uint64_t gva)
{
	*(volatile uint64_t *)gva = 1;
	leave_user();
}

USER static void user_call(uint64_t gva)
{
	((void (*)(void))gva)();
	leave_user();
}

USER static void user_wrpkru(uint64_t gva)
{
	__asm__ volatile("wrpkru" ::"a"(AD(1)), "c"(0), "d"(0) : "memory");
	*(volatile uint64_t *)gva = 1;
	leave_user();
}

/* error 0: the access goes well */
static void expect(const char *what, void (*fn)(uint64_t), uint64_t gva, bool user, uint64_t error)
{
	bool trapped = user ? attempt_user(fn, gva) : attempt(fn, gva);

	if (error)
		check_trap(what, trapped, PF, error);
	else if (user)
		check_trap(what, trapped, 0x80, 0);
	else
		check_eq(what, trapped ? trap.f.vector : 0, 0);
	if (error)
		check_eq("cr2", trap.cr2, gva);
}

/* What each kind of access to gva, a writable user page, ends with. */
static void all_kinds(uint64_t gva, bool ad, bool wd, bool wp)
{
	uint64_t key = PF_P | PF_PK;

	expect("user read", user_read, gva, true, ad ? key | PF_U : 0);
	expect("user write", user_write, gva, true, ad || wd ? key | PF_U | PF_W : 0);
	expect("read", read_, gva, false, ad ? key : 0);
	expect("write", write_, gva, false, ad || (wd && wp) ? key | PF_W : 0);
}

static void rights(void)
{
	uint64_t gva = map(0, 0, P | W | U | KEY(5));

	begin("rights");
	for (unsigned wp = 0; wp < 2; wp++) {
		wr_cr0(wp ? rd_cr0() | CR0_WP : rd_cr0() & ~CR0_WP);
		for (unsigned pkru = 0; pkru < 4; pkru++) {
			wrpkru(0);
			all_kinds(gva, false, false, wp);
			wrpkru(pkru << 10 | ~(3u << 10 | 3u));
			check_eq("PKRU", rdpkru(), pkru << 10 | ~(3u << 10 | 3u));
			all_kinds(gva, pkru & 1, pkru & 2, wp);
		}
	}
	wrpkru(0);
}

static void key_0(void)
{
	uint64_t gva = map(0, 0, P | W | U);

	begin("key 0");
	expect("read", read_, gva, false, 0);
	wrpkru(AD(0));
	expect("read", read_, gva, false, PF_P | PF_PK);
	wrpkru(WD(0));
	expect("read", read_, gva, false, 0);
	expect("write", write_, gva, false, PF_P | PF_W | PF_PK);
	wrpkru(0);
	expect("write", write_, gva, false, 0);
}

static void ignored(void)
{
	uint64_t gva = map(0, 0, P | W | KEY(1));

	begin("where keys do not count");
	wrpkru(AD(1));
	expect("a supervisor page", write_, gva, false, 0);
	expect("... and a user", user_read, gva, true, PF_P | PF_U);
	map(0, 0, 0);
	expect("no page", user_write, gva, true, PF_U | PF_W);
	map(0, 0, P | U | KEY(1));
	expect("a page that is read-only as well", user_write, gva, true,
	       PF_P | PF_W | PF_U | PF_PK);
	pages[0][0] = 0xc3;
	expect("a fetch", user_call, gva, true, 0);
	wr_cr4(rd_cr4() & ~CR4_PKE);
	expect("CR4.PKE off", user_read, gva, true, 0);
	wr_cr4(rd_cr4() | CR4_PKE);
	expect("and on", user_read, gva, true, PF_P | PF_U | PF_PK);
	wrpkru(0);
}

static void many(void)
{
	begin("many pages");
	for (unsigned n = 0; n < MANY; n++)
		map(n, n % TEST_PAGES, P | W | U | KEY(1 + n % 3));
	for (unsigned round = 0; round < 3; round++) {
		for (unsigned n = 0; n < MANY; n++)
			expect("open", write_, TEST_AREA + n * PAGE, false, 0);
		wrpkru(AD(2));
		for (unsigned n = 0; n < MANY; n++)
			expect("AD of key 2", read_, TEST_AREA + n * PAGE, false,
			       n % 3 == 1 ? PF_P | PF_PK : 0);
		wrpkru(0);
	}
}

static void from_user(void)
{
	uint64_t gva = map(0, 0, P | W | U | KEY(1));

	begin("WRPKRU in ring 3");
	expect("before", user_write, gva, true, 0);
	expect("in between", user_wrpkru, gva, true, PF_P | PF_U | PF_W | PF_PK);
	check_eq("PKRU", rdpkru(), AD(1));
	wrpkru(0);
}

static void wr_cr3(uint64_t v)
{
	__asm__ volatile("mov %0, %%cr3" ::"r"(v) : "memory");
}

/* Two PCIDs of the same tables. */
static void pcids(void)
{
	uint64_t gva = map(0, 0, P | W | U | KEY(1)), root = (uint64_t)pml4;
	uint32_t r[4];

	cpuid(1, 0, r);
	if (!(r[2] >> 17 & 1))
		return;
	begin("PCIDs");
	wr_cr4(rd_cr4() | CR4_PCIDE);
	wr_cr3(root | 1);
	expect("seen under 1", read_, gva, false, 0);
	wr_cr3(root | 2);
	wrpkru(AD(1));
	wr_cr3(root | 1 | NOFLUSH);
	expect("under 1 again", read_, gva, false, PF_P | PF_PK);
	wrpkru(0);
	wr_cr3(root);
	wr_cr4(rd_cr4() & ~CR4_PCIDE);
}

static void set_ecx(uint64_t v)
{
	__asm__ volatile("rdpkru" ::"c"(v) : "eax", "edx");
}

static void wr_ecx(uint64_t v)
{
	__asm__ volatile("wrpkru" ::"a"(0), "c"(v), "d"(0));
}

static void wr_edx(uint64_t v)
{
	__asm__ volatile("wrpkru" ::"a"(0), "c"(0), "d"(v));
}

static void instructions(void)
{
	uint32_t r[4];

	begin("RDPKRU and WRPKRU");
	cpuid(7, 0, r);
	check_eq("OSPKE", r[2] >> 4 & 1, 0);
	check_trap("RDPKRU, off", attempt(set_ecx, 0), UD, 0);
	check_trap("WRPKRU, off", attempt(wr_ecx, 0), UD, 0);
	wr_cr4(rd_cr4() | CR4_PKE);
	cpuid(7, 0, r);
	check_eq("OSPKE", r[2] >> 4 & 1, 1);
	check_eq("PKRU", rdpkru(), 0);
	check_trap("RDPKRU, ECX 1", attempt(set_ecx, 1), GP, 0);
	check_trap("WRPKRU, ECX 1", attempt(wr_ecx, 1), GP, 0);
	check_trap("WRPKRU, EDX 1", attempt(wr_edx, 1), GP, 0);
	check_eq("upper halves do not count", attempt(wr_edx, 1ull << 32), 0);
}

void run_checks(void)
{
	uint32_t r[4];

	cpuid(7, 0, r);
	if (!(r[2] >> 3 & 1)) {
		print("no protection keys here\n");
		return;
	}
	instructions();
	rights();
	key_0();
	ignored();
	many();
	from_user();
	pcids();
}
