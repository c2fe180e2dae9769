#include "cli/limit_option.h"

#include <errno.h>

static int parse(const struct limit_opts *o, struct resource_limits *to, struct err *e)
{
	int r = 0;

	*to = (struct resource_limits){
		.weight = o->cpu_weight, .io_weight = o->io_weight, .memory = o->memory_limit};
	if (o->cpu_cap && (r = cap_parse(o->cpu_cap, &to->cap, e)) < 0)
		return err_wrap(e, "--cpu-cap");
	if (o->vcpu_cap && (r = cap_parse(o->vcpu_cap, &to->vcpu_cap, e)) < 0)
		return err_wrap(e, "--vcpu-cap");
	if (o->swap_limit && (r = size_parse(o->swap_limit, &to->swap, e)) < 0)
		return err_wrap(e, "--swap-limit");
	if (o->swap_limit && !o->memory_limit)
		return err_set(e, EINVAL, "--swap-limit goes with --memory-limit");
	to->swap_none = o->swap_limit && !to->swap;
	return 0;
}

/* Pins of vCPUs to l; of the VM, the last one, to *vm, with *found. */
static int parse_pins(struct limit_options *l, const struct limit_opts *o, cpu_set_t *vm,
		      bool *found, struct err *e)
{
	*found = false;
	l->pins = 0;
	for (unsigned i = 0; i < o->cpu_pin.n; i++) {
		struct cpu_pin *p = &l->pin[l->pins];

		if (cpu_pin_parse(o->cpu_pin.value[i], p, e) < 0)
			return err_wrap(e, "--cpu-pin");
		if (p->vcpu != PIN_ALL) {
			l->pins++;
			continue;
		}
		*vm = p->cpus;
		*found = true;
	}
	return 0;
}

int limit_options_check(const struct limit_opts *o, struct err *e)
{
	struct resource_limits limits;
	struct limit_options l;
	cpu_set_t cpus;
	bool pin;
	int r = parse(o, &limits, e);

	return r < 0 ? r : parse_pins(&l, o, &cpus, &pin, e);
}

int limit_options_apply(struct limit_options *l, const struct limit_opts *o, struct err *e)
{
	struct resource_limits limits;
	cpu_set_t cpus;
	bool pin;
	int r = parse(o, &limits, e);

	if (r == 0)
		r = parse_pins(l, o, &cpus, &pin, e);
	return r < 0 ? r : resource_new(&l->resource, &limits, pin ? &cpus : NULL, !o->cgroup, e);
}

void limit_options_done(struct limit_options *l)
{
	resource_free(l->resource);
	l->resource = NULL;
}
