/* smc: code that changes: in the next instruction, ahead and behind, in another page, through
 * another mapping, by string instructions and from ring 3; instructions across pages (SDM
 * volume 3A, 9.1.3). */
#include "guest.h"

static void none(const char *what, bool trapped)
{
	check_eq(what, trapped ? 0x100 + trap.f.vector : 0, 0);
}

typedef uint64_t fn_t(void);

/* mov $imm32, %eax; ret */
static void put_return(uint8_t *at, uint32_t v)
{
	at[0] = 0xb8;
	*(volatile uint32_t *)(at + 1) = v;
	at[5] = 0xc3;
}

static uint64_t call(uint64_t gva)
{
	return ((fn_t *)gva)();
}

static void patched_function(void)
{
	uint64_t g = map(30, 0, P | W);

	begin("a function patched between calls");
	for (uint32_t n = 0; n < 200; n++) {
		put_return((uint8_t *)g + 64, n);
		if (call(g + 64) != n) {
			check_eq("result", call(g + 64), n);
			break;
		}
	}
	begin("patched after it ran hot");
	put_return((uint8_t *)g, 1);
	for (unsigned n = 0; n < 5000; n++)
		if (call(g) != 1)
			check_eq("hot", 0, 1);
	*(volatile uint8_t *)(g + 1) = 2;
	check_eq("one byte", call(g), 2);
}

static void next_instruction(void)
{
	uint64_t r;

	begin("the next instruction");
	for (unsigned n = 0; n < 3; n++) {
		__asm__ volatile("movb $0x11, 1f+1(%%rip)\n1: mov $0x77, %%al; movzbl %%al, %%eax"
				 : "=a"(r)::"memory");
		check_eq("immediate patched by the instruction before", r, 0x11);
		__asm__ volatile(
			"mov $0xc3, %%ebx; call 2f; jmp 3f\n"
			"2: xor %%eax, %%eax; mov %%bl, 1f(%%rip)\n1: inc %%eax; inc %%eax; ret\n"
			"3: movb $0xff, 1b(%%rip)"
			: "=a"(r)::"rbx", "memory");
		check_eq("opcode patched by the instruction before", r, 0);
	}
}

static void loop_patches_itself(void)
{
	uint64_t r;

	begin("a loop that patches its own body");
	/* The immediate of the ADD grows by one each time round: 1 + 2 + ... + 100. */
	__asm__ volatile("mov $100, %%ecx; xor %%eax, %%eax; movl $1, 1f+1(%%rip)\n"
			 "2:\n1: add $0x1000000, %%eax; incl 1b+1(%%rip); dec %%ecx; jnz 2b"
			 : "=a"(r)::"rcx", "memory", "cc");
	check_eq("sum", r, 5050);
}

static void other_mapping(void)
{
	uint64_t code = map(31, 1, P), data = map(32, 1, P | W);

	begin("patched through another mapping");
	for (uint32_t n = 0; n < 50; n++) {
		put_return((uint8_t *)data + 128, n * 3);
		if (call(code + 128) != n * 3)
			check_eq("result", call(code + 128), n * 3);
	}
	begin("patched through the physical mapping");
	put_return(pages[1] + 128, 0xabc);
	check_eq("result", call(code + 128), 0xabc);
}

static void remapped(void)
{
	uint64_t g = map(33, 2, P);

	begin("another page at the same address");
	put_return(pages[2], 2);
	put_return(pages[3], 3);
	check_eq("first", call(g), 2);
	for (unsigned n = 0; n < 20; n++) {
		map(33, 3, P);
		check_eq("second", call(g), 3);
		map(33, 2, P);
		check_eq("first again", call(g), 2);
	}
	map(33, 0, 0);
	check_trap("unmapped", attempt((void (*)(uint64_t))g, 0), PF, 0x10);
	map(33, 2, P | NX);
	check_trap("no longer executable", attempt((void (*)(uint64_t))g, 0), PF, 0x11);
	map(33, 2, P);
	check_eq("executable again", call(g), 2);
}

static void by_string_instruction(void)
{
	static uint8_t src[64];
	uint64_t g = map(34, 4, P | W), to = g;
	const void *from = src;
	uint64_t n = 6;

	begin("patched by a string instruction");
	put_return((uint8_t *)g, 1);
	check_eq("before", call(g), 1);
	put_return(src, 0x5678);
	__asm__ volatile("cld; rep movsb" : "+D"(to), "+S"(from), "+c"(n)::"memory");
	check_eq("after rep movsb", call(g), 0x5678);
	to = g + 1;
	n = 4;
	__asm__ volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(0x22) : "memory");
	check_eq("after rep stosb", call(g), 0x22222222);
	uint32_t imm = 0x777;

	__asm__ volatile("lock xchg %0, %1" : "+r"(imm), "+m"(*(uint32_t *)(g + 1)));
	check_eq("after xchg", call(g), 0x777);
	check_eq("what was there", imm, 0x22222222);
}

