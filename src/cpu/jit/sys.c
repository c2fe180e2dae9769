/* sys: control and debug registers, flags, time stamps, MSR instructions and other
 * privileged ones (SDM 2.5, 2.8, 4.1-4.10, 17.2; volume 2 of each). Quick code, except
 * where it calls out after jit_fpu_leave. */
#include "cpu/jit/sys_priv.h"
#include "cpu/msr.h"

#define CR0_KNOWN                                                                                  \
	(CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | \
	 CR0_PG)
#define CR4_FLUSHING                                                                               \
	(CR4_PSE | CR4_PAE | CR4_PGE | CR4_SMEP | CR4_SMAP | CR4_PCIDE | CR4_LA57 | CR4_PKE)

#define KVM_HC_KICK_CPU 5
#define KVM_HC_SEND_IPI 10
#define ICR_NOT_PV      0xc0800u /* a logical destination, a shorthand */

enum invpcid { INVPCID_ADDRESS, INVPCID_CONTEXT, INVPCID_ALL_GLOBAL, INVPCID_ALL };

#define DR6_FIXED 0xffff0ff0u
#define DR6_BD    0x2000u
#define DR7_GD    0x2000u
#define DR7_FIXED 0x400u

static unsigned word_size(const struct jit_cpu *c)
{
	return jit_code64(c) ? 8 : 4;
}

/* --- CR0, CR3, CR4, CR8 --- */
bool pdptes_valid(struct jit_cpu *c, uint64_t cr0, uint64_t cr3, uint64_t cr4)
{
	if (!(cr0 & CR0_PG) || !(cr4 & CR4_PAE) || jit_long_mode(c))
		return true;
	jit_fpu_leave(c);
	const uint64_t *pdpte = mem_span(c->env->mem, cr3 & 0xffffffe0, 32);

	for (unsigned i = 0; pdpte && i < 4; i++)
		if ((pdpte[i] & 1) && (pdpte[i] & (0xfff00000000001e6ull)))
			return false;
	return true;
}

/* EFER.LMA follows CR0.PG under EFER.LME (9.8.5); returns the EFER to be. */
static uint64_t check_cr0(struct jit_cpu *c, uint64_t v)
{
	bool was_on = c->st.cr0 & CR0_PG, on = v & CR0_PG;

	if (v >> 32 || (on && !(v & CR0_PE)) || ((v & CR0_NW) && !(v & CR0_CD)))
		jit_raise_err(c, X86_GP, 0);
	if (on && !was_on && (c->st.efer & EFER_LME)) {
		if (!(c->st.cr4 & CR4_PAE) || (c->st.seg[X86_CS].attr & SEG_L))
			jit_raise_err(c, X86_GP, 0);
		return c->st.efer | EFER_LMA;
	}
	if (was_on && !on) {
		if (jit_code64(c) || (c->st.cr4 & CR4_PCIDE))
			jit_raise_err(c, X86_GP, 0);
		return c->st.efer & ~(uint64_t)EFER_LMA;
	}
	return c->st.efer;
}

static void write_cr0(struct jit_cpu *c, uint64_t v)
{
	uint64_t efer = check_cr0(c, v), changed;

	v = (v & CR0_KNOWN) | CR0_ET;
	changed = v ^ c->st.cr0;
	if ((changed & (CR0_PG | CR0_CD | CR0_NW)) && !(efer & EFER_LMA) &&
	    !pdptes_valid(c, v, c->st.cr3, c->st.cr4))
		jit_raise_err(c, X86_GP, 0);
	if (changed & (CR0_EM | CR0_TS))
		jit_fpu_leave(c);
	c->st.cr0 = v;
	c->st.efer = efer;
	if (changed & (CR0_PG | CR0_WP | CR0_PE))
		jit_tlb_flush(c, true);
	jit_mode_update(c);
}

static void write_cr3(struct jit_cpu *c, uint64_t v)
{
	bool keep = (c->st.cr4 & CR4_PCIDE) && v >> 63;

	if (c->st.cr4 & CR4_PCIDE)
		v &= ~BIT(63);
	if (jit_long_mode(c) && v >> c->phys_bits)
		jit_raise_err(c, X86_GP, 0);
	if (!pdptes_valid(c, c->st.cr0, v, c->st.cr4))
		jit_raise_err(c, X86_GP, 0);
	jit_load_cr3(c, v, keep);
}

