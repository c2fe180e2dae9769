/* console_view: who has the terminal: the guest's serial port (or virtio console), or the screen
 * and keyboard of its VGA. The screen has it until the guest writes to the serial port: then that
 * is where its people are. Who asks for one of the two keeps it. Without a VGA it is the serial
 * port from the start.
 *
 * The sink is for vCPU threads and I/O threads; all else is for the loop thread. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "base/loop.h"
#include "chipset/device.h"
#include "cli/screen.h"

struct console_out;
struct machine;

struct console_view {
	struct byte_sink sink; /* of the serial port */
	struct console_out *out;
	int fd; /* of the same terminal, for what must not wait its turn */
	struct machine *machine;
	struct loop_fd timer; /* a timerfd: time to look at the screen; fd -1: none */
	unsigned idle;        /* how many looks found nothing new */
	bool resting;         /* the screen is not drawn until a key comes */
	bool switching;       /* asked for, while the lock was taken */
	struct vga_text text;

	pthread_mutex_t
		lock; /* the loop thread only tries it: a vCPU may wait in it for the reader */
	atomic_bool has_screen; /* changed with the lock; false: the serial port */
	bool chosen;            /* by the user */
	struct screen screen;
};

/* fd: what out writes to. vga: there is one. */
WARN_UNUSED int console_view_init(struct console_view *v, struct console_out *out, int fd, bool vga,
				  struct err *e);
void console_view_done(struct console_view *v);

/* When the machine is there; and before it goes. */
WARN_UNUSED int console_view_start(struct console_view *v, struct machine *m, struct err *e);
void console_view_stop(struct console_view *v);

/* What was typed, for whoever has the terminal; returns how much was taken. */
uint32_t console_view_input(struct console_view *v, const uint8_t *bytes, uint32_t len);
void console_view_switch(struct console_view *v);
void console_view_resize(struct console_view *v, unsigned columns, unsigned rows);
/* The terminal as it was, until a key is pressed, which the guest does not get. False: the screen
 * is not shown, and nothing changes. */
bool console_view_rest(struct console_view *v);
/* The terminal as it was, for somebody else or for good; the next look at the screen takes it again. */
void console_view_leave(struct console_view *v);