static void across_pages(void)
{
	uint64_t g2 = map(36, 6, P | W);

	map(35, 5, P | W);

	begin("an instruction across two pages");
	for (unsigned k = 1; k < 6; k++) {
		uint8_t *at = (uint8_t *)g2 - k;

		put_return(at, 0x01020304);
		check_eq("result", call((uint64_t)at), 0x01020304);
		at[4] = 0x44; /* in the second page when k < 5 */
		check_eq("patched behind the border", call((uint64_t)at), 0x44020304);
		at[1] = 0x55;
		check_eq("patched again", call((uint64_t)at), 0x44020355);
		map(36, 0, 0);
		check_trap("second page missing", attempt((void (*)(uint64_t))(uint64_t)at, 0), PF,
			   0x10);
		check_eq("cr2", trap.cr2, g2);
		check_eq("rip", trap.f.rip, k < 5 ? (uint64_t)at : g2);
		map(36, 6, P | W | NX);
		check_trap("second page not executable",
			   attempt((void (*)(uint64_t))(uint64_t)at, 0), PF, 0x11);
		map(36, 7, P | W);
		pages[7][0] = 0x99;
		put_return(at, 0x0a0b0c0d);
		check_eq("another second page", call((uint64_t)at), 0x0a0b0c0d);
		map(36, 6, P | W);
	}
}

/* Until INVLPG either page may be what is fetched, but one of them it must be. */
static void second_page_remapped_behind_the_tlb(void)
{
	uint64_t g2 = map(36, 6, P | W), at = g2 - 2, r;

	map(35, 5, P | W);
	begin("an instruction across two pages, of which one is remapped without INVLPG");
	put_return((uint8_t *)at, 0x01020304);
	put_return((uint8_t *)g2 + 64, 1);
	check_eq("the second page's own code", call(g2 + 64), 1);
	pages[7][0] = 0x03;
	pages[7][1] = 0x02;
	pages[7][2] = 0x77;
	pages[7][3] = 0xc3;
	test_pt[36] = (uint64_t)pages[7] | P | W;
	r = call(at);
	check_eq("the old or the new", r == 0x01020304 || r == 0x77020304, 1);
	flush(g2);
	check_eq("the new", call(at), 0x77020304);
}

static bool zero_page_in(struct frame *f)
{
	if (f->vector != PF)
		return false;
	map((unsigned)((trap.cr2 - TEST_AREA) / PAGE), 6, P | W);
	return true;
}

static void fetched_on_demand(void)
{
	uint64_t g2 = map(38, 6, P | W);

	map(37, 5, P | W);

	begin("second page brought in by the fault");
	put_return((uint8_t *)g2 - 3, 0x12345678);
	map(38, 0, 0);
	on_trap = zero_page_in;
	check_eq("result", call(g2 - 3), 0x12345678);
	on_trap = 0;
}

USER static void user_patch(uint64_t g)
{
	uint64_t r;

	*(volatile uint8_t *)(g + 1) = 0x5a;
	r = ((uint64_t(*)(void))g)();
	__asm__ volatile("int $0x80" ::"a"(r));
}

static void from_user(void)
{
	uint64_t g = map(39, 8, P | W | U);

	begin("ring 3 patches its code");
	put_return(pages[8], 0);
	for (unsigned n = 0; n < 3; n++) {
		pages[8][1] = 0;
		check_eq("user", attempt_user(user_patch, g) ? trap.f.vector : 0, 0x80);
		check_eq("result", trap.f.rax, 0x5a);
	}
}

static void data_beside_code(void)
{
	uint64_t g = map(40, 9, P | W);
	volatile uint64_t *counter = (uint64_t *)(g + 2048);

	begin("data in a page of code");
	put_return((uint8_t *)g, 7);
	*counter = 0;
	for (unsigned n = 0; n < 20000; n++)
		*counter += call(g);
	check_eq("counter", *counter, 140000);
}

static void chained(void)
{
	uint64_t g = map(41, 10, P | W), g2 = map(42, 11, P | W);
	uint8_t *a = (uint8_t *)g, *b = (uint8_t *)g2;

	begin("a jump's target patched");
	a[0] = 0xe9;
	*(int32_t *)(a + 1) = (int32_t)(g2 + 32 - (g + 5));
	put_return(b + 32, 1);
	put_return(b + 64, 2);
	for (unsigned n = 0; n < 100; n++)
		check_eq("first", call(g), 1);
	*(int32_t *)(a + 1) = (int32_t)(g2 + 64 - (g + 5));
	check_eq("jump patched", call(g), 2);
	put_return(b + 64, 3);
	check_eq("target patched", call(g), 3);
	map(42, 12, P | W);
	put_return(pages[12] + 64, 4);
	check_eq("target remapped", call(g), 4);
	map(42, 0, 0);
	check_trap("target gone", attempt((void (*)(uint64_t))g, 0), PF, 0x10);
	check_eq("cr2", trap.cr2, g2 + 64);
}

void run_checks(void)
{
	patched_function();
	next_instruction();
	loop_patches_itself();
	other_mapping();
	remapped();
	by_string_instruction();
	across_pages();
	second_page_remapped_behind_the_tlb();
	fetched_on_demand();
	from_user();
	data_beside_code();
	chained();
	none("end", false);
}