static void write_cr4(struct jit_cpu *c, uint64_t v)
{
	uint64_t changed = v ^ c->st.cr4;

	if (v & ~(uint64_t)c->cr4_offered)
		jit_raise_err(c, X86_GP, 0);
	if (jit_long_mode(c) && (!(v & CR4_PAE) || (changed & CR4_LA57)))
		jit_raise_err(c, X86_GP, 0);
	if ((changed & v & CR4_PCIDE) && (!jit_long_mode(c) || (c->st.cr3 & 0xfff)))
		jit_raise_err(c, X86_GP, 0);
	if ((changed & (CR4_PSE | CR4_PAE | CR4_PGE | CR4_SMEP)) &&
	    !pdptes_valid(c, c->st.cr0, c->st.cr3, v))
		jit_raise_err(c, X86_GP, 0);
	if (changed & (CR4_OSXSAVE | CR4_OSFXSR))
		jit_fpu_leave(c);
	c->st.cr4 = v;
	if (changed & CR4_SMAP) /* STAC in translated code looks here */
		c->tables_mode[MMU_KERNEL_AC] = ~0u;
	if (changed & CR4_FLUSHING)
		jit_tlb_flush(c, true);
	jit_mode_update(c);
}

static uint64_t read_cr8(struct jit_cpu *c)
{
	struct lapic_port *l = c->vcpu.lapic;

	if (!l)
		return c->st.cr8;
	jit_fpu_leave(c);
	return l->ops->get_cr8(l);
}

static void write_cr8(struct jit_cpu *c, uint64_t v)
{
	struct lapic_port *l = c->vcpu.lapic;

	if (v >> 4)
		jit_raise_err(c, X86_GP, 0);
	c->st.cr8 = v;
	if (l) {
		jit_fpu_leave(c);
		l->ops->set_cr8(l, (uint8_t)v);
	}
}

void h_mov_to_cr(struct jit_cpu *c, uint64_t arg)
{
	uint64_t v = gpr_read(c, ARG_R2(arg), word_size(c));

	need_cpl0(c);
	switch (ARG_R1(arg)) {
	case 0: write_cr0(c, v); break;
	case 2: c->st.cr2 = v; break;
	case 3: write_cr3(c, v); break;
	case 4: write_cr4(c, v); break;
	case 8: write_cr8(c, v); break;
	default: jit_raise(c, X86_UD);
	}
}

void h_mov_from_cr(struct jit_cpu *c, uint64_t arg)
{
	uint64_t v;

	need_cpl0(c);
	switch (ARG_R1(arg)) {
	case 0: v = c->st.cr0; break;
	case 2: v = c->st.cr2; break;
	case 3: v = c->st.cr3; break;
	case 4: v = c->st.cr4; break;
	case 8: v = read_cr8(c); break;
	default: jit_raise(c, X86_UD);
	}
	gpr_write(c, ARG_R2(arg), v, word_size(c));
}

void h_clts(struct jit_cpu *c, uint64_t arg)
{
	need_cpl0(c);
	c->st.cr0 &= ~(uint64_t)CR0_TS;
	jit_mode_update(c);
}

void h_lmsw(struct jit_cpu *c, uint64_t arg)
{
	uint64_t v;

	need_cpl0(c);
	v = rm_read(c, arg, 2) & 0xf;
	write_cr0(c, (c->st.cr0 & ~UINT64_C(0xe)) | v); /* PE can be set, not cleared */
}

void h_smsw(struct jit_cpu *c, uint64_t arg)
{
	check_umip(c);
	rm_write(c, arg, c->st.cr0, ARG_R2(arg) == ARG_MEM ? 2 : ARG_SIZE(arg));
}

/* --- debug registers (17.2) --- */
/* The register's number after aliasing; raises what an access may. */
static unsigned debug_reg(struct jit_cpu *c, uint64_t arg)
{
	unsigned n = ARG_R1(arg);

	if (n > 7 || ((n == 4 || n == 5) && (c->st.cr4 & CR4_DE)))
		jit_raise(c, X86_UD);
	need_cpl0(c);
	if (c->st.dr7 & DR7_GD) {
		c->st.dr6 |= DR6_BD;
		jit_raise(c, X86_DB);
	}
	return n == 4 || n == 5 ? n + 2 : n;
}

