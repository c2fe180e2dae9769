#include "cpu/jit/fake_jit.h"

#include "cpu/jit/core.h"
#include "cpu/jit/sys_priv.h"

#include <assert.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

static struct fake_jit *the; /* of this test process */
static jmp_buf back;

/* --- what core.c and tlb.c give --- */
noreturn void jit_raise(struct jit_cpu *c, enum x86_vector v)
{
	c->exc = (struct jit_exception){.vector = (uint8_t)v};
	the->raised = v;
	the->has_error = false;
	longjmp(back, 1);
}

noreturn void jit_raise_err(struct jit_cpu *c, enum x86_vector v, uint32_t error)
{
	c->exc = (struct jit_exception){.vector = (uint8_t)v, .has_error = true, .error = error};
	the->raised = v;
	the->has_error = true;
	the->error = error;
	longjmp(back, 1);
}

noreturn void jit_raise_pf(struct jit_cpu *c, uint64_t gva, uint32_t error)
{
	c->st.cr2 = gva;
	jit_raise_err(c, X86_PF, error);
}

noreturn void jit_shutdown(struct jit_cpu *c)
{
	the->raised = FAKE_SHUT;
	longjmp(back, 1);
}

void jit_fpu_leave(struct jit_cpu *c)
{
	c->fpu_live = false;
}

void jit_mode_update(struct jit_cpu *c)
{
	const struct x86_seg *cs = &c->st.seg[X86_CS];

	c->mode = 0;
	if (jit_long_mode(c) && (cs->attr & SEG_L))
		c->mode |= MODE_CODE64;
	else if (cs->attr & SEG_DB)
		c->mode |= MODE_CODE32;
	c->mmu = jit_cpl(c) == 3 ? MMU_USER : c->st.rflags & RFLAGS_AC ? MMU_KERNEL_AC : MMU_KERNEL;
}

static uint8_t *at(struct jit_cpu *c, uint64_t gva, unsigned len, enum jit_access a)
{
	for (uint64_t p = gva & ~UINT64_C(0xfff); p < gva + len; p += 0x1000)
		if (p >= FAKE_BYTES || the->absent[p >> 12])
			jit_raise_pf(c, p > gva ? p : gva, a == ACC_WRITE ? PF_W : 0);
	return the->ram + gva;
}

void jit_still(struct jit_cpu *c, enum world_state how)
{
}

void jit_move(struct jit_cpu *c)
{
}

void jit_unhalt(struct jit_vm *vm, uint32_t apic_id)
{
	the->unhalted = apic_id;
}

uint64_t jit_read(struct jit_cpu *c, enum jit_mmu m, uint64_t gva, unsigned size)
{
	return load_le(at(c, gva, size, ACC_READ), size);
}

void jit_write(struct jit_cpu *c, enum jit_mmu m, uint64_t gva, uint64_t v, unsigned size)
{
	store_le(at(c, gva, size, ACC_WRITE), v, size);
}

void jit_read_buf(struct jit_cpu *c, enum jit_mmu m, uint64_t gva, void *to, unsigned len)
{
	memcpy(to, at(c, gva, len, ACC_READ), len);
}

void jit_write_buf(struct jit_cpu *c, enum jit_mmu m, uint64_t gva, const void *from, unsigned len)
{
	memcpy(at(c, gva, len, ACC_WRITE), from, len);
}

void jit_probe(struct jit_cpu *c, enum jit_mmu m, uint64_t gva, unsigned len, enum jit_access a)
{
	at(c, gva, len, a);
}

void *jit_ram(struct jit_cpu *c, enum jit_mmu m, uint64_t gva, enum jit_access a, unsigned *left)
{
	*left = 0x1000 - (gva & 0xfff);
	return at(c, gva, 1, a);
}

uint64_t jit_seg_addr(struct jit_cpu *c, enum x86_sreg s, uint64_t offset, unsigned size,
		      enum jit_access a)
{
	const struct x86_seg *seg = &c->st.seg[s];
	enum x86_vector v = s == X86_SS ? X86_SS_FAULT : X86_GP;

