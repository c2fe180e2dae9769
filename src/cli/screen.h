/* screen: draws a VGA's text screen: over the whole of a terminal, in its 16 colours; or, where
 * there is no terminal, as lines of text, each when it changed. Only what changed is written, and
 * what is not taken now is written the next time, as it is then.
 *
 * One thread. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "chipset/vga.h"

/* Takes all of it, or nothing. */
struct screen_out {
	bool (*put)(void *ctx, const char *text, uint32_t len);
	void *ctx;
};

struct screen {
	bool terminal;
	unsigned columns, rows; /* of the terminal; 0: unknown */
	bool entered;           /* the terminal's other screen is shown, and is ours */
	unsigned first;         /* row of the guest's screen that is the terminal's first */
	bool cursor;
	unsigned cursor_x, cursor_y;
	unsigned unsettled;     /* lines: for so many times the screen was another one */
	struct vga_text shown;  /* rows as they were written last */
	struct vga_text before; /* lines: what was there the last time */
};

/* Ends what entering began: to the terminal that shows it, then screen_left. */
#define SCREEN_LEAVE "\033[0m\033[?25h\033[?1049l"

void screen_init(struct screen *s, bool terminal);
void screen_resize(struct screen *s, unsigned columns, unsigned rows);
void screen_left(struct screen *s);
/* Returns whether something changed since the last time. t is changed where nothing of it can be
 * shown. */
bool screen_draw(struct screen *s, struct vga_text *t, const struct screen_out *out);

/* Row y of t as text without colours and without blanks at its end, into to[SCREEN_LINE_MAX]; its
 * length, a newline included; 0: the row is blank. */
#define SCREEN_LINE_MAX (VGA_COLUMNS_MAX * 3 + 1)
uint32_t screen_line(const struct vga_text *t, unsigned y, char *to);
