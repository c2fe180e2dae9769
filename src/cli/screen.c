#include "cli/screen.h"

#include <stdio.h>
#include <string.h>

#define ENTER    "\033[?1049h\033[0m\033[2J"
#define ROW_MAX  (VGA_COLUMNS_MAX * 24 + 64)
#define SETTLING 10 /* lines: a screen that never rests is written every so many times */

#define BLINK_BIT 0x80
#define BLANK     0x0720

/* Code page 437; the first 32 as a VGA draws them. */
static const uint16_t low_437[32] = {
	0x20,   0x263a, 0x263b, 0x2665, 0x2666, 0x2663, 0x2660, 0x2022, 0x25d8, 0x25cb, 0x25d9,
	0x2642, 0x2640, 0x266a, 0x266b, 0x263c, 0x25ba, 0x25c4, 0x2195, 0x203c, 0xb6,   0xa7,
	0x25ac, 0x21a8, 0x2191, 0x2193, 0x2192, 0x2190, 0x221f, 0x2194, 0x25b2, 0x25bc,
};
static const uint16_t high_437[129] = {
	0x2302, /* 0x7f */
	0xc7,   0xfc,   0xe9,   0xe2,   0xe4,   0xe0,   0xe5,   0xe7,   0xea,   0xeb,   0xe8,
	0xef,   0xee,   0xec,   0xc4,   0xc5,   0xc9,   0xe6,   0xc6,   0xf4,   0xf6,   0xf2,
	0xfb,   0xf9,   0xff,   0xd6,   0xdc,   0xa2,   0xa3,   0xa5,   0x20a7, 0x192,  0xe1,
	0xed,   0xf3,   0xfa,   0xf1,   0xd1,   0xaa,   0xba,   0xbf,   0x2310, 0xac,   0xbd,
	0xbc,   0xa1,   0xab,   0xbb,   0x2591, 0x2592, 0x2593, 0x2502, 0x2524, 0x2561, 0x2562,
	0x2556, 0x2555, 0x2563, 0x2551, 0x2557, 0x255d, 0x255c, 0x255b, 0x2510, 0x2514, 0x2534,
	0x252c, 0x251c, 0x2500, 0x253c, 0x255e, 0x255f, 0x255a, 0x2554, 0x2569, 0x2566, 0x2560,
	0x2550, 0x256c, 0x2567, 0x2568, 0x2564, 0x2565, 0x2559, 0x2558, 0x2552, 0x2553, 0x256b,
	0x256a, 0x2518, 0x250c, 0x2588, 0x2584, 0x258c, 0x2590, 0x2580, 0x3b1,  0xdf,   0x393,
	0x3c0,  0x3a3,  0x3c3,  0xb5,   0x3c4,  0x3a6,  0x398,  0x3a9,  0x3b4,  0x221e, 0x3c6,
	0x3b5,  0x2229, 0x2261, 0xb1,   0x2265, 0x2264, 0x2320, 0x2321, 0xf7,   0x2248, 0xb0,
	0x2219, 0xb7,   0x221a, 0x207f, 0xb2,   0x25a0, 0x20,
};

static uint32_t put_utf8(char *to, uint8_t c)
{
	unsigned u = c < 32 ? low_437[c] : c < 0x7f ? c : high_437[c - 0x7f];

	if (u < 0x80) {
		to[0] = (char)u;
		return 1;
	}
	if (u < 0x800) {
		to[0] = (char)(0xc0 | u >> 6);
		to[1] = (char)(0x80 | (u & 63));
		return 2;
	}
	to[0] = (char)(0xe0 | u >> 12);
	to[1] = (char)(0x80 | (u >> 6 & 63));
	to[2] = (char)(0x80 | (u & 63));
	return 3;
}

static bool is_blank(uint16_t cell)
{
	uint8_t c = cell & 0xff;

	return c == 0 || c == ' ' || c == 0xff;
}

uint32_t screen_line(const struct vga_text *t, unsigned y, char *to)
{
	unsigned columns = t->columns;
	uint32_t n = 0;

	while (columns && is_blank(t->cell[y][columns - 1]))
		columns--;
	for (unsigned x = 0; x < columns; x++)
		n += put_utf8(to + n, t->cell[y][x] & 0xff);
	if (n)
		to[n++] = '\n';
	return n;
}

