/* vga: a VGA as far as text goes (IBM VGA Technical Reference; FreeVGA). All registers are there
 * and keep what is written to them. Its memory at 0xa0000 is plain RAM of the machine, as fast as
 * any: text is found in it where a VGA has it, and a 256-colour mode's pixels too; what the planes
 * of other modes do to a write (masks, latches, a font in plane 2) does not happen. Who looks at
 * the screen reads that memory (vga_read_text), at times of their own choosing.
 *
 * There are no interrupts, no option ROM and no PCI function: it is found where every PC has one. */
#include "chipset/chipset.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "chipset/vga.h"

#define MONO_PORTS  0x3b0
#define MONO_LEN    12
#define COLOUR_BASE 0x3c0
#define COLOUR_LEN  32

#define PORT_ATTR     0x3c0
#define PORT_ATTR_IN  0x3c1
#define PORT_MISC     0x3c2 /* written; read: input status 0 */
#define PORT_ENABLE   0x3c3
#define PORT_SEQ      0x3c4
#define PORT_DAC_MASK 0x3c6
#define PORT_DAC_READ 0x3c7 /* index to read at; read: which of the two was written last */
#define PORT_DAC_AT   0x3c8
#define PORT_DAC_DATA 0x3c9
#define PORT_FEATURE  0x3ca /* read; written at CRTC + 6 */
#define PORT_MISC_IN  0x3cc
#define PORT_GFX      0x3ce
#define PORT_CRTC     0x3d4 /* or 0x3b4 */
#define PORT_STATUS   0x3da

#define SEQ_REGS  5
#define CRTC_REGS 25
#define GFX_REGS  9
#define ATTR_REGS 21
#define DAC_BYTES 768

#define MISC_COLOUR    0x01
#define SEQ_CLOCKING   1
#define SEQ_SCREEN_OFF 0x20
#define GFX_MISC       6
#define GFX_GRAPHICS   0x01

#define GFX_WINDOW_MONO 2 /* of bits 2 and 3: 0xb0000 */

#define ATTR_MODE     0x10
#define ATTR_GRAPHICS 0x01
#define ATTR_BLINK    0x08
#define ATTR_INDEX    0x1f

enum crtc {
	CRTC_DISPLAY_END_X = 0x01,
	CRTC_OVERFLOW = 0x07,
	CRTC_CELL_HEIGHT = 0x09,
	CRTC_CURSOR_START = 0x0a,
	CRTC_CURSOR_END = 0x0b,
	CRTC_START = 0x0c, /* high, low */
	CRTC_CURSOR = 0x0e,
	CRTC_PROTECT = 0x11,
	CRTC_DISPLAY_END_Y = 0x12,
	CRTC_PITCH = 0x13,
};
#define PROTECTED     0x80 /* registers 0-7 */
#define LINE_COMPARE8 0x10 /* of CRTC_OVERFLOW: this bit is not protected */
#define CURSOR_OFF    0x20
#define DOUBLE_SCAN   0x80

/* 70 frames a second of 449 lines, of which 400 are shown */
#define LINE_NS       31778u
#define LINES         449u
#define SHOWN_LINES   400u
#define RETRACE_LINE  412u
#define RETRACE_LINES 2u
#define LINE_SHOWN_NS 25400u
#define STATUS_HIDDEN 0x01
#define STATUS_VSYNC  0x08

#define INPUT_SENSE 0x10 /* a monitor is there */
#define TEXT_CELLS  0x4000u
#define BLANK_CELL  0x0720

struct vga {
	struct device dev;
	struct bus_region mono, colour;
	struct bus *bus;
	struct clock *clock;
	const uint8_t *memory; /* [VGA_MEMORY_LEN]; NULL: none */

	pthread_mutex_t lock; /* guards all below */
	uint8_t misc, feature, enable;
	uint8_t seq_at, seq[SEQ_REGS];
	uint8_t crtc_at, crtc[CRTC_REGS];
	uint8_t gfx_at, gfx[GFX_REGS];
	uint8_t attr_at, attr[ATTR_REGS];
	bool attr_data; /* the next write to PORT_ATTR is data, not an index */
	uint8_t dac_mask, dac[DAC_BYTES];
	uint16_t dac_read, dac_write; /* bytes in dac */
	bool dac_reading;
};

static struct vga *to_vga(struct device *d)
{
	return container_of(d, struct vga, dev);
}

/* --- registers; called with lock held --- */

static uint8_t status(struct vga *v)
{
	uint64_t in_frame = clock_now(v->clock) % (LINE_NS * LINES);
	unsigned line = (unsigned)(in_frame / LINE_NS);
	uint8_t s = 0;

	if (line >= SHOWN_LINES || in_frame % LINE_NS >= LINE_SHOWN_NS)
		s |= STATUS_HIDDEN;
	if (line >= RETRACE_LINE && line < RETRACE_LINE + RETRACE_LINES)
		s |= STATUS_VSYNC;
	return s;
}

