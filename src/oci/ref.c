#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "oci/source.h"

#define HUB      "docker.io"
#define HUB_HOST "registry-1.docker.io"

static bool is_host(const char *text, size_t len)
{
	return memchr(text, '.', len) || memchr(text, ':', len) ||
	       (len == 9 && !memcmp(text, "localhost", 9));
}

static bool is_loopback(const char *host, size_t len)
{
	const char *colon = memchr(host, ':', len);
	size_t name = colon ? (size_t)(colon - host) : len;

	return (name == 9 && !memcmp(host, "localhost", 9)) ||
	       (name == 9 && !memcmp(host, "127.0.0.1", 9));
}

static bool all_of(const char *text, size_t len, const char *more)
{
	for (size_t i = 0; i < len; i++)
		if (!isalnum((unsigned char)text[i]) && (!text[i] || !strchr(more, text[i])))
			return false;
	return len > 0;
}

static int wrong(const char *text, struct err *e)
{
	return err_set(e, EINVAL,
		       "'%s' is neither a file, nor a reference to an image: "
		       "[HOST[:PORT]/]NAME[:TAG] or ...@sha256:DIGEST",
		       text);
}

static int take_tag(const char *name, size_t *len, struct oci_ref *r)
{
	const char *at = memchr(name, '@', *len), *colon = NULL;
	size_t end = at ? (size_t)(at - name) : *len;

	for (size_t i = 0; i < end; i++)
		if (name[i] == ':')
			colon = name + i;
	if (at) { /* the digest says all; a tag beside it is for people */
		size_t digest = *len - end - 1;

		if (digest != 7 + DIGEST_LEN || strncmp(at + 1, "sha256:", 7) != 0 ||
		    !digest_is_hex(at + 8, DIGEST_LEN, DIGEST_SHA256))
			return -EINVAL;
		snprintf(r->tag, sizeof r->tag, "%.*s", (int)digest, at + 1);
	} else if (colon) {
		size_t tag = end - (size_t)(colon - name) - 1;

		if (tag > 128 || !all_of(colon + 1, tag, "._-"))
			return -EINVAL;
		snprintf(r->tag, sizeof r->tag, "%.*s", (int)tag, colon + 1);
	} else {
		strcpy(r->tag, "latest");
	}
	*len = colon ? (size_t)(colon - name) : end;
	return 0;
}

int oci_ref_parse(const char *text, struct oci_ref *out, struct err *e)
{
	struct oci_ref r = {0};
	const char *scheme = NULL, *host = HUB_HOST, *name = text, *slash;
	size_t host_len = strlen(HUB_HOST), len;
	bool hub = true;

	if (!strncmp(name, "https://", 8) || !strncmp(name, "http://", 7)) {
		scheme = name[4] == 's' ? "https" : "http";
		name = strchr(name, '/') + 2;
	}
	slash = strchr(name, '/');
	if (slash && (scheme || is_host(name, (size_t)(slash - name)))) {
		host = name;
		host_len = (size_t)(slash - name);
		name = slash + 1;
		hub = host_len == strlen(HUB) && !memcmp(host, HUB, host_len);
	} else if (scheme) {
		return wrong(text, e);
	}
	if (hub) {
		host = HUB_HOST;
		host_len = strlen(HUB_HOST);
	}
	len = strlen(name);
	if (take_tag(name, &len, &r) < 0 || !all_of(name, len, "._-/") || len > 200 ||
	    name[0] == '/' || name[len - 1] == '/' || host_len > 256 ||
	    !all_of(host, host_len, ".-:") || memmem(name, len, "..", 2))
		return wrong(text, e);
	if (!scheme)
		scheme = is_loopback(host, host_len) ? "http" : "https";
	snprintf(r.base, sizeof r.base, "%s://%.*s", scheme, (int)host_len, host);
	snprintf(r.name, sizeof r.name, "%s%.*s", hub && !memchr(name, '/', len) ? "library/" : "",
		 (int)len, name);
	*out = r;
	return 0;
}
