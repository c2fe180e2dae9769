/* The OCI distribution API (and Docker's registry API v2, which is the same for reading). Layers
 * are kept, packed, in the store under their digests, and fetched once. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "image/store_priv.h"
#include "oci/source.h"

#define TOKEN_MAX  KIB(64)
#define NESTED_MAX 4u
#define ACCEPT                                                                                     \
	"application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, "    \
	"application/vnd.docker.distribution.manifest.list.v2+json, "                              \
	"application/vnd.docker.distribution.manifest.v2+json"

struct registry {
	struct oci_source source;
	struct pull_download download;
	struct oci_ref ref;
	const struct store *st;
	struct pull_watcher *w;
	struct http *http;
	char *authorization; /* owned; NULL: none is needed, as far as we know */
};

static struct registry *to_registry(struct oci_source *s)
{
	return container_of(s, struct registry, source);
}

static void registry_free(struct oci_source *s)
{
	struct registry *g = to_registry(s);

	oci_image_done(&s->image);
	http_free(g->http);
	free(g->authorization);
	free(g);
}

/* --- asking --- */

struct asking {
	struct http_text text;
	struct registry *registry;
};

static int tick(struct http_sink *s, struct err *e)
{
	struct http_text *t = container_of(s, struct http_text, sink);
	struct pull_watcher *w = container_of(t, struct asking, text)->registry->w;

	return w->progress(w, 0, HTTP_LENGTH_UNKNOWN) ? 0 : err_set(e, ECANCELED, "interrupted");
}

static int ask(struct registry *g, const char *url, const char *accept, const char *authorization,
	       size_t max, struct asking *a, struct http_reply *reply, struct err *e)
{
	const struct http_request q = {
		.url = url, .accept = accept, .authorization = authorization};

	*a = (struct asking){{.sink.tick = tick, .max = max}, g};
	return http_get_text(g->http, &q, &a->text, reply, e);
}

/* --- permission --- */

/* The value of KEY="VALUE" in a challenge. */
static bool parameter(const char *challenge, const char *key, char *to, size_t room)
{
	size_t len = strlen(key);

	for (const char *p = challenge; (p = strstr(p, key)); p += len) {
		const char *end;

		if ((p > challenge && p[-1] != ' ' && p[-1] != ',') || p[len] != '=' ||
		    p[len + 1] != '"')
			continue;
		p += len + 2;
		end = strchr(p, '"');
		if (!end || (size_t)(end - p) >= room)
			return false;
		snprintf(to, room, "%.*s", (int)(end - p), p);
		return true;
	}
	return false;
}

static void escape(const char *from, char *to, size_t room)
{
	size_t n = 0;

	for (; *from && n + 4 < room; from++)
		if (isalnum((unsigned char)*from) || strchr("-_.~", *from))
			to[n++] = *from;
		else
			n += (size_t)sprintf(to + n, "%%%02X", (uint8_t)*from);
	to[n] = 0;
}

static int take_token(struct registry *g, const char *text, size_t len, struct err *e)
{
	json_t *j = json_loadb(text, len, 0, NULL);
	const char *token = json_string_value(json_object_get(j, "token"));
	bool good;

	if (!token)
		token = json_string_value(json_object_get(j, "access_token"));
	good = token && *token;
	for (const char *p = token; good && *p; p++)
		good = *p > ' ' && *p < 127;
	free(g->authorization);
	g->authorization = NULL;
	if (good && asprintf(&g->authorization, "Bearer %s", token) < 0)
		g->authorization = NULL;
	json_decref(j);
	return g->authorization ? 0
				: err_set(e, EPROTO, "the registry's answer has no token in it");
}

/* What the registry's challenge asks for, by the token specification of Docker's registries. */
static int get_token(struct registry *g, const char *challenge, struct err *e)
{
	char realm[512], service[256] = "", scope[700], escaped[800], url[2200];
	const char *secure = strncmp(g->ref.base, "https:", 6) ? "http" : "https://";
	struct http_reply reply;
	struct asking a;
	int r;

	if (strncasecmp(challenge, "Bearer ", 7) != 0 ||
	    !parameter(challenge + 7, "realm", realm, sizeof realm) ||
	    strncmp(realm, secure, strlen(secure)) != 0)
		return err_set(
			e, EACCES,
			"%s/%s: the registry wants a login, and only what anybody may read can "
			"be fetched; skopeo can copy the image into a directory for 'oci:DIR'",
			g->ref.base, g->ref.name);
	(void)!parameter(challenge + 7, "service", service, sizeof service);
	escape(service, escaped, sizeof escaped);
	snprintf(url, sizeof url, "%s%sservice=%s", realm, strchr(realm, '?') ? "&" : "?", escaped);
	snprintf(scope, sizeof scope, "repository:%s:pull", g->ref.name);
	escape(scope, escaped, sizeof escaped);
	snprintf(url + strlen(url), sizeof url - strlen(url), "&scope=%s", escaped);
	if ((r = ask(g, url, NULL, NULL, TOKEN_MAX, &a, &reply, e)) < 0)
		return r;
	if (!a.text.text)
		return err_set(e, EACCES, "%s: no permission to read '%s' is given (%ld)", realm,
			       g->ref.name, reply.status);
	r = take_token(g, a.text.text, a.text.len, e);
	free(a.text.text);
	return r;
}

/* --- documents --- */

static int check_digest(const char *text, size_t len, const char *digest, const char *url,
			struct err *e)
{
	char found[DIGEST_LEN_MAX + 1];
	struct digest d;

	digest_begin(&d, DIGEST_SHA256);
	digest_add(&d, text, len);
	digest_end(&d, found);
	return strcmp(found, digest)
		       ? err_set(e, EBADMSG, "%s: what came is not what was promised", url)
		       : 0;
}

