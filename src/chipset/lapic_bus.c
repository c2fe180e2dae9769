/* lapic_bus: finds the targets of IPIs and MSIs (10.6.2 of older, 11.6.2 of newer SDMs)
 * and hands the message to each, one lock at a time. */
#include "chipset/lapic_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define X2_BROADCAST 0xffffffffu
#define FLAT_MODEL   0xfu

static uint32_t x2_ldr(uint32_t id)
{
	return (id >> 4) << 16 | 1u << (id & 15);
}

/* Whether a logical destination names l. In xAPIC mode it is 8 bits, in the flat or the
 * cluster model; in x2APIC mode always cluster:16, members:16. */
static bool logical_match(const struct lapic *l, uint32_t dest)
{
	uint32_t id;

	if (lapic_x2(l)) {
		id = x2_ldr(l->id);
		return dest >> 16 == id >> 16 && (dest & id & 0xffff);
	}
	id = l->ldr >> 24;
	if (dest > 0xff)
		return false;
	if (l->dfr >> 28 == FLAT_MODEL)
		return dest & id;
	return (dest >> 4 == id >> 4 || dest >> 4 == 15) && (dest & id & 15);
}

static bool is_target(struct lapic *l, const struct lapic *from, const struct lapic_msg *m)
{
	bool match;

	switch (m->to) {
	case TO_SELF: return l == from;
	case TO_ALL: return true;
	case TO_OTHERS: return l != from;
	case TO_DEST: break;
	}
	if (m->broadcast)
		return true;
	if (!m->logical)
		return l->id == m->dest;
	lapic_lock(l);
	match = lapic_on(l) && logical_match(l, m->dest);
	lapic_unlock(l);
	return match;
}

static void deliver_init(struct lapic *l)
{
	atomic_store(&l->sipi, -1);
	atomic_store(&l->init, true);
	l->todo.wake = true;
}

static void deliver(struct lapic *l, const struct lapic_msg *m)
{
	lapic_lock(l);
	switch (m->mode) {
	case DM_FIXED:
	case DM_LOWEST: lapic_raise(l, m->vector, m->level); break;
	case DM_NMI: lapic_nmi(l); break;
	case DM_INIT: deliver_init(l); break;
	case DM_SIPI:
		atomic_store(&l->sipi, m->vector);
		l->todo.wake = true;
		break;
	case DM_EXTINT:
		if (l->env.extint) {
			atomic_store(&l->extint_msg, true);
			l->todo.wake = true;
		}
		break;
	default: break; /* SMI: there is no SMM */
	}
	lapic_unlock(l);
}

/* Whether a lowest-priority message could be taken, and at what priority. */
static int arbitration(struct lapic *l)
{
	int p;

	lapic_lock(l);
	p = lapic_on(l) && (l->svr & 0x100) ? lapic_ppr(l) : -1;
	lapic_unlock(l);
	return p;
}

static void deliver_lowest(struct lapic_bus *b, const struct lapic *from, const struct lapic_msg *m)
{
	unsigned turn = atomic_fetch_add(&b->turn, 1);
	struct lapic *best = NULL;
	int lowest = 256;

	for (unsigned i = 0; i < b->count; i++) {
		struct lapic *l = b->lapics[(turn + i) % b->count];
		int p = is_target(l, from, m) ? arbitration(l) : -1;

		if (p >= 0 && p < lowest) {
			best = l;
			lowest = p;
		}
	}
	if (best)
		deliver(best, m);
}

void lapic_route(struct lapic_bus *b, struct lapic *from, const struct lapic_msg *m)
{
	if (m->mode == DM_LOWEST) {
		deliver_lowest(b, from, m);
		return;
	}
	for (unsigned i = 0; i < b->count; i++)
		if (is_target(b->lapics[i], from, m))
			deliver(b->lapics[i], m);
}

bool lapic_send(struct lapic_port *p, uint32_t id, uint32_t icr)
{
	struct lapic *from = to_lapic(p);
	struct lapic_bus *b = from->bus;
	struct lapic_msg m = {.mode = icr >> 8 & 7, .vector = icr, .to = TO_DEST, .dest = id};

	if (m.mode != DM_NMI && (m.mode != DM_FIXED || m.vector < 16))
		return false;
	for (unsigned i = 0; i < b->count; i++)
		if (b->lapics[i]->id == id) {
			deliver(b->lapics[i], &m);
			return true;
		}
	return false;
}

/* Message address and data registers (11.11). Bits 5-11 of the address extend the
 * destination to 15 bits, as hypervisors and their guests agreed (KVM_FEATURE_MSI_EXT_DEST_ID). */
static void bus_msi(struct msi_sink *sink, uint64_t addr, uint32_t data)
{
	struct lapic_bus *b = container_of(sink, struct lapic_bus, msi);
	uint32_t dest = (addr >> 12 & 0xff) | (addr >> 5 & 0x7f) << 8;
	struct lapic_msg m = {
		.mode = data >> 8 & 7,
		.vector = data,
		.logical = addr & 4,
		.level = data & 0x8000,
		.broadcast = dest == 0xff,
		.to = TO_DEST,
		.dest = dest,
	};

	if (addr >> 20 != 0xfee)
		return; /* some other address: not an interrupt */
	if ((addr & 8) && m.mode == DM_FIXED && m.logical)
		m.mode = DM_LOWEST; /* the redirection hint */
	lapic_route(b, NULL, &m);
}

int lapic_bus_new(struct lapic_bus **out, struct err *e)
{
	struct lapic_bus *b = calloc(1, sizeof *b);

	if (!b)
		return err_set(e, ENOMEM, "APIC bus");
	b->msi.send = bus_msi;
	*out = b;
	return 0;
}

void lapic_bus_free(struct lapic_bus *b)
{
	if (!b)
		return;
	free(b->lapics);
	free(b);
}

struct msi_sink *lapic_bus_msi(struct lapic_bus *b)
{
	return &b->msi;
}
