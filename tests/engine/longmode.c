#include "longmode.h"

#include <stdlib.h>
#include <string.h>

#include "user.h"

static const uint64_t gdt[] = {
	0,
	0x00af9b000000ffff, /* 08 ring 0 code, 64-bit */
	0x00cf93000000ffff, /* 10 ring 0 data */
	0x00cf9b000000ffff, /* 18 ring 0 code, 32-bit */
	0x00cffb000000ffff, /* 20 user code, 32-bit */
	0x00cff3000000ffff, /* 28 user data */
	0x00affb000000ffff, /* 30 user code, 64-bit */
	0,
	0,
	0, /* 40 TSS */
};

static uint64_t *table_of(struct longmode *lm, uint64_t *entry)
{
	if (!(*entry & PTE_P)) {
		if (lm->next_table == LM_TABLES_END)
			abort(); /* the test maps more than the layout has room for */
		memset(vm_ram(lm->vm, lm->next_table, PAGE), 0, PAGE);
		*entry = lm->next_table | PTE_P | PTE_W | PTE_U;
		lm->next_table += PAGE;
	}
	return vm_ram(lm->vm, *entry & 0x000ffffffffff000, PAGE);
}

void longmode_map(struct longmode *lm, uint64_t gva, gpa_t gpa, uint64_t flags)
{
	uint64_t *t = vm_ram(lm->vm, LM_PML4, PAGE);

	for (unsigned shift = 39; shift > 12; shift -= 9)
		t = table_of(lm, &t[gva >> shift & 511]);
	t[gva >> 12 & 511] = gpa | flags;
}

static void write_gdt(struct longmode *lm)
{
	uint64_t *g = vm_ram(lm->vm, LM_GDT, PAGE), tss = LM_KERNEL + LM_TSS;

	memcpy(g, gdt, sizeof gdt);
	g[8] = 0x67 | (tss & 0xffffff) << 16 | UINT64_C(0x8b) << 40 | (tss >> 24 & 0xff) << 56;
	g[9] = tss >> 32;
}

static void write_idt(struct longmode *lm)
{
	uint8_t *idt = vm_ram(lm->vm, LM_IDT, PAGE), *stubs = vm_ram(lm->vm, LM_STUBS, PAGE);
	/* out %al, $VM_STOP_PORT; 1: hlt; jmp 1b */
	static const uint8_t stub[] = {0xe6, VM_STOP_PORT, 0xf4, 0xeb, 0xfd};

	for (unsigned v = 0; v < 256; v++) {
		uint64_t at = LM_KERNEL + LM_STUBS + 16 * v;
		uint8_t *g = idt + 16 * v;
		bool user = v == X86_BP || v == X86_OF;

		memcpy(stubs + 16 * v, stub, sizeof stub);
		store_le(g, at, 2);
		store_le(g + 2, LM_CS0, 2);
		g[4] = v == X86_DF ? 1 : 0; /* a double fault has a stack of its own */
		g[5] = user ? 0xee : 0x8e;
		store_le(g + 6, at >> 16, 2);
		store_le(g + 8, at >> 32, 4);
	}
}

static void write_tss(struct longmode *lm)
{
	uint8_t *tss = vm_ram(lm->vm, LM_TSS, PAGE);

	memset(tss, 0, PAGE);
	store_le(tss + 4, LM_KERNEL + LM_STACK, 8);
	for (unsigned i = 1; i < 8; i++)
		store_le(tss + 36 + 8 * (i - 1), LM_KERNEL + LM_IST(i), 8);
	store_le(tss + 102, 104, 2); /* no I/O bitmap */
}

struct x86_seg longmode_seg(const struct longmode *lm, uint16_t sel)
{
	uint64_t d;
	struct x86_seg s = {.sel = sel, .attr = SEG_UNUSABLE};

	if (sel < 4)
		return s;
	d = *(uint64_t *)vm_ram(lm->vm, LM_GDT + (sel & ~7u), 8);
	s.base = (d >> 16 & 0xffffff) | (d >> 32 & 0xff000000);
	s.limit = (uint32_t)((d & 0xffff) | (d >> 32 & 0xf0000));
	s.attr = (uint16_t)((d >> 40 & 0xff) | (d >> 44 & 0xf00));
	if (s.attr & SEG_G)
		s.limit = s.limit << 12 | 0xfff;
	return s;
}

