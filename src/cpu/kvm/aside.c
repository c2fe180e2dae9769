/* aside: one instruction that KVM cannot execute is executed by the JIT, on the same
 * memory and bus, and the vCPU goes back to KVM. The JIT's vCPU gets a LAPIC that never
 * has anything to deliver; what it asks of LAPIC registers is answered from KVM's. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "cpu/kvm/kvm_priv.h"
#include "cpu/msr.h"

/* An instruction needs little, but one may lie across pages and blocks. */
#define ASIDE_CACHE_BYTES MIB(4)

/* What one instruction can need or change; the rest stays in KVM. */
#define ASIDE_PARTS                                                                                \
	(KVM_PART_REGS | KVM_PART_SREGS | KVM_PART_FPU | KVM_PART_MSRS | KVM_PART_DEBUG |          \
	 KVM_PART_EVENTS)

static struct kvm_cpu *of_lapic(struct lapic_port *p)
{
	return container_of(p, struct kvm_cpu, jit_lapic);
}

static bool nothing_pending(struct lapic_port *p)
{
	(void)p;
	return false;
}

static int nothing_to_ack(struct lapic_port *p)
{
	(void)p;
	return -1;
}

static uint8_t get_cr8(struct lapic_port *p)
{
	struct kvm_cpu *c = of_lapic(p);
	struct kvm_sregs k;

	return ioctl(c->fd, KVM_GET_SREGS, &k) == 0 ? k.cr8 : 0;
}

static void set_cr8(struct lapic_port *p, uint8_t cr8)
{
	struct kvm_cpu *c = of_lapic(p);
	struct kvm_sregs k;

	if (ioctl(c->fd, KVM_GET_SREGS, &k) < 0)
		return;
	k.cr8 = cr8;
	(void)!ioctl(c->fd, KVM_SET_SREGS, &k);
}

static bool move_msr(struct kvm_cpu *c, unsigned long request, uint32_t number, uint64_t *v)
{
	_Alignas(8) uint8_t bytes[sizeof(struct kvm_msrs) + sizeof(struct kvm_msr_entry)] = {};
	struct kvm_msrs *k = (struct kvm_msrs *)bytes;

	k->nmsrs = 1;
	k->entries[0].index = number;
	k->entries[0].data = *v;
	if (ioctl(c->fd, request, k) != 1)
		return false;
	*v = k->entries[0].data;
	return true;
}

static bool lapic_rdmsr(struct lapic_port *p, uint32_t msr, uint64_t *v)
{
	return move_msr(of_lapic(p), KVM_GET_MSRS, msr, v);
}

static bool lapic_wrmsr(struct lapic_port *p, uint32_t msr, uint64_t v)
{
	return move_msr(of_lapic(p), KVM_SET_MSRS, msr, &v);
}

static uint32_t lapic_mmio_read(struct lapic_port *p, uint32_t offset)
{
	struct kvm_lapic_state k;

	if (offset > sizeof k.regs - 4 || ioctl(of_lapic(p)->fd, KVM_GET_LAPIC, &k) < 0)
		return 0;
	return load_le(k.regs + offset, 4);
}

static void lapic_mmio_write(struct lapic_port *p, uint32_t offset, uint32_t value)
{
	struct kvm_lapic_state k;

	if (offset > sizeof k.regs - 4 || ioctl(of_lapic(p)->fd, KVM_GET_LAPIC, &k) < 0)
		return;
	store_le(k.regs + offset, value, 4);
	(void)!ioctl(of_lapic(p)->fd, KVM_SET_LAPIC, &k);
}

static void keep_load(struct lapic_port *p, const struct x86_state *s)
{
	(void)p, (void)s;
}

static void keep_store(struct lapic_port *p, struct x86_state *s)
{
	(void)p, (void)s;
}

static const struct lapic_ops silent_lapic = {
	.pending = nothing_pending,
	.ack = nothing_to_ack,
	.get_cr8 = get_cr8,
	.set_cr8 = set_cr8,
	.rdmsr = lapic_rdmsr,
	.wrmsr = lapic_wrmsr,
	.mmio_read = lapic_mmio_read,
	.mmio_write = lapic_mmio_write,
	.load = keep_load,
	.store = keep_store,
	.take_nmi = nothing_pending,
	.take_init = nothing_pending,
	.take_sipi = nothing_to_ack,
};

