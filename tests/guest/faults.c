/* faults: page faults of every kind (SDM volume 3A, 4.6 and 4.7), accessed and dirty bits
 * (4.8), and what a faulting instruction leaves behind. */
#include "guest.h"

static void read1(uint64_t gva)
{
	read64(gva);
}

static void write1(uint64_t gva)
{
	write64(gva, 0x1122334455667788);
}

static void fetch(uint64_t gva)
{
	((void (*)(void))gva)();
}

USER static void user_read(uint64_t gva)
{
	*(volatile uint64_t *)gva;
	leave_user();
}

USER static void user_write(uint64_t gva)
{
	*(volatile uint64_t *)gva = 1;
	leave_user();
}

USER static void user_fetch(uint64_t gva)
{
	((void (*)(void))gva)();
	leave_user();
}

static void expect(const char *what, bool trapped, uint64_t error, uint64_t cr2)
{
	check_trap(what, trapped, PF, error);
	if (trapped && trap.f.vector == PF)
		check_eq("cr2", trap.cr2, cr2);
}

static void none(const char *what, bool trapped)
{
	check_eq(what, trapped ? 0x100 + trap.f.vector : 0, 0);
}

static void ok_user(const char *what, bool trapped)
{
	check_eq(what, trapped ? trap.f.vector : 0, 0x80);
}

static void not_present(void)
{
	uint64_t g = map(1, 0, 0);

	begin("not present");
	expect("read", attempt(read1, g + 0x18), 0, g + 0x18);
	expect("write", attempt(write1, g + 0x20), 2, g + 0x20);
	expect("fetch", attempt(fetch, g + 0x30), 0x10, g + 0x30);
	expect("user read", attempt_user(user_read, g + 8), 4, g + 8);
	expect("user write", attempt_user(user_write, g + 8), 6, g + 8);
	expect("user fetch", attempt_user(user_fetch, g), 0x14, g);
	expect("no pml4 entry", attempt(read1, 0x0000700000000008), 0, 0x0000700000000008);
	expect("user, kernel half", attempt_user(user_read, 0xffff900000000000), 4,
	       0xffff900000000000);
}

static void protection(void)
{
	uint64_t g = map(2, 1, P | NX);

	begin("supervisor read-only");
	none("read", attempt(read1, g));
	expect("write", attempt(write1, g), 3, g);
	expect("fetch NX", attempt(fetch, g), 0x11, g);
	expect("user read", attempt_user(user_read, g), 5, g);
	expect("user write", attempt_user(user_write, g), 7, g);
	expect("user fetch", attempt_user(user_fetch, g), 0x15, g);
	begin("user read-only");
	map(2, 1, P | U);
	ok_user("user read", attempt_user(user_read, g));
	expect("user write", attempt_user(user_write, g), 7, g);
	expect("kernel write, WP", attempt(write1, g), 3, g);
	begin("user writable");
	map(2, 1, P | U | W);
	ok_user("user write", attempt_user(user_write, g));
	none("kernel write", attempt(write1, g));
}

static void write_protect_off(void)
{
	uint64_t g = map(3, 2, P);

	begin("CR0.WP off");
	wr_cr0(rd_cr0() & ~0x10000ull);
	none("kernel write to supervisor read-only", attempt(write1, g));
	check_eq("written", *(uint64_t *)pages[2], 0x1122334455667788);
	map(3, 2, P | U);
	none("kernel write to user read-only", attempt(write1, g));
	expect("user write", attempt_user(user_write, g), 7, g);
	wr_cr0(rd_cr0() | 0x10000);
	expect("kernel write, WP on again", attempt(write1, g), 3, g);
}

static void upper_levels(void)
{
	uint64_t g = map(4, 3, P | W | U), pde = test_pd[0];

	begin("rights of upper levels");
	test_pd[0] = pde & ~U;
	flush(g);
	expect("user read, PDE supervisor", attempt_user(user_read, g), 5, g);
	test_pd[0] = pde & ~W;
	flush(g);
	expect("write, PDE read-only", attempt(write1, g), 3, g);
	test_pd[0] = pde | NX;
	flush(g);
	expect("fetch, PDE NX", attempt(fetch, g), 0x11, g);
	test_pd[0] = pde & ~P;
	flush(g);
	expect("read, PDE missing", attempt(read1, g), 0, g);
	test_pd[0] = pde;
	flush(g);
	none("read, PDE back", attempt(read1, g));
}

