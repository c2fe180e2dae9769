/* batch: runs the cases of a batch in a forked child, results in shared memory. A case
 * that kills or hangs the child is reported as not having run, and a new child goes on
 * with the next: neither the oracle nor a broken engine takes the suite down.
 * Single-threaded. */
#pragma once

#include "base/err.h"
#include "user.h"

struct batch_runner {
	/* In the child, once: maps windows, makes the VM. 0 or a negative errno. */
	int (*prepare)(struct batch_runner *b, const struct user_case *cases, unsigned n,
		       const struct user_image *image, struct err *e);
	/* In the child: fills *end, with end->ran set when the case came to an end. */
	void (*one)(struct batch_runner *b, const struct user_case *c,
		    const struct user_image *image, struct user_end *end);
};

/* end: n results in memory from batch_results. */
WARN_UNUSED int batch_run(struct batch_runner *b, const struct user_case *cases, unsigned n,
			  const struct user_image *image, struct user_end *end, struct err *e);

/* Shared memory for n results; freed by batch_results_free. */
struct user_end *batch_results(unsigned n);
void batch_results_free(struct user_end *end, unsigned n);
