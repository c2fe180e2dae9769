/* fake_engine: an "engine_jit" for tests of the machine, which runs a C function in the guest's
 * place. It reaches memory, bus and LAPIC as a guest would, on the vCPU's thread. */
#pragma once

#include <stdatomic.h>

#include "cpu/engine.h"

struct guest {
	struct vcpu vcpu;
	const struct engine_env *env;
	struct x86_state state;
	atomic_bool kicked;
	bool ran;
	bool again; /* set by code: it looks at kicked itself, and is to be called at each run */
};

/* Returns what run returns; VCPU_KICKED: stays in the guest until it is kicked. */
typedef int guest_code(struct guest *g, enum vcpu_stop *why, struct err *e);

/* What the guests of the test under way do, and how often an engine was made. */
extern guest_code *code;
extern atomic_int incarnations;
/* How many vCPUs are in run, and whether their time stands still. */
extern atomic_int inside;
extern atomic_bool frozen;

void nap(void);
void fake_pio_out(struct guest *g, uint16_t port, uint32_t v, unsigned size);
uint32_t fake_pio_in(struct guest *g, uint16_t port, unsigned size);
