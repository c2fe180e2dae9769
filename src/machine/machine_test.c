/* The whole machine with everything real but the engine (fake_engine.h). */
#include "machine/machine.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/test.h"
#include "base/loop.h"
#include "chipset/layout.h"
#include "machine/fake_engine.h"

#define MARK_GPA 0x200000u
#define ENTRY    0x100020u

/* --- what guests do --- */

static int power_off(struct guest *g, enum vcpu_stop *why, struct err *e)
{
	fake_pio_out(g, PORT_PM_CNT, 5 << 10 | 1 << 13, 2);
	return 0;
}

static int reset(struct guest *g, enum vcpu_stop *why, struct err *e)
{
	g->state.gpr[X86_RAX] = 0x1234;
	fake_pio_out(g, PORT_RESET, 6, 1);
	return 0;
}

static int stay(struct guest *g, enum vcpu_stop *why, struct err *e)
{
	return 0;
}

static int triple_fault(struct guest *g, enum vcpu_stop *why, struct err *e)
{
	g->state.gpr[X86_RBX] = 0x5678;
	*why = VCPU_SHUTDOWN;
	return 0;
}

static int break_down(struct guest *g, enum vcpu_stop *why, struct err *e)
{
	return err_set(e, EIO, "the engine is on fire");
}

static int debug_exit(struct guest *g, enum vcpu_stop *why, struct err *e)
{
	fake_pio_out(g, PORT_DEBUG_EXIT, 0x21, 1);
	return power_off(g, why, e);
}

/* --- the machine --- */

static char kernel[] = "/tmp/holon-machine-test-XXXXXX";
static struct machine_result result;
static struct err err;

static int make_kernel(void **state)
{
	const uint32_t magic = 0x1badb002, flags = 0x10000;
	const uint32_t image[] = {magic,    flags, -(magic + flags), 0x100000, 0x100000, 0x100024,
				  0x100024, ENTRY, 0xf4f4f4f4};
	int fd = mkstemp(kernel);

	if (fd < 0 || write(fd, image, sizeof image) != sizeof image)
		return -1;
	return close(fd);
}

static int remove_kernel(void **state)
{
	return unlink(kernel);
}

static struct machine *machine_with(struct machine_config c)
{
	struct machine *m;

	c.name = "test";
	c.engine = ENGINE_JIT;
	c.cpus = 1;
	c.memory_bytes = MIB(16);
	c.kernel = kernel;
	if (machine_new(&m, &c, &err) < 0)
		fail_msg("%s", err.text);
	return m;
}

static enum machine_end run(guest_code *what, struct machine_config c)
{
	struct machine *m;
	int r;

	code = what;
	incarnations = 0;
	m = machine_with(c);
	r = machine_run(m, &result, &err);
	machine_free(m);
	assert_true(r == 0 || result.end == END_ERROR);
	return result.end;
}

#define RUN(what, ...) run(what, (struct machine_config){__VA_ARGS__})

static void a_guest_powers_off(void **state)
{
	assert_int_equal(RUN(power_off), END_POWER_OFF);
	assert_int_equal(incarnations, 1);
}

static void a_reset_can_be_the_end(void **state)
{
	assert_int_equal(RUN(reset, .no_reboot = true), END_RESET);
	assert_int_equal(result.state.gpr[X86_RAX], 0x1234);
	assert_int_equal(result.state.rip, ENTRY);
}

static int reset_once(struct guest *g, enum vcpu_stop *why, struct err *e)
{
	uint32_t mark = 0;

	assert_int_equal(mem_read(g->env->mem, MARK_GPA, &mark, sizeof mark), 0);
	assert_int_equal(mark, 0);
	assert_int_equal(g->state.gpr[X86_RAX], 0x2badb002);
	mark = 1;
	assert_int_equal(mem_write(g->env->mem, MARK_GPA, &mark, sizeof mark), 0);
	return incarnations == 1 ? reset(g, why, e) : power_off(g, why, e);
}

