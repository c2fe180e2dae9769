#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
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
	assert_true(cpuid_has(&t, 1, 0, CPUID_ECX, 17));          /* PCID */
	assert_true(cpuid_has(&t, 7, 0, CPUID_EBX, 10));          /* INVPCID */
	assert_false(cpuid_has(&t, 7, 0, CPUID_EBX, 11));         /* RTM */
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

/* The JIT has them on any host with XSAVE. */
static void protection_keys_come_with_a_state_component(void **state)
{
	uint32_t out[4], size[4];

	assert_int_equal(cpuid_has(&t, 7, 0, CPUID_ECX, 3), t.xcr0_mask != 0);
	if (!t.xcr0_mask)
		skip();
	assert_true(t.xcr0_mask & XCR0_PKRU);
	query(7, 0, out);
	assert_false(out[CPUID_ECX] & 1u << 4);
	s.cr4 |= CR4_PKE;
	query(7, 0, out);
	assert_true(out[CPUID_ECX] & 1u << 4); /* OSPKE */
	query(0xd, 9, out);
	assert_int_equal(out[CPUID_EAX], 8);
	assert_true(out[CPUID_EBX] >= 576 && out[CPUID_EBX] + 8 <= X86_XSAVE_BYTES);
	s.xcr0 = t.xcr0_mask;
	query(0xd, 0, size);
	assert_int_equal(size[CPUID_EBX], size[CPUID_ECX]);
	assert_true(size[CPUID_ECX] >= out[CPUID_EBX] + 8);
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

/* What a guest does against speculation has no effect in translation. */
static void the_jit_asks_for_no_mitigations(void **state)
{
	if (!cpuid_is_amd(&t)) {
		assert_true(cpuid_has(&t, 7, 0, CPUID_EDX, 26) &&
			    cpuid_has(&t, 7, 0, CPUID_EDX, 29));
		return;
	}
	assert_true(cpuid_has(&t, 0x80000008, 0, CPUID_EBX, 29));
	assert_true(cpuid_has(&t, 0x80000021, 0, CPUID_EAX, 8));
	assert_true(cpuid_has(&t, 0x80000021, 0, CPUID_EAX, 29));
	assert_true(cpuid_has(&t, 0x80000021, 0, CPUID_ECX, 1));
	assert_true(cpuid_has(&t, 0x80000021, 0, CPUID_ECX, 2));
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

static int setup_model(enum cpuid_model m)
{
	const struct cpuid_opts o = {.cpus = 1, .jit = true, .tsc_hz = 2400000000, .model = m};
	struct err e;

	x86_state_reset(&s, 0);
	return cpuid_host(&t, &o, &e);
}

/* Level by level: what it adds is there, what the next one adds is not. */
static void a_model_has_its_levels_features_and_no_others(void **state)
{
	uint32_t out[4];

	assert_int_equal(setup_model(CPUID_MODEL_V1), 0);
	query(1, 0, out);
	assert_int_equal(out[CPUID_ECX], 1u << 24 | 1u << 31);
	assert_int_equal(out[CPUID_EDX], 0x078bfbfd);
	query(7, 0, out);
	assert_int_equal(out[CPUID_EBX] | out[CPUID_ECX] | out[CPUID_EDX], 0);
	query(0x80000001, 0, out);
	assert_int_equal(out[CPUID_ECX], 0);
	assert_int_equal(out[CPUID_EDX] & ~0x0183f3ffu, 0x20100800);
	query(0xd, 0, out);
	assert_int_equal(out[0] | out[1] | out[2] | out[3], 0);
	if (setup_model(CPUID_MODEL_V2) < 0)
		skip();
	query(1, 0, out);
	assert_int_equal(out[CPUID_ECX], 0x81982201);
	query(0x80000001, 0, out);
	assert_int_equal(out[CPUID_ECX], 1);
	if (setup_model(CPUID_MODEL_V3) < 0)
		skip();
	query(1, 0, out);
	assert_int_equal(out[CPUID_ECX], 0xb5d83201);
	query(7, 0, out);
	assert_int_equal(out[CPUID_EBX], 0x128);
	query(0x80000001, 0, out);
	assert_int_equal(out[CPUID_ECX], 0x21);
	assert_int_equal(t.xcr0_mask, 7);
	query(0xd, 0, out);
	assert_int_equal(out[CPUID_EAX], 7);
	assert_int_equal(out[CPUID_ECX], 832);
	if (setup_model(CPUID_MODEL_V4) < 0)
		skip();
	query(7, 0, out);
	assert_int_equal(out[CPUID_EBX], 0xd0030128);
	assert_int_equal(t.xcr0_mask, 0xe7);
}

static void a_model_that_the_host_lacks_is_refused_by_name(void **state)
{
	struct err e;

	assert_int_equal(setup(NULL), 0);
	for (unsigned i = 0; i < t.count; i++)
		if (t.leaf[i].leaf == 7 && t.leaf[i].subleaf == 0)
			t.leaf[i].ebx &= ~(1u << 5 | 1u << 16);
	assert_int_equal(cpuid_cut_to_model(&t, CPUID_MODEL_V3, &e), -ENOTSUP);
	assert_non_null(strstr(e.text, "x86-64-v3"));
	assert_non_null(strstr(e.text, "avx2"));
	assert_null(strstr(e.text, "avx512f"));
	assert_non_null(strstr(e.text, "up to x86-64-v2"));
	assert_int_equal(cpuid_cut_to_model(&t, CPUID_MODEL_V2, &e), 0);
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
		cmocka_unit_test_setup(protection_keys_come_with_a_state_component, setup),
		cmocka_unit_test_setup(xsave_size_follows_xcr0, setup),
		cmocka_unit_test_setup(the_jit_asks_for_no_mitigations, setup),
		cmocka_unit_test_setup(kvm_leaves_name_the_frequencies, setup),
		cmocka_unit_test_setup(unknown_leaves_do_not_fail, setup),
		cmocka_unit_test_setup(the_measured_tsc_is_near_what_time_says, setup),
		cmocka_unit_test_setup(no_cpus_is_an_error, setup),
		cmocka_unit_test(a_model_has_its_levels_features_and_no_others),
		cmocka_unit_test(a_model_that_the_host_lacks_is_refused_by_name),
		cmocka_unit_test_setup(a_state_prints_whole_and_cut_short, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
