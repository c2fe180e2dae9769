/* run: a guest of tests/guest on an engine without the machine: RAM, serial output, port
 * 0xf4. Exit status 0 when the guest says that all its checks passed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "boot/boot.h"
#include "engine/vm.h"

static int run_guest(struct vm *vm, const struct engine *engine, const char *file, struct err *e)
{
	static const char *const how_text[] = {"stopped", "halted for ever", "triple fault",
					       "timed out", "failed"};
	struct boot_config config = {.kernel = file, .cmdline = ""};
	static struct x86_state start, stop;
	enum vm_end how;
	char text[4096];
	int r;

	r = vm_init(vm, engine, MIB(64), e);
	if (r < 0)
		return r;
	x86_state_reset(&start, 0);
	r = boot_load(vm->mem, &config, &start, e);
	if (r < 0)
		return r;
	how = vm_run(vm, &start, &stop, 60, e);
	fwrite(vm->text, 1, vm->text_len, stdout);
	if (how == VM_STOPPED)
		return vm->exit_value ? 1 : 0;
	x86_state_print(&stop, text, sizeof text);
	printf("%s %s\n%s", how_text[how], e->text, text);
	return 1;
}

int main(int argc, char **argv)
{
	const struct engine *engine = argc == 3 ? vm_engine(argv[1]) : NULL;
	struct vm *vm = calloc(1, sizeof *vm);
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
	if (vm_host(engine) == VM_HOST_UNFIT)
		return 77;
	r = run_guest(vm, engine, argv[2], &e);
	if (r < 0)
		fprintf(stderr, "run: %s\n", e.text);
	vm_done(vm);
	free(vm);
	return r ? 1 : 0;
}
