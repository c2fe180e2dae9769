/* cpuid: what the guest's CPUID answers. A table of leaves, made once per VM from the host's own
 * CPUID, cut to what the engine carries and to the model (cpuid_model.h); bits that follow from
 * vCPU state (OSXSAVE, APIC ID, XSAVE sizes) are filled at the query.
 * SDM volume 2A, CPUID; KVM leaves: Linux Documentation/virt/kvm/x86/cpuid.rst.
 * Immutable after cpuid_host: any thread. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/bits.h"
#include "base/err.h"
#include "cpu/cpuid_model.h"

struct x86_state;

struct cpuid_leaf {
	uint32_t leaf, subleaf;
	bool has_subleaves;
	uint32_t eax, ebx, ecx, edx;
};

#define CPUID_MAX_LEAVES 128

struct cpuid_table {
	struct cpuid_leaf leaf[CPUID_MAX_LEAVES];
	unsigned count;
	uint64_t xcr0_mask; /* XCR0 bits that the guest may set */
	uint64_t tsc_hz;    /* guest TSC frequency, in leaves 0x15/0x16/0x40000010 */
};

struct cpuid_opts {
	uint64_t tsc_hz;  /* 0: the host's, measured */
	uint64_t apic_hz; /* LAPIC timer input */
	unsigned cpus;
	enum cpuid_model model;
	bool jit; /* cut to what the JIT engine carries */
	bool have_x2apic;
};

/* The model asked for, from this host. */
WARN_UNUSED int cpuid_host(struct cpuid_table *t, const struct cpuid_opts *o, struct err *e);

enum cpuid_reg { CPUID_EAX, CPUID_EBX, CPUID_ECX, CPUID_EDX };

/* Whether the model offers this bit; what the engine carries is exactly what it offers. */
bool cpuid_has(const struct cpuid_table *t, uint32_t leaf, uint32_t sub, int reg, int bit);

#define CPUID_AMD_EBX 0x68747541u /* "Auth", of AuthenticAMD */

/* The vendors differ in some instructions; the guest's vendor is the host's. */
static inline bool cpuid_is_amd(const struct cpuid_table *t)
{
	return t->leaf[0].ebx == CPUID_AMD_EBX; /* leaf 0 is the first */
}

/* The answer for leaf/subleaf on a vCPU in state s. Never fails: unknown leaves answer
 * as the SDM says (the highest basic leaf, or zeros). */
void cpuid_query(const struct cpuid_table *t, const struct x86_state *s, uint32_t apic_id,
		 uint32_t leaf, uint32_t subleaf, uint32_t out[4]);
