#include "chipset/chipset.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/auto.h"

/* fw_cfg: the port pair by which firmware, and CPU test suites, ask the machine about itself
 * (QEMU's docs/specs/fw_cfg): a 16-bit selector at PORT_FW_CFG, then the item byte by byte at
 * the port after it. Items are a few numbers so far; files and DMA are not offered. Reading
 * past an item's end, or an unknown one, gives zeros. */

enum { ITEM_SIGNATURE, ITEM_ID, ITEM_RAM_SIZE = 3, ITEM_NB_CPUS = 5, ITEM_MAX_CPUS = 15 };

struct fw_cfg {
	struct device dev;
	struct bus_region region;
	struct bus *bus;
	uint64_t ram_bytes;
	uint32_t cpus;
	pthread_mutex_t lock; /* guards the two below */
	uint16_t selected;
	uint32_t offset; /* of the next byte */
};

static struct fw_cfg *to_fw_cfg(struct device *d)
{
	return container_of(d, struct fw_cfg, dev);
}

static uint64_t item_value(const struct fw_cfg *f)
{
	switch (f->selected) {
	case ITEM_SIGNATURE: return 0x554d4551; /* "QEMU": the interface's name */
	case ITEM_ID: return 1;                 /* the port interface, no DMA */
	case ITEM_RAM_SIZE: return f->ram_bytes;
	case ITEM_NB_CPUS:
	case ITEM_MAX_CPUS: return f->cpus;
	default: return 0;
	}
}

static uint64_t fw_cfg_read(struct bus_region *r, uint64_t offset, unsigned size)
{
	struct fw_cfg *f = container_of(r, struct fw_cfg, region);
	AUTO_LOCK(&f->lock);

	if (offset != 1)
		return 0;
	return f->offset < 8 ? (item_value(f) >> 8 * f->offset++) & 0xff : 0;
}

static void fw_cfg_write(struct bus_region *r, uint64_t offset, uint64_t value, unsigned size)
{
	struct fw_cfg *f = container_of(r, struct fw_cfg, region);
	AUTO_LOCK(&f->lock);

	if (offset != 0 || size != 2)
		return;
	f->selected = (uint16_t)value;
	f->offset = 0;
}

static void fw_cfg_reset(struct device *d)
{
	struct fw_cfg *f = to_fw_cfg(d);
	AUTO_LOCK(&f->lock);

	f->selected = 0;
	f->offset = 0;
}

static void fw_cfg_state(struct device *d, struct state *s)
{
	struct fw_cfg *f = to_fw_cfg(d);
	AUTO_LOCK(&f->lock);

	state_u16(s, "selected", &f->selected);
	state_u32(s, "offset", &f->offset);
	if (state_loading(s) && f->offset > 8)
		state_fail(s, "offset %u is past the item", f->offset);
}

static void fw_cfg_free(struct device *d)
{
	struct fw_cfg *f;

	if (!d)
		return;
	f = to_fw_cfg(d);
	bus_unmap(f->bus, &f->region);
	pthread_mutex_destroy(&f->lock);
	free(f);
}

static int fw_cfg_new(struct device **out, const struct device_env *env, struct err *e)
{
	struct fw_cfg *f = calloc(1, sizeof *f);
	int r;

	if (!f)
		return err_set(e, ENOMEM, "fw_cfg");
	f->dev.type = &fw_cfg_type;
	f->bus = env->bus;
	f->ram_bytes = env->ram_bytes;
	f->cpus = env->cpus;
	f->region = (struct bus_region){"fw-cfg", 1, 2, fw_cfg_read, fw_cfg_write};
	pthread_mutex_init(&f->lock, NULL);
	r = bus_map(env->bus, BUS_PIO, PORT_FW_CFG, 2, &f->region, e);
	if (r < 0)
		fw_cfg_free(&f->dev);
	else
		*out = &f->dev;
	return r;
}

const struct device_type fw_cfg_type = {
	.name = "fw-cfg",
	.new = fw_cfg_new,
	.reset = fw_cfg_reset,
	.state = fw_cfg_state,
	.free = fw_cfg_free,
};
