#include "oci/oci.h"

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
#include "image/unpack.h"
#include "oci/mkext.h"
#include "oci/source.h"

#define ROOM GIB(8) /* that a guest can fill beyond what the image has */
#define FORM 1      /* of what is made here; another one is made anew */

struct making {
	struct block_progress conversion;
	const struct store *st;
	struct pull_watcher *w;
	struct oci_source *source;
	char work[PATH_MAX / 2];
	int layer[OCI_LAYERS_MAX]; /* unpacked, in files without a name */
	struct tree *tree;
};

/* --- a layer --- */

static int unpack_layer(struct making *m, unsigned n, uint64_t *size, struct err *e)
{
	struct digest sum;
	char found[DIGEST_LEN_MAX + 1];
	struct oci_part part;
	int r = m->source->layer(m->source, n, &part, e);

	if (r < 0)
		return r;
	AUTO_CLOSE int from = part.fd;

	m->layer[n] = open(m->work, O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
	if (m->layer[n] < 0)
		return err_sys(e, errno, "a file in '%s'", m->work);
	digest_begin(&sum, DIGEST_SHA256);
	r = unpack_fd(from, part.at, part.len, m->layer[n], &sum, m->w, size, e);
	digest_end(&sum, found);
	if (r == 0 && strcmp(found, m->source->image.layer[n].diff_id) != 0)
		r = err_set(e, EBADMSG, "what is in it is not what the image's configuration says");
	return r < 0 ? err_wrap(e, "layer %u of the image", n + 1) : 0;
}

static int apply_layer(struct making *m, unsigned n, uint64_t size, struct err *e)
{
	struct tar_entry x;
	struct tar *t;
	int r = tar_open(&t, m->layer[n], 0, size, e);

	if (r < 0)
		return r;
	while ((r = tar_next(t, &x, e)) == 1)
		if ((r = tree_apply(m->tree, n, &x, e)) < 0)
			break;
	tar_close(t);
	return r < 0 ? err_wrap(e, "layer %u of the image", n + 1) : 0;
}

/* --- the disk --- */

static bool writing(void *ctx, uint64_t done, uint64_t total)
{
	struct making *m = ctx;

	return m->w->progress(m->w, done, total);
}

static bool converting(struct block_progress *p, uint64_t done, uint64_t total)
{
	struct making *m = container_of(p, struct making, conversion);

	return m->w->progress(m->w, done, total);
}

static void make_uuid(const char *id, uint8_t to[16])
{
	for (unsigned i = 0; i < 16; i++)
		sscanf(id + 2 * i, "%2hhx", &to[i]);
	to[6] = (to[6] & 0x0f) | 0x40;
	to[8] = (to[8] & 0x3f) | 0x80;
}

static int make_disk(struct making *m, char disk[PATH_MAX], uint64_t *size, struct err *e)
{
	char raw[PATH_MAX];
	struct mkext_opts o = {
		.file = raw, .room = ROOM, .layer = m->layer, .step = writing, .ctx = m};
	const struct image_conversion c = {
		.from = raw, .from_format = "raw", .to = disk, .to_format = "qcow2"};
	struct stat st;
	int r;

	snprintf(raw, sizeof raw, "%s/disk.raw", m->work);
	snprintf(disk, PATH_MAX, "%s/disk.qcow2", m->work);
	make_uuid(m->source->image.id, o.uuid);
	m->w->step(m->w, "writing the file system");
	if ((r = mkext(m->tree, &o, e)) < 0)
		return r;
	if (stat(raw, &st) < 0)
		return err_sys(e, errno, "'%s'", raw);
	*size = (uint64_t)st.st_size;
	m->w->step(m->w, "writing the image");
	r = image_convert(&c, &m->conversion, e);
	unlink(raw);
	return r;
}

/* --- names --- */

/* "docker.io/library/alpine:3" is "alpine-3". */
static void make_name(const char *word, char to[STORE_NAME_MAX + 1])
{
	size_t len = strcspn(word, "@");
	const char *from = word + len;
	unsigned n = 0;

	while (from > word && from[-1] == '/') /* DIR/ */
		from--;
	len = (size_t)(from - word);
	while (from > word && from[-1] != '/')
		from--;
	len -= (size_t)(from - word);
	for (; len && n < STORE_NAME_MAX - 4; from++, len--)
		if (isalnum((unsigned char)*from) || (n && strchr("-_.", *from)))
			to[n++] = *from;
		else if (n)
			to[n++] = '-';
	to[n] = 0;
	if (!n)
		strcpy(to, "oci");
}

/* Another image may be called so: "a/app" and "b/app". */
static void choose_name(struct making *m, const char *word, char to[STORE_NAME_MAX + 1])
{
	struct store_image other;
	const char *ref;
	size_t len;

	make_name(word, to);
	if (store_find(m->st, to, &other, NULL) < 0)
		return;
	ref = json_string_value(json_object_get(json_object_get(other.info, "oci"), "ref"));
	len = strlen(to);
	if (!ref || strcmp(ref, word) != 0) {
		len = len < STORE_NAME_MAX - 9 ? len : STORE_NAME_MAX - 9;
		snprintf(to + len, 10, "-%.8s", m->source->image.id);
	}
	store_image_done(&other);
}

static int add(struct making *m, const char *word, const char *disk, uint64_t size, struct err *e)
{
	char name[STORE_NAME_MAX + 1], when[32];
	const struct oci_image *i = &m->source->image;
	time_t now = time(NULL);
	struct tm t;
	json_t *info;
	int r;

	gmtime_r(&now, &t);
	strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", &t);
	choose_name(m, word, name);
	info = json_pack("{s:s+, s:s, s:s, s:I, s:{s:s, s:i, s:s, s:O}}", "source", "oci:", word,
			 "created", when, "builder", "holon " HOLON_VERSION, "disk_size",
			 (json_int_t)size, "oci", "id", i->id, "form", FORM, "ref", word, "config",
			 i->config);
	r = info ? store_add(m->st, name, disk, info, e)
		 : err_set(e, EINVAL, "'%s' is not UTF-8", word);
	json_decref(info);
	return r;
}

static int make_in(struct making *m, const char *word, struct err *e)
{
	char disk[PATH_MAX];
	uint64_t size = 0;
	int r = tree_new(&m->tree, e);

	for (unsigned n = 0; r == 0 && n < m->source->image.layers; n++) {
		m->w->step(m->w, "unpacking");
		r = unpack_layer(m, n, &size, e);
		if (r == 0)
			r = apply_layer(m, n, size, e);
	}
	if (r == 0)
		r = make_disk(m, disk, &size, e);
	return r < 0 ? r : add(m, word, disk, size, e);
}

static int make(const struct store *st, struct oci_source *s, const char *word,
		struct pull_watcher *w, struct err *e)
{
	struct making m = {{converting}, st, w, s};
	int lock, r = store_work_new(st, m.work, &lock, e);

	if (r < 0)
		return r;
	for (unsigned i = 0; i < OCI_LAYERS_MAX; i++)
		m.layer[i] = -1;
	r = make_in(&m, word, e);
	for (unsigned i = 0; i < OCI_LAYERS_MAX; i++)
		if (m.layer[i] >= 0)
			close(m.layer[i]);
	tree_free(m.tree);
	store_work_free(m.work, lock);
	return r;
}

/* --- finding --- */

struct search {
	const char *key, *value;
	char digest[7 + DIGEST_LEN + 1]; /* empty: none */
};

static bool fits(void *ctx, const struct store_image *i)
{
	struct search *s = ctx;
	const json_t *oci = json_object_get(i->info, "oci");
	const char *value = json_string_value(json_object_get(oci, s->key));

	if (!value || strcmp(value, s->value) != 0 ||
	    json_integer_value(json_object_get(oci, "form")) != FORM)
		return true;
	snprintf(s->digest, sizeof s->digest, "sha256:%s", i->digest);
	return false;
}

/* -ENOENT: there is none. */
static int find_by(const struct store *st, const char *key, const char *value,
		   struct store_image *out, struct err *e)
{
	struct search s = {.key = key, .value = value};
	int r = store_list(st, fits, &s, e);

	if (r < 0)
		return r;
	return *s.digest ? store_find(st, s.digest, out, e) : -ENOENT;
}

/* A path, and behind its last colon a tag, if the file is not called so. */
static bool is_path(const char *word, char path[PATH_MAX], const char **tag)
{
	const char *colon = strrchr(word, ':');

	*tag = NULL;
	snprintf(path, PATH_MAX, "%s", word);
	if (access(path, F_OK) == 0 || strlen(word) >= PATH_MAX)
		return strlen(word) < PATH_MAX;
	if (colon && !strchr(colon, '/')) {
		path[colon - word] = 0;
		*tag = colon + 1;
		if (access(path, F_OK) == 0)
			return true;
	}
	return *word == '/' || *word == '.';
}

int oci_get(const struct store *st, const char *word, bool refresh, struct pull_watcher *w,
	    struct store_image *out, struct err *e)
{
	char path[PATH_MAX];
	const char *tag;
	struct oci_source *s;
	struct oci_ref ref;
	bool local = is_path(word, path, &tag);
	int r;

	if (local) {
		r = oci_layout_open(&s, path, tag, e);
	} else {
		if ((r = oci_ref_parse(word, &ref, e)) < 0)
			return r;
		if (!refresh && (r = find_by(st, "ref", word, out, e)) != -ENOENT)
			return r;
		r = oci_registry_open(&s, &ref, st, w, e);
	}
	if (r < 0)
		return r;
	r = find_by(st, "id", s->image.id, out, e);
	if (r == -ENOENT && (r = make(st, s, word, w, e)) == 0) {
		r = find_by(st, "id", s->image.id, out, e);
		if (r == -ENOENT)
			r = err_set(e, ENOENT, "the image was removed at once");
	}
	oci_source_free(s);
	return r;
}
