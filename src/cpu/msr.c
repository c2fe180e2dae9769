/* msr: the table. Bits are what the guest may write, which is what its CPUID promises at
 * most; a register whose use follows from nothing that we promise reads as a constant,
 * because stock kernels read some of them without asking CPUID. */
#include "cpu/msr.h"

#include <stddef.h>

#include "base/bits.h"
#include "cpu/cpuid.h"

#define ALL  UINT64_MAX
#define PHYS (BIT(52) - 1)
#define FIELD(number, field, flags, bits)                                                          \
	{                                                                                          \
		number, offsetof(struct x86_state, field), flags, bits                             \
	}
#define VALUE(number, flags, value)                                                                \
	{                                                                                          \
		number, 0, MSR_CONST | (flags), value                                              \
	}
#define MTRR_PAIR(n)                                                                               \
	FIELD(0x200 + 2 * (n), mtrr_base[n], MSR_MEM_TYPE, (PHYS & ~0xfffull) | 0xff),             \
		FIELD(0x201 + 2 * (n), mtrr_mask[n], 0, (PHYS & ~0xfffull) | 0x800)
#define MC_BANK(n)                                                                                 \
	FIELD(0x400 + 4 * (n), mc_ctl[n], MSR_MC_CTL, ALL),                                        \
		FIELD(0x401 + 4 * (n), mc_status[n], 0, 0),                                        \
		FIELD(0x402 + 4 * (n), mc_addr[n], 0, ALL),                                        \
		FIELD(0x403 + 4 * (n), mc_misc[n], 0, ALL)

