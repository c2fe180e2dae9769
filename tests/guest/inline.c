/* inline: system instructions that the JIT translates in line where their common form allows it, and
 * leaves to a helper else: RDTSC, RDTSCP, RDFSBASE and the like, MOV from control registers. */
#include "guest.h"

#define CR4_TSD      4ull
#define CR4_FSGSBASE 0x10000ull
#define FS_BASE      0xc0000100u
#define GS_BASE      0xc0000101u
#define TSC_AUX      0xc0000103u
#define NOT_CANON    (1ull << 62)

#define ALWAYS_INLINE static inline __attribute__((always_inline))

ALWAYS_INLINE uint64_t tsc(uint64_t *rest)
{
	uint64_t lo, hi;

	__asm__ volatile("mov $-1, %%eax; mov $-1, %%edx; rdtsc" : "=a"(lo), "=d"(hi));
	*rest = (lo | hi) >> 32;
	return hi << 32 | lo;
}

ALWAYS_INLINE uint64_t tscp(uint64_t *rest, uint64_t *aux)
{
	uint64_t lo, hi;

	__asm__ volatile("rdtscp" : "=a"(lo), "=d"(hi), "=c"(*aux));
	*rest = (lo | hi) >> 32;
	return hi << 32 | lo;
}

static void time(void)
{
	uint64_t rest, aux, a, b, c;

	begin("RDTSC");
	wrmsr(TSC_AUX, 0x1234567);
	for (unsigned i = 0; i < 100; i++) {
		a = rdmsr(0x10);
		b = tsc(&rest);
		check_eq("upper halves", rest, 0);
		c = tscp(&rest, &aux);
		check_eq("upper halves, RDTSCP", rest, 0);
		check_eq("TSC_AUX", aux, 0x1234567);
		check_eq("not back", a <= b && b <= c && c <= rdmsr(0x10), 1);
	}
	wrmsr(0x10, 1ull << 50);
	a = tsc(&rest);
	check_eq("upper halves", rest, 0);
	check_eq("as it was set", a >> 50, 1);
	check_eq("and no further", a < (1ull << 50) + (1ull << 40), 1);
}

/* The flags live on across them. */
static void flags(void)
{
	uint64_t set;

	begin("flags");
	__asm__ volatile("stc; rdtsc; mov $0, %%eax; adc $0, %%rax; mov %%rax, %0"
			 : "=r"(set)
			 :
			 : "rax", "rdx", "cc");
	check_eq("CF over RDTSC", set, 1);
	__asm__ volatile(
		"xor %%eax, %%eax; rdfsbase %%rdx; setz %%al; movzbl %%al, %%eax; mov %%rax, %0"
		: "=r"(set)
		:
		: "rax", "rdx", "cc");
	check_eq("ZF over RDFSBASE", set, 1);
}

USER static void user_tsc(uint64_t x)
{
	uint64_t rest;

	for (unsigned i = 0; i < 3; i++)
		tsc(&rest);
	leave_user();
}

USER static void user_tscp(uint64_t x)
{
	uint64_t rest, aux;

	tscp(&rest, &aux);
	leave_user();
}

static void kernel_tsc(uint64_t x)
{
	uint64_t rest;

	tsc(&rest);
}

static uint64_t vector(bool trapped)
{
	return trapped ? trap.f.vector : ~0ull;
}

static void time_stamp_disable(void)
{
	begin("CR4.TSD");
	check_eq("off", vector(attempt_user(user_tsc, 0)), 0x80);
	check_eq("off, RDTSCP", vector(attempt_user(user_tscp, 0)), 0x80);
	wr_cr4(rd_cr4() | CR4_TSD);
	check_trap("on", attempt_user(user_tsc, 0), GP, 0);
	check_trap("on, RDTSCP", attempt_user(user_tscp, 0), GP, 0);
	check_eq("on, ring 0", attempt(kernel_tsc, 0), 0);
	wr_cr4(rd_cr4() & ~CR4_TSD);
	check_eq("off again", vector(attempt_user(user_tsc, 0)), 0x80);
}

static void wr_fs(uint64_t v)
{
	__asm__ volatile("wrfsbase %0" ::"r"(v));
}

