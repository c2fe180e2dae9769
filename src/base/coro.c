/* coro: stackful coroutines for x86-64.
 *
 * A coroutine and its stack are one mapping: a guard page, the stack, and struct coro at the
 * top. Its entry function loops over the functions that it is given, so a pooled coroutine
 * starts again by the same switch that resumes one that waits; starting costs two switches and
 * no system call.
 *
 * Whoever resumes a coroutine is its caller, plain code or another coroutine, and gets control
 * back when it waits or ends. Woken from inside a coroutine, it goes to the ready queue, which
 * plain code empties after each coroutine that it resumed.
 *
 * Sanitizers are told of each switch (the fiber functions); without them these are empty. */
#include "base/coro.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FIBER_ASAN
#endif
#if __has_feature(thread_sanitizer)
#define FIBER_TSAN
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define FIBER_ASAN
#endif
#if defined(__SANITIZE_THREAD__)
#define FIBER_TSAN
#endif

/* Coroutines kept for the next start. Each holds the pages that it touched, 8 to 16 KiB. */
#define POOL_MAX 256

/* One side of a switch, as the sanitizers see it. */
struct fiber {
	const void *bottom; /* of its stack */
	size_t size;
	void *fake_stack, *tsan;
};

struct coro {
	void *sp; /* while it does not run */
	struct coros *owner;
	void (*fn)(void *arg);
	void *arg;
	struct coro *caller; /* NULL: plain code */
	struct coro *next;   /* in the pool, the ready queue or a coro_queue */
	void *caller_sp;     /* of whoever resumed it */
	unsigned early_wakes;
	bool waiting, queued /* in a coro_queue */, ended;
	struct fiber fiber;
};

struct coros {
	struct coro *current;
	struct coro_queue ready;
	struct coro *pool;
	unsigned pool_len, live; /* live: started and not ended */
	size_t page;
	struct fiber plain;
};

#if defined(FIBER_ASAN)
#include <sanitizer/common_interface_defs.h>

static void fiber_init(struct fiber *f)
{
}

static void fiber_done(struct fiber *f)
{
}

/* for_good: from is not resumed where it stands. */
static void fiber_leave(struct fiber *from, struct fiber *to, bool for_good)
{
	__sanitizer_start_switch_fiber(for_good ? NULL : &from->fake_stack, to->bottom, to->size);
}

/* from: whom we came from, if its stack is not known yet; else NULL. */
static void fiber_enter(struct fiber *self, struct fiber *from)
{
	__sanitizer_finish_switch_fiber(self->fake_stack, from ? &from->bottom : NULL,
					from ? &from->size : NULL);
	self->fake_stack = NULL;
}
#elif defined(FIBER_TSAN)
#include <sanitizer/tsan_interface.h>

static void fiber_init(struct fiber *f)
{
	f->tsan = __tsan_create_fiber(0);
}

static void fiber_done(struct fiber *f)
{
	__tsan_destroy_fiber(f->tsan);
}

static void fiber_leave(struct fiber *from, struct fiber *to, bool for_good)
{
	if (!from->bottom)
		from->tsan = __tsan_get_current_fiber(); /* plain code, on whichever thread */
	__tsan_switch_to_fiber(to->tsan, 0);
}

static void fiber_enter(struct fiber *self, struct fiber *from)
{
}
#else
static void fiber_init(struct fiber *f)
{
}

static void fiber_done(struct fiber *f)
{
}

static void fiber_leave(struct fiber *from, struct fiber *to, bool for_good)
{
}

static void fiber_enter(struct fiber *self, struct fiber *from)
{
}
#endif

/* Leaves its own state on its stack and the stack pointer in *from, and goes on where to_sp was
 * left. Kept are the registers that the ABI gives to the callee (System V x86-64, 3.2.1): rbx,
 * rbp, r12 to r15, the control bits of MXCSR and the x87 control word. It returns by a jump, as
 * the processor's guess for a return would be wrong. */