static void reserved_bits(void)
{
	uint64_t g = map(5, 3, P | W | U), pde = test_pd[0];

	begin("reserved bits");
	test_pt[5] |= 1ull << 51;
	flush(g);
	expect("read", attempt(read1, g), 9, g);
	expect("write", attempt(write1, g), 0xb, g);
	expect("user read", attempt_user(user_read, g), 0xd, g);
	test_pt[5] = (uint64_t)pages[3] | P | W;
	test_pd[0] = (0x200000 & ~0x1fffffull) | P | W | 0x80 | 0x2000; /* large, misaligned */
	flush(g);
	expect("large page, bit 13", attempt(read1, g), 9, g);
	test_pd[0] = pde;
	flush(g);
}

static uint32_t features7(void)
{
	uint32_t r[4];

	cpuid(7, 0, r);
	return r[1];
}

static void ac_read(uint64_t g)
{
	__asm__ volatile("stac");
	read64(g);
	write64(g, 5);
	__asm__ volatile("clac");
}

static void smep_smap(void)
{
	uint64_t g = map(6, 4, P | W | U), cr4 = rd_cr4();

	pages[4][0] = 0xc3;
	if (features7() & 1 << 7) {
		begin("SMEP");
		none("fetch before", attempt(fetch, g));
		wr_cr4(cr4 | 1 << 20);
		expect("fetch", attempt(fetch, g), 0x11, g);
		wr_cr4(cr4);
		none("fetch after", attempt(fetch, g));
	}
	if (features7() & 1 << 20) {
		begin("SMAP");
		wr_cr4(cr4 | 1 << 21);
		expect("read", attempt(read1, g), 1, g);
		expect("write", attempt(write1, g), 3, g);
		for (int i = 0; i < 3; i++) { /* the way there is linked by then */
			none("with AC", attempt(ac_read, g));
			expect("read again", attempt(read1, g), 1, g);
			wr_cr4(cr4);
			none("with AC, without SMAP", attempt(ac_read, g));
			none("without SMAP", attempt(read1, g));
			wr_cr4(cr4 | 1 << 21);
		}
		ok_user("user write", attempt_user(user_write, g));
		wr_cr4(cr4);
		none("off", attempt(read1, g));
	}
}

static void accessed_dirty(void)
{
	uint64_t g = map(7, 5, P | W);

	begin("accessed and dirty");
	test_pd[0] &= ~A;
	flush(g);
	check_eq("A before", test_pt[7] & (A | D), 0);
	none("read", attempt(read1, g));
	check_eq("PTE after a read", test_pt[7] & (A | D), A);
	check_eq("PDE after a read", test_pd[0] & (A | D), A);
	none("write", attempt(write1, g));
	check_eq("PTE after a write", test_pt[7] & (A | D), A | D);
	map(7, 5, P);
	attempt(write1, g);
	check_eq("dirty after a refused write", test_pt[7] & D, 0);
	map(7, 5, P | W | A);
	none("read", attempt(read1, g));
	check_eq("dirty after a read with A set", test_pt[7] & D, 0);
	none("write", attempt(write1, g));
	check_eq("dirty after a read, then a write", test_pt[7] & D, D);
	test_pt[7] &= ~D;
	flush(g);
	none("write", attempt(write1, g));
	check_eq("dirty again after clearing and INVLPG", test_pt[7] & D, D);
}

