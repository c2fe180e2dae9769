/* pm32: 32-bit protected mode without paging: segment limits and types, far transfers between
 * rings, interrupts with a stack switch, and the instructions that 64-bit mode has not. */
#include "guest32.h"

#define SEL_SMALL  0x33 /* expand-up, based, 0x1000 bytes */
#define SEL_DOWN   0x3b /* expand-down: valid from 0x1000 on */
#define SEL_RO     0x43
#define SEL_XO     0x4b /* execute-only */
#define SEL_BASED  0x50 /* ring 0 code at based_code */
#define SEL_GATE   0x5b
#define SEL_GATE0  0x60 /* DPL 0 */
#define SEL_NP     0x73
#define SEL_DOWN16 0x7b /* expand-down, B clear: valid up to 0xffff */

static uint8_t area[0x20000] __attribute__((aligned(4096)));

static void load_fs(uint32_t sel)
{
	__asm__ volatile("mov %0, %%fs" ::"r"(sel));
}

#define ACCESS(name, insn)                                                                         \
	static void name(uint32_t at)                                                              \
	{                                                                                          \
		__asm__ volatile(insn ::"r"(at) : "eax", "memory");                                \
	}
ACCESS(read_b, "movb %%fs:(%0), %%al")
ACCESS(read_l, "movl %%fs:(%0), %%eax")
ACCESS(write_l, "movl %%eax, %%fs:(%0)")

static void fs_access(uint16_t sel, const char *what, void (*fn)(uint32_t), uint32_t at,
		      bool faults)
{
	bool trapped;

	load_fs(sel);
	trapped = attempt(fn, at);
	if (faults)
		check_trap(what, trapped, GP, 0);
	else
		check_eq(what, trapped, false);
}

static void check_limits(void)
{
	uint32_t v;

	begin("limits");
	fs_access(SEL_SMALL, "last byte", read_b, 0xfff, false);
	fs_access(SEL_SMALL, "byte past it", read_b, 0x1000, true);
	fs_access(SEL_SMALL, "last dword", read_l, 0xffc, false);
	fs_access(SEL_SMALL, "dword across the limit", read_l, 0xffd, true);
	fs_access(SEL_SMALL, "dword around 4 GiB", read_l, 0xfffffffe, true);
	fs_access(SEL_DOWN, "first byte of expand-down", read_b, 0x1000, false);
	fs_access(SEL_DOWN, "below it", read_b, 0xfff, true);
	fs_access(SEL_DOWN, "dword from below it", read_l, 0xfff, true);
	fs_access(SEL_DOWN16, "end of 16-bit expand-down", read_l, 0xfffc, false);
	fs_access(SEL_DOWN16, "past it", read_l, 0xfffd, true);
	fs_access(SEL_RO, "read of read-only", read_l, (uint32_t)area, false);
	fs_access(SEL_RO, "write of read-only", write_l, (uint32_t)area, true);
	check_trap("load of execute-only", attempt(load_fs, SEL_XO), GP, SEL_XO & ~3);
	fs_access(0, "null", read_l, (uint32_t)area, true);
	begin("based segment");
	*(uint32_t *)(area + 0x24) = 0x12345678;
	load_fs(SEL_SMALL);
	__asm__ volatile("movl %%fs:0x24, %0" : "=r"(v));
	check_eq("read", v, 0x12345678);
	__asm__ volatile("movl %0, %%fs:0x28" ::"r"(~v) : "memory");
	check_eq("write", *(uint32_t *)(area + 0x28), ~0x12345678u);
}

static void stack_access(uint32_t sel)
{
	__asm__ volatile("mov %0, %%ss; mov $0x2000, %%ebp; mov (%%ebp), %%eax" ::"r"(sel)
			 : "eax", "ebp");
}

static void stack_push(uint32_t sel)
{
	__asm__ volatile("mov %0, %%ss; mov $2, %%esp; push $1" ::"r"(sel));
}

static void stack_pop(uint32_t sel)
{
	__asm__ volatile("mov %0, %%ss; mov $0x1004, %%esp; pop %%eax" ::"r"(sel) : "eax");
}

static void load_ss(uint32_t sel)
{
	__asm__ volatile("mov %0, %%ss" ::"r"(sel));
}

