/* transfer: INT, IRET, SYSCALL, SYSENTER and far JMP, CALL, RET in every mode (SDM 5.8,
 * 6.12, 20; volume 2 of each instruction); to another task by way of task.c. Quick code. */
#include "cpu/jit/sys_priv.h"

void flags_write(struct jit_cpu *c, uint64_t value, uint64_t mask)
{
	uint64_t f = (jit_flags_get(c) & ~mask) | (value & mask) | RFLAGS_FIXED;

	c->st.rflags = f;
	jit_flags_set_arith(c, (uint32_t)f);
}

/* --- exceptions by instruction --- */
void h_ud(struct jit_cpu *c, uint64_t arg)
{
	jit_raise(c, X86_UD);
}

void h_nm(struct jit_cpu *c, uint64_t arg)
{
	jit_raise(c, X86_NM);
}

void h_gp(struct jit_cpu *c, uint64_t arg)
{
	jit_raise_err(c, X86_GP, 0);
}

void h_int(struct jit_cpu *c, uint64_t arg)
{
	if (cpu_v86(c) && cpu_iopl(c) < 3)
		jit_raise_err(c, X86_GP, 0);
	deliver_soft(c, (uint8_t)ARG_IMM(arg), next_rip(c, arg), true);
}

void h_int3(struct jit_cpu *c, uint64_t arg)
{
	deliver_soft(c, X86_BP, next_rip(c, arg), true);
}

void h_int1(struct jit_cpu *c, uint64_t arg)
{
	c->st.dr6 |= c->dr6_hits; /* those that a MOV SS before it held back: one #DB for all */
	c->dr6_hits = 0;
	deliver_soft(c, X86_DB, next_rip(c, arg), false);
}

void h_into(struct jit_cpu *c, uint64_t arg)
{
	if (jit_flags_get(c) & RFLAGS_OF)
		deliver_soft(c, X86_OF, next_rip(c, arg), true);
	else
		c->st.rip = next_rip(c, arg);
}

void h_hlt(struct jit_cpu *c, uint64_t arg)
{
	need_cpl0(c);
	c->st.rip = next_rip(c, arg);
	c->st.mp_state = X86_HALTED;
}

/* --- returns --- */
/* Reads and checks the code segment of a return to privilege rpl >= CPL. */
static uint64_t return_code(struct jit_cpu *c, uint16_t sel, struct x86_seg *cs)
{
	unsigned rpl = sel & 3;
	uint64_t d;

	if (!(sel & ~3u))
		jit_raise_err(c, X86_GP, 0);
	d = desc_read(c, sel, X86_GP, 0);
	seg_unpack(cs, sel, d);
	if (!attr_is_code(cs->attr) || rpl < jit_cpl(c))
		jit_raise_err(c, X86_GP, sel & ~3u);
	if (attr_is_conforming(cs->attr) ? attr_dpl(cs->attr) > rpl : attr_dpl(cs->attr) != rpl)
		jit_raise_err(c, X86_GP, sel & ~3u);
	if (jit_long_mode(c) && (cs->attr & (SEG_L | SEG_DB)) == (SEG_L | SEG_DB))
		jit_raise_err(c, X86_GP, sel & ~3u);
	if (!(cs->attr & SEG_P))
		jit_raise_err(c, X86_NP, sel & ~3u);
	cs->attr |= 1;
	return d;
}

static bool is_code64(const struct jit_cpu *c, const struct x86_seg *cs)
{
	return jit_long_mode(c) && (cs->attr & SEG_L);
}

/* The instruction pointer must be canonical, or within the segment. */
static void check_target(struct jit_cpu *c, const struct x86_seg *cs, uint64_t rip)
{
	if (is_code64(c, cs) ? !canonical(c, rip) : rip > cs->limit)
		jit_raise_err(c, X86_GP, 0);
}

/* The stack segment of a return to privilege cpl; returns its descriptor, 0 for null. */
static uint64_t return_stack(struct jit_cpu *c, uint16_t sel, unsigned cpl, bool code64,
			     struct x86_seg *ss)
{
	uint64_t d;

