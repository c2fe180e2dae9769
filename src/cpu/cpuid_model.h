/* cpuid_model: what a guest sees of the processor. "host" is all that the host and the engine
 * have; x86-64-v1 to v4 are the levels of the x86-64 psABI (section 3.1.1), exactly, and what
 * long mode needs, so that the same VM runs on any host of that level. Vendor, family and name
 * stay the host's, as does what is no instruction: topology, caches, timers, KVM's leaves. */
#pragma once

#include "base/bits.h"
#include "base/err.h"

struct cpuid_table;

enum cpuid_model {
	CPUID_MODEL_HOST,
	CPUID_MODEL_V1,
	CPUID_MODEL_V2,
	CPUID_MODEL_V3,
	CPUID_MODEL_V4,
	CPUID_MODEL_HOST_LA57, /* host, and five-level paging, which the JIT has on any host */
};

/* In the order of the enum. */
#define CPUID_MODELS "host|x86-64-v1|x86-64-v2|x86-64-v3|x86-64-v4|host+la57"

/* Takes from t what the model has not. An error names what the model has and t lacks; t is
 * spoilt then. */
WARN_UNUSED int cpuid_cut_to_model(struct cpuid_table *t, enum cpuid_model m, struct err *e);
