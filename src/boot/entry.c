/* entry: the states in which the boot protocols start vCPU 0, and the GDT and page
 * tables in low memory that these states point to.
 *
 * One GDT serves all: 0x08 32-bit code, 0x10 64-bit code (Linux's __BOOT_CS), 0x18 data
 * (__BOOT_DS), 0x20 a TSS. All are flat, ring 0. */
#include "boot/boot_priv.h"

#include <string.h>

#define SEL_CODE32 0x08
#define SEL_CODE64 0x10
#define SEL_DATA   0x18
#define SEL_TSS    0x20

#define ATTR_FLAT (SEG_S | SEG_P | SEG_G)
#define TYPE_CODE 0xb /* execute, read, accessed */
#define TYPE_DATA 0x3 /* read, write, accessed */
#define TYPE_TSS  0xb /* 32- or 64-bit TSS, busy */
#define TSS_LIMIT 0x67

#define PTE_P  BIT(0)
#define PTE_W  BIT(1)
#define PTE_PS BIT(7)

/* Intel SDM vol. 3A, 3.4.5 */
static uint64_t descriptor(const struct x86_seg *s)
{
	uint64_t limit = s->attr & SEG_G ? s->limit >> 12 : s->limit;

	return (limit & 0xffff) | (s->base & 0xffffff) << 16 | (uint64_t)(s->attr & 0xff) << 40 |
	       (limit >> 16 & 0xf) << 48 | (uint64_t)(s->attr >> 8 & 0xf) << 52 |
	       (s->base >> 24 & 0xff) << 56;
}

static struct x86_seg flat(uint16_t sel, uint16_t attr)
{
	return (struct x86_seg){.limit = 0xffffffff, .sel = sel, .attr = attr | ATTR_FLAT};
}

static void load_gdt(const struct guest_mem *m, struct x86_state *s)
{
	const struct x86_seg code32 = flat(SEL_CODE32, TYPE_CODE | SEG_DB);
	const struct x86_seg code64 = flat(SEL_CODE64, TYPE_CODE | SEG_L);
	const struct x86_seg data = flat(SEL_DATA, TYPE_DATA | SEG_DB);
	const struct x86_seg tss = {.limit = TSS_LIMIT, .sel = SEL_TSS, .attr = TYPE_TSS | SEG_P};
	/* In long mode a TSS descriptor takes two slots. */
	const uint64_t gdt[6] = {
		0, descriptor(&code32), descriptor(&code64), descriptor(&data), descriptor(&tss),
		0};

	memcpy(mem_span(m, BOOT_GDT, sizeof gdt), gdt, sizeof gdt);
	for (unsigned i = 0; i < X86_SREGS; i++)
		s->seg[i] = data;
	s->seg[X86_CS] = code32;
	s->tr = tss;
	s->ldtr = (struct x86_seg){.attr = SEG_UNUSABLE};
	s->gdtr = (struct x86_dtr){.base = BOOT_GDT, .limit = sizeof gdt - 1};
	s->idtr = (struct x86_dtr){0};
}

static void common(struct x86_state *s, gpa_t rip)
{
	memset(s->gpr, 0, sizeof s->gpr);
	s->rip = rip;
	s->rflags = RFLAGS_FIXED;
	/* What firmware leaves behind: MTRRs on, all memory write-back. Linux gives up PAT
	 * when it finds them off (SDM vol. 3A, 11.11.2.1). */
	s->mtrr_def_type = BIT(11) | 6;
}

/* Identity map of the low 4 GiB in 2 MiB pages. */
static void map_low_4g(const struct guest_mem *m)
{
	enum { ENTRIES = 512, DIRECTORIES = 4 };
	uint64_t *pml4 = mem_span(m, BOOT_TABLES, 6 * 4096);
	uint64_t *pdpt = pml4 + ENTRIES;
	uint64_t *pd = pdpt + ENTRIES;

	memset(pml4, 0, 2 * 4096);
	pml4[0] = (BOOT_TABLES + 4096) | PTE_P | PTE_W;
	for (unsigned i = 0; i < DIRECTORIES; i++)
		pdpt[i] = (BOOT_TABLES + (2 + i) * 4096) | PTE_P | PTE_W;
	for (unsigned i = 0; i < DIRECTORIES * ENTRIES; i++)
		pd[i] = MIB(2) * i | PTE_P | PTE_W | PTE_PS;
}

void entry_long_mode(const struct guest_mem *m, struct x86_state *s, gpa_t rip)
{
	common(s, rip);
	load_gdt(m, s);
	map_low_4g(m);
	s->seg[X86_CS] = flat(SEL_CODE64, TYPE_CODE | SEG_L);
	s->cr0 = CR0_PE | CR0_ET | CR0_PG;
	s->cr3 = BOOT_TABLES;
	s->cr4 = CR4_PAE;
	s->efer = EFER_LME | EFER_LMA;
}

void entry_protected_mode(const struct guest_mem *m, struct x86_state *s, gpa_t eip)
{
	common(s, eip);
	load_gdt(m, s);
	s->cr0 = CR0_PE | CR0_ET;
	s->cr3 = 0;
	s->cr4 = 0;
	s->efer = 0;
}