	if (!(sel & ~3u)) {
		if (!code64 || cpl == 3 || (sel & 3) != cpl)
			jit_raise_err(c, X86_GP, 0);
		seg_set_null(ss, sel);
		return 0;
	}
	d = desc_read(c, sel, X86_GP, 0);
	seg_unpack(ss, sel, d);
	if ((sel & 3) != cpl || !attr_is_writable_data(ss->attr) || attr_dpl(ss->attr) != cpl)
		jit_raise_err(c, X86_GP, sel & ~3u);
	if (!(ss->attr & SEG_P))
		jit_raise_err(c, X86_SS_FAULT, sel & ~3u);
	ss->attr |= 1;
	return d;
}

/* RSP after a switch of stacks: as wide as the new stack. */
static void set_sp_for(struct jit_cpu *c, uint64_t sp, bool code64, const struct x86_seg *ss)
{
	if (code64)
		c->st.gpr[X86_RSP] = sp;
	else if (ss->attr & SEG_DB)
		c->st.gpr[X86_RSP] = (uint32_t)sp;
	else
		c->st.gpr[X86_RSP] = (c->st.gpr[X86_RSP] & ~UINT64_C(0xffff)) | (sp & 0xffff);
}

/* Takes CS:RIP and, when ss is given, the outer stack. */
static void take_return(struct jit_cpu *c, const struct x86_seg *cs, uint64_t rip,
			const struct x86_seg *ss, uint64_t sp)
{
	unsigned old = jit_cpl(c), cpl = cs->sel & 3;
	bool code64 = is_code64(c, cs);

	c->st.seg[X86_CS] = *cs;
	c->st.rip = code64 ? rip : (uint32_t)rip;
	if (ss) {
		c->st.seg[X86_SS] = *ss;
		set_sp_for(c, sp, code64, ss);
	}
	if (cpl != old)
		seg_drop_privileged(c, cpl);
}

/* --- IRET --- */
static uint64_t iret_flags_mask(const struct jit_cpu *c, unsigned size)
{
	uint64_t mask = RFLAGS_ARITH | RFLAGS_TF | RFLAGS_DF | RFLAGS_NT;
	unsigned cpl = jit_cpl(c);

	if (size >= 4)
		mask |= RFLAGS_RF | RFLAGS_AC | RFLAGS_ID;
	if (cpl <= cpu_iopl(c))
		mask |= RFLAGS_IF;
	if (cpl == 0)
		mask |= RFLAGS_IOPL | (size >= 4 ? RFLAGS_VIF | RFLAGS_VIP : 0);
	return mask;
}

/* Real mode, and virtual-8086 mode with IOPL 3. */
static void iret_real(struct jit_cpu *c, unsigned size)
{
	uint64_t mask = RFLAGS_ARITH | RFLAGS_TF | RFLAGS_IF | RFLAGS_DF | RFLAGS_NT;
	uint64_t rip, sel, flags;

	if (cpu_v86(c) && cpu_iopl(c) < 3)
		jit_raise_err(c, X86_GP, 0);
	rip = stack_peek(c, 0, size);
	sel = stack_peek(c, size, size);
	flags = stack_peek(c, 2 * size, size);
	if (rip > c->st.seg[X86_CS].limit)
		jit_raise_err(c, X86_GP, 0);
	if (size >= 4)
		mask |= RFLAGS_RF | RFLAGS_AC | RFLAGS_ID;
	if (!cpu_v86(c))
		mask |= RFLAGS_IOPL;
	stack_set(c, stack_top(c) + 3 * size);
	seg_load(c, X86_CS, (uint16_t)sel);
	c->st.rip = (uint32_t)rip;
	flags_write(c, flags, mask);
}

