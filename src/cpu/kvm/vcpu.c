/* vcpu: makes, runs, steps and kicks a KVM vCPU.
 *
 * Kicks. kick() sets kicked, then kvm_run's immediate_exit, then signals the thread that
 * is in run(). run() clears immediate_exit, then looks at kicked, then enters. A kick that
 * comes before the look is seen by it; one after it leaves immediate_exit set, so that
 * KVM_RUN returns at once; one after KVM_RUN has read it finds the thread in the kernel,
 * where the signal ends the run. irq() is the same without kicked.
 *
 * HLT sleeps in the kernel, where the LAPIC is. A HLT with interrupts off would sleep for
 * ever, unseen: a timer whose period doubles up to a second looks for that. */
#include <errno.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "cpu/kvm/kvm_priv.h"

#define TICK_FIRST_NS   500000ull
#define TICK_LAST_SHIFT 11 /* about a second */

static int wake_signal(void)
{
	return SIGRTMIN + 5;
}

static void do_nothing(int signal)
{
	(void)signal;
}

static int install_signal(struct err *e)
{
	struct sigaction act = {.sa_handler = do_nothing, .sa_flags = SA_RESTART};

	return sigaction(wake_signal(), &act, NULL) < 0 ? err_sys(e, errno, "sigaction") : 0;
}

static void wake(struct kvm_cpu *c)
{
	int saved = errno;
	pid_t tid;

	__atomic_store_n(&c->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
	tid = atomic_load(&c->tid);
	if (tid)
		tgkill(getpid(), tid, wake_signal());
	errno = saved;
}

static void kvm_kick(struct vcpu *v)
{
	struct kvm_cpu *c = to_kvm_cpu(v);

	atomic_store(&c->kicked, true);
	wake(c);
}

static void kvm_irq(struct vcpu *v)
{
	wake(to_kvm_cpu(v));
}

/* --- making --- */

static int set_tsc_hz(struct kvm_cpu *c, struct err *e)
{
	const struct kvm_vm *vm = kvm_vm_of(c);
	long want = vm->env.cpuid->tsc_hz / 1000;
	long have = ioctl(c->fd, KVM_GET_TSC_KHZ, 0);
	long off = labs(want - have);

	/* 250 ppm is what KVM itself lets pass for equal */
	if (!want || have <= 0 || off <= have / 4000)
		return 0;
	if (ioctl(c->fd, KVM_SET_TSC_KHZ, want) == 0)
		return 0;
	return err_set(e, ENOTSUP, "KVM: the TSC runs at %ld kHz here and cannot be made %ld", have,
		       want);
}

static int map_run(struct kvm_cpu *c, struct err *e)
{
	int bytes = kvm_vm_of(c)->run_bytes;
	void *run = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, c->fd, 0);

	if (run == MAP_FAILED)
		return err_sys(e, errno, "KVM: map vCPU");
	c->run = run;
	return 0;
}

static void kvm_vcpu_free(struct vcpu *v)
{
	struct kvm_cpu *c;

	if (!v)
		return;
	c = to_kvm_cpu(v);
	if (c->asides)
		log_debug("vCPU %u: the JIT executed %llu instructions for KVM", v->index,
			  (unsigned long long)c->asides);
	if (c->has_timer)
		timer_delete(c->timer);
	kvm_aside_done(c);
	if (c->run)
		munmap(c->run, kvm_vm_of(c)->run_bytes);
	if (c->fd >= 0)
		close(c->fd);
	kvm_vm_of(c)->vcpus--;
	free(c);
}

