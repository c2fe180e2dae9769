/* machine_gdb: the machine as a debugger has it: vCPUs stop and go on, registers, memory, points, by
 * GDB's remote protocol at a socket. All on the loop thread, but for the note that a vCPU leaves when it
 * ran into a point.
 *
 * A client stops the machine when it connects, and lets it go on when it leaves, however it leaves. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/bits.h"
#include "base/err.h"

struct machine;
struct machine_config;

/* With the engine and the loaded kernel there. m->gdb stays NULL where the config has no debugger. */
WARN_UNUSED int machine_gdb_new(struct machine *m, const struct machine_config *c, struct err *e);
void machine_gdb_free(struct machine *m);

/* All vCPUs are parked, and are to run: the engine learns of the points. */
void machine_gdb_arm(struct machine *m);
/* All vCPUs have been parked: the guest's memory is as the guest has it. */
void machine_gdb_disarm(struct machine *m);
/* The debugger keeps this vCPU where it is. */
bool machine_gdb_holds(const struct machine *m, unsigned cpu);

/* The next three: on the loop. */
void machine_gdb_stopped(struct machine *m); /* a vCPU left a note */
/* Is the end that the triple fault of this vCPU is to wait until someone has looked at it? */
bool machine_gdb_triple_fault(struct machine *m, unsigned cpu);
void machine_gdb_ended(struct machine *m, uint8_t status);