/* A #SS is delivered on the ring's own stack, so these run in ring 3. */
#define USER_STACK(name, fn, sel)                                                                  \
	static void name(uint32_t unused)                                                          \
	{                                                                                          \
		fn(sel);                                                                           \
		leave_user();                                                                      \
	}
USER_STACK(user_access, stack_access, SEL_SMALL)
USER_STACK(user_push, stack_push, SEL_SMALL)
USER_STACK(user_pop, stack_pop, SEL_SMALL)

static void check_stacks(void)
{
	begin("stack segment");
	check_trap("read past the limit", attempt_user(user_access), SS, 0);
	check_trap("push below 0", attempt_user(user_push), SS, 0);
	check_trap("pop past the limit", attempt_user(user_pop), SS, 0);
	check_eq("esp as before", trap.f.esp, 0x1004);
	check_trap("load of a null selector", attempt(load_ss, 0), GP, 0);
	check_trap("load of code", attempt(load_ss, CS0), GP, CS0);
	check_trap("load of ring 3's", attempt(load_ss, DS3), GP, DS3 & ~3);
	check_trap("load past the table", attempt(load_ss, 0x1000), GP, 0x1000);
	check_trap("FS not present", attempt(load_fs, SEL_NP), NP, SEL_NP & ~3);
}

static void check_queries(void)
{
	uint32_t v = 0x55, zf;

#define QUERY(insn, sel)                                                                           \
	__asm__ volatile(insn " %2, %0; setz %b1; movzbl %b1, %1"                                  \
			 : "+r"(v), "=q"(zf)                                                       \
			 : "r"((uint32_t)(sel)))
#define VERIFY(insn, sel)                                                                          \
	__asm__ volatile(insn " %w1; setz %b0; movzbl %b0, %0" : "=q"(zf) : "r"((uint32_t)(sel)))
	begin("LAR, LSL, VERR, VERW");
	QUERY("lar", DS0);
	check_eq("LAR", v, 0xcf9300);
	QUERY("lar", SEL_GATE);
	check_eq("LAR of a call gate", v & 0xff00, 0xec00);
	v = 0x55;
	QUERY("lar", 0);
	check_eq("LAR of null", zf << 8 | v, 0x55);
	QUERY("lar", 0x1000);
	check_eq("LAR past the table", zf << 8 | v, 0x55);
	QUERY("lsl", SEL_GATE);
	check_eq("LSL of a call gate", zf << 8 | v, 0x55);
	QUERY("lsl", DS0);
	check_eq("LSL with G", v, 0xffffffff);
	QUERY("lsl", SEL_SMALL);
	check_eq("LSL", zf << 16 | v, 0x10fff);
	QUERY("lsl", SEL_TSS);
	check_eq("LSL of a TSS", v, 103);
	VERIFY("verr", SEL_RO);
	check_eq("VERR", zf, 1);
	VERIFY("verw", SEL_RO);
	check_eq("VERW of read-only", zf, 0);
	VERIFY("verr", SEL_XO);
	check_eq("VERR of execute-only", zf, 0);
	VERIFY("verw", DS3);
	check_eq("VERW", zf, 1);
	VERIFY("verr", SEL_TSS);
	check_eq("VERR of a TSS", zf, 0);
}

/* --- far transfers --- */
extern char based_code[], gate_entry[];
uint32_t seen_cs, seen_arg, seen_esp, seen_ss, seen_flags;

__asm__(".balign 16\n"
	"based_code: mov %cs, %eax; call 1f; 1: pop %ebx; lret\n" /* ebx: offset in the segment */
	"gate_entry: push %ds; mov $0x10, %eax; mov %eax, %ds\n"
	"	mov %cs, seen_cs; mov 12(%esp), %eax; mov %eax, seen_arg\n"
	"	mov 16(%esp), %eax; mov %eax, seen_esp; mov 20(%esp), %eax; mov %eax, seen_ss\n"
	"	pop %ds; lret $4\n");

static void call_gate(uint32_t arg)
{
	__asm__ volatile("push %0; lcall %1, $0xdeadbeef" ::"r"(arg), "i"(SEL_GATE));
}

static void user_gate(uint32_t unused)
{
	uint32_t before, after;

	__asm__ volatile("mov %%esp, %0; push $0x600d; lcall %2, $0; mov %%esp, %1"
			 : "=&S"(before), "=&D"(after)
			 : "i"(SEL_GATE)
			 : "eax", "memory");
	__asm__ volatile("int $0x80" ::"a"(before), "b"(after));
}

