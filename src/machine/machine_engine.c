/* The engine's VM is made anew for each reset of the machine: then nothing of the guest
 * before, translated code, kvmclock, TLBs, can be left over, and the devices, which keep
 * their host-side connections, are aimed at the new one. */
#include "machine/machine_priv.h"

#include <errno.h>
#include <stdlib.h>

static void level_eoi(void *ctx, uint8_t vector)
{
	struct machine *m = ctx;

	ioapic_eoi(m->device[DEV_IOAPIC], vector);
}

static uint64_t cpu_tsc(void *ctx)
{
	struct machine_cpu *c = ctx;

	return c->m->engine->tsc(c->vcpu);
}

static void cpu_wake(void *ctx)
{
	struct machine_cpu *c = ctx;

	c->m->engine->irq(c->vcpu);
}

static int make_vm(struct machine *m, struct err *e)
{
	m->engine_env = (struct engine_env){
		.mem = m->mem,
		.bus = m->bus,
		.clock = loop_clock(m->loop),
		.cpuid = &m->cpuid,
		.extint = pic_extint(m->device[DEV_PIC]),
		.eoi = level_eoi,
		.eoi_ctx = m,
		.apic_hz = APIC_HZ,
		.wall_epoch_ns = m->wall_epoch_ns,
		.code_cache_bytes = m->jit_cache_bytes,
		.force = m->force,
	};
	return m->engine->vm_new(&m->vm, &m->engine_env, e);
}

static int make_lapic(struct machine *m, struct machine_cpu *c, uint32_t id, struct err *e)
{
	const struct lapic_env env = {
		.clock = loop_clock(m->loop),
		.timer_hz = APIC_HZ,
		.tsc_now = cpu_tsc,
		.tsc_hz = m->cpuid.tsc_hz,
		.wake = cpu_wake,
		.ctx = c,
		.extint = id == 0 ? m->engine_env.extint : NULL,
		.eoi = level_eoi,
		.eoi_ctx = m,
	};
	int r = lapic_new(&c->lapic, m->lapic_bus, id, &env, e);

	if (r == 0)
		c->vcpu->lapic = lapic_port(c->lapic);
	return r;
}

static int make_cpu(struct machine *m, uint32_t id, struct err *e)
{
	struct machine_cpu *c = &m->cpu[id];
	int r = m->engine->vcpu_new(&c->vcpu, m->vm, id, e);

	if (r < 0)
		return r;
	c->thread.vcpu = c->vcpu;
	return m->lapic_bus ? make_lapic(m, c, id, e) : 0;
}

int machine_make_engine(struct machine *m, struct err *e)
{
	int r = make_vm(m, e);

	if (r == 0 && !m->engine->own_lapic)
		r = lapic_bus_new(&m->lapic_bus, e);
	for (unsigned i = 0; r == 0 && i < m->cpus; i++)
		r = make_cpu(m, i, e);
	if (r < 0)
		return err_wrap(e, "engine %s", m->engine->name);

	irq_router_aim(&m->irq, m->lapic_bus ? lapic_bus_msi(m->lapic_bus) : m->vm->msi,
		       m->cpu[0].lapic, m->cpu[0].vcpu);
	return 0;
}

void machine_free_engine(struct machine *m)
{
	irq_router_aim(&m->irq, NULL, NULL, NULL);
	for (unsigned i = 0; m->cpu && i < m->cpus; i++) {
		struct machine_cpu *c = &m->cpu[i];

		if (c->vcpu) {
			c->vcpu->lapic = NULL;
			m->engine->vcpu_free(c->vcpu);
		}
		c->vcpu = c->thread.vcpu = NULL;
	}
	for (unsigned i = 0; m->cpu && i < m->cpus; i++) {
		lapic_free(m->cpu[i].lapic);
		m->cpu[i].lapic = NULL;
	}
	lapic_bus_free(m->lapic_bus);
	m->lapic_bus = NULL;
	if (m->vm)
		m->engine->vm_free(m->vm);
	m->vm = NULL;
}

void machine_engine_stats(const struct machine *m, char *to, uint32_t len)
{
	*to = 0;
	if (m->vm && m->engine->stats)
		m->engine->stats(m->vm, to, len);
}
