/* probe: runs the guest of probe_guest.S and judges what it did. The guest begins in long
 * mode in ring 0, in a VM without interrupt controller: what is asked of KVM here is the
 * processor. No name or version is looked at, only behaviour. */
#include "cpu/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/bits.h"
#include "base/clock.h"
#include "cpu/probe_guest.h"
#include "cpu/probe_priv.h"
#include "cpu/x86_state.h"

#define WATCHDOG_NS 300000000ull
#define TICK_NS     20000000ull
/* Rounds of the timed loop: the first is short, as nobody knows how slow it is; each next
 * one is to take this long by the rate of the last, until the rate hardly grows: at first
 * it is mostly the cost of exits, or of an emulator that translates. */
#define FIRST_LOOPS   200
#define MOST_LOOPS    100000
#define ROUND_NS      4000000ull
#define ROUNDS_MAX    6
#define CPUID_ENTRIES 256

_Static_assert(offsetof(struct probe_seen, cmpxchg16b) == SEEN_CMPXCHG16B, "probe_guest.h");
_Static_assert(offsetof(struct probe_seen, syscall_cs) == SEEN_SYSCALL_CS, "probe_guest.h");

extern const uint8_t probe_guest_begin[], probe_guest_end[];
extern const uint8_t probe_guest_trap[], probe_guest_pf[], probe_guest_soft[];
extern const uint8_t probe_guest_external[], probe_guest_back[];

struct probe {
	struct probe_raw raw;
	int sys_fd, vm_fd, cpu_fd;
	uint8_t *ram;
	struct kvm_run *run;
	int run_bytes;
	uint64_t start_ns, round_ns, loops; /* of the round that runs */
	unsigned rounds;
};

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

/* --- the guest's tables --- */

static void put(struct probe *p, uint32_t gpa, uint64_t v)
{
	store_le(p->ram + gpa, v, 8);
}

static void set_gate(struct probe *p, unsigned vector, const uint8_t *handler, unsigned dpl)
{
	uint64_t to = PROBE_CODE + (handler - probe_guest_begin);

	/* 64-bit interrupt gate, present; all handlers lie below 64 KiB */
	put(p, PROBE_IDT + 16 * vector, to | PROBE_CS << 16 | (uint64_t)(0x8e00 | dpl << 13) << 32);
	put(p, PROBE_IDT + 16 * vector + 8, 0);
}

static void build_tables(struct probe *p)
{
	const uint64_t flags = 7; /* present, writable, user */

	memcpy(p->ram + PROBE_CODE, probe_guest_begin, probe_guest_end - probe_guest_begin);
	put(p, PROBE_PML4, PROBE_PDPT | flags);
	put(p, PROBE_PDPT, PROBE_PD | flags);
	put(p, PROBE_PD, 0x80 | flags);
	put(p, PROBE_GDT + PROBE_CS, 0x00af9b000000ffff);
	put(p, PROBE_GDT + PROBE_SS, 0x00cf93000000ffff);
	put(p, PROBE_GDT + (PROBE_SYSRET_BASE & ~7), 0x00cffb000000ffff);
	put(p, PROBE_GDT + (PROBE_USER_SS & ~7), 0x00cff3000000ffff);
	put(p, PROBE_GDT + (PROBE_USER_CS & ~7), 0x00affb000000ffff);
	put(p, PROBE_GDT + PROBE_TR, 0x00008b0000000067 | (uint64_t)PROBE_TSS << 16);
	put(p, PROBE_GDT + PROBE_TR + 8, 0);
	put(p, PROBE_TSS + 4, PROBE_TRAP_STACK); /* RSP0 */
	for (unsigned v = 0; v < 32; v++)
		set_gate(p, v, probe_guest_trap, 0);
	set_gate(p, X86_PF, probe_guest_pf, 0);
	set_gate(p, PROBE_SOFT_VECTOR, probe_guest_soft, 0);
	set_gate(p, PROBE_EXTERNAL_VECTOR, probe_guest_external, 0);
	set_gate(p, PROBE_BACK_VECTOR, probe_guest_back, 3);
}

/* --- the VM --- */

static int fail(struct probe *p, const char *what)
{
	p->raw.setup_errno = errno;
	p->raw.setup = what;
	return -1;
}