static void user_gate0(uint32_t unused)
{
	__asm__ volatile("lcall %0, $0" ::"i"(SEL_GATE0));
}

static void user_far_ring0(uint32_t unused)
{
	__asm__ volatile("lcall %0, $0" ::"i"(CS0));
}

static void check_far(void)
{
	uint32_t cs, offset;

	begin("far call");
	set_segment(SEL_BASED, (uint32_t)based_code, 0xff, 0x9b, 0x40);
	__asm__ volatile("lcall %2, $0" : "=a"(cs), "=b"(offset) : "i"(SEL_BASED) : "memory");
	check_eq("cs", cs, SEL_BASED);
	check_eq("offset, not address", offset < 0x20, true);
	begin("call gate");
	check_trap("within ring 0", attempt(call_gate, 0x1234), -1u, 0);
	check_eq("cs", seen_cs, CS0);
	check_trap("from ring 3", attempt_user(user_gate), 0x80, 0);
	check_eq("cs", seen_cs, CS0);
	check_eq("parameter copied", seen_arg, 0x600d);
	check_eq("caller's ss", seen_ss, DS3);
	check_eq("caller's esp", seen_esp, trap.f.eax - 4);
	check_eq("esp after RET n", trap.f.ebx, trap.f.eax);
	check_eq("back in ring 3", trap.f.cs, CS3);
	check_trap("DPL 0 gate", attempt_user(user_gate0), GP, SEL_GATE0);
	check_trap("ring 0 code", attempt_user(user_far_ring0), GP, CS0);
}

/* --- rings --- */
static void user_segments(uint32_t unused)
{
	uint32_t ds, cs;

	__asm__ volatile("mov %%ds, %0; mov %%cs, %1" : "=r"(ds), "=r"(cs));
	__asm__ volatile("int $0x80" ::"a"(ds), "b"(cs));
}

static void user_cli(uint32_t unused)
{
	__asm__ volatile("cli");
}

static void user_int(uint32_t unused)
{
	__asm__ volatile("int $0x40");
}

static void user_popf(uint32_t unused)
{
	__asm__ volatile("push $0x3202; popf; int $0x80");
}

static void check_rings(void)
{
	struct target t = {(uint32_t)user_segments, CS3, 2, 0x1000, DS0};

	begin("rings");
	check_trap("INT 0x80", attempt_user(user_segments), 0x80, 0);
	check_eq("ring 0's DS is dropped by IRET", trap.f.eax, 0);
	check_eq("cs", trap.f.ebx, CS3);
	check_eq("frame on the TSS's stack", trap.at,
		 (uint32_t)(ring0_stack + sizeof ring0_stack) - sizeof(struct frame));
	check_eq("ss", trap.f.ss, DS3);
	check_trap("CLI", attempt_user(user_cli), GP, 0);
	check_trap("DPL 0 gate", attempt_user(user_int), GP, 0x40 * 8 + 2);
	check_trap("POPF", attempt_user(user_popf), 0x80, 0);
	check_eq("IF and IOPL stay", trap.f.eflags & 0x3200, 0);
	check_trap("IRET to ring 3 with ring 0's SS", attempt_target(&t), GP, DS0);
	t.ss = DS3;
	t.cs = DS3;
	check_trap("IRET to data", attempt_target(&t), GP, DS3 & ~3);
}

/* --- instructions --- */
static void bound(uint32_t i)
{
	static const int32_t range[2] = {-3, 10};

	__asm__ volatile("bound %0, %1" ::"r"(i), "m"(range));
}

static void into(uint32_t v)
{
	__asm__ volatile("addl $1, %0; into" : "+r"(v));
}

static void aam0(uint32_t v)
{
	__asm__ volatile("aam $0" : "+a"(v));
}

#define BCD(insn, in, flags_in, out, flags, mask)                                                  \
	do {                                                                                       \
		uint32_t a = (in), f = (flags_in) | 2;                                             \
                                                                                                   \
		__asm__ volatile("push %1; popf; " insn "; pushf; pop %1" : "+a"(a), "+r"(f));     \
		check_eq(insn, a, out);                                                            \
		check_eq(insn " flags", f &(mask), flags);                                         \
	} while (0)