/* From CPL 0 of legacy protected mode to virtual-8086 mode (20.2.5). */
static void iret_to_v86(struct jit_cpu *c, uint64_t rip, uint64_t cs, uint64_t flags)
{
	static const uint8_t order[] = {X86_SS, X86_ES, X86_DS, X86_FS, X86_GS};
	uint64_t sp = stack_peek(c, 12, 4), sel[ARRAY_SIZE(order)];

	for (unsigned i = 0; i < ARRAY_SIZE(order); i++)
		sel[i] = stack_peek(c, 16 + 4 * i, 4);
	flags_write(c, flags, 0x3f7fd7);
	seg_set_v86(&c->st.seg[X86_CS], (uint16_t)cs);
	for (unsigned i = 0; i < ARRAY_SIZE(order); i++)
		seg_set_v86(&c->st.seg[order[i]], (uint16_t)sel[i]);
	c->st.gpr[X86_RSP] = (uint32_t)sp;
	c->st.rip = rip & 0xffff;
}

static void iret_protected(struct jit_cpu *c, unsigned size)
{
	uint64_t rip = stack_peek(c, 0, size), sel = stack_peek(c, size, size);
	uint64_t flags = stack_peek(c, 2 * size, size), mask = iret_flags_mask(c, size);
	uint64_t cs_desc, ss_desc = 0, sp = 0;
	struct x86_seg cs, ss;
	bool outer;

	if (!jit_long_mode(c) && size == 4 && (flags & RFLAGS_VM) && jit_cpl(c) == 0) {
		iret_to_v86(c, rip, sel, flags);
		return;
	}
	cs_desc = return_code(c, (uint16_t)sel, &cs);
	outer = jit_code64(c) || (sel & 3) != jit_cpl(c);
	if (outer) {
		sp = stack_peek(c, 3 * size, size);
		ss_desc = return_stack(c, (uint16_t)stack_peek(c, 4 * size, size), sel & 3,
				       is_code64(c, &cs), &ss);
	}
	check_target(c, &cs, rip);
	desc_set_accessed(c, (uint16_t)sel, cs_desc);
	if (ss_desc)
		desc_set_accessed(c, ss.sel, ss_desc);
	if (!outer)
		stack_set(c, stack_top(c) + 3 * size);
	take_return(c, &cs, rip, outer ? &ss : NULL, sp);
	flags_write(c, flags, mask);
}

void h_iret(struct jit_cpu *c, uint64_t arg)
{
	if (!cpu_protected(c)) {
		iret_real(c, ARG_SIZE(arg));
	} else if (!(c->st.rflags & RFLAGS_NT)) {
		iret_protected(c, ARG_SIZE(arg));
	} else if (jit_long_mode(c)) {
		jit_raise_err(c, X86_GP, 0);
	} else {
		task_return(c, next_rip(c, arg));
	}
	if (c->st.events.nmi_masked) { /* another may wait: it comes before the next instruction */
		c->st.events.nmi_masked = false;
		atomic_store_explicit(&c->attention, 1, memory_order_relaxed);
	}
	jit_mode_update(c);
}

/* --- SYSCALL, SYSRET --- */
#define ATTR_CODE (SEG_P | SEG_S | 0xb | SEG_G)
#define ATTR_DATA (SEG_P | SEG_S | 0x3 | SEG_G | SEG_DB)
#define ATTR_DPL3 (3 << SEG_DPL_SHIFT)

/* SYSCALL and SYSRET trap by the TF they leave behind, not by the one they found. */
static void trap_if_tf(struct jit_cpu *c)
{
	c->no_trap = true;
	if (!(c->st.rflags & RFLAGS_TF))
		return;
	c->st.dr6 |= 0x4000; /* BS */
	jit_raise(c, X86_DB);
}

/* AMD's SYSCALL outside IA-32e mode (APM volume 2, 6.1.1). */
static void syscall_legacy(struct jit_cpu *c, uint64_t next)
{
	uint16_t sel = c->st.star >> 32 & 0xfffc;

	c->st.gpr[X86_RCX] = (uint32_t)next;
	seg_set_flat(&c->st.seg[X86_CS], sel, ATTR_CODE | SEG_DB);
	seg_set_flat(&c->st.seg[X86_SS], (uint16_t)(sel + 8), ATTR_DATA);
	c->st.rip = (uint32_t)c->st.star;
	c->st.rflags &= ~(uint64_t)(RFLAGS_IF | RFLAGS_VM | RFLAGS_RF);
	jit_mode_update(c);
}