static int make_vm(struct probe *p)
{
	p->sys_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (p->sys_fd < 0) {
		p->raw.open_errno = errno;
		return -1;
	}
	p->run_bytes = ioctl(p->sys_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (p->run_bytes < (int)sizeof *p->run)
		return fail(p, "KVM_GET_VCPU_MMAP_SIZE");
	do
		p->vm_fd = ioctl(p->sys_fd, KVM_CREATE_VM, 0);
	while (p->vm_fd < 0 && errno == EINTR);
	if (p->vm_fd < 0)
		return fail(p, "KVM_CREATE_VM");
	(void)!ioctl(p->vm_fd, KVM_SET_TSS_ADDR, 0xfeffd000ul); /* for old Intel hosts */
	p->ram =
		mmap(NULL, PROBE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p->ram == MAP_FAILED) {
		p->ram = NULL;
		return fail(p, "mmap");
	}
	struct kvm_userspace_memory_region slot = {
		.memory_size = PROBE_BYTES,
		.userspace_addr = (uintptr_t)p->ram,
	};

	if (ioctl(p->vm_fd, KVM_SET_USER_MEMORY_REGION, &slot) < 0)
		return fail(p, "KVM_SET_USER_MEMORY_REGION");
	build_tables(p);
	return 0;
}

static int set_cpuid(struct probe *p)
{
	AUTO_FREE struct kvm_cpuid2 *t =
		calloc(1, sizeof *t + CPUID_ENTRIES * sizeof t->entries[0]);

	if (!t)
		return fail(p, "memory");
	t->nent = CPUID_ENTRIES;
	if (ioctl(p->sys_fd, KVM_GET_SUPPORTED_CPUID, t) < 0)
		return fail(p, "KVM_GET_SUPPORTED_CPUID");
	if (ioctl(p->cpu_fd, KVM_SET_CPUID2, t) < 0)
		return fail(p, "KVM_SET_CPUID2");
	return 0;
}

static struct kvm_segment segment(uint16_t sel, uint8_t type, bool code)
{
	return (struct kvm_segment){
		.limit = 0xffffffff,
		.selector = sel,
		.type = type,
		.present = 1,
		.s = 1,
		.g = 1,
		.l = code,
		.db = !code,
	};
}

static int set_registers(struct probe *p)
{
	struct kvm_regs regs = {.rip = PROBE_CODE, .rsp = PROBE_STACK, .rflags = RFLAGS_FIXED};
	struct kvm_sregs s;

	if (ioctl(p->cpu_fd, KVM_GET_SREGS, &s) < 0)
		return fail(p, "KVM_GET_SREGS");
	s.cs = segment(PROBE_CS, 0xb, true);
	s.ds = s.es = s.fs = s.gs = s.ss = segment(PROBE_SS, 0x3, false);
	s.tr = (struct kvm_segment){
		.base = PROBE_TSS, .limit = 0x67, .selector = PROBE_TR, .type = 0xb, .present = 1};
	s.ldt = (struct kvm_segment){.type = 2, .unusable = 1};
	s.gdt = (struct kvm_dtable){.base = PROBE_GDT, .limit = PROBE_TR + 15};
	s.idt = (struct kvm_dtable){.base = PROBE_IDT, .limit = 0x7f * 16 + 15};
	s.cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_PG;
	s.cr3 = PROBE_PML4;
	s.cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT;
	s.efer = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;
	if (ioctl(p->cpu_fd, KVM_SET_SREGS, &s) < 0)
		return fail(p, "KVM_SET_SREGS");
	if (ioctl(p->cpu_fd, KVM_SET_REGS, &regs) < 0)
		return fail(p, "KVM_SET_REGS");
	return 0;
}

static int make_cpu(struct probe *p)
{
	p->cpu_fd = ioctl(p->vm_fd, KVM_CREATE_VCPU, 0ul);
	if (p->cpu_fd < 0)
		return fail(p, "KVM_CREATE_VCPU");
	p->run = mmap(NULL, p->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, p->cpu_fd, 0);
	if (p->run == MAP_FAILED) {
		p->run = NULL;
		return fail(p, "mmap");
	}
	return set_cpuid(p) < 0 ? -1 : set_registers(p);
}

static void free_all(struct probe *p)
{
	if (p->run)
		munmap(p->run, p->run_bytes);
	if (p->cpu_fd >= 0)
		close(p->cpu_fd);
	if (p->vm_fd >= 0)
		close(p->vm_fd);
	if (p->sys_fd >= 0)
		close(p->sys_fd);
	if (p->ram)
		munmap(p->ram, PROBE_BYTES);
}

/* --- what the guest saw --- */

static bool saw_page_fault(const struct probe_raw *raw)
{
	return raw->step > STEP_PAGE_FAULT && raw->seen.pf_error == PF_W &&
	       raw->seen.pf_cr2 == PROBE_UNMAPPED;
}

static bool saw_syscall(const struct probe_raw *raw)
{
	return raw->step > STEP_SYSCALL && raw->seen.syscall_cs == PROBE_CS &&
	       raw->seen.sysret_cs == PROBE_USER_CS;
}

static bool stays_in_ring3(const struct probe_raw *raw)
{
	return raw->step >= STEP_SYSCALL && (raw->seen.syscall_cs & 3) == 3;
}

static bool saw_interrupt(const struct probe_raw *raw)
{
	return raw->step > STEP_EXTERNAL && raw->seen.external == 1;
}

/* What a step that is over should have brought, and did not, or NULL. */
static const char *find_wrong(const struct probe_raw *raw)
{
	if (raw->step > STEP_PAGE_FAULT && !saw_page_fault(raw))
		return "a page fault brings a wrong error code or CR2";
	if (stays_in_ring3(raw))
		return "SYSCALL from user mode stays in user mode";
	if (raw->step > STEP_SYSCALL && !saw_syscall(raw))
		return "SYSCALL/SYSRET do not reach the rings they should";
	if (raw->step > STEP_SOFT_INTERRUPT && raw->seen.soft != 1)
		return "INT n does not arrive";
	if (raw->step > STEP_CMPXCHG16B && !raw->seen.cmpxchg16b)
		return "CMPXCHG16B in ring 0 does not work";
	if (raw->step > STEP_EXTERNAL && !saw_interrupt(raw))
		return "an external interrupt does not arrive";
	return NULL;
}

/* --- the run --- */

/* The access is finished by the next KVM_RUN, so registers may be set only after that:
 * an entry that ends at once comes in between. */
static void finish_out(struct probe *p)
{
	p->run->immediate_exit = 1;
	(void)!ioctl(p->cpu_fd, KVM_RUN, 0);
	p->run->immediate_exit = 0;
}

/* Ends a round and says how long the next one is; 0: the rate is known. */
static uint64_t next_loops(struct probe *p)
{
	uint64_t took = now_ns() - p->round_ns, before = p->raw.insn_per_s, next;

	if (p->rounds++ == 0)
		return FIRST_LOOPS;
	p->raw.insn_per_s = mul_div(p->loops * PROBE_LOOP_INSNS, 1000000000, took ? took : 1);
	next = mul_div(p->raw.insn_per_s, ROUND_NS, 1000000000ull * PROBE_LOOP_INSNS);
	if (p->rounds > ROUNDS_MAX || p->loops == MOST_LOOPS || p->raw.insn_per_s < 2 * before)
		return 0;
	return max_u64(FIRST_LOOPS, min_u64(MOST_LOOPS, next));
}

static int begin_round(struct probe *p)
{
	struct kvm_regs r;

	p->loops = next_loops(p);
	finish_out(p);
	if (ioctl(p->cpu_fd, KVM_GET_REGS, &r) < 0)
		return fail(p, "KVM_GET_REGS");
	r.rcx = p->loops;
	if (ioctl(p->cpu_fd, KVM_SET_REGS, &r) < 0)
		return fail(p, "KVM_SET_REGS");
	p->round_ns = now_ns();
	return 1;
}

static void read_seen(struct probe *p)
{
	memcpy(&p->raw.seen, p->ram + PROBE_SEEN, sizeof p->raw.seen);
}

/* 1: go on; 0: the guest is through, stuck, or needs no measuring. */
static int begin_step(struct probe *p, uint8_t step)
{
	if (step == STEP_TRAP) {
		p->raw.trap = true;
		return 0;
	}
	p->raw.step = step;
	switch (step) {
	case STEP_LOOP: read_seen(p); return find_wrong(&p->raw) ? 0 : begin_round(p);
	case STEP_EXTERNAL: p->run->request_interrupt_window = 1; return 1;
	case STEP_DONE: p->raw.done = true; return 0;
	default: return 1;
	}
}

static int inject(struct probe *p)
{
	struct kvm_interrupt i = {.irq = PROBE_EXTERNAL_VECTOR};

	p->run->request_interrupt_window = 0;
	return ioctl(p->cpu_fd, KVM_INTERRUPT, &i) < 0 ? fail(p, "KVM_INTERRUPT") : 1;
}

static bool is_late(struct probe *p)
{
	p->raw.late = now_ns() - p->start_ns > WATCHDOG_NS;
	return p->raw.late;
}

static int run_once(struct probe *p)
{
	const struct kvm_run *run = p->run;

	if (is_late(p))
		return 0;
	if (ioctl(p->cpu_fd, KVM_RUN, 0) < 0)
		return errno == EINTR || errno == EAGAIN ? 1 : fail(p, "KVM_RUN");
	if (run->exit_reason == KVM_EXIT_IRQ_WINDOW_OPEN)
		return inject(p);
	if (run->exit_reason == KVM_EXIT_INTR)
		return 1;
	if (run->exit_reason == KVM_EXIT_IO && run->io.port == PROBE_PORT)
		return begin_step(p, *((const uint8_t *)run + run->io.data_offset));
	p->raw.exit_reason = run->exit_reason;
	return 0;
}

static void do_nothing(int signal)
{
	(void)signal;
}

/* Runs the guest with a timer that interrupts KVM_RUN, so that it cannot take long. The
 * signal is the one that the KVM engine kicks with; its handler does nothing there too. */
static void run_watched(struct probe *p)
{
	struct sigaction act = {.sa_handler = do_nothing, .sa_flags = SA_RESTART};
	struct itimerspec tick = {{0, TICK_NS}, {0, TICK_NS}};
	struct sigevent ev = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGRTMIN + 5};
	sigset_t set, old;
	timer_t timer;

	ev._sigev_un._tid = gettid();
	if (sigaction(ev.sigev_signo, &act, NULL) < 0 ||
	    timer_create(CLOCK_MONOTONIC, &ev, &timer) < 0) {
		fail(p, "watchdog");
		return;
	}
	sigemptyset(&set);
	sigaddset(&set, ev.sigev_signo);
	pthread_sigmask(SIG_UNBLOCK, &set, &old);
	timer_settime(timer, 0, &tick, NULL);
	p->start_ns = now_ns();
	while (run_once(p) > 0)
		;
	timer_delete(timer);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	read_seen(p);
}

