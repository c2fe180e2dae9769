#include "firecracker/mmds.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <time.h>

#include "api/http.h"
#include "base/auto.h"

#define TOKEN_BYTES 24u
#define TOKEN_LEN   (2 * TOKEN_BYTES)
#define TOKEN_PATH  "/latest/api/token"
#define BODY_MAX    1024u /* of the guest's requests: they have none */
#define DEPTH_MAX   64u
#define NS_PER_S    UINT64_C(1000000000)

struct token {
	char text[TOKEN_LEN + 1]; /* empty: unused */
	uint64_t until_ns;
};

struct mmds {
	pthread_mutex_t lock;
	json_t *doc; /* NULL: nobody has put one */
	size_t max_bytes;
	bool v2, imds_compat;
	struct token token[MMDS_TOKENS_MAX];
	struct mmds_counts counts;
};

/* --- the host's side --- */

int mmds_new(struct mmds **out, size_t max_bytes, struct err *e)
{
	struct mmds *m = calloc(1, sizeof *m);

	if (!m)
		return err_set(e, ENOMEM, "out of memory");
	pthread_mutex_init(&m->lock, NULL);
	m->max_bytes = max_bytes;
	*out = m;
	return 0;
}

void mmds_free(struct mmds *m)
{
	if (!m)
		return;
	json_decref(m->doc);
	pthread_mutex_destroy(&m->lock);
	free(m);
}

void mmds_configure(struct mmds *m, bool v2, bool imds_compat)
{
	AUTO_LOCK(&m->lock);
	m->v2 = v2;
	m->imds_compat = imds_compat;
}

bool mmds_is_v2(struct mmds *m)
{
	AUTO_LOCK(&m->lock);
	return m->v2;
}

static int check_size(const struct mmds *m, const json_t *doc, struct err *e)
{
	size_t size = json_dumpb(doc, NULL, 0, JSON_COMPACT | JSON_ENCODE_ANY);

	return size && size <= m->max_bytes
		       ? 0
		       : err_set(e, EINVAL,
				 "The MMDS patch request doesn't fit: the data store holds %zu bytes.",
				 m->max_bytes);
}

int mmds_put(struct mmds *m, json_t *doc, struct err *e)
{
	int r;

	if (!json_is_object(doc))
		return err_set(e, EINVAL, "The MMDS data store is an object.");
	AUTO_LOCK(&m->lock);
	r = check_size(m, doc, e);
	if (r < 0)
		return r;
	json_decref(m->doc);
	m->doc = json_deep_copy(doc);
	return m->doc ? 0 : err_set(e, ENOMEM, "out of memory");
}

/* The document that change makes of target (RFC 7396, section 2); NULL: no memory, or too deep. */
static json_t *merged(const json_t *target, const json_t *change, unsigned depth)
{
	json_t *to, *v;
	const char *name;

	if (!json_is_object(change))
		return json_deep_copy(change);
	to = json_is_object(target) ? json_copy((json_t *)target) : json_object();
	json_object_foreach((json_t *)change, name, v)
	{
		json_t *now = json_is_null(v) || depth == DEPTH_MAX
				      ? NULL
				      : merged(json_object_get(to, name), v, depth + 1);

		if (json_is_null(v)) {
			json_object_del(to, name);
		} else if (!now || json_object_set_new(to, name, now) < 0) {
			json_decref(to);
			return NULL;
		}
	}
	return to;
}

int mmds_patch(struct mmds *m, const json_t *change, struct err *e)
{
	json_t *doc;
	int r;

	AUTO_LOCK(&m->lock);
	if (!m->doc)
		return err_set(e, ENOENT, "The MMDS data store is not initialized.");
	doc = merged(m->doc, change, 0);
	if (!doc)
		return err_set(e, EINVAL, "The MMDS patch is nested too deeply.");
	r = json_is_object(doc) ? check_size(m, doc, e)
				: err_set(e, EINVAL, "The MMDS data store is an object.");
	if (r < 0) {
		json_decref(doc);
		return r;
	}
	json_decref(m->doc);
	m->doc = doc;
	return 0;
}

json_t *mmds_get(struct mmds *m)
{
	AUTO_LOCK(&m->lock);
	return m->doc ? json_deep_copy(m->doc) : json_object();
}

void mmds_get_counts(struct mmds *m, struct mmds_counts *to)
{
	AUTO_LOCK(&m->lock);
	*to = m->counts;
}

/* --- answers --- */

struct answer {
	unsigned status;
	const char *type; /* NULL: text/plain */
	char more[80];    /* further headers */
	char *body;       /* malloc'ed; NULL: none */
};