static void a_reset_starts_afresh(void **state)
{
	assert_int_equal(RUN(reset_once), END_POWER_OFF);
	assert_int_equal(incarnations, 2);
}

static void a_triple_fault_is_the_end(void **state)
{
	assert_int_equal(RUN(triple_fault), END_TRIPLE_FAULT);
	assert_int_equal(result.value, 0);
	assert_int_equal(result.state.gpr[X86_RBX], 0x5678);
}

static void an_engine_failure_is_an_error(void **state)
{
	assert_int_equal(RUN(break_down), END_ERROR);
	assert_non_null(strstr(err.text, "on fire"));
}

static void debug_exit_is_there_when_asked_for(void **state)
{
	assert_int_equal(RUN(debug_exit, .debug_exit = true), END_DEBUG_EXIT);
	assert_int_equal(result.value, 0x21);
	assert_int_equal(RUN(debug_exit), END_POWER_OFF);
}

static void *stop_soon(void *m)
{
	nap();
	machine_stop(m);
	return NULL;
}

static void it_can_be_stopped_from_outside(void **state)
{
	struct machine *m;
	pthread_t other;

	code = stay;
	m = machine_with((struct machine_config){0});
	pthread_create(&other, NULL, stop_soon, m);
	assert_int_equal(machine_run(m, &result, &err), 0);
	pthread_join(other, NULL);
	assert_int_equal(result.end, END_STOPPED);
	machine_free(m);
}

static void it_can_be_freed_without_a_run(void **state)
{
	machine_free(machine_with((struct machine_config){0}));
	machine_free(NULL);
}

static int power_off_by_button(struct guest *g, enum vcpu_stop *why, struct err *e)
{
	fake_pio_out(g, PORT_PM_EVT + 2, 0x100, 2);
	while (!(fake_pio_in(g, PORT_PM_EVT, 2) & 0x100))
		nap();
	return power_off(g, why, e);
}

static void *press_when_armed(void *m)
{
	while (!machine_power_button_armed(m))
		nap();
	machine_power_button(m);
	return NULL;
}

static void the_power_button_reaches_the_guest(void **state)
{
	struct machine *m;
	pthread_t other;

	code = power_off_by_button;
	m = machine_with((struct machine_config){0});
	pthread_create(&other, NULL, press_when_armed, m);
	assert_int_equal(machine_run(m, &result, &err), 0);
	pthread_join(other, NULL);
	assert_int_equal(result.end, END_POWER_OFF);
	machine_free(m);
}

/* --- pauses --- */

struct pauser {
	struct loop_call call;
	struct machine *m;
	uint64_t then_ns;
};

static void run_with(struct pauser *p, guest_code *what, void (*call)(struct loop_call *c))
{
	code = what;
	incarnations = 0;
	p->m = machine_with((struct machine_config){0});
	p->call.run = call;
	loop_post(machine_loop(p->m), &p->call);
	assert_int_equal(machine_run(p->m, &result, &err), 0);
	machine_free(p->m);
}

static uint64_t guest_time(struct machine *m)
{
	return clock_now(loop_clock(machine_loop(m)));
}

static void assert_stands_still(struct machine *m)
{
	uint64_t now = guest_time(m);

	for (int i = 0; i < 10; i++)
		nap();
	assert_int_equal(inside, 0);
	assert_true(frozen);
	assert_int_equal(guest_time(m), now);
}

static void pause_for_two_reasons(struct loop_call *c)
{
	struct machine *m = container_of(c, struct pauser, call)->m;
	uint64_t then;

	while (!inside)
		nap();
	machine_pause(m, MACHINE_PAUSE_ASKED);
	then = guest_time(m);
	assert_stands_still(m);
	machine_pause(m, MACHINE_PAUSE_NO_SPACE);
	machine_resume(m, MACHINE_PAUSE_ASKED);
	assert_int_equal(machine_paused(m), MACHINE_PAUSE_NO_SPACE);
	assert_stands_still(m);
	machine_resume(m, MACHINE_PAUSE_NO_SPACE);
	while (!inside)
		nap();
	assert_false(frozen);
	assert_in_range(guest_time(m), then + 1, then + 10000000000);
	machine_stop(m);
}