void h_syscall(struct jit_cpu *c, uint64_t arg)
{
	uint64_t next = next_rip(c, arg);
	uint32_t flags = jit_flags_get(c) & ~RFLAGS_RF;
	uint16_t sel = c->st.star >> 32 & 0xfffc;

	if (!(c->st.efer & EFER_SCE) || !cpu_protected(c) || (!jit_code64(c) && !cpu_is_amd(c)))
		jit_raise(c, X86_UD);
	if (!jit_long_mode(c)) {
		syscall_legacy(c, next);
		return;
	}
	c->st.gpr[X86_RCX] = next;
	c->st.gpr[X86_R8 + 3] = flags;
	c->st.rip = jit_code64(c) ? c->st.lstar : c->st.cstar;
	seg_set_flat(&c->st.seg[X86_CS], sel, ATTR_CODE | SEG_L);
	seg_set_flat(&c->st.seg[X86_SS], (uint16_t)(sel + 8), ATTR_DATA);
	flags_write(c, 0, (uint32_t)c->st.sfmask | RFLAGS_RF);
	jit_mode_update(c);
	trap_if_tf(c);
}

void h_sysret(struct jit_cpu *c, uint64_t arg)
{
	bool to64 = ARG_SIZE(arg) == 8;
	uint64_t rip = c->st.gpr[X86_RCX];
	uint16_t base = c->st.star >> 48, sel = (uint16_t)((base + (to64 ? 16 : 0)) | 3);

	if (!(c->st.efer & EFER_SCE) || !cpu_protected(c) || (!jit_code64(c) && !cpu_is_amd(c)))
		jit_raise(c, X86_UD);
	need_cpl0(c);
	if (to64 && !canonical(c, rip) && !cpu_is_amd(c)) /* AMD faults at the target */
		jit_raise_err(c, X86_GP, 0);
	if (jit_long_mode(c))
		flags_write(c, c->st.gpr[X86_R8 + 3], 0x3c7fd7 | RFLAGS_RF);
	else
		c->st.rflags |= RFLAGS_IF;
	c->st.rflags &= ~(uint64_t)(RFLAGS_RF | RFLAGS_VM);
	seg_set_flat(&c->st.seg[X86_CS], sel,
		     (uint16_t)(ATTR_CODE | ATTR_DPL3 | (to64 ? SEG_L : SEG_DB)));
	seg_set_flat(&c->st.seg[X86_SS], (uint16_t)((base + 8) | 3), ATTR_DATA | ATTR_DPL3);
	c->st.rip = to64 ? rip : (uint32_t)rip;
	jit_mode_update(c);
	trap_if_tf(c);
}

/* --- SYSENTER, SYSEXIT --- */
void h_sysenter(struct jit_cpu *c, uint64_t arg)
{
	uint16_t sel = c->st.sysenter_cs & 0xfffc;
	bool lma = jit_long_mode(c);

	if (lma && cpu_is_amd(c))
		jit_raise(c, X86_UD);
	if (!(c->st.cr0 & CR0_PE) || !sel)
		jit_raise_err(c, X86_GP, 0);
	c->st.rflags &= ~(uint64_t)(RFLAGS_VM | RFLAGS_IF | RFLAGS_RF);
	seg_set_flat(&c->st.seg[X86_CS], sel, (uint16_t)(ATTR_CODE | (lma ? SEG_L : SEG_DB)));
	seg_set_flat(&c->st.seg[X86_SS], (uint16_t)(sel + 8), ATTR_DATA);
	c->st.gpr[X86_RSP] = lma ? c->st.sysenter_esp : (uint32_t)c->st.sysenter_esp;
	c->st.rip = lma ? c->st.sysenter_eip : (uint32_t)c->st.sysenter_eip;
	jit_mode_update(c);
}

