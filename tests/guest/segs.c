/* segs: segment registers, far transfers, IRET in its shapes, SYSCALL and SYSENTER with their
 * ways back (SDM volume 3A, 5 and 6.12; volume 2 of each). */
#include "guest.h"

static void none(const char *what, bool trapped)
{
	check_eq(what, trapped ? 0x100 + trap.f.vector : 0, 0);
}

/* Descriptors of our own, in gdt[10..]. */
#define SEL(n)       ((uint16_t)(8 * (n)))
#define DATA0        0x00cf93000000ffffull
#define DATA3        0x00cff3000000ffffull
#define DATA_RO      0x00cf91000000ffffull
#define CODE_CONFORM 0x00af9f000000ffffull
#define CODE_XONLY   0x00cf99000000ffffull
#define CODE16       0x00009b000000ffffull
#define LDT_DESC     0x000082000000ffffull

enum {
	D_DATA0 = 10,
	D_DATA3,
	D_RO,
	D_CONFORM,
	D_XONLY,
	D_NP_DATA,
	D_GATE,
	D_GATE_HI,
	D_BASE,
	D_LDT,
	D_LDT_HI,
	D_NP_CODE,
	D_DPL0_ONLY
};

static void load_ds(uint64_t sel)
{
	__asm__ volatile("mov %w0, %%ds" ::"r"(sel) : "memory");
}

static void load_ss(uint64_t sel)
{
	__asm__ volatile("mov %w0, %%ss" ::"r"(sel));
}

static void load_fs(uint64_t sel)
{
	__asm__ volatile("mov %w0, %%fs" ::"r"(sel));
}

static void load_tr(uint64_t sel)
{
	__asm__ volatile("ltr %w0" ::"r"(sel));
}

static void load_ldt(uint64_t sel)
{
	__asm__ volatile("lldt %w0" ::"r"(sel));
}

static uint16_t ds(void)
{
	uint16_t v;

	__asm__ volatile("mov %%ds, %0" : "=r"(v));
	return v;
}

static void data_segments(void)
{
	begin("data segments");
	gdt[D_DATA0] = DATA0;
	gdt[D_DATA3] = DATA3;
	gdt[D_RO] = DATA_RO;
	gdt[D_CONFORM] = CODE_CONFORM;
	gdt[D_XONLY] = CODE_XONLY;
	gdt[D_NP_DATA] = DATA0 & ~(1ull << 47);
	none("data", attempt(load_ds, SEL(D_DATA0)));
	check_eq("selector", ds(), SEL(D_DATA0));
	gdt[D_DATA0] = DATA0 & ~(1ull << 40);
	load_ds(SEL(D_DATA0));
	check_eq("accessed bit set by the load", gdt[D_DATA0] >> 40 & 1, 1);
	none("user data", attempt(load_ds, SEL(D_DATA3) | 3));
	none("null", attempt(load_ds, 0));
	none("null with RPL 3", attempt(load_ds, 3));
	check_trap("execute-only code", attempt(load_ds, SEL(D_XONLY)), GP, SEL(D_XONLY));
	none("conforming readable code", attempt(load_ds, SEL(D_CONFORM) | 3));
	check_trap("RPL above DPL", attempt(load_ds, SEL(D_DATA0) | 3), GP, SEL(D_DATA0));
	check_trap("not present", attempt(load_ds, SEL(D_NP_DATA)), NP, SEL(D_NP_DATA));
	check_trap("system descriptor", attempt(load_ds, SEL_TSS), GP, SEL_TSS);
	check_trap("beyond the table", attempt(load_ds, 0x4000), GP, 0x4000);
	check_trap("LDT without an LDT", attempt(load_ds, 0x0c), GP, 0x0c);
	begin("stack segments");
	check_trap("not present", attempt(load_ss, SEL(D_NP_DATA)), SS, SEL(D_NP_DATA));
	check_trap("read-only", attempt(load_ss, SEL(D_RO)), GP, SEL(D_RO));
	check_trap("DPL 3 in ring 0", attempt(load_ss, SEL(D_DATA3)), GP, SEL(D_DATA3));
	check_trap("null with RPL 3", attempt(load_ss, 3), GP, 0);
	none("null in ring 0", attempt(load_ss, 0));
	none("data", attempt(load_ss, SEL(D_DATA0)));
	load_ss(SS0);
	begin("FS base");
	gdt[D_BASE] = DATA0 | 0x3456ull << 16 | 0x12ull << 32;
	none("load", attempt(load_fs, SEL(D_BASE)));
	check_eq("base from the descriptor", rdmsr(0xc0000100), 0x123456);
	wrmsr(0xc0000100, 0x7fff12345678);
	check_eq("base by MSR", rdmsr(0xc0000100), 0x7fff12345678);
	begin("LTR and LLDT");
	check_trap("busy TSS", attempt(load_tr, SEL_TSS), GP, SEL_TSS);
	check_trap("not a TSS", attempt(load_tr, SEL(D_DATA0)), GP, SEL(D_DATA0));
	gdt[D_LDT] = LDT_DESC | ((uint64_t)pages[0] & 0xffffff) << 16;
	gdt[D_LDT_HI] = 0;
	*(uint64_t *)pages[0] = DATA0;
	none("lldt", attempt(load_ldt, SEL(D_LDT)));
	none("from the LDT", attempt(load_ds, 4));
	check_trap("not an LDT", attempt(load_ldt, SEL_TSS), GP, SEL_TSS);
	none("null", attempt(load_ldt, 0));
	load_ds(0);
}