static void wr_gs(uint64_t v)
{
	__asm__ volatile("wrgsbase %0" ::"r"(v));
}

static void rd_fs(uint64_t v)
{
	__asm__ volatile("rdfsbase %0" : "=r"(v));
}

static void rd_gs(uint64_t v)
{
	__asm__ volatile("rdgsbase %0" : "=r"(v));
}

USER static void user_fs(uint64_t v)
{
	uint64_t r;

	__asm__ volatile("wrfsbase %1; rdfsbase %0" : "=r"(r) : "r"(v));
	if (r != v)
		__asm__ volatile("ud2");
	leave_user();
}

static void bases(void)
{
	uint64_t v, gs = rdmsr(GS_BASE);

	begin("FSGSBASE");
	check_trap("off, WRFSBASE", attempt(wr_fs, 0), UD, 0);
	check_trap("off, WRGSBASE", attempt(wr_gs, 0), UD, 0);
	check_trap("off, RDFSBASE", attempt(rd_fs, 0), UD, 0);
	check_trap("off, RDGSBASE", attempt(rd_gs, 0), UD, 0);
	wr_cr4(rd_cr4() | CR4_FSGSBASE);
	flags();
	for (unsigned i = 0; i < 3; i++) {
		uint64_t to = 0xffff800012345670 + i;

		wr_fs(to);
		check_eq("FS", rdmsr(FS_BASE), to);
		wr_gs(to + 64);
		check_eq("GS", rdmsr(GS_BASE), to + 64);
		__asm__ volatile("rdfsbase %%r13; mov %%r13, %0" : "=r"(v)::"r13");
		check_eq("RDFSBASE", v, to);
		__asm__ volatile("rdgsbase %0" : "=r"(v));
		check_eq("RDGSBASE", v, to + 64);
		__asm__ volatile("mov $-1, %%r14; rdgsbase %%r14d; mov %%r14, %0" : "=r"(v)::"r14");
		check_eq("of 32 bits", v, (uint32_t)(to + 64));
		__asm__ volatile("mov %1, %%r15; wrfsbase %%r15d" : "=r"(v) : "r"(to) : "r15");
		check_eq("of 32 bits", rdmsr(FS_BASE), (uint32_t)to);
	}
	wr_fs(0x777);
	check_trap("not canonical", attempt(wr_fs, NOT_CANON), GP, 0);
	check_trap("not canonical", attempt(wr_gs, 1ull << 47), GP, 0);
	check_eq("nothing changed", rdmsr(FS_BASE), 0x777);
	check_eq("ring 3", vector(attempt_user(user_fs, 0x7ffff000)), 0x80);
	check_trap("ring 3, not canonical", attempt_user(user_fs, NOT_CANON), GP, 0);
	wr_cr4(rd_cr4() & ~CR4_FSGSBASE);
	check_trap("off again", attempt_user(user_fs, 0), UD, 0);
	wrmsr(GS_BASE, gs);
	wrmsr(FS_BASE, 0);
}

USER static void user_cr2(uint64_t x)
{
	__asm__ volatile("mov %%cr2, %%rax" ::: "rax");
	leave_user();
}

static void control_registers(void)
{
	uint64_t v;

	begin("MOV from control registers");
	__asm__ volatile("mov %%cr3, %0" : "=r"(v));
	check_eq("CR3", v & ~0xfffull, (uint64_t)pml4);
	__asm__ volatile("mov %0, %%cr2; mov %%cr2, %%r13; mov %%r13, %0"
			 : "=r"(v)
			 : "0"(0x123456789abcull)
			 : "r13");
	check_eq("CR2", v, 0x123456789abc);
	check_eq("CR0", rd_cr0() >> 31, 1);
	check_eq("CR4", rd_cr4() & 0x20, 0x20);
	__asm__ volatile("mov %%cr8, %0" : "=r"(v));
	check_eq("CR8", v, 0);
	check_trap("ring 3", attempt_user(user_cr2, 0), GP, 0);
}

void run_checks(void)
{
	time();
	time_stamp_disable();
	bases();
	control_registers();
}
