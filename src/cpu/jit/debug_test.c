#include "base/test.h"

#include <errno.h>
#include <string.h>

#include "cpu/cpuid.h"
#include "cpu/jit/jit_priv.h"

/* engine->set_debug in real mode. */
#define CODE    0x1000u
#define HANDLER 0x3000u
#define STACK   0x8000u

enum { /* the guest's code */
       NOP = CODE,
       SET = CODE + 1,    /* mov ax, 5 */
       WRITE = CODE + 4,  /* mov [0x2000], ax */
       READ = CODE + 7,   /* mov bx, [0x2010] */
       PUSH = CODE + 11,  /* push ax */
       POP = CODE + 12,   /* pop cx */
       STORE = CODE + 13, /* inc word [0x2020] */
       COPY = CODE + 17,  /* mov si, 0x2100; mov di, 0x2200; mov cx, 8; rep movsb */
       REP = CODE + 26,
       INT = CODE + 28,  /* int 0x40 */
       JUMP = CODE + 30, /* jmp NOP */
};

static const uint8_t code[] = {
	0x90, 0xb8, 0x05, 0x00, 0xa3, 0x00, 0x20, 0x8b, 0x1e, 0x10, 0x20,
	0x50, 0x59, 0xff, 0x06, 0x20, 0x20, 0xbe, 0x00, 0x21, 0xbf, 0x00,
	0x22, 0xb9, 0x08, 0x00, 0xf3, 0xa4, 0xcd, 0x40, 0xeb, 0xe0,
};

static struct cpuid_table cpuid;
static struct guest_mem *mem;
static struct engine_vm *vm;
static struct vcpu *cpu;
static struct x86_state st;
static struct engine_debug debug;
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
	store_le(ram + 4 * 0x40, HANDLER, 4);
	memcpy(ram + CODE, code, sizeof code);
	ram[HANDLER] = 0xcf; /* iret */
	x86_state_reset(&st, 0);
	for (unsigned s = 0; s < X86_SREGS; s++)
		st.seg[s].sel = 0, st.seg[s].base = 0;
	st.rip = CODE;
	st.gpr[X86_RSP] = STACK;
	debug = (struct engine_debug){0};
	return engine_jit.load(cpu, &st, &err);
}

static int teardown(void **state)
{
	engine_jit.vcpu_free(cpu);
	engine_jit.vm_free(vm);
	mem_free(mem);
	return 0;
}

static void point(enum debug_kind kind, uint64_t gva, uint32_t len)
{
	debug.point[debug.points++] = (struct debug_point){gva, len, kind};
}

/* Runs to the next stop; where that is. */
static uint64_t run(void)
{
	enum vcpu_stop why;

	assert_int_equal(engine_jit.set_debug(cpu, &debug, &err), 0);
	assert_int_equal(engine_jit.run(cpu, &why, &err), 0);
	assert_int_equal(why, VCPU_BREAKPOINT);
	assert_int_equal(engine_jit.store(cpu, &st, &err), 0);
	return st.rip;
}

static void run_to(uint64_t rip, enum debug_kind kind, uint64_t gva)
{
	assert_int_equal(run(), rip);
	assert_false(cpu->hit.step);
	assert_int_equal(cpu->hit.kind, kind);
	assert_int_equal(cpu->hit.gva, gva);
}

static uint64_t step(void)
{
	struct engine_debug all = debug;
	uint64_t rip;

	debug = (struct engine_debug){.step = true};
	rip = run();
	assert_true(cpu->hit.step);
	debug = all;
	return rip;
}

static void execution_stops_before_the_instruction_each_time_round(void **state)
{
	point(DEBUG_EXEC, WRITE, 1);
	run_to(WRITE, DEBUG_EXEC, WRITE);
	assert_int_equal(load_le((uint8_t *)mem_span(mem, 0x2000, 2), 2), 0);
	run_to(WRITE, DEBUG_EXEC, WRITE); /* it has not moved */
	for (unsigned n = 0; n < 3; n++) {
		assert_int_equal(step(), READ);
		run_to(WRITE, DEBUG_EXEC, WRITE);
	}
	point(DEBUG_EXEC, JUMP, 1);
	step();
	run_to(JUMP, DEBUG_EXEC, JUMP);
	step();
	run_to(WRITE, DEBUG_EXEC, WRITE);
	debug.point[0] = debug.point[1];
	debug.points = 1;
	run_to(JUMP, DEBUG_EXEC, JUMP); /* over the one that is gone */
}

