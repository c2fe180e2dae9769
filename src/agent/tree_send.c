#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/tree.h"
#include "base/auto.h"

#define DEPTH_MAX 256 /* directories in directories; each has a descriptor open */

struct sender {
	struct wire *w;
	struct tree_progress *p;
	uint64_t bytes, total;
	uint8_t data[WIRE_MAX];
	char path[PATH_MAX]; /* of what is being sent, for messages */
};

static int send_entry(struct sender *s, char kind, const char *name, const struct stat *st,
		      uint64_t size, const char *target, struct err *e)
{
	uint8_t buf[24 + NAME_MAX + 1 + PATH_MAX + 1];
	size_t n = strlen(name) + 1, t = strlen(target) + 1;

	if (n > NAME_MAX + 1 || t > PATH_MAX + 1)
		return err_sys(e, ENAMETOOLONG, "'%s'", s->path);
	store_le(buf, (uint8_t)kind, 4);
	store_le(buf + 4, st->st_mode & 07777, 4);
	store_le(buf + 8, size, 8);
	store_le(buf + 16,
		 (uint64_t)st->st_mtim.tv_sec * 1000000000 + (uint64_t)st->st_mtim.tv_nsec, 8);
	memcpy(buf + 24, name, n);
	memcpy(buf + 24 + n, target, t);
	return wire_send(s->w, WIRE_ENTRY, buf, 24 + n + t, e);
}

/* Exactly as many bytes as were announced: the rest of a file that has shrunk is zeros. */
static int send_data(struct sender *s, int fd, uint64_t size, struct err *e)
{
	while (size) {
		size_t want = (size_t)min_u64(size, sizeof s->data);
		ssize_t n = read(fd, s->data, want);
		int r;

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_sys(e, errno, "read '%s'", s->path);
		if (n == 0) {
			memset(s->data, 0, want);
			n = (ssize_t)want;
		}
		r = wire_send(s->w, WIRE_DATA, s->data, (size_t)n, e);
		if (r == 0)
			r = wire_drain(s->w, e);
		if (r < 0)
			return r;
		size -= (size_t)n;
		s->bytes += (size_t)n;
		if (s->p && s->p->step)
			s->p->step(s->p, s->bytes, s->total);
	}
	return 0;
}

static int send_any(struct sender *s, int dir, const char *file, const char *name, unsigned depth,
		    struct err *e);

static int send_children(struct sender *s, int fd, unsigned depth, struct err *e)
{
	size_t len = strlen(s->path);
	DIR *d = fdopendir(fd);
	struct dirent *entry;
	int r = 0;

	if (!d) {
		close(fd);
		return err_sys(e, errno, "'%s'", s->path);
	}
	while (r == 0 && (errno = 0, entry = readdir(d))) {
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		snprintf(s->path + len, sizeof s->path - len, "/%s", entry->d_name);
		r = send_any(s, dirfd(d), entry->d_name, entry->d_name, depth + 1, e);
		s->path[len] = 0;
	}
	if (r == 0 && errno)
		r = err_sys(e, errno, "read '%s'", s->path);
	closedir(d);
	return r < 0 ? r : wire_send(s->w, WIRE_UP, NULL, 0, e);
}

static int send_link(struct sender *s, int dir, const char *file, const char *name,
		     const struct stat *st, struct err *e)
{
	char target[PATH_MAX + 1];
	ssize_t n = readlinkat(dir, file, target, sizeof target - 1);

	if (n < 0)
		return err_sys(e, errno, "'%s'", s->path);
	target[n] = 0;
	return send_entry(s, 'l', name, st, 0, target, e);
}

static int send_file(struct sender *s, int dir, const char *file, const char *name, struct stat *st,
		     struct err *e)
{
	AUTO_CLOSE int fd = openat(dir, file, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
	int r;

	/* Not the one of a moment ago, perhaps: this one is sent. */
	if (fd < 0 || fstat(fd, st) < 0)
		return err_sys(e, errno, "'%s'", s->path);
	if (!S_ISREG(st->st_mode))
		return err_set(e, EAGAIN, "'%s' has become another thing meanwhile", s->path);
	s->total += (uint64_t)st->st_size;
	r = send_entry(s, 'f', name, st, (uint64_t)st->st_size, "", e);
	return r < 0 ? r : send_data(s, fd, (uint64_t)st->st_size, e);
}

static int send_dir(struct sender *s, int dir, const char *file, const char *name,
		    const struct stat *st, unsigned depth, struct err *e)
{
	int fd, r;

	if (depth == DEPTH_MAX)
		return err_set(e, ELOOP, "'%s': more than %d directories in each other", s->path,
			       DEPTH_MAX);
	fd = openat(dir, file, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return err_sys(e, errno, "'%s'", s->path);
	r = send_entry(s, 'd', name, st, 0, "", e);
	if (r < 0) {
		close(fd);
		return r;
	}
	return send_children(s, fd, depth, e);
}

static int send_any(struct sender *s, int dir, const char *file, const char *name, unsigned depth,
		    struct err *e)
{
	struct stat st;

	if (fstatat(dir, file, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return err_sys(e, errno, "'%s'", s->path);
	if (S_ISLNK(st.st_mode))
		return send_link(s, dir, file, name, &st, e);
	if (S_ISREG(st.st_mode))
		return send_file(s, dir, file, name, &st, e);
	if (S_ISDIR(st.st_mode))
		return send_dir(s, dir, file, name, &st, depth, e);
	if (s->p && s->p->note)
		s->p->note(s->p, s->path, "is no file, directory or link: left out");
	return 0;
}

/* What a path is called: its last component, or what "." and "/" lead to. */
static int own_name(const char *path, char *name, size_t len, struct err *e)
{
	const char *last;
	char real[PATH_MAX];
	size_t n;

	snprintf(real, sizeof real, "%s", path);
	for (n = strlen(real); n > 1 && real[n - 1] == '/'; n--)
		real[n - 1] = 0;
	last = strrchr(real, '/') ? strrchr(real, '/') + 1 : real;
	if (!*last || !strcmp(last, ".") || !strcmp(last, "..")) {
		if (!realpath(path, real))
			return err_sys(e, errno, "'%s'", path);
		last = strrchr(real, '/') + 1;
	}
	last = *last ? last : "root";
	if (strlen(last) >= len)
		return err_sys(e, ENAMETOOLONG, "'%s'", path);
	memcpy(name, last, strlen(last) + 1);
	return 0;
}

int tree_send(struct wire *w, const char *path, struct tree_progress *p, struct err *e)
{
	AUTO_FREE struct sender *s = malloc(sizeof *s);
	char name[NAME_MAX + 1], *resolved = NULL;
	struct stat st;
	int r;

	if (!s)
		return err_sys(e, ENOMEM, "'%s'", path);
	if (strlen(path) >= sizeof s->path)
		return err_sys(e, ENAMETOOLONG, "'%.40s...'", path);
	*s = (struct sender){.w = w, .p = p};
	r = own_name(path, name, sizeof name, e);
	if (r < 0)
		return r;
	/* A link that was named itself stands for what it leads to, as with cp -r of GNU's -H. */
	if (lstat(path, &st) == 0 && S_ISLNK(st.st_mode))
		resolved = realpath(path, NULL);
	snprintf(s->path, sizeof s->path, "%s", resolved ? resolved : path);
	r = send_any(s, AT_FDCWD, resolved ? resolved : path, name, 0, e);
	free(resolved);
	if (r == 0)
		r = wire_send(w, WIRE_END, NULL, 0, e);
	return r < 0 ? r : wire_drain(w, e);
}
