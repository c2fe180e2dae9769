/* x86_state: a vCPU's state at reset, and as text. */
#include "cpu/x86_state.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define PAT_RESET         0x0007040600070406ull
#define APIC_BASE_RESET   0xfee00900ull /* enabled, BSP */
#define APIC_BSP          0x100ull
#define MISC_ENABLE_RESET 1ull /* fast strings */
#define FCW_RESET         0x37f
#define MXCSR_RESET       0x1f80

static void reset_seg(struct x86_seg *s, uint16_t attr)
{
	*s = (struct x86_seg){.limit = 0xffff, .attr = attr};
}

/* The local APIC's page after reset (11.4.7.1), but for the boot processor's LINT0, which
 * carries the PIC as firmware would set it up before it starts a kernel. */
static void reset_lapic(uint8_t page[1024], uint32_t apic_id)
{
	static const uint16_t lvt[] = {0x2f0, 0x320, 0x330, 0x340, 0x350, 0x360, 0x370};
	const uint32_t masked = 0x10000, extint = 0x700, logical = 0xffffffff, off = 0xff;
	const uint32_t id = apic_id << 24;

	memcpy(page + 0x20, &id, sizeof id);
	memcpy(page + 0xe0, &logical, sizeof logical);
	memcpy(page + 0xf0, &off, sizeof off);
	for (unsigned i = 0; i < sizeof lvt / sizeof lvt[0]; i++)
		memcpy(page + lvt[i], &masked, sizeof masked);
	if (apic_id == 0)
		memcpy(page + 0x350, &extint, sizeof extint);
}

void x86_state_reset(struct x86_state *s, uint32_t apic_id)
{
	const uint32_t mxcsr = MXCSR_RESET;
	const uint16_t fcw = FCW_RESET;

	memset(s, 0, sizeof *s);
	s->rip = 0xfff0;
	s->rflags = RFLAGS_FIXED;
	for (int i = 0; i < X86_SREGS; i++)
		reset_seg(&s->seg[i], SEG_P | SEG_S | 3);
	s->seg[X86_CS] = (struct x86_seg){
		.base = 0xffff0000, .limit = 0xffff, .sel = 0xf000, .attr = SEG_P | SEG_S | 0xb};
	reset_seg(&s->ldtr, SEG_P | 2);
	reset_seg(&s->tr, SEG_P | 0xb);
	s->gdtr.limit = s->idtr.limit = 0xffff;
	s->cr0 = CR0_CD | CR0_NW | CR0_ET;
	s->dr6 = 0xffff0ff0;
	s->dr7 = 0x400;
	s->xcr0 = XCR0_X87;
	s->pat = PAT_RESET;
	s->misc_enable = MISC_ENABLE_RESET;
	s->apic_base = apic_id == 0 ? APIC_BASE_RESET : APIC_BASE_RESET & ~APIC_BSP;
	s->mp_state = apic_id == 0 ? X86_RUNNING : X86_WAIT_SIPI;
	reset_lapic(s->lapic, apic_id);
	memcpy(s->xsave, &fcw, sizeof fcw);
	memcpy(s->xsave + 24, &mxcsr, sizeof mxcsr);
}

struct text {
	char *to;
	uint32_t len, used;
};

__attribute__((format(printf, 2, 3))) static void put(struct text *t, const char *fmt, ...)
{
	va_list ap;
	int n;

	if (t->used + 1 >= t->len)
		return;
	va_start(ap, fmt);
	n = vsnprintf(t->to + t->used, t->len - t->used, fmt, ap);
	va_end(ap);
	if (n > 0)
		t->used += (uint32_t)n < t->len - t->used ? (uint32_t)n : t->len - t->used - 1;
}

static void put_gprs(struct text *t, const struct x86_state *s)
{
	static const char *const names[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp",
					      "rsi", "rdi", "r8",  "r9",  "r10", "r11",
					      "r12", "r13", "r14", "r15"};

	for (int i = 0; i < 16; i++)
		put(t, "%-3s %016llx%s", names[i], (unsigned long long)s->gpr[i],
		    i % 4 == 3 ? "\n" : "  ");
}

