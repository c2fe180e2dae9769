/* A directory's files are opened by name, a tar archive's are found in a list of its members. */
#include "oci/source.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "oci/tar.h"

#define MEMBERS_MAX 65536u
#define HOPS_MAX    8u /* docker save has had links to layers */

struct member {
	char *name, *link; /* link: where it is a link; else NULL */
	uint64_t at, len;
};

struct layout {
	struct oci_source source;
	int fd; /* the directory or the archive */
	bool directory;
	struct member *member;
	unsigned members;
};

static struct layout *to_layout(struct oci_source *s)
{
	return container_of(s, struct layout, source);
}

void oci_source_free(struct oci_source *s)
{
	if (s)
		s->free(s);
}

static void layout_free(struct oci_source *s)
{
	struct layout *l = to_layout(s);

	oci_image_done(&s->image);
	for (unsigned i = 0; i < l->members; i++) {
		free(l->member[i].name);
		free(l->member[i].link);
	}
	free(l->member);
	if (l->fd >= 0)
		close(l->fd);
	free(l);
}

/* --- an archive's members --- */

static int add_member(struct layout *l, const struct tar_entry *x, struct err *e)
{
	struct member *m;
	const char *name = x->path;

	while (!strncmp(name, "./", 2))
		name += 2;
	if (l->members == MEMBERS_MAX)
		return err_set(e, E2BIG, "the archive has too many members");
	if (!(l->members & (l->members - 1))) {
		m = realloc(l->member, (l->members ? 2 * l->members : 1) * sizeof *m);
		if (!m)
			return err_set(e, ENOMEM, "out of memory");
		l->member = m;
	}
	m = &l->member[l->members];
	*m = (struct member){.name = strdup(name), .at = x->at, .len = x->size};
	if (m->name && x->type != TAR_FILE)
		m->link = strdup(x->link);
	if (!m->name || (x->type != TAR_FILE && !m->link)) {
		free(m->name);
		return err_set(e, ENOMEM, "out of memory");
	}
	l->members++;
	return 0;
}

static int list_members(struct layout *l, uint64_t size, struct err *e)
{
	struct tar_entry x;
	struct tar *t;
	int r = tar_open(&t, l->fd, 0, size, e);

	if (r < 0)
		return r;
	while ((r = tar_next(t, &x, e)) == 1)
		if ((x.type == TAR_FILE || x.type == TAR_SYMLINK || x.type == TAR_HARD_LINK) &&
		    (r = add_member(l, &x, e)) < 0)
			break;
	tar_close(t);
	return r;
}

static const struct member *find_member(const struct layout *l, const char *name)
{
	for (unsigned i = l->members; i--;) /* the last of a name counts */
		if (!strcmp(l->member[i].name, name))
			return &l->member[i];
	return NULL;
}

/* "a/b/layer.tar" -> "../c.tar" is "a/c.tar"; only such links are known. */
static void beside(const char *name, const char *link, char to[TAR_PATH_MAX])
{
	const char *slash = strrchr(name, '/');
	size_t dir = slash ? (size_t)(slash - name) : 0;

	while (!strncmp(link, "../", 3)) {
		link += 3;
		while (dir && name[dir - 1] != '/')
			dir--;
		dir -= dir > 0;
	}
	snprintf(to, TAR_PATH_MAX, "%.*s%s%s", (int)dir, name, dir ? "/" : "", link);
}

static int part_of_archive(struct layout *l, const char *name, struct oci_part *out, struct err *e)
{
	const struct member *m = find_member(l, name);
	char way[TAR_PATH_MAX];

	for (unsigned hops = 0; m && m->link && hops < HOPS_MAX; hops++) {
		beside(m->name, m->link, way);
		m = find_member(l, way);
	}
	if (!m || m->link)
		return err_set(e, ENOENT, "the archive has no '%s'", name);
	*out = (struct oci_part){fcntl(l->fd, F_DUPFD_CLOEXEC, 3), m->at, m->len};
	return out->fd < 0 ? err_sys(e, errno, "the archive") : 0;
}

static int part_of(struct layout *l, const char *name, struct oci_part *out, struct err *e)
{
	struct stat st;
	int fd;

	if (!l->directory)
		return part_of_archive(l, name, out, e);
	if (*name == '/' || strstr(name, "..")) /* manifest.json may say anything */
		return err_set(e, EBADMSG, "'%s' is not in the image's directory", name);
	fd = openat(l->fd, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
		int code = fd < 0 ? errno : EINVAL;

		if (fd >= 0)
			close(fd);
		return err_sys(e, code, "'%s' of the image", name);
	}
	*out = (struct oci_part){fd, 0, (uint64_t)st.st_size};
	return 0;
}

/* --- documents --- */

static int read_document(struct layout *l, const char *name, char **text, size_t *len,
			 struct err *e)
{
	struct oci_part p;
	int r = part_of(l, name, &p, e);
	ssize_t n;

