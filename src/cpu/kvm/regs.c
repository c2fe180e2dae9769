/* regs: x86_state to and from KVM, in parts, so that a step aside moves only what it
 * must. Order matters when loading: CR0..EFER before what they give meaning to, the APIC
 * base (with them) before the LAPIC, the LAPIC's timer mode before its deadline. */
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#include "cpu/kvm/kvm_priv.h"
#include "cpu/msr.h"

static int call(struct kvm_cpu *c, unsigned long request, void *arg, const char *name,
		struct err *e)
{
	if (ioctl(c->fd, request, arg) < 0)
		return err_sys(e, errno, "%s", name);
	return 0;
}

#define CALL(c, request, arg, e) call(c, request, arg, #request, e)

/* --- general registers --- */

static int store_regs(struct kvm_cpu *c, struct x86_state *s, struct err *e)
{
	struct kvm_regs k;
	int r = CALL(c, KVM_GET_REGS, &k, e);

	if (r < 0)
		return r;
	const uint64_t gpr[16] = {k.rax, k.rcx, k.rdx, k.rbx, k.rsp, k.rbp, k.rsi, k.rdi,
				  k.r8,  k.r9,  k.r10, k.r11, k.r12, k.r13, k.r14, k.r15};

	memcpy(s->gpr, gpr, sizeof gpr);
	s->rip = k.rip;
	s->rflags = k.rflags;
	return 0;
}

static int load_regs(struct kvm_cpu *c, const struct x86_state *s, struct err *e)
{
	const uint64_t *g = s->gpr;
	struct kvm_regs k = {
		.rax = g[0],
		.rcx = g[1],
		.rdx = g[2],
		.rbx = g[3],
		.rsp = g[4],
		.rbp = g[5],
		.rsi = g[6],
		.rdi = g[7],
		.r8 = g[8],
		.r9 = g[9],
		.r10 = g[10],
		.r11 = g[11],
		.r12 = g[12],
		.r13 = g[13],
		.r14 = g[14],
		.r15 = g[15],
		.rip = s->rip,
		.rflags = s->rflags | RFLAGS_FIXED,
	};

	return CALL(c, KVM_SET_REGS, &k, e);
}

/* --- segments and control registers --- */

static struct x86_seg from_segment(const struct kvm_segment *k)
{
	return (struct x86_seg){
		.base = k->base,
		.limit = k->limit,
		.sel = k->selector,
		.attr = (k->type & SEG_TYPE) | (k->s ? SEG_S : 0) | (k->dpl & 3) << SEG_DPL_SHIFT |
			(k->present ? SEG_P : 0) | (k->avl ? SEG_AVL : 0) | (k->l ? SEG_L : 0) |
			(k->db ? SEG_DB : 0) | (k->g ? SEG_G : 0) |
			(k->unusable ? SEG_UNUSABLE : 0),
	};
}

static struct kvm_segment to_segment(const struct x86_seg *s)
{
	return (struct kvm_segment){
		.base = s->base,
		.limit = s->limit,
		.selector = s->sel,
		.type = s->attr & SEG_TYPE,
		.s = !!(s->attr & SEG_S),
		.dpl = s->attr >> SEG_DPL_SHIFT & 3,
		.present = !!(s->attr & SEG_P) && !(s->attr & SEG_UNUSABLE),
		.avl = !!(s->attr & SEG_AVL),
		.l = !!(s->attr & SEG_L),
		.db = !!(s->attr & SEG_DB),
		.g = !!(s->attr & SEG_G),
		.unusable = !!(s->attr & SEG_UNUSABLE),
	};
}

/* The layouts agree up to apic_base; then come the interrupt bitmap, which events carry,
 * or flags and PDPTRs, which KVM reads again from memory when they are not marked valid. */
union sregs {
	struct kvm_sregs one;
	struct kvm_sregs2 two;
};

static int get_sregs(struct kvm_cpu *c, union sregs *k, struct err *e)
{
	return kvm_vm_of(c)->has_sregs2 ? CALL(c, KVM_GET_SREGS2, k, e)
					: CALL(c, KVM_GET_SREGS, k, e);
}

