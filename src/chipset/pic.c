/* pic: two 8259A interrupt controllers in cascade, with the PC's edge/level registers
 * (Intel 8259A data sheet 231468; ELCR: 82371AB data sheet, 4.3.4). All command words,
 * polling, special mask, rotation and the spurious level 7 are as the data sheet has
 * them. An edge-triggered request lasts only while its line stays high; a request that
 * went away before the acknowledge gives the spurious vector.
 *
 * One lock for both chips; called with device locks held, calls env->extint. */
#include "chipset/chipset.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/auto.h"

#define CASCADE           2 /* the master's input that the slave drives */
#define MASTER_LEVEL_ABLE 0xf8
#define SLAVE_LEVEL_ABLE  0xde

#define ICW1_ICW4     0x01
#define ICW1_SINGLE   0x02
#define ICW1_LEVEL    0x08
#define ICW1_SELECT   0x10
#define ICW4_AUTO_EOI 0x02
#define ICW4_NESTED   0x10
#define OCW3_SELECT   0x08
#define OCW3_POLL     0x04

struct chip {
	uint8_t lines; /* inputs as they are */
	uint8_t edges; /* rising edges seen, not yet acknowledged */
	uint8_t imr, isr, elcr;
	uint8_t base;     /* of its vectors */
	uint8_t priority; /* the input with the highest */
	uint8_t icw1, icw4;
	uint8_t init; /* the ICW expected next: 2..4; 0: none */
	bool rotate_auto, special_mask, poll, read_isr;
};

struct pic {
	struct device dev;
	struct pic_port {
		struct bus_region region;
		struct pic *pic;
		uint8_t index; /* of the chip */
	} port[2], elcr[2];
	struct bus *bus;
	struct irq_line *out;
	struct extint extint;
	struct pic_input {
		struct irq_line line;
		struct pic *pic;
		uint8_t irq;
	} input[16];

	pthread_mutex_t lock; /* guards all below */
	struct chip chip[2];  /* master, slave */
	atomic_bool raised;   /* the master's INT output; read without the lock */
};

static struct pic *to_pic(struct device *d)
{
	return container_of(d, struct pic, dev);
}

static uint8_t level_inputs(const struct chip *c)
{
	return c->icw1 & ICW1_LEVEL ? 0xff : c->elcr;
}

static uint8_t chip_irr(const struct chip *c)
{
	return c->lines & (level_inputs(c) | c->edges);
}

/* Distance of the highest-priority bit from the top: 0..7; 8: none is set. */
static unsigned chip_rank(const struct chip *c, uint8_t bits)
{
	unsigned rank = 0;

	while (rank < 8 && !(bits & BIT((c->priority + rank) & 7)))
		rank++;
	return rank;
}

/* The input that INT is raised for, or -1. */
static int chip_request(const struct chip *c, bool master)
{
	uint8_t in_service = c->isr;
	unsigned rank = chip_rank(c, chip_irr(c) & ~c->imr);

	if (c->special_mask)
		in_service &= ~c->imr;
	/* Special fully nested: the slave may interrupt its own service. */
	if (master && (c->icw4 & ICW4_NESTED))
		in_service &= ~BIT(CASCADE);
	return rank < chip_rank(c, in_service) ? (int)((c->priority + rank) & 7) : -1;
}

static void chip_line(struct chip *c, unsigned n, bool level)
{
	if (level && !(c->lines & BIT(n)))
		c->edges |= BIT(n);
	if (level) {
		c->lines |= BIT(n);
	} else {
		c->lines &= ~BIT(n);
		c->edges &= ~BIT(n);
	}
}

/* Carries the slave's output into the master and the master's out. */
static void pic_update(struct pic *p)
{
	struct chip *m = &p->chip[0];
	bool before = p->raised, now;

	/* The slave drops INT while it is acknowledged, so that each of its requests is an
	 * edge to the master: the same as a level here. */
	if (chip_request(&p->chip[1], false) >= 0) {
		m->lines |= BIT(CASCADE);
		m->edges |= BIT(CASCADE);
	} else {
		chip_line(m, CASCADE, false);
	}
	now = chip_request(m, true) >= 0;
	if (now == before)
		return;
	atomic_store(&p->raised, now);
	if (p->out)
		irq_set(p->out, now);
}

static void chip_ack(struct chip *c, unsigned n)
{
	c->edges &= ~BIT(n);
	if (!(c->icw4 & ICW4_AUTO_EOI))
		c->isr |= BIT(n);
	else if (c->rotate_auto)
		c->priority = (n + 1) & 7;
}

