/* The KVM engine with small guests on this host's /dev/kvm, whatever that is worth; exits
 * with 77 (skipped) where there is none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/fake_clock.h"
#include "cpu/kvm/kvm_priv.h"

#define CODE_GPA  0x10000
#define STACK_GPA 0x9000
#define IDT_GPA   0x7000
#define DATA_GPA  0x8000
#define MMIO_GPA  0xd0000000
#define VECTOR    0x31
#define MSI_ADDR  0xfee00000
#define MSI_LEVEL 0x8000

extern const uint8_t kvm_guest_begin[], kvm_guest_end[], kvm_guest_ports[], kvm_guest_mmio[];
extern const uint8_t kvm_guest_wait[], kvm_guest_handler[], kvm_guest_eoi_handler[];
extern const uint8_t kvm_guest_loop[], kvm_guest_fault[], kvm_guest_step[], kvm_guest_alien[];
extern const uint8_t kvm_guest_msr[];

struct traffic {
	uint64_t addr, value;
	unsigned size;
	bool write;
};

struct fixture {
	struct guest_mem *mem;
	struct bus *bus;
	struct fake_clock clock;
	struct cpuid_table cpuid;
	struct engine_vm *vm;
	struct vcpu *cpu;
	struct bus_region ports, mmio;
	struct traffic seen[32];
	unsigned count;
	struct extint extint;
	atomic_bool extint_raised;
	bool raise_when_looked_at; /* the PIC's line rises right behind the look */
	uint64_t handled_ms;       /* when a port was last written */
	atomic_int eoi;            /* the last vector */
	struct x86_state s;
	struct err err;
};

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000ull + t.tv_nsec / 1000000;
}

/* --- a bus that answers with the address and remembers everything --- */

static void remember(struct fixture *f, uint64_t addr, uint64_t value, unsigned size, bool write)
{
	assert_true(f->count < 32);
	f->seen[f->count++] = (struct traffic){addr, value, size, write};
}

static uint64_t read_port(struct bus_region *r, uint64_t offset, unsigned size)
{
	remember(container_of(r, struct fixture, ports), 0x50 + offset, 0, size, false);
	return 0x40 + offset;
}

static void write_port(struct bus_region *r, uint64_t offset, uint64_t v, unsigned size)
{
	struct fixture *f = container_of(r, struct fixture, ports);

	remember(f, 0x50 + offset, v, size, true);
	f->handled_ms = now_ms();
}

static uint64_t read_mmio(struct bus_region *r, uint64_t offset, unsigned size)
{
	remember(container_of(r, struct fixture, mmio), offset, 0, size, false);
	return trunc_bytes(0x11223344 + offset, size);
}

static void write_mmio(struct bus_region *r, uint64_t offset, uint64_t v, unsigned size)
{
	remember(container_of(r, struct fixture, mmio), offset, v, size, true);
}

static void assert_traffic(struct fixture *f, unsigned i, bool write, uint64_t addr, uint64_t value,
			   unsigned size)
{
	assert_true(i < f->count);
	assert_int_equal(f->seen[i].write, write);
	assert_int_equal(f->seen[i].addr, addr);
	assert_int_equal(f->seen[i].value, value);
	assert_int_equal(f->seen[i].size, size);
}

/* --- a PIC with one interrupt --- */

static bool extint_pending(struct extint *x)
{
	struct fixture *f = container_of(x, struct fixture, extint);

	if (f->raise_when_looked_at) {
		f->raise_when_looked_at = false;
		atomic_store(&f->extint_raised, true);
		engine_kvm.irq(f->cpu);
		return false;
	}
	return atomic_load(&f->extint_raised);
}

static int extint_ack(struct extint *x)
{
	struct fixture *f = container_of(x, struct fixture, extint);

	return atomic_exchange(&f->extint_raised, false) ? VECTOR : -1;
}

static void note_eoi(void *ctx, uint8_t vector)
{
	atomic_store(&((struct fixture *)ctx)->eoi, vector);
}

/* --- the guest --- */

