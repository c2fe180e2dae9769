/* msr: which model-specific registers the guest has, and where x86_state keeps each.
 * One table for both engines: KVM_GET/SET_MSRS walk it, and the JIT's RDMSR and WRMSR
 * look it up. A number that is not in it (nor x2APIC's 0x800..0x8ff) is #GP.
 * SDM volume 4, chapter 2; AMD APM volume 2, appendix A.
 *
 * Immutable; any thread. msr.c is quick code (cpu/jit/jit_priv.h). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "cpu/x86_state.h"

struct cpuid_table;

#define MSR_CANONICAL 0x0001 /* an address: writing a non-canonical one is #GP */
#define MSR_MEM_TYPES 0x0002 /* eight memory types (PAT, fixed MTRRs), each must exist */
#define MSR_IN_SREGS  0x0004 /* KVM moves it with KVM_GET/SET_SREGS2 */
#define MSR_LAPIC     0x0008 /* the local APIC acts on it (lapic_port rdmsr/wrmsr) */
#define MSR_TIME      0x0010 /* TSC and kvmclock: reading or writing is more than the field */
#define MSR_ACTS      0x0020 /* a write changes how code runs: EFER and segment bases */
#define MSR_CONST     0x0040 /* no field: reads as bits, writing is #GP */
#define MSR_IGNORED   0x0080 /* with MSR_CONST: writes vanish instead */
#define MSR_BY_CPUID  0x0100 /* there only if CPUID says so (msr_offered) */
#define MSR_MC_CTL    0x0200 /* all zeros or all ones, else #GP (SDM vol. 3, 16.3.2.1) */

#define MSR_MEM_TYPE 0x0400 /* the low byte is a memory type, which must exist (MTRRs) */

struct msr_desc {
	uint32_t number;
	uint16_t offset; /* of its uint64_t in x86_state; meaningless with MSR_CONST */
	uint16_t flags;
	uint64_t bits; /* that may be set; writing others is #GP. MSR_CONST: the value */
};

/* Sorted by number. */
const struct msr_desc *msr_table(unsigned *count);
/* NULL: no such register. */
const struct msr_desc *msr_find(uint32_t number);

/* Whether a guest with this CPUID has the register. Calls into cpuid.c, so not for code that
 * runs with the guest's vector registers. */
bool msr_offered(const struct msr_desc *d, const struct cpuid_table *t);

/* Whether the guest may write v; va_bits is 48, or 57 where CPUID has LA57. Says no to MSR_CONST
 * without MSR_IGNORED. */
bool msr_writable(const struct msr_desc *d, uint64_t v, unsigned va_bits);

static inline uint64_t *msr_field(struct x86_state *s, const struct msr_desc *d)
{
	return (uint64_t *)((char *)s + d->offset);
}

static inline uint64_t msr_read(const struct x86_state *s, const struct msr_desc *d)
{
	return d->flags & MSR_CONST ? d->bits : *(const uint64_t *)((const char *)s + d->offset);
}

/* IA32_ARCH_CAPABILITIES where translated code runs: no mitigation by the guest has any effect, so
 * none is asked for (docs/jit.md). RDCL_NO IBRS_ALL SKIP_L1DFL SSB_NO MDS_NO PSCHANGE_MC_NO TAA_NO,
 * SBDR_SSDP_NO FBSDP_NO PSDP_NO BHI_NO PBRSB_NO GDS_NO RFDS_NO, ITS_NO. */
#define ARCH_CAPABILITIES_JIT 0x400000000d10e17bull

#define MSR_TSC               0x10
#define MSR_APIC_BASE         0x1b
#define MSR_TSC_ADJUST        0x3b
#define MSR_SPEC_CTRL         0x48
#define MSR_PRED_CMD          0x49
#define MSR_ARCH_CAPABILITIES 0x10a
#define MSR_FLUSH_CMD         0x10b
#define MSR_TSC_DEADLINE      0x6e0
#define MSR_X2APIC_FIRST      0x800
#define MSR_X2APIC_LAST       0x8ff
#define MSR_XSS               0xda0
#define MSR_EFER              0xc0000080
#define MSR_FS_BASE           0xc0000100
#define MSR_GS_BASE           0xc0000101
#define MSR_KERNEL_GS_BASE    0xc0000102
#define MSR_TSC_AUX           0xc0000103
#define MSR_KVM_WALL_CLOCK    0x4b564d00
#define MSR_KVM_SYSTEM_TIME   0x4b564d01
#define MSR_KVM_STEAL_TIME    0x4b564d03
