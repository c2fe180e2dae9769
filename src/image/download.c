#include "image/download.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "base/auto.h"
#include "image/store_priv.h"

#define FRUITLESS_MAX  3u      /* attempts one after another that bring nothing */
#define SPARE_BYTES    MIB(64) /* that a download leaves on the disk */
#define ANY_SIZE_MAX   (UINT64_C(1) << 42)
#define SPACE_INTERVAL MIB(16) /* after which the disk's space is looked at again */

struct fetch {
	struct http_sink sink;
	const struct download *d;
	int fd;
	uint64_t have, total, before; /* before: when this attempt began */
	uint64_t space_until;
	bool body; /* this answer is the file, not a page that tells of an error */
	char validator[256];
};

/* --- what the server said of it --- */

static bool meta_path(const char *file, char to[PATH_MAX])
{
	return snprintf(to, PATH_MAX, "%s.json", file) < PATH_MAX;
}

static void load_validator(struct fetch *f)
{
	char path[PATH_MAX];
	json_t *j = meta_path(f->d->file, path) ? json_load_file(path, 0, NULL) : NULL;
	const char *url = json_string_value(json_object_get(j, "url"));
	const char *validator = json_string_value(json_object_get(j, "validator"));

	if (url && validator && !strcmp(url, f->d->url) && strlen(validator) < sizeof f->validator)
		strcpy(f->validator, validator);
	json_decref(j);
}

static int save_validator(struct fetch *f, const struct http_reply *r, struct err *e)
{
	char path[PATH_MAX];
	json_t *j;
	int ret;

	snprintf(f->validator, sizeof f->validator, "%s", *r->etag ? r->etag : r->last_modified);
	if (!meta_path(f->d->file, path))
		return err_set(e, ENAMETOOLONG, "'%s'", f->d->file);
	if (!*f->validator) {
		unlink(path);
		return 0;
	}
	j = json_pack("{s:s, s:s}", "url", f->d->url, "validator", f->validator);
	if (!j) { /* not UTF-8: no ETag of a sound server */
		unlink(path);
		f->validator[0] = 0;
		return 0;
	}
	ret = write_json(path, j, e);
	json_decref(j);
	return ret;
}

void download_forget(const char *file)
{
	char path[PATH_MAX];

	unlink(file);
	if (meta_path(file, path))
		unlink(path);
}

/* --- as it comes --- */

static int restart(struct fetch *f, struct err *e)
{
	if (ftruncate(f->fd, 0) < 0)
		return err_sys(e, errno, "'%s'", f->d->file);
	f->have = f->before = f->space_until = 0;
	return 0;
}

static int check_total(struct fetch *f, struct err *e)
{
	uint64_t max = f->d->size != HTTP_LENGTH_UNKNOWN ? f->d->size : ANY_SIZE_MAX;

	if (f->total != HTTP_LENGTH_UNKNOWN &&
	    (f->total > max || (f->d->size != HTTP_LENGTH_UNKNOWN && f->total != max)))
		return err_set(e, EPROTO, "%s: the server has %llu bytes, not the %llu expected",
			       f->d->url, (unsigned long long)f->total, (unsigned long long)max);
	if (f->total == HTTP_LENGTH_UNKNOWN)
		f->total = f->d->size;
	return 0;
}

static int begin(struct http_sink *s, const struct http_reply *r, struct err *e)
{
	struct fetch *f = container_of(s, struct fetch, sink);
	int ret;

	f->body = r->status == 200 || r->status == 206;
	if (!f->body)
		return 0;
	if (r->status == 206) {
		if (r->range_at != f->have)
			return err_set(e, EPROTO,
				       "%s: the server sends another part than was asked for",
				       f->d->url);
		f->total = r->range_of;
		return check_total(f, e);
	}
	/* It knows no ranges, or has another file now. */
	if ((ret = restart(f, e)) < 0)
		return ret;
	f->total = r->length;
	ret = check_total(f, e);
	return ret < 0 ? ret : save_validator(f, r, e);
}

static int check_space(struct fetch *f, struct err *e)
{
	struct statvfs s;
	uint64_t need = SPARE_BYTES + SPACE_INTERVAL;

	if (f->have < f->space_until)
		return 0;
	f->space_until = f->have + SPACE_INTERVAL;
	if (f->total != HTTP_LENGTH_UNKNOWN)
		need = SPARE_BYTES + (f->total - min_u64(f->total, f->have));
	if (fstatvfs(f->fd, &s) == 0 && (uint64_t)s.f_bavail * s.f_frsize < need)
		return err_set(e, ENOSPC,
			       "%s: there is no space for it where '%s' is (%llu MiB needed)",
			       f->d->url, f->d->file, (unsigned long long)(need >> 20));
	return 0;
}

static int take(struct http_sink *s, const void *bytes, size_t len, struct err *e)
{
	struct fetch *f = container_of(s, struct fetch, sink);
	const char *from = bytes;
	int r;

	if (!f->body)
		return 0;
	if (len > (f->total == HTTP_LENGTH_UNKNOWN ? ANY_SIZE_MAX : f->total) - f->have)
		return err_set(e, EPROTO, "%s: the server sends more than it said", f->d->url);
	if ((r = check_space(f, e)) < 0)
		return r;
	while (len) {
		ssize_t n = pwrite(f->fd, from, len, (off_t)f->have);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_sys(e, errno, "write '%s'", f->d->file);
		from += n;
		len -= (size_t)n;
		f->have += (uint64_t)n;
	}
	return 0;
}

