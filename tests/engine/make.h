/* make: random cases from forms. Registers, immediates, prefixes and addresses are drawn
 * from a seeded generator; memory operands are aimed at the data window, sometimes across
 * its page boundaries, sometimes at pages that fault. Deterministic. */
#pragma once

#include "forms.h"
#include "rng.h"
#include "user.h"

/* Where case number slot of a batch starts: in its slot, or (where cross, 1..15) that many
 * bytes before the end of the page behind it. */
uint64_t make_entry(unsigned slot, unsigned cross);

/* Fills c with n instructions of the given forms at rip. False when no encoding was found
 * (the form was found with another combination of fields than could be drawn). */
bool make_case(struct user_case *c, const struct forms *fs, const uint32_t *form, unsigned n,
	       uint64_t rip, struct rng *r);

/* --- for programs (program.h) --- */
/* RBX, RSP, RBP, R11, R12, R13: registers by which tame instructions reach memory, and which they
 * leave as they are. */
#define MAKE_KEPT 0x3838u

struct tame_insn {
	uint8_t bytes[40]; /* of which the first len count */
	uint8_t len;
	uint8_t disp_at;     /* where rip_target's displacement goes ... */
	uint64_t rip_target; /* ... of a RIP-relative operand; 0: there is none */
	uint32_t form;
	bool is_string; /* RSI, RDI and RCX must be set before */
};

/* Registers as tame instructions want them; no instruction yet. */
void make_tame_start(struct user_case *c, const struct forms *fs, struct rng *r);

/* An instruction that most probably does not fault, wherever it stands. keep_stack: RSP too stays
 * as it is. False: this form cannot be had so. */
bool make_tame(struct user_case *c, const struct forms *fs, uint32_t form, bool keep_stack,
	       struct rng *r, struct tame_insn *out);

void make_image(struct user_image *image, struct rng *r);

/* Text of the case's instructions, "a; b". */
void make_print(const struct user_case *c, const struct forms *fs, char *to, unsigned len);
