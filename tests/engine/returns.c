/* returns: a user's call whose return finds that something has changed meanwhile. What it calls enters
 * the kernel, which one time maps the caller's page to another, or goes on at the place of the return
 * by itself. By then all of it has run so often that translated code no longer leaves for C. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "longmode.h"
#include "user.h"

#define CALLER   UINT64_C(0x400000) /* user */
#define CALLEE   UINT64_C(0x402000)
#define STACK    UINT64_C(0x404000)
#define KERNEL   0x100000u /* physical: what INT 0x80 does */
#define CALLER_P 0x200000u
#define OTHER_P  0x201000u
#define CALLEE_P 0x202000u
#define STACK_P  0x203000u
#define SECRET_P 0x110000u /* the kernel's */
#define PTES_P   0x111000u /* for the caller's page, by round */
#define TRAP     0x80
#define ROUNDS   200
#define BACK     (CALLER + 5) /* where the call returns to */

static const uint8_t caller[] = {
	0xe8, 0xfb, 0x1f, 0x00, 0x00, /* call CALLEE */
	0x48, 0x8b, 0x02,             /* mov (%rdx), %rax */
	0xff, 0xc9,                   /* dec %ecx */
	0x75, 0xf4,                   /* jnz CALLER */
	0xcc,
};
static const uint8_t callee[] = {0xcd, TRAP, 0xc3}; /* int; ret */

struct guest_case {
	const char *name;
	uint8_t kernel[24];
	uint8_t vector;
	uint64_t rip, cs;
};

static const struct guest_case cases[] = {
	{"the caller's page is another now",
	 {0x48, 0x8b, 0x04, 0xce, /* mov (%rsi,%rcx,8), %rax */
	  0x48, 0x89, 0x07,       /* mov %rax, (%rdi): the page's entry */
	  0x0f, 0x01, 0x3b,       /* invlpg (%rbx) */
	  0x48, 0xcf},            /* iretq */
	 X86_UD,
	 BACK,
	 USER_CS64},
	{"the kernel returns to where its user would",
	 {0x83, 0xf9, 0x64, /* cmp $100, %ecx */
	  0x75, 0x05,       /* jne to the iretq */
	  0x4c, 0x89, 0xc2, /* mov %r8, %rdx: its own data */
	  0x55, 0xc3,       /* push %rbp; ret */
	  0x48, 0xcf},      /* iretq */
	 X86_BP,
	 CALLER + sizeof caller,
	 LM_CS0},
};

/* A gate of 64-bit code that user code may use. */
static void put_gate(struct vm *vm)
{
	uint64_t to = LM_KERNEL + KERNEL;
	uint64_t *gate = vm_ram(vm, LM_IDT + TRAP * 16, 16);

	gate[0] = (to & 0xffff) | (uint64_t)LM_CS0 << 16 | UINT64_C(0xee00) << 32 |
		  (to >> 16 & 0xffff) << 48;
	gate[1] = to >> 32;
}

static gpa_t entry_of(struct vm *vm, uint64_t gva)
{
	uint64_t table = LM_PML4;

	for (unsigned shift = 39; shift > 12; shift -= 9) {
		uint64_t *e = vm_ram(vm, table + (gva >> shift & 511) * 8, 8);

		table = *e & 0x000ffffffffff000;
	}
	return table + (gva >> 12 & 511) * 8;
}

static void fill(struct vm *vm, struct longmode *lm, const struct guest_case *c)
{
	uint64_t *pte = vm_ram(vm, PTES_P, 4096);

	longmode_init(lm, vm);
	longmode_map(lm, CALLER, CALLER_P, PTE_P | PTE_U);
	longmode_map(lm, CALLEE, CALLEE_P, PTE_P | PTE_U);
	longmode_map(lm, STACK, STACK_P, PTE_P | PTE_U | PTE_W);
	put_gate(vm);
	memcpy(vm_ram(vm, CALLER_P, 64), caller, sizeof caller);
	memcpy(vm_ram(vm, OTHER_P, 64), caller, sizeof caller);
	memcpy(vm_ram(vm, OTHER_P + 5, 2), "\x0f\x0b", 2); /* ud2 */
	memcpy(vm_ram(vm, CALLEE_P, 64), callee, sizeof callee);
	memcpy(vm_ram(vm, KERNEL, 64), c->kernel, sizeof c->kernel);
	for (unsigned n = 0; n <= ROUNDS; n++)
		pte[n] = (n == 100 ? OTHER_P : CALLER_P) | PTE_P | PTE_U;
}

static bool run(const struct engine *engine, const struct guest_case *c, bool windows)
{
	struct vm *vm = calloc(1, sizeof *vm);
	static struct x86_state start, stop;
	struct longmode lm;
	struct longmode_trap t = {0};
	struct err e = {0};
	bool ok;

	if (!vm)
		return false;
	vm->windows = windows;
	if (vm_init(vm, engine, MIB(8), &e) < 0)
		return false;
	fill(vm, &lm, c);
	start = lm.base;
	longmode_to_user(&start, USER_CS64);
	start.rip = CALLER;
	start.gpr[X86_RSP] = STACK + 0x800;
	start.gpr[X86_RCX] = ROUNDS;
	start.gpr[X86_RDX] = STACK;
	start.gpr[X86_RBX] = CALLER;
	start.gpr[X86_RBP] = BACK;
	start.gpr[X86_RSI] = LM_KERNEL + PTES_P;
	start.gpr[X86_RDI] = LM_KERNEL + entry_of(vm, CALLER);
	start.gpr[X86_R8] = LM_KERNEL + SECRET_P;
	ok = vm_run(vm, &start, &stop, 20, &e) == VM_STOPPED && longmode_trapped(&lm, &stop, &t) &&
	     t.vector == c->vector && t.rip == c->rip && (t.cs & 0xffff) == c->cs;
	if (!ok)
		printf("FAIL %s: vector %u at %lx, CS %lx %s\n", c->name, t.vector, t.rip, t.cs,
		       e.text);
	vm_done(vm);
	free(vm);
	return ok;
}

int main(int argc, char **argv)
{
	const struct engine *engine = vm_engine_of(argc, argv, VM_HOST_FIT);
	bool ok = true;

	for (unsigned n = 0; n < ARRAY_SIZE(cases); n++) {
		ok &= run(engine, &cases[n], true);
		ok &= run(engine, &cases[n], false);
	}
	return ok ? 0 : 1;
}
