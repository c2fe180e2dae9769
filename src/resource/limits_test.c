#include "resource/limits.h"

#include <errno.h>

#include "base/test.h"

static void caps(void **state)
{
	char text[CAP_TEXT_LEN];
	unsigned cap = 7;

	assert_int_equal(cap_parse("50%", &cap, NULL), 0);
	assert_int_equal(cap, 500);
	assert_string_equal(cap_text(text, cap), "50%");
	assert_int_equal(cap_parse("1.5%", &cap, NULL), 0);
	assert_int_equal(cap, 15);
	assert_string_equal(cap_text(text, cap), "1.5%");
	assert_int_equal(cap_parse("102400%", &cap, NULL), 0);
	assert_int_equal(cap, CAP_MAX);
	assert_int_equal(cap_parse("off", &cap, NULL), 0);
	assert_int_equal(cap, 0);
	assert_string_equal(cap_text(text, cap), "off");
	assert_int_equal(cap_parse("0.5%", &cap, NULL), -EINVAL);
	assert_int_equal(cap_parse("50", &cap, NULL), -EINVAL);
	assert_int_equal(cap_parse("-50%", &cap, NULL), -EINVAL);
	assert_int_equal(cap_parse("%", &cap, NULL), -EINVAL);
	assert_int_equal(cap_parse("99999999999999999999%", &cap, NULL), -EINVAL);
	assert_int_equal(cap_parse("102401%", &cap, NULL), -EINVAL);
	assert_int_equal(cap, 0); /* untouched */
}

static void lists_of_cpus(void **state)
{
	cpu_set_t s;

	assert_int_equal(cpus_parse("0-2,7", &s, NULL), 0);
	assert_int_equal(CPU_COUNT(&s), 4);
	assert_true(CPU_ISSET(1, &s) && CPU_ISSET(7, &s));
	assert_int_equal(cpus_parse("1023", &s, NULL), 0);
	assert_int_equal(cpus_parse("1024", &s, NULL), -EINVAL);
	assert_int_equal(cpus_parse("2-1", &s, NULL), -EINVAL);
	assert_int_equal(cpus_parse("1-", &s, NULL), -EINVAL);
	assert_int_equal(cpus_parse("1,", &s, NULL), -EINVAL);
	assert_int_equal(cpus_parse("", &s, NULL), -EINVAL);
	assert_int_equal(cpus_parse("a", &s, NULL), -EINVAL);
}

static void pins(void **state)
{
	struct cpu_pin p;

	assert_int_equal(cpu_pin_parse("1", &p, NULL), 0);
	assert_int_equal(p.vcpu, PIN_ALL);
	assert_int_equal(cpu_pin_parse("vcpu12=0-1", &p, NULL), 0);
	assert_int_equal(p.vcpu, 12);
	assert_int_equal(CPU_COUNT(&p.cpus), 2);
	assert_int_equal(cpu_pin_parse("vcpu=1", &p, NULL), -EINVAL);
	assert_int_equal(cpu_pin_parse("cpu1=1", &p, NULL), -EINVAL);
	assert_int_equal(cpu_pin_parse("vcpu1x=1", &p, NULL), -EINVAL);
	assert_int_equal(cpu_pin_parse("vcpu99999999999999999999=1", &p, NULL), 0);
	assert_int_not_equal(p.vcpu, PIN_ALL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(caps),
		cmocka_unit_test(lists_of_cpus),
		cmocka_unit_test(pins),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