/* The CRTC is at 0x3b4 or at 0x3d4, by a bit that the guest sets. Returns the port as it would be
 * at the latter; 0: nothing is there. */
static uint16_t normal_port(const struct vga *v, uint16_t port)
{
	bool colour = v->misc & MISC_COLOUR;

	if (port >= PORT_ATTR && port < PORT_CRTC - 4)
		return port;
	if ((port >= PORT_ATTR) != colour)
		return 0;
	return colour ? port : port + 0x20;
}

static uint8_t reg_at(const uint8_t *regs, unsigned n, unsigned at)
{
	return at < n ? regs[at] : 0;
}

static uint8_t read_dac(struct vga *v)
{
	uint8_t byte = v->dac[v->dac_read];

	v->dac_read = (v->dac_read + 1) % DAC_BYTES;
	return byte;
}

static uint8_t read_port(struct vga *v, uint16_t port)
{
	switch (normal_port(v, port)) {
	case PORT_ATTR: return v->attr_at;
	case PORT_ATTR_IN: return reg_at(v->attr, ATTR_REGS, v->attr_at & ATTR_INDEX);
	case PORT_MISC: return INPUT_SENSE;
	case PORT_ENABLE: return v->enable;
	case PORT_SEQ: return v->seq_at;
	case PORT_SEQ + 1: return reg_at(v->seq, SEQ_REGS, v->seq_at);
	case PORT_DAC_MASK: return v->dac_mask;
	case PORT_DAC_READ: return v->dac_reading ? 3 : 0;
	case PORT_DAC_AT: return (uint8_t)(v->dac_write / 3);
	case PORT_DAC_DATA: return read_dac(v);
	case PORT_FEATURE: return v->feature;
	case PORT_MISC_IN: return v->misc;
	case PORT_GFX: return v->gfx_at;
	case PORT_GFX + 1: return reg_at(v->gfx, GFX_REGS, v->gfx_at);
	case PORT_CRTC: return v->crtc_at;
	case PORT_CRTC + 1: return reg_at(v->crtc, CRTC_REGS, v->crtc_at);
	case PORT_STATUS: v->attr_data = false; return status(v);
	default: return 0xff;
	}
}

static void write_reg(uint8_t *regs, unsigned n, unsigned at, uint8_t value)
{
	if (at < n)
		regs[at] = value;
}

static void write_crtc(struct vga *v, uint8_t value)
{
	uint8_t mask = 0xff;

	if (v->crtc_at <= CRTC_OVERFLOW && v->crtc[CRTC_PROTECT] & PROTECTED)
		mask = v->crtc_at == CRTC_OVERFLOW ? LINE_COMPARE8 : 0;
	if (v->crtc_at < CRTC_REGS)
		v->crtc[v->crtc_at] = (v->crtc[v->crtc_at] & ~mask) | (value & mask);
}

static void write_attr(struct vga *v, uint8_t value)
{
	if (v->attr_data)
		write_reg(v->attr, ATTR_REGS, v->attr_at & ATTR_INDEX, value & 0x3f);
	else
		v->attr_at = value & 0x3f;
	v->attr_data = !v->attr_data;
}

static void write_dac(struct vga *v, uint8_t value)
{
	v->dac[v->dac_write] = value & 0x3f;
	v->dac_write = (v->dac_write + 1) % DAC_BYTES;
}

static void write_port(struct vga *v, uint16_t port, uint8_t value)
{
	switch (normal_port(v, port)) {
	case PORT_ATTR: write_attr(v, value); break;
	case PORT_MISC: v->misc = value; break;
	case PORT_ENABLE: v->enable = value & 1; break;
	case PORT_SEQ: v->seq_at = value & 7; break;
	case PORT_SEQ + 1: write_reg(v->seq, SEQ_REGS, v->seq_at, value); break;
	case PORT_DAC_MASK: v->dac_mask = value; break;
	case PORT_DAC_READ:
		v->dac_read = value * 3;
		v->dac_reading = true;
		break;
	case PORT_DAC_AT:
		v->dac_write = value * 3;
		v->dac_reading = false;
		break;
	case PORT_DAC_DATA: write_dac(v, value); break;
	case PORT_GFX: v->gfx_at = value & 15; break;
	case PORT_GFX + 1: write_reg(v->gfx, GFX_REGS, v->gfx_at, value); break;
	case PORT_CRTC: v->crtc_at = value & 0x1f; break;
	case PORT_CRTC + 1: write_crtc(v, value); break;
	case PORT_STATUS: v->feature = value; break;
	default: break;
	}
}

