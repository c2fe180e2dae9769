#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "cpu/jit/fake_jit.h"

#define OTHER     0x60 /* a TSS of 32 bits at TSS2, and a task gate to it */
#define GATE      0x68
#define TSS1      0x3000
#define TSS2      0x5000
#define OTHER_EIP 0x50000
#define OTHER_ESP 0x60000

static struct fake_jit *f;
static struct x86_state *st;

static void put_tss(uint16_t sel, uint32_t base, unsigned type, uint32_t limit)
{
	fake_put(f, 0x1000 + sel, limit | (uint64_t)base << 16 | (uint64_t)(0x80 | type) << 40, 8);
}

static int setup(void **state)
{
	static const uint16_t sregs[] = {FAKE_DS, FAKE_CS32, FAKE_DS, FAKE_DS, 0, 0};

	f = fake_jit_new();
	st = &f->c->st;
	st->cr4 = 0;
	fake_legacy32(f);
	put_tss(FAKE_TSS, TSS1, 0xb, 0x67);
	put_tss(OTHER, TSS2, 0x9, 0x67);
	fake_put(f, 0x1000 + GATE, (uint64_t)OTHER << 16 | 0x85ull << 40, 8);
	fake_put(f, TSS2 + 0x1c, 0x7000, 4);
	fake_put(f, TSS2 + 0x20, OTHER_EIP, 4);
	fake_put(f, TSS2 + 0x24, RFLAGS_CF, 4);
	for (unsigned r = 0; r < 8; r++)
		fake_put(f, TSS2 + 0x28 + 4 * r, r == X86_RSP ? OTHER_ESP : 0x100 + r, 4);
	for (unsigned s = 0; s < 6; s++)
		fake_put(f, TSS2 + 0x48 + 4 * s, sregs[s], 4);
	return 0;
}

static int teardown(void **state)
{
	fake_jit_free(f);
	return 0;
}

static unsigned jump(uint16_t sel, bool call)
{
	return fake_run(f, call ? h_call_far : h_jmp_far, ARG(7, 4, sel & 0xff, sel >> 8, 0));
}

static unsigned tss_type(uint16_t sel)
{
	return fake_get(f, 0x1000 + sel + 5, 1) & 0xf;
}

static void a_jump_leaves_one_task_for_the_other(void **state)
{
	st->gpr[X86_RBX] = 0xbbbb;
	assert_int_equal(jump(OTHER, false), FAKE_NONE);
	assert_int_equal(st->rip, OTHER_EIP);
	assert_int_equal(st->gpr[X86_RSP], OTHER_ESP);
	assert_int_equal(st->gpr[X86_RSI], 0x100 + X86_RSI);
	assert_int_equal(st->cr3, 0x7000);
	assert_int_equal(f->flushes, 1);
	assert_int_equal(jit_flags_get(f->c) & (RFLAGS_CF | RFLAGS_NT), RFLAGS_CF);
	assert_true(st->cr0 & CR0_TS);
	assert_int_equal(st->seg[X86_CS].sel, FAKE_CS32);
	assert_int_equal(st->seg[X86_ES].limit, 0xffffffff);
	assert_true(st->seg[X86_FS].attr & SEG_UNUSABLE);
	assert_int_equal(st->tr.sel, OTHER);
	assert_int_equal(tss_type(OTHER), 0xb);
	assert_int_equal(tss_type(FAKE_TSS), 0x9);
	assert_int_equal(fake_get(f, TSS1 + 0x20, 4), 0x10007);
	assert_int_equal(fake_get(f, TSS1 + 0x34, 4), 0xbbbb);
	assert_int_equal(fake_get(f, TSS1 + 0x4c, 2), FAKE_CS32);
	assert_int_equal(jump(FAKE_TSS, false), FAKE_NONE);
	assert_int_equal(st->gpr[X86_RBX], 0xbbbb);
}

static void a_call_comes_back_by_iret(void **state)
{
	assert_int_equal(jump(GATE, true), FAKE_NONE);
	assert_int_equal(fake_get(f, TSS2, 2), FAKE_TSS);
	assert_true(st->rflags & RFLAGS_NT);
	assert_int_equal(tss_type(FAKE_TSS), 0xb);
	st->rip = 0x50010;
	assert_int_equal(fake_run(f, h_iret, ARG(1, 4, 0, 0, 0)), FAKE_NONE);
	assert_int_equal(st->rip, 0x10007);
	assert_int_equal(st->gpr[X86_RSP], 0x20000);
	assert_false(st->rflags & RFLAGS_NT);
	assert_int_equal(tss_type(OTHER), 0x9);
	assert_int_equal(fake_get(f, TSS2 + 0x20, 4), 0x50011);
	assert_false(fake_get(f, TSS2 + 0x24, 4) & RFLAGS_NT);
}

