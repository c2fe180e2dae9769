#include "chipset/chipset.h"

#include <errno.h>
#include <stdlib.h>

/* debug_exit: the port by which CPU test suites end a run. Has no state. */
struct debug_exit {
	struct device dev;
	struct bus_region region;
	struct bus *bus;
	struct machine_port *machine;
};

static uint64_t debug_exit_read(struct bus_region *r, uint64_t offset, unsigned size)
{
	return 0;
}

static void debug_exit_write(struct bus_region *r, uint64_t offset, uint64_t value, unsigned size)
{
	struct debug_exit *d = container_of(r, struct debug_exit, region);

	if (d->machine)
		d->machine->request(d->machine, MACHINE_DEBUG_EXIT, (uint8_t)value);
}

static void debug_exit_free(struct device *dev)
{
	struct debug_exit *d;

	if (!dev)
		return;
	d = container_of(dev, struct debug_exit, dev);
	bus_unmap(d->bus, &d->region);
	free(d);
}

static int debug_exit_new(struct device **out, const struct device_env *env, struct err *e)
{
	struct debug_exit *d = calloc(1, sizeof *d);
	int r;

	if (!d)
		return err_set(e, ENOMEM, "debug exit port");
	d->dev.type = &debug_exit_type;
	d->bus = env->bus;
	d->machine = env->machine;
	d->region = (struct bus_region){"debug-exit", 1, 1, debug_exit_read, debug_exit_write};
	r = bus_map(env->bus, BUS_PIO, PORT_DEBUG_EXIT, 1, &d->region, e);
	if (r < 0)
		debug_exit_free(&d->dev);
	else
		*out = &d->dev;
	return r;
}

static void debug_exit_reset(struct device *dev)
{
}

static void debug_exit_state(struct device *dev, struct state *s)
{
}

const struct device_type debug_exit_type = {
	.name = "debug-exit",
	.new = debug_exit_new,
	.reset = debug_exit_reset,
	.state = debug_exit_state,
	.free = debug_exit_free,
};
