/* thread: the one way to start a thread. Each has a role, which says what kind of work it does, and
 * with that what it may ask of the kernel (ARCHITECTURE.md, "Threads and locks"). Of the roles only
 * the main thread's may start threads of any other.
 *
 * Any thread. */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/bits.h"
#include "base/err.h"

enum thread_role {
	THREAD_MAIN,    /* the loop: timers, console, signals, life cycle */
	THREAD_VCPU,    /* guest code, and devices that it reaches */
	THREAD_DEVICES, /* the small virtio devices */
	THREAD_DISK,    /* disks: queues, image formats */
	THREAD_NET,     /* a network card and its backend */
	THREAD_API,     /* requests from the control socket */
	THREAD_WORKER,  /* system calls that block, for disks */
	THREAD_SHARE,   /* a folder of the host's for the guest */
	THREAD_ROLES
};

const char *thread_role_name(enum thread_role role);
/* Of the calling thread; one that was not made here is the main thread. Async-signal-safe. */
enum thread_role thread_role(void);

struct thread_opts {
	enum thread_role role;
	const char *name;   /* cut to what the kernel keeps (15 characters) */
	size_t stack_bytes; /* 0: the usual */
	bool no_signals;    /* all are blocked; else those that the caller has blocked */
	bool detached;      /* nobody joins it */
};

/* Runs fn(arg) on a new thread. */
WARN_UNUSED int thread_start(pthread_t *out, const struct thread_opts *o, void *(*fn)(void *arg),
			     void *arg);

/* Called first on each new thread from now on; there is but one, and it stays. What restricts the
 * process as a whole cannot be handed to each caller of thread_start. */
void thread_on_start(void (*fn)(enum thread_role role));
