/* resource: the limits of this process, which is a VM. Control groups hold them where there are some
 * that the user may use; else weights are the nice value and the I/O priority of its threads, and
 * the cap of the processor is left to whoever runs the vCPUs (machine/machine_limits.c). Memory has
 * no such second way.
 *
 * resource_new before there are threads: those to come inherit what is set. The others from one
 * thread at a time. They work in a confined process: what they write to is open. */
#pragma once

#include "resource/limits.h"

struct resource;

/* pin: or NULL. use_cgroups: false: as if the host had none. */
WARN_UNUSED int resource_new(struct resource **out, const struct resource_limits *l,
			     const cpu_set_t *pin, bool use_cgroups, struct err *e);
void resource_free(struct resource *r); /* accepts NULL */

const struct resource_limits *resource_limits(const struct resource *r);
/* "cgroup", or "holon" when whoever runs the vCPUs has to hold the cap. */
const char *resource_cap_by(const struct resource *r);
/* The directory of its [n]th control group; NULL: there are no more. */
const char *resource_cgroup(const struct resource *r, unsigned n);
uint64_t resource_memory(struct resource *r); /* bytes used; 0: not known */

WARN_UNUSED int resource_set_cap(struct resource *r, unsigned cap, struct err *e);
void resource_set_vcpu_cap(struct resource *r, unsigned cap); /* only notes it */
WARN_UNUSED int resource_set_weight(struct resource *r, unsigned weight, struct err *e);
WARN_UNUSED int resource_set_io_weight(struct resource *r, unsigned weight, struct err *e);
/* Of l only memory and swap. */
WARN_UNUSED int resource_set_memory(struct resource *r, const struct resource_limits *l,
				    struct err *e);
/* All threads that there are, and those that they will make. */
WARN_UNUSED int resource_pin(struct resource *r, const cpu_set_t *cpus, struct err *e);
