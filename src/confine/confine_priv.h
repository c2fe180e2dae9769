/* confine_priv: the layers. Each returns -errno where the host does not have it. */
#pragma once

#include <linux/filter.h>
#include <stdint.h>

#include "base/thread.h"
#include "confine/confine.h"

/* namespaces.c */
WARN_UNUSED int confine_namespaces(const struct confine_profile *p);

/* landlock.c */
WARN_UNUSED int confine_landlock(const struct confine_profile *p);

/* calls.c: who may call what. A call may have several lines; each condition of a line must hold. */
struct call_test {
	uint8_t arg;
	uint32_t mask, value; /* (arg & mask) == value */
};
#define CALL_OWN_PID UINT32_MAX /* as value: the process's id */
struct call_rule {
	const char *name;
	short nr;
	uint16_t roles;           /* bits */
	short error;              /* 0: allowed; else it fails with that */
	struct call_test test[3]; /* those with a mask */
	const char *why;
};
extern const struct call_rule call_rules[];
extern const unsigned call_rules_count;
/* Those whose rules apply to a thread of that role, its own among them. p: NULL: no network. */
uint16_t call_roles(enum thread_role role, const struct confine_profile *p);
const char *call_name(long nr); /* of those in the table, and some others; else NULL */

/* filter.c */
#define FILTER_MAX 1024u
/* Writes the program; 0: it does not fit. */
WARN_UNUSED unsigned filter_make(struct sock_filter to[FILTER_MAX], uint16_t roles,
				 uint32_t own_pid);
WARN_UNUSED int confine_seccomp(const struct confine_profile *p);

/* violation.c */
WARN_UNUSED int violation_catch(int note_fd);
