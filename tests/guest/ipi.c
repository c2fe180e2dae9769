/* ipi: a second processor, started through real mode by INIT and SIPI (SDM volume 3A, 8.4), and the
 * interrupts that processors send each other (10.6), in xAPIC and x2APIC mode. Needs the machine,
 * with two vCPUs. */
#include "guest.h"

#define APIC_PAGE 100 /* slot of the test area */
#define VECTOR    0x40
#define STARTS    0x8000u /* where it begins; the second time a page higher */

#define ICR_NMI     0x400u
#define ICR_INIT    0x4500u
#define ICR_STARTUP 0x4600u
#define ICR_LOGICAL 0x800u
#define ICR_SELF    0x40000u
#define ICR_ALL     0x80000u
#define ICR_OTHERS  0xc0000u

/* From real mode straight to long mode, with the page tables, GDT and IDT of the first. */
extern uint8_t ap_begin[], ap_end[];
void ap_main(void);
__asm__(".text\n"
	".code16\n"
	"ap_begin: cli\n"
	"	movw %cs, %ax\n"
	"	movw %ax, %ds\n"
	"	lgdtl ap_gdtr - ap_begin\n"
	"	movw %ax, ap_cs\n"
	"	movl %cr4, %eax\n"
	"	orl $0x620, %eax\n"
	"	movl %eax, %cr4\n"
	"	movl $pml4, %eax\n"
	"	movl %eax, %cr3\n"
	"	movl $0xc0000080, %ecx\n"
	"	rdmsr\n"
	"	orl $0x901, %eax\n"
	"	wrmsr\n"
	"	movl $0x80010033, %eax\n"
	"	movw %ds, %bx\n"
	"	movl %eax, %cr0\n"
	"	ljmpl $8, $ap_long\n"
	"ap_gdtr: .word 0xff\n"
	"	.long gdt\n"
	"ap_cs = . - ap_begin\n"
	"	.word 0\n"
	"ap_end:\n"
	".code64\n"
	"ap_long: movl $0x10, %eax\n"
	"	movl %eax, %ss\n"
	"	movl %eax, %ds\n"
	"	movl %eax, %es\n"
	"	leaq ap_stack + 8192(%rip), %rsp\n"
	"	movzwl %bx, %edi\n"
	"	call ap_main\n"
	"	ud2\n");
uint8_t ap_stack[8192] __attribute__((aligned(16)));
static struct {
	uint16_t limit;
	uint64_t base;
} __attribute__((packed)) idtr;

enum what { COUNT, HALT, HALT_FOR_GOOD, TAKE_TSC, X2APIC };
static volatile enum what todo;
static volatile unsigned starts, started_at, wakes, ap_id;
static volatile uint64_t counter, tsc_from, tsc_back;
static volatile unsigned got[2], nmis[2]; /* by processor */
static volatile bool x2;

static volatile uint32_t *apic(unsigned reg)
{
	return (volatile uint32_t *)(TEST_AREA + APIC_PAGE * PAGE + reg);
}

static uint32_t apic_read(unsigned reg)
{
	return x2 ? (uint32_t)rdmsr(0x800 + reg / 16) : *apic(reg);
}

static void apic_write(unsigned reg, uint32_t v)
{
	if (x2)
		wrmsr(0x800 + reg / 16, v);
	else
		*apic(reg) = v;
}

static unsigned self(void)
{
	return x2 ? apic_read(0x20) : apic_read(0x20) >> 24;
}

static void send(uint32_t to, uint32_t icr)
{
	if (x2) {
		wrmsr(0x830, (uint64_t)to << 32 | icr);
		return;
	}
	*apic(0x310) = to << 24;
	*apic(0x300) = icr;
}

static bool on_interrupt(struct frame *f)
{
	if (f->vector == NMI) {
		nmis[self() & 1]++;
		return true;
	}
	if (f->vector != VECTOR)
		return false;
	got[self() & 1]++;
	apic_write(0xb0, 0);
	return true;
}

static uint64_t tsc(void)
{
	uint32_t lo, hi;

	__asm__ volatile("lfence; rdtsc" : "=a"(lo), "=d"(hi));
	return (uint64_t)hi << 32 | lo;
}

static void enable(void)
{
	apic_write(0xf0, 0x1ff);
	if (!x2) {
		*apic(0xe0) = 0xffffffff; /* flat */
		*apic(0xd0) = 1u << (24 + self());
	}
}

static void go_x2(void)
{
	wrmsr(0x1b, rdmsr(0x1b) | 0x400);
}