static uint64_t lar(uint64_t sel, bool *ok)
{
	uint64_t v = 0xdead;
	bool z;

	__asm__ volatile("lar %k2, %k0" : "+r"(v), "=@ccz"(z) : "r"(sel));
	*ok = z;
	return v;
}

static uint64_t lsl(uint64_t sel, bool *ok)
{
	uint64_t v = 0xdead;
	bool z;

	__asm__ volatile("lsl %k2, %k0" : "+r"(v), "=@ccz"(z) : "r"(sel));
	*ok = z;
	return v;
}

static bool verr(uint64_t sel)
{
	bool z;

	__asm__ volatile("verr %w1" : "=@ccz"(z) : "r"(sel));
	return z;
}

static bool verw(uint64_t sel)
{
	bool z;

	__asm__ volatile("verw %w1" : "=@ccz"(z) : "r"(sel));
	return z;
}

static void inspection(void)
{
	bool ok;

	begin("LAR, LSL, VERR, VERW");
	check_eq("lar code", lar(CS0, &ok) & 0xf0ff00, 0xa09b00); /* bits 19:16 are undefined */
	check_eq("ok", ok, 1);
	check_eq("lsl", lsl(SS0, &ok), 0xffffffff);
	check_eq("lsl of a TSS", lsl(SEL_TSS, &ok), 103);
	check_eq("lar null: register stays", lar(0, &ok), 0xdead);
	check_eq("not ok", ok, 0);
	lar(SEL(D_RO) | 3, &ok);
	check_eq("RPL above DPL", ok, 0);
	check_eq("verr data", verr(SS0), 1);
	check_eq("verr execute-only", verr(SEL(D_XONLY)), 0);
	check_eq("verw read-only", verw(SEL(D_RO)), 0);
	check_eq("verw data", verw(SS0), 1);
	check_eq("verw code", verw(CS0), 0);
}

extern char user_landing[], user32_landing[];
__asm__(".section .text.user, \"ax\"\n"
	"user_landing: int $0x80\n"
	".code32\n"
	"user32_landing: mov %esp, %ebx; push $0x12345678; pop %ecx; mov %cs, %edx; int $0x80\n"
	".code64\n.text");

static struct target target(void)
{
	struct target t = {user_ptr(user_landing), CS3, 0x202, user_ptr(pages[2]) + 2048, SS3};

	return t;
}

static void iret_bad(const char *what, struct target t, unsigned vector, uint64_t error)
{
	check_trap(what, attempt_iretq(&t, 0), vector, error);
	if (vector != 0x80)
		check_eq("rip", trap.f.rip, (uint64_t)attempt_iret);
}