static int kvm_vcpu_new(struct vcpu **out, struct engine_vm *vm, uint32_t index, struct err *e)
{
	struct kvm_cpu *c = calloc(1, sizeof *c);
	int r;

	if (!c)
		return err_set(e, ENOMEM, "KVM: vCPU %u", index);
	c->base = (struct vcpu){.engine = &engine_kvm, .vm = vm, .index = index};
	kvm_vm_of(c)->vcpus++;
	c->fd = ioctl(to_kvm_vm(vm)->fd, KVM_CREATE_VCPU, (unsigned long)index);
	r = c->fd < 0 ? err_sys(e, errno, "KVM_CREATE_VCPU %u", index) : map_run(c, e);
	if (r == 0)
		r = install_signal(e);
	if (r == 0)
		r = kvm_cpuid_load(c, e);
	if (r == 0)
		r = set_tsc_hz(c, e);
	if (r == 0)
		r = kvm_list_msrs(c, e);
	if (r < 0)
		kvm_vcpu_free(&c->base);
	else
		*out = &c->base;
	return r;
}

/* --- running --- */

static void set_tick(struct kvm_cpu *c, uint64_t ns)
{
	struct timespec t = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
	struct itimerspec spec = {.it_value = t, .it_interval = t};

	timer_settime(c->timer, 0, &spec, NULL);
}

/* Without a timer (the host has none left) a dead HLT sleeps until it is kicked. */
static void start_tick(struct kvm_cpu *c, pid_t tid)
{
	struct sigevent ev = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = wake_signal()};

	if (c->has_timer && c->timer_tid != tid) {
		timer_delete(c->timer);
		c->has_timer = false;
	}
	if (!c->has_timer) {
		ev._sigev_un._tid = tid;
		c->has_timer = timer_create(CLOCK_MONOTONIC, &ev, &c->timer) == 0;
		c->timer_tid = tid;
	}
	if (c->has_timer)
		set_tick(c, TICK_FIRST_NS << c->tick_shift);
}

static void enter(struct kvm_cpu *c)
{
	pid_t tid = gettid();
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, wake_signal());
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	atomic_store(&c->tid, tid);
	start_tick(c, tid);
}

/* Whether the vCPU sleeps in a HLT that no interrupt ends. */
static bool is_dead_halt(struct kvm_cpu *c)
{
	struct kvm_mp_state mp;
	struct kvm_vcpu_events k;

	if (c->run->if_flag || ioctl(c->fd, KVM_GET_MP_STATE, &mp) < 0 ||
	    mp.mp_state != KVM_MP_STATE_HALTED)
		return false;
	return ioctl(c->fd, KVM_GET_VCPU_EVENTS, &k) == 0 && !k.nmi.pending &&
	       !k.exception.pending && !k.exception.injected;
}

/* Another vCPU may end any HLT, by INIT or an NMI: so come back those that a guest took
 * offline. */
static bool is_alone(const struct kvm_cpu *c)
{
	return kvm_vm_of(c)->vcpus == 1;
}

static bool interrupted(struct kvm_cpu *c)
{
	bool dead = is_alone(c) && is_dead_halt(c);

	if (c->has_timer && c->tick_shift < TICK_LAST_SHIFT)
		set_tick(c, TICK_FIRST_NS << ++c->tick_shift);
	return dead;
}

/* Has KVM finish the instruction whose access it left to us, without running on: until
 * then the registers lie. */
static int finish_exit(struct kvm_cpu *c, struct err *e)
{
	enum vcpu_stop why;

	while (c->unfinished) {
		c->run->immediate_exit = 1;
		if (ioctl(c->fd, KVM_RUN, 0) < 0) {
			c->unfinished = false;
			return errno == EINTR || errno == EAGAIN ? 0 : err_sys(e, errno, "KVM_RUN");
		}
		/* What it stumbles over, it will stumble over again when it really runs. */
		if (c->run->exit_reason == KVM_EXIT_INTERNAL_ERROR ||
		    c->run->exit_reason == KVM_EXIT_DEBUG) {
			c->unfinished = false;
			return 0;
		}
		int r = kvm_serve_exit(c, &why, e);

		if (r < 0)
			return r;
	}
	return 0;
}

/* Puts the PIC's vector where an acknowledged interrupt stands. Not by KVM_INTERRUPT: a
 * vector that waits there is in no part of the state, and would be lost on saving. */
