/* debug: a debugger's points (engine->set_debug) in user code, which has a window: they
 * come and go while the window maps what they are about, and the program computes on as if nothing
 * had been. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "longmode.h"
#include "user.h"

#define CODE   UINT64_C(0x400000)
#define DATA   UINT64_C(0x7f1234567000)
#define CODE_P 0x200000u
#define DATA_P 0x201000u

enum {                 /* the program */
       TOP = 0,        /* inc %rax */
       STORE = 3,      /* mov %rax, (%rdi) */
       LOAD = 6,       /* mov 0x800(%rdi), %rcx */
       PUSH = 13,      /* push %rax */
       POP = 14,       /* pop %rdx */
       CODE_READ = 15, /* mov TOP(%rip), %bl */
       JUMP = 21,      /* jmp TOP */
};

static const uint8_t program[] = {0x48, 0xff, 0xc0, 0x48, 0x89, 0x07, 0x48, 0x8b,
				  0x8f, 0x00, 0x08, 0x00, 0x00, 0x50, 0x5a, 0x8a,
				  0x1d, 0xeb, 0xff, 0xff, 0xff, 0xeb, 0xe9};

struct guest {
	struct vm vm;
	struct longmode lm;
	struct engine_debug debug;
	struct x86_state s;
	uint64_t *data;
};

static bool failed;
static const char *volatile now = "start"; /* for the alarm's handler */

/* A point was missed: the program never ends. */
static void on_alarm(int sig)
{
	(void)!write(1, "FAIL: runs for ever at: ", 24);
	(void)!write(1, now, strlen(now));
	_exit(1);
}

static bool said(const char *what, uint64_t got, uint64_t want)
{
	if (got == want)
		return true;
	printf("FAIL %s: %lx instead of %lx\n", what, got, want);
	return !(failed = true);
}

static bool run(struct guest *g)
{
	struct vcpu *v = g->vm.vcpu;
	enum vcpu_stop why = VCPU_KICKED;
	struct err e = {0};
	int r = g->vm.engine->set_debug(v, &g->debug, &e);

	while (r == 0 && why == VCPU_KICKED && !g->vm.stopped)
		r = g->vm.engine->run(v, &why, &e);
	if (r == 0)
		r = g->vm.engine->store(v, &g->s, &e);
	if (r < 0)
		printf("FAIL %s\n", e.text);
	failed |= r < 0;
	if (r == 0 && g->vm.stopped) {
		struct longmode_trap t = {0};

		(void)longmode_trapped(&g->lm, &g->s, &t);
		printf("FAIL %s: the guest has vector %u at %lx\n", now, t.vector, t.rip);
		exit(1);
	}
	return r == 0 && said("run ends with", why, VCPU_BREAKPOINT);
}

static void points(struct guest *g, unsigned n)
{
	g->debug.points = n;
	g->debug.step = false;
}

static void point(struct guest *g, enum debug_kind kind, uint64_t gva, uint32_t len)
{
	g->debug.point[g->debug.points++] = (struct debug_point){gva, len, kind};
}

static void run_to(struct guest *g, const char *what, enum debug_kind kind, uint64_t gva,
		   uint64_t at)
{
	uint64_t before = g->s.gpr[X86_RAX];

	now = what;
	if (!run(g))
		return;
	said(what, g->s.rip, CODE + at);
	said("its kind", g->vm.vcpu->hit.kind, kind);
	said("its address", g->vm.vcpu->hit.gva, gva);
	said("rounds", g->s.gpr[X86_RAX] - before <= 1, true);
	said("what the program stored", *g->data, g->s.gpr[X86_RAX] - (at == STORE));
}

static void step_to(struct guest *g, uint64_t at)
{
	struct engine_debug all = g->debug;

	now = "step";
	g->debug = (struct engine_debug){.step = true};
	if (run(g))
		said("a step leads to", g->s.rip, CODE + at);
	g->debug = all;
}

/* Lets the program run freely for a while: to where a register has this value. */
static void run_on(struct guest *g, unsigned rounds)
{
	points(g, 0);
	point(g, DEBUG_EXEC, CODE + LOAD, 1);
	for (unsigned n = 0; n < rounds; n++) {
		run_to(g, "round", DEBUG_EXEC, CODE + LOAD, LOAD);
		step_to(g, PUSH);
	}
	points(g, 0);
}