static void iret_shapes(void)
{
	struct target t = target();

	begin("IRET to ring 3");
	check_trap("64-bit", attempt_iretq(&t, 0), 0x80, 0);
	check_eq("cs", trap.f.cs, CS3);
	check_eq("rsp", trap.f.rsp, t.rsp);
	t.rip = user_ptr(user32_landing);
	t.cs = CS3_32;
	check_trap("compatibility mode", attempt_iretq(&t, 0), 0x80, 0);
	check_eq("cs", trap.f.cs, CS3_32);
	check_eq("esp", trap.f.rbx, t.rsp);
	check_eq("32-bit push and pop", trap.f.rcx, 0x12345678);
	begin("IRET to bad states");
	gdt[D_NP_CODE] = 0x00af7b000000ffffull;
	gdt[D_NP_DATA] = DATA3 & ~(1ull << 47);
	t = target();
	t.cs = 0;
	iret_bad("null cs", t, GP, 0);
	t.cs = 0x4003;
	iret_bad("cs beyond the table", t, GP, 0x4000);
	t.cs = SS3;
	iret_bad("cs is data", t, GP, SS3 & ~3);
	t.cs = CS0 | 3;
	iret_bad("cs DPL below RPL", t, GP, CS0);
	t.cs = SEL(D_NP_CODE) | 3;
	iret_bad("cs not present", t, NP, SEL(D_NP_CODE));
	t = target();
	t.ss = 3;
	iret_bad("null ss in ring 3", t, GP, 0);
	t.ss = SS0 | 3;
	iret_bad("ss DPL", t, GP, SS0);
	t.ss = SS3 & ~3;
	iret_bad("ss RPL", t, GP, SS3 & ~3);
	t.ss = SEL(D_NP_DATA) | 3;
	iret_bad("ss not present", t, SS, SEL(D_NP_DATA));
	t.ss = CS3;
	iret_bad("ss is code", t, GP, CS3 & ~3);
	t = target();
	t.rip = 1ull << 63;
	check_trap("non-canonical rip", attempt_iretq(&t, 0), GP, 0);
	begin("IRET drops segments");
	load_ds(SEL(D_DATA0));
	t = target();
	attempt_iretq(&t, 0);
	begin("IRET within ring 0");
	t = (struct target){(uint64_t)user_landing, CS0, 0x2, (uint64_t)stack_top - 4096 + 5, SS0};
	check_trap("rsp is loaded", attempt_iretq(&t, 0), 0x80, 0);
	check_eq("unaligned rsp", trap.f.rsp, (uint64_t)stack_top - 4096 + 5);
	check_eq("frame aligned to 16", (trap.at_rsp + sizeof trap.f) & 15, 0);
	t.ss = 0;
	check_trap("null ss in ring 0", attempt_iretq(&t, 0), 0x80, 0);
	check_eq("ss", trap.f.ss, 0);
	t = target();
	t.rflags = 0x4202; /* NT is in the popped image, not in the current flags */
	check_trap("NT popped", attempt_iretq(&t, 0), 0x80, 0);
	check_eq("NT", trap.f.rflags >> 14 & 1, 1);
}

static void iret_with_nt(uint64_t x)
{
	__asm__ volatile("pushf; orl $0x4000, (%%rsp); popf; iretq" ::: "memory", "cc");
}

/* --- far transfers --- */
static struct far_ptr {
	uint32_t offset;
	uint16_t sel;
} __attribute__((packed)) far_ptr;

/* Written by the assembly. */
extern volatile uint64_t far_cs, far_depth;
volatile uint64_t far_cs, far_depth;
extern char far_target[], far_caller_target[], gate_target[];
__asm__("far_target: mov %cs, %eax; mov %rax, far_cs(%rip); lretq\n"
	"gate_target: mov %cs, %eax; mov %rax, far_cs(%rip); mov 8(%rsp), %rax;"
	"mov %rax, far_depth(%rip); lretq");

static void far_call(uint64_t x)
{
	__asm__ volatile("lcall *%0" ::"m"(far_ptr) : "rax", "memory");
}

static void far_jump_bad(uint64_t x)
{
	__asm__ volatile("ljmp *%0" ::"m"(far_ptr) : "memory");
}

static void far_jump(uint16_t sel, uint32_t offset)
{
	far_ptr.sel = sel;
	far_ptr.offset = offset;
}

USER static void user_gate(uint64_t p)
{
	__asm__ volatile("lcall *(%0); int $0x80" ::"r"(p) : "rax", "memory");
}

static void put_gate(uint64_t fn, uint16_t sel, unsigned dpl, bool present)
{
	gdt[D_GATE] = (fn & 0xffff) | (uint64_t)sel << 16 |
		      (uint64_t)((present ? 0x80 : 0) | dpl << 5 | 0xc) << 40 |
		      (fn >> 16 & 0xffff) << 48;
	gdt[D_GATE_HI] = fn >> 32;
}

