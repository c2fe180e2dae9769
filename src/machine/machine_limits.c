/* How much of the host's processors the machine may have. Where control groups hold the machine's cap
 * nothing is done here. Else, and for caps of single vCPUs, the loop thread looks at times at the
 * processor time used, and makes vCPUs wait outside the guest that are in debt (bandwidth.h). A look
 * comes when an account can be empty at the earliest, so a machine that does little is hardly looked
 * at. The machine's cap counts all threads of the process, and only vCPUs wait for it. */
#include "machine/machine_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static uint64_t process_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void look(struct machine *m)
{
	struct clock *clock = loop_clock(m->loop);
	uint64_t now = clock_now(clock), next = UINT64_MAX;

	if (m->bandwidth.cap)
		next = bandwidth_look(&m->bandwidth, now, process_ns(), m->cpus);
	for (unsigned i = 0; i < m->cpus; i++) {
		struct bandwidth *b = &m->cpu[i].bandwidth;

		if (b->cap)
			next = min_u64(next, bandwidth_look(b, now, machine_vcpu_ns(m, i), 1));
		vcpu_thread_throttle(&m->cpu[i].thread, m->bandwidth.waits || b->waits);
	}
	if (next != UINT64_MAX)
		timer_arm(clock, &m->bandwidth_timer, now + next);
}

static void time_to_look(struct timer *t)
{
	struct machine *m = container_of(t, struct machine, bandwidth_timer);

	if (!m->ended)
		look(m);
}

/* What is to be held here of what the limits say. */
static void take_caps(struct machine *m)
{
	const struct resource_limits *l = resource_limits(m->resource);
	bool own = strcmp(resource_cap_by(m->resource), "cgroup") != 0;
	uint64_t now = clock_now(loop_clock(m->loop));

	bandwidth_set(&m->bandwidth, own ? l->cap : 0, now, process_ns());
	for (unsigned i = 0; i < m->cpus; i++)
		bandwidth_set(&m->cpu[i].bandwidth, l->vcpu_cap, now, machine_vcpu_ns(m, i));
	timer_cancel(loop_clock(m->loop), &m->bandwidth_timer);
	look(m);
}

static int pin_vcpu(struct machine *m, unsigned i, struct err *e)
{
	int r = m->cpu[i].thread.started && m->cpu[i].pin
			? pthread_setaffinity_np(m->cpu[i].thread.thread, sizeof *m->cpu[i].pin,
						 m->cpu[i].pin)
			: 0;

	return r ? err_sys(e, r, "pin vCPU %u to these processors", i) : 0;
}

static int note_pin(struct machine *m, const struct cpu_pin *pin, struct err *e)
{
	cpu_set_t **to;

	if (pin->vcpu >= m->cpus)
		return err_set(e, EINVAL, "pin vCPU %u: the machine has %u, from 0 on", pin->vcpu,
			       m->cpus);
	to = &m->cpu[pin->vcpu].pin;
	if (!*to && !(*to = malloc(sizeof **to)))
		return err_set(e, ENOMEM, "out of memory");
	**to = pin->cpus;
	return 0;
}

int machine_limits_init(struct machine *m, const struct machine_config *c, struct err *e)
{
	int r = 0;

	m->resource = c->resource;
	m->bandwidth_timer.fire = time_to_look;
	for (unsigned i = 0; i < c->pins && r == 0; i++)
		r = note_pin(m, &c->pin[i], e);
	return r;
}

int machine_limits_start(struct machine *m, struct err *e)
{
	int r = 0;

	for (unsigned i = 0; i < m->cpus && r == 0; i++)
		r = pin_vcpu(m, i, e);
	if (r == 0 && m->resource)
		take_caps(m);
	return r;
}

void machine_limits_stop(struct machine *m)
{
	timer_cancel(loop_clock(m->loop), &m->bandwidth_timer);
}

void machine_limits_free(struct machine *m)
{
	for (unsigned i = 0; m->cpu && i < m->cpus; i++)
		free(m->cpu[i].pin);
}

/* --- while it runs --- */

static int has_limits(struct machine *m, struct err *e)
{
	return m->resource ? 0 : err_set(e, ENOTSUP, "this machine was made without limits");
}

struct resource *machine_resource(struct machine *m)
{
	return m->resource;
}

int machine_set_cap(struct machine *m, unsigned cap, struct err *e)
{
	int r = has_limits(m, e);

	if (r == 0 && (r = resource_set_cap(m->resource, cap, e)) == 0)
		take_caps(m);
	return r;
}

int machine_set_vcpu_cap(struct machine *m, unsigned cap, struct err *e)
{
	int r = has_limits(m, e);

	if (r == 0) {
		resource_set_vcpu_cap(m->resource, cap);
		take_caps(m);
	}
	return r;
}

int machine_pin(struct machine *m, const struct cpu_pin *pin, struct err *e)
{
	int r = has_limits(m, e);

	if (r < 0)
		return r;
	if (pin->vcpu != PIN_ALL)
		return (r = note_pin(m, pin, e)) < 0 ? r : pin_vcpu(m, pin->vcpu, e);
	r = resource_pin(m->resource, &pin->cpus, e);
	/* Those of its own a vCPU keeps. */
	for (unsigned i = 0; i < m->cpus && r == 0; i++)
		r = pin_vcpu(m, i, e);
	return r;
}
