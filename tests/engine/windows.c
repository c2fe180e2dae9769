/* windows: user code whose memory is reached through a window, while the kernel changes its page
 * tables. A device does the changes when the program writes to its port; the program then has the
 * kernel flush (INT 0x80), and accesses the page again: it must see what stands there now. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "longmode.h"
#include "user.h"

#define CODE   UINT64_C(0x400000) /* user */
#define PAGE_A UINT64_C(0x7f1234567000)
#define KERNEL 0x100000u /* physical: what INT 0x80 does */
#define CODE_P 0x200000u
#define OLD_P  0x201000u
#define NEW_P  0x202000u
#define KICK   0x600
#define TRAP   0x80

enum access { READ, WRITE };

struct guest_case {
	const char *name;
	void (*change)(uint64_t *pte);
	enum access then;
	uint8_t vector; /* that the second access ends with; X86_BP: none */
	uint64_t seen;  /* by it, if it reads */
	uint64_t pte;   /* bits that must be set afterwards */
};

struct guest {
	struct vm vm;
	struct bus_region kick;
	const struct guest_case *now;
	uint64_t *pte;
};

static void to_new(uint64_t *pte)
{
	*pte = NEW_P | PTE_P | PTE_U | PTE_W | PTE_A | PTE_D;
}

static void read_only(uint64_t *pte)
{
	*pte &= ~(uint64_t)PTE_W;
}

static void absent(uint64_t *pte)
{
	*pte = 0;
}

static void kernels(uint64_t *pte)
{
	*pte &= ~(uint64_t)PTE_U;
}

static void clean(uint64_t *pte)
{
	*pte &= ~(uint64_t)PTE_D;
}

static void young(uint64_t *pte)
{
	*pte &= ~(uint64_t)PTE_A;
}

static void key_1(uint64_t *pte)
{
	*pte |= UINT64_C(1) << 59;
}

static void same(uint64_t *pte)
{
}

static const struct guest_case cases[] = {
	{"another page", to_new, READ, X86_BP, 0x2222, PTE_A},
	{"read-only", read_only, WRITE, X86_PF, 0, PTE_A},
	{"read-only, and read", read_only, READ, X86_BP, 0x1111, PTE_A},
	{"not present", absent, READ, X86_PF, 0, 0},
	{"the kernel's", kernels, READ, X86_PF, 0, 0},
	{"clean", clean, WRITE, X86_BP, 0, PTE_A | PTE_D},
	{"not accessed", young, READ, X86_BP, 0x1111, PTE_A},
};

static void kicked(struct bus_region *r, uint64_t offset, uint64_t value, unsigned size)
{
	struct guest *g = container_of(r, struct guest, kick);

	g->now->change(g->pte);
}

static uint64_t no_read(struct bus_region *r, uint64_t offset, unsigned size)
{
	return 0;
}

static void put_code(struct guest *g, bool invlpg)
{
	static const uint8_t read[] = {0x48, 0x8b, 0x0f};  /* mov (%rdi), %rcx */
	static const uint8_t write[] = {0x48, 0x89, 0x0f}; /* mov %rcx, (%rdi) */
	static const uint8_t program[] = {
		0x48, 0x89, 0x1f, /* mov %rbx, (%rdi): the lane is opened */
		0x48, 0x89, 0x1f, /* mov %rbx, (%rdi): it is mapped, and writable */
		0xef,             /* out %eax, %dx */
		0xcd, TRAP,       /* int */
	};
	static const uint8_t page[] = {0x0f, 0x01, 0x3f, 0x48, 0xcf}; /* invlpg (%rdi); iretq */
	static const uint8_t all[] = {0x0f, 0x20, 0xd8, 0x0f,
				      0x22, 0xd8, 0x48, 0xcf}; /* mov %cr3, %rax; back; iretq */
	uint8_t *at = vm_ram(&g->vm, CODE_P, 64), *kernel = vm_ram(&g->vm, KERNEL, 64);

	memcpy(at, program, sizeof program);
	memcpy(at + sizeof program, g->now->then == READ ? read : write, 3);
	at[sizeof program + 3] = 0xcc;
	if (invlpg)
		memcpy(kernel, page, sizeof page);
	else
		memcpy(kernel, all, sizeof all);
}

