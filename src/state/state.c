/* state: the three walkers behind one set of calls; docs/snapshot-format.md has the bytes.
 *
 * The reader never trusts what it reads: the framing of all sections is checked when it
 * is made, a section's checksum and the framing of its fields when the section begins.
 * After that each field is known to lie inside the section, and only its type and length
 * remain to be compared with what the caller wants. */
#include "state/state.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "state/crc32.h"

#define NAME_MAX_LEN 63
#define SECTION_TAIL 12 /* instance, length, crc32: after the name */
#define FIELD_TAIL   5  /* type, length: after the name */

enum mode { WRITING, READING, PRINTING };

enum field_type { FIELD_BOOL = 1, FIELD_U8, FIELD_U16, FIELD_U32, FIELD_U64, FIELD_BYTES };

static const char *const type_names[] = {
	[FIELD_BOOL] = "bool", [FIELD_U8] = "u8",   [FIELD_U16] = "u16",
	[FIELD_U32] = "u32",   [FIELD_U64] = "u64", [FIELD_BYTES] = "bytes",
};

/* A field of the section being read; the pointers lead into the foreign bytes. */
struct field {
	const char *name; /* name_len characters, not terminated */
	const uint8_t *value;
	uint32_t len;
	uint8_t name_len, type;
	bool used;
};

/* A section's header as found in the file. */
struct section {
	const uint8_t *start; /* of the header */
	const char *name;
	const uint8_t *fields;
	uint32_t instance, len, crc;
	uint8_t name_len;
};

struct state {
	enum mode mode;
	bool failed;
	struct err err;

	char section[NAME_MAX_LEN + 1]; /* "" between sections */
	uint32_t instance;

	uint8_t *out; /* writer: bytes; printer: text */
	size_t out_len, out_cap;
	size_t section_start; /* writer: where the open section's header begins */

	const uint8_t *in; /* reader */
	size_t in_len;
	struct field *fields; /* of the open section */
	size_t field_count, next_field;
};

/* --- life --- */

static struct state *new_state(enum mode mode)
{
	struct state *s = calloc(1, sizeof *s);

	if (s)
		s->mode = mode;
	return s;
}

struct state *state_writer(void)
{
	return new_state(WRITING);
}

struct state *state_printer(void)
{
	return new_state(PRINTING);
}

void state_free(struct state *s)
{
	if (!s)
		return;
	free(s->out);
	free(s->fields);
	free(s);
}

bool state_loading(const struct state *s)
{
	return s->mode == READING;
}

bool state_failed(const struct state *s)
{
	return s->failed;
}

int state_result(const struct state *s, struct err *e)
{
	if (!s->failed)
		return 0;
	return err_set(e, s->err.code, "%s", s->err.text);
}

/* Records the first failure; in a section, with its name in front. */
__attribute__((format(printf, 3, 0))) static void fail_v(struct state *s, int code, const char *fmt,
							 va_list ap)
{
	char text[sizeof s->err.text];

	if (s->failed)
		return;
	s->failed = true;
	vsnprintf(text, sizeof text, fmt, ap);
	err_set(&s->err, code, "%s", text);
	if (s->section[0])
		err_wrap(&s->err, "section '%s' %u", s->section, s->instance);
}

__attribute__((format(printf, 3, 4))) static void fail(struct state *s, int code, const char *fmt,
						       ...)
{
	va_list ap;

	va_start(ap, fmt);
	fail_v(s, code, fmt, ap);
	va_end(ap);
}

void state_fail(struct state *s, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fail_v(s, EBADMSG, fmt, ap);
	va_end(ap);
}

/* --- writing and printing --- */

