#include "image/store_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

bool store_path(const struct store *st, char *to, size_t len, const char *fmt, ...)
{
	int used = snprintf(to, len, "%s/", st->root), more;
	va_list ap;

	if (used < 0 || (size_t)used >= len)
		return false;
	va_start(ap, fmt);
	more = vsnprintf(to + used, len - (size_t)used, fmt, ap);
	va_end(ap);
	return more >= 0 && (size_t)(used + more) < len;
}

int make_dirs(const char *path, struct err *e)
{
	char part[PATH_MAX];

	if (strlen(path) >= sizeof part)
		return err_set(e, ENAMETOOLONG, "'%s'", path);
	for (size_t i = 1; i <= strlen(path); i++) {
		if (path[i] != '/' && path[i])
			continue;
		memcpy(part, path, i);
		part[i] = 0;
		if (mkdir(part, 0755) < 0 && errno != EEXIST)
			return err_sys(e, errno, "make directory '%s'", part);
	}
	return 0;
}

static int write_synced(int fd, const char *text)
{
	size_t len = strlen(text);

	while (len) {
		ssize_t n = write(fd, text, len);

		if (n < 0)
			return -errno;
		text += n;
		len -= (size_t)n;
	}
	return fsync(fd) < 0 ? -errno : 0;
}

int write_json(const char *path, const json_t *j, struct err *e)
{
	char *text = json_dumps(j, JSON_INDENT(2) | JSON_SORT_KEYS);
	char temp[PATH_MAX];
	int fd, r;

	if (!text || snprintf(temp, sizeof temp, "%s.XXXXXX", path) >= (int)sizeof temp) {
		free(text);
		return err_set(e, ENOMEM, "'%s': out of memory", path);
	}
	fd = mkostemp(temp, O_CLOEXEC);
	r = fd < 0 ? -errno : write_synced(fd, text);
	free(text);
	if (fd >= 0)
		close(fd);
	if (r == 0 && rename(temp, path) < 0)
		r = -errno;
	if (r < 0 && fd >= 0)
		unlink(temp);
	return r < 0 ? err_sys(e, -r, "write '%s'", path) : 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path), 0;
}

void remove_tree(const char *path)
{
	nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}
