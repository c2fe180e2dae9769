/* interrupt: signals that ask a long command to end, as something it looks at now and then, so
 * that it ends cleanly. */
#pragma once

#include <signal.h>
#include <stdbool.h>

#include "base/bits.h"
#include "base/err.h"

struct interrupt {
	int fd;     /* signalfd of SIGINT, SIGTERM and SIGHUP, which are blocked meanwhile */
	int signal; /* that came; 0: none */
	sigset_t old_mask;
};

WARN_UNUSED int interrupt_init(struct interrupt *i, struct err *e);
bool interrupt_came(struct interrupt *i);
void interrupt_done(struct interrupt *i);