static void invalidation(void)
{
	uint64_t g = map(8, 6, P | W);

	begin("translation changes");
	*(uint64_t *)pages[6] = 6;
	*(uint64_t *)pages[7] = 7;
	check_eq("first", read64(g), 6);
	map(8, 7, P | W);
	check_eq("after INVLPG", read64(g), 7);
	test_pt[8] = (uint64_t)pages[6] | P | W;
	__asm__ volatile("mov %%cr3, %%rax; mov %%rax, %%cr3" ::: "rax", "memory");
	check_eq("after CR3", read64(g), 6);
	map(8, 6, P);
	expect("write, now read-only", attempt(write1, g), 3, g);
	map(8, 6, P | W);
	none("write, writable again", attempt(write1, g));
	map(8, 0, 0);
	expect("read, gone", attempt(read1, g), 0, g);
	test_pt[8] = (uint64_t)pages[6] | P | W; /* not-present entries are never cached */
	none("present, no INVLPG", attempt(read1, g));
}

static void store_across(uint64_t g)
{
	*(volatile uint64_t *)(g + PAGE - 4) = 0xffffffffffffffff;
}

static void push_across(uint64_t g)
{
	__asm__ volatile("mov %%rsp, %%rbx; mov %0, %%rsp; push %%rax; mov %%rbx, %%rsp" ::"r"(g)
			 : "rbx", "memory");
}

static void pop_missing(uint64_t g)
{
	__asm__ volatile(
		"mov %%rsp, %%rbx; lea stack_top-4096(%%rip), %%rsp; pop (%0); mov %%rbx, %%rsp" ::
			"r"(g)
		: "rbx", "memory");
}

static void xadd_missing(uint64_t g)
{
	__asm__ volatile("mov $0x5555, %%ebx; lock xadd %%rbx, (%0)" ::"r"(g) : "rbx", "memory");
}

static void rmw_read_only(uint64_t g)
{
	__asm__ volatile("mov $3, %%ebx; stc; adc %%rbx, (%0)" ::"r"(g) : "rbx", "memory");
}

static void left_behind(void)
{
	uint64_t g = map(9, 8, P | W), g2 = map(10, 0, 0);

	begin("what a fault leaves behind");
	*(uint64_t *)(pages[8] + PAGE - 8) = 0x0123456789abcdef;
	expect("store across, second page missing", attempt(store_across, g), 2, g2);
	check_eq("first page's bytes", *(uint64_t *)(pages[8] + PAGE - 8), 0x0123456789abcdef);
	map(10, 9, P);
	expect("store across, second page read-only", attempt(store_across, g), 3, g2);
	check_eq("first page's bytes", *(uint64_t *)(pages[8] + PAGE - 8), 0x0123456789abcdef);
	map(10, 0, 0);
	/* A push whose stack cannot be written would need a good stack to report: IST. */
	set_gate(PF, trap_stubs + 16 * PF, CS0, 0, 2, 14);
	expect("push", attempt(push_across, g2 + 16), 2, g2 + 8);
	check_eq("rsp after a failed push", trap.f.rsp, g2 + 16);
	expect("pop to missing memory", attempt(pop_missing, g2), 2, g2);
	check_eq("rsp after a failed pop", trap.f.rsp, (uint64_t)stack_top - 4096);
	set_gate(PF, trap_stubs + 16 * PF, CS0, 0, 0, 14);
	expect("xadd", attempt(xadd_missing, g2), 2, g2);
	check_eq("its register", trap.f.rbx, 0x5555);
	map(9, 8, P);
	*(uint64_t *)pages[8] = 77;
	expect("read-modify-write of a read-only page", attempt(rmw_read_only, g), 3, g);
	check_eq("its memory", *(uint64_t *)pages[8], 77);
	check_eq("its flags", trap.f.rflags & 1, 1);
}

static void rep_movs(uint64_t g)
{
	__asm__ volatile(
		"cld; mov %0, %%rdi; lea pages(%%rip), %%rsi; mov $100, %%ecx; rep movsq" ::"r"(g)
		: "rdi", "rsi", "rcx", "memory");
}

static void rep_stos_down(uint64_t g)
{
	__asm__ volatile(
		"std; mov %0, %%rdi; mov $0xab, %%eax; mov $100, %%ecx; rep stosb; cld" ::"r"(g)
		: "rdi", "rax", "rcx", "memory");
}

