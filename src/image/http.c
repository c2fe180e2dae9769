#include "image/http.h"

/* The checks of types make macros of the functions that are loaded by name here. */
#define CURL_DISABLE_TYPECHECK
#include <curl/curl.h>
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/auto.h"

#define REDIRECTS_MAX     10L
#define CONNECT_SECONDS   30L
#define SILENT_SECONDS    60L
#define HEADERS_BYTES_MAX KIB(256)
/* clang-format off */
#define CURL_FUNCTIONS(X) \
	X(easy_init) \
	X(easy_setopt) \
	X(easy_perform) \
	X(easy_getinfo) \
	X(easy_cleanup) \
	X(easy_reset) \
	X(easy_strerror) \
	X(slist_append) \
	X(slist_free_all)
/* clang-format on */

static const char *const libraries[] = {"libcurl.so.4", "libcurl-gnutls.so.4"};

struct http {
	void *library;
#define CURL_MEMBER(name) __typeof__(&curl_##name) name;
	CURL_FUNCTIONS(CURL_MEMBER)
#undef CURL_MEMBER
	CURL *easy;

	/* Of the transfer that goes on: */
	struct http_sink *sink;
	struct http_reply reply;
	struct err *e;
	int stopped; /* what the sink said */
	bool begun;
	size_t head_bytes; /* of all answers on the way */
	char error[CURL_ERROR_SIZE];
};

