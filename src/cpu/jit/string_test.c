#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "cpu/jit/fake_jit.h"

#define OP(size, rep) ARG(3, size, 8, X86_DS, rep)
#define NEXT          0x10003

static struct fake_jit *f;
static struct x86_state *st;

static int setup(void **state)
{
	f = fake_jit_new();
	st = &f->c->st;
	for (unsigned i = 0; i < 0x4000; i++)
		f->ram[0x50000 + i] = (uint8_t)(i * 7 + i / 256);
	return 0;
}

static int teardown(void **state)
{
	fake_jit_free(f);
	return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

static void regs(uint64_t rsi, uint64_t rdi, uint64_t rcx)
{
	st->gpr[X86_RSI] = rsi;
	st->gpr[X86_RDI] = rdi;
	st->gpr[X86_RCX] = rcx;
	st->rip = 0x10000;
}

static void copies_across_pages_at_odd_addresses(void **state)
{
	regs(0x50003, 0x60001, 0x2801);
	assert_int_equal(fake_run(f, h_movs, OP(1, 1)), FAKE_NONE);
	assert_memory_equal(f->ram + 0x60001, f->ram + 0x50003, 0x2801);
	assert_int_equal(f->ram[0x60001 + 0x2801], 0);
	assert_int_equal(st->gpr[X86_RSI], 0x50003 + 0x2801);
	assert_int_equal(st->gpr[X86_RDI], 0x60001 + 0x2801);
	assert_int_equal(st->gpr[X86_RCX], 0);
	assert_int_equal(st->rip, NEXT);
}

static void wide_elements_that_cross_pages(void **state)
{
	regs(0x50003, 0x60005, 0x400);
	assert_int_equal(fake_run(f, h_movs, OP(8, 1)), FAKE_NONE);
	assert_memory_equal(f->ram + 0x60005, f->ram + 0x50003, 0x2000);
}

static void overlapping_forward_copy_repeats_the_first_byte(void **state)
{
	f->ram[0x60ff0] = 0xaa;
	regs(0x60ff0, 0x60ff1, 0x40);
	assert_int_equal(fake_run(f, h_movs, OP(1, 1)), FAKE_NONE);
	for (unsigned i = 0; i <= 0x40; i++)
		assert_int_equal(f->ram[0x60ff0 + i], 0xaa);
}

static void backward_copy(void **state)
{
	st->rflags |= RFLAGS_DF;
	regs(0x51ffc, 0x61ffc, 0x700);
	assert_int_equal(fake_run(f, h_movs, OP(4, 1)), FAKE_NONE);
	assert_memory_equal(f->ram + 0x60400, f->ram + 0x50400, 0x1c00);
	assert_int_equal(f->ram[0x603ff], 0);
	assert_int_equal(st->gpr[X86_RSI], 0x503fc);
}

static void fault_leaves_exact_progress(void **state)
{
	f->absent[0x61] = true;
	regs(0x50000, 0x60800, 0x1000);
	assert_int_equal(fake_run(f, h_movs, OP(1, 1)), X86_PF);
	assert_int_equal(st->cr2, 0x61000);
	assert_int_equal(st->gpr[X86_RDI], 0x61000);
	assert_int_equal(st->gpr[X86_RSI], 0x50800);
	assert_int_equal(st->gpr[X86_RCX], 0x800);
	assert_int_equal(st->rip, 0x10000);
	f->absent[0x61] = false;
	assert_int_equal(fake_run(f, h_movs, OP(1, 1)), FAKE_NONE);
	assert_memory_equal(f->ram + 0x60800, f->ram + 0x50000, 0x1000);
}

static void attention_stops_between_runs(void **state)
{
	atomic_store(&f->c->attention, 1);
	regs(0x50000, 0x60000, 0x2000);
	assert_int_equal(fake_run(f, h_movs, OP(1, 1)), FAKE_NONE);
	assert_int_equal(st->rip, 0x10000);
	assert_int_equal(st->gpr[X86_RCX], 0x1000);
}

static void trap_flag_does_one_iteration(void **state)
{
	st->rflags |= RFLAGS_TF;
	regs(0x50000, 0x60000, 2);
	assert_int_equal(fake_run(f, h_stos, OP(1, 1)), FAKE_NONE);
	assert_int_equal(st->gpr[X86_RCX], 1);
	assert_int_equal(st->rip, 0x10000);
	assert_int_equal(fake_run(f, h_stos, OP(1, 1)), FAKE_NONE);
	assert_int_equal(st->rip, NEXT);
}

static void no_count_no_access(void **state)
{
	regs(UINT64_C(1) << 47, UINT64_C(1) << 47, 0);
	assert_int_equal(fake_run(f, h_movs, OP(1, 1)), FAKE_NONE);
	assert_int_equal(st->rip, NEXT);
}

static void fill(void **state)
{
	st->gpr[X86_RAX] = 0x1122334455667788;
	regs(0, 0x60002, 0x600);
	assert_int_equal(fake_run(f, h_stos, OP(4, 1)), FAKE_NONE);
	for (unsigned i = 0; i < 0x600; i++)
		assert_int_equal(fake_get(f, 0x60002 + 4 * i, 4), 0x55667788);
	assert_int_equal(fake_get(f, 0x60002 + 0x1800, 4), 0);
}

static void load_merges_narrow_elements(void **state)
{
	st->gpr[X86_RAX] = ~UINT64_C(0);
	fake_put(f, 0x60000, 0x1234, 2);
	regs(0x60000, 0, 0);
	assert_int_equal(fake_run(f, h_lods, OP(2, 0)), FAKE_NONE);
	assert_int_equal(st->gpr[X86_RAX], 0xffffffffffff1234);
	assert_int_equal(st->gpr[X86_RSI], 0x60002);
}

static void compare_stops_at_the_difference_with_its_flags(void **state)
{
	memcpy(f->ram + 0x60000, f->ram + 0x50000, 0x2000);
	f->ram[0x61234] = (uint8_t)(f->ram[0x51234] + 1); /* source below destination: CF */
	regs(0x50000, 0x60000, 0x2000);
	assert_int_equal(fake_run(f, h_cmps, OP(1, 1)), FAKE_NONE);
	assert_int_equal(st->gpr[X86_RSI], 0x51235);
	assert_int_equal(st->gpr[X86_RCX], 0x2000 - 0x1235);
	assert_int_equal(jit_flags_get(f->c) & (RFLAGS_ZF | RFLAGS_CF), RFLAGS_CF);
	assert_int_equal(st->rip, NEXT);
}

static void scan_finds_the_byte(void **state)
{
	f->ram[0x61800] = 0x5a;
	st->gpr[X86_RAX] = 0x5a;
	regs(0, 0x60000, ~UINT64_C(0));
	assert_int_equal(fake_run(f, h_scas, OP(1, 2)), FAKE_NONE);
	assert_int_equal(st->gpr[X86_RDI], 0x61801);
	assert_int_equal(st->gpr[X86_RCX], ~UINT64_C(0) - 0x1801);
	assert_true(jit_flags_get(f->c) & RFLAGS_ZF);
}

static void addresses_of_32_bits_wrap(void **state)
{
	regs(0x50000, 0xffffffff00060000, 0x10);
	assert_int_equal(fake_run(f, h_movs, ARG(3, 1, 4, X86_DS, 1)), FAKE_NONE);
	assert_int_equal(st->gpr[X86_RDI], 0x60010);
	assert_memory_equal(f->ram + 0x60000, f->ram + 0x50000, 0x10);
}

/* --- legacy.c --- */
static void decimal_adjustments(void **state)
{
	st->gpr[X86_RAX] = 0xae; /* 0x79 + 0x35 */
	jit_flags_set_arith(f->c, 0);
	fake_run(f, h_daa, ARG(1, 1, 0, 0, 0));
	assert_int_equal(st->gpr[X86_RAX], 0x14);
	assert_int_equal(jit_flags_get(f->c), RFLAGS_CF | RFLAGS_AF | RFLAGS_PF | RFLAGS_FIXED);
	st->gpr[X86_RAX] = 0xee; /* 0x35 - 0x47, borrow */
	jit_flags_set_arith(f->c, RFLAGS_CF | RFLAGS_AF);
	fake_run(f, h_das, ARG(1, 1, 0, 0, 0));
	assert_int_equal(st->gpr[X86_RAX], 0x88);
	assert_true(jit_flags_get(f->c) & RFLAGS_CF);
	st->gpr[X86_RAX] = 0x020f;
	jit_flags_set_arith(f->c, 0);
	fake_run(f, h_aas, ARG(1, 1, 0, 0, 0));
	assert_int_equal(st->gpr[X86_RAX], 0x0109);
	assert_int_equal(fake_run(f, h_aam, ARG(2, 1, 0, 0, 0)), X86_DE);
	st->gpr[X86_RAX] = 0x0307;
	fake_run(f, h_aad, ARG(2, 1, 0, 0, 10));
	assert_int_equal(st->gpr[X86_RAX], 37);
}

static void enter_copies_the_display(void **state)
{
	st->gpr[X86_RBP] = 0x21000;
	fake_put(f, 0x20ff8, 0xabcd, 8);
	assert_int_equal(fake_run(f, h_enter, ARG(4, 8, 0, 0, 0x20 | 2 << 16)), FAKE_NONE);
	assert_int_equal(fake_get(f, 0x1fff8, 8), 0x21000);
	assert_int_equal(fake_get(f, 0x1fff0, 8), 0xabcd);
	assert_int_equal(fake_get(f, 0x1ffe8, 8), 0x1fff8);
	assert_int_equal(st->gpr[X86_RBP], 0x1fff8);
	assert_int_equal(st->gpr[X86_RSP], 0x1ffe8 - 0x20);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(copies_across_pages_at_odd_addresses),
		TEST(wide_elements_that_cross_pages),
		TEST(overlapping_forward_copy_repeats_the_first_byte),
		TEST(backward_copy),
		TEST(fault_leaves_exact_progress),
		TEST(attention_stops_between_runs),
		TEST(trap_flag_does_one_iteration),
		TEST(no_count_no_access),
		TEST(fill),
		TEST(load_merges_narrow_elements),
		TEST(compare_stops_at_the_difference_with_its_flags),
		TEST(scan_finds_the_byte),
		TEST(addresses_of_32_bits_wrap),
		TEST(decimal_adjustments),
		TEST(enter_copies_the_display),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