void h_sysexit(struct jit_cpu *c, uint64_t arg)
{
	uint16_t sel = c->st.sysenter_cs & 0xfffc;
	bool to64 = ARG_SIZE(arg) == 8;
	uint64_t rip = c->st.gpr[X86_RDX], rsp = c->st.gpr[X86_RCX];

	if (jit_long_mode(c) && cpu_is_amd(c))
		jit_raise(c, X86_UD);
	if (!cpu_protected(c) || !sel || jit_cpl(c) != 0)
		jit_raise_err(c, X86_GP, 0);
	if (to64 && (!canonical(c, rip) || !canonical(c, rsp)))
		jit_raise_err(c, X86_GP, 0);
	sel = (uint16_t)(sel + (to64 ? 32 : 16)) | 3;
	seg_set_flat(&c->st.seg[X86_CS], sel,
		     (uint16_t)(ATTR_CODE | ATTR_DPL3 | (to64 ? SEG_L : SEG_DB)));
	seg_set_flat(&c->st.seg[X86_SS], (uint16_t)(sel + 8), ATTR_DATA | ATTR_DPL3);
	c->st.gpr[X86_RSP] = to64 ? rsp : (uint32_t)rsp;
	c->st.rip = to64 ? rip : (uint32_t)rip;
	jit_mode_update(c);
}

/* --- far JMP and CALL --- */
struct far_target {
	struct x86_seg cs;
	uint64_t rip, desc;
	uint16_t sel;
	bool gate;
	unsigned size; /* of each push of a CALL */
	unsigned params;
};

static void far_real(struct jit_cpu *c, uint16_t sel, uint64_t rip, unsigned size, uint64_t next,
		     bool call)
{
	if (rip > c->st.seg[X86_CS].limit)
		jit_raise_err(c, X86_GP, 0);
	if (call) {
		struct inner_stack s = {.ss = c->st.seg[X86_SS],
					.sp = c->st.gpr[X86_RSP],
					.mask = stack_mask(c),
					.mmu = c->mmu};
		uint64_t frame[2] = {c->st.seg[X86_CS].sel, next};

		inner_stack_push(c, &s, frame, 2, size);
		c->st.gpr[X86_RSP] = s.sp;
	}
	if (cpu_v86(c)) {
		seg_set_v86(&c->st.seg[X86_CS], sel);
	} else {
		c->st.seg[X86_CS].sel = sel;
		c->st.seg[X86_CS].base = (uint32_t)sel << 4;
	}
	c->st.rip = (uint32_t)rip;
	jit_mode_update(c);
}

/* A code segment reached without a gate keeps the privilege level. */
static void check_direct(struct jit_cpu *c, const struct x86_seg *cs, uint16_t sel)
{
	unsigned cpl = jit_cpl(c), dpl = attr_dpl(cs->attr);

	if (attr_is_conforming(cs->attr) ? dpl > cpl : (dpl != cpl || (sel & 3) > cpl))
		jit_raise_err(c, X86_GP, sel & ~3u);
	if (jit_long_mode(c) && (cs->attr & (SEG_L | SEG_DB)) == (SEG_L | SEG_DB))
		jit_raise_err(c, X86_GP, sel & ~3u);
	if (!(cs->attr & SEG_P))
		jit_raise_err(c, X86_NP, sel & ~3u);
}

/* The code segment behind a call gate; sets its RPL to the privilege level it runs at. */
static void check_gated(struct jit_cpu *c, struct far_target *t, bool call)
{
	unsigned cpl = jit_cpl(c), dpl;
	uint16_t sel = t->sel;

	if (!(sel & ~3u))
		jit_raise_err(c, X86_GP, 0);
	t->desc = desc_read(c, sel, X86_GP, 0);
	seg_unpack(&t->cs, sel, t->desc);
	dpl = attr_dpl(t->cs.attr);
	if (!attr_is_code(t->cs.attr) || dpl > cpl)
		jit_raise_err(c, X86_GP, sel & ~3u);
	if (!call && !attr_is_conforming(t->cs.attr) && dpl != cpl)
		jit_raise_err(c, X86_GP, sel & ~3u);
	if (jit_long_mode(c) && (t->cs.attr & (SEG_L | SEG_DB)) != SEG_L)
		jit_raise_err(c, X86_GP, sel & ~3u);
	if (!(t->cs.attr & SEG_P))
		jit_raise_err(c, X86_NP, sel & ~3u);
	t->cs.sel = (uint16_t)((sel & ~3u) | (attr_is_conforming(t->cs.attr) ? cpl : dpl));
}

