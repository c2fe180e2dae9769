#include "cpu/msr.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/bits.h"
#include "cpu/cpuid.h"

static void every_number_is_found_and_the_table_is_sorted(void **unused)
{
	unsigned n;
	const struct msr_desc *t = msr_table(&n);

	for (unsigned i = 0; i < n; i++) {
		assert_ptr_equal(msr_find(t[i].number), &t[i]);
		assert_true(i == 0 || t[i - 1].number < t[i].number);
		assert_true(t[i].offset % 8 == 0 && t[i].offset < sizeof(struct x86_state));
	}
	assert_null(msr_find(0));
	assert_null(msr_find(0x800));
	assert_null(msr_find(0xffffffff));
}

static void no_two_numbers_share_a_field(void **unused)
{
	unsigned n;
	const struct msr_desc *t = msr_table(&n);

	for (unsigned i = 0; i < n; i++)
		for (unsigned k = 0; k < i; k++)
			assert_true(t[i].flags & MSR_CONST || t[k].flags & MSR_CONST ||
				    t[i].offset != t[k].offset);
}

static void a_field_is_where_the_state_has_it(void **unused)
{
	struct x86_state s = {.lstar = 0x1234, .seg[X86_GS].base = 0x5678, .mc_misc[3] = 9};

	assert_int_equal(msr_read(&s, msr_find(0xc0000082)), 0x1234);
	assert_int_equal(msr_read(&s, msr_find(MSR_GS_BASE)), 0x5678);
	assert_int_equal(msr_read(&s, msr_find(0x40f)), 9);
	*msr_field(&s, msr_find(0x250)) = 7;
	assert_int_equal(s.mtrr_fixed[0], 7);
	assert_int_equal(msr_read(&s, msr_find(0xfe)), 0x508);
}

static void addresses_must_be_canonical(void **unused)
{
	const struct msr_desc *lstar = msr_find(0xc0000082);

	assert_true(msr_writable(lstar, 0xffff800000000000, 48));
	assert_true(msr_writable(lstar, 0x00007fffffffffff, 48));
	assert_false(msr_writable(lstar, 0x0000800000000000, 48));
	assert_true(msr_writable(lstar, 0x0000800000000000, 57));
	assert_false(msr_writable(lstar, 0x0100000000000000, 57));
}

static void reserved_bits_and_types_are_refused(void **unused)
{
	assert_true(msr_writable(msr_find(MSR_EFER), EFER_NXE | EFER_SCE, 48));
	assert_true(msr_writable(msr_find(MSR_EFER), EFER_AUTOIBRS, 48));
	assert_false(msr_writable(msr_find(MSR_EFER), BIT(12), 48));
	assert_true(msr_writable(msr_find(0x277), 0x0007040600070406, 48));
	assert_false(msr_writable(msr_find(0x277), 0x0007040600070402, 48));
	assert_false(msr_writable(msr_find(0x250), 7, 48));
	assert_true(msr_writable(msr_find(0x2ff), 0xc06, 48));
	assert_false(msr_writable(msr_find(0x2ff), 0xc07, 48));
	assert_true(msr_writable(msr_find(0x200), 0xe0000000, 48));
	assert_false(msr_writable(msr_find(0x200), 0xe0000002, 48));
	assert_false(msr_writable(msr_find(0xfe), 0x508, 48));
	assert_true(msr_writable(msr_find(0x8b), 1, 48));
}

static void machine_check_banks_take_what_hardware_takes(void **unused)
{
	const struct msr_desc *ctl = msr_find(0x404), *status = msr_find(0x405);

	assert_true(msr_writable(ctl, 0, 48));
	assert_true(msr_writable(ctl, ~0ull, 48));
	assert_true(msr_writable(ctl, ~0ull & ~BIT(10), 48));
	assert_false(msr_writable(ctl, 0xaaaaaaaaaaaaaaaa, 48));
	assert_true(msr_writable(status, 0, 48));
	assert_false(msr_writable(status, 1, 48));
}

static void speculation_controls_follow_cpuid(void **unused)
{
	struct cpuid_table none = {0}, some = {.count = 1, .leaf[0] = {.leaf = 7}};

	for (unsigned n = 0; n < 3; n++) {
		static const uint32_t numbers[] = {MSR_SPEC_CTRL, MSR_PRED_CMD, MSR_FLUSH_CMD};
		static const uint8_t bits[] = {31, 26, 28};

		assert_false(msr_offered(msr_find(numbers[n]), &none));
		some.leaf[0].edx = BIT(bits[n]);
		assert_true(msr_offered(msr_find(numbers[n]), &some));
	}
	assert_true(msr_offered(msr_find(MSR_EFER), &none));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(machine_check_banks_take_what_hardware_takes),
		cmocka_unit_test(speculation_controls_follow_cpuid),
		cmocka_unit_test(every_number_is_found_and_the_table_is_sorted),
		cmocka_unit_test(no_two_numbers_share_a_field),
		cmocka_unit_test(a_field_is_where_the_state_has_it),
		cmocka_unit_test(addresses_must_be_canonical),
		cmocka_unit_test(reserved_bits_and_types_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