	if (r < 0)
		return r;
	AUTO_CLOSE int fd = p.fd;

	if (p.len > OCI_DOCUMENT_MAX)
		return err_set(e, EFBIG, "'%s' of the image is longer than 4 MiB", name);
	*text = malloc(p.len + 1);
	if (!*text)
		return err_set(e, ENOMEM, "out of memory");
	n = pread(fd, *text, p.len, (off_t)p.at);
	if (n < 0 || (uint64_t)n != p.len) {
		free(*text);
		return err_sys(e, n < 0 ? errno : EIO, "'%s' of the image", name);
	}
	*len = (size_t)n;
	return 0;
}

static void blob_name(const char *digest, char to[OCI_NAME_MAX])
{
	snprintf(to, OCI_NAME_MAX, "blobs/sha256/%s", digest);
}

/* One that is named by its digest, which is checked. */
static int read_blob(struct layout *l, const struct oci_descriptor *d, char **text, size_t *len,
		     struct err *e)
{
	char name[OCI_NAME_MAX], found[DIGEST_LEN_MAX + 1];
	struct digest sum;
	int r;

	blob_name(d->digest, name);
	if ((r = read_document(l, name, text, len, e)) < 0)
		return r;
	digest_begin(&sum, DIGEST_SHA256);
	digest_add(&sum, *text, *len);
	digest_end(&sum, found);
	if (!strcmp(found, d->digest))
		return 0;
	free(*text);
	return err_set(e, EBADMSG, "'%s' of the image is not what its name says", name);
}

#define NESTED_MAX 4u /* indexes in an index */

static int read_oci(struct layout *l, const char *tag, struct err *e)
{
	struct oci_descriptor d;
	bool manifest = false;
	char *text;
	size_t len;
	int r = read_document(l, "index.json", &text, &len, e);

	for (unsigned i = 0; r == 0 && !manifest && i < NESTED_MAX; i++) {
		r = oci_parse_index(text, len, i ? NULL : tag, &d, &manifest, e);
		free(text);
		if (r == 1)
			r = err_set(e, EBADMSG, "index.json of the image is no index");
		if (r == 0)
			r = read_blob(l, &d, &text, &len, e);
	}
	if (r < 0)
		return r;
	r = oci_parse_manifest(text, len, &l->source.image, e);
	free(text);
	if (r < 0 || (r = read_blob(l, &l->source.image.config_blob, &text, &len, e)) < 0)
		return r;
	r = oci_parse_config(text, len, &l->source.image, e);
	free(text);
	return r;
}

static int read_docker(struct layout *l, const char *tag, struct err *e)
{
	char *text;
	size_t len;
	int r = read_document(l, "manifest.json", &text, &len, e);

	if (r < 0)
		return r;
	r = oci_parse_docker(text, len, tag, &l->source.image, e);
	free(text);
	if (r < 0 || (r = read_document(l, l->source.image.config_name, &text, &len, e)) < 0)
		return r;
	r = oci_parse_config(text, len, &l->source.image, e);
	free(text);
	return r;
}

static int layout_layer(struct oci_source *s, unsigned n, struct oci_part *out, struct err *e)
{
	const struct oci_layer *layer = &s->image.layer[n];
	char name[OCI_NAME_MAX];

	if (*layer->name)
		return part_of(to_layout(s), layer->name, out, e);
	blob_name(layer->blob.digest, name);
	return part_of(to_layout(s), name, out, e);
}

static int read_all(struct layout *l, const char *path, const char *tag, struct err *e)
{
	struct oci_part part;
	struct stat st;
	int r;

	l->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (l->fd < 0 || fstat(l->fd, &st) < 0)
		return err_sys(e, errno, "'%s'", path);
	l->directory = S_ISDIR(st.st_mode);
	if (!l->directory && !S_ISREG(st.st_mode))
		return err_set(e, EINVAL, "'%s' is neither a directory nor a tar archive", path);
	if (!l->directory && (r = list_members(l, (uint64_t)st.st_size, e)) < 0)
		return r;
	r = part_of(l, "index.json", &part, e);
	if (r == 0)
		close(part.fd);
	return r == 0 ? read_oci(l, tag, e) : read_docker(l, tag, e);
}

int oci_layout_open(struct oci_source **out, const char *path, const char *tag, struct err *e)
{
	struct layout *l = calloc(1, sizeof *l);
	int r;

	if (!l)
		return err_set(e, ENOMEM, "out of memory");
	l->fd = -1;
	l->source.layer = layout_layer;
	l->source.free = layout_free;
	r = read_all(l, path, tag, e);
	if (r < 0)
		layout_free(&l->source);
	else
		*out = &l->source;
	return r < 0 ? err_wrap(e, "'%s'", path) : 0;
}
