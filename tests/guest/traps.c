/* traps: exceptions and software interrupts, their error codes, stacks and shadows; debug
 * registers and single-stepping (SDM volume 3A, 6 and 17). */
#include "guest.h"

static void none(const char *what, bool trapped)
{
	check_eq(what, trapped ? 0x100 + trap.f.vector : 0, 0);
}

static void ok_user(const char *what, bool trapped)
{
	check_eq(what, trapped ? trap.f.vector : 0, 0x80);
}

/* Each ends by the exception named, at a label of the same name. */
extern char at_div[], at_ud2[], at_int3[], at_sse[], at_fpu[], at_hlt[], after_int[];

static void do_div(uint64_t x)
{
	__asm__ volatile("at_div: div %%ecx" ::"a"(1), "d"(0), "c"(0));
}

static void do_idiv(uint64_t x)
{
	uint64_t a = 1ull << 63;

	__asm__ volatile("idiv %%rcx" : "+a"(a) : "d"(-1ll), "c"(-1ll));
}

static void do_ud2(uint64_t x)
{
	__asm__ volatile("at_ud2: ud2");
}

static void do_int3(uint64_t x)
{
	__asm__ volatile("at_int3: int3");
}

static void do_int21(uint64_t x)
{
	__asm__ volatile("int $0x21; after_int:");
}

static void do_icebp(uint64_t x)
{
	__asm__ volatile(".byte 0xf1");
}

static void do_sse(uint64_t x)
{
	__asm__ volatile("at_sse: xorps %xmm0, %xmm0");
}

static void do_fpu(uint64_t x)
{
	__asm__ volatile("at_fpu: fldz; fstp %st(0)");
}

static void do_fwait(uint64_t x)
{
	__asm__ volatile("fwait");
}

static void simple(void)
{
	begin("simple exceptions");
	check_trap("div by zero", attempt(do_div, 0), DE, 0);
	check_eq("rip", trap.f.rip, (uint64_t)at_div);
	check_trap("idiv overflow", attempt(do_idiv, 0), DE, 0);
	check_trap("ud2", attempt(do_ud2, 0), UD, 0);
	check_eq("rip", trap.f.rip, (uint64_t)at_ud2);
	check_eq("RF pushed for a fault", trap.f.rflags >> 16 & 1, 1);
	check_trap("int3", attempt(do_int3, 0), BP, 0);
	check_eq("rip after it", trap.f.rip, (uint64_t)at_int3 + 1);
	check_eq("RF not pushed for a trap", trap.f.rflags >> 16 & 1, 0);
	check_trap("int 0x21", attempt(do_int21, 0), 0x21, 0);
	check_eq("rip after it", trap.f.rip, (uint64_t)after_int);
	check_trap("icebp", attempt(do_icebp, 0), DB, 0);
}

static void fpu_gone(void)
{
	uint64_t cr0 = rd_cr0(), cr4 = rd_cr4();

	begin("#NM and #UD from CR0");
	wr_cr0(cr0 | 8);
	check_trap("SSE with TS", attempt(do_sse, 0), NM, 0);
	check_trap("x87 with TS", attempt(do_fpu, 0), NM, 0);
	check_trap("FWAIT with TS and MP", attempt(do_fwait, 0), NM, 0);
	__asm__ volatile("clts");
	none("SSE after CLTS", attempt(do_sse, 0));
	none("x87 after CLTS", attempt(do_fpu, 0));
	wr_cr0(cr0 | 4);
	check_trap("SSE with EM", attempt(do_sse, 0), UD, 0);
	check_trap("x87 with EM", attempt(do_fpu, 0), NM, 0);
	wr_cr0(cr0);
	wr_cr4(cr4 & ~0x200ull);
	check_trap("SSE without OSFXSR", attempt(do_sse, 0), UD, 0);
	wr_cr4(cr4);
	none("SSE again", attempt(do_sse, 0));
}

USER static void user_hlt(uint64_t x)
{
	__asm__ volatile("hlt");
}

USER static void user_cli(uint64_t x)
{
	__asm__ volatile("cli");
}

USER static void user_out(uint64_t x)
{
	__asm__ volatile("outb %al, $0x80");
}

USER static void user_rdmsr(uint64_t x)
{
	__asm__ volatile("rdmsr" ::"c"(0xc0000080) : "eax", "edx");
}

USER static void user_cr(uint64_t x)
{
	__asm__ volatile("mov %%cr0, %%rax" ::: "rax");
}

