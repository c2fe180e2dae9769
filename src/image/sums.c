#include "image/sums.h"

#include <ctype.h>
#include <string.h>

static bool is_named(const char *found, size_t len, const char *name)
{
	if (len > 2 && !strncmp(found, "./", 2)) {
		found += 2;
		len -= 2;
	}
	return len == strlen(name) && !memcmp(found, name, len);
}

static bool take(const char *hex, size_t len, enum digest_kind kind, char to[DIGEST_LEN_MAX + 1])
{
	char lower[DIGEST_LEN_MAX + 1];

	if (len > DIGEST_LEN_MAX)
		return false;
	for (size_t i = 0; i < len; i++)
		lower[i] = (char)tolower((unsigned char)hex[i]);
	lower[len] = 0;
	if (!digest_is_hex(lower, len, kind))
		return false;
	memcpy(to, lower, len + 1);
	return true;
}

/* "SHA256 (NAME) = DIGEST" */
static bool tagged(const char *line, size_t len, const char *name, enum digest_kind kind,
		   char to[DIGEST_LEN_MAX + 1])
{
	const char *tag = kind == DIGEST_SHA512 ? "SHA512 (" : "SHA256 (";
	const char *end = memmem(line, len, ") = ", 4);

	if (len < 8 || strncmp(line, tag, 8) != 0 || !end || end < line + 8)
		return false;
	return is_named(line + 8, (size_t)(end - line) - 8, name) &&
	       take(end + 4, len - (size_t)(end + 4 - line), kind, to);
}

static bool plain(const char *line, size_t len, const char *name, enum digest_kind kind,
		  char to[DIGEST_LEN_MAX + 1])
{
	const char *space = memchr(line, ' ', len);
	size_t digits = space ? (size_t)(space - line) : 0;

	/* The character behind the space says how the file was read. */
	if (!space || len < digits + 3 || (space[1] != ' ' && space[1] != '*'))
		return false;
	return is_named(space + 2, len - digits - 2, name) && take(line, digits, kind, to);
}

bool sums_find(const char *text, const char *name, enum digest_kind kind,
	       char to[DIGEST_LEN_MAX + 1])
{
	for (const char *line = text; *line;) {
		size_t all = strcspn(line, "\n"), len = all;

		if (len && line[len - 1] == '\r')
			len--;
		if (plain(line, len, name, kind, to) || tagged(line, len, name, kind, to))
			return true;
		line += all + (line[all] == '\n');
	}
	return false;
}
