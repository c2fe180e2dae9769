#include "guest32.h"

struct trap trap;
uint64_t gdt[32] __attribute__((aligned(16)));
uint64_t idt[256] __attribute__((aligned(16)));
uint32_t tss[26] __attribute__((aligned(128)));
uint8_t user_stack[4096] __attribute__((aligned(16)));
uint8_t ring0_stack[4096] __attribute__((aligned(16)));

static const char *checking = "start";
static unsigned failures, checks;
static volatile bool attempting;

bool attempt_(void (*fn)(uint32_t), uint32_t arg);
bool attempt_iret(const struct target *t);
uint32_t guest_trap(struct frame *f);
void guest_main(void);

static void outb(uint16_t port, uint8_t v)
{
	__asm__ volatile("outb %0, %1" ::"a"(v), "Nd"(port));
}

void print(const char *s)
{
	for (; *s; s++)
		outb(0x3f8, (uint8_t)*s);
}

static void print_hex(uint32_t v)
{
	char digits[11], *p = digits + 10;

	*p = 0;
	do
		*--p = "0123456789abcdef"[v & 15];
	while ((v >>= 4));
	*--p = 'x';
	*--p = '0';
	print(p);
}

void begin(const char *name)
{
	checking = name;
}

void check_eq(const char *what, uint32_t got, uint32_t want)
{
	checks++;
	if (got == want)
		return;
	failures++;
	print("FAIL ");
	print(checking);
	print(": ");
	print(what);
	print(": got ");
	print_hex(got);
	print(", want ");
	print_hex(want);
	print("\n");
}

void check_trap(const char *what, bool trapped, uint32_t vector, uint32_t error)
{
	check_eq(what, trapped ? trap.f.vector : ~0u, vector);
	if (trapped && trap.f.vector == vector)
		check_eq("error code", trap.f.error, error);
}

static void end(void)
{
	print_hex(checks);
	print(" checks, ");
	print_hex(failures);
	print(" failed\n");
	outb(0xf4, failures ? 1 : 0);
}

uint32_t guest_trap(struct frame *f)
{
	trap.f = *f;
	trap.at = (uint32_t)f;
	__asm__ volatile("mov %%cr2, %0" : "=r"(trap.cr2));
	if (attempting)
		return 1;
	print(checking);
	print(": unexpected trap ");
	print_hex(f->vector);
	print(" error ");
	print_hex(f->error);
	print(" eip ");
	print_hex(f->eip);
	print("\n");
	failures++;
	end();
	for (;;)
		__asm__ volatile("hlt");
}

bool attempt(void (*fn)(uint32_t), uint32_t arg)
{
	bool r;

	attempting = true;
	r = attempt_(fn, arg);
	attempting = false;
	return r;
}

bool attempt_target(const struct target *t)
{
	bool r;

	attempting = true;
	r = attempt_iret(t);
	attempting = false;
	return r;
}

bool attempt_user(void (*fn)(uint32_t))
{
	struct target t = {(uint32_t)fn, CS3, 2, (uint32_t)(user_stack + sizeof user_stack) - 16,
			   DS3};

	return attempt_target(&t);
}

void set_segment(uint16_t sel, uint32_t base, uint32_t limit, uint8_t access, uint8_t flags)
{
	gdt[sel / 8] = (limit & 0xffff) | (uint64_t)(base & 0xffffff) << 16 |
		       (uint64_t)access << 40 | (uint64_t)(limit >> 16 & 15) << 48 |
		       (uint64_t)flags << 48 | (uint64_t)(base >> 24) << 56;
}

static uint64_t gate(uint32_t at, uint16_t sel, uint8_t access, unsigned params)
{
	return (at & 0xffff) | (uint64_t)sel << 16 | (uint64_t)params << 32 |
	       (uint64_t)access << 40 | (uint64_t)(at >> 16) << 48;
}

void set_call_gate(uint16_t sel, void (*fn)(void), unsigned dpl, unsigned params)
{
	gdt[sel / 8] = gate((uint32_t)fn, CS0, (uint8_t)(0x8c | dpl << 5), params);
}

static void set_up(void)
{
	struct {
		uint16_t limit;
		uint32_t base;
	} __attribute__((packed)) gdtr = {sizeof gdt - 1, (uint32_t)gdt},
				  idtr = {sizeof idt - 1, (uint32_t)idt};

	set_segment(CS0, 0, 0xfffff, 0x9b, 0xc0);
	set_segment(DS0, 0, 0xfffff, 0x93, 0xc0);
	set_segment(CS3, 0, 0xfffff, 0xfb, 0xc0);
	set_segment(DS3, 0, 0xfffff, 0xf3, 0xc0);
	set_segment(SEL_TSS, (uint32_t)tss, sizeof tss - 1, 0x89, 0);
	tss[1] = (uint32_t)(ring0_stack + sizeof ring0_stack);
	tss[2] = DS0;
	for (unsigned v = 0; v < 256; v++)
		idt[v] = gate((uint32_t)trap_stubs + 16 * v, CS0,
			      v == BP || v == OF || v == BR || v == 0x80 ? 0xee : 0x8e, 0);
	__asm__ volatile("lgdt %0; lidt %1; ltr %w2; mov %3, %%ds; mov %3, %%es; mov %3, %%ss;"
			 "ljmp %4, $1f; 1:" ::"m"(gdtr),
			 "m"(idtr), "r"(SEL_TSS), "r"(DS0), "i"(CS0)
			 : "memory");
}

void guest_main(void)
{
	set_up();
	run_checks();
	end();
}
