/* crash_replay: for tests: makes the files that a power cut could have left, out of what
 * crashlog recorded. A state is a moment (a number of records) and a choice among the changes
 * that no flush had covered by then: each may be on the disk or not, a write also in part, by
 * sectors of 512 bytes. */
#pragma once

#include <stdint.h>

#include "base/bits.h"
#include "base/err.h"

struct crash_replay;

WARN_UNUSED int crash_replay_open(struct crash_replay **out, const char *log, struct err *e);
void crash_replay_free(struct crash_replay *c); /* accepts NULL */
uint64_t crash_replay_records(const struct crash_replay *c);

/* Makes path as it could be after a cut when `moment` records had been made (0: as at the
 * beginning). choice: CRASH_ALL of the changes not covered are there, CRASH_NONE of them, or some,
 * by any other number. */
#define CRASH_ALL  0
#define CRASH_NONE 1
WARN_UNUSED int crash_replay_make(struct crash_replay *c, uint64_t moment, uint64_t choice,
				  const char *path, struct err *e);
