/* task: hardware task switches (SDM 8.3): JMP and CALL to a TSS or a task gate, task gates in
 * the IDT, and IRET with NT. 16- and 32-bit TSSs; IA-32e mode has none of this. What can
 * fault in the old task's context is checked before the first change; after that, faults of
 * the new task's descriptors are taken in its own context (step 13). Quick code. */
#include "cpu/jit/sys_priv.h"

/* A TSS from EIP on, as both formats order it; the old task's is written, the new one's read. */
struct task {
	uint32_t eip, eflags, gpr[8];
	uint16_t sreg[X86_SREGS], ldt;
	uint32_t cr3;
	bool trap;
};

/* Where the formats have it; 16-bit ones have no FS, GS, CR3 and T. */
struct layout {
	unsigned size, word, eip, sregs, sreg_step, sreg_count, ldt;
};

static const struct layout layouts[2] = {
	{.size = 0x2c,
	 .word = 2,
	 .eip = 0x0e,
	 .sregs = 0x22,
	 .sreg_step = 2,
	 .sreg_count = 4,
	 .ldt = 0x2a},
	{.size = 0x68,
	 .word = 4,
	 .eip = 0x20,
	 .sregs = 0x48,
	 .sreg_step = 4,
	 .sreg_count = 6,
	 .ldt = 0x60},
};

static const uint8_t sreg_order[] = {X86_ES, X86_CS, X86_SS, X86_DS, X86_FS, X86_GS};

static const struct layout *layout_of(const struct x86_seg *tss)
{
	return &layouts[tss->attr >> 3 & 1];
}

/* --- the old task, into its TSS --- */
static void save_task(struct jit_cpu *c, const struct layout *l, uint32_t eip, uint32_t eflags)
{
	uint64_t base = c->st.tr.base;
	unsigned at = l->eip;

	jit_write(c, MMU_SYSTEM, sys_addr(c, base, at), eip, l->word);
	jit_write(c, MMU_SYSTEM, sys_addr(c, base, at + l->word), eflags, l->word);
	at += 2 * l->word;
	for (unsigned r = 0; r < 8; r++, at += l->word)
		jit_write(c, MMU_SYSTEM, sys_addr(c, base, at), c->st.gpr[r], l->word);
	for (unsigned s = 0; s < l->sreg_count; s++)
		jit_write(c, MMU_SYSTEM, sys_addr(c, base, l->sregs + s * l->sreg_step),
			  c->st.seg[sreg_order[s]].sel, 2);
}

/* --- the new task, from its TSS --- */
static void read_task(struct jit_cpu *c, const struct x86_seg *tss, struct task *t)
{
	const struct layout *l = layout_of(tss);
	unsigned at = l->eip;

	*t = (struct task){.cr3 = (uint32_t)c->st.cr3};
	t->eip = (uint32_t)jit_read(c, MMU_SYSTEM, sys_addr(c, tss->base, at), l->word);
	t->eflags =
		(uint32_t)jit_read(c, MMU_SYSTEM, sys_addr(c, tss->base, at + l->word), l->word);
	at += 2 * l->word;
	for (unsigned r = 0; r < 8; r++, at += l->word)
		t->gpr[r] = (uint32_t)jit_read(c, MMU_SYSTEM, sys_addr(c, tss->base, at), l->word);
	for (unsigned s = 0; s < l->sreg_count; s++)
		t->sreg[sreg_order[s]] = (uint16_t)jit_read(
			c, MMU_SYSTEM, sys_addr(c, tss->base, l->sregs + s * l->sreg_step), 2);
	t->ldt = (uint16_t)jit_read(c, MMU_SYSTEM, sys_addr(c, tss->base, l->ldt), 2);
	if (l->word == 4) {
		t->cr3 = (uint32_t)jit_read(c, MMU_SYSTEM, sys_addr(c, tss->base, 0x1c), 4);
		t->trap = jit_read(c, MMU_SYSTEM, sys_addr(c, tss->base, 0x64), 1) & 1;
	}
}

/* The new task's TSS descriptor, whose place in the GDT goes to *gva. IRET returns to a busy
 * task, all others go to an available one. */
static uint64_t read_tss(struct jit_cpu *c, uint16_t sel, enum task_switch why, unsigned ext,
			 struct x86_seg *tss, uint64_t *gva)
{
	enum x86_vector v = why == TASK_IRET ? X86_TS : X86_GP;
	uint32_t error = (sel & ~3u) | ext;
	uint64_t d;