static void put_flags(struct text *t, uint64_t flags)
{
	static const struct {
		uint32_t bit;
		const char *name;
	} names[] = {{RFLAGS_CF, "CF"}, {RFLAGS_PF, "PF"}, {RFLAGS_AF, "AF"}, {RFLAGS_ZF, "ZF"},
		     {RFLAGS_SF, "SF"}, {RFLAGS_TF, "TF"}, {RFLAGS_IF, "IF"}, {RFLAGS_DF, "DF"},
		     {RFLAGS_OF, "OF"}, {RFLAGS_NT, "NT"}, {RFLAGS_RF, "RF"}, {RFLAGS_VM, "VM"},
		     {RFLAGS_AC, "AC"}};

	put(t, "rflags %08llx [", (unsigned long long)flags);
	for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++)
		if (flags & names[i].bit)
			put(t, " %s", names[i].name);
	put(t, " ]\n");
}

static void put_seg(struct text *t, const char *name, const struct x86_seg *s)
{
	put(t, "%-4s %04x  base %016llx  limit %08x  attr %04x  dpl %d%s%s%s\n", name, s->sel,
	    (unsigned long long)s->base, s->limit, s->attr, s->attr >> SEG_DPL_SHIFT & 3,
	    s->attr & SEG_L    ? " 64"
	    : s->attr & SEG_DB ? " 32"
			       : "",
	    s->attr & SEG_P ? "" : " not-present", s->attr & SEG_UNUSABLE ? " unusable" : "");
}

static void put_control(struct text *t, const struct x86_state *s)
{
	put(t, "cr0 %08llx  cr2 %016llx  cr3 %016llx  cr4 %08llx  cr8 %llx\n",
	    (unsigned long long)s->cr0, (unsigned long long)s->cr2, (unsigned long long)s->cr3,
	    (unsigned long long)s->cr4, (unsigned long long)s->cr8);
	put(t, "efer %llx  xcr0 %llx  star %016llx  lstar %016llx  kernel-gs %016llx\n",
	    (unsigned long long)s->efer, (unsigned long long)s->xcr0, (unsigned long long)s->star,
	    (unsigned long long)s->lstar, (unsigned long long)s->kernel_gs_base);
	put(t, "dr0 %016llx  dr1 %016llx  dr2 %016llx  dr3 %016llx\ndr6 %08llx  dr7 %08llx\n",
	    (unsigned long long)s->dr[0], (unsigned long long)s->dr[1],
	    (unsigned long long)s->dr[2], (unsigned long long)s->dr[3], (unsigned long long)s->dr6,
	    (unsigned long long)s->dr7);
}

static void put_events(struct text *t, const struct x86_state *s)
{
	static const char *const mp[] = {"running", "halted", "waiting for SIPI", "uninitialized"};
	const struct x86_events *e = &s->events;

	put(t, "%s", (unsigned)s->mp_state < 4 ? mp[s->mp_state] : "?");
	if (e->exception_pending)
		put(t, "; exception %d pending", e->exception_vector);
	if (e->exception_pending && e->exception_has_error)
		put(t, " (error %x)", e->exception_error);
	if (e->interrupt_injected)
		put(t, "; interrupt %d being delivered", e->interrupt_vector);
	if (e->nmi_pending)
		put(t, "; NMI pending");
	if (e->nmi_masked)
		put(t, "; NMI masked");
	if (e->shadow)
		put(t, "; interrupt shadow after %s", e->shadow == 1 ? "STI" : "MOV SS");
	put(t, "\n");
}

void x86_state_print(const struct x86_state *s, char *to, uint32_t len)
{
	static const char *const names[X86_SREGS] = {"es", "cs", "ss", "ds", "fs", "gs"};
	struct text t = {.to = to, .len = len};

	if (len == 0)
		return;
	to[0] = 0;
	put(&t, "rip %016llx  ", (unsigned long long)s->rip);
	put_flags(&t, s->rflags);
	put_gprs(&t, s);
	for (int i = 0; i < X86_SREGS; i++)
		put_seg(&t, names[i], &s->seg[i]);
	put_seg(&t, "ldtr", &s->ldtr);
	put_seg(&t, "tr", &s->tr);
	put(&t, "gdt  %016llx limit %04x  idt %016llx limit %04x\n",
	    (unsigned long long)s->gdtr.base, s->gdtr.limit, (unsigned long long)s->idtr.base,
	    s->idtr.limit);
	put_control(&t, s);
	put_events(&t, s);
}
