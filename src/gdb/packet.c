#include "gdb/packet.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/bits.h"

#define ESCAPE '}'

int gdb_hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

static enum gdb_event outside(struct gdb_reader *r, uint8_t byte)
{
	switch (byte) {
	case '$':
		r->state = GDB_INSIDE;
		r->len = 0;
		r->sum = 0;
		r->too_long = false;
		return GDB_NOTHING;
	case 0x03: return GDB_INTERRUPT;
	case '-': return GDB_AGAIN;
	default: return GDB_NOTHING;
	}
}

static void inside(struct gdb_reader *r, uint8_t byte)
{
	if (byte == '#') {
		r->state = GDB_SUM_1;
		return;
	}
	r->sum = (uint8_t)(r->sum + byte);
	if (r->len < GDB_PAYLOAD)
		r->payload[r->len++] = (char)byte;
	else
		r->too_long = true;
}

static enum gdb_event ended(struct gdb_reader *r, int digit)
{
	r->state = GDB_OUTSIDE;
	r->payload[r->len] = 0;
	if (digit < 0 || r->too_long || (r->told | digit) != r->sum)
		return GDB_DAMAGED;
	return GDB_PACKET;
}

enum gdb_event gdb_read(struct gdb_reader *r, uint8_t byte)
{
	int digit;

	switch (r->state) {
	case GDB_OUTSIDE: return outside(r, byte);
	case GDB_INSIDE:
		if (byte == '$') /* the one before was cut off */
			return outside(r, byte);
		inside(r, byte);
		return GDB_NOTHING;
	case GDB_SUM_1:
		digit = gdb_hex_digit((char)byte);
		r->too_long |= digit < 0;
		r->told = (uint8_t)((digit & 15) << 4);
		r->state = GDB_SUM_2;
		return GDB_NOTHING;
	case GDB_SUM_2: return ended(r, gdb_hex_digit((char)byte));
	}
	return GDB_NOTHING;
}

/* --- */

static void put_byte(struct gdb_writer *w, char c)
{
	if (w->len <= GDB_PAYLOAD)
		w->frame[w->len++] = c;
}

void gdb_begin(struct gdb_writer *w)
{
	w->frame[0] = '$';
	w->len = 1;
}

void gdb_put(struct gdb_writer *w, const char *text)
{
	while (*text)
		put_byte(w, *text++);
}

void gdb_putf(struct gdb_writer *w, const char *fmt, ...)
{
	char text[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	gdb_put(w, text);
}

void gdb_put_hex(struct gdb_writer *w, const void *bytes, uint32_t len)
{
	static const char digits[] = "0123456789abcdef";
	const uint8_t *p = bytes;

	for (uint32_t i = 0; i < len && w->len + 1 <= GDB_PAYLOAD; i++) {
		put_byte(w, digits[p[i] >> 4]);
		put_byte(w, digits[p[i] & 15]);
	}
}

void gdb_put_binary(struct gdb_writer *w, const void *bytes, uint32_t len)
{
	const char *p = bytes;

	for (uint32_t i = 0; i < len && w->len + 1 <= GDB_PAYLOAD; i++) {
		if (p[i] && strchr("#$}*", p[i])) {
			put_byte(w, ESCAPE);
			put_byte(w, (char)(p[i] ^ 0x20));
		} else {
			put_byte(w, p[i]);
		}
	}
}

void gdb_finish(struct gdb_writer *w)
{
	static const char digits[] = "0123456789abcdef";
	uint8_t sum = 0;

	for (uint32_t i = 1; i < w->len; i++)
		sum = (uint8_t)(sum + (uint8_t)w->frame[i]);
	w->frame[w->len++] = '#';
	w->frame[w->len++] = digits[sum >> 4];
	w->frame[w->len++] = digits[sum & 15];
}

/* --- */

bool gdb_take_hex(const char **p, uint64_t *v)
{
	const char *at = *p;
	uint64_t value = 0;

	for (int digit; (digit = gdb_hex_digit(*at)) >= 0; at++) {
		if (value >> 60)
			return false;
		value = value << 4 | (unsigned)digit;
	}
	if (at == *p)
		return false;
	*p = at;
	*v = value;
	return true;
}

bool gdb_take(const char **p, const char *text)
{
	size_t len = strlen(text);

	if (strncmp(*p, text, len))
		return false;
	*p += len;
	return true;
}

bool gdb_take_bytes(const char **p, void *to, uint32_t len)
{
	uint8_t *out = to;

	for (uint32_t i = 0; i < len; i++) {
		int high = gdb_hex_digit((*p)[0]), low = high < 0 ? -1 : gdb_hex_digit((*p)[1]);

		if (low < 0)
			return false;
		out[i] = (uint8_t)(high << 4 | low);
		*p += 2;
	}
	return true;
}

uint32_t gdb_unescape(char *to, const char *from, uint32_t len)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < len; i++) {
		char c = from[i];

		if (c == ESCAPE && i + 1 < len)
			c = (char)(from[++i] ^ 0x20);
		to[n++] = c;
	}
	return n;
}