static const struct msr_desc table[] = {
	FIELD(MSR_TSC, tsc, MSR_TIME, ALL),
	VALUE(0x17, 0, 0), /* IA32_PLATFORM_ID */
	FIELD(MSR_APIC_BASE, apic_base, MSR_IN_SREGS | MSR_LAPIC, (PHYS & ~0xfffull) | 0xd00),
	VALUE(0x2a, MSR_IGNORED, 0), /* EBL_CR_POWERON */
	VALUE(0x3a, 0, 1),           /* IA32_FEATURE_CONTROL: locked, no VMX */
	FIELD(MSR_TSC_ADJUST, tsc_adjust, MSR_TIME | MSR_BY_CPUID, ALL),
	FIELD(MSR_SPEC_CTRL, spec_ctrl, MSR_BY_CPUID, 0x7), /* IBRS, STIBP, SSBD */
	VALUE(MSR_PRED_CMD, MSR_IGNORED | MSR_BY_CPUID, 0), /* nothing of ours is shared */
	VALUE(0x8b, MSR_IGNORED, 0),                        /* microcode revision */
	VALUE(0xce, 0, 0),                                  /* PLATFORM_INFO */
	VALUE(0xfe, 0, 0x508),                              /* IA32_MTRRCAP: 8 ranges, fixed, WC */
	VALUE(MSR_ARCH_CAPABILITIES, 0, 0),                 /* KVM has its own */
	VALUE(MSR_FLUSH_CMD, MSR_IGNORED | MSR_BY_CPUID, 0),
	VALUE(0x140, MSR_IGNORED, 0), /* MISC_FEATURES_ENABLES */
	FIELD(0x174, sysenter_cs, 0, 0xffffffff),
	FIELD(0x175, sysenter_esp, MSR_CANONICAL, ALL),
	FIELD(0x176, sysenter_eip, MSR_CANONICAL, ALL),
	VALUE(0x179, 0, 4), /* IA32_MCG_CAP: 4 banks */
	FIELD(0x17a, mcg_status, 0, 0x7),
	VALUE(0x198, 0, 0), /* IA32_PERF_STATUS */
	FIELD(0x1a0, misc_enable, 0, ALL),
	VALUE(0x1d9, MSR_IGNORED, 0), /* IA32_DEBUGCTL */
	VALUE(0x1db, 0, 0),           /* last branch and interrupt records */
	VALUE(0x1dc, 0, 0),
	VALUE(0x1dd, 0, 0),
	VALUE(0x1de, 0, 0),
	MTRR_PAIR(0),
	MTRR_PAIR(1),
	MTRR_PAIR(2),
	MTRR_PAIR(3),
	MTRR_PAIR(4),
	MTRR_PAIR(5),
	MTRR_PAIR(6),
	MTRR_PAIR(7),
	FIELD(0x250, mtrr_fixed[0], MSR_MEM_TYPES, ALL),
	FIELD(0x258, mtrr_fixed[1], MSR_MEM_TYPES, ALL),
	FIELD(0x259, mtrr_fixed[2], MSR_MEM_TYPES, ALL),
	FIELD(0x268, mtrr_fixed[3], MSR_MEM_TYPES, ALL),
	FIELD(0x269, mtrr_fixed[4], MSR_MEM_TYPES, ALL),
	FIELD(0x26a, mtrr_fixed[5], MSR_MEM_TYPES, ALL),
	FIELD(0x26b, mtrr_fixed[6], MSR_MEM_TYPES, ALL),
	FIELD(0x26c, mtrr_fixed[7], MSR_MEM_TYPES, ALL),
	FIELD(0x26d, mtrr_fixed[8], MSR_MEM_TYPES, ALL),
	FIELD(0x26e, mtrr_fixed[9], MSR_MEM_TYPES, ALL),
	FIELD(0x26f, mtrr_fixed[10], MSR_MEM_TYPES, ALL),
	FIELD(0x277, pat, MSR_MEM_TYPES, ALL),
	FIELD(0x2ff, mtrr_def_type, MSR_MEM_TYPE, 0xcff),
	VALUE(0x345, 0, 0), /* IA32_PERF_CAPABILITIES */
	MC_BANK(0),
	MC_BANK(1),
	MC_BANK(2),
	MC_BANK(3),
	VALUE(0x606, 0, 0), /* RAPL_POWER_UNIT */
	FIELD(MSR_TSC_DEADLINE, tsc_deadline, MSR_LAPIC, ALL),
	FIELD(MSR_XSS, xss, MSR_BY_CPUID, 0),
	FIELD(MSR_KVM_WALL_CLOCK, kvm_wall_clock, MSR_TIME, ALL),
	FIELD(MSR_KVM_SYSTEM_TIME, kvm_system_time, MSR_TIME, ALL),
	FIELD(0x4b564d02, kvm_async_pf, 0, ALL),
	FIELD(MSR_KVM_STEAL_TIME, kvm_steal_time, 0, ~UINT64_C(0x3e)),
	FIELD(0x4b564d04, kvm_pv_eoi, 0, ALL),
	FIELD(MSR_EFER, efer, MSR_IN_SREGS | MSR_ACTS,
	      EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE | EFER_AUTOIBRS),
	FIELD(0xc0000081, star, 0, ALL),
	FIELD(0xc0000082, lstar, MSR_CANONICAL, ALL),
	FIELD(0xc0000083, cstar, MSR_CANONICAL, ALL),
	FIELD(0xc0000084, sfmask, 0, 0xffffffff),
	FIELD(MSR_FS_BASE, seg[X86_FS].base, MSR_CANONICAL | MSR_IN_SREGS | MSR_ACTS, ALL),
	FIELD(MSR_GS_BASE, seg[X86_GS].base, MSR_CANONICAL | MSR_IN_SREGS | MSR_ACTS, ALL),
	FIELD(MSR_KERNEL_GS_BASE, kernel_gs_base, MSR_CANONICAL, ALL),
	FIELD(MSR_TSC_AUX, tsc_aux, MSR_BY_CPUID, 0xffffffff),
	VALUE(0xc0010000, MSR_IGNORED, 0), /* PERF_EVT_SEL0-3, PERF_CTR0-3: AMD always has them */
	VALUE(0xc0010001, MSR_IGNORED, 0),
	VALUE(0xc0010002, MSR_IGNORED, 0),
	VALUE(0xc0010003, MSR_IGNORED, 0),
	VALUE(0xc0010004, MSR_IGNORED, 0),
	VALUE(0xc0010005, MSR_IGNORED, 0),
	VALUE(0xc0010006, MSR_IGNORED, 0),
	VALUE(0xc0010007, MSR_IGNORED, 0),
	VALUE(0xc0010010, MSR_IGNORED, 0),       /* SYSCFG */
	VALUE(0xc0010015, MSR_IGNORED, BIT(24)), /* HWCR: TSC counts at P0 frequency */
	VALUE(0xc001001a, MSR_IGNORED, 0),       /* TOP_MEM */
	VALUE(0xc001001d, MSR_IGNORED, 0),       /* TOP_MEM2 */
	VALUE(0xc001001f, MSR_IGNORED, 0),       /* NB_CFG */
	VALUE(0xc0010055, MSR_IGNORED, 0),       /* INT_PENDING */
	VALUE(0xc0010058, MSR_IGNORED, 0),       /* MMIO_CONF_BASE */
	VALUE(0xc0010064, 0, 0),                 /* PSTATE0 */
	VALUE(0xc0010112, MSR_IGNORED, 0),       /* TSEG_BASE */
	VALUE(0xc0010114, MSR_IGNORED, 0x18),    /* VM_CR: SVM disabled and locked */
	VALUE(0xc0010117, MSR_IGNORED, 0),       /* VM_HSAVE_PA */
	VALUE(0xc0010140, MSR_IGNORED, 0),       /* OSVW_ID_LENGTH */
	VALUE(0xc0010141, MSR_IGNORED, 0),       /* OSVW_STATUS */
	VALUE(0xc0011020, MSR_IGNORED, 0),       /* LS_CFG */
	VALUE(0xc0011021, MSR_IGNORED, 0),       /* IC_CFG */
	VALUE(0xc0011022, MSR_IGNORED, 0),       /* DC_CFG */
	VALUE(0xc0011029, MSR_IGNORED, BIT(1)),  /* DE_CFG: LFENCE serialises */
	VALUE(0xc001102a, MSR_IGNORED, 0),       /* BU_CFG2 */
};