__attribute__((format(printf, 3, 4))) static void refuse(struct answer *a, unsigned status,
							 const char *fmt, ...)
{
	va_list args;

	a->status = status;
	va_start(args, fmt);
	if (vasprintf(&a->body, fmt, args) < 0)
		a->body = NULL;
	va_end(args);
}

static long finish(struct answer *a, const struct http_request *q, long used, char **to,
		   size_t *len)
{
	bool close = used < 0 || !q->keep_alive;
	int n = asprintf(to,
			 "HTTP/1.1 %u %s\r\nServer: Holon MMDS\r\nConnection: %s\r\n%s"
			 "Content-Type: %s\r\nContent-Length: %zu\r\n\r\n%s",
			 a->status, http_reason(a->status), close ? "close" : "keep-alive", a->more,
			 a->type ? a->type : "text/plain", a->body ? strlen(a->body) : 0,
			 a->body ? a->body : "");

	free(a->body);
	if (n < 0) {
		*to = NULL;
		*len = 0;
		return -1;
	}
	*len = (size_t)n;
	return close ? -1 : used;
}

/* --- tokens --- */

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_BOOTTIME, &t);
	return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

/* The header by its own name or by Amazon's; NULL: neither. */
static const char *header_of(const struct http_request *q, const char *name, const char *amazons,
			     size_t *len)
{
	const char *v = http_header(q, name, len);

	return v ? v : http_header(q, amazons, len);
}

static bool token_is_good(const struct mmds *m, const char *text, size_t len)
{
	uint64_t now = now_ns();

	if (len != TOKEN_LEN)
		return false;
	for (unsigned i = 0; i < MMDS_TOKENS_MAX; i++)
		if (m->token[i].until_ns > now && !memcmp(m->token[i].text, text, TOKEN_LEN))
			return true;
	return false;
}

static const char *make_token(struct mmds *m, unsigned ttl_s)
{
	struct token *t = &m->token[0];
	uint8_t random[TOKEN_BYTES];

	for (unsigned i = 1; i < MMDS_TOKENS_MAX; i++)
		if (m->token[i].until_ns < t->until_ns)
			t = &m->token[i];
	if (getrandom(random, sizeof random, 0) != sizeof random)
		return NULL;
	for (unsigned i = 0; i < TOKEN_BYTES; i++)
		snprintf(t->text + 2 * i, 3, "%02x", random[i]);
	t->until_ns = now_ns() + ttl_s * NS_PER_S;
	return t->text;
}

/* 0: it is none. */
static unsigned ttl_of(const char *text, size_t len)
{
	unsigned ttl = 0;

	if (!len || len > 5)
		return 0;
	for (size_t i = 0; i < len; i++) {
		if (!isdigit((unsigned char)text[i]))
			return 0;
		ttl = ttl * 10 + (unsigned)(text[i] - '0');
	}
	return ttl <= MMDS_TTL_MAX ? ttl : 0;
}

static void put(struct mmds *m, const struct http_request *q, struct answer *a)
{
	static const char ttl_name[] = "X-metadata-token-ttl-seconds";
	size_t len;
	const char *ttl = header_of(q, ttl_name, "X-aws-ec2-metadata-token-ttl-seconds", &len);
	const char *token;
	unsigned ttl_s;

	if (strcmp(q->path, TOKEN_PATH) != 0) {
		refuse(a, 404, "Resource not found: %.512s.", q->path);
		return;
	}
	if (!ttl) {
		refuse(a, 400,
		       "Token time to live value not found. Use `%s` or "
		       "`X-aws-ec2-metadata-token-ttl-seconds` header to specify the token's lifetime.",
		       ttl_name);
		return;
	}
	ttl_s = ttl_of(ttl, len);
	if (!ttl_s) {
		refuse(a, 400,
		       "Invalid time to live value provided for token: %.*s. Please provide a value "
		       "between 1 and %u.",
		       (int)min_u64(len, 32), ttl, MMDS_TTL_MAX);
		return;
	}
	token = make_token(m, ttl_s);
	if (!token) {
		refuse(a, 500, "No random numbers.");
		return;
	}
	a->status = 200;
	a->body = strdup(token);
	snprintf(a->more, sizeof a->more, "%s: %u\r\n", ttl_name, ttl_s);
}

static bool may_get(struct mmds *m, const struct http_request *q, struct answer *a)
{
	size_t len;
	const char *token = header_of(q, "X-metadata-token", "X-aws-ec2-metadata-token", &len);

	if (token && token_is_good(m, token, len))
		return true;
	if (token)
		m->counts.bad_token++;
	else
		m->counts.no_token++;
	if (!m->v2)
		return true;
	if (token)
		refuse(a, 401, "MMDS token not valid.");
	else
		refuse(a, 401,
		       "No MMDS token provided. Use `X-metadata-token` or `X-aws-ec2-metadata-token` "
		       "header to specify the session token.");
	return false;
}

