/* host: what this host offers to Holon, for `holon doctor`: each fact with what was
 * found and, where something is missing or closed, what to do about it. Probing opens
 * and closes things but changes nothing. Any thread. */
#pragma once

#include <stdbool.h>

struct host_fact {
	char name[32]; /* "kvm", "userfaultfd" */
	bool found;
	char detail[200]; /* what it is here, one line */
	char advice[200]; /* what to do when not found; empty when found, or nothing to do */
};

#define HOST_FACTS_MAX 40

/* Fills at most max facts, always in the same order; returns how many. Takes some
 * milliseconds, as it runs the KVM probe (cpu/probe.h). */
int host_facts(struct host_fact *out, int max);
