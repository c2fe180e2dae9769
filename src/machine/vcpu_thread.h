/* vcpu_thread: the thread that runs one vCPU. It is parked (outside the engine, touching
 * nothing of the vCPU) or running, as its owner says; it tells its owner when the vCPU ends
 * by itself.
 *
 * The owner, one thread, calls everything here but vcpu_thread_hold, which is for any
 * thread. The vCPU may be replaced while its thread is parked. */
#pragma once

#include <pthread.h>
#include <stdbool.h>

#include "base/bits.h"
#include "base/err.h"
#include "cpu/engine.h"

enum vcpu_order { VCPU_PARK, VCPU_RUN, VCPU_QUIT };

struct vcpu_thread;

/* Both are called on the vCPU's thread, outside the engine; it then waits to be parked. */
struct vcpu_owner {
	void (*ended)(struct vcpu_owner *o, struct vcpu_thread *t, enum vcpu_stop why);
	void (*failed)(struct vcpu_owner *o, struct vcpu_thread *t, const struct err *why);
};

struct vcpu_thread {
	struct vcpu *vcpu;
	struct vcpu_owner *owner;

	pthread_t thread;
	bool started;
	pthread_mutex_t lock; /* guards what follows */
	pthread_cond_t changed;
	enum vcpu_order order;
	bool hold;
	bool throttled;
	bool parked;
};

void vcpu_thread_init(struct vcpu_thread *t, struct vcpu_owner *owner);
void vcpu_thread_done(struct vcpu_thread *t); /* after quit, or never started */

/* Makes the thread, parked; index names it ("vcpu0"). */
WARN_UNUSED int vcpu_thread_start(struct vcpu_thread *t, unsigned index, struct err *e);
void vcpu_thread_resume(struct vcpu_thread *t);
/* In two steps, so that several vCPUs leave at once: order, then wait. */
void vcpu_thread_park(struct vcpu_thread *t);
void vcpu_thread_wait_parked(struct vcpu_thread *t);
/* Any thread: takes the vCPU out of the guest and keeps it there until the next resume. What
 * a device calls whose register write must be the last thing the guest does. */
void vcpu_thread_hold(struct vcpu_thread *t);
/* While throttled it stays outside the guest, whatever its order. Any thread. */
void vcpu_thread_throttle(struct vcpu_thread *t, bool throttled);
void vcpu_thread_quit(struct vcpu_thread *t); /* and joins */
