#include "oci/image.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void oci_image_done(struct oci_image *i)
{
	free(i->layer);
	json_decref(i->config);
	*i = (struct oci_image){0};
}

static json_t *load(const char *text, size_t len, const char *what, struct err *e)
{
	json_error_t error;
	json_t *j = json_loadb(text, len, JSON_REJECT_DUPLICATES, &error);

	if (json_is_object(j) || json_is_array(j))
		return j;
	json_decref(j);
	err_set(e, EBADMSG, "the image's %s is no JSON: %s", what, error.text);
	return NULL;
}

static const char *text_of(const json_t *j, const char *key)
{
	return json_string_value(json_object_get(j, key));
}

static int take_digest(const char *text, char to[DIGEST_LEN + 1], struct err *e)
{
	if (!text || strncmp(text, "sha256:", 7) != 0 ||
	    !digest_is_hex(text + 7, strlen(text + 7), DIGEST_SHA256))
		return err_set(e, EBADMSG,
			       "the image names something by '%.80s', no SHA-256 digest",
			       text ? text : "");
	memcpy(to, text + 7, DIGEST_LEN + 1);
	return 0;
}

static int take_descriptor(const json_t *j, struct oci_descriptor *to, struct err *e)
{
	json_int_t size = json_integer_value(json_object_get(j, "size"));

	if (size < 0 || !json_is_integer(json_object_get(j, "size")))
		return err_set(e, EBADMSG, "the image says of something not how large it is");
	to->size = (uint64_t)size;
	return take_digest(text_of(j, "digest"), to->digest, e);
}

static bool is(const char *text, const char *what)
{
	return text && !strcmp(text, what);
}

/* --- index --- */

static bool is_index_type(const char *type)
{
	return is(type, "application/vnd.oci.image.index.v1+json") ||
	       is(type, "application/vnd.docker.distribution.manifest.list.v2+json");
}

/* Without a platform it may be any, and is taken for ours. */
static bool platform_fits(const json_t *m)
{
	const json_t *p = json_object_get(m, "platform");

	return !json_is_object(p) ||
	       (is(text_of(p, "os"), "linux") && is(text_of(p, "architecture"), "amd64"));
}

static bool tag_fits(const json_t *m, const char *tag)
{
	const char *name =
		text_of(json_object_get(m, "annotations"), "org.opencontainers.image.ref.name");
	size_t len = name ? strlen(name) : 0, want = tag ? strlen(tag) : 0;

	/* Some write the whole reference there. */
	return !tag || (name && !strcmp(name, tag)) ||
	       (len > want && name[len - want - 1] == ':' && !strcmp(name + len - want, tag));
}

static int choose(const json_t *list, const char *tag, const json_t **out, struct err *e)
{
	const json_t *m;
	unsigned fit = 0, all = 0;
	size_t n;

	json_array_foreach(list, n, m)
	{
		all += tag_fits(m, tag);
		if (!tag_fits(m, tag) || !platform_fits(m))
			continue;
		fit++;
		*out = m;
	}
	if (fit == 1)
		return 0;
	if (fit)
		return err_set(e, EINVAL, "there are %u images; say which by its tag, ':TAG'", fit);
	if (tag && !all)
		return err_set(e, ENOENT, "there is no image with the tag '%s'", tag);
	return err_set(e, ENOENT, "the image is not there for Linux on x86-64 (amd64)");
}

int oci_parse_index(const char *text, size_t len, const char *tag, struct oci_descriptor *out,
		    bool *manifest, struct err *e)
{
	json_t *j = load(text, len, "index", e);
	const json_t *list = json_object_get(j, "manifests"), *chosen = NULL;
	int r;

	if (!j)
		return -EBADMSG;
	if (!json_is_array(list))
		r = json_is_array(json_object_get(j, "layers"))
			    ? 1
			    : err_set(e, EBADMSG,
				      "this is neither an index nor a manifest of an image");
	else if ((r = choose(list, tag, &chosen, e)) == 0 &&
		 (r = take_descriptor(chosen, out, e)) == 0)
		*manifest = !is_index_type(text_of(chosen, "mediaType"));
	json_decref(j);
	return r;
}

/* --- manifest --- */

static int make_layers(struct oci_image *i, size_t n, struct err *e)
{
	if (n > OCI_LAYERS_MAX)
		return err_set(e, E2BIG, "the image has more than %u layers", OCI_LAYERS_MAX);
	i->layer = calloc(n ? n : 1, sizeof *i->layer);
	if (!i->layer)
		return err_set(e, ENOMEM, "out of memory");
	i->layers = (unsigned)n;
	return 0;
}

static int take_manifest(const json_t *j, struct oci_image *i, struct err *e)
{
	const json_t *layers = json_object_get(j, "layers");
	int r;

	if (!json_is_array(layers) || !json_is_object(json_object_get(j, "config")))
		return err_set(e, EBADMSG, "this is no manifest of an image");
	if ((r = take_descriptor(json_object_get(j, "config"), &i->config_blob, e)) < 0 ||
	    (r = make_layers(i, json_array_size(layers), e)) < 0)
		return r;
	for (unsigned n = 0; n < i->layers; n++)
		if ((r = take_descriptor(json_array_get(layers, n), &i->layer[n].blob, e)) < 0)
			return r;
	return 0;
}

