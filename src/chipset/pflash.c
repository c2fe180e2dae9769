#include "chipset/pflash.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"

/* Commands, written to any address of the chip (Intel's Basic Command Set, CFI 1.4) */
#define CMD_PROGRAM      0x10
#define CMD_PROGRAM_ALT  0x40
#define CMD_ERASE        0x20
#define CMD_CLEAR_STATUS 0x50
#define CMD_LOCK_SETUP   0x60
#define CMD_READ_STATUS  0x70
#define CMD_READ_ID      0x90
#define CMD_READ_CFI     0x98
#define CMD_CONFIRM      0xd0
#define CMD_BUFFER       0xe8
#define CMD_READ_ARRAY   0xff

#define STATUS_READY         0x80
#define STATUS_ERASE_ERROR   0x20
#define STATUS_PROGRAM_ERROR 0x10
#define ERASED               0xff
#define BUFFER_MAX           64u /* bytes in a buffered write */
#define MANUFACTURER         0x89
#define DEVICE_ID            0x18

/* What the chip waits for next. */
enum step {
	STEP_COMMAND,
	STEP_PROGRAM,
	STEP_ERASE,
	STEP_LOCK,
	STEP_COUNT,
	STEP_DATA,
	STEP_CONFIRM,
	STEPS
};
/* What reading shows. */
enum shown { SHOW_ARRAY, SHOW_STATUS, SHOW_ID, SHOW_CFI, SHOWNS };

struct pflash {
	struct device dev;
	struct bus_region region;
	struct bus *bus;
	struct pflash_opts o;

	pthread_mutex_t lock; /* guards all below, and the bytes */
	uint8_t step, shown, status;
	uint32_t left;     /* bytes of a buffered write that are still to come */
	uint32_t first, n; /* where the buffer goes, and how many bytes are in it */
	uint8_t buffer[BUFFER_MAX];
};

static const struct device_type pflash_type;

static struct pflash *to_pflash(struct device *d)
{
	return container_of(d, struct pflash, dev);
}

static void saved(struct pflash *p, uint32_t at, uint32_t len)
{
	if (p->o.save)
		p->o.save(p->o.ctx, at, len);
}

/* --- reading --- */

static uint8_t cfi_byte(const struct pflash *p, uint32_t at)
{
	uint32_t blocks = p->o.len / PFLASH_BLOCK - 1;

	switch (at) {
	case 0x10: return 'Q';
	case 0x11: return 'R';
	case 0x12: return 'Y';
	case 0x13: return 1; /* Intel's extended command set */
	case 0x27: return (uint8_t)(31 - __builtin_clz(p->o.len));
	case 0x2a: return 6; /* 1 << 6 bytes in a buffered write */
	case 0x2c: return 1; /* one region of equal blocks: count - 1, size / 256 */
	case 0x2d: return (uint8_t)blocks;
	case 0x2e: return (uint8_t)(blocks >> 8);
	case 0x2f: return (uint8_t)(PFLASH_BLOCK / 256);
	case 0x30: return (uint8_t)(PFLASH_BLOCK / 256 >> 8);
	default: return 0;
	}
}

static uint64_t pflash_read(struct bus_region *r, uint64_t offset, unsigned size)
{
	struct pflash *p = container_of(r, struct pflash, region);
	AUTO_LOCK(&p->lock);

	switch (p->shown) {
	case SHOW_ARRAY: return load_le(p->o.bytes + offset, size);
	case SHOW_ID: return offset % 2 ? DEVICE_ID : MANUFACTURER;
	case SHOW_CFI: return cfi_byte(p, (uint32_t)(offset & 0xff));
	default: return p->status;
	}
}

/* --- writing; called with lock held --- */

/* Programming only clears bits. */
static void program(struct pflash *p, uint32_t at, const uint8_t *from, uint32_t len)
{
	for (uint32_t i = 0; i < len; i++)
		p->o.bytes[at + i] &= from[i];
	p->status |= STATUS_READY;
	saved(p, at, len);
}

static void erase(struct pflash *p, uint32_t at)
{
	at -= at % PFLASH_BLOCK;
	memset(p->o.bytes + at, ERASED, PFLASH_BLOCK);
	p->status |= STATUS_READY;
	saved(p, at, PFLASH_BLOCK);
}

static void command(struct pflash *p, uint8_t c)
{
	p->shown = SHOW_STATUS;
	switch (c) {
	case CMD_PROGRAM:
	case CMD_PROGRAM_ALT: p->step = STEP_PROGRAM; break;
	case CMD_ERASE: p->step = STEP_ERASE; break;
	case CMD_LOCK_SETUP: p->step = STEP_LOCK; break;
	case CMD_BUFFER: p->step = STEP_COUNT; break;
	case CMD_CLEAR_STATUS: p->status = 0; break; /* until it did something: OVMF looks */
	case CMD_READ_STATUS: break;
	case CMD_READ_ID: p->shown = SHOW_ID; break;
	case CMD_READ_CFI: p->shown = SHOW_CFI; break;
	default: p->shown = SHOW_ARRAY; break;
	}
}