	if (!(sel & ~3u) || sel & 4 || !desc_locate(c, sel, 8, gva))
		jit_raise_err(c, v, error);
	d = jit_read(c, MMU_SYSTEM, *gva, 8);
	seg_unpack(tss, sel, d);
	if ((tss->attr & (SEG_S | 0x7)) != (why == TASK_IRET ? 3 : 1)) /* 1, 9; busy: 3, 11 */
		jit_raise_err(c, v, error);
	if (!(tss->attr & SEG_P))
		jit_raise_err(c, X86_NP, error);
	if (tss->limit < layout_of(tss)->size - 1)
		jit_raise_err(c, X86_TS, error);
	return d;
}

static void set_busy(struct jit_cpu *c, uint64_t gva, bool busy)
{
	uint64_t type = jit_read(c, MMU_SYSTEM, gva + 5, 1);

	jit_write(c, MMU_SYSTEM, gva + 5, busy ? type | 2 : type & ~2ull, 1);
}

/* --- descriptors, in the new task's context --- */
static void load_ldt(struct jit_cpu *c, uint16_t sel)
{
	struct x86_seg s;
	uint64_t gva;

	seg_set_null(&c->st.ldtr, sel);
	if (!(sel & ~3u))
		return;
	if (sel & 4 || !desc_locate(c, sel, 8, &gva))
		jit_raise_err(c, X86_TS, sel & ~3u);
	seg_unpack(&s, sel, jit_read(c, MMU_SYSTEM, gva, 8));
	if ((s.attr & (SEG_S | SEG_TYPE | SEG_P)) != (SEG_P | 2))
		jit_raise_err(c, X86_TS, sel & ~3u);
	c->st.ldtr = s;
}

static void load_segment(struct jit_cpu *c, enum x86_sreg r, uint16_t sel, unsigned cpl)
{
	unsigned rpl = sel & 3, dpl;
	struct x86_seg s;
	uint64_t d;
	bool ok;

	if (!(sel & ~3u) && r != X86_CS && r != X86_SS)
		return; /* null, as it was set */
	if (!(sel & ~3u))
		jit_raise_err(c, X86_TS, 0);
	d = desc_read(c, sel, X86_TS, 0);
	seg_unpack(&s, sel, d);
	dpl = attr_dpl(s.attr);
	if (r == X86_CS)
		ok = attr_is_code(s.attr) && (attr_is_conforming(s.attr) ? dpl <= rpl : dpl == rpl);
	else if (r == X86_SS)
		ok = attr_is_writable_data(s.attr) && dpl == cpl && rpl == cpl;
	else
		ok = attr_is_readable(s.attr) &&
		     (attr_is_conforming(s.attr) || (dpl >= cpl && dpl >= rpl));
	if (!ok)
		jit_raise_err(c, X86_TS, sel & ~3u);
	if (!(s.attr & SEG_P))
		jit_raise_err(c, r == X86_SS ? X86_SS_FAULT : X86_NP, sel & ~3u);
	desc_set_accessed(c, sel, d);
	s.attr |= 1;
	c->st.seg[r] = s;
}

static void load_descriptors(struct jit_cpu *c, const struct task *t)
{
	static const uint8_t order[] = {X86_CS, X86_SS, X86_DS, X86_ES, X86_FS, X86_GS};
	unsigned cpl = t->sreg[X86_CS] & 3;

	load_ldt(c, t->ldt);
	for (unsigned n = 0; n < ARRAY_SIZE(order); n++) {
		if (t->eflags & RFLAGS_VM)
			seg_set_v86(&c->st.seg[order[n]], t->sreg[order[n]]);
		else
			load_segment(c, order[n], t->sreg[order[n]], cpl);
	}
}

/* Step 12: registers and selectors; no descriptor yet. */
static void load_registers(struct jit_cpu *c, const struct task *t, bool nested)
{
	unsigned cpl = t->eflags & RFLAGS_VM ? 3 : t->sreg[X86_CS] & 3;

	if (c->st.cr0 & CR0_PG) {
		c->st.cr3 = t->cr3;
		jit_tlb_flush(c, false);
	}
	c->st.rip = t->eip;
	flags_write(c, t->eflags | (nested ? RFLAGS_NT : 0), 0x3f7fd7);
	for (unsigned r = 0; r < 8; r++)
		c->st.gpr[r] = t->gpr[r];
	for (unsigned s = 0; s < X86_SREGS; s++)
		seg_set_null(&c->st.seg[s], t->sreg[s]);
	c->st.seg[X86_SS].attr = (uint16_t)(SEG_UNUSABLE | cpl << SEG_DPL_SHIFT);
	jit_fpu_leave(c);
	c->st.cr0 |= CR0_TS;
	c->st.dr7 &= ~UINT64_C(0x155); /* L0 to L3, LE */
	jit_mode_update(c);
}

