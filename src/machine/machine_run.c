/* The life of a machine that is built: its vCPUs run until something happens to the machine
 * as a whole. Whoever causes that (a device the guest wrote to, a vCPU's triple fault)
 * takes m->event, if nobody has yet, holds every vCPU and wakes the loop thread, which acts
 * with all of them parked: the machine ends, or starts again. */
#include "machine/machine_gdb.h"
#include "machine/machine_priv.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/log.h"

enum machine_event {
	EVENT_NONE,
	EVENT_POWER_OFF,
	EVENT_RESET,
	EVENT_DEBUG_EXIT,
	EVENT_TRIPLE_FAULT,
	EVENT_FAILED
};

/* --- noted, on any thread --- */

void machine_look(struct machine *m)
{
	uint64_t one = 1;

	/* Fails only when the counter is full: then the loop is being woken anyway. */
	if (write(m->wake_fd, &one, sizeof one) < 0)
		return;
}

static bool take_event(struct machine *m, enum machine_event what, uint32_t value)
{
	uint64_t none = EVENT_NONE;

	return atomic_compare_exchange_strong(&m->event, &none, (uint64_t)value << 8 | what);
}

static void publish_event(struct machine *m)
{
	atomic_store(&m->event_ready, true);
	for (unsigned i = 0; i < m->cpus; i++)
		vcpu_thread_hold(&m->cpu[i].thread);
	machine_look(m);
}

static void guest_request(struct machine_port *p, enum machine_request what, uint32_t value)
{
	static const enum machine_event event_of[] = {
		[MACHINE_POWER_OFF] = EVENT_POWER_OFF,
		[MACHINE_RESET] = EVENT_RESET,
		[MACHINE_DEBUG_EXIT] = EVENT_DEBUG_EXIT,
	};
	struct machine *m = container_of(p, struct machine, port);

	if (take_event(m, event_of[what], value))
		publish_event(m);
}

static void vcpu_ended(struct vcpu_owner *o, struct vcpu_thread *t, enum vcpu_stop why)
{
	struct machine *m = container_of(o, struct machine, vcpu_owner);
	unsigned index = t->vcpu->index;

	if (why == VCPU_HALTED) {
		log_warn("vCPU %u halted for good: it waits with interrupts off", index);
		return;
	}
	if (why == VCPU_BREAKPOINT && m->gdb) {
		atomic_store(&m->cpu[index].debug_stop, true);
		atomic_fetch_or(&m->signals, SIGNAL_DEBUG);
		machine_look(m);
		return;
	}
	if (!take_event(m, why == VCPU_SHUTDOWN ? EVENT_TRIPLE_FAULT : EVENT_FAILED, index))
		return;
	if (m->engine->store(t->vcpu, &m->event_state, &m->event_err) == 0)
		err_set(&m->event_err, EPROTO, "vCPU %u: a breakpoint that nobody set", index);
	publish_event(m);
}

static void vcpu_failed(struct vcpu_owner *o, struct vcpu_thread *t, const struct err *why)
{
	struct machine *m = container_of(o, struct machine, vcpu_owner);

	if (!take_event(m, EVENT_FAILED, t->vcpu->index))
		return;
	m->event_err = *why;
	publish_event(m);
}

void machine_power_button(struct machine *m)
{
	atomic_fetch_or(&m->signals, SIGNAL_BUTTON);
	machine_look(m);
}

void machine_stop(struct machine *m)
{
	atomic_fetch_or(&m->signals, SIGNAL_STOP);
	machine_look(m);
}

/* --- done, on the loop thread --- */

/* As holon run exits. */
static uint8_t status_of(const struct machine *m)
{
	switch (m->result.end) {
	case END_DEBUG_EXIT: return (uint8_t)(m->result.value << 1 | 1);
	case END_RESET:
	case END_TRIPLE_FAULT: return 3;
	case END_ERROR: return 1;
	default: return 0;
	}
}

static void finish(struct machine *m, enum machine_end end)
{
	if (m->ended)
		return;
	m->ended = true;
	m->result.end = end;
	machine_gdb_ended(m, status_of(m));
	loop_stop(m->loop);
}

static void fail(struct machine *m, const struct err *why)
{
	m->result_err = *why;
	finish(m, END_ERROR);
}

static int clear_ram(struct machine *m, struct err *e)
{
	const struct mem_region *region;
	unsigned n = mem_regions(m->mem, &region);
	int r = 0;

	for (unsigned i = 0; i < n && r == 0; i++)
		r = mem_discard(m->mem, region[i].gpa, region[i].size);
	return r < 0 ? err_sys(e, -r, "clear guest RAM") : 0;
}