void ap_main(void)
{
	unsigned at;

	__asm__ volatile("mov %%edi, %0; lidt %1" : "=r"(at) : "m"(idtr));
	started_at = at;
	enable();
	ap_id = self();
	starts++;
	__asm__ volatile("sti");
	for (;;) {
		switch (todo) {
		case COUNT: counter++; break;
		case HALT: __asm__ volatile("hlt"); break;
		case HALT_FOR_GOOD:
			todo = COUNT; /* says that it is about to */
			__asm__ volatile("cli; hlt; sti");
			wakes++;
			break;
		case TAKE_TSC:
			if (tsc_from) {
				uint64_t now = tsc();

				tsc_back = now < tsc_from ? 0 : now;
				tsc_from = 0;
			}
			break;
		case X2APIC:
			go_x2();
			ap_id = self();
			todo = COUNT;
			break;
		}
		__asm__ volatile("pause" ::: "memory");
	}
}

/* Waits for cond, but not for ever. */
#define WAIT(cond)                                                                                 \
	do                                                                                         \
		for (uint64_t end = tsc() + 20000000000ull; !(cond) && tsc() < end;)               \
			__asm__ volatile("pause" ::: "memory");                                    \
	while (0)

static void wait_some(void)
{
	uint64_t end = tsc() + 20000000;

	while (tsc() < end)
		__asm__ volatile("pause");
}

static void start_again(uint32_t at)
{
	for (unsigned n = 0; n < (unsigned)(ap_end - ap_begin); n++)
		((volatile uint8_t *)(uint64_t)at)[n] = ap_begin[n];
	send(1, ICR_INIT);
	send(1, ICR_STARTUP | at >> 12);
	send(1, ICR_STARTUP | at >> 12);
}

static void start_up(void)
{
	begin("INIT and SIPI");
	send(1, ICR_STARTUP | 8); /* without an INIT it has been waiting since the reset */
	wait_some();
	WAIT(starts == 1);
	check_eq("started", starts, 1);
	check_eq("in the segment of the vector", started_at, STARTS >> 4);
	check_eq("its APIC ID", ap_id, 1);
	WAIT(counter > 1000);
	send(1, ICR_STARTUP | 9); /* nothing to one that runs */
	wait_some();
	check_eq("a SIPI while it runs", starts, 1);
	start_again(STARTS + 0x1000);
	WAIT(starts == 2);
	check_eq("again", starts, 2);
	check_eq("at another place", started_at, (STARTS + 0x1000) >> 4);
	send(1, ICR_INIT);
	wait_some();
	counter = 0;
	wait_some();
	check_eq("it runs on after an INIT", counter, 0);
	start_again(STARTS);
	WAIT(starts == 3);
	check_eq("and again", starts, 3);
}

static void each(const char *name, uint32_t to, uint32_t icr, unsigned mine, unsigned its)
{
	begin(name);
	got[0] = got[1] = 0;
	for (unsigned n = 1; n <= 50; n++) {
		send(to, icr | VECTOR);
		WAIT(got[0] == n * mine && got[1] == n * its);
	}
	check_eq("here", got[0], 50 * mine);
	check_eq("there", got[1], 50 * its);
}

static void halted(void)
{
	begin("a halted processor");
	todo = HALT;
	got[1] = 0;
	for (unsigned n = 1; n <= 50; n++) {
		send(1, VECTOR);
		WAIT(got[1] == n);
	}
	check_eq("woken each time", got[1], 50);
	todo = COUNT;
	send(1, VECTOR);
	WAIT(got[1] == 51);
	counter = 0;
	WAIT(counter);
	check_eq("it runs", counter != 0, 1);
}

static void halt_for_good(void)
{
	wakes = 0;
	todo = HALT_FOR_GOOD;
	WAIT(todo == COUNT);
	wait_some();
}

static void nmi(void)
{
	begin("NMI");
	nmis[0] = nmis[1] = 0;
	send(1, ICR_NMI);
	WAIT(nmis[1] == 1);
	check_eq("while it runs", nmis[1], 1);
	halt_for_good();
	got[1] = 0;
	send(1, VECTOR);
	wait_some();
	check_eq("an interrupt is not taken with IF off", got[1] + wakes, 0);
	send(1, ICR_NMI);
	WAIT(wakes == 1 && got[1] == 1);
	check_eq("it ends HLT", wakes, 1);
	check_eq("the interrupt then", got[1], 1);
	check_eq("NMIs", nmis[1], 2);
	check_eq("here", nmis[0], 0);
}

static void kick(void)
{
	uint64_t r;

	begin("KVM's kick");
	halt_for_good();
	__asm__ volatile("vmmcall" : "=a"(r) : "a"(5ull), "b"(0ull), "c"(1ull) : "memory");
	check_eq("result", r, 0);
	WAIT(wakes == 1);
	check_eq("it ends HLT with IF off", wakes, 1);
	/* Before the HLT: then that one does not last. */
	__asm__ volatile("vmmcall" : "=a"(r) : "a"(5ull), "b"(0ull), "c"(1ull) : "memory");
	wakes = 0;
	todo = HALT_FOR_GOOD;
	WAIT(wakes == 1);
	check_eq("nor does the next one last", wakes, 1);
	__asm__ volatile("vmmcall" : "=a"(r) : "a"(5ull), "b"(0ull), "c"(77ull) : "memory");
	check_eq("nobody", r, 0);
}

