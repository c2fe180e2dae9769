/* tty_mode: the terminal in raw mode while a guest uses it, and back, on every way out:
 * a return, a stop by job control, or a signal that kills us. Output processing stays on,
 * so that our own lines look right.
 *
 * One terminal per process, as the kernel has it. Main thread. */
#pragma once

#include <stdbool.h>
#include <termios.h>

struct tty_mode {
	int fd;
	bool raw;
	bool plain_output; /* what is written there was processed elsewhere; set it before */
	struct termios saved;
};

/* fd is our controlling terminal, and somebody else's turn on it: using it would stop us. */
bool tty_in_background(int fd);
/* Handles the signals that kill. Call it once, before an engine is made: an engine that wants
 * such signals for itself puts its handlers in front of these, and hands on what is not its. */
void tty_mode_guard(void);
/* What fd is to be sent when a signal kills us, to end what we began there: a text that lasts, or
 * NULL: nothing. Any thread. */
void tty_mode_leave_with(int fd, const char *text);
/* Does nothing when fd is no terminal, or we are in its background. */
void tty_mode_raw(struct tty_mode *t, int fd);
void tty_mode_restore(struct tty_mode *t);
