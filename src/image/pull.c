#include "image/pull.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/auto.h"
#include "image/convert.h"
#include "image/inflate.h"
#include "image/store_priv.h"
#include "image/sums.h"
#include "image/unpack.h"

#define SUMS_MAX MIB(4)

struct pull {
	struct pull_download download;
	struct block_progress conversion;
	const struct store *st;
	const struct pull_opts *o;
	struct pull_watcher *w;
	struct http *http;
	enum digest_kind kind;
	char digest[DIGEST_LEN_MAX + 1]; /* empty: not known */
	char work[PATH_MAX / 2], part[PATH_MAX / 2];
	int fd; /* the source, as it came */
};

/* --- names --- */

/* The last component of a URL or path, without what follows a '?' or '#' of a URL. */
static size_t last_part(const char *source, const char **from)
{
	size_t all = http_is_url(source) ? strcspn(source, "?#") : strlen(source), at = all;

	while (at && source[at - 1] != '/')
		at--;
	*from = source + at;
	return all - at;
}

static bool cut(char *name, const char *suffix)
{
	size_t len = strlen(name), end = strlen(suffix);

	if (len <= end || strcasecmp(name + len - end, suffix) != 0)
		return false;
	name[len - end] = 0;
	return true;
}

void pull_name(const char *source, char to[STORE_NAME_MAX + 1])
{
	static const char *const suffixes[] = {".gz", ".zst", ".xz", ".qcow2", ".img", ".raw"};
	char name[256];
	const char *from;
	size_t len = last_part(source, &from);

	snprintf(name, sizeof name, "%.*s", (int)min_u64(len, sizeof name - 1), from);
	for (unsigned i = 0; i < ARRAY_SIZE(suffixes); i++)
		cut(name, suffixes[i]);
	for (char *p = name; *p; p++)
		if (!isalnum((unsigned char)*p) && !strchr("-_.", *p))
			*p = '-';
	from = name;
	while (*from && !isalnum((unsigned char)*from))
		from++;
	snprintf(to, STORE_NAME_MAX + 1, "%.*s", STORE_NAME_MAX, *from ? from : "image");
}

/* --- checksums --- */

static bool watching(struct download_watcher *d, uint64_t done, uint64_t total)
{
	struct pull_watcher *w = container_of(d, struct pull_download, download)->w;

	return w->progress(w, done, total);
}

static void again(struct download_watcher *d, const char *why)
{
	struct pull_watcher *w = container_of(d, struct pull_download, download)->w;
	char text[300];

	snprintf(text, sizeof text, "%s; going on", why);
	w->note(w, text);
}

struct pull_download pull_download(struct pull_watcher *w)
{
	return (struct pull_download){{watching, again}, w};
}

static int take_checksum(struct pull *p, struct err *e)
{
	const char *hex = p->o->sha256;

	if (!strncmp(hex, "sha256:", 7))
		hex += 7;
	if (strlen(hex) != DIGEST_LEN)
		return err_set(e, EINVAL, "--sha256: 64 hexadecimal digits are wanted");
	for (unsigned i = 0; i <= DIGEST_LEN; i++)
		p->digest[i] = (char)tolower((unsigned char)hex[i]);
	return digest_is_hex(p->digest, DIGEST_LEN, DIGEST_SHA256)
		       ? 0
		       : err_set(e, EINVAL, "--sha256: 64 hexadecimal digits are wanted");
}

struct sums_request {
	struct http_text text;
	struct pull *pull;
};

static int sums_tick(struct http_sink *s, struct err *e)
{
	struct http_text *t = container_of(s, struct http_text, sink);
	struct pull *p = container_of(t, struct sums_request, text)->pull;

	return p->w->progress(p->w, 0, HTTP_LENGTH_UNKNOWN) ? 0
							    : err_set(e, ECANCELED, "interrupted");
}

/* *text: what is in the file of that name beside the source; NULL: there is none. */
static int read_beside(struct pull *p, const char *name, char **text, struct err *e)
{
	const char *last, *source = p->o->source;
	AUTO_FREE char *path = NULL;
	struct sums_request q = {{.sink.tick = sums_tick, .max = SUMS_MAX}, p};
	struct http_reply reply;
	size_t len;
	int r;

	(void)!last_part(source, &last);
	if (asprintf(&path, "%.*s%s", (int)(last - source), source, name) < 0) {
		path = NULL;
		return err_set(e, ENOMEM, "out of memory");
	}
	*text = NULL;
	if (http_is_url(source)) {
		const struct http_request get = {.url = path};

		if ((r = http_get_text(p->http, &get, &q.text, &reply, e)) < 0)
			return r;
		*text = q.text.text;
		return 0;
	}
	AUTO_FCLOSE FILE *f = fopen(path, "re");

	if (!f)
		return 0;
	*text = malloc(SUMS_MAX + 1);
	if (!*text)
		return err_set(e, ENOMEM, "out of memory");
	len = fread(*text, 1, SUMS_MAX, f);
	(*text)[len] = 0;
	return 0;
}

