#include "guest.h"

struct trap trap;
bool (*on_trap)(struct frame *f);
uint8_t pages[TEST_PAGES][PAGE] __attribute__((aligned(4096)));
uint8_t idt[4096] __attribute__((aligned(16)));
uint8_t tss[104] __attribute__((aligned(128)));
uint8_t ist_stack[8][PAGE] __attribute__((aligned(16)));
static uint8_t user_stack[8192] __attribute__((aligned(16)));
static uint8_t ring0_stack[8192] __attribute__((aligned(16)));

static const char *checking = "start";
static unsigned failures, checks;
static volatile bool attempting;

bool attempt_(void (*fn)(uint64_t), uint64_t arg);
bool attempt_user_(const struct target *t, uint64_t arg);
uint64_t guest_trap(struct frame *f);
int guest_main(void);

void print(const char *s)
{
	for (; *s; s++)
		outb(0x3f8, (uint8_t)*s);
}

void print_hex(uint64_t v)
{
	char digits[19], *p = digits + 18;

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

void check_eq(const char *what, uint64_t got, uint64_t want)
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

void check_trap(const char *what, bool trapped, unsigned vector, uint64_t error)
{
	const uint64_t none = ~0ull;

	check_eq(what, trapped ? trap.f.vector : none, vector);
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

uint64_t guest_trap(struct frame *f)
{
	trap.f = *f;
	trap.at_rsp = (uint64_t)f;
	trap.count++;
	__asm__ volatile("mov %%cr2, %0" : "=r"(trap.cr2));
	if (on_trap && on_trap(f))
		return 0;
	if (!attempting) {
		print(checking);
		print(": unexpected trap ");
		print_hex(f->vector);
		print(" error ");
		print_hex(f->error);
		print(" rip ");
		print_hex(f->rip);
		print(" cr2 ");
		print_hex(trap.cr2);
		print("\n");
		failures++;
		end();
		for (;;)
			__asm__ volatile("hlt");
	}
	return 1;
}

bool attempt(void (*fn)(uint64_t), uint64_t arg)
{
	bool r;

	attempting = true;
	r = attempt_(fn, arg);
	attempting = false;
	return r;
}

bool attempt_iretq(const struct target *t, uint64_t arg)
{
	bool r;

	attempting = true;
	r = attempt_user_(t, arg);
	attempting = false;
	return r;
}

bool attempt_user(void (*fn)(uint64_t), uint64_t arg)
{
	struct target t = {(uint64_t)fn + USER_ALIAS, CS3, 0x002,
			   user_ptr(user_stack + sizeof user_stack) - 8, SS3};

	return attempt_iretq(&t, arg);
}

void set_gate(unsigned vector, void *fn, uint16_t sel, unsigned dpl, unsigned ist, unsigned type)
{
	uint64_t at = (uint64_t)fn;
	uint64_t *g = (uint64_t *)(idt + 16 * vector);

	g[0] = (at & 0xffff) | (uint64_t)sel << 16 | (uint64_t)ist << 32 |
	       (uint64_t)(0x80 | dpl << 5 | type) << 40 | (at >> 16 & 0xffff) << 48;
	g[1] = at >> 32;
}

static void set_up(void)
{
	uint64_t base = (uint64_t)tss, *t = (uint64_t *)(tss + 4);
	struct {
		uint16_t limit;
		uint64_t base;
	} __attribute__((packed)) idtr = {sizeof idt - 1, (uint64_t)idt};

	t[0] = (uint64_t)(ring0_stack + sizeof ring0_stack);
	for (unsigned n = 1; n < 8; n++)
		*(uint64_t *)(tss + 36 + 8 * (n - 1)) = (uint64_t)(ist_stack[n] + PAGE);
	*(uint16_t *)(tss + 102) = 104;
	gdt[8] = 103 | (base & 0xffffff) << 16 | 0x89ull << 40 | (base >> 24 & 0xff) << 56;
	gdt[9] = base >> 32;
	for (unsigned v = 0; v < 256; v++)
		set_gate(v, trap_stubs + 16 * v, CS0, v == 3 || v == 4 || v == 0x80 ? 3 : 0,
			 v == DF ? 1 : 0, 14);
	__asm__ volatile("lidt %0; ltr %w1" ::"m"(idtr), "r"(SEL_TSS));
}

int guest_main(void)
{
	set_up();
	run_checks();
	end();
	return 0;
}

/* The compiler may call these. */
void *memset(void *to, int c, unsigned long n);
void *memcpy(void *to, const void *from, unsigned long n);

void *memset(void *to, int c, unsigned long n)
{
	void *p = to;

	__asm__ volatile("rep stosb" : "+D"(p), "+c"(n) : "a"(c) : "memory");
	return to;
}

void *memcpy(void *to, const void *from, unsigned long n)
{
	void *p = to;

	__asm__ volatile("rep movsb" : "+D"(p), "+S"(from), "+c"(n)::"memory");
	return to;
}
