#include "base/test.h"

#include <string.h>

#include "cpu/cpuid.h"
#include "cpu/jit/jit_priv.h"

/* engine->step in real mode: the IVT is all zeros but for #DB. */
#define CODE    0x1000u
#define WATCHED 0x2000u
#define HANDLER 0x3000u

static struct cpuid_table cpuid;
static struct guest_mem *mem;
static struct engine_vm *vm;
static struct vcpu *cpu;
static struct x86_state st;
static struct err err;

static int setup(void **state)
{
	const struct cpuid_opts opts = {.tsc_hz = 1000000000, .apic_hz = 1, .cpus = 1, .jit = true};
	static struct engine_env env;
	uint8_t *ram;

	if (mem_new(&mem, MIB(1), &err) < 0 || cpuid_host(&cpuid, &opts, &err) < 0)
		return -1;
	env = (struct engine_env){.mem = mem, .cpuid = &cpuid, .code_cache_bytes = JIT_CACHE_MIN};
	if (engine_jit.vm_new(&vm, &env, &err) < 0 || engine_jit.vcpu_new(&cpu, vm, 0, &err) < 0)
		return -1;
	ram = mem_span(mem, 0, MIB(1));
	store_le(ram + 4 * X86_DB, HANDLER, 4);
	memcpy(ram + CODE, "\x8e\x16\x00\x20\x90\x90", 6); /* mov ss, [WATCHED]; nop; nop */
	memcpy(ram + HANDLER, "\x90", 1);
	x86_state_reset(&st, 0);
	for (unsigned s = 0; s < X86_SREGS; s++)
		st.seg[s].sel = 0, st.seg[s].base = 0;
	st.rip = CODE;
	st.gpr[X86_RSP] = 0x8000;
	st.dr[0] = WATCHED;
	st.dr7 = 0x402 | 3 << 16; /* G0: a byte, read or written */
	return engine_jit.load(cpu, &st, &err);
}

static int teardown(void **state)
{
	engine_jit.vcpu_free(cpu);
	engine_jit.vm_free(vm);
	mem_free(mem);
	return 0;
}

static uint64_t step(void)
{
	enum vcpu_stop why;

	assert_int_equal(engine_jit.step(cpu, &why, &err), 0);
	assert_int_equal(engine_jit.store(cpu, &st, &err), 0);
	return st.rip;
}

static void a_watched_stack_selector_traps_after_the_next_instruction(void **state)
{
	assert_int_equal(step(), CODE + 4);
	assert_int_equal(st.events.shadow, 2);
	assert_int_equal(step(), HANDLER);
	assert_int_equal(st.dr6 & 0x400f, 1);
	assert_int_equal(load_le((uint8_t *)mem_span(mem, 0x7ffa, 2), 2), CODE + 5);
}

static void what_was_held_back_is_forgotten_with_the_state(void **state)
{
	assert_int_equal(step(), CODE + 4);
	st.events.shadow = 0;
	assert_int_equal(engine_jit.load(cpu, &st, &err), 0);
	assert_int_equal(step(), CODE + 5);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_watched_stack_selector_traps_after_the_next_instruction),
		T(what_was_held_back_is_forgotten_with_the_state),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