static struct x86_seg flat(uint16_t sel, uint16_t type)
{
	return (struct x86_seg){
		.limit = 0xffffffff, .sel = sel, .attr = type | SEG_S | SEG_P | SEG_DB | SEG_G};
}

static void put64(struct fixture *f, gpa_t gpa, uint64_t v)
{
	assert_int_equal(mem_write(f->mem, gpa, &v, 8), 0);
}

static uint32_t gpa_of(const uint8_t *label)
{
	return CODE_GPA + (label - kvm_guest_begin);
}

static void set_handler(struct fixture *f, const uint8_t *handler)
{
	uint64_t to = gpa_of(handler);

	put64(f, IDT_GPA + 8 * VECTOR,
	      (to & 0xffff) | 8 << 16 | 0x8e00ull << 32 | (to >> 16) << 48);
}

static void start_at(struct fixture *f, const uint8_t *label)
{
	struct x86_state *s = &f->s;

	x86_state_reset(s, 0);
	s->cr0 = CR0_PE | CR0_ET | CR0_NE;
	s->seg[X86_CS] = flat(8, 0xb);
	for (int i = 0; i < X86_SREGS; i++)
		if (i != X86_CS)
			s->seg[i] = flat(16, 3);
	s->gdtr = (struct x86_dtr){0x6000, 23};
	s->idtr = (struct x86_dtr){IDT_GPA, 0x7ff};
	s->gpr[X86_RSP] = STACK_GPA;
	s->rip = gpa_of(label);
	store_le(s->lapic + 0xf0, 0x1ff, 4); /* the APIC's own switch */
	assert_int_equal(engine_kvm.load(f->cpu, s, &f->err), 0);
}

static enum vcpu_stop run(struct fixture *f)
{
	enum vcpu_stop why = VCPU_BREAKPOINT;

	if (engine_kvm.run(f->cpu, &why, &f->err) < 0)
		fail_msg("run: %s", f->err.text);
	return why;
}

static int set_up(void **state)
{
	struct fixture *f = aligned_alloc(64, align_up(sizeof *f, 64));
	struct cpuid_opts opts = {.cpus = 1, .have_x2apic = true};
	const struct mem_region *r;

	memset(f, 0, sizeof *f);
	fake_clock_init(&f->clock);
	f->extint = (struct extint){extint_pending, extint_ack};
	f->ports = (struct bus_region){"ports", 1, 4, read_port, write_port};
	f->mmio = (struct bus_region){"mmio", 1, 4, read_mmio, write_mmio};
	assert_int_equal(mem_new(&f->mem, MIB(2), &f->err), 0);
	assert_int_equal(bus_new(&f->bus, &f->err), 0);
	assert_int_equal(bus_map(f->bus, BUS_PIO, 0x50, 8, &f->ports, &f->err), 0);
	assert_int_equal(bus_map(f->bus, BUS_MMIO, MMIO_GPA, 0x1000, &f->mmio, &f->err), 0);
	assert_int_equal(cpuid_host(&f->cpuid, &opts, &f->err), 0);

	struct engine_env env = {
		.mem = f->mem,
		.bus = f->bus,
		.clock = &f->clock.clock,
		.cpuid = &f->cpuid,
		.extint = &f->extint,
		.eoi = note_eoi,
		.eoi_ctx = f,
		.force = true,
	};

	assert_int_equal(mem_regions(f->mem, &r), 1);
	memcpy(r->hva + CODE_GPA, kvm_guest_begin, kvm_guest_end - kvm_guest_begin);
	put64(f, 0x6008, 0x00cf9b000000ffff);
	put64(f, 0x6010, 0x00cf93000000ffff);
	if (engine_kvm.vm_new(&f->vm, &env, &f->err) < 0 ||
	    engine_kvm.vcpu_new(&f->cpu, f->vm, 0, &f->err) < 0)
		fail_msg("%s", f->err.text);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	engine_kvm.vcpu_free(f->cpu);
	engine_kvm.vm_free(f->vm);
	bus_free(f->bus);
	mem_free(f->mem);
	free(f);
	return 0;
}

