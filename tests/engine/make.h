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

void make_image(struct user_image *image, struct rng *r);

/* Text of the case's instructions, "a; b". */
void make_print(const struct user_case *c, const struct forms *fs, char *to, unsigned len);
