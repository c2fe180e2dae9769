#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "cpu/cpuid.h"
#include "cpu/x86_state.h"

static struct cpuid_table t;
static struct x86_state s;

static int setup(void **state)
{
	const struct cpuid_opts o = {
		.cpus = 4, .jit = true, .have_x2apic = true, .tsc_hz = 2400000000};
	struct err e;

	x86_state_reset(&s, 0);
	return cpuid_host(&t, &o, &e);
}

static void query(uint32_t leaf, uint32_t sub, uint32_t out[4])
{
	cpuid_query(&t, &s, 2, leaf, sub, out);
}

static void what_the_engine_does_not_carry_is_absent(void **state)
{
	assert_false(cpuid_has(&t, 1, 0, CPUID_ECX, 3));          /* MONITOR */
	assert_false(cpuid_has(&t, 1, 0, CPUID_ECX, 5));          /* VMX */
	assert_false(cpuid_has(&t, 1, 0, CPUID_ECX, 17));         /* PCID */
	assert_false(cpuid_has(&t, 7, 0, CPUID_EBX, 10));         /* INVPCID */
	assert_false(cpuid_has(&t, 7, 0, CPUID_EBX, 11));         /* RTM */
	assert_false(cpuid_has(&t, 7, 0, CPUID_ECX, 3));          /* PKU */
	assert_false(cpuid_has(&t, 7, 0, CPUID_ECX, 16));         /* LA57 */
	assert_false(cpuid_has(&t, 0x80000001, 0, CPUID_ECX, 2)); /* SVM */
	assert_true(cpuid_has(&t, 7, 0, CPUID_EBX, 20));          /* SMAP */
	assert_true(cpuid_has(&t, 0x80000001, 0, CPUID_EDX, 29)); /* long mode */
}

static void osxsave_and_apic_id_follow_the_vcpu(void **state)
{
	uint32_t out[4];

	query(1, 0, out);
	assert_int_equal(out[1] >> 24, 2);
	assert_int_equal(out[2] >> 27 & 1, 0);
	s.cr4 |= CR4_OSXSAVE;
	query(1, 0, out);
	assert_int_equal(out[2] >> 27 & 1, 1);
	query(0xb, 1, out);
	assert_int_equal(out[0], 2);
	assert_int_equal(out[1], 4);
	assert_int_equal(out[3], 2);
}

static void xsave_size_follows_xcr0(void **state)
{
	uint32_t out[4], avx[4];

	s.xcr0 = 3;
	query(0xd, 0, out);
	assert_int_equal(out[1], 576);
	if (!(t.xcr0_mask & XCR0_AVX))
		skip();
	s.xcr0 = 7;
	query(0xd, 2, avx);
	query(0xd, 0, out);
	assert_int_equal(out[1], avx[0] + avx[1]);
	query(0xd, 1, out);
	assert_int_equal(out[1], 576 + 256);
}

static void kvm_leaves_name_the_frequencies(void **state)
{
	uint32_t out[4];

	query(0x40000000, 0, out);
	assert_memory_equal(&out[1], "KVMKVMKVM\0\0", 12);
	query(0x40000010, 0, out);
	assert_int_equal(out[0], 2400000);
	assert_int_equal(out[1], 1000000);
	query(0x15, 0, out);
	assert_int_equal((uint64_t)out[2] * out[1] / out[0], 2400000000);
}

static void unknown_leaves_do_not_fail(void **state)
{
	uint32_t out[4];

	query(0x12345678, 9, out);
	query(0xffffffff, 0xffffffff, out);
	query(0x1f, 0, out);
}

static void the_measured_tsc_is_near_what_time_says(void **state)
{
	const struct cpuid_opts o = {.cpus = 1, .jit = true};
	struct cpuid_table m;
	struct err e;

	assert_int_equal(cpuid_host(&m, &o, &e), 0);
	assert_true(m.tsc_hz > 500000000 && m.tsc_hz < UINT64_C(10000000000));
	assert_false(cpuid_has(&m, 1, 0, CPUID_ECX, 21));
}

static void no_cpus_is_an_error(void **state)
{
	const struct cpuid_opts o = {.cpus = 0, .jit = true};
	struct cpuid_table m;
	struct err e;

	assert_true(cpuid_host(&m, &o, &e) < 0);
}

static void a_state_prints_whole_and_cut_short(void **state)
{
	char text[4096], cut[40];

	s.gpr[15] = 0x123456789abcdef0;
	x86_state_print(&s, text, sizeof text);
	assert_non_null(strstr(text, "r15 123456789abcdef0"));
	assert_non_null(strstr(text, "running"));
	memset(cut, '#', sizeof cut);
	x86_state_print(&s, cut, sizeof cut - 1);
	assert_int_equal(strlen(cut), sizeof cut - 2);
	assert_int_equal(cut[sizeof cut - 1], '#');
	assert_memory_equal(cut, text, sizeof cut - 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(what_the_engine_does_not_carry_is_absent, setup),
		cmocka_unit_test_setup(osxsave_and_apic_id_follow_the_vcpu, setup),
		cmocka_unit_test_setup(xsave_size_follows_xcr0, setup),
		cmocka_unit_test_setup(kvm_leaves_name_the_frequencies, setup),
		cmocka_unit_test_setup(unknown_leaves_do_not_fail, setup),
		cmocka_unit_test_setup(the_measured_tsc_is_near_what_time_says, setup),
		cmocka_unit_test_setup(no_cpus_is_an_error, setup),
		cmocka_unit_test_setup(a_state_prints_whole_and_cut_short, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
