#include "api/http.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

struct headers {
	bool has_host, has_length, old, close, keep, continues;
	size_t length, length_max;
};

static bool is_token(const char *s, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (!isalnum((unsigned char)s[i]) && !(s[i] && strchr("!#$%&'*+-.^_`|~", s[i])))
			return false;
	return len > 0;
}

static bool is_text(const char *s, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)s[i] < 0x20 ? s[i] != '\t' : s[i] == 0x7f)
			return false;
	return true;
}

static bool is_target(const char *s, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (s[i] <= 0x20 || s[i] > 0x7e || s[i] == '#')
			return false;
	return len > 0 && *s == '/';
}

static bool is_name(const char *name, size_t len, const char *wanted)
{
	return strlen(wanted) == len && !strncasecmp(name, wanted, len);
}

/* Whether a list "a, b" has this word. */
static bool has_word(const char *list, size_t len, const char *word)
{
	while (len) {
		size_t n = 0;

		while (n < len && !strchr(", \t", list[n]))
			n++;
		if (is_name(list, n, word))
			return true;
		n += n < len;
		list += n;
		len -= n;
	}
	return false;
}

/* Returns 0, or a status. */
static int take_length(struct headers *h, const char *value, size_t len)
{
	size_t n = 0;

	for (size_t i = 0; i < len; i++) {
		if (!isdigit((unsigned char)value[i]))
			return 400;
		n = n * 10 + (size_t)(value[i] - '0');
		if (n > h->length_max)
			return 413;
	}
	if (!len || (h->has_length && h->length != n))
		return 400;
	h->has_length = true;
	h->length = n;
	return 0;
}

/* Its name is line[0..returned). */
static size_t split_header(const char *line, size_t len, const char *colon, const char **value,
			   size_t *value_len)
{
	size_t name_len = (size_t)(colon - line), n = len - name_len - 1;
	const char *v = colon + 1;

	for (; n && (*v == ' ' || *v == '\t'); v++)
		n--;
	while (n && (v[n - 1] == ' ' || v[n - 1] == '\t'))
		n--;
	*value = v;
	*value_len = n;
	return name_len;
}

static int take_header(struct headers *h, const char *line, size_t len)
{
	const char *colon = memchr(line, ':', len), *value;
	size_t name_len, value_len;

	if (!colon)
		return 400;
	name_len = split_header(line, len, colon, &value, &value_len);
	if (!is_token(line, name_len) || !is_text(value, value_len))
		return 400;
	if (is_name(line, name_len, "Host"))
		h->has_host = true;
	else if (is_name(line, name_len, "Content-Length"))
		return take_length(h, value, value_len);
	else if (is_name(line, name_len, "Transfer-Encoding"))
		return 501;
	else if (is_name(line, name_len, "Connection")) {
		h->close |= has_word(value, value_len, "close");
		h->keep |= has_word(value, value_len, "keep-alive");
	} else if (is_name(line, name_len, "Expect")) {
		if (!is_name(value, value_len, "100-continue"))
			return 417;
		h->continues = true;
	}
	return 0;
}

/* "VERB /path?query HTTP/1.1"; the blanks become zeros when the request is whole. */
static int check_request_line(struct headers *h, const char *line, size_t len)
{
	const char *blank = memchr(line, ' ', len), *target, *second;

	if (!blank || !is_token(line, (size_t)(blank - line)))
		return 400;
	target = blank + 1;
	second = memchr(target, ' ', len - (size_t)(target - line));
	if (!second || !is_target(target, (size_t)(second - target)))
		return 400;
	if (line + len - second != 9 || memcmp(second + 1, "HTTP/", 5) != 0)
		return 400;
	if (memcmp(second + 6, "1.0", 3) != 0 && memcmp(second + 6, "1.1", 3) != 0)
		return 505;
	h->old = second[8] == '0';
	return 0;
}

static int check_head(struct headers *h, const char *head, size_t len)
{
	const char *line = head, *end;
	int status = 0;

	/* It ends in an empty line. */
	for (; !status && (end = memmem(line, len - (size_t)(line - head), "\r\n", 2)) != NULL;
	     line = end + 2) {
		if (end == line)
			break;
		status = line == head ? check_request_line(h, line, (size_t)(end - line))
				      : take_header(h, line, (size_t)(end - line));
	}
	if (!status && !h->old && !h->has_host)
		status = 400;
	return status;
}