int oci_parse_manifest(const char *text, size_t len, struct oci_image *out, struct err *e)
{
	struct oci_image i = {0};
	json_t *j = load(text, len, "manifest", e);
	int r = j ? take_manifest(j, &i, e) : -EBADMSG;

	json_decref(j);
	if (r < 0)
		oci_image_done(&i);
	else
		*out = i;
	return r;
}

/* --- docker save --- */

static bool has_tag(const json_t *m, const char *tag)
{
	const json_t *t;
	size_t n, want = tag ? strlen(tag) : 0;

	json_array_foreach(json_object_get(m, "RepoTags"), n, t)
	{
		const char *name = json_string_value(t);
		size_t len = name ? strlen(name) : 0;

		if (tag && name &&
		    (!strcmp(name, tag) || (len > want && name[len - want - 1] == ':' &&
					    !strcmp(name + len - want, tag))))
			return true;
	}
	return !tag;
}

static int take_name(const char *text, char to[OCI_NAME_MAX], struct err *e)
{
	if (!text || !*text || strlen(text) >= OCI_NAME_MAX)
		return err_set(e, EBADMSG, "manifest.json names no file where it should");
	strcpy(to, text);
	return 0;
}

static int take_docker(const json_t *list, const char *tag, struct oci_image *i, struct err *e)
{
	const json_t *m, *found = NULL, *layers;
	size_t k;
	unsigned fit = 0;
	int r;

	json_array_foreach(list, k, m) if (has_tag(m, tag))
	{
		found = m;
		fit++;
	}
	if (fit != 1)
		return fit ? err_set(e, EINVAL, "there are %u images; say which by its tag, ':TAG'",
				     fit)
			   : err_set(e, ENOENT, "there is no image with the tag '%s'",
				     tag ? tag : "");
	layers = json_object_get(found, "Layers");
	if ((r = take_name(text_of(found, "Config"), i->config_name, e)) < 0 ||
	    (r = make_layers(i, json_array_size(layers), e)) < 0)
		return r;
	for (unsigned n = 0; n < i->layers; n++)
		if ((r = take_name(json_string_value(json_array_get(layers, n)), i->layer[n].name,
				   e)) < 0)
			return r;
	return 0;
}

int oci_parse_docker(const char *text, size_t len, const char *tag, struct oci_image *out,
		     struct err *e)
{
	struct oci_image i = {0};
	json_t *j = load(text, len, "manifest.json", e);
	int r = j ? take_docker(j, tag, &i, e) : -EBADMSG;

	json_decref(j);
	if (r < 0)
		oci_image_done(&i);
	else
		*out = i;
	return r;
}

/* --- configuration --- */

static int check_texts(const json_t *config, const char *key, struct err *e)
{
	const json_t *list = json_object_get(config, key), *t;
	size_t n;

	if (!list || json_is_null(list))
		return 0;
	if (!json_is_array(list) || json_array_size(list) > 4096)
		return err_set(e, EBADMSG, "the image's %s is no list of words", key);
	json_array_foreach(list, n, t) if (!json_is_string(t)) return err_set(
		e, EBADMSG, "the image's %s is no list of words", key);
	return 0;
}

static int take_config(const json_t *j, struct oci_image *i, struct err *e)
{
	const json_t *ids = json_object_get(json_object_get(j, "rootfs"), "diff_ids");
	json_t *config = json_object_get(j, "config");
	int r;

	if (text_of(j, "architecture") && !is(text_of(j, "architecture"), "amd64"))
		return err_set(e, ENOTSUP, "the image is for %.20s, not for x86-64 (amd64)",
			       text_of(j, "architecture"));
	if (text_of(j, "os") && !is(text_of(j, "os"), "linux"))
		return err_set(e, ENOTSUP, "the image is for %.20s, not for Linux",
			       text_of(j, "os"));
	if (!json_is_array(ids) || json_array_size(ids) != i->layers)
		return err_set(e, EBADMSG,
			       "the image's configuration has %zu layers, its manifest %u",
			       json_array_size(ids), i->layers);
	for (unsigned n = 0; n < i->layers; n++)
		if ((r = take_digest(json_string_value(json_array_get(ids, n)), i->layer[n].diff_id,
				     e)) < 0)
			return r;
	if ((r = check_texts(config, "Entrypoint", e)) < 0 ||
	    (r = check_texts(config, "Cmd", e)) < 0 || (r = check_texts(config, "Env", e)) < 0)
		return r;
	i->config = json_is_object(config) ? json_incref(config) : json_object();
	return 0;
}

int oci_parse_config(const char *text, size_t len, struct oci_image *i, struct err *e)
{
	json_t *j = load(text, len, "configuration", e);
	struct digest d;
	char id[DIGEST_LEN_MAX + 1];
	int r = j ? take_config(j, i, e) : -EBADMSG;

	json_decref(j);
	digest_begin(&d, DIGEST_SHA256);
	digest_add(&d, text, len);
	digest_end(&d, id);
	memcpy(i->id, id, DIGEST_LEN + 1);
	if (r == 0 && *i->config_blob.digest && strcmp(id, i->config_blob.digest) != 0)
		r = err_set(e, EBADMSG, "the image's configuration is not what its manifest names");
	return r;
}
