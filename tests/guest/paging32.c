/* paging32: protected mode with 32-bit paging (4 KiB and 4 MiB pages) and with PAE. */
#include "guest32.h"

#define P   1u
#define W   2u
#define U   4u
#define A   0x20u
#define D   0x40u
#define PS  0x80u
#define AT  0x40000000u /* what the tests map: directory entry 256, PAE table 1 entry 0 */
#define BIG 0x40400000u

static uint32_t pd[1024] __attribute__((aligned(4096)));
static uint32_t pt[1024] __attribute__((aligned(4096)));
static uint64_t pdpt[4] __attribute__((aligned(32)));
static uint64_t pae_pd[2][512] __attribute__((aligned(4096)));
static uint64_t pae_pt[512] __attribute__((aligned(4096)));
static uint32_t data[2][1024] __attribute__((aligned(4096)));
static bool pae;

static void set_cr0(uint32_t set, uint32_t clear)
{
	uint32_t v;

	__asm__ volatile("mov %%cr0, %0; or %1, %0; and %2, %0; mov %0, %%cr0"
			 : "=&r"(v)
			 : "r"(set), "r"(~clear)
			 : "memory");
}

static void set_cr4(uint32_t set, uint32_t clear)
{
	uint32_t v;

	__asm__ volatile("mov %%cr4, %0; or %1, %0; and %2, %0; mov %0, %%cr4"
			 : "=&r"(v)
			 : "r"(set), "r"(~clear)
			 : "memory");
}

static void set_cr3(const void *table)
{
	__asm__ volatile("mov %0, %%cr3" ::"r"(table) : "memory");
}

/* Page n of AT. */
static void map(unsigned n, const void *to, uint32_t flags)
{
	uint32_t entry = flags ? (uint32_t)to | flags : 0;

	if (pae)
		pae_pt[n] = entry;
	else
		pt[n] = entry;
	__asm__ volatile("invlpg (%0)" ::"r"(AT + 4096 * n) : "memory");
}

static uint32_t flags_of(unsigned n)
{
	return (pae ? (uint32_t)pae_pt[n] : pt[n]) & 0xfff;
}

static void rd(uint32_t at)
{
	(void)*(volatile uint32_t *)at;
}

static void wr(uint32_t at)
{
	*(volatile uint32_t *)at = 0x77;
}

static void wr_reset(uint32_t at) /* in ring 3 there are no arguments */
{
	__asm__ volatile("mov %0, %%eax; mov %%eax, %%ds; movl $0x99, (%1); int $0x80" ::"i"(DS3),
			 "r"(AT)
			 : "eax", "memory");
}

static void check_pf(const char *what, bool trapped, uint32_t error, uint32_t cr2)
{
	check_trap(what, trapped, PF, error);
	check_eq("CR2", trap.cr2, cr2);
}

static void check_small_pages(void)
{
	map(0, data[0], P | W | U);
	data[0][3] = 0x1234;
	check_eq("read", *(volatile uint32_t *)(AT + 12), 0x1234);
	check_eq("A", flags_of(0), P | W | U | A);
	*(volatile uint32_t *)(AT + 16) = 0x5678;
	check_eq("write", data[0][4], 0x5678);
	check_eq("D", flags_of(0), P | W | U | A | D);
	map(0, data[1], P | W | U);
	data[1][3] = 0x4321;
	check_eq("another page", *(volatile uint32_t *)(AT + 12), 0x4321);
	map(1, 0, 0);
	check_pf("read of nothing", attempt(rd, AT + 0x1004), 0, AT + 0x1004);
	check_pf("write of nothing", attempt(wr, AT + 0x1008), 2, AT + 0x1008);
	check_pf("read across pages", attempt(rd, AT + 0xffe), 0, AT + 0x1000);
	map(1, data[0], P | U);
	set_cr0(0x10000, 0);
	check_pf("write of read-only", attempt(wr, AT + 0x1000), 3, AT + 0x1000);
	set_cr0(0, 0x10000);
	check_eq("the same without WP", attempt(wr, AT + 0x1000), false);
	check_eq("is written", data[0][0], 0x77);
	check_trap("ring 3 writes", attempt_user(wr_reset), 0x80, 0);
	check_eq("is written", data[1][0], 0x99);
	map(0, data[1], P | W);
	check_pf("ring 3 writes the kernel's", attempt_user(wr_reset), 7, AT);
	map(0, data[1], P | U);
	check_pf("ring 3 writes read-only", attempt_user(wr_reset), 7, AT);
}

static void paging_on(uint32_t unused)
{
	set_cr0(0x80000000, 0);
}

static bool switch_on(void)
{
	bool trapped = attempt(paging_on, 0);

	check_eq("switched on", trapped, false);
	return !trapped;
}

static void check_32bit(void)
{
	begin("32-bit paging");
	for (uint32_t i = 0; i < 1024; i++)
		pd[i] = i << 22 | P | W | U | PS;
	pd[AT >> 22] = (uint32_t)pt | P | W | U;
	pd[BIG >> 22] = P | W | PS;
	set_cr4(0x10, 0);
	set_cr3(pd);
	if (!switch_on())
		return;
	check_small_pages();
	*(volatile uint32_t *)(BIG + (uint32_t)data[0] + 8) = 0xb16;
	check_eq("4 MiB page", data[0][2], 0xb16);
	check_eq("A and D", pd[BIG >> 22] & (A | D), A | D);
	set_cr0(0, 0x80000000);
}

static void check_pae(void)
{
	begin("PAE");
	pae = true;
	for (uint64_t i = 0; i < 512; i++)
		pae_pd[0][i] = i << 21 | P | W | U | PS;
	pae_pd[1][0] = (uint32_t)pae_pt | P | W | U;
	pae_pd[1][2] = P | W | PS;
	pdpt[0] = (uint32_t)pae_pd[0] | P;
	pdpt[1] = (uint32_t)pae_pd[1] | P;
	set_cr4(0x20, 0);
	set_cr3(pdpt);
	if (!switch_on())
		return;
	check_small_pages();
	*(volatile uint32_t *)(BIG + (uint32_t)data[0] % 0x200000 + 8) = 0xb17;
	check_eq("2 MiB page", *(uint32_t *)((uint32_t)data[0] % 0x200000 + 8), 0xb17);
	check_pf("no table", attempt(rd, 0x80000000), 0, 0x80000000);
	pdpt[2] = pdpt[1];
	set_cr3(pdpt);
	check_eq("a table added", attempt(rd, 0x80400000), false);
	pae_pt[1] |= 1ull << 51; /* beyond what physical addresses have */
	__asm__ volatile("invlpg (%0)" ::"r"(AT + 0x1000) : "memory");
	check_pf("reserved bit", attempt(rd, AT + 0x1000), 9, AT + 0x1000);
	set_cr0(0, 0x80000000);
	set_cr4(0, 0x20);
}

void run_checks(void)
{
	check_32bit();
	check_pae();
}