/* --- the tests --- */

static void ports_go_to_the_bus_in_order(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(mem_write(f->mem, DATA_GPA, "HOLO", 4), 0);
	start_at(f, kvm_guest_ports);
	assert_int_equal(run(f), VCPU_HALTED);
	assert_int_equal(f->count, 8);
	assert_traffic(f, 0, false, 0x50, 0, 1);
	assert_traffic(f, 1, true, 0x52, 0x41, 1);
	for (unsigned i = 0; i < 4; i++)
		assert_traffic(f, 2 + i, true, 0x51, "HOLO"[i], 1);
	assert_traffic(f, 6, false, 0x54, 0, 4);
	assert_traffic(f, 7, true, 0x56, 0x44, 2);
}

static void mmio_goes_to_the_bus_with_its_width(void **state)
{
	struct fixture *f = *state;

	start_at(f, kvm_guest_mmio);
	assert_int_equal(run(f), VCPU_HALTED);
	assert_int_equal(f->count, 4);
	assert_traffic(f, 0, false, 0, 0, 4);
	assert_traffic(f, 1, true, 4, 0x11223345, 4);
	assert_traffic(f, 2, true, 8, 0x1234, 2);
	assert_traffic(f, 3, false, 0xb, 0, 1);
	assert_int_equal(engine_kvm.store(f->cpu, &f->s, &f->err), 0);
	assert_int_equal(f->s.gpr[X86_RBX], 0x4f);
	assert_int_equal(f->s.mp_state, X86_HALTED);
}

static uint64_t taken(int fd)
{
	uint64_t n = 0;

	return read(fd, &n, sizeof n) == sizeof n ? n : 0;
}

/* One by one: at 4, a write of 4 bytes, and at 8, one of 2. */
static void writes_that_only_signal_do_not_come_to_the_bus(void **state)
{
	struct fixture *f = *state;
	struct bus_event event[] = {{4, eventfd(0, EFD_NONBLOCK)}, {8, eventfd(0, EFD_NONBLOCK)}};

	bus_unmap(f->bus, &f->mmio);
	f->mmio.events = event;
	f->mmio.event_count = 2;
	assert_int_equal(bus_map(f->bus, BUS_MMIO, MMIO_GPA, 0x1000, &f->mmio, NULL), 0);
	start_at(f, kvm_guest_mmio);
	assert_int_equal(run(f), VCPU_HALTED);
	assert_int_equal(f->count, 2); /* the reads */
	assert_int_equal(taken(event[0].fd), 1);
	assert_int_equal(taken(event[1].fd), 1);

	bus_unmap(f->bus, &f->mmio); /* and no longer where it was */
	start_at(f, kvm_guest_mmio);
	assert_int_equal(run(f), VCPU_HALTED);
	assert_int_equal(taken(event[0].fd), 0);
	close(event[0].fd);
	close(event[1].fd);
}

static void *send_msi_later(void *arg)
{
	struct fixture *f = arg;

	usleep(20000);
	msi_send(f->vm->msi, MSI_ADDR, VECTOR);
	return NULL;
}

static void a_message_wakes_a_halted_vcpu(void **state)
{
	struct fixture *f = *state;
	pthread_t t;

	set_handler(f, kvm_guest_handler);
	start_at(f, kvm_guest_wait);
	assert_int_equal(pthread_create(&t, NULL, send_msi_later, f), 0);
	assert_int_equal(run(f), VCPU_HALTED);
	pthread_join(t, NULL);
	assert_int_equal(f->count, 1);
	assert_traffic(f, 0, true, 0x52, 0x77, 1);
}

static void the_end_of_a_level_interrupt_is_reported(void **state)
{
	struct fixture *f = *state;

	set_handler(f, kvm_guest_eoi_handler);
	start_at(f, kvm_guest_wait);
	msi_send(f->vm->msi, MSI_ADDR, VECTOR | MSI_LEVEL);
	assert_int_equal(run(f), VCPU_HALTED);
	assert_int_equal(f->count, 1);
	assert_int_equal(f->eoi, VECTOR);
}

