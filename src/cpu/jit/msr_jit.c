/* msr_jit: RDMSR and WRMSR on the table of cpu/msr.h, with what a write does beyond its
 * field: EFER and segment bases, time, the local APIC. Quick code. */
#include "cpu/jit/sys_priv.h"
#include "cpu/msr.h"

static uint64_t host_tsc(void)
{
	uint32_t lo, hi;

	__asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi));
	return (uint64_t)hi << 32 | lo;
}

uint64_t jit_tsc(const struct jit_cpu *c)
{
	return host_tsc() + c->tsc_offset;
}

static bool lapic_read(struct jit_cpu *c, uint32_t msr, uint64_t *v)
{
	struct lapic_port *l = c->vcpu.lapic;

	if (!l)
		return false;
	jit_fpu_leave(c);
	return l->ops->rdmsr(l, msr, v);
}

static bool lapic_write(struct jit_cpu *c, uint32_t msr, uint64_t v)
{
	struct lapic_port *l = c->vcpu.lapic;

	if (!l || (msr == MSR_APIC_BASE && v >> c->phys_bits))
		return false;
	jit_fpu_leave(c);
	if (!l->ops->wrmsr(l, msr, v))
		return false;
	if (msr == MSR_APIC_BASE) { /* the register page may have moved */
		c->st.apic_base = v;
		jit_tlb_flush(c, true);
	}
	return true;
}

static bool offered(struct jit_cpu *c, const struct msr_desc *d)
{
	if (!(d->flags & MSR_BY_CPUID))
		return true;
	jit_fpu_leave(c); /* the CPUID table's code is not quick */
	return msr_offered(d, c->env->cpuid);
}

bool jit_msr_read(struct jit_cpu *c, uint32_t msr, uint64_t *v)
{
	const struct msr_desc *d = msr_find(msr);

	if (msr >= MSR_X2APIC_FIRST && msr <= MSR_X2APIC_LAST)
		return lapic_read(c, msr, v);
	if (!d || !offered(c, d))
		return false;
	if (d->flags & MSR_LAPIC && c->vcpu.lapic)
		return lapic_read(c, msr, v);
	if (msr == MSR_TSC)
		*v = jit_tsc(c);
	else if (msr == MSR_ARCH_CAPABILITIES && !c->env->always_loaded)
		*v = ARCH_CAPABILITIES_JIT;
	else
		*v = msr_read(&c->st, d);
	return true;
}

static bool write_efer(struct jit_cpu *c, uint64_t v)
{
	uint64_t changed = v ^ c->st.efer;

	if ((changed & EFER_LME) && (c->st.cr0 & CR0_PG))
		return false;
	if (changed & EFER_AUTOIBRS) {
		jit_fpu_leave(c); /* as in offered() */
		if (!cpuid_has(c->env->cpuid, 0x80000021, 0, CPUID_EAX, 8))
			return false;
	}
	c->st.efer = (v & ~(uint64_t)EFER_LMA) | (c->st.efer & EFER_LMA);
	if (changed & EFER_NXE)
		jit_tlb_flush(c, true);
	jit_mode_update(c);
	return true;
}

static void write_time(struct jit_cpu *c, uint32_t msr, uint64_t v)
{
	switch (msr) {
	case MSR_TSC: {
		uint64_t by = v - jit_tsc(c);

		c->tsc_offset += by;
		c->st.tsc_adjust += by;
		break;
	}
	case MSR_TSC_ADJUST:
		c->tsc_offset += v - c->st.tsc_adjust;
		c->st.tsc_adjust = v;
		break;
	case MSR_KVM_SYSTEM_TIME:
		c->st.kvm_system_time = v;
		jit_fpu_leave(c);
		kvmclock_publish(c);
		break;
	case MSR_KVM_WALL_CLOCK:
		c->st.kvm_wall_clock = v;
		jit_fpu_leave(c);
		kvmclock_wall(c, v);
		break;
	}
}

bool jit_msr_write(struct jit_cpu *c, uint32_t msr, uint64_t v)
{
	const struct msr_desc *d = msr_find(msr);

	if (msr >= MSR_X2APIC_FIRST && msr <= MSR_X2APIC_LAST)
		return lapic_write(c, msr, v);
	if (!d || !offered(c, d) || !msr_writable(d, v, base_bits(c)))
		return false;
	if (d->flags & MSR_CONST)
		return true;
	if (d->flags & MSR_LAPIC && c->vcpu.lapic)
		return lapic_write(c, msr, v);
	if (msr == MSR_EFER)
		return write_efer(c, v);
	if (d->flags & MSR_TIME)
		write_time(c, msr, v);
	else
		*msr_field(&c->st, d) = v;
	return true;
}
