#include "vm.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

#include "cpu/probe.h"

const struct engine *vm_engine(const char *name)
{
	static const struct engine *const all[] = {
#ifdef HAVE_ENGINE_JIT
		&engine_jit,
#endif
#ifdef HAVE_ENGINE_KVM
		&engine_kvm,
#endif
		NULL};

	for (unsigned i = 0; all[i]; i++)
		if (!strcmp(all[i]->name, name))
			return all[i];
	return NULL;
}

enum vm_host vm_host(const struct engine *engine)
{
	struct kvm_finding f;

	if (strcmp(engine->name, "kvm") || getenv("HOLON_FORCE"))
		return VM_HOST_FIT;
	kvm_probe(&f);
	if (f.verdict == KVM_USABLE || f.verdict == KVM_SLOW)
		return VM_HOST_FIT;
	printf("%s\n", f.line);
	return f.verdict == KVM_BROKEN && f.emulates_ring0 ? VM_HOST_ODD : VM_HOST_UNFIT;
}

/* --- the bus's regions --- */
static void record(struct vm *vm, enum bus_space space, bool write, uint64_t addr, uint64_t value,
		   unsigned size)
{
	if (vm->logged < VM_LOG_MAX)
		vm->log[vm->logged] =
			(struct vm_access){(uint8_t)space, write, (uint8_t)size, addr, value};
	vm->logged++;
}

static void stop_write(struct bus_region *r, uint64_t offset, uint64_t value, unsigned size)
{
	struct vm *vm = container_of(r, struct vm, stop);

	vm->stopped = true;
	vm->exit_value = (uint32_t)value;
	vm->engine->kick(vm->vcpu);
}

static void exit_write(struct bus_region *r, uint64_t offset, uint64_t value, unsigned size)
{
	stop_write(&container_of(r, struct vm, exit)->stop, offset, value, size);
}

static uint64_t zero_read(struct bus_region *r, uint64_t offset, unsigned size)
{
	return 0;
}

static void serial_write(struct bus_region *r, uint64_t offset, uint64_t value, unsigned size)
{
	struct vm *vm = container_of(r, struct vm, serial);

	if (offset == 0 && vm->text_len + 1 < sizeof vm->text)
		vm->text[vm->text_len++] = (char)value;
}

static uint64_t serial_read(struct bus_region *r, uint64_t offset, unsigned size)
{
	return offset == 5 ? 0x60 : 0; /* transmitter empty */
}

/* Reads give their address back, byte by byte. */
static uint64_t pattern(uint64_t offset, unsigned size)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < size; i++)
		v |= (uint64_t)(uint8_t)(0xa0 + offset + i) << 8 * i;
	return v;
}

static uint64_t ports_read(struct bus_region *r, uint64_t offset, unsigned size)
{
	uint64_t v = pattern(offset, size);

	record(container_of(r, struct vm, ports), BUS_PIO, false, VM_RECORD_PORT + offset, v, size);
	return v;
}

static void ports_write(struct bus_region *r, uint64_t offset, uint64_t value, unsigned size)
{
	record(container_of(r, struct vm, ports), BUS_PIO, true, VM_RECORD_PORT + offset, value,
	       size);
}

static uint64_t mmio_read(struct bus_region *r, uint64_t offset, unsigned size)
{
	uint64_t v = pattern(offset, size);

	record(container_of(r, struct vm, mmio), BUS_MMIO, false, VM_RECORD_MMIO + offset, v, size);
	return v;
}

static void mmio_write(struct bus_region *r, uint64_t offset, uint64_t value, unsigned size)
{
	record(container_of(r, struct vm, mmio), BUS_MMIO, true, VM_RECORD_MMIO + offset, value,
	       size);
}

static int map_bus(struct vm *vm, struct err *e)
{
	static const struct bus_region stop = {"stop", 1, 4, zero_read, stop_write};
	static const struct bus_region ex = {"exit", 1, 4, zero_read, exit_write};
	static const struct bus_region serial = {"serial", 1, 1, serial_read, serial_write};
	static const struct bus_region ports = {"ports", 1, 4, ports_read, ports_write};
	static const struct bus_region mmio = {"mmio", 1, 8, mmio_read, mmio_write};
	int r;

	vm->stop = stop;
	vm->exit = ex;
	vm->serial = serial;
	vm->ports = ports;
	vm->mmio = mmio;
	if ((r = bus_new(&vm->bus, e)) < 0 ||
	    (r = bus_map(vm->bus, BUS_PIO, VM_STOP_PORT, 4, &vm->stop, e)) < 0 ||
	    (r = bus_map(vm->bus, BUS_PIO, VM_EXIT_PORT, 4, &vm->exit, e)) < 0 ||
	    (r = bus_map(vm->bus, BUS_PIO, VM_SERIAL_PORT, 8, &vm->serial, e)) < 0 ||
	    (r = bus_map(vm->bus, BUS_PIO, VM_RECORD_PORT, 0x100, &vm->ports, e)) < 0)
		return r;
	return bus_map(vm->bus, BUS_MMIO, VM_RECORD_MMIO, 4096, &vm->mmio, e);
}

/* --- a LAPIC that never has anything to say --- */
static bool lapic_none(struct lapic_port *p)
{
	return false;
}

static int lapic_minus_one(struct lapic_port *p)
{
	return -1;
}

static uint8_t lapic_get_cr8(struct lapic_port *p)
{
	return 0;
}