static void string_faults(void)
{
	uint64_t g = map(11, 10, P | W), g2 = map(12, 0, 0);

	begin("string faults");
	for (unsigned n = 0; n < 512; n++)
		((uint64_t *)pages[0])[n] = n + 1;
	expect("rep movsq", attempt(rep_movs, g2 - 5 * 8), 2, g2);
	check_eq("rcx", trap.f.rcx, 95);
	check_eq("rdi", trap.f.rdi, g2);
	check_eq("rsi", trap.f.rsi, (uint64_t)pages + 40);
	check_eq("last copied", *(uint64_t *)(pages[10] + PAGE - 8), 5);
	check_eq("RF pushed", trap.f.rflags >> 16 & 1, 1);
	map(11, 0, 0);
	map(12, 11, P | W);
	expect("rep stosb downwards", attempt(rep_stos_down, g2 + 9), 2, g + PAGE - 1);
	check_eq("rcx", trap.f.rcx, 90);
	check_eq("rdi", trap.f.rdi, g + PAGE - 1);
	check_eq("stored", *(uint64_t *)pages[11], 0xabababababababab);
	__asm__ volatile("cld");
}

static bool resumed;

static bool repair(struct frame *f)
{
	if (f->vector != PF)
		return false;
	map((unsigned)((trap.cr2 - TEST_AREA) / PAGE), 12, P | W);
	resumed = true;
	return true;
}

static void resume(void)
{
	uint64_t g = map(13, 0, 0);

	begin("repaired and resumed");
	on_trap = repair;
	*(uint64_t *)pages[12] = 0x1234;
	resumed = false;
	check_eq("read", read64(g), 0x1234);
	check_eq("faulted", resumed, 1);
	map(13, 0, 0);
	write64(g, 0x77);
	check_eq("write", *(uint64_t *)pages[12], 0x77);
	map(13, 0, 0);
	map(14, 12, P | W);
	store_across(g);
	check_eq("write across", *(uint32_t *)(pages[12] + PAGE - 4), 0xffffffff);
	on_trap = 0;
}

static void stack_read(uint64_t g)
{
	__asm__ volatile(
		"mov %%rsp, %%rbx; mov %0, %%rsp; mov (%%rsp), %%rax; mov %%rbx, %%rsp" ::"r"(g)
		: "rbx", "rax", "memory");
}

static void jump_to(uint64_t g)
{
	__asm__ volatile("jmp *%0" ::"r"(g));
}

static void return_to(uint64_t g)
{
	__asm__ volatile("push %0; ret" ::"r"(g));
}

static void return_to_and_drop(uint64_t g)
{
	__asm__ volatile("push %0; ret $16" ::"r"(g));
}

static void non_canonical_targets(void)
{
	static const uint64_t to[] = {1ull << 63, (1ull << 63) + 1, 1ull << 47, 0xffff7fffffffffff,
				      0x1234567812345678};

	begin("non-canonical targets");
	for (unsigned n = 0; n < sizeof to / sizeof *to; n++) {
		check_trap("jump", attempt(jump_to, to[n]), GP, 0);
		check_trap("call", attempt(fetch, to[n]), GP, 0);
		check_trap("return", attempt(return_to, to[n]), GP, 0);
		check_trap("return that drops", attempt(return_to_and_drop, to[n]), GP, 0);
	}
}

static void non_canonical(void)
{
	begin("non-canonical addresses");
	check_trap("read", attempt(read1, 0x0000800000000000), GP, 0);
	check_trap("write", attempt(write1, 0xffff7fffffffffff), GP, 0);
	check_trap("call", attempt(fetch, 0x0000800000000000), GP, 0);
	set_gate(SS, trap_stubs + 16 * SS, CS0, 0, 2, 14);
	check_trap("stack", attempt(stack_read, 0x0000800000000000), SS, 0);
	set_gate(SS, trap_stubs + 16 * SS, CS0, 0, 0, 14);
	check_trap("user read", attempt_user(user_read, 0x0000800000000000), GP, 0);
}

void run_checks(void)
{
	not_present();
	protection();
	write_protect_off();
	upper_levels();
	reserved_bits();
	smep_smap();
	accessed_dirty();
	invalidation();
	left_behind();
	string_faults();
	resume();
	non_canonical();
	non_canonical_targets();
}
