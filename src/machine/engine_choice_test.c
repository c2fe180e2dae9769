#include "machine/engine_choice.h"

#include <errno.h>
#include <string.h>

#include "base/test.h"
#include "cpu/engine.h"
#include "cpu/probe.h"

/* Never run here. */
const struct engine engine_jit = {.name = "jit"};

static const struct kvm_finding good = {.verdict = KVM_USABLE, .line = "works"};
static const struct kvm_finding absent = {.verdict = KVM_ABSENT, .line = "no KVM"};
static const struct kvm_finding slow = {.verdict = KVM_SLOW, .line = "emulates guest kernels"};

static const struct engine *engine;
static char reason[ENGINE_REASON_LEN];
static struct err err;

static int decide(enum engine_choice choice, bool force, const struct kvm_finding *f)
{
	engine = NULL;
	reason[0] = 0;
	return engine_decide(&engine, reason, choice, force, f, &err);
}

static void auto_follows_the_probe(void **state)
{
	assert_int_equal(decide(ENGINE_AUTO, false, &good), 0);
	assert_ptr_equal(engine, &engine_kvm);
	assert_int_equal(decide(ENGINE_AUTO, false, &slow), 0);
	assert_ptr_equal(engine, &engine_jit);
	assert_string_equal(reason, "emulates guest kernels");
}

static void force_does_not_change_auto(void **state)
{
	assert_int_equal(decide(ENGINE_AUTO, true, &slow), 0);
	assert_ptr_equal(engine, &engine_jit);
}

static void kvm_is_refused_with_the_finding(void **state)
{
	assert_int_equal(decide(ENGINE_KVM, false, &slow), -ENOTSUP);
	assert_null(engine);
	assert_non_null(strstr(err.text, "emulates guest kernels"));
}

static void there_is_nothing_to_force_without_kvm(void **state)
{
	assert_int_equal(decide(ENGINE_KVM, false, &absent), -ENODEV);
}

static void kvm_can_be_forced(void **state)
{
	assert_int_equal(decide(ENGINE_KVM, true, &slow), 0);
	assert_ptr_equal(engine, &engine_kvm);
	assert_non_null(strstr(reason, "forced"));
}

static void jit_needs_no_probe(void **state)
{
	assert_int_equal(decide(ENGINE_JIT, false, NULL), 0);
	assert_ptr_equal(engine, &engine_jit);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(auto_follows_the_probe),
		cmocka_unit_test(force_does_not_change_auto),
		cmocka_unit_test(kvm_is_refused_with_the_finding),
		cmocka_unit_test(there_is_nothing_to_force_without_kvm),
		cmocka_unit_test(kvm_can_be_forced),
		cmocka_unit_test(jit_needs_no_probe),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
