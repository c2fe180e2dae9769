/* guest32: what the guests in 32-bit protected mode are made of; as guest.h, but ring 3 runs at
 * ring 0's addresses, for paging is off or maps all of it. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define CS0      0x08
#define DS0      0x10
#define CS3      0x1b
#define DS3      0x23
#define SEL_TSS  0x28
#define SEL_FREE 0x30 /* and above, for the tests */

enum { DE, DB, NMI, BP, OF, BR, UD, NM, DF, TS = 10, NP, SS, GP, PF };

struct frame { /* as trap_common pushes it */
	uint32_t edi, esi, ebp, at_esp, ebx, edx, ecx, eax, es, ds;
	uint32_t vector, error, eip, cs, eflags, esp, ss;
};

extern struct trap {
	struct frame f;
	uint32_t cr2, at; /* at: where the frame lay: tells the stack */
} trap;

struct target {
	uint32_t eip, cs, eflags, esp, ss;
};

extern uint64_t gdt[32], idt[256];
extern uint32_t tss[26];
extern char trap_stubs[];
extern uint8_t user_stack[4096], ring0_stack[4096];

void run_checks(void); /* each guest's own */

void begin(const char *name);
void check_eq(const char *what, uint32_t got, uint32_t want);
void print(const char *s);

/* True when fn trapped. */
bool attempt(void (*fn)(uint32_t), uint32_t arg);
/* fn in ring 3, where it ends by any trap; leave_user() is INT 0x80. */
bool attempt_user(void (*fn)(uint32_t));
bool attempt_target(const struct target *t);
void check_trap(const char *what, bool trapped, uint32_t vector, uint32_t error);

/* access: the descriptor's byte 5; flags: G, D/B, L, AVL as bits 7 to 4. */
void set_segment(uint16_t sel, uint32_t base, uint32_t limit, uint8_t access, uint8_t flags);
void set_call_gate(uint16_t sel, void (*fn)(void), unsigned dpl, unsigned params);

#define leave_user() __asm__ volatile("int $0x80")
