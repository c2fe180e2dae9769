/* translate_fuzz: a page of guest code in some mode. The block at some offset is translated, for
 * running and for single steps, and its host code is read back (cpu/jit/scan_slow.h). Then the code
 * runs, step by step and freely for a moment, on registers that mostly point into RAM; whatever it
 * does, Holon must neither crash nor hang, and what was translated on the way is read back too.
 *
 * The code is bytes as they come, or a stream of instructions: of every form that Zydis knows, each
 * with operands that two bytes of the input choose (struct choice_insn). The fuzzer finds sequences of
 * bytes that decode to something new, but hardly whole streams of rare instructions.
 *
 * The first bytes of an input choose mode, features, offset and registers: struct choice. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sanitizer/asan_interface.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cpu/jit/scan_slow.h"
#include "cpu/jit/window.h"
#include "../engine/make.h"
#include "small_guest.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

#define STEPS  24
#define RUN_NS 300000

#define STREAM_BYTES 1024

struct choice {
	uint8_t mode; /* enum guest_mode */
	uint8_t features, more;
	uint8_t next; /* enum guest_next */
	uint16_t offset;
	uint8_t seed, flags;
} __attribute__((packed));

/* Bits of choice.next above enum guest_next. */
#define CHOICE_STREAM 4

struct choice_insn {
	uint16_t form, seed;
};

static struct small_guest guest;
static struct forms forms[2]; /* of 64-bit code, and of other */
static timer_t timer;

static void fail(const char *what, const struct err *e)
{
	fprintf(stderr, "translate_fuzz: %s: %s\n", what, e->text);
	abort();
}

/* A helper that raises never returns: the marks that AddressSanitizer puts on the stack frames of
 * those it drops would stay. All ways to raise from another file are wrapped by the linker. */
static const uint8_t *stack_top;

static void unmark_stack(void)
{
	uint8_t *at = __builtin_frame_address(0);

	ASAN_UNPOISON_MEMORY_REGION(at, (size_t)(stack_top - at));
}

noreturn void __real_jit_raise(struct jit_cpu *c, enum x86_vector v);
noreturn void __real_jit_raise_err(struct jit_cpu *c, enum x86_vector v, uint32_t error);
noreturn void __real_jit_raise_pf(struct jit_cpu *c, uint64_t gva, uint32_t error);
noreturn void __real_jit_leave(struct jit_cpu *c, enum jit_leave why);
noreturn void __wrap_jit_raise(struct jit_cpu *c, enum x86_vector v);
noreturn void __wrap_jit_raise_err(struct jit_cpu *c, enum x86_vector v, uint32_t error);
noreturn void __wrap_jit_raise_pf(struct jit_cpu *c, uint64_t gva, uint32_t error);
noreturn void __wrap_jit_leave(struct jit_cpu *c, enum jit_leave why);

void __wrap_jit_raise(struct jit_cpu *c, enum x86_vector v)
{
	unmark_stack();
	__real_jit_raise(c, v);
}

void __wrap_jit_raise_err(struct jit_cpu *c, enum x86_vector v, uint32_t error)
{
	unmark_stack();
	__real_jit_raise_err(c, v, error);
}

void __wrap_jit_raise_pf(struct jit_cpu *c, uint64_t gva, uint32_t error)
{
	unmark_stack();
	__real_jit_raise_pf(c, gva, error);
}

void __wrap_jit_leave(struct jit_cpu *c, enum jit_leave why)
{
	unmark_stack();
	__real_jit_leave(c, why);
}

static void on_timer(int sig)
{
	engine_jit.kick(guest.vcpu);
}

static void done(void)
{
	timer_delete(timer);
	engine_jit.vcpu_free(guest.vcpu);
	engine_jit.vm_free(guest.vm);
	bus_free(guest.bus);
	mem_free(guest.mem);
	forms_done(&forms[0]);
	forms_done(&forms[1]);
}

