#include "base/test.h"

#include <time.h>

#include "base/fake_clock.h"
#include "cpu/cpuid.h"
#include "cpu/jit/core.h"
#include "cpu/jit/sys_priv.h"
#include "cpu/jit/tlb.h"
#include "cpu/msr.h"

/* The time of several vCPUs is one. */
#define CPUS  3
#define TICKS 1000000000u /* of TSC per second */
#define CLOCK 0x1000u     /* clock pages, 64 bytes apart */

static struct cpuid_table cpuid;
static struct fake_clock guest_clock;
static struct guest_mem *mem;
static struct engine_vm *vm;
static struct vcpu *cpu[CPUS];
static struct x86_state st;
static struct err err;

static void load_all(uint64_t tsc)
{
	for (unsigned i = 0; i < CPUS; i++) {
		x86_state_reset(&st, i);
		st.tsc = tsc;
		assert_int_equal(engine_jit.load(cpu[i], &st, &err), 0);
	}
}

static int setup(void **state)
{
	const struct cpuid_opts opts = {
		.tsc_hz = TICKS, .apic_hz = 1, .cpus = CPUS, .have_x2apic = true, .jit = true};
	static struct engine_env env;

	fake_clock_init(&guest_clock);
	if (mem_new(&mem, MIB(1), &err) < 0 || cpuid_host(&cpuid, &opts, &err) < 0)
		return -1;
	env = (struct engine_env){.mem = mem,
				  .cpuid = &cpuid,
				  .clock = &guest_clock.clock,
				  .code_cache_bytes = JIT_CACHE_MIN};
	if (engine_jit.vm_new(&vm, &env, &err) < 0)
		return -1;
	for (unsigned i = 0; i < CPUS; i++)
		if (engine_jit.vcpu_new(&cpu[i], vm, i, &err) < 0)
			return -1;
	load_all(1000);
	return 0;
}

static int teardown(void **state)
{
	for (unsigned i = 0; i < CPUS; i++)
		engine_jit.vcpu_free(cpu[i]);
	engine_jit.vm_free(vm);
	mem_free(mem);
	return 0;
}

static uint64_t offset(unsigned i)
{
	return to_jit(cpu[i])->tsc_offset;
}

static void loaded_together_they_are_in_step(void **state)
{
	assert_true(engine_jit.tsc(cpu[0]) >= 1000);
	assert_int_equal(offset(1), offset(0));
	assert_int_equal(offset(2), offset(0));
	load_all(UINT64_C(1) << 60);
	assert_true(engine_jit.tsc(cpu[0]) >> 60);
	assert_int_equal(offset(2), offset(0));
}

static void a_guest_may_set_them_apart(void **state)
{
	x86_state_reset(&st, 1);
	st.tsc = 1000 + 5000ull * TICKS;
	assert_int_equal(engine_jit.load(cpu[1], &st, &err), 0);
	assert_true(offset(1) - offset(0) > 4000ull * TICKS);
}

static void wait_ms(long ms)
{
	const struct timespec t = {0, ms * 1000000};

	nanosleep(&t, NULL);
}

static void a_pause_keeps_them_in_step(void **state)
{
	for (unsigned round = 0; round < 2; round++) {
		uint64_t from, to, old = offset(2);

		for (unsigned i = 0; i < CPUS; i++)
			engine_jit.freeze(cpu[i], true);
		from = engine_jit.tsc(cpu[2]);
		wait_ms(5);
		to = engine_jit.tsc(cpu[2]);
		for (unsigned i = 0; i < CPUS; i++) {
			engine_jit.freeze(cpu[i], false);
			wait_ms(1);
		}
		assert_true(old - offset(2) >= to - from); /* it stood still for that long */
		assert_int_equal(offset(1), offset(0));
		assert_int_equal(offset(2), offset(0));
	}
}

