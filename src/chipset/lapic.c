/* lapic: a local APIC (Intel SDM volume 3A, chapter 11): how an interrupt goes through IRR
 * and ISR into the vCPU, reset, and the life of the object. See lapic_priv.h for the locks. */
#include "chipset/lapic_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int highest(const uint32_t set[8])
{
	for (int i = 7; i >= 0; i--)
		if (set[i])
			return i * 32 + 31 - __builtin_clz(set[i]);
	return -1;
}

static void set_bit(uint32_t set[8], uint8_t v, bool on)
{
	if (on)
		set[v / 32] |= 1u << v % 32;
	else
		set[v / 32] &= ~(1u << v % 32);
}

static bool test_bit(const uint32_t set[8], uint8_t v)
{
	return set[v / 32] >> v % 32 & 1;
}

uint8_t lapic_ppr(const struct lapic *l)
{
	int in_service = highest(l->isr);
	uint8_t isr_class = in_service < 0 ? 0 : in_service & 0xf0;

	return (l->tpr & 0xf0) >= isr_class ? l->tpr : isr_class;
}

/* The PIC reaches the vCPU while the APIC is off, or through LINT0 as ExtINT. */
static bool lint0_open(const struct lapic *l)
{
	uint32_t lvt = l->lvt[LVT_LINT0];

	if (!l->env.extint)
		return false;
	return !lapic_on(l) || (!(lvt & LVT_MASKED) && (lvt >> LVT_MODE_SHIFT & 7) == DM_EXTINT);
}

/* Recomputes what the vCPU thread looks at, and wakes it if there is something new. */
void lapic_update(struct lapic *l)
{
	int before = atomic_load(&l->candidate), v = lapic_on(l) ? highest(l->irr) : -1;
	bool open = lint0_open(l);

	if (v >= 0 && (v & 0xf0) <= (lapic_ppr(l) & 0xf0))
		v = -1;
	atomic_store(&l->candidate, v);
	if (v > before || (open && !atomic_load(&l->extint_open)))
		l->todo.wake = true;
	atomic_store(&l->extint_open, open);
}

void lapic_unlock(struct lapic *l)
{
	struct lapic_todo todo = l->todo;

	l->todo = (struct lapic_todo){0};
	pthread_mutex_unlock(&l->lock);
	if (todo.eoi && l->env.eoi)
		l->env.eoi(l->env.eoi_ctx, todo.eoi_vector);
	if (todo.send)
		lapic_route(l->bus, l, &todo.msg);
	if (todo.wake && l->env.wake)
		l->env.wake(l->env.ctx);
}

void lapic_error(struct lapic *l, uint32_t bit)
{
	bool first = !(l->esr & bit);

	l->esr |= bit;
	if (first)
		lapic_lvt_fire(l, LVT_ERROR);
}

/* Accepts a fixed interrupt (11.8.4). */
void lapic_raise(struct lapic *l, uint8_t vector, bool level)
{
	if (!lapic_on(l) || !(l->svr & SVR_ENABLE))
		return;
	if (vector < 16) {
		lapic_error(l, ESR_RECEIVE_VECTOR);
		return;
	}
	set_bit(l->irr, vector, true);
	set_bit(l->tmr, vector, level);
	lapic_update(l);
}

/* As many as a processor tells apart: while one is served, it keeps one more. */
void lapic_nmi(struct lapic *l)
{
	if (atomic_load(&l->nmis) < 2) /* others only take away */
		atomic_fetch_add(&l->nmis, 1);
	l->todo.wake = true;
}

