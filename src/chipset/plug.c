#include "chipset/plug.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/auto.h"
#include "chipset/chipset.h"

#define UP    0x00
#define DOWN  0x04
#define EJECT 0x08

#define SLOTS 32u

struct plug {
	struct device dev;
	struct bus_region region;
	struct bus *bus;
	struct irq_line *irq;
	struct plug_owner *owner; /* NULL: in tests */

	pthread_mutex_t lock; /* guards all below */
	uint32_t filled;      /* slots with something in them */
	uint32_t up, down;
	uint32_t mourned; /* pulled out, and the guest has not let go yet */
};

static struct plug *to_plug(struct device *d)
{
	return container_of(d, struct plug, dev);
}

/* An edge; who reads the registers finds all that happened before. */
static void ring(struct irq_line *irq)
{
	irq_set(irq, true);
	irq_set(irq, false);
}

/* --- slots --- */

void plug_set_owner(struct device *d, struct plug_owner *o)
{
	to_plug(d)->owner = o;
}

void plug_slot_fill(struct device *d, unsigned slot, bool tell)
{
	struct plug *p = to_plug(d);
	AUTO_LOCK(&p->lock);

	p->filled |= 1u << slot;
	if (!tell)
		return;
	p->up |= 1u << slot;
	p->down &= ~(1u << slot);
	ring(p->irq);
}

bool plug_slot_ask(struct device *d, unsigned slot)
{
	struct plug *p = to_plug(d);
	AUTO_LOCK(&p->lock);

	if (!(p->filled & 1u << slot))
		return false;
	p->down |= 1u << slot;
	ring(p->irq);
	return true;
}

/* Called with lock held. */
static bool take_slot(struct plug *p, unsigned slot)
{
	if (!(p->filled & 1u << slot))
		return false;
	p->filled &= ~(1u << slot);
	p->up &= ~(1u << slot);
	p->down &= ~(1u << slot);
	return true;
}

bool plug_slot_take(struct device *d, unsigned slot)
{
	struct plug *p = to_plug(d);
	AUTO_LOCK(&p->lock);

	return take_slot(p, slot);
}

void plug_slot_pulled(struct device *d, unsigned slot)
{
	struct plug *p = to_plug(d);
	AUTO_LOCK(&p->lock);

	p->mourned |= 1u << slot;
	p->down |= 1u << slot;
	ring(p->irq);
}

bool plug_slot_mourned(struct device *d, unsigned slot)
{
	struct plug *p = to_plug(d);
	AUTO_LOCK(&p->lock);

	return p->mourned & 1u << slot;
}

static void eject_slots(struct plug *p, uint32_t slots)
{
	for (unsigned i = 0; i < SLOTS; i++)
		if (slots & 1u << i && plug_slot_take(&p->dev, i) && p->owner)
			p->owner->slot_left(p->owner, i);
}

/* --- registers --- */

static uint64_t plug_read(struct bus_region *r, uint64_t offset, unsigned size)
{
	struct plug *p = container_of(r, struct plug, region);
	AUTO_LOCK(&p->lock);

	switch (offset) {
	case UP: return p->up;
	case DOWN: return p->down;
	default: return 0;
	}
}

static void plug_write(struct bus_region *r, uint64_t offset, uint64_t value, unsigned size)
{
	struct plug *p = container_of(r, struct plug, region);
	uint32_t v = value, slots = 0;

	pthread_mutex_lock(&p->lock);
	switch (offset) {
	case UP: p->up &= ~v; break;
	case DOWN: p->down &= ~v; break;
	case EJECT:
		slots = v & ~p->mourned;
		p->mourned &= ~v;
		break;
	}
	pthread_mutex_unlock(&p->lock);
	eject_slots(p, slots);
}

/* --- the device --- */

/* What is there stays; a guest that starts looks for it. */
static void plug_reset(struct device *d)
{
	struct plug *p = to_plug(d);
	AUTO_LOCK(&p->lock);

	p->up = p->down = p->mourned = 0;
}

/* Which slots are filled is the machine's configuration. */
static void plug_state(struct device *d, struct state *s)
{
	struct plug *p = to_plug(d);
	AUTO_LOCK(&p->lock);

	state_u32(s, "up", &p->up);
	state_u32(s, "down", &p->down);
	state_u32(s, "mourned", &p->mourned);
}

static void plug_free(struct device *d)
{
	struct plug *p;

	if (!d)
		return;
	p = to_plug(d);
	bus_unmap(p->bus, &p->region);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

static int plug_new(struct device **out, const struct device_env *env, struct err *e)
{
	struct plug *p = calloc(1, sizeof *p);
	int r;

	if (!p)
		return err_set(e, ENOMEM, "out of memory");
	p->dev.type = &plug_type;
	p->bus = env->bus;
	p->irq = env->irq[IRQ_PLUG];
	pthread_mutex_init(&p->lock, NULL);
	p->region = (struct bus_region){"plug", 4, 4, plug_read, plug_write};
	r = bus_map(env->bus, BUS_PIO, PORT_PLUG, PORT_PLUG_LEN, &p->region, e);
	if (r < 0)
		plug_free(&p->dev);
	else
		*out = &p->dev;
	return r;
}

const struct device_type plug_type = {
	.name = "plug",
	.new = plug_new,
	.reset = plug_reset,
	.state = plug_state,
	.free = plug_free,
};
