/* steal: what a vCPU's guest is told of the time that it does not run (Linux
 * Documentation/virt/kvm/x86/msr.rst, MSR_KVM_STEAL_TIME): how long its thread waited for a host
 * CPU, and whether it is away just now. Others then need not wait for it, nor interrupt it to have
 * its TLB flushed: they leave a note, and it flushes before it goes on (KVM_FEATURE_PV_TLB_FLUSH).
 *
 * A vCPU is away while it sleeps in HLT, and while it gives its CPU to others. That the host takes
 * it away, nobody is told beforehand. */
#include "cpu/jit/steal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>
#include <x86intrin.h>

#include "cpu/jit/core.h"

#define ENABLED     1u
#define PREEMPTED   1u
#define FLUSH_TLB   2u
#define COUNT_EVERY 8000000u /* TSC ticks, some milliseconds */

struct steal_time {
	uint64_t steal; /* ns */
	uint32_t version, flags;
	_Atomic uint8_t preempted;
	uint8_t pad[47];
};
_Static_assert(sizeof(struct steal_time) == 64, "as the guest has it");

static struct steal_time *area(const struct jit_cpu *c)
{
	if (!(c->st.kvm_steal_time & ENABLED))
		return NULL;
	return mem_ram(c->env->mem, c->st.kvm_steal_time & ~UINT64_C(63),
		       sizeof(struct steal_time));
}

void steal_away(struct jit_cpu *c)
{
	struct steal_time *s = area(c);

	if (!s)
		return;
	atomic_store(&s->preempted, PREEMPTED);
	mem_written(c->env->mem, s, sizeof *s);
}

/* Linux, whose interface this is, leaves notes about user pages alone. A window is brought up to date
 * when user code is entered: a PAUSE in user code must not go on in its block. */
void steal_back(struct jit_cpu *c)
{
	struct steal_time *s = area(c);

	if (!s || !atomic_load_explicit(&s->preempted, memory_order_relaxed))
		return;
	if (atomic_exchange(&s->preempted, 0) & FLUSH_TLB) {
		jit_tlb_flush_pcids(c);
		jit_mode_update(c);
		atomic_store(&c->attention, 1);
	}
	mem_written(c->env->mem, s, sizeof *s);
}

/* How long this thread was ready to run and did not, in ns. */
static bool waited(struct steal *s, uint64_t *ns)
{
	char text[96];
	unsigned long ran, wait;
	ssize_t n;

	if (s->fd <= 0) { /* /proc/thread-self is not there in a confined process */
		snprintf(text, sizeof text, "/proc/self/task/%d/schedstat", gettid());
		s->fd = open(text, O_RDONLY | O_CLOEXEC);
	}
	if (s->fd <= 0)
		return false;
	n = pread(s->fd, text, sizeof text - 1, 0);
	if (n <= 0) { /* that thread has ended */
		close(s->fd);
		s->fd = 0;
		s->known = false;
		return false;
	}
	text[n] = 0;
	if (sscanf(text, "%lu %lu", &ran, &wait) != 2)
		return false;
	*ns = wait;
	return true;
}

void steal_count(struct jit_cpu *c)
{
	struct steal *s = &c->p->steal;
	uint64_t now = __rdtsc(), ns;
	struct steal_time *to;

	if (!(c->st.kvm_steal_time & ENABLED) || now - s->counted < COUNT_EVERY)
		return;
	s->counted = now;
	to = area(c);
	if (!to || !waited(s, &ns))
		return;
	if (s->known && ns > s->seen) {
		/* Odd while it is being written. */
		__atomic_store_n(&to->version, (to->version | 1), __ATOMIC_RELAXED);
		atomic_thread_fence(memory_order_release);
		__atomic_store_n(&to->steal, to->steal + (ns - s->seen), __ATOMIC_RELAXED);
		atomic_thread_fence(memory_order_release);
		__atomic_store_n(&to->version, to->version + 1, __ATOMIC_RELAXED);
		mem_written(c->env->mem, to, sizeof *to);
	}
	s->seen = ns;
	s->known = true;
}

void steal_done(struct jit_cpu *c)
{
	if (c->p->steal.fd > 0)
		close(c->p->steal.fd);
}