static int load(struct http *h, struct err *e)
{
	static const struct {
		const char *name;
		size_t offset;
	} symbols[] = {
#define CURL_SYMBOL(name) {"curl_" #name, offsetof(struct http, name)},
		CURL_FUNCTIONS(CURL_SYMBOL)
#undef CURL_SYMBOL
	};

	for (unsigned i = 0; !h->library && i < ARRAY_SIZE(libraries); i++)
		h->library = dlopen(libraries[i], RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
	if (!h->library)
		return err_set(e, ENOENT, "fetching needs libcurl (Debian package libcurl4): %s",
			       dlerror());
	for (unsigned i = 0; i < ARRAY_SIZE(symbols); i++) {
		void *f = dlsym(h->library, symbols[i].name);

		if (!f)
			return err_set(e, ENOENT, "libcurl has no %s", symbols[i].name);
		memcpy((char *)h + symbols[i].offset, &f, sizeof f);
	}
	return 0;
}

int http_new(struct http **out, struct err *e)
{
	struct http *h = calloc(1, sizeof *h);
	int r;

	if (!h)
		return err_set(e, ENOMEM, "out of memory");
	r = load(h, e);
	if (r == 0 && !(h->easy = h->easy_init()))
		r = err_set(e, ENOMEM, "libcurl: out of memory");
	if (r < 0)
		http_free(h);
	else
		*out = h;
	return r;
}

void http_free(struct http *h)
{
	if (!h)
		return;
	if (h->easy)
		h->easy_cleanup(h->easy);
	if (h->library)
		dlclose(h->library);
	free(h);
}

bool http_is_url(const char *text)
{
	return !strncasecmp(text, "http://", 7) || !strncasecmp(text, "https://", 8);
}

/* --- headers --- */

static void take(char *to, size_t room, const char *value, size_t len)
{
	if (len >= room)
		len = 0;
	memcpy(to, value, len);
	to[len] = 0;
}

/* "bytes 100-199/200" */
static void take_range(struct http_reply *r, const char *value, size_t len)
{
	char text[80], *end;
	uint64_t at;

	take(text, sizeof text, value, len);
	if (strncasecmp(text, "bytes ", 6) != 0 || text[6] < '0' || text[6] > '9')
		return;
	at = strtoull(text + 6, &end, 10);
	if (*end != '-')
		return;
	r->range_at = at;
	end = strchr(end, '/');
	if (end && end[1] >= '0' && end[1] <= '9')
		r->range_of = strtoull(end + 1, NULL, 10);
}

static void take_header(struct http_reply *r, const char *line, size_t len)
{
	const char *colon = memchr(line, ':', len), *value;
	size_t name = colon ? (size_t)(colon - line) : 0, rest;
	static const struct {
		const char *name;
		size_t offset, room;
	} texts[] = {
#define TEXT(header, member)                                                                       \
	{header, offsetof(struct http_reply, member), sizeof(((struct http_reply *)0)->member)}
		TEXT("ETag", etag), TEXT("Last-Modified", last_modified),
		TEXT("Content-Type", type), TEXT("WWW-Authenticate", authenticate),
		TEXT("Docker-Content-Digest", content_digest)
#undef TEXT
	};

	if (!colon)
		return;
	value = colon + 1;
	rest = len - name - 1;
	while (rest && (*value == ' ' || *value == '\t')) {
		value++;
		rest--;
	}
	while (rest && strchr("\r\n \t", value[rest - 1]))
		rest--;
	if (name == 13 && !strncasecmp(line, "Content-Range", 13))
		take_range(r, value, rest);
	for (unsigned i = 0; i < ARRAY_SIZE(texts); i++)
		if (name == strlen(texts[i].name) && !strncasecmp(line, texts[i].name, name))
			take((char *)r + texts[i].offset, texts[i].room, value, rest);
	if (!strncmp(r->etag, "W/", 2))
		r->etag[0] = 0;
}

static void reply_clear(struct http_reply *r)
{
	*r = (struct http_reply){.length = HTTP_LENGTH_UNKNOWN,
				 .range_at = HTTP_LENGTH_UNKNOWN,
				 .range_of = HTTP_LENGTH_UNKNOWN};
}

static size_t got_header(char *line, size_t size, size_t n, void *ctx)
{
	struct http *h = ctx;

	h->head_bytes += n;
	if (h->head_bytes > HEADERS_BYTES_MAX) {
		h->stopped = err_set(h->e, EPROTO, "the server's headers have no end");
		return 0;
	}
	if (n > 5 && !strncmp(line, "HTTP/", 5)) /* the next answer, after a redirect */
		reply_clear(&h->reply);
	else
		take_header(&h->reply, line, n);
	return n;
}

/* --- body --- */

static int begin(struct http *h)
{
	curl_off_t length = -1;

	h->begun = true;
	h->easy_getinfo(h->easy, CURLINFO_RESPONSE_CODE, &h->reply.status);
	h->easy_getinfo(h->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
	h->reply.length = length < 0 ? HTTP_LENGTH_UNKNOWN : (uint64_t)length;
	return h->sink->begin ? h->sink->begin(h->sink, &h->reply, h->e) : 0;
}

static size_t got_body(char *bytes, size_t size, size_t n, void *ctx)
{
	struct http *h = ctx;

	if (!h->begun && (h->stopped = begin(h)) < 0)
		return 0;
	h->stopped = h->sink->data(h->sink, bytes, n, h->e);
	return h->stopped < 0 ? 0 : n;
}

static int ticked(void *ctx, curl_off_t total, curl_off_t now, curl_off_t up_total, curl_off_t up)
{
	struct http *h = ctx;

	if (h->stopped == 0 && h->sink->tick)
		h->stopped = h->sink->tick(h->sink, h->e);
	return h->stopped < 0;
}

/* --- a transfer --- */

static bool add_header(struct http *h, struct curl_slist **list, const char *name,
		       const char *value)
{
	AUTO_FREE char *line = NULL;
	struct curl_slist *more;

	if (!value || !*value)
		return true;
	if (asprintf(&line, "%s: %s", name, value) < 0) {
		line = NULL;
		return false;
	}
	more = h->slist_append(*list, line);
	if (more)
		*list = more;
	return more != NULL;
}

static void set_options(struct http *h, const struct http_request *q, struct curl_slist *headers)
{
	CURL *c = h->easy;
	bool secure = !strncasecmp(q->url, "https:", 6);
	const char *authorities = getenv("SSL_CERT_FILE");

	h->easy_reset(c);
	h->easy_setopt(c, CURLOPT_URL, q->url);
	h->easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
	h->easy_setopt(c, CURLOPT_REDIR_PROTOCOLS_STR, secure ? "https" : "http,https");
	h->easy_setopt(c, CURLOPT_FOLLOWLOCATION, 1L);
	h->easy_setopt(c, CURLOPT_MAXREDIRS, REDIRECTS_MAX);
	h->easy_setopt(c, CURLOPT_CONNECTTIMEOUT, CONNECT_SECONDS);
	h->easy_setopt(c, CURLOPT_LOW_SPEED_LIMIT, 1L);
	h->easy_setopt(c, CURLOPT_LOW_SPEED_TIME, SILENT_SECONDS);
	h->easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
	h->easy_setopt(c, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
	h->easy_setopt(c, CURLOPT_USERAGENT, "holon/" HOLON_VERSION);
	h->easy_setopt(c, CURLOPT_ERRORBUFFER, h->error);
	h->easy_setopt(c, CURLOPT_HTTPHEADER, headers);
	h->easy_setopt(c, CURLOPT_HEADERFUNCTION, got_header);
	h->easy_setopt(c, CURLOPT_HEADERDATA, h);
	h->easy_setopt(c, CURLOPT_WRITEFUNCTION, got_body);
	h->easy_setopt(c, CURLOPT_WRITEDATA, h);
	h->easy_setopt(c, CURLOPT_XFERINFOFUNCTION, ticked);
	h->easy_setopt(c, CURLOPT_XFERINFODATA, h);
	h->easy_setopt(c, CURLOPT_NOPROGRESS, 0L);
	if (authorities && *authorities)
		h->easy_setopt(c, CURLOPT_CAINFO, authorities);
}

static int result(struct http *h, CURLcode code, const char *url, struct err *e)
{
	const char *why = *h->error ? h->error : h->easy_strerror(code);

	if (h->stopped < 0)
		return h->stopped;
	switch (code) {
	case CURLE_OK: break;
	case CURLE_UNSUPPORTED_PROTOCOL:
	case CURLE_TOO_MANY_REDIRECTS:
	case CURLE_URL_MALFORMAT:
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CACERT_BADFILE: return err_set(e, EPROTO, "%s: %s", url, why);
	case CURLE_OUT_OF_MEMORY: return err_set(e, ENOMEM, "%s: %s", url, why);
	default: return err_set(e, EPIPE, "%s: %s", url, why);
	}
	return h->begun ? 0 : begin(h); /* it has no body */
}

int http_get(struct http *h, const struct http_request *q, struct http_sink *s,
	     struct http_reply *r, struct err *e)
{
	struct curl_slist *headers = NULL;
	char range[40] = "";
	CURLcode code;
	int ret;

	if (q->from)
		snprintf(range, sizeof range, "bytes=%llu-", (unsigned long long)q->from);
	if (!add_header(h, &headers, "Accept", q->accept) ||
	    !add_header(h, &headers, "Authorization", q->authorization) ||
	    !add_header(h, &headers, "Range", range) ||
	    !add_header(h, &headers, "If-Range", q->from ? q->if_range : NULL)) {
		h->slist_free_all(headers);
		return err_set(e, ENOMEM, "out of memory");
	}
	set_options(h, q, headers);
	reply_clear(&h->reply);
	h->sink = s;
	h->e = e;
	h->stopped = 0;
	h->begun = false;
	h->head_bytes = 0;
	h->error[0] = 0;
	code = h->easy_perform(h->easy);
	ret = result(h, code, q->url, e);
	h->slist_free_all(headers);
	if (ret == 0)
		*r = h->reply;
	return ret;
}

/* --- a text --- */

static int add_text(struct http_sink *s, const void *bytes, size_t len, struct err *e)
{
	struct http_text *t = container_of(s, struct http_text, sink);
	char *more;

	if (len > t->max - t->len)
		return err_set(e, EFBIG, "the server's answer is longer than %zu bytes", t->max);
	more = realloc(t->text, t->len + len + 1);
	if (!more)
		return err_set(e, ENOMEM, "out of memory");
	t->text = more;
	memcpy(more + t->len, bytes, len);
	t->len += len;
	more[t->len] = 0;
	return 0;
}

int http_get_text(struct http *h, const struct http_request *q, struct http_text *t,
		  struct http_reply *r, struct err *e)
{
	int ret;

	t->sink.begin = NULL;
	t->sink.data = add_text;
	t->text = NULL;
	t->len = 0;
	ret = http_get(h, q, &t->sink, r, e);
	if (ret == 0 && !t->text)
		ret = add_text(&t->sink, "", 0, e);
	if (ret < 0 || r->status != 200) {
		free(t->text);
		t->text = NULL;
	}
	return ret;
}