/* Room for n more bytes of output; NULL and failed when there is no memory. */
static void *grow(struct state *s, size_t n)
{
	if (s->out_cap - s->out_len < n) {
		size_t cap = s->out_cap * 2 + n + 256;
		uint8_t *p = realloc(s->out, cap);

		if (!p) {
			fail(s, ENOMEM, "no memory for %zu bytes", cap);
			return NULL;
		}
		s->out = p;
		s->out_cap = cap;
	}
	s->out_len += n;
	return s->out + s->out_len - n;
}

static void put(struct state *s, const void *bytes, size_t n)
{
	void *p = s->failed ? NULL : grow(s, n);

	if (p && n)
		memcpy(p, bytes, n);
}

static void put_le(struct state *s, uint64_t v, unsigned size)
{
	uint8_t bytes[8];

	store_le(bytes, v, size);
	put(s, bytes, size);
}

static void put_name(struct state *s, const char *name)
{
	size_t n = strlen(name);

	assert(n > 0 && n <= NAME_MAX_LEN);
	put_le(s, n, 1);
	put(s, name, n);
}

static void write_field(struct state *s, const char *name, enum field_type type, const void *v,
			size_t len)
{
	put_name(s, name);
	put_le(s, type, 1);
	put_le(s, len, 4);
	put(s, v, len);
}

static void begin_writing(struct state *s)
{
	s->section_start = s->out_len;
	put_name(s, s->section);
	put_le(s, s->instance, 4);
	put_le(s, 0, 8); /* length and checksum: end_writing knows them */
}

/* What the checksum covers: the header up to the checksum itself, and the fields. */
static uint32_t section_crc(const uint8_t *header, size_t name_len, const uint8_t *fields,
			    size_t len)
{
	uint32_t crc = crc32_update(0, header, 1 + name_len + 8);

	return crc32_update(crc, fields, len);
}

static void end_writing(struct state *s)
{
	uint8_t *header = s->out + s->section_start;
	size_t name_len = header[0];
	uint8_t *tail = header + 1 + name_len, *fields = tail + SECTION_TAIL;
	size_t len = s->out + s->out_len - fields;

	store_le(tail + 4, len, 4);
	store_le(tail + 8, section_crc(header, name_len, fields, len), 4);
}

__attribute__((format(printf, 2, 3))) static void print(struct state *s, const char *fmt, ...)
{
	char text[256];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	put(s, text, min_u64(n, sizeof text - 1));
}

static void print_field(struct state *s, const char *name, enum field_type type, const void *v,
			size_t len)
{
	const uint8_t *bytes = v;

	print(s, "%s.%u.%s = ", s->section, s->instance, name);
	if (type == FIELD_BOOL)
		print(s, "%s", bytes[0] ? "true" : "false");
	else if (type != FIELD_BYTES)
		print(s, "%#" PRIx64, load_le(v, len));
	else
		for (size_t i = 0; i < len; i++)
			print(s, "%02x", bytes[i]);
	put(s, "\n", 1);
}

const void *state_written(struct state *s, size_t *len)
{
	*len = s->out_len;
	return s->out;
}

const char *state_text(struct state *s)
{
	char *p = grow(s, 1);

	if (!p)
		return "";
	*p = 0;
	s->out_len--; /* more may follow: the terminator is not part of it */
	return (const char *)s->out;
}

/* --- reading --- */

/* Names come from foreign files and go to terminals: nothing but these. */
static bool is_name(const uint8_t *p, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (p[i] <= 0x20 || p[i] >= 0x7f)
			return false;
	return len > 0 && len <= NAME_MAX_LEN;
}

static bool name_is(const char *name, size_t len, const char *wanted)
{
	return strlen(wanted) == len && !memcmp(name, wanted, len);
}