static int store_sregs(struct kvm_cpu *c, struct x86_state *s, struct err *e)
{
	union sregs u;
	const struct kvm_sregs *k = &u.one;
	int r = get_sregs(c, &u, e);

	if (r < 0)
		return r;
	s->seg[X86_ES] = from_segment(&k->es);
	s->seg[X86_CS] = from_segment(&k->cs);
	s->seg[X86_SS] = from_segment(&k->ss);
	s->seg[X86_DS] = from_segment(&k->ds);
	s->seg[X86_FS] = from_segment(&k->fs);
	s->seg[X86_GS] = from_segment(&k->gs);
	s->ldtr = from_segment(&k->ldt);
	s->tr = from_segment(&k->tr);
	s->gdtr = (struct x86_dtr){k->gdt.base, k->gdt.limit};
	s->idtr = (struct x86_dtr){k->idt.base, k->idt.limit};
	s->cr0 = k->cr0;
	s->cr2 = k->cr2;
	s->cr3 = k->cr3;
	s->cr4 = k->cr4;
	s->cr8 = k->cr8;
	s->efer = k->efer;
	s->apic_base = k->apic_base;
	return 0;
}

static int load_sregs(struct kvm_cpu *c, const struct x86_state *s, struct err *e)
{
	union sregs u = {};
	struct kvm_sregs *k = &u.one;

	k->es = to_segment(&s->seg[X86_ES]);
	k->cs = to_segment(&s->seg[X86_CS]);
	k->ss = to_segment(&s->seg[X86_SS]);
	k->ds = to_segment(&s->seg[X86_DS]);
	k->fs = to_segment(&s->seg[X86_FS]);
	k->gs = to_segment(&s->seg[X86_GS]);
	k->ldt = to_segment(&s->ldtr);
	k->tr = to_segment(&s->tr);
	k->gdt = (struct kvm_dtable){.base = s->gdtr.base, .limit = s->gdtr.limit};
	k->idt = (struct kvm_dtable){.base = s->idtr.base, .limit = s->idtr.limit};
	k->cr0 = s->cr0;
	k->cr2 = s->cr2;
	k->cr3 = s->cr3;
	k->cr4 = s->cr4;
	k->cr8 = s->cr8;
	k->efer = s->efer;
	k->apic_base = s->apic_base;
	return kvm_vm_of(c)->has_sregs2 ? CALL(c, KVM_SET_SREGS2, &u, e)
					: CALL(c, KVM_SET_SREGS, &u, e);
}

/* --- x87, vectors, XCR0 --- */

#define XSAVE_XSTATE_BV 512 /* offsets in the XSAVE header (SDM vol. 1, 13.4.2) */
#define XSAVE_XCOMP_BV  520

static int store_fpu(struct kvm_cpu *c, struct x86_state *s, struct err *e)
{
	struct kvm_xcrs xcrs = {};
	struct kvm_xsave area;
	int r = CALL(c, KVM_GET_XSAVE, &area, e);

	if (r == 0 && kvm_vm_of(c)->has_xcrs)
		r = CALL(c, KVM_GET_XCRS, &xcrs, e);
	if (r < 0)
		return r;
	memcpy(s->xsave, area.region, sizeof s->xsave);
	s->xcr0 = xcrs.nr_xcrs ? xcrs.xcrs[0].value : XCR0_X87;
	return 0;
}

static int load_fpu(struct kvm_cpu *c, const struct x86_state *s, struct err *e)
{
	struct kvm_xcrs xcrs = {.nr_xcrs = 1, .xcrs[0] = {.value = s->xcr0 | XCR0_X87}};
	struct kvm_xsave area = {};
	uint8_t *bytes = (uint8_t *)area.region;
	uint64_t may = kvm_vm_of(c)->xcr0_mask;
	int r = 0;

	memcpy(bytes, s->xsave, sizeof s->xsave);
	store_le(bytes + XSAVE_XSTATE_BV, load_le(bytes + XSAVE_XSTATE_BV, 8) & may, 8);
	store_le(bytes + XSAVE_XCOMP_BV, 0, 8);
	if (kvm_vm_of(c)->has_xcrs)
		r = CALL(c, KVM_SET_XCRS, &xcrs, e);
	return r < 0 ? r : CALL(c, KVM_SET_XSAVE, &area, e);
}

