/* console_log: the last of what a guest said, in a file of fixed size that is used as a ring, so that
 * it can be read while the VM runs, after it was killed, and never fills a disk. Readers know a
 * place in the guest's output by how many bytes came before it.
 *
 * put: any thread; the others too. A file may be read while its owner writes. */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/bits.h"
#include "base/err.h"

#define CONSOLE_LOG_BYTES KIB(256)

struct console_log {
	struct console_log_file *file; /* mapped; or not in a file */
	pthread_mutex_t lock;
};

/* path: NULL: in memory alone. */
WARN_UNUSED int console_log_new(struct console_log *l, const char *path, struct err *e);
/* Of a VM that has ended. */
WARN_UNUSED int console_log_open(struct console_log *l, const char *path, struct err *e);
void console_log_done(struct console_log *l);

void console_log_put(struct console_log *l, const void *bytes, uint32_t len);
uint64_t console_log_end(struct console_log *l); /* how many bytes there ever were */
/* Copies from place *at on, or from the oldest that is still there; moves *at behind them. */
uint32_t console_log_read(struct console_log *l, uint64_t *at, void *to, uint32_t max);
/* The place where the last so many lines begin. */
uint64_t console_log_lines(struct console_log *l, uint32_t lines);
