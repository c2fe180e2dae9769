/* loop: one machine's event loop: file descriptors (epoll), timers, and calls
 * posted from other threads. Device models of the machine that are not driven by a
 * vCPU are driven from here. Its clock is the machine's guest clock.
 *
 * Threads: loop_run runs on one thread, "the loop thread"; loop_post, loop_stop,
 * and the clock may be used from any thread (loop_post and loop_stop from a signal
 * handler too); fds are added and removed on the loop thread or before loop_run.
 *
 * A loop may be run again after it stopped; a stop that comes before loop_run makes
 * that run return at once. Calls still posted when the loop is freed never run. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/bits.h"
#include "base/clock.h"
#include "base/err.h"

struct loop;

struct loop_fd {
	int fd;
	void (*ready)(struct loop_fd *f, uint32_t events); /* EPOLLIN, EPOLLOUT, ... */
};

struct loop_call { /* embed in your object; may not be posted again before it ran */
	void (*run)(struct loop_call *c);
	struct loop_call *next;
};

/* run is called on the loop thread each time before the loop looks for events, and so before
 * it sleeps: to hand on in one go what callbacks gathered. True: it made work that others may
 * have to hand on; all are run again before the loop sleeps. It may add and remove descriptors,
 * but no loop_prepare other than itself. */
struct loop_prepare {
	bool (*run)(struct loop_prepare *p);
	struct loop_prepare *next;
};

WARN_UNUSED int loop_new(struct loop **out, struct err *e);
void loop_free(struct loop *l); /* accepts NULL; closes no descriptor of yours */

/* Runs until loop_stop. 0, or a negative errno when epoll itself fails. */
WARN_UNUSED int loop_run(struct loop *l);
/* One round: waits for events and handles them, unless a loop_prepare did something; leaves a
 * loop_stop for loop_run. Also from a callback of the loop, which then sees others run before
 * it returns. */
WARN_UNUSED int loop_once(struct loop *l);
void loop_stop(struct loop *l);

/* Before it sleeps, the loop looks for events for up to max_ns, if that tends to pay (spin.h).
 * Before loop_run. Default: 0. */
void loop_set_spin(struct loop *l, uint32_t max_ns);

WARN_UNUSED int loop_add(struct loop *l, struct loop_fd *f, uint32_t events, struct err *e);
void loop_mod(struct loop *l, struct loop_fd *f, uint32_t events);
void loop_del(struct loop *l, struct loop_fd *f);
void loop_post(struct loop *l, struct loop_call *c);
void loop_add_prepare(struct loop *l, struct loop_prepare *p);
void loop_del_prepare(struct loop *l, struct loop_prepare *p);

struct clock *loop_clock(struct loop *l);
/* While paused, the clock stands still and no timer fires. */
void loop_clock_pause(struct loop *l, bool paused);
/* Sets the clock, as loading a snapshot does; armed timers keep their deadlines. */
void loop_clock_set(struct loop *l, uint64_t now_ns);
