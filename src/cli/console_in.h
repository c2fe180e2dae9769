/* console_in: from standard input to the guest's serial port or keyboard, less Holon's own keys.
 *
 * A terminal is read all the time, so that Ctrl-A x works on a guest that takes no input;
 * what does not fit is dropped, as by a real line. Anything else is read only as fast as the
 * guest takes it, and a terminal in whose background we are not at all. The end of input leaves the guest running.
 *
 * All on the loop thread. */
#pragma once

#include "base/loop.h"
#include "cli/console_keys.h"

struct machine;

struct console_in {
	struct machine *machine;
	struct loop_fd watch;
	bool is_terminal, ended;
	bool polled, watched; /* can be in the loop; is */
	struct console_keys keys;
	uint32_t (*input)(void *ctx, const uint8_t *bytes, uint32_t len);
	void (*key)(void *ctx, enum console_key key);
	void *ctx;
	uint32_t len; /* of what the guest has not taken yet */
	uint8_t buf[4096];
};

/* fd stays the caller's; -1: there is none, and what comes is fed. input is given what is typed, and
 * returns how much of it was taken; more is offered when the machine says that there is room. */
void console_in_start(struct console_in *in, int fd, struct machine *m,
		      uint32_t (*input)(void *ctx, const uint8_t *bytes, uint32_t len),
		      void (*key)(void *ctx, enum console_key key), void *ctx);
/* Input from elsewhere: all of it, or false when there is no room. */
bool console_in_feed(struct console_in *in, const uint8_t *bytes, uint32_t len);
void console_in_continue(struct console_in *in); /* the terminal may be ours again */
void console_in_stop(struct console_in *in);     /* before the machine goes */
