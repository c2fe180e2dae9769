/* program: random programs with control flow, for the comparison with the host: straight code of
 * any form, forward jumps, loops that end, calls and returns, jumps by register and by RET. It is
 * a list of pieces, so that a program that shows a difference can be cut down piece by piece.
 * Deterministic. */
#pragma once

#include "make.h"

#define PROGRAM_PIECES 96

enum piece_kind {
	PIECE_INSN,
	PIECE_SET,   /* mov r32, imm32: a string instruction's register */
	PIECE_COUNT, /* mov [counter], n */
	PIECE_LOOP,  /* sub [counter], 1; jnz target */
	PIECE_JCC,
	PIECE_JMP,
	PIECE_JMP_REG, /* lea rax, [target]; jmp rax */
	PIECE_JMP_RET, /* lea rax, [target]; push rax; ret */
	PIECE_CALL,
	PIECE_CALL_REG, /* lea rax, [target]; call rax */
	PIECE_RET,
};

struct piece {
	enum piece_kind kind;
	bool dropped;
	uint8_t reg_or_cc;
	uint32_t value;  /* SET: imm; COUNT: n */
	uint8_t counter; /* COUNT, LOOP */
	uint8_t target;  /* index of a piece, or the program's number of them: its end */
	struct tame_insn insn;
};

struct program {
	struct piece piece[PROGRAM_PIECES];
	unsigned n;
	struct user_state start;
};

/* The forms to choose from. */
struct program_forms {
	const struct forms *fs;
	const uint32_t *any, *general; /* all usable ones; those of general registers */
	unsigned any_n, general_n;
};

/* 5 to about 50 instructions. */
void program_make(struct program *p, const struct program_forms *f, struct rng *r);

/* p, without what is dropped, at rip. False: it is too long. */
bool program_assemble(const struct program *p, const struct forms *fs, uint64_t rip,
		      struct user_case *c);

/* One instruction a line, with addresses; mark: the one to point at. */
void program_print(const struct user_case *c, const struct forms *fs, uint64_t mark);
