/* i8042: the PC's keyboard controller (IBM PC/AT Technical Reference, section 4), with its
 * reset line and A20 gate, and port 0x92 that does the same faster. A keyboard is plugged in
 * where somebody can type on it. A byte sent to a missing keyboard, or to the mouse, is answered
 * as the controller does when a device is silent: 0xfe with the time-out bit, so that drivers
 * give up at once. A20 is a bit that reads back; guest memory always has all lines.
 *
 * What the keyboard wants to send stays in it until the guest has read it, so that nothing is
 * lost when an answer of the controller's own takes its place in the output buffer. */
#include "chipset/chipset.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/auto.h"
#include "chipset/ps2_keyboard.h"

#define PORT_STATUS   (PORT_I8042 + 4)
#define PORT_FAST_A20 0x92
#define IRQ_KEYBOARD  1
#define IRQ_MOUSE     12

#define STATUS_OBF      0x01
#define STATUS_SYSTEM   0x04
#define STATUS_COMMAND  0x08
#define STATUS_UNLOCKED 0x10
#define STATUS_AUX_OBF  0x20
#define STATUS_TIMEOUT  0x40

#define CMD_BYTE_IRQ1   0x01
#define CMD_BYTE_IRQ12  0x02
#define CMD_BYTE_SYSTEM 0x04
#define CMD_BYTE_NO_KBD 0x10
#define CMD_BYTE_NO_AUX 0x20
#define CMD_BYTE_XLATE  0x40 /* set 2 becomes set 1 */

#define KBD_BREAK 0xf0 /* set 2: the key of the next byte goes up */

#define OUT_NOT_RESET 0x01
#define OUT_A20       0x02
#define OUT_OBF       0x10
#define OUT_AUX_OBF   0x20

struct i8042 {
	struct device dev;
	struct bus_region data, status, fast; /* ports 0x60, 0x64, 0x92 */
	struct bus *bus;
	struct irq_line *irq_kbd, *irq_aux;
	struct machine_port *machine;
	bool has_kbd;
	void (*room)(void *ctx);
	void *room_ctx;

	pthread_mutex_t lock; /* guards all below */
	uint8_t cmd_byte;
	uint8_t out_buf;
	uint8_t flags;   /* STATUS_OBF, _COMMAND, _AUX_OBF, _TIMEOUT */
	uint8_t command; /* waits for its data byte; 0: none does */
	uint8_t held;    /* how many of the keyboard's bytes out_buf stands for */
	bool a20;
	bool short_of_room; /* somebody waits to type more */
	struct ps2_keyboard kbd;
};

/* By codes of set 2: those of set 1. Above, they stay what they are, but for two. */
static const uint8_t set1_of[128] = {
	0xff, 0x43, 0x41, 0x3f, 0x3d, 0x3b, 0x3c, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3e, 0x0f, 0x29,
	0x59, 0x65, 0x38, 0x2a, 0x70, 0x1d, 0x10, 0x02, 0x5a, 0x66, 0x71, 0x2c, 0x1f, 0x1e, 0x11,
	0x03, 0x5b, 0x67, 0x2e, 0x2d, 0x20, 0x12, 0x05, 0x04, 0x5c, 0x68, 0x39, 0x2f, 0x21, 0x14,
	0x13, 0x06, 0x5d, 0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5e, 0x6a, 0x72, 0x32, 0x24,
	0x16, 0x08, 0x09, 0x5f, 0x6b, 0x33, 0x25, 0x17, 0x18, 0x0b, 0x0a, 0x60, 0x6c, 0x34, 0x35,
	0x26, 0x27, 0x19, 0x0c, 0x61, 0x6d, 0x73, 0x28, 0x74, 0x1a, 0x0d, 0x62, 0x6e, 0x3a, 0x36,
	0x1c, 0x1b, 0x75, 0x2b, 0x63, 0x76, 0x55, 0x56, 0x77, 0x78, 0x79, 0x7a, 0x0e, 0x7b, 0x7c,
	0x4f, 0x7d, 0x4b, 0x47, 0x7e, 0x7f, 0x6f, 0x52, 0x53, 0x50, 0x4c, 0x4d, 0x48, 0x01, 0x45,
	0x57, 0x4e, 0x51, 0x4a, 0x37, 0x49, 0x46, 0x54,
};

