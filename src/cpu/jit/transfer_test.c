#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "cpu/jit/fake_jit.h"

#define HANDLER 0x40000
#define RSP0    0x30000
#define IST1    0x38000

static struct fake_jit *f;
static struct x86_state *st;

static int setup(void **state)
{
	f = fake_jit_new();
	st = &f->c->st;
	fake_put(f, 0x3004, RSP0, 8);
	fake_put(f, 0x3024, IST1, 8);
	return 0;
}

static int teardown(void **state)
{
	fake_jit_free(f);
	return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

static uint64_t slot(unsigned n)
{
	return fake_get(f, st->gpr[X86_RSP] + 8 * n, 8);
}

/* --- delivery --- */
static void interrupt_from_user_switches_to_rsp0_and_pushes_five_words(void **state)
{
	fake_user(f, true);
	fake_gate64(f, 0x30, HANDLER, 0, 0);
	st->rflags |= RFLAGS_IF | RFLAGS_TF;
	jit_flags_set_arith(f->c, RFLAGS_ZF | RFLAGS_OF);
	assert_int_equal(fake_deliver(f, 0x30, false, 0), FAKE_NONE);
	assert_int_equal(st->rip, HANDLER);
	assert_int_equal(st->gpr[X86_RSP], RSP0 - 40);
	assert_int_equal(slot(0), 0x10000);
	assert_int_equal(slot(1), FAKE_USER_CS64 | 3);
	assert_int_equal(slot(2), RFLAGS_IF | RFLAGS_TF | RFLAGS_ZF | RFLAGS_OF | RFLAGS_FIXED);
	assert_int_equal(slot(3), 0x20000);
	assert_int_equal(slot(4), FAKE_USER_DS | 3);
	assert_int_equal(jit_cpl(f->c), 0);
	assert_int_equal(st->seg[X86_SS].sel, 0);
	assert_int_equal(st->rflags & (RFLAGS_IF | RFLAGS_TF), 0);
	assert_true(jit_code64(f->c));
}

static void error_code_is_below_rip_and_stack_is_aligned(void **state)
{
	fake_gate64(f, X86_GP, HANDLER, 0, 0);
	st->gpr[X86_RSP] = 0x20007;
	assert_int_equal(fake_raise(f, X86_GP, true, 0x58), FAKE_NONE);
	assert_int_equal(st->gpr[X86_RSP], 0x20000 - 48);
	assert_int_equal(slot(0), 0x58);
	assert_int_equal(slot(1), 0x10000);
	assert_int_equal(slot(3) & RFLAGS_RF, RFLAGS_RF);
	assert_int_equal(slot(4), 0x20007);
}

static void ist_is_taken_without_a_change_of_privilege(void **state)
{
	fake_gate64(f, X86_DF, HANDLER, 0, 1);
	assert_int_equal(fake_raise(f, X86_DF, true, 0), FAKE_NONE);
	assert_int_equal(st->gpr[X86_RSP], IST1 - 48);
	assert_int_equal(st->seg[X86_SS].sel, FAKE_DS);
}

static void missing_gate_is_gp_with_idt_and_ext_bits(void **state)
{
	assert_int_equal(fake_deliver(f, 0x31, false, 0), X86_GP);
	assert_int_equal(f->error, 0x31 << 3 | 3);
	assert_int_equal(st->rip, 0x10000);
}

static void int_n_to_a_privileged_gate_is_gp_at_the_instruction(void **state)
{
	fake_user(f, true);
	fake_gate64(f, 0x30, HANDLER, 0, 0);
	assert_int_equal(fake_run(f, h_int, ARG(2, 8, 0, 0, 0x30)), X86_GP);
	assert_int_equal(f->error, 0x30 << 3 | 2);
	assert_int_equal(st->rip, 0x10000);
}

static void int_n_returns_behind_the_instruction(void **state)
{
	fake_user(f, true);
	fake_gate64(f, 0x80, HANDLER, 3, 0);
	assert_int_equal(fake_run(f, h_int, ARG(2, 8, 0, 0, 0x80)), FAKE_NONE);
	assert_int_equal(slot(0), 0x10002);
}

static void fault_while_delivering_gp_becomes_double_fault(void **state)
{
	fake_gate64(f, X86_DF, HANDLER, 0, 1);
	assert_int_equal(fake_raise(f, X86_GP, true, 0), FAKE_NONE);
	assert_int_equal(st->rip, HANDLER);
	assert_int_equal(slot(0), 0);
	assert_false(f->c->delivering);
}

static void page_fault_in_delivery_of_an_interrupt_is_just_a_page_fault(void **state)
{
	fake_user(f, true);
	fake_gate64(f, 0x30, HANDLER, 0, 0);
	fake_gate64(f, X86_PF, HANDLER + 16, 0, 1);
	f->absent[(RSP0 - 8) >> 12] = true;
	assert_int_equal(fake_deliver(f, 0x30, false, 0), X86_PF);
	assert_int_equal(fake_raise(f, X86_PF, true, f->error), FAKE_NONE);
	assert_int_equal(st->rip, HANDLER + 16);
	assert_int_equal(slot(1), 0x10000);
}

static void fault_in_double_fault_shuts_down(void **state)
{
	assert_int_equal(fake_raise(f, X86_GP, true, 0), FAKE_SHUT);
}

static void nothing_changes_when_the_stack_is_absent(void **state)
{
	fake_gate64(f, 0x30, HANDLER, 0, 0);
	f->absent[0x1f] = true;
	st->rflags |= RFLAGS_IF;
	assert_int_equal(fake_deliver(f, 0x30, false, 0), X86_PF);
	assert_int_equal(st->gpr[X86_RSP], 0x20000);
	assert_int_equal(st->rip, 0x10000);
	assert_true(st->rflags & RFLAGS_IF);
}

static void debug_exception_clears_general_detect(void **state)
{
	fake_gate64(f, X86_DB, HANDLER, 0, 0);
	st->dr7 = 0x2400;
	assert_int_equal(fake_raise(f, X86_DB, false, 0), FAKE_NONE);
	assert_int_equal(st->dr7, 0x400);
	assert_int_equal(slot(2) & RFLAGS_RF, 0);
}

static void legacy_gate_switches_to_the_tss_stack(void **state)
{
	fake_legacy32(f);
	fake_user(f, false);
	fake_gate32(f, 0x30, HANDLER, 0);
	fake_put(f, 0x3004, RSP0, 4);
	fake_put(f, 0x3008, FAKE_DS, 4);
	assert_int_equal(fake_deliver(f, 0x30, false, 0), FAKE_NONE);
	assert_int_equal(st->gpr[X86_RSP], RSP0 - 20);
	assert_int_equal(fake_get(f, RSP0 - 4, 4), FAKE_USER_DS | 3);
	assert_int_equal(fake_get(f, RSP0 - 8, 4), 0x20000);
	assert_int_equal(fake_get(f, RSP0 - 16, 4), FAKE_USER_CS32 | 3);
	assert_int_equal(fake_get(f, RSP0 - 20, 4), 0x10000);
	assert_int_equal(st->seg[X86_SS].sel, FAKE_DS);
	assert_int_equal(st->rip, HANDLER);
}

static void legacy_gate_without_a_stack_is_invalid_tss(void **state)
{
	fake_legacy32(f);
	fake_user(f, false);
	fake_gate32(f, 0x30, HANDLER, 0);
	st->tr.limit = 5;
	assert_int_equal(fake_deliver(f, 0x30, false, 0), X86_TS);
	assert_int_equal(f->error, FAKE_TSS | 1);
}

static void real_mode_vector_pushes_three_words(void **state)
{
	st->cr0 = CR0_ET;
	st->efer = 0;
	for (int i = 0; i < X86_SREGS; i++)
		st->seg[i] = (struct x86_seg){.limit = 0xffff, .attr = SEG_P | SEG_S | 3};
	st->idtr = (struct x86_dtr){0, 0x3ff};
	st->rip = 0x1234;
	st->gpr[X86_RSP] = 2; /* wraps within the segment */
	st->rflags |= RFLAGS_IF;
	jit_mode_update(f->c);
	fake_put(f, 0x10 * 4, 0x02000055, 4);
	assert_int_equal(fake_run(f, h_int, ARG(2, 2, 0, 0, 0x10)), FAKE_NONE);
	assert_int_equal(st->rip, 0x55);
	assert_int_equal(st->seg[X86_CS].base, 0x2000);
	assert_int_equal(st->gpr[X86_RSP], 0xfffc);
	assert_int_equal(fake_get(f, 0xfffc, 2), 0x1236);
	assert_int_equal(fake_get(f, 0, 2), RFLAGS_IF | RFLAGS_FIXED);
}

/* --- IRET --- */
static void frame(uint64_t rip, uint64_t cs, uint64_t flags, uint64_t rsp, uint64_t ss)
{
	const uint64_t v[] = {rip, cs, flags, rsp, ss};

	for (unsigned i = 0; i < 5; i++)
		fake_put(f, st->gpr[X86_RSP] + 8 * i, v[i], 8);
}

static void iret_to_user_loads_everything_and_drops_kernel_segments(void **state)
{
	st->gpr[X86_RSP] = 0x20000;
	st->events.nmi_masked = true;
	st->seg[X86_FS] = (struct x86_seg){.sel = 3, .attr = SEG_UNUSABLE | 3 << SEG_DPL_SHIFT};
	frame(0x12345, FAKE_USER_CS64 | 3, RFLAGS_IF | RFLAGS_CF, 0x7000, FAKE_USER_DS | 3);
	assert_int_equal(fake_run(f, h_iret, ARG(2, 8, 0, 0, 0)), FAKE_NONE);
	assert_int_equal(st->rip, 0x12345);
	assert_int_equal(jit_cpl(f->c), 3);
	assert_int_equal(st->gpr[X86_RSP], 0x7000);
	assert_int_equal(jit_flags_get(f->c), RFLAGS_IF | RFLAGS_CF | RFLAGS_FIXED);
	assert_int_equal(st->seg[X86_DS].sel, 0);
	assert_true(st->seg[X86_DS].attr & SEG_UNUSABLE);
	assert_int_equal(st->seg[X86_FS].sel, 0); /* a null one of another RPL */
	assert_false(st->events.nmi_masked);
	assert_int_equal(f->c->mmu, MMU_USER);
}

static void iret_keeps_a_user_fs_base_behind_a_null_selector(void **state)
{
	st->seg[X86_FS] = (struct x86_seg){.base = 0x7f00, .attr = SEG_UNUSABLE};
	frame(0x12345, FAKE_USER_CS64 | 3, 0, 0x7000, FAKE_USER_DS | 3);
	assert_int_equal(fake_run(f, h_iret, ARG(2, 8, 0, 0, 0)), FAKE_NONE);
	assert_int_equal(st->seg[X86_FS].base, 0x7f00);
}

static void iret_to_a_null_stack_is_for_kernels_only(void **state)
{
	frame(0x12345, FAKE_CS64, 0, 0x7000, 0);
	assert_int_equal(fake_run(f, h_iret, ARG(2, 8, 0, 0, 0)), FAKE_NONE);
	st->gpr[X86_RSP] = 0x20000;
	frame(0x12345, FAKE_USER_CS64 | 3, 0, 0x7000, 3);
	assert_int_equal(fake_run(f, h_iret, ARG(2, 8, 0, 0, 0)), X86_GP);
	assert_int_equal(f->error, 0);
}

static void iret_to_a_non_canonical_rip_faults_before_it_changes_anything(void **state)
{
	frame(UINT64_C(1) << 47, FAKE_USER_CS64 | 3, 0, 0x7000, FAKE_USER_DS | 3);
	assert_int_equal(fake_run(f, h_iret, ARG(2, 8, 0, 0, 0)), X86_GP);
	assert_int_equal(st->rip, 0x10000);
	assert_int_equal(st->gpr[X86_RSP], 0x20000);
	assert_int_equal(jit_cpl(f->c), 0);
}

static void iret_inward_is_refused(void **state)
{
	fake_user(f, true);
	frame(0x12345, FAKE_CS64, 0, 0x7000, FAKE_DS);
	assert_int_equal(fake_run(f, h_iret, ARG(2, 8, 0, 0, 0)), X86_GP);
	assert_int_equal(f->error, FAKE_CS64);
}

static void iret_from_user_cannot_set_if_or_iopl(void **state)
{
	fake_user(f, true);
	frame(0x12345, FAKE_USER_CS64 | 3, RFLAGS_IF | RFLAGS_IOPL | RFLAGS_AC, 0x7000,
	      FAKE_USER_DS | 3);
	assert_int_equal(fake_run(f, h_iret, ARG(2, 8, 0, 0, 0)), FAKE_NONE);
	assert_int_equal(jit_flags_get(f->c), RFLAGS_AC | RFLAGS_FIXED);
}

static void iret_with_nt_in_long_mode_is_gp(void **state)
{
	st->rflags |= RFLAGS_NT;
	frame(0x12345, FAKE_CS64, 0, 0x7000, FAKE_DS);
	assert_int_equal(fake_run(f, h_iret, ARG(2, 8, 0, 0, 0)), X86_GP);
}

static void iret_to_compatibility_mode_truncates_rip(void **state)
{
	frame(0x12345, FAKE_USER_CS32 | 3, 0, 0x7000, FAKE_USER_DS | 3);
	assert_int_equal(fake_run(f, h_iret, ARG(2, 8, 0, 0, 0)), FAKE_NONE);
	assert_false(jit_code64(f->c));
	assert_true(f->c->mode & MODE_CODE32);
}

/* --- SYSCALL --- */
static void syscall_saves_rip_and_flags_and_masks(void **state)
{
	fake_user(f, true);
	st->star = (uint64_t)(FAKE_USER_CS32 | 3) << 48 | (uint64_t)FAKE_CS64 << 32;
	st->lstar = HANDLER;
	st->sfmask = RFLAGS_IF | RFLAGS_CF | RFLAGS_TF;
	st->rflags |= RFLAGS_IF;
	jit_flags_set_arith(f->c, RFLAGS_CF | RFLAGS_ZF);
	assert_int_equal(fake_run(f, h_syscall, ARG(2, 8, 0, 0, 0)), FAKE_NONE);
	assert_int_equal(st->gpr[X86_RCX], 0x10002);
	assert_int_equal(st->gpr[11], RFLAGS_IF | RFLAGS_CF | RFLAGS_ZF | RFLAGS_FIXED);
	assert_int_equal(jit_flags_get(f->c), RFLAGS_ZF | RFLAGS_FIXED);
	assert_int_equal(st->rip, HANDLER);
	assert_int_equal(st->seg[X86_SS].sel, FAKE_DS);
	assert_int_equal(jit_cpl(f->c), 0);
	assert_int_equal(st->gpr[X86_RSP], 0x20000);
}

static void syscall_without_sce_is_undefined(void **state)
{
	st->efer &= ~(uint64_t)EFER_SCE;
	assert_int_equal(fake_run(f, h_syscall, ARG(2, 8, 0, 0, 0)), X86_UD);
}

static void sysret_returns_to_user_mode(void **state)
{
	st->star = (uint64_t)(FAKE_USER_CS32 | 3) << 48;
	st->gpr[X86_RCX] = 0x12345;
	st->gpr[11] = RFLAGS_IF | RFLAGS_RF | RFLAGS_VM | RFLAGS_ZF;
	assert_int_equal(fake_run(f, h_sysret, ARG(3, 8, 0, 0, 0)), FAKE_NONE);
	assert_int_equal(st->rip, 0x12345);
	assert_int_equal(st->seg[X86_CS].sel, FAKE_USER_CS64 | 3);
	assert_int_equal(st->seg[X86_SS].sel, FAKE_USER_DS | 3);
	assert_int_equal(jit_cpl(f->c), 3);
	assert_int_equal(jit_flags_get(f->c), RFLAGS_IF | RFLAGS_ZF | RFLAGS_FIXED);
}

static void sysret_to_a_non_canonical_address_differs_by_vendor(void **state)
{
	st->gpr[X86_RCX] = UINT64_C(1) << 47;
	assert_int_equal(fake_run(f, h_sysret, ARG(3, 8, 0, 0, 0)), X86_GP);
	f->cpuid.leaf[0].ebx = 0x68747541;
	assert_int_equal(fake_run(f, h_sysret, ARG(3, 8, 0, 0, 0)), FAKE_NONE);
}

static void sysret_traps_by_the_flags_it_loads(void **state)
{
	st->star = (uint64_t)(FAKE_USER_CS32 | 3) << 48;
	st->gpr[X86_RCX] = 0x12345;
	st->gpr[11] = RFLAGS_TF;
	assert_int_equal(fake_run(f, h_sysret, ARG(3, 8, 0, 0, 0)), X86_DB);
	assert_int_equal(st->rip, 0x12345);
	assert_int_equal(st->dr6 & 0x4000, 0x4000);
}

static void sysret_is_privileged(void **state)
{
	fake_user(f, true);
	assert_int_equal(fake_run(f, h_sysret, ARG(3, 8, 0, 0, 0)), X86_GP);
}

/* --- far transfers --- */
static void far_jump_changes_the_mode(void **state)
{
	assert_int_equal(fake_run(f, h_jmp_far, ARG(7, 4, FAKE_CS32, 0, 0x500)), FAKE_NONE);
	assert_int_equal(st->rip, 0x500);
	assert_false(jit_code64(f->c));
	assert_int_equal(fake_get(f, 0x1000 + FAKE_CS32 + 5, 1), 0x9b); /* accessed */
}

static void far_jump_to_an_absent_segment(void **state)
{
	fake_put(f, 0x1000 + FAKE_ABSENT + 5, 0x1a, 1); /* code, not present */
	assert_int_equal(fake_run(f, h_jmp_far, ARG(7, 4, FAKE_ABSENT, 0, 0)), X86_NP);
	assert_int_equal(f->error, FAKE_ABSENT);
}

static void far_call_and_return(void **state)
{
	f->c->ea_seg = X86_DS;
	f->c->ea = 0x6000;
	fake_put(f, 0x6000, 0x777, 4);
	fake_put(f, 0x6004, FAKE_CS64, 2);
	assert_int_equal(fake_run(f, h_call_far_mem, ARG(3, 4, 0, ARG_MEM, 0)), FAKE_NONE);
	assert_int_equal(st->rip, 0x777);
	assert_int_equal(st->gpr[X86_RSP], 0x20000 - 8);
	assert_int_equal(fake_run(f, h_ret_far, ARG(1, 4, 0, 0, 0x10)), FAKE_NONE);
	assert_int_equal(st->rip, 0x10003);
	assert_int_equal(st->gpr[X86_RSP], 0x20010);
}

static void call_gate_switches_to_the_inner_stack(void **state)
{
	fake_user(f, true);
	fake_put(f, 0x1000 + FAKE_GATE, HANDLER % 0x10000 | FAKE_CS64 << 16, 4);
	fake_put(f, 0x1000 + FAKE_GATE + 4, HANDLER & 0xffff0000u, 4);
	fake_put(f, 0x1000 + FAKE_GATE + 5, 0xec, 1);
	fake_put(f, 0x1000 + FAKE_GATE + 8, 0, 8);
	assert_int_equal(fake_run(f, h_call_far, ARG(7, 4, FAKE_GATE | 3, 0, 0)), FAKE_NONE);
	assert_int_equal(st->rip, HANDLER);
	assert_int_equal(jit_cpl(f->c), 0);
	assert_int_equal(st->gpr[X86_RSP], RSP0 - 32);
	assert_int_equal(slot(0), 0x10007);
	assert_int_equal(slot(1), FAKE_USER_CS64 | 3);
	assert_int_equal(slot(2), 0x20000);
	assert_int_equal(slot(3), FAKE_USER_DS | 3);
	assert_int_equal(fake_run(f, h_ret_far, ARG(1, 8, 0, 0, 0)), FAKE_NONE);
	assert_int_equal(st->rip, 0x10007);
	assert_int_equal(jit_cpl(f->c), 3);
	assert_int_equal(st->gpr[X86_RSP], 0x20000);
}

static void sysenter_and_sysexit(void **state)
{
	st->sysenter_cs = FAKE_CS64;
	st->sysenter_esp = 0x5000;
	st->sysenter_eip = HANDLER;
	fake_user(f, true);
	st->rflags |= RFLAGS_IF;
	assert_int_equal(fake_run(f, h_sysenter, ARG(2, 8, 0, 0, 0)), FAKE_NONE);
	assert_int_equal(st->rip, HANDLER);
	assert_int_equal(st->gpr[X86_RSP], 0x5000);
	assert_int_equal(st->rflags & RFLAGS_IF, 0);
	st->gpr[X86_RDX] = 0x111;
	st->gpr[X86_RCX] = 0x222;
	assert_int_equal(fake_run(f, h_sysexit, ARG(2, 8, 0, 0, 0)), FAKE_NONE);
	assert_int_equal(st->rip, 0x111);
	assert_int_equal(st->gpr[X86_RSP], 0x222);
	assert_int_equal(jit_cpl(f->c), 3);
	assert_int_equal(fake_run(f, h_sysexit, ARG(2, 8, 0, 0, 0)), X86_GP);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(interrupt_from_user_switches_to_rsp0_and_pushes_five_words),
		TEST(error_code_is_below_rip_and_stack_is_aligned),
		TEST(ist_is_taken_without_a_change_of_privilege),
		TEST(missing_gate_is_gp_with_idt_and_ext_bits),
		TEST(int_n_to_a_privileged_gate_is_gp_at_the_instruction),
		TEST(int_n_returns_behind_the_instruction),
		TEST(fault_while_delivering_gp_becomes_double_fault),
		TEST(page_fault_in_delivery_of_an_interrupt_is_just_a_page_fault),
		TEST(fault_in_double_fault_shuts_down),
		TEST(nothing_changes_when_the_stack_is_absent),
		TEST(debug_exception_clears_general_detect),
		TEST(legacy_gate_switches_to_the_tss_stack),
		TEST(legacy_gate_without_a_stack_is_invalid_tss),
		TEST(real_mode_vector_pushes_three_words),
		TEST(iret_to_user_loads_everything_and_drops_kernel_segments),
		TEST(iret_keeps_a_user_fs_base_behind_a_null_selector),
		TEST(iret_to_a_null_stack_is_for_kernels_only),
		TEST(iret_to_a_non_canonical_rip_faults_before_it_changes_anything),
		TEST(iret_inward_is_refused),
		TEST(iret_from_user_cannot_set_if_or_iopl),
		TEST(iret_with_nt_in_long_mode_is_gp),
		TEST(iret_to_compatibility_mode_truncates_rip),
		TEST(syscall_saves_rip_and_flags_and_masks),
		TEST(syscall_without_sce_is_undefined),
		TEST(sysret_returns_to_user_mode),
		TEST(sysret_to_a_non_canonical_address_differs_by_vendor),
		TEST(sysret_traps_by_the_flags_it_loads),
		TEST(sysret_is_privileged),
		TEST(far_jump_changes_the_mode),
		TEST(far_jump_to_an_absent_segment),
		TEST(far_call_and_return),
		TEST(call_gate_switches_to_the_inner_stack),
		TEST(sysenter_and_sysexit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
