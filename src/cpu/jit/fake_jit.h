/* fake_jit: a jit_cpu without core.c and tlb.c, to test helpers alone. Guest-virtual
 * memory is one flat array of 1 MiB from 0; pages can be taken away. A raise comes back
 * from fake_run with what was raised. */
#pragma once

#include "cpu/jit/jit_priv.h"

#define FAKE_BYTES 0x100000u
#define FAKE_NONE  0x100u /* nothing was raised */
#define FAKE_PCIDS 0x1000u
#define FAKE_SHUT  0x101u /* triple fault */

struct fake_jit {
	struct jit_cpu *c;
	uint8_t *ram;
	unsigned raised; /* vector, FAKE_NONE or FAKE_SHUT */
	bool has_error;
	uint32_t error;
	bool absent[FAKE_BYTES / 4096];
	unsigned flushes;
	uint16_t flushed_pcid; /* FAKE_PCIDS: all */
	uint64_t flushed_page;
	uint32_t unhalted; /* the APIC ID */
	struct engine_env env;
	struct cpuid_table cpuid;
};

/* 64-bit mode at CPL 0: GDT at 0x1000, IDT at 0x2000, TSS at 0x3000, code at 0x10000,
 * stack top 0x20000. One at a time in a process. */
struct fake_jit *fake_jit_new(void);
void fake_jit_free(struct fake_jit *f);

/* Runs the helper; returns what it raised. */
unsigned fake_run(struct fake_jit *f, jit_helper *h, uint64_t arg);
/* Likewise the delivery of an event, as the run loop does. */
unsigned fake_deliver(struct fake_jit *f, uint8_t vector, bool has_error, uint32_t error);
unsigned fake_raise(struct fake_jit *f, uint8_t vector, bool has_error, uint32_t error);

uint64_t fake_get(struct fake_jit *f, uint64_t gva, unsigned size);
void fake_put(struct fake_jit *f, uint64_t gva, uint64_t v, unsigned size);

/* Selectors of the fake GDT; add 3 for the user's. */
enum {
	FAKE_CS64 = 0x08,
	FAKE_DS = 0x10,
	FAKE_CS32 = 0x18,
	FAKE_USER_CS32 = 0x20,
	FAKE_USER_DS = 0x28,
	FAKE_USER_CS64 = 0x30,
	FAKE_TSS = 0x38,
	FAKE_ABSENT = 0x48,
	FAKE_GATE = 0x50,
};

/* A gate of the 64-bit IDT. */
void fake_gate64(struct fake_jit *f, uint8_t vector, uint64_t offset, unsigned dpl, unsigned ist);
/* To user mode, 64-bit or 32-bit code. */
void fake_user(struct fake_jit *f, bool code64);
/* To 32-bit legacy protected mode at CPL 0, IDT of 8-byte gates. */
void fake_legacy32(struct fake_jit *f);
void fake_gate32(struct fake_jit *f, uint8_t vector, uint32_t offset, unsigned dpl);

#define ARG(len, size, r1, r2, imm)                                                                \
	((uint64_t)(len) | (uint64_t)(size) << 8 | (uint64_t)(r1) << 16 | (uint64_t)(r2) << 24 |   \
	 (uint64_t)(uint32_t)(imm) << 32)
