/* Pauses: the vCPUs are parked and all that the guest can tell time by stands still. I/O
 * threads go on with what they have, so that what is under way ends, and what cannot end yet
 * (a disk without space) is tried again. Several reasons may hold at once. */
#include "machine/machine_gdb.h"
#include "machine/machine_priv.h"

void machine_tell_watcher(struct machine *m, enum machine_news what)
{
	if (m->watcher)
		m->watcher->news(m->watcher, what);
}

static void freeze_all(struct machine *m, bool frozen)
{
	for (unsigned i = 0; i < m->cpus; i++)
		m->engine->freeze(m->cpu[i].vcpu, frozen);
}

void machine_park_cpus(struct machine *m)
{
	for (unsigned i = 0; i < m->cpus; i++)
		vcpu_thread_park(&m->cpu[i].thread);
	for (unsigned i = 0; i < m->cpus; i++)
		vcpu_thread_wait_parked(&m->cpu[i].thread);
	if (m->gdb)
		machine_gdb_disarm(m);
}

static void run_cpus(struct machine *m)
{
	if (m->gdb)
		machine_gdb_arm(m);
	for (unsigned i = 0; i < m->cpus; i++)
		if (!m->gdb || !machine_gdb_holds(m, i))
			vcpu_thread_resume(&m->cpu[i].thread);
}

void machine_run_cpus(struct machine *m)
{
	if (m->paused)
		freeze_all(m, true); /* they are new, and wait like those before them */
	else
		run_cpus(m);
}

void machine_pause(struct machine *m, enum machine_pause why)
{
	bool already = m->paused;

	m->paused |= why;
	if (already || m->ended)
		return;
	machine_park_cpus(m);
	loop_clock_pause(m->loop, true);
	freeze_all(m, true);
	machine_tell_watcher(m, MACHINE_PAUSED);
}

void machine_resume(struct machine *m, enum machine_pause why)
{
	if (!(m->paused & why))
		return;
	m->paused &= ~(unsigned)why;
	if (m->paused || m->ended)
		return;
	freeze_all(m, false);
	loop_clock_pause(m->loop, false);
	/* An event of the machine's is about to be acted on: until then no vCPU runs. */
	if (!atomic_load(&m->event))
		run_cpus(m);
	machine_tell_watcher(m, MACHINE_RESUMED);
}

bool machine_stand_still(struct machine *m)
{
	if (m->paused || m->ended)
		return false; /* it does */
	machine_park_cpus(m);
	return true;
}

void machine_go_on(struct machine *m)
{
	if (!atomic_load(&m->event))
		run_cpus(m);
}

unsigned machine_paused(const struct machine *m)
{
	return m->paused;
}
