/* user: what a ring-3 program starts and ends with: the currency between the native
 * oracle (native.h), the guest (vm.h) and the comparison. Both run the same bytes at the
 * same virtual addresses:
 *
 * CODE  slots of SLOT_BYTES filled with int3, the case's instructions in the middle (or
 *       across a page boundary); readable and executable, not writable.
 * DATA  seven pages: none, RW, RW, read-only, none, RW, none.
 *
 * Both lie below 4 GiB, so 32-bit addresses and RIP-relative operands reach them. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/bits.h"
#include "cpu/x86_state.h"

#define CODE_BASE   UINT64_C(0x10000000)
#define SLOT_BYTES  512u
#define SLOT_ENTRY  192u /* rel8 branches stay within the slot */
#define BATCH_CASES 1024u
#define CODE_BYTES  (BATCH_CASES * SLOT_BYTES + 4096u)

#define DATA_BASE     UINT64_C(0x20000000)
#define DATA_PAGES    7u
#define DATA_RW_PAGES 3u
#define DATA_RO_PAGE  3u
#define PAGE          4096u

#define USER_CS32 0x23
#define USER_SS   0x2b
#define USER_CS64 0x33

/* Index in DATA of the n-th page that is writable. */
static inline unsigned data_rw_page(unsigned n)
{
	return n < 2 ? n + 1 : 5;
}

struct user_state {
	uint64_t gpr[16];
	uint64_t rip, rflags, fs_base, gs_base;
	uint8_t xsave[X86_XSAVE_BYTES] __attribute__((aligned(64)));
};

struct user_patch { /* 8 bytes of data memory that differ from the base image */
	uint64_t gva, value;
};

#define CASE_BYTES   768
#define CASE_PATCHES 12
#define CASE_FORMS   64

struct user_case {
	struct user_state start;
	struct user_patch patch[CASE_PATCHES];
	unsigned patches;
	uint16_t len; /* of bytes, at start.rip */
	uint8_t bytes[CASE_BYTES];
	bool compat;               /* 32-bit code in compatibility mode */
	uint32_t form[CASE_FORMS]; /* indices into the forms, one per instruction */
	unsigned forms;
};

struct user_end {
	struct user_state s;
	bool ran;       /* false: the run itself broke (the native child died, or the guest hung) */
	char broke[80]; /* then why */
	uint8_t vector;
	uint32_t error;
	uint64_t cr2; /* page faults only */
	uint8_t mem[DATA_RW_PAGES][PAGE];
};

/* The data pages' content before each case: RW pages, then the read-only one. */
struct user_image {
	uint8_t page[DATA_RW_PAGES + 1][PAGE];
};

/* XCR0 components that user programs have on this host, of x87..Hi16_ZMM. */
uint64_t user_xfeatures(void);
/* Offset of component n in the standard XSAVE format (n >= 2), and its size. */
uint32_t user_xoffset(unsigned n, uint32_t *size);
/* Components that XSTATE_BV calls initial get their initial values, so areas compare. */
void user_xsave_normalize(uint8_t *xsave);

/* Copies the case's patches over data memory; page(n) is DATA page n or NULL. */
void user_apply_patches(const struct user_case *c, uint8_t *(*page)(void *ctx, unsigned n),
			void *ctx);