static void a_paused_machine_stands_still_until_no_reason_is_left(void **state)
{
	struct pauser p;

	run_with(&p, stay, pause_for_two_reasons);
	assert_int_equal(result.end, END_STOPPED);
}

struct counted_source {
	struct kernel_source source;
	int asked;
};

static int count_and_give(struct kernel_source *s, const char **k, const char **initrd,
			  const char **append, struct err *e)
{
	container_of(s, struct counted_source, source)->asked++;
	*k = kernel;
	return 0;
}

static void a_kernel_that_is_looked_for_is_so_again_at_a_reset(void **state)
{
	struct counted_source s = {.source.get = count_and_give};

	assert_int_equal(RUN(reset_once, .kernel_source = &s.source), END_POWER_OFF);
	assert_int_equal(s.asked, 2);
}

static atomic_bool may_reset;

static int reset_when_told(struct guest *g, enum vcpu_stop *why, struct err *e)
{
	if (incarnations > 1)
		return power_off(g, why, e);
	while (!may_reset)
		nap();
	return reset(g, why, e);
}

static void resume_after_the_reset(struct loop_call *c)
{
	struct machine *m = container_of(c, struct pauser, call)->m;

	if (incarnations < 2) {
		loop_post(machine_loop(m), c);
		return;
	}
	assert_stands_still(m);
	machine_resume(m, MACHINE_PAUSE_ASKED);
}

static void pause_during_a_reset(struct loop_call *c)
{
	struct machine *m = container_of(c, struct pauser, call)->m;

	while (!inside)
		nap();
	may_reset = true;
	machine_pause(m, MACHINE_PAUSE_ASKED);
	c->run = resume_after_the_reset;
	loop_post(machine_loop(m), c);
}

static void a_machine_that_resets_while_it_is_paused_stays_paused(void **state)
{
	struct pauser p;

	may_reset = false;
	run_with(&p, reset_when_told, pause_during_a_reset);
	assert_int_equal(result.end, END_POWER_OFF);
	assert_int_equal(incarnations, 2);
}

static void pause_at_the_start(struct loop_call *c)
{
	struct machine *m = container_of(c, struct pauser, call)->m;

	assert_stands_still(m);
	machine_resume(m, MACHINE_PAUSE_ASKED);
}

static void a_machine_that_is_paused_before_its_run_begins_paused(void **state)
{
	struct pauser p = {.call.run = pause_at_the_start};

	code = power_off;
	p.m = machine_with((struct machine_config){0});
	machine_pause(p.m, MACHINE_PAUSE_ASKED);
	loop_post(machine_loop(p.m), &p.call);
	assert_int_equal(machine_run(p.m, &result, &err), 0);
	assert_int_equal(result.end, END_POWER_OFF);
	machine_free(p.m);
}

static void a_paused_machine_can_be_stopped(void **state)
{
	struct machine *m;

	code = stay;
	m = machine_with((struct machine_config){0});
	machine_pause(m, MACHINE_PAUSE_ASKED);
	machine_stop(m);
	assert_int_equal(machine_run(m, &result, &err), 0);
	assert_int_equal(result.end, END_STOPPED);
	machine_free(m);
}

/* --- two at once --- */

struct printed {
	struct byte_sink sink;
	char text[64];
	uint32_t len;
};

static void print(struct byte_sink *s, const uint8_t *bytes, uint32_t len)
{
	struct printed *p = container_of(s, struct printed, sink);

	assert_true(p->len + len < sizeof p->text);
	memcpy(p->text + p->len, bytes, len);
	p->len += len;
}

