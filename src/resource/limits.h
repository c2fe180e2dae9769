/* limits: what a VM may use of its host, as plain data, and the words for it. */
#pragma once

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/bits.h"
#include "base/err.h"

#define CAP_MAX    1024000u /* thousandths of a core */
#define WEIGHT_MAX 10000u   /* cgroup v2's range and default */
#define WEIGHT_STD 100u

/* 0 means: no limit, no wish. */
struct resource_limits {
	unsigned cap;       /* of the VM, in thousandths of a core */
	unsigned vcpu_cap;  /* of each of its vCPUs, likewise */
	unsigned weight;    /* against others, 1 to WEIGHT_MAX */
	unsigned io_weight; /* likewise, of disks */
	uint64_t memory;    /* bytes, of the VM's process with the guest's RAM */
	uint64_t swap;      /* bytes, of that, which may be swapped out */
	bool swap_none;     /* swap is a limit, of 0 */
};

/* "50%", "150%", "2.5%", or "off", which is 0. */
WARN_UNUSED int cap_parse(const char *text, unsigned *cap, struct err *e);
/* The same the other way, "off" for 0. */
#define CAP_TEXT_LEN 16u
char *cap_text(char to[CAP_TEXT_LEN], unsigned cap);

/* "0-3,7": processors of the host. */
WARN_UNUSED int cpus_parse(const char *text, cpu_set_t *to, struct err *e);

#define PIN_ALL UINT32_MAX
struct cpu_pin {
	unsigned vcpu; /* PIN_ALL: all of the VM's threads */
	cpu_set_t cpus;
};
/* "0-3", or of one vCPU, "vcpu1=2". */
WARN_UNUSED int cpu_pin_parse(const char *text, struct cpu_pin *to, struct err *e);
