#include "chipset/chipset.h"

#include <errno.h>
#include <stdlib.h>

#define PRESENT 0xe9 /* what firmware looks for before it writes */

/* debugcon: the port to which firmware writes what it does, for those who look for its mistakes.
 * Where nobody listens, firmware is told that there is no such port. Has no state. */
struct debugcon {
	struct device dev;
	struct bus_region region;
	struct bus *bus;
	struct byte_sink *out; /* NULL: nobody listens */
};

static uint64_t debugcon_read(struct bus_region *r, uint64_t offset, unsigned size)
{
	return container_of(r, struct debugcon, region)->out ? PRESENT : 0xff;
}

static void debugcon_write(struct bus_region *r, uint64_t offset, uint64_t value, unsigned size)
{
	struct debugcon *d = container_of(r, struct debugcon, region);
	uint8_t byte = (uint8_t)value;

	if (d->out)
		d->out->put(d->out, &byte, 1);
}

static void debugcon_free(struct device *dev)
{
	struct debugcon *d;

	if (!dev)
		return;
	d = container_of(dev, struct debugcon, dev);
	bus_unmap(d->bus, &d->region);
	free(d);
}

static int debugcon_new(struct device **out, const struct device_env *env, struct err *e)
{
	struct debugcon *d = calloc(1, sizeof *d);
	int r;

	if (!d)
		return err_set(e, ENOMEM, "debug port");
	d->dev.type = &debugcon_type;
	d->bus = env->bus;
	d->out = env->debug_out;
	d->region = (struct bus_region){"debugcon", 1, 1, debugcon_read, debugcon_write};
	r = bus_map(env->bus, BUS_PIO, PORT_DEBUGCON, 1, &d->region, e);
	if (r < 0)
		debugcon_free(&d->dev);
	else
		*out = &d->dev;
	return r;
}

static void debugcon_reset(struct device *dev)
{
}

static void debugcon_state(struct device *dev, struct state *s)
{
}

const struct device_type debugcon_type = {
	.name = "debugcon",
	.new = debugcon_new,
	.reset = debugcon_reset,
	.state = debugcon_state,
	.free = debugcon_free,
};
