/* vga: what is on the text screen of a VGA (chipset/vga.c), for whoever shows it. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/bits.h"

struct device;

#define VGA_MEMORY      0xa0000u
#define VGA_MEMORY_LEN  0x20000u
#define VGA_COLUMNS_MAX 160u
#define VGA_ROWS_MAX    60u

struct vga_text {
	unsigned columns, rows;      /* as the registers have them, but at most what fits below */
	unsigned cursor_x, cursor_y; /* meaningful while cursor is set */
	bool cursor;
	bool graphics; /* a graphics mode: nothing can be told of it */
	bool blank;    /* the screen is off */
	bool blinking; /* attribute bit 7 means that, not a bright background */
	uint16_t cell[VGA_ROWS_MAX]
		     [VGA_COLUMNS_MAX]; /* attribute << 8 | character (code page 437) */
};

/* Any thread. The guest may be drawing at the time. */
void vga_read_text(struct device *vga, struct vga_text *t);