static void a_step_is_one_instruction_whatever_it_does(void **state)
{
	static const uint64_t at[] = {SET,      WRITE,    READ, PUSH, POP,     STORE, COPY,
				      COPY + 3, COPY + 6, REP,  INT,  HANDLER, JUMP,  NOP};

	for (unsigned n = 0; n < ARRAY_SIZE(at); n++)
		assert_int_equal(step(), at[n]);
}

static void a_write_watch_stops_after_the_write(void **state)
{
	point(DEBUG_WRITE, 0x2001, 1);
	run_to(READ, DEBUG_WRITE, 0x2001);
	assert_int_equal(load_le((uint8_t *)mem_span(mem, 0x2000, 2), 2), 5);
	run_to(READ, DEBUG_WRITE, 0x2001);
}

static void a_read_and_an_access_watch_stop_after_the_read(void **state)
{
	point(DEBUG_WRITE, 0x2010, 2); /* not this one */
	point(DEBUG_READ, 0x2011, 1);
	run_to(PUSH, DEBUG_READ, 0x2011);
	debug.points = 0;
	point(DEBUG_ACCESS, 0x200f, 2);
	run_to(PUSH, DEBUG_ACCESS, 0x200f);
	debug.points = 0;
	point(DEBUG_READ, 0x2020, 2); /* read, modified and written */
	run_to(COPY, DEBUG_READ, 0x2020);
}

static void neighbours_of_a_watch_do_not_stop(void **state)
{
	point(DEBUG_ACCESS, 0x1fff, 1);
	point(DEBUG_ACCESS, 0x2002, 14);
	point(DEBUG_ACCESS, 0x2012, 4);
	point(DEBUG_EXEC, STORE, 1);
	run_to(STORE, DEBUG_EXEC, STORE);
}

static void the_stack_and_string_operands_are_watched(void **state)
{
	point(DEBUG_WRITE, STACK - 1, 1);
	run_to(POP, DEBUG_WRITE, STACK - 1);
	debug.points = 0;
	point(DEBUG_WRITE, 0x2203, 1);
	run_to(REP, DEBUG_WRITE, 0x2203);
	assert_int_equal(st.gpr[X86_RCX], 4);
	debug.points = 0;
	point(DEBUG_WRITE, STACK - 6, 2); /* the frame of int 0x40 */
	run_to(HANDLER, DEBUG_WRITE, STACK - 6);
}

static void registers_can_be_changed_at_a_stop(void **state)
{
	point(DEBUG_EXEC, WRITE, 1);
	run_to(WRITE, DEBUG_EXEC, WRITE);
	st.gpr[X86_RAX] = 0x1234;
	st.rflags |= RFLAGS_CF;
	assert_int_equal(engine_jit.load_regs(cpu, &st, &err), 0);
	assert_int_equal(step(), READ);
	assert_int_equal(load_le((uint8_t *)mem_span(mem, 0x2000, 2), 2), 0x1234);
	assert_true(st.rflags & RFLAGS_CF);
	st.rip = JUMP;
	assert_int_equal(engine_jit.load_regs(cpu, &st, &err), 0);
	assert_int_equal(step(), NOP);
}

static void the_guests_own_debug_registers_stay_and_work(void **state)
{
	uint8_t *ram = mem_span(mem, 0, MIB(1));

	store_le(ram + 4 * X86_DB, HANDLER + 8, 4);
	ram[HANDLER + 8] = 0xcf;
	st.dr[0] = 0x2000;
	st.dr7 = 0x402 | 1 << 16;
	assert_int_equal(engine_jit.load(cpu, &st, &err), 0);
	point(DEBUG_WRITE, 0x2000, 2);
	point(DEBUG_EXEC, HANDLER + 8, 1);
	assert_int_equal(run(), HANDLER + 8); /* both at once */
	assert_int_equal(st.dr[0], 0x2000);
	assert_int_equal(st.dr6 & 1, 1);
}

static void a_kind_it_has_not_is_refused(void **state)
{
	point(DEBUG_INT3, CODE, 1);
	assert_int_equal(engine_jit.set_debug(cpu, &debug, &err), -ENOTSUP);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(execution_stops_before_the_instruction_each_time_round),
		T(a_step_is_one_instruction_whatever_it_does),
		T(a_write_watch_stops_after_the_write),
		T(a_read_and_an_access_watch_stop_after_the_read),
		T(neighbours_of_a_watch_do_not_stop),
		T(the_stack_and_string_operands_are_watched),
		T(registers_can_be_changed_at_a_stop),
		T(the_guests_own_debug_registers_stay_and_work),
		T(a_kind_it_has_not_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
