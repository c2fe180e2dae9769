#include "machine/fake_engine.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

guest_code *code;
atomic_int incarnations, inside;
atomic_bool frozen;

struct guest_vm {
	struct engine_vm base;
	const struct engine_env *env;
};

void nap(void)
{
	nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
}

static int fake_vm_new(struct engine_vm **out, const struct engine_env *env, struct err *e)
{
	struct guest_vm *vm = calloc(1, sizeof *vm);

	assert(vm);
	vm->base.engine = &engine_jit;
	vm->env = env;
	atomic_fetch_add(&incarnations, 1);
	*out = &vm->base;
	return 0;
}

static void fake_vm_free(struct engine_vm *vm)
{
	if (vm)
		free(container_of(vm, struct guest_vm, base));
}

static int fake_vcpu_new(struct vcpu **out, struct engine_vm *vm, uint32_t index, struct err *e)
{
	struct guest *g = aligned_alloc(_Alignof(struct guest), sizeof *g);

	assert(g);
	memset(g, 0, sizeof *g);
	g->vcpu = (struct vcpu){.engine = &engine_jit, .vm = vm, .index = index};
	g->env = container_of(vm, struct guest_vm, base)->env;
	*out = &g->vcpu;
	return 0;
}

static struct guest *to_guest(struct vcpu *v)
{
	return container_of(v, struct guest, vcpu);
}

static void fake_vcpu_free(struct vcpu *v)
{
	if (v)
		free(to_guest(v));
}

static int fake_run_inside(struct guest *g, enum vcpu_stop *why, struct err *e)
{
	*why = VCPU_KICKED;
	if (!g->ran || g->again) {
		int r;

		g->ran = true;
		r = code(g, why, e);
		if (r < 0 || *why != VCPU_KICKED)
			return r;
	}
	while (!atomic_exchange(&g->kicked, false))
		nap();
	return 0;
}

static int fake_run(struct vcpu *v, enum vcpu_stop *why, struct err *e)
{
	int r;

	atomic_fetch_add(&inside, 1);
	r = fake_run_inside(to_guest(v), why, e);
	atomic_fetch_sub(&inside, 1);
	return r;
}

static void fake_freeze(struct vcpu *v, bool on)
{
	assert(atomic_load(&inside) == 0);
	atomic_store(&frozen, on);
}

static void fake_kick(struct vcpu *v)
{
	atomic_store(&to_guest(v)->kicked, true);
}

static void fake_irq(struct vcpu *v)
{
}

static int fake_load(struct vcpu *v, const struct x86_state *s, struct err *e)
{
	to_guest(v)->state = *s;
	return 0;
}

static int fake_store(struct vcpu *v, struct x86_state *s, struct err *e)
{
	*s = to_guest(v)->state;
	return 0;
}

static uint64_t fake_tsc(struct vcpu *v)
{
	return __builtin_ia32_rdtsc();
}

const struct engine engine_jit = {
	.name = "jit",
	.vm_new = fake_vm_new,
	.vm_free = fake_vm_free,
	.vcpu_new = fake_vcpu_new,
	.vcpu_free = fake_vcpu_free,
	.run = fake_run,
	.kick = fake_kick,
	.irq = fake_irq,
	.load = fake_load,
	.store = fake_store,
	.tsc = fake_tsc,
	.freeze = fake_freeze,
};

void fake_pio_out(struct guest *g, uint16_t port, uint32_t v, unsigned size)
{
	bus_write(g->env->bus, BUS_PIO, port, v, size);
}

uint32_t fake_pio_in(struct guest *g, uint16_t port, unsigned size)
{
	return (uint32_t)bus_read(g->env->bus, BUS_PIO, port, size);
}
