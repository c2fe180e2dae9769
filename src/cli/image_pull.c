/* holon image pull: steps and a bar on standard error, in a pipe a line a second; at last the
 * image's name on standard output. */
#include <stdio.h>

#include "base/log.h"
#include "cli/image.h"
#include "cli/interrupt.h"
#include "cli/progress.h"
#include "image/pull.h"

struct telling {
	struct pull_watcher watcher;
	struct interrupt interrupt;
	struct progress progress;
	bool showing;
	uint64_t done, total;
};

static void end_bar(struct telling *t)
{
	if (t->showing)
		progress_end(&t->progress, t->done, t->total);
	t->showing = false;
}

static void step(struct pull_watcher *w, const char *what)
{
	struct telling *t = container_of(w, struct telling, watcher);

	end_bar(t);
	if (log_enabled(LOG_WARN))
		fprintf(stderr, "%s\n", what);
}

static bool progress(struct pull_watcher *w, uint64_t done, uint64_t total)
{
	struct telling *t = container_of(w, struct telling, watcher);

	if (total != HTTP_LENGTH_UNKNOWN && total) {
		if (!t->showing)
			progress_begin(&t->progress, true);
		t->showing = true;
		t->done = done;
		t->total = total;
		progress_step(&t->progress, done, total);
	}
	return !interrupt_came(&t->interrupt);
}

static void note(struct pull_watcher *w, const char *what)
{
	struct telling *t = container_of(w, struct telling, watcher);

	end_bar(t);
	if (log_enabled(LOG_WARN))
		fprintf(stderr, "holon image pull: %s\n", what);
}

int cmd_image_pull(const void *opts, int words, char **word)
{
	const struct image_pull_opts *o = opts;
	const struct pull_opts p = {.source = word[0], .sha256 = o->sha256, .name = o->name};
	struct telling t = {{step, progress, note}};
	char name[STORE_NAME_MAX + 1];
	struct err e = {0};
	struct store st;
	int r = store_open(&st, NULL, &e);

	if (r == 0 && (r = interrupt_init(&t.interrupt, &e)) == 0) {
		r = pull(&st, &p, &t.watcher, name, &e);
		end_bar(&t);
		interrupt_done(&t.interrupt);
	}
	if (r == 0) {
		puts(name);
		return EXIT_DONE;
	}
	fprintf(stderr, "holon image pull: %s\n", e.text);
	if (t.interrupt.signal)
		fputs("What came so far is kept; the same command goes on with it.\n", stderr);
	return t.interrupt.signal ? EXIT_SIGNALLED + t.interrupt.signal : EXIT_TROUBLE;
}