static int find_checksum(struct pull *p, struct err *e)
{
	static const struct {
		const char *file;
		enum digest_kind kind;
	} sums[] = {{"SHA512SUMS", DIGEST_SHA512}, {"SHA256SUMS", DIGEST_SHA256}};
	const char *last;
	char name[256];
	size_t len = last_part(p->o->source, &last);

	if (len >= sizeof name)
		return 0;
	memcpy(name, last, len);
	name[len] = 0;
	for (unsigned i = 0; i < ARRAY_SIZE(sums); i++) {
		AUTO_FREE char *text = NULL;
		int r = read_beside(p, sums[i].file, &text, e);
		bool found;

		if (r < 0)
			return r;
		p->kind = sums[i].kind;
		found = text && sums_find(text, name, p->kind, p->digest);
		if (found)
			return 0;
	}
	p->digest[0] = 0;
	return 0;
}

/* --- getting it --- */

static int fetch(struct pull *p, struct err *e)
{
	char key[DIGEST_LEN + 1];
	const struct download d = {.url = p->o->source,
				   .file = p->part,
				   .size = HTTP_LENGTH_UNKNOWN,
				   .digest = *p->digest ? p->digest : NULL,
				   .kind = p->kind,
				   .watcher = &p->download.download};
	struct http_reply reply;

	digest_text(p->o->source, key);
	if (!store_path(p->st, p->part, sizeof p->part, "images/partial/%s", key))
		return err_set(e, ENAMETOOLONG, "the image store");
	return download(p->http, &d, &p->fd, &reply, e);
}

static int open_file(struct pull *p, struct err *e)
{
	char found[DIGEST_LEN_MAX + 1];
	struct stat st;
	int r;

	p->fd = open(p->o->source, O_RDONLY | O_CLOEXEC);
	if (p->fd < 0 || fstat(p->fd, &st) < 0)
		return err_sys(e, errno, "'%s'", p->o->source);
	if (!S_ISREG(st.st_mode))
		return err_set(e, EINVAL, "'%s' is no file", p->o->source);
	if (!*p->digest)
		return 0;
	if ((r = digest_fd_kind(p->fd, p->kind, found, e)) < 0 || !strcmp(found, p->digest))
		return r;
	return err_set(e, EBADMSG, "'%s' is not what was promised: its digest is %s, not %s",
		       p->o->source, found, p->digest);
}

static int get_source(struct pull *p, struct err *e)
{
	bool url = http_is_url(p->o->source);
	int r = url ? http_new(&p->http, e) : 0;

	if (!url && strstr(p->o->source, "://"))
		return err_set(e, EINVAL, "'%s': http, https and files are possible", p->o->source);
	if (r == 0)
		r = p->o->sha256 ? take_checksum(p, e) : find_checksum(p, e);
	if (r < 0)
		return r;
	if (!*p->digest)
		p->w->note(p->w, "no checksum was given, and none is in a SHA512SUMS or SHA256SUMS "
				 "beside it: what comes is taken as it is");
	p->w->step(p->w, url ? "fetching" : "reading");
	return url ? fetch(p, e) : open_file(p, e);
}

/* --- into the store --- */

static bool converting(struct block_progress *b, uint64_t done, uint64_t total)
{
	struct pull *p = container_of(b, struct pull, conversion);

	return p->w->progress(p->w, done, total);
}

/* A page that says sorry is no disk: a raw one has a partition table, or a boot sector. */
static int check_raw(int fd, struct err *e)
{
	uint8_t end[2] = {0};
	struct stat st;

	if (fstat(fd, &st) == 0 && st.st_size >= 512 && st.st_size % 512 == 0 &&
	    pread(fd, end, 2, 510) == 2 && end[0] == 0x55 && end[1] == 0xaa)
		return 0;
	return err_set(e, EINVAL, "it is no disk image: neither qcow2, nor raw with a boot sector");
}

static bool is_qcow2(int fd)
{
	char magic[4];

	return pread(fd, magic, 4, 0) == 4 && !memcmp(magic, "QFI\xfb", 4);
}