	if (jit_code64(c)) {
		offset += s == X86_FS || s == X86_GS ? seg->base : 0;
		if ((uint64_t)((int64_t)(offset << 16) >> 16) != offset)
			jit_raise_err(c, v, 0);
		return offset;
	}
	if (seg->attr & SEG_UNUSABLE || offset + size - 1 > seg->limit)
		jit_raise_err(c, v, 0);
	return (uint32_t)(seg->base + offset);
}

void jit_tlb_flush(struct jit_cpu *c, bool global_too)
{
	the->flushes++;
}

void jit_tlb_flush_page(struct jit_cpu *c, uint64_t gva)
{
	the->flushes++;
}

void jit_pkru_write(struct jit_cpu *c, uint32_t pkru)
{
	c->pkru = pkru;
}

void jit_load_cr3(struct jit_cpu *c, uint64_t cr3, bool keep)
{
	c->st.cr3 = cr3;
	the->flushes += !keep;
}

void jit_tlb_flush_pcid(struct jit_cpu *c, uint16_t pcid)
{
	the->flushed_pcid = pcid;
}

void jit_tlb_flush_pcid_page(struct jit_cpu *c, uint16_t pcid, uint64_t gva)
{
	the->flushed_pcid = pcid;
	the->flushed_page = gva;
}

void jit_tlb_flush_pcids(struct jit_cpu *c)
{
	the->flushed_pcid = FAKE_PCIDS;
}

/* --- the fake machine --- */
#define DESC(base, limit, attr)                                                                    \
	((uint64_t)(limit)&0xffff) | ((uint64_t)(base)&0xffffff) << 16 |                           \
		((uint64_t)(attr)&0xff) << 40 | ((uint64_t)(limit) >> 16 & 0xf) << 48 |            \
		((uint64_t)(attr)&0xf00) << 44 | ((uint64_t)(base) >> 24 & 0xff) << 56

static void load(struct fake_jit *f, enum x86_sreg r, uint16_t sel)
{
	uint64_t d = fake_get(f, 0x1000 + (sel & ~7u), 8);
	struct x86_seg *s = &f->c->st.seg[r];

	s->sel = sel;
	s->attr = (uint16_t)((d >> 40 & 0xff) | (d >> 44 & 0xf00));
	s->limit = 0xffffffff;
	s->base = 0;
}

static void make_gdt(struct fake_jit *f)
{
	fake_put(f, 0x1000 + FAKE_CS64, DESC(0, 0xfffff, 0xa9a), 8);
	fake_put(f, 0x1000 + FAKE_DS, DESC(0, 0xfffff, 0xc92), 8);
	fake_put(f, 0x1000 + FAKE_CS32, DESC(0, 0xfffff, 0xc9a), 8);
	fake_put(f, 0x1000 + FAKE_USER_CS32, DESC(0, 0xfffff, 0xcfa), 8);
	fake_put(f, 0x1000 + FAKE_USER_DS, DESC(0, 0xfffff, 0xcf2), 8);
	fake_put(f, 0x1000 + FAKE_USER_CS64, DESC(0, 0xfffff, 0xafa), 8);
	fake_put(f, 0x1000 + FAKE_TSS, DESC(0x3000, 0x67, 0x089), 8);
	fake_put(f, 0x1000 + FAKE_ABSENT, DESC(0, 0xfffff, 0xc12), 8);
	f->c->st.gdtr = (struct x86_dtr){0x1000, 0x6f};
}

struct fake_jit *fake_jit_new(void)
{
	struct fake_jit *f = calloc(1, sizeof *f);