static int inject_extint(struct kvm_cpu *c, uint8_t vector, struct err *e)
{
	struct kvm_mp_state mp = {KVM_MP_STATE_RUNNABLE};
	struct kvm_vcpu_events k;

	if (ioctl(c->fd, KVM_GET_VCPU_EVENTS, &k) < 0)
		return err_sys(e, errno, "KVM_GET_VCPU_EVENTS");
	k.interrupt.injected = 1;
	k.interrupt.nr = vector;
	k.interrupt.soft = 0;
	if (ioctl(c->fd, KVM_SET_VCPU_EVENTS, &k) < 0)
		return err_sys(e, errno, "KVM_SET_VCPU_EVENTS");
	if (ioctl(c->fd, KVM_SET_MP_STATE, &mp) < 0) /* it may have slept in HLT */
		return err_sys(e, errno, "KVM_SET_MP_STATE");
	return 0;
}

static int offer_extint(struct kvm_cpu *c, struct err *e)
{
	struct extint *x = kvm_vm_of(c)->env.extint;
	struct kvm_run *run = c->run;
	int vector;

	run->request_interrupt_window = 0;
	if (!x || c->base.index != 0 || !x->pending(x))
		return 0;
	/* With an access unfinished, what KVM said of the window is older than it. */
	if (!run->ready_for_interrupt_injection || c->unfinished) {
		run->request_interrupt_window = 1;
		return 0;
	}
	run->ready_for_interrupt_injection = 0;
	vector = x->ack(x);
	return vector < 0 ? 0 : inject_extint(c, vector, e);
}