/* A VM of its own for each vCPU: they may step aside at the same time. */
static int make_jit(struct kvm_cpu *c, struct err *e)
{
	struct engine_env env = kvm_vm_of(c)->env;
	int r = 0;

	env.extint = NULL;
	env.eoi = NULL;
	env.always_loaded = true;
	env.code_cache_bytes = ASIDE_CACHE_BYTES;
	if (!c->jit_vm)
		r = engine_jit.vm_new(&c->jit_vm, &env, e);
	if (r == 0)
		r = engine_jit.vcpu_new(&c->jit, c->jit_vm, c->base.index, e);
	if (r < 0)
		return err_wrap(e, "KVM cannot execute an instruction, and the JIT for it");
	c->jit_lapic.ops = &silent_lapic;
	c->jit->lapic = &c->jit_lapic;
	return 0;
}

void kvm_aside_done(struct kvm_cpu *c)
{
	if (c->jit)
		engine_jit.vcpu_free(c->jit);
	if (c->jit_vm)
		engine_jit.vm_free(c->jit_vm);
	c->jit = NULL;
	c->jit_vm = NULL;
}

/* Only the parts that the instruction changed: each costs system calls. The TSC and
 * kvmclock run on in KVM, so these registers are the same before and after. */
static unsigned changed_parts(const struct x86_state *a, const struct x86_state *b)
{
	unsigned parts = KVM_PART_REGS | KVM_PART_EVENTS;

#define DIFFER(from, to)                                                                           \
	(memcmp(&a->from, &b->from,                                                                \
		offsetof(struct x86_state, to) - offsetof(struct x86_state, from)) != 0)
	if (DIFFER(seg, dr) || a->efer != b->efer || a->apic_base != b->apic_base)
		parts |= KVM_PART_SREGS;
	if (DIFFER(dr, xcr0))
		parts |= KVM_PART_DEBUG;
	if (DIFFER(efer, tsc))
		parts |= KVM_PART_MSRS;
	if (a->xcr0 != b->xcr0 || memcmp(a->xsave, b->xsave, sizeof a->xsave))
		parts |= KVM_PART_FPU;
#undef DIFFER
	return parts;
}

static bool made_progress(const struct x86_state *a, const struct x86_state *b)
{
	return a->rip != b->rip || a->rflags != b->rflags ||
	       memcmp(a->gpr, b->gpr, sizeof a->gpr) ||
	       changed_parts(a, b) != (KVM_PART_REGS | KVM_PART_EVENTS) ||
	       a->events.exception_pending != b->events.exception_pending ||
	       a->events.interrupt_injected != b->events.interrupt_injected;
}

static int step_jit(struct kvm_cpu *c, const struct x86_state *before, struct x86_state *after,
		    enum vcpu_stop *why, struct err *e)
{
	struct x86_state start = *before;
	int r;

	/* An NMI or a shadow is KVM's to deliver or to end, after the instruction. */
	start.events.nmi_pending = false;
	*after = start;
	r = engine_jit.load(c->jit, &start, e);
	if (r == 0)
		r = engine_jit.step(c->jit, why, e);
	if (r == 0)
		r = engine_jit.store(c->jit, after, e);
	after->events.nmi_pending = before->events.nmi_pending;
	return r;
}

int kvm_step_aside(struct kvm_cpu *c, enum vcpu_stop *why, struct err *e)
{
	struct x86_state before = {}, after;
	struct err no_jit;
	unsigned parts;
	int r = c->jit ? 0 : make_jit(c, &no_jit);

	if (r < 0)
		return kvm_fail(c, e, -r, no_jit.text);
	r = kvm_store_parts(c, &before, ASIDE_PARTS | KVM_PART_TIME, e);
	before.mp_state = X86_RUNNING;
	if (r == 0)
		r = step_jit(c, &before, &after, why, e);
	if (r < 0)
		return err_wrap(e, "step aside to the JIT");
	c->asides++;
	if (*why == VCPU_SHUTDOWN)
		return 0;
	if (!made_progress(&before, &after))
		return kvm_fail(c, e, EIO, "neither KVM nor the JIT gets past an instruction");
	parts = changed_parts(&before, &after);
	if (after.mp_state != X86_RUNNING)
		parts |= KVM_PART_MP;
	r = kvm_load_parts(c, &after, parts, e);
	return r < 0 ? err_wrap(e, "step aside to the JIT") : 1;
}
