/* forms: every instruction form the processor has, found by decoding the whole opcode
 * space with Zydis: encodings x maps x opcodes x mandatory prefixes x W x L x EVEX.b x
 * register or memory operand x ModRM extensions. Two encodings are the same form when
 * mnemonic, opcode, and the kinds and sizes of all operands agree.
 *
 * A form can be instantiated with random registers, addresses and immediates
 * (make.h). Immutable after forms_find. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <Zydis/Zydis.h>

enum form_enc { ENC_LEGACY, ENC_VEX, ENC_EVEX, ENC_XOP };

struct form {
	uint64_t key;
	ZydisMnemonic mnemonic;
	uint8_t enc;
	uint8_t map, opcode;
	uint8_t prefix; /* 0, 0x66, 0xf3, 0xf2 */
	uint8_t w, l, b;
	uint8_t aaa; /* gathers need a mask */
	bool addr32; /* with 0x67 (another mnemonic: JECXZ) */
	bool has_modrm, mem;
	uint8_t reg, rm;      /* of the first encoding found */
	const char *left_out; /* why no test is made of it, or NULL */
};

struct forms {
	struct form *f;
	unsigned n, cap;
	ZydisDecoder decoder;
	bool compat;
};

/* compat: 32-bit code. Returns false when memory is short. */
bool forms_find(struct forms *fs, bool compat);
void forms_done(struct forms *fs);

/* What makes two encodings one form. */
uint64_t form_key(const ZydisDecodedInstruction *i, const ZydisDecodedOperand *op, bool compat);

/* The reason for which user-mode tests leave a mnemonic out, or NULL (left_out.c). */
const char *left_out(ZydisMnemonic m);
