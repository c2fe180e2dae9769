/* guest: what the small ring-0 guests are made of. A guest is a list of named checks; it
 * prints failures with both values on COM1 and ends by a byte written to port 0xf4: 0 when
 * all passed.
 *
 * attempt(fn, arg) calls fn and catches a trap: trap then says which. attempt_user runs fn in
 * ring 3, where it ends by any trap; leave_user() is INT 0x80. Functions for ring 3 must be
 * marked USER: they run at their alias and may touch only memory given by alias address. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define USER_ALIAS 0x40000000ull
#define TEST_AREA  0x80000000ull /* 512 pages of test_pt */
#define TEST_PAGES 32            /* physical pages to put there */
#define PAGE       4096ull

#define P  1ull
#define W  2ull
#define U  4ull
#define A  0x20ull
#define D  0x40ull
#define NX (1ull << 63)

#define CS0      0x08
#define SS0      0x10
#define CS0_32   0x18
#define CS3_32   0x23
#define SS3      0x2b
#define CS3      0x33
#define SEL_NP   0x38
#define SEL_TSS  0x40
#define SEL_FREE 0x50 /* and above, for the tests */

enum { DE, DB, NMI, BP, OF, BR, UD, NM, DF, TS = 10, NP, SS, GP, PF, MF = 16, AC, XM = 19 };

struct frame { /* as trap_common pushes it */
	uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax;
	uint64_t vector, error, rip, cs, rflags, rsp, ss;
};

/* The last trap. */
extern struct trap {
	struct frame f;
	uint64_t cr2, at_rsp; /* at_rsp: where the frame lay: tells the stack */
	unsigned count;
} trap;

/* Called for each trap if set; true: resume at f->rip; false: back to attempt's caller. */
extern bool (*on_trap)(struct frame *f);

extern uint64_t pml4[512], pdpt[512], test_pd[512], test_pt[512], user_pd[512], gdt[32];
extern uint8_t pages[TEST_PAGES][PAGE];
extern uint8_t idt[4096], tss[104];
extern uint8_t ist_stack[8][PAGE];
extern char stack_top[], trap_stubs[];

void run_checks(void); /* each guest's own */

/* --- checks --- */
void begin(const char *name);
void check_eq(const char *what, uint64_t got, uint64_t want);
void print(const char *s);
void print_hex(uint64_t v);

#define USER __attribute__((noinline, section(".text.user")))

/* True when fn trapped. */
bool attempt(void (*fn)(uint64_t), uint64_t arg);
bool attempt_user(void (*fn)(uint64_t), uint64_t arg);
struct target {
	uint64_t rip, cs, rflags, rsp, ss;
};
bool attempt_iretq(const struct target *t, uint64_t arg);
extern char attempt_iret[];

/* Checks the last trap's vector and error code. */
void check_trap(const char *what, bool trapped, unsigned vector, uint64_t error);

/* --- machine --- */
void set_gate(unsigned vector, void *fn, uint16_t sel, unsigned dpl, unsigned ist, unsigned type);
static inline uint64_t user_ptr(const void *p)
{
	return (uint64_t)p + USER_ALIAS;
}

/* Puts physical page n at page slot of the test area; flags 0: not present. */
static inline void flush(uint64_t gva)
{
	__asm__ volatile("invlpg (%0)" ::"r"(gva) : "memory");
}

static inline uint64_t map(unsigned slot, unsigned n, uint64_t flags)
{
	uint64_t gva = TEST_AREA + slot * PAGE;

	test_pt[slot] = flags ? ((uint64_t)pages[n] | flags) : 0;
	flush(gva);
	return gva;
}

static inline uint64_t rd_cr0(void)
{
	uint64_t v;

	__asm__ volatile("mov %%cr0, %0" : "=r"(v));
	return v;
}

static inline void wr_cr0(uint64_t v)
{
	__asm__ volatile("mov %0, %%cr0" ::"r"(v) : "memory");
}

static inline uint64_t rd_cr4(void)
{
	uint64_t v;

	__asm__ volatile("mov %%cr4, %0" : "=r"(v));
	return v;
}

static inline void wr_cr4(uint64_t v)
{
	__asm__ volatile("mov %0, %%cr4" ::"r"(v) : "memory");
}

static inline uint64_t rdmsr(uint32_t n)
{
	uint32_t lo, hi;

	__asm__ volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(n));
	return (uint64_t)hi << 32 | lo;
}

static inline void wrmsr(uint32_t n, uint64_t v)
{
	__asm__ volatile("wrmsr" ::"c"(n), "a"((uint32_t)v), "d"((uint32_t)(v >> 32)) : "memory");
}

static inline void cpuid(uint32_t leaf, uint32_t sub, uint32_t out[4])
{
	__asm__ volatile("cpuid"
			 : "=a"(out[0]), "=b"(out[1]), "=c"(out[2]), "=d"(out[3])
			 : "a"(leaf), "c"(sub));
}

static inline void outb(uint16_t port, uint8_t v)
{
	__asm__ volatile("outb %0, %1" ::"a"(v), "Nd"(port));
}

static inline uint8_t inb(uint16_t port)
{
	uint8_t v;

	__asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
	return v;
}

static inline uint64_t read64(uint64_t gva)
{
	return *(volatile uint64_t *)gva;
}

static inline void write64(uint64_t gva, uint64_t v)
{
	*(volatile uint64_t *)gva = v;
}

#define leave_user() __asm__ volatile("int $0x80")
