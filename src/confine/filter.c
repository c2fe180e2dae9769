/* filter: the table of calls.c as BPF programs, one for a role. All are short, straight lines: the kernel
 * remembers which calls are allowed whatever their arguments, and asks the program only about the others.
 *
 * The main thread takes its filter at confine_enter. Each other one takes its own when it starts, on top
 * of that of the thread that made it, which therefore has to allow what its children may do. */
#include "confine/confine_priv.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define HIGHEST 0x40000000u /* from here on: x32's numbers */

struct program {
	struct sock_filter *to;
	unsigned len;
	bool full;
};

static void add(struct program *p, uint16_t code, uint32_t k, uint8_t jt, uint8_t jf)
{
	if (p->len == FILTER_MAX)
		p->full = true;
	else
		p->to[p->len++] = (struct sock_filter){code, jt, jf, k};
}

static void load(struct program *p, size_t offset)
{
	add(p, BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset, 0, 0);
}

static void give(struct program *p, uint32_t action)
{
	add(p, BPF_RET | BPF_K, action, 0, 0);
}

static unsigned tests_of(const struct call_rule *r)
{
	unsigned n = 0;

	while (n < ARRAY_SIZE(r->test) && r->test[n].mask)
		n++;
	return n;
}

/* Falls through to what comes next when a test fails. */
static void add_rule(struct program *p, const struct call_rule *r, uint32_t own_pid)
{
	unsigned n = tests_of(r);

	for (unsigned i = 0; i < n; i++) {
		const struct call_test *t = &r->test[i];
		uint32_t value = t->value == CALL_OWN_PID ? own_pid : t->value;
		/* Over the rest of the tests, and the verdict. */
		uint8_t past = (uint8_t)((n - i - 1) * 3 + 1);

		load(p, offsetof(struct seccomp_data, args) + t->arg * sizeof(uint64_t));
		add(p, BPF_ALU | BPF_AND | BPF_K, t->mask, 0, 0);
		add(p, BPF_JMP | BPF_JEQ | BPF_K, value, 0, past);
	}
	give(p, r->error ? SECCOMP_RET_ERRNO | (uint32_t)r->error : SECCOMP_RET_ALLOW);
}

/* All rules of a call stand together in the table. */
static void add_call(struct program *p, const struct call_rule *first, const struct call_rule *end,
		     uint16_t roles, uint32_t own_pid)
{
	unsigned jump = p->len, before;

	add(p, BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)first->nr, 0, 0);
	before = p->len;
	for (const struct call_rule *r = first; r < end; r++)
		if (r->roles & roles)
			add_rule(p, r, own_pid);
	if (p->len == before) { /* nothing for this role */
		p->len = jump;
		return;
	}
	give(p, SECCOMP_RET_TRAP);
	if (p->full || p->len - before > UINT8_MAX)
		p->full = true;
	else
		p->to[jump].jf = (uint8_t)(p->len - before);
}

unsigned filter_make(struct sock_filter to[FILTER_MAX], uint16_t roles, uint32_t own_pid)
{
	struct program p = {.to = to};
	const struct call_rule *end = call_rules + call_rules_count, *next;

	load(&p, offsetof(struct seccomp_data, arch));
	add(&p, BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0);
	give(&p, SECCOMP_RET_KILL_PROCESS);
	load(&p, offsetof(struct seccomp_data, nr));
	add(&p, BPF_JMP | BPF_JGE | BPF_K, HIGHEST, 0, 1);
	give(&p, SECCOMP_RET_TRAP);
	for (const struct call_rule *r = call_rules; r < end; r = next) {
		for (next = r; next < end && next->nr == r->nr; next++)
			;
		add_call(&p, r, next, roles, own_pid);
	}
	give(&p, SECCOMP_RET_TRAP);
	return p.full ? 0 : p.len;
}

/* For the threads that are still to come. */
static uint16_t roles_of[THREAD_ROLES];

static int install(enum thread_role role)
{
	struct sock_filter code[FILTER_MAX];
	struct sock_fprog program = {.filter = code};

	program.len = (unsigned short)filter_make(code, roles_of[role], (uint32_t)getpid());
	if (!program.len)
		return -E2BIG;
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) < 0 ? -errno : 0;
}

/* One that cannot be confined does not run at all. */
static void confine_thread(enum thread_role role)
{
	if (install(role) < 0)
		abort();
}

int confine_seccomp(const struct confine_profile *p)
{
	int r;

	for (int role = 0; role < THREAD_ROLES; role++)
		roles_of[role] = call_roles(role, p);
	r = install(THREAD_MAIN);

	if (r == 0)
		thread_on_start(confine_thread);
	return r;
}
