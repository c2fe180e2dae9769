/* run: a guest of tests/guest on an engine without the machine: RAM, serial output, port
 * 0xf4. Exit status 0 when the guest says that all its checks passed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "boot/boot.h"
#include "engine/vm.h"

/* What fails on a KVM that emulates ring 0 (struct kvm_finding, emulates_ring0), by the line that
 * the guest prints, up to where values vary. Anything else that fails there is a failure. */
static const struct odd_line {
	const char *start, *why;
} odd_lines[] = {
#define INT_N  "INT n in ring 3 is #UD or #PF"
#define GP_UD  "a #GP in ring 3 or at an IRET that the emulator lacks is #UD"
#define SYSCAL "SYSCALL from ring 3 stays in ring 3"
#define DEBUG  "no debug trap but plain single steps"
	{"user read-only: user read: got 0x6, want 0x80", INT_N},
	{"user writable: user write: got 0x6, want 0x80", INT_N},
	{"SMAP: user write: got 0x6, want 0x80", INT_N},
	{"what a fault leaves behind: first page's bytes: ", "a store that faults is half done"},
	{"privilege: int 0x21 through a DPL 0 gate: got 0x6, want 0xd", INT_N},
	{"privilege: int 14 through a DPL 0 gate: got 0x6, want 0xd", INT_N},
	{"privilege: popf: got 0x6, want 0x80", INT_N},
	{"privilege: IF and IOPL stay: got 0x200, want 0x0", INT_N},
	{"mov ss shadow: no step between mov ss and the next: ", DEBUG},
	{"mov ss shadow: steps: got 0x5, want 0x4", DEBUG},
	{"string step: one step per iteration: got 0x5, want 0x6", DEBUG},
	{"debug registers: ", "no data breakpoints in emulated code"},
	{"control registers and MSRs: CR4 reserved bit: ", "CR4 takes a reserved bit"},
	{"ring 3 patches its code: user: got 0x6, want 0x80", INT_N},
	{"IRET to ring 3: 64-bit: got 0x6, want 0x80", INT_N},
	{"IRET to ring 3: compatibility mode: got 0x6, want 0x80", INT_N},
	{"IRET to bad states: cs is data: got 0x6, want 0xd", GP_UD},
	{"IRET to bad states: ss is code: got 0x6, want 0xd", GP_UD},
	{"IRET to bad states: rip: got 0x4", GP_UD},
	{"IRET within ring 0: NT popped: got 0x6, want 0x80", INT_N},
	{"IRET within ring 0: NT: got 0x0, want 0x1", INT_N},
	{"call gate: from ring 3: got 0x6, want 0x80", GP_UD},
	{"call gate: DPL 0 gate from ring 3: got 0x6, want 0xd", GP_UD},
	{"call gate: cs: got 0x0", GP_UD},
	{"call gate: caller's cs: got 0x0", GP_UD},
	{"call gate: parameter copied: ", GP_UD},
	{"call gate: caller's ss: ", GP_UD},
	{"call gate: caller's esp: ", GP_UD},
	{"call gate: esp after RET n: ", GP_UD},
	{"call gate: DPL 0 gate: got 0x6, want 0xd", GP_UD},
	{"rings: INT 0x80: got 0x6, want 0x80", INT_N},
	{"rings: DPL 0 gate: got 0x6, want 0xd", INT_N},
	{"rings: POPF: got 0x6, want 0x80", INT_N},
	{"BCD: aad $16 flags: got 0x0, want 0x80", "AAD's flags are those of 32 bits"},
	{"code segments with a base: walk: got 0xe, want 0x80", INT_N},
	{"code segments with a base: INT's return address: ", INT_N},
	{"code segment limits: walk: got 0xe, want 0x80", INT_N},
	{"code segment limits: INT's return address: ", INT_N},
	{"32-bit paging: switched on: got 0x1, want 0x0", "no paging outside long mode"},
	{"PAE: switched on: got 0x1, want 0x0", "no paging outside long mode"},
	{"SYSCALL and SYSRET: ", SYSCAL},
	{"SYSCALL with SCE off: #UD: got 0xe, want 0x6", SYSCAL},
	{"SYSCALL from compatibility mode: ", SYSCAL},
};

static bool is_odd_line(const char *line)
{
	for (unsigned i = 0; i < ARRAY_SIZE(odd_lines); i++)
		if (!strncmp(line, odd_lines[i].start, strlen(odd_lines[i].start))) {
			printf("\tthis host's KVM: %s\n", odd_lines[i].why);
			return true;
		}
	return false;
}

/* Prints the guest's text; on an odd host true when every failure in it is known. */
static bool explains(char *text, bool odd_host)
{
	char *save, *line = strtok_r(text, "\n", &save);
	bool all = odd_host;

	for (; line; line = strtok_r(NULL, "\n", &save)) {
		printf("%s\n", line);
		if (odd_host && !strncmp(line, "FAIL ", 5))
			all &= is_odd_line(line + 5);
		else if (strstr(line, "unexpected trap"))
			all = false;
	}
	return all;
}

static int run_guest(struct vm *vm, const struct engine *engine, const char *file, bool odd_host,
		     struct err *e)
{
	static const char *const how_text[] = {"stopped", "halted for ever", "triple fault",
					       "timed out", "failed"};
	struct boot_config config = {.kernel = file, .cmdline = ""};
	static struct x86_state start, stop;
	enum vm_end how;
	char text[4096];
	bool known;
	int r;

	r = vm_init(vm, engine, MIB(64), e);
	if (r < 0)
		return r;
	x86_state_reset(&start, 0);
	r = boot_load(vm->mem, &config, &start, e);
	if (r < 0)
		return r;
	how = vm_run(vm, &start, &stop, 60, e);
	known = explains(vm->text, odd_host);
	if (how == VM_STOPPED)
		return vm->exit_value && !known ? 1 : 0;
	x86_state_print(&stop, text, sizeof text);
	printf("%s %s\n%s", how_text[how], e->text, text);
	return 1;
}

int main(int argc, char **argv)
{
	const struct engine *engine = argc == 3 ? vm_engine(argv[1]) : NULL;
	struct vm *vm = calloc(1, sizeof *vm);
	enum vm_host host;
	struct err e = {0};
	int r;

	if (argc != 3 || !vm) {
		fprintf(stderr, "usage: run jit|kvm GUEST.elf\n");
		return 2;
	}
	if (!engine) {
		printf("engine %s is not in this build\n", argv[1]);
		return 77;
	}
	host = vm_host(engine);
	if (host == VM_HOST_UNFIT)
		return 77;
	r = run_guest(vm, engine, argv[2], host == VM_HOST_ODD, &e);
	if (r < 0)
		fprintf(stderr, "run: %s\n", e.text);
	vm_done(vm);
	free(vm);
	return r ? 1 : 0;
}