void lapic_lvt_fire(struct lapic *l, enum lvt which)
{
	uint32_t lvt = l->lvt[which];
	uint8_t vector = lvt;

	if (lvt & LVT_MASKED)
		return;
	switch (which == LVT_TIMER || which == LVT_ERROR ? DM_FIXED : lvt >> LVT_MODE_SHIFT & 7) {
	case DM_FIXED:
		if (vector >= 16)
			lapic_raise(l, vector, false);
		else if (which != LVT_ERROR) /* its own bad vector must not raise it again */
			lapic_error(l, ESR_RECEIVE_VECTOR);
		else
			l->esr |= ESR_RECEIVE_VECTOR;
		break;
	case DM_NMI: lapic_nmi(l); break;
	case DM_INIT:
		atomic_store(&l->init, true);
		l->todo.wake = true;
		break;
	case DM_EXTINT:
		if (l->env.extint) {
			atomic_store(&l->extint_msg, true);
			l->todo.wake = true;
		}
		break;
	}
}

/* --- the vCPU's side --- */

static bool extint_waits(struct lapic *l)
{
	return atomic_load(&l->extint_msg) ||
	       (atomic_load(&l->extint_open) && l->env.extint->pending(l->env.extint));
}

static bool port_pending(struct lapic_port *p)
{
	struct lapic *l = to_lapic(p);

	return atomic_load(&l->candidate) >= 0 || extint_waits(l);
}

static int port_ack(struct lapic_port *p)
{
	struct lapic *l = to_lapic(p);
	int v;

	/* The PIC first: it is not ranked among the local vectors. No lock here, its own
	 * comes before ours. */
	if (extint_waits(l)) {
		atomic_store(&l->extint_msg, false);
		return l->env.extint->ack(l->env.extint);
	}
	lapic_lock(l);
	v = atomic_load(&l->candidate);
	if (v >= 0) {
		set_bit(l->irr, v, false);
		set_bit(l->isr, v, true);
		lapic_update(l);
	}
	lapic_unlock(l);
	return v;
}

void lapic_end_interrupt(struct lapic *l)
{
	int v = highest(l->isr);

	if (v < 0)
		return;
	set_bit(l->isr, v, false);
	if (test_bit(l->tmr, v) && !(l->svr & SVR_NO_BROADCAST)) {
		l->todo.eoi = true;
		l->todo.eoi_vector = v;
	}
	lapic_update(l);
}

static uint8_t port_get_cr8(struct lapic_port *p)
{
	struct lapic *l = to_lapic(p);
	uint8_t v;

	lapic_lock(l);
	v = l->tpr >> 4;
	lapic_unlock(l);
	return v;
}

static void port_set_cr8(struct lapic_port *p, uint8_t cr8)
{
	struct lapic *l = to_lapic(p);

	lapic_lock(l);
	l->tpr = (uint32_t)(cr8 & 15) << 4;
	lapic_update(l);
	lapic_unlock(l);
}

static bool port_take_nmi(struct lapic_port *p)
{
	atomic_uint *nmis = &to_lapic(p)->nmis;
	unsigned n = atomic_load(nmis);

	while (n && !atomic_compare_exchange_weak(nmis, &n, n - 1))
		;
	return n;
}

static int port_take_sipi(struct lapic_port *p)
{
	return atomic_exchange(&to_lapic(p)->sipi, -1);
}

/* --- reset --- */

void lapic_reset_registers(struct lapic *l)
{
	l->tpr = l->ldr = l->esr = l->esr_seen = 0;
	l->icr = 0;
	l->dfr = 0xffffffff;
	l->svr = 0xff;
	memset(l->irr, 0, sizeof l->irr);
	memset(l->isr, 0, sizeof l->isr);
	memset(l->tmr, 0, sizeof l->tmr);
	for (unsigned i = 0; i < LVT_COUNT; i++)
		l->lvt[i] = LVT_MASKED;
	/* Virtual wire, which firmware would set up before it starts a kernel. */
	if (l->env.extint)
		l->lvt[LVT_LINT0] = DM_EXTINT << LVT_MODE_SHIFT;
	l->divide = 0;
	lapic_timer_stop(l);
	lapic_update(l);
}

