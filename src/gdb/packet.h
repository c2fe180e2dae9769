/* packet: the framing of GDB's remote serial protocol: "$payload#checksum", acknowledged by "+" or
 * "-" until both sides agree not to; 0x03 alone is an interrupt.
 * (GDB manual, appendix "GDB Remote Serial Protocol", Overview.) */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define GDB_PAYLOAD 0x4000u /* bytes of a payload at most, ours and theirs */
#define GDB_FRAME   (GDB_PAYLOAD + 4u)

enum gdb_event {
	GDB_NOTHING,   /* more bytes are needed */
	GDB_PACKET,    /* reader.payload is one */
	GDB_INTERRUPT, /* 0x03 */
	GDB_AGAIN,     /* "-": they ask for the last reply once more */
	GDB_DAMAGED,   /* checksum or length is wrong: ask for it once more */
};

struct gdb_reader {
	enum { GDB_OUTSIDE, GDB_INSIDE, GDB_SUM_1, GDB_SUM_2 } state;
	bool too_long;
	uint8_t sum, told;
	uint32_t len;
	char payload[GDB_PAYLOAD + 1]; /* escapes are still in it; ends in 0 */
};

/* Takes one byte. */
enum gdb_event gdb_read(struct gdb_reader *r, uint8_t byte);

/* A reply under way: a payload that silently stops at GDB_PAYLOAD. */
struct gdb_writer {
	uint32_t len;
	char frame[GDB_FRAME]; /* "$", the payload, and after gdb_finish "#" and the checksum */
};
void gdb_begin(struct gdb_writer *w);
void gdb_put(struct gdb_writer *w, const char *text);
__attribute__((format(printf, 2, 3))) void gdb_putf(struct gdb_writer *w, const char *fmt, ...);
void gdb_put_hex(struct gdb_writer *w, const void *bytes, uint32_t len);
void gdb_put_binary(struct gdb_writer *w, const void *bytes, uint32_t len); /* escaped */
void gdb_finish(struct gdb_writer *w); /* frame[len] is whole */

/* --- payloads, as they come --- */
int gdb_hex_digit(char c); /* -1: none */
/* Hex digits at *p into *v, p behind them; false: there are none, or more than 64 bits. */
bool gdb_take_hex(const char **p, uint64_t *v);
/* Takes text off the payload's front. */
bool gdb_take(const char **p, const char *text);
/* len bytes as 2 * len hex digits; false: something else is there. */
bool gdb_take_bytes(const char **p, void *to, uint32_t len);
/* Undoes the escapes of binary data; returns its length. Within one buffer: to may be from. */
uint32_t gdb_unescape(char *to, const char *from, uint32_t len);