static void lapic_set_cr8(struct lapic_port *p, uint8_t cr8)
{
}

static bool lapic_rdmsr(struct lapic_port *p, uint32_t msr, uint64_t *v)
{
	*v = 0xfee00900;
	return msr == 0x1b;
}

static bool lapic_wrmsr(struct lapic_port *p, uint32_t msr, uint64_t v)
{
	return msr == 0x1b;
}

static uint32_t lapic_mmio_read(struct lapic_port *p, uint32_t offset)
{
	return 0;
}

static void lapic_mmio_write(struct lapic_port *p, uint32_t offset, uint32_t value)
{
}

static void lapic_load(struct lapic_port *p, const struct x86_state *s)
{
}

static void lapic_store(struct lapic_port *p, struct x86_state *s)
{
}

static const struct lapic_ops quiet_lapic = {
	.pending = lapic_none,
	.ack = lapic_minus_one,
	.get_cr8 = lapic_get_cr8,
	.set_cr8 = lapic_set_cr8,
	.rdmsr = lapic_rdmsr,
	.wrmsr = lapic_wrmsr,
	.mmio_read = lapic_mmio_read,
	.mmio_write = lapic_mmio_write,
	.load = lapic_load,
	.store = lapic_store,
	.take_nmi = lapic_none,
	.take_init = lapic_none,
	.take_sipi = lapic_minus_one,
};

int vm_init(struct vm *vm, const struct engine *engine, uint64_t ram_bytes, struct err *e)
{
	struct cpuid_opts opts = {.apic_hz = 1000000000,
				  .cpus = 1,
				  .have_x2apic = true,
				  .jit = !strcmp(engine->name, "jit")};
	int r;

	vm->engine = engine;
	vm->lapic.ops = &quiet_lapic;
	fake_clock_init(&vm->clock);
	if ((r = mem_new_with_rom(&vm->mem, ram_bytes, vm->rom_bytes, e)) < 0 ||
	    (r = map_bus(vm, e)) < 0 || (r = cpuid_host(&vm->cpuid, &opts, e)) < 0)
		return r;
	vm->env = (struct engine_env){.mem = vm->mem,
				      .bus = vm->bus,
				      .clock = &vm->clock.clock,
				      .cpuid = &vm->cpuid,
				      .apic_hz = opts.apic_hz,
				      .windows_at_once = vm->windows,
				      .force = true};
	if ((r = engine->vm_new(&vm->engine_vm, &vm->env, e)) < 0 ||
	    (r = engine->vcpu_new(&vm->vcpu, vm->engine_vm, 0, e)) < 0)
		return r;
	if (!engine->own_lapic)
		vm->vcpu->lapic = &vm->lapic;
	return 0;
}

void vm_done(struct vm *vm)
{
	if (vm->engine) {
		vm->engine->vcpu_free(vm->vcpu);
		vm->engine->vm_free(vm->engine_vm);
	}
	bus_free(vm->bus);
	mem_free(vm->mem);
	memset(vm, 0, sizeof *vm);
}

void *vm_ram(struct vm *vm, gpa_t gpa, uint64_t len)
{
	void *p = mem_span(vm->mem, gpa, len);

	if (!p)
		abort(); /* the test's own layout is wrong */
	return p;
}

/* For the alarm's handler, the only way to tell it which vCPU. */
static struct vm *volatile alarmed;
static volatile bool timed_out;

static void on_alarm(int sig)
{
	struct vm *vm = alarmed;

	timed_out = true;
	if (vm)
		vm->engine->kick(vm->vcpu);
}

static void set_alarm(struct vm *vm, unsigned seconds)
{
	struct sigaction sa = {.sa_handler = on_alarm};
	struct itimerval after = {{0, 100000}, {seconds, 0}};

	timed_out = false;
	alarmed = vm;
	sigaction(SIGALRM, &sa, NULL);
	setitimer(ITIMER_REAL, &after, NULL);
}

static void clear_alarm(void)
{
	struct itimerval off = {0};

	setitimer(ITIMER_REAL, &off, NULL);
	alarmed = NULL;
}

enum vm_end vm_run(struct vm *vm, const struct x86_state *start, struct x86_state *end,
		   unsigned timeout_s, struct err *e)
{
	enum vm_end how = VM_FAILED;
	enum vcpu_stop why;

	vm->logged = 0;
	vm->stopped = false;
	if (vm->engine->load(vm->vcpu, start, e) < 0)
		return VM_FAILED;
	if (timeout_s)
		set_alarm(vm, timeout_s);
	for (;;) {
		if (vm->engine->run(vm->vcpu, &why, e) < 0)
			break;
		how = vm->stopped ? VM_STOPPED : why == VCPU_HALTED ? VM_HALTED : VM_SHUTDOWN;
		if (why != VCPU_KICKED || vm->stopped)
			break;
		if (timeout_s && timed_out) {
			how = VM_TIMEOUT;
			break;
		}
	}
	if (timeout_s)
		clear_alarm();
	if (vm->engine->store(vm->vcpu, end, e) < 0)
		return VM_FAILED;
	return how;
}

const struct engine *vm_engine_of(int argc, char **argv, enum vm_host least)
{
	const struct engine *engine = argc == 2 ? vm_engine(argv[1]) : NULL;

	if (!engine)
		printf("engine %s is not in this build\n", argc == 2 ? argv[1] : "?");
	if (!engine || vm_host(engine) > least)
		exit(77); /* Meson: skipped */
	return engine;
}