static void cut_up(struct http_request *q, char *buf, size_t head_len)
{
	char *target, *end;
	const char *line_end = memmem(buf, head_len, "\r\n", 2);

	q->headers = line_end + 2;
	q->headers_len = head_len - (size_t)(q->headers - buf);

	q->verb = buf;
	target = memchr(buf, ' ', head_len);
	*target++ = 0;
	end = strchr(target, ' ');
	*end = 0;
	q->path = target;
	q->query = strchr(target, '?');
	if (q->query)
		*q->query++ = 0;
	else
		q->query = end;
}

const char *http_header(const struct http_request *q, const char *name, size_t *len)
{
	const char *line = q->headers, *stop = line + q->headers_len, *end, *value;

	for (; (end = memmem(line, (size_t)(stop - line), "\r\n", 2)) != NULL; line = end + 2) {
		size_t line_len = (size_t)(end - line);
		const char *colon = memchr(line, ':', line_len);

		if (colon && is_name(line, (size_t)(colon - line), name)) {
			split_header(line, line_len, colon, &value, len);
			return value;
		}
	}
	return NULL;
}

long http_parse(struct http_request *q, char *buf, size_t len)
{
	return http_parse_max(q, buf, len, HTTP_BODY_MAX);
}

long http_parse_max(struct http_request *q, char *buf, size_t len, size_t body_max)
{
	struct headers h = {.length_max = body_max};
	const char *end = memmem(buf, min_u64(len, HTTP_HEAD_MAX), "\r\n\r\n", 4);
	size_t head_len;
	int status;

	*q = (struct http_request){0};
	if (!end)
		return len >= HTTP_HEAD_MAX ? -431 : 0;
	head_len = (size_t)(end - buf) + 4;
	status = check_head(&h, buf, head_len);
	if (status)
		return -status;
	if (len - head_len < h.length) {
		q->expects_continue = h.continues && len == head_len;
		return 0;
	}
	cut_up(q, buf, head_len);
	q->body = buf + head_len;
	q->body_len = h.length;
	q->old = h.old;
	q->keep_alive = !h.close && (!h.old || h.keep);
	return (long)(head_len + h.length);
}

/* --- queries --- */

static int hex(char c)
{
	if (isdigit((unsigned char)c))
		return c - '0';
	c = (char)tolower((unsigned char)c);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool decode(char *s)
{
	char *to = s;

	for (; *s; s++, to++) {
		int high, low;

		*to = *s == '+' ? ' ' : *s;
		if (*s != '%')
			continue;
		high = hex(s[1]);
		low = high < 0 ? -1 : hex(s[2]);
		if (low < 0 || !(high | low))
			return false;
		*to = (char)(high << 4 | low);
		s += 2;
	}
	*to = 0;
	return true;
}

int http_next_pair(char **query, char **name, char **value)
{
	char *pair = *query, *equals;
	size_t len = strcspn(pair, "&");

	if (!*pair)
		return 0;
	*query = pair + len + (pair[len] == '&');
	pair[len] = 0;
	equals = strchr(pair, '=');
	*name = pair;
	*value = equals ? equals + 1 : pair + len;
	if (equals)
		*equals = 0;
	return decode(*name) && decode(*value) ? 1 : -1;
}

const char *http_reason(unsigned status)
{
	static const struct {
		unsigned status;
		const char *text;
	} reasons[] = {
		{200, "OK"},
		{204, "No Content"},
		{400, "Bad Request"},
		{401, "Unauthorized"},
		{403, "Forbidden"},
		{404, "Not Found"},
		{405, "Method Not Allowed"},
		{409, "Conflict"},
		{413, "Content Too Large"},
		{417, "Expectation Failed"},
		{431, "Request Header Fields Too Large"},
		{500, "Internal Server Error"},
		{501, "Not Implemented"},
		{503, "Service Unavailable"},
		{505, "HTTP Version Not Supported"},
	};

	for (unsigned i = 0; i < ARRAY_SIZE(reasons); i++)
		if (reasons[i].status == status)
			return reasons[i].text;
	return "Unknown";
}
