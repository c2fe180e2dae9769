#include "resource/resource.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/ioprio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "resource/cgroup.h"

struct resource {
	struct resource_limits limits;
	struct cgroup *cgroup; /* NULL: none was wanted */
	DIR *threads;          /* /proc/self/task */
};

static bool has(const struct resource *r, unsigned controller)
{
	return r->cgroup && cgroup_has(r->cgroup) & controller;
}

/* --- threads --- */

/* A thread that ends meanwhile is no error. */
static int each_thread(struct resource *r, int (*set)(pid_t tid, const void *arg), const void *arg)
{
	struct dirent *d;
	int first = 0;

	rewinddir(r->threads);
	while ((d = readdir(r->threads))) {
		long tid = strtol(d->d_name, NULL, 10);

		if (tid > 0 && set((pid_t)tid, arg) < 0 && errno != ESRCH && !first)
			first = -errno;
	}
	return first;
}

static int set_nice(pid_t tid, const void *arg)
{
	return setpriority(PRIO_PROCESS, (id_t)tid, *(const int *)arg);
}

static int set_io_priority(pid_t tid, const void *arg)
{
	return (int)syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, tid,
			    IOPRIO_PRIO_VALUE(IOPRIO_CLASS_BE, *(const int *)arg));
}

static int set_affinity(pid_t tid, const void *arg)
{
	return sched_setaffinity(tid, sizeof(cpu_set_t), arg);
}

/* Each step of the nice value is a factor of 1.25, as the kernel has it. */
static int nice_of(unsigned weight)
{
	int nice = 0;
	double w = WEIGHT_STD;

	for (; w > weight * 1.118 && nice < 19; nice++)
		w /= 1.25;
	for (; w < weight / 1.118 && nice > -20; nice--)
		w *= 1.25;
	return nice;
}

/* 0 to 7; the kernel's default is 4. */
static int io_priority_of(unsigned weight)
{
	int p = 4;

	for (unsigned w = WEIGHT_STD; w > weight && p < 7; w /= 2)
		p++;
	for (unsigned w = WEIGHT_STD; w < weight && p > 0; w *= 2)
		p--;
	return p;
}

/* --- setting --- */

int resource_set_cap(struct resource *r, unsigned cap, struct err *e)
{
	int s = has(r, CGROUP_CPU) ? cgroup_set_cap(r->cgroup, cap, e) : 0;

	if (s == 0)
		r->limits.cap = cap;
	return s;
}

void resource_set_vcpu_cap(struct resource *r, unsigned cap)
{
	r->limits.vcpu_cap = cap;
}

int resource_set_weight(struct resource *r, unsigned weight, struct err *e)
{
	int nice = nice_of(weight), s;

	if (has(r, CGROUP_CPU))
		s = cgroup_set_weight(r->cgroup, weight, e);
	else if ((s = each_thread(r, set_nice, &nice)) < 0)
		return err_sys(e, -s,
			       "a weight of %u is a nice value of %d here, which this user may not "
			       "set",
			       weight, nice);
	if (s == 0)
		r->limits.weight = weight;
	return s;
}

int resource_set_io_weight(struct resource *r, unsigned weight, struct err *e)
{
	int priority = io_priority_of(weight), s;

	if (has(r, CGROUP_IO))
		s = cgroup_set_io_weight(r->cgroup, weight, e);
	else if ((s = each_thread(r, set_io_priority, &priority)) < 0)
		return err_sys(e, -s, "an I/O priority of %d", priority);
	if (s == 0)
		r->limits.io_weight = weight;
	return s;
}

int resource_set_memory(struct resource *r, const struct resource_limits *l, struct err *e)
{
	int s;

	if (!has(r, CGROUP_MEMORY))
		return err_set(
			e, ENOTSUP,
			"a limit of memory needs a control group, and there is none that this "
			"VM has; a balloon is another way (--balloon)");
	if (!l->memory && (l->swap || l->swap_none))
		return err_set(e, EINVAL, "a limit of swap goes with one of memory");
	s = cgroup_set_memory(r->cgroup, l->memory ? l->memory : CGROUP_NO_LIMIT,
			      l->swap || l->swap_none ? l->swap : CGROUP_NO_LIMIT, e);
	if (s < 0)
		return s;
	r->limits.memory = l->memory;
	r->limits.swap = l->swap;
	r->limits.swap_none = l->swap_none;
	return 0;
}

int resource_pin(struct resource *r, const cpu_set_t *cpus, struct err *e)
{
	int s = each_thread(r, set_affinity, cpus);

	return s < 0 ? err_sys(e, -s, "pin to these processors") : 0;
}

/* --- */

static unsigned wanted(const struct resource_limits *l)
{
	return (l->cap || l->weight ? CGROUP_CPU : 0) |
	       (l->memory || l->swap || l->swap_none ? CGROUP_MEMORY : 0) |
	       (l->io_weight ? CGROUP_IO : 0);
}

static int set_all(struct resource *r, const struct resource_limits *l, const cpu_set_t *pin,
		   struct err *e)
{
	int s = resource_set_cap(r, l->cap, e);

	r->limits.vcpu_cap = l->vcpu_cap;
	if (s == 0 && l->weight)
		s = resource_set_weight(r, l->weight, e);
	if (s == 0 && l->io_weight)
		s = resource_set_io_weight(r, l->io_weight, e);
	if (s == 0 && (l->memory || l->swap || l->swap_none))
		s = resource_set_memory(r, l, e);
	if (s == 0 && pin)
		s = resource_pin(r, pin, e);
	return s;
}

int resource_new(struct resource **out, const struct resource_limits *l, const cpu_set_t *pin,
		 bool use_cgroups, struct err *e)
{
	struct resource *r = calloc(1, sizeof *r);
	unsigned want = use_cgroups ? wanted(l) : 0;
	int s = 0;

	if (!r)
		return err_set(e, ENOMEM, "out of memory");
	r->threads = opendir("/proc/self/task");
	if (!r->threads)
		s = err_sys(e, errno, "read '/proc/self/task'");
	/* One that is there has all: what is set later finds its place. */
	if (s == 0 && want)
		s = cgroup_new(&r->cgroup, CGROUP_ALL, "/proc/self", e);
	if (s == 0)
		s = set_all(r, l, pin, e);
	if (s < 0)
		resource_free(r);
	else
		*out = r;
	return s;
}

void resource_free(struct resource *r)
{
	if (!r)
		return;
	cgroup_free(r->cgroup);
	if (r->threads)
		closedir(r->threads);
	free(r);
}

const struct resource_limits *resource_limits(const struct resource *r)
{
	return &r->limits;
}

const char *resource_cap_by(const struct resource *r)
{
	return has(r, CGROUP_CPU) ? "cgroup" : "holon";
}

const char *resource_cgroup(const struct resource *r, unsigned n)
{
	return r->cgroup ? cgroup_path(r->cgroup, n) : NULL;
}

uint64_t resource_memory(struct resource *r)
{
	return r->cgroup ? cgroup_memory(r->cgroup) : 0;
}