/* from: a file that may be renamed, or empty: only its descriptor may be read. */
static int make_image(struct pull *p, int fd, const char *from, char image[PATH_MAX],
		      uint64_t *size, struct err *e)
{
	char source[40];
	struct image_conversion c = {.from = *from ? from : source,
				     .to = image,
				     .to_format = "qcow2",
				     .no_backing = true};
	bool qcow2 = is_qcow2(fd);
	int r;

	snprintf(source, sizeof source, "/proc/self/fd/%d", fd);
	snprintf(image, PATH_MAX, "%s/disk.qcow2", p->work);
	c.from_format = qcow2 ? "qcow2" : "raw";
	if ((!qcow2 && (r = check_raw(fd, e)) < 0) ||
	    (r = image_check_alone(c.from, c.from_format, size, e)) < 0)
		return r;
	if (qcow2 && *from)
		return rename(from, image) < 0 ? err_sys(e, errno, "'%s'", image) : 0;
	p->w->step(p->w, "writing the image");
	return image_convert(&c, &p->conversion, e);
}

static int add(struct pull *p, const char *image, const char *name, uint64_t size, struct err *e)
{
	time_t now = time(NULL);
	struct tm t;
	char when[32];
	json_t *info;
	int r;

	gmtime_r(&now, &t);
	strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", &t);
	info = json_pack("{s:s, s:s, s:s, s:I}", "source", p->o->source, "created", when, "builder",
			 "holon " HOLON_VERSION, "disk_size", (json_int_t)size);
	if (info && *p->digest)
		json_object_set_new(info, "source_digest",
				    json_sprintf("%s:%s",
						 p->kind == DIGEST_SHA512 ? "sha512" : "sha256",
						 p->digest));
	p->w->step(p->w, "taking it into the store");
	r = info ? store_add(p->st, name, image, info, e)
		 : err_set(e, EINVAL, "'%s' is not UTF-8", p->o->source);
	json_decref(info);
	return r;
}

static int unpack(struct pull *p, char to[PATH_MAX], int *fd, struct err *e)
{
	struct stat st;
	uint64_t size;
	int r;

	snprintf(to, PATH_MAX, "%s/unpacked", p->work);
	*fd = open(to, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (*fd < 0 || fstat(p->fd, &st) < 0)
		return err_sys(e, errno, "'%s'", to);
	p->w->step(p->w, "unpacking");
	r = unpack_fd(p->fd, 0, (uint64_t)st.st_size, *fd, NULL, p->w, &size, e);
	return r < 0 ? err_wrap(e, "%s", p->o->source) : 0;
}

static int take_in(struct pull *p, const char *name, struct err *e)
{
	char image[PATH_MAX], unpacked_file[PATH_MAX] = "";
	AUTO_CLOSE int unpacked_fd = -1;
	uint8_t head[8];
	ssize_t n = pread(p->fd, head, sizeof head, 0);
	uint64_t size = 0;
	int fd = p->fd, r = 0;

	if (n > 0 && inflate_kind(head, (size_t)n) != INFLATE_NONE) {
		if ((r = unpack(p, unpacked_file, &unpacked_fd, e)) < 0)
			return r;
		fd = unpacked_fd;
	}
	/* What was fetched is ours to rename; its partner file goes with it below. */
	r = make_image(p, fd, unpacked_fd >= 0 ? unpacked_file : p->part, image, &size, e);
	if (r == -EINVAL)
		err_wrap(e, "%s", p->o->source);
	return r < 0 ? r : add(p, image, name, size, e);
}

int pull(const struct store *st, const struct pull_opts *o, struct pull_watcher *w,
	 char name[STORE_NAME_MAX + 1], struct err *e)
{
	struct pull p = {pull_download(w), {converting}, st, o, w, .fd = -1};
	int lock, r;

	if (o->name)
		snprintf(name, STORE_NAME_MAX + 1, "%s", o->name);
	else
		pull_name(o->source, name);
	if ((r = store_check_name("image", o->name ? o->name : name, e)) < 0 ||
	    (r = store_work_new(st, p.work, &lock, e)) < 0)
		return r;
	r = get_source(&p, e);
	if (r == 0) {
		r = take_in(&p, name, e);
		/* What was fetched whole and is no image will not become one. */
		if (*p.part && r != -ENOSPC && r != -ECANCELED)
			download_forget(p.part);
	}
	if (p.fd >= 0)
		close(p.fd);
	http_free(p.http);
	store_work_free(p.work, lock);
	return r;
}