static void init(void)
{
	struct sigaction a = {.sa_handler = on_timer, .sa_flags = SA_RESTART};
	struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN};
	struct err e;

	if (small_guest_init(&guest, &e) < 0)
		fail("set-up", &e);
	if (sigaction(SIGRTMIN, &a, NULL) < 0 || timer_create(CLOCK_MONOTONIC, &ev, &timer) < 0 ||
	    atexit(done))
		abort();
}

static void set_features(struct x86_state *s, const struct choice *c)
{
	bool avx512 = (guest.cpuid.xcr0_mask & XCR0_AVX512) == XCR0_AVX512;

	s->cr0 |= (c->features & 1 ? CR0_TS : 0) | (c->features & 2 ? CR0_WP : 0) |
		  (c->features & 4 ? CR0_AM : 0) | (c->features & 8 ? CR0_EM : 0);
	s->cr4 |= CR4_PGE | CR4_FSGSBASE | (c->features & 16 ? CR4_SMAP : 0) |
		  (c->features & 32 ? CR4_UMIP : 0) | (c->features & 64 ? CR4_TSD : 0);
	if (c->features & 128)
		s->cr4 &= ~(uint64_t)CR4_OSFXSR;
	s->xcr0 = 1;
	if (!(c->more & 1)) {
		s->cr4 |= CR4_OSXSAVE;
		s->xcr0 = guest.cpuid.xcr0_mask & (avx512 && !(c->more & 2) ? 0xe7 : 7);
	}
	s->rflags |= (c->more & 4 ? RFLAGS_AC : 0) | (c->more & 8 ? RFLAGS_TF : 0) |
		     (c->more & 16 ? RFLAGS_DF : 0) | (c->more & 32 ? RFLAGS_IOPL : 0) |
		     (c->more & 64 ? RFLAGS_IF : 0);
	if (c->more & 128) { /* segments that must be checked */
		s->seg[X86_DS].base = 0x1000;
		s->seg[X86_DS].limit = 0xdffff;
		s->seg[X86_ES].attr ^= SEG_DB;
		s->seg[X86_SS].attr ^= SEG_DB;
		s->seg[X86_FS].base = GUEST_DATA;
	}
}

static uint64_t rng(uint64_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 7;
	*x ^= *x << 17;
	return *x * 0x2545f4914f6cdd1du;
}

static void set_registers(struct x86_state *s, const struct choice *c)
{
	uint64_t x = c->seed + 1;

	for (unsigned n = 0; n < 16; n++) {
		uint64_t v = rng(&x);

		switch (v >> 60) {
		case 0: s->gpr[n] = v; break;
		case 1: s->gpr[n] = v & 0xff; break;
		case 2: s->gpr[n] = (v & ~0xfffull) | 0xffc; break; /* across pages */
		case 3: s->gpr[n] = (GUEST_DATA | (v & 0xf000)) + 0xffd; break;
		case 4: s->gpr[n] = GUEST_CODE | (v & 0xfff); break; /* the code itself */
		case 5: s->gpr[n] = GUEST_RAM - 1 - (v & 15); break;
		default: s->gpr[n] = GUEST_DATA | (v & 0xfff0); break;
		}
	}
	s->gpr[X86_RSP] = (GUEST_DATA + 0x8000) | (s->gpr[X86_RSP] & 0xfff);
	s->rflags |= c->flags & RFLAGS_ARITH;
	for (unsigned n = 0; n < 512; n += 8) /* XMM registers; the rest starts empty */
		store_le(s->xsave + n, n < 160 ? 0 : rng(&x), 8);
	store_le(s->xsave, 0x37f, 2);
	store_le(s->xsave + 24, c->flags & 0x80 ? 0x0 : 0x1f80, 4);
	store_le(s->xsave + 512, 3, 8);
}

