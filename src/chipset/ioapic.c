/* ioapic: an 82093AA with 24 pins (Intel data sheet 290566) in its later form, version
 * 0x20, which has the EOI register (82371 and ICH data sheets). Interrupts go out as
 * MSIs. Wires carry "asserted": the polarity bit of an entry reads back and does
 * nothing else.
 *
 * One lock; called with device locks held, sends MSIs with it held. A LAPIC calls
 * ioapic_eoi with no lock of its own. */
#include "chipset/chipset.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/auto.h"

#define IOREGSEL   0x00
#define IOWIN      0x10
#define IOEOI      0x40
#define IOAPIC_LEN 0x1000

#define VERSION (0x20 | (IOAPIC_PINS - 1) << 16)

#define RTE_VECTOR     0xffull
#define RTE_MODE_SHIFT 8
#define RTE_LOGICAL    BIT(11)
#define RTE_PENDING    BIT(12) /* delivery status */
#define RTE_REMOTE_IRR BIT(14)
#define RTE_LEVEL      BIT(15)
#define RTE_MASKED     BIT(16)
#define RTE_WRITABLE   (0x1afffull | 0xffull << 56)
#define MODE_LOWEST    1
#define MODE_EXTINT    7

#define MSI_ADDRESS    0xfee00000u
#define MSI_LOGICAL    BIT(2)
#define MSI_REDIRECT   BIT(3)
#define MSI_DEST_SHIFT 12
#define MSI_ASSERT     BIT(14)
#define MSI_LEVEL      BIT(15)

struct ioapic {
	struct device dev;
	struct bus_region region;
	struct bus *bus;
	struct msi_sink *msi;
	struct ioapic_pin {
		struct irq_line line;
		struct ioapic *ioapic;
		uint8_t index;
	} pin[IOAPIC_PINS];

	pthread_mutex_t lock; /* guards all below */
	uint8_t select, id;
	uint32_t lines; /* pins as they are */
	uint64_t rte[IOAPIC_PINS];
};

static struct ioapic *to_ioapic(struct device *d)
{
	return container_of(d, struct ioapic, dev);
}

static void ioapic_send(struct ioapic *a, uint64_t rte)
{
	unsigned mode = rte >> RTE_MODE_SHIFT & 7;
	uint64_t addr = MSI_ADDRESS | (rte >> 56) << MSI_DEST_SHIFT;
	uint32_t data = (rte & RTE_VECTOR) | mode << RTE_MODE_SHIFT;

	if (rte & RTE_LOGICAL)
		addr |= MSI_LOGICAL;
	if (mode == MODE_LOWEST)
		addr |= MSI_REDIRECT;
	if (rte & RTE_LEVEL)
		data |= MSI_LEVEL | MSI_ASSERT;
	msi_send(a->msi, addr, data);
}

/* Whether the pin's entry makes it a level-triggered one with an EOI to come: only
 * fixed and lowest-priority interrupts are EOIed. */
static bool pin_level(uint64_t rte)
{
	return (rte & RTE_LEVEL) && (rte >> RTE_MODE_SHIFT & 7) <= MODE_LOWEST;
}

/* Sends a level-triggered interrupt that is asserted and not yet under way. */
static void serve_level(struct ioapic *a, unsigned pin)
{
	uint64_t rte = a->rte[pin];

	if (!pin_level(rte) || (rte & (RTE_MASKED | RTE_REMOTE_IRR)) || !(a->lines & BIT(pin)))
		return;
	a->rte[pin] |= RTE_REMOTE_IRR;
	ioapic_send(a, rte);
}

static void set_pin(struct irq_line *l, bool level)
{
	struct ioapic_pin *p = container_of(l, struct ioapic_pin, line);
	struct ioapic *a = p->ioapic;
	uint64_t rte;
	bool rose;
	AUTO_LOCK(&a->lock);

	rose = level && !(a->lines & BIT(p->index));
	if (level)
		a->lines |= BIT(p->index);
	else
		a->lines &= ~BIT(p->index);
	rte = a->rte[p->index];
	if (pin_level(rte))
		serve_level(a, p->index);
	else if (rose && !(rte & RTE_MASKED)) /* an edge while masked is lost (3.2.4) */
		ioapic_send(a, rte);
}

static void eoi_locked(struct ioapic *a, uint8_t vector)
{
	for (unsigned i = 0; i < IOAPIC_PINS; i++) {
		if ((a->rte[i] & RTE_VECTOR) != vector || !(a->rte[i] & RTE_REMOTE_IRR))
			continue;
		a->rte[i] &= ~RTE_REMOTE_IRR;
		serve_level(a, i);
	}
}

void ioapic_eoi(struct device *d, uint8_t vector)
{
	struct ioapic *a = to_ioapic(d);
	AUTO_LOCK(&a->lock);

	eoi_locked(a, vector);
}

