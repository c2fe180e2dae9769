/* holon image build: each step and how long it took, on standard error; a bar while the disk is
 * converted. mmdebstrap, which does most, shows its own progress on a terminal. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "cli/image.h"
#include "cli/progress.h"
#include "image/build.h"

struct telling {
	struct build_watcher watcher;
	struct progress progress;
	bool converting;
	double step_began, began;
	char step[80]; /* empty: none yet */
	uint64_t total;
};

static double seconds_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void end_step(struct telling *t)
{
	if (t->converting)
		progress_end(&t->progress, t->total, t->total);
	if (*t->step && log_enabled(LOG_WARN))
		fprintf(stderr, "  %5.1f s  %s\n", seconds_now() - t->step_began, t->step);
	t->converting = false;
	*t->step = 0;
}

static void step(struct build_watcher *w, const char *what)
{
	struct telling *t = container_of(w, struct telling, watcher);

	end_step(t);
	t->step_began = seconds_now();
	snprintf(t->step, sizeof t->step, "%s", what);
}

static bool progress(struct build_watcher *w, uint64_t done, uint64_t total)
{
	struct telling *t = container_of(w, struct telling, watcher);

	if (!t->converting)
		progress_begin(&t->progress, false);
	t->converting = true;
	t->total = total;
	progress_step(&t->progress, done, total);
	return true;
}

int image_build(const struct store *st, const struct image_build_opts *o, struct err *e)
{
	const struct build_opts b = {.name = o->name,
				     .suite = o->suite,
				     .package = o->package.value,
				     .packages = o->package.n,
				     .size = o->size};
	struct telling t = {{step, progress}, .began = seconds_now()};
	int r;

	if (log_enabled(LOG_WARN))
		fprintf(stderr,
			"Building the image '%s' (Debian %s): one to four minutes, mostly for "
			"packages that are fetched.\n",
			o->name, o->suite);
	r = build_debian(st, &b, &t.watcher, e);
	if (r == 0)
		end_step(&t);
	else if (t.converting)
		progress_end(&t.progress, t.total, t.total);
	if (r == 0 && log_enabled(LOG_WARN))
		fprintf(stderr, "The image '%s' is there, after %.0f s.\n", o->name,
			seconds_now() - t.began);
	return r;
}

int cmd_image_build(const void *opts, int words, char **word)
{
	struct err e = {0};
	struct store st;
	int r;

	if (strcmp(word[0], "debian") != 0)
		r = err_set(&e, EINVAL, "'%s' is not known; 'debian' is what can be built",
			    word[0]);
	else if ((r = store_open(&st, NULL, &e)) == 0)
		r = image_build(&st, opts, &e);
	if (r == 0)
		return EXIT_DONE;
	fprintf(stderr, "holon image build: %s\n", e.text);
	return EXIT_TROUBLE;
}
