/* What a machine does and has, in figures; and its balloon, which can be set while it runs. */
#include "machine/machine_priv.h"

#include <errno.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>

#include "virtio/balloon.h"
#include "virtio/net.h"

uint64_t machine_vcpu_ns(struct machine *m, unsigned vcpu)
{
	const struct vcpu_thread *v = &m->cpu[vcpu].thread;
	struct timespec t;
	clockid_t clock;

	if (!v->started || pthread_getcpuclockid(v->thread, &clock) != 0 ||
	    clock_gettime(clock, &t) < 0)
		return 0;
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t vcpu_ns(struct machine *m)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < m->cpus; i++)
		sum += machine_vcpu_ns(m, i);
	return sum;
}

static void limit_stats(struct machine *m, struct machine_stats *to)
{
	struct rusage u;

	if (m->resource)
		to->limits = *resource_limits(m->resource);
	getrusage(RUSAGE_SELF, &u);
	to->major_faults = (uint64_t)u.ru_majflt;
	to->throttled_ns = m->bandwidth.waited_ns;
	for (unsigned i = 0; i < m->cpus; i++)
		to->throttled_ns += m->cpu[i].bandwidth.waited_ns;
}

static void balloon_stats(struct machine *m, struct machine_stats *to)
{
	struct virtio_device *d;
	struct balloon_report r;

	if (!m->virtio[SLOT_BALLOON])
		return;
	d = virtio_pci_virtio(m->virtio[SLOT_BALLOON]);
	virtio_balloon_report(d, &r);
	to->has_balloon = true;
	to->balloon_bytes = r.actual;
	to->balloon_target_bytes = r.target;
	to->guest_free_bytes = r.have[BALLOON_FREE] ? r.stat[BALLOON_FREE] : 0;
	to->guest_available_bytes = r.have[BALLOON_AVAILABLE] ? r.stat[BALLOON_AVAILABLE] : 0;
}

static void net_stats(struct machine *m, struct machine_stats *to)
{
	for (unsigned i = 0; i < MACHINE_NETS_MAX; i++) {
		struct virtio_net_counts n;

		if (!m->virtio[SLOT_NET + i])
			continue;
		virtio_net_get_counts(virtio_pci_virtio(m->virtio[SLOT_NET + i]), &n);
		to->net[to->nets++] = (struct machine_net_stats){n.rx_frames, n.rx_bytes,
								 n.tx_frames, n.tx_bytes};
	}
}

void machine_get_stats(struct machine *m, struct machine_stats *to)
{
	struct stat st;

	*to = (struct machine_stats){
		.guest_ns = clock_now(loop_clock(m->loop)),
		.vcpu_ns = vcpu_ns(m),
		.cpus = m->cpus,
		.memory_bytes = mem_size(m->mem),
	};
	if (fstat(mem_fd(m->mem), &st) == 0)
		to->memory_used_bytes = (uint64_t)st.st_blocks * 512;
	balloon_stats(m, to);
	machine_disk_counts(m, to);
	net_stats(m, to);
	limit_stats(m, to);
}

int machine_get_balloon(struct machine *m, struct balloon_report *to, struct err *e)
{
	if (!m->virtio[SLOT_BALLOON])
		return err_set(e, ENOTSUP, "there is no balloon");
	virtio_balloon_report(virtio_pci_virtio(m->virtio[SLOT_BALLOON]), to);
	return 0;
}

int machine_set_balloon(struct machine *m, uint64_t keep_bytes, struct err *e)
{
	uint64_t size = mem_size(m->mem);

	if (!m->virtio[SLOT_BALLOON])
		return err_set(e, ENOTSUP, "the VM was started with --balloon off");
	if (keep_bytes > size)
		return err_set(e, EINVAL, "the guest has %llu MiB of memory, not more",
			       (unsigned long long)(size >> 20));
	m->overcommit.mode = OVERCOMMIT_OFF; /* who says a size means it */
	virtio_balloon_set_target(virtio_pci_virtio(m->virtio[SLOT_BALLOON]), size - keep_bytes);
	return 0;
}
