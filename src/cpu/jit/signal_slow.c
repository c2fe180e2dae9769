/* signal: traps that copied instructions take natively become the guest's exceptions: #DE, #MF,
 * #XM, #GP of misaligned vector operands, #UD. The kernel delivers them as signals; the faulting
 * host address leads to the block, its site to the guest instruction and to where its flags are.
 *
 * Everything else that ends in these signals is our own bug (or another part of the process):
 * it gets the default action, or the handler that was there before. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <ucontext.h>

#include "cpu/jit/core.h"
#include "cpu/jit/insn.h"
#include "cpu/jit/window.h"

__thread struct jit_cpu *jit_current;

static struct sigaction before[NSIG]; /* written once, under pthread_once */

static const int host_gregs[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
				   REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
				   REG_R12, REG_R13, REG_R14, REG_R15};

static noreturn void raise_pending(void)
{
	jit_leave(jit_current, LEAVE_RAISE);
}

static noreturn void step_pending(void)
{
	jit_leave(jit_current, LEAVE_STEP);
}

static const struct jit_site *site_at(const struct jit_block *b, uint32_t off)
{
	for (const struct jit_site *s = jit_sites(b); s < jit_sites(b) + b->sites; s++)
		if (s->host_off == off)
			return s;
	return NULL;
}

static bool exception_for(int sig, unsigned long trap, struct jit_exception *x)
{
	*x = (struct jit_exception){0};
	switch (trap) {
	case X86_DE:
	case X86_UD:
	case X86_MF:
	case X86_XM: x->vector = (uint8_t)trap; return sig == SIGFPE || sig == SIGILL;
	case X86_GP:
	case X86_SS_FAULT:
	case X86_AC: *x = (struct jit_exception){X86_GP, true, 0}; return true;
	default: return false;
	}
}

static bool is_direct(const struct jit_cpu *c, const struct jit_block *b)
{
	const struct jit_page *p = jit_at(&c->vm->cache, b->page);

	return (p->mode & (MODE_DIRECT | MODE_STEP)) == MODE_DIRECT;
}

/* A fault of an address in a direct block: the window may lack the page. *step: else it is up to
 * step mode to see what the guest's access does. */
static bool window_fault(struct jit_cpu *c, int sig, const greg_t *r, bool *step)
{
	*step = true;
	switch ((unsigned long)r[REG_TRAPNO]) {
	case X86_PF:
		if (sig != SIGSEGV)
			return false;
		switch (jit_window_fault(c, (uint64_t)r[REG_CR2], r[REG_ERR] & PF_W,
					 (const void *)r[REG_RIP])) {
		case 1: *step = false; return true;
		case 0: return true;
		default: return false;
		}
	case X86_GP: /* of a lane that is not open; or misaligned, which is found out again */
	case X86_SS_FAULT: return sig == SIGSEGV || sig == SIGBUS;
	default: return false;
	}
}

static bool to_guest(int sig, ucontext_t *u)
{
	struct jit_cpu *c = jit_current;
	greg_t *r = u->uc_mcontext.gregs;
	const struct jit_site *s;
	struct jit_exception x;
	struct jit_block *b;
	const uint8_t *pc = (const uint8_t *)r[REG_RIP];
	bool step = false;

	if (!c)
		return false;
	b = jit_cache_find(&c->vm->cache, pc);
	s = b ? site_at(b, (uint32_t)(pc - (const uint8_t *)jit_rx(&c->vm->cache, b->start)))
	      : NULL;
	if (!s)
		return false;
	if (is_direct(c, b) && window_fault(c, sig, r, &step)) {
		if (!step)
			return true;
	} else {
		step = false;
		if (!exception_for(sig, (unsigned long)r[REG_TRAPNO], &x))
			return false;
	}
	for (unsigned g = 0; g < 16; g++) {
		unsigned h = jit_host_reg[g];

		if (h != R_NONE)
			c->st.gpr[g] = h == s->borrow ? c->tmp[3] : (uint64_t)r[host_gregs[h]];
	}
	c->st.gpr[X86_RSP] += (uint64_t)s->rsp_by;
	if (s->flags & SITE_RSI)
		c->st.gpr[X86_RSI] -= (uint64_t)r[REG_R13];
	if (s->flags & SITE_RDI)
		c->st.gpr[X86_RDI] -= (uint64_t)r[REG_R14];
	if (!(s->flags & FLAGS_SLOT))
		jit_flags_set_arith(c, (uint32_t)r[REG_EFL]);
	c->st.rip = jit_page_rip(jit_at(&c->vm->cache, b->page), b->gva) + s->guest_off;
	if (!step)
		c->exc = x;
	r[REG_RIP] = (greg_t)(step ? step_pending : raise_pending);
	r[REG_RSP] = (greg_t)(c->host_rsp - 8); /* as after a call */
	return true;
}

/* Not ours: whoever handled the signal before us gets it, and keeps it. A fault happens again
 * as soon as we return; a signal that somebody sent must be sent again. */
static void hand_back(int sig, const siginfo_t *info)
{
	sigaction(sig, &before[sig], NULL);
	if (info->si_code <= 0)
		raise(sig);
}

static void on_signal(int sig, siginfo_t *info, void *context)
{
	/* A sent signal leaves the number of some older trap in the context. */
	if (info->si_code <= 0 || !to_guest(sig, context))
		hand_back(sig, info);
}

static void install(void)
{
	static const int sigs[] = {SIGFPE, SIGILL, SIGSEGV, SIGBUS};
	struct sigaction a = {.sa_sigaction = on_signal,
			      .sa_flags = SA_SIGINFO | SA_NODEFER | SA_RESTART};

	for (unsigned i = 0; i < ARRAY_SIZE(sigs); i++)
		sigaction(sigs[i], &a, &before[sigs[i]]);
}

int jit_signals_init(struct err *e)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	int r = pthread_once(&once, install);

	return r ? err_sys(e, r, "signal handlers") : 0;
}