void h_mov_to_dr(struct jit_cpu *c, uint64_t arg)
{
	unsigned n = debug_reg(c, arg);
	uint64_t v = gpr_read(c, ARG_R2(arg), word_size(c));

	if (n >= 6 && v >> 32)
		jit_raise_err(c, X86_GP, 0);
	if (n < 4)
		c->st.dr[n] = v;
	else if (n == 6)
		c->st.dr6 = (v & 0xe00f) | DR6_FIXED;
	else
		c->st.dr7 = (v & 0xffff23ff) | DR7_FIXED;
	jit_mode_update(c);
}

void h_mov_from_dr(struct jit_cpu *c, uint64_t arg)
{
	unsigned n = debug_reg(c, arg);
	uint64_t v = n < 4 ? c->st.dr[n] : n == 6 ? c->st.dr6 : c->st.dr7;

	gpr_write(c, ARG_R2(arg), v, word_size(c));
}

/* --- MSRs, CPUID, counters --- */
static void set_edx_eax(struct jit_cpu *c, uint64_t v)
{
	c->st.gpr[X86_RAX] = (uint32_t)v;
	c->st.gpr[X86_RDX] = v >> 32;
}

static uint64_t edx_eax(const struct jit_cpu *c)
{
	return (uint32_t)c->st.gpr[X86_RAX] | c->st.gpr[X86_RDX] << 32;
}

void h_rdmsr(struct jit_cpu *c, uint64_t arg)
{
	uint64_t v;

	need_cpl0(c);
	if (!jit_msr_read(c, (uint32_t)c->st.gpr[X86_RCX], &v))
		jit_raise_err(c, X86_GP, 0);
	set_edx_eax(c, v);
}

void h_wrmsr(struct jit_cpu *c, uint64_t arg)
{
	need_cpl0(c);
	if (!jit_msr_write(c, (uint32_t)c->st.gpr[X86_RCX], edx_eax(c)))
		jit_raise_err(c, X86_GP, 0);
}

void h_cpuid(struct jit_cpu *c, uint64_t arg)
{
	uint32_t out[4];

	jit_fpu_leave(c);
	cpuid_query(c->env->cpuid, &c->st, c->vcpu.index, (uint32_t)c->st.gpr[X86_RAX],
		    (uint32_t)c->st.gpr[X86_RCX], out);
	c->st.gpr[X86_RAX] = out[0];
	c->st.gpr[X86_RBX] = out[1];
	c->st.gpr[X86_RCX] = out[2];
	c->st.gpr[X86_RDX] = out[3];
}

void h_rdtsc(struct jit_cpu *c, uint64_t arg)
{
	if ((c->st.cr4 & CR4_TSD) && jit_cpl(c) > 0)
		jit_raise_err(c, X86_GP, 0);
	set_edx_eax(c, jit_tsc(c));
}

void h_rdtscp(struct jit_cpu *c, uint64_t arg)
{
	h_rdtsc(c, arg);
	c->st.gpr[X86_RCX] = (uint32_t)c->st.tsc_aux;
}

void h_rdpmc(struct jit_cpu *c, uint64_t arg)
{
	bool allowed = jit_cpl(c) == 0 || !(c->st.cr0 & CR0_PE) || (c->st.cr4 & CR4_PCE);

	/* AMD's always have four; ours stand still (their MSRs are in cpu/msr.c). */
	if (!allowed || !cpu_is_amd(c) || (uint32_t)c->st.gpr[X86_RCX] > 3)
		jit_raise_err(c, X86_GP, 0);
	c->st.gpr[X86_RAX] = 0;
	c->st.gpr[X86_RDX] = 0;
}

void h_rdpid(struct jit_cpu *c, uint64_t arg)
{
	gpr_write(c, ARG_R2(arg), c->st.tsc_aux, word_size(c));
}

void h_xgetbv(struct jit_cpu *c, uint64_t arg)
{
	uint64_t in_use, pkru = c->pkru ? XCR0_PKRU : 0;

	if (!(c->st.cr4 & CR4_OSXSAVE))
		jit_raise(c, X86_UD);
	switch ((uint32_t)c->st.gpr[X86_RCX]) {
	case 0: set_edx_eax(c, c->st.xcr0); break;
	case 1:
		jit_fpu_leave(c);
		in_use = *(const uint64_t *)(c->st.xsave + 512);
		set_edx_eax(c, c->st.xcr0 & (in_use | pkru));
		break;
	default: jit_raise_err(c, X86_GP, 0);
	}
}