void task_switch(struct jit_cpu *c, uint16_t sel, enum task_switch why, const struct task_event *e)
{
	const struct layout *old = layout_of(&c->st.tr);
	bool nested = why == TASK_CALL || why == TASK_EVENT;
	uint32_t eflags = e->flags;
	uint64_t old_gva = 0, new_gva;
	struct x86_seg tss;
	struct task t;
	bool has_old;

	read_tss(c, sel, why, e->ext, &tss, &new_gva);
	if ((c->st.tr.attr & SEG_UNUSABLE) || c->st.tr.limit < old->size - 1)
		jit_raise_err(c, X86_TS, (c->st.tr.sel & ~3u) | e->ext);
	has_old = desc_locate(c, c->st.tr.sel, 8, &old_gva);
	read_task(c, &tss, &t);
	if ((c->st.cr0 & CR0_PG) && !pdptes_valid(c, c->st.cr0, t.cr3, c->st.cr4))
		jit_raise_err(c, X86_TS, (sel & ~3u) | e->ext);
	jit_probe(c, MMU_SYSTEM, sys_addr(c, c->st.tr.base, 0), old->size, ACC_WRITE);
	jit_probe(c, MMU_SYSTEM, sys_addr(c, tss.base, 0), 2, ACC_WRITE);
	jit_probe(c, MMU_SYSTEM, new_gva + 5, 1, ACC_WRITE);
	if (has_old)
		jit_probe(c, MMU_SYSTEM, old_gva + 5, 1, ACC_WRITE);

	if (why == TASK_IRET)
		eflags &= ~RFLAGS_NT;
	c->committed = true;
	save_task(c, old, (uint32_t)e->next, eflags);
	if (!nested && has_old)
		set_busy(c, old_gva, false);
	if (nested)
		jit_write(c, MMU_SYSTEM, sys_addr(c, tss.base, 0), c->st.tr.sel, 2);
	if (why != TASK_IRET)
		set_busy(c, new_gva, true);
	tss.attr |= 2;
	c->st.tr = tss;
	load_registers(c, &t, nested);
	load_descriptors(c, &t);
	jit_mode_update(c);
	if (e->has_error)
		stack_push(c, e->error, layout_of(&tss)->word);
	if (t.trap) {
		c->st.dr6 |= 0x8000; /* BT */
		jit_raise(c, X86_DB);
	}
}

void task_return(struct jit_cpu *c, uint64_t next)
{
	struct task_event e = {.next = next, .flags = jit_flags_get(c)};
	uint16_t link;

	if (c->st.tr.attr & SEG_UNUSABLE)
		jit_raise_err(c, X86_TS, 0);
	link = (uint16_t)jit_read(c, MMU_SYSTEM, sys_addr(c, c->st.tr.base, 0), 2);
	task_switch(c, link, TASK_IRET, &e);
}

bool task_far(struct jit_cpu *c, uint16_t sel, uint64_t next, bool call)
{
	struct task_event e = {.next = next, .flags = jit_flags_get(c) & ~RFLAGS_RF};
	uint64_t gva, d;
	unsigned type, dpl;

	if (jit_long_mode(c) || !desc_locate(c, sel, 8, &gva))
		return false;
	d = jit_read(c, MMU_SYSTEM, gva, 8);
	type = d >> 40 & 0x1f;
	dpl = d >> 45 & 3;
	if (type != 5 && type != 1 && type != 3 && type != 9 && type != 11)
		return false;
	if (!(sel & ~3u) || dpl < jit_cpl(c) || dpl < (sel & 3u))
		jit_raise_err(c, X86_GP, sel & ~3u);
	if (type == 5) {
		if (!(d >> 47 & 1))
			jit_raise_err(c, X86_NP, sel & ~3u);
		sel = d >> 16 & 0xffff;
	}
	task_switch(c, sel, call ? TASK_CALL : TASK_JMP, &e);
	return true;
}
