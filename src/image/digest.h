/* digest: SHA-256, by which the store names what it holds, and SHA-512, in which some publish
 * their checksums. */
#pragma once

#include <sha2.h>
#include <stdbool.h>

#include "base/bits.h"
#include "base/err.h"

#define DIGEST_LEN     64u /* hexadecimal digits of SHA-256 */
#define DIGEST_LEN_MAX 128u

enum digest_kind { DIGEST_SHA256, DIGEST_SHA512 };

struct digest {
	enum digest_kind kind;
	SHA2_CTX c;
};

void digest_begin(struct digest *d, enum digest_kind kind);
void digest_add(struct digest *d, const void *bytes, size_t len);
void digest_end(struct digest *d, char to[DIGEST_LEN_MAX + 1]);

/* Of a file's bytes from the beginning to the end. */
WARN_UNUSED int digest_fd(int fd, char to[DIGEST_LEN + 1], struct err *e);
WARN_UNUSED int digest_fd_kind(int fd, enum digest_kind kind, char to[DIGEST_LEN_MAX + 1],
			       struct err *e);
void digest_text(const char *text, char to[DIGEST_LEN + 1]);
/* Whether that is a digest in lower-case hexadecimal digits. */
bool digest_is_hex(const char *text, size_t len, enum digest_kind kind);