/* --- MSRs --- */

struct msr_batch { /* a struct kvm_msrs, with room behind it */
	_Alignas(8) uint8_t
		bytes[sizeof(struct kvm_msrs) + KVM_MSRS_MAX * sizeof(struct kvm_msr_entry)];
};

static struct kvm_msrs *msrs_of(struct msr_batch *b)
{
	return (struct kvm_msrs *)b->bytes;
}

/* Which part of the state moves it; 0: sregs do, or nothing. */
static unsigned part_of(const struct msr_desc *d)
{
	if (d->flags & (MSR_CONST | MSR_IN_SREGS))
		return 0;
	if (d->number == MSR_TSC || d->number == MSR_TSC_ADJUST)
		return KVM_PART_TIME;
	return d->flags & MSR_LAPIC ? KVM_PART_LAPIC : KVM_PART_MSRS;
}

/* KVM goes through a batch until it meets one that it does not have, so each round ends
 * behind one of those. */
int kvm_list_msrs(struct kvm_cpu *c, struct err *e)
{
	unsigned count, next = 0;
	const struct msr_desc *d = msr_table(&count);
	struct msr_batch all;
	struct kvm_msrs *k = msrs_of(&all);

	c->msrs = 0;
	while (next < count) {
		int got;

		k->nmsrs = 0;
		for (unsigned i = next; i < count; i++)
			if (part_of(&d[i]) && k->nmsrs < KVM_MSRS_MAX)
				k->entries[k->nmsrs++].index = d[i].number;
		got = ioctl(c->fd, KVM_GET_MSRS, k);
		if (got < 0)
			return err_sys(e, errno, "KVM_GET_MSRS");
		for (int i = 0; i < got; i++)
			c->msr[c->msrs++] = k->entries[i].index;
		if (got >= (int)k->nmsrs)
			break;
		next = msr_find(k->entries[got].index) - d + 1;
	}
	return 0;
}

static int store_msrs(struct kvm_cpu *c, struct x86_state *s, unsigned parts, struct err *e)
{
	struct msr_batch all;
	struct kvm_msrs *k = msrs_of(&all);
	int got;

	k->nmsrs = 0;
	for (unsigned i = 0; i < c->msrs; i++)
		if (part_of(msr_find(c->msr[i])) & parts)
			k->entries[k->nmsrs++].index = c->msr[i];
	got = ioctl(c->fd, KVM_GET_MSRS, k);
	if (got < 0)
		return err_sys(e, errno, "KVM_GET_MSRS");
	if (got < (int)k->nmsrs)
		return err_set(e, EIO, "KVM_GET_MSRS: MSR %#x has gone", k->entries[got].index);
	for (int i = 0; i < got; i++)
		*msr_field(s, msr_find(k->entries[i].index)) = k->entries[i].data;
	return 0;
}

/* A register that KVM refuses is left out when it should be 0: it may not exist under this
 * vCPU's CPUID. */
static int set_msrs(struct kvm_cpu *c, struct kvm_msrs *k, struct err *e)
{
	while (k->nmsrs) {
		int set = ioctl(c->fd, KVM_SET_MSRS, k);

		if (set < 0)
			return err_sys(e, errno, "KVM_SET_MSRS");
		if (set >= (int)k->nmsrs)
			break;
		if (k->entries[set].data)
			return err_set(e, ENOTSUP, "KVM refuses %#llx in MSR %#x",
				       (unsigned long long)k->entries[set].data,
				       k->entries[set].index);
		k->nmsrs -= set + 1;
		memmove(k->entries, k->entries + set + 1, k->nmsrs * sizeof k->entries[0]);
	}
	return 0;
}

