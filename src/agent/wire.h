/* wire: what holon and the agent in a guest say to each other over a vsock connection, framed.
 *
 * A frame is a type, three zero bytes, the length of what follows (u32, little-endian, at most
 * WIRE_MAX) and that. One connection does one thing. The client begins with WIRE_HELLO; the
 * agent says nothing before it has to. Neither side believes the other: what does not fit here
 * ends the connection with -EPROTO.
 *
 *   exec   client: HELLO EXEC, then ARG..., ENV..., USER, DIR, TTY as wanted, START
 *          then, both at once: client IN (empty: the end), RESIZE, SIGNAL; agent OUT, ERR;
 *          at last agent EXIT, or before START was done FAIL
 *   put    client: HELLO PUT, USER if wanted, PATH, a tree (tree.h); agent: DONE or FAIL
 *   get    client: HELLO GET, USER if wanted, PATH; agent: a tree, or FAIL
 *
 * Threads: one at a time. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bits.h"
#include "base/err.h"

#define AGENT_PORT   909 /* below 1024: in the guest only root can take it */
#define WIRE_VERSION 1
#define WIRE_MAX     65536u
#define WIRE_HEADER  8u

enum wire_type {
	WIRE_HELLO = 1, /* u8 version, u8 enum wire_job */
	WIRE_USER,      /* text: a user's name or number */
	WIRE_FAIL,      /* u32 errno, text */
	WIRE_ARG,       /* text; the first one is the program */
	WIRE_ENV,       /* text: NAME=VALUE */
	WIRE_DIR,       /* text: where it starts */
	WIRE_TTY,       /* u16 rows, u16 columns: it gets a terminal of this size */
	WIRE_START,
	WIRE_IN,
	WIRE_OUT,
	WIRE_ERR,
	WIRE_RESIZE, /* as WIRE_TTY */
	WIRE_SIGNAL, /* u32 */
	WIRE_EXIT,   /* u8: 0, it ended by itself, 1, by a signal; u32 its status, or the signal */
	WIRE_PATH,   /* text: where a tree goes to, or comes from */
	WIRE_DONE,
	WIRE_ENTRY, /* tree.h has this and the next three */
	WIRE_DATA,
	WIRE_UP,
	WIRE_END,
};

enum wire_job { WIRE_EXEC = 1, WIRE_PUT, WIRE_GET };

struct frame {
	enum wire_type type;
	uint32_t len;
	uint8_t *
		data; /* in the wire's buffer, until the next frame; a zero byte stands behind it */
};

struct wire {
	int fd;
	size_t in_at, in_end, out_at, out_end;
	uint8_t in[WIRE_HEADER + WIRE_MAX + 1], out[2 * (WIRE_HEADER + WIRE_MAX)];
	uint8_t held; /* of in, where a frame's zero byte stands */
	bool holds;
};

/* Takes fd, which becomes non-blocking. wire_done closes it. */
void wire_init(struct wire *w, int fd);
void wire_done(struct wire *w);

/* Whether a frame of len bytes can be put now. */
bool wire_room(const struct wire *w, size_t len);
/* Puts a frame into the buffer. There is room for it. */
void wire_put(struct wire *w, enum wire_type type, const void *data, size_t len);
/* Writes what it can of the buffer. 0: all; -EAGAIN: some is left; else a negative errno. */
WARN_UNUSED int wire_flush(struct wire *w);
/* The next frame. -EAGAIN: it is not all there; -EPIPE: the other has gone; -EPROTO. */
WARN_UNUSED int wire_get(struct wire *w, struct frame *f);

/* The same, and wait. */
WARN_UNUSED int wire_send(struct wire *w, enum wire_type type, const void *data, size_t len,
			  struct err *e);
WARN_UNUSED int wire_send_text(struct wire *w, enum wire_type type, const char *text,
			       struct err *e);
WARN_UNUSED int wire_drain(struct wire *w, struct err *e);
WARN_UNUSED int wire_next(struct wire *w, struct frame *f, struct err *e);

/* The bytes of a frame as a text: -EPROTO if it has a zero byte in it. */
WARN_UNUSED int frame_text(const struct frame *f, const char **text, struct err *e);
/* What a WIRE_FAIL says, as our own error. */
int frame_failed(const struct frame *f, struct err *e);
/* A frame that has no business here. */
int frame_unexpected(const struct frame *f, struct err *e);
