/* longmode: a guest kernel's surroundings in 64-bit mode, without a kernel: page tables,
 * GDT, IDT, TSS, and a stub per exception vector that ends the run by a port write. */
#pragma once

#include "vm.h"

/* Guest-physical layout. The first 2 MiB are mapped at LM_KERNEL for ring 0. */
#define LM_KERNEL     UINT64_C(0xffffffff80000000)
#define LM_GDT        0x1000u
#define LM_IDT        0x2000u
#define LM_TSS        0x3000u
#define LM_PML4       0x4000u
#define LM_TABLES     0x5000u /* page tables, taken from here upwards */
#define LM_TABLES_END 0x80000u
#define LM_STUBS      0x80000u                 /* 16 bytes each */
#define LM_IST(n)     (0x90000u + (n)*0x1000u) /* tops */
#define LM_STACK      0xa0000u                 /* ring 0 stack's top */

#define LM_CS0 0x08
#define LM_SS0 0x10
#define LM_TR  0x40
/* The user's selectors are Linux's: 0x23 32-bit code, 0x2b data, 0x33 64-bit code. */

#define PTE_P  0x001u
#define PTE_W  0x002u
#define PTE_U  0x004u
#define PTE_A  0x020u
#define PTE_D  0x040u
#define PTE_PS 0x080u
#define PTE_G  0x100u
#define PTE_NX BIT(63)

struct longmode {
	struct vm *vm;
	gpa_t next_table;
	struct x86_state base; /* ring 0, at LM_KERNEL, interrupts off */
};

/* Writes everything and fills base. */
void longmode_init(struct longmode *lm, struct vm *vm);

/* Maps one 4 KiB page; flags are PTE bits. */
void longmode_map(struct longmode *lm, uint64_t gva, gpa_t gpa, uint64_t flags);

/* The state of a ring-3 program. cs: USER_CS64 or USER_CS32. */
void longmode_to_user(struct x86_state *s, uint16_t cs);

struct x86_seg longmode_seg(const struct longmode *lm, uint16_t sel);

/* What the stub's stack holds. */
struct longmode_trap {
	uint8_t vector;
	uint64_t error, rip, cs, rflags, rsp, ss;
};

/* Reads the trap that ended a run in state s; false when s is not in a stub. */
bool longmode_trapped(struct longmode *lm, const struct x86_state *s, struct longmode_trap *t);
