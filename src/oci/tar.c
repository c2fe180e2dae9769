#include "oci/tar.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BLOCK     512u
#define EXTRA_MAX MIB(1) /* of one extended header, or one long name */

/* A header block, by offset and length of its fields (POSIX.1-2017, pax, "ustar"). */
#define NAME      0, 100
#define MODE      100, 8
#define UID       108, 8
#define GID       116, 8
#define SIZE      124, 12
#define MTIME     136, 12
#define CHECKSUM  148, 8
#define TYPE_AT   156
#define LINK      157, 100
#define MAGIC_AT  257
#define DEV_MAJOR 329, 8
#define DEV_MINOR 337, 8
#define PREFIX    345, 155

struct tar {
	int fd;
	uint64_t at, end;
	char path[TAR_PATH_MAX], link[TAR_PATH_MAX];
	bool has_path, has_link; /* by an extended header, for the next entry */
	bool has_size, has_uid, has_gid, has_mtime;
	uint64_t size;
	uint32_t uid, gid;
	int64_t mtime;
	char *pax; /* owned: where xattrs of the entry point to */
	struct tar_xattr xattr[TAR_XATTRS_MAX];
	unsigned xattrs;
};

int tar_open(struct tar **out, int fd, uint64_t at, uint64_t len, struct err *e)
{
	struct tar *t = calloc(1, sizeof *t);

	if (!t)
		return err_set(e, ENOMEM, "out of memory");
	t->fd = fd;
	t->at = at;
	t->end = at + len;
	*out = t;
	return 0;
}

void tar_close(struct tar *t)
{
	if (!t)
		return;
	free(t->pax);
	free(t);
}

static int damaged(const struct tar *t, const char *what, struct err *e)
{
	return err_set(e, EBADMSG, "a tar archive is damaged at byte %llu: %s",
		       (unsigned long long)t->at, what);
}