/* Data of a buffered write: within one buffer's length of the first. */
static void buffer(struct pflash *p, uint32_t at, const uint8_t *from, uint32_t len)
{
	if (p->n == 0)
		p->first = at;
	if (len > p->left || at != p->first + p->n) {
		p->status |= STATUS_READY | STATUS_PROGRAM_ERROR;
		p->step = STEP_COMMAND;
		return;
	}
	memcpy(p->buffer + p->n, from, len);
	p->n += len;
	p->left -= len;
	if (p->left == 0)
		p->step = STEP_CONFIRM;
}

static void confirm(struct pflash *p, uint8_t c)
{
	p->step = STEP_COMMAND;
	if (c == CMD_CONFIRM)
		program(p, p->first, p->buffer, p->n);
	else
		p->status |= STATUS_READY | STATUS_PROGRAM_ERROR;
}

static void pflash_write(struct bus_region *r, uint64_t offset, uint64_t value, unsigned size)
{
	struct pflash *p = container_of(r, struct pflash, region);
	uint8_t bytes[8], c = (uint8_t)value;
	uint32_t at = (uint32_t)offset;
	AUTO_LOCK(&p->lock);

	store_le(bytes, value, 8);
	switch (p->step) {
	case STEP_COMMAND: command(p, c); break;
	case STEP_PROGRAM:
		program(p, at, bytes, size);
		p->step = STEP_COMMAND;
		break;
	case STEP_ERASE:
		if (c == CMD_CONFIRM)
			erase(p, at);
		else
			p->status |= STATUS_READY | STATUS_ERASE_ERROR | STATUS_PROGRAM_ERROR;
		p->step = STEP_COMMAND;
		break;
	case STEP_LOCK: p->step = STEP_COMMAND; break; /* no block is ever locked */
	case STEP_COUNT:
		p->left = c % BUFFER_MAX + 1;
		p->n = 0;
		p->step = STEP_DATA;
		break;
	case STEP_DATA: buffer(p, at, bytes, size); break;
	default: confirm(p, c); break;
	}
}

/* --- */

static void pflash_reset(struct device *d)
{
	struct pflash *p = to_pflash(d);
	AUTO_LOCK(&p->lock);

	p->step = STEP_COMMAND;
	p->shown = SHOW_ARRAY;
	p->status = 0;
	p->left = p->first = p->n = 0;
}

static void pflash_state(struct device *d, struct state *s)
{
	struct pflash *p = to_pflash(d);
	AUTO_LOCK(&p->lock);

	state_u8(s, "step", &p->step);
	state_u8(s, "shown", &p->shown);
	state_u8(s, "status", &p->status);
	state_u32(s, "left", &p->left);
	state_u32(s, "first", &p->first);
	state_u32(s, "count", &p->n);
	state_bytes(s, "buffer", p->buffer, sizeof p->buffer);
	state_bytes(s, "bytes", p->o.bytes, p->o.len);
	if (!state_loading(s) || state_failed(s))
		return;
	if (p->step >= STEPS || p->shown >= SHOWNS || p->n > BUFFER_MAX ||
	    p->left > BUFFER_MAX - p->n || p->first >= p->o.len || p->n > p->o.len - p->first)
		state_fail(s, "the flash is in a state that there is not");
}

static void pflash_free(struct device *d)
{
	struct pflash *p;

	if (!d)
		return;
	p = to_pflash(d);
	bus_unmap(p->bus, &p->region);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

int pflash_new(struct device **out, struct bus *bus, const struct pflash_opts *o, struct err *e)
{
	struct pflash *p = calloc(1, sizeof *p);
	int r;

	if (!p)
		return err_set(e, ENOMEM, "flash");
	p->dev.type = &pflash_type;
	p->bus = bus;
	p->o = *o;
	p->region = (struct bus_region){"pflash", 1, 8, pflash_read, pflash_write};
	pthread_mutex_init(&p->lock, NULL);
	pflash_reset(&p->dev);
	r = bus_map(bus, BUS_MMIO, o->gpa, o->len, &p->region, e);
	if (r < 0)
		pflash_free(&p->dev);
	else
		*out = &p->dev;
	return r;
}

static const struct device_type pflash_type = {
	.name = "pflash",
	.reset = pflash_reset,
	.state = pflash_state,
	.free = pflash_free,
};