static void read_call_gate(struct jit_cpu *c, uint16_t sel, uint64_t d, struct far_target *t,
			   bool call)
{
	unsigned type = d >> 40 & 0xf, dpl = d >> 45 & 3;
	bool lma = jit_long_mode(c);

	if (type != 12 && (lma || type != 4))
		jit_raise_err(c, X86_GP, sel & ~3u);
	if (dpl < jit_cpl(c) || dpl < (sel & 3u))
		jit_raise_err(c, X86_GP, sel & ~3u);
	if (!(d >> 47 & 1))
		jit_raise_err(c, X86_NP, sel & ~3u);
	t->gate = true;
	t->sel = d >> 16 & 0xffff;
	t->rip = (d & 0xffff) | (type == 12 ? d >> 32 & 0xffff0000 : 0);
	t->size = lma ? 8 : type == 12 ? 4 : 2;
	t->params = lma ? 0 : d >> 32 & 31;
	if (lma) {
		uint64_t hi = desc_read_high(c, sel, X86_GP);

		if (hi >> 40 & 0x1f)
			jit_raise_err(c, X86_GP, sel & ~3u);
		t->rip |= hi << 32;
	}
	check_gated(c, t, call);
}

static void far_resolve(struct jit_cpu *c, uint16_t sel, uint64_t rip, unsigned size,
			struct far_target *t, bool call)
{
	uint64_t d;

	if (!(sel & ~3u))
		jit_raise_err(c, X86_GP, 0);
	d = desc_read(c, sel, X86_GP, 0);
	seg_unpack(&t->cs, sel, d);
	if (!(t->cs.attr & SEG_S)) {
		read_call_gate(c, sel, d, t, call);
	} else {
		if (!attr_is_code(t->cs.attr))
			jit_raise_err(c, X86_GP, sel & ~3u);
		check_direct(c, &t->cs, sel);
		t->gate = false;
		t->sel = sel;
		t->desc = d;
		t->rip = rip;
		t->size = size;
		t->params = 0;
		t->cs.sel = (uint16_t)((sel & ~3u) | jit_cpl(c));
	}
	check_target(c, &t->cs, t->rip);
	desc_set_accessed(c, t->sel, t->desc);
	t->cs.attr |= 1;
}

/* Pushes the parameters' copies, the old stack and the return address on the inner stack. */
static void call_inward(struct jit_cpu *c, const struct far_target *t, uint64_t next)
{
	unsigned cpl = t->cs.sel & 3, n = 0;
	struct inner_stack s;
	uint64_t v[35];

	v[n++] = c->st.seg[X86_SS].sel;
	v[n++] = c->st.gpr[X86_RSP];
	for (unsigned i = t->params; i-- > 0;)
		v[n++] = stack_peek(c, i * t->size, t->size);
	v[n++] = c->st.seg[X86_CS].sel;
	v[n++] = next;
	if (!jit_long_mode(c)) {
		inner_stack_legacy(c, &s, cpl, 0);
		inner_stack_push(c, &s, v, n, t->size);
		c->st.seg[X86_SS] = s.ss;
		c->st.gpr[X86_RSP] = s.sp;
		return;
	}
	uint64_t rsp = tss64_rsp(c, cpl, 0) - 32, frame[4] = {v[3], v[2], v[1], v[0]};

	jit_write_buf(c, mmu_for_cpl(c, cpl), rsp, frame, sizeof frame);
	seg_set_null(&c->st.seg[X86_SS], (uint16_t)cpl);
	c->st.gpr[X86_RSP] = rsp;
}