static atomic_int speakers;

static int speak_together(struct guest *g, enum vcpu_stop *why, struct err *e)
{
	uint8_t me = (uint8_t)('a' + atomic_fetch_add(&speakers, 1));

	while (speakers < 2)
		nap();
	for (int i = 0; i < 10; i++)
		fake_pio_out(g, PORT_COM1, me, 1);
	return power_off(g, why, e);
}

static void *run_one(void *printed)
{
	struct printed *p = printed;
	struct machine_result r;
	struct machine *m;

	p->sink.put = print;
	m = machine_with((struct machine_config){.serial_out = &p->sink});
	assert_int_equal(machine_run(m, &r, &err), 0);
	assert_int_equal(r.end, END_POWER_OFF);
	machine_free(m);
	return NULL;
}

static void two_machines_run_in_one_process(void **state)
{
	struct printed p[2] = {0};
	pthread_t thread[2];

	code = speak_together;
	speakers = 0;
	for (int i = 0; i < 2; i++)
		pthread_create(&thread[i], NULL, run_one, &p[i]);
	for (int i = 0; i < 2; i++)
		pthread_join(thread[i], NULL);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(p[i].len, 10);
		assert_int_equal(strspn(p[i].text, (char[]){p[i].text[0], 0}), 10);
	}
	assert_int_not_equal(p[0].text[0], p[1].text[0]);
}

/* --- interrupts --- */

#define LAPIC_EOI      0xb0
#define LAPIC_SPURIOUS 0xf0
#define LAPIC_LINT0    0x350

static int await_vector(struct guest *g)
{
	struct lapic_port *l = g->vcpu.lapic;

	for (int i = 0; i < 20000; i++) {
		if (l->ops->pending(l))
			return l->ops->ack(l);
		nap();
	}
	return -1;
}

static void ioapic_entry(struct guest *g, unsigned pin, uint32_t low)
{
	bus_write(g->env->bus, BUS_MMIO, IOAPIC_BASE, 0x10 + 2 * pin, 4);
	bus_write(g->env->bus, BUS_MMIO, IOAPIC_BASE + 0x10, low, 4);
}

static void enable_lapic(struct guest *g)
{
	g->vcpu.lapic->ops->mmio_write(g->vcpu.lapic, LAPIC_SPURIOUS, 0x1ff);
}

static void serial_interrupt_on(struct guest *g)
{
	fake_pio_out(g, PORT_COM1 + 4, 0x08, 1); /* MCR: OUT2, which gates the line */
	fake_pio_out(g, PORT_COM1 + 1, 0x02, 1); /* IER: transmitter empty */
}

static void timer_shot(struct guest *g)
{
	fake_pio_out(g, PORT_PIT + 3, 0x30, 1); /* channel 0, both bytes, mode 0 */
	fake_pio_out(g, PORT_PIT, 0x10, 1);
	fake_pio_out(g, PORT_PIT, 0x00, 1);
}

static int seen[2];

static int take_ioapic_interrupts(struct guest *g, enum vcpu_stop *why, struct err *e)
{
	enable_lapic(g);
	fake_pio_out(g, PORT_PIC1 + 1, 0xff,
		     1); /* all masked: LINT0 may be open, as firmware leaves it */
	ioapic_entry(g, 2, 0x41);
	timer_shot(g);
	seen[0] = await_vector(g);
	g->vcpu.lapic->ops->mmio_write(g->vcpu.lapic, LAPIC_EOI, 0);
	ioapic_entry(g, IRQ_COM1, 0x52);
	serial_interrupt_on(g);
	seen[1] = await_vector(g);
	return power_off(g, why, e);
}

static void irq0_is_on_pin_2_and_others_on_their_own(void **state)
{
	assert_int_equal(RUN(take_ioapic_interrupts), END_POWER_OFF);
	assert_int_equal(seen[0], 0x41);
	assert_int_equal(seen[1], 0x52);
}

