/* debug: a debugger's points and single steps, by the processor's debug registers, which KVM lends us
 * for as long as there is any point (the guest's own do nothing then), and by INT3s that the caller
 * has put into the guest's code. What is the guest's own goes back to it. */
#include <errno.h>
#include <sys/ioctl.h>

#include "cpu/kvm/kvm_priv.h"

#define DR7_FIXED 0x400u

/* LEN and R/W fields of DR7 (17.2.4) */
static uint64_t dr7_bits(unsigned n, const struct debug_point *p)
{
	static const uint8_t rw[DEBUG_KINDS] = {[DEBUG_WRITE] = 1, [DEBUG_ACCESS] = 3};
	static const uint8_t lens[] = {[1] = 0, [2] = 1, [4] = 3, [8] = 2};
	uint64_t len = p->kind == DEBUG_EXEC ? 0 : lens[p->len];

	return 2ull << 2 * n | (uint64_t)rw[p->kind] << (16 + 4 * n) | len << (18 + 4 * n);
}

/* The registers can watch 1, 2, 4 or 8 bytes that lie at a multiple of their number. */
static bool possible(const struct debug_point *p)
{
	return p->kind == DEBUG_EXEC || p->kind == DEBUG_INT3 ||
	       ((p->kind == DEBUG_WRITE || p->kind == DEBUG_ACCESS) &&
		(p->len == 1 || p->len == 2 || p->len == 4 || p->len == 8) &&
		!(p->gva & (p->len - 1)));
}

static uint32_t block_irqs(const struct kvm_cpu *c)
{
	int flags = ioctl(kvm_vm_of(c)->fd, KVM_CHECK_EXTENSION, KVM_CAP_SET_GUEST_DEBUG2);

	return flags > 0 ? (uint32_t)flags & KVM_GUESTDBG_BLOCKIRQ : 0;
}

/* inject: KVM_GUESTDBG_INJECT_* or 0 */
static int apply(struct kvm_cpu *c, uint32_t inject, struct err *e)
{
	const struct engine_debug *d = &c->debug;
	struct kvm_guest_debug k = {.control = inject};
	unsigned n = 0;

	if (d->step)
		k.control |= KVM_GUESTDBG_SINGLESTEP | (c->halted ? 0 : block_irqs(c));
	for (const struct debug_point *p = d->point; p < d->point + d->points; p++) {
		if (p->kind == DEBUG_INT3) {
			k.control |= KVM_GUESTDBG_USE_SW_BP;
			continue;
		}
		k.control |= KVM_GUESTDBG_USE_HW_BP;
		c->slot[n] = p;
		k.arch.debugreg[n] = p->gva;
		k.arch.debugreg[7] |= DR7_FIXED | dr7_bits(n, p);
		n++;
	}
	if (k.control)
		k.control |= KVM_GUESTDBG_ENABLE;
	if (ioctl(c->fd, KVM_SET_GUEST_DEBUG, &k) < 0)
		return err_sys(e, errno, "KVM_SET_GUEST_DEBUG");
	return 0;
}

int kvm_set_debug(struct vcpu *v, const struct engine_debug *d, struct err *e)
{
	static const struct engine_debug none;
	struct kvm_cpu *c = to_kvm_cpu(v);
	struct kvm_mp_state mp = {KVM_MP_STATE_RUNNABLE};
	unsigned used = 0;

	d = d ? d : &none;
	for (unsigned n = 0; n < d->points; n++) {
		if (!possible(&d->point[n]))
			return err_set(e, ENOTSUP,
				       "the processor's debug registers cannot do this");
		used += d->point[n].kind != DEBUG_INT3;
	}
	if (used > KVM_DEBUG_SLOTS)
		return err_set(e, ENOSPC, "the processor has %u debug registers", KVM_DEBUG_SLOTS);
	(void)!ioctl(c->fd, KVM_GET_MP_STATE, &mp);
	c->halted = mp.mp_state == KVM_MP_STATE_HALTED;
	c->debug = *d;
	return apply(c, 0, e);
}

static bool stop(struct kvm_cpu *c, enum vcpu_stop *why, struct debug_hit hit)
{
	c->base.hit = hit;
	*why = VCPU_BREAKPOINT;
	return true;
}

static bool hit_point(struct kvm_cpu *c, uint64_t dr6, enum vcpu_stop *why)
{
	unsigned slots = 0;

	for (unsigned n = 0; n < c->debug.points; n++)
		slots += c->debug.point[n].kind != DEBUG_INT3;
	for (unsigned n = 0; n < slots; n++)
		if (dr6 >> n & 1)
			return stop(c, why,
				    (struct debug_hit){.kind = c->slot[n]->kind,
						       .gva = c->slot[n]->gva});
	return false;
}

static bool hit_int3(struct kvm_cpu *c, uint64_t pc, enum vcpu_stop *why)
{
	for (unsigned n = 0; n < c->debug.points; n++)
		if (c->debug.point[n].kind == DEBUG_INT3 && c->debug.point[n].gva == pc)
			return stop(c, why, (struct debug_hit){.kind = DEBUG_INT3, .gva = pc});
	return false;
}

int kvm_debug_exit(struct kvm_cpu *c, enum vcpu_stop *why, struct err *e)
{
	const struct kvm_debug_exit_arch *x = &c->run->debug.arch;
	int r;

	if (x->exception == X86_BP) {
		if (hit_int3(c, x->pc, why))
			return 0;
		r = apply(c, KVM_GUESTDBG_INJECT_BP, e);
	} else {
		if (hit_point(c, x->dr6, why))
			return 0;
		if (c->debug.step || c->stepping)
			return !stop(c, why, (struct debug_hit){.step = true});
		r = apply(c, KVM_GUESTDBG_INJECT_DB, e);
	}
	return r < 0 ? r : 1;
}

int kvm_singlestep(struct kvm_cpu *c, bool on, struct err *e)
{
	struct kvm_guest_debug d = {.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP};

	c->stepping = on;
	if (!on)
		return apply(c, 0, e);
	if (ioctl(c->fd, KVM_SET_GUEST_DEBUG, &d) < 0)
		return err_sys(e, errno, "KVM_SET_GUEST_DEBUG");
	return 0;
}
