/* host_memory: how the host stands with its memory: what is available of it (/proc/meminfo), and for
 * how much of the time somebody waits for it (PSI, where the kernel has that). Where the process is in
 * a control group with a limit, as in a container, that is the host.
 *
 * One thread. Opened once: a confined process can go on reading. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/bits.h"
#include "base/err.h"

enum host_level {
	HOST_CALM,
	HOST_SHORT,    /* those who do nothing give what they do not need */
	HOST_CRITICAL, /* all do */
};

struct host_memory {
	int meminfo, pressure, usage, stat; /* -1: not there */
	uint64_t limit;                     /* of a control group; 0: there is none */
	/* As it was at the last look: */
	uint64_t total, available;
	double waiting; /* percent of the last ten seconds */
	enum host_level level;
};

/* proc: "/proc", or what a test puts in its place. Never fails; what is not there is not known. */
void host_memory_open(struct host_memory *h, const char *proc);
void host_memory_close(struct host_memory *h);
/* A level is left for a better one only when that holds with room to spare. */
enum host_level host_memory_look(struct host_memory *h);
const char *host_level_name(enum host_level l);