static int read_at(struct tar *t, void *to, uint64_t len, struct err *e)
{
	uint8_t *p = to;

	if (len > t->end - t->at)
		return damaged(t, "it ends too early", e);
	while (len) {
		ssize_t n = pread(t->fd, p, len, (off_t)t->at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_sys(e, errno, "read a tar archive");
		if (n == 0)
			return damaged(t, "it ends too early", e);
		p += n;
		t->at += (uint64_t)n;
		len -= (uint64_t)n;
	}
	return 0;
}

static int skip(struct tar *t, uint64_t len, struct err *e)
{
	if (len > t->end - t->at)
		return damaged(t, "it ends too early", e);
	t->at += len;
	/* The last file's padding may be missing. */
	t->at += min_u64(t->end - t->at, align_up(len, BLOCK) - len);
	return 0;
}

/* --- fields --- */

/* Octal digits, or with the top bit set a big-endian number. */
static bool number(const uint8_t *h, unsigned at, unsigned len, uint64_t *to)
{
	uint64_t v = 0;
	unsigned i = 0;

	if (h[at] & 0x80) {
		if (h[at] != 0x80) /* negative, or far too large */
			return false;
		for (i = 1; i < len; i++) {
			if (v >> 56)
				return false;
			v = v << 8 | h[at + i];
		}
		*to = v;
		return true;
	}
	while (i < len && h[at + i] == ' ')
		i++;
	for (; i < len && h[at + i] >= '0' && h[at + i] <= '7'; i++)
		v = v << 3 | (uint64_t)(h[at + i] - '0');
	*to = v;
	return i == len || h[at + i] == 0 || h[at + i] == ' ';
}

static bool checksum_holds(const uint8_t *h)
{
	uint64_t said;
	unsigned sum = 0;

	for (unsigned i = 0; i < BLOCK; i++)
		sum += i >= 148 && i < 156 ? ' ' : h[i];
	return number(h, CHECKSUM, &said) && said == sum;
}

static void text(const uint8_t *h, unsigned at, unsigned len, char *to)
{
	size_t n = strnlen((const char *)h + at, len);

	memcpy(to, h + at, n);
	to[n] = 0;
}

/* --- extended headers --- */

static bool parse_u64(const char *s, uint64_t *to)
{
	char *end;

	if (*s < '0' || *s > '9')
		return false;
	errno = 0;
	*to = strtoull(s, &end, 10);
	return errno == 0 && (*end == 0 || *end == '.');
}

static bool parse_u32(const char *s, uint32_t *to)
{
	uint64_t v;

	if (!parse_u64(s, &v) || v > UINT32_MAX)
		return false;
	*to = (uint32_t)v;
	return true;
}

static bool pax_path(char to[TAR_PATH_MAX], const char *value, size_t len, bool *has)
{
	if (len >= TAR_PATH_MAX || strlen(value) != len)
		return false;
	memcpy(to, value, len + 1);
	*has = true;
	return true;
}

/* value is len bytes and a zero. */
static bool pax_record(struct tar *t, const char *key, char *value, size_t len)
{
	if (!strcmp(key, "path"))
		return pax_path(t->path, value, len, &t->has_path);
	if (!strcmp(key, "linkpath"))
		return pax_path(t->link, value, len, &t->has_link);
	if (!strcmp(key, "size"))
		return t->has_size = parse_u64(value, &t->size);
	if (!strcmp(key, "uid"))
		return t->has_uid = parse_u32(value, &t->uid);
	if (!strcmp(key, "gid"))
		return t->has_gid = parse_u32(value, &t->gid);
	if (!strcmp(key, "mtime")) {
		t->mtime = strtoll(value, NULL, 10);
		t->has_mtime = true;
	}
	if (!strncmp(key, "SCHILY.xattr.", 13)) {
		if (t->xattrs == TAR_XATTRS_MAX)
			return false;
		t->xattr[t->xattrs++] = (struct tar_xattr){key + 13, value, (uint32_t)len};
	}
	/* Files with holes have a form of their own there. */
	return strncmp(key, "GNU.sparse.", 11) != 0;
}

/* "LENGTH KEY=VALUE\n"... */
static bool pax_records(struct tar *t, char *p, size_t left)
{
	while (left) {
		char *end, *equals;
		unsigned long len = strtoul(p, &end, 10);
		size_t head = (size_t)(end - p);

		if (*p < '0' || *p > '9' || *end != ' ' || len > left || len < head + 4 ||
		    p[len - 1] != '\n')
			return false;
		p[len - 1] = 0;
		equals = memchr(end + 1, '=', len - head - 2);
		if (!equals)
			return false;
		*equals = 0;
		if (!pax_record(t, end + 1, equals + 1, (size_t)(p + len - 1 - (equals + 1))))
			return false;
		p += len;
		left -= len;
	}
	return true;
}

/* *to: len bytes and a zero behind them, malloc'ed. */
static int read_extra(struct tar *t, uint64_t len, char **to, struct err *e)
{
	int r;

	if (len > EXTRA_MAX)
		return damaged(t, "an extended header is too long", e);
	*to = calloc(1, len + 1);
	if (!*to)
		return err_set(e, ENOMEM, "out of memory");
	if ((r = read_at(t, *to, len, e)) == 0)
		t->at += min_u64(t->end - t->at, align_up(len, BLOCK) - len);
	return r;
}

static int take_pax(struct tar *t, uint64_t len, struct err *e)
{
	int r;

	free(t->pax);
	t->pax = NULL;
	t->xattrs = 0;
	if ((r = read_extra(t, len, &t->pax, e)) < 0)
		return r;
	return pax_records(t, t->pax, len)
		       ? 0
		       : damaged(t, "an extended header makes no sense, or is of a sparse file", e);
}

static int take_long(struct tar *t, uint64_t len, char to[TAR_PATH_MAX], bool *has, struct err *e)
{
	char *name = NULL;
	int r = read_extra(t, len, &name, e);

	if (r == 0 && strlen(name) >= TAR_PATH_MAX)
		r = damaged(t, "a name is too long", e);
	if (r == 0) {
		strcpy(to, name);
		*has = true;
	}
	free(name);
	return r;
}

/* --- entries --- */

static bool type_of(char flag, enum tar_type *to)
{
	switch (flag) {
	case 0:
	case '0':
	case '7': *to = TAR_FILE; return true;
	case '1': *to = TAR_HARD_LINK; return true;
	case '2': *to = TAR_SYMLINK; return true;
	case '3': *to = TAR_CHAR; return true;
	case '4': *to = TAR_BLOCK; return true;
	case '5': *to = TAR_DIR; return true;
	case '6': *to = TAR_FIFO; return true;
	default: return false;
	}
}

static void names(struct tar *t, const uint8_t *h)
{
	if (!t->has_path) {
		char *to = t->path;

		if (!memcmp(h + MAGIC_AT, "ustar", 6) && h[345]) {
			text(h, PREFIX, to);
			to += strlen(to);
			*to++ = '/';
		}
		text(h, NAME, to);
	}
	if (!t->has_link)
		text(h, LINK, t->link);
}

static bool numbers(struct tar *t, const uint8_t *h, struct tar_entry *x)
{
	uint64_t mode, uid, gid, mtime, major = 0, minor = 0;
	bool device = x->type == TAR_CHAR || x->type == TAR_BLOCK;

	if (!number(h, MODE, &mode) || (!t->has_uid && !number(h, UID, &uid)) ||
	    (!t->has_gid && !number(h, GID, &gid)) ||
	    (device && (!number(h, DEV_MAJOR, &major) || !number(h, DEV_MINOR, &minor))))
		return false;
	if ((!t->has_uid && uid > UINT32_MAX) || (!t->has_gid && gid > UINT32_MAX) ||
	    major > 0xfff || minor > 0xfffff)
		return false;
	if (!number(h, MTIME, &mtime) || mtime > INT64_MAX)
		mtime = 0; /* before 1970 */
	x->mode = (uint32_t)mode & 07777;
	x->uid = t->has_uid ? t->uid : (uint32_t)uid;
	x->gid = t->has_gid ? t->gid : (uint32_t)gid;
	x->mtime = t->has_mtime ? t->mtime : (int64_t)mtime;
	x->dev_major = (uint32_t)major;
	x->dev_minor = (uint32_t)minor;
	return true;
}

static int entry(struct tar *t, const uint8_t *h, uint64_t size, struct tar_entry *x, struct err *e)
{
	*x = (struct tar_entry){.path = t->path, .link = t->link};
	if (!type_of((char)h[TYPE_AT], &x->type))
		return err_set(e, ENOTSUP, "a tar archive has an entry of type '%c'", h[TYPE_AT]);
	names(t, h);
	if (!numbers(t, h, x))
		return damaged(t, "a number makes no sense", e);
	/* Old archives have directories as files whose name ends in a slash. */
	if (x->type == TAR_FILE && *t->path && t->path[strlen(t->path) - 1] == '/')
		x->type = TAR_DIR;
	if (t->has_size)
		size = t->size;
	if (x->type != TAR_FILE) /* links of some writers tell their target's size */
		size = x->type == TAR_DIR ? size : 0;
	x->size = x->type == TAR_FILE ? size : 0;
	x->at = t->at;
	memcpy(x->xattr, t->xattr, sizeof x->xattr);
	x->xattrs = t->xattrs;
	return skip(t, size, e);
}

static void forget(struct tar *t)
{
	t->has_path = t->has_link = t->has_size = false;
	t->has_uid = t->has_gid = t->has_mtime = false;
	t->xattrs = 0;
}

static bool is_zero(const uint8_t *h)
{
	for (unsigned i = 0; i < BLOCK; i++)
		if (h[i])
			return false;
	return true;
}

int tar_next(struct tar *t, struct tar_entry *out, struct err *e)
{
	uint8_t h[BLOCK];

	forget(t);
	while (t->at < t->end) {
		uint64_t size;
		int r;

		if ((r = read_at(t, h, BLOCK, e)) < 0)
			return r;
		if (is_zero(h))
			return 0;
		if (!checksum_holds(h) || !number(h, SIZE, &size))
			return damaged(t, "this is no header", e);
		switch (h[TYPE_AT]) {
		case 'x': r = take_pax(t, size, e); break;
		case 'g': r = skip(t, size, e); break;
		case 'L': r = take_long(t, size, t->path, &t->has_path, e); break;
		case 'K': r = take_long(t, size, t->link, &t->has_link, e); break;
		default: r = entry(t, h, size, out, e); return r < 0 ? r : 1;
		}
		if (r < 0)
			return r;
	}
	return 0;
}