static void the_end_of_an_edge_interrupt_is_not(void **state)
{
	struct fixture *f = *state;

	set_handler(f, kvm_guest_eoi_handler);
	start_at(f, kvm_guest_wait);
	msi_send(f->vm->msi, MSI_ADDR, VECTOR);
	assert_int_equal(run(f), VCPU_HALTED);
	assert_int_equal(f->count, 1);
	assert_int_equal(f->eoi, 0);
}

static void *raise_extint_later(void *arg)
{
	struct fixture *f = arg;

	usleep(20000);
	atomic_store(&f->extint_raised, true);
	engine_kvm.irq(f->cpu);
	return NULL;
}

static void the_pic_wakes_a_halted_vcpu(void **state)
{
	struct fixture *f = *state;
	pthread_t t;

	set_handler(f, kvm_guest_handler);
	start_at(f, kvm_guest_wait);
	assert_int_equal(pthread_create(&t, NULL, raise_extint_later, f), 0);
	assert_int_equal(run(f), VCPU_HALTED);
	pthread_join(t, NULL);
	assert_int_equal(f->count, 1);
	assert_false(f->extint_raised);
}

/* The signal hits before KVM_RUN, where it ends nothing: only immediate_exit is left. */
static void a_wake_between_look_and_entry_counts(void **state)
{
	struct fixture *f = *state;
	uint64_t start;

	set_handler(f, kvm_guest_handler);
	start_at(f, kvm_guest_wait);
	to_kvm_cpu(f->cpu)->tick_shift = 11; /* no tick comes to the rescue */
	f->raise_when_looked_at = true;
	start = now_ms();
	assert_int_equal(run(f), VCPU_HALTED);
	assert_int_equal(f->count, 1);
	assert_true(f->handled_ms - start < 400);
}

static void *kick_later(void *arg)
{
	struct fixture *f = arg;

	usleep(20000);
	engine_kvm.kick(f->cpu);
	return NULL;
}

static void a_kick_ends_a_loop(void **state)
{
	struct fixture *f = *state;
	uint64_t rax;
	pthread_t t;

	start_at(f, kvm_guest_loop);
	assert_int_equal(pthread_create(&t, NULL, kick_later, f), 0);
	assert_int_equal(run(f), VCPU_KICKED);
	pthread_join(t, NULL);
	assert_int_equal(engine_kvm.store(f->cpu, &f->s, &f->err), 0);
	rax = f->s.gpr[X86_RAX];
	assert_true(rax > 0);
	assert_in_range(f->s.rip, gpa_of(kvm_guest_loop), gpa_of(kvm_guest_fault) - 1);
	assert_int_equal(f->count, 0);
}

static void *kick_much_later(void *arg)
{
	struct fixture *f = arg;

	usleep(300000);
	engine_kvm.kick(f->cpu);
	return NULL;
}

/* The other one could end it. */
static void a_halt_beside_another_vcpu_goes_on_until_a_kick(void **state)
{
	struct fixture *f = *state;
	struct vcpu *other;
	pthread_t t;

	assert_int_equal(engine_kvm.vcpu_new(&other, f->vm, 1, &f->err), 0);
	start_at(f, kvm_guest_ports);
	assert_int_equal(pthread_create(&t, NULL, kick_much_later, f), 0);
	assert_int_equal(run(f), VCPU_KICKED);
	pthread_join(t, NULL);
	assert_int_equal(f->count, 8);
	engine_kvm.vcpu_free(other);
	assert_int_equal(run(f), VCPU_HALTED);
}

static void a_kick_before_run_is_remembered_once(void **state)
{
	struct fixture *f = *state;

	start_at(f, kvm_guest_ports);
	engine_kvm.kick(f->cpu);
	assert_int_equal(run(f), VCPU_KICKED);
	assert_int_equal(f->count, 0);
	assert_int_equal(run(f), VCPU_HALTED);
	assert_int_equal(f->count, 8);
}

