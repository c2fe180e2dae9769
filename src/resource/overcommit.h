/* overcommit: how much of its memory a guest is asked to do without, by how the host stands and what
 * the guest says. Only arithmetic, no clock and no descriptors; the machine looks every
 * OVERCOMMIT_PERIOD_NS and sets its balloon (machine/machine_overcommit.c).
 *
 * Each VM decides for itself, by signals that all VMs of a host see alike, and in an order: what does
 * nothing gives first. So no daemon is needed, and none has to know all VMs. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "resource/host_memory.h"

#define OVERCOMMIT_PERIOD_NS UINT64_C(5000000000)

enum overcommit_mode {
	OVERCOMMIT_OFF,      /* the balloon is set by hand */
	OVERCOMMIT_PRESSURE, /* memory is taken when the host is short of it */
	OVERCOMMIT_IDLE,     /* and from a guest that does nothing at any time */
};

struct overcommit_guest {
	uint64_t ram_bytes, balloon_bytes, target_bytes; /* of the balloon: now, and as asked for */
	bool says;                                       /* the guest tells the following: */
	uint64_t total_bytes, available_bytes;
	uint64_t used_ns; /* processor time of its vCPUs, ever */
};

struct overcommit {
	enum overcommit_mode mode;
	uint64_t looked_ns, used_ns;
	unsigned idle_looks, busy_looks; /* in a row */
	unsigned settling;               /* looks until what was asked for last can be judged */
};

/* Whether it has done nothing to speak of for a while. */
bool overcommit_is_idle(const struct overcommit *o);

/* What the balloon's target is to be; why: "idle", "host", "needs" or "calm" when it is another one.
 * now_ns: of the guest's clock. */
uint64_t overcommit_look(struct overcommit *o, uint64_t now_ns, enum host_level host,
			 const struct overcommit_guest *g, const char **why);