/* A gate of 64-bit code that user code may use. */
static void put_gate(struct guest *g)
{
	uint64_t to = LM_KERNEL + KERNEL;
	uint64_t *gate = vm_ram(&g->vm, LM_IDT + TRAP * 16, 16);

	gate[0] = (to & 0xffff) | (uint64_t)LM_CS0 << 16 | UINT64_C(0xee00) << 32 |
		  (to >> 16 & 0xffff) << 48;
	gate[1] = to >> 32;
}

static uint64_t *entry_of(struct guest *g, uint64_t gva)
{
	uint64_t table = LM_PML4;

	for (unsigned shift = 39; shift > 12; shift -= 9) {
		uint64_t *e = vm_ram(&g->vm, table + (gva >> shift & 511) * 8, 8);

		table = *e & 0x000ffffffffff000;
	}
	return vm_ram(&g->vm, table + (gva >> 12 & 511) * 8, 8);
}

static bool check(struct guest *g, struct longmode *lm, const struct x86_state *s)
{
	const struct guest_case *c = g->now;
	struct longmode_trap t = {0};

	if (!longmode_trapped(lm, s, &t) || t.vector != c->vector) {
		printf("FAIL %s: vector %u at %lx\n", c->name, t.vector, t.rip);
		return false;
	}
	if (c->then == READ && c->vector == X86_BP && s->gpr[X86_RCX] != c->seen) {
		printf("FAIL %s: it reads %lx\n", c->name, s->gpr[X86_RCX]);
		return false;
	}
	if ((*g->pte & c->pte) != c->pte) {
		printf("FAIL %s: its entry is %lx\n", c->name, *g->pte);
		return false;
	}
	return true;
}

static struct guest *make_guest(const struct engine *engine, const struct guest_case *c,
				struct longmode *lm, struct err *e)
{
	struct guest *g = calloc(1, sizeof *g);

	if (!g)
		return NULL;
	g->now = c;
	g->vm.windows = true;
	g->kick = (struct bus_region){"kick", 1, 4, no_read, kicked};
	if (vm_init(&g->vm, engine, MIB(8), e) < 0 ||
	    bus_map(g->vm.bus, BUS_PIO, KICK, 4, &g->kick, e) < 0) {
		vm_done(&g->vm);
		free(g);
		return NULL;
	}
	longmode_init(lm, &g->vm);
	longmode_map(lm, CODE, CODE_P, PTE_P | PTE_U);
	longmode_map(lm, PAGE_A, OLD_P, PTE_P | PTE_U | PTE_W);
	g->pte = entry_of(g, PAGE_A);
	*(uint64_t *)vm_ram(&g->vm, NEW_P, 8) = 0x2222;
	put_gate(g);
	return g;
}

static void free_guest(struct guest *g)
{
	vm_done(&g->vm);
	free(g);
}

static void start_user(struct x86_state *s, const struct longmode *lm)
{
	*s = lm->base;
	longmode_to_user(s, USER_CS64);
	s->rip = CODE;
	s->rflags |= RFLAGS_IOPL;
	s->gpr[X86_RDI] = PAGE_A;
	s->gpr[X86_RBX] = 0x1111;
	s->gpr[X86_RDX] = KICK;
}

static bool run(const struct engine *engine, const struct guest_case *c, bool invlpg)
{
	static struct x86_state start, stop;
	struct longmode lm;
	struct err e = {0};
	struct guest *g = make_guest(engine, c, &lm, &e);
	bool ok;

	if (!g)
		return false;
	put_code(g, invlpg);
	start_user(&start, &lm);
	ok = vm_run(&g->vm, &start, &stop, 20, &e) == VM_STOPPED;
	if (!ok)
		printf("FAIL %s: it did not end %s\n", c->name, e.text);
	ok = ok && check(g, &lm, &stop);
	free_guest(g);
	return ok;
}

