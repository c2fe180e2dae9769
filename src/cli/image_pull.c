/* holon image pull: steps and a bar on standard error, in a pipe a line a second; at last the
 * image's name on standard output. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/image.h"
#include "oci/oci.h"

static void end_bar(struct pull_telling *t)
{
	if (t->showing)
		progress_end(&t->progress, t->done, t->total);
	t->showing = false;
}

static void step(struct pull_watcher *w, const char *what)
{
	struct pull_telling *t = container_of(w, struct pull_telling, watcher);

	end_bar(t);
	if (log_enabled(LOG_WARN) && (!t->brief || isatty(STDERR_FILENO) == 1))
		fprintf(stderr, "%s\n", what);
}

static bool progress(struct pull_watcher *w, uint64_t done, uint64_t total)
{
	struct pull_telling *t = container_of(w, struct pull_telling, watcher);

	if (total != HTTP_LENGTH_UNKNOWN && total) {
		if (!t->showing)
			progress_begin(&t->progress, !t->brief);
		t->showing = true;
		t->done = done;
		t->total = total;
		progress_step(&t->progress, done, total);
	}
	return !interrupt_came(&t->interrupt);
}

static void note(struct pull_watcher *w, const char *what)
{
	struct pull_telling *t = container_of(w, struct pull_telling, watcher);

	end_bar(t);
	if (log_enabled(LOG_WARN))
		fprintf(stderr, "holon %s: %s\n", t->command, what);
}

int pull_telling_begin(struct pull_telling *t, const char *command, struct err *e)
{
	*t = (struct pull_telling){{step, progress, note}, .command = command};
	return interrupt_init(&t->interrupt, e);
}

void pull_telling_end(struct pull_telling *t)
{
	end_bar(t);
	interrupt_done(&t->interrupt);
}

static int pull_one(const struct image_pull_opts *o, const struct store *st, const char *word,
		    struct pull_watcher *w, char name[STORE_NAME_MAX + 1], struct err *e)
{
	const struct pull_opts p = {.source = word, .sha256 = o->sha256, .name = o->name};
	struct store_image image;
	int r;

	if (strncmp(word, "oci:", 4) != 0)
		return pull(st, &p, w, name, e);
	if (o->sha256 || o->name)
		return err_set(e, EINVAL,
			       "--sha256 and --name do not go with oci:, whose digests and "
			       "names are the image's own");
	if ((r = oci_get(st, word + 4, true, w, &image, e)) == 0) {
		strcpy(name, image.name);
		store_image_done(&image);
	}
	return r;
}

int cmd_image_pull(const void *opts, int words, char **word)
{
	struct pull_telling t;
	char name[STORE_NAME_MAX + 1];
	struct err e = {0};
	struct store st;
	int r = store_open(&st, NULL, &e);

	t.interrupt.signal = 0;
	if (r == 0 && (r = pull_telling_begin(&t, "image pull", &e)) == 0) {
		r = pull_one(opts, &st, word[0], &t.watcher, name, &e);
		pull_telling_end(&t);
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