static void a_task_gate_takes_an_exception_with_its_error_code(void **state)
{
	fake_put(f, 0x2000 + 8 * X86_GP, (uint64_t)OTHER << 16 | 0x85ull << 40, 8);
	assert_int_equal(fake_raise(f, X86_GP, true, 0x1234), FAKE_NONE);
	assert_int_equal(st->rip, OTHER_EIP);
	assert_int_equal(st->gpr[X86_RSP], OTHER_ESP - 4);
	assert_int_equal(fake_get(f, OTHER_ESP - 4, 4), 0x1234);
	assert_int_equal(fake_get(f, TSS1 + 0x20, 4), 0x10000);
	assert_true(fake_get(f, TSS1 + 0x24, 4) & RFLAGS_RF);
	assert_true(st->rflags & RFLAGS_NT);
}

static void tasks_that_cannot_be_switched_to(void **state)
{
	assert_int_equal(jump(FAKE_TSS, false), X86_GP); /* busy */
	assert_int_equal(f->error, FAKE_TSS);
	put_tss(OTHER, TSS2, 0x9, 0x66);
	assert_int_equal(jump(OTHER, true), X86_TS);
	assert_int_equal(f->error, OTHER);
	fake_put(f, 0x1000 + OTHER + 5, 0x09, 1);
	assert_int_equal(jump(GATE, true), X86_NP);
	put_tss(OTHER, TSS2, 0x9, 0x67);
	fake_user(f, false);
	assert_int_equal(jump(OTHER, false), X86_GP); /* DPL 0 */
	assert_int_equal(st->tr.sel, FAKE_TSS);
	fake_legacy32(f);
	st->rflags |= RFLAGS_NT;
	fake_put(f, TSS1, OTHER, 2);
	assert_int_equal(fake_run(f, h_iret, ARG(1, 4, 0, 0, 0)), X86_TS); /* not busy */
	assert_int_equal(st->rip, 0x10000);
}

static void a_bad_segment_faults_in_the_new_task(void **state)
{
	fake_put(f, TSS2 + 0x54, FAKE_CS64 | 4, 2); /* DS: no LDT */
	assert_int_equal(jump(OTHER, false), X86_TS);
	assert_int_equal(f->error, FAKE_CS64 | 4);
	assert_int_equal(st->rip, OTHER_EIP);
	assert_int_equal(st->tr.sel, OTHER);
	assert_true(st->seg[X86_DS].attr & SEG_UNUSABLE);
}

static void a_16_bit_task(void **state)
{
	put_tss(OTHER, TSS2, 0x1, 0x2b);
	for (unsigned at = 0; at < 0x2c; at += 2)
		fake_put(f, TSS2 + at, 0, 2);
	fake_put(f, TSS2 + 0x0e, 0x4321, 2);
	fake_put(f, TSS2 + 0x12 + 2 * X86_RSP, 0x8000, 2);
	fake_put(f, TSS2 + 0x24, FAKE_CS32, 2);
	fake_put(f, TSS2 + 0x26, FAKE_DS, 2);
	st->cr3 = 0x9000;
	assert_int_equal(jump(OTHER, false), FAKE_NONE);
	assert_int_equal(st->rip, 0x4321);
	assert_int_equal(st->gpr[X86_RSP], 0x8000);
	assert_int_equal(st->cr3, 0x9000); /* kept */
	assert_int_equal(jump(FAKE_TSS, false), FAKE_NONE);
	assert_int_equal(fake_get(f, TSS2 + 0x0e, 2), 0x4328);
	assert_int_equal(tss_type(OTHER), 0x1);
}

static void the_trap_flag_of_a_tss_is_a_debug_trap(void **state)
{
	fake_put(f, TSS2 + 0x64, 1, 2);
	assert_int_equal(jump(OTHER, false), X86_DB);
	assert_int_equal(st->rip, OTHER_EIP);
	assert_true(st->dr6 & 0x8000);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_jump_leaves_one_task_for_the_other),
		TEST(a_call_comes_back_by_iret),
		TEST(a_task_gate_takes_an_exception_with_its_error_code),
		TEST(tasks_that_cannot_be_switched_to),
		TEST(a_bad_segment_faults_in_the_new_task),
		TEST(a_16_bit_task),
		TEST(the_trap_flag_of_a_tss_is_a_debug_trap),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