static int load_msrs(struct kvm_cpu *c, const struct x86_state *s, unsigned parts, struct err *e)
{
	struct msr_batch all;
	struct kvm_msrs *k = msrs_of(&all);

	k->nmsrs = 0;
	for (unsigned i = 0; i < c->msrs; i++) {
		const struct msr_desc *d = msr_find(c->msr[i]);

		if (part_of(d) & parts)
			k->entries[k->nmsrs++] = (struct kvm_msr_entry){
				.index = d->number,
				.data = msr_read(s, d),
			};
	}
	return set_msrs(c, k, e);
}

/* --- debug registers, events, halt, LAPIC --- */

static int store_debug(struct kvm_cpu *c, struct x86_state *s, struct err *e)
{
	struct kvm_debugregs k = {};
	int r = CALL(c, KVM_GET_DEBUGREGS, &k, e);

	if (r < 0)
		return r;
	for (int i = 0; i < 4; i++)
		s->dr[i] = k.db[i];
	s->dr6 = k.dr6;
	s->dr7 = k.dr7;
	return 0;
}

static int load_debug(struct kvm_cpu *c, const struct x86_state *s, struct err *e)
{
	struct kvm_debugregs k = {
		.db = {s->dr[0], s->dr[1], s->dr[2], s->dr[3]},
		.dr6 = s->dr6,
		.dr7 = s->dr7,
	};

	return CALL(c, KVM_SET_DEBUGREGS, &k, e);
}

static int store_events(struct kvm_cpu *c, struct x86_state *s, struct err *e)
{
	struct kvm_vcpu_events k = {};
	int r = CALL(c, KVM_GET_VCPU_EVENTS, &k, e);

	if (r < 0)
		return r;
	s->events = (struct x86_events){
		.exception_pending = k.exception.injected || k.exception.pending,
		.exception_vector = k.exception.nr,
		.exception_has_error = k.exception.has_error_code,
		.exception_error = k.exception.error_code,
		.interrupt_injected = k.interrupt.injected,
		.interrupt_vector = k.interrupt.nr,
		.interrupt_soft = k.interrupt.soft,
		.nmi_pending = k.nmi.pending,
		.nmi_injected = k.nmi.injected,
		.nmi_masked = k.nmi.masked,
		.shadow = (k.interrupt.shadow & KVM_X86_SHADOW_INT_STI ? 1 : 0) |
			  (k.interrupt.shadow & KVM_X86_SHADOW_INT_MOV_SS ? 2 : 0),
	};
	return 0;
}

static int load_events(struct kvm_cpu *c, const struct x86_state *s, struct err *e)
{
	const struct x86_events *v = &s->events;
	struct kvm_vcpu_events k = {
		.flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW,
		.exception = {.injected = v->exception_pending,
			      .nr = v->exception_vector,
			      .has_error_code = v->exception_has_error,
			      .error_code = v->exception_error},
		.interrupt = {.injected = v->interrupt_injected,
			      .nr = v->interrupt_vector,
			      .soft = v->interrupt_soft,
			      .shadow = (v->shadow & 1 ? KVM_X86_SHADOW_INT_STI : 0) |
					(v->shadow & 2 ? KVM_X86_SHADOW_INT_MOV_SS : 0)},
		.nmi = {.injected = v->nmi_injected,
			.pending = v->nmi_pending,
			.masked = v->nmi_masked},
	};

	return CALL(c, KVM_SET_VCPU_EVENTS, &k, e);
}

static int store_mp(struct kvm_cpu *c, struct x86_state *s, struct err *e)
{
	struct kvm_mp_state k;
	int r = CALL(c, KVM_GET_MP_STATE, &k, e);

	if (r < 0)
		return r;
	switch (k.mp_state) {
	case KVM_MP_STATE_HALTED: s->mp_state = X86_HALTED; break;
	case KVM_MP_STATE_INIT_RECEIVED: s->mp_state = X86_WAIT_SIPI; break;
	case KVM_MP_STATE_UNINITIALIZED: s->mp_state = X86_UNINITIALIZED; break;
	default: s->mp_state = X86_RUNNING;
	}
	return 0;
}