USER static void user_lgdt(uint64_t x)
{
	__asm__ volatile("lgdt (%0)" ::"r"(x));
}

USER static void user_int(uint64_t x)
{
	__asm__ volatile("int $0x21");
}

USER static void user_int3(uint64_t x)
{
	__asm__ volatile("int3");
}

USER static void user_int_pf(uint64_t x)
{
	__asm__ volatile("int $14");
}

USER static void user_popf(uint64_t x)
{
	__asm__ volatile("push $0x3202; popf; pushf; pop %%rax; int $0x80" ::: "rax");
}

static void privilege(void)
{
	begin("privilege");
	check_trap("hlt", attempt_user(user_hlt, 0), GP, 0);
	check_trap("cli", attempt_user(user_cli, 0), GP, 0);
	check_trap("out", attempt_user(user_out, 0), GP, 0);
	check_trap("rdmsr", attempt_user(user_rdmsr, 0), GP, 0);
	check_trap("mov from cr0", attempt_user(user_cr, 0), GP, 0);
	check_trap("lgdt", attempt_user(user_lgdt, user_ptr(gdt)), GP, 0);
	check_trap("int 0x21 through a DPL 0 gate", attempt_user(user_int, 0), GP, 0x21 << 3 | 2);
	check_trap("int 14 through a DPL 0 gate", attempt_user(user_int_pf, 0), GP, 14 << 3 | 2);
	check_trap("int3 through a DPL 3 gate", attempt_user(user_int3, 0), BP, 0);
	check_eq("user cs", trap.f.cs, CS3);
	check_eq("user ss", trap.f.ss, SS3);
	ok_user("popf", attempt_user(user_popf, 0));
	check_eq("IF and IOPL stay", trap.f.rax & 0x3200, 0);
}

static void do_int50(uint64_t x)
{
	__asm__ volatile("int $0x50");
}

static void gates(void)
{
	uint64_t was[2] = {*(uint64_t *)(idt + 0x500), *(uint64_t *)(idt + 0x508)};
	uint64_t *g = (uint64_t *)(idt + 0x500);
	char *stub = trap_stubs + 16 * 0x50;

	begin("gates");
	g[0] &= ~(1ull << 47);
	check_trap("not present", attempt(do_int50, 0), NP, 0x50 << 3 | 2);
	g[0] = (was[0] & ~(0xfull << 40)) | 0x5ull << 40;
	check_trap("wrong type", attempt(do_int50, 0), GP, 0x50 << 3 | 2);
	set_gate(0x50, stub, 0, 0, 0, 14);
	check_trap("null selector", attempt(do_int50, 0), GP, 0);
	set_gate(0x50, stub, SS0, 0, 0, 14);
	check_trap("data selector", attempt(do_int50, 0), GP, SS0);
	set_gate(0x50, stub, CS0_32, 0, 0, 14);
	check_trap("32-bit code", attempt(do_int50, 0), GP, CS0_32);
	set_gate(0x50, stub, 0x2000, 0, 0, 14);
	check_trap("beyond the GDT", attempt(do_int50, 0), GP, 0x2000);
	set_gate(0x50, stub, CS0, 0, 0, 15);
	__asm__ volatile("sti");
	check_trap("trap gate", attempt(do_int50, 0), 0x50, 0);
	check_eq("IF pushed", trap.f.rflags >> 9 & 1, 1);
	__asm__ volatile("cli");
	set_gate(0x50, stub, CS0, 0, 3, 14);
	check_trap("IST 3", attempt(do_int50, 0), 0x50, 0);
	check_eq("stack", trap.at_rsp >> 12, (uint64_t)ist_stack[3] >> 12);
	check_eq("ss pushed", trap.f.ss, SS0);
	g[0] = was[0];
	g[1] = was[1];
}

static void bad_stack_fault(uint64_t x)
{
	__asm__ volatile("mov %0, %%rsp; push %%rax" ::"r"(x) : "memory");
}

static void int_with_stack(uint64_t x)
{
	__asm__ volatile("mov %0, %%rsp; int $0x50" ::"r"(x) : "memory");
}

