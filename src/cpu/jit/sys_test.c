#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "cpu/jit/fake_jit.h"
#include "cpu/msr.h"

#define REG(size, reg, rm) ARG(3, size, reg, rm, 0)
#define MEM(size, reg)     ARG(3, size, reg, ARG_MEM, 0)
#define ZF                 (jit_flags_get(f->c) & RFLAGS_ZF)

static struct fake_jit *f;
static struct x86_state *st;

static int setup(void **state)
{
	f = fake_jit_new();
	st = &f->c->st;
	f->c->ea_seg = X86_DS;
	f->c->ea = 0x6000;
	f->c->cr4_offered = CR4_PAE | CR4_PGE;
	f->cpuid.xcr0_mask = XCR0_X87 | XCR0_SSE | XCR0_AVX | XCR0_AVX512;
	f->cpuid.leaf[1] = (struct cpuid_leaf){.leaf = 7, .has_subleaves = true, .ebx = 2};
	f->cpuid.count = 2; /* TSC_ADJUST */
	return 0;
}

static int teardown(void **state)
{
	fake_jit_free(f);
	return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

static unsigned with_rax(jit_helper *h, uint64_t arg, uint64_t rax)
{
	st->gpr[X86_RAX] = rax;
	return fake_run(f, h, arg);
}

/* --- segments --- */
static void load_of_a_data_segment_sets_accessed(void **state)
{
	assert_int_equal(with_rax(h_mov_to_sreg, REG(2, X86_ES, X86_RAX), FAKE_DS), FAKE_NONE);
	assert_int_equal(st->seg[X86_ES].limit, 0xffffffff);
	assert_int_equal(fake_get(f, 0x1000 + FAKE_DS + 5, 1), 0x93);
}

static void segments_that_may_not_be_loaded(void **state)
{
	assert_int_equal(with_rax(h_mov_to_sreg, REG(2, X86_DS, X86_RAX), 0x100), X86_GP);
	assert_int_equal(f->error, 0x100);
	assert_int_equal(with_rax(h_mov_to_sreg, REG(2, X86_DS, X86_RAX), FAKE_ABSENT), X86_NP);
	assert_int_equal(with_rax(h_mov_to_sreg, REG(2, X86_DS, X86_RAX), FAKE_TSS), X86_GP);
	assert_int_equal(with_rax(h_mov_to_sreg, REG(2, X86_SS, X86_RAX), FAKE_CS64), X86_GP);
	assert_int_equal(with_rax(h_mov_to_sreg, REG(2, X86_SS, X86_RAX), FAKE_ABSENT),
			 X86_SS_FAULT);
	assert_int_equal(with_rax(h_mov_to_sreg, REG(2, X86_CS, X86_RAX), FAKE_CS64), X86_UD);
	fake_user(f, true);
	assert_int_equal(with_rax(h_mov_to_sreg, REG(2, X86_DS, X86_RAX), FAKE_DS), X86_GP);
	assert_int_equal(with_rax(h_mov_to_sreg, REG(2, X86_SS, X86_RAX), 0), X86_GP);
	assert_int_equal(with_rax(h_mov_to_sreg, REG(2, X86_DS, X86_RAX), 0), FAKE_NONE);
	assert_true(st->seg[X86_DS].attr & SEG_UNUSABLE);
}

static void mov_ss_opens_an_interrupt_shadow(void **state)
{
	assert_int_equal(with_rax(h_mov_to_sreg, REG(2, X86_SS, X86_RAX), FAKE_DS), FAKE_NONE);
	assert_int_equal(st->events.shadow, 2);
}

static void lar_and_lsl_tell_only_what_may_be_seen(void **state)
{
	st->gpr[X86_RCX] = 0xdeadbeef;
	assert_int_equal(with_rax(h_lar, REG(4, X86_RCX, X86_RAX), FAKE_DS), FAKE_NONE);
	assert_true(ZF);
	assert_int_equal(st->gpr[X86_RCX], 0x00cf9200);
	assert_int_equal(with_rax(h_lsl, REG(8, X86_RCX, X86_RAX), FAKE_DS), FAKE_NONE);
	assert_int_equal(st->gpr[X86_RCX], 0xffffffff);
	assert_int_equal(with_rax(h_lsl, REG(8, X86_RCX, X86_RAX), FAKE_TSS), FAKE_NONE);
	assert_int_equal(st->gpr[X86_RCX], 0x67);
	fake_user(f, true);
	assert_int_equal(with_rax(h_lar, REG(4, X86_RCX, X86_RAX), FAKE_DS), FAKE_NONE);
	assert_false(ZF);
	assert_int_equal(st->gpr[X86_RCX], 0x67);
	assert_int_equal(with_rax(h_verr, REG(2, 0, X86_RAX), FAKE_USER_CS64), FAKE_NONE);
	assert_true(ZF);
	assert_int_equal(with_rax(h_verw, REG(2, 0, X86_RAX), FAKE_USER_CS64), FAKE_NONE);
	assert_false(ZF);
}

static void ltr_marks_the_tss_busy_once(void **state)
{
	assert_int_equal(with_rax(h_ltr, REG(2, 0, X86_RAX), FAKE_TSS), FAKE_NONE);
	assert_int_equal(fake_get(f, 0x1000 + FAKE_TSS + 5, 1), 0x8b);
	assert_int_equal(st->tr.base, 0x3000);
	assert_int_equal(with_rax(h_ltr, REG(2, 0, X86_RAX), FAKE_TSS), X86_GP);
	assert_int_equal(f->error, FAKE_TSS);
}

static void descriptor_table_registers_go_through_memory(void **state)
{
	fake_put(f, 0x6000, 0x7f, 2);
	fake_put(f, 0x6002, 0xffff800000001000, 8);
	assert_int_equal(fake_run(f, h_lgdt, MEM(8, 0)), FAKE_NONE);
	assert_int_equal(st->gdtr.base, 0xffff800000001000);
	fake_put(f, 0x6002, 0xff00800000001000, 8); /* 57 bits: if the processor has them */
	assert_int_equal(fake_run(f, h_lgdt, MEM(8, 0)), X86_GP);
	f->c->cr4_offered |= CR4_LA57;
	assert_int_equal(fake_run(f, h_lidt, MEM(8, 0)), FAKE_NONE);
	assert_int_equal(st->idtr.base, 0xff00800000001000);
	f->c->ea = 0x7000;
	assert_int_equal(fake_run(f, h_sgdt, MEM(8, 0)), FAKE_NONE);
	assert_int_equal(fake_get(f, 0x7002, 8), 0xffff800000001000);
	st->cr4 |= CR4_UMIP;
	fake_user(f, true);
	assert_int_equal(fake_run(f, h_sgdt, MEM(8, 0)), X86_GP);
	assert_int_equal(fake_run(f, h_lgdt, MEM(8, 0)), X86_GP);
}

static void gs_bases(void **state)
{
	st->kernel_gs_base = 0x1111;
	st->seg[X86_GS].base = 0x2222;
	assert_int_equal(fake_run(f, h_swapgs, ARG(3, 8, 0, 0, 0)), FAKE_NONE);
	assert_int_equal(st->seg[X86_GS].base, 0x1111);
	assert_int_equal(st->kernel_gs_base, 0x2222);
	assert_int_equal(with_rax(h_wrgsbase, REG(8, 0, X86_RAX), 1), X86_UD);
	st->cr4 |= CR4_FSGSBASE;
	assert_int_equal(with_rax(h_wrgsbase, REG(8, 0, X86_RAX), UINT64_C(1) << 47), X86_GP);
	assert_int_equal(with_rax(h_wrgsbase, REG(4, 0, X86_RAX), 0x1ffffffff), FAKE_NONE);
	assert_int_equal(st->seg[X86_GS].base, 0xffffffff);
}

/* --- control registers --- */
static void cr0_combinations_that_are_refused(void **state)
{
	assert_int_equal(with_rax(h_mov_to_cr, REG(8, 0, X86_RAX), CR0_PG | CR0_ET), X86_GP);
	assert_int_equal(with_rax(h_mov_to_cr, REG(8, 0, X86_RAX), st->cr0 | CR0_NW), X86_GP);
	assert_int_equal(with_rax(h_mov_to_cr, REG(8, 0, X86_RAX), st->cr0 | BIT(32)), X86_GP);
	assert_int_equal(with_rax(h_mov_to_cr, REG(8, 0, X86_RAX), CR0_PE), X86_GP);
	assert_int_equal(with_rax(h_mov_to_cr, REG(8, 4, X86_RAX), CR4_PGE), X86_GP);
	assert_int_equal(with_rax(h_mov_to_cr, REG(8, 4, X86_RAX), CR4_PAE | BIT(30)), X86_GP);
	assert_int_equal(with_rax(h_mov_to_cr, REG(8, 5, X86_RAX), 0), X86_UD);
	fake_user(f, true);
	assert_int_equal(with_rax(h_mov_to_cr, REG(8, 0, X86_RAX), st->cr0), X86_GP);
	assert_int_equal(with_rax(h_mov_from_cr, REG(8, 0, X86_RAX), 0), X86_GP);
}

static void paging_enters_and_leaves_long_mode(void **state)
{
	st->efer = EFER_LME;
	st->cr0 = CR0_PE | CR0_ET;
	st->seg[X86_CS].attr = SEG_P | SEG_S | 0xb | SEG_DB | SEG_G;
	jit_mode_update(f->c);
	assert_int_equal(with_rax(h_mov_to_cr, REG(4, 0, X86_RAX), CR0_PG | CR0_PE), FAKE_NONE);
	assert_true(jit_long_mode(f->c));
	assert_int_not_equal(f->flushes, 0);
	assert_int_equal(with_rax(h_mov_to_cr, REG(4, 0, X86_RAX), CR0_PE), FAKE_NONE);
	assert_false(jit_long_mode(f->c));
}

static void paging_with_lme_needs_pae(void **state)
{
	st->efer = EFER_LME;
	st->cr0 = CR0_PE | CR0_ET;
	st->cr4 = 0;
	st->seg[X86_CS].attr = SEG_P | SEG_S | 0xb | SEG_DB | SEG_G;
	jit_mode_update(f->c);
	assert_int_equal(with_rax(h_mov_to_cr, REG(4, 0, X86_RAX), CR0_PG | CR0_PE), X86_GP);
	assert_int_equal(st->cr0, CR0_PE | CR0_ET);
}

static void general_detect_traps_debug_register_moves(void **state)
{
	st->dr7 |= 0x2000;
	assert_int_equal(with_rax(h_mov_to_dr, REG(8, 0, X86_RAX), 1), X86_DB);
	assert_true(st->dr6 & 0x2000);
	assert_int_equal(st->dr[0], 0);
}

static void debug_registers_4_and_5(void **state)
{
	assert_int_equal(with_rax(h_mov_to_dr, REG(8, 5, X86_RAX), 0x55), FAKE_NONE);
	assert_int_equal(st->dr7, 0x455);
	assert_int_equal(with_rax(h_mov_to_dr, REG(8, 6, X86_RAX), 1), FAKE_NONE);
	assert_int_equal(st->dr6, 0xffff0ff1);
	assert_int_equal(with_rax(h_mov_to_dr, REG(8, 6, X86_RAX), BIT(32)), X86_GP);
	st->cr4 |= CR4_DE;
	assert_int_equal(with_rax(h_mov_to_dr, REG(8, 5, X86_RAX), 0x55), X86_UD);
}

static unsigned xsetbv(uint64_t v)
{
	st->gpr[X86_RCX] = 0;
	st->gpr[X86_RDX] = v >> 32;
	return with_rax(h_xsetbv, ARG(3, 4, 0, 0, 0), v);
}

static void xcr0_takes_only_sound_combinations(void **state)
{
	assert_int_equal(xsetbv(1), X86_UD);
	st->cr4 |= CR4_OSXSAVE;
	assert_int_equal(xsetbv(XCR0_SSE), X86_GP);
	assert_int_equal(xsetbv(XCR0_X87 | XCR0_AVX), X86_GP);
	assert_int_equal(xsetbv(XCR0_X87 | XCR0_SSE | XCR0_AVX512), X86_GP);
	assert_int_equal(xsetbv(0x27), X86_GP);
	assert_int_equal(xsetbv(0x207), X86_GP);
	assert_int_equal(xsetbv(0xe7), FAKE_NONE);
	assert_int_equal(st->xcr0, 0xe7);
}

/* --- flags --- */
static void popf_respects_privilege(void **state)
{
	st->gpr[X86_RSP] = 0x20000;
	fake_put(f, 0x20000, RFLAGS_IF | RFLAGS_IOPL | RFLAGS_CF, 8);
	assert_int_equal(fake_run(f, h_popf, ARG(1, 8, 0, 0, 0)), FAKE_NONE);
	assert_int_equal(jit_flags_get(f->c), RFLAGS_IF | RFLAGS_IOPL | RFLAGS_CF | RFLAGS_FIXED);
	st->rflags &= ~(uint64_t)RFLAGS_IOPL;
	fake_user(f, true);
	fake_put(f, 0x20008, RFLAGS_IOPL | RFLAGS_AC, 8);
	assert_int_equal(fake_run(f, h_popf, ARG(1, 8, 0, 0, 0)), FAKE_NONE);
	assert_int_equal(jit_flags_get(f->c), RFLAGS_IF | RFLAGS_AC | RFLAGS_FIXED);
	assert_int_equal(fake_run(f, h_cli, ARG(1, 8, 0, 0, 0)), X86_GP);
}

static void sti_shadows_only_when_it_opens_interrupts(void **state)
{
	assert_int_equal(fake_run(f, h_sti, ARG(1, 8, 0, 0, 0)), FAKE_NONE);
	assert_int_equal(st->events.shadow, 1);
	st->events.shadow = 0;
	assert_int_equal(fake_run(f, h_sti, ARG(1, 8, 0, 0, 0)), FAKE_NONE);
	assert_int_equal(st->events.shadow, 0);
}

/* --- MSRs --- */
static unsigned wrmsr(uint32_t msr, uint64_t v)
{
	st->gpr[X86_RCX] = msr;
	st->gpr[X86_RDX] = v >> 32;
	return with_rax(h_wrmsr, ARG(2, 4, 0, 0, 0), (uint32_t)v);
}

static uint64_t rdmsr(uint32_t msr)
{
	st->gpr[X86_RCX] = msr;
	assert_int_equal(fake_run(f, h_rdmsr, ARG(2, 4, 0, 0, 0)), FAKE_NONE);
	return st->gpr[X86_RDX] << 32 | st->gpr[X86_RAX];
}

static void performance_counters_are_there_on_amd_alone(void **state)
{
	st->gpr[X86_RCX] = 3;
	st->gpr[X86_RDX] = 1;
	assert_int_equal(with_rax(h_rdpmc, ARG(2, 4, 0, 0, 0), 1), X86_GP);
	f->cpuid.leaf[0].ebx = 0x68747541;
	assert_int_equal(with_rax(h_rdpmc, ARG(2, 4, 0, 0, 0), 1), FAKE_NONE);
	assert_int_equal(st->gpr[X86_RAX] | st->gpr[X86_RDX], 0);
	st->gpr[X86_RCX] = 4;
	assert_int_equal(with_rax(h_rdpmc, ARG(2, 4, 0, 0, 0), 1), X86_GP);
	st->gpr[X86_RCX] = 0;
	fake_user(f, true);
	assert_int_equal(with_rax(h_rdpmc, ARG(2, 4, 0, 0, 0), 1), X86_GP);
	st->cr4 |= CR4_PCE;
	assert_int_equal(with_rax(h_rdpmc, ARG(2, 4, 0, 0, 0), 1), FAKE_NONE);
}

static void msrs_check_what_they_are_given(void **state)
{
	assert_int_equal(wrmsr(MSR_FS_BASE, UINT64_C(1) << 47), X86_GP);
	assert_int_equal(wrmsr(MSR_FS_BASE, 0xffff800012345678), FAKE_NONE);
	assert_int_equal(st->seg[X86_FS].base, 0xffff800012345678);
	assert_int_equal(rdmsr(MSR_FS_BASE), 0xffff800012345678);
	assert_int_equal(wrmsr(0x12345, 0), X86_GP);
	assert_int_equal(wrmsr(MSR_SPEC_CTRL, 0), X86_GP);              /* not in the fake CPUID */
	assert_int_equal(wrmsr(MSR_EFER, EFER_LMA | EFER_SCE), X86_GP); /* LME under paging */
	assert_int_equal(wrmsr(MSR_EFER, EFER_LME | EFER_NXE), FAKE_NONE);
	assert_int_equal(st->efer, EFER_LMA | EFER_LME | EFER_NXE);
	assert_int_equal(wrmsr(MSR_EFER, EFER_LME | EFER_NXE | EFER_AUTOIBRS), X86_GP);
	assert_int_equal(rdmsr(MSR_ARCH_CAPABILITIES), ARCH_CAPABILITIES_JIT);
	assert_int_equal(f->flushes, 1);
}

static void writing_the_tsc_moves_it_and_tsc_adjust(void **state)
{
	assert_int_equal(wrmsr(MSR_TSC, 0), FAKE_NONE);
	assert_true(rdmsr(MSR_TSC) < 1000000000);
	assert_int_equal(rdmsr(MSR_TSC_ADJUST), f->c->tsc_offset);
	assert_int_equal(wrmsr(MSR_TSC_ADJUST, 0), FAKE_NONE);
	assert_int_equal(f->c->tsc_offset, 0);
}

static void tsd_keeps_users_from_the_tsc(void **state)
{
	st->cr4 |= CR4_TSD;
	assert_int_equal(fake_run(f, h_rdtsc, ARG(2, 4, 0, 0, 0)), FAKE_NONE);
	fake_user(f, true);
	assert_int_equal(fake_run(f, h_rdtsc, ARG(2, 4, 0, 0, 0)), X86_GP);
	assert_int_equal(fake_run(f, h_rdtscp, ARG(3, 4, 0, 0, 0)), X86_GP);
}

static void pcids_are_turned_on_in_ia32e_mode_at_pcid_0(void **state)
{
	f->c->cr4_offered |= CR4_PCIDE;
	st->cr3 = 0x5000;
	assert_int_equal(with_rax(h_mov_to_cr, REG(8, 3, X86_RAX), BIT(63) | 0x5000), X86_GP);
	st->cr3 = 0x5008;
	assert_int_equal(with_rax(h_mov_to_cr, REG(8, 4, X86_RAX), st->cr4 | CR4_PCIDE), X86_GP);
	st->cr3 = 0x5000;
	assert_int_equal(with_rax(h_mov_to_cr, REG(8, 4, X86_RAX), st->cr4 | CR4_PCIDE), FAKE_NONE);
	assert_int_equal(with_rax(h_mov_to_cr, REG(8, 0, X86_RAX), CR0_PE), X86_GP);
	f->flushes = 0;
	assert_int_equal(with_rax(h_mov_to_cr, REG(8, 3, X86_RAX), BIT(63) | 0x6fff), FAKE_NONE);
	assert_int_equal(st->cr3, 0x6fff);
	assert_int_equal(f->flushes, 0);
	assert_int_equal(with_rax(h_mov_to_cr, REG(8, 3, X86_RAX), 0x6123), FAKE_NONE);
	assert_int_equal(f->flushes, 1);
	assert_int_equal(with_rax(h_mov_to_cr, REG(8, 3, X86_RAX), BIT(62)), X86_GP);
	fake_legacy32(f);
	st->cr4 = CR4_PAE;
	st->cr3 = 0x6000;
	assert_int_equal(with_rax(h_mov_to_cr, REG(4, 4, X86_RAX), CR4_PAE | CR4_PCIDE), X86_GP);
}

static unsigned invpcid(uint64_t type, uint64_t pcid, uint64_t gva)
{
	f->flushed_pcid = 0xaaa;
	fake_put(f, 0x6000, pcid, 8);
	fake_put(f, 0x6008, gva, 8);
	f->c->ea = 0x6000;
	st->gpr[X86_RDX] = type;
	return fake_run(f, h_invpcid, ARG(5, 8, X86_RDX, ARG_MEM, 0));
}

static void invpcid_has_four_types(void **state)
{
	st->cr4 |= CR4_PCIDE;
	assert_int_equal(invpcid(0, 0x123, 0x7000), FAKE_NONE);
	assert_int_equal(f->flushed_pcid, 0x123);
	assert_int_equal(f->flushed_page, 0x7000);
	assert_int_equal(invpcid(1, 0xfff, BIT(62)), FAKE_NONE);
	assert_int_equal(f->flushed_pcid, 0xfff);
	f->flushes = 0;
	assert_int_equal(invpcid(2, BIT(40), BIT(62)), FAKE_NONE);
	assert_int_equal(f->flushes, 1);
	assert_int_equal(invpcid(3, BIT(40), BIT(62)), FAKE_NONE);
	assert_int_equal(f->flushed_pcid, FAKE_PCIDS);
}

static void invpcid_that_is_refused(void **state)
{
	assert_int_equal(invpcid(0, 1, 0), X86_GP); /* no CR4.PCIDE: 0 alone */
	assert_int_equal(invpcid(1, 1, 0), X86_GP);
	assert_int_equal(invpcid(1, 0, 0), FAKE_NONE);
	st->cr4 |= CR4_PCIDE;
	assert_int_equal(invpcid(4, 0, 0), X86_GP);
	assert_int_equal(invpcid(BIT(32), 0, 0), X86_GP);
	assert_int_equal(invpcid(0, 0x1000, 0), X86_GP);
	assert_int_equal(invpcid(1, BIT(63), 0), X86_GP);
	assert_int_equal(invpcid(0, 1, UINT64_C(1) << 47), X86_GP);
	f->absent[6] = true;
	st->gpr[X86_RDX] = 2;
	assert_int_equal(fake_run(f, h_invpcid, ARG(5, 8, X86_RDX, ARG_MEM, 0)), X86_PF);
	f->absent[6] = false;
	fake_user(f, true);
	assert_int_equal(invpcid(2, 0, 0), X86_GP);
}

static void hypercalls(void **state)
{
	const uint64_t arg = ARG(3, 8, 0, 0, 0);

	st->gpr[X86_RCX] = 7;
	assert_int_equal(with_rax(h_vmmcall, arg, 5), FAKE_NONE); /* KICK_CPU */
	assert_int_equal(st->gpr[X86_RAX], 0);
	assert_int_equal(f->unhalted, 7);
	assert_int_equal(with_rax(h_vmmcall, arg, 4), FAKE_NONE);
	assert_int_equal(st->gpr[X86_RAX], (uint64_t)-1000); /* ENOSYS */
	st->gpr[X86_RCX] = 8;
	fake_user(f, true);
	assert_int_equal(with_rax(h_vmmcall, arg, 5), FAKE_NONE);
	assert_int_equal(st->gpr[X86_RAX], (uint64_t)-1); /* EPERM */
	assert_int_equal(f->unhalted, 7);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(load_of_a_data_segment_sets_accessed),
		TEST(segments_that_may_not_be_loaded),
		TEST(mov_ss_opens_an_interrupt_shadow),
		TEST(lar_and_lsl_tell_only_what_may_be_seen),
		TEST(ltr_marks_the_tss_busy_once),
		TEST(descriptor_table_registers_go_through_memory),
		TEST(gs_bases),
		TEST(cr0_combinations_that_are_refused),
		TEST(paging_enters_and_leaves_long_mode),
		TEST(paging_with_lme_needs_pae),
		TEST(general_detect_traps_debug_register_moves),
		TEST(debug_registers_4_and_5),
		TEST(xcr0_takes_only_sound_combinations),
		TEST(popf_respects_privilege),
		TEST(sti_shadows_only_when_it_opens_interrupts),
		TEST(performance_counters_are_there_on_amd_alone),
		TEST(msrs_check_what_they_are_given),
		TEST(writing_the_tsc_moves_it_and_tsc_adjust),
		TEST(tsd_keeps_users_from_the_tsc),
		TEST(pcids_are_turned_on_in_ia32e_mode_at_pcid_0),
		TEST(invpcid_has_four_types),
		TEST(invpcid_that_is_refused),
		TEST(hypercalls),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