static uint64_t locked_read(struct vga *v, uint16_t port)
{
	AUTO_LOCK(&v->lock);

	return read_port(v, port);
}

static void locked_write(struct vga *v, uint16_t port, uint64_t value)
{
	AUTO_LOCK(&v->lock);

	write_port(v, port, (uint8_t)value);
}

static uint64_t mono_read(struct bus_region *r, uint64_t offset, unsigned size)
{
	return locked_read(container_of(r, struct vga, mono), (uint16_t)(MONO_PORTS + offset));
}

static void mono_write(struct bus_region *r, uint64_t offset, uint64_t value, unsigned size)
{
	locked_write(container_of(r, struct vga, mono), (uint16_t)(MONO_PORTS + offset), value);
}

static uint64_t colour_read(struct bus_region *r, uint64_t offset, unsigned size)
{
	return locked_read(container_of(r, struct vga, colour), (uint16_t)(COLOUR_BASE + offset));
}

static void colour_write(struct bus_region *r, uint64_t offset, uint64_t value, unsigned size)
{
	locked_write(container_of(r, struct vga, colour), (uint16_t)(COLOUR_BASE + offset), value);
}

/* --- the screen --- */

static unsigned shown_lines(const struct vga *v)
{
	uint8_t over = v->crtc[CRTC_OVERFLOW];

	return v->crtc[CRTC_DISPLAY_END_Y] + ((over & 0x02) ? 0x100u : 0) +
	       ((over & 0x40) ? 0x200u : 0) + 1;
}

static unsigned crtc_pair(const struct vga *v, unsigned high)
{
	return v->crtc[high] << 8 | v->crtc[high + 1];
}

/* Where in the memory the text is. The window is elsewhere while a font is loaded; text is not. */
static unsigned text_at(const struct vga *v)
{
	return (v->gfx[GFX_MISC] >> 2 & 3) == GFX_WINDOW_MONO ? 0x10000 : 0x18000;
}

static void place_cursor(const struct vga *v, struct vga_text *t, unsigned pitch)
{
	unsigned at = (crtc_pair(v, CRTC_CURSOR) - crtc_pair(v, CRTC_START)) & (TEXT_CELLS - 1);
	uint8_t start = v->crtc[CRTC_CURSOR_START];

	t->cursor_x = pitch ? at % pitch : 0;
	t->cursor_y = pitch ? at / pitch : 0;
	t->cursor = !(start & CURSOR_OFF) && (start & 31) <= (v->crtc[CRTC_CURSOR_END] & 31) &&
		    t->cursor_x < t->columns && t->cursor_y < t->rows;
}

void vga_read_text(struct device *d, struct vga_text *t)
{
	struct vga *v = to_vga(d);
	unsigned pitch, height, start, from;
	AUTO_LOCK(&v->lock);

	height = ((v->crtc[CRTC_CELL_HEIGHT] & 31) + 1u) *
		 (v->crtc[CRTC_CELL_HEIGHT] & DOUBLE_SCAN ? 2 : 1);
	pitch = v->crtc[CRTC_PITCH] * 2u;
	start = crtc_pair(v, CRTC_START);
	from = text_at(v);
	*t = (struct vga_text){
		.columns = (unsigned)min_u64(v->crtc[CRTC_DISPLAY_END_X] + 1u, VGA_COLUMNS_MAX),
		.rows = (unsigned)min_u64(shown_lines(v) / height, VGA_ROWS_MAX),
		.graphics =
			(v->gfx[GFX_MISC] & GFX_GRAPHICS) || (v->attr[ATTR_MODE] & ATTR_GRAPHICS),
		.blank = v->seq[SEQ_CLOCKING] & SEQ_SCREEN_OFF,
		.blinking = v->attr[ATTR_MODE] & ATTR_BLINK,
	};
	place_cursor(v, t, pitch);
	for (unsigned y = 0; y < t->rows; y++)
		for (unsigned x = 0; x < t->columns; x++) {
			unsigned cell = (start + y * pitch + x) & (TEXT_CELLS - 1);

			t->cell[y][x] = v->memory
						? (uint16_t)load_le(v->memory + from + cell * 2, 2)
						: BLANK_CELL;
		}
}

/* --- --- */

/* As a BIOS leaves it in mode 3: 80 columns, 25 rows, 16 lines each. A kernel that is started
 * without a BIOS finds it like that. */