static void far_transfers(void)
{
	begin("far call and return");
	far_cs = 0;
	__asm__ volatile("push $0; mov %%cs, (%%rsp); lea 1f(%%rip), %%rax; push %%rax;"
			 "pushq %0; pushq %1; lretq; 1:" ::"i"(SEL(D_CONFORM)),
			 "i"(far_target)
			 : "rax", "memory");
	check_eq("LRET to another segment", far_cs, SEL(D_CONFORM));
	begin("far jumps to bad selectors");
	far_jump(0, 0);
	check_trap("null", attempt(far_jump_bad, 0), GP, 0);
	far_jump(0x4000, 0);
	check_trap("beyond the table", attempt(far_jump_bad, 0), GP, 0x4000);
	far_jump(SS0, 0);
	check_trap("data", attempt(far_jump_bad, 0), GP, SS0);
	far_jump(CS3, 0);
	check_trap("outer ring", attempt(far_jump_bad, 0), GP, CS3 & ~3);
	far_jump(SEL(D_NP_CODE), 0);
	gdt[D_NP_CODE] = 0x00af1b000000ffffull;
	check_trap("not present", attempt(far_jump_bad, 0), NP, SEL(D_NP_CODE));
	far_jump(SEL_TSS, 0);
	check_trap("TSS in long mode", attempt(far_jump_bad, 0), GP, SEL_TSS);
	begin("call gate");
	put_gate((uint64_t)gate_target, CS0, 3, true);
	far_jump(SEL(D_GATE), 0);
	far_cs = 0;
	none("from ring 0", attempt(far_call, 0));
	check_eq("cs", far_cs, CS0);
	far_cs = far_depth = 0;
	check_eq("from ring 3", attempt_user(user_gate, user_ptr(&far_ptr)) ? trap.f.vector : 0,
		 0x80);
	check_eq("cs", far_cs, CS0);
	check_eq("caller's cs", far_depth, CS3);
	check_eq("back in ring 3", trap.f.cs, CS3);
	put_gate((uint64_t)gate_target, CS0, 0, true);
	check_trap("DPL 0 gate from ring 3", attempt_user(user_gate, user_ptr(&far_ptr)), GP,
		   SEL(D_GATE));
	put_gate((uint64_t)gate_target, CS0, 3, false);
	check_trap("gate not present", attempt(far_call, 0), NP, SEL(D_GATE));
	put_gate((uint64_t)gate_target, CS0_32, 3, true);
	check_trap("gate to 32-bit code", attempt(far_call, 0), GP, CS0_32);
}

/* --- SYSCALL --- */
extern volatile uint64_t sys_rcx, sys_r11, sys_cs, sys_ss, sys_rflags, sys_rsp;
volatile uint64_t sys_rcx, sys_r11, sys_cs, sys_ss, sys_rflags, sys_rsp;
extern char sys_entry[], sys_entry32[], sysenter_entry[];
__asm__("sys_entry: mov %rcx, sys_rcx(%rip); mov %r11, sys_r11(%rip); mov %rsp, sys_rsp(%rip)\n"
	"mov %cs, %eax; mov %rax, sys_cs(%rip); mov %ss, %eax; mov %rax, sys_ss(%rip)\n"
	"lea stack_top-8192(%rip), %rsp; pushf; pop sys_rflags(%rip); mov sys_rsp(%rip), %rsp\n"
	"mov $0x5ca11, %eax; sysretq\n"
	"sys_entry32: mov %rcx, sys_rcx(%rip); mov %cs, %eax; mov %rax, sys_cs(%rip); mov $0x32, %eax; sysretl\n"
	"sysenter_entry: mov %rsp, sys_rsp(%rip); mov %cs, %eax; mov %rax, sys_cs(%rip)\n"
	"mov %ss, %eax; mov %rax, sys_ss(%rip); pushf; pop sys_rflags(%rip); mov $0x5e, %eax; sysexitq\n");

extern char user_syscall[], user_syscall_end[], user32_syscall[], user_sysenter[], after_sysenter[];
__asm__(".section .text.user, \"ax\"\n"
	"user_syscall: stc; syscall; user_syscall_end: pushf; pop %rbx; mov %ss, %edx; int $0x80\n"
	".code32\n"
	"user32_syscall: syscall; mov %cs, %edx; int $0x80\n"
	".code64\n"
	"user_sysenter: mov %rsp, %rcx; lea after_sysenter(%rip), %rdx; sysenter\n"
	"after_sysenter: mov %cs, %ebx; mov %ss, %esi; int $0x80\n"
	".text");

