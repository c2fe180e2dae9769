/* Several gzip members or zstd frames may follow each other, as their formats allow. */
#include "image/inflate.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include "base/auto.h"

#define IN_BYTES        KIB(128)
#define OUT_BYTES       KIB(256)
#define ZSTD_WINDOW_MAX 27 /* 128 MiB, what zstd itself refuses beyond without --long */

struct inflate {
	int fd;
	uint64_t at, left;
	struct inflate_sink *sink;
	uint64_t *used;
	struct err *e;
	uint8_t in[IN_BYTES], out[OUT_BYTES];
};

enum inflate_kind inflate_kind(const void *bytes, size_t len)
{
	if (len >= 2 && !memcmp(bytes, "\x1f\x8b", 2))
		return INFLATE_GZIP;
	if (len >= 4 && !memcmp(bytes, "\x28\xb5\x2f\xfd", 4))
		return INFLATE_ZSTD;
	if (len >= 6 && !memcmp(bytes,
				"\xfd"
				"7zXZ",
				6))
		return INFLATE_XZ;
	return INFLATE_NONE;
}

/* How much there is; 0: the end. */
static ssize_t refill(struct inflate *f)
{
	size_t want = (size_t)min_u64(IN_BYTES, f->left);
	ssize_t n;

	do
		n = want ? pread(f->fd, f->in, want, (off_t)f->at) : 0;
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return err_sys(f->e, errno, "read");
	f->at += (uint64_t)n;
	f->left -= (uint64_t)n;
	if (f->used)
		*f->used += (uint64_t)n;
	return n;
}

static int copy(struct inflate *f)
{
	ssize_t n;
	int r = 0;

	while (r == 0 && (n = refill(f)) != 0)
		r = n < 0 ? (int)n : f->sink->data(f->sink, f->in, (size_t)n, f->e);
	return r;
}

static int gunzip_some(struct inflate *f, z_stream *z, bool *ended)
{
	while (z->avail_in) {
		size_t len;
		int code, r;

		if (*ended && inflateReset(z) != Z_OK)
			return err_set(f->e, EBADMSG, "its gzip packing is damaged");
		z->next_out = f->out;
		z->avail_out = OUT_BYTES;
		code = inflate(z, Z_NO_FLUSH);
		if (code != Z_OK && code != Z_STREAM_END && code != Z_BUF_ERROR)
			return err_set(f->e, EBADMSG, "its gzip packing is damaged");
		*ended = code == Z_STREAM_END;
		len = OUT_BYTES - z->avail_out;
		if (len && (r = f->sink->data(f->sink, f->out, len, f->e)) < 0)
			return r;
		if (code == Z_BUF_ERROR && !len)
			break;
	}
	return 0;
}

/* What inflate still holds when its input is used up. */
static int gunzip_rest(struct inflate *f, z_stream *z, bool *ended)
{
	size_t len;

	do {
		int code, r;

		if (*ended)
			return 0;
		z->next_out = f->out;
		z->avail_out = OUT_BYTES;
		code = inflate(z, Z_NO_FLUSH);
		*ended = code == Z_STREAM_END;
		len = OUT_BYTES - z->avail_out;
		if (len && (r = f->sink->data(f->sink, f->out, len, f->e)) < 0)
			return r;
	} while (len);
	return 0;
}

static int gunzip(struct inflate *f)
{
	z_stream z = {0};
	bool ended = false;
	ssize_t n;
	int r = 0;

	if (inflateInit2(&z, 15 + 16) != Z_OK)
		return err_set(f->e, ENOMEM, "zlib: out of memory");
	while (r == 0 && (n = refill(f)) != 0) {
		z.next_in = f->in;
		z.avail_in = (unsigned)(n < 0 ? 0 : n);
		r = n < 0 ? (int)n : gunzip_some(f, &z, &ended);
		if (r == 0)
			r = gunzip_rest(f, &z, &ended);
	}
	inflateEnd(&z);
	if (r == 0 && !ended)
		r = err_set(f->e, EBADMSG, "its gzip packing breaks off");
	return r;
}

static int unzstd(struct inflate *f)
{
	ZSTD_DCtx *z = ZSTD_createDCtx();
	size_t code = 0;
	ssize_t n;
	int r = 0;

	if (!z)
		return err_set(f->e, ENOMEM, "zstd: out of memory");
	ZSTD_DCtx_setParameter(z, ZSTD_d_windowLogMax, ZSTD_WINDOW_MAX);
	while (r == 0 && (n = refill(f)) != 0) {
		ZSTD_inBuffer in = {f->in, (size_t)(n < 0 ? 0 : n), 0};
		ZSTD_outBuffer out = {f->out, OUT_BYTES, 0};

		if (n < 0)
			r = (int)n;
		while (r == 0 && (in.pos < in.size || out.pos == out.size)) {
			out.pos = 0;
			code = ZSTD_decompressStream(z, &out, &in);
			if (ZSTD_isError(code))
				r = err_set(f->e, EBADMSG, "its zstd packing is damaged: %s",
					    ZSTD_getErrorName(code));
			else if (out.pos)
				r = f->sink->data(f->sink, f->out, out.pos, f->e);
		}
	}
	ZSTD_freeDCtx(z);
	if (r == 0 && code)
		r = err_set(f->e, EBADMSG, "its zstd packing breaks off");
	return r;
}

int inflate_fd(int fd, uint64_t at, uint64_t len, struct inflate_sink *s, uint64_t *used,
	       struct err *e)
{
	AUTO_FREE struct inflate *f = malloc(sizeof *f);
	uint8_t head[8];
	ssize_t n = pread(fd, head, min_u64(sizeof head, len), (off_t)at);

	if (n < 0)
		return err_sys(e, errno, "read");
	if (!f)
		return err_set(e, ENOMEM, "out of memory");
	f->fd = fd;
	f->at = at;
	f->left = len;
	f->sink = s;
	f->used = used;
	f->e = e;
	switch (inflate_kind(head, (size_t)n)) {
	case INFLATE_GZIP: return gunzip(f);
	case INFLATE_ZSTD: return unzstd(f);
	case INFLATE_XZ: return err_set(e, ENOTSUP, "xz is not known here; unpack it with 'xz -d'");
	case INFLATE_NONE: break;
	}
	return copy(f);
}
