/* compare: does a guest's end equal the processor's? What is not compared is named here
 * and nowhere else. */
#pragma once

#include "forms.h"
#include "user.h"

/* Prepares a result for comparing: brings its XSAVE area to one form, drops what is not
 * compared. Once per result. */
void compare_normalize(const struct user_case *c, const struct forms *fs, struct user_end *end);

/* Writes the first differences into text; false when there are some. Both normalized. */
bool compare_ends(const struct user_case *c, const struct forms *fs, const struct user_end *want,
		  const struct user_end *got, char *text, unsigned len);