/* what: "manifests" or "blobs"; name: a tag, or "sha256:...", which is checked then. */
static int get_document(struct registry *g, const char *what, const char *name, char **text,
			size_t *len, struct err *e)
{
	struct http_reply reply;
	struct asking a;
	char url[1024];
	int r;

	snprintf(url, sizeof url, "%s/v2/%s/%s/%s", g->ref.base, g->ref.name, what, name);
	r = ask(g, url, ACCEPT, g->authorization, OCI_DOCUMENT_MAX, &a, &reply, e);
	if (r == 0 && reply.status == 401) {
		if ((r = get_token(g, reply.authenticate, e)) == 0)
			r = ask(g, url, ACCEPT, g->authorization, OCI_DOCUMENT_MAX, &a, &reply, e);
	}
	if (r < 0)
		return r;
	if (!a.text.text)
		return reply.status == 404 ? err_set(e, ENOENT, "%s has no image '%s:%s'",
						     g->ref.base, g->ref.name, name)
					   : err_set(e, EACCES, "%s: the registry answers %ld", url,
						     reply.status);
	r = strncmp(name, "sha256:", 7) ? 0
					: check_digest(a.text.text, a.text.len, name + 7, url, e);
	if (r < 0) {
		free(a.text.text);
		return r;
	}
	*text = a.text.text;
	*len = a.text.len;
	return 0;
}

static int get_image(struct registry *g, struct err *e)
{
	struct oci_descriptor d;
	bool manifest = false;
	char name[160], *text;
	size_t len;
	int r;

	snprintf(name, sizeof name, "%s", g->ref.tag);
	for (unsigned i = 0;; i++) {
		if ((r = get_document(g, "manifests", name, &text, &len, e)) < 0)
			return r;
		r = oci_parse_index(text, len, NULL, &d, &manifest, e);
		if (r != 0 || i == NESTED_MAX)
			break;
		free(text);
		snprintf(name, sizeof name, "sha256:%s", d.digest);
	}
	if (r >= 0)
		r = oci_parse_manifest(text, len, &g->source.image, e);
	free(text);
	if (r < 0)
		return r;
	snprintf(name, sizeof name, "sha256:%s", g->source.image.config_blob.digest);
	if ((r = get_document(g, "blobs", name, &text, &len, e)) < 0)
		return r;
	r = oci_parse_config(text, len, &g->source.image, e);
	free(text);
	return r;
}

/* --- layers --- */

/* What is asked for is the image's configuration, which is small. */
static int renew_token(struct registry *g, struct err *e)
{
	char name[160], *text;
	size_t len;
	int r;

	free(g->authorization);
	g->authorization = NULL;
	snprintf(name, sizeof name, "sha256:%s", g->source.image.config_blob.digest);
	r = get_document(g, "blobs", name, &text, &len, e);
	if (r == 0)
		free(text);
	return r;
}

static int fetch_layer(struct registry *g, const struct oci_descriptor *blob, const char *kept,
		       int *fd, struct err *e)
{
	char url[1024], part[PATH_MAX / 2];
	struct download d = {.url = url,
			     .file = part,
			     .size = blob->size,
			     .digest = blob->digest,
			     .watcher = &g->download.download};
	struct http_reply reply;
	int r;

	snprintf(url, sizeof url, "%s/v2/%s/blobs/sha256:%s", g->ref.base, g->ref.name,
		 blob->digest);
	if (!store_path(g->st, part, sizeof part, "images/partial/%s", blob->digest))
		return err_set(e, ENAMETOOLONG, "the image store");
	d.authorization = g->authorization;
	r = download(g->http, &d, fd, &reply, e);
	if (r == -EACCES) { /* a token lasts for minutes only */
		r = renew_token(g, e);
		d.authorization = g->authorization;
		if (r == 0)
			r = download(g->http, &d, fd, &reply, e);
	}
	if (r < 0)
		return r;
	if (rename(part, kept) < 0) {
		r = err_sys(e, errno, "'%s'", kept);
		close(*fd);
		return r;
	}
	download_forget(part);
	return 0;
}

static int registry_layer(struct oci_source *s, unsigned n, struct oci_part *out, struct err *e)
{
	struct registry *g = to_registry(s);
	const struct oci_descriptor *blob = &s->image.layer[n].blob;
	char kept[PATH_MAX / 2], step[80];
	struct stat st;
	int fd, r;

	if (!store_path(g->st, kept, sizeof kept, "images/layers/%s", blob->digest))
		return err_set(e, ENAMETOOLONG, "the image store");
	fd = open(kept, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		snprintf(step, sizeof step, "fetching layer %u of %u", n + 1, s->image.layers);
		g->w->step(g->w, step);
		if ((r = fetch_layer(g, blob, kept, &fd, e)) < 0)
			return r;
	}
	if (fstat(fd, &st) < 0) {
		r = err_sys(e, errno, "'%s'", kept);
		close(fd);
		return r;
	}
	*out = (struct oci_part){fd, 0, (uint64_t)st.st_size};
	return 0;
}

int oci_registry_open(struct oci_source **out, const struct oci_ref *ref, const struct store *st,
		      struct pull_watcher *w, struct err *e)
{
	struct registry *g = calloc(1, sizeof *g);
	int r;

	if (!g)
		return err_set(e, ENOMEM, "out of memory");
	*g = (struct registry){
		{.layer = registry_layer, .free = registry_free}, pull_download(w), *ref, st, w};
	r = http_new(&g->http, e);
	if (r == 0)
		r = get_image(g, e);
	if (r < 0)
		registry_free(&g->source);
	else
		*out = &g->source;
	return r;
}
