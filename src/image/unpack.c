#include "image/unpack.h"

#include <errno.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "image/inflate.h"

#define SPARE_BYTES    MIB(256) /* left on the disk */
#define SPACE_INTERVAL MIB(64)

struct unpacking {
	struct inflate_sink sink;
	struct pull_watcher *w;
	struct digest *sum;
	int to;
	uint64_t at, space_until, used, len;
};

static int unpacked(struct inflate_sink *s, const void *bytes, size_t len, struct err *e)
{
	struct unpacking *u = container_of(s, struct unpacking, sink);
	const char *from = bytes;
	struct statvfs v;

	if (u->at >= u->space_until) {
		u->space_until = u->at + SPACE_INTERVAL;
		if (fstatvfs(u->to, &v) == 0 && (uint64_t)v.f_bavail * v.f_frsize < SPARE_BYTES)
			return err_set(e, ENOSPC, "there is no space to unpack it");
	}
	if (!u->w->progress(u->w, u->used, u->len))
		return err_set(e, ECANCELED, "interrupted");
	if (u->sum)
		digest_add(u->sum, bytes, len);
	while (len) {
		ssize_t n = pwrite(u->to, from, len, (off_t)u->at);

		if (n < 0)
			return err_sys(e, errno, "unpacking");
		from += n;
		len -= (size_t)n;
		u->at += (uint64_t)n;
	}
	return 0;
}

int unpack_fd(int from, uint64_t at, uint64_t len, int to, struct digest *sum,
	      struct pull_watcher *w, uint64_t *size, struct err *e)
{
	struct unpacking u = {.sink = {unpacked}, .w = w, .sum = sum, .to = to, .len = len};
	int r = inflate_fd(from, at, len, &u.sink, &u.used, e);

	*size = u.at;
	return r;
}