static void check_old(void)
{
	uint32_t got[8], frame[4], level;

	begin("BOUND, INTO");
	check_eq("in bounds", attempt(bound, 10), false);
	check_eq("lowest", attempt(bound, -3u), false);
	check_trap("above", attempt(bound, 11), BR, 0);
	check_trap("below", attempt(bound, -4u), BR, 0);
	check_eq("no overflow", attempt(into, 1), false);
	check_trap("overflow", attempt(into, 0x7fffffff), OF, 0);
	begin("BCD");
	BCD("daa", 0x9a, 0, 0x00, 0x55, 0xd5);
	BCD("daa", 0x1f, 0, 0x25, 0x10, 0xd5);
	BCD("das", 0x1f, 0x10, 0x19, 0x10, 0xd5);
	BCD("das", 0x9f, 1, 0x39, 0x15, 0xd5);
	BCD("aaa", 0x010b, 0, 0x0201, 0x11, 0x11);
	BCD("aaa", 0x0105, 0, 0x0105, 0, 0x11);
	BCD("aas", 0x020b, 0, 0x0105, 0x11, 0x11);
	BCD("aam", 0x3f, 0, 0x0603, 0x04, 0xc4);
	BCD("aad", 0x0603, 0, 0x3f, 0x04, 0xc4);
	BCD("aad $16", 0x0a0b, 0, 0xab, 0x80, 0xc4);
	check_trap("aam 0", attempt(aam0, 5), DE, 0);
	begin("PUSHA, POPA");
	__asm__ volatile("push %%ebp; mov $1, %%eax; mov $2, %%ecx; mov $3, %%edx; mov $4, %%ebx;"
			 "mov $5, %%ebp; mov $6, %%esi; push %%edi; mov $7, %%edi; pusha;"
			 "xor %%eax, %%eax; xor %%ecx, %%ecx; xor %%ebp, %%ebp; popa;"
			 "add %%eax, %%ecx; add %%ebp, %%ecx; mov -4(%%esp), %%eax; pop %%edi;"
			 "mov %%ecx, (%%edi); mov %%eax, 4(%%edi);"
			 "mov %%esi, 8(%%edi); pop %%ebp" ::"D"(got)
			 : "eax", "ebx", "ecx", "edx", "esi", "memory");
	check_eq("eax, ecx and ebp", got[0], 1 + 2 + 5);
	check_eq("eax is first", got[1], 1);
	check_eq("esi", got[2], 6);
	begin("ENTER, LEAVE");
	__asm__ volatile("push %%ebp; mov %%esp, %%ebp; push $0x11; push $0x22; mov %%esp, %%ebx;"
			 "enter $16, $2; mov %%ebx, %%eax; sub %%ebp, %%eax; mov %%eax, (%%edi);"
			 "mov %%ebp, %%eax; sub %%esp, %%eax; mov %%eax, 4(%%edi);"
			 "mov -4(%%ebp), %%eax; mov %%eax, 8(%%edi);"
			 "mov -8(%%ebp), %%eax; sub %%ebp, %%eax; mov %%eax, 12(%%edi);"
			 "leave; sub %%esp, %%ebx; mov %%ebx, %0; mov %%ebp, %%esp; pop %%ebp"
			 : "=S"(level)
			 : "D"(frame)
			 : "eax", "ebx", "memory");
	check_eq("frame below the stack", frame[0], 4);
	check_eq("links and room", frame[1], 8 + 16);
	check_eq("outer frame's link", frame[2], 0x11);
	check_eq("own link", frame[3], 0);
	check_eq("esp after LEAVE", level, 0);
}

void run_checks(void)
{
	set_segment(SEL_SMALL, (uint32_t)area, 0xfff, 0xf3, 0x40);
	set_segment(SEL_DOWN, (uint32_t)area, 0xfff, 0xf7, 0x40);
	set_segment(SEL_DOWN16, (uint32_t)area, 0xfff, 0xf7, 0);
	set_segment(SEL_RO, 0, 0xfffff, 0xf1, 0xc0);
	set_segment(SEL_XO, 0, 0xfffff, 0xf9, 0xc0);
	set_segment(SEL_NP, 0, 0xfffff, 0x73, 0xc0);
	set_call_gate(SEL_GATE, (void (*)(void))gate_entry, 3, 1);
	set_call_gate(SEL_GATE0, (void (*)(void))gate_entry, 0, 1);
	check_limits();
	check_stacks();
	check_queries();
	check_far();
	check_rings();
	check_old();
}
