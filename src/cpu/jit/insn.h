/* insn: a decoded guest instruction, and how it is treated.
 *
 * Each instruction has one rule, found by its mnemonic (rules_slow.c). Most are COPY: the
 * host executes the same instruction with its registers renamed and its memory operand
 * replaced by a checked host address (rewrite_slow.c). */
#pragma once

#include <Zydis/Zydis.h>

#include "cpu/jit/cache.h"

enum rule_kind {
	RULE_COPY,
	RULE_UD,
	RULE_NOP,
	RULE_HELPER, /* rule.helper, operands packed into its argument */
	RULE_STRING, /* rule.helper, a string instruction */
	RULE_IO,
	RULE_INT,
	RULE_FAR, /* far JMP, CALL: rule.helper direct, rule.helper2 through memory */
	RULE_MOV,
	RULE_PUSH,
	RULE_POP,
	RULE_LEA,
	RULE_XLAT,
	RULE_LEAVE,
	RULE_BT,
	RULE_JMP,
	RULE_JCC,
	RULE_CALL,
	RULE_RET,
	RULE_LOOP,
	RULE_STI,
	RULE_CLI,
	RULE_PAUSE,
	RULE_CLD,
	RULE_STD, /* bits of RFLAGS that are never in the host's */
};

struct rule {
	uint8_t kind;
	uint8_t cc;   /* RULE_JCC: enum cond; RULE_LOOP: see translate */
	uint32_t imm; /* RULE_HELPER: ARG_IMM where the instruction has no immediate */
	jit_helper *helper, *helper2;
};

struct insn {
	ZydisDecodedInstruction z;
	ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
	uint8_t bytes[15];
	uint64_t gva;
	const struct rule *rule;
	const ZydisDecodedOperand *mem; /* its explicit memory operand that is accessed, or NULL */
	/* arithmetic flags (RFLAGS_*): read; overwritten for certain; perhaps changed; live before
	 * and after (flags_slow.c) */
	uint16_t reads, sets, touches, live_in, live_out;
	bool straddles; /* ends on the next page */
	bool followed;  /* a jump whose target comes next in the block */
};

extern const uint8_t jit_host_reg[16]; /* guest GPR -> host GPR, or R_NONE: in jit_cpu */

/* Every instruction that carries out its work through this rule. */
const struct rule *jit_rule(const ZydisDecodedInstruction *z);

/* Fills isa_ok[ZYDIS_ISA_SET_MAX_VALUE + 1] from what the guest's CPUID offers. */
void jit_isa_init(bool *isa_ok, const struct cpuid_table *t);

enum insn_gate { GATE_OK, GATE_UD, GATE_NM };
enum insn_gate jit_gate(const ZydisDecodedInstruction *z, const bool *isa_ok, uint32_t mode);

/* The instruction accesses the first byte of op, a memory operand, for certain. */
bool insn_touches(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *op);
/* Its first operand is a register that is between -2^31 and 2^32 - 1 afterwards. */
bool insn_narrows(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *op);

/* A memory operand as translated code addresses it: [base + index * scale + disp]. */
struct host_mem {
	uint8_t base, index; /* host registers; index may be R_NONE, and base, which means none */
	uint8_t scale;
	int32_t disp;
};

/* Emits i with its registers renamed. m: its memory operand; base R_NONE: it has none. Loads and
 * stores guest registers that live in jit_cpu around it; uses as scratch what of r13 and r14 m does
 * not name; leaves flags to the instruction alone. kept: guest registers of which r13 and r14 are
 * copies, or 0; before and after. *at: where the instruction itself starts.
 * *borrowed: a host register whose guest value is in tmp[3] while it runs, or R_NONE. Returns
 * which host registers it used as scratch, or borrowed (bit n: register n). */
uint16_t jit_rewrite(struct emit *e, const struct insn *i, struct host_mem m, uint8_t kept[2],
		     uint8_t **at, uint8_t *borrowed);

/* Zydis has them by width, in the hardware's order, AH to BH behind BL. */
_Static_assert(ZYDIS_REGISTER_BH - ZYDIS_REGISTER_AL == 7 &&
		       ZYDIS_REGISTER_R15B - ZYDIS_REGISTER_SPL == 11 &&
		       ZYDIS_REGISTER_AX - ZYDIS_REGISTER_AL == 20 &&
		       ZYDIS_REGISTER_EAX - ZYDIS_REGISTER_AX == 16 &&
		       ZYDIS_REGISTER_RAX - ZYDIS_REGISTER_EAX == 16 &&
		       ZYDIS_REGISTER_R15 - ZYDIS_REGISTER_RAX == 15,
	       "the order of the registers");

static inline unsigned insn_gpr(ZydisRegister r) /* hardware number of a GPR of any width */
{
	if (r >= ZYDIS_REGISTER_AX)
		return (r - ZYDIS_REGISTER_AX) & 15u;
	return r >= ZYDIS_REGISTER_SPL ? r - ZYDIS_REGISTER_SPL + 4u : (r - ZYDIS_REGISTER_AL) & 3u;
}

static inline bool insn_is_gpr(ZydisRegister r)
{
	return r >= ZYDIS_REGISTER_AL && r <= ZYDIS_REGISTER_R15;
}

static inline bool insn_is_high_byte(ZydisRegister r)
{
	return r >= ZYDIS_REGISTER_AH && r <= ZYDIS_REGISTER_BH;
}