/* Takes the section header at offset at apart. false unless all of the section is there. */
static bool parse_section(const struct state *s, size_t at, struct section *x)
{
	const uint8_t *p = s->in + at;
	size_t left = s->in_len - at;

	if (left < 1 + SECTION_TAIL || left - 1 - SECTION_TAIL < p[0] || !is_name(p + 1, p[0]))
		return false;
	*x = (struct section){.start = p, .name = (const char *)p + 1, .name_len = p[0]};
	p += 1 + x->name_len;
	left -= 1 + x->name_len + SECTION_TAIL;
	x->instance = load_le(p, 4);
	x->len = load_le(p + 4, 4);
	x->crc = load_le(p + 8, 4);
	x->fields = p + SECTION_TAIL;
	return x->len <= left;
}

static size_t section_end(const struct state *s, const struct section *x)
{
	return x->fields + x->len - s->in;
}

struct state *state_reader(const void *bytes, size_t len)
{
	struct state *s = new_state(READING);
	struct section x;

	if (!s)
		return NULL;
	s->in = bytes;
	s->in_len = len;
	for (size_t at = 0; at < len; at = section_end(s, &x)) {
		if (!parse_section(s, at, &x)) {
			fail(s, EBADMSG, "no whole section at byte %zu", at);
			break;
		}
	}
	return s;
}

/* The one section with the name and instance asked for. */
static bool find_section(struct state *s, struct section *found)
{
	struct section x;
	unsigned n = 0;

	for (size_t at = 0; at < s->in_len; at = section_end(s, &x)) {
		/* state_reader has parsed them all; the bytes may be a file mapped shared. */
		if (!parse_section(s, at, &x))
			break;
		if (x.instance != s->instance || !name_is(x.name, x.name_len, s->section))
			continue;
		*found = x;
		n++;
	}
	if (n != 1)
		fail(s, EBADMSG, n ? "is there more than once" : "is missing");
	return n == 1;
}

/* Takes the field at p apart; returns its length in the file, 0 if it is not all there. */
static size_t parse_field(const uint8_t *p, size_t left, struct field *f)
{
	size_t head;

	if (left < 1 + FIELD_TAIL || left - 1 - FIELD_TAIL < p[0] || !is_name(p + 1, p[0]))
		return 0;
	*f = (struct field){.name = (const char *)p + 1, .name_len = p[0]};
	head = 1 + f->name_len + FIELD_TAIL;
	f->type = p[1 + f->name_len];
	f->len = load_le(p + 2 + f->name_len, 4);
	f->value = p + head;
	return f->len <= left - head ? head + f->len : 0;
}

/* Two passes, to count and to keep; they agree, as x's bytes passed the checksum. */
static void parse_fields(struct state *s, const struct section *x)
{
	size_t at, n, count = 0;
	struct field f;

	for (at = 0; at < x->len; at += n, count++) {
		n = parse_field(x->fields + at, x->len - at, &f);
		if (!n) {
			fail(s, EBADMSG, "no whole field at byte %zu", at);
			return;
		}
	}
	s->fields = calloc(count + 1, sizeof *s->fields);
	if (!s->fields) {
		fail(s, ENOMEM, "no memory for %zu fields", count);
		return;
	}
	for (at = 0; s->field_count < count; at += n) {
		n = parse_field(x->fields + at, x->len - at, &s->fields[s->field_count]);
		if (!n)
			break;
		s->field_count++;
	}
}

static void begin_reading(struct state *s)
{
	struct section x = {0};

	if (!find_section(s, &x))
		return;
	if (section_crc(x.start, x.name_len, x.fields, x.len) != x.crc)
		fail(s, EBADMSG, "checksum is wrong");
	else
		parse_fields(s, &x);
}

static void end_reading(struct state *s)
{
	for (size_t i = 0; i < s->field_count; i++) {
		const struct field *f = &s->fields[i];

		if (!f->used && f->name[0] != '~')
			fail(s, EBADMSG, "unknown field '%.*s'", f->name_len, f->name);
	}
	free(s->fields);
	s->fields = NULL;
	s->field_count = s->next_field = 0;
}

/* The field of that name. Walkers mostly ask in the order of the file, so the look
 * starts where the last one ended. */
