/* gdb: one client of GDB's remote serial protocol, and the machine that it looks at. It takes bytes and
 * gives bytes; sockets and vCPUs are others' (machine/machine_gdb.c). What a client sends is foreign:
 * nothing in it can do more than what the protocol offers, which is to change the guest.
 *
 * A vCPU is a thread, number index + 1. All stop together (there is no non-stop mode). Addresses are
 * linear, translated by the page tables of the vCPU that is selected.
 *
 * One thread, the machine's loop. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "cpu/engine.h"

enum gdb_action { GDB_HOLD, GDB_RUN, GDB_STEP };

struct gdb_point {
	struct debug_point at;
	bool soft; /* a software breakpoint was asked for: the guest's memory may be changed for it */
};

struct gdb_target;
/* All but stop are called only while the machine is stopped. */
struct gdb_target_ops {
	int (*regs)(struct gdb_target *t, unsigned cpu, struct x86_state *s);
	int (*set_regs)(struct gdb_target *t, unsigned cpu, const struct x86_state *s);
	/* All points there are from now on. Negative: it cannot do all of them; it keeps the old.
	 * cpu: the one whose address space they are meant for. */
	int (*points)(struct gdb_target *t, unsigned cpu, const struct gdb_point *p, unsigned n);
	void (*stop)(struct gdb_target *t); /* returns when all are stopped */
	/* action: per vCPU. gdb_stopped may be called from within. */
	void (*resume)(struct gdb_target *t, const uint8_t *action);
	void (*reset)(struct gdb_target *t); /* it stays stopped, at its start */
	void (*quit)(struct gdb_target *t);  /* the machine is to end */
};
struct gdb_target {
	const struct gdb_target_ops *ops;
	struct guest_mem *mem;
	unsigned cpus;
	bool i386; /* a guest that never goes to 64-bit mode */
	bool avx;
};

struct gdb_sink { /* where to: all of it is taken */
	void (*put)(struct gdb_sink *s, const void *bytes, uint32_t len);
};

/* What one byte of input may put at most; a gdb_stopped or gdb_ended puts no more than that too. */
#define GDB_PUT_MAX (0x4000u + 8u)

struct gdb;
/* The target is stopped by it. */
WARN_UNUSED int gdb_new(struct gdb **out, struct gdb_target *t, struct gdb_sink *sink,
			struct err *e);
/* The client is gone: its points with it, and the machine goes on. Accepts NULL. */
void gdb_free(struct gdb *g);
void gdb_input(struct gdb *g, uint8_t byte);
bool gdb_runs(const struct gdb *g); /* it resumed the machine, and waits for it to stop */

enum gdb_stop { GDB_STOP_HIT, GDB_STOP_TRIPLE_FAULT };
/* The machine, which it resumed, has stopped by itself. hit: for GDB_STOP_HIT. */
void gdb_stopped(struct gdb *g, unsigned cpu, enum gdb_stop why, const struct debug_hit *hit);
void gdb_ended(struct gdb *g, uint8_t status); /* the machine is no more */
