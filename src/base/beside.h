/* beside: files that belong to this program: beside it or below ../share/holon, as installed, or
 * in the source tree that it was built from. */
#pragma once

#include <stddef.h>

#include "base/bits.h"
#include "base/err.h"

/* The path of the executable file called name. -ENOENT: it is in none of these places. */
WARN_UNUSED int find_beside(const char *name, char *to, size_t len, struct err *e);