/* --- the judgement --- */

static const char *step_name(int step)
{
	static const char *const names[] = {
		[0] = "its first instruction",
		[STEP_LOOP] = "a loop in ring 0",
		[STEP_PAGE_FAULT] = "a page fault",
		[STEP_SOFT_INTERRUPT] = "INT n",
		[STEP_EXTERNAL] = "an external interrupt",
		[STEP_SYSCALL] = "SYSCALL/SYSRET",
		[STEP_CMPXCHG16B] = "CMPXCHG16B in ring 0",
	};

	return step >= 0 && step < (int)ARRAY_SIZE(names) ? names[step] : "an unknown step";
}

/* Why a guest that ran is no good, or NULL. */
static const char *find_fault(const struct probe_raw *raw, char *text, size_t len)
{
	const char *step = step_name(raw->step), *wrong = find_wrong(raw);

	if (wrong || raw->done)
		return wrong;
	if (raw->late)
		snprintf(text, len, "the probe's guest hung at %s", step);
	else if (raw->trap)
		snprintf(text, len, "%s raises an exception", step);
	else
		snprintf(text, len, "KVM gave up (exit %u) at %s", raw->exit_reason, step);
	return text;
}

static void say_unopened(const struct probe_raw *raw, struct kvm_finding *f)
{
	bool denied = raw->open_errno == EACCES || raw->open_errno == EPERM;

	f->verdict = denied ? KVM_DENIED : KVM_ABSENT;
	if (denied)
		snprintf(
			f->line, sizeof f->line,
			"/dev/kvm is there, but not for this user: as root, 'usermod -aG kvm USER', "
			"then log in again");
	else
		snprintf(f->line, sizeof f->line, "no KVM on this host (open /dev/kvm: %s)",
			 strerrordesc_np(raw->open_errno));
}