/* One KVM_RUN with what goes before and after. 1: again; 0: *why; or an error. */
static int run_once(struct kvm_cpu *c, enum vcpu_stop *why, struct err *e)
{
	uint64_t asides = c->asides;
	int r;

	__atomic_store_n(&c->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
	if (atomic_load(&c->kicked)) {
		r = finish_exit(c, e);
		atomic_store(&c->kicked, false);
		*why = VCPU_KICKED;
		return r;
	}
	r = offer_extint(c, e);
	if (r < 0)
		return r;
	if (ioctl(c->fd, KVM_RUN, 0) == 0) {
		r = kvm_serve_exit(c, why, e);
		if (r <= 0 || !c->debug.step || c->asides == asides)
			return r;
		c->base.hit = (struct debug_hit){.step = true}; /* the JIT did that step */
		*why = VCPU_BREAKPOINT;
		return 0;
	}
	c->unfinished = false;
	if (errno == EAGAIN) /* a vCPU that waits for INIT or SIPI woke up */
		return 1;
	if (errno != EINTR)
		return kvm_fail(c, e, errno, "KVM_RUN");
	*why = VCPU_HALTED;
	return interrupted(c) ? 0 : 1;
}

static int kvm_run_(struct vcpu *v, enum vcpu_stop *why, struct err *e)
{
	struct kvm_cpu *c = to_kvm_cpu(v);
	int r;

	enter(c);
	do
		r = run_once(c, why, e);
	while (r > 0);
	atomic_store(&c->tid, 0);
	if (c->has_timer)
		set_tick(c, 0);
	return r;
}

static bool is_halted(struct kvm_cpu *c)
{
	struct kvm_mp_state mp;

	return ioctl(c->fd, KVM_GET_MP_STATE, &mp) == 0 && mp.mp_state == KVM_MP_STATE_HALTED;
}

/* VCPU_KICKED is step's plain "done". A HLT is one instruction: it does not sleep here. */
static int kvm_step(struct vcpu *v, enum vcpu_stop *why, struct err *e)
{
	struct kvm_cpu *c = to_kvm_cpu(v);
	uint64_t asides = c->asides;
	int r = kvm_singlestep(c, true, e), off;

	if (r < 0)
		return r;
	enter(c);
	do
		r = run_once(c, why, e);
	while (r > 0 && c->asides == asides && !is_halted(c));
	atomic_store(&c->tid, 0);
	if (c->has_timer)
		set_tick(c, 0);
	off = kvm_singlestep(c, false, r < 0 ? NULL : e);
	if (r < 0)
		return r;
	if (r > 0 || *why == VCPU_BREAKPOINT)
		*why = is_halted(c) ? VCPU_HALTED : VCPU_KICKED;
	return off;
}

/* kvmclock counts guest time, as the machine's clock and the JIT's kvmclock do. */
static int set_clock(struct kvm_cpu *c, struct err *e)
{
	const struct kvm_vm *vm = kvm_vm_of(c);
	struct kvm_clock_data k = {.clock = vm->env.clock ? clock_now(vm->env.clock) : 0};

	if (!vm->env.clock || c->base.index != 0)
		return 0;
	return ioctl(vm->fd, KVM_SET_CLOCK, &k) < 0 ? err_sys(e, errno, "KVM_SET_CLOCK") : 0;
}

static int kvm_load(struct vcpu *v, const struct x86_state *s, struct err *e)
{
	struct kvm_cpu *c = to_kvm_cpu(v);
	int r = finish_exit(c, e);

	c->tick_shift = 0;
	if (r == 0)
		r = set_clock(c, e);
	if (r == 0)
		r = kvm_load_parts(c, s, KVM_PARTS_ALL, e);
	return r < 0 ? err_wrap(e, "load vCPU %u into KVM", v->index) : r;
}

static int kvm_store(struct vcpu *v, struct x86_state *s, struct err *e)
{
	struct kvm_cpu *c = to_kvm_cpu(v);
	int r = finish_exit(c, e);

	if (r == 0)
		r = kvm_store_parts(c, s, KVM_PARTS_ALL, e);
	return r < 0 ? err_wrap(e, "store vCPU %u from KVM", v->index) : r;
}

static int kvm_load_regs(struct vcpu *v, const struct x86_state *s, struct err *e)
{
	struct kvm_cpu *c = to_kvm_cpu(v);
	int r = finish_exit(c, e);

	if (r == 0)
		r = kvm_load_parts(c, s,
				   KVM_PART_REGS | KVM_PART_SREGS | KVM_PART_FPU | KVM_PART_MSRS |
					   KVM_PART_DEBUG,
				   e);
	return r < 0 ? err_wrap(e, "registers of vCPU %u into KVM", v->index) : r;
}

/* The clock and the TSC are set again, so that kvmclock, which KVM makes of them, goes on from
 * where it was. Where KVM refuses (a guest's TSC can only be the host's), time has jumped. */
static void kvm_freeze(struct vcpu *v, bool frozen)
{
	struct kvm_cpu *c = to_kvm_cpu(v);
	struct x86_state s = {.tsc = c->frozen_tsc, .tsc_adjust = c->frozen_tsc_adjust};

	if (!frozen) {
		if (set_clock(c, NULL) == 0 && c->frozen_tsc)
			(void)!kvm_load_parts(c, &s, KVM_PART_TIME, NULL);
	} else if (kvm_store_parts(c, &s, KVM_PART_TIME, NULL) == 0) {
		c->frozen_tsc = s.tsc;
		c->frozen_tsc_adjust = s.tsc_adjust;
	}
}

const struct engine engine_kvm = {
	.name = "kvm",
	.own_lapic = true,
	.debug_points = KVM_DEBUG_SLOTS,
	.debug_kinds = BIT(DEBUG_EXEC) | BIT(DEBUG_WRITE) | BIT(DEBUG_ACCESS) | BIT(DEBUG_INT3),
	.vm_new = kvm_vm_new,
	.vm_free = kvm_vm_free,
	.vcpu_new = kvm_vcpu_new,
	.vcpu_free = kvm_vcpu_free,
	.run = kvm_run_,
	.step = kvm_step,
	.kick = kvm_kick,
	.irq = kvm_irq,
	.load = kvm_load,
	.freeze = kvm_freeze,
	.store = kvm_store,
	.load_regs = kvm_load_regs,
	.set_debug = kvm_set_debug,
};
