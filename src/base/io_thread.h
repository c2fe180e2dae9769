/* io_thread: an event loop with a thread that runs it. Devices that talk to the host live on
 * one: small ones share it, each disk and card has its own, so that a slow one stops nobody
 * else.
 *
 * Owned by one thread, which calls everything here but io_thread_loop (and through that
 * loop_post, from anywhere). The thread sleeps while its loop has nothing to do. */
#pragma once

#include "base/bits.h"
#include "base/err.h"
#include "base/loop.h"
#include "base/thread.h"

struct io_thread;

/* The loop alone: descriptors may be added to it until the thread starts. name is cut to what the kernel
 * keeps (15 characters). */
WARN_UNUSED int io_thread_new(struct io_thread **out, enum thread_role role, const char *name,
			      struct err *e);
/* Makes the thread. */
WARN_UNUSED int io_thread_start(struct io_thread *t, struct err *e);
/* Ends the thread if there is one: what it is doing now is its last work. The loop is then the
 * caller's again, to remove descriptors from. */
void io_thread_stop(struct io_thread *t);
void io_thread_join(struct io_thread *t); /* the same when somebody calls loop_stop, not before */
void io_thread_free(struct io_thread *t); /* stops it; accepts NULL */

struct loop *io_thread_loop(struct io_thread *t);
/* Runs fn(arg) on the thread and returns when it is done; at once where no thread runs. Not
 * from the thread itself. */
void io_thread_call(struct io_thread *t, void (*fn)(void *arg), void *arg);
