/* Limits of the VM that change while it runs; on the loop thread. */
#include "control/control_priv.h"

#include <errno.h>

#include "control/methods.h"

bool control_sets_limits(const struct set_args *a)
{
	return a->cpu_cap || a->vcpu_cap || a->cpu_weight || a->io_weight || a->cpu_pin.n ||
	       a->memory_limit != SET_KEEP || a->swap_limit;
}

/* All that is given, before any of it is set. */
struct wishes {
	unsigned cap, vcpu_cap;
	uint64_t swap;
	struct cpu_pin pin[OPTION_LIST_MAX];
};

static int parse(const struct set_args *a, struct wishes *w, struct err *e)
{
	if (a->cpu_cap && cap_parse(a->cpu_cap, &w->cap, e) < 0)
		return err_wrap(e, "cpu-cap");
	if (a->vcpu_cap && cap_parse(a->vcpu_cap, &w->vcpu_cap, e) < 0)
		return err_wrap(e, "vcpu-cap");
	if (a->swap_limit && size_parse(a->swap_limit, &w->swap, e) < 0)
		return err_wrap(e, "swap-limit");
	if (a->swap_limit && (a->memory_limit == SET_KEEP || !a->memory_limit))
		return err_set(e, EINVAL, "swap-limit goes with memory-limit");
	for (unsigned i = 0; i < a->cpu_pin.n; i++)
		if (cpu_pin_parse(a->cpu_pin.value[i], &w->pin[i], e) < 0)
			return err_wrap(e, "cpu-pin");
	return 0;
}

int control_set_limits(struct control *c, const struct set_args *a, struct err *e)
{
	struct resource *res = machine_resource(c->machine);
	struct resource_limits memory = {.memory = a->memory_limit};
	struct wishes w = {0};
	int r = parse(a, &w, e);

	if (r < 0)
		return r;
	if (!res)
		return err_set(e, ENOTSUP, "this machine was made without limits");
	memory.swap = w.swap;
	memory.swap_none = a->swap_limit && !w.swap;
	if (a->cpu_cap && (r = machine_set_cap(c->machine, w.cap, e)) < 0)
		return r;
	if (a->vcpu_cap && (r = machine_set_vcpu_cap(c->machine, w.vcpu_cap, e)) < 0)
		return r;
	if (a->cpu_weight && (r = resource_set_weight(res, a->cpu_weight, e)) < 0)
		return r;
	if (a->io_weight && (r = resource_set_io_weight(res, a->io_weight, e)) < 0)
		return r;
	if (a->memory_limit != SET_KEEP && (r = resource_set_memory(res, &memory, e)) < 0)
		return r;
	for (unsigned i = 0; i < a->cpu_pin.n && r == 0; i++)
		r = machine_pin(c->machine, &w.pin[i], e);
	return r;
}