const struct msr_desc *msr_table(unsigned *count)
{
	*count = ARRAY_SIZE(table);
	return table;
}

const struct msr_desc *msr_find(uint32_t number)
{
	unsigned low = 0, high = ARRAY_SIZE(table);

	while (low < high) {
		unsigned mid = (low + high) / 2;

		if (table[mid].number == number)
			return &table[mid];
		if (table[mid].number < number)
			low = mid + 1;
		else
			high = mid;
	}
	return NULL;
}

bool msr_offered(const struct msr_desc *d, const struct cpuid_table *t)
{
	if (!(d->flags & MSR_BY_CPUID))
		return true;
	switch (d->number) {
	case MSR_SPEC_CTRL:
		return cpuid_has(t, 7, 0, CPUID_EDX, 26) || cpuid_has(t, 7, 0, CPUID_EDX, 27) ||
		       cpuid_has(t, 7, 0, CPUID_EDX, 31) ||
		       cpuid_has(t, 0x80000008, 0, CPUID_EBX, 14) ||
		       cpuid_has(t, 0x80000008, 0, CPUID_EBX, 15) ||
		       cpuid_has(t, 0x80000008, 0, CPUID_EBX, 24);
	case MSR_PRED_CMD:
		return cpuid_has(t, 7, 0, CPUID_EDX, 26) ||
		       cpuid_has(t, 0x80000008, 0, CPUID_EBX, 12);
	case MSR_TSC_ADJUST: return cpuid_has(t, 7, 0, CPUID_EBX, 1);
	case MSR_XSS: return cpuid_has(t, 0xd, 1, CPUID_EAX, 3);
	case MSR_TSC_AUX:
		return cpuid_has(t, 0x80000001, 0, CPUID_EDX, 27) ||
		       cpuid_has(t, 7, 0, CPUID_ECX, 22);
	case MSR_FLUSH_CMD: return cpuid_has(t, 7, 0, CPUID_EDX, 28);
	default: return false;
	}
}

static bool is_canonical(uint64_t v, unsigned va_bits)
{
	unsigned up = 64 - va_bits;

	return (uint64_t)((int64_t)(v << up) >> up) == v;
}

/* UC, WC, WT, WP, WB everywhere; UC- in the PAT alone (SDM vol. 3, 11.12.4, 11.11.2.1). */
static bool is_mem_type(uint8_t type, bool is_pat)
{
	return type <= 7 && type != 2 && type != 3 && (type != 7 || is_pat);
}

static bool are_mem_types(uint64_t v, bool is_pat)
{
	for (unsigned i = 0; i < 8; i++, v >>= 8)
		if (!is_mem_type(v & 0xff, is_pat))
			return false;
	return true;
}

bool msr_writable(const struct msr_desc *d, uint64_t v, unsigned va_bits)
{
	if (d->flags & MSR_CONST)
		return d->flags & MSR_IGNORED;
	if (v & ~d->bits)
		return false;
	if (d->flags & MSR_MEM_TYPE && !is_mem_type(v & 0xff, false))
		return false;
	if (d->flags & MSR_CANONICAL && !is_canonical(v, va_bits))
		return false;
	/* Enabled or not; kernels leave bit 10 out on old AMD, bit 0 on old Intel processors. */
	if (d->flags & MSR_MC_CTL && v && (v | BIT(10) | BIT(0)) != ALL)
		return false;
	return !(d->flags & MSR_MEM_TYPES) || are_mem_types(v, d->number == 0x277);
}