static void execution(struct guest *g)
{
	points(g, 0);
	point(g, DEBUG_EXEC, CODE + STORE, 1);
	run_to(g, "first point", DEBUG_EXEC, CODE + STORE, STORE);
	step_to(g, LOAD);
	run_to(g, "the next round", DEBUG_EXEC, CODE + STORE, STORE);
	step_to(g, LOAD);
	points(g, 0);
	point(g, DEBUG_EXEC, CODE + PUSH, 1); /* the one before is gone */
	run_to(g, "another point", DEBUG_EXEC, CODE + PUSH, PUSH);
	step_to(g, POP);
}

static void data(struct guest *g)
{
	run_on(g, 3); /* code, data and stack are mapped */
	point(g, DEBUG_WRITE, DATA, 8);
	run_to(g, "write", DEBUG_WRITE, DATA, LOAD);
	run_to(g, "write again", DEBUG_WRITE, DATA, LOAD);
	run_on(g, 3);
	point(g, DEBUG_ACCESS, DATA + 0x800, 8);
	run_to(g, "read", DEBUG_ACCESS, DATA + 0x800, PUSH);
	run_on(g, 3);
	point(g, DEBUG_WRITE, DATA + 0xff0 - 8, 8);
	run_to(g, "push", DEBUG_WRITE, DATA + 0xff0 - 8, POP);
	run_on(g, 3);
	point(g, DEBUG_WRITE, DATA + 0x800, 8); /* is read only */
	point(g, DEBUG_WRITE, CODE + TOP, 1);
	point(g, DEBUG_EXEC, CODE + JUMP, 1);
	run_to(g, "no write", DEBUG_EXEC, CODE + JUMP, JUMP);
	step_to(g, TOP);
	points(g, 0);
	point(g, DEBUG_READ, CODE + TOP, 1);
	run_to(g, "code that is read", DEBUG_READ, CODE + TOP, JUMP);
	run_on(g, 3);
}

/* A debugger writes a value that the program goes on with. */
static void changes(struct guest *g)
{
	struct err e = {0};

	run_on(g, 1);
	g->s.gpr[X86_RAX] = 0x1000000;
	if (g->vm.engine->load_regs(g->vm.vcpu, &g->s, &e) < 0)
		said("load_regs", 1, 0);
	point(g, DEBUG_WRITE, DATA, 8);
	run_to(g, "write", DEBUG_WRITE, DATA, LOAD);
	said("stored", *g->data, 0x1000001);
	run_on(g, 1);
}

static bool start(struct guest *g, const struct engine *engine, bool windows)
{
	struct err e = {0};

	g->vm.windows = windows;
	if (vm_init(&g->vm, engine, MIB(8), &e) < 0) {
		printf("FAIL %s\n", e.text);
		return false;
	}
	longmode_init(&g->lm, &g->vm);
	longmode_map(&g->lm, CODE, CODE_P, PTE_P | PTE_U);
	longmode_map(&g->lm, DATA, DATA_P, PTE_P | PTE_U | PTE_W);
	memcpy(vm_ram(&g->vm, CODE_P, sizeof program), program, sizeof program);
	g->data = vm_ram(&g->vm, DATA_P, 8);
	g->s = g->lm.base;
	longmode_to_user(&g->s, USER_CS64);
	g->s.rip = CODE;
	g->s.gpr[X86_RDI] = DATA;
	g->s.gpr[X86_RSP] = DATA + 0xff0;
	if (engine->load(g->vm.vcpu, &g->s, &e) == 0)
		return true;
	printf("FAIL %s\n", e.text);
	return false;
}

int main(void)
{
	const struct engine *engine = vm_engine("jit");

	if (!engine) {
		printf("the JIT is not in this build\n");
		return 77;
	}
	signal(SIGALRM, on_alarm);
	for (unsigned windows = 0; windows < 2; windows++) {
		static struct guest g;

		memset(&g, 0, sizeof g);
		alarm(60);
		if (!start(&g, engine, windows))
			return 1;
		execution(&g);
		data(&g);
		changes(&g);
		vm_done(&g.vm);
	}
	return failed;
}