static struct i8042 *to_i8042(struct device *d)
{
	return container_of(d, struct i8042, dev);
}

static void i8042_update_irq(struct i8042 *k)
{
	bool full = k->flags & STATUS_OBF, aux = k->flags & STATUS_AUX_OBF;

	irq_set(k->irq_kbd, full && !aux && (k->cmd_byte & CMD_BYTE_IRQ1));
	irq_set(k->irq_aux, full && aux && (k->cmd_byte & CMD_BYTE_IRQ12));
}

static void answer(struct i8042 *k, uint8_t v, uint8_t flags)
{
	k->out_buf = v;
	k->held = 0;
	k->flags = (k->flags & STATUS_COMMAND) | STATUS_OBF | flags;
}

static uint8_t translate(uint8_t v)
{
	switch (v) {
	case 0x83: return 0x41;
	case 0x84: return 0x54;
	default: return v < sizeof set1_of ? set1_of[v] : v;
	}
}

/* The keyboard's next byte into the output buffer, if that is empty. */
static void take_from_keyboard(struct i8042 *k)
{
	bool xlate = k->cmd_byte & CMD_BYTE_XLATE, up;
	uint8_t v;

	if ((k->flags & STATUS_OBF) || !k->has_kbd || (k->cmd_byte & CMD_BYTE_NO_KBD) ||
	    !ps2_keyboard_peek(&k->kbd, 0, &v))
		return;
	up = xlate && v == KBD_BREAK && ps2_keyboard_peek(&k->kbd, 1, &v);
	k->held = up ? 2 : 1;
	k->out_buf = xlate ? translate(v) | (up ? 0x80 : 0) : v;
	k->flags = (k->flags & STATUS_COMMAND) | STATUS_OBF;
}

/* Returns whether room() is due, after unlocking. */
static bool out_buf_was_read(struct i8042 *k)
{
	bool due = k->held && k->short_of_room && k->room;

	ps2_keyboard_sent(&k->kbd, k->held);
	if (due)
		k->short_of_room = false;
	k->held = 0;
	k->flags &= STATUS_COMMAND;
	return due;
}

static uint8_t output_port(const struct i8042 *k)
{
	return 0xcc | OUT_NOT_RESET | (k->a20 ? OUT_A20 : 0) |
	       ((k->flags & STATUS_OBF) && (k->cmd_byte & CMD_BYTE_IRQ1) ? OUT_OBF : 0) |
	       (k->flags & STATUS_AUX_OBF ? OUT_AUX_OBF : 0);
}

/* A byte to port 0x64. Returns whether it pulls the reset line. */
static bool run_command(struct i8042 *k, uint8_t c)
{
	k->flags |= STATUS_COMMAND;
	k->command = 0;
	switch (c) {
	case 0x20: answer(k, k->cmd_byte, 0); break;
	case 0x60:
	case 0xd1:
	case 0xd2:
	case 0xd3:
	case 0xd4: k->command = c; break; /* data follows */
	case 0xa7: k->cmd_byte |= CMD_BYTE_NO_AUX; break;
	case 0xa8: k->cmd_byte &= ~CMD_BYTE_NO_AUX; break;
	case 0xa9: /* test of the mouse port: good */
	case 0xab: answer(k, 0, 0); break;
	case 0xaa: /* self test */
		k->cmd_byte |= CMD_BYTE_SYSTEM;
		answer(k, 0x55, 0);
		break;
	case 0xad: k->cmd_byte |= CMD_BYTE_NO_KBD; break;
	case 0xae: k->cmd_byte &= ~CMD_BYTE_NO_KBD; break;
	case 0xc0: answer(k, 0x80, 0); break; /* input port: not locked */
	case 0xd0: answer(k, output_port(k), 0); break;
	case 0xdd: k->a20 = false; break;
	case 0xdf: k->a20 = true; break;
	default: return c >= 0xf0 && !(c & OUT_NOT_RESET); /* pulse output lines */
	}
	return false;
}

