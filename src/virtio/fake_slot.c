#include "virtio/fake_slot.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "virtio/pci_priv.h"

#define DEVFN    8u
#define BAR_STEP (2 * (FAKE_SLOT_MSIX - FAKE_SLOT_BAR))

void fake_slot_init(struct fake_slot *s, struct loop *loop, struct virtio_env *env)
{
	memset(s, 0, sizeof *s);
	board_init(&s->board);
	if (mem_new(&s->mem, FAKE_SLOT_RAM, NULL) < 0)
		abort();
	s->loop = loop;
	s->devfn = DEVFN;
	s->bar = FAKE_SLOT_BAR;
	s->rings = FAKE_RINGS;
	s->host = board_add(&s->board, &pci_host_type);
	*env = (struct virtio_env){
		.mem = s->mem,
		.loop = loop,
		.clock = &s->board.clock.clock,
	};
}

static void place_bars(struct fake_slot *s)
{
	fake_pci_out(s, 0x10, s->bar, 4);
	fake_pci_out(s, 0x14, s->bar + (FAKE_SLOT_MSIX - FAKE_SLOT_BAR), 4);
	fake_pci_out(s, 0x04, 0x0006, 2); /* memory, bus master */
}

void fake_slot_add(struct fake_slot *s, struct virtio_device *d)
{
	if (virtio_pci_new(&s->v, d, s->host, DEVFN, NULL) < 0)
		abort();
	place_bars(s);
}

void fake_slot_of(struct fake_slot *s, struct bus *bus, struct guest_mem *mem, struct virtio_pci *v,
		  unsigned devfn, unsigned n)
{
	memset(s, 0, sizeof *s);
	s->board.bus = bus;
	s->mem = mem;
	s->v = v;
	s->devfn = devfn;
	s->bar = FAKE_SLOT_BAR + n * BAR_STEP;
	s->rings = FAKE_RINGS + n * VIRTIO_QUEUES_MAX * FAKE_RINGS_LEN;
	place_bars(s);
}

static bool active(struct virtio_pci *v)
{
	bool is;

	pthread_mutex_lock(&v->lock);
	is = v->active;
	pthread_mutex_unlock(&v->lock);
	return is;
}

void fake_slot_pause(struct fake_slot *s)
{
	virtio_pci_pause(s->v);
	while (active(s->v))
		fake_loop_settle(s->loop);
}

void fake_slot_done(struct fake_slot *s)
{
	if (s->v)
		fake_slot_pause(s);
	if (s->v)
		virtio_pci_device(s->v)->type->free(virtio_pci_device(s->v));
	s->host->type->free(s->host);
	mem_free(s->mem);
	board_done(&s->board);
}

static void nothing(struct loop_call *c)
{
}

void fake_loop_settle(struct loop *l)
{
	for (unsigned i = 0; i < 4; i++) {
		struct loop_call c = {.run = nothing}; /* so that it does not sleep */

		loop_post(l, &c);
		if (loop_once(l) < 0)
			abort();
	}
}

static uint64_t ecam_at(const struct fake_slot *s, unsigned reg)
{
	return ECAM_BASE + s->devfn * 0x1000u + reg;
}

uint32_t fake_in(struct fake_slot *s, unsigned offset, unsigned size)
{
	return bus_read(s->board.bus, BUS_MMIO, s->bar + offset, size);
}

void fake_out(struct fake_slot *s, unsigned offset, uint32_t v, unsigned size)
{
	bus_write(s->board.bus, BUS_MMIO, s->bar + offset, v, size);
}

uint32_t fake_pci_in(struct fake_slot *s, unsigned reg, unsigned size)
{
	return bus_read(s->board.bus, BUS_MMIO, ecam_at(s, reg), size);
}

void fake_pci_out(struct fake_slot *s, unsigned reg, uint32_t v, unsigned size)
{
	bus_write(s->board.bus, BUS_MMIO, ecam_at(s, reg), v, size);
}

bool fake_slot_agree(struct fake_slot *s, uint64_t features)
{
	fake_out(s, 0x14, 1, 1);
	fake_out(s, 0x14, 3, 1);
	for (unsigned half = 0; half < 2; half++) {
		fake_out(s, 0x08, half, 4);
		fake_out(s, 0x0c, features >> (32 * half), 4);
	}
	fake_out(s, 0x14, 0xb, 1);
	return fake_in(s, 0x14, 1) == 0xb;
}

static void out64(struct fake_slot *s, unsigned offset, uint64_t v)
{
	fake_out(s, offset, v, 4);
	fake_out(s, offset + 4, v >> 32, 4);
}

void fake_slot_queues(struct fake_slot *s, uint16_t size)
{
	struct virtio_device *d = virtio_pci_virtio(s->v);

	for (unsigned i = 0; i < d->queues; i++) {
		fake_out(s, 0x16, i, 2);
		s->q[i] = fake_driver(s->mem, .size = size ? size : fake_in(s, 0x18, 2),
				      .packed = virtio_has(d, VIRTIO_F_RING_PACKED),
				      .event_idx = virtio_has(d, VIRTIO_F_EVENT_IDX),
				      .at = s->rings + i * FAKE_RINGS_LEN);
		fake_out(s, 0x18, s->q[i].size, 2);
		out64(s, 0x20, s->q[i].desc);
		out64(s, 0x28, s->q[i].driver);
		out64(s, 0x30, s->q[i].device);
		fake_out(s, 0x1c, 1, 2);
	}
}

void fake_slot_go(struct fake_slot *s, uint64_t features, uint16_t size)
{
	bool agreed = fake_slot_agree(s, features);

	assert(agreed);
	(void)agreed;
	fake_slot_queues(s, size);
	fake_out(s, 0x14, 0xf, 1);
}

void fake_slot_kick(struct fake_slot *s, unsigned n)
{
	fake_out(s, FAKE_NOTIFY + 4 * n, n, 2);
}

void fake_slot_msix(struct fake_slot *s, unsigned vectors)
{
	uint64_t table = s->bar + (FAKE_SLOT_MSIX - FAKE_SLOT_BAR);
	unsigned cap = fake_pci_in(s, 0x34, 1);

	while (fake_pci_in(s, cap, 1) != 0x11)
		cap = fake_pci_in(s, cap + 1, 1);
	fake_pci_out(s, cap + 2, 0x8000, 2);
	for (unsigned n = 0; n < vectors; n++) {
		bus_write(s->board.bus, BUS_MMIO, table + 16 * n, 0xfee00000, 4);
		bus_write(s->board.bus, BUS_MMIO, table + 16 * n + 8, 0x40 + n, 4);
		bus_write(s->board.bus, BUS_MMIO, table + 16 * n + 12, 0, 4);
	}
}