static struct field *find_field(struct state *s, const char *name)
{
	for (size_t i = 0; i < s->field_count; i++) {
		size_t k = (s->next_field + i) % s->field_count;
		struct field *f = &s->fields[k];

		if (!name_is(f->name, f->name_len, name))
			continue;
		f->used = true;
		s->next_field = k + 1;
		return f;
	}
	return NULL;
}

/* The value of the field, len bytes of that type. NULL when it is missing (a failure,
 * unless it may be) or not as asked for (a failure). */
static const uint8_t *read_field(struct state *s, const char *name, enum field_type type,
				 size_t len, bool may_miss)
{
	struct field *f = find_field(s, name);

	if (!f && !may_miss)
		fail(s, EBADMSG, "field '%s' is missing", name);
	else if (f && f->type != type)
		fail(s, EBADMSG, "field '%s' is no %s", name, type_names[type]);
	else if (f && f->len != len)
		fail(s, EBADMSG, "field '%s' has %u bytes instead of %zu", name, f->len, len);
	return f && !s->failed ? f->value : NULL;
}

/* --- what walkers call --- */

void state_begin(struct state *s, const char *type, uint32_t instance)
{
	assert(strlen(type) <= NAME_MAX_LEN && !s->section[0]);
	if (s->failed)
		return;
	strcpy(s->section, type);
	s->instance = instance;
	if (s->mode == WRITING)
		begin_writing(s);
	else if (s->mode == READING)
		begin_reading(s);
}

void state_end(struct state *s)
{
	if (s->mode == WRITING && !s->failed)
		end_writing(s);
	else if (s->mode == READING)
		end_reading(s);
	s->section[0] = 0;
}

/* One field of any type. v is in host form, which is the file's: little-endian. */
static void field(struct state *s, const char *name, enum field_type type, void *v, size_t len,
		  const void *missing)
{
	const void *from;

	if (s->failed)
		return;
	assert(s->section[0]);
	switch (s->mode) {
	case WRITING: write_field(s, name, type, v, len); break;
	case PRINTING: print_field(s, name, type, v, len); break;
	case READING:
		from = read_field(s, name, type, len, missing);
		if (!from && !s->failed)
			from = missing;
		if (from && len)
			memcpy(v, from, len);
		break;
	}
}

void state_bool(struct state *s, const char *name, bool *v)
{
	uint8_t byte = s->mode == READING ? 0 : *v;

	field(s, name, FIELD_BOOL, &byte, 1, NULL);
	if (byte > 1)
		fail(s, EBADMSG, "field '%s' is neither true nor false", name);
	else if (s->mode == READING && !s->failed)
		*v = byte;
}

void state_u8(struct state *s, const char *name, uint8_t *v)
{
	field(s, name, FIELD_U8, v, sizeof *v, NULL);
}

void state_u16(struct state *s, const char *name, uint16_t *v)
{
	field(s, name, FIELD_U16, v, sizeof *v, NULL);
}

void state_u32(struct state *s, const char *name, uint32_t *v)
{
	field(s, name, FIELD_U32, v, sizeof *v, NULL);
}

void state_u64(struct state *s, const char *name, uint64_t *v)
{
	field(s, name, FIELD_U64, v, sizeof *v, NULL);
}

void state_bytes(struct state *s, const char *name, void *v, size_t len)
{
	field(s, name, FIELD_BYTES, v, len, NULL);
}

void state_u8_or(struct state *s, const char *name, uint8_t *v, uint8_t missing)
{
	field(s, name, FIELD_U8, v, sizeof *v, &missing);
}

void state_u32_or(struct state *s, const char *name, uint32_t *v, uint32_t missing)
{
	field(s, name, FIELD_U32, v, sizeof *v, &missing);
}

void state_u64_or(struct state *s, const char *name, uint64_t *v, uint64_t missing)
{
	field(s, name, FIELD_U64, v, sizeof *v, &missing);
}
