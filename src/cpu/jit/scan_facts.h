/* scan_facts: what the scanner (scan_slow.h) knows where an instruction of a direct block starts,
 * about what leads into the window: r13 and r14, RSI and RDI of a string instruction, and the slots
 * that keep what the first two held (jit_cpu.held). A delta is only believed when the lane of an
 * address (base + scale * index) was compared on every path, and as long as that address stays near
 * the lane: its registers move by constants only, by FACT_FAR in all. An access that went well
 * proves anew how near it is.
 *
 * Whoever enters a direct block, or comes back from the guest's call, has seen to stack_delta: it is that
 * of the lane that r15 (RSP) is in, or STACK_SLACK beside at most. Who leaves for one has to. */
#pragma once

#include <Zydis/Zydis.h>

#include "cpu/jit/jit_priv.h"

enum fact_kind {
	FACT_NONE,
	FACT_VALUE, /* it holds the constant v */
	/* With the address A = base + scale * index, to v bytes: */
	FACT_SUM,   /* A */
	FACT_LANE,  /* A's lane, whatever that is */
	FACT_IS,    /* A's lane, which is `lane` */
	FACT_USER,  /* A's lane, which is below LANES */
	FACT_DELTA, /* the delta of a lane that A is in, or v bytes from */
	FACT_STACK, /* that of r15, and it is stack_delta */
	FACT_BASE,  /* the delta of lane `lane` */
	FACT_PTR, /* with A (or nothing) added, an address in a lane of the window, or v bytes from */
	FACT_HOST, /* an address in the window, or so near that nothing may be added */
};

struct fact {
	uint8_t kind, base, index,
		scale; /* base, index: R_NONE, or see term in scan_facts_slow.c */
	uint8_t lane;
	uint64_t id; /* facts of one id, not 0, are about the same value */
	int64_t v;
};

#define FACT_FAR (INT64_C(5) << 30)

#define FACT_REGS 4
#define FACTS     (FACT_REGS + HELD_SLOTS)
struct facts {
	struct fact of[FACTS]; /* r13, r14, RSI, RDI, the slots */
	uint16_t narrow;       /* registers (bit n: n) that hold -2^31 to 2^32 - 1 */
	uint8_t compared;      /* by the instruction before, with `with`; or 0 */
	int64_t with;
	struct {
		bool known;    /* stack_delta is of r15's lane, ... */
		int64_t slack; /* ... or that far beside at most */
	} stack;
};

/* What stands behind the instruction; taken: where its jump leads. id: its address, or so. */
void facts_after(struct facts *f, const ZydisDecodedInstruction *z, const ZydisDecodedOperand *op,
		 bool taken, uint64_t id);
/* f keeps what g knows too, at `id`. true: it changed. */
bool facts_join(struct facts *f, const struct facts *g, uint64_t id);
/* May op be accessed? */
bool facts_allow(const struct facts *f, const ZydisDecodedOperand *op);
/* mov r, gs:[delta + ...] is known to be right */
bool facts_allow_table(const struct facts *f, const ZydisDecodedOperand *op);
/* mov gs:[stack_delta], r is known to be right. */
bool facts_allow_stack(const struct facts *f, const ZydisDecodedInstruction *z,
		       const ZydisDecodedOperand *op);
/* Another block may be entered. */
bool facts_allow_leaving(const struct facts *f);
/* Does r14 lead into the window as it is? */
bool facts_r14_leads(const struct facts *f);
