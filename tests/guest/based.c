/* based: 32-bit code in segments whose base is not 0 or whose limit is not 4 GiB (SDM volume
 * 3A, 3.4): what the guest sees of its instruction pointer is the offset in the segment. */
#include "guest.h"

#define D_CODE 10
#define SEL    (8 * D_CODE | 3)

/* 32-bit user code. Its branches stay within code_start .. code_end. */
extern char code_start[], walk[], walk_back[], walk_end[], divide[], divide_at[], last[],
	far_jump[], far_call[], far_jcc[], far_jcc_at[], by_register[], far_loop[], far_loop_at[],
	far_jecxz[], far_jecxz_at[], code_end[];
__asm__(".section .text.user, \"ax\"\n"
	".code32\n"
	"code_start: nop\n"
	/* ebx, ecx, edx, esi: return addresses seen; edi: loops */
	"walk: call 1f\n"
	"walk_back: hlt\n"
	"1: pop %ebx; mov %ebx, %eax; sub $walk_back - 2f, %eax; jmp *%eax; hlt\n"
	"2: xor %edi, %edi; mov $1000, %ebp\n"
	"3: inc %edi; dec %ebp; jnz 3b\n"
	"lea 4f - walk_back(%ebx), %eax; call *%eax\n"
	"5: jmp 6f; hlt\n"
	"4: mov (%esp), %ecx; ret; hlt\n"
	"6: push %ecx; mov $3, %ecx\n"
	"7: inc %edi; loop 7b; pop %ecx\n"
	"int $0x80\n"
	"walk_end: hlt\n"
	"divide: xor %ecx, %ecx; mov $7, %eax; xor %edx, %edx\n"
	"divide_at: div %ecx; hlt\n"
	/* with a limit that ends before code_end - 16 */
	"far_jump: jmp code_end - 16\n"
	"far_call: call code_end - 16\n"
	"far_jcc: xor %eax, %eax\n"
	"far_jcc_at: jz code_end - 16\n"
	"far_loop: mov $0x10002, %ecx\n"
	"far_loop_at: loop code_end - 16\n"
	"far_jecxz: xor %ecx, %ecx\n"
	"far_jecxz_at: jecxz code_end - 16\n"
	"by_register: jmp *%edi\n"
	".skip 64, 0x90\n"
	"last: nop; nop; nop\n"
	".skip 16, 0x90\n"
	"code_end:\n"
	".code64\n"
	".text");

static uint32_t base;

static void set_segment(uint64_t new_base, uint64_t limit)
{
	base = (uint32_t)new_base;
	gdt[D_CODE] = 0x0040fb0000000000ull | (limit & 0xffff) | (limit >> 16 & 0xf) << 48 |
		      (base & 0xffffffull) << 16 | (uint64_t)(base >> 24) << 56;
}

static uint32_t offset(const char *label)
{
	return (uint32_t)user_ptr(label) - base;
}

static bool run(const char *label, uint64_t edi)
{
	static uint8_t stack[1024] __attribute__((aligned(16)));
	struct target t = {offset(label), SEL, 0x002, user_ptr(stack + sizeof stack), SS3};

	return attempt_iretq(&t, edi);
}

static void walk_it(void)
{
	check_trap("walk", run(walk, 0), 0x80, 0);
	check_eq("pushed by CALL", trap.f.rbx, offset(walk_back));
	check_eq("loops", trap.f.rdi, 1003);
	check_eq("INT's return address", trap.f.rip, offset(walk_end));
	check_trap("divide", run(divide, 0), DE, 0);
	check_eq("where", trap.f.rip, offset(divide_at));
}

static void bases(void)
{
	begin("code segments with a base");
	for (unsigned n = 0; n < 3; n++) {
		/* one linear address, three instruction pointers; the last wraps around */
		static const uint64_t below[] = {0x1230, 0x20000, 0x80000000};

		set_segment(user_ptr(code_start) - below[n], 0xfffff);
		gdt[D_CODE] |= 1ull << 55; /* limit in pages: 4 GiB */
		walk_it();
	}
}

static void limits(void)
{
	begin("code segment limits");
	set_segment(user_ptr(code_start) - 0x100, 0);
	set_segment(base, offset(code_end) - 17);
	check_trap("jump past it", run(far_jump, 0), GP, 0);
	check_eq("where", trap.f.rip, offset(far_jump));
	check_trap("call past it", run(far_call, 0), GP, 0);
	check_eq("where", trap.f.rip, offset(far_call));
	check_trap("conditional jump past it", run(far_jcc, 0), GP, 0);
	check_eq("where", trap.f.rip, offset(far_jcc_at));
	check_trap("loop past it", run(far_loop, 0), GP, 0);
	check_eq("where", trap.f.rip, offset(far_loop_at));
	check_eq("its count", trap.f.rcx, 0x10002);
	check_trap("jecxz past it", run(far_jecxz, 0), GP, 0);
	check_eq("where", trap.f.rip, offset(far_jecxz_at));
	check_trap("jump by register past it", run(by_register, offset(code_end) - 16), GP, 0);
	check_eq("where", trap.f.rip, offset(by_register));
	check_trap("run past it", run(last, 0), GP, 0);
	check_eq("where", trap.f.rip, offset(last) + 3);
	walk_it();
}

void run_checks(void)
{
	bases();
	limits();
}
