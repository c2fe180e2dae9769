#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <errno.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "cpu/probe_guest.h"
#include "cpu/probe_priv.h"

static struct probe_raw good(void)
{
	return (struct probe_raw){
		.step = STEP_DONE,
		.done = true,
		.insn_per_s = 2000000000,
		.seen = {.pf_cr2 = PROBE_UNMAPPED,
			 .pf_error = 2,
			 .soft = 1,
			 .external = 1,
			 .syscall_cs = PROBE_CS,
			 .sysret_cs = PROBE_USER_CS,
			 .cmpxchg16b = 1},
	};
}

static struct kvm_finding judge(struct probe_raw raw)
{
	struct kvm_finding f;

	kvm_judge(&raw, &f);
	assert_true(f.line[0] != 0);
	return f;
}

static void real_hardware_is_usable(void **unused)
{
	struct kvm_finding f = judge(good());

	assert_int_equal(f.verdict, KVM_USABLE);
	assert_true(f.has_page_fault && f.has_interrupt && f.has_syscall);
	assert_non_null(strstr(f.line, "2000 million"));
}

static void emulated_ring_0_is_slow(void **unused)
{
	struct probe_raw raw = good();

	raw.insn_per_s = 3500000;
	assert_int_equal(judge(raw).verdict, KVM_SLOW);
	assert_non_null(strstr(judge(raw).line, "3.5 million"));
}

static void syscall_that_stays_in_ring_3_is_broken(void **unused)
{
	struct probe_raw raw = good();

	raw.step = STEP_SYSCALL;
	raw.done = false;
	raw.trap = true;
	raw.insn_per_s = 3500000;
	raw.seen.syscall_cs = PROBE_USER_CS;
	raw.seen.sysret_cs = 0;
	assert_int_equal(judge(raw).verdict, KVM_BROKEN);
	assert_non_null(strstr(judge(raw).line, "SYSCALL from user mode stays in user mode"));
	assert_false(judge(raw).has_syscall);
	assert_true(judge(raw).emulates_ring0);
	assert_true(judge(raw).has_page_fault);
}

static void a_wrong_error_code_is_broken(void **unused)
{
	struct probe_raw raw = good();

	raw.seen.pf_error = 0;
	assert_int_equal(judge(raw).verdict, KVM_BROKEN);
	assert_false(judge(raw).has_page_fault);
}

/* Nothing is measured then. */
static void what_is_wrong_before_the_loop_counts(void **unused)
{
	struct probe_raw raw = good();

	raw.step = STEP_LOOP;
	raw.done = false;
	raw.insn_per_s = 0;
	raw.seen.soft = 0;
	assert_int_equal(judge(raw).verdict, KVM_BROKEN);
	assert_non_null(strstr(judge(raw).line, "INT n does not arrive"));
}

static void a_lost_interrupt_is_broken(void **unused)
{
	struct probe_raw raw = good();

	raw.seen.external = 0;
	assert_int_equal(judge(raw).verdict, KVM_BROKEN);
	assert_false(judge(raw).has_interrupt);
}

static void an_exit_where_none_belongs_names_the_step(void **unused)
{
	struct probe_raw raw = good();

	raw.step = STEP_CMPXCHG16B;
	raw.done = false;
	raw.exit_reason = KVM_EXIT_INTERNAL_ERROR;
	assert_int_equal(judge(raw).verdict, KVM_BROKEN);
	assert_non_null(strstr(judge(raw).line, "CMPXCHG16B"));
}

static void a_hang_is_broken(void **unused)
{
	struct probe_raw raw = {.late = true};

	assert_int_equal(judge(raw).verdict, KVM_BROKEN);
	assert_non_null(strstr(judge(raw).line, "first instruction"));
}

static void a_missing_or_closed_device_says_so(void **unused)
{
	struct probe_raw raw = {.open_errno = ENOENT};

	assert_int_equal(judge(raw).verdict, KVM_ABSENT);
	raw.open_errno = EACCES;
	assert_int_equal(judge(raw).verdict, KVM_DENIED);
	assert_non_null(strstr(judge(raw).line, "usermod -aG kvm"));
}

static void a_vm_that_cannot_be_made_is_broken(void **unused)
{
	struct probe_raw raw = {.setup = "KVM_CREATE_VM", .setup_errno = ENOMEM};

	assert_int_equal(judge(raw).verdict, KVM_BROKEN);
	assert_non_null(strstr(judge(raw).line, "KVM_CREATE_VM"));
}

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000ull + t.tv_nsec / 1000000;
}

/* Whatever this host is, the finding agrees with itself and comes soon. */
static void this_host_is_judged_in_time(void **unused)
{
	uint64_t start = now_ms(), took;
	struct kvm_finding f;

	kvm_probe(&f);
	took = now_ms() - start;
	print_message("probe: %s [%llu ms]\n", f.line, (unsigned long long)took);
	assert_true(took < 2000);
	if (f.verdict == KVM_USABLE)
		assert_true(f.has_page_fault && f.has_interrupt && f.has_syscall &&
			    f.insn_per_s >= PROBE_SLOW_BELOW);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(real_hardware_is_usable),
		cmocka_unit_test(emulated_ring_0_is_slow),
		cmocka_unit_test(syscall_that_stays_in_ring_3_is_broken),
		cmocka_unit_test(a_wrong_error_code_is_broken),
		cmocka_unit_test(what_is_wrong_before_the_loop_counts),
		cmocka_unit_test(a_lost_interrupt_is_broken),
		cmocka_unit_test(an_exit_where_none_belongs_names_the_step),
		cmocka_unit_test(a_hang_is_broken),
		cmocka_unit_test(a_missing_or_closed_device_says_so),
		cmocka_unit_test(a_vm_that_cannot_be_made_is_broken),
		cmocka_unit_test(this_host_is_judged_in_time),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