/* The INTA cycle: the vector. */
static int pic_acknowledge(struct pic *p)
{
	struct chip *m = &p->chip[0], *s = &p->chip[1];
	int n = chip_request(m, true), vector;

	if (n < 0) {
		vector = m->base + 7; /* spurious: nothing goes into service */
	} else if (n != CASCADE) {
		chip_ack(m, n);
		vector = m->base + n;
	} else {
		chip_ack(m, CASCADE);
		n = chip_request(s, false);
		if (n >= 0)
			chip_ack(s, n);
		vector = s->base + (n >= 0 ? n : 7);
	}
	pic_update(p);
	return vector;
}

static bool extint_pending(struct extint *x)
{
	return atomic_load(&container_of(x, struct pic, extint)->raised);
}

static int extint_ack(struct extint *x)
{
	struct pic *p = container_of(x, struct pic, extint);
	AUTO_LOCK(&p->lock);

	return pic_acknowledge(p);
}

static void pic_set_line(struct irq_line *l, bool level)
{
	struct pic_input *in = container_of(l, struct pic_input, line);
	struct pic *p = in->pic;
	AUTO_LOCK(&p->lock);

	if (in->irq == CASCADE)
		return; /* not wired to anything but the slave */
	chip_line(&p->chip[in->irq / 8], in->irq % 8, level);
	pic_update(p);
}

static void write_icw1(struct chip *c, uint8_t v)
{
	c->edges = 0;
	c->imr = c->isr = 0;
	c->priority = 0;
	c->rotate_auto = c->special_mask = c->poll = c->read_isr = false;
	c->icw1 = v;
	c->icw4 = 0;
	c->init = 2;
}

/* Ends the service of one input; rotate gives it the lowest priority. */
static void end_service(struct chip *c, int n, bool rotate)
{
	if (n < 0)
		return;
	c->isr &= ~BIT(n);
	if (rotate)
		c->priority = (n + 1) & 7;
}

static void write_ocw2(struct chip *c, uint8_t v)
{
	uint8_t in_service = c->special_mask ? c->isr & ~c->imr : c->isr;
	unsigned rank = chip_rank(c, in_service);
	int highest = rank < 8 ? (int)((c->priority + rank) & 7) : -1;

	switch (v >> 5) {
	case 0: c->rotate_auto = false; break;
	case 1: end_service(c, highest, false); break;
	case 3: end_service(c, v & 7, false); break;
	case 4: c->rotate_auto = true; break;
	case 5: end_service(c, highest, true); break;
	case 6: c->priority = ((v & 7) + 1) & 7; break;
	case 7: end_service(c, v & 7, true); break;
	}
}

static void write_ocw3(struct chip *c, uint8_t v)
{
	if (v & OCW3_POLL)
		c->poll = true;
	if (v & 0x02)
		c->read_isr = v & 0x01;
	if (v & 0x40)
		c->special_mask = v & 0x20;
}

static void write_data(struct chip *c, uint8_t v)
{
	bool icw4 = c->icw1 & ICW1_ICW4;

	switch (c->init) {
	case 2:
		c->base = v & 0xf8;
		c->init = !(c->icw1 & ICW1_SINGLE) ? 3 : icw4 ? 4 : 0;
		break;
	case 3: c->init = icw4 ? 4 : 0; break; /* the cascade is soldered */
	case 4:
		c->icw4 = v;
		c->init = 0;
		break;
	default: c->imr = v; break;
	}
}

static void port_write(struct bus_region *r, uint64_t offset, uint64_t value, unsigned size)
{
	struct pic_port *port = container_of(r, struct pic_port, region);
	struct pic *p = port->pic;
	struct chip *c = &p->chip[port->index];
	AUTO_LOCK(&p->lock);

	if (offset == 1)
		write_data(c, value);
	else if (value & ICW1_SELECT)
		write_icw1(c, value);
	else if (value & OCW3_SELECT)
		write_ocw3(c, value);
	else
		write_ocw2(c, value);
	pic_update(p);
}

/* A read in poll mode is an acknowledge by software. */
static uint8_t poll_read(struct chip *c, bool master)
{
	int n = chip_request(c, master);

	c->poll = false;
	if (n < 0)
		return 0;
	chip_ack(c, n);
	return 0x80 | n;
}

static uint64_t port_read(struct bus_region *r, uint64_t offset, unsigned size)
{
	struct pic_port *port = container_of(r, struct pic_port, region);
	struct pic *p = port->pic;
	struct chip *c = &p->chip[port->index];
	uint8_t v;
	AUTO_LOCK(&p->lock);

	if (!c->poll)
		return offset == 1 ? c->imr : c->read_isr ? c->isr : chip_irr(c);
	v = poll_read(c, port->index == 0);
	pic_update(p);
	return v;
}

static uint64_t elcr_read(struct bus_region *r, uint64_t offset, unsigned size)
{
	struct pic_port *port = container_of(r, struct pic_port, region);
	AUTO_LOCK(&port->pic->lock);

	return port->pic->chip[port->index].elcr;
}

