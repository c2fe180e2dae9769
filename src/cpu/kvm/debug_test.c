/* set_debug and load_regs on this host's /dev/kvm; exits with 77 (skipped) where there is none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/fake_clock.h"
#include "cpu/kvm/kvm_priv.h"

#define CODE_GPA  0x10000
#define STACK_GPA 0x9000
#define IDT_GPA   0x7000
#define DATA_GPA  0x8000
#define HANDLER   (CODE_GPA + 0x100)

enum { /* the guest's code */
       SET = CODE_GPA,
       WRITE = SET + 5,
       READ = SET + 10,
       NOP = SET + 16,
       INT3 = SET + 17,
};

static const uint8_t code[] = {
	0xb8, 0x05, 0x00, 0x00, 0x00,       /* mov eax, 5 */
	0xa3, 0x00, 0x80, 0x00, 0x00,       /* mov [DATA_GPA], eax */
	0x8b, 0x1d, 0x10, 0x80, 0x00, 0x00, /* mov ebx, [DATA_GPA + 0x10] */
	0x90,                               /* nop */
	0xcc,                               /* int3 */
};

static struct guest_mem *mem;
static struct bus *bus;
static struct fake_clock guest_time;
static struct cpuid_table cpuid;
static struct engine_vm *vm;
static struct vcpu *cpu;
static struct x86_state s;
static struct err err;

static struct x86_seg flat(uint16_t sel, uint16_t type)
{
	return (struct x86_seg){
		.limit = 0xffffffff, .sel = sel, .attr = type | SEG_S | SEG_P | SEG_DB | SEG_G};
}

static void start(void)
{
	uint8_t *ram = mem_span(mem, 0, MIB(1));

	memcpy(ram + CODE_GPA, code, sizeof code);
	ram[HANDLER] = 0xf4; /* hlt */
	store_le(ram + IDT_GPA + 8 * X86_BP,
		 (HANDLER & 0xffff) | 8 << 16 | 0x8e00ull << 32 | (uint64_t)(HANDLER >> 16) << 48,
		 8);
	store_le(ram + 0x6008, 0x00cf9b000000ffff, 8);
	store_le(ram + 0x6010, 0x00cf93000000ffff, 8);
	x86_state_reset(&s, 0);
	s.cr0 = CR0_PE | CR0_ET | CR0_NE;
	s.seg[X86_CS] = flat(8, 0xb);
	for (int i = 0; i < X86_SREGS; i++)
		if (i != X86_CS)
			s.seg[i] = flat(16, 3);
	s.gdtr = (struct x86_dtr){0x6000, 23};
	s.idtr = (struct x86_dtr){IDT_GPA, 0x7ff};
	s.gpr[X86_RSP] = STACK_GPA;
	s.rip = SET;
	store_le(s.lapic + 0xf0, 0x1ff, 4); /* the APIC's own switch */
}

static int set_up(void **state)
{
	const struct cpuid_opts opts = {.cpus = 1, .have_x2apic = true};
	struct engine_env env;

	fake_clock_init(&guest_time);
	if (mem_new(&mem, MIB(1), &err) < 0 || bus_new(&bus, &err) < 0 ||
	    cpuid_host(&cpuid, &opts, &err) < 0)
		return -1;
	env = (struct engine_env){
		.mem = mem, .bus = bus, .clock = &guest_time.clock, .cpuid = &cpuid, .force = true};
	if (engine_kvm.vm_new(&vm, &env, &err) < 0 || engine_kvm.vcpu_new(&cpu, vm, 0, &err) < 0)
		return -1;
	start();
	return engine_kvm.load(cpu, &s, &err);
}

static int tear_down(void **state)
{
	engine_kvm.vcpu_free(cpu);
	engine_kvm.vm_free(vm);
	bus_free(bus);
	mem_free(mem);
	return 0;
}

/* Emulated processors do not all tell a hypervisor of what these tests wait for: QEMU's of INT3 and
 * breakpoints, PVM of INT3 and data. */
static bool is_emulated(void)
{
	unsigned a, b, c, d;

	return __get_cpuid(1, &a, &b, &c, &d) && c >> 31;
}

static enum vcpu_stop run(void)
{
	enum vcpu_stop why = VCPU_KICKED;

	if (engine_kvm.run(cpu, &why, &err) < 0)
		fail_msg("run: %s", err.text);
	assert_int_equal(engine_kvm.store(cpu, &s, &err), 0);
	return why;
}

