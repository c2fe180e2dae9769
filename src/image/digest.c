#include "image/digest.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/auto.h"

#define PIECE MIB(1)

void digest_begin(struct digest *d, enum digest_kind kind)
{
	d->kind = kind;
	if (kind == DIGEST_SHA512)
		SHA512Init(&d->c);
	else
		SHA256Init(&d->c);
}

void digest_add(struct digest *d, const void *bytes, size_t len)
{
	if (d->kind == DIGEST_SHA512)
		SHA512Update(&d->c, bytes, len);
	else
		SHA256Update(&d->c, bytes, len);
}

void digest_end(struct digest *d, char to[DIGEST_LEN_MAX + 1])
{
	if (d->kind == DIGEST_SHA512)
		SHA512End(&d->c, to);
	else
		SHA256End(&d->c, to);
}

int digest_fd_kind(int fd, enum digest_kind kind, char to[DIGEST_LEN_MAX + 1], struct err *e)
{
	AUTO_FREE uint8_t *buf = malloc(PIECE);
	struct digest d;
	off_t at = 0;

	if (!buf)
		return err_set(e, ENOMEM, "out of memory");
	digest_begin(&d, kind);
	for (;;) {
		ssize_t n = pread(fd, buf, PIECE, at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_sys(e, errno, "reading an image");
		if (n == 0)
			break;
		digest_add(&d, buf, (size_t)n);
		at += n;
	}
	digest_end(&d, to);
	return 0;
}

int digest_fd(int fd, char to[DIGEST_LEN + 1], struct err *e)
{
	char all[DIGEST_LEN_MAX + 1];
	int r = digest_fd_kind(fd, DIGEST_SHA256, all, e);

	if (r == 0)
		memcpy(to, all, DIGEST_LEN + 1);
	return r;
}

void digest_text(const char *text, char to[DIGEST_LEN + 1])
{
	SHA256Data((const uint8_t *)text, strlen(text), to);
}

bool digest_is_hex(const char *text, size_t len, enum digest_kind kind)
{
	if (len != (kind == DIGEST_SHA512 ? DIGEST_LEN_MAX : DIGEST_LEN))
		return false;
	for (size_t i = 0; i < len; i++)
		if (!strchr("0123456789abcdef", text[i]) || !text[i])
			return false;
	return true;
}