/* RSP moves from lane to lane in steps that touch nothing, and is used there. */
static bool run_stack(const struct engine *engine)
{
	static const uint64_t near = 0x7c0010001000, far = 0x7bfd00001000, step = 1 << 20;
	static const uint8_t program[] = {
		0x50,                                     /* push %rax */
		0x48, 0x81, 0xec, 0x00, 0x00, 0x10, 0x00, /* sub $step, %rsp */
		0xff, 0xc9,                               /* dec %ecx */
		0x75, 0xf5,                               /* jnz to the sub */
		0x59,                                     /* pop %rcx */
		0xcc,
	};
	struct vm *vm = calloc(1, sizeof *vm);
	static struct x86_state start, stop;
	struct longmode lm;
	struct longmode_trap t = {0};
	struct err e = {0};
	bool ok;

	if (!vm)
		return false;
	vm->windows = true;
	if (vm_init(vm, engine, MIB(8), &e) < 0)
		return false;
	longmode_init(&lm, vm);
	longmode_map(&lm, CODE, CODE_P, PTE_P | PTE_U);
	longmode_map(&lm, near, OLD_P, PTE_P | PTE_U | PTE_W);
	longmode_map(&lm, far, NEW_P, PTE_P | PTE_U | PTE_W);
	memcpy(vm_ram(vm, CODE_P, 64), program, sizeof program);
	*(uint64_t *)vm_ram(vm, NEW_P, 8) = 0x2222;
	start = lm.base;
	longmode_to_user(&start, USER_CS64);
	start.rip = CODE;
	start.gpr[X86_RSP] = near + 8;
	start.gpr[X86_RCX] = (near - far) / step;
	ok = vm_run(vm, &start, &stop, 20, &e) == VM_STOPPED && longmode_trapped(&lm, &stop, &t) &&
	     t.vector == X86_BP && stop.gpr[X86_RCX] == 0x2222;
	if (!ok)
		printf("FAIL stack: vector %u at %lx, RCX %lx\n", t.vector, t.rip,
		       stop.gpr[X86_RCX]);
	vm_done(vm);
	free(vm);
	return ok;
}

/* The page is in the window when its key, or what PKRU says about the key that it has, changes. */
static bool run_keys(const struct engine *engine, bool key_0)
{
	static const uint8_t program[] = {
		0x48, 0x89, 0x1f,       /* mov %rbx, (%rdi): the lane is opened */
		0x48, 0x89, 0x1f,       /* mov %rbx, (%rdi): it is mapped, and writable */
		0xef,                   /* out %eax, %dx */
		0xcd, TRAP,             /* int */
		0x31, 0xd2, 0x31, 0xc9, /* xor %edx, %edx; xor %ecx, %ecx */
		0x89, 0xf0,             /* mov %esi, %eax */
		0x0f, 0x01, 0xef,       /* wrpkru */
		0x48, 0x8b, 0x0f,       /* mov (%rdi), %rcx */
		0x48, 0x89, 0x1f,       /* mov %rbx, (%rdi) */
		0xcc,
	};
	const struct guest_case c = {key_0 ? "key 0" : "a key", key_0 ? same : key_1};
	static struct x86_state start, stop;
	struct longmode lm;
	struct longmode_trap t = {0};
	struct err e = {0};
	struct guest *g = make_guest(engine, &c, &lm, &e);
	bool ok;

	if (!g)
		return false;
	if (!cpuid_has(&g->vm.cpuid, 7, 0, CPUID_ECX, 3)) { /* KVM, as the host has it */
		free_guest(g);
		return true;
	}
	put_code(g, true);
	memcpy(vm_ram(&g->vm, CODE_P, 64), program, sizeof program);
	start_user(&start, &lm);
	start.cr4 |= CR4_PKE;
	start.gpr[X86_RSI] = key_0 ? 2 : 2 << 2; /* no writes */
	ok = vm_run(&g->vm, &start, &stop, 20, &e) == VM_STOPPED &&
	     longmode_trapped(&lm, &stop, &t) && t.vector == X86_PF &&
	     t.error == (PF_P | PF_W | PF_U | PF_PK) && t.rip == CODE + 21 &&
	     stop.gpr[X86_RCX] == 0x1111;
	if (!ok)
		printf("FAIL %s: vector %u, error %lx at %lx, RCX %lx\n", c.name, t.vector, t.error,
		       t.rip, stop.gpr[X86_RCX]);
	free_guest(g);
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
	ok &= run_stack(engine);
	ok &= run_keys(engine, false);
	ok &= run_keys(engine, true);
	return ok ? 0 : 1;
}
