#include "chipset/test_board.h"

#include <stdlib.h>
#include <string.h>

#define GUEST_START_NS 5000000000ull /* not 0, so that nothing hides behind it */

static void wire_set(struct irq_line *l, bool level)
{
	struct test_wire *w = container_of(l, struct test_wire, line);

	w->rises += level && !w->level;
	w->level = level;
	if (w->to)
		irq_set(w->to, level);
}

static void msi_note(struct msi_sink *s, uint64_t addr, uint32_t data)
{
	struct test_board *b = container_of(s, struct test_board, msi);

	b->msis++;
	b->msi_addr = addr;
	b->msi_data = data;
	if (b->msi_to)
		msi_send(b->msi_to, addr, data);
}

static void sink_note(struct byte_sink *s, const uint8_t *bytes, uint32_t len)
{
	struct test_board *b = container_of(s, struct test_board, sink);

	for (uint32_t i = 0; i < len; i++)
		if (b->byte_count < sizeof b->bytes)
			b->bytes[b->byte_count++] = bytes[i];
}

static void request_note(struct machine_port *p, enum machine_request what, uint32_t value)
{
	struct test_board *b = container_of(p, struct test_board, machine);

	b->requests++;
	b->request = what;
	b->request_value = value;
}

void board_init(struct test_board *b)
{
	memset(b, 0, sizeof *b);
	fake_clock_init(&b->clock);
	b->clock.now_ns = GUEST_START_NS;
	if (bus_new(&b->bus, NULL) < 0)
		abort();
	for (unsigned i = 0; i < 24; i++) {
		b->wire[i].line.set = wire_set;
		b->lines[i] = &b->wire[i].line;
	}
	b->extint.line.set = wire_set;
	b->nmi.line.set = wire_set;
	b->msi.send = msi_note;
	b->sink.put = sink_note;
	b->machine.request = request_note;
	b->env = (struct device_env){
		.bus = b->bus,
		.clock = &b->clock.clock,
		.irq = b->lines,
		.msi = &b->msi,
		.serial_out = &b->sink,
		.machine = &b->machine,
		.nmi = &b->nmi.line,
		.extint = &b->extint.line,
		.rtc_epoch_s = 1709164790, /* Wed 2024-02-28 23:59:50, ten seconds before 29 Feb */
		.ram_bytes = MIB(512),
		.cpus = 3,
		.keyboard = true,
	};
}

void board_done(struct test_board *b)
{
	bus_free(b->bus);
}

struct device *board_add(struct test_board *b, const struct device_type *type)
{
	struct device *d = NULL;

	if (type->new (&d, &b->env, NULL) < 0)
		abort();
	return d;
}

void board_out(struct test_board *b, uint16_t port, uint8_t v)
{
	bus_write(b->bus, BUS_PIO, port, v, 1);
}

uint8_t board_in(struct test_board *b, uint16_t port)
{
	return bus_read(b->bus, BUS_PIO, port, 1);
}

void board_out32(struct test_board *b, uint16_t port, uint32_t v)
{
	bus_write(b->bus, BUS_PIO, port, v, 4);
}

uint32_t board_in32(struct test_board *b, uint16_t port)
{
	return bus_read(b->bus, BUS_PIO, port, 4);
}

void board_store(struct test_board *b, uint64_t gpa, uint32_t v)
{
	bus_write(b->bus, BUS_MMIO, gpa, v, 4);
}

uint32_t board_load(struct test_board *b, uint64_t gpa)
{
	return bus_read(b->bus, BUS_MMIO, gpa, 4);
}

static void walk(struct state *s, struct device *d)
{
	state_begin(s, d->type->name, d->instance);
	d->type->state(d, s);
	state_end(s);
}

uint8_t *device_save(struct device *d, size_t *len)
{
	struct state *s = state_writer();
	const void *bytes;
	uint8_t *copy;

	walk(s, d);
	if (state_result(s, NULL) != 0)
		abort();
	bytes = state_written(s, len);
	copy = malloc(*len);
	memcpy(copy, bytes, *len);
	state_free(s);
	return copy;
}

int device_load(struct device *d, const uint8_t *bytes, size_t len)
{
	struct state *s = state_reader(bytes, len);
	int r;

	walk(s, d);
	r = state_result(s, NULL);
	state_free(s);
	return r;
}
