/* cases: ring-0 instructions with their expected end and bus traffic, as tables. */
#pragma once

#include "cpu/x86_state.h"
#include "vm.h"

enum case_mode {
	CASE_LONG,  /* 64-bit, ring 0, paging; MMIO at its physical address + CASE_MMIO */
	CASE_FLAT,  /* 32-bit protected mode, no paging */
	CASE_PAGED, /* 32-bit protected mode, 32-bit paging with 4 MiB pages, identity */
	CASE_PAE,   /* the same with PAE paging */
	CASE_16,    /* 16-bit protected mode: code and stack segments with D clear */
	CASE_MODES
};

/* Case code lies here in every mode; data at CASE_DATA. */
#define CASE_CODE  0x200000u
#define CASE_DATA  0x201000u
#define CASE_STACK 0x203000u

struct case_reg {
	uint8_t n;
	uint64_t value;
};

#define CASE_REGS 6
#define CASE_LOG  8

/* One instruction (or a few) followed by the harness's port write. */
struct engine_case {
	const char *name;
	unsigned modes; /* BIT(enum case_mode) */
	const char *code;
	uint8_t len;
	struct case_reg in[CASE_REGS], out[CASE_REGS]; /* ended by value 0 of register 0 twice */
	uint8_t ins, outs;
	uint8_t logs;
	struct vm_access log[CASE_LOG];
	uint32_t flags_in, flags_mask, flags_out;
};

extern const struct engine_case engine_cases[];
extern const unsigned engine_case_count;