static void double_fault(void)
{
	uint64_t g = map(20, 0, 0);

	begin("double fault");
	/* #PF cannot be delivered on the stack that faulted. */
	check_trap("page fault without a stack", attempt(bad_stack_fault, g + 64), DF, 0);
	check_eq("on its own stack", trap.at_rsp >> 12, (uint64_t)ist_stack[1] >> 12);
	check_eq("rsp pushed", trap.f.rsp, g + 64);
	check_eq("cr2", trap.cr2 & ~63ull, g);
	*(uint64_t *)(idt + 16 * GP) &= ~(1ull << 47);
	check_trap("#GP with a gate not present", attempt(user_lgdt, 1ull << 63), DF, 0);
	*(uint64_t *)(idt + 16 * GP) |= 1ull << 47;
	set_gate(PF, trap_stubs + 16 * PF, CS0, 0, 2, 14);
	check_trap("interrupt without a stack", attempt(int_with_stack, g + 64), PF, 2);
	check_eq("rsp unchanged", trap.f.rsp, g + 64);
	set_gate(PF, trap_stubs + 16 * PF, CS0, 0, 0, 14);
}

/* --- single-step and debug registers --- */
static volatile unsigned steps;
static volatile uint64_t step_rip[16], step_dr6[16];

static uint64_t rd_dr6(void)
{
	uint64_t v;

	__asm__ volatile("mov %%dr6, %0" : "=r"(v));
	return v;
}

static void wr_dr(unsigned n, uint64_t v)
{
	switch (n) {
	case 0: __asm__ volatile("mov %0, %%dr0" ::"r"(v)); break;
	case 1: __asm__ volatile("mov %0, %%dr1" ::"r"(v)); break;
	case 6: __asm__ volatile("mov %0, %%dr6" ::"r"(v)); break;
	case 7: __asm__ volatile("mov %0, %%dr7" ::"r"(v)); break;
	}
}

static bool count_steps(struct frame *f)
{
	if (f->vector != DB)
		return false;
	if (steps < 16) {
		step_rip[steps] = f->rip;
		step_dr6[steps] = rd_dr6();
	}
	steps++;
	wr_dr(6, 0xffff0ff0);
	if (!(f->rflags & 0x100))
		f->rflags |= 1 << 16; /* RF: over an instruction breakpoint */
	return true;
}

extern char ss1[], ss2[], ss3[], ss4[], ms1[], ms2[];

static void single_step(void)
{
	begin("single step");
	on_trap = count_steps;
	steps = 0;
	wr_dr(6, 0xffff0ff0);
	__asm__ volatile("pushf; orl $0x100, (%%rsp); popf;"
			 "nop; ss1: inc %%rax; ss2: jmp 1f; nop; 1: ss3: pushf;"
			 "andl $~0x100, (%%rsp); popf; ss4: nop" ::
				 : "rax", "memory", "cc");
	check_eq("steps", steps, 6);
	check_eq("first", step_rip[0], (uint64_t)ss1);
	check_eq("second", step_rip[1], (uint64_t)ss2);
	check_eq("third", step_rip[2], (uint64_t)ss3);
	check_eq("last", step_rip[5], (uint64_t)ss4);
	check_eq("DR6.BS", step_dr6[0] & 0x400f, 0x4000);
	begin("mov ss shadow");
	steps = 0;
	__asm__ volatile(
		"mov %%ss, %%eax; pushf; orl $0x100, (%%rsp); popf;"
		"mov %%eax, %%ss; ms1: nop; ms2: pushf; andl $~0x100, (%%rsp); popf; nop" ::
			: "rax", "memory", "cc");
	check_eq("no step between mov ss and the next", step_rip[0], (uint64_t)ms2);
	check_eq("steps", steps, 4);
	begin("string step");
	steps = 0;
	__asm__ volatile("cld; lea pages(%%rip), %%rsi; lea pages+64(%%rip), %%rdi; mov $3, %%ecx;"
			 "pushf; orl $0x100, (%%rsp); popf; rep movsb;"
			 "pushf; andl $~0x100, (%%rsp); popf; nop" ::
				 : "rsi", "rdi", "rcx", "memory", "cc");
	check_eq("one step per iteration", steps, 6);
	on_trap = 0;
}

static void int_step(uint64_t x)
{
	__asm__ volatile("pushf; orl $0x100, (%%rsp); popf; int $0x50" ::: "memory", "cc");
}

USER static void user_step(uint64_t x)
{
	__asm__ volatile("pushf; orl $0x100, (%%rsp); popf; syscall" ::: "memory", "rcx", "r11");
}

static bool see_vectors(struct frame *f)
{
	step_rip[steps++ & 15] = f->vector;
	return false;
}

