/* state: names each field of a device once, and saves, loads, and prints it.
 *
 * A walker calls state_u8(s, "ier", &u->ier) for each field; struct state decides
 * what that means: a writer appends it to a section, a reader fills it from one, a
 * printer shows it. Failure is sticky: after the first, every call does nothing, so
 * walkers check nothing per field. A loading walker may be fed a hostile file: it
 * checks every value it will index or loop with, and calls state_fail.
 *
 * A section is {type name, instance, length, crc32} followed by fields {name, type,
 * length, value}, all little-endian (docs/snapshot-format.md). Fields may stand in
 * any order in the file; an unknown field makes loading fail unless its name starts
 * with '~' (may be ignored); a missing one fails unless read with an _or call.
 *
 * A struct state is used by one thread. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bits.h"
#include "base/err.h"

struct state;

/* Writing. The bytes belong to s until state_free. */
WARN_UNUSED struct state *state_writer(void);
const void *state_written(struct state *s, size_t *len);

/* Reading: bytes must outlive s. */
WARN_UNUSED struct state *state_reader(const void *bytes, size_t len);

/* Printing: "section.instance.field = value" lines, kept in s as text. */
WARN_UNUSED struct state *state_printer(void);
const char *state_text(struct state *s);

void state_free(struct state *s); /* accepts NULL */

/* One section. A reader looks for {type, instance}, and state_end reports fields that
 * nobody read. Sections do not nest. */
void state_begin(struct state *s, const char *type, uint32_t instance);
void state_end(struct state *s);

bool state_loading(const struct state *s);
bool state_failed(const struct state *s);
/* 0, or the first failure as a negative errno, with its section and field in e. */
WARN_UNUSED int state_result(const struct state *s, struct err *e);
__attribute__((format(printf, 2, 3))) void state_fail(struct state *s, const char *fmt, ...);

void state_bool(struct state *s, const char *name, bool *v);
void state_u8(struct state *s, const char *name, uint8_t *v);
void state_u16(struct state *s, const char *name, uint16_t *v);
void state_u32(struct state *s, const char *name, uint32_t *v);
void state_u64(struct state *s, const char *name, uint64_t *v);
/* Fixed length: a file with another length fails. */
void state_bytes(struct state *s, const char *name, void *v, size_t len);
/* Fields that older files lack: missing reads as the given value. */
void state_u8_or(struct state *s, const char *name, uint8_t *v, uint8_t missing);
void state_u32_or(struct state *s, const char *name, uint32_t *v, uint32_t missing);
void state_u64_or(struct state *s, const char *name, uint64_t *v, uint64_t missing);