static void *kick_often(void *arg)
{
	struct fixture *f = arg;

	for (int i = 0; i < 2000; i++) {
		engine_kvm.kick(f->cpu);
		for (int k = 0; k < 1000 && i % 3; k++)
			__builtin_ia32_pause();
	}
	return NULL;
}

/* Each run ends by a kick; the last kick of all must end the last run, whatever the
 * moment it fell into. */
static void no_kick_is_lost(void **state)
{
	struct fixture *f = *state;
	pthread_t t;

	start_at(f, kvm_guest_loop);
	for (int round = 0; round < 20; round++) {
		assert_int_equal(pthread_create(&t, NULL, kick_often, f), 0);
		assert_int_equal(run(f), VCPU_KICKED);
		pthread_join(t, NULL);
		engine_kvm.kick(f->cpu);
		assert_int_equal(run(f), VCPU_KICKED);
	}
}

static void a_triple_fault_is_a_shutdown(void **state)
{
	struct fixture *f = *state;

	start_at(f, kvm_guest_fault);
	f->s.idtr.limit = 0;
	assert_int_equal(engine_kvm.load(f->cpu, &f->s, &f->err), 0);
	assert_int_equal(run(f), VCPU_SHUTDOWN);
}

static unsigned writes_to(struct fixture *f, uint64_t port, uint64_t value[], unsigned max)
{
	unsigned n = 0;

	for (unsigned i = 0; i < f->count; i++)
		if (f->seen[i].write && f->seen[i].addr == port && n < max)
			value[n++] = f->seen[i].value;
	return n;
}

static void what_kvm_cannot_emulate_the_jit_executes(void **state)
{
	struct fixture *f = *state;
	uint64_t value[3];

	start_at(f, kvm_guest_alien);
	f->s.cr4 = CR4_OSFXSR | CR4_OSXMMEXCPT;
	assert_int_equal(engine_kvm.load(f->cpu, &f->s, &f->err), 0);
	assert_int_equal(run(f), VCPU_HALTED);
	assert_int_equal(writes_to(f, 0x54, value, 3), 2);
	assert_int_equal(value[0], 0x11223344);      /* the first word */
	assert_int_equal(value[1], 0x11223344 + 12); /* the last, as the patched byte has it */
	assert_true(to_kvm_cpu(f->cpu)->asides >= 2);
}

static void unknown_registers_come_from_the_table(void **state)
{
	struct fixture *f = *state;

	start_at(f, kvm_guest_msr);
	assert_int_equal(run(f), VCPU_HALTED);
	assert_traffic(f, 0, true, 0x52, 0, 1);
}

static void a_step_is_one_instruction(void **state)
{
	struct fixture *f = *state;
	enum vcpu_stop why;

	start_at(f, kvm_guest_step);
	for (int i = 0; i < 3; i++) {
		if (engine_kvm.step(f->cpu, &why, &f->err) < 0)
			fail_msg("step: %s", f->err.text);
		assert_int_equal(why, VCPU_KICKED);
		assert_int_equal(engine_kvm.store(f->cpu, &f->s, &f->err), 0);
		assert_int_equal(f->s.gpr[X86_RAX], i == 0 ? 5 : 11);
		assert_int_equal(f->s.rip, gpa_of(kvm_guest_step) + (i == 0 ? 5 : i == 1 ? 8 : 9));
	}
	assert_int_equal(run(f), VCPU_HALTED);
}