void lapic_reset(struct lapic *l)
{
	lapic_lock(l);
	l->base = LAPIC_BASE | APIC_BASE_ON | (l->id == 0 ? APIC_BASE_BSP : 0);
	atomic_store(&l->nmis, 0);
	atomic_store(&l->init, false);
	atomic_store(&l->extint_msg, false);
	atomic_store(&l->sipi, -1);
	lapic_reset_registers(l);
	lapic_unlock(l);
}

static bool port_take_init(struct lapic_port *p)
{
	struct lapic *l = to_lapic(p);

	if (!atomic_exchange(&l->init, false))
		return false;
	lapic_lock(l);
	lapic_reset_registers(l);
	lapic_unlock(l);
	return true;
}

static const struct lapic_ops lapic_ops = {
	.pending = port_pending,
	.ack = port_ack,
	.get_cr8 = port_get_cr8,
	.set_cr8 = port_set_cr8,
	.rdmsr = lapic_rdmsr,
	.wrmsr = lapic_wrmsr,
	.mmio_read = lapic_mmio_read,
	.mmio_write = lapic_mmio_write,
	.load = lapic_load,
	.store = lapic_store,
	.take_nmi = port_take_nmi,
	.take_init = port_take_init,
	.take_sipi = port_take_sipi,
	.send = lapic_send,
};

struct lapic_port *lapic_port(struct lapic *l)
{
	return &l->port;
}

/* LINT1: an NMI as firmware would set it up while the APIC is off, else what its LVT says. */
static void set_lint1(struct irq_line *line, bool level)
{
	struct lapic *l = container_of(line, struct lapic, nmi_line);
	bool rose;

	lapic_lock(l);
	rose = level && !l->lint1;
	l->lint1 = level;
	if (rose && lapic_on(l)) {
		lapic_lvt_fire(l, LVT_LINT1);
	} else if (rose) {
		lapic_nmi(l);
	}
	lapic_unlock(l);
}

struct irq_line *lapic_nmi_line(struct lapic *l)
{
	return &l->nmi_line;
}

/* Called with the PIC's lock held; pending() takes none. */
void lapic_extint_changed(struct lapic *l)
{
	if (!l->env.extint || !l->env.extint->pending(l->env.extint))
		return;
	lapic_lock(l);
	if (lint0_open(l))
		l->todo.wake = true;
	else if (lapic_on(l))
		lapic_lvt_fire(l, LVT_LINT0);
	lapic_unlock(l);
}

static int bus_add(struct lapic_bus *b, struct lapic *l)
{
	struct lapic **all = realloc(b->lapics, (b->count + 1) * sizeof *all);

	if (!all)
		return -ENOMEM;
	b->lapics = all;
	all[b->count++] = l;
	return 0;
}

static void bus_remove(struct lapic_bus *b, const struct lapic *l)
{
	for (unsigned i = 0; i < b->count; i++)
		if (b->lapics[i] == l) {
			b->lapics[i] = b->lapics[--b->count];
			return;
		}
}

void lapic_free(struct lapic *l)
{
	if (!l)
		return;
	bus_remove(l->bus, l);
	timer_cancel(l->env.clock, &l->timer);
	pthread_mutex_destroy(&l->lock);
	free(l);
}

int lapic_new(struct lapic **out, struct lapic_bus *b, uint32_t apic_id,
	      const struct lapic_env *env, struct err *e)
{
	struct lapic *l = calloc(1, sizeof *l);

	if (!l || bus_add(b, l) < 0) {
		free(l);
		return err_set(e, ENOMEM, "local APIC %u", apic_id);
	}
	l->port.ops = &lapic_ops;
	l->nmi_line.set = set_lint1;
	l->bus = b;
	l->env = *env;
	if (!l->env.timer_hz)
		l->env.timer_hz = 1000000000;
	if (!l->env.tsc_hz)
		l->env.tsc_hz = 1000000000;
	l->id = apic_id;
	l->timer.fire = lapic_timer_fire;
	pthread_mutex_init(&l->lock, NULL);
	atomic_init(&l->candidate, -1);
	lapic_reset(l);
	*out = l;
	return 0;
}
