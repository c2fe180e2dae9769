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

#define DEPTH_MAX 256

struct entry {
	char kind;
	mode_t mode;
	uint64_t size;
	struct timespec changed;
	const char *name, *target;
};

struct level {
	int fd;
	mode_t mode; /* set when it is complete: before, we could perhaps not write into it */
	struct timespec changed;
};

struct receiver {
	struct wire *w;
	struct tree_progress *p;
	const char *as; /* the first entry's name here; NULL: its own */
	uint64_t bytes, total, left;
	unsigned entries;
	int file; /* being written; -1: none */
	mode_t file_mode;
	struct timespec file_changed;
	unsigned depth; /* level[depth] is where entries are made */
	struct level level[DEPTH_MAX + 1];
	char name[NAME_MAX + 1]; /* of the last entry, for messages */
};

static int protocol(struct err *e, const char *what)
{
	return err_set(e, EPROTO, "a tree of files has %s", what);
}

/* --- what came --- */

static bool is_component(const char *name)
{
	return *name && strlen(name) <= NAME_MAX && !strchr(name, '/') && strcmp(name, ".") != 0 &&
	       strcmp(name, "..") != 0;
}

static int parse_entry(const struct frame *f, struct entry *en, struct err *e)
{
	const char *rest = (const char *)f->data + 24;
	size_t len, name;
	uint64_t ns;

	if (f->len < 26 || f->data[f->len - 1])
		return protocol(e, "an entry that is cut off");
	len = f->len - 24;
	name = strnlen(rest, len) + 1;
	if (name >= len || strlen(rest + name) + 1 != len - name)
		return protocol(e, "an entry that is cut off");
	ns = load_le(f->data + 16, 8);
	*en = (struct entry){.kind = (char)f->data[0],
			     .mode = (mode_t)load_le(f->data + 4, 4) & 0777,
			     .size = load_le(f->data + 8, 8),
			     .changed = {(time_t)(ns / 1000000000), (long)(ns % 1000000000)},
			     .name = rest,
			     .target = rest + name};
	if (!is_component(en->name))
		return protocol(e, "a name that is not one of a file");
	if (!strchr("fdl", en->kind) || !en->kind)
		return protocol(e, "an entry of unknown kind");
	return 0;
}

/* --- making it --- */

static int end_file(struct receiver *r, struct err *e)
{
	struct timespec times[2] = {{0, UTIME_OMIT}, r->file_changed};
	int fd = r->file, bad;

	if (fd < 0)
		return 0;
	r->file = -1;
	bad = fchmod(fd, r->file_mode) < 0 ? errno : 0;
	futimens(fd, times);
	if (close(fd) < 0 && !bad)
		bad = errno;
	return bad ? err_sys(e, bad, "write '%s'", r->name) : 0;
}

static int end_dir(struct receiver *r, struct err *e)
{
	struct level *l = &r->level[r->depth--];
	struct timespec times[2] = {{0, UTIME_OMIT}, l->changed};
	int bad = fchmod(l->fd, l->mode) < 0 ? errno : 0;

	futimens(l->fd, times);
	close(l->fd);
	return bad ? err_sys(e, bad, "the permissions of a directory") : 0;
}

/* A new file beside the old one would be nicer to readers, but loses its owner, links and
 * special place (a mounted file): as cp does, the old one is written over. */
static int make_file(struct receiver *r, int dir, const char *name, const struct entry *en,
		     struct err *e)
{
	int fd = openat(dir, name,
			O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0600);
	struct stat st;

	if (fd < 0 && errno == ELOOP && unlinkat(dir, name, 0) == 0)
		fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_sys(e, errno, "write '%s'", name);
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
		close(fd);
		return err_set(e, EEXIST, "'%s' is there, and is no file", name);
	}
	r->file = fd;
	r->file_mode = en->mode;
	r->file_changed = en->changed;
	r->left = en->size;
	r->total += en->size;
	return en->size ? 0 : end_file(r, e);
}

static int make_dir(struct receiver *r, int dir, const char *name, const struct entry *en,
		    struct err *e)
{
	struct level *l;
	int fd;