/* Everything that a long-mode vCPU may hold, each value its own. */
static void fill(struct x86_state *s)
{
	for (int i = 0; i < 16; i++)
		s->gpr[i] = 0x1111111111111111ull * i;
	s->rflags = RFLAGS_FIXED | RFLAGS_CF | RFLAGS_OF;
	s->cr0 |= CR0_PG | CR0_WP | CR0_MP;
	s->cr2 = 0xdeadbeef000;
	s->cr3 = 0x3000;
	s->cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT;
	s->cr8 = 5;
	s->efer = EFER_LME | EFER_LMA | EFER_SCE | EFER_NXE;
	s->seg[X86_CS].attr = SEG_P | SEG_S | SEG_L | SEG_G | 0xb;
	s->seg[X86_FS].base = 0x7fff12345000;
	s->seg[X86_GS].base = 0xffff888012345000;
	s->tr = (struct x86_seg){.base = 0x5000, .limit = 0x67, .sel = 0x28, .attr = SEG_P | 0xb};
	s->ldtr = (struct x86_seg){.attr = SEG_UNUSABLE};
	s->kernel_gs_base = 0xffff888000001000;
	s->star = 0x0023001000000000;
	s->lstar = 0xffffffff81000000;
	s->cstar = 0xffffffff81001000;
	s->sfmask = 0x47700;
	s->sysenter_cs = 0x10;
	s->sysenter_esp = 0x82000000; /* AMD keeps 32 bits of these, which is all they need */
	s->sysenter_eip = 0x83000000;
	s->pat = 0x0407050600070106;
	s->mtrr_def_type = 0xc06;
	s->mtrr_base[1] = 0xc0000000;
	s->mtrr_mask[1] = 0xffc0000800;
	s->mtrr_fixed[3] = 0x0606060606060606;
	s->dr[0] = 0x1000;
	s->dr[3] = 0x4000;
	s->dr6 = 0xffff0ff1;
	s->xcr0 = XCR0_X87 | XCR0_SSE;
	for (int i = 0; i < 256; i++)
		s->xsave[160 + i] = i ^ 0x5a;
	store_le(s->xsave + 512, XCR0_X87 | XCR0_SSE, 8);
	s->events.nmi_masked = true;
	s->tsc = 1000000000000ull;
	store_le(s->lapic + 0x80, 0x50, 4);
	store_le(s->lapic + 0x350, 0x10042, 4);
}

static void assert_seg(const struct x86_seg *a, const struct x86_seg *b)
{
	assert_int_equal(a->attr & SEG_UNUSABLE, b->attr & SEG_UNUSABLE);
	if (a->attr & SEG_UNUSABLE)
		return;
	assert_int_equal(a->base, b->base);
	assert_int_equal(a->limit, b->limit);
	assert_int_equal(a->sel, b->sel);
	assert_int_equal(a->attr, b->attr);
}

/* It runs on from what was loaded; but there are hosts (PVM) where a guest's TSC can only
 * be the host's. */
static void assert_tsc(struct fixture *f, uint64_t loaded, uint64_t stored)
{
	uint64_t second = f->cpuid.tsc_hz, host = __builtin_ia32_rdtsc();

	if (stored <= host && host - stored < second)
		print_message("this KVM gives guests the host's TSC\n");
	else
		assert_in_range(stored, loaded, loaded + second);
}

static void state_comes_back_as_it_went_in(void **state)
{
	static struct x86_state a, b;
	struct fixture *f = *state;

	start_at(f, kvm_guest_step);
	a = f->s;
	fill(&a);
	if (engine_kvm.load(f->cpu, &a, &f->err) < 0)
		fail_msg("%s", f->err.text);
	memset(&b, 0xff, sizeof b);
	assert_int_equal(engine_kvm.store(f->cpu, &b, &f->err), 0);

#define SAME(field) assert_memory_equal(&a.field, &b.field, sizeof a.field)
	SAME(gpr), SAME(rip), SAME(rflags);
	for (int i = 0; i < X86_SREGS; i++)
		assert_seg(&a.seg[i], &b.seg[i]);
	assert_seg(&a.tr, &b.tr);
	assert_seg(&a.ldtr, &b.ldtr);
	assert_int_equal(a.gdtr.base, b.gdtr.base);
	assert_int_equal(a.idtr.limit, b.idtr.limit);
	SAME(cr0), SAME(cr2), SAME(cr3), SAME(cr4), SAME(cr8), SAME(efer), SAME(apic_base);
	SAME(dr), SAME(dr6), SAME(dr7), SAME(xcr0);
	SAME(star), SAME(lstar), SAME(cstar), SAME(sfmask), SAME(kernel_gs_base);
	SAME(sysenter_cs), SAME(sysenter_esp), SAME(sysenter_eip), SAME(pat);
	SAME(mtrr_def_type), SAME(mtrr_base), SAME(mtrr_mask), SAME(mtrr_fixed);
	assert_memory_equal(a.xsave + 160, b.xsave + 160, 256);
	assert_int_equal(load_le(b.lapic + 0x80, 4), 0x50);
	assert_int_equal(load_le(b.lapic + 0x350, 4), 0x10042);
	assert_int_equal(load_le(b.lapic + 0xf0, 4), 0x1ff);
	assert_true(b.events.nmi_masked && !b.events.nmi_pending && !b.events.exception_pending);
	assert_int_equal(b.mp_state, X86_RUNNING);
	assert_tsc(f, a.tsc, b.tsc);
}