	assert(f);
	the = f;
	f->c = aligned_alloc(64, (sizeof *f->c + 63) & ~63ul);
	f->ram = calloc(1, FAKE_BYTES);
	assert(f->c && f->ram);
	memset(f->c, 0, sizeof *f->c);
	x86_state_reset(&f->c->st, 0);
	f->c->phys_bits = 46;
	f->c->env = &f->env;
	f->env.cpuid = &f->cpuid;
	make_gdt(f);
	f->c->st.cr0 = CR0_PE | CR0_PG | CR0_ET | CR0_NE;
	f->c->st.cr4 = CR4_PAE;
	f->c->st.efer = EFER_LMA | EFER_LME | EFER_SCE;
	f->c->st.idtr = (struct x86_dtr){0x2000, 0xfff};
	f->c->st.tr = (struct x86_seg){
		.base = 0x3000, .limit = 0x67, .sel = FAKE_TSS, .attr = SEG_P | 0xb};
	load(f, X86_CS, FAKE_CS64);
	load(f, X86_SS, FAKE_DS);
	load(f, X86_DS, FAKE_DS);
	load(f, X86_ES, FAKE_DS);
	f->c->st.rip = 0x10000;
	f->c->st.gpr[X86_RSP] = 0x20000;
	jit_mode_update(f->c);
	return f;
}

void fake_jit_free(struct fake_jit *f)
{
	free(f->c);
	free(f->ram);
	free(f);
}

unsigned fake_run(struct fake_jit *f, jit_helper *h, uint64_t arg)
{
	f->raised = FAKE_NONE;
	if (!setjmp(back))
		h(f->c, arg);
	return f->raised;
}

unsigned fake_deliver(struct fake_jit *f, uint8_t vector, bool has_error, uint32_t error)
{
	f->raised = FAKE_NONE;
	if (!setjmp(back))
		jit_deliver(f->c, vector, has_error, error, false);
	return f->raised;
}

/* What the run loop does: delivers, and what delivery raises, until one arrives. */
unsigned fake_raise(struct fake_jit *f, uint8_t vector, bool has_error, uint32_t error)
{
	f->c->exc =
		(struct jit_exception){.vector = vector, .has_error = has_error, .error = error};
	for (volatile int i = 0; i < 4; i++) {
		f->raised = FAKE_NONE;
		if (!setjmp(back))
			jit_deliver_exception(f->c);
		if (f->raised == FAKE_NONE || f->raised == FAKE_SHUT)
			break;
	}
	return f->raised;
}

uint64_t fake_get(struct fake_jit *f, uint64_t gva, unsigned size)
{
	return load_le(f->ram + gva, size);
}

void fake_put(struct fake_jit *f, uint64_t gva, uint64_t v, unsigned size)
{
	store_le(f->ram + gva, v, size);
}

void fake_gate64(struct fake_jit *f, uint8_t vector, uint64_t offset, unsigned dpl, unsigned ist)
{
	uint64_t lo = (offset & 0xffff) | FAKE_CS64 << 16 | (uint64_t)ist << 32 |
		      (uint64_t)(0x8e | dpl << 5) << 40 | (offset & 0xffff0000) << 32;

	fake_put(f, 0x2000 + vector * 16u, lo, 8);
	fake_put(f, 0x2000 + vector * 16u + 8, offset >> 32, 8);
}

void fake_gate32(struct fake_jit *f, uint8_t vector, uint32_t offset, unsigned dpl)
{
	uint64_t lo = (offset & 0xffff) | FAKE_CS32 << 16 | (uint64_t)(0x8e | dpl << 5) << 40 |
		      ((uint64_t)offset & 0xffff0000) << 32;

	fake_put(f, 0x2000 + vector * 8u, lo, 8);
}

void fake_user(struct fake_jit *f, bool code64)
{
	load(f, X86_CS, (code64 ? FAKE_USER_CS64 : FAKE_USER_CS32) | 3);
	load(f, X86_SS, FAKE_USER_DS | 3);
	load(f, X86_DS, FAKE_USER_DS | 3);
	load(f, X86_ES, FAKE_USER_DS | 3);
	jit_mode_update(f->c);
}

void fake_legacy32(struct fake_jit *f)
{
	f->c->st.efer = 0;
	load(f, X86_CS, FAKE_CS32);
	jit_mode_update(f->c);
}