	if (r->depth == DEPTH_MAX)
		return protocol(e, "too many directories in each other");
	if (mkdirat(dir, name, 0700) < 0 && errno != EEXIST)
		return err_sys(e, errno, "make '%s'", name);
	fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return err_sys(e, errno, "'%s'", name);
	l = &r->level[++r->depth];
	*l = (struct level){fd, en->mode, en->changed};
	return 0;
}

static int make_link(int dir, const char *name, const struct entry *en, struct err *e)
{
	int r = symlinkat(en->target, dir, name);

	if (r < 0 && errno == EEXIST && unlinkat(dir, name, 0) == 0)
		r = symlinkat(en->target, dir, name);
	return r < 0 ? err_sys(e, errno, "make '%s'", name) : 0;
}

static int take_entry(struct receiver *r, const struct frame *f, struct err *e)
{
	int dir = r->level[r->depth].fd;
	const char *name;
	struct entry en = {0};
	int bad = parse_entry(f, &en, e);

	if (bad < 0)
		return bad;
	if (r->left || (r->depth == 0 && r->entries++))
		return protocol(e, "an entry where none can be");
	name = r->depth == 0 && r->as ? r->as : en.name;
	snprintf(r->name, sizeof r->name, "%s", name);
	if (en.kind == 'f')
		return make_file(r, dir, name, &en, e);
	if (en.kind == 'd')
		return make_dir(r, dir, name, &en, e);
	return make_link(dir, name, &en, e);
}

static int take_data(struct receiver *r, const struct frame *f, struct err *e)
{
	uint32_t done = 0;

	if (f->len > r->left || r->file < 0)
		return protocol(e, "more data than it said");
	while (done < f->len) {
		ssize_t n = write(r->file, f->data + done, f->len - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_sys(e, errno, "write '%s'", r->name);
		done += (uint32_t)n;
	}
	r->left -= f->len;
	r->bytes += f->len;
	if (r->p && r->p->step)
		r->p->step(r->p, r->bytes, r->total);
	return r->left ? 0 : end_file(r, e);
}

/* 1: that was the end. */
static int take(struct receiver *r, const struct frame *f, struct err *e)
{
	switch (f->type) {
	case WIRE_ENTRY: return take_entry(r, f, e);
	case WIRE_DATA: return take_data(r, f, e);
	case WIRE_UP:
		if (r->left || !r->depth)
			return protocol(e, "an end of a directory where none is");
		return end_dir(r, e);
	case WIRE_END:
		if (r->left || r->depth)
			return protocol(e, "an end in the middle");
		return 1;
	default: return frame_unexpected(f, e);
	}
}

/* --- where it goes --- */

/* Opens the directory in which the first entry is made, and finds the name it gets there. */
static int open_place(struct receiver *r, const char *path, char *buf, size_t len, struct err *e)
{
	size_t n = strlen(path);
	char *slash;
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0 && (n == 0 || n >= len || path[n - 1] == '/' || errno == EACCES))
		return err_sys(e, n ? errno : ENOENT, "'%s'", path);
	if (fd < 0) {
		memcpy(buf, path, n + 1);
		slash = strrchr(buf, '/');
		r->as = slash ? slash + 1 : buf;
		if (!is_component(r->as))
			return err_sys(e, EINVAL, "'%s'", path);
		if (slash)
			*slash = 0;
		fd = open(!slash         ? "."
			  : slash == buf ? "/"
					 : buf,
			  O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (fd < 0)
			return err_sys(e, errno, "'%s'", !slash ? "." : buf);
	}
	r->level[0].fd = fd;
	return 0;
}

int tree_receive(struct wire *w, const char *path, struct tree_progress *p, struct err *e)
{
	AUTO_FREE struct receiver *r = calloc(1, sizeof *r);
	char buf[PATH_MAX];
	struct frame f;
	int bad;

	if (!r)
		return err_sys(e, ENOMEM, "'%s'", path);
	r->w = w;
	r->p = p;
	r->file = -1;
	bad = open_place(r, path, buf, sizeof buf, e);
	if (bad < 0)
		return bad;
	do {
		bad = wire_next(w, &f, e);
		if (bad == 0)
			bad = take(r, &f, e);
	} while (bad == 0);
	/* After trouble, what is there gets its permissions all the same. */
	if (r->file >= 0)
		(void)!end_file(r, NULL);
	while (r->depth)
		(void)!end_dir(r, NULL);
	close(r->level[0].fd);
	return bad < 0 ? bad : 0;
}