static int start_again(struct machine *m, struct err *e)
{
	int r;

	machine_pause_virtio(m);
	machine_free_engine(m);
	machine_reset_virtio(m);
	machine_reset_devices(m);
	if ((r = clear_ram(m, e)) < 0 || (r = machine_make_engine(m, e)) < 0 ||
	    (r = machine_load_guest(m, e)) < 0)
		return err_wrap(e, "reboot");
	return 0;
}

static void reset(struct machine *m)
{
	struct err err = {0};

	machine_park_cpus(m);
	if (m->no_reboot) {
		if (m->engine->store(m->cpu[0].vcpu, &m->result.state, &err) < 0)
			fail(m, &err);
		else
			finish(m, END_RESET);
		return;
	}
	if (start_again(m, &err) < 0) {
		fail(m, &err);
		return;
	}
	atomic_store(&m->event_ready, false);
	atomic_store(&m->event, EVENT_NONE);
	machine_run_cpus(m);
	machine_tell_watcher(m, MACHINE_WAS_RESET);
}

void machine_restart(struct machine *m)
{
	if (!m->ended)
		reset(m);
}

/* What the guest asked for at the same moment goes first: it has all vCPUs held. */
void machine_reset(struct machine *m)
{
	if (!m->ended && take_event(m, EVENT_RESET, 0))
		publish_event(m);
}

static void act_on_event(struct machine *m)
{
	uint64_t event = atomic_load(&m->event);

	m->result.value = (uint32_t)(event >> 8);
	switch ((enum machine_event)(event & 0xff)) {
	case EVENT_NONE: break;
	case EVENT_POWER_OFF: finish(m, END_POWER_OFF); break;
	case EVENT_RESET: reset(m); break;
	case EVENT_DEBUG_EXIT: finish(m, END_DEBUG_EXIT); break;
	case EVENT_TRIPLE_FAULT:
		if (machine_gdb_triple_fault(m, m->result.value))
			break;
		m->result.state = m->event_state;
		finish(m, END_TRIPLE_FAULT);
		break;
	case EVENT_FAILED: fail(m, &m->event_err); break;
	}
}

static void loop_woken(struct loop_fd *f, uint32_t events)
{
	struct machine *m = container_of(f, struct machine, wake);
	uint64_t count;
	unsigned signals;

	if (read(m->wake_fd, &count, sizeof count) < 0 || m->ended)
		return;
	signals = atomic_exchange(&m->signals, 0);
	if (signals & SIGNAL_STOP)
		finish(m, END_STOPPED);
	else if (atomic_load(&m->event_ready))
		act_on_event(m);
	if (signals & SIGNAL_DEBUG && !m->ended)
		machine_gdb_stopped(m);
	if (signals & SIGNAL_BUTTON && !m->ended)
		pm_power_button(m->device[DEV_PM]);
}

/* --- */

int machine_life_init(struct machine *m, struct err *e)
{
	m->port.request = guest_request;
	m->vcpu_owner = (struct vcpu_owner){.ended = vcpu_ended, .failed = vcpu_failed};
	m->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (m->wake_fd < 0)
		return err_sys(e, errno, "eventfd");
	m->wake = (struct loop_fd){.fd = m->wake_fd, .ready = loop_woken};
	return loop_add(m->loop, &m->wake, EPOLLIN, e);
}

void machine_life_done(struct machine *m)
{
	if (m->wake_fd < 0)
		return;
	loop_del(m->loop, &m->wake);
	close(m->wake_fd);
}

static int start_threads(struct machine *m, struct err *e)
{
	for (unsigned i = 0; i < m->cpus; i++) {
		int r = vcpu_thread_start(&m->cpu[i].thread, i, e);

		if (r < 0)
			return r;
	}
	return 0;
}

int machine_run(struct machine *m, struct machine_result *result, struct err *e)
{
	int r = start_threads(m, e);

	if (r == 0)
		r = machine_limits_start(m, e);
	if (r == 0) {
		if (!m->paused) /* else they stand still already */
			machine_run_cpus(m);
		r = machine_start_io(m, e);
	}
	if (r == 0) {
		r = loop_run(m->loop);
		if (r < 0)
			err_sys(e, -r, "event loop");
	}
	machine_limits_stop(m);
	for (unsigned i = 0; i < m->cpus; i++)
		vcpu_thread_quit(&m->cpu[i].thread);
	if (r < 0)
		return r;

	if (m->result.end == END_ERROR && e)
		*e = m->result_err;
	*result = m->result;
	return m->result.end == END_ERROR ? -m->result_err.code : 0;
}