static void syscalls(void)
{
	struct target t = target();

	begin("SYSCALL and SYSRET");
	wrmsr(0xc0000081, (uint64_t)CS0 << 32 | 0x20ull << 48);
	wrmsr(0xc0000082, (uint64_t)sys_entry);
	wrmsr(0xc0000083, (uint64_t)sys_entry32);
	wrmsr(0xc0000084, 0x701);
	t.rip = user_ptr(user_syscall);
	t.rflags = 0x802;
	check_trap("there and back", attempt_iretq(&t, 0), 0x80, 0);
	check_eq("rcx is the return address", sys_rcx, user_ptr(user_syscall_end));
	check_eq("r11 is the flags", sys_r11 & 0x801, 0x801);
	check_eq("cs", sys_cs, CS0);
	check_eq("ss", sys_ss, SS0);
	check_eq("rsp stays", sys_rsp, t.rsp);
	check_eq("flags masked", sys_rflags & 0x801, 0x800);
	check_eq("rax from the kernel", trap.f.rax, 0x5ca11);
	check_eq("flags restored", trap.f.rbx & 0x801, 0x801);
	check_eq("cs afterwards", trap.f.cs, CS3);
	check_eq("ss afterwards", trap.f.rdx, SS3);
	begin("SYSCALL with SCE off");
	wrmsr(0xc0000080, rdmsr(0xc0000080) & ~1ull);
	check_trap("#UD", attempt_iretq(&t, 0), UD, 0);
	wrmsr(0xc0000080, rdmsr(0xc0000080) | 1);
}

static void syscalls32(void)
{
	struct target t = target();
	uint32_t r[4];

	cpuid(0, 0, r);
	begin("SYSCALL from compatibility mode");
	t.rip = user_ptr(user32_syscall);
	t.cs = CS3_32;
	if (r[2] == 0x6c65746e) { /* Intel has it in 64-bit mode only */
		check_trap("#UD on Intel", attempt_iretq(&t, 0), UD, 0);
	} else {
		check_trap("through CSTAR and back", attempt_iretq(&t, 0), 0x80, 0);
		check_eq("cs in the kernel", sys_cs, CS0);
		check_eq("cs after SYSRET", trap.f.rdx, CS3_32);
		check_eq("rax", trap.f.rax, 0x32);
	}
}

static void sysenters(void)
{
	struct target t = target();
	uint32_t r[4];

	cpuid(0, 0, r);
	if (r[2] != 0x6c65746e) /* AMD: #UD in long mode */
		return;
	begin("SYSENTER and SYSEXIT");
	wrmsr(0x174, CS0);
	wrmsr(0x175, (uint64_t)stack_top - 8192);
	wrmsr(0x176, (uint64_t)sysenter_entry);
	t.rip = user_ptr(user_sysenter);
	t.rflags = 0x202;
	check_trap("there and back", attempt_iretq(&t, 0), 0x80, 0);
	check_eq("cs", sys_cs, CS0);
	check_eq("ss", sys_ss, SS0);
	check_eq("rsp", sys_rsp, (uint64_t)stack_top - 8192);
	check_eq("IF off", sys_rflags >> 9 & 1, 0);
}

static void swapgs(void)
{
	begin("SWAPGS");
	wrmsr(0xc0000101, 0x1111);
	wrmsr(0xc0000102, 0x2222);
	__asm__ volatile("swapgs");
	check_eq("GS base", rdmsr(0xc0000101), 0x2222);
	check_eq("kernel GS base", rdmsr(0xc0000102), 0x1111);
	*(uint64_t *)(pages[3] + 8) = 0x99;
	wrmsr(0xc0000101, (uint64_t)pages[3]);
	uint64_t v;
	__asm__ volatile("mov %%gs:8, %0" : "=r"(v));
	check_eq("through GS", v, 0x99);
}

void run_checks(void)
{
	data_segments();
	inspection();
	iret_shapes();
	begin("IRET with NT");
	check_trap("in long mode", attempt(iret_with_nt, 0), GP, 0);
	__asm__ volatile("pushf; andl $~0x4000, (%%rsp); popf" ::: "memory", "cc");
	far_transfers();
	syscalls();
	syscalls32();
	sysenters();
	swapgs();
}