void coro_switch(void **from, void *to_sp);
asm(".pushsection .text\n"
    ".type coro_switch, @function\n"
    ".globl coro_switch\n"
    ".hidden coro_switch\n"
    ".p2align 4\n"
    "coro_switch:\n"
    "	push %rbp\n"
    "	push %rbx\n"
    "	push %r12\n"
    "	push %r13\n"
    "	push %r14\n"
    "	push %r15\n"
    "	sub $8, %rsp\n"
    "	stmxcsr (%rsp)\n"
    "	fnstcw 4(%rsp)\n"
    "	mov %rsp, (%rdi)\n"
    "	mov %rsi, %rsp\n"
    "	fldcw 4(%rsp)\n"
    "	ldmxcsr (%rsp)\n"
    "	add $8, %rsp\n"
    "	pop %r15\n"
    "	pop %r14\n"
    "	pop %r13\n"
    "	pop %r12\n"
    "	pop %rbx\n"
    "	pop %rbp\n"
    "	pop %rcx\n"
    "	jmp *%rcx\n"
    ".size coro_switch, . - coro_switch\n"
    /* Where a new stack begins: rbx is its struct coro. Ends a debugger's walk. */
    ".type coro_entry, @function\n"
    ".globl coro_entry\n"
    ".hidden coro_entry\n"
    "coro_entry:\n"
    "	.cfi_startproc\n"
    "	.cfi_undefined rip\n"
    "	mov %rbx, %rdi\n"
    "	call coro_main\n"
    "	ud2\n"
    "	.cfi_endproc\n"
    ".size coro_entry, . - coro_entry\n"
    ".popsection\n");
void coro_entry(void);
void coro_main(struct coro *c);

/* What coro_switch pops. */
struct frame {
	uint32_t mxcsr;
	uint16_t x87_control, pad;
	uint64_t r15, r14, r13, r12, rbx, rbp, rip;
};

static struct fiber *caller_fiber(struct coro *c)
{
	return c->caller ? &c->caller->fiber : &c->owner->plain;
}

static void switch_out(struct coro *c)
{
	struct coros *s = c->owner;

	s->current = c->caller;
	fiber_leave(&c->fiber, caller_fiber(c), c->ended);
	coro_switch(&c->sp, c->caller_sp);
	fiber_enter(&c->fiber, c->caller ? NULL : &s->plain);
}

__attribute__((noreturn, no_sanitize("address", "thread"))) void coro_main(struct coro *c)
{
	fiber_enter(&c->fiber, c->caller ? NULL : &c->owner->plain);
	for (;;) {
		c->fn(c->arg);
		c->ended = true;
		switch_out(c);
	}
}

static void free_coro(struct coro *c)
{
	struct fiber f = c->fiber;
	size_t page = c->owner->page;

	fiber_done(&f);
	munmap((char *)f.bottom - page, CORO_STACK_BYTES + page);
}

static struct coro *new_coro(struct coros *s)
{
	char *base = mmap(NULL, CORO_STACK_BYTES + s->page, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
	struct coro *c;
	struct frame *top;

	if (base == MAP_FAILED)
		return NULL;
	if (mprotect(base, s->page, PROT_NONE) < 0) {
		munmap(base, CORO_STACK_BYTES + s->page);
		return NULL;
	}
	c = (struct coro *)(base + s->page + CORO_STACK_BYTES - align_up(sizeof *c, 64));
	c->owner = s;
	c->fiber.bottom = base + s->page;
	c->fiber.size = (char *)c - (base + s->page);
	fiber_init(&c->fiber);
	/* After the pops, rsp is 16-byte aligned for the call in coro_entry. */
	top = (struct frame *)((char *)c - 64) - 1;
	top->rbx = (uintptr_t)c;
	top->rip = (uintptr_t)coro_entry;
	asm("stmxcsr %0; fnstcw %1" : "=m"(top->mxcsr), "=m"(top->x87_control));
	c->sp = top;
	return c;
}

int coros_new(struct coros **out, struct err *e)
{
	struct coros *s = calloc(1, sizeof *s);

	if (!s)
		return err_sys(e, ENOMEM, "coroutines");
	s->page = sysconf(_SC_PAGESIZE);
	*out = s;
	return 0;
}

void coros_free(struct coros *s)
{
	if (!s)
		return;
	assert(s->live == 0);
	while (s->pool) {
		struct coro *c = s->pool;

		s->pool = c->next;
		free_coro(c);
	}
	free(s);
}

static void push(struct coro_queue *q, struct coro *c)
{
	c->next = NULL;
	if (q->last)
		q->last->next = c;
	else
		q->first = c;
	q->last = c;
}

static struct coro *pop(struct coro_queue *q)
{
	struct coro *c = q->first;