static int tick(struct http_sink *s, struct err *e)
{
	struct fetch *f = container_of(s, struct fetch, sink);
	struct download_watcher *w = f->d->watcher;

	if (!w || w->step(w, f->have, f->total))
		return 0;
	return err_set(e, ECANCELED, "interrupted");
}

/* --- attempts --- */

static int open_part(struct fetch *f, struct err *e)
{
	struct stat st, named;

	/* Between opening and locking another process may have finished and moved it away. */
	for (;;) {
		f->fd = open(f->d->file, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		if (f->fd < 0)
			return err_sys(e, errno, "'%s'", f->d->file);
		if (flock(f->fd, LOCK_EX | LOCK_NB) < 0)
			return err_set(e, EBUSY, "%s: another process fetches it just now",
				       f->d->url);
		if (fstat(f->fd, &st) == 0 && stat(f->d->file, &named) == 0 &&
		    st.st_ino == named.st_ino)
			break;
		close(f->fd);
	}
	f->have = (uint64_t)st.st_size;
	load_validator(f);
	if (!*f->validator && !f->d->digest)
		return restart(f, e);
	return 0;
}

/* 1: again. */
static int judge(struct fetch *f, const struct http_reply *r, struct err *e)
{
	switch (r->status) {
	case 200:
	case 206: break;
	case 401:
	case 403:
		return err_set(e, EACCES, "%s: not without permission (%ld)", f->d->url, r->status);
	case 404:
	case 410: return err_set(e, ENOENT, "%s: the server has no such file", f->d->url);
	case 416: /* behind its end: the file is another one, or whole */
		if (r->range_of == f->have || f->d->size == f->have)
			return 0;
		return restart(f, e) < 0 ? -e->code : 1;
	case 408:
	case 429:
	case 500:
	case 502:
	case 503:
	case 504: err_set(e, EPIPE, "%s: the server answers %ld", f->d->url, r->status); return 1;
	default: return err_set(e, EPROTO, "%s: the server answers %ld", f->d->url, r->status);
	}
	if (f->total != HTTP_LENGTH_UNKNOWN && f->have < f->total) {
		err_set(e, EPIPE, "%s: it broke off", f->d->url);
		return 1;
	}
	return 0;
}

/* A moment, and a longer one each time. */
static bool wait_a_moment(struct fetch *f, unsigned fruitless, struct err *e)
{
	for (unsigned i = 0; i < 5 * fruitless; i++) {
		nanosleep(&(struct timespec){0, 100000000}, NULL);
		if (tick(&f->sink, e) < 0)
			return false;
	}
	return true;
}

static int attempt(struct http *h, struct fetch *f, struct http_reply *r, struct err *e)
{
	const struct http_request q = {.url = f->d->url,
				       .authorization = f->d->authorization,
				       .from = f->have,
				       .if_range = f->validator};
	int ret;

	f->before = f->have;
	f->total = f->d->size;
	f->body = false;
	ret = http_get(h, &q, &f->sink, r, e);
	return ret == -EPIPE ? 1 : ret < 0 ? ret : judge(f, r, e);
}

static int all_attempts(struct http *h, struct fetch *f, struct http_reply *r, struct err *e)
{
	unsigned fruitless = 0;
	int ret;

	while ((ret = attempt(h, f, r, e)) == 1) {
		struct download_watcher *w = f->d->watcher;

		fruitless = f->have > f->before ? 0 : fruitless + 1;
		if (fruitless == FRUITLESS_MAX)
			return -e->code;
		if (!*f->validator && !f->d->digest && (ret = restart(f, e)) < 0)
			return ret;
		if (w && w->again)
			w->again(w, e->text);
		if (fruitless && !wait_a_moment(f, fruitless, e))
			return -e->code;
	}
	return ret;
}

static int verify(const struct fetch *f, struct err *e)
{
	char found[DIGEST_LEN_MAX + 1];
	int r;

	if (!f->d->digest)
		return 0;
	r = digest_fd_kind(f->fd, f->d->kind, found, e);
	if (r < 0 || !strcmp(found, f->d->digest))
		return r;
	return err_set(e, EBADMSG,
		       "%s: what came is not what was promised: its digest is %s, not %s",
		       f->d->url, found, f->d->digest);
}

static int fetch(struct http *h, struct fetch *f, struct http_reply *r, struct err *e)
{
	bool resumed = f->have > 0;
	bool whole = f->d->digest && f->have && f->have == f->d->size;
	int ret = whole ? 0 : all_attempts(h, f, r, e);

	if (ret == 0)
		ret = verify(f, e);
	/* What was there before may have been at fault. */
	if (ret == -EBADMSG && resumed && (ret = restart(f, e)) == 0) {
		ret = all_attempts(h, f, r, e);
		if (ret == 0)
			ret = verify(f, e);
	}
	return ret;
}

int download(struct http *h, const struct download *d, int *fd, struct http_reply *r, struct err *e)
{
	struct fetch f = {{begin, take, tick}, d, .fd = -1, .total = d->size};
	int ret = open_part(&f, e);

	if (ret == 0) {
		ret = fetch(h, &f, r, e);
		if (ret == -EBADMSG || (ret < 0 && f.have == 0))
			download_forget(d->file);
	}
	if (ret == 0)
		*fd = f.fd;
	else if (f.fd >= 0)
		close(f.fd);
	return ret;
}
