/* scan_facts: what the scanner (scan_slow.h) knows where an instruction of a direct block starts,
 * about registers that lead into the window: r13 and r14, and RSI and RDI of a string instruction.
 * A delta is only believed when its lane was compared on every path, and as long as its base
 * moves by constants of less than 1 GiB.
 *
 * Whoever enters a direct block, or comes back from the guest's call, has seen to stack_delta: it is that
 * of the lane that r15 (RSP) is in, or STACK_SLACK beside at most. Who leaves for one has to. A MOV off r15
 * that came through shows where r15 is. */
#pragma once

#include <Zydis/Zydis.h>

#include "cpu/jit/jit_priv.h"

enum fact_kind {
	FACT_NONE,
	FACT_VALUE, /* it holds the constant v */
	FACT_COPY,  /* what host register base holds */
	FACT_LANE,  /* base's lane, whatever that is */
	FACT_IS,    /* base's lane, which is v */
	FACT_USER,  /* base's lane, which is below LANES */
	FACT_DELTA, /* the delta of the lane that base was in, before it moved by v (r15: that far) */
	FACT_STACK, /* that of r15, and it is stack_delta */
	FACT_HOST,  /* an address in the window */
};

struct fact {
	uint8_t kind, base;
	int64_t v;
};

#define FACTS 4
struct facts {
	struct fact of[FACTS]; /* r13, r14, RSI, RDI */
	uint8_t compared;      /* by the instruction before, with `with`; or 0 */
	int64_t with;
	struct {
		bool known;    /* stack_delta is of r15's lane, ... */
		int64_t slack; /* ... or that far beside at most */
	} stack;
};

/* What stands behind the instruction; taken: where its jump leads. */
void facts_after(struct facts *f, const ZydisDecodedInstruction *z, const ZydisDecodedOperand *op,
		 bool taken);
/* f keeps what g knows too. true: it lost something. */
bool facts_join(struct facts *f, const struct facts *g);
/* May op be accessed? */
bool facts_allow(const struct facts *f, const ZydisDecodedOperand *op);
/* mov r, gs:[delta + ...] is known to be right */
bool facts_allow_table(const struct facts *f, const ZydisDecodedOperand *op);
/* mov gs:[stack_delta], r is known to be right. */
bool facts_allow_stack(const struct facts *f, const ZydisDecodedInstruction *z,
		       const ZydisDecodedOperand *op);
/* Another block may be entered. */
bool facts_allow_leaving(const struct facts *f);
/* lea reg, [base + delta + disp]: then reg is an address in the window. */
bool facts_make_host(const struct facts *f, const ZydisDecodedInstruction *z,
		     const ZydisDecodedOperand *op);