static void send_to_keyboard(struct i8042 *k, uint8_t v)
{
	if (!k->has_kbd) {
		answer(k, 0xfe, STATUS_TIMEOUT);
		return;
	}
	k->cmd_byte &= ~CMD_BYTE_NO_KBD; /* the controller drives the wire, and then listens */
	if (k->held) {                   /* what it would send next is no longer what it was */
		k->held = 0;
		k->flags &= STATUS_COMMAND;
	}
	ps2_keyboard_command(&k->kbd, v);
}

/* A byte to port 0x60. Returns whether it pulls the reset line. */
static bool take_data(struct i8042 *k, uint8_t v)
{
	uint8_t command = k->command;

	k->flags &= ~STATUS_COMMAND;
	k->command = 0;
	switch (command) {
	case 0x60: k->cmd_byte = v; break;
	case 0xd1: k->a20 = v & OUT_A20; return !(v & OUT_NOT_RESET);
	case 0xd2: answer(k, v, 0); break;
	case 0xd3: answer(k, v, STATUS_AUX_OBF); break;
	case 0xd4: answer(k, 0xfe, STATUS_AUX_OBF | STATUS_TIMEOUT); break;
	default: send_to_keyboard(k, v); break;
	}
	return false;
}

static uint64_t data_read(struct bus_region *r, uint64_t offset, unsigned size)
{
	struct i8042 *k = container_of(r, struct i8042, data);
	uint8_t v;
	bool due;

	pthread_mutex_lock(&k->lock);
	v = k->out_buf;
	due = out_buf_was_read(k);
	i8042_update_irq(k); /* down, so that the next byte is an edge again */
	take_from_keyboard(k);
	i8042_update_irq(k);
	pthread_mutex_unlock(&k->lock);
	if (due)
		k->room(k->room_ctx);
	return v;
}

static uint64_t status_read(struct bus_region *r, uint64_t offset, unsigned size)
{
	struct i8042 *k = container_of(r, struct i8042, status);
	AUTO_LOCK(&k->lock);

	return k->flags | STATUS_UNLOCKED | (k->cmd_byte & CMD_BYTE_SYSTEM ? STATUS_SYSTEM : 0);
}

static uint64_t fast_read(struct bus_region *r, uint64_t offset, unsigned size)
{
	struct i8042 *k = container_of(r, struct i8042, fast);
	AUTO_LOCK(&k->lock);

	return k->a20 ? 2 : 0;
}

static void ask_reset(struct i8042 *k)
{
	if (k->machine)
		k->machine->request(k->machine, MACHINE_RESET, 0);
}

static void data_write(struct bus_region *r, uint64_t offset, uint64_t value, unsigned size)
{
	struct i8042 *k = container_of(r, struct i8042, data);
	bool reset;

	pthread_mutex_lock(&k->lock);
	reset = take_data(k, value);
	take_from_keyboard(k);
	i8042_update_irq(k);
	pthread_mutex_unlock(&k->lock);
	if (reset)
		ask_reset(k);
}

static void status_write(struct bus_region *r, uint64_t offset, uint64_t value, unsigned size)
{
	struct i8042 *k = container_of(r, struct i8042, status);
	bool reset;

	pthread_mutex_lock(&k->lock);
	reset = run_command(k, value);
	take_from_keyboard(k);
	i8042_update_irq(k);
	pthread_mutex_unlock(&k->lock);
	if (reset)
		ask_reset(k);
}

static void fast_write(struct bus_region *r, uint64_t offset, uint64_t value, unsigned size)
{
	struct i8042 *k = container_of(r, struct i8042, fast);

	pthread_mutex_lock(&k->lock);
	k->a20 = value & 2;
	pthread_mutex_unlock(&k->lock);
	if (value & 1)
		ask_reset(k);
}

