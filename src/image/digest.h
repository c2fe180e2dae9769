/* digest: SHA-256, by which the store names what it holds. */
#pragma once

#include "base/bits.h"
#include "base/err.h"

#define DIGEST_LEN 64u /* hexadecimal digits */

/* Of a file's bytes from the beginning to the end. */
WARN_UNUSED int digest_fd(int fd, char to[DIGEST_LEN + 1], struct err *e);
void digest_text(const char *text, char to[DIGEST_LEN + 1]);