static void put_code(const struct choice *c, const uint8_t *code, size_t len)
{
	size_t off = c->offset & 0xfff, first = 4096 - off;

	if (first > len)
		first = len;
	memcpy(guest.ram + GUEST_CODE + off, code, first);
	len -= first;
	if (len > 4096)
		len = 4096;
	memcpy(guest.ram + GUEST_CODE + 4096, code + first, len);
	memcpy(guest.ram + GUEST_AWAY, code + first, len);
}

/* The instructions that the input names, as far as a page goes. */
static size_t make_stream(const struct choice *c, const uint8_t *from, size_t len, uint8_t *to)
{
	static struct user_case made;
	const struct forms *f = &forms[c->mode % GUEST_MODES > GUEST_64_USER];
	size_t at = 0;

	for (; len >= sizeof(struct choice_insn); len -= sizeof(struct choice_insn)) {
		struct choice_insn i;
		uint32_t form;

		memcpy(&i, from, sizeof i);
		from += sizeof i;
		form = i.form % f->n;
		if (!make_case(&made, f, &form, 1, CODE_BASE + at, &(struct rng){i.seed}))
			continue;
		if (at + made.len > STREAM_BYTES)
			break;
		memcpy(to + at, made.bytes, made.len);
		at += made.len;
	}
	return at;
}

static void load(const struct x86_state *s)
{
	struct err e;

	if (engine_jit.load(guest.vcpu, s, &e) < 0)
		fail("load", &e);
}

static void translate(const struct x86_state *s)
{
	for (unsigned step = 0; step < 2; step++) {
		struct scan found;
		struct err e;
		int r = jit_scan_at(to_jit(guest.vcpu), s->rip, step, &found, &e);

		if (r < 0 && e.code != EFAULT)
			fail(step ? "step" : "block", &e);
	}
}

static void set_timer(uint64_t ns)
{
	struct itimerspec t = {.it_value.tv_nsec = (long)ns};

	timer_settime(timer, 0, &t, NULL);
}

static void run(void)
{
	enum vcpu_stop why = VCPU_KICKED;
	struct err e;

	for (unsigned n = 0; n < STEPS && why == VCPU_KICKED; n++)
		if (engine_jit.step(guest.vcpu, &why, &e) < 0)
			fail("step", &e);
	if (why != VCPU_KICKED)
		return;
	set_timer(RUN_NS);
	if (engine_jit.run(guest.vcpu, &why, &e) < 0)
		fail("run", &e);
	set_timer(0);
}

static void read_back(void)
{
	const struct jit_cache *k = &to_jit(guest.vcpu)->vm->cache;

	for (uint32_t n = 0; n < k->blocks && n < 64; n++) {
		const struct jit_block *b = jit_at(k, k->block[n]);
		struct scan found;
		struct err e;

		if (b->valid && jit_scan_block(k, b, false, &found, &e) < 0)
			fail("what ran", &e);
	}
}

/* Finding the forms takes some seconds here, which are not the first input's. */
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	if (!forms_find(&forms[0], false) || !forms_find(&forms[1], true))
		abort();
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
	static uint8_t stream[STREAM_BYTES];
	static struct x86_state s;
	struct choice c;

	stack_top = __builtin_frame_address(0);
	if (!guest.vcpu)
		init();
	if (len <= sizeof c)
		return 0;
	memcpy(&c, bytes, sizeof c);
	small_guest_fill(&guest, (enum guest_next)(c.next & 3));
	if (c.next & CHOICE_STREAM) {
		len = make_stream(&c, bytes + sizeof c, len - sizeof c, stream);
		put_code(&c, stream, len);
	} else {
		put_code(&c, bytes + sizeof c, len - sizeof c);
	}
	small_guest_state(&s, (enum guest_mode)(c.mode % GUEST_MODES));
	set_features(&s, &c);
	set_registers(&s, &c);
	s.rip += c.offset & 0xfff;

	to_jit(guest.vcpu)->p->win->at_once = c.mode / GUEST_MODES & 1;
	load(&s);
	translate(&s);
	load(&s);
	run();
	read_back();
	return 0;
}