/* --- what is shown instead --- */

static void clear(struct vga_text *t)
{
	for (unsigned y = 0; y < t->rows; y++)
		for (unsigned x = 0; x < t->columns; x++)
			t->cell[y][x] = BLANK;
	t->cursor = false;
}

static void replace_what_is_no_text(struct vga_text *t)
{
	static const char message[] = "The guest's screen shows graphics, which is not shown here.";

	if (t->graphics) {
		t->columns = 80;
		t->rows = 25;
	}
	if (t->graphics || t->blank)
		clear(t);
	for (unsigned x = 0; t->graphics && message[x]; x++)
		t->cell[0][x] = (uint16_t)(0x700 | (uint8_t)message[x]);
}

/* --- a terminal --- */

/* SGR parameters of an attribute. A VGA has blue where a terminal has red. */
static uint32_t put_colours(char *to, uint8_t attr, bool blinking)
{
	static const uint8_t ansi[] = {0, 4, 2, 6, 1, 5, 3, 7};
	unsigned fg = attr & 15, bg = attr >> 4;
	bool blink = blinking && attr & BLINK_BIT;

	if (blinking)
		bg &= 7;
	return (uint32_t)sprintf(to, "\033[0%s;%u;%um", blink ? ";5" : "",
				 (fg & 8 ? 90 : 30) + ansi[fg & 7],
				 (bg & 8 ? 100 : 40) + ansi[bg & 7]);
}

static uint32_t put_row(const struct screen *s, const struct vga_text *t, unsigned y, char *to)
{
	unsigned columns = s->columns && s->columns < t->columns ? s->columns : t->columns;
	int attr = -1;
	uint32_t n = (uint32_t)sprintf(to, "\033[%u;1H", y - s->first + 1);

	for (unsigned x = 0; x < columns; x++) {
		if (t->cell[y][x] >> 8 != attr) {
			attr = t->cell[y][x] >> 8;
			n += put_colours(to + n, (uint8_t)attr, t->blinking);
		}
		n += put_utf8(to + n, t->cell[y][x] & 0xff);
	}
	return n + (uint32_t)sprintf(to + n, "\033[0m%s", s->columns > columns ? "\033[K" : "");
}

/* Nothing of what the terminal shows is known any longer. */
static void forget(struct screen *s)
{
	s->shown.rows = s->shown.columns = 0;
	s->cursor = true;
	s->cursor_x = UINT32_MAX; /* unlike any */
}

void screen_init(struct screen *s, bool terminal)
{
	*s = (struct screen){.terminal = terminal};
	forget(s);
}

void screen_resize(struct screen *s, unsigned columns, unsigned rows)
{
	s->columns = columns;
	s->rows = rows;
	screen_left(s); /* and entered again, which clears it */
}

void screen_left(struct screen *s)
{
	s->entered = false;
	forget(s);
}

/* Which rows a terminal shows that has not enough of them: those around the cursor. */
static unsigned first_row(const struct screen *s, const struct vga_text *t)
{
	unsigned last = s->rows && s->rows < t->rows ? t->rows - s->rows : 0, first = s->first;

	if (t->cursor && t->cursor_y < first)
		first = t->cursor_y;
	else if (t->cursor && s->rows && t->cursor_y >= first + s->rows)
		first = t->cursor_y - s->rows + 1;
	return first < last ? first : last;
}

static bool same_row(const struct vga_text *a, const struct vga_text *b, unsigned y)
{
	return !memcmp(a->cell[y], b->cell[y], a->columns * sizeof a->cell[y][0]);
}

static bool enter(struct screen *s, const struct screen_out *out)
{
	if (!s->entered && out->put(out->ctx, ENTER, sizeof ENTER - 1))
		s->entered = true;
	return s->entered;
}

