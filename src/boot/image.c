/* image: a file that goes into guest RAM. It is read with pread, straight to where it
 * belongs, so that nothing is copied twice and a file cut short while it is read is an
 * error and not a SIGBUS. */
#include "boot/boot_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

int image_fail(const struct image *f, struct err *e, int code, const char *fmt, ...)
{
	char reason[200];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(reason, sizeof reason, fmt, ap);
	va_end(ap);
	return err_set(e, code, "%s '%s' %s", f->role, f->path, reason);
}

int image_open(struct image *f, const char *role, const char *path, struct err *e)
{
	struct image o = {.role = role, .path = path};
	struct stat st;
	int r = 0;

	/* Non-blocking, or a FIFO without a writer would hold us here. */
	o.fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (o.fd < 0)
		return err_sys(e, errno, "%s '%s'", role, path);
	if (fstat(o.fd, &st) < 0)
		r = err_sys(e, errno, "%s '%s'", role, path);
	else if (S_ISDIR(st.st_mode))
		r = image_fail(&o, e, EISDIR, "is a directory");
	else if (!S_ISREG(st.st_mode))
		r = image_fail(&o, e, EINVAL, "is not a regular file");
	else if (st.st_size == 0)
		r = image_fail(&o, e, ENODATA, "is empty");
	if (r < 0) {
		close(o.fd);
		return r;
	}
	o.size = (uint64_t)st.st_size;
	*f = o;
	return 0;
}

void image_close(struct image *f)
{
	if (f->fd >= 0)
		close(f->fd);
	f->fd = -1;
}

int image_read(const struct image *f, uint64_t off, void *to, uint64_t len, struct err *e)
{
	uint8_t *p = to;

	if (off > f->size || len > f->size - off)
		return image_fail(f, e, ENODATA,
				  "is truncated: %llu bytes at offset %llu expected, it has %llu",
				  (unsigned long long)len, (unsigned long long)off,
				  (unsigned long long)f->size);
	while (len) {
		ssize_t n = pread(f->fd, p, len, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_sys(e, errno, "%s '%s': read", f->role, f->path);
		if (n == 0)
			return image_fail(f, e, ENODATA, "became shorter while it was read");
		p += n;
		off += (uint64_t)n;
		len -= (uint64_t)n;
	}
	return 0;
}