static void set(enum debug_kind kind, uint64_t gva, uint32_t len)
{
	struct engine_debug d = {.point = {{gva, len, kind}}, .points = 1};

	assert_int_equal(engine_kvm.set_debug(cpu, &d, &err), 0);
}

static uint64_t run_to(enum debug_kind kind)
{
	enum vcpu_stop why = run();

	if (why != VCPU_BREAKPOINT && is_emulated()) {
		print_message("this processor does not report a point of kind %d\n", kind);
		skip();
	}
	assert_int_equal(why, VCPU_BREAKPOINT);
	assert_false(cpu->hit.step);
	assert_int_equal(cpu->hit.kind, kind);
	return s.rip;
}

static uint64_t step(void)
{
	const struct engine_debug d = {.step = true};

	assert_int_equal(engine_kvm.set_debug(cpu, &d, &err), 0);
	assert_int_equal(run(), VCPU_BREAKPOINT);
	assert_true(cpu->hit.step);
	return s.rip;
}

static void execution_stops_before_the_instruction(void **state)
{
	set(DEBUG_EXEC, WRITE, 1);
	assert_int_equal(run_to(DEBUG_EXEC), WRITE);
	assert_int_equal(run_to(DEBUG_EXEC), WRITE); /* it has not moved */
	assert_int_equal(step(), READ);
}

static void data_stops_after_the_instruction(void **state)
{
	set(DEBUG_WRITE, DATA_GPA, 4);
	assert_int_equal(run_to(DEBUG_WRITE), READ);
	set(DEBUG_ACCESS, DATA_GPA + 0x10, 2);
	assert_int_equal(run_to(DEBUG_ACCESS), NOP);
}

static void a_step_is_one_instruction(void **state)
{
	static const uint64_t at[] = {WRITE, READ, NOP, INT3};

	for (unsigned n = 0; n < ARRAY_SIZE(at); n++)
		assert_int_equal(step(), at[n]);
}

/* INT3s are the debugger's where it said so; others the guest gets. */
static void int3s_have_two_owners(void **state)
{
	uint8_t *nop = mem_span(mem, NOP, 1);

	*nop = 0xcc;
	set(DEBUG_INT3, NOP, 1);
	assert_int_equal(run_to(DEBUG_INT3), NOP);
	*nop = 0x90;
	assert_int_equal(run(), VCPU_HALTED);
	assert_int_equal(load_le(mem_span(mem, STACK_GPA - 12, 4), 4), INT3 + 1);
}

static void what_the_processor_cannot_watch_is_refused(void **state)
{
	static const struct debug_point bad[] = {{DATA_GPA, 4, DEBUG_READ},
						 {DATA_GPA, 3, DEBUG_WRITE},
						 {DATA_GPA + 2, 4, DEBUG_WRITE},
						 {DATA_GPA, 16, DEBUG_ACCESS}};
	struct engine_debug d = {.points = 5};

	for (unsigned n = 0; n < 5; n++)
		d.point[n] = (struct debug_point){CODE_GPA + n, 1, DEBUG_EXEC};
	assert_int_equal(engine_kvm.set_debug(cpu, &d, &err), -ENOSPC);
	d.points = 1;
	for (unsigned n = 0; n < ARRAY_SIZE(bad); n++) {
		d.point[0] = bad[n];
		assert_int_equal(engine_kvm.set_debug(cpu, &d, &err), -ENOTSUP);
	}
}

static void registers_are_changed_alone(void **state)
{
	assert_int_equal(step(), WRITE);
	s.gpr[X86_RAX] = 0x1234;
	memset(s.lapic, 0, sizeof s.lapic); /* not this */
	assert_int_equal(engine_kvm.load_regs(cpu, &s, &err), 0);
	assert_int_equal(step(), READ);
	assert_int_equal(load_le(s.lapic + 0xf0, 4), 0x1ff);
	assert_int_equal(load_le(mem_span(mem, DATA_GPA, 4), 4), 0x1234);
}

#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(execution_stops_before_the_instruction),
		T(data_stops_after_the_instruction),
		T(a_step_is_one_instruction),
		T(int3s_have_two_owners),
		T(what_the_processor_cannot_watch_is_refused),
		T(registers_are_changed_alone),
	};
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	if (fd < 0) {
		perror("skipped: /dev/kvm");
		return 77;
	}
	close(fd);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