static int load_mp(struct kvm_cpu *c, const struct x86_state *s, struct err *e)
{
	static const uint32_t to_kvm[] = {
		[X86_RUNNING] = KVM_MP_STATE_RUNNABLE,
		[X86_HALTED] = KVM_MP_STATE_HALTED,
		[X86_WAIT_SIPI] = KVM_MP_STATE_INIT_RECEIVED,
		[X86_UNINITIALIZED] = KVM_MP_STATE_UNINITIALIZED,
	};
	struct kvm_mp_state k;

	if ((unsigned)s->mp_state >= ARRAY_SIZE(to_kvm))
		return err_set(e, EINVAL, "mp_state %d", (int)s->mp_state);
	k.mp_state = to_kvm[s->mp_state];
	return CALL(c, KVM_SET_MP_STATE, &k, e);
}

static int store_lapic(struct kvm_cpu *c, struct x86_state *s, struct err *e)
{
	struct kvm_lapic_state k;
	int r = CALL(c, KVM_GET_LAPIC, &k, e);

	if (r == 0)
		memcpy(s->lapic, k.regs, sizeof s->lapic);
	return r < 0 ? r : store_msrs(c, s, KVM_PART_LAPIC, e);
}

static int load_lapic(struct kvm_cpu *c, const struct x86_state *s, struct err *e)
{
	struct kvm_lapic_state k;
	int r;

	memcpy(k.regs, s->lapic, sizeof s->lapic);
	r = CALL(c, KVM_SET_LAPIC, &k, e);
	return r < 0 ? r : load_msrs(c, s, KVM_PART_LAPIC, e);
}

int kvm_store_parts(struct kvm_cpu *c, struct x86_state *s, unsigned parts, struct err *e)
{
	int r = 0;

	if (parts & KVM_PART_REGS)
		r = store_regs(c, s, e);
	if (r == 0 && parts & KVM_PART_SREGS)
		r = store_sregs(c, s, e);
	if (r == 0 && parts & KVM_PART_FPU)
		r = store_fpu(c, s, e);
	if (r == 0 && parts & (KVM_PART_MSRS | KVM_PART_TIME))
		r = store_msrs(c, s, parts & (KVM_PART_MSRS | KVM_PART_TIME), e);
	if (r == 0 && parts & KVM_PART_DEBUG && kvm_vm_of(c)->has_debugregs)
		r = store_debug(c, s, e);
	if (r == 0 && parts & KVM_PART_EVENTS)
		r = store_events(c, s, e);
	if (r == 0 && parts & KVM_PART_MP)
		r = store_mp(c, s, e);
	if (r == 0 && parts & KVM_PART_LAPIC)
		r = store_lapic(c, s, e);
	return r;
}

int kvm_load_parts(struct kvm_cpu *c, const struct x86_state *s, unsigned parts, struct err *e)
{
	int r = 0;

	if (parts & KVM_PART_SREGS)
		r = load_sregs(c, s, e);
	if (r == 0 && parts & KVM_PART_REGS) /* before events: it drops a pending exception */
		r = load_regs(c, s, e);
	if (r == 0 && parts & KVM_PART_FPU)
		r = load_fpu(c, s, e);
	if (r == 0 && parts & KVM_PART_LAPIC)
		r = load_lapic(c, s, e);
	if (r == 0 && parts & (KVM_PART_MSRS | KVM_PART_TIME))
		r = load_msrs(c, s, parts & (KVM_PART_MSRS | KVM_PART_TIME), e);
	if (r == 0 && parts & KVM_PART_MP)
		r = load_mp(c, s, e);
	if (r == 0 && parts & KVM_PART_EVENTS)
		r = load_events(c, s, e);
	if (r == 0 && parts & KVM_PART_DEBUG && kvm_vm_of(c)->has_debugregs)
		r = load_debug(c, s, e);
	return r;
}
