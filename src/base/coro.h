/* coro: coroutines, so that code which waits for I/O reads from top to bottom. A scheduler
 * (struct coros) belongs to one thread, and all its coroutines run there, one at a time: what
 * they share needs no lock as long as nobody waits in between; across a wait, coro_mutex.
 *
 * Each has a stack of CORO_STACK_BYTES with a guard page below it, taken from a pool; only what
 * was touched of it costs memory. The translator's long jumps do not cross them.
 *
 * A coroutine is woken by whoever it waits for: coro_wake from the thread's plain code runs it
 * at once, until it waits again or ends; from inside another coroutine it is queued, and runs
 * when control is back in plain code, before the coro_start or coro_wake there returns. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/bits.h"
#include "base/err.h"

#define CORO_STACK_BYTES KIB(512)

struct coro;
struct coros;

WARN_UNUSED int coros_new(struct coros **out, struct err *e);
void coros_free(struct coros *s); /* accepts NULL; no coroutine may be left */

/* Runs fn(arg) as a coroutine until it first waits; from inside another coroutine too, which
 * goes on then. -ENOMEM: nothing ran. */
WARN_UNUSED int coro_start(struct coros *s, void (*fn)(void *arg), void *arg);
struct coro *coro_self(struct coros *s); /* the one that runs; NULL in plain code */
/* Suspends the running coroutine until coro_wake of it. Each wake ends one wait; one that comes
 * early is kept, and the next wait returns at once. */
void coro_wait(struct coros *s);
void coro_wake(struct coro *c);

/* Who waits for something; first come, first served. All zeros: nobody. The woken one looks
 * again at what it waited for: others may have run in between. Same scheduler only. */
struct coro_queue {
	struct coro *first, *last;
};
void coro_queue_wait(struct coros *s, struct coro_queue *q);
bool coro_queue_wake_one(struct coro_queue *q); /* false: nobody waited */
void coro_queue_wake_all(struct coro_queue *q);

/* A lock that is held across waits; first come, first served. All zeros: free. */
struct coro_mutex {
	struct coro *holder;
	struct coro_queue queue;
};
void coro_lock(struct coros *s, struct coro_mutex *m);
void coro_unlock(struct coros *s, struct coro_mutex *m);
