#include "small_guest.h"

#include <string.h>

#include "bus/bus.h"

#define PAGE  4096u
#define GDT   0x1000u
#define IDT64 0x2000u
#define IDT32 0x3000u
#define TSS64 0x4000u
#define TSS32 0x5000u
#define STUB  0x6000u /* hlt; jmp to it */
#define PML4  0x8000u
#define PDPT  0x9000u
#define PD    0xa000u
#define PT    0xb000u
#define PDPTE 0xc000u /* of PAE */
#define PAE   0xd000u
#define PD32  0xe000u
#define PT32  0xf000u
#define STACK 0x90000u

enum { CS64 = 0x08, DS = 0x10, CS32 = 0x18, UCS32 = 0x23, UDS = 0x2b, UCS64 = 0x33, TSS = 0x38 };
enum { CS16 = 0x48, DS16 = 0x50, TSS_OLD = 0x58 };

static const uint64_t gdt[] = {
	0,
	0x00af9b000000ffff,
	0x00cf93000000ffff,
	0x00cf9b000000ffff,
	0x00cffb000000ffff,
	0x00cff3000000ffff,
	0x00affb000000ffff,
	0x00008b0040000067, /* TSS64 */
	0,
	0x00009b000000ffff, /* 16-bit code and data */
	0x000093000000ffff,
	0x00008b0050000067, /* TSS32 */
};

/* Tables lie in the guest's own reach: it may change them. */
static void put_tables(uint8_t *ram, enum guest_next next)
{
	const uint64_t way = 7; /* present, writable, user */

	store_le(ram + PML4, PDPT | way, 8);
	store_le(ram + PML4 + 8 * 511, PDPT | way, 8);
	store_le(ram + PDPT, PD | way, 8);
	store_le(ram + PDPT + 8 * 511, PD | way, 8);
	store_le(ram + PD, PT | way, 8);
	store_le(ram + PDPTE, PAE | 1, 8);
	store_le(ram + PAE, PT | way, 8);
	store_le(ram + PD32, PT32 | way, 4);
	for (unsigned n = 0; n < GUEST_RAM / PAGE; n++) {
		store_le(ram + PT + 8 * n, n * PAGE | way, 8);
		store_le(ram + PT32 + 4 * n, n * PAGE | way, 4);
	}
	if (next != NEXT_THERE) {
		uint64_t e = next == NEXT_ABSENT      ? 0
			     : next == NEXT_ELSEWHERE ? GUEST_AWAY | way
						      : 0xd0000000 | way;

		store_le(ram + PT + 8 * (GUEST_CODE / PAGE + 1), e, 8);
		store_le(ram + PT32 + 4 * (GUEST_CODE / PAGE + 1), e, 4);
	}
}

static void put_handlers(uint8_t *ram)
{
	static const uint8_t stub[] = {0xf4, 0xeb, 0xfd};

	memcpy(ram + STUB, stub, sizeof stub);
	for (unsigned v = 0; v < 256; v++) {
		uint64_t low = STUB | CS64 << 16, high = (STUB & 0xffff0000u) | 0xee00;

		store_le(ram + IDT64 + 16 * v, low | high << 32, 8);
		store_le(ram + IDT32 + 8 * v, (STUB | CS32 << 16) | high << 32, 8);
	}
	for (unsigned n = 0; n < 10; n++) /* stacks of the rings, and IST */
		store_le(ram + TSS64 + 4 + 8 * n, STACK, 8);
	store_le(ram + TSS32 + 4, STACK, 4);
	store_le(ram + TSS32 + 8, DS, 2);
	for (unsigned v = 0; v < 32; v++) /* real mode */
		store_le(ram + 4 * v, STUB, 4);
}

void small_guest_fill(struct small_guest *g, enum guest_next next)
{
	memset(g->ram, 0, GUEST_RAM);
	memcpy(g->ram + GDT, gdt, sizeof gdt);
	put_tables(g->ram, next);
	put_handlers(g->ram);
}

static struct x86_seg seg(uint16_t sel)
{
	uint64_t d = gdt[sel >> 3];
	struct x86_seg s = {.sel = sel,
			    .base = (d >> 16 & 0xffffff) | (d >> 32 & 0xff000000),
			    .limit = (uint32_t)((d & 0xffff) | (d >> 32 & 0xf0000)),
			    .attr = (uint16_t)((d >> 40 & 0xff) | (d >> 44 & 0xf00))};