static void vga_reset(struct device *d)
{
	static const uint8_t seq[SEQ_REGS] = {0x03, 0x00, 0x03, 0x00, 0x02};
	static const uint8_t crtc[CRTC_REGS] = {
		0x5f, 0x4f, 0x50, 0x82, 0x55, 0x81, 0xbf, 0x1f, 0x00, 0x4f, 0x0d, 0x0e, 0x00,
		0x00, 0x00, 0x00, 0x9c, 0x8e, 0x8f, 0x28, 0x1f, 0x96, 0xb9, 0xa3, 0xff};
	static const uint8_t gfx[GFX_REGS] = {0, 0, 0, 0, 0, 0x10, 0x0e, 0x0f, 0xff};
	static const uint8_t attr[ATTR_REGS] = {0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x14,
						0x07, 0x38, 0x39, 0x3a, 0x3b, 0x3c, 0x3d,
						0x3e, 0x3f, 0x0c, 0x00, 0x0f, 0x08, 0x00};
	struct vga *v = to_vga(d);
	AUTO_LOCK(&v->lock);

	v->misc = 0x67;
	v->feature = v->seq_at = v->crtc_at = v->gfx_at = 0;
	v->enable = 1;
	v->attr_at = 0x20;
	v->attr_data = v->dac_reading = false;
	v->dac_mask = 0xff;
	v->dac_read = v->dac_write = 0;
	memcpy(v->seq, seq, sizeof seq);
	memcpy(v->crtc, crtc, sizeof crtc);
	memcpy(v->gfx, gfx, sizeof gfx);
	memcpy(v->attr, attr, sizeof attr);
	for (unsigned i = 0; i < DAC_BYTES;
	     i++) { /* 2 of 6 bits for each colour: red, green, blue */
		unsigned colour = i / 3, high = 2 - i % 3, low = 5 - i % 3;

		v->dac[i] = (uint8_t)((colour >> high & 1) * 42 + (colour >> low & 1) * 21);
	}
}

static void vga_state(struct device *d, struct state *s)
{
	struct vga *v = to_vga(d);
	AUTO_LOCK(&v->lock);

	state_u8(s, "misc", &v->misc);
	state_u8(s, "feature", &v->feature);
	state_u8(s, "enable", &v->enable);
	state_u8(s, "seq_at", &v->seq_at);
	state_bytes(s, "seq", v->seq, sizeof v->seq);
	state_u8(s, "crtc_at", &v->crtc_at);
	state_bytes(s, "crtc", v->crtc, sizeof v->crtc);
	state_u8(s, "gfx_at", &v->gfx_at);
	state_bytes(s, "gfx", v->gfx, sizeof v->gfx);
	state_u8(s, "attr_at", &v->attr_at);
	state_bytes(s, "attr", v->attr, sizeof v->attr);
	state_bool(s, "attr_data", &v->attr_data);
	state_u8(s, "dac_mask", &v->dac_mask);
	state_bytes(s, "dac", v->dac, sizeof v->dac);
	state_u16(s, "dac_read", &v->dac_read);
	state_u16(s, "dac_write", &v->dac_write);
	state_bool(s, "dac_reading", &v->dac_reading);
	if (!state_loading(s) || state_failed(s))
		return;
	if (v->dac_read >= DAC_BYTES || v->dac_write >= DAC_BYTES)
		state_fail(s, "a palette index past its end");
}

static void vga_free(struct device *d)
{
	struct vga *v;

	if (!d)
		return;
	v = to_vga(d);
	bus_unmap(v->bus, &v->mono);
	bus_unmap(v->bus, &v->colour);
	pthread_mutex_destroy(&v->lock);
	free(v);
}

static int vga_new(struct device **out, const struct device_env *env, struct err *e)
{
	struct vga *v = calloc(1, sizeof *v);
	int r;

	if (!v)
		return err_set(e, ENOMEM, "VGA");
	v->dev.type = &vga_type;
	v->bus = env->bus;
	v->clock = env->clock;
	v->memory = env->mem ? mem_span(env->mem, VGA_MEMORY, VGA_MEMORY_LEN) : NULL;
	pthread_mutex_init(&v->lock, NULL);
	v->mono = (struct bus_region){"vga-mono", 1, 1, mono_read, mono_write};
	v->colour = (struct bus_region){"vga", 1, 1, colour_read, colour_write};
	vga_reset(&v->dev);
	r = bus_map(env->bus, BUS_PIO, MONO_PORTS, MONO_LEN, &v->mono, e);
	if (r >= 0)
		r = bus_map(env->bus, BUS_PIO, COLOUR_BASE, COLOUR_LEN, &v->colour, e);
	if (r < 0)
		vga_free(&v->dev);
	else
		*out = &v->dev;
	return r;
}

const struct device_type vga_type = {
	.name = "vga",
	.new = vga_new,
	.reset = vga_reset,
	.state = vga_state,
	.free = vga_free,
};