bool i8042_type_keys(struct device *d, const uint8_t *codes, uint32_t len)
{
	struct i8042 *k = to_i8042(d);
	AUTO_LOCK(&k->lock);
	bool fits = !k->has_kbd || ps2_keyboard_type(&k->kbd, codes, len);

	k->short_of_room |= !fits;
	take_from_keyboard(k);
	i8042_update_irq(k);
	return fits;
}

void i8042_on_room(struct device *d, void (*room)(void *ctx), void *ctx)
{
	struct i8042 *k = to_i8042(d);

	k->room = room;
	k->room_ctx = ctx;
}

static void i8042_reset(struct device *d)
{
	struct i8042 *k = to_i8042(d);
	AUTO_LOCK(&k->lock);

	k->cmd_byte = CMD_BYTE_SYSTEM | CMD_BYTE_NO_AUX;
	/* As a BIOS leaves it, for kernels that start without one */
	k->cmd_byte |= k->has_kbd ? CMD_BYTE_IRQ1 | CMD_BYTE_XLATE : CMD_BYTE_NO_KBD;
	k->out_buf = k->flags = k->command = k->held = 0;
	k->a20 = true;
	ps2_keyboard_reset(&k->kbd);
	i8042_update_irq(k);
}

static void i8042_state(struct device *d, struct state *s)
{
	struct i8042 *k = to_i8042(d);
	AUTO_LOCK(&k->lock);

	state_u8(s, "cmd_byte", &k->cmd_byte);
	state_u8(s, "out_buf", &k->out_buf);
	state_u8(s, "flags", &k->flags);
	state_u8(s, "command", &k->command);
	state_u8(s, "held", &k->held);
	state_bool(s, "a20", &k->a20);
	ps2_keyboard_state(&k->kbd, s);
	if (!state_loading(s) || state_failed(s))
		return;
	k->flags &= STATUS_OBF | STATUS_COMMAND | STATUS_AUX_OBF | STATUS_TIMEOUT;
	i8042_update_irq(k);
}

static void i8042_free(struct device *d)
{
	struct i8042 *k;

	if (!d)
		return;
	k = to_i8042(d);
	bus_unmap(k->bus, &k->data);
	bus_unmap(k->bus, &k->status);
	bus_unmap(k->bus, &k->fast);
	pthread_mutex_destroy(&k->lock);
	free(k);
}

static int i8042_new(struct device **out, const struct device_env *env, struct err *e)
{
	struct i8042 *k = calloc(1, sizeof *k);
	int r;

	if (!k)
		return err_set(e, ENOMEM, "i8042");
	k->dev.type = &i8042_type;
	k->bus = env->bus;
	k->irq_kbd = env->irq[IRQ_KEYBOARD];
	k->irq_aux = env->irq[IRQ_MOUSE];
	k->machine = env->machine;
	k->has_kbd = env->keyboard;
	pthread_mutex_init(&k->lock, NULL);
	k->data = (struct bus_region){"i8042-data", 1, 1, data_read, data_write};
	k->status = (struct bus_region){"i8042-status", 1, 1, status_read, status_write};
	k->fast = (struct bus_region){"fast-a20", 1, 1, fast_read, fast_write};
	i8042_reset(&k->dev);
	r = bus_map(env->bus, BUS_PIO, PORT_I8042, 1, &k->data, e);
	if (r >= 0)
		r = bus_map(env->bus, BUS_PIO, PORT_STATUS, 1, &k->status, e);
	if (r >= 0)
		r = bus_map(env->bus, BUS_PIO, PORT_FAST_A20, 1, &k->fast, e);
	if (r < 0)
		i8042_free(&k->dev);
	else
		*out = &k->dev;
	return r;
}

const struct device_type i8042_type = {
	.name = "i8042",
	.new = i8042_new,
	.reset = i8042_reset,
	.state = i8042_state,
	.free = i8042_free,
};
