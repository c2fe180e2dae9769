/* engine_choice: which engine a VM runs on, and the one line that says why. Any thread. */
#pragma once

#include "base/bits.h"
#include "base/err.h"
#include "machine/machine.h"

struct engine;
struct kvm_finding;

#define ENGINE_REASON_LEN 256

/* auto takes KVM where the probe found it usable, else the JIT; kvm with a probe that
 * refuses is an error carrying its finding, unless force. The JIT asks nobody. */
WARN_UNUSED int engine_choose(const struct engine **out, char reason[ENGINE_REASON_LEN],
			      enum engine_choice choice, bool force, struct err *e);

/* The decision alone, given what the probe found; finding is not read for ENGINE_JIT. */
WARN_UNUSED int engine_decide(const struct engine **out, char reason[ENGINE_REASON_LEN],
			      enum engine_choice choice, bool force,
			      const struct kvm_finding *finding, struct err *e);