static void print_rate(char *to, size_t len, uint64_t insn_per_s)
{
	snprintf(to, len, "%.*f million instructions/s", insn_per_s < 10000000, insn_per_s / 1e6);
}

void kvm_judge(const struct probe_raw *raw, struct kvm_finding *f)
{
	char text[96], rate[40];
	const char *fault;

	*f = (struct kvm_finding){
		.insn_per_s = raw->insn_per_s,
		.has_page_fault = saw_page_fault(raw),
		.has_interrupt = saw_interrupt(raw),
		.has_syscall = saw_syscall(raw),
		.emulates_ring0 = stays_in_ring3(raw),
	};
	if (raw->open_errno) {
		say_unopened(raw, f);
		return;
	}
	f->verdict = KVM_BROKEN;
	if (raw->setup) {
		snprintf(f->line, sizeof f->line, "KVM opens but does not work: %s: %s", raw->setup,
			 strerrordesc_np(raw->setup_errno));
		return;
	}
	fault = find_fault(raw, text, sizeof text);
	if (fault) {
		snprintf(f->line, sizeof f->line, "KVM here cannot run a kernel: %s", fault);
		return;
	}
	print_rate(rate, sizeof rate, raw->insn_per_s);
	f->verdict = raw->insn_per_s < PROBE_SLOW_BELOW ? KVM_SLOW : KVM_USABLE;
	snprintf(f->line, sizeof f->line, "%s: ring 0 of a guest runs at %s",
		 f->verdict == KVM_SLOW ? "KVM works but is slow here" : "KVM works", rate);
}

void kvm_probe(struct kvm_finding *f)
{
	struct probe p = {.sys_fd = -1, .vm_fd = -1, .cpu_fd = -1};

	if (make_vm(&p) == 0 && make_cpu(&p) == 0)
		run_watched(&p);
	free_all(&p);
	kvm_judge(&p.raw, f);
}