static void elcr_write(struct bus_region *r, uint64_t offset, uint64_t value, unsigned size)
{
	struct pic_port *port = container_of(r, struct pic_port, region);
	struct pic *p = port->pic;
	AUTO_LOCK(&p->lock);

	p->chip[port->index].elcr = value & (port->index ? SLAVE_LEVEL_ABLE : MASTER_LEVEL_ABLE);
	pic_update(p);
}

struct irq_line *pic_input(struct device *d, unsigned irq)
{
	return &to_pic(d)->input[irq].line;
}

struct extint *pic_extint(struct device *d)
{
	return &to_pic(d)->extint;
}

static void pic_reset(struct device *d)
{
	struct pic *p = to_pic(d);
	AUTO_LOCK(&p->lock);

	for (unsigned i = 0; i < 2; i++) {
		uint8_t lines = p->chip[i].lines; /* belong to who drives them */

		p->chip[i] = (struct chip){.lines = lines};
	}
	pic_update(p);
}

static void chip_state(struct chip *c, struct state *s, const char *chip)
{
	struct {
		const char *name;
		uint8_t *v;
	} bytes[] = {
		{"lines", &c->lines}, {"edges", &c->edges},       {"imr", &c->imr},
		{"isr", &c->isr},     {"elcr", &c->elcr},         {"base", &c->base},
		{"icw1", &c->icw1},   {"priority", &c->priority}, {"icw4", &c->icw4},
		{"init", &c->init},
	};
	struct {
		const char *name;
		bool *v;
	} flags[] = {
		{"rotate_auto", &c->rotate_auto},
		{"special_mask", &c->special_mask},
		{"poll", &c->poll},
		{"read_isr", &c->read_isr},
	};
	char name[32];

	for (unsigned i = 0; i < ARRAY_SIZE(bytes); i++) {
		snprintf(name, sizeof name, "%s.%s", chip, bytes[i].name);
		state_u8(s, name, bytes[i].v);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(flags); i++) {
		snprintf(name, sizeof name, "%s.%s", chip, flags[i].name);
		state_bool(s, name, flags[i].v);
	}
	if (state_loading(s) && (c->priority > 7 || c->init > 4 || c->init == 1))
		state_fail(s, "%s: no 8259A is in such a state", chip);
}

static void pic_state(struct device *d, struct state *s)
{
	struct pic *p = to_pic(d);
	AUTO_LOCK(&p->lock);

	chip_state(&p->chip[0], s, "master");
	chip_state(&p->chip[1], s, "slave");
	if (state_loading(s) && !state_failed(s))
		pic_update(p);
}

static void pic_free(struct device *d)
{
	struct pic *p;

	if (!d)
		return;
	p = to_pic(d);
	for (unsigned i = 0; i < 2; i++) {
		bus_unmap(p->bus, &p->port[i].region);
		bus_unmap(p->bus, &p->elcr[i].region);
	}
	pthread_mutex_destroy(&p->lock);
	free(p);
}

static int pic_map(struct pic *p, struct err *e)
{
	static const uint16_t at[2] = {PORT_PIC1, PORT_PIC2};
	int r = 0;

	for (unsigned i = 0; i < 2 && r >= 0; i++) {
		p->port[i] = (struct pic_port){{"pic", 1, 1, port_read, port_write}, p, i};
		p->elcr[i] = (struct pic_port){{"elcr", 1, 1, elcr_read, elcr_write}, p, i};
		r = bus_map(p->bus, BUS_PIO, at[i], 2, &p->port[i].region, e);
		if (r >= 0)
			r = bus_map(p->bus, BUS_PIO, PORT_ELCR + i, 1, &p->elcr[i].region, e);
	}
	return r;
}

static int pic_new(struct device **out, const struct device_env *env, struct err *e)
{
	struct pic *p = calloc(1, sizeof *p);
	int r;

	if (!p)
		return err_set(e, ENOMEM, "pic");
	p->dev.type = &pic_type;
	p->bus = env->bus;
	p->out = env->extint;
	p->extint = (struct extint){extint_pending, extint_ack};
	for (unsigned i = 0; i < ARRAY_SIZE(p->input); i++)
		p->input[i] = (struct pic_input){{pic_set_line}, p, i};
	pthread_mutex_init(&p->lock, NULL);
	pic_reset(&p->dev);
	r = pic_map(p, e);
	if (r < 0)
		pic_free(&p->dev);
	else
		*out = &p->dev;
	return r;
}

const struct device_type pic_type = {
	.name = "pic",
	.new = pic_new,
	.reset = pic_reset,
	.state = pic_state,
	.free = pic_free,
};
