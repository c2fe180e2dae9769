/* regs: a vCPU's registers in the order, sizes and names that GDB knows them by (GDB manual, "i386
 * Features"), and the description of them that GDB reads. Two sets: of a processor with 64-bit mode,
 * and i386's for guests that never go there. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "cpu/x86_state.h"

#define GDB_REGS_MAX     128u
#define GDB_REG_BYTES    16u /* of one at most */
#define GDB_TARGET_BYTES 16384u

struct gdb_reg {
	char name[12];
	uint8_t bytes;
	uint8_t kind, index; /* regs.c */
};

struct gdb_regs {
	bool i386;
	unsigned n;
	struct gdb_reg reg[GDB_REGS_MAX]; /* by GDB's number */
	char xml[GDB_TARGET_BYTES];       /* the description */
};

void gdb_regs_init(struct gdb_regs *r, bool i386, bool avx);
void gdb_reg_get(const struct gdb_reg *r, const struct x86_state *s, uint8_t to[GDB_REG_BYTES]);
/* Those that the processor derives from others stay as they are. */
void gdb_reg_set(const struct gdb_reg *r, struct x86_state *s, const uint8_t from[GDB_REG_BYTES]);