/* --- documents --- */

/* A part of a path, as a JSON pointer has it (RFC 6901): "~1" is a '/', "~0" a '~'. */
static void unescape(char *s)
{
	char *to = s;

	for (; *s; s++) {
		if (s[0] == '~' && (s[1] == '0' || s[1] == '1')) {
			*to++ = s[1] == '0' ? '~' : '/';
			s++;
		} else {
			*to++ = *s;
		}
	}
	*to = 0;
}

static json_t *step(const json_t *at, const char *name)
{
	char *end;
	unsigned long i;

	if (!json_is_array(at))
		return json_object_get(at, name);
	if (!isdigit((unsigned char)*name) || (*name == '0' && name[1]))
		return NULL;
	i = strtoul(name, &end, 10);
	return *end ? NULL : json_array_get(at, i);
}

/* path begins with a '/'; one at its end, and several for one, are as if they were not there. */
static const json_t *find(const json_t *at, const char *path)
{
	AUTO_FREE char *copy = strdup(path);
	char *name, *rest = NULL;

	if (!copy)
		return NULL;
	for (name = strtok_r(copy, "/", &rest); at && name; name = strtok_r(NULL, "/", &rest)) {
		unescape(name);
		at = step(at, name);
	}
	return at;
}

/* As EC2's service has it: the names in an object, a line each, those of objects with a '/'. */
static char *imds_text(const json_t *at)
{
	char *text = NULL;
	size_t len;
	const char *name;
	json_t *v;
	bool first = true;
	FILE *to;

	if (json_is_string(at))
		return strdup(json_string_value(at));
	if (!json_is_object(at) || !(to = open_memstream(&text, &len)))
		return NULL;
	json_object_foreach((json_t *)at, name, v)
	{
		fprintf(to, "%s%s%s", first ? "" : "\n", name, json_is_object(v) ? "/" : "");
		first = false;
	}
	return fclose(to) == 0 ? text : NULL;
}

static bool wants_json(const struct mmds *m, const struct http_request *q)
{
	static const char json[] = "application/json";
	size_t len;
	const char *accept = http_header(q, "Accept", &len);

	return !m->imds_compat && accept && memmem(accept, len, json, sizeof json - 1);
}

static void get(struct mmds *m, const struct http_request *q, struct answer *a)
{
	const json_t *at;

	if (!may_get(m, q, a))
		return;
	at = m->doc ? find(m->doc, q->path) : NULL;
	if (!at) {
		refuse(a, 404, "Resource not found: %.512s.", q->path);
		return;
	}
	a->status = 200;
	if (wants_json(m, q)) {
		a->type = "application/json";
		a->body = json_dumps(at, JSON_COMPACT | JSON_ENCODE_ANY);
	} else if (json_is_string(at) || json_is_object(at)) {
		a->body = imds_text(at);
	} else {
		refuse(a, 501, "Cannot retrieve value. The value has an unsupported type.");
	}
	if (!a->body)
		refuse(a, 500, "Out of memory.");
}

static void answer_request(struct mmds *m, const struct http_request *q, struct answer *a)
{
	size_t len;

	if (!strcmp(q->verb, "GET")) {
		get(m, q, a);
	} else if (strcmp(q->verb, "PUT") != 0) {
		refuse(a, 405, "Not allowed HTTP method.");
		strcpy(a->more, "Allow: GET, PUT\r\n");
	} else if (http_header(q, "X-Forwarded-For", &len)) {
		refuse(a, 400, "Invalid header. Reason: X-Forwarded-For is not allowed.");
	} else {
		put(m, q, a);
	}
}

static long serve(void *ctx, char *bytes, size_t len, char **to, size_t *to_len)
{
	struct mmds *m = ctx;
	struct answer a = {0};
	struct http_request q;
	long used = http_parse_max(&q, bytes, len, BODY_MAX);

	if (used == 0)
		return 0;
	AUTO_LOCK(&m->lock);
	m->counts.requests++;
	if (used > 0)
		answer_request(m, &q, &a);
	else
		refuse(&a, (unsigned)-used, "%s", http_reason((unsigned)-used));
	m->counts.refused += a.status >= 400;
	return finish(&a, &q, used, to, to_len);
}

void mmds_service(struct mmds *m, struct net_service *s)
{
	*s = (struct net_service){.port = MMDS_PORT, .serve = serve, .ctx = m};
}