/* Half of a redirection entry. Turning an entry to edge clears its remote IRR, which
 * drivers use to get rid of a stuck one. */
static void write_rte(struct ioapic *a, unsigned pin, unsigned half, uint32_t v)
{
	uint64_t mask = 0xffffffffull << (half * 32) & RTE_WRITABLE;
	uint64_t rte = (a->rte[pin] & ~mask) | ((uint64_t)v << (half * 32) & mask);

	if (!(rte & RTE_LEVEL))
		rte &= ~RTE_REMOTE_IRR;
	a->rte[pin] = rte;
	serve_level(a, pin);
}

static uint32_t read_reg(const struct ioapic *a)
{
	unsigned pin = (a->select - 0x10) / 2;

	switch (a->select) {
	case 0: return (uint32_t)a->id << 24;
	case 1: return VERSION;
	case 2: return (uint32_t)a->id << 24; /* arbitration ID */
	}
	if (a->select < 0x10 || pin >= IOAPIC_PINS)
		return 0;
	return a->rte[pin] >> (a->select % 2 * 32);
}

static void write_reg(struct ioapic *a, uint32_t v)
{
	unsigned pin = (a->select - 0x10) / 2;

	if (a->select == 0)
		a->id = v >> 24 & 0x0f;
	else if (a->select >= 0x10 && pin < IOAPIC_PINS)
		write_rte(a, pin, a->select % 2, v);
}

static uint64_t ioapic_read(struct bus_region *r, uint64_t offset, unsigned size)
{
	struct ioapic *a = container_of(r, struct ioapic, region);
	uint32_t v = 0;
	AUTO_LOCK(&a->lock);

	switch (offset & ~3ull) {
	case IOREGSEL: v = a->select; break;
	case IOWIN: v = read_reg(a); break;
	}
	return trunc_bytes(v >> (offset % 4 * 8), size);
}

static void ioapic_write(struct bus_region *r, uint64_t offset, uint64_t value, unsigned size)
{
	struct ioapic *a = container_of(r, struct ioapic, region);
	AUTO_LOCK(&a->lock);

	switch (offset) {
	case IOREGSEL: a->select = value; break;
	case IOWIN:
		if (size == 4)
			write_reg(a, value);
		break;
	case IOEOI: eoi_locked(a, value); break;
	}
}

struct irq_line *ioapic_input(struct device *d, unsigned pin)
{
	return &to_ioapic(d)->pin[pin].line;
}

static void ioapic_reset(struct device *d)
{
	struct ioapic *a = to_ioapic(d);
	AUTO_LOCK(&a->lock);

	a->select = a->id = 0;
	for (unsigned i = 0; i < IOAPIC_PINS; i++)
		a->rte[i] = RTE_MASKED;
}

static void ioapic_state(struct device *d, struct state *s)
{
	struct ioapic *a = to_ioapic(d);
	char name[16];
	AUTO_LOCK(&a->lock);

	state_u8(s, "select", &a->select);
	state_u8(s, "id", &a->id);
	state_u32(s, "lines", &a->lines);
	for (unsigned i = 0; i < IOAPIC_PINS; i++) {
		snprintf(name, sizeof name, "rte%u", i);
		state_u64(s, name, &a->rte[i]);
		if (state_loading(s) && (a->rte[i] & ~(RTE_WRITABLE | RTE_REMOTE_IRR)))
			state_fail(s, "%s has reserved bits set", name);
	}
	if (state_loading(s))
		a->lines &= BIT(IOAPIC_PINS) - 1;
}

static void ioapic_free(struct device *d)
{
	struct ioapic *a;

	if (!d)
		return;
	a = to_ioapic(d);
	bus_unmap(a->bus, &a->region);
	pthread_mutex_destroy(&a->lock);
	free(a);
}

static int ioapic_new(struct device **out, const struct device_env *env, struct err *e)
{
	struct ioapic *a = calloc(1, sizeof *a);
	int r;

	if (!a)
		return err_set(e, ENOMEM, "ioapic");
	a->dev.type = &ioapic_type;
	a->bus = env->bus;
	a->msi = env->msi;
	for (unsigned i = 0; i < IOAPIC_PINS; i++)
		a->pin[i] = (struct ioapic_pin){{set_pin}, a, i};
	pthread_mutex_init(&a->lock, NULL);
	ioapic_reset(&a->dev);
	a->region = (struct bus_region){"ioapic", 1, 4, ioapic_read, ioapic_write};
	r = bus_map(env->bus, BUS_MMIO, IOAPIC_BASE, IOAPIC_LEN, &a->region, e);
	if (r < 0)
		ioapic_free(&a->dev);
	else
		*out = &a->dev;
	return r;
}

const struct device_type ioapic_type = {
	.name = "ioapic",
	.new = ioapic_new,
	.reset = ioapic_reset,
	.state = ioapic_state,
	.free = ioapic_free,
};
