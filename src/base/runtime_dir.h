/* runtime_dir: the folder where one user's VMs meet: $XDG_RUNTIME_DIR/holon, or
 * /run/user/UID/holon (for root /run/holon, whether logged in or not), or /tmp/holon-UID. It belongs to the user and nobody else may enter
 * it; one that is not so is not used. */
#pragma once

#include <stddef.h>

#include "base/bits.h"
#include "base/err.h"

/* Makes it if it is not there; its path to path[0..max). */
WARN_UNUSED int runtime_dir(char *path, size_t max, struct err *e);
