#include "image/digest.h"

#include <errno.h>
#include <sha2.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/auto.h"

#define PIECE MIB(1)

int digest_fd(int fd, char to[DIGEST_LEN + 1], struct err *e)
{
	AUTO_FREE uint8_t *buf = malloc(PIECE);
	SHA2_CTX c;
	off_t at = 0;

	if (!buf)
		return err_set(e, ENOMEM, "out of memory");
	SHA256Init(&c);
	for (;;) {
		ssize_t n = pread(fd, buf, PIECE, at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_sys(e, errno, "reading an image");
		if (n == 0)
			break;
		SHA256Update(&c, buf, (size_t)n);
		at += n;
	}
	SHA256End(&c, to);
	return 0;
}

void digest_text(const char *text, char to[DIGEST_LEN + 1])
{
	SHA256Data((const uint8_t *)text, strlen(text), to);
}
