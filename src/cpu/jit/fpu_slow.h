/* fpu_slow: the guest's vector and x87 state where C works on it: st.xsave, after
 * jit_fpu_leave. */
#pragma once

#include <stdint.h>

struct jit_cpu;

/* Writes the initial state of those components that are in it, and marks them in use, so
 * that their bytes may be read and written in place. */
void fpu_materialize(struct jit_cpu *c, uint64_t components);

/* Changes TOP; the registers keep their places, and ST(i) names another. */
void fpu_set_top(struct jit_cpu *c, unsigned top);

/* Where component i (2..) stands in st.xsave. */
uint8_t *fpu_component(struct jit_cpu *c, unsigned i);