	if (s.attr & SEG_G)
		s.limit = s.limit << 12 | 0xfff;
	return s;
}

static void set_segs(struct x86_state *s, uint16_t cs, uint16_t ds)
{
	for (unsigned n = 0; n < X86_SREGS; n++)
		s->seg[n] = seg(n == X86_CS ? cs : ds);
}

static void set_long(struct x86_state *s)
{
	s->cr0 |= CR0_PE | CR0_PG;
	s->cr3 = PML4;
	s->cr4 |= CR4_PAE;
	s->efer = EFER_LME | EFER_LMA | EFER_NXE | EFER_SCE;
	s->idtr = (struct x86_dtr){IDT64, 0xfff};
	s->tr = seg(TSS);
}

static void set_legacy(struct x86_state *s)
{
	s->cr0 |= CR0_PE;
	s->idtr = (struct x86_dtr){IDT32, 0x7ff};
	s->tr = seg(TSS_OLD);
}

static void set_pae(struct x86_state *s)
{
	set_legacy(s);
	s->cr0 |= CR0_PG;
	s->cr4 |= CR4_PAE;
	s->cr3 = PDPTE;
	s->efer = EFER_NXE;
}

void small_guest_state(struct x86_state *s, enum guest_mode m)
{
	x86_state_reset(s, 0);
	memset(s->gpr, 0, sizeof s->gpr);
	s->cr0 = CR0_ET | CR0_NE | CR0_MP;
	s->cr4 = CR4_OSFXSR | CR4_OSXMMEXCPT;
	s->gdtr = (struct x86_dtr){GDT, sizeof gdt - 1};
	s->rip = GUEST_CODE;
	s->rflags = RFLAGS_FIXED;
	switch (m) {
	case GUEST_64:
		set_long(s);
		set_segs(s, CS64, DS);
		break;
	case GUEST_64_USER:
		set_long(s);
		set_segs(s, UCS64, UDS);
		break;
	case GUEST_COMPAT:
		set_long(s);
		set_segs(s, UCS32, UDS);
		break;
	case GUEST_32:
		set_legacy(s);
		set_segs(s, CS32, DS);
		break;
	case GUEST_32_PAGED:
		set_legacy(s);
		s->cr0 |= CR0_PG;
		s->cr3 = PD32;
		set_segs(s, CS32, DS);
		break;
	case GUEST_PAE:
		set_pae(s);
		set_segs(s, CS32, DS);
		break;
	case GUEST_32_USER:
		set_pae(s);
		set_segs(s, UCS32, UDS);
		break;
	case GUEST_16:
		set_legacy(s);
		set_segs(s, CS16, DS16);
		s->seg[X86_CS].limit = 0xfffff; /* so that GUEST_CODE is within */
		break;
	default: /* GUEST_REAL */
		s->idtr = (struct x86_dtr){0, 0x3ff};
		set_segs(s, CS16, DS16);
		for (unsigned n = 0; n < X86_SREGS; n++) {
			s->seg[n].sel = 0;
			s->seg[n].attr = n == X86_CS ? 0x9b : 0x93;
		}
		s->seg[X86_CS].limit = 0xfffff;
		break;
	}
}

int small_guest_init(struct small_guest *g, struct err *e)
{
	struct cpuid_opts opts = {
		.apic_hz = 1000000000, .tsc_hz = 1000000000, .cpus = 1, .jit = true};
	const struct mem_region *r;
	int ret;

	fake_clock_init(&g->clock);
	if ((ret = mem_new(&g->mem, GUEST_RAM, e)) < 0 || (ret = bus_new(&g->bus, e)) < 0 ||
	    (ret = cpuid_host(&g->cpuid, &opts, e)) < 0)
		return ret;
	(void)mem_regions(g->mem, &r);
	g->ram = r->hva;
	g->env = (struct engine_env){.mem = g->mem,
				     .bus = g->bus,
				     .clock = &g->clock.clock,
				     .cpuid = &g->cpuid,
				     .apic_hz = opts.apic_hz,
				     .code_cache_bytes = JIT_CACHE_MIN};
	ret = engine_jit.vm_new(&g->vm, &g->env, e);
	return ret < 0 ? ret : engine_jit.vcpu_new(&g->vcpu, g->vm, 0, e);
}
