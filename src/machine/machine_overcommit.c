/* Looks at times how the host and the guest stand with memory, sets the balloon by that
 * (resource/overcommit.h), and has the engine of an idle guest forget what it can make again. The
 * watcher is told what is taken and given, when the host is short of memory, and when pages of ours
 * have to come back from a disk by the hundred. On the loop thread. */
#include "machine/machine_priv.h"

#include <sys/resource.h>

#include "virtio/balloon.h"

#define STALE_NS     (60 * UINT64_C(1000000000)) /* of what the guest says */
#define STORM_FAULTS 100u                        /* major ones a second */

static void tell(struct machine *m, const struct machine_memory_news *n)
{
	if (m->watcher && m->watcher->memory)
		m->watcher->memory(m->watcher, n);
}

static void look_at_host(struct machine *m)
{
	struct host_memory *h = &m->host_memory;
	enum host_level before = h->level;
	struct machine_memory_news n = {.what = MACHINE_HOST_LEVEL};

	if (host_memory_look(h) == before)
		return;
	n.why = host_level_name(h->level);
	n.worse = h->level > before;
	n.bytes = h->available;
	n.of_bytes = h->total;
	tell(m, &n);
}

static void look_at_faults(struct machine *m)
{
	struct machine_memory_news n = {.what = MACHINE_FAULT_STORM, .why = "storm"};
	struct rusage u;
	uint64_t faults, rate;

	getrusage(RUSAGE_SELF, &u);
	faults = (uint64_t)u.ru_majflt;
	rate = (faults - m->major_faults) / (OVERCOMMIT_PERIOD_NS / 1000000000u);
	m->major_faults = faults;
	if (rate >= STORM_FAULTS && !m->fault_storm) {
		n.count = rate;
		n.worse = true;
		tell(m, &n);
	}
	m->fault_storm = rate >= STORM_FAULTS;
}

static void look_at_balloon(struct machine *m)
{
	struct virtio_device *d = virtio_pci_virtio(m->virtio[SLOT_BALLOON]);
	struct machine_memory_news n = {.what = MACHINE_BALLOON};
	struct overcommit_guest g = {.ram_bytes = mem_size(m->mem)};
	struct balloon_report r;
	uint64_t target;

	virtio_balloon_report(d, &r);
	g.balloon_bytes = r.actual;
	g.target_bytes = r.target;
	g.says = r.have[BALLOON_TOTAL] && r.have[BALLOON_AVAILABLE] && r.age_ns < STALE_NS;
	g.total_bytes = r.stat[BALLOON_TOTAL];
	g.available_bytes = r.stat[BALLOON_AVAILABLE];
	for (unsigned i = 0; i < m->cpus; i++)
		g.used_ns += machine_vcpu_ns(m, i);
	target = overcommit_look(&m->overcommit, clock_now(loop_clock(m->loop)),
				 m->host_memory.level, &g, &n.why);
	if (target == r.target)
		return;
	virtio_balloon_set_target(d, target);
	n.worse = target > r.target;
	n.bytes = target;
	n.of_bytes = g.ram_bytes;
	tell(m, &n);
}

/* Once each time that it becomes idle. */
static void look_at_engine(struct machine *m)
{
	bool idle = overcommit_is_idle(&m->overcommit) && m->overcommit.mode != OVERCOMMIT_OFF &&
		    (m->overcommit.mode == OVERCOMMIT_IDLE || m->host_memory.level != HOST_CALM);

	if (idle && !m->trimmed && m->engine->trim && !atomic_load(&m->event)) {
		machine_park_cpus(m);
		m->engine->trim(m->cpu[0].vcpu);
		machine_run_cpus(m);
	}
	m->trimmed = idle;
}

static void time_to_look(struct timer *t)
{
	struct machine *m = container_of(t, struct machine, overcommit_timer);

	if (m->ended)
		return;
	look_at_host(m);
	look_at_faults(m);
	if (m->virtio[SLOT_BALLOON])
		look_at_balloon(m);
	look_at_engine(m);
	timer_arm(loop_clock(m->loop), t, clock_now(loop_clock(m->loop)) + OVERCOMMIT_PERIOD_NS);
}

void machine_overcommit_start(struct machine *m, enum overcommit_mode mode)
{
	m->overcommit.mode = mode;
	host_memory_open(&m->host_memory, "/proc");
	m->overcommit_timer.fire = time_to_look;
	timer_arm(loop_clock(m->loop), &m->overcommit_timer,
		  clock_now(loop_clock(m->loop)) + OVERCOMMIT_PERIOD_NS);
}

void machine_overcommit_stop(struct machine *m)
{
	if (!m->overcommit_timer.fire)
		return;
	timer_cancel(loop_clock(m->loop), &m->overcommit_timer);
	host_memory_close(&m->host_memory);
}