static void publish(unsigned i)
{
	to_jit(cpu[i])->st.kvm_system_time = (CLOCK + 64 * i) | 1;
	kvmclock_publish(to_jit(cpu[i]));
}

static uint64_t clock_word(unsigned i, unsigned at)
{
	return load_le(mem_span(mem, CLOCK + 64 * i + at, 8), 8);
}

/* Of the clock page: at 8 the TSC, at 16 the time at that moment. */
static void clock_pages_count_from_one_point(void **state)
{
	fake_clock_advance(&guest_clock, 123);
	publish(0);
	fake_clock_advance(&guest_clock, 1000000);
	publish(1);
	assert_int_equal(clock_word(0, 16), 123);
	assert_int_equal(clock_word(1, 16), 123);
	assert_int_equal(clock_word(1, 8), clock_word(0, 8));
	for (unsigned i = 0; i < CPUS; i++)
		engine_jit.freeze(cpu[i], true);
	wait_ms(2);
	for (unsigned i = 0; i < CPUS; i++)
		engine_jit.freeze(cpu[i], false);
	publish(2); /* after a pause: the same point still, in the guest's TSC */
	assert_int_equal(clock_word(2, 16), 123);
	assert_int_equal(clock_word(2, 8), clock_word(0, 8));
}

#define STEAL 0x2000u /* the steal time of vCPU 1 */

static struct jit_cpu *with_steal_time(void)
{
	struct jit_cpu *c = to_jit(cpu[1]);

	assert_false(jit_msr_write(c, MSR_KVM_STEAL_TIME, STEAL | 3)); /* reserved */
	assert_true(jit_msr_write(c, MSR_KVM_STEAL_TIME, STEAL | 1));
	return c;
}

static uint8_t *preempted(void)
{
	return mem_span(mem, STEAL + 16, 1);
}

static void who_is_away_says_so_and_flushes_if_asked(void **state)
{
	struct jit_cpu *c = with_steal_time();
	struct jit_tlb_entry *e = &c->tlb[5].e[MMU_USER];

	for (unsigned asked = 0; asked < 2; asked++) {
		e->tag_read = 0x5000;
		atomic_store(&c->attention, 0);
		tlb_note(c, MMU_USER, 5);
		steal_away(c);
		assert_int_equal(*preempted(), 1);
		*preempted() |= asked << 1;
		steal_back(c);
		assert_int_equal(*preempted(), 0);
		assert_int_equal(e->tag_read == 0x5000, !asked);
		assert_int_equal(atomic_load(&c->attention), asked); /* it leaves its block */
	}
	assert_true(jit_msr_write(c, MSR_KVM_STEAL_TIME, STEAL));
	steal_away(c);
	assert_int_equal(*preempted(), 0);
}

static void steal_time_is_what_the_thread_waited(void **state)
{
	struct jit_cpu *c = with_steal_time();
	uint8_t *at = mem_span(mem, STEAL, 64);

	steal_count(c);
	assert_int_equal(load_le(at, 8), 0); /* what was before does not count */
	if (!c->p->steal.known)
		skip(); /* a host that does not tell */
	c->p->steal.counted = 0;
	c->p->steal.seen = 0;
	store_le(at, 100, 8);
	steal_count(c);
	assert_int_equal(load_le(at, 8), 100 + c->p->steal.seen);
	assert_int_equal(load_le(at + 8, 4) & 1, 0);
	assert_true(jit_msr_write(c, MSR_KVM_STEAL_TIME, MIB(1) | 1)); /* no RAM */
	c->p->steal.counted = 0;
	steal_count(c);
	steal_away(c);
	steal_back(c);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(loaded_together_they_are_in_step),
		TEST(a_guest_may_set_them_apart),
		TEST(a_pause_keeps_them_in_step),
		TEST(clock_pages_count_from_one_point),
		TEST(who_is_away_says_so_and_flushes_if_asked),
		TEST(steal_time_is_what_the_thread_waited),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
