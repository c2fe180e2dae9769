/* probe_priv: what the probe's guest showed, and the judgement on it, apart from each other
 * so that the judgement can be tested without any KVM. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "cpu/probe.h"

/* Written by the guest; probe_guest.h has the offsets. */
struct probe_seen {
	uint64_t pf_cr2;
	uint32_t pf_error;
	uint32_t soft, external; /* interrupts that arrived */
	uint32_t syscall_cs, sysret_cs;
	uint32_t cmpxchg16b;
};

struct probe_raw {
	int open_errno;    /* of /dev/kvm; 0: it opened */
	const char *setup; /* what of the VM's making failed, or NULL */
	int setup_errno;
	int step;             /* the last that the guest began; 0: it never ran */
	bool done;            /* it came to its end */
	bool trap;            /* an exception that nothing should have raised, in this step */
	bool late;            /* the watchdog ended it */
	uint32_t exit_reason; /* KVM's, when it ended in this step; 0 otherwise */
	uint64_t insn_per_s;
	struct probe_seen seen;
};

/* Below this, Holon's own translator is the better engine. */
#define PROBE_SLOW_BELOW 100000000ull

void kvm_judge(const struct probe_raw *raw, struct kvm_finding *f);