	if (!c)
		return NULL;
	q->first = c->next;
	if (!q->first)
		q->last = NULL;
	return c;
}

static void retire(struct coros *s, struct coro *c)
{
	s->live--;
	if (s->pool_len >= POOL_MAX) {
		free_coro(c);
		return;
	}
	c->next = s->pool;
	s->pool = c;
	s->pool_len++;
}

static void resume(struct coros *s, struct coro *c)
{
	c->caller = s->current;
	s->current = c;
	fiber_leave(caller_fiber(c), &c->fiber, false);
	coro_switch(&c->caller_sp, c->sp);
	fiber_enter(caller_fiber(c), NULL);
	if (c->ended)
		retire(s, c);
}

static void run_ready(struct coros *s)
{
	struct coro *c;

	if (s->current)
		return;
	while ((c = pop(&s->ready)))
		resume(s, c);
}

int coro_start(struct coros *s, void (*fn)(void *arg), void *arg)
{
	struct coro *c = s->pool;

	if (c) {
		s->pool = c->next;
		s->pool_len--;
	} else if (!(c = new_coro(s))) {
		return -ENOMEM;
	}
	c->fn = fn;
	c->arg = arg;
	c->ended = false;
	c->early_wakes = 0;
	s->live++;
	resume(s, c);
	run_ready(s);
	return 0;
}

struct coro *coro_self(struct coros *s)
{
	return s->current;
}

void coro_wait(struct coros *s)
{
	struct coro *c = s->current;

	assert(c && "coro_wait in plain code");
	if (c->early_wakes) {
		c->early_wakes--;
		return;
	}
	c->waiting = true;
	switch_out(c);
}

void coro_wake(struct coro *c)
{
	struct coros *s = c->owner;

	if (!c->waiting) {
		c->early_wakes++;
		return;
	}
	c->waiting = false;
	if (s->current) {
		push(&s->ready, c);
		return;
	}
	resume(s, c);
	run_ready(s);
}

void coro_queue_wait(struct coros *s, struct coro_queue *q)
{
	struct coro *c = s->current;

	assert(c && "coro_queue_wait in plain code");
	push(q, c);
	c->queued = true;
	while (c->queued)
		coro_wait(s);
}

bool coro_queue_wake_one(struct coro_queue *q)
{
	struct coro *c = pop(q);

	if (!c)
		return false;
	c->queued = false;
	coro_wake(c);
	return true;
}

void coro_queue_wake_all(struct coro_queue *q)
{
	struct coro_queue waiting = *q;

	*q = (struct coro_queue){0}; /* who waits again from now on is not meant */
	while (coro_queue_wake_one(&waiting)) {
	}
}

void coro_lock(struct coros *s, struct coro_mutex *m)
{
	assert(m->holder != s->current);
	if (!m->holder)
		m->holder = s->current;
	else
		coro_queue_wait(s, &m->queue); /* coro_unlock makes us the holder */
}

void coro_unlock(struct coros *s, struct coro_mutex *m)
{
	assert(m->holder == s->current);
	m->holder = m->queue.first;
	coro_queue_wake_one(&m->queue);
}
