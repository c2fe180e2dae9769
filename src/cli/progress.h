/* progress: tells people how far something long is, on standard error: a bar that is drawn
 * over and over on a terminal, plain lines where they were asked for, else nothing. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct progress {
	bool bar, lines;
	uint64_t start_ns, shown_ns; /* shown_ns: 0 before anything was shown */
	unsigned width;              /* columns of what stands there */
};

/* asked: by an option, so that something comes in a pipe, too. Nothing comes under --quiet. */
void progress_begin(struct progress *p, bool asked);
/* As often as you like. */
void progress_step(struct progress *p, uint64_t done, uint64_t total);
/* Takes the bar away, or prints the last line. */
void progress_end(struct progress *p, uint64_t done, uint64_t total);

/* " 45%  460 MiB of 1 GiB, 512 MiB/s, 0:03 left"; with room in width a bar in front of it.
 * Returns its length. */
size_t progress_text(char *to, size_t room, unsigned width, uint64_t done, uint64_t total,
		     uint64_t elapsed_ns);