static void step_into_int(void)
{
	begin("stepping an INT");
	steps = 0;
	on_trap = see_vectors;
	attempt(int_step, 0);
	check_eq("first trap", step_rip[0], 0x50);
	check_eq("TF pushed", trap.f.rflags >> 8 & 1, 1);
	check_eq("traps", steps, 1);
	on_trap = 0;
}

static void call_it(uint64_t f)
{
	((void (*)(void))f)();
}

static void ss_from_memory_then_int(uint64_t watched)
{
	__asm__ volatile("mov (%0), %%ss; int $0x50" ::"r"(watched) : "memory");
}

extern char rep_at[];

/* Accesses of instructions that are more than a load or a store. DR0 watches 8 bytes. */
static void rare_accesses(volatile uint64_t *watched)
{
	static volatile uint64_t *where;
	uint64_t rdi = (uint64_t)(watched - 1), rcx = 20;

	steps = 0;
	__asm__ volatile("cld; rep_at: rep stosb" : "+D"(rdi), "+c"(rcx) : "a"(0) : "memory");
	check_eq("each iteration of a string instruction", steps, 8);
	check_eq("returns to it", step_rip[7], (uint64_t)rep_at);
	steps = 0;
	where = watched + 1;
	__asm__ volatile("mov %%rsp, %%rax; mov %0, %%rsp; pushf; mov %%rax, %%rsp" ::"m"(where)
			 : "rax", "memory");
	check_eq("PUSHF", steps, 1);
	steps = 0;
	__asm__ volatile("sgdt (%0)" ::"r"(watched - 1) : "memory");
	check_eq("SGDT", steps, 1);
	steps = 0;
	wr_cr4(rd_cr4() | 8); /* DE */
	wr_dr(0, 0xe1);
	wr_dr(7, 0x402 | 2 << 16); /* G0, port, 1 byte */
	outb(0xe0, 0);
	check_eq("other port", steps, 0);
	__asm__ volatile("out %%ax, $0xe0; in $0xe1, %%al" ::"a"(0));
	check_eq("port", steps, 2);
	wr_cr4(rd_cr4() & ~8ull);
	wr_dr(0, (uint64_t)watched);
	wr_dr(7, 0x402 | 3 << 16 | 2 << 18);
	watched[0] = 0x10;
	steps = 0;
	on_trap = 0;
	check_trap("MOV SS, INT", attempt(ss_from_memory_then_int, (uint64_t)watched), DB, 0);
	check_eq("trap at INT's handler", trap.f.rip, (uint64_t)trap_stubs + 16 * 0x50);
	on_trap = count_steps;
}

static void breakpoints(void)
{
	static volatile uint64_t watched[2] __attribute__((aligned(16)));

	begin("debug registers");
	on_trap = count_steps;
	steps = 0;
	wr_dr(6, 0xffff0ff0);
	wr_dr(0, (uint64_t)watched);
	wr_dr(7, 0x402 | 1 << 16 | 3 << 18); /* G0, write, 4 bytes */
	watched[0] = 1;
	check_eq("write watched", steps, 1);
	check_eq("DR6", step_dr6[0] & 0x400f, 1);
	steps = 0;
	(void)watched[0];
	check_eq("read not watched", steps, 0);
	watched[1] = 1;
	check_eq("other address", steps, 0);
	*(volatile uint8_t *)((uint64_t)watched + 3) = 1;
	check_eq("a byte in the range", steps, 1);
	steps = 0;
	wr_dr(7, 0x402 | 3 << 16 | 2 << 18); /* read or write, 8 bytes */
	(void)watched[0];
	check_eq("read watched", steps, 1);
	rare_accesses(watched);
	steps = 0;
	wr_dr(1, (uint64_t)at_ud2);
	wr_dr(7, 0x408); /* G1, execute */
	check_trap("execute: the instruction after the handler set RF", attempt(do_ud2, 0), UD, 0);
	check_eq("hits", steps, 1);
	check_eq("rip", step_rip[0], (uint64_t)at_ud2);
	check_eq("DR6", step_dr6[0] & 0x400f, 2);
	wr_dr(7, 0x400);
	steps = 0;
	attempt(do_ud2, 0);
	check_eq("off", steps, 0);
	wr_dr(7, 0x400 | 0x2000); /* GD */
	on_trap = 0;
	check_trap("general detect", attempt((void (*)(uint64_t))(void *)rd_dr6, 0), DB, 0);
	wr_dr(7, 0x400);
	(void)call_it;
}