static void an_interrupt_under_way_survives(void **state)
{
	static struct x86_state b;
	struct fixture *f = *state;

	set_handler(f, kvm_guest_handler);
	start_at(f, kvm_guest_wait);
	f->s.rflags |= RFLAGS_IF;
	f->s.events.interrupt_injected = true;
	f->s.events.interrupt_vector = VECTOR;
	assert_int_equal(engine_kvm.load(f->cpu, &f->s, &f->err), 0);
	assert_int_equal(engine_kvm.store(f->cpu, &b, &f->err), 0);
	assert_true(b.events.interrupt_injected);
	assert_int_equal(b.events.interrupt_vector, VECTOR);
	assert_int_equal(engine_kvm.load(f->cpu, &b, &f->err), 0);
	assert_int_equal(run(f), VCPU_HALTED);
	assert_int_equal(f->count, 1);
}

/* Stopped right behind an access to the bus, the state shows the instruction done. */
static void a_kick_during_an_access_finds_it_finished(void **state)
{
	struct fixture *f = *state;

	start_at(f, kvm_guest_ports);
	engine_kvm.kick(f->cpu);
	assert_int_equal(run(f), VCPU_KICKED);
	for (unsigned i = 0; f->count < 1 && i < 100; i++) {
		enum vcpu_stop why;

		assert_int_equal(engine_kvm.step(f->cpu, &why, &f->err), 0);
	}
	assert_int_equal(engine_kvm.store(f->cpu, &f->s, &f->err), 0);
	assert_int_equal(f->s.gpr[X86_RAX] & 0xff, 0x40);
	assert_int_equal(f->s.rip, gpa_of(kvm_guest_ports) + 2);
}

int main(void)
{
#define TEST(t) cmocka_unit_test_setup_teardown(t, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(ports_go_to_the_bus_in_order),
		TEST(mmio_goes_to_the_bus_with_its_width),
		TEST(writes_that_only_signal_do_not_come_to_the_bus),
		TEST(a_message_wakes_a_halted_vcpu),
		TEST(the_end_of_a_level_interrupt_is_reported),
		TEST(the_end_of_an_edge_interrupt_is_not),
		TEST(the_pic_wakes_a_halted_vcpu),
		TEST(a_wake_between_look_and_entry_counts),
		TEST(a_kick_ends_a_loop),
		TEST(a_halt_beside_another_vcpu_goes_on_until_a_kick),
		TEST(a_kick_before_run_is_remembered_once),
		TEST(no_kick_is_lost),
		TEST(a_triple_fault_is_a_shutdown),
		TEST(what_kvm_cannot_emulate_the_jit_executes),
		TEST(unknown_registers_come_from_the_table),
		TEST(a_step_is_one_instruction),
		TEST(state_comes_back_as_it_went_in),
		TEST(an_interrupt_under_way_survives),
		TEST(a_kick_during_an_access_finds_it_finished),
	};
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	if (fd < 0) {
		perror("skipped: /dev/kvm");
		return 77;
	}
	close(fd);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
