/* console_out: the guest's serial output on its way to a file descriptor.
 *
 * vCPU threads put bytes into a buffer; the loop thread writes them out a millisecond after
 * the first, so that a guest printing a line costs no system call per character, nor a wake-up
 * of the loop, and somebody who types notices nothing. When the buffer is full the vCPU
 * waits for the reader (a pager, a slow line), as it would at a real UART, but never longer
 * than until the reader is gone or console_out_abandon: from then on bytes vanish.
 *
 * The descriptor is made non-blocking without touching the one we were given, whose flags
 * the shell may share. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "base/loop.h"
#include "chipset/device.h"

struct console_out {
	struct byte_sink sink; /* for struct machine_config */

	int fd;         /* our own; -1: there is no output */
	bool may_block; /* no open file of our own could be had: poll before each write */
	bool is_socket;
	int abandon_fd;   /* eventfd */
	atomic_bool gone; /* reader gone, or abandoned */

	struct loop *loop; /* while attached */
	struct loop_fd watch;
	bool watched;         /* loop thread's own: in the loop */
	struct loop_fd timer; /* a timerfd: time to flush */
	atomic_bool timer_armed;

	pthread_mutex_t lock; /* guards what follows */
	uint32_t len;
	uint8_t buf[8192];
};

/* fd stays the caller's; one that is not open is no failure. */
WARN_UNUSED int console_out_init(struct console_out *o, int fd, struct err *e);
/* Before the machine runs. */
WARN_UNUSED int console_out_attach(struct console_out *o, struct loop *l, struct err *e);
/* After the machine ran, before its loop goes. */
void console_out_detach(struct console_out *o);
/* Takes all of it, or nothing while there is no room for it at once: never waits. Loop thread. */
bool console_out_offer(struct console_out *o, const void *bytes, uint32_t len);
/* Forgets what was not written yet, unless a vCPU waits with it. Loop thread. */
void console_out_discard(struct console_out *o);
/* Writes what is left, as slowly as it is read; then frees. */
void console_out_done(struct console_out *o);
/* Any thread: nobody waits for the reader from now on. */
void console_out_abandon(struct console_out *o);
