/* Statistics: one set of figures, as JSON and in Prometheus' text format. */
#include "control/control_priv.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/auto.h"

static uint64_t resident(void)
{
	AUTO_FCLOSE FILE *f = fopen("/proc/self/statm", "re");
	unsigned long long all, pages;

	if (!f || fscanf(f, "%llu %llu", &all, &pages) != 2)
		return 0;
	return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

void control_get_figures(struct control *c, struct control_figures *f)
{
	struct timespec t;

	machine_get_stats(c->machine, &f->machine);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	f->process_ns = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
	f->resident_bytes = resident();
	f->resource = machine_resource(c->machine);
	f->cap_by = f->resource ? resource_cap_by(f->resource) : "";
	f->charged_bytes = f->resource ? resource_memory(f->resource) : 0;
}

#define INT(v) ((json_int_t)(v))

/* Those that there are. */
static json_t *limits_json(const struct control_figures *f)
{
	const struct resource_limits *l = &f->machine.limits;
	char text[CAP_TEXT_LEN];
	json_t *j = json_object(), *groups;

	if (l->cap)
		json_object_set_new(j, "cpu_cap", json_string(cap_text(text, l->cap)));
	if (l->vcpu_cap)
		json_object_set_new(j, "vcpu_cap", json_string(cap_text(text, l->vcpu_cap)));
	if (l->cap)
		json_object_set_new(j, "cap_by", json_string(f->cap_by));
	if (l->weight)
		json_object_set_new(j, "cpu_weight", json_integer(l->weight));
	if (l->io_weight)
		json_object_set_new(j, "io_weight", json_integer(l->io_weight));
	if (l->memory)
		json_object_set_new(j, "memory_bytes", json_integer(INT(l->memory)));
	if (l->swap || l->swap_none)
		json_object_set_new(j, "swap_bytes", json_integer(INT(l->swap)));
	if (f->charged_bytes)
		json_object_set_new(j, "memory_charged_bytes", json_integer(INT(f->charged_bytes)));
	if (!f->resource || !resource_cgroup(f->resource, 0))
		return j;
	groups = json_array();
	for (unsigned i = 0; resource_cgroup(f->resource, i); i++)
		json_array_append_new(groups, json_string(resource_cgroup(f->resource, i)));
	json_object_set_new(j, "cgroups", groups);
	return j;
}

json_t *control_figures_json(const struct control_figures *f)
{
	const struct machine_stats *m = &f->machine;
	json_t *disks = json_array(), *nets = json_array(), *j;

	for (unsigned i = 0; i < m->disks; i++)
		json_array_append_new(disks,
				      json_pack("{s:s, s:I, s:I, s:I, s:I}", "name",
						m->disk[i].name, "reads", INT(m->disk[i].reads),
						"writes", INT(m->disk[i].writes), "read_bytes",
						INT(m->disk[i].read_bytes), "write_bytes",
						INT(m->disk[i].write_bytes)));
	for (unsigned i = 0; i < m->nets; i++)
		json_array_append_new(nets, json_pack("{s:I, s:I, s:I, s:I}", "rx_frames",
						      INT(m->net[i].rx_frames), "rx_bytes",
						      INT(m->net[i].rx_bytes), "tx_frames",
						      INT(m->net[i].tx_frames), "tx_bytes",
						      INT(m->net[i].tx_bytes)));
	j = json_pack("{s:I, s:I, s:I, s:i, s:I, s:I, s:I, s:o, s:o, s:I, s:I, s:o}", "guest_ns",
		      INT(m->guest_ns), "process_ns", INT(f->process_ns), "vcpu_ns",
		      INT(m->vcpu_ns), "cpus", (int)m->cpus, "memory_bytes", INT(m->memory_bytes),
		      "memory_used_bytes", INT(m->memory_used_bytes), "resident_bytes",
		      INT(f->resident_bytes), "disks", disks, "nets", nets, "throttled_ns",
		      INT(m->throttled_ns), "major_faults", INT(m->major_faults), "limits",
		      limits_json(f));
	if (j && m->has_balloon)
		json_object_set_new(j, "balloon",
				    json_pack("{s:I, s:I, s:I, s:I}", "bytes",
					      INT(m->balloon_bytes), "target_bytes",
					      INT(m->balloon_target_bytes), "guest_free_bytes",
					      INT(m->guest_free_bytes), "guest_available_bytes",
					      INT(m->guest_available_bytes)));
	return j;
}

/* --- Prometheus --- */

struct text {
	FILE *to;
	const char *vm;
};

static void head(struct text *t, const char *name, const char *type, const char *help)
{
	fprintf(t->to, "# HELP holon_%s %s\n# TYPE holon_%s %s\n", name, help, name, type);
}

static void seconds(struct text *t, const char *name, const char *help, uint64_t ns)
{
	head(t, name, "counter", help);
	fprintf(t->to, "holon_%s{vm=\"%s\"} %.9g\n", name, t->vm, (double)ns / 1e9);
}

static void gauge(struct text *t, const char *name, const char *help, uint64_t v)
{
	head(t, name, "gauge", help);
	fprintf(t->to, "holon_%s{vm=\"%s\"} %" PRIu64 "\n", name, t->vm, v);
}

static void disk_counts(struct text *t, const struct machine_stats *m, const char *name,
			const char *help, size_t offset)
{
	head(t, name, "counter", help);
	for (unsigned i = 0; i < m->disks; i++)
		fprintf(t->to, "holon_%s{vm=\"%s\",disk=\"%s\"} %" PRIu64 "\n", name, t->vm,
			m->disk[i].name, *(const uint64_t *)((const char *)&m->disk[i] + offset));
}

static void net_counts(struct text *t, const struct machine_stats *m, const char *name,
		       const char *help, size_t offset)
{
	head(t, name, "counter", help);
	for (unsigned i = 0; i < m->nets; i++)
		fprintf(t->to, "holon_%s{vm=\"%s\",net=\"%u\"} %" PRIu64 "\n", name, t->vm, i,
			*(const uint64_t *)((const char *)&m->net[i] + offset));
}

char *control_figures_prometheus(const struct control *c, const struct control_figures *f)
{
	const struct machine_stats *m = &f->machine;
	char *out = NULL;
	size_t len;
	struct text t = {open_memstream(&out, &len), c->dir.name};

	if (!t.to)
		return NULL;
#define DISK(field) offsetof(struct machine_disk_stats, field)
#define NET(field)  offsetof(struct machine_net_stats, field)
	seconds(&t, "cpu_seconds_total", "Processor time of the VM's process.", f->process_ns);
	seconds(&t, "vcpu_seconds_total", "Processor time of its vCPUs.", m->vcpu_ns);
	seconds(&t, "guest_seconds_total", "Time that passed for the guest.", m->guest_ns);
	gauge(&t, "vcpus", "How many vCPUs it has.", m->cpus);
	gauge(&t, "memory_bytes", "The guest's memory.", m->memory_bytes);
	gauge(&t, "memory_used_bytes", "What of it is in use on the host.", m->memory_used_bytes);
	gauge(&t, "resident_bytes", "Memory of the VM's process.", f->resident_bytes);
	seconds(&t, "throttled_seconds_total", "Time that vCPUs waited for Holon's own caps.",
		m->throttled_ns);
	gauge(&t, "balloon_bytes", "What the guest leaves to the host.", m->balloon_bytes);
	disk_counts(&t, m, "disk_reads_total", "Read requests.", DISK(reads));
	disk_counts(&t, m, "disk_writes_total", "Write requests.", DISK(writes));
	disk_counts(&t, m, "disk_read_bytes_total", "Bytes read.", DISK(read_bytes));
	disk_counts(&t, m, "disk_write_bytes_total", "Bytes written.", DISK(write_bytes));
	net_counts(&t, m, "net_rx_frames_total", "Frames that the guest got.", NET(rx_frames));
	net_counts(&t, m, "net_rx_bytes_total", "Bytes of these.", NET(rx_bytes));
	net_counts(&t, m, "net_tx_frames_total", "Frames that the guest sent.", NET(tx_frames));
	net_counts(&t, m, "net_tx_bytes_total", "Bytes of these.", NET(tx_bytes));
	return fclose(t.to) == 0 ? out : NULL;
}