/* One is served, the other waits for its end. */
static void two_nmis(void)
{
	begin("two NMIs to a halted processor");
	todo = HALT;
	nmis[1] = 0;
	for (unsigned n = 1; n <= 50; n++) {
		wait_some();
		send(1, ICR_NMI);
		send(1, ICR_NMI);
		WAIT(nmis[1] == 2 * n);
	}
	check_eq("both are taken", nmis[1], 100);
	todo = COUNT;
	got[1] = 0;
	send(1, VECTOR);
	WAIT(got[1]);
}

static uint64_t pv_send(uint64_t low, uint64_t high, uint64_t first, uint64_t icr)
{
	uint64_t r;

	__asm__ volatile("vmmcall"
			 : "=a"(r)
			 : "a"(10ull), "b"(low), "c"(high), "d"(first), "S"(icr)
			 : "memory");
	return r;
}

static void pv_ipis(void)
{
	begin("KVM's IPIs");
	got[0] = got[1] = 0;
	for (unsigned n = 1; n <= 50; n++) {
		check_eq("to both", pv_send(3, 0, 0, VECTOR), 2);
		WAIT(got[0] == n && got[1] == n);
	}
	check_eq("here", got[0], 50);
	check_eq("there", got[1], 50);
	check_eq("from the second on", pv_send(1, 0, 1, VECTOR), 1);
	WAIT(got[1] == 51);
	check_eq("the 65th", pv_send(0, 2, 0, VECTOR), 0);
	check_eq("nobody", pv_send(~3ull, ~0ull, 0, VECTOR), 0);
	check_eq("beyond all", pv_send(~0ull, ~0ull, 0xffffffff, VECTOR), 0);
	check_eq("a logical destination", pv_send(3, 0, 0, VECTOR | ICR_LOGICAL), -22ull);
	check_eq("a shorthand", pv_send(3, 0, 0, VECTOR | ICR_ALL), -22ull);
	check_eq("a vector of exceptions", pv_send(3, 0, 0, 0xf), 0);
	check_eq("an INIT", pv_send(3, 0, 0, ICR_INIT), 0);
	nmis[1] = 0;
	check_eq("an NMI", pv_send(1, 0, 1, ICR_NMI), 1);
	WAIT(nmis[1] == 1);
	check_eq("it comes", nmis[1], 1);
	check_eq("here", got[0], 50);
	check_eq("there", got[1], 51);
}

static void time_in_step(void)
{
	unsigned backwards = 0;

	begin("TSCs");
	todo = TAKE_TSC;
	for (unsigned n = 0; n < 2000; n++) {
		tsc_back = 1;
		tsc_from = tsc();
		WAIT(!tsc_from);
		backwards += tsc_back == 0 || tsc() < tsc_back;
	}
	check_eq("backwards", backwards, 0);
	todo = COUNT;
}

static void all_ways(uint32_t everybody, uint32_t both, uint32_t second)
{
	each("an interrupt to one", 1, 0, 0, 1);
	each("to itself", 0, 0, 1, 0);
	each("to everybody", everybody, 0, 1, 1);
	each("shorthand self", 0, ICR_SELF, 1, 0);
	each("shorthand all", 0, ICR_ALL, 1, 1);
	each("shorthand all others", 0, ICR_OTHERS, 0, 1);
	each("logical, both", both, ICR_LOGICAL, 1, 1);
	each("logical, the second", second, ICR_LOGICAL, 0, 1);
	each("nobody", 9, 0, 0, 0);
	halted();
	nmi();
	two_nmis();
}

void run_checks(void)
{
	test_pt[APIC_PAGE] = 0xfee00000ull | P | W | 0x10;
	flush(TEST_AREA + APIC_PAGE * PAGE);
	outb(0x21, 0xff);
	outb(0xa1, 0xff);
	__asm__ volatile("sidt %0" : "=m"(idtr));
	for (unsigned n = 0; n < (unsigned)(ap_end - ap_begin); n++)
		((volatile uint8_t *)(uint64_t)STARTS)[n] = ap_begin[n];
	on_trap = on_interrupt;
	enable();
	start_up();
	__asm__ volatile("sti");
	all_ways(0xff, 3, 2);
	kick();
	pv_ipis();
	time_in_step();
	todo = X2APIC;
	WAIT(todo == COUNT);
	__asm__ volatile("cli");
	go_x2();
	x2 = true;
	__asm__ volatile("sti");
	all_ways(0xffffffff, 3, 2);
	begin("x2APIC's self IPI");
	got[0] = 0;
	wrmsr(0x83f, VECTOR);
	WAIT(got[0]);
	check_eq("taken", got[0], 1);
}