static bool xcr0_valid(const struct jit_cpu *c, uint64_t v)
{
	if (!(v & XCR0_X87) || (v & ~c->env->cpuid->xcr0_mask))
		return false;
	if ((v & XCR0_AVX) && !(v & XCR0_SSE))
		return false;
	if (!(v & XCR0_AVX512))
		return true;
	return (v & XCR0_AVX512) == XCR0_AVX512 && (v & XCR0_AVX);
}

void h_xsetbv(struct jit_cpu *c, uint64_t arg)
{
	if (!(c->st.cr4 & CR4_OSXSAVE))
		jit_raise(c, X86_UD);
	need_cpl0(c);
	if ((uint32_t)c->st.gpr[X86_RCX] != 0 || !xcr0_valid(c, edx_eax(c)))
		jit_raise_err(c, X86_GP, 0);
	jit_fpu_leave(c);
	c->st.xcr0 = edx_eax(c);
	jit_mode_update(c);
}

/* --- caches, TLB --- */
void h_invlpg(struct jit_cpu *c, uint64_t arg)
{
	uint64_t base = c->st.seg[c->ea_seg % X86_SREGS].base;

	need_cpl0(c);
	if (ARG_R2(arg) != ARG_MEM)
		jit_raise(c, X86_UD);
	if (jit_code64(c) && c->ea_seg != X86_FS && c->ea_seg != X86_GS)
		base = 0;
	jit_tlb_flush_page(c, jit_code64(c) ? c->ea + base : (uint32_t)(c->ea + base));
}

void h_invpcid(struct jit_cpu *c, uint64_t arg)
{
	uint64_t type = gpr_read(c, ARG_R1(arg), word_size(c)), pcid, gva;

	if (cpu_v86(c))
		jit_raise_err(c, X86_GP, 0);
	need_cpl0(c);
	if (ARG_R2(arg) != ARG_MEM)
		jit_raise(c, X86_UD);
	if (type > INVPCID_ALL)
		jit_raise_err(c, X86_GP, 0);
	pcid = ea_read(c, 0, 8);
	gva = ea_read(c, 8, 8);
	if (type <= INVPCID_CONTEXT && (pcid >> 12 || (pcid && !(c->st.cr4 & CR4_PCIDE))))
		jit_raise_err(c, X86_GP, 0);
	if (type == INVPCID_ADDRESS && !canonical_base(c, gva))
		jit_raise_err(c, X86_GP, 0);
	switch ((enum invpcid)type) {
	case INVPCID_ADDRESS: jit_tlb_flush_pcid_page(c, (uint16_t)pcid, gva); break;
	case INVPCID_CONTEXT: jit_tlb_flush_pcid(c, (uint16_t)pcid); break;
	case INVPCID_ALL_GLOBAL: jit_tlb_flush(c, true); break;
	case INVPCID_ALL: jit_tlb_flush_pcids(c); break;
	}
}

void h_invd(struct jit_cpu *c, uint64_t arg)
{
	need_cpl0(c);
}

void h_wbinvd(struct jit_cpu *c, uint64_t arg)
{
	need_cpl0(c);
}

/* --- flags --- */
static void need_iopl(struct jit_cpu *c)
{
	if ((c->st.cr0 & CR0_PE) && jit_cpl(c) > cpu_iopl(c))
		jit_raise_err(c, X86_GP, 0);
}

void h_cli(struct jit_cpu *c, uint64_t arg)
{
	need_iopl(c);
	c->st.rflags &= ~(uint64_t)RFLAGS_IF;
}

void h_sti(struct jit_cpu *c, uint64_t arg)
{
	need_iopl(c);
	if (!(c->st.rflags & RFLAGS_IF))
		c->st.events.shadow = 1;
	c->st.rflags |= RFLAGS_IF;
}

static void set_ac(struct jit_cpu *c, uint64_t ac)
{
	if (jit_cpl(c) != 0 || !(c->st.cr0 & CR0_PE))
		jit_raise(c, X86_UD);
	c->st.rflags = (c->st.rflags & ~(uint64_t)RFLAGS_AC) | ac;
	jit_mode_update(c);
}

void h_clac(struct jit_cpu *c, uint64_t arg)
{
	set_ac(c, 0);
}