static bool has_leaf7(const struct vm *vm, uint32_t ebx_bit)
{
	for (unsigned i = 0; i < vm->cpuid.count; i++)
		if (vm->cpuid.leaf[i].leaf == 7 && vm->cpuid.leaf[i].subleaf == 0)
			return vm->cpuid.leaf[i].ebx & ebx_bit;
	return false;
}

static void fill_base(struct longmode *lm)
{
	struct x86_state *s = &lm->base;

	x86_state_reset(s, 0);
	s->rip = LM_KERNEL;
	s->rflags = RFLAGS_FIXED;
	s->gpr[X86_RSP] = LM_KERNEL + LM_STACK;
	s->seg[X86_CS] = longmode_seg(lm, LM_CS0);
	s->seg[X86_SS] = longmode_seg(lm, LM_SS0);
	for (unsigned i = 0; i < X86_SREGS; i++)
		if (i != X86_CS && i != X86_SS)
			s->seg[i] = longmode_seg(lm, 0);
	s->gdtr = (struct x86_dtr){LM_KERNEL + LM_GDT, sizeof gdt - 1};
	s->idtr = (struct x86_dtr){LM_KERNEL + LM_IDT, 4095};
	s->tr = (struct x86_seg){LM_KERNEL + LM_TSS, 0x67, LM_TR, 0x8b};
	s->ldtr = (struct x86_seg){.attr = SEG_UNUSABLE};
	s->cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_PG;
	s->cr3 = LM_PML4;
	s->cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE | CR4_PGE;
	s->cr4 |= has_leaf7(lm->vm, 1) ? CR4_FSGSBASE : 0;
	s->efer = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;
	s->xcr0 = lm->vm->cpuid.xcr0_mask & user_xfeatures();
	s->mp_state = X86_RUNNING;
}

void longmode_init(struct longmode *lm, struct vm *vm)
{
	uint64_t *pml4, *pdpt, *pd;

	*lm = (struct longmode){.vm = vm, .next_table = LM_TABLES};
	pml4 = vm_ram(vm, LM_PML4, PAGE);
	memset(pml4, 0, PAGE);
	pdpt = table_of(lm, &pml4[LM_KERNEL >> 39 & 511]);
	pd = table_of(lm, &pdpt[LM_KERNEL >> 30 & 511]);
	pd[0] = PTE_P | PTE_W | PTE_PS | PTE_G;
	write_gdt(lm);
	write_idt(lm);
	write_tss(lm);
	fill_base(lm);
}

void longmode_to_user(struct x86_state *s, uint16_t cs)
{
	struct x86_seg data = {0, 0xffffffff, USER_SS, 0xcf3}, none = {.attr = SEG_UNUSABLE};

	s->seg[X86_CS] = (struct x86_seg){0, 0xffffffff, cs, cs == USER_CS64 ? 0xafb : 0xcfb};
	s->seg[X86_SS] = data;
	for (unsigned i = 0; i < X86_SREGS; i++)
		if (i != X86_CS && i != X86_SS)
			s->seg[i] = cs == USER_CS32 && i < X86_FS ? data : none;
}

static bool pushes_error(uint8_t vector)
{
	return vector == X86_DF || (vector >= X86_TS && vector <= X86_PF) || vector == X86_AC;
}

bool longmode_trapped(struct longmode *lm, const struct x86_state *s, struct longmode_trap *t)
{
	uint64_t at = s->rip - LM_KERNEL - LM_STUBS, rsp = s->gpr[X86_RSP] - LM_KERNEL, f[6];
	const uint8_t *p;

	if (at >= 4096 || rsp >= 0x100000)
		return false;
	t->vector = (uint8_t)(at / 16);
	p = vm_ram(lm->vm, rsp, sizeof f);
	t->error = 0;
	if (pushes_error(t->vector)) {
		t->error = load_le(p, 8);
		p += 8;
	}
	memcpy(f, p, 40);
	t->rip = f[0];
	t->cs = f[1];
	t->rflags = f[2];
	t->rsp = f[3];
	t->ss = f[4];
	return true;
}
