/* alias: one page of user code, mapped at many virtual addresses, each with data of its own. From the third on
 * the JIT copies what it translated for the others (cpu/jit/template.h). All of it must be as if it
 * had been translated there: RIP-relative data, returns, jumps to the next page, the RIP of a fault. And so it
 * must be after a write to the code, and after the engine has given back its memory. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "longmode.h"
#include "user.h"

#define CODE_P  0x200000u /* two pages, everybody's */
#define DATA_P  0x210000u /* a page each */
#define STACK_P 0x202000u
#define STACK   UINT64_C(0x7f0000000000)
#define DATA    0x2000u /* from the code's first page, as mapped */
#define CALLEE  0x1000u
#define TAIL    0x1010u
#define ADDS    0x1003u /* what the callee adds */
#define FAULTS  0x1017u
#define RETURN  0x23u

static const uint8_t code[] = {
	0x48, 0x8b, 0x05, 0xf9, 0x1f, 0x00, 0x00, /* mov DATA(%rip), %rax */
	0x48, 0x8d, 0x1d, 0xf2, 0x1f, 0x00, 0x00, /* lea DATA(%rip), %rbx */
	0xb9, 0x03, 0x00, 0x00, 0x00,             /* mov $3, %ecx */
	0x48, 0xff, 0xc8,                         /* 1: dec %rax */
	0x48, 0xff, 0xc0,                         /* inc %rax */
	0xff, 0xc9,                               /* dec %ecx */
	0x75, 0xf6,                               /* jnz 1b */
	0x90,                                     /* nop */
	0xe8, 0xdd, 0x0f, 0x00, 0x00,             /* call CALLEE; returns to RETURN */
	0xe9, 0xe8, 0x0f, 0x00, 0x00,             /* jmp TAIL */
};
static const uint8_t callee[] = {0x48, 0x83, 0xc0, 0x01, 0xc3}; /* add $1, %rax; ret */
static const uint8_t tail[] = {
	0x48, 0x89, 0x05, 0xf1, 0x0f, 0x00, 0x00, /* mov %rax, DATA+8(%rip) */
	0x48, 0x8b, 0x11,                         /* mov (%rcx), %rdx: 0 */
};

static const uint64_t bases[] = {
	0x400000,       0x555555554000, 0x555556789000, 0x56781234a000,       0x7f1234567000,
	0x7f7fffffd000, 0x10000000,     0x7fff0000,     UINT64_C(0xfffff000), 0x12345678a000,
};

static bool run(struct vm *vm, struct longmode *lm, unsigned n, unsigned adds)
{
	static struct x86_state start, stop;
	struct longmode_trap t = {0};
	uint64_t *data = vm_ram(vm, DATA_P + n * PAGE, PAGE), base = bases[n];
	uint64_t *stack = vm_ram(vm, STACK_P, PAGE), back;
	struct err e = {0};
	bool ok;

	data[0] = 0x1000 + n;
	data[1] = 0;
	start = lm->base;
	longmode_to_user(&start, USER_CS64);
	start.rip = base;
	start.gpr[X86_RSP] = STACK + 0x800;
	ok = vm_run(vm, &start, &stop, 20, &e) == VM_STOPPED && longmode_trapped(lm, &stop, &t);
	back = stack[0x7f8 / 8];
	ok = ok && t.vector == X86_PF && t.rip == base + FAULTS && stop.cr2 == 0 &&
	     data[1] == 0x1000 + n + adds && stop.gpr[X86_RBX] == base + DATA &&
	     back == base + RETURN;
	if (!ok)
		printf("FAIL at %lx: vector %u at %lx, rax %lx, data %lx, rbx %lx, return %lx %s\n",
		       base, t.vector, t.rip, stop.gpr[X86_RAX], data[1], stop.gpr[X86_RBX], back,
		       e.text);
	return ok;
}

static void fill(struct vm *vm, struct longmode *lm)
{
	longmode_init(lm, vm);
	for (unsigned n = 0; n < ARRAY_SIZE(bases); n++) {
		longmode_map(lm, bases[n], CODE_P, PTE_P | PTE_U);
		longmode_map(lm, bases[n] + PAGE, CODE_P + PAGE, PTE_P | PTE_U);
		longmode_map(lm, bases[n] + DATA, DATA_P + n * PAGE, PTE_P | PTE_U | PTE_W);
	}
	longmode_map(lm, STACK, STACK_P, PTE_P | PTE_U | PTE_W);
	memcpy(vm_ram(vm, CODE_P, PAGE), code, sizeof code);
	memcpy(vm_ram(vm, CODE_P + CALLEE, 64), callee, sizeof callee);
	memcpy(vm_ram(vm, CODE_P + TAIL, 64), tail, sizeof tail);
}

/* What its statistics say of copies; 1 of an engine that makes none. */
static unsigned long copied(const struct vm *vm)
{
	char text[256] = "";
	unsigned long translated, copies = 1;

	if (vm->engine->stats)
		vm->engine->stats(vm->engine_vm, text, sizeof text);
	(void)sscanf(text, "%lu blocks translated, %lu copied", &translated, &copies);
	return copies;
}

static bool all(const struct engine *engine, bool windows)
{
	struct vm *vm = calloc(1, sizeof *vm);
	struct longmode lm;
	struct err e = {0};
	unsigned long before = 1;
	bool ok = true;

	if (!vm)
		return false;
	vm->windows = windows;
	if (vm_init(vm, engine, MIB(8), &e) < 0) {
		printf("FAIL %s\n", e.text);
		return false;
	}
	fill(vm, &lm);
	for (unsigned round = 0; round < 6; round++) {
		uint8_t adds = round == 2 ? 7 : 1, *at = vm_ram(vm, CODE_P + ADDS, 1);

		*at = adds;
		mem_written(vm->mem, at, 1);
		if (round == 4 && engine->trim) {
			engine->trim(vm->vcpu);
			before = copied(vm);
		}
		for (unsigned n = 0; n < ARRAY_SIZE(bases); n++)
			ok &= run(vm, &lm, n, adds);
	}
	if (!before || (engine->trim && copied(vm) == before)) {
		printf("FAIL nothing was copied, before or after a trim\n");
		ok = false;
	}
	vm_done(vm);
	free(vm);
	return ok;
}

int main(int argc, char **argv)
{
	const struct engine *engine = vm_engine_of(argc, argv, VM_HOST_FIT);
	bool ok = all(engine, false);

	ok &= all(engine, true);
	return ok ? 0 : 1;
}
