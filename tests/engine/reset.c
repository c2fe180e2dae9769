/* reset: a vCPU starts where the processor does, at F000:FFF0 with a code segment at FFFF0000, in
 * a ROM below 4 GiB; goes on in real mode, with 4 GiB segments, and in RAM. */
#include <stdio.h>
#include <string.h>

#include "vm.h"

#define ROM_BYTES 0x10000u

/* The ROM's last bytes; labels count from its start. Each result goes to a port of its own. */
extern const uint8_t rom_begin[], rom_end[];
__asm__(".section .rodata\n"
	".code16\n"
	"rom_begin:\n"
	"gdt: .quad 0, 0x00cf93000000ffff\n"
	"gdtr: .word 15; .long 0xffff0000 + 0x10000 - (rom_end - rom_begin)\n"
	"word: .long 0x600df00d\n"
	"start: mov %cs, %ax; mov $0x500, %dx; out %ax, %dx\n"
	"mov %cs:(0x10000 + word - rom_end), %eax; add $4, %dx; out %eax, %dx\n"
	/* a real-mode segment; the write wraps at no 20 bits */
	"mov $0xffff, %ax; mov %ax, %ds; movl $0x11223344, (0x20)\n"
	"xor %ax, %ax; mov %ax, %ss; mov $0x7000, %sp\n"
	/* DS of 4 GiB by way of protected mode */
	"lgdtl %cs:(0x10000 + gdtr - rom_end)\n"
	"mov %cr0, %eax; or $1, %al; mov %eax, %cr0\n"
	"mov $8, %bx; mov %bx, %ds\n"
	"and $0xfe, %al; mov %eax, %cr0\n"
	"mov $0x100010, %esi; mov (%esi), %eax; add $4, %dx; out %eax, %dx\n"
	/* a load of DS in real mode changes the base alone */
	"xor %bx, %bx; mov %bx, %ds\n"
	"mov (%esi), %eax; add $4, %dx; out %eax, %dx\n"
	/* into RAM: 0000:7c00 has "mov %cs, %ax; out %ax, %dx; out %al, $0xf0; hlt" */
	"movl $0xefc88c, (0x7c00); movl $0xf4f0e6, (0x7c03)\n"
	"add $4, %dx\n"
	"ljmp $0, $0x7c00\n"
	".skip 256 - 16 - (. - rom_begin)\n"
	"jmp start\n"
	".skip 256 - (. - rom_begin)\n"
	"rom_end:\n"
	".code64\n"
	".text");

static int check(const struct vm *vm)
{
	static const struct vm_access want[] = {
		{BUS_PIO, true, 2, 0x500, 0xf000},     {BUS_PIO, true, 4, 0x504, 0x600df00d},
		{BUS_PIO, true, 4, 0x508, 0x11223344}, {BUS_PIO, true, 4, 0x50c, 0x11223344},
		{BUS_PIO, true, 2, 0x510, 0},
	};

	for (unsigned i = 0; i < ARRAY_SIZE(want); i++) {
		const struct vm_access *got = &vm->log[i];

		if (i >= vm->logged || got->addr != want[i].addr || got->value != want[i].value ||
		    got->size != want[i].size) {
			printf("FAIL: result %u of %u: want %#lx at port %#lx, got %#lx at %#lx\n",
			       i, vm->logged, want[i].value, want[i].addr, got->value, got->addr);
			return 1;
		}
	}
	return 0;
}

int main(int argc, char **argv)
{
	const struct engine *engine = vm_engine_of(argc, argv, VM_HOST_FIT);
	static struct x86_state start, end;
	static struct vm vm;
	struct err e = {0};
	enum vm_end how;
	int r;

	vm.rom_bytes = ROM_BYTES;
	if (vm_init(&vm, engine, MIB(8), &e) < 0) {
		printf("%s\n", e.text);
		return 1;
	}
	memcpy(vm_ram(&vm, 0x100000000 - (rom_end - rom_begin), rom_end - rom_begin), rom_begin,
	       rom_end - rom_begin);
	x86_state_reset(&start, 0);
	how = vm_run(&vm, &start, &end, 10, &e);
	if (how != VM_STOPPED)
		printf("FAIL: it ended with %d at %#lx %s\n", how, end.rip, e.text);
	r = how != VM_STOPPED || check(&vm);
	vm_done(&vm);
	return r;
}