static void call_same(struct jit_cpu *c, const struct far_target *t, uint64_t next)
{
	unsigned size = t->size;
	uint64_t mask = stack_mask(c), sp = stack_top(c);
	uint64_t hi = jit_seg_addr(c, X86_SS, (sp - size) & mask, size, ACC_WRITE);
	uint64_t lo = jit_seg_addr(c, X86_SS, (sp - 2 * size) & mask, size, ACC_WRITE);

	jit_probe(c, c->mmu, lo, size, ACC_WRITE);
	jit_write(c, c->mmu, hi, c->st.seg[X86_CS].sel, size);
	jit_write(c, c->mmu, lo, next, size);
	stack_set(c, sp - 2 * size);
}

static void far_transfer(struct jit_cpu *c, uint16_t sel, uint64_t rip, unsigned size,
			 uint64_t next, bool call)
{
	struct far_target t;

	if (!cpu_protected(c)) {
		far_real(c, sel, rip, size, next, call);
		return;
	}
	if (task_far(c, sel, next, call))
		return;
	far_resolve(c, sel, rip, size, &t, call);
	if (call && (t.cs.sel & 3u) != jit_cpl(c))
		call_inward(c, &t, next);
	else if (call)
		call_same(c, &t, next);
	c->st.seg[X86_CS] = t.cs;
	c->st.rip = is_code64(c, &t.cs) ? t.rip : (uint32_t)t.rip;
	jit_mode_update(c);
}

static void far_immediate(struct jit_cpu *c, uint64_t arg, bool call)
{
	uint16_t sel = (uint16_t)(ARG_R1(arg) | ARG_R2(arg) << 8);

	far_transfer(c, sel, ARG_IMM(arg), ARG_SIZE(arg), next_rip(c, arg), call);
}

static void far_memory(struct jit_cpu *c, uint64_t arg, bool call)
{
	unsigned size = ARG_SIZE(arg);
	uint64_t rip;
	uint16_t sel;

	if (ARG_R2(arg) != ARG_MEM)
		jit_raise(c, X86_UD);
	rip = ea_read(c, 0, size);
	sel = (uint16_t)ea_read(c, size, 2);
	far_transfer(c, sel, rip, size, next_rip(c, arg), call);
}

void h_jmp_far(struct jit_cpu *c, uint64_t arg)
{
	far_immediate(c, arg, false);
}

void h_call_far(struct jit_cpu *c, uint64_t arg)
{
	far_immediate(c, arg, true);
}

void h_jmp_far_mem(struct jit_cpu *c, uint64_t arg)
{
	far_memory(c, arg, false);
}

void h_call_far_mem(struct jit_cpu *c, uint64_t arg)
{
	far_memory(c, arg, true);
}

/* --- far RET --- */
static void ret_outer(struct jit_cpu *c, const struct x86_seg *cs, uint64_t rip, unsigned size,
		      uint32_t pop)
{
	uint64_t sp = stack_peek(c, 2 * size + pop, size);
	uint16_t sel = (uint16_t)stack_peek(c, 3 * size + pop, size);
	struct x86_seg ss;
	uint64_t d = return_stack(c, sel, cs->sel & 3, is_code64(c, cs), &ss);

	check_target(c, cs, rip);
	if (d)
		desc_set_accessed(c, sel, d);
	take_return(c, cs, rip, &ss, sp + pop);
}

void h_ret_far(struct jit_cpu *c, uint64_t arg)
{
	unsigned size = ARG_SIZE(arg);
	uint32_t pop = ARG_IMM(arg);
	uint64_t rip = stack_peek(c, 0, size), d;
	uint16_t sel = (uint16_t)stack_peek(c, size, size);
	struct x86_seg cs;

	if (!cpu_protected(c)) {
		far_real(c, sel, rip, size, 0, false);
		stack_set(c, stack_top(c) + 2 * size + pop);
		return;
	}
	d = return_code(c, sel, &cs);
	if ((sel & 3) != jit_cpl(c)) {
		ret_outer(c, &cs, rip, size, pop);
	} else {
		check_target(c, &cs, rip);
		stack_set(c, stack_top(c) + 2 * size + pop);
		take_return(c, &cs, rip, NULL, 0);
	}
	desc_set_accessed(c, sel, d);
	jit_mode_update(c);
}
