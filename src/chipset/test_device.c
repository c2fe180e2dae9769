#include "chipset/chipset.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"

/* test_device: what CPU test suites use beside the debug exit port, where QEMU's pc-testdev
 * has it: four byte-wide ports that remember what was written, a port per interrupt line that
 * drives it, and memory that is reached as a device, never as RAM. */
#define LATCHES    4
#define LINES      24
#define MEMORY_LEN 0x10000u

struct test_device {
	struct device dev;
	struct bus_region latch_ports, line_ports, memory_region;
	struct bus *bus;
	struct irq_line *const *irq;
	pthread_mutex_t lock; /* guards those below */
	uint8_t latch[LATCHES];
	uint32_t lines; /* levels */
	uint8_t memory[MEMORY_LEN];
};

static uint64_t latch_read(struct bus_region *r, uint64_t offset, unsigned size)
{
	struct test_device *t = container_of(r, struct test_device, latch_ports);
	AUTO_LOCK(&t->lock);

	return t->latch[offset];
}

static void latch_write(struct bus_region *r, uint64_t offset, uint64_t value, unsigned size)
{
	struct test_device *t = container_of(r, struct test_device, latch_ports);
	AUTO_LOCK(&t->lock);

	t->latch[offset] = (uint8_t)value;
}

static uint64_t line_read(struct bus_region *r, uint64_t offset, unsigned size)
{
	struct test_device *t = container_of(r, struct test_device, line_ports);
	AUTO_LOCK(&t->lock);

	return t->lines >> offset & 1;
}

static void line_write(struct bus_region *r, uint64_t offset, uint64_t value, unsigned size)
{
	struct test_device *t = container_of(r, struct test_device, line_ports);
	AUTO_LOCK(&t->lock);

	t->lines = (t->lines & ~(1u << offset)) | (value ? 1u << offset : 0);
	irq_set(t->irq[offset], value);
}

static uint64_t memory_read(struct bus_region *r, uint64_t offset, unsigned size)
{
	struct test_device *t = container_of(r, struct test_device, memory_region);
	AUTO_LOCK(&t->lock);

	return load_le(t->memory + offset, size);
}

static void memory_write(struct bus_region *r, uint64_t offset, uint64_t value, unsigned size)
{
	struct test_device *t = container_of(r, struct test_device, memory_region);
	AUTO_LOCK(&t->lock);

	store_le(t->memory + offset, value, size);
}

static void test_device_reset(struct device *d)
{
	struct test_device *t = container_of(d, struct test_device, dev);

	for (unsigned n = 0; n < LINES; n++)
		if (t->lines >> n & 1)
			irq_set(t->irq[n], false);
	t->lines = 0;
	memset(t->latch, 0, sizeof t->latch);
	memset(t->memory, 0, sizeof t->memory);
}

static void test_device_state(struct device *d, struct state *s)
{
	struct test_device *t = container_of(d, struct test_device, dev);

	state_bytes(s, "latch", t->latch, sizeof t->latch);
	state_u32(s, "lines", &t->lines);
	state_bytes(s, "memory", t->memory, sizeof t->memory);
	if (!state_loading(s))
		return;
	if (t->lines >> LINES)
		state_fail(s, "lines 0x%x: there are %u", t->lines, LINES);
	for (unsigned n = 0; n < LINES && !state_failed(s); n++)
		if (t->lines >> n & 1)
			irq_set(t->irq[n], true);
}

static void test_device_free(struct device *d)
{
	struct test_device *t;

	if (!d)
		return;
	t = container_of(d, struct test_device, dev);
	bus_unmap(t->bus, &t->latch_ports);
	bus_unmap(t->bus, &t->line_ports);
	bus_unmap(t->bus, &t->memory_region);
	pthread_mutex_destroy(&t->lock);
	free(t);
}

static int test_device_new(struct device **out, const struct device_env *env, struct err *e)
{
	struct test_device *t = calloc(1, sizeof *t);
	int r;

	if (!t)
		return err_set(e, ENOMEM, "test device");
	t->dev.type = &test_device_type;
	t->bus = env->bus;
	t->irq = env->irq;
	t->latch_ports = (struct bus_region){"test-latch", 1, 1, latch_read, latch_write};
	t->line_ports = (struct bus_region){"test-lines", 1, 1, line_read, line_write};
	t->memory_region = (struct bus_region){"test-memory", 1, 8, memory_read, memory_write};
	pthread_mutex_init(&t->lock, NULL);
	r = bus_map(env->bus, BUS_PIO, PORT_TEST_LATCH, LATCHES, &t->latch_ports, e);
	if (r == 0)
		r = bus_map(env->bus, BUS_PIO, PORT_TEST_LINES, LINES, &t->line_ports, e);
	if (r == 0)
		r = bus_map(env->bus, BUS_MMIO, TEST_MEMORY_BASE, MEMORY_LEN, &t->memory_region, e);
	if (r < 0)
		test_device_free(&t->dev);
	else
		*out = &t->dev;
	return r;
}

const struct device_type test_device_type = {
	.name = "test-device",
	.new = test_device_new,
	.reset = test_device_reset,
	.state = test_device_state,
	.free = test_device_free,
};
