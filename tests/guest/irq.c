/* irq: interrupts of the local APIC's timer: delivery, the shadow of STI, HLT, and string
 * instructions that are interrupted and go on (SDM volume 3A, 6.8 and 10.5.4). Needs the
 * machine. */
#include "guest.h"

#define APIC_PAGE 100 /* slot of the test area */
#define VECTOR    0x40

static volatile unsigned ticks;
static volatile uint64_t tick_rip, tick_rcx, tick_rflags;

static volatile uint32_t *apic(unsigned reg)
{
	return (volatile uint32_t *)(TEST_AREA + APIC_PAGE * PAGE + reg);
}

static bool on_tick(struct frame *f)
{
	if (f->vector != VECTOR)
		return false;
	tick_rip = f->rip;
	tick_rcx = f->rcx;
	tick_rflags = f->rflags;
	ticks++;
	*apic(0xb0) = 0;
	return true;
}

static void one_shot(uint32_t count)
{
	*apic(0x3e0) = 3; /* divide by 16 */
	*apic(0x320) = VECTOR;
	*apic(0x380) = count;
}

/* Until the timer has run out: interrupts are off. */
static void wait_pending(void)
{
	for (unsigned n = 0;
	     n < 100000000 && !(*apic(0x200 + 0x10 * (VECTOR / 32)) & 1u << VECTOR % 32); n++)
		;
}

extern char sti_next[], sti_after[];

static void shadow(void)
{
	begin("the shadow of STI");
	ticks = 0;
	one_shot(100);
	wait_pending();
	check_eq("not taken with IF off", ticks, 0);
	__asm__ volatile("sti; sti_next: nop; sti_after: nop; cli");
	check_eq("taken", ticks, 1);
	check_eq("after the instruction behind STI", tick_rip, (uint64_t)sti_after);
	ticks = 0;
	one_shot(100);
	wait_pending();
	__asm__ volatile("sti; cli");
	check_eq("STI, CLI: never", ticks, 0);
	__asm__ volatile("pushf; orl $0x200, (%%rsp); popf; cli" ::: "memory", "cc");
	check_eq("POPF has no shadow", ticks, 1);
	check_eq("IF pushed", tick_rflags >> 9 & 1, 1);
}

static void halted(void)
{
	begin("HLT");
	ticks = 0;
	one_shot(100000);
	__asm__ volatile("sti; hlt; cli");
	check_eq("woken", ticks, 1);
	for (unsigned n = 0; n < 20; n++) {
		one_shot(1000);
		__asm__ volatile("sti; hlt; cli");
	}
	check_eq("each time", ticks, 21);
}

static void busy_loop(void)
{
	begin("a loop without exits");
	ticks = 0;
	one_shot(100000);
	__asm__ volatile("sti; 1: cmpl $0, %0; je 1b; cli" ::"m"(ticks));
	check_eq("interrupted", ticks, 1);
}

extern char rep_insn[];

static void string_interrupted(void)
{
	uint64_t to, from, n;
	unsigned middle = 0;

	begin("an interrupted string instruction");
	for (unsigned k = 0; k < 16; k++)
		map(200 + k, 16 + k % 8, P | W);
	for (unsigned k = 0; k < 200; k++) {
		to = TEST_AREA + 200 * PAGE;
		from = (uint64_t)pages;
		n = 16 * PAGE;
		ticks = 0;
		one_shot(1 + k * 20);
		__asm__ volatile("cld; sti; nop; rep_insn: rep movsb; cli"
				 : "+D"(to), "+S"(from), "+c"(n)::"memory");
		if (ticks && tick_rip == (uint64_t)rep_insn && tick_rcx && tick_rcx < 16 * PAGE)
			middle++;
		if (n != 0 || to != TEST_AREA + 216 * PAGE)
			check_eq("rcx at the end", n, 0);
		if (!ticks) {
			wait_pending();
			__asm__ volatile("sti; nop; nop; cli");
		}
	}
	check_eq("finished", n, 0);
	(void)middle; /* how often depends on the host's speed */
}

static uint64_t tsc(void)
{
	uint32_t lo, hi;

	__asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi));
	return (uint64_t)hi << 32 | lo;
}

static void time_goes_on(void)
{
	uint64_t last = tsc();

	begin("the TSC");
	for (unsigned n = 0; n < 10000; n++) {
		uint64_t now = tsc();

		if (now < last)
			check_eq("backwards", now, last);
		last = now;
	}
	check_eq("it moved", last != 0, 1);
}

void run_checks(void)
{
	test_pt[APIC_PAGE] = 0xfee00000ull | P | W | 0x10;
	flush(TEST_AREA + APIC_PAGE * PAGE);
	outb(0x21, 0xff);
	outb(0xa1, 0xff);
	*apic(0xf0) = 0x1ff;
	on_trap = on_tick;
	shadow();
	halted();
	busy_loop();
	string_interrupted();
	time_goes_on();
}