static int take_pic_interrupt(struct guest *g, enum vcpu_stop *why, struct err *e)
{
	enable_lapic(g);
	g->vcpu.lapic->ops->mmio_write(g->vcpu.lapic, LAPIC_LINT0, 0x700); /* ExtINT */
	fake_pio_out(g, PORT_PIC1, 0x11, 1);
	fake_pio_out(g, PORT_PIC1 + 1, 0x30, 1);
	fake_pio_out(g, PORT_PIC1 + 1, 0x04, 1);
	fake_pio_out(g, PORT_PIC1 + 1, 0x01, 1);
	fake_pio_out(g, PORT_PIC1 + 1, 0xef, 1); /* all but IRQ 4 masked */
	serial_interrupt_on(g);
	seen[0] = await_vector(g);
	return power_off(g, why, e);
}

static void the_pic_interrupts_through_lint0(void **state)
{
	assert_int_equal(RUN(take_pic_interrupt), END_POWER_OFF);
	assert_int_equal(seen[0], 0x30 + IRQ_COM1);
}

/* --- refusals --- */

static void bad_configs_are_refused(void **state)
{
	const struct machine_config good = {
		.engine = ENGINE_JIT, .cpus = 1, .memory_bytes = MIB(16), .kernel = kernel};
	struct machine_config c;
	struct machine *m = NULL;

	c = good, c.kernel = "/nonexistent";
	assert_int_equal(machine_new(&m, &c, &err), -ENOENT);
	assert_non_null(strstr(err.text, "/nonexistent"));
	c = good, c.cpus = 256;
	assert_int_equal(machine_new(&m, &c, &err), -EINVAL);
	c = good, c.cpus = 0;
	assert_true(machine_new(&m, &c, &err) < 0);
	c = good, c.memory_bytes = KIB(64);
	assert_true(machine_new(&m, &c, &err) < 0);
	c = good, c.memory_bytes = UINT64_C(1) << 46;
	assert_int_equal(machine_new(&m, &c, &err), -EINVAL);
	assert_non_null(strstr(err.text, "bits of physical address"));
	c = good, c.jit_cache_bytes = MIB(1) - 1;
	assert_int_equal(machine_new(&m, &c, &err), -EINVAL);
	c = good, c.jit_cache_bytes = GIB(1) + 1;
	assert_int_equal(machine_new(&m, &c, &err), -EINVAL);
	assert_null(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_guest_powers_off),
		cmocka_unit_test(a_reset_can_be_the_end),
		cmocka_unit_test(a_reset_starts_afresh),
		cmocka_unit_test(a_kernel_that_is_looked_for_is_so_again_at_a_reset),
		cmocka_unit_test(a_triple_fault_is_the_end),
		cmocka_unit_test(an_engine_failure_is_an_error),
		cmocka_unit_test(debug_exit_is_there_when_asked_for),
		cmocka_unit_test(it_can_be_stopped_from_outside),
		cmocka_unit_test(it_can_be_freed_without_a_run),
		cmocka_unit_test(the_power_button_reaches_the_guest),
		cmocka_unit_test(a_paused_machine_stands_still_until_no_reason_is_left),
		cmocka_unit_test(a_machine_that_resets_while_it_is_paused_stays_paused),
		cmocka_unit_test(a_machine_that_is_paused_before_its_run_begins_paused),
		cmocka_unit_test(a_paused_machine_can_be_stopped),
		cmocka_unit_test(two_machines_run_in_one_process),
		cmocka_unit_test(irq0_is_on_pin_2_and_others_on_their_own),
		cmocka_unit_test(the_pic_interrupts_through_lint0),
		cmocka_unit_test(bad_configs_are_refused),
	};

	return cmocka_run_group_tests(tests, make_kernel, remove_kernel);
}