static bool draw_rows(struct screen *s, const struct vga_text *t, const struct screen_out *out)
{
	bool all = s->shown.rows != t->rows || s->shown.columns != t->columns ||
		   s->shown.blinking != t->blinking;
	unsigned rows = s->rows && s->rows < t->rows ? s->rows : t->rows;
	bool changed = false;
	char row[ROW_MAX];

	if (all) { /* so that each row differs */
		if (!out->put(out->ctx, "\033[2J", 4))
			return true;
		s->shown = *t;
		memset(s->shown.cell, 0xff, sizeof s->shown.cell);
	}
	for (unsigned y = s->first; y < s->first + rows; y++) {
		if (same_row(t, &s->shown, y))
			continue;
		changed = true;
		if (!out->put(out->ctx, row, put_row(s, t, y, row)))
			break;
		memcpy(s->shown.cell[y], t->cell[y], sizeof t->cell[y]);
		s->cursor_x = UINT32_MAX; /* writing moved it */
	}
	return changed;
}

static void draw_cursor(struct screen *s, const struct vga_text *t, const struct screen_out *out)
{
	unsigned y = t->cursor_y - s->first;
	char text[40];
	int n;

	if (s->cursor == t->cursor &&
	    (!t->cursor || (s->cursor_x == t->cursor_x && s->cursor_y == y)))
		return;
	n = t->cursor ? sprintf(text, "\033[%u;%uH\033[?25h", y + 1, t->cursor_x + 1)
		      : sprintf(text, "\033[?25l");
	if (!out->put(out->ctx, text, (uint32_t)n))
		return;
	s->cursor = t->cursor;
	s->cursor_x = t->cursor_x;
	s->cursor_y = y;
}

static bool draw_terminal(struct screen *s, const struct vga_text *t, const struct screen_out *out)
{
	unsigned first = first_row(s, t);
	bool changed;

	if (!enter(s, out))
		return true;
	if (first != s->first) {
		s->first = first;
		s->shown.rows = 0;
	}
	changed = draw_rows(s, t, out);
	draw_cursor(s, t, out);
	return changed;
}

/* --- lines --- */

/* By how many rows the screen moved up since: the least by which most rows that are not blank are
 * what they were. */
static unsigned moved_by(const struct vga_text *old, const struct vga_text *t)
{
	unsigned best = 0, most = 0;

	for (unsigned by = 0; by < t->rows; by++) {
		unsigned same = 0;
		char line[SCREEN_LINE_MAX];

		for (unsigned y = 0; y + by < t->rows; y++)
			same += !memcmp(old->cell[y + by], t->cell[y], sizeof t->cell[y]) &&
				screen_line(t, y, line);
		if (same > most) {
			most = same;
			best = by;
		}
	}
	return best;
}

static void move_up(struct vga_text *t, unsigned by)
{
	memmove(t->cell[0], t->cell[by], (VGA_ROWS_MAX - by) * sizeof t->cell[0]);
	for (unsigned y = t->rows - by; y < t->rows; y++)
		for (unsigned x = 0; x < VGA_COLUMNS_MAX; x++)
			t->cell[y][x] = 0;
}

/* A line that is still being written is not written out for each of its letters. */
static bool settled(struct screen *s, const struct vga_text *t)
{
	bool same = !memcmp(&s->before, t, sizeof *t);

	s->before = *t;
	if (!same && ++s->unsettled < SETTLING)
		return false;
	s->unsettled = 0;
	return true;
}

static bool draw_lines(struct screen *s, const struct vga_text *t, const struct screen_out *out)
{
	char line[SCREEN_LINE_MAX];
	bool changed = false;

	if (!settled(s, t))
		return true;
	if (s->shown.rows != t->rows || s->shown.columns != t->columns) {
		s->shown = *t;
		memset(s->shown.cell, 0, sizeof s->shown.cell);
	}
	move_up(&s->shown, moved_by(&s->shown, t));
	for (unsigned y = 0; y < t->rows; y++) {
		uint32_t n = screen_line(t, y, line);

		if (same_row(t, &s->shown, y))
			continue;
		changed = true;
		if (n && !out->put(out->ctx, line, n))
			break;
		memcpy(s->shown.cell[y], t->cell[y], sizeof t->cell[y]);
	}
	return changed;
}

/* --- --- */

bool screen_draw(struct screen *s, struct vga_text *t, const struct screen_out *out)
{
	replace_what_is_no_text(t);
	return s->terminal ? draw_terminal(s, t, out) : draw_lines(s, t, out);
}
