/* guest: runs user cases in ring 3 of a VM on an engine; the counterpart of native.h.
 * The VM is made once per batch, in the child. */
#pragma once

#include "batch.h"
#include "cpu/engine.h"
#include "longmode.h"

struct guest_runner {
	struct batch_runner runner;
	const struct engine *engine;
	bool windows; /* JIT: user code through a window, from the start */
	bool moved;   /* each case first runs elsewhere, so that the JIT has code of it to copy */
	struct vm *vm;
	struct longmode lm;
};

void guest_runner_init(struct guest_runner *g, const struct engine *engine);