void h_stac(struct jit_cpu *c, uint64_t arg)
{
	set_ac(c, RFLAGS_AC);
}

void h_pushf(struct jit_cpu *c, uint64_t arg)
{
	if (cpu_v86(c) && cpu_iopl(c) < 3)
		jit_raise_err(c, X86_GP, 0);
	stack_push(c, jit_flags_get(c) & ~(RFLAGS_VM | RFLAGS_RF), ARG_SIZE(arg));
}

void h_popf(struct jit_cpu *c, uint64_t arg)
{
	uint64_t mask = RFLAGS_ARITH | RFLAGS_TF | RFLAGS_DF | RFLAGS_NT | RFLAGS_RF;
	unsigned size = ARG_SIZE(arg), cpl = jit_cpl(c);
	uint64_t v;

	if (cpu_v86(c) && cpu_iopl(c) < 3)
		jit_raise_err(c, X86_GP, 0);
	v = stack_peek(c, 0, size) & ~(uint64_t)RFLAGS_RF;
	if (size >= 4)
		mask |= RFLAGS_AC | RFLAGS_ID;
	if (cpl <= cpu_iopl(c) || !(c->st.cr0 & CR0_PE))
		mask |= RFLAGS_IF;
	if (cpl == 0)
		mask |= RFLAGS_IOPL;
	stack_set(c, stack_top(c) + size);
	flags_write(c, v, mask);
	jit_mode_update(c);
}

/* --- the rest --- */
static void need_pkru(struct jit_cpu *c)
{
	if (!(c->st.cr4 & CR4_PKE))
		jit_raise(c, X86_UD);
	if ((uint32_t)c->st.gpr[X86_RCX])
		jit_raise_err(c, X86_GP, 0);
}

void h_rdpkru(struct jit_cpu *c, uint64_t arg)
{
	need_pkru(c);
	set_edx_eax(c, c->pkru);
}

void h_wrpkru(struct jit_cpu *c, uint64_t arg)
{
	need_pkru(c);
	if ((uint32_t)c->st.gpr[X86_RDX])
		jit_raise_err(c, X86_GP, 0);
	jit_pkru_write(c, (uint32_t)c->st.gpr[X86_RAX]);
}

/* To the APIC IDs whose bits are set in RBX and RCX, from RDX on; RSI: as in the ICR. Returns to how
 * many. */
static int64_t send_ipis(struct jit_cpu *c)
{
	const int einval = -22;
	struct lapic_port *l = c->vcpu.lapic;
	uint64_t to[2] = {c->st.gpr[X86_RBX], c->st.gpr[X86_RCX]};
	uint64_t first = (uint32_t)c->st.gpr[X86_RDX];
	uint32_t icr = (uint32_t)c->st.gpr[X86_RSI];
	int64_t sent = 0;

	if (icr & ICR_NOT_PV)
		return einval;
	for (unsigned i = 0; i < 2; i++, first += 8 * word_size(c))
		for (uint64_t left = trunc_bytes(to[i], word_size(c)); left; left &= left - 1) {
			uint64_t id = first + (unsigned)__builtin_ctzll(left);

			sent += id <= UINT32_MAX && l->ops->send(l, (uint32_t)id, icr);
		}
	return sent;
}

/* KVM's hypercalls (Linux Documentation/virt/kvm/x86/hypercalls.rst), as far as leaf 0x40000001
 * announces them: KICK_CPU ends the HLT of the vCPU with this APIC ID, be it to come. */
void h_vmmcall(struct jit_cpu *c, uint64_t arg)
{
	const int eperm = -1, enosys = -1000;
	int64_t r = enosys;

	if (jit_cpl(c)) {
		r = eperm;
	} else if ((uint32_t)c->st.gpr[X86_RAX] == KVM_HC_KICK_CPU) {
		jit_fpu_leave(c);
		jit_unhalt(c->vm, (uint32_t)c->st.gpr[X86_RCX]);
		r = 0;
	} else if ((uint32_t)c->st.gpr[X86_RAX] == KVM_HC_SEND_IPI && c->vcpu.lapic &&
		   c->vcpu.lapic->ops->send) {
		jit_fpu_leave(c);
		r = send_ipis(c);
	}
	gpr_write(c, X86_RAX, (uint64_t)r, word_size(c));
}