extern char icebp_stub[];

static void cr_reserved(uint64_t v)
{
	__asm__ volatile("mov %0, %%cr4" ::"r"(v));
}

static void cr0_bad(uint64_t v)
{
	__asm__ volatile("mov %0, %%cr0" ::"r"(v));
}

static void msr_bad(uint64_t n)
{
	rdmsr((uint32_t)n);
}

static void efer_bad(uint64_t v)
{
	wrmsr(0xc0000080, v);
}

static void lstar_bad(uint64_t v)
{
	wrmsr(0xc0000082, v);
}

static void control_registers(void)
{
	begin("control registers and MSRs");
	check_trap("CR4 reserved bit", attempt(cr_reserved, rd_cr4() | 1ull << 63), GP, 0);
	check_trap("CR4 without PAE in long mode", attempt(cr_reserved, rd_cr4() & ~0x20ull), GP,
		   0);
	check_trap("CR0 PG without PE", attempt(cr0_bad, rd_cr0() & ~1ull), GP, 0);
	check_trap("CR0 NW without CD", attempt(cr0_bad, rd_cr0() | 1 << 29), GP, 0);
	check_trap("CR0 paging off in 64-bit mode", attempt(cr0_bad, rd_cr0() & ~(1ull << 31)), GP,
		   0);
	check_trap("unknown MSR", attempt(msr_bad, 0x12345678), GP, 0);
	check_trap("EFER reserved bit", attempt(efer_bad, rdmsr(0xc0000080) | 1ull << 40), GP, 0);
	check_trap("EFER.LME with paging", attempt(efer_bad, rdmsr(0xc0000080) & ~0x100ull), GP, 0);
	check_trap("non-canonical LSTAR", attempt(lstar_bad, 1ull << 63), GP, 0);
	check_eq("EFER", rdmsr(0xc0000080) & 0xd01, 0xd01);
}

/* Flag bits that the arithmetic one of n stand for: CF PF AF ZF SF OF. */
static uint64_t flags_of(unsigned n)
{
	static const uint16_t bit[] = {1, 4, 0x10, 0x40, 0x80, 0x800};
	uint64_t v = 2;

	for (unsigned i = 0; i < 6; i++)
		v |= n >> i & 1 ? bit[i] : 0;
	return v;
}

static void pushed_flags(void)
{
	begin("PUSHF");
	for (unsigned n = 0; n < 128; n++) {
		uint64_t want = flags_of(n) | (n & 64 ? 0x400 : 0), got, carry;

		__asm__ volatile(
			"push %2; popfq; lea -64(%%rsp), %%rsp; pushfq; pop %0; stc; pushfq; "
			"pop %1; cld; lea 64(%%rsp), %%rsp"
			: "=&r"(got), "=&r"(carry)
			: "r"(want)
			: "cc", "memory");
		check_eq("as popped", got, want);
		check_eq("with carry", carry, want | 1);
	}
}

static void moves(void)
{
	uint64_t a, b, c, d;

	begin("SWAPGS and segment selectors");
	a = rdmsr(0xc0000101);
	wrmsr(0xc0000101, 0xffff800012340000);
	wrmsr(0xc0000102, 0x5678);
	__asm__ volatile("swapgs; swapgs; swapgs" ::: "memory");
	check_eq("GS base", rdmsr(0xc0000101), 0x5678);
	check_eq("kernel GS base", rdmsr(0xc0000102), 0xffff800012340000);
	wrmsr(0xc0000101, a);
	__asm__ volatile(
		"mov $-1, %0; mov %%cs, %w0; mov $-1, %1; mov %%cs, %k1; mov $-1, %%r14;"
		"mov %%cs, %%r14d; mov %%r14, %2; mov $-1, %%r13; mov %%cs, %%r13w; mov %%r13, %3"
		: "=&r"(a), "=&r"(b), "=&r"(c), "=&r"(d)::"r13", "r14");
	check_eq("16 bits", a, 0xffffffffffff0000 | CS0);
	check_eq("32 bits", b, CS0);
	check_eq("r14d", c, CS0);
	check_eq("r13w", d, 0xffffffffffff0000 | CS0);
}

void run_checks(void)
{
	pushed_flags();
	moves();
	simple();
	fpu_gone();
	privilege();
	gates();
	double_fault();
	single_step();
	step_into_int();
	breakpoints();
	control_registers();
	(void)user_step;
}
